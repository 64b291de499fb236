/* Blocks of the cluster index as bytes (cluster.h): what a derived file holds of them.
 *
 * Little-endian, at any alignment:
 *
 *   bytes  what
 *   8      "mtxclus1"
 *   4      u32 type of the rows (memtx/store.h)
 *   4      u32 d
 *   4      u32 block_rows
 *   4      u32 cluster_rows
 *   4      u32 rounds of k-means
 *   4      u32 group_blocks
 *   8      u64 seed
 *   8      u64 first block
 *   8      u64 n_blocks
 *   then   for each block: u16 starts[per_block + 1], u16 order[block_rows], f32 spreads[per_block],
 *          centroids[per_block][d] of the type
 *   then   if there are groups whose last blocks are among these: they, in this format
 *   4      u32 CRC-32C of all that comes before
 *
 * History: 1, the first.
 *
 * The checksum finds damage; and what it does not vouch for, a file made to deceive, is bounded all the same: no start
 * and no place of a row lies outside its block, and no row stands in two clusters. Centroids and spreads may be any
 * numbers: they only choose which rows are met.
 */
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/status.h"
#include "math/rows.h"
#include "search/cluster.h"
#include "search/kmeans.h"

enum { HEADER_BYTES = 56, FIRST_AT = 40, N_BLOCKS_AT = 48, CRC_BYTES = 4, MAGIC_BYTES = 8 };
static const char magic[MAGIC_BYTES + 1] = "mtxclus1";

static size_t block_bytes(const struct memtx__cluster *cluster)
{
    return 2 * (cluster->per_block + 1 + cluster->options.block_rows) + 4 * cluster->per_block +
           cluster->per_block * cluster->dim * memtx__row_type_bytes(cluster->type);
}

/* The groups that end among the blocks `block` .. block + n_blocks - 1: *first and how many. */
static size_t groups_within(uint64_t *first, const struct memtx__cluster *cluster, uint64_t block, size_t n_blocks)
{
    const struct memtx__cluster *groups = cluster->groups;
    const uint64_t blocks = cluster->options.group_blocks, end = blocks ? (block + n_blocks) / blocks : 0;
    *first = blocks ? block / blocks : 0;
    if (!groups || end <= *first) {
        return 0;
    }
    const uint64_t end_made = groups->first_block + groups->n_blocks, last = end < end_made ? end : end_made;
    *first = *first > groups->first_block ? *first : groups->first_block;
    return last > *first ? (size_t)(last - *first) : 0;
}

size_t memtx__cluster_bytes(const struct memtx__cluster *cluster, uint64_t block, size_t n_blocks)
{
    uint64_t first;
    const size_t n_groups = groups_within(&first, cluster, block, n_blocks);
    return HEADER_BYTES + n_blocks * block_bytes(cluster) + CRC_BYTES +
           (n_groups ? memtx__cluster_bytes(cluster->groups, first, n_groups) : 0);
}

static void put_header(unsigned char *bytes, const struct memtx__cluster *cluster, uint64_t block, size_t n_blocks)
{
    const struct memtx__cluster_options *options = &cluster->options;
    memcpy(bytes, magic, MAGIC_BYTES);
    memtx__put_u32(bytes + 8, (uint32_t)cluster->type);
    memtx__put_u32(bytes + 12, (uint32_t)cluster->dim);
    memtx__put_u32(bytes + 16, options->block_rows);
    memtx__put_u32(bytes + 20, options->cluster_rows);
    memtx__put_u32(bytes + 24, options->n_rounds);
    memtx__put_u32(bytes + 28, options->group_blocks);
    memtx__put_u64(bytes + 32, options->seed);
    memtx__put_u64(bytes + FIRST_AT, block);
    memtx__put_u64(bytes + N_BLOCKS_AT, n_blocks);
}

static unsigned char *put_u16s(unsigned char *bytes, const uint16_t *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        memtx__put_u16(bytes + 2 * i, values[i]);
    }
    return bytes + 2 * n;
}

static const unsigned char *get_u16s(uint16_t *values, const unsigned char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        values[i] = memtx__get_u16(bytes + 2 * i);
    }
    return bytes + 2 * n;
}

void memtx__cluster_save(unsigned char *bytes, const struct memtx__cluster *cluster, uint64_t block, size_t n_blocks)
{
    const size_t block_rows = cluster->options.block_rows, n_starts = cluster->per_block + 1;
    const size_t centroid_bytes = cluster->per_block * cluster->dim * memtx__row_type_bytes(cluster->type);
    unsigned char *at = bytes + HEADER_BYTES;
    uint64_t first_group;
    const size_t n_groups = groups_within(&first_group, cluster, block, n_blocks);
    put_header(bytes, cluster, block, n_blocks);
    for (size_t i = 0; i < n_blocks; i++) {
        const size_t place = (size_t)(block - cluster->first_block) + i;
        at = put_u16s(at, cluster->starts + place * n_starts, n_starts);
        at = put_u16s(at, cluster->order + place * block_rows, block_rows);
        memtx__rows_write(at, MEMTX_ROWS_F32, cluster->spreads + place * cluster->per_block, cluster->per_block);
        at += 4 * cluster->per_block;
        memcpy(at, cluster->centroids + place * centroid_bytes, centroid_bytes);
        at += centroid_bytes;
    }
    if (n_groups) {
        memtx__cluster_save(at, cluster->groups, first_group, n_groups);
        at += memtx__cluster_bytes(cluster->groups, first_group, n_groups);
    }
    memtx__put_u32(at, memtx__crc32c(0, bytes, (size_t)(at - bytes)));
}

/* A block whose starts ascend and whose places are each there once. */
static int check_block(const struct memtx__cluster *cluster, size_t place)
{
    const size_t block_rows = cluster->options.block_rows, per_block = cluster->per_block;
    const uint16_t *starts = cluster->starts + place * (per_block + 1), *order = cluster->order + place * block_rows;
    unsigned char seen[MEMTX__KMEANS_MOST_ROWS] = {0};
    bool is_sound = starts[0] == 0 && starts[per_block] <= block_rows;
    for (size_t c = 0; c < per_block && is_sound; c++) {
        is_sound = starts[c] <= starts[c + 1];
    }
    for (size_t i = 0; is_sound && i < starts[per_block]; i++) {
        is_sound = order[i] < block_rows && !seen[order[i]]++;
    }
    return is_sound
               ? MEMTX_OK
               : memtx__fail(MEMTX_E_CORRUPT, "block %zu of the saved clusters does not hold each row once", place);
}

/* Whether these are blocks of such an index from `block` on, and how many. */
static int check_header(size_t *n_blocks, const struct memtx__cluster *cluster, uint64_t block,
                        const unsigned char *bytes, size_t n_bytes)
{
    unsigned char expected[HEADER_BYTES];
    if (n_bytes < HEADER_BYTES + CRC_BYTES || memcmp(bytes, magic, MAGIC_BYTES) != 0) {
        return memtx__fail(MEMTX_E_CORRUPT, "%zu bytes that are no saved clusters", n_bytes);
    }
    if (memtx__get_u32(bytes + n_bytes - CRC_BYTES) != memtx__crc32c(0, bytes, n_bytes - CRC_BYTES)) {
        return memtx__fail(MEMTX_E_CORRUPT, "saved clusters whose checksum is not theirs");
    }
    const uint64_t said = memtx__get_u64(bytes + N_BLOCKS_AT);
    if (said > (n_bytes - HEADER_BYTES - CRC_BYTES) / block_bytes(cluster)) {
        return memtx__fail(MEMTX_E_CORRUPT, "saved clusters of %zu bytes that say they are %llu blocks", n_bytes,
                           (unsigned long long)said);
    }
    *n_blocks = (size_t)said;
    put_header(expected, cluster, block, *n_blocks);
    if (memcmp(bytes, expected, HEADER_BYTES) != 0) {
        return memtx__fail(MEMTX_E_MISMATCH, "saved clusters of other rows, settings or blocks: block %llu, not %llu",
                           (unsigned long long)memtx__get_u64(bytes + FIRST_AT),
                           (unsigned long long)memtx__get_u64(expected + FIRST_AT));
    }
    return MEMTX_OK;
}

/* Whether every cluster with rows stands in the group at this place: not where a block was clustered anew after the
 * group had been saved. */
static bool serves(const struct memtx__cluster *cluster, size_t place)
{
    const struct memtx__cluster *groups = cluster->groups;
    const size_t n = groups->options.block_rows, per_block = cluster->per_block;
    const size_t first = (size_t)((groups->first_block + place) * n - cluster->first_block * per_block);
    const uint16_t *order = groups->order + place * n;
    unsigned char stands[MEMTX__KMEANS_MOST_ROWS] = {0};
    bool all = true;
    for (size_t i = 0; i < groups->starts[place * (groups->per_block + 1) + groups->per_block]; i++) {
        stands[order[i]] = 1;
    }
    for (size_t c = first; c < first + n && all; c++) {
        const uint16_t *starts = cluster->starts + c / per_block * (per_block + 1) + c % per_block;
        all = starts[0] == starts[1] || stands[c - first];
    }
    return all;
}

/* The groups behind the blocks, of which there are n_blocks then. They are passed over where those before them are not
 * there, and where they are of other blocks. */
static int load_groups(struct memtx__cluster *cluster, const unsigned char *bytes, size_t n_bytes, size_t n_blocks)
{
    struct memtx__cluster *groups = cluster->groups;
    size_t n_groups = 0;
    if (!groups || n_bytes < HEADER_BYTES) {
        return memtx__fail(MEMTX_E_CORRUPT, "%zu bytes behind the blocks of saved clusters", n_bytes);
    }
    const uint64_t first = memtx__get_u64(bytes + FIRST_AT);
    int status = check_header(&n_groups, groups, first, bytes, n_bytes);
    if (status) {
        return status;
    }
    if (first > UINT32_MAX || (first + n_groups) * cluster->options.group_blocks > cluster->first_block + n_blocks) {
        return memtx__fail(MEMTX_E_CORRUPT, "saved clusters with groups of other blocks than there are");
    }
    const uint64_t next = groups->first_block + groups->n_blocks;
    const size_t n_before = groups->n_blocks;
    if (first > next || next - first >= n_groups) {
        return MEMTX_OK;
    }
    status = memtx__cluster_load(groups, bytes, n_bytes);
    for (size_t place = n_before; place < groups->n_blocks; place++) {
        groups->n_blocks = serves(cluster, place) ? groups->n_blocks : place;
    }
    return status;
}

int memtx__cluster_load(struct memtx__cluster *cluster, const unsigned char *bytes, size_t n_bytes)
{
    const size_t block_rows = cluster->options.block_rows, n_starts = cluster->per_block + 1;
    const size_t centroid_bytes = cluster->per_block * cluster->dim * memtx__row_type_bytes(cluster->type);
    const uint64_t next = cluster->first_block + cluster->n_blocks;
    const uint64_t first = n_bytes < HEADER_BYTES ? next : memtx__get_u64(bytes + FIRST_AT);
    size_t n_blocks = 0;
    int status = check_header(&n_blocks, cluster, first, bytes, n_bytes);
    if (!status && (first > next || next - first > n_blocks)) {
        status = memtx__fail(MEMTX_E_MISMATCH, "saved clusters of %zu blocks from block %llu on, not of block %llu",
                             n_blocks, (unsigned long long)first, (unsigned long long)next);
    }
    if (status) {
        return status;
    }
    const size_t end = cluster->n_blocks + n_blocks - (size_t)(next - first);
    const unsigned char *at = bytes + HEADER_BYTES + (size_t)(next - first) * block_bytes(cluster);
    status = memtx__cluster_grow(cluster, end - cluster->n_blocks);
    for (size_t place = cluster->n_blocks; !status && place < end; place++) {
        at = get_u16s(cluster->starts + place * n_starts, at, n_starts);
        at = get_u16s(cluster->order + place * block_rows, at, block_rows);
        memtx__rows_read(cluster->spreads + place * cluster->per_block, MEMTX_ROWS_F32, at, cluster->per_block);
        at += 4 * cluster->per_block;
        memcpy(cluster->centroids + place * centroid_bytes, at, centroid_bytes);
        at += centroid_bytes;
        status = check_block(cluster, place);
    }
    if (!status && n_bytes > HEADER_BYTES + n_blocks * block_bytes(cluster) + CRC_BYTES) {
        status = load_groups(cluster, at, (size_t)(bytes + n_bytes - CRC_BYTES - at), end);
    }
    cluster->n_blocks = status ? cluster->n_blocks : end;
    return status;
}
