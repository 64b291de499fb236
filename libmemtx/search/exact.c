/* Exact search (exact.h).
 *
 * Threads share queries and rows: each takes a slice of the queries over a part of the rows, which is whatever blocks
 * the others have not taken yet, and what is found in the parts is merged. For a part each query has one state more,
 * for a slice each tile is converted once more. So few queries have parts only; many in f32 slices only; and in int8,
 * where a tile costs as much as some eighty queries, there are parts first. Tile and block are sized so that the
 * products of a block stay in a core's second-level cache until they are scanned.
 */
#include "search/exact.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/status.h"
#include "math/rows.h"
#include "search/exact_call.h"

enum {
    FEW_QUERIES = 64,  /* for each thread: fewer share the rows */
    MOST_PARTS = 4,    /* of the rows, for more queries than that */
    FEW_FOUND = 256,   /* hits of all queries: fewer are scored by one thread */
    LEAST_SPARE = 32,  /* candidates beyond k in low precision, however small k is */
    F32_SPARE = 4,     /* beyond k in f32 */
    FETCHED_AHEAD = 8, /* candidates' rows */
};

/* Of each type, for each neighbour (bench/README.md). */
static size_t default_candidates(enum memtx__precision precision)
{
    return precision == MEMTX__PRECISION_F32 ? 1 : precision == MEMTX__PRECISION_I8 ? 5 : 2;
}

void memtx__exact_take(struct memtx__exact *exact, struct memtx__arena *arena, size_t most_queries, size_t most_k,
                       size_t dim)
{
    memtx__exact_take_low(exact, arena, (struct memtx__first_pass){.precision = MEMTX__PRECISION_F32}, most_queries,
                          most_k, dim);
}

size_t memtx__exact_n_candidates(const struct memtx__exact *exact, size_t k)
{
    const size_t n = k * exact->n_candidates;
    return n < k + LEAST_SPARE ? k + LEAST_SPARE : n;
}

/* What a state holds of a search for k. In int8 rows are scored as they come. Of others some more than k are held until
 * they have their scores: in f32 a few, since a product adds up in another order and may rank those wrong that are as
 * good as equal. */
static size_t n_held(const struct memtx__exact *exact, enum memtx__precision precision, size_t k)
{
    const size_t n = precision == MEMTX__PRECISION_BF16  ? memtx__exact_n_candidates(exact, k)
                     : precision == MEMTX__PRECISION_F32 ? k + F32_SPARE
                                                         : k;
    return n < MEMTX__TOPK_MOST_K ? n : MEMTX__TOPK_MOST_K;
}

/* The same of any search: few queries are searched in f32 always. */
static size_t most_held(const struct memtx__exact *exact)
{
    const size_t n = n_held(exact, exact->precision, exact->most_k);
    const size_t n_in_f32 = n_held(exact, MEMTX__PRECISION_F32, exact->most_k);
    return n > n_in_f32 ? n : n_in_f32;
}

/* Of the rows, so that the threads can share the queries of each evenly. */
static size_t some_parts(size_t n_threads)
{
    size_t n = MOST_PARTS;
    while (n_threads % n) {
        n--;
    }
    return n;
}

void memtx__exact_take_low(struct memtx__exact *exact, struct memtx__arena *arena, struct memtx__first_pass pass,
                           size_t most_queries, size_t most_k, size_t dim)
{
    const enum memtx__precision precision =
        memtx__precision_is_fast(pass.precision) ? pass.precision : MEMTX__PRECISION_F32;
    const size_t n_threads = (size_t)omp_get_max_threads();
    const size_t n_few = most_queries < FEW_QUERIES ? most_queries : FEW_QUERIES;
    const size_t n_some = most_queries * some_parts(n_threads);
    const size_t n_slots = n_some > n_threads * n_few ? n_some : n_threads * n_few;
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
        exact->low_queries =
            memtx__arena_take(arena, most_queries + MEMTX__TILE_QUERIES_BF16, memtx__tile_query_bytes(precision, dim));
    }
    if (precision == MEMTX__PRECISION_I8) {
        memtx__exact_take_bounds(&exact->bounds, arena, most_queries, n_slots, dim);
    }
    exact->candidates =
        memtx__arena_take(arena, n_slots, memtx__topk_capacity(most_held(exact)) * sizeof *exact->candidates);
    exact->topk = memtx__arena_take(arena, n_slots, sizeof *exact->topk);
    exact->next_block = memtx__arena_take(arena, n_threads, sizeof *exact->next_block);
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

/* ---- rows against queries --------------------------------------------------------------------- */

struct memtx__tile memtx__exact_tile(const struct memtx__exact *exact, enum memtx__precision precision)
{
    const size_t thread = (size_t)omp_get_thread_num();
    struct memtx__arena arena = {exact->tiles + thread * exact->tile_bytes, 0, exact->tile_bytes};
    struct memtx__tile tile;
    memtx__tile_take(&tile, &arena, precision, exact->dim);
    tile.product = exact->product;
    tile.thread = thread;
    tile.centre = exact->bounds.centre;
    tile.loss = exact->bounds.loss;
    return tile;
}

/* Offers the products of the tile and some queries to their states topk[n]. */
static int scan_tile(struct memtx__topk *topk, const struct memtx__exact_call *search, struct memtx__tile *tile,
                     struct memtx__share queries, int64_t first_place)
{
    const size_t most = memtx__tile_most_queries(search->precision);
    const size_t query_bytes = memtx__tile_query_bytes(search->precision, search->rows->dim);
    for (size_t q = 0; q < queries.n; q += most) {
        const size_t n = queries.n - q < most ? queries.n - q : most;
        int status = memtx__tile_multiply(tile, search->pass_queries + (queries.first + q) * query_bytes, n);
        if (status) {
            return status;
        }
        memtx__tile_give(topk + q, tile, n, first_place);
    }
    return MEMTX_OK;
}

/* Adds the best of a block for some queries to their states, of which the first is first_state. */
static int scan_block(const struct memtx__exact_call *search, struct memtx__tile *tile, struct memtx__share queries,
                      size_t first_state, size_t block)
{
    const struct memtx__row_set *rows = search->rows;
    const size_t row_bytes = rows->dim * memtx__row_type_bytes(rows->type), n = rows->blocks[block].n_rows;
    int status = MEMTX_OK;
    for (size_t row = 0; row < n && !status; row += MEMTX__TILE_ROWS) {
        const unsigned char *stored = rows->blocks[block].rows + row * row_bytes;
        const int64_t place = (int64_t)((uint64_t)block << 32 | row);
        memtx__tile_read(tile, rows->type, stored, n - row < MEMTX__TILE_ROWS ? n - row : MEMTX__TILE_ROWS);
        if (search->precision == MEMTX__PRECISION_I8) {
            memtx__exact_scan_bounds(search, tile, stored, queries, first_state, place);
        } else {
            status = scan_tile(search->exact->topk + first_state, search, tile, queries, place);
        }
    }
    return status;
}

/* ---- scores ----------------------------------------------------------------------------------- */

static const unsigned char *row_at(const struct memtx__row_set *rows, int64_t place)
{
    const size_t row = (size_t)(place & UINT32_MAX);
    return rows->blocks[place >> 32].rows + row * rows->dim * memtx__row_type_bytes(rows->type);
}

static int64_t id_at(const struct memtx__row_set *rows, int64_t place)
{
    return (int64_t)(rows->blocks[place >> 32].first_id + (uint64_t)(place & UINT32_MAX));
}

/* Scores the candidates of query q anew, from the stored rows. */
static void score_again(const struct memtx__exact_call *search, struct memtx__tile *tile, size_t q)
{
    const struct memtx__row_set *rows = search->rows;
    const size_t dim = rows->dim, row_bytes = dim * memtx__row_type_bytes(rows->type);
    struct memtx__topk *topk = &search->exact->topk[q];
    const size_t n = memtx__topk_cut(topk);
    topk->n = 0;
    topk->k = search->k;
    for (size_t i = 0; i < n; i++) {
        const int64_t place = topk->candidates[i].id;
        if (i + FETCHED_AHEAD < n) {
            memtx__row_fetch(row_at(rows, topk->candidates[i + FETCHED_AHEAD].id), row_bytes);
        }
        memtx__rows_read(tile->rows, rows->type, row_at(rows, place), dim);
        const float score = memtx__dot(search->queries + q * dim, tile->rows, dim);
        if (isfinite(score)) {
            topk->candidates[topk->n++] = (struct memtx__candidate){score, place};
        }
    }
}

/* Sorts what was found for query q, and gives it. */
static void give(float *scores, int64_t *ids, const struct memtx__exact_call *search, size_t q)
{
    const size_t first = (search->where ? search->where[q] : q) * search->k;
    struct memtx__topk *topk = &search->exact->topk[q];
    (void)memtx__topk_end(topk);
    for (size_t i = 0; i < topk->n; i++) {
        topk->candidates[i].id = id_at(search->rows, topk->candidates[i].id);
    }
    memtx__topk_give(scores ? scores + first : NULL, ids ? ids + first : NULL, topk, search->k);
}

static void finish(float *scores, int64_t *ids, const struct memtx__exact_call *search, struct memtx__tile *tile,
                   size_t q)
{
    if (search->precision != MEMTX__PRECISION_I8) {
        score_again(search, tile, q);
    }
    give(scores, ids, search, q);
    if (search->precision == MEMTX__PRECISION_I8) {
        search->exact->bounds.is_sure[q] = memtx__exact_is_sure(search, q);
    }
}

/* ---- among threads ---------------------------------------------------------------------------- */

/* Rows are shared by so many. */
static size_t choose_parts(const struct memtx__exact_call *search)
{
    const size_t n_threads = search->exact->n_threads;
    if (search->n_queries < FEW_QUERIES) {
        return n_threads;
    }
    const bool are_many = search->n_queries >= FEW_QUERIES * n_threads && search->precision != MEMTX__PRECISION_I8;
    return are_many ? 1 : some_parts(n_threads);
}

/* Begins the states [n_parts][n_queries]. */
static void begin(const struct memtx__exact_call *search, size_t n_parts)
{
    struct memtx__exact *exact = search->exact;
    const size_t n = n_held(exact, search->precision, search->k);
    for (size_t i = 0; i < n_parts * search->n_queries; i++) {
        memtx__topk_begin(&exact->topk[i], exact->candidates + i * memtx__topk_capacity(n), n);
        if (search->precision == MEMTX__PRECISION_I8) {
            exact->bounds.limits[i] = memtx__exact_limit(search, i % search->n_queries);
        }
    }
}

/* A thread's part of the rows is one block after another, whichever is next: those of one part ascend. */
static int scan_all(struct memtx__exact_call *search, size_t n_parts)
{
    int status = MEMTX_OK;
    struct memtx__exact *exact = search->exact;
    const size_t n_slices = exact->n_threads / n_parts;
    memset(exact->next_block, 0, n_slices * sizeof *exact->next_block);
#pragma omp parallel for schedule(static) reduction(min : status) num_threads((int)exact->n_threads)
    for (size_t thread = 0; thread < exact->n_threads; thread++) {
        const size_t slice = thread % n_slices, part = thread / n_slices;
        const struct memtx__share queries = memtx__share_of(search->n_queries, slice, n_slices);
        const size_t first_state = part * search->n_queries + queries.first;
        struct memtx__tile tile = memtx__exact_tile(exact, search->precision);
        size_t block = 0;
        int failed = MEMTX_OK;
        while (block < search->rows->n_blocks && !failed) {
#pragma omp atomic capture
            block = exact->next_block[slice]++;
            if (block < search->rows->n_blocks) {
                failed = scan_block(search, &tile, queries, first_state, block);
            }
        }
        status = failed < status ? failed : status;
        if (tile.i8.is_out) {
#pragma omp atomic write
            search->is_out = true;
        }
    }
    return status;
}

/* What other parts found for query q, to its first state. */
static void merge(const struct memtx__exact_call *search, size_t q, size_t n_parts)
{
    struct memtx__topk *topk = &search->exact->topk[q];
    for (size_t part = 1; part < n_parts; part++) {
        const struct memtx__topk *found = &topk[part * search->n_queries];
        for (size_t i = 0; i < found->n; i++) {
            memtx__topk_push(topk, found->candidates[i]);
        }
    }
}

static void finish_all(float *scores, int64_t *ids, const struct memtx__exact_call *search, size_t n_parts)
{
    const size_t n_threads = search->exact->n_threads;
#pragma omp parallel for schedule(static) num_threads((int)n_threads) if (search->n_queries * search->k >= FEW_FOUND)
    for (size_t thread = 0; thread < n_threads; thread++) {
        const struct memtx__share queries = memtx__share_of(search->n_queries, thread, n_threads);
        struct memtx__tile tile = memtx__exact_tile(search->exact, MEMTX__PRECISION_F32);
        for (size_t q = queries.first; q < queries.first + queries.n; q++) {
            merge(search, q, n_parts);
            finish(scores, ids, search, &tile, q);
        }
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

/* The queries in bf16, and zeros behind them to the end of a block. */
static void round_bf16(const struct memtx__exact_call *search)
{
    const size_t dim = search->rows->dim, query_bytes = memtx__tile_query_bytes(search->precision, dim);
    unsigned char *low = search->exact->low_queries;
#pragma omp parallel for schedule(static) num_threads((int)search->exact->n_threads)
    for (size_t q = 0; q < search->n_queries; q++) {
        memtx__tile_round_bf16(low + q * query_bytes, search->queries + q * dim, dim);
    }
    memset(low + search->n_queries * query_bytes, 0, MEMTX__TILE_QUERIES_BF16 * query_bytes);
}

/* Chooses the first pass, and makes the queries ready for it. */
static void choose_pass(struct memtx__exact_call *search)
{
    search->precision = MEMTX__PRECISION_F32;
    search->pass_queries = (const unsigned char *)search->queries;
    for (size_t b = 0; b < search->rows->n_blocks; b++) {
        search->n_rows += search->rows->blocks[b].n_rows;
    }
    if (search->n_queries < MEMTX__EXACT_LEAST_LOW_QUERIES) {
        return;
    }
    if (search->exact->precision == MEMTX__PRECISION_BF16) {
        search->precision = MEMTX__PRECISION_BF16;
        search->pass_queries = search->exact->low_queries;
        round_bf16(search);
    } else if (search->exact->precision == MEMTX__PRECISION_I8 &&
               search->n_rows / MEMTX__EXACT_LEAST_I8_SHARES >= memtx__exact_n_candidates(search->exact, search->k) &&
               memtx__exact_bound_queries(search)) {
        search->precision = MEMTX__PRECISION_I8;
    }
}

static int run(float *scores, int64_t *ids, struct memtx__exact_call *search)
{
    const size_t n_parts = choose_parts(search);
    begin(search, n_parts);
    const int status = scan_all(search, n_parts);
    if (status) { /* said in the worker's thread: say it in the caller's */
        return memtx__fail(status, "a product of the search failed: %s", memtx_status_text(status));
    }
    finish_all(scores, ids, search, n_parts);
    return MEMTX_OK;
}

/* In f32, for those queries of a search in int8 of which it is not sure. */
static int run_again(float *scores, int64_t *ids, const struct memtx__exact_call *search)
{
    struct memtx__exact_call again = *search;
    again.n_queries = memtx__exact_gather_unsure(search);
    again.queries = search->exact->bounds.queries;
    again.pass_queries = (const unsigned char *)again.queries;
    again.precision = MEMTX__PRECISION_F32;
    again.where = search->exact->bounds.again;
    return again.n_queries ? run(scores, ids, &again) : MEMTX_OK;
}

int memtx__exact_search(float *scores, int64_t *ids, struct memtx__exact *exact, const struct memtx__row_set *rows,
                        const float *queries, size_t n_queries, size_t k)
{
    int status = check(exact, rows, queries, n_queries, k);
    if (status) {
        return status;
    }
    struct memtx__exact_call search = {
        .exact = exact, .rows = rows, .queries = queries, .n_queries = n_queries, .k = k};
    choose_pass(&search);
    exact->made_in = search.precision;
    exact->bounds.n_again = 0;
    status = run(scores, ids, &search);
    return status || search.precision != MEMTX__PRECISION_I8 ? status : run_again(scores, ids, &search);
}
