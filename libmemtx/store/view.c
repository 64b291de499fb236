/* Addresses of rows (view.h). */
#include "store/view.h"

#include "base/alloc.h"
#include "base/status.h"

int memtx__view_open(struct memtx__view *out, memtx_store *store, bool is_reader)
{
    *out = (struct memtx__view){.store = store, .is_reader = is_reader, .catalogue = &store->now};
    return store->environment ? memtx__snapshot_open(&out->snapshot, store->environment) : MEMTX_OK;
}

void memtx__view_close(struct memtx__view *view)
{
    memtx__snapshot_close(view->snapshot);
    memtx__catalogue_release(&view->own);
    memtx__free(view->rows);
    *view = (struct memtx__view){0};
}

/* A reader's catalogue, when the store has moved on since it was loaded. */
static int renew_catalogue(struct memtx__view *view)
{
    if (view->own_id == memtx__snapshot_id(view->snapshot)) {
        return MEMTX_OK;
    }
    view->own_id = 0;
    int status = memtx__snapshot_catalogue(&view->own, view->snapshot, view->store->version);
    if (!status) {
        view->own_id = memtx__snapshot_id(view->snapshot);
        view->catalogue = &view->own;
    }
    return status;
}

/* Full chunks on disk: those whose addresses stay. */
static uint64_t n_full_chunks(const struct memtx__view *view)
{
    return view->is_reader ? view->catalogue->state.n_rows / view->store->chunk_rows : view->store->tail.first_chunk;
}

int memtx__view_begin(struct memtx__view *view)
{
    int status = memtx__store_check_process(view->store);
    if (status || !view->snapshot) {
        return status;
    }
    status = view->is_reader ? MEMTX_OK : memtx__environment_load_tail(view->store);
    if (!status) {
        status = memtx__snapshot_renew(view->snapshot);
    }
    if (status) {
        return status;
    }
    if (view->is_reader) {
        status = renew_catalogue(view);
    }
    if (!status) {
        status = memtx__grow(&view->rows, &view->n_chunks_held, (size_t)n_full_chunks(view),
                             2 * view->store->n_pairs * sizeof *view->rows);
    }
    if (status) {
        memtx__snapshot_reset(view->snapshot);
    }
    return status;
}

void memtx__view_end(struct memtx__view *view)
{
    if (view->snapshot) {
        memtx__snapshot_reset(view->snapshot);
    }
}

static int look_up(const unsigned char **rows, struct memtx__view *view, const struct memtx__chunk_facts *facts,
                   uint64_t chunk, bool check_rows)
{
    const unsigned char *bytes = NULL;
    size_t n_bytes = 0;
    int status =
        memtx__snapshot_chunk(&bytes, &n_bytes, view->snapshot, facts->kind, chunk, facts->layer, facts->kv_head);
    return status ? status : memtx__chunk_decode(rows, bytes, n_bytes, facts, check_rows);
}

int memtx__view_chunk(const unsigned char **rows, struct memtx__view *view, enum memtx__chunk_kind kind, uint32_t layer,
                      uint32_t kv_head, uint64_t chunk)
{
    const memtx_store *store = view->store;
    const ptrdiff_t found = memtx__store_pair(store, layer, kv_head);
    const size_t pair = (size_t)found;
    struct memtx__chunk_facts facts = {kind,   chunk * store->chunk_rows, store->chunk_rows, store->row_bytes, layer,
                                       kv_head};
    *rows = NULL;
    if (found < 0) {
        return memtx__fail(MEMTX_E_INVALID, "layer %u, kv head %u is not kept by this store", layer, kv_head);
    }
    if (chunk >= n_full_chunks(view) || !view->snapshot) {
        if (!view->is_reader || !view->snapshot) {
            *rows = memtx__tail_rows(&store->tail, kind, pair, chunk);
            return MEMTX_OK;
        }
        facts.n_rows = (uint32_t)(view->catalogue->state.n_rows % store->chunk_rows);
        return look_up(rows, view, &facts, chunk, true); /* still being filled: it will move */
    }
    const unsigned char **known = &view->rows[((size_t)chunk * store->n_pairs + pair) * 2 + (kind == MEMTX__VALUES)];
    int status =
        *known ? MEMTX_OK : look_up(known, view, &facts, chunk, view->is_reader || chunk < store->n_chunks_at_open);
    if (status) {
        *known = NULL;
    }
    *rows = *known;
    return status;
}

int memtx__view_tokens(const unsigned char **tokens, struct memtx__view *view, uint64_t chunk)
{
    const memtx_store *store = view->store;
    if (!view->snapshot || (!view->is_reader && chunk >= n_full_chunks(view))) {
        *tokens = memtx__tail_tokens(&store->tail, chunk);
        return MEMTX_OK;
    }
    return memtx__snapshot_tokens(tokens, view->snapshot, chunk,
                                  memtx__catalogue_chunk_rows(view->catalogue, chunk, store->chunk_rows));
}
