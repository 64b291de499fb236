/* Which lists of IVF are chosen (index/lists.h), against plain sums in double and a full sort. */
#include "lists.h"
#include "index_rows.h"

enum { DIM = 24, MOST_LISTS = 4000 };

/* Lists whose rows are n_each points about a centre each; every seventh is empty. */
static struct index_lists filled(size_t n, size_t n_each, uint64_t seed)
{
    struct index_lists lists;
    cr_assert_eq(index_lists_create(&lists, n, DIM), 0);
    float *rows = clustered(n * n_each, DIM, seed, 0);
    int64_t *ids = malloc(n_each * sizeof *ids);
    for (size_t list = 0; list < n; list++) {
        for (size_t i = 0; i < n_each; i++) {
            ids[i] = (int64_t)(list * n_each + i);
        }
        index_lists_add(&lists, list, list % 7 == 6 ? 0 : n_each, ids, 0, rows);
    }
    free(ids);
    free(rows);
    return lists;
}

static double rank_of(const struct index_lists *lists, size_t list, const float *query)
{
    return lists->n_rows[list] == 0 ? -INFINITY
                                    : dot(query, lists->means + list * DIM, DIM) +
                                          sqrt(dot(query, query, DIM) / DIM) * (double)lists->radii[list];
}

static int descending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* That those chosen are ascending, as many as there are, and that no other one ranks higher. */
static void check_chosen(const uint32_t *chosen, size_t n_wanted, const double *ranks, size_t n_all)
{
    static double sorted[MOST_LISTS];
    size_t n_filled = 0, n = 0;
    memcpy(sorted, ranks, n_all * sizeof *sorted);
    qsort(sorted, n_all, sizeof *sorted, descending);
    while (n_filled < n_all && isfinite(sorted[n_filled])) {
        n_filled++;
    }
    const size_t n_least = n_wanted < n_filled ? n_wanted : n_filled;
    for (; n < n_wanted && chosen[n] != UINT32_MAX; n++) {
        cr_assert(chosen[n] < n_all && (n == 0 || chosen[n] > chosen[n - 1]), "%u", chosen[n]);
        cr_assert(ranks[chosen[n]] >= sorted[n_least - 1] - 1e-4, "%g, %g", ranks[chosen[n]], sorted[n_least - 1]);
    }
    cr_assert_eq(n, n_least, "%zu of %zu", n, n_least);
    for (; n < n_wanted; n++) {
        cr_assert_eq(chosen[n], UINT32_MAX);
    }
}

Test(lists, the_best_of_all_parts)
{
    static const size_t cases[][5] = {/* lists of three parts, queries, wanted */
                                      {1, 0, 0, 3, 1},      {7, 0, 0, 1, 7},         {50, 3, 300, 5, 20},
                                      {64, 64, 64, 70, 64}, {900, 1000, 2, 9, 1902}, {1200, 1300, 1400, 200, 60}};
    static double ranks[MOST_LISTS];
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        const size_t n_q = cases[c][3], n_wanted = cases[c][4];
        struct index_lists lists[3];
        const struct index_lists *parts[3];
        size_t n_parts = 0;
        for (; n_parts < 3 && cases[c][n_parts]; n_parts++) {
            lists[n_parts] = filled(cases[c][n_parts], 1 + c, n_parts);
            parts[n_parts] = &lists[n_parts];
        }
        float *queries = clustered(n_q, DIM, 0, 1);
        if (n_q > 1) { /* all lists are alike to this one */
            memset(queries + (n_q - 1) * DIM, 0, DIM * sizeof *queries);
        }
        uint32_t *chosen = malloc(n_q * n_wanted * sizeof *chosen);
        cr_assert_eq(index_lists_choose(chosen, parts, n_parts, n_q, queries, n_wanted), 0);
        for (size_t q = 0; q < n_q; q++) {
            size_t n_all = 0;
            for (size_t p = 0; p < n_parts; p++) {
                for (size_t i = 0; i < lists[p].n; i++) {
                    ranks[n_all++] = rank_of(&lists[p], i, queries + q * DIM);
                }
            }
            check_chosen(chosen + q * n_wanted, n_wanted, ranks, n_all);
        }
        free(chosen);
        free(queries);
        for (size_t p = 0; p < n_parts; p++) {
            index_lists_release(&lists[p]);
        }
    }
}

/* All alike: the first ones. And a sample that misleads: the best stand where it does not look. */
Test(lists, ties_and_strange_orders)
{
    enum { N = 2000, WANTED = 100 };
    const float query[DIM] = {1}, low[DIM] = {-1}, high[DIM] = {3};
    for (int is_strange = 0; is_strange < 2; is_strange++) {
        struct index_lists lists;
        const struct index_lists *part = &lists;
        uint32_t chosen[WANTED];
        cr_assert_eq(index_lists_create(&lists, N, DIM), 0);
        for (size_t i = 0; i < N; i++) {
            const bool is_high = is_strange && i % 16 == 0 && i >= 960; /* every 16th, which is what the sample sees */
            index_lists_add(&lists, i, 1, (const int64_t[]){0}, 0, is_high ? high : low);
        }
        cr_assert_eq(index_lists_choose(chosen, &part, 1, 1, query, WANTED), 0);
        for (size_t i = 0; i < WANTED; i++) { /* 65 high ones; the rest are the first of the others */
            const size_t n_low = WANTED - 65;
            cr_assert_eq(chosen[i], !is_strange || i < n_low ? i : 960 + 16 * (i - n_low), "%zu: %u", i, chosen[i]);
        }
        index_lists_release(&lists);
    }
}

/* However the rows came: the mean is theirs, and all lie within the radius, which is no larger than it must be where they
 * came at once. */
Test(lists, means_and_radii)
{
    enum { N = 500 };
    static const size_t steps[] = {N, 100, 7, 1};
    float *rows = clustered(N, DIM, 3, 0);
    int64_t ids[N];
    for (size_t i = 0; i < N; i++) {
        ids[i] = (int64_t)i;
    }
    for (size_t s = 0; s < sizeof steps / sizeof steps[0]; s++) {
        struct index_lists lists;
        double farthest = 0;
        cr_assert_eq(index_lists_create(&lists, 2, DIM), 0);
        for (size_t n = 0; n < N; n += steps[s]) {
            const size_t end = n + steps[s] < N ? n + steps[s] : N;
            index_lists_add(&lists, 1, end, ids, n, rows + n * DIM);
            index_lists_add(&lists, 1, end, ids, end, rows); /* nothing new */
        }
        for (size_t j = 0; j < DIM; j++) {
            double sum = 0;
            for (size_t i = 0; i < N; i++) {
                sum += (double)rows[i * DIM + j];
            }
            cr_assert_float_eq((double)lists.means[DIM + j], sum / N, 1e-4);
        }
        for (size_t i = 0; i < N; i++) {
            double square = 0;
            for (size_t j = 0; j < DIM; j++) {
                square += pow((double)rows[i * DIM + j] - (double)lists.means[DIM + j], 2);
            }
            farthest = fmax(farthest, sqrt(square));
        }
        cr_assert_geq((double)lists.radii[1], farthest * (1 - 1e-5), "%zu", steps[s]);
        cr_assert(steps[s] < N || (double)lists.radii[1] <= farthest * (1 + 1e-5));
        cr_assert_eq(lists.n_rows[1], N);
        cr_assert_eq(lists.n_rows[0], 0);
        index_lists_release(&lists);
    }
    free(rows);
}
