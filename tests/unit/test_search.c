/* Exact search against a plain double reference. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "math/rows.h"
#include "search/exact.h"

/* Float32 sums of up to 256 products: relative to what the terms' sizes add up to. */
static const double score_tolerance = 1e-5;

enum { FIRST_ID = 1000, BLOCK_ROWS = 700, GAP = 50 };

/* Rows in blocks of BLOCK_ROWS with gaps of dead ids between, in their type and as what the type makes of them. */
struct rows {
    struct memtx__row_set set;
    struct memtx__row_block *blocks;
    unsigned char *stored;
    float *values; /* [n][dim] */
    int64_t *ids;
    size_t n;
};

static void rows_make(struct rows *rows, size_t n, size_t dim, enum memtx_row_type type, const float *values)
{
    const size_t row_bytes = dim * memtx__row_type_bytes(type), n_blocks = (n + BLOCK_ROWS - 1) / BLOCK_ROWS;
    *rows = (struct rows){.n = n};
    rows->blocks = calloc(n_blocks + 1, sizeof *rows->blocks);
    rows->stored = malloc(n * row_bytes + 1);
    rows->values = malloc((n * dim + 1) * sizeof *rows->values);
    rows->ids = malloc((n + 1) * sizeof *rows->ids);
    memtx__rows_write(rows->stored, type, values, n * dim);
    memtx__rows_read(rows->values, type, rows->stored, n * dim);
    for (size_t i = 0; i < n; i++) {
        rows->ids[i] = (int64_t)(FIRST_ID + i + i / BLOCK_ROWS * GAP);
    }
    for (size_t b = 0; b < n_blocks; b++) {
        size_t first = b * BLOCK_ROWS, n_rows = n - first < BLOCK_ROWS ? n - first : BLOCK_ROWS;
        rows->blocks[b] =
            (struct memtx__row_block){rows->stored + first * row_bytes, (uint64_t)rows->ids[first], n_rows};
    }
    rows->set = (struct memtx__row_set){rows->blocks, n_blocks, type, dim};
}

static void rows_free(struct rows *rows)
{
    free(rows->blocks);
    free(rows->stored);
    free(rows->values);
    free(rows->ids);
}

static float *random_values(size_t n, uint64_t seed)
{
    struct memtx__rng rng = memtx__rng_create(seed, 0);
    float *values = malloc((n + 1) * sizeof *values);
    for (size_t i = 0; i < n; i++) {
        values[i] = memtx__rng_signed(&rng);
    }
    return values;
}

/* A searcher with its arena. */
struct searcher {
    struct memtx__exact exact;
    struct memtx__arena arena;
};

static void searcher_make(struct searcher *searcher, size_t n_queries, size_t k, size_t dim)
{
    *searcher = (struct searcher){0};
    memtx__exact_take(&searcher->exact, &searcher->arena, n_queries, k, dim);
    cr_assert_eq(memtx__arena_reserve(&searcher->arena), 0);
    memtx__exact_take(&searcher->exact, &searcher->arena, n_queries, k, dim);
}

struct scored {
    double score, size; /* the sum, and the sum of the terms without sign */
    int64_t id;
};

static int by_rank(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;
    if (x->score != y->score) {
        return x->score > y->score ? -1 : 1;
    }
    return x->id < y->id ? -1 : x->id > y->id;
}

/* All rows for one query, best first; rows without a finite score are left out. */
static size_t plain_search(struct scored *out, const struct rows *rows, const float *query)
{
    size_t n = 0;
    for (size_t i = 0; i < rows->n; i++) {
        struct scored one = {0, 0, rows->ids[i]};
        for (size_t d = 0; d < rows->set.dim; d++) {
            double term = (double)query[d] * (double)rows->values[i * rows->set.dim + d];
            one.score += term;
            one.size += fabs(term);
        }
        if (isfinite(one.score)) {
            out[n++] = one;
        }
    }
    qsort(out, n, sizeof *out, by_rank);
    return n;
}

static const struct scored *find(const struct scored *all, size_t n, int64_t id)
{
    for (size_t i = 0; i < n; i++) {
        if (all[i].id == id) {
            return &all[i];
        }
    }
    return NULL;
}

static void check_query(const struct rows *rows, const float *query, const float *scores, const int64_t *ids, size_t k)
{
    struct scored *all = malloc((rows->n + 1) * sizeof *all);
    const size_t n = plain_search(all, rows, query), n_found = k < n ? k : n;
    for (size_t i = 0; i < k; i++) {
        if (i >= n_found) {
            cr_assert(ids[i] == -1 && scores[i] == -INFINITY, "rank %zu of %zu rows: id %lld", i, n, (long long)ids[i]);
            continue;
        }
        const struct scored *found = ids[i] == all[i].id ? &all[i] : find(all, n, ids[i]);
        cr_assert_not_null(found, "id %lld is no row", (long long)ids[i]);
        const double allowed = score_tolerance * (found->size + all[i].size);
        cr_assert_float_eq((double)scores[i], found->score, allowed);
        /* Another row than the plain search's stands here only if the two are as good as equal. */
        cr_assert_leq(fabs(found->score - all[i].score), allowed, "rank %zu: %lld, not %lld", i, (long long)ids[i],
                      (long long)all[i].id);
        for (size_t j = 0; j < i; j++) {
            cr_assert_neq(ids[j], ids[i], "id %lld twice", (long long)ids[i]);
        }
    }
    free(all);
}

static void same_as_plain(const struct rows *rows, size_t n_queries, size_t k, uint64_t seed)
{
    const size_t dim = rows->set.dim;
    struct searcher searcher;
    float *queries = random_values(n_queries * dim, seed), *scores = malloc(n_queries * k * sizeof *scores);
    int64_t *ids = malloc(n_queries * k * sizeof *ids);
    searcher_make(&searcher, n_queries, k, dim);
    cr_assert_eq(memtx__exact_search(scores, ids, &searcher.exact, &rows->set, queries, n_queries, k), MEMTX_OK, "%s",
                 memtx_last_error());
    const size_t step = n_queries < 40 ? 1 : n_queries / 40 | 1; /* many are checked by sample */
    for (size_t q = 0; q < n_queries; q += step) {
        check_query(rows, queries + q * dim, scores + q * k, ids + q * k, k);
    }
    memtx__arena_release(&searcher.arena);
    free(queries);
    free(scores);
    free(ids);
}

static void at_all_counts(enum memtx_row_type type, size_t dim, size_t n)
{
    static const size_t n_queries[] = {1, 7, 63, 200, 700}, k[] = {1, 32, 100, 2500};
    float *values = random_values(n * dim, dim);
    struct rows rows;
    rows_make(&rows, n, dim, type, values);
    for (size_t q = 0; q < sizeof n_queries / sizeof n_queries[0]; q++) {
        for (size_t i = 0; i < sizeof k / sizeof k[0]; i++) {
            if (k[i] < 1000 || n_queries[q] <= 63) {
                same_as_plain(&rows, n_queries[q], k[i], q + 10 * i);
            }
        }
    }
    rows_free(&rows);
    free(values);
}

Test(search, every_type_of_row)
{
    at_all_counts(MEMTX_ROWS_F16, 64, 1300);
    at_all_counts(MEMTX_ROWS_BF16, 64, 1300);
    at_all_counts(MEMTX_ROWS_F32, 64, 1300);
}

Test(search, every_head_size)
{
    static const size_t dims[] = {8, 32, 80, 96, 128, 256};
    for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++) {
        float *values = random_values(1100 * dims[i], i);
        struct rows rows;
        rows_make(&rows, 1100, dims[i], MEMTX_ROWS_F16, values);
        same_as_plain(&rows, 7, 32, i);
        same_as_plain(&rows, 200, 32, i);
        rows_free(&rows);
        free(values);
    }
}

Test(search, few_rows)
{
    static const size_t n[] = {0, 1, 2, 31, 511, 512, 513, 700, 701};
    for (size_t i = 0; i < sizeof n / sizeof n[0]; i++) {
        at_all_counts(MEMTX_ROWS_F32, 8, n[i]);
    }
}

/* Equal rows score equal, and the lower id wins; so it does over the seams of blocks and of threads. */
Test(search, ties_go_to_the_lower_id)
{
    enum { N = 3000, DIM = 64, N_KINDS = 3, K = 100, N_QUERIES = 200 };
    float *kinds = random_values(N_KINDS * DIM, 1), *values = malloc(sizeof(float) * N * DIM);
    for (size_t i = 0; i < N; i++) {
        memcpy(values + i * DIM, kinds + i * 7 % N_KINDS * DIM, DIM * sizeof *values);
    }
    for (size_t n_queries = 1; n_queries <= N_QUERIES; n_queries += N_QUERIES - 1) {
        struct rows rows;
        struct searcher searcher;
        static int64_t ids[N_QUERIES * K];
        static float scores[N_QUERIES * K];
        float *queries = random_values(n_queries * DIM, 2);
        rows_make(&rows, N, DIM, MEMTX_ROWS_F16, values);
        searcher_make(&searcher, n_queries, K, DIM);
        cr_assert_eq(memtx__exact_search(scores, ids, &searcher.exact, &rows.set, queries, n_queries, K), MEMTX_OK);
        for (size_t q = 0; q < n_queries; q++) {
            for (size_t i = 1; i < K; i++) {
                cr_assert(scores[q * K + i] < scores[q * K] || ids[q * K + i] > ids[q * K + i - 1],
                          "query %zu: %lld after %lld", q, (long long)ids[q * K + i], (long long)ids[q * K + i - 1]);
            }
            check_query(&rows, queries + q * DIM, scores + q * K, ids + q * K, K);
            /* The first K of the best kind: every third row from the first of them. */
            cr_assert_lt(ids[q * K], FIRST_ID + N_KINDS, "the best row begins among the first");
        }
        memtx__arena_release(&searcher.arena);
        rows_free(&rows);
        free(queries);
    }
    free(kinds);
    free(values);
}

/* A damaged row is never returned, and spoils no other. */
Test(search, rows_that_are_no_numbers_are_passed_over)
{
    enum { N = 1500, DIM = 64 };
    static const float odd[] = {NAN, INFINITY, -INFINITY};
    for (int type = MEMTX_ROWS_F16; type <= MEMTX_ROWS_F32; type++) {
        float *values = random_values(N * DIM, 1);
        struct rows rows;
        for (size_t i = 0; i < N; i += 5) {
            values[i * DIM + i % DIM] = odd[i / 5 % 3];
        }
        rows_make(&rows, N, DIM, (enum memtx_row_type)type, values);
        same_as_plain(&rows, 7, 32, 1);
        same_as_plain(&rows, 200, 100, 2);
        same_as_plain(&rows, 7, 1400, 3); /* more than the sound ones */
        rows_free(&rows);
        free(values);
    }
}

Test(search, what_is_refused)
{
    enum { N = 100, DIM = 8, MOST_Q = 10, MOST_K = 5 };
    static const float odd[] = {NAN, INFINITY, -INFINITY};
    float *values = random_values(N * DIM, 1), *queries = random_values((MOST_Q + 1) * DIM, 2);
    static int64_t ids[(MOST_Q + 1) * (MOST_K + 1)];
    struct rows rows;
    struct searcher searcher;
    rows_make(&rows, N, DIM, MEMTX_ROWS_F32, values);
    searcher_make(&searcher, MOST_Q, MOST_K, DIM);
    cr_assert_eq(memtx__exact_search(NULL, ids, &searcher.exact, &rows.set, queries, MOST_Q + 1, MOST_K),
                 MEMTX_E_INVALID);
    cr_assert_eq(memtx__exact_search(NULL, ids, &searcher.exact, &rows.set, queries, MOST_Q, MOST_K + 1),
                 MEMTX_E_INVALID);
    for (size_t i = 0; i < 3; i++) {
        queries[9 * DIM + 7] = odd[i];
        cr_assert_eq(memtx__exact_search(NULL, ids, &searcher.exact, &rows.set, queries, MOST_Q, MOST_K),
                     MEMTX_E_INVALID);
    }
    cr_assert_eq(memtx__exact_search(NULL, ids, &searcher.exact, &rows.set, queries, MOST_Q - 1, MOST_K), MEMTX_OK);
    memtx__arena_release(&searcher.arena);
    rows_free(&rows);
    free(values);
    free(queries);
}
