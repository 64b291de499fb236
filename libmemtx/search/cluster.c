/* Building the cluster index (cluster.h): blocks of rows to centroids and an order. */
#include "search/cluster.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/status.h"
#include "math/rows.h"
#include "search/kmeans.h"

enum { MOST_ROUNDS = 100 };

struct memtx__cluster_options memtx__cluster_options_default(void)
{
    return (struct memtx__cluster_options){.block_rows = 2040, .cluster_rows = 16, .n_rounds = 4};
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
    struct memtx__cluster *cluster;
    int status = memtx__alloc(&cluster, 1, sizeof *cluster);
    if (status) {
        return status;
    }
    cluster->options = chosen;
    cluster->type = type;
    cluster->dim = dim;
    cluster->per_block = (chosen.block_rows + chosen.cluster_rows - 1) / chosen.cluster_rows;
    cluster->first_block = first_block;
    *out = cluster;
    return MEMTX_OK;
}

void memtx__cluster_destroy(struct memtx__cluster *cluster)
{
    if (!cluster) {
        return;
    }
    memtx__free(cluster->centroids);
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
    float *centroids;     /* [per_block][dim] */
    uint16_t *cluster_of; /* [block_rows] */
};

static void take_work(struct block_work *work, struct memtx__arena *arena, const struct memtx__cluster *cluster)
{
    work->values = memtx__arena_take(arena, cluster->options.block_rows * cluster->dim, sizeof *work->values);
    work->centroids = memtx__arena_take(arena, cluster->per_block * cluster->dim, sizeof *work->centroids);
    work->cluster_of = memtx__arena_take(arena, cluster->options.block_rows, sizeof *work->cluster_of);
}

int memtx__cluster_add(struct memtx__cluster *cluster, const struct memtx__row_set *rows)
{
    const size_t block_rows = cluster->options.block_rows, per_block = cluster->per_block, place = cluster->n_blocks;
    const uint64_t block = cluster->first_block + place;
    struct memtx__arena arena = {0};
    struct block_work work;
    if (rows->type != cluster->type || rows->dim != cluster->dim) {
        return memtx__fail(MEMTX_E_INVALID, "rows of type %d and size %zu in an index of type %d and size %zu",
                           (int)rows->type, rows->dim, (int)cluster->type, cluster->dim);
    }
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
    status = memtx__kmeans(work.centroids, work.cluster_of, work.values,
                           &(struct memtx__kmeans){block_rows, cluster->dim, per_block, cluster->options.n_rounds,
                                                   cluster->options.seed, block});
    if (!status) {
        sort_rows(cluster->starts + place * (per_block + 1), cluster->order + place * block_rows, work.cluster_of,
                  block_rows, per_block);
        memtx__rows_write(cluster->centroids + place * per_block * cluster->dim * memtx__row_type_bytes(cluster->type),
                          cluster->type, work.centroids, per_block * cluster->dim);
        cluster->n_blocks++;
    }
    memtx__arena_release(&arena);
    return status;
}
