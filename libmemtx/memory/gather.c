/* Rows by id (memtx/memory.h): their tokens, and keys and values out of the chunks, converted. Each row is read where it stands; the cost
 * is memory traffic at random, as in attend.c. */
#include "base/bytes.h"
#include "base/status.h"
#include "math/rows.h"
#include "memory/memory.h"

static int check_call(const memtx_memory *memory, uint32_t layer, uint32_t kv_head)
{
    const memtx_store *store = memory->store;
    if (!memory->in_segment) {
        return memtx__fail(MEMTX_E_INVALID, "no segment has begun");
    }
    if (layer >= store->spec.n_layers || !store->spec.heads_kept[layer]) {
        return memtx__fail(MEMTX_E_INVALID, "layer %u is not kept by this store", layer);
    }
    if (kv_head >= store->spec.n_kv_heads) {
        return memtx__fail(MEMTX_E_INVALID, "kv head %u of %u", kv_head, store->spec.n_kv_heads);
    }
    if (!memtx_store_keeps(&store->spec, layer, kv_head)) {
        return memtx__fail(MEMTX_E_INVALID, "layer %u, kv head %u is not kept by this store", layer, kv_head);
    }
    return MEMTX_OK;
}

/* Row i of the answer. The chunk of a visible row has been located. */
static void read_row(float *keys, float *values, const memtx_memory *memory, uint64_t id, size_t i)
{
    const memtx_store *store = memory->store;
    const size_t head_size = store->spec.head_size, chunk = (size_t)(id / store->chunk_rows);
    const size_t offset = (size_t)(id % store->chunk_rows) * store->row_bytes;
    if (keys) {
        memtx__rows_read(keys + i * head_size, store->spec.row_type, memory->keys[chunk] + offset, head_size);
    }
    if (values) {
        memtx__rows_read(values + i * head_size, store->spec.row_type, memory->values[chunk] + offset, head_size);
    }
}

int memtx_memory_gather(float *keys, float *values, memtx_memory *memory, uint32_t layer, uint32_t kv_head, size_t n,
                        const int64_t *ids)
{
    size_t first_unknown = n;
    int status = check_call(memory, layer, kv_head);
    if (!status) {
        status = memtx__memory_locate(memory, layer, kv_head);
    }
    if (status) {
        return status;
    }
#pragma omp parallel for schedule(static) reduction(min : first_unknown)
    for (size_t i = 0; i < n; i++) {
        if (memtx__memory_range_of(memory, (uint64_t)ids[i])) {
            read_row(keys, values, memory, (uint64_t)ids[i], i);
        } else if (i < first_unknown) {
            first_unknown = i;
        }
    }
    return first_unknown == n
               ? MEMTX_OK
               : memtx__fail(MEMTX_E_NOT_FOUND, "row %lld is not visible", (long long)ids[first_unknown]);
}

int memtx_memory_tokens(uint32_t *token_ids, memtx_memory *memory, size_t n, const int64_t *ids)
{
    const uint32_t chunk_rows = memory->store->chunk_rows;
    const unsigned char *tokens = NULL;
    uint64_t loaded = 0;
    int status = memory->in_segment ? MEMTX_OK : memtx__fail(MEMTX_E_INVALID, "no segment has begun");
    for (size_t i = 0; i < n && !status; i++) {
        const uint64_t id = (uint64_t)ids[i];
        if (!memtx__memory_range_of(memory, id)) {
            return memtx__fail(MEMTX_E_NOT_FOUND, "row %lld is not visible", (long long)ids[i]);
        }
        if (!tokens || loaded != id / chunk_rows) {
            loaded = id / chunk_rows;
            status = memtx__view_tokens(&tokens, &memory->view, loaded);
        }
        token_ids[i] = status ? 0 : memtx__get_u32(tokens + 4 * (id % chunk_rows));
    }
    return status;
}
