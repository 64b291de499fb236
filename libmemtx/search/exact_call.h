/* A search on its way, between exact.c and exact_sure.c. */
#ifndef MEMTX_SEARCH_EXACT_CALL_H
#define MEMTX_SEARCH_EXACT_CALL_H

#include <stdbool.h>

#include "search/exact.h"
#include "search/exact_tile.h"

/* In low precision candidates have places instead of ids: block << 32 | row of the block. */
struct memtx__exact_call {
    struct memtx__exact *exact;
    const struct memtx__row_set *rows;
    const float *queries;
    size_t n_queries;
    size_t k;
    enum memtx__precision precision;
    const unsigned char *pass_queries; /* as the pass takes them */
    const size_t *where;               /* [n_queries]: whose hits they are; NULL: their own */
    size_t n_rows;                     /* of all blocks */
    bool is_out;                       /* a row has no bounds */
};

/* The calling thread's tile. */
struct memtx__tile memtx__exact_tile(const struct memtx__exact *exact, enum memtx__precision precision);

/* Multiplies the tile by queries first .. first + n - 1, whose states are topk[n], and offers them the scores. Fails as
 * memtx__tile_multiply does. */
int memtx__exact_scan_tile(struct memtx__topk *topk, const struct memtx__exact_call *search, struct memtx__tile *tile,
                           size_t first, size_t n, int64_t first_id);

/* ---- int8: exact_sure.c ----------------------------------------------------------------------- */

void memtx__exact_take_bounds(struct memtx__exact_bounds *bounds, struct memtx__arena *arena, size_t most_queries,
                              size_t dim);

/* The queries in int8, and what their bounds are made of; false: some have none. */
bool memtx__exact_round_queries(const struct memtx__exact_call *search);

/* What the bounds of rows of interest are above, for queries first .. first + n - 1, whose states are topk[n]: guessed
 * from some of the rows, so that few of all have to be looked at. */
void memtx__exact_begin_limits(struct memtx__topk *topk, const struct memtx__exact_call *search,
                               struct memtx__tile *tile, size_t first, size_t n);

/* Whether rows whose bounds for query q are at most `left` score less than the last of the n that were found. */
bool memtx__exact_is_sure(const struct memtx__exact_call *search, size_t q, size_t n, float left);

/* Of n candidates, in int8, drops those whose bounds for query q are below `score`, a score in f32; gives the number of
 * the others. */
size_t memtx__exact_drop_low(struct memtx__candidate *candidates, const struct memtx__exact_call *search, size_t q,
                             size_t n, float score);

/* Those queries that nothing is sure of, in bounds.again and bounds.queries; their number, with some that stand there
 * again where they are few. */
size_t memtx__exact_gather_unsure(const struct memtx__exact_call *search);

#endif
