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
#include "math/clones.h"
#include "math/rows.h"
#include "search/exact_tile.h"

enum {
    FEW_QUERIES = 64,  /* for each thread; below it the rows are shared out instead */
    LEAST_SPARE = 32,  /* candidates beyond k, however small k is */
    SUMS_AT_ONCE = 8,  /* of candidates that are scored again */
    FETCHED_AHEAD = 8, /* candidates' rows */
};

/* Of each type, for each neighbour (bench/README.md). */
static size_t default_candidates(enum memtx__precision precision)
{
    return precision == MEMTX__PRECISION_F32 ? 1 : 2;
}

void memtx__exact_take(struct memtx__exact *exact, struct memtx__arena *arena, size_t most_queries, size_t most_k,
                       size_t dim)
{
    memtx__exact_take_low(exact, arena, (struct memtx__first_pass){.precision = MEMTX__PRECISION_F32}, most_queries,
                          most_k, dim);
}

/* What the first pass finds for k neighbours. */
static size_t n_found_first(const struct memtx__exact *exact, size_t k)
{
    if (exact->precision == MEMTX__PRECISION_F32) {
        return k;
    }
    size_t n = k * exact->n_candidates;
    n = n < k + LEAST_SPARE ? k + LEAST_SPARE : n;
    return n < MEMTX__TOPK_MOST_K ? n : MEMTX__TOPK_MOST_K;
}

void memtx__exact_take_low(struct memtx__exact *exact, struct memtx__arena *arena, struct memtx__first_pass pass,
                           size_t most_queries, size_t most_k, size_t dim)
{
    const enum memtx__precision precision =
        memtx__precision_is_fast(pass.precision) ? pass.precision : MEMTX__PRECISION_F32;
    size_t n_threads = (size_t)omp_get_max_threads();
    /* When threads share the rows, each has a state for every one of the few queries. */
    size_t n_few = most_queries < n_threads * FEW_QUERIES ? most_queries : n_threads * FEW_QUERIES;
    size_t n_slots = most_queries > n_threads * n_few ? most_queries : n_threads * n_few;
    struct memtx__arena counting = {0};
    struct memtx__tile tile;
    memtx__tile_take(&tile, &counting, precision, dim);
    *exact =
        (struct memtx__exact){.most_queries = most_queries,
                              .most_k = most_k,
                              .dim = dim,
                              .n_threads = n_threads,
                              .precision = precision,
                              .n_candidates = pass.n_candidates ? pass.n_candidates : default_candidates(precision),
                              .tile_bytes = counting.used_bytes};
    exact->tiles = memtx__arena_take(arena, n_threads, exact->tile_bytes);
    if (precision != MEMTX__PRECISION_F32) {
        exact->low_queries = memtx__arena_take(arena, (most_queries + MEMTX__TILE_QUERIES_BF16) * dim,
                                               memtx__tile_query_bytes(precision));
    }
    exact->candidates = memtx__arena_take(
        arena, n_slots, memtx__topk_capacity(n_found_first(exact, most_k)) * sizeof *exact->candidates);
    exact->topk = memtx__arena_take(arena, n_slots, sizeof *exact->topk);
}

int memtx__exact_prepare(struct memtx__exact *exact)
{
    if (exact->precision != MEMTX__PRECISION_BF16) {
        return MEMTX_OK;
    }
    return memtx__bf16_product_create(&exact->product, exact->n_threads, MEMTX__TILE_QUERIES_BF16, MEMTX__TILE_ROWS,
                                      exact->dim);
}

void memtx__exact_release(struct memtx__exact *exact)
{
    memtx__bf16_product_destroy(exact->product);
    exact->product = NULL;
}

/* ---- the first pass --------------------------------------------------------------------------- */

/* One search; in low precision candidates have places instead of ids: block << 32 | row of the block. */
struct search {
    struct memtx__exact *exact;
    const struct memtx__row_set *rows;
    const float *queries;
    size_t n_queries;
    size_t k;
    enum memtx__precision precision;
    const unsigned char *pass_queries; /* in the type of the pass */
};

static struct memtx__tile tile_of_thread(const struct memtx__exact *exact, enum memtx__precision precision)
{
    const size_t thread = (size_t)omp_get_thread_num();
    struct memtx__arena arena = {exact->tiles + thread * exact->tile_bytes, 0, exact->tile_bytes};
    struct memtx__tile tile;
    memtx__tile_take(&tile, &arena, precision, exact->dim);
    tile.product = exact->product;
    tile.thread = thread;
    return tile;
}

/* Multiplies the tile by queries first .. first + n - 1, whose states are topk[0 .. n). */
static int scan_tile(struct memtx__topk *topk, const struct search *search, struct memtx__tile *tile, size_t first,
                     size_t n, int64_t first_id)
{
    const size_t most = memtx__tile_most_queries(search->precision);
    const size_t query_bytes = search->rows->dim * memtx__tile_query_bytes(search->precision);
    for (size_t q = 0; q < n; q += most) {
        const size_t n_queries = n - q < most ? n - q : most;
        int status = memtx__tile_multiply(tile, search->pass_queries + (first + q) * query_bytes, n_queries);
        if (status) {
            return status;
        }
        for (size_t i = 0; i < n_queries; i++) {
            memtx__topk_add(&topk[q + i], memtx__tile_scores(tile, i), first_id, tile->n_rows);
        }
    }
    return MEMTX_OK;
}

/* The best of blocks first_block .. end_block - 1 for queries first .. first + n - 1, whose states are topk[0 .. n). */
static int scan(struct memtx__topk *topk, const struct search *search, size_t first, size_t n, size_t first_block,
                size_t end_block)
{
    const struct memtx__row_set *rows = search->rows;
    const size_t row_bytes = rows->dim * memtx__row_type_bytes(rows->type);
    struct memtx__tile tile = tile_of_thread(search->exact, search->precision);
    for (size_t b = first_block; b < end_block; b++) {
        const struct memtx__row_block *block = &rows->blocks[b];
        const int64_t first_id =
            search->precision == MEMTX__PRECISION_F32 ? (int64_t)block->first_id : (int64_t)((uint64_t)b << 32);
        for (size_t row = 0; row < block->n_rows; row += MEMTX__TILE_ROWS) {
            size_t n_rows = block->n_rows - row < MEMTX__TILE_ROWS ? block->n_rows - row : MEMTX__TILE_ROWS;
            memtx__tile_read(&tile, rows->type, block->rows + row * row_bytes, n_rows);
            int status = scan_tile(topk, search, &tile, first, n, first_id + (int64_t)row);
            if (status) {
                return status;
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
static int search_many(const struct search *search)
{
    int status = MEMTX_OK;
    struct memtx__exact *exact = search->exact;
    const size_t n_queries = search->n_queries, slice = (n_queries + exact->n_threads - 1) / exact->n_threads;
#pragma omp parallel for schedule(static) reduction(min : status) num_threads((int)exact->n_threads)
    for (size_t thread = 0; thread < exact->n_threads; thread++) {
        size_t first = thread * slice, n = n_queries - first < slice ? n_queries - first : slice;
        if (first < n_queries) {
            int failed = scan(exact->topk + first, search, first, n, 0, search->rows->n_blocks);
            status = failed < status ? failed : status;
        }
    }
    return status;
}

/* Threads share the rows; states of thread t are t * n_queries .., merged into those of the first. */
static int search_few(const struct search *search)
{
    int status = MEMTX_OK;
    struct memtx__exact *exact = search->exact;
    const size_t n_queries = search->n_queries, n_blocks = search->rows->n_blocks;
    const size_t part = (n_blocks + exact->n_threads - 1) / exact->n_threads;
#pragma omp parallel for schedule(static) reduction(min : status) num_threads((int)exact->n_threads)
    for (size_t thread = 0; thread < exact->n_threads; thread++) {
        size_t first = thread * part, end = first + part < n_blocks ? first + part : n_blocks;
        int failed = scan(exact->topk + thread * n_queries, search, 0, n_queries, first, end);
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

/* ---- the second ------------------------------------------------------------------------------- */

static const unsigned char *row_at(const struct memtx__row_set *rows, int64_t place)
{
    const size_t row = (size_t)(place & UINT32_MAX);
    return rows->blocks[place >> 32].rows + row * rows->dim * memtx__row_type_bytes(rows->type);
}

/* The rows of n candidates, in f32. They lie anywhere: fetched ahead, they are waited for together. */
static void gather(float *out, const struct memtx__row_set *rows, const struct memtx__candidate *candidates, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (i + FETCHED_AHEAD < n) {
            const unsigned char *next = row_at(rows, candidates[i + FETCHED_AHEAD].id);
            __builtin_prefetch(next);
            __builtin_prefetch(next + 64);
        }
        memtx__rows_read(out + i * rows->dim, rows->type, row_at(rows, candidates[i].id), rows->dim);
    }
}

/* Scores of n rows, rounded up to whole SUMS_AT_ONCE. Each sum adds up in order with one rounding for each term, as
 * oneDNN does for a tile: a dot product that is vector code by itself would give other last bits. */
MEMTX__CLONES static void add_up(float *scores, const float *query, const float *rows, size_t n, size_t dim)
{
    for (size_t row = 0; row < n; row += SUMS_AT_ONCE) {
        float sums[SUMS_AT_ONCE] = {0};
        for (size_t d = 0; d < dim; d++) {
            for (size_t i = 0; i < SUMS_AT_ONCE; i++) {
                sums[i] = fmaf(query[d], rows[(row + i) * dim + d], sums[i]);
            }
        }
        memcpy(scores + row, sums, sizeof sums);
    }
}

/* Scores the candidates of query q again, as a search in f32 does, and gives them their ids. */
static void score_again(const struct search *search, struct memtx__tile *tile, size_t q)
{
    const size_t dim = search->rows->dim;
    struct memtx__topk *topk = &search->exact->topk[q];
    float *scores = tile->products;
    const size_t n_found = memtx__topk_cut(topk);
    topk->n = 0;
    topk->k = search->k;
    for (size_t at = 0; at < n_found; at += MEMTX__TILE_ROWS) {
        struct memtx__candidate *candidates = topk->candidates + at;
        const size_t n = n_found - at < MEMTX__TILE_ROWS ? n_found - at : MEMTX__TILE_ROWS;
        gather(tile->rows, search->rows, candidates, n);
        add_up(scores, search->queries + q * dim, tile->rows, n, dim);
        for (size_t i = 0; i < n; i++) {
            const struct memtx__row_block *block = &search->rows->blocks[candidates[i].id >> 32];
            const int64_t id = (int64_t)(block->first_id + (uint64_t)(candidates[i].id & UINT32_MAX));
            if (isfinite(scores[i])) {
                topk->candidates[topk->n++] = (struct memtx__candidate){scores[i], id};
            }
        }
    }
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

static void finish(float *scores, int64_t *ids, const struct search *search)
{
    const size_t k = search->k;
#pragma omp parallel for schedule(static) num_threads((int)search->exact->n_threads)
    for (size_t q = 0; q < search->n_queries; q++) {
        if (search->precision != MEMTX__PRECISION_F32) {
            struct memtx__tile tile = tile_of_thread(search->exact, MEMTX__PRECISION_F32);
            score_again(search, &tile, q);
        }
        give(scores ? scores + q * k : NULL, ids ? ids + q * k : NULL, &search->exact->topk[q], k);
    }
}

/* ---- the search ------------------------------------------------------------------------------- */

int memtx__exact_check_queries(const float *queries, size_t n_queries, size_t dim)
{
    for (size_t i = 0; i < n_queries * dim; i++) {
        if (!isfinite(queries[i])) {
            return memtx__fail(MEMTX_E_INVALID, "query %zu of the search is not finite", i / dim);
        }
    }
    return MEMTX_OK;
}

static int check(const struct memtx__exact *exact, const struct memtx__row_set *rows, const float *queries,
                 size_t n_queries, size_t k)
{
    if (n_queries > exact->most_queries || k > exact->most_k || rows->dim != exact->dim) {
        return memtx__fail(MEMTX_E_INVALID, "a search for %zu queries and k %zu was prepared for %zu and %zu",
                           n_queries, k, exact->most_queries, exact->most_k);
    }
    return memtx__exact_check_queries(queries, n_queries, rows->dim);
}

/* The queries in the type of the pass, and zeros behind them to the end of a block. */
static void round_queries(const struct search *search)
{
    const size_t dim = search->rows->dim, query_bytes = dim * memtx__tile_query_bytes(search->precision);
    unsigned char *low = search->exact->low_queries;
#pragma omp parallel for schedule(static) num_threads((int)search->exact->n_threads)
    for (size_t q = 0; q < search->n_queries; q++) {
        memtx__tile_round_queries(low + q * query_bytes, search->precision, search->queries + q * dim, 1, dim);
    }
    memset(low + search->n_queries * query_bytes, 0, MEMTX__TILE_QUERIES_BF16 * query_bytes);
}

int memtx__exact_search(float *scores, int64_t *ids, struct memtx__exact *exact, const struct memtx__row_set *rows,
                        const float *queries, size_t n_queries, size_t k)
{
    int status = check(exact, rows, queries, n_queries, k);
    if (status) {
        return status;
    }
    struct search search = {exact, rows, queries, n_queries, k, MEMTX__PRECISION_F32, (const unsigned char *)queries};
    if (exact->precision != MEMTX__PRECISION_F32 && n_queries >= MEMTX__EXACT_LEAST_LOW_QUERIES) {
        search.precision = exact->precision;
        search.pass_queries = exact->low_queries;
        round_queries(&search);
    }
    bool few = n_queries < FEW_QUERIES * exact->n_threads;
    begin(exact, few ? n_queries * exact->n_threads : n_queries,
          search.precision == MEMTX__PRECISION_F32 ? k : n_found_first(exact, k));
    status = few ? search_few(&search) : search_many(&search);
    if (status) { /* said in the worker's thread: say it in the caller's */
        return memtx__fail(status, "a product of the search failed: %s", memtx_status_text(status));
    }
    finish(scores, ids, &search);
    return MEMTX_OK;
}
