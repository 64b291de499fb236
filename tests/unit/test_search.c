/* Exact search against a plain double reference. Its first passes in low precision: test_exact_passes.c. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "memtx/status.h"
#include "search_rows.h"

static const struct memtx__first_pass in_f32 = {MEMTX__PRECISION_F32, 0};

static void at_all_counts(enum memtx_row_type type, size_t dim, size_t n)
{
    static const size_t n_queries[] = {1, 7, 63, 200, 700}, k[] = {1, 32, 100, 2500};
    float *values = random_values(n * dim, dim);
    struct rows rows;
    rows_make(&rows, n, dim, type, values);
    for (size_t q = 0; q < sizeof n_queries / sizeof n_queries[0]; q++) {
        for (size_t i = 0; i < sizeof k / sizeof k[0]; i++) {
            if (k[i] < 1000 || n_queries[q] <= 63) {
                same_as_plain(&rows, in_f32, n_queries[q], k[i], q + 10 * i);
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
    static const size_t dims[] = {8, 32, 64, 80, 96, 128, 256};
    for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++) {
        float *values = random_values(1100 * dims[i], i);
        for (int type = MEMTX_ROWS_F16; type <= MEMTX_ROWS_F32; type++) {
            struct rows rows;
            rows_make(&rows, 1100, dims[i], (enum memtx_row_type)type, values);
            same_as_plain(&rows, in_f32, 7, 32, i);
            same_as_plain(&rows, in_f32, 200, 32, i);
            rows_free(&rows);
        }
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
        searcher_make(&searcher, in_f32, n_queries, K, DIM);
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
        searcher_free(&searcher);
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
        same_as_plain(&rows, in_f32, 7, 32, 1);
        same_as_plain(&rows, in_f32, 200, 100, 2);
        same_as_plain(&rows, in_f32, 7, 1400, 3); /* more than the sound ones */
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
    searcher_make(&searcher, in_f32, MOST_Q, MOST_K, DIM);
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
    searcher_free(&searcher);
    rows_free(&rows);
    free(values);
    free(queries);
}
