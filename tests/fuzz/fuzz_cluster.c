/* Fuzz target: any bytes as saved clusters, their checksum put right so that what it guards is reached. What loads is
 * saved again, and searched over rows: whatever the clusters say, each query finds as many rows as there are, each once.
 *
 * The first byte chooses what the index is for; the others are what memtx__cluster_load gets.
 */
#include "fuzz.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/rng.h"
#include "math/rows.h"
#include "memtx/status.h"
#include "search/cluster.h"

enum { N_QUERIES = 3, MOST_K = 7, MOST_DIM = 16, N_BLOCKS_AT = 48, HEADER_BYTES = 56, CRC_BYTES = 4, ROWS_AROUND = 5 };

static const struct kind {
    enum memtx_row_type type;
    size_t dim;
    uint64_t first_block;
    struct memtx__cluster_options options;
} kinds[] = {
    {MEMTX_ROWS_F16, 8, 0, {.block_rows = 16, .cluster_rows = 4, .n_rounds = 4, .group_blocks = 8, .seed = 1}},
    {MEMTX_ROWS_F32, 3, 1, {.block_rows = 10, .cluster_rows = 10, .n_rounds = 1, .seed = 0}},
    {MEMTX_ROWS_BF16,
     MOST_DIM,
     2,
     {.block_rows = 33, .cluster_rows = 2, .n_rounds = 100, .group_blocks = 2, .seed = UINT64_MAX}},
};

static void demand(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void *take(size_t n_bytes)
{
    void *block = malloc(n_bytes ? n_bytes : 1);
    demand(block);
    return block;
}

/* Some numbers, the same for each seed. */
static void draw(float *out, size_t n, uint64_t seed)
{
    struct memtx__rng rng = memtx__rng_create(seed, n);
    for (size_t i = 0; i < n; i++) {
        out[i] = (float)memtx__rng_below(&rng, 17) - 8.0F;
    }
}

static void check_found(const float *scores, const int64_t *ids, size_t k, const struct memtx__row_block *rows)
{
    for (size_t i = 0; i < k; i++) {
        demand(i < rows->n_rows ? ids[i] >= (int64_t)rows->first_id && (uint64_t)ids[i] - rows->first_id < rows->n_rows
                                : ids[i] == -1);
        demand(i == 0 || ids[i] < 0 || scores[i - 1] > scores[i] ||
               (scores[i - 1] == scores[i] && ids[i - 1] < ids[i])); /* so none is there twice */
    }
}

/* Rows of the index's blocks and some around them, in one piece: from one that lies before, where there is one. */
static void search(const struct memtx__cluster *cluster, double share)
{
    struct memtx__cluster_search scratch = {0};
    const uint64_t block_rows = cluster->options.block_rows, first = cluster->first_block * block_rows;
    const uint64_t n_before = first < ROWS_AROUND ? first : ROWS_AROUND;
    const size_t n_rows = (size_t)(n_before + cluster->n_blocks * block_rows + ROWS_AROUND), dim = cluster->dim;
    float queries[N_QUERIES * MOST_DIM], scores[N_QUERIES * MOST_K];
    int64_t ids[N_QUERIES * MOST_K];
    float *values = take(n_rows * dim * sizeof *values);
    unsigned char *bytes = take(n_rows * dim * memtx__row_type_bytes(cluster->type));
    const struct memtx__row_block block = {bytes, first - n_before, n_rows};
    const struct memtx__row_set rows = {&block, 1, cluster->type, dim};
    draw(values, n_rows * dim, 1);
    draw(queries, N_QUERIES * dim, 2);
    memtx__rows_write(bytes, cluster->type, values, n_rows * dim);
    demand(memtx__cluster_reserve(&scratch, cluster, N_QUERIES, MOST_K, share, 1) == MEMTX_OK);
    demand(memtx__cluster_search(scores, ids, &scratch, cluster, &rows, queries, N_QUERIES, MOST_K) == MEMTX_OK);
    for (size_t q = 0; q < N_QUERIES; q++) {
        check_found(scores + q * MOST_K, ids + q * MOST_K, MOST_K, &block);
    }
    memtx__cluster_search_release(&scratch);
    free(bytes);
    free(values);
}

static void put_checksum(unsigned char *bytes, size_t n_bytes)
{
    if (n_bytes >= CRC_BYTES) {
        memtx__put_u32(bytes + n_bytes - CRC_BYTES, memtx__crc32c(0, bytes, n_bytes - CRC_BYTES));
    }
}

/* That of the groups behind the blocks, where there are some, and that of all. */
static void put_checksums(unsigned char *bytes, size_t n_bytes, const struct memtx__cluster *cluster)
{
    const uint64_t n_blocks = n_bytes >= HEADER_BYTES ? memtx__get_u64(bytes + N_BLOCKS_AT) : 0;
    const size_t groups_at = n_blocks < n_bytes
                                 ? memtx__cluster_bytes(cluster, cluster->first_block, (size_t)n_blocks) - CRC_BYTES
                                 : n_bytes;
    if (groups_at + CRC_BYTES < n_bytes) {
        put_checksum(bytes + groups_at, n_bytes - CRC_BYTES - groups_at);
    }
    put_checksum(bytes, n_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    const struct kind *kind = &kinds[n_bytes ? bytes[0] % (sizeof kinds / sizeof kinds[0]) : 0];
    const size_t n_saved = n_bytes ? n_bytes - 1 : 0;
    unsigned char *saved = take(n_saved), *again = take(n_saved);
    struct memtx__cluster *cluster;
    demand(memtx__cluster_create(&cluster, kind->type, kind->dim, kind->first_block, &kind->options) == MEMTX_OK);
    if (n_saved) {
        memcpy(saved, bytes + 1, n_saved);
    }
    put_checksums(saved, n_saved, cluster);
    if (memtx__cluster_load(cluster, saved, n_saved)) {
        demand(cluster->n_blocks == 0 && memtx_last_error()[0]);
    } else {
        if (memtx__cluster_bytes(cluster, kind->first_block, cluster->n_blocks) ==
            n_saved) { /* no groups passed over */
            memtx__cluster_save(again, cluster, kind->first_block, cluster->n_blocks);
            demand(memcmp(again, saved, n_saved) == 0);
        }
        search(cluster, 1e-9); /* as few clusters as there may be */
        search(cluster, 1.0);
    }
    memtx__cluster_destroy(cluster);
    free(again);
    free(saved);
    return 0;
}
