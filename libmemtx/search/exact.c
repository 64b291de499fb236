/* Exact search (exact.h).
 *
 * Threads share queries and rows: each takes a slice of the queries over a part of the rows, and what is found in
 * the parts is merged. For a part each query has one state more, for a slice each tile is converted once more. So few
 * queries have parts only; many in f32 slices only; and in int8, where a tile costs as much as some eighty queries,
 * there are parts first. Tile and block are sized so that the scores of a block stay in a core's second-level cache
 * until they are scanned.
 */
#include "search/exact.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/status.h"
#include "math/clones.h"
#include "math/rows.h"
#include "search/exact_call.h"

enum {
    FEW_QUERIES = 64,  /* for each thread: fewer share the rows */
    MOST_PARTS = 4,    /* of the rows, for more queries than that */
    LEAST_SPARE = 32,  /* candidates beyond k, however small k is */
    SUMS_AT_ONCE = 8,  /* of candidates that are scored again */
    FETCHED_AHEAD = 8, /* candidates' rows */
};

/* Of each type, for each neighbour (bench/README.md). */
static size_t default_candidates(enum memtx__precision precision)
{
    return precision == MEMTX__PRECISION_F32 ? 1 : precision == MEMTX__PRECISION_I8 ? 6 : 2;
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
        memtx__exact_take_bounds(&exact->bounds, arena, most_queries, dim);
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

int memtx__exact_scan_tile(struct memtx__topk *topk, const struct memtx__exact_call *search, struct memtx__tile *tile,
                           size_t first, size_t n, int64_t first_id)
{
    const size_t most = memtx__tile_most_queries(search->precision);
    const size_t query_bytes = memtx__tile_query_bytes(search->precision, search->rows->dim);
    for (size_t q = 0; q < n; q += most) {
        const size_t n_queries = n - q < most ? n - q : most;
        int status = memtx__tile_multiply(tile, search->pass_queries + (first + q) * query_bytes, topk + q, n_queries);
        if (status) {
            return status;
        }
        memtx__tile_give(topk + q, tile, n_queries, first_id);
    }
    return MEMTX_OK;
}

/* Adds the best of blocks first_block .. end_block - 1 for queries first .. first + n - 1 to their states topk[n]. */
static int scan(struct memtx__topk *topk, struct memtx__exact_call *search, size_t first, size_t n, size_t first_block,
                size_t end_block)
{
    const struct memtx__row_set *rows = search->rows;
    const size_t row_bytes = rows->dim * memtx__row_type_bytes(rows->type);
    struct memtx__tile tile = memtx__exact_tile(search->exact, search->precision);
    for (size_t b = first_block; b < end_block; b++) {
        const struct memtx__row_block *block = &rows->blocks[b];
        const int64_t first_id =
            search->precision == MEMTX__PRECISION_F32 ? (int64_t)block->first_id : (int64_t)((uint64_t)b << 32);
        for (size_t row = 0; row < block->n_rows; row += MEMTX__TILE_ROWS) {
            size_t n_rows = block->n_rows - row < MEMTX__TILE_ROWS ? block->n_rows - row : MEMTX__TILE_ROWS;
            memtx__tile_read(&tile, rows->type, block->rows + row * row_bytes, n_rows);
            int status = memtx__exact_scan_tile(topk, search, &tile, first, n, first_id + (int64_t)row);
            if (status) {
                return status;
            }
        }
    }
    if (search->precision == MEMTX__PRECISION_I8 && tile.i8.is_out) {
#pragma omp atomic write
        search->is_out = true;
    }
    return MEMTX_OK;
}

/* ---- the second ------------------------------------------------------------------------------- */

static const unsigned char *row_at(const struct memtx__row_set *rows, int64_t place)
{
    const size_t row = (size_t)(place & UINT32_MAX);
    return rows->blocks[place >> 32].rows + row * rows->dim * memtx__row_type_bytes(rows->type);
}

/* The rows of n candidates, in f32. */
static void gather(float *out, const struct memtx__row_set *rows, const struct memtx__candidate *candidates, size_t n)
{
    const size_t row_bytes = rows->dim * memtx__row_type_bytes(rows->type);
    for (size_t i = 0; i < n; i++) {
        if (i + FETCHED_AHEAD < n) {
            memtx__row_fetch(row_at(rows, candidates[i + FETCHED_AHEAD].id), row_bytes);
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

/* Scores candidates first .. first + n - 1 of query q, as a search in f32 does, gives them their ids, and moves them
 * behind those that were scored before. */
static void score_some(const struct memtx__exact_call *search, struct memtx__tile *tile, size_t q, size_t first,
                       size_t n)
{
    const size_t dim = search->rows->dim;
    struct memtx__topk *topk = &search->exact->topk[q];
    float *scores = tile->products;
    for (size_t at = first; at < first + n; at += MEMTX__TILE_ROWS) {
        struct memtx__candidate *candidates = topk->candidates + at;
        const size_t n_some = first + n - at < MEMTX__TILE_ROWS ? first + n - at : MEMTX__TILE_ROWS;
        gather(tile->rows, search->rows, candidates, n_some);
        add_up(scores, search->queries + q * dim, tile->rows, n_some, dim);
        for (size_t i = 0; i < n_some; i++) {
            const struct memtx__row_block *block = &search->rows->blocks[candidates[i].id >> 32];
            const int64_t id = (int64_t)(block->first_id + (uint64_t)(candidates[i].id & UINT32_MAX));
            if (isfinite(scores[i])) {
                topk->candidates[topk->n++] = (struct memtx__candidate){scores[i], id};
            }
        }
    }
}

/* Scores the candidates of query q again. What is no candidate had at most *left in the first pass: -inf where there is
 * nothing else. In int8 those of the highest bounds come first and spare most of the others: no cut is needed. */
static void score_again(float *left, const struct memtx__exact_call *search, struct memtx__tile *tile, size_t q)
{
    const size_t k = search->k;
    struct memtx__topk *topk = &search->exact->topk[q];
    const bool is_i8 = search->precision == MEMTX__PRECISION_I8;
    const size_t n_found = is_i8 ? topk->n : memtx__topk_cut(topk);
    const size_t n_first = is_i8 ? memtx__topk_split(topk, k + k / 2) : n_found;
    *left = topk->threshold;
    topk->n = 0;
    topk->k = k;
    score_some(search, tile, q, 0, n_first);
    if (n_first < n_found) {
        topk->threshold = -INFINITY; /* until there are more than k */
        (void)memtx__topk_cut(topk);
        score_some(search, tile, q, n_first,
                   memtx__exact_drop_low(topk->candidates + n_first, search, q, n_found - n_first, topk->threshold));
    }
}

/* Sorts what was found for query q; gives its number. */
static size_t give(float *scores, int64_t *ids, const struct memtx__exact_call *search, size_t q)
{
    const size_t k = search->k, first = (search->where ? search->where[q] : q) * k;
    struct memtx__topk *topk = &search->exact->topk[q];
    const size_t n = memtx__topk_end(topk);
    for (size_t i = 0; i < k; i++) {
        struct memtx__candidate found = i < n ? topk->candidates[i] : (struct memtx__candidate){-INFINITY, -1};
        if (ids) {
            ids[first + i] = found.id;
        }
        if (scores) {
            scores[first + i] = found.score;
        }
    }
    return n;
}

static void finish(float *scores, int64_t *ids, const struct memtx__exact_call *search, struct memtx__tile *tile,
                   size_t q)
{
    float left = -INFINITY;
    if (search->precision != MEMTX__PRECISION_F32) {
        score_again(&left, search, tile, q);
    }
    const size_t n_found = give(scores, ids, search, q);
    if (search->precision == MEMTX__PRECISION_I8) {
        search->exact->bounds.is_sure[q] = memtx__exact_is_sure(search, q, n_found, left);
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

/* The i-th of n even shares of n_items. */
struct share {
    size_t first, n;
};

static struct share share_of(size_t n_items, size_t i, size_t n)
{
    const size_t first = n_items * i / n;
    return (struct share){first, n_items * (i + 1) / n - first};
}

/* Begins the states [n_parts][n_queries]. */
static void begin(const struct memtx__exact_call *search, size_t n_parts)
{
    struct memtx__exact *exact = search->exact;
    const size_t n_queries = search->n_queries;
    const size_t k = search->precision == MEMTX__PRECISION_F32 ? search->k : n_found_first(exact, search->k);
    for (size_t i = 0; i < n_parts * n_queries; i++) {
        memtx__topk_begin(&exact->topk[i], exact->candidates + i * memtx__topk_capacity(k), k);
    }
    if (search->precision != MEMTX__PRECISION_I8) {
        return;
    }
#pragma omp parallel for schedule(static) num_threads((int)exact->n_threads)
    for (size_t thread = 0; thread < exact->n_threads; thread++) {
        const struct share queries = share_of(n_queries, thread, exact->n_threads);
        struct memtx__tile tile = memtx__exact_tile(exact, search->precision);
        memtx__exact_begin_limits(exact->topk + queries.first, search, &tile, queries.first, queries.n);
        for (size_t i = n_queries; i < n_parts * n_queries; i += n_queries) {
            for (size_t q = queries.first; q < queries.first + queries.n; q++) {
                exact->topk[i + q].threshold = exact->topk[q].threshold;
            }
        }
    }
}

static int scan_all(struct memtx__exact_call *search, size_t n_parts)
{
    int status = MEMTX_OK;
    struct memtx__exact *exact = search->exact;
    const size_t n_slices = exact->n_threads / n_parts;
#pragma omp parallel for schedule(static) reduction(min : status) num_threads((int)exact->n_threads)
    for (size_t thread = 0; thread < exact->n_threads; thread++) {
        const size_t part = thread / n_slices;
        const struct share queries = share_of(search->n_queries, thread % n_slices, n_slices);
        const struct share blocks = share_of(search->rows->n_blocks, part, n_parts);
        const int failed = scan(exact->topk + part * search->n_queries + queries.first, search, queries.first,
                                queries.n, blocks.first, blocks.first + blocks.n);
        status = failed < status ? failed : status;
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
        /* dropped by either; a cut need not follow, where there are just as many as are wanted */
        topk->threshold = fmaxf(topk->threshold, found->threshold);
    }
}

static void finish_all(float *scores, int64_t *ids, const struct memtx__exact_call *search, size_t n_parts)
{
    const size_t n_threads = search->exact->n_threads;
#pragma omp parallel for schedule(static) num_threads((int)n_threads) if (search->n_queries >= FEW_QUERIES)
    for (size_t thread = 0; thread < n_threads; thread++) {
        const struct share queries = share_of(search->n_queries, thread, n_threads);
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
    } else if (search->exact->precision == MEMTX__PRECISION_I8 && search->n_rows >= MEMTX__EXACT_LEAST_I8_ROWS &&
               memtx__exact_round_queries(search)) {
        search->precision = MEMTX__PRECISION_I8;
        search->pass_queries = search->exact->low_queries;
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
    exact->bounds.n_again = 0;
    status = run(scores, ids, &search);
    return status || search.precision != MEMTX__PRECISION_I8 ? status : run_again(scores, ids, &search);
}
