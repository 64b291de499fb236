/* First passes of exact search in bf16 and int8: against the plain search, and against exact search in f32. Where the
 * processor is not fast in a type its pass is made in f32, and the same must hold. */
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "memtx/status.h"
#include "search_rows.h"

static const struct memtx__first_pass in_f32 = {MEMTX__PRECISION_F32, 0};
static const struct memtx__first_pass passes[] = {{MEMTX__PRECISION_BF16, 0}, {MEMTX__PRECISION_I8, 0}};
enum { N_PASSES = 2, DIM = 64, K = 32 };

static const char *name_of(struct memtx__first_pass pass)
{
    return pass.precision == MEMTX__PRECISION_I8 ? "int8" : "bf16";
}

/* What a first pass of enough rows and queries is made in. */
static enum memtx__precision expected(struct memtx__first_pass pass)
{
    return memtx__precision_is_fast(pass.precision) ? pass.precision : MEMTX__PRECISION_F32;
}

struct found {
    float *scores; /* [n_queries][k] */
    int64_t *ids;
    size_t n_queries, k;
};

static struct found search(const struct rows *rows, struct memtx__first_pass pass, const float *queries,
                           size_t n_queries, size_t k)
{
    struct searcher searcher;
    struct found found = {malloc(n_queries * k * sizeof(float)), malloc(n_queries * k * sizeof(int64_t)), n_queries, k};
    searcher_make(&searcher, pass, n_queries, k, rows->set.dim);
    cr_assert_eq(memtx__exact_search(found.scores, found.ids, &searcher.exact, &rows->set, queries, n_queries, k),
                 MEMTX_OK, "%s", memtx_last_error());
    searcher_free(&searcher);
    return found;
}

static void found_free(struct found found)
{
    free(found.scores);
    free(found.ids);
}

struct hit {
    int64_t id;
    float score;
};

static int by_id(const void *a, const void *b)
{
    const int64_t x = ((const struct hit *)a)->id, y = ((const struct hit *)b)->id;
    return (x > y) - (x < y);
}

/* out[k]: what query q found, by ids. */
static void sort_by_id(struct hit *out, struct found found, size_t q)
{
    for (size_t i = 0; i < found.k; i++) {
        out[i] = (struct hit){found.ids[q * found.k + i], found.scores[q * found.k + i]};
    }
    qsort(out, found.k, sizeof *out, by_id);
}

/* The share of what `exact` found that `low` found too. Rows that both found have the same scores to the last bit; what
 * is missing stands at the end, and nothing stands twice or out of order. */
static double compare(struct found exact, struct found low)
{
    size_t n_exact = 0, n_common = 0;
    struct hit *sorted = malloc(exact.k * sizeof *sorted);
    for (size_t q = 0; q < exact.n_queries; q++) {
        const float *scores = low.scores + q * low.k;
        const int64_t *ids = low.ids + q * low.k;
        sort_by_id(sorted, exact, q);
        for (size_t i = 0; i < exact.k; i++) {
            n_exact += exact.ids[q * exact.k + i] >= 0;
            cr_assert_eq(ids[i] < 0, exact.ids[q * exact.k + i] < 0, "query %zu: other rows than there are", q);
            cr_assert(ids[i] < 0 || isfinite(scores[i]));
            cr_assert(i == 0 || ids[i] < 0 || scores[i] < scores[i - 1] ||
                          (scores[i] == scores[i - 1] && ids[i] > ids[i - 1]),
                      "query %zu, rank %zu: out of order", q, i);
            const struct hit wanted = {ids[i], 0};
            const struct hit *both = ids[i] < 0 ? NULL : bsearch(&wanted, sorted, exact.k, sizeof wanted, by_id);
            if (both) {
                n_common++;
                cr_assert_eq(scores[i], both->score, "query %zu, id %lld: %.9g, not %.9g", q, (long long)ids[i],
                             (double)scores[i], (double)both->score);
            }
        }
    }
    free(sorted);
    return n_exact ? (double)n_common / (double)n_exact : 1;
}

/* Queries enough for a first pass in low precision, in each thread's slice too. */
static size_t many_queries(void)
{
    return MEMTX__EXACT_LEAST_LOW_QUERIES * (size_t)omp_get_max_threads();
}

static double recall(const float *values, const float *queries, size_t n, enum memtx_row_type type,
                     struct memtx__first_pass pass)
{
    struct rows rows;
    rows_make(&rows, n, DIM, type, values);
    const struct found exact = search(&rows, in_f32, queries, many_queries(), K);
    const struct found low = search(&rows, pass, queries, many_queries(), K);
    const double share = compare(exact, low);
    found_free(exact);
    found_free(low);
    rows_free(&rows);
    return share;
}

/* ---- against the plain search ----------------------------------------------------------------- */

Test(exact_passes, every_type_of_row_and_head_size)
{
    enum { N = 2700 }; /* enough for int8 */
    static const size_t dims[] = {32, 64, 80, 96, 100, 128, 256}, n_queries[] = {64, 81, 200, 700};
    for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++) {
        float *values = random_values(N * dims[i], i);
        for (int type = MEMTX_ROWS_F16; type <= MEMTX_ROWS_F32; type++) {
            struct rows rows;
            rows_make(&rows, N, dims[i], (enum memtx_row_type)type, values);
            for (size_t p = 0; p < N_PASSES; p++) {
                const size_t q = (i + (size_t)type) % 4;
                cr_assert_eq(same_as_plain(&rows, passes[p], n_queries[q], K, i), expected(passes[p]));
                (void)same_as_plain(&rows, passes[p], q % 2 ? 1 : 7, 100, i); /* too few queries */
            }
            rows_free(&rows);
        }
        free(values);
    }
}

/* Of so many neighbours states hold twice as many, and limits rise before all is seen. */
Test(exact_passes, many_neighbours_in_int8)
{
    enum { N = 16500, MANY = 200 };
    const struct memtx__first_pass in_i8 = {MEMTX__PRECISION_I8, 0};
    float *values = random_values(N * DIM, 1);
    struct rows rows;
    rows_make(&rows, N, DIM, MEMTX_ROWS_BF16, values);
    cr_assert_eq(same_as_plain(&rows, in_i8, 64, MANY, 1), expected(in_i8));
    cr_assert_eq(same_as_plain(&rows, in_i8, 300, MANY, 2), expected(in_i8));
    rows_free(&rows);
    free(values);
}

/* Of the best kind of row there are more than are wanted: the first of them are found, though some are only seen when
 * there are enough. */
Test(exact_passes, twins_go_by_their_ids)
{
    enum { N_KINDS = 90, N_TWINS = 100, N = N_KINDS * N_TWINS, N_QUERIES = 300 };
    float *values = random_values(N * DIM, 1), *queries = random_values(N_QUERIES * DIM, 2);
    for (size_t i = N_KINDS * DIM; i < N * DIM; i++) {
        values[i] = values[i - N_KINDS * DIM];
    }
    struct rows rows;
    rows_make(&rows, N, DIM, MEMTX_ROWS_F16, values);
    for (size_t p = 0; p < N_PASSES; p++) {
        const struct found found = search(&rows, passes[p], queries, N_QUERIES, K);
        for (size_t q = 0; q < N_QUERIES; q++) {
            const int64_t *ids = found.ids + q * K;
            size_t kind = 0;
            while (kind < N_KINDS && rows.ids[kind] != ids[0]) {
                kind++;
            }
            cr_assert_lt(kind, N_KINDS, "%s, query %zu: begins with id %lld", name_of(passes[p]), q, (long long)ids[0]);
            for (size_t i = 0; i < K; i++) {
                cr_assert_eq(ids[i], rows.ids[i * N_KINDS + kind], "%s, query %zu, rank %zu: %lld", name_of(passes[p]),
                             q, i, (long long)ids[i]);
            }
        }
        found_free(found);
    }
    rows_free(&rows);
    free(values);
    free(queries);
}

Test(exact_passes, every_k)
{
    static const size_t k[] = {1, 2, 31, 100, 1000, 2500, 4096};
    float *values = random_values(5000 * DIM, 1);
    struct rows rows;
    rows_make(&rows, 5000, DIM, MEMTX_ROWS_F16, values);
    for (size_t p = 0; p < N_PASSES; p++) {
        for (size_t i = 0; i < sizeof k / sizeof k[0]; i++) {
            if (k[i] < 4096) {
                same_as_plain(&rows, passes[p], 64, k[i], i);
            } else { /* as many candidates as there can be: none to spare */
                float *queries = random_values(many_queries() * DIM, i);
                const struct found exact = search(&rows, in_f32, queries, many_queries(), k[i]);
                const struct found low = search(&rows, passes[p], queries, many_queries(), k[i]);
                cr_assert_gt(compare(exact, low), 0.99);
                found_free(exact);
                found_free(low);
                free(queries);
            }
        }
    }
    rows_free(&rows);
    free(values);
}

Test(exact_passes, few_rows)
{
    static const size_t n[] = {0, 1, 2, 31, 63, 64, 65, 511, 512, 513, 700, 701, 1213};
    for (size_t i = 0; i < sizeof n / sizeof n[0]; i++) {
        float *values = random_values(n[i] * 8, i);
        struct rows rows;
        rows_make(&rows, n[i], 8, MEMTX_ROWS_F32, values);
        for (size_t p = 0; p < N_PASSES; p++) {
            same_as_plain(&rows, passes[p], 70, 100, i);
            same_as_plain(&rows, passes[p], 300, 1, i);
        }
        rows_free(&rows);
        free(values);
    }
}

Test(exact_passes, rows_that_are_no_numbers_are_passed_over)
{
    enum { N = 2700 };
    static const float odd[] = {NAN, INFINITY, -INFINITY};
    for (int type = MEMTX_ROWS_F16; type <= MEMTX_ROWS_F32; type++) {
        for (size_t step = 2; step <= 5; step += 3) { /* damaged are four rows of five, or every second */
            float *values = random_values(N * DIM, 1);
            struct rows rows;
            for (size_t i = 0; i < N; i++) {
                if (step == 2 ? i % 2 == 0 : i % 5 != 0) {
                    values[i * DIM + i % DIM] = odd[i % 3];
                }
            }
            rows_make(&rows, N, DIM, (enum memtx_row_type)type, values);
            for (size_t p = 0; p < N_PASSES; p++) {
                cr_assert_eq(same_as_plain(&rows, passes[p], 70, 32, 1), expected(passes[p]));
                (void)same_as_plain(&rows, passes[p], 200, 100, 2);
                (void)same_as_plain(&rows, passes[p], 70, 2000, 3); /* more than the sound ones */
            }
            rows_free(&rows);
            free(values);
        }
    }
}

/* ---- against exact search in f32 -------------------------------------------------------------- */

/* Rows so close around centres that low precision hardly tells them apart. Bounds are a little below what was measured:
 * 0.997 of bf16, 0.951 of int8. */
Test(exact_passes, recall_on_clusters)
{
    enum { N = 20000, N_CENTRES = 60 };
    static const double least[N_PASSES] = {0.99, 0.93};
    const size_t n_queries = many_queries();
    float *centres = random_values(N_CENTRES * DIM, 1), *values = random_values(N * DIM, 2);
    float *queries = random_values(n_queries * DIM, 3);
    for (size_t i = 0; i < N * DIM; i++) {
        values[i] = 0.01F * values[i] + centres[i / DIM * 7 % N_CENTRES * DIM + i % DIM];
    }
    for (size_t i = 0; i < n_queries * DIM; i++) {
        queries[i] = 0.5F * queries[i] + centres[i / DIM % N_CENTRES * DIM + i % DIM];
    }
    for (size_t p = 0; p < N_PASSES; p++) {
        const double share = recall(values, queries, N, MEMTX_ROWS_F16, passes[p]);
        cr_assert_geq(share, least[p], "%s: recall %.5f", name_of(passes[p]), share);
    }
    free(centres);
    free(values);
    free(queries);
}

/* As keys of real models are, but worse: a mean much larger than what varies, and a few dimensions larger than all
 * others. Measured: 0.9996 of bf16, 0.977 of int8. */
Test(exact_passes, recall_with_a_large_mean_and_large_dimensions)
{
    enum { N = 20000 };
    static const double least[N_PASSES] = {0.998, 0.96};
    const size_t n_queries = many_queries();
    float *mean = random_values(DIM, 1), *values = random_values(N * DIM, 2);
    float *queries = random_values(n_queries * DIM, 3);
    for (size_t i = 0; i < N * DIM; i++) {
        const size_t d = i % DIM;
        values[i] = values[i] * (d % 20 == 3 ? 20.0F : 1.0F) + 100 * mean[d];
    }
    for (size_t p = 0; p < N_PASSES; p++) {
        const double share = recall(values, queries, N, MEMTX_ROWS_F16, passes[p]);
        cr_assert_geq(share, least[p], "%s: recall %.5f", name_of(passes[p]), share);
    }
    free(mean);
    free(values);
    free(queries);
}

/* Rows that are all equal go by their ids, whatever their kind. */
Test(exact_passes, equal_rows)
{
    enum { N = 3000 };
    static const float kinds[] = {0, 1, -1, 1e-40F, 1e-30F, 1e30F, 60000};
    float *values = malloc(sizeof(float) * N * DIM), *queries = random_values(many_queries() * DIM, 2);
    for (size_t kind = 0; kind < sizeof kinds / sizeof kinds[0]; kind++) {
        for (size_t i = 0; i < N * DIM; i++) {
            values[i] = kinds[kind] * (float)(1 + i % DIM % 3);
        }
        for (size_t p = 0; p < N_PASSES; p++) {
            const double share = recall(values, queries, N, MEMTX_ROWS_F32, passes[p]);
            cr_assert_eq(share, 1, "%s: rows of %g: %.5f", name_of(passes[p]), (double)kinds[kind], share);
        }
    }
    free(values);
    free(queries);
}

/* Damaged rows do not take the places of others, not even where any score of theirs would be the best. */
Test(exact_passes, damaged_rows_crowd_nobody_out)
{
    enum { N = 3000 };
    static const float odd[] = {NAN, INFINITY, -INFINITY};
    float *values = random_values(N * DIM, 1), *queries = random_values(many_queries() * DIM, 2);
    for (size_t i = 0; i < N * DIM; i++) {
        values[i] = -1 - fabsf(values[i]);
    }
    for (size_t i = 0; i < many_queries() * DIM; i++) {
        queries[i] = fabsf(queries[i]);
    }
    for (size_t i = 0; i < N; i += 2) {
        values[i * DIM + i / 2 % DIM] = odd[i / 2 % 3];
    }
    for (size_t p = 0; p < N_PASSES; p++) {
        const double share = recall(values, queries, N, MEMTX_ROWS_F32, passes[p]);
        cr_assert_geq(share, 0.999, "%s: recall %.5f", name_of(passes[p]), share);
    }
    free(values);
    free(queries);
}

/* One number of each row swallows all others in int8. Asked for that number alone the search is as good as exact; rows
 * whose scores overflow are not returned. */
Test(exact_passes, one_huge_dimension)
{
    enum { N = 3000 };
    static const float huge[] = {1e3F, 1e6F, 1e30F, 1e38F};
    const size_t n_queries = many_queries();
    float *values = random_values(N * DIM, 1), *queries = random_values(n_queries * DIM, 2);
    for (size_t i = 0; i < n_queries * DIM; i++) {
        queries[i] = i % DIM == 5 ? 2 * queries[i] : 0;
    }
    for (size_t h = 0; h < sizeof huge / sizeof huge[0]; h++) {
        for (size_t i = 0; i < N; i++) {
            values[i * DIM + 5] = i % 600 == 7 ? 3 * huge[h] : huge[h] * ((float)(i * 7919 % N + 1) / N);
        }
        for (size_t p = 0; p < N_PASSES; p++) {
            const double share = recall(values, queries, N, MEMTX_ROWS_F32, passes[p]);
            cr_assert_geq(share, 0.99, "%s, %g: recall %.5f", name_of(passes[p]), (double)huge[h], share);
        }
    }
    free(values);
    free(queries);
}

/* Numbers that a first pass takes for zero, beside rows of usual size: what is found is scored right, and the usual rows
 * that a query likes are found. */
Test(exact_passes, rows_of_every_size)
{
    enum { N = 3000 };
    float *values = random_values(N * DIM, 1), *queries = random_values(many_queries() * DIM, 2);
    for (size_t i = 0; i < N * DIM; i++) {
        values[i] *= ldexpf(1, -(int)(i / DIM % 150)); /* down to denormal numbers, and to zero */
    }
    for (size_t p = 0; p < N_PASSES; p++) {
        const double share = recall(values, queries, N, MEMTX_ROWS_F32, passes[p]);
        cr_assert_geq(share, 0.99, "%s: recall %.5f", name_of(passes[p]), share);
    }
    free(values);
    free(queries);
}

/* ---- the searcher ----------------------------------------------------------------------------- */

Test(exact_passes, the_same_for_any_number_of_threads)
{
    enum { N = 17000, N_QUERIES = 533 };
    static const int numbers[] = {2, 3, 6, 7, 8, 12}; /* queries shared out, or rows, or both */
    float *values = random_values(N * DIM, 1), *queries = random_values(N_QUERIES * DIM, 2);
    struct rows rows;
    rows_make(&rows, N, DIM, MEMTX_ROWS_F16, values);
    for (size_t p = 0; p < N_PASSES; p++) {
        omp_set_num_threads(1);
        const struct found one = search(&rows, passes[p], queries, N_QUERIES, K);
        for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
            omp_set_num_threads(numbers[i]);
            const struct found more = search(&rows, passes[p], queries, N_QUERIES, K);
            cr_assert_arr_eq(more.ids, one.ids, N_QUERIES * K * sizeof *one.ids);
            cr_assert_arr_eq(more.scores, one.scores, N_QUERIES * K * sizeof *one.scores);
            found_free(more);
        }
        found_free(one);
    }
    rows_free(&rows);
    free(values);
    free(queries);
}

/* A searcher says what it does: f32 where the processor is not fast in what was asked for. */
Test(exact_passes, the_precision_that_is_used)
{
    for (size_t p = 0; p < N_PASSES; p++) {
        struct searcher searcher;
        const bool fast = memtx__precision_is_fast(passes[p].precision);
        searcher_make(&searcher, passes[p], 100, K, DIM);
        cr_assert_eq(searcher.exact.precision, fast ? passes[p].precision : MEMTX__PRECISION_F32);
        searcher_free(&searcher);
    }
    cr_assert(memtx__precision_is_fast(MEMTX__PRECISION_F32));
}

/* Searches in int8 with n candidates for each neighbour; gives how many queries were searched again. */
static size_t check_sure(const float *values, const float *queries, size_t n_rows, size_t n_queries, size_t n)
{
    struct rows rows;
    struct searcher searcher;
    struct found low = {malloc(n_queries * K * sizeof(float)), malloc(n_queries * K * sizeof(int64_t)), n_queries, K};
    rows_make(&rows, n_rows, DIM, MEMTX_ROWS_F32, values);
    const struct found exact = search(&rows, in_f32, queries, n_queries, K);
    searcher_make(&searcher, (struct memtx__first_pass){MEMTX__PRECISION_I8, n}, n_queries, K, DIM);
    cr_assert_eq(memtx__exact_search(low.scores, low.ids, &searcher.exact, &rows.set, queries, n_queries, K), MEMTX_OK);
    cr_assert_eq(compare(exact, low), 1);
    const size_t n_again = searcher.exact.bounds.n_again;
    searcher_free(&searcher);
    found_free(low);
    found_free(exact);
    rows_free(&rows);
    return n_again;
}

/* Nothing is lost in int8, though of the best there are more within its steps than there are candidates: those queries
 * are searched again, and the more candidates there are the fewer. */
Test(exact_passes, int8_is_sure)
{
    enum { N = 20000, MOST = 512 };
    static const size_t n_queries[] = {MEMTX__EXACT_LEAST_LOW_QUERIES, MOST};
    float *values = random_values(N * DIM, 1), *queries = random_values(MOST * DIM, 2);
    for (size_t i = 0; i < 2; i++) {
        cr_assert_lt(check_sure(values, queries, N, n_queries[i], 0), n_queries[i] / 20, "most are sure at once");
    }
    for (size_t i = 0; i < N * DIM; i++) { /* rows that differ by less than a step */
        values[i] = 0.02F * values[i] + (float)(i % DIM % 5) - 2;
    }
    for (size_t i = 0; i < 2; i++) {
        const size_t few = check_sure(values, queries, N, n_queries[i], 2);
        const size_t many = check_sure(values, queries, N, n_queries[i], 8);
        if (memtx__precision_is_fast(MEMTX__PRECISION_I8)) {
            cr_assert(few > 0 && many <= few, "%zu, %zu", few, many);
        }
    }
    free(values);
    free(queries);
}

/* A row or a query that int8 has no bounds for: all is searched in f32, and nothing is missing. */
Test(exact_passes, int8_without_bounds)
{
    enum { N = 3000, N_QUERIES = 200 };
    static const float odd[] = {1e18F, 1e-25F};
    for (size_t i = 0; i < 4; i++) {
        float *values = random_values(N * DIM, 1), *queries = random_values(N_QUERIES * DIM, 2);
        float *one = i % 2 ? values + 1234 * DIM : queries + 123 * DIM;
        for (size_t j = 0; j < DIM; j++) {
            one[j] *= odd[i / 2];
        }
        (void)check_sure(values, queries, N, N_QUERIES, 0);
        free(values);
        free(queries);
    }
}

/* Rows that int8 confuses, asked by too few queries for it. */
Test(exact_passes, few_queries_are_searched_in_f32)
{
    enum { N = 5000, N_QUERIES = MEMTX__EXACT_LEAST_LOW_QUERIES - 1 };
    float *values = random_values(N * DIM, 1), *queries = random_values(N_QUERIES * DIM, 2);
    struct rows rows;
    for (size_t i = 0; i < N * DIM; i++) {
        values[i] += i % DIM == 3 ? 5000.0F : 0.0F;
    }
    rows_make(&rows, N, DIM, MEMTX_ROWS_F32, values);
    const struct found exact = search(&rows, in_f32, queries, N_QUERIES, K);
    const struct found low = search(&rows, passes[1], queries, N_QUERIES, K);
    cr_assert_eq(compare(exact, low), 1);
    found_free(exact);
    found_free(low);
    rows_free(&rows);
    free(values);
    free(queries);
}

Test(exact_passes, what_is_refused)
{
    enum { N = 100, N_QUERIES = 80 };
    float *values = random_values(N * DIM, 1), *queries = random_values(N_QUERIES * DIM, 2);
    static int64_t ids[N_QUERIES * K];
    struct rows rows;
    rows_make(&rows, N, DIM, MEMTX_ROWS_F32, values);
    queries[79 * DIM + 63] = NAN;
    for (size_t p = 0; p < N_PASSES; p++) {
        struct searcher searcher;
        searcher_make(&searcher, passes[p], N_QUERIES, K, DIM);
        cr_assert_eq(memtx__exact_search(NULL, ids, &searcher.exact, &rows.set, queries, N_QUERIES, K),
                     MEMTX_E_INVALID);
        cr_assert_eq(memtx__exact_search(NULL, ids, &searcher.exact, &rows.set, queries, N_QUERIES - 1, K), MEMTX_OK);
        for (long n = 1; n <= 2 && searcher.exact.product; n++) { /* and what there is no memory for */
            memtx__exact_release(&searcher.exact);
            memtx__alloc_fail_at(n);
            cr_assert_eq(memtx__exact_prepare(&searcher.exact), MEMTX_E_NO_MEMORY);
            memtx__alloc_fail_at(0);
            cr_assert_null(searcher.exact.product);
            cr_assert_eq(memtx__exact_prepare(&searcher.exact), MEMTX_OK);
        }
        searcher_free(&searcher);
    }
    rows_free(&rows);
    free(values);
    free(queries);
}
