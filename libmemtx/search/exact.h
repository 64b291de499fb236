/* Exact search: every visible row is scored by inner product, for whole segments of queries at once.
 *
 * Rows are converted from their stored type a tile at a time, a product meets the tile with a block of queries, and the
 * k best of each query are kept by threshold. The default index, and the oracle of every other.
 *
 * The first pass over all rows may be made in bf16 or int8, where the processor multiplies these faster. Whatever it is
 * made in, the scores that order what was found, and that are given out, are memtx__dot's of the query and the stored
 * row.
 *
 * In int8 nothing is lost but what rounding of f32 alone tells apart. A row's upper bound (exact_i8.h) is compared with
 * a limit that is guessed for each query from a sample of the rows, and the few rows above it are scored at once, while
 * they are in the cache. When the k-th score is above what the limit stands for, no other row can be one of the k best.
 * Queries of which this cannot be said, few of a model's, are searched again in f32. In bf16 the k best are looked for
 * among some more, and a neighbour is lost where more rows than these look better in the low precision.
 */
#ifndef MEMTX_SEARCH_EXACT_H
#define MEMTX_SEARCH_EXACT_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "math/linear.h"
#include "math/topk.h"
#include "memtx/store.h"
#include "search/exact_i8.h"

/* Consecutive rows of one (layer, kv head) that stand together in memory. Borrowed. */
struct memtx__row_block {
    const unsigned char *rows; /* [n_rows][dim] of the set's type */
    uint64_t first_id;
    size_t n_rows;
};

/* What a search sees: blocks of rows in ascending order of id. */
struct memtx__row_set {
    const struct memtx__row_block *blocks;
    size_t n_blocks;
    enum memtx_row_type type;
    size_t dim;
};

/* How the first pass is made. */
struct memtx__first_pass {
    enum memtx__precision precision;
    size_t n_candidates; /* in low precision, rows that are looked at for each neighbour: 1..8; 0 is the default of the
                          * type */
};

/* Of a first pass in int8. */
struct memtx__exact_bounds {
    float *centre;                /* [dim] */
    int8_t *numbers;              /* [most_queries][memtx__i8_query_bytes(dim)] */
    struct memtx__i8_side *sides; /* [most_queries] */
    float loss;                   /* the largest of the sides' */
    struct memtx__i8_rows sample; /* of which limits are guessed */
    float *limits;                /* [states]: of each query and part of the rows; they rise as more is found */
    bool *is_sure;                /* [most_queries]: nothing was lost */
    size_t *again;                /* [most_queries]: those that are searched again */
    float *queries;               /* [most_queries][dim] of these */
    size_t n_again;               /* in the last search */
};

/* Scratch of one searcher, sized once. */
struct memtx__exact {
    size_t most_queries;
    size_t most_k;
    size_t dim;
    size_t n_threads;
    enum memtx__precision precision; /* of the first pass of LEAST_LOW_QUERIES queries and more */
    enum memtx__precision made_in;   /* the first pass of the last search */
    size_t n_candidates;             /* for each neighbour */
    struct memtx__bf16_product *product;
    unsigned char *tiles; /* [n_threads][tile_bytes]: a struct memtx__tile's scratch each */
    size_t tile_bytes;
    unsigned char *low_queries; /* [most_queries and a block] as the first pass takes them; in int8 with the limits */
    struct memtx__exact_bounds bounds;
    struct memtx__candidate *candidates; /* [states][memtx__topk_capacity(what a state holds)] */
    struct memtx__topk *topk;            /* their ids are places: block << 32 | row of the block */
    size_t *next_block;                  /* [n_threads]: that is still to be searched, for each slice of the queries */
};

/* Fewer queries are searched in f32 always: reading the rows is most of the work then. In int8 so are fewer rows than
 * this times those that are looked at. */
enum { MEMTX__EXACT_LEAST_LOW_QUERIES = 64, MEMTX__EXACT_LEAST_I8_SHARES = 16 };

/* Takes the scratch for up to most_queries queries and most_k neighbours from an arena (see base/arena.h), for the
 * number of threads that OpenMP has now; the first pass is made in f32. */
void memtx__exact_take(struct memtx__exact *exact, struct memtx__arena *arena, size_t most_queries, size_t most_k,
                       size_t dim);

/* The same with another first pass. Where the processor is not fast in its precision (memtx__precision_is_fast), it is
 * made in f32 after all; exact->precision says so. */
void memtx__exact_take_low(struct memtx__exact *exact, struct memtx__arena *arena, struct memtx__first_pass pass,
                           size_t most_queries, size_t most_k, size_t dim);

/* Makes ready what the first pass multiplies with, after the scratch was taken from its real arena; the caller owes a
 * memtx__exact_release. Nothing is needed for f32. On failure nothing is left to release. */
int memtx__exact_prepare(struct memtx__exact *exact);
void memtx__exact_release(struct memtx__exact *exact);

/* That all numbers of queries[n_queries][dim] are finite: MEMTX_E_INVALID names the first query that is not. */
int memtx__exact_check_queries(const float *queries, size_t n_queries, size_t dim);

/* ids[n_queries][k] and scores[n_queries][k] (either may be NULL), best first, ties to the lower id; where fewer than k
 * rows are visible the rest is id -1, score -inf. queries[n_queries][dim] must be finite. Uses all threads. Up to 2^31
 * blocks of up to 2^32 rows each. MEMTX_E_INVALID (a query that is not finite), or what the product says. */
int memtx__exact_search(float *scores, int64_t *ids, struct memtx__exact *exact, const struct memtx__row_set *rows,
                        const float *queries, size_t n_queries, size_t k);

#endif
