/* Building the cluster index, saving and loading it, and what is refused. */
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/rng.h"
#include "cluster_fixture.h"
#include "math/rows.h"
#include "search/kmeans.h"

/* ---- building --------------------------------------------------------------------------------- */

static unsigned char *bytes_of(size_t *n_bytes, const struct memtx__cluster *cluster)
{
    *n_bytes = memtx__cluster_bytes(cluster, cluster->first_block, cluster->n_blocks);
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
Test(cluster_build, each_row_has_a_cluster)
{
    struct fixture *f = fixture_make_rows(MEMTX_ROWS_F32, 2, 13);
    f->values[55 * DIM] = NAN;
    f->n_sample = 9; /* centroids are means of the rows all the same, not of what they are turned into */
    fixture_make_index(f);
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
    fixture_unmake(f);
}

/* Rows that are not there when a block is made are in no cluster. */
Test(cluster_build, dead_rows_have_no_cluster)
{
    struct fixture *f = fixture_make(MEMTX_ROWS_F16, 27);
    fixture_see(f, 0, 10, 7);
    struct memtx__cluster *cluster = fixture_cluster(&f->rows, &f->options, NULL, 0);
    for (size_t b = 0; b < cluster->n_blocks; b++) {
        cr_assert_eq(cluster->starts[b * (cluster->per_block + 1) + cluster->per_block], BLOCK_ROWS * 7 / 10);
    }
    memtx__cluster_destroy(f->cluster);
    f->cluster = cluster;
    same_as_specified(f, 20, 20, 0.1);
    fixture_unmake(f);
}

/* As long as there are different rows enough no cluster stays empty, however often one of them is drawn to begin with. */
Test(cluster_build, an_empty_cluster_takes_a_row)
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
Test(cluster_build, clusters_are_tight)
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

Test(cluster_build, grown_equals_made_at_once)
{
    struct fixture *f = fixture_make_rows(MEMTX_ROWS_F16, 2, 15);
    f->n_sample = 9;
    fixture_make_index(f);
    round_spreads(f);
    const struct memtx__cluster_options options = fixture_options();
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
        fixture_ask(answer, f, 10, 20, 0.1);
        check_answers(answer, f, 10, 20, 0.1);
        f->cluster = whole;
    }
    check_same(grown, f->cluster);
    memtx__cluster_destroy(grown);
    free(answer);
    fixture_unmake(f);
}

/* With rows that are no whole numbers, whose sums do depend on their order. */
Test(cluster_build, the_same_for_any_number_of_threads)
{
    struct answer *answers[2] = {malloc(sizeof(struct answer)), malloc(sizeof(struct answer))};
    struct memtx__cluster *first = NULL;
    for (int i = 0; i < 2; i++) {
        omp_set_num_threads(1 + 2 * i);
        struct fixture *f = fixture_make_rows(MEMTX_ROWS_F16, 1000, 16);
        for (size_t j = 0; j < (size_t)N_ROWS * DIM; j++) {
            f->values[j] /= 777.0F;
        }
        f->n_sample = MOST_Q;
        fixture_make_index(f);
        fixture_see(f, 20, N_ROWS, 1200); /* full blocks alone: of the tail this is exact search's affair */
        fixture_ask(answers[i], f, MOST_Q, 32, 0.1);
        if (i == 0) {
            first = f->cluster;
            f->cluster = NULL;
        } else {
            check_same(first, f->cluster);
        }
        fixture_unmake(f);
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

Test(cluster_build, loaded_equals_saved)
{
    for (int type = MEMTX_ROWS_F16; type <= MEMTX_ROWS_F32; type++) {
        struct fixture *f = fixture_make_rows((enum memtx_row_type)type, 2, 17);
        f->n_sample = 9;
        fixture_make_index(f);
        round_spreads(f);
        struct memtx__cluster *loaded = empty_like(f->cluster);
        for (size_t block = 0, n = 5; block < f->cluster->n_blocks; block += n, n = f->cluster->n_blocks - block) {
            unsigned char *bytes = malloc(memtx__cluster_bytes(f->cluster, FIRST_BLOCK + block, n) + 1);
            memtx__cluster_save(bytes + 1, f->cluster, FIRST_BLOCK + block, n); /* at an odd address */
            cr_assert_eq(
                memtx__cluster_load(loaded, bytes + 1, memtx__cluster_bytes(f->cluster, FIRST_BLOCK + block, n)),
                MEMTX_OK, "%s", memtx_last_error());
            free(bytes);
        }
        check_same(f->cluster, loaded);
        memtx__cluster_destroy(f->cluster);
        f->cluster = loaded;
        if (type != MEMTX_ROWS_F32) {
            same_as_specified(f, 20, 5, 0.1);
        }
        fixture_unmake(f);
    }
}

/* Of what was saved an index takes the blocks that it has not; where it would have a hole, none. */
Test(cluster_build, loading_passes_over_what_is_there)
{
    struct fixture *f = fixture_make(MEMTX_ROWS_F16, 23);
    const size_t n_bytes = memtx__cluster_bytes(f->cluster, FIRST_BLOCK + 1, 4);
    unsigned char *bytes = malloc(n_bytes);
    memtx__cluster_save(bytes, f->cluster, FIRST_BLOCK + 1, 4);
    for (size_t n = 0; n <= 6; n++) {
        struct memtx__cluster *loaded = empty_like(f->cluster);
        for (size_t i = 0; i < n; i++) {
            cr_assert_eq(memtx__cluster_add(loaded, &f->rows, f->queries, f->n_sample), MEMTX_OK);
        }
        const bool has_next = n >= 1 && n <= 5;
        cr_assert_eq(memtx__cluster_load(loaded, bytes, n_bytes), has_next ? MEMTX_OK : MEMTX_E_MISMATCH, "%zu", n);
        cr_assert_eq(loaded->n_blocks, has_next ? 5 : n);
        while (loaded->n_blocks < f->cluster->n_blocks) {
            cr_assert_eq(memtx__cluster_add(loaded, &f->rows, f->queries, f->n_sample), MEMTX_OK);
        }
        check_same(f->cluster, loaded);
        memtx__cluster_destroy(loaded);
    }
    free(bytes);
    fixture_unmake(f);
}

/* Five groups of two blocks from block 4 on, saved in pieces; `cut` is the first block of the second. */
static struct memtx__cluster *load_in_two(const struct memtx__cluster *whole, size_t cut)
{
    struct memtx__cluster *loaded = empty_like(whole);
    const size_t sizes[2] = {cut - FIRST_BLOCK, whole->n_blocks - (cut - FIRST_BLOCK)};
    for (size_t i = 0; i < 2; i++) {
        const uint64_t block = i ? cut : FIRST_BLOCK;
        const size_t n_bytes = memtx__cluster_bytes(whole, block, sizes[i]);
        unsigned char *bytes = malloc(n_bytes);
        memtx__cluster_save(bytes, whole, block, sizes[i]);
        cr_assert_eq(memtx__cluster_load(loaded, bytes, n_bytes), MEMTX_OK, "%s", memtx_last_error());
        free(bytes);
    }
    return loaded;
}

/* As if one of the clusters had had no rows when the group was made. */
static void leave_one_out(struct memtx__cluster *groups, size_t place)
{
    uint16_t *starts = groups->starts + place * (groups->per_block + 1);
    const uint16_t end = starts[groups->per_block];
    for (size_t c = 0; c <= groups->per_block; c++) {
        starts[c] = (uint16_t)(starts[c] - (starts[c] == end));
    }
}

Test(cluster_build, groups_are_saved_with_their_blocks)
{
    struct fixture *f = fixture_make_rows(MEMTX_ROWS_F16, 2, 24);
    f->n_sample = 9;
    f->options.cluster_rows = 3;
    f->options.group_blocks = 2;
    fixture_make_index(f);
    round_spreads(f);
    cr_assert_eq(f->cluster->groups->n_blocks, 5);
    struct memtx__cluster *loaded = load_in_two(f->cluster, 8); /* between two groups */
    check_same(f->cluster, loaded);
    check_same(f->cluster->groups, loaded->groups);
    memtx__cluster_destroy(loaded);
    loaded = load_in_two(f->cluster, 9); /* within the third: it comes with its last block */
    check_same(f->cluster, loaded);
    check_same(f->cluster->groups, loaded->groups);
    memtx__cluster_destroy(loaded);
    leave_one_out(f->cluster->groups, 2);
    loaded = load_in_two(f->cluster, 9);
    cr_assert_eq(loaded->n_blocks, f->cluster->n_blocks);
    cr_assert_eq(loaded->groups->n_blocks, 2, "the third is of other clusters, and those behind it wait for it");
    memtx__cluster_destroy(f->cluster);
    f->cluster = loaded;
    same_as_specified(f, 20, 5, 0.05);
    loaded->n_blocks--; /* as if the last block were yet to come */
    cr_assert_eq(memtx__cluster_add(loaded, &f->rows, f->queries, f->n_sample), MEMTX_OK);
    round_spreads(f);
    cr_assert_eq(loaded->groups->n_blocks, 5);
    same_as_specified(f, 20, 5, 0.05);
    fixture_unmake(f);
}

Test(cluster_build, every_damaged_byte_is_refused)
{
    struct fixture *f = fixture_make(MEMTX_ROWS_F16, 18);
    struct memtx__cluster *loaded = empty_like(f->cluster);
    const size_t n_bytes = memtx__cluster_bytes(f->cluster, FIRST_BLOCK, 2);
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
    fixture_unmake(f);
}

/* A number of the file is changed, and the checksum with it. */
static int load_forged(const struct memtx__cluster *cluster, size_t at, uint64_t value, int n)
{
    struct memtx__cluster *loaded = empty_like(cluster);
    const size_t n_bytes = memtx__cluster_bytes(cluster, FIRST_BLOCK, 2);
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

Test(cluster_build, forged_bytes_are_bounded)
{
    struct fixture *f = fixture_make(MEMTX_ROWS_F16, 19);
    const struct memtx__cluster *c = f->cluster;
    const size_t starts = 56, order = starts + 2 * (c->per_block + 1);
    cr_assert_eq(load_forged(c, starts, 0, 2), MEMTX_OK, "nothing is changed");
    cr_assert_eq(load_forged(c, starts, 1, 2), MEMTX_E_CORRUPT, "the first row of a block in no cluster's reach");
    cr_assert_eq(load_forged(c, starts + 2, 0xFFFF, 2), MEMTX_E_CORRUPT);
    cr_assert_eq(load_forged(c, starts + 2 * c->per_block, BLOCK_ROWS + 1, 2), MEMTX_E_CORRUPT);
    cr_assert_eq(load_forged(c, order, BLOCK_ROWS, 2), MEMTX_E_CORRUPT);
    cr_assert_eq(load_forged(c, order, 0xFFFF, 2), MEMTX_E_CORRUPT);
    cr_assert_eq(load_forged(c, order, c->order[1], 2), MEMTX_E_CORRUPT, "a row twice");
    cr_assert_eq(load_forged(c, 48, 1, 8), MEMTX_E_CORRUPT, "blocks");
    cr_assert_eq(load_forged(c, 48, UINT64_MAX, 8), MEMTX_E_CORRUPT);
    for (size_t at = 8; at < 40; at += 4) { /* type, dim, options */
        cr_assert_eq(load_forged(c, at, 77, 4), MEMTX_E_MISMATCH, "byte %zu", at);
    }
    cr_assert_eq(load_forged(c, 40, FIRST_BLOCK + 1, 8), MEMTX_E_MISMATCH, "not the next block");
    fixture_unmake(f);
}

/* ---- what is refused, and what is not taken ---------------------------------------------------- */

Test(cluster_build, what_is_refused)
{
    static const struct memtx__cluster_options wrong[] = {
        {0, 1, 1, 0, 0},    {16385, 16, 1, 0, 0}, {100, 0, 1, 0, 0},  {100, 101, 1, 0, 0},
        {100, 10, 0, 0, 0}, {100, 10, 101, 0, 0}, {100, 10, 1, 3, 0}, {100, 10, 1, 1639, 0}};
    struct fixture *f = fixture_make(MEMTX_ROWS_F16, 20);
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
                                       &(struct memtx__cluster_options){BLOCK_ROWS, 1, 1, 0, 0}),
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
    fixture_unmake(f);
}

/* Once sized, neither reserving again nor searching allocates. */
Test(cluster_build, a_search_allocates_nothing)
{
    struct fixture *f = fixture_make(MEMTX_ROWS_F16, 21);
    struct answer *answer = malloc(sizeof *answer);
    fixture_ask(answer, f, MOST_Q, 20, 0.1);
    memtx__alloc_fail_at(1);
    fixture_ask(answer, f, MOST_Q, 20, 0.1);
    fixture_see(f, 0, 50, 1); /* short queries too */
    fixture_ask(answer, f, 7, 20, 0.01);
    memtx__alloc_fail_at(0);
    check_answers(answer, f, 7, 20, 0.01);
    free(answer);
    fixture_unmake(f);
}

/* Whichever allocation fails, what was there is as it was. */
Test(cluster_build, no_memory_changes_nothing)
{
    struct fixture *f = fixture_make(MEMTX_ROWS_F16, 22);
    const struct memtx__cluster_options options = fixture_options();
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
    fixture_unmake(f);
}
