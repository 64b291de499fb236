/* Addresses of rows (view.h). */
#include "store/view.h"

#include "base/alloc.h"

int memtx__view_open(struct memtx__view *out, memtx_store *store)
{
    *out = (struct memtx__view){.store = store};
    return store->environment ? memtx__snapshot_open(&out->snapshot, store->environment) : MEMTX_OK;
}

void memtx__view_close(struct memtx__view *view)
{
    memtx__snapshot_close(view->snapshot);
    memtx__free(view->rows);
    *view = (struct memtx__view){0};
}

int memtx__view_begin(struct memtx__view *view)
{
    const size_t n_chunks = (size_t)view->store->tail.first_chunk;
    int status = view->snapshot ? memtx__snapshot_renew(view->snapshot) : MEMTX_OK;
    if (!status && view->snapshot) {
        status =
            memtx__grow(&view->rows, &view->n_chunks_held, n_chunks, 2 * view->store->n_pairs * sizeof *view->rows);
        if (status) {
            memtx__snapshot_reset(view->snapshot);
        }
    }
    return status;
}

void memtx__view_end(struct memtx__view *view)
{
    if (view->snapshot) {
        memtx__snapshot_reset(view->snapshot);
    }
}

int memtx__view_chunk(const unsigned char **rows, struct memtx__view *view, enum memtx__chunk_kind kind, uint32_t layer,
                      uint32_t kv_head, uint64_t chunk)
{
    const memtx_store *store = view->store;
    const size_t pair = (size_t)store->first_pair[layer] + kv_head;
    if (chunk >= store->tail.first_chunk) {
        *rows = memtx__tail_rows(&store->tail, kind, pair, chunk);
        return MEMTX_OK;
    }
    const unsigned char **known = &view->rows[((size_t)chunk * store->n_pairs + pair) * 2 + (kind == MEMTX__VALUES)];
    if (!*known) {
        const unsigned char *bytes = NULL;
        size_t n_bytes = 0;
        struct memtx__chunk_facts facts = {
            kind, chunk * store->chunk_rows, store->chunk_rows, store->row_bytes, layer, kv_head};
        int status = memtx__snapshot_chunk(&bytes, &n_bytes, view->snapshot, kind, chunk, layer, kv_head);
        if (!status) {
            status = memtx__chunk_decode(known, bytes, n_bytes, &facts, chunk < store->n_chunks_at_open);
        }
        if (status) {
            *known = NULL;
            return status;
        }
    }
    *rows = *known;
    return MEMTX_OK;
}
