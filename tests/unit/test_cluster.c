/* The cluster index: its answers against a plain specification, and what must hold of any.
 *
 * Rows and queries are small whole numbers, so that sums are exact in any order and answers can be compared to the bit,
 * ties included.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/rng.h"
#include "math/rows.h"
#include "search/cluster.h"
#include "search/kmeans.h"

enum { DIM = 8, BLOCK_ROWS = 100, CLUSTER_ROWS = 7, CHUNK = 30, MOST_Q = 96, MOST_K = 200, FIRST_BLOCK = 3 };
enum {
    FIRST_ID = FIRST_BLOCK * BLOCK_ROWS - 20,
    N_ROWS = 1263
}; /* some before the first block, some behind the last */

/* ---- rows, an index, a searcher --------------------------------------------------------------- */

struct fixture {
    enum memtx_row_type type;
    float *values;         /* [N_ROWS][DIM], as the type has them */
    unsigned char *stored; /* the same, as they are kept */
    struct memtx__row_block blocks[N_ROWS];
    struct memtx__row_set rows;
    struct memtx__cluster *cluster;
    struct memtx__cluster_search search;
    float queries[MOST_Q * DIM];
    size_t n_sample; /* of the queries, the first so many, by which the index is made */
};

static struct memtx__cluster_options small_options(void)
{
    struct memtx__cluster_options options = memtx__cluster_options_default();
    options.block_rows = BLOCK_ROWS;
    options.cluster_rows = CLUSTER_ROWS;
    return options;
}

/* Rows i of which (i + shift) % step < seen are to be seen, in pieces that end at chunks of CHUNK rows too. */
static void see(struct fixture *f, size_t shift, size_t step, size_t seen)
{
    const size_t row_bytes = DIM * memtx__row_type_bytes(f->type);
    struct memtx__row_block *last = NULL;
    f->rows = (struct memtx__row_set){f->blocks, 0, f->type, DIM};
    for (size_t i = 0; i < N_ROWS; i++) {
        if ((i + shift) % step >= seen) {
            last = NULL;
        } else if (last && i % CHUNK) {
            last->n_rows++;
        } else {
            last = &f->blocks[f->rows.n_blocks++];
            *last = (struct memtx__row_block){f->stored + i * row_bytes, FIRST_ID + i, 1};
        }
    }
}

static void add_all(struct memtx__cluster *cluster, const struct memtx__row_set *rows, const float *sample, size_t n)
{
    while ((cluster->first_block + cluster->n_blocks + 1) * BLOCK_ROWS <= FIRST_ID + N_ROWS) {
        cr_assert_eq(memtx__cluster_add(cluster, rows, sample, n), MEMTX_OK, "%s", memtx_last_error());
    }
}

static struct memtx__cluster *make_cluster(const struct memtx__row_set *rows, const float *sample, size_t n)
{
    const struct memtx__cluster_options options = small_options();
    struct memtx__cluster *cluster;
    cr_assert_eq(memtx__cluster_create(&cluster, rows->type, DIM, FIRST_BLOCK, &options), MEMTX_OK);
    add_all(cluster, rows, sample, n);
    return cluster;
}

/* Whole numbers from -most to most; the index is made by whoever has changed them, or left them as they are. */
static struct fixture *make_rows(enum memtx_row_type type, uint64_t most, uint64_t seed)
{
    struct memtx__rng rng = memtx__rng_create(seed, 0);
    struct fixture *f = calloc(1, sizeof *f);
    f->type = type;
    f->values = malloc(sizeof(float) * N_ROWS * DIM);
    f->stored = malloc((size_t)4 * N_ROWS * DIM);
    for (size_t i = 0; i < (size_t)N_ROWS * DIM; i++) {
        f->values[i] = (float)memtx__rng_below(&rng, 2 * most + 1) - (float)most;
    }
    for (size_t i = 0; i < (size_t)MOST_Q * DIM; i++) {
        f->queries[i] = (float)memtx__rng_below(&rng, 5) - 2.0F;
    }
    return f;
}

static void make_index(struct fixture *f)
{
    memtx__rows_write(f->stored, f->type, f->values, (size_t)N_ROWS * DIM);
    memtx__rows_read(f->values, f->type, f->stored, (size_t)N_ROWS * DIM);
    see(f, 0, 1, 1);
    f->cluster = make_cluster(&f->rows, f->queries, f->n_sample);
}

static struct fixture *make(enum memtx_row_type type, uint64_t seed)
{
    struct fixture *f = make_rows(type, 2, seed);
    make_index(f);
    return f;
}

static void unmake(struct fixture *f)
{
    memtx__cluster_destroy(f->cluster);
    memtx__cluster_search_release(&f->search);
    free(f->values);
    free(f->stored);
    free(f);
}

struct answer {
    float scores[MOST_Q * MOST_K];
    int64_t ids[MOST_Q * MOST_K];
};

static void ask(struct answer *out, struct fixture *f, size_t n_queries, size_t k, double share)
{
    cr_assert_eq(memtx__cluster_reserve(&f->search, f->cluster, n_queries, k, share, f->rows.n_blocks), MEMTX_OK, "%s",
                 memtx_last_error());
    cr_assert_eq(
        memtx__cluster_search(out->scores, out->ids, &f->search, f->cluster, &f->rows, f->queries, n_queries, k),
        MEMTX_OK, "%s", memtx_last_error());
}

/* ---- the specification ------------------------------------------------------------------------ */

struct scored {
    double score;
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

/* The finite ones, best first. */
static size_t rank(struct scored *all, size_t n)
{
    size_t n_finite = 0;
    for (size_t i = 0; i < n; i++) {
        if (isfinite(all[i].score)) {
            all[n_finite++] = all[i];
        }
    }
    qsort(all, n_finite, sizeof *all, by_rank);
    return n_finite;
}

static double dot(const float *a, const float *b)
{
    double sum = 0;
    for (size_t i = 0; i < DIM; i++) {
        sum += (double)a[i] * (double)b[i];
    }
    return sum;
}

static bool is_seen(const struct fixture *f, uint64_t id)
{
    for (size_t b = 0; b < f->rows.n_blocks; b++) {
        if (id >= f->blocks[b].first_id && id < f->blocks[b].first_id + f->blocks[b].n_rows) {
            return true;
        }
    }
    return false;
}

/* is_wanted[cluster]: the best of those whose block has a row to be seen. */
static void want(bool *is_wanted, const struct fixture *f, const float *query, size_t k, double share)
{
    const struct memtx__cluster *cluster = f->cluster;
    const size_t n_clusters = cluster->n_blocks * cluster->per_block;
    static struct scored all[N_ROWS];
    float centroid[DIM];
    size_t n = 0;
    memset(is_wanted, 0, n_clusters * sizeof *is_wanted);
    for (size_t c = 0; c < n_clusters; c++) {
        const uint64_t first = (FIRST_BLOCK + c / cluster->per_block) * BLOCK_ROWS;
        bool any = false;
        for (uint64_t id = first; id < first + BLOCK_ROWS; id++) {
            any |= is_seen(f, id);
        }
        if (any) {
            memtx__rows_read(centroid, f->type, cluster->centroids + c * DIM * memtx__row_type_bytes(f->type), DIM);
            all[n++] = (struct scored){dot(query, centroid) + 2 * (double)cluster->spreads[c], (int64_t)c};
        }
    }
    const size_t n_wanted = memtx__cluster_n_wanted(cluster, n, k, share);
    n = rank(all, n);
    for (size_t i = 0; i < n && i < n_wanted; i++) {
        is_wanted[all[i].id] = true;
    }
}

/* is_met[row]: in a cluster that is wanted, or in none since its block is not in the index. */
static void meet(bool *is_met, const struct fixture *f, const bool *is_wanted)
{
    const struct memtx__cluster *cluster = f->cluster;
    for (size_t i = 0; i < N_ROWS; i++) {
        const uint64_t block = (FIRST_ID + i) / BLOCK_ROWS;
        is_met[i] = block < FIRST_BLOCK || block >= FIRST_BLOCK + cluster->n_blocks;
    }
    for (size_t c = 0; c < cluster->n_blocks * cluster->per_block; c++) {
        const size_t b = c / cluster->per_block;
        const uint16_t *starts = cluster->starts + b * (cluster->per_block + 1) + c % cluster->per_block;
        for (size_t i = starts[0]; i < starts[1] && is_wanted[c]; i++) {
            is_met[(FIRST_BLOCK + b) * BLOCK_ROWS + cluster->order[b * BLOCK_ROWS + i] - FIRST_ID] = true;
        }
    }
}

static size_t rank_rows(struct scored *out, const struct fixture *f, const float *query, const bool *is_met)
{
    size_t n = 0;
    for (size_t i = 0; i < N_ROWS; i++) {
        if (is_seen(f, FIRST_ID + i) && (!is_met || is_met[i])) {
            out[n++] = (struct scored){dot(query, f->values + i * DIM), (int64_t)(FIRST_ID + i)};
        }
    }
    return rank(out, n);
}

static void check_answers(const struct answer *answer, const struct fixture *f, size_t n_queries, size_t k,
                          double share)
{
    static struct scored found[N_ROWS];
    bool is_wanted[N_ROWS], is_met[N_ROWS];
    size_t n_seen = 0;
    for (size_t b = 0; b < f->rows.n_blocks; b++) {
        n_seen += f->blocks[b].n_rows;
    }
    for (size_t q = 0; q < n_queries; q++) {
        const float *query = f->queries + q * DIM;
        want(is_wanted, f, query, k, share);
        meet(is_met, f, is_wanted);
        size_t n = rank_rows(found, f, query, is_met);
        if (n < k && n < n_seen) {
            n = rank_rows(found, f, query, NULL);
        }
        for (size_t i = 0; i < k; i++) {
            const struct scored expected = i < n ? found[i] : (struct scored){(double)-INFINITY, -1};
            cr_assert(answer->ids[q * k + i] == expected.id && (double)answer->scores[q * k + i] == expected.score,
                      "query %zu, rank %zu: id %lld of %g, not %lld of %g", q, i, (long long)answer->ids[q * k + i],
                      (double)answer->scores[q * k + i], (long long)expected.id, expected.score);
        }
    }
}

static void same_as_specified(struct fixture *f, size_t n_queries, size_t k, double share)
{
    struct answer *answer = malloc(sizeof *answer);
    ask(answer, f, n_queries, k, share);
    check_answers(answer, f, n_queries, k, share);
    free(answer);
}

Test(cluster, answers_as_specified)
{
    static const double shares[] = {0.01, 0.3, 1.0};
    static const size_t n_queries[] = {1, 5, 96}, k[] = {1, 5, 40};
    for (int type = MEMTX_ROWS_F16; type <= MEMTX_ROWS_BF16; type++) {
        struct fixture *f = make((enum memtx_row_type)type, 7);
        for (size_t s = 0; s < 3; s++) {
            for (size_t i = 0; i < 3; i++) {
                same_as_specified(f, n_queries[i], k[i], shares[s]);
                same_as_specified(f, n_queries[2 - i], k[i], shares[s]);
            }
        }
        unmake(f);
    }
}

/* Ranges of all kinds: nothing, parts of blocks, whole blocks missing, rows here and there. */
Test(cluster, only_rows_in_sight_are_found)
{
    static const size_t ranges[][3] = {{0, 1, 0},     {0, 2000, 15},   {0, 2000, 150},    {0, 2, 1},  {0, 300, 120},
                                       {50, 300, 90}, {0, 2000, 1000}, {780, 2000, 1000}, {3, 41, 2}, {0, 500, 499}};
    struct fixture *f = make(MEMTX_ROWS_F16, 8);
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        see(f, ranges[i][0], ranges[i][1], ranges[i][2]);
        same_as_specified(f, 40, 5, 0.1);
        same_as_specified(f, 3, 20, 0.01);
    }
    unmake(f);
}

/* A query whose clusters hold too little in sight searches everything: min(k, visible) are found. */
Test(cluster, as_many_as_there_are_are_found)
{
    static const size_t steps[] = {2, 10, 40, 300};
    struct fixture *f = make(MEMTX_ROWS_F16, 9);
    struct answer *answer = malloc(sizeof *answer);
    for (size_t i = 0; i < 4; i++) {
        see(f, 0, steps[i], 1);
        const size_t n_seen = (N_ROWS + steps[i] - 1) / steps[i];
        for (size_t k = 1; k <= MOST_K; k += 66) {
            ask(answer, f, 4, k, 0.001);
            for (size_t j = 0; j < 4 * k; j++) {
                cr_assert_eq(answer->ids[j] >= 0, j % k < n_seen, "rank %zu of %zu rows, k %zu", j % k, n_seen, k);
            }
            check_answers(answer, f, 4, k, 0.001);
        }
    }
    free(answer);
    unmake(f);
}

static void same_as_exact(struct fixture *f, size_t n_queries, size_t k)
{
    struct memtx__exact exact;
    struct memtx__arena arena = {0};
    struct answer *expected = malloc(sizeof *expected), *answer = malloc(sizeof *answer);
    memtx__exact_take(&exact, &arena, n_queries, k, DIM);
    cr_assert_eq(memtx__arena_reserve(&arena), MEMTX_OK);
    memtx__exact_take(&exact, &arena, n_queries, k, DIM);
    cr_assert_eq(memtx__exact_search(expected->scores, expected->ids, &exact, &f->rows, f->queries, n_queries, k),
                 MEMTX_OK);
    ask(answer, f, n_queries, k, 1.0);
    cr_assert_arr_eq(answer->ids, expected->ids, n_queries * k * sizeof *answer->ids);
    cr_assert_arr_eq(answer->scores, expected->scores, n_queries * k * sizeof *answer->scores);
    memtx__arena_release(&arena);
    free(expected);
    free(answer);
}

Test(cluster, all_clusters_are_exact_search)
{
    for (int type = MEMTX_ROWS_F16; type <= MEMTX_ROWS_F32; type++) {
        struct fixture *f = make((enum memtx_row_type)type, 10);
        same_as_exact(f, MOST_Q, 32);
        see(f, 7, 90, 60);
        same_as_exact(f, MOST_Q, 32);
        same_as_exact(f, 3, 150);
        unmake(f);
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
        struct fixture *f = make_rows(MEMTX_ROWS_F16, 2, 11);
        memset(f->values, 0, DIM * sizeof *f->values); /* the first kind is zero */
        for (size_t i = n_kinds; i < N_ROWS; i++) {
            memcpy(f->values + i * DIM, f->values + i * 7 % n_kinds * DIM, DIM * sizeof *f->values);
        }
        make_index(f);
        check_empty(f->cluster);
        same_as_specified(f, MOST_Q, 40, 0.05);
        same_as_exact(f, MOST_Q, 40);
        unmake(f);
    }
}

/* A damaged row is never returned and spoils no other; a whole block of them is no hindrance. */
Test(cluster, rows_that_are_no_numbers_are_never_found)
{
    static const float odd[] = {NAN, INFINITY, -INFINITY};
    struct fixture *f = make_rows(MEMTX_ROWS_F16, 2, 12);
    for (size_t i = 0; i < N_ROWS; i++) {
        if (i % 5 == 0 || (i >= 220 && i < 320) ||
            (i >= 321 && i < 420)) { /* all of a block, all but one of the next */
            f->values[i * DIM + i % DIM] = odd[i / 5 % 3];
        }
    }
    make_index(f);
    same_as_specified(f, MOST_Q, 5, 0.05);
    same_as_specified(f, MOST_Q, 40, 0.3);
    same_as_exact(f, MOST_Q, 40);
    see(f, N_ROWS - 200, N_ROWS, 150); /* hardly anything else in sight */
    same_as_specified(f, 5, 40, 0.05);
    unmake(f);
}

/* With a sample of queries spreads are no whole numbers; they are made so, to stay exact. */
static void round_spreads(struct fixture *f)
{
    for (size_t i = 0; i < f->cluster->n_blocks * f->cluster->per_block; i++) {
        f->cluster->spreads[i] = roundf(f->cluster->spreads[i] * 8) / 8;
    }
}

Test(cluster, spreads_count)
{
    struct fixture *f = make_rows(MEMTX_ROWS_F16, 2, 23);
    f->n_sample = 50;
    make_index(f);
    round_spreads(f);
    same_as_specified(f, MOST_Q, 5, 0.05);
    see(f, 0, 300, 120);
    same_as_specified(f, MOST_Q, 20, 0.3);
    same_as_exact(f, MOST_Q, 32);
    unmake(f);
}

/* Queries that know only the first number of a row: clusters go by it, and their spread is that of the scores. */
Test(cluster, rows_that_score_alike_lie_together)
{
    struct fixture *f = make_rows(MEMTX_ROWS_F32, 2, 24);
    double within[2] = {0};
    for (size_t i = 0; i < MOST_Q; i++) {
        memset(f->queries + i * DIM, 0, DIM * sizeof *f->queries);
        f->queries[i * DIM] = i % 2 ? 1.0F : -1.0F;
    }
    for (int sampled = 0; sampled < 2; sampled++) {
        f->n_sample = sampled ? MOST_Q : 0;
        memtx__cluster_destroy(f->cluster);
        make_index(f);
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
    unmake(f);
}

/* A sample that says nothing is none. */
Test(cluster, samples_without_a_measure)
{
    static const float odd[] = {0, NAN, INFINITY}; /* the last: one direction, without a bound */
    struct fixture *f = make(MEMTX_ROWS_F16, 25);
    for (size_t i = 0; i < 3; i++) {
        float sample[2 * DIM] = {0};
        sample[DIM] = odd[i];
        struct memtx__cluster *other = make_cluster(&f->rows, sample, 2);
        for (size_t c = 0; c < other->n_blocks * other->per_block; c++) {
            cr_assert_eq(other->spreads[c], 0);
        }
        cr_assert_arr_eq(other->order, f->cluster->order, other->n_blocks * BLOCK_ROWS * sizeof *other->order);
        memtx__cluster_destroy(other);
    }
    unmake(f);
}

/* Sums that overflow: such a score is no score. */
Test(cluster, infinite_scores_are_passed_over)
{
    struct fixture *f = make_rows(MEMTX_ROWS_F32, 2, 26);
    struct answer *answer = malloc(sizeof *answer);
    for (size_t i = 0; i < N_ROWS; i += 3) {
        f->values[i * DIM] = i % 2 ? 1e38F : -1e38F;
    }
    make_index(f);
    for (size_t i = 0; i < MOST_Q; i++) {
        f->queries[i * DIM] = 4.0F;
    }
    ask(answer, f, MOST_Q, 100, 1.0);
    for (size_t i = 0; i < (size_t)MOST_Q * 100; i++) {
        cr_assert(isfinite(answer->scores[i]) && (answer->ids[i] - FIRST_ID) % 3, "id %lld of %g",
                  (long long)answer->ids[i], (double)answer->scores[i]);
    }
    free(answer);
    unmake(f);
}

/* ---- building --------------------------------------------------------------------------------- */

static unsigned char *bytes_of(size_t *n_bytes, const struct memtx__cluster *cluster)
{
    *n_bytes = memtx__cluster_bytes(cluster, cluster->n_blocks);
    unsigned char *bytes = malloc(*n_bytes);
    memtx__cluster_save(bytes, cluster, cluster->first_block, cluster->n_blocks);
    return bytes;
}

static void check_same(const struct memtx__cluster *a, const struct memtx__cluster *b)
{
    size_t n_a, n_b;
    unsigned char *bytes_a = bytes_of(&n_a, a), *bytes_b = bytes_of(&n_b, b);
    cr_assert_eq(n_a, n_b);
    cr_assert_arr_eq(bytes_a, bytes_b, n_a);
    free(bytes_a);
    free(bytes_b);
}

/* Every row that is a number stands in one cluster, whose centroid is the mean of its rows. */
Test(cluster, each_row_has_a_cluster)
{
    struct fixture *f = make_rows(MEMTX_ROWS_F32, 2, 13);
    f->values[55 * DIM] = NAN;
    f->n_sample = 9; /* centroids are means of the rows all the same, not of what they are turned into */
    make_index(f);
    const struct memtx__cluster *cluster = f->cluster;
    for (size_t b = 0; b < cluster->n_blocks; b++) {
        unsigned seen[BLOCK_ROWS] = {0};
        const uint16_t *starts = cluster->starts + b * (cluster->per_block + 1);
        const size_t first = (FIRST_BLOCK + b) * BLOCK_ROWS - FIRST_ID;
        for (size_t c = 0; c < cluster->per_block; c++) {
            double mean[DIM] = {0};
            float centroid[DIM];
            for (size_t i = starts[c]; i < starts[c + 1]; i++) {
                const uint16_t place = cluster->order[b * BLOCK_ROWS + i];
                seen[place]++;
                for (size_t d = 0; d < DIM; d++) {
                    mean[d] += (double)f->values[(first + place) * DIM + d] / (starts[c + 1] - starts[c]);
                }
            }
            cr_assert_lt(starts[c], starts[c + 1], "there are rows enough for every cluster");
            memtx__rows_read(centroid, MEMTX_ROWS_F32, cluster->centroids + (b * cluster->per_block + c) * DIM * 4,
                             DIM);
            for (size_t d = 0; d < DIM; d++) {
                cr_assert_float_eq((double)centroid[d], mean[d], 1e-5);
            }
        }
        for (size_t i = 0; i < BLOCK_ROWS; i++) {
            cr_assert_eq(seen[i], first + i != 55, "row %zu of block %zu", i, b);
        }
    }
    unmake(f);
}

/* Rows that are not there when a block is made are in no cluster. */
Test(cluster, dead_rows_have_no_cluster)
{
    struct fixture *f = make(MEMTX_ROWS_F16, 27);
    see(f, 0, 10, 7);
    struct memtx__cluster *cluster = make_cluster(&f->rows, NULL, 0);
    for (size_t b = 0; b < cluster->n_blocks; b++) {
        cr_assert_eq(cluster->starts[b * (cluster->per_block + 1) + cluster->per_block], BLOCK_ROWS * 7 / 10);
    }
    memtx__cluster_destroy(f->cluster);
    f->cluster = cluster;
    same_as_specified(f, 20, 20, 0.1);
    unmake(f);
}

/* As long as there are different rows enough no cluster stays empty, however often one of them is drawn to begin with. */
Test(cluster, an_empty_cluster_takes_a_row)
{
    enum { N = 100, D = 4, CLUSTERS = 8 };
    float rows[N * D] = {0};
    uint16_t cluster_of[N];
    for (uint64_t seed = 0; seed < 10; seed++) {
        size_t counts[CLUSTERS] = {0}, n_used = 0;
        for (size_t i = 0; i < 9; i++) {
            rows[i * 11 * D] = (float)(i + 1);
        }
        cr_assert_eq(memtx__kmeans(cluster_of, rows, &(struct memtx__kmeans){N, D, CLUSTERS, 3, seed, 0}), MEMTX_OK);
        for (size_t i = 0; i < N; i++) {
            cr_assert_lt(cluster_of[i], CLUSTERS);
            n_used += counts[cluster_of[i]]++ == 0;
        }
        cr_assert_eq(n_used, CLUSTERS, "seed %d: %zu clusters have rows", (int)seed, n_used);
    }
}

/* Rows that lie far apart are in different clusters. */
Test(cluster, clusters_are_tight)
{
    enum { N = 2000, KINDS = 20, D = 16 };
    struct memtx__rng rng = memtx__rng_create(14, 0);
    float *rows = malloc(sizeof(float) * N * D);
    uint16_t *cluster_of = malloc(sizeof(uint16_t) * N);
    for (size_t i = 0; i < (size_t)N * D; i++) { /* 20 heaps, far apart */
        rows[i] = (i / D % KINDS % D == i % D ? 10.0F * (1.0F + (float)(i / D % KINDS / D)) : 0.0F) +
                  0.1F * memtx__rng_signed(&rng);
    }
    cr_assert_eq(memtx__kmeans(cluster_of, rows, &(struct memtx__kmeans){N, D, 100, 4, 1, 0}), MEMTX_OK);
    for (size_t i = 0; i < N; i++) {
        cr_assert_lt(cluster_of[i], 100);
        for (size_t j = 0; j < i; j++) {
            cr_assert(cluster_of[i] != cluster_of[j] || i % KINDS == j % KINDS, "rows %zu and %zu of two heaps", i, j);
        }
    }
    free(rows);
    free(cluster_of);
}

Test(cluster, grown_equals_made_at_once)
{
    struct fixture *f = make_rows(MEMTX_ROWS_F16, 2, 15);
    f->n_sample = 9;
    make_index(f);
    round_spreads(f);
    const struct memtx__cluster_options options = small_options();
    struct memtx__cluster *grown;
    struct answer *answer = malloc(sizeof *answer);
    cr_assert_eq(memtx__cluster_create(&grown, MEMTX_ROWS_F16, DIM, FIRST_BLOCK, &options), MEMTX_OK);
    for (size_t block = 0; block < f->cluster->n_blocks; block++) { /* only the block itself, and searches in between */
        const uint64_t first = (FIRST_BLOCK + block) * BLOCK_ROWS;
        const struct memtx__row_block one = {f->stored + (first - FIRST_ID) * DIM * 2, first, BLOCK_ROWS};
        const struct memtx__row_set rows = {&one, 1, MEMTX_ROWS_F16, DIM};
        cr_assert_eq(memtx__cluster_add(grown, &rows, f->queries, f->n_sample), MEMTX_OK);
        struct memtx__cluster *whole = f->cluster;
        f->cluster = grown;
        round_spreads(f);
        ask(answer, f, 10, 20, 0.1);
        check_answers(answer, f, 10, 20, 0.1);
        f->cluster = whole;
    }
    check_same(grown, f->cluster);
    memtx__cluster_destroy(grown);
    free(answer);
    unmake(f);
}

/* With rows that are no whole numbers, whose sums do depend on their order. */
Test(cluster, the_same_for_any_number_of_threads)
{
    struct answer *answers[2] = {malloc(sizeof(struct answer)), malloc(sizeof(struct answer))};
    struct memtx__cluster *first = NULL;
    for (int i = 0; i < 2; i++) {
        omp_set_num_threads(1 + 2 * i);
        struct fixture *f = make_rows(MEMTX_ROWS_F16, 1000, 16);
        for (size_t j = 0; j < (size_t)N_ROWS * DIM; j++) {
            f->values[j] /= 777.0F;
        }
        f->n_sample = MOST_Q;
        make_index(f);
        see(f, 20, N_ROWS, 1200); /* full blocks alone: of the tail this is exact search's affair */
        ask(answers[i], f, MOST_Q, 32, 0.1);
        if (i == 0) {
            first = f->cluster;
            f->cluster = NULL;
        } else {
            check_same(first, f->cluster);
        }
        unmake(f);
    }
    cr_assert_arr_eq(answers[0]->ids, answers[1]->ids, sizeof(int64_t) * MOST_Q * 32);
    cr_assert_arr_eq(answers[0]->scores, answers[1]->scores, sizeof(float) * MOST_Q * 32);
    memtx__cluster_destroy(first);
    free(answers[0]);
    free(answers[1]);
}

/* ---- as bytes --------------------------------------------------------------------------------- */

static struct memtx__cluster *empty_like(const struct memtx__cluster *cluster)
{
    struct memtx__cluster *empty;
    cr_assert_eq(memtx__cluster_create(&empty, cluster->type, cluster->dim, cluster->first_block, &cluster->options),
                 MEMTX_OK);
    return empty;
}

Test(cluster, loaded_equals_saved)
{
    for (int type = MEMTX_ROWS_F16; type <= MEMTX_ROWS_F32; type++) {
        struct fixture *f = make_rows((enum memtx_row_type)type, 2, 17);
        f->n_sample = 9;
        make_index(f);
        round_spreads(f);
        struct memtx__cluster *loaded = empty_like(f->cluster);
        for (size_t block = 0, n = 5; block < f->cluster->n_blocks; block += n, n = f->cluster->n_blocks - block) {
            unsigned char *bytes = malloc(memtx__cluster_bytes(f->cluster, n) + 1);
            memtx__cluster_save(bytes + 1, f->cluster, FIRST_BLOCK + block, n); /* at an odd address */
            cr_assert_eq(memtx__cluster_load(loaded, bytes + 1, memtx__cluster_bytes(f->cluster, n)), MEMTX_OK, "%s",
                         memtx_last_error());
            free(bytes);
        }
        check_same(f->cluster, loaded);
        memtx__cluster_destroy(f->cluster);
        f->cluster = loaded;
        if (type != MEMTX_ROWS_F32) {
            same_as_specified(f, 20, 5, 0.1);
        }
        unmake(f);
    }
}

Test(cluster, every_damaged_byte_is_refused)
{
    struct fixture *f = make(MEMTX_ROWS_F16, 18);
    struct memtx__cluster *loaded = empty_like(f->cluster);
    const size_t n_bytes = memtx__cluster_bytes(f->cluster, 2);
    unsigned char *bytes = malloc(n_bytes + 1);
    memtx__cluster_save(bytes, f->cluster, FIRST_BLOCK, 2);
    for (size_t i = 0; i < n_bytes; i++) {
        bytes[i] ^= (unsigned char)(1 << i % 8);
        cr_assert_eq(memtx__cluster_load(loaded, bytes, n_bytes), MEMTX_E_CORRUPT, "byte %zu", i);
        bytes[i] ^= (unsigned char)(1 << i % 8);
    }
    for (size_t n = 0; n <= n_bytes + 1; n++) {
        cr_assert_eq(memtx__cluster_load(loaded, bytes, n), n == n_bytes ? MEMTX_OK : MEMTX_E_CORRUPT, "%zu bytes", n);
        cr_assert_eq(loaded->n_blocks, n < n_bytes ? 0 : 2);
    }
    free(bytes);
    memtx__cluster_destroy(loaded);
    unmake(f);
}

/* A number of the file is changed, and the checksum with it. */
static int load_forged(const struct memtx__cluster *cluster, size_t at, uint64_t value, int n)
{
    struct memtx__cluster *loaded = empty_like(cluster);
    const size_t n_bytes = memtx__cluster_bytes(cluster, 2);
    unsigned char *bytes = malloc(n_bytes);
    memtx__cluster_save(bytes, cluster, FIRST_BLOCK, 2);
    memtx__put_le(bytes + at, value, n);
    memtx__put_u32(bytes + n_bytes - 4, memtx__crc32c(0, bytes, n_bytes - 4));
    const int status = memtx__cluster_load(loaded, bytes, n_bytes);
    cr_assert_eq(loaded->n_blocks, status ? 0 : 2);
    free(bytes);
    memtx__cluster_destroy(loaded);
    return status;
}

Test(cluster, forged_bytes_are_bounded)
{
    struct fixture *f = make(MEMTX_ROWS_F16, 19);
    const struct memtx__cluster *c = f->cluster;
    const size_t starts = 52, order = starts + 2 * (c->per_block + 1);
    cr_assert_eq(load_forged(c, starts, 0, 2), MEMTX_OK, "nothing is changed");
    cr_assert_eq(load_forged(c, starts, 1, 2), MEMTX_E_CORRUPT, "the first row of a block in no cluster's reach");
    cr_assert_eq(load_forged(c, starts + 2, 0xFFFF, 2), MEMTX_E_CORRUPT);
    cr_assert_eq(load_forged(c, starts + 2 * c->per_block, BLOCK_ROWS + 1, 2), MEMTX_E_CORRUPT);
    cr_assert_eq(load_forged(c, order, BLOCK_ROWS, 2), MEMTX_E_CORRUPT);
    cr_assert_eq(load_forged(c, order, 0xFFFF, 2), MEMTX_E_CORRUPT);
    cr_assert_eq(load_forged(c, order, c->order[1], 2), MEMTX_E_CORRUPT, "a row twice");
    cr_assert_eq(load_forged(c, 44, 1, 8), MEMTX_E_CORRUPT, "blocks");
    cr_assert_eq(load_forged(c, 44, UINT64_MAX, 8), MEMTX_E_CORRUPT);
    for (size_t at = 8; at < 36; at += 4) { /* type, dim, options */
        cr_assert_eq(load_forged(c, at, 77, 4), MEMTX_E_MISMATCH, "byte %zu", at);
    }
    cr_assert_eq(load_forged(c, 36, FIRST_BLOCK + 1, 8), MEMTX_E_MISMATCH, "not the next block");
    unmake(f);
}

/* ---- what is refused, and what is not taken ---------------------------------------------------- */

Test(cluster, what_is_refused)
{
    static const struct memtx__cluster_options wrong[] = {{0, 1, 1, 0},     {16385, 16, 1, 0}, {100, 0, 1, 0},
                                                          {100, 101, 1, 0}, {100, 10, 0, 0},   {100, 10, 101, 0}};
    struct fixture *f = make(MEMTX_ROWS_F16, 20);
    struct memtx__cluster *none;
    static int64_t ids[(MOST_Q + 1) * MOST_K];
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        cr_assert_eq(memtx__cluster_create(&none, MEMTX_ROWS_F16, DIM, 0, &wrong[i]), MEMTX_E_INVALID);
        cr_assert_null(none);
    }
    cr_assert_eq(memtx__cluster_reserve(&f->search, f->cluster, 4, 5, 0.0, 100), MEMTX_E_INVALID);
    cr_assert_eq(memtx__cluster_reserve(&f->search, f->cluster, 4, 5, 1.5, 100), MEMTX_E_INVALID);
    cr_assert_eq(memtx__cluster_reserve(&f->search, f->cluster, 4, 5, (double)NAN, 100), MEMTX_E_INVALID);
    cr_assert_eq(memtx__cluster_reserve(&f->search, f->cluster, 4, 0, 0.1, 100), MEMTX_E_INVALID);
    cr_assert_eq(memtx__cluster_reserve(&f->search, f->cluster, 4, 5, 0.1, 100), MEMTX_OK);
    const float *q = f->queries;
    cr_assert_eq(memtx__cluster_search(NULL, ids, &f->search, f->cluster, &f->rows, q, 5, 5), MEMTX_E_INVALID);
    cr_assert_eq(memtx__cluster_search(NULL, ids, &f->search, f->cluster, &f->rows, q, 4, 6), MEMTX_E_INVALID);
    cr_assert_eq(memtx__cluster_search(NULL, ids, &f->search, f->cluster, &f->rows, q, 4, 0), MEMTX_E_INVALID);
    struct memtx__cluster *fine; /* of single rows: more clusters are wanted than there is room for */
    cr_assert_eq(memtx__cluster_create(&fine, MEMTX_ROWS_F16, DIM, FIRST_BLOCK,
                                       &(struct memtx__cluster_options){BLOCK_ROWS, 1, 1, 0}),
                 MEMTX_OK);
    cr_assert_eq(memtx__cluster_add(fine, &f->rows, NULL, 0), MEMTX_OK);
    cr_assert_eq(memtx__cluster_search(NULL, ids, &f->search, fine, &f->rows, q, 4, 5), MEMTX_E_INVALID);
    memtx__cluster_destroy(fine);
    struct memtx__row_set other = f->rows;
    other.type = MEMTX_ROWS_BF16;
    cr_assert_eq(memtx__cluster_search(NULL, ids, &f->search, f->cluster, &other, q, 4, 5), MEMTX_E_INVALID);
    cr_assert_eq(memtx__cluster_add(f->cluster, &other, NULL, 0), MEMTX_E_INVALID);
    f->queries[3 * DIM] = NAN;
    cr_assert_eq(memtx__cluster_search(NULL, ids, &f->search, f->cluster, &f->rows, q, 4, 5), MEMTX_E_INVALID);
    cr_assert_eq(memtx__cluster_search(NULL, ids, &f->search, f->cluster, &f->rows, q, 3, 5), MEMTX_OK);
    unmake(f);
}

/* Once sized, neither reserving again nor searching allocates. */
Test(cluster, a_search_allocates_nothing)
{
    struct fixture *f = make(MEMTX_ROWS_F16, 21);
    struct answer *answer = malloc(sizeof *answer);
    ask(answer, f, MOST_Q, 20, 0.1);
    memtx__alloc_fail_at(1);
    ask(answer, f, MOST_Q, 20, 0.1);
    see(f, 0, 50, 1); /* short queries too */
    ask(answer, f, 7, 20, 0.01);
    memtx__alloc_fail_at(0);
    check_answers(answer, f, 7, 20, 0.01);
    free(answer);
    unmake(f);
}

/* Whichever allocation fails, what was there is as it was. */
Test(cluster, no_memory_changes_nothing)
{
    struct fixture *f = make(MEMTX_ROWS_F16, 22);
    const struct memtx__cluster_options options = small_options();
    struct memtx__cluster *cluster, *loaded = empty_like(f->cluster);
    size_t n_bytes;
    unsigned char *bytes = bytes_of(&n_bytes, f->cluster);
    for (long n = 1, done = 0; !done; n++) {
        memtx__alloc_fail_at(n);
        int status = memtx__cluster_create(&cluster, MEMTX_ROWS_F16, DIM, FIRST_BLOCK, &options);
        if (!status) {
            status = memtx__cluster_add(cluster, &f->rows, f->queries, 9);
            cr_assert_eq(cluster->n_blocks, status ? 0 : 1);
        }
        if (!status) {
            status = memtx__cluster_load(loaded, bytes, n_bytes);
            cr_assert_eq(loaded->n_blocks, status ? 0 : f->cluster->n_blocks);
        }
        if (!status) {
            status = memtx__cluster_reserve(&f->search, loaded, 4, 5, 0.1, 100);
        }
        memtx__alloc_fail_at(0);
        cr_assert(status == MEMTX_OK || status == MEMTX_E_NO_MEMORY);
        memtx__cluster_destroy(cluster);
        memtx__cluster_destroy(loaded);
        loaded = empty_like(f->cluster);
        done = status == MEMTX_OK;
        cr_assert_lt(n, 50);
    }
    same_as_specified(f, 4, 5, 0.1);
    memtx__cluster_destroy(loaded);
    free(bytes);
    unmake(f);
}
