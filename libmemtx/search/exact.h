/* Exact search: every visible row is scored by inner product, for whole segments of queries at once.
 *
 * Rows are converted from their stored type a tile at a time, a product meets the tile with a block of queries, and the
 * k best of each query are kept by threshold. The default index of small memories, and the oracle of every other.
 */
#ifndef MEMTX_SEARCH_EXACT_H
#define MEMTX_SEARCH_EXACT_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "math/topk.h"
#include "memtx/store.h"

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

/* Scratch of one searcher, sized once. */
struct memtx__exact {
    size_t most_queries;
    size_t most_k;
    size_t dim;
    size_t n_threads;
    float *tiles;                        /* a tile of converted rows and a block of scores for each thread */
    struct memtx__candidate *candidates; /* [states][memtx__topk_capacity(k)] */
    struct memtx__topk *topk;
};

/* Takes the scratch for up to most_queries queries and most_k neighbours from an arena (see base/arena.h), for the
 * number of threads that OpenMP has now. */
void memtx__exact_take(struct memtx__exact *exact, struct memtx__arena *arena, size_t most_queries, size_t most_k,
                       size_t dim);

/* ids[n_queries][k] and scores[n_queries][k] (either may be NULL), best first, ties to the lower id; where fewer than k
 * rows are visible the rest is id -1, score -inf. queries[n_queries][dim] must be finite. Uses all threads.
 * MEMTX_E_INVALID (a query that is not finite), or what the product says. */
int memtx__exact_search(float *scores, int64_t *ids, struct memtx__exact *exact, const struct memtx__row_set *rows,
                        const float *queries, size_t n_queries, size_t k);

#endif
