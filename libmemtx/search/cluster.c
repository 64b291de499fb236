/* Building the cluster index (cluster.h): blocks of rows to centroids and an order.
 *
 * Queries are drawn from another distribution than keys, and what matters of two keys is how differently queries score
 * them: in the mean of squares (k - k')^T C (k - k') with C = E[q q^T]. With C = L L^T that is the distance between
 * L^T k and L^T k', so k-means runs over rows that are turned so; centroids are means of the rows as they are. The
 * root of the mean distance of a cluster's rows to their centroid is then the spread of their scores, and a search
 * ranks a cluster by the score that a good row of it may have: q . c + 3 spreads. Without a sample of queries L is the
 * identity, and the spread, of which nothing is known then, 0.
 */
#include "search/cluster.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/status.h"
#include "math/linear.h"
#include "math/rows.h"
#include "search/kmeans.h"

enum { MOST_ROUNDS = 100, TILE_ROWS = 256, GROUP_CLUSTERS = 32 };

/* Of the mean of the diagonal of C, added to it: directions that the sample does not know count a little too. */
static const double regularity = 0.01;

struct memtx__cluster_options memtx__cluster_options_default(void)
{
    return (struct memtx__cluster_options){.block_rows = 2040, .cluster_rows = 32, .n_rounds = 4, .group_blocks = 32};
}

/* The index of an index's clusters, if it has groups of at least two blocks. */
static int create_groups(struct memtx__cluster *cluster)
{
    const struct memtx__cluster_options *options = &cluster->options;
    const uint64_t blocks = options->group_blocks, first = blocks ? (cluster->first_block + blocks - 1) / blocks : 0;
    const struct memtx__cluster_options of_groups = {.block_rows = (uint32_t)(blocks * cluster->per_block),
                                                     .cluster_rows = GROUP_CLUSTERS,
                                                     .n_rounds = options->n_rounds,
                                                     .seed = options->seed};
    return blocks ? memtx__cluster_create(&cluster->groups, cluster->type, cluster->dim, first, &of_groups) : MEMTX_OK;
}

int memtx__cluster_create(struct memtx__cluster **out, enum memtx_row_type type, size_t dim, uint64_t first_block,
                          const struct memtx__cluster_options *options)
{
    const struct memtx__cluster_options chosen = options ? *options : memtx__cluster_options_default();
    *out = NULL;
    if (chosen.block_rows < 1 || chosen.block_rows > MEMTX__KMEANS_MOST_ROWS || chosen.cluster_rows < 1 ||
        chosen.cluster_rows > chosen.block_rows || chosen.n_rounds < 1 || chosen.n_rounds > MOST_ROUNDS) {
        return memtx__fail(MEMTX_E_INVALID, "blocks of %u rows (1..%d), clusters of %u, %u rounds (1..%d)",
                           chosen.block_rows, MEMTX__KMEANS_MOST_ROWS, chosen.cluster_rows, chosen.n_rounds,
                           MOST_ROUNDS);
    }
    const size_t per_block = (chosen.block_rows + chosen.cluster_rows - 1) / chosen.cluster_rows;
    if (chosen.group_blocks && (chosen.group_blocks > MEMTX__KMEANS_MOST_ROWS / per_block ||
                                chosen.group_blocks * per_block < GROUP_CLUSTERS)) {
        return memtx__fail(MEMTX_E_INVALID, "groups of %u blocks of %zu clusters (%d..%d clusters together)",
                           chosen.group_blocks, per_block, GROUP_CLUSTERS, MEMTX__KMEANS_MOST_ROWS);
    }
    struct memtx__cluster *cluster;
    int status = memtx__alloc(&cluster, 1, sizeof *cluster);
    if (status) {
        return status;
    }
    cluster->options = chosen;
    cluster->type = type;
    cluster->dim = dim;
    cluster->per_block = per_block;
    cluster->first_block = first_block;
    status = create_groups(cluster);
    if (status) {
        memtx__cluster_destroy(cluster);
        return status;
    }
    *out = cluster;
    return MEMTX_OK;
}

void memtx__cluster_destroy(struct memtx__cluster *cluster)
{
    if (!cluster) {
        return;
    }
    memtx__cluster_destroy(cluster->groups);
    memtx__free(cluster->centroids);
    memtx__free(cluster->spreads);
    memtx__free(cluster->starts);
    memtx__free(cluster->order);
    memtx__free(cluster);
}

int memtx__cluster_grow(struct memtx__cluster *cluster, size_t n_blocks)
{
    const size_t n = cluster->n_blocks + n_blocks;
    int status = memtx__grow(&cluster->centroids, &cluster->centroids_held, n,
                             cluster->per_block * cluster->dim * memtx__row_type_bytes(cluster->type));
    if (!status) {
        status =
            memtx__grow(&cluster->spreads, &cluster->spreads_held, n, cluster->per_block * sizeof *cluster->spreads);
    }
    if (!status) {
        status =
            memtx__grow(&cluster->starts, &cluster->starts_held, n, (cluster->per_block + 1) * sizeof *cluster->starts);
    }
    if (!status) {
        status =
            memtx__grow(&cluster->order, &cluster->order_held, n, cluster->options.block_rows * sizeof *cluster->order);
    }
    return status;
}

/* values[block_rows][dim] of the block that begins with row `first`; rows that are not there are NaN. */
static void read_block(float *values, const struct memtx__cluster *cluster, const struct memtx__row_set *rows,
                       uint64_t first)
{
    const size_t dim = cluster->dim, row_bytes = dim * memtx__row_type_bytes(rows->type);
    const uint64_t end = first + cluster->options.block_rows;
    for (size_t i = 0; i < cluster->options.block_rows * dim; i++) {
        values[i] = NAN;
    }
    for (size_t b = 0; b < rows->n_blocks; b++) {
        const struct memtx__row_block *block = &rows->blocks[b];
        const uint64_t from = block->first_id > first ? block->first_id : first;
        const uint64_t to = block->first_id + block->n_rows < end ? block->first_id + block->n_rows : end;
        if (from < to) {
            memtx__rows_read(values + (from - first) * dim, rows->type,
                             block->rows + (from - block->first_id) * row_bytes, (size_t)(to - from) * dim);
        }
    }
}

/* Rows by cluster, ascending in each: a counting sort. */
static void sort_rows(uint16_t *starts, uint16_t *order, const uint16_t *cluster_of, size_t n_rows, size_t n_clusters)
{
    memset(starts, 0, (n_clusters + 1) * sizeof *starts);
    memset(order, 0, n_rows * sizeof *order);
    for (size_t row = 0; row < n_rows; row++) {
        if (cluster_of[row] != MEMTX__NO_CLUSTER) {
            starts[cluster_of[row] + 1]++;
        }
    }
    for (size_t c = 0; c < n_clusters; c++) {
        starts[c + 1] = (uint16_t)(starts[c + 1] + starts[c]);
    }
    for (size_t row = 0; row < n_rows; row++) { /* each start moves to the end of its cluster .. */
        if (cluster_of[row] != MEMTX__NO_CLUSTER) {
            order[starts[cluster_of[row]]++] = (uint16_t)row;
        }
    }
    memmove(starts + 1, starts, n_clusters * sizeof *starts); /* .. which is the start of the next */
    starts[0] = 0;
}

/* Scratch of one block. */
struct block_work {
    float *values;        /* [block_rows][dim] */
    float *turned;        /* [block_rows][dim]: L^T k */
    double *moments;      /* [dim][dim]: the lower triangle of C, then L */
    float *L;             /* [dim][dim] */
    double *sums;         /* [per_block][dim], of a cluster's rows */
    float *centroids;     /* [per_block][dim] */
    uint16_t *cluster_of; /* [block_rows] */
};

static void take_work(struct block_work *work, struct memtx__arena *arena, const struct memtx__cluster *cluster)
{
    const size_t block_rows = cluster->options.block_rows, dim = cluster->dim, per_block = cluster->per_block;
    work->values = memtx__arena_take(arena, block_rows * dim, sizeof *work->values);
    work->turned = memtx__arena_take(arena, block_rows * dim, sizeof *work->turned);
    work->moments = memtx__arena_take(arena, dim * dim, sizeof *work->moments);
    work->L = memtx__arena_take(arena, dim * dim, sizeof *work->L);
    work->sums = memtx__arena_take(arena, per_block * dim, sizeof *work->sums);
    work->centroids = memtx__arena_take(arena, per_block * dim, sizeof *work->centroids);
    work->cluster_of = memtx__arena_take(arena, block_rows, sizeof *work->cluster_of);
}

/* ---- the queries' measure --------------------------------------------------------------------- */

/* The lower triangle of the sum of q q^T; each entry is summed up in the order of the queries. */
static void find_moments(double *moments, const float *queries, size_t n_queries, size_t dim)
{
    memset(moments, 0, dim * dim * sizeof *moments);
#pragma omp parallel for schedule(dynamic)
    for (size_t i = 0; i < dim; i++) {
        for (size_t q = 0; q < n_queries; q++) {
            const float *query = queries + q * dim;
            for (size_t j = 0; j <= i; j++) {
                moments[i * dim + j] += (double)query[i] * (double)query[j];
            }
        }
    }
}

/* moments / n_queries = L L^T, L in place (Cholesky); false where they are no measure: nothing but zeros, or no
 * numbers. */
static bool factor(double *moments, size_t n_queries, size_t dim)
{
    double trace = 0;
    for (size_t i = 0; i < dim * dim; i++) {
        moments[i] /= (double)n_queries;
        trace += i % (dim + 1) == 0 ? moments[i] : 0;
    }
    for (size_t i = 0; i < dim; i++) {
        moments[i * dim + i] += regularity * trace / (double)dim;
        for (size_t j = 0; j <= i; j++) {
            double left = moments[i * dim + j];
            for (size_t m = 0; m < j; m++) {
                left -= moments[i * dim + m] * moments[j * dim + m];
            }
            if (i == j && !(left > 0 && isfinite(left))) {
                return false;
            }
            moments[i * dim + j] = i == j ? sqrt(left) : left / moments[j * dim + j];
        }
    }
    return true;
}

/* work->turned from work->values; *is_measured tells that there is a sample to go by. */
static int turn_rows(bool *is_measured, struct block_work *work, const struct memtx__cluster *cluster,
                     const float *queries, size_t n_queries)
{
    const size_t n_rows = cluster->options.block_rows, dim = cluster->dim;
    int status = MEMTX_OK;
    *is_measured = false;
    if (queries && n_queries) {
        find_moments(work->moments, queries, n_queries, dim);
        *is_measured = factor(work->moments, n_queries, dim);
    }
    if (!*is_measured) {
        memcpy(work->turned, work->values, n_rows * dim * sizeof *work->turned);
        return MEMTX_OK;
    }
    for (size_t i = 0; i < dim * dim; i++) {
        work->L[i] = i % dim <= i / dim ? (float)work->moments[i] : 0;
    }
#pragma omp parallel for schedule(static) reduction(min : status)
    for (size_t first = 0; first < n_rows; first += TILE_ROWS) {
        const size_t n = n_rows - first < TILE_ROWS ? n_rows - first : TILE_ROWS;
        int failed = memtx__product(work->turned + first * dim, work->values + first * dim, work->L, false, n, dim, dim,
                                    dim, dim, dim);
        status = failed < status ? failed : status;
    }
    return status ? memtx__fail(status, "turning rows failed: %s", memtx_status_text(status)) : MEMTX_OK;
}

/* ---- a block ---------------------------------------------------------------------------------- */

/* work->sums = the means of each cluster's rows; NaN where it has none. */
static void find_means(struct block_work *work, const float *rows, const uint16_t *starts, const uint16_t *order,
                       const struct memtx__cluster *cluster)
{
    const size_t dim = cluster->dim;
    memset(work->sums, 0, cluster->per_block * dim * sizeof *work->sums);
    for (size_t c = 0; c < cluster->per_block; c++) {
        double *sum = work->sums + c * dim;
        for (size_t i = starts[c]; i < starts[c + 1]; i++) {
            for (size_t d = 0; d < dim; d++) {
                sum[d] += (double)rows[order[i] * dim + d];
            }
        }
        for (size_t d = 0; d < dim; d++) {
            sum[d] = starts[c] < starts[c + 1] ? sum[d] / (starts[c + 1] - starts[c]) : (double)NAN;
        }
    }
}

static void find_spreads(float *spreads, struct block_work *work, const uint16_t *starts, const uint16_t *order,
                         const struct memtx__cluster *cluster)
{
    const size_t dim = cluster->dim;
    find_means(work, work->turned, starts, order, cluster);
    for (size_t c = 0; c < cluster->per_block; c++) {
        const double n_rows = starts[c + 1] - starts[c];
        double squares = 0;
        for (size_t i = starts[c]; i < starts[c + 1]; i++) {
            for (size_t d = 0; d < dim; d++) {
                const double apart = (double)work->turned[order[i] * dim + d] - work->sums[c * dim + d];
                squares += apart * apart;
            }
        }
        spreads[c] = n_rows > 0 ? (float)sqrt(squares / n_rows) : 0;
    }
}

static void finish_block(struct memtx__cluster *cluster, struct block_work *work, bool is_measured)
{
    const size_t per_block = cluster->per_block, dim = cluster->dim, place = cluster->n_blocks;
    uint16_t *starts = cluster->starts + place * (per_block + 1);
    uint16_t *order = cluster->order + place * cluster->options.block_rows;
    float *spreads = cluster->spreads + place * per_block;
    sort_rows(starts, order, work->cluster_of, cluster->options.block_rows, per_block);
    memset(spreads, 0, per_block * sizeof *spreads);
    if (is_measured) {
        find_spreads(spreads, work, starts, order, cluster);
    }
    find_means(work, work->values, starts, order, cluster);
    for (size_t i = 0; i < per_block * dim; i++) {
        work->centroids[i] = (float)work->sums[i];
    }
    memtx__rows_write(cluster->centroids + place * per_block * dim * memtx__row_type_bytes(cluster->type),
                      cluster->type, work->centroids, per_block * dim);
    cluster->n_blocks++;
}

static int add_block(struct memtx__cluster *cluster, const struct memtx__row_set *rows, const float *queries,
                     size_t n_queries)
{
    const size_t block_rows = cluster->options.block_rows;
    const uint64_t block = cluster->first_block + cluster->n_blocks;
    struct memtx__arena arena = {0};
    struct block_work work;
    bool is_measured;
    take_work(&work, &arena, cluster);
    int status = memtx__cluster_grow(cluster, 1);
    if (!status) {
        status = memtx__arena_reserve(&arena);
    }
    if (status) {
        return status;
    }
    take_work(&work, &arena, cluster);
    read_block(work.values, cluster, rows, block * block_rows);
    status = turn_rows(&is_measured, &work, cluster, queries, n_queries);
    if (!status) {
        status = memtx__kmeans(work.cluster_of, work.turned,
                               &(struct memtx__kmeans){block_rows, cluster->dim, cluster->per_block,
                                                       cluster->options.n_rounds, cluster->options.seed, block});
    }
    if (!status) {
        finish_block(cluster, &work, is_measured);
    }
    memtx__arena_release(&arena);
    return status;
}

/* ---- groups ----------------------------------------------------------------------------------- */

/* To the spread of centroids in each cluster of the newest group, the mean spread of the clusters themselves. */
static void add_their_spreads(struct memtx__cluster *groups, const float *spreads)
{
    const size_t place = groups->n_blocks - 1, per_block = groups->per_block;
    const uint16_t *starts = groups->starts + place * (per_block + 1);
    const uint16_t *order = groups->order + place * groups->options.block_rows;
    for (size_t c = 0; c < per_block; c++) {
        double sum = 0;
        for (size_t i = starts[c]; i < starts[c + 1]; i++) {
            sum += (double)spreads[order[i]];
        }
        if (starts[c] < starts[c + 1]) {
            groups->spreads[place * per_block + c] += (float)(sum / (starts[c + 1] - starts[c]));
        }
    }
}

/* Groups of which all blocks are there now. */
static int add_groups(struct memtx__cluster *cluster, const float *queries, size_t n_queries)
{
    struct memtx__cluster *groups = cluster->groups;
    const uint64_t end = cluster->first_block + cluster->n_blocks;
    int status = MEMTX_OK;
    while (groups && !status && (groups->first_block + groups->n_blocks + 1) * cluster->options.group_blocks <= end) {
        const size_t n = groups->options.block_rows;
        const uint64_t first = (groups->first_block + groups->n_blocks) * n;
        const size_t place = (size_t)(first - cluster->first_block * cluster->per_block);
        const struct memtx__row_block centroids = {
            cluster->centroids + place * cluster->dim * memtx__row_type_bytes(cluster->type), first, n};
        status =
            add_block(groups, &(struct memtx__row_set){&centroids, 1, cluster->type, cluster->dim}, queries, n_queries);
        if (!status) {
            add_their_spreads(groups, cluster->spreads + place);
        }
    }
    return status;
}

int memtx__cluster_add(struct memtx__cluster *cluster, const struct memtx__row_set *rows, const float *queries,
                       size_t n_queries)
{
    if (rows->type != cluster->type || rows->dim != cluster->dim) {
        return memtx__fail(MEMTX_E_INVALID, "rows of type %d and size %zu in an index of type %d and size %zu",
                           (int)rows->type, rows->dim, (int)cluster->type, cluster->dim);
    }
    int status = add_block(cluster, rows, queries, n_queries);
    if (!status) {
        status = add_groups(cluster, queries, n_queries);
        cluster->n_blocks -= status ? 1 : 0;
    }
    return status;
}
