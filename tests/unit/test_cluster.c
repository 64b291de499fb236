/* Searching the cluster index: its answers against the plain specification, and what must hold of any. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cluster_fixture.h"
#include "math/rows.h"

Test(cluster, answers_as_specified)
{
    static const double shares[] = {0.01, 0.3, 1.0};
    static const size_t n_queries[] = {1, 5, 96}, k[] = {1, 5, 40};
    for (int type = MEMTX_ROWS_F16; type <= MEMTX_ROWS_BF16; type++) {
        struct fixture *f = fixture_make((enum memtx_row_type)type, 7);
        for (size_t s = 0; s < 3; s++) {
            for (size_t i = 0; i < 3; i++) {
                same_as_specified(f, n_queries[i], k[i], shares[s]);
                same_as_specified(f, n_queries[2 - i], k[i], shares[s]);
            }
        }
        fixture_unmake(f);
    }
}

/* Ranges of all kinds: nothing, parts of blocks, whole blocks missing, rows here and there. */
static void same_in_any_sight(struct fixture *f)
{
    static const size_t ranges[][3] = {{0, 1, 0},     {0, 2000, 15},   {0, 2000, 150},    {0, 2, 1},  {0, 300, 120},
                                       {50, 300, 90}, {0, 2000, 1000}, {780, 2000, 1000}, {3, 41, 2}, {0, 500, 499}};
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        fixture_see(f, ranges[i][0], ranges[i][1], ranges[i][2]);
        same_as_specified(f, 40, 5, 0.1);
        same_as_specified(f, 3, 20, 0.01);
    }
    fixture_unmake(f);
}

Test(cluster, only_rows_in_sight_are_found)
{
    same_in_any_sight(fixture_make(MEMTX_ROWS_F16, 8));
}

/* A query whose clusters hold too little in sight searches everything: min(k, visible) are found. */
Test(cluster, as_many_as_there_are_are_found)
{
    static const size_t steps[] = {2, 10, 40, 300};
    struct fixture *f = fixture_make(MEMTX_ROWS_F16, 9);
    struct answer *answer = malloc(sizeof *answer);
    for (size_t i = 0; i < 4; i++) {
        fixture_see(f, 0, steps[i], 1);
        const size_t n_seen = (N_ROWS + steps[i] - 1) / steps[i];
        for (size_t k = 1; k <= MOST_K; k += 66) {
            fixture_ask(answer, f, 4, k, 0.001);
            for (size_t j = 0; j < 4 * k; j++) {
                cr_assert_eq(answer->ids[j] >= 0, j % k < n_seen, "rank %zu of %zu rows, k %zu", j % k, n_seen, k);
            }
            check_answers(answer, f, 4, k, 0.001);
        }
    }
    free(answer);
    fixture_unmake(f);
}

Test(cluster, all_clusters_are_exact_search)
{
    for (int type = MEMTX_ROWS_F16; type <= MEMTX_ROWS_F32; type++) {
        struct fixture *f = fixture_make((enum memtx_row_type)type, 10);
        same_as_exact(f, MOST_Q, 32);
        fixture_see(f, 7, 90, 60);
        same_as_exact(f, MOST_Q, 32);
        same_as_exact(f, 3, 150);
        fixture_unmake(f);
    }
}

/* A cluster without rows has no centroid, and is wanted by nobody. There must be some. */
static void check_empty(const struct memtx__cluster *cluster)
{
    size_t n_empty = 0;
    for (size_t c = 0; c < cluster->n_blocks * cluster->per_block; c++) {
        const uint16_t *starts =
            cluster->starts + c / cluster->per_block * (cluster->per_block + 1) + c % cluster->per_block;
        float centroid[DIM];
        memtx__rows_read(centroid, cluster->type, cluster->centroids + c * DIM * memtx__row_type_bytes(cluster->type),
                         DIM);
        for (size_t i = 0; i < DIM; i++) {
            cr_assert_eq(isnan(centroid[i]) != 0, starts[0] == starts[1]);
        }
        n_empty += starts[0] == starts[1];
    }
    cr_assert_gt(n_empty, 0);
}

/* Few different rows, so that clusters are large, many are empty, and the k-th score is that of hundreds of rows. */
Test(cluster, duplicates_zeros_and_ties)
{
    for (size_t n_kinds = 1; n_kinds <= 5; n_kinds += 2) {
        struct fixture *f = fixture_make_rows(MEMTX_ROWS_F16, 2, 11);
        memset(f->values, 0, DIM * sizeof *f->values); /* the first kind is zero */
        for (size_t i = n_kinds; i < N_ROWS; i++) {
            memcpy(f->values + i * DIM, f->values + i * 7 % n_kinds * DIM, DIM * sizeof *f->values);
        }
        fixture_make_index(f);
        check_empty(f->cluster);
        same_as_specified(f, MOST_Q, 40, 0.05);
        same_as_exact(f, MOST_Q, 40);
        fixture_unmake(f);
    }
}

/* A damaged row is never returned and spoils no other; a whole block of them is no hindrance. */
Test(cluster, rows_that_are_no_numbers_are_never_found)
{
    static const float odd[] = {NAN, INFINITY, -INFINITY};
    struct fixture *f = fixture_make_rows(MEMTX_ROWS_F16, 2, 12);
    for (size_t i = 0; i < N_ROWS; i++) {
        if (i % 5 == 0 || (i >= 220 && i < 320) ||
            (i >= 321 && i < 420)) { /* all of a block, all but one of the next */
            f->values[i * DIM + i % DIM] = odd[i / 5 % 3];
        }
    }
    fixture_make_index(f);
    same_as_specified(f, MOST_Q, 5, 0.05);
    same_as_specified(f, MOST_Q, 40, 0.3);
    same_as_exact(f, MOST_Q, 40);
    fixture_see(f, N_ROWS - 200, N_ROWS, 150); /* hardly anything else in sight */
    same_as_specified(f, 5, 40, 0.05);
    fixture_unmake(f);
}

Test(cluster, spreads_count)
{
    struct fixture *f = fixture_make_rows(MEMTX_ROWS_F16, 2, 23);
    f->n_sample = 50;
    fixture_make_index(f);
    round_spreads(f);
    same_as_specified(f, MOST_Q, 5, 0.05);
    fixture_see(f, 0, 300, 120);
    same_as_specified(f, MOST_Q, 20, 0.3);
    same_as_exact(f, MOST_Q, 32);
    fixture_unmake(f);
}

/* Queries that know only the first number of a row: clusters go by it, and their spread is that of the scores. */
Test(cluster, rows_that_score_alike_lie_together)
{
    struct fixture *f = fixture_make_rows(MEMTX_ROWS_F32, 2, 24);
    double within[2] = {0};
    for (size_t i = 0; i < MOST_Q; i++) {
        memset(f->queries + i * DIM, 0, DIM * sizeof *f->queries);
        f->queries[i * DIM] = i % 2 ? 1.0F : -1.0F;
    }
    for (int sampled = 0; sampled < 2; sampled++) {
        f->n_sample = sampled ? MOST_Q : 0;
        memtx__cluster_destroy(f->cluster);
        fixture_make_index(f);
        for (size_t c = 0; c < f->cluster->n_blocks * f->cluster->per_block; c++) {
            const size_t b = c / f->cluster->per_block;
            const uint16_t *starts = f->cluster->starts + b * (f->cluster->per_block + 1) + c % f->cluster->per_block;
            const float *first = f->values + ((FIRST_BLOCK + b) * BLOCK_ROWS - FIRST_ID) * DIM;
            double mean = 0, squares = 0;
            for (size_t i = starts[0]; i < starts[1]; i++) {
                const double score = (double)first[f->cluster->order[b * BLOCK_ROWS + i] * DIM];
                mean += score / (starts[1] - starts[0]);
                squares += score * score / (starts[1] - starts[0]);
            }
            within[sampled] += squares - mean * mean;
            if (sampled) { /* what was added to all directions is a share of 0.01 / 8 of 1 */
                cr_assert_geq((double)f->cluster->spreads[c] + 1e-5, sqrt(fabs(squares - mean * mean)));
                cr_assert_leq((double)f->cluster->spreads[c], sqrt(fabs(squares - mean * mean) + 0.05));
            } else {
                cr_assert_eq(f->cluster->spreads[c], 0);
            }
        }
    }
    cr_assert_lt(within[1], 0.1 * within[0], "%g with a sample, %g without", within[1], within[0]);
    fixture_unmake(f);
}

/* A sample that says nothing is none. */
Test(cluster, samples_without_a_measure)
{
    static const float odd[] = {0, NAN, INFINITY}; /* the last: one direction, without a bound */
    struct fixture *f = fixture_make(MEMTX_ROWS_F16, 25);
    for (size_t i = 0; i < 3; i++) {
        float sample[2 * DIM] = {0};
        sample[DIM] = odd[i];
        struct memtx__cluster *other = fixture_cluster(&f->rows, &f->options, sample, 2);
        for (size_t c = 0; c < other->n_blocks * other->per_block; c++) {
            cr_assert_eq(other->spreads[c], 0);
        }
        cr_assert_arr_eq(other->order, f->cluster->order, other->n_blocks * BLOCK_ROWS * sizeof *other->order);
        memtx__cluster_destroy(other);
    }
    fixture_unmake(f);
}

/* Sums that overflow: such a score is no score. */
Test(cluster, infinite_scores_are_passed_over)
{
    struct fixture *f = fixture_make_rows(MEMTX_ROWS_F32, 2, 26);
    struct answer *answer = malloc(sizeof *answer);
    for (size_t i = 0; i < N_ROWS; i += 3) {
        f->values[i * DIM] = i % 2 ? 1e38F : -1e38F;
    }
    fixture_make_index(f);
    for (size_t i = 0; i < MOST_Q; i++) {
        f->queries[i * DIM] = 4.0F;
    }
    fixture_ask(answer, f, MOST_Q, 100, 1.0);
    for (size_t i = 0; i < (size_t)MOST_Q * 100; i++) {
        cr_assert(isfinite(answer->scores[i]) && (answer->ids[i] - FIRST_ID) % 3, "id %lld of %g",
                  (long long)answer->ids[i], (double)answer->scores[i]);
    }
    free(answer);
    fixture_unmake(f);
}

/* ---- clusters of clusters --------------------------------------------------------------------- */

/* Groups of two blocks: five of them, one block before the first and one behind the last. */
static struct fixture *make_grouped(enum memtx_row_type type, uint64_t seed)
{
    struct fixture *f = fixture_make_rows(type, 2, seed);
    f->options.cluster_rows = 3;
    f->options.group_blocks = 2;
    f->n_sample = 50;
    fixture_make_index(f);
    round_spreads(f);
    cr_assert_eq(f->cluster->groups->n_blocks, 5);
    cr_assert_geq(f->cluster->groups->per_block, 3);
    return f;
}

Test(groups, answers_as_specified)
{
    static const size_t n_queries[] = {1, 5, 96}, k[] = {1, 5, 40};
    for (int type = MEMTX_ROWS_F16; type <= MEMTX_ROWS_BF16; type++) {
        struct fixture *f = make_grouped((enum memtx_row_type)type, 31);
        for (size_t i = 0; i < 3; i++) {
            same_as_specified(f, n_queries[i], k[i], 0.01);
            same_as_specified(f, n_queries[2 - i], k[i], 0.1);
            same_as_specified(f, n_queries[2 - i], k[i], 0.3); /* too large a share to go by groups */
        }
        same_as_exact(f, MOST_Q, 32);
        fixture_unmake(f);
    }
}

Test(groups, only_rows_in_sight_are_found)
{
    same_in_any_sight(make_grouped(MEMTX_ROWS_F16, 32));
}

/* More queries than go through the tops together. */
Test(groups, many_queries)
{
    enum { N = 300 };
    struct fixture *f = make_grouped(MEMTX_ROWS_F16, 33);
    float *queries = malloc(sizeof(float) * N * DIM);
    int64_t *ids = malloc(sizeof(int64_t) * N * 5), *expected = malloc(sizeof(int64_t) * N * 5);
    for (size_t q = 0; q < N; q++) {
        memcpy(queries + q * DIM, f->queries + q % MOST_Q * DIM, DIM * sizeof *queries);
    }
    cr_assert_eq(memtx__cluster_reserve(&f->search, f->cluster, N, 5, 0.05, f->rows.n_blocks), MEMTX_OK);
    cr_assert_eq(memtx__cluster_search(NULL, ids, &f->search, f->cluster, &f->rows, queries, N, 5), MEMTX_OK);
    cr_assert_eq(memtx__cluster_search(NULL, expected, &f->search, f->cluster, &f->rows, f->queries, MOST_Q, 5),
                 MEMTX_OK);
    for (size_t q = 0; q < N; q++) {
        cr_assert_arr_eq(ids + q * 5, expected + q % MOST_Q * 5, 5 * sizeof *ids);
    }
    free(queries);
    free(ids);
    free(expected);
    fixture_unmake(f);
}
