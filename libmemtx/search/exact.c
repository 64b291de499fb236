/* Exact search (exact.h).
 *
 * Threads share the queries when there are many: each takes a slice of them over all rows and converts every tile for
 * itself, which costs 1/(queries of the slice) of the product. When there are few queries the threads share the rows:
 * each finds the k best of its part for all queries, and the parts are merged. Tile and block are sized so that the
 * scores of a block stay in a core's second-level cache until they are scanned.
 */
#include "search/exact.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/status.h"
#include "math/linear.h"
#include "math/rows.h"

enum {
    TILE_ROWS = 512,
    BLOCK_QUERIES = 256,
    FEW_QUERIES = 64, /* for each thread; below it the rows are shared out instead */
};

void memtx__exact_take(struct memtx__exact *exact, struct memtx__arena *arena, size_t most_queries, size_t most_k,
                       size_t dim)
{
    size_t n_threads = (size_t)omp_get_max_threads();
    /* When threads share the rows, each has a state for every one of the few queries. */
    size_t n_few = most_queries < n_threads * FEW_QUERIES ? most_queries : n_threads * FEW_QUERIES;
    size_t n_slots = most_queries > n_threads * n_few ? most_queries : n_threads * n_few;
    *exact = (struct memtx__exact){.most_queries = most_queries, .most_k = most_k, .dim = dim, .n_threads = n_threads};
    exact->tiles =
        memtx__arena_take(arena, n_threads * (TILE_ROWS * dim + TILE_ROWS * BLOCK_QUERIES), sizeof *exact->tiles);
    exact->candidates = memtx__arena_take(arena, n_slots, memtx__topk_capacity(most_k) * sizeof *exact->candidates);
    exact->topk = memtx__arena_take(arena, n_slots, sizeof *exact->topk);
}

/* The k best of blocks first_block .. end_block - 1 for n queries, whose states are topk[0 .. n). */
static int scan(struct memtx__topk *topk, struct memtx__exact *exact, const struct memtx__row_set *rows,
                const float *queries, size_t n, size_t first_block, size_t end_block)
{
    const size_t dim = rows->dim;
    float *tile = exact->tiles + (size_t)omp_get_thread_num() * (TILE_ROWS * dim + TILE_ROWS * BLOCK_QUERIES);
    float *scores = tile + TILE_ROWS * dim;
    for (size_t b = first_block; b < end_block; b++) {
        const struct memtx__row_block *block = &rows->blocks[b];
        for (size_t row = 0; row < block->n_rows; row += TILE_ROWS) {
            size_t n_rows = block->n_rows - row < TILE_ROWS ? block->n_rows - row : TILE_ROWS;
            memtx__rows_read(tile, rows->type, block->rows + row * dim * memtx__row_type_bytes(rows->type),
                             n_rows * dim);
            for (size_t q = 0; q < n; q += BLOCK_QUERIES) {
                size_t n_queries = n - q < BLOCK_QUERIES ? n - q : BLOCK_QUERIES;
                int status =
                    memtx__product(scores, queries + q * dim, tile, true, n_queries, n_rows, dim, n_rows, dim, dim);
                if (status) {
                    return status;
                }
                for (size_t i = 0; i < n_queries; i++) {
                    memtx__topk_add(&topk[q + i], scores + i * n_rows, (int64_t)(block->first_id + row), n_rows);
                }
            }
        }
    }
    return MEMTX_OK;
}

static void begin(struct memtx__exact *exact, size_t n_states, size_t k)
{
    for (size_t i = 0; i < n_states; i++) {
        memtx__topk_begin(&exact->topk[i], exact->candidates + i * memtx__topk_capacity(k), k);
    }
}

/* Threads share the queries. */
static int search_many(struct memtx__exact *exact, const struct memtx__row_set *rows, const float *queries,
                       size_t n_queries)
{
    int status = MEMTX_OK;
    const size_t slice = (n_queries + exact->n_threads - 1) / exact->n_threads;
#pragma omp parallel for schedule(static) reduction(min : status) num_threads((int)exact->n_threads)
    for (size_t thread = 0; thread < exact->n_threads; thread++) {
        size_t first = thread * slice, n = n_queries - first < slice ? n_queries - first : slice;
        if (first < n_queries) {
            int failed = scan(exact->topk + first, exact, rows, queries + first * rows->dim, n, 0, rows->n_blocks);
            status = failed < status ? failed : status;
        }
    }
    return status;
}

/* Threads share the rows; states of thread t are t * n_queries .., merged into those of the first. */
static int search_few(struct memtx__exact *exact, const struct memtx__row_set *rows, const float *queries,
                      size_t n_queries)
{
    int status = MEMTX_OK;
    const size_t part = (rows->n_blocks + exact->n_threads - 1) / exact->n_threads;
#pragma omp parallel for schedule(static) reduction(min : status) num_threads((int)exact->n_threads)
    for (size_t thread = 0; thread < exact->n_threads; thread++) {
        size_t first = thread * part, end = first + part < rows->n_blocks ? first + part : rows->n_blocks;
        int failed = scan(exact->topk + thread * n_queries, exact, rows, queries, n_queries, first, end);
        status = failed < status ? failed : status;
    }
    for (size_t thread = 1; thread < exact->n_threads; thread++) {
        for (size_t q = 0; q < n_queries; q++) {
            const struct memtx__topk *found = &exact->topk[thread * n_queries + q];
            for (size_t i = 0; i < found->n; i++) {
                memtx__topk_push(&exact->topk[q], found->candidates[i]);
            }
        }
    }
    return status;
}

static void give(float *scores, int64_t *ids, struct memtx__topk *topk, size_t k)
{
    size_t n = memtx__topk_end(topk);
    for (size_t i = 0; i < k; i++) {
        struct memtx__candidate found = i < n ? topk->candidates[i] : (struct memtx__candidate){-INFINITY, -1};
        if (ids) {
            ids[i] = found.id;
        }
        if (scores) {
            scores[i] = found.score;
        }
    }
}

int memtx__exact_search(float *scores, int64_t *ids, struct memtx__exact *exact, const struct memtx__row_set *rows,
                        const float *queries, size_t n_queries, size_t k)
{
    if (n_queries > exact->most_queries || k > exact->most_k || rows->dim != exact->dim) {
        return memtx__fail(MEMTX_E_INVALID, "a search for %zu queries and k %zu was prepared for %zu and %zu",
                           n_queries, k, exact->most_queries, exact->most_k);
    }
    for (size_t i = 0; i < n_queries * rows->dim; i++) {
        if (!isfinite(queries[i])) {
            return memtx__fail(MEMTX_E_INVALID, "query %zu of the search is not finite", i / rows->dim);
        }
    }
    bool few = n_queries < FEW_QUERIES * exact->n_threads;
    begin(exact, few ? n_queries * exact->n_threads : n_queries, k);
    int status = few ? search_few(exact, rows, queries, n_queries) : search_many(exact, rows, queries, n_queries);
    if (status) { /* said in the worker's thread: say it in the caller's */
        return memtx__fail(status, "a product of the search failed: %s", memtx_status_text(status));
    }
#pragma omp parallel for schedule(static)
    for (size_t q = 0; q < n_queries; q++) {
        give(scores ? scores + q * k : NULL, ids ? ids + q * k : NULL, &exact->topk[q], k);
    }
    return MEMTX_OK;
}
