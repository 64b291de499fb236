/* A search on its way, between exact.c and exact_bounds.c. */
#ifndef MEMTX_SEARCH_EXACT_CALL_H
#define MEMTX_SEARCH_EXACT_CALL_H

#include <stdbool.h>

#include "search/exact.h"
#include "search/exact_tile.h"

struct memtx__exact_call {
    struct memtx__exact *exact;
    const struct memtx__row_set *rows;
    const float *queries;
    size_t n_queries;
    size_t k;
    enum memtx__precision precision;
    const unsigned char *pass_queries; /* as the pass takes them, not in int8 */
    const size_t *where;               /* [n_queries]: whose hits they are; NULL: their own */
    size_t n_rows;                     /* of all blocks */
    bool is_out;                       /* a row has no bounds */
};

/* The i-th of n even shares of n_items. */
struct memtx__share {
    size_t first, n;
};

static inline struct memtx__share memtx__share_of(size_t n_items, size_t i, size_t n)
{
    const size_t first = n_items * i / n;
    return (struct memtx__share){first, n_items * (i + 1) / n - first};
}

/* Rows that the first pass is to look at for k neighbours. */
size_t memtx__exact_n_candidates(const struct memtx__exact *exact, size_t k);

/* The calling thread's tile. */
struct memtx__tile memtx__exact_tile(const struct memtx__exact *exact, enum memtx__precision precision);

/* ---- int8: exact_bounds.c --------------------------------------------------------------------- */

void memtx__exact_take_bounds(struct memtx__exact_bounds *bounds, struct memtx__arena *arena, size_t most_queries,
                              size_t n_states, size_t dim);

/* The queries in int8, what their bounds are made of, and their limits; false: some have no bounds. */
bool memtx__exact_bound_queries(const struct memtx__exact_call *search);

/* The limit that query q begins with. */
float memtx__exact_limit(const struct memtx__exact_call *search, size_t q);

/* Scores those of the tile's rows, which stand at `stored`, that are above the limits of some queries, and offers them
 * to their states, of which the first is first_state. The first row's place is first_place. */
void memtx__exact_scan_bounds(const struct memtx__exact_call *search, struct memtx__tile *tile,
                              const unsigned char *stored, struct memtx__share queries, size_t first_state,
                              int64_t first_place);

/* Whether all rows that query q did not look at score less than the last of those that it found. */
bool memtx__exact_is_sure(const struct memtx__exact_call *search, size_t q);

/* Those queries that nothing is sure of, in bounds.again and bounds.queries; their number. */
size_t memtx__exact_gather_unsure(const struct memtx__exact_call *search);

#endif
