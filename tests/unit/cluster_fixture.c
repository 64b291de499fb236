/* Fixtures and the specification (cluster_fixture.h). */
#include "cluster_fixture.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "math/rows.h"
#include "search/cluster_call.h"

/* ---- rows, an index, a searcher --------------------------------------------------------------- */

struct memtx__cluster_options fixture_options(void)
{
    struct memtx__cluster_options options = memtx__cluster_options_default();
    options.block_rows = BLOCK_ROWS;
    options.cluster_rows = CLUSTER_ROWS;
    return options;
}

/* Rows i of which (i + shift) % step < seen are to be seen, in pieces that end at chunks of CHUNK rows too. */
void fixture_see(struct fixture *f, size_t shift, size_t step, size_t seen)
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

struct memtx__cluster *fixture_cluster(const struct memtx__row_set *rows, const struct memtx__cluster_options *options,
                                       const float *sample, size_t n)
{
    struct memtx__cluster *cluster;
    cr_assert_eq(memtx__cluster_create(&cluster, rows->type, DIM, FIRST_BLOCK, options), MEMTX_OK, "%s",
                 memtx_last_error());
    add_all(cluster, rows, sample, n);
    return cluster;
}

/* Whole numbers from -most to most; the index is made by whoever has changed them, or left them as they are. */
struct fixture *fixture_make_rows(enum memtx_row_type type, uint64_t most, uint64_t seed)
{
    struct memtx__rng rng = memtx__rng_create(seed, 0);
    struct fixture *f = calloc(1, sizeof *f);
    f->type = type;
    f->options = fixture_options();
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

void fixture_make_index(struct fixture *f)
{
    memtx__rows_write(f->stored, f->type, f->values, (size_t)N_ROWS * DIM);
    memtx__rows_read(f->values, f->type, f->stored, (size_t)N_ROWS * DIM);
    fixture_see(f, 0, 1, 1);
    f->cluster = fixture_cluster(&f->rows, &f->options, f->queries, f->n_sample);
}

struct fixture *fixture_make(enum memtx_row_type type, uint64_t seed)
{
    struct fixture *f = fixture_make_rows(type, 2, seed);
    fixture_make_index(f);
    return f;
}

void fixture_unmake(struct fixture *f)
{
    memtx__cluster_destroy(f->cluster);
    memtx__cluster_search_release(&f->search);
    free(f->values);
    free(f->stored);
    free(f);
}

void fixture_ask(struct answer *out, struct fixture *f, size_t n_queries, size_t k, double share)
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

static double promise(const struct memtx__cluster *cluster, const float *query, size_t c)
{
    float centroid[DIM];
    memtx__rows_read(centroid, cluster->type, cluster->centroids + c * DIM * memtx__row_type_bytes(cluster->type), DIM);
    return dot(query, centroid) + 3 * (double)cluster->spreads[c];
}

static bool is_block_seen(const struct fixture *f, uint64_t block)
{
    bool any = false;
    for (uint64_t id = block * BLOCK_ROWS; id < (block + 1) * BLOCK_ROWS; id++) {
        any |= is_seen(f, id);
    }
    return any;
}

/* is_met[cluster]: in one of the best clusters of clusters, or in no group. */
static void meet_clusters(bool *is_met, const struct fixture *f, const float *query, double top_share)
{
    const struct memtx__cluster *cluster = f->cluster, *groups = cluster->groups;
    const size_t n_clusters = cluster->n_blocks * cluster->per_block, of_group = groups->options.block_rows;
    static struct scored tops[N_ROWS];
    size_t n_tops = 0;
    memset(is_met, 1, n_clusters * sizeof *is_met);
    for (size_t g = 0; g < groups->n_blocks; g++) {
        const uint64_t block = (groups->first_block + g) * cluster->options.group_blocks;
        bool any = false;
        for (size_t b = 0; b < cluster->options.group_blocks; b++) {
            any |= is_block_seen(f, block + b);
        }
        memset(is_met + (block - FIRST_BLOCK) * cluster->per_block, 0, of_group * sizeof *is_met);
        for (size_t t = g * groups->per_block; any && t < (g + 1) * groups->per_block; t++) {
            tops[n_tops++] = (struct scored){promise(groups, query, t), (int64_t)t};
        }
    }
    const size_t n_wanted = (size_t)ceil(top_share * (double)n_tops);
    n_tops = rank(tops, n_tops);
    for (size_t i = 0; i < n_tops && i < n_wanted; i++) {
        const size_t g = (size_t)tops[i].id / groups->per_block, t = (size_t)tops[i].id % groups->per_block;
        const uint16_t *starts = groups->starts + g * (groups->per_block + 1) + t;
        const size_t first = ((size_t)groups->first_block + g) * of_group - FIRST_BLOCK * cluster->per_block;
        for (size_t j = starts[0]; j < starts[1]; j++) {
            is_met[first + groups->order[g * of_group + j]] = true;
        }
    }
}

/* is_wanted[cluster]: the best of those whose block has a row to be seen. */
static void want(bool *is_wanted, const struct fixture *f, const float *query, size_t k, double share)
{
    const struct memtx__cluster *cluster = f->cluster;
    const size_t n_clusters = cluster->n_blocks * cluster->per_block;
    static struct scored all[N_ROWS];
    bool is_met[N_ROWS];
    size_t n = 0, n_seen = 0;
    memset(is_wanted, 0, n_clusters * sizeof *is_wanted);
    memset(is_met, 1, sizeof is_met);
    const double top_share = memtx__cluster_top_share(cluster, share);
    if (top_share > 0) {
        meet_clusters(is_met, f, query, top_share);
    }
    for (size_t c = 0; c < n_clusters; c++) {
        const bool any = is_block_seen(f, FIRST_BLOCK + c / cluster->per_block);
        n_seen += any;
        if (any && is_met[c]) {
            all[n++] = (struct scored){promise(cluster, query, c), (int64_t)c};
        }
    }
    const size_t n_wanted = memtx__cluster_n_wanted(cluster, n_seen, k, share);
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

void check_answers(const struct answer *answer, const struct fixture *f, size_t n_queries, size_t k, double share)
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

void same_as_specified(struct fixture *f, size_t n_queries, size_t k, double share)
{
    struct answer *answer = malloc(sizeof *answer);
    fixture_ask(answer, f, n_queries, k, share);
    check_answers(answer, f, n_queries, k, share);
    free(answer);
}

void same_as_exact(struct fixture *f, size_t n_queries, size_t k)
{
    struct memtx__exact exact;
    struct memtx__arena arena = {0};
    struct answer *expected = malloc(sizeof *expected), *answer = malloc(sizeof *answer);
    memtx__exact_take(&exact, &arena, n_queries, k, DIM);
    cr_assert_eq(memtx__arena_reserve(&arena), MEMTX_OK);
    memtx__exact_take(&exact, &arena, n_queries, k, DIM);
    cr_assert_eq(memtx__exact_search(expected->scores, expected->ids, &exact, &f->rows, f->queries, n_queries, k),
                 MEMTX_OK);
    fixture_ask(answer, f, n_queries, k, 1.0);
    cr_assert_arr_eq(answer->ids, expected->ids, n_queries * k * sizeof *answer->ids);
    cr_assert_arr_eq(answer->scores, expected->scores, n_queries * k * sizeof *answer->scores);
    memtx__arena_release(&arena);
    free(expected);
    free(answer);
}

/* With a sample of queries spreads are any numbers; they get few digits, so that sums stay exact. And no two are equal:
 * clusters of one row often promise the same, and groups do not break ties by the number. Twice is as good as once. */
static void round_spreads_of(struct memtx__cluster *cluster)
{
    for (size_t i = 0; i < cluster->n_blocks * cluster->per_block; i++) {
        cluster->spreads[i] = floorf(cluster->spreads[i] * 256) / 256 + (float)(i % 256) / 65536;
    }
}

void round_spreads(struct fixture *f)
{
    round_spreads_of(f->cluster);
    round_spreads_of(f->cluster->groups);
}
