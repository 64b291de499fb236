/* Reads all of a store (memtx/store.h): LMDB's pages first, which everything else stands on; then documents and extents
 * against each other; then every chunk, and that no table holds what nobody can have written. */
#include "base/alloc.h"
#include "base/status.h"
#include "store/progress.h"
#include "store/tables.h"

struct verification {
    memtx_store *store;
    struct memtx__snapshot *snapshot;
    struct memtx__catalogue catalogue;
    const struct memtx_store_upkeep_options *options;
    struct memtx__progress progress;
};

static uint32_t n_rows_of(const struct verification *v, uint64_t chunk)
{
    return memtx__catalogue_chunk_rows(&v->catalogue, chunk, v->store->chunk_rows);
}

/* ---- documents -------------------------------------------------------------------------------- */

static int check_document(struct verification *v, const struct memtx_document *document)
{
    uint64_t n_rows = 0;
    for (size_t i = 0; i < v->catalogue.n_extents; i++) {
        const struct memtx__extent *extent = &v->catalogue.extents[i];
        if (extent->document == document->id) {
            n_rows += extent->n_rows;
        }
    }
    if (n_rows != document->n_tokens) {
        return memtx__fail(MEMTX_E_CORRUPT, "document '%s' has %llu rows, its record says %llu", document->name,
                           (unsigned long long)n_rows, (unsigned long long)document->n_tokens);
    }
    if (!document->state_bytes) {
        return MEMTX_OK;
    }
    unsigned char *bytes;
    int status = memtx__snapshot_state(&bytes, v->snapshot, document);
    memtx__free(bytes);
    return status ? status : memtx__progress_add(&v->progress, document->state_bytes);
}

static int check_documents(struct verification *v)
{
    int status = MEMTX_OK;
    for (size_t i = 0; i < v->catalogue.n_documents && !status; i++) {
        status = check_document(v, &v->catalogue.documents[i].facts);
    }
    return status;
}

/* ---- chunks ----------------------------------------------------------------------------------- */

static int check_tokens(struct verification *v, uint64_t chunk)
{
    const uint32_t n_rows = n_rows_of(v, chunk);
    const unsigned char *tokens;
    int status = memtx__snapshot_tokens(&tokens, v->snapshot, chunk, n_rows);
    return status ? status : memtx__progress_add(&v->progress, 4 * (uint64_t)n_rows + 4);
}

static int check_chunk(struct verification *v, enum memtx__chunk_kind kind, const struct memtx__pair *pair,
                       uint64_t chunk)
{
    const struct memtx__chunk_facts facts = {
        kind, chunk * v->store->chunk_rows, n_rows_of(v, chunk), v->store->row_bytes, pair->layer, pair->kv_head};
    const unsigned char *bytes = NULL, *rows = NULL;
    size_t n_bytes = 0;
    int status = memtx__snapshot_chunk(&bytes, &n_bytes, v->snapshot, kind, chunk, pair->layer, pair->kv_head);
    if (!status) {
        status = memtx__chunk_decode(&rows, bytes, n_bytes, &facts, true);
    }
    return status ? status : memtx__progress_add(&v->progress, n_bytes);
}

static int check_chunks(struct verification *v)
{
    const memtx_store *store = v->store;
    int status = MEMTX_OK;
    for (uint64_t chunk = 0; chunk * store->chunk_rows < v->catalogue.state.n_rows && !status; chunk++) {
        if (!memtx__catalogue_sees(&v->catalogue, chunk, v->store->chunk_rows)) {
            continue;
        }
        status = check_tokens(v, chunk);
        for (size_t pair = 0; pair < store->n_pairs && !status; pair++) {
            status = check_chunk(v, MEMTX__KEYS, &store->pairs[pair], chunk);
            status = status ? status : check_chunk(v, MEMTX__VALUES, &store->pairs[pair], chunk);
        }
    }
    return status;
}

/* ---- what should not be there ----------------------------------------------------------------- */

static bool is_known(const struct verification *v, enum memtx__database database, const MDB_val *key)
{
    const memtx_store *store = v->store;
    const unsigned char *bytes = key->mv_data;
    const uint64_t n_rows = v->catalogue.state.n_rows;
    if (database == MEMTX__DB_RUNNING) {
        return key->mv_size == MEMTX__PIECE_KEY_BYTES &&
               memtx__catalogue_document(&v->catalogue, memtx__get_be(bytes, 8)) != MEMTX__NOWHERE;
    }
    if (key->mv_size < 8 || memtx__get_be(bytes, 8) > n_rows / store->chunk_rows) {
        return false;
    }
    if (database == MEMTX__DB_TOKENS) {
        return key->mv_size == 8;
    }
    return key->mv_size == MEMTX__CHUNK_KEY_BYTES &&
           memtx_store_keeps(&store->spec, (uint32_t)memtx__get_be(bytes + 8, 2),
                             (uint32_t)memtx__get_be(bytes + 10, 2));
}

static int check_keys(struct verification *v)
{
    static const enum memtx__database databases[] = {MEMTX__DB_TOKENS, MEMTX__DB_KEYS, MEMTX__DB_VALUES,
                                                     MEMTX__DB_RUNNING};
    const size_t n = v->store->version >= 2 ? 4 : 3;
    for (size_t i = 0; i < n; i++) {
        MDB_cursor *cursor;
        MDB_val key, value;
        bool known = true;
        int code = mdb_cursor_open(v->snapshot->txn, v->store->environment->databases[databases[i]], &cursor);
        if (code) {
            return memtx__lmdb_status(code, v->store->environment->path, "read");
        }
        while (known && (code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == MDB_SUCCESS) {
            known = is_known(v, databases[i], &key);
        }
        mdb_cursor_close(cursor);
        if (!known) {
            return memtx__fail(MEMTX_E_CORRUPT, "table %s has a record that nobody wrote",
                               memtx__database_names[databases[i]]);
        }
        if (code != MDB_NOTFOUND) {
            return memtx__lmdb_status(code, v->store->environment->path, "read");
        }
    }
    return MEMTX_OK;
}

static int verify(struct verification *v)
{
    const memtx_store *store = v->store;
    int status = memtx__snapshot_renew(v->snapshot);
    if (!status) {
        status = memtx__snapshot_catalogue(&v->catalogue, v->snapshot, store->version);
    }
    if (status) {
        return status;
    }
    memtx__progress_begin(&v->progress, v->options, store, &v->catalogue);
    status = check_documents(v);
    if (!status) {
        status = check_keys(v);
    }
    return status ? status : check_chunks(v);
}

int memtx_store_verify(memtx_store *store, const struct memtx_store_upkeep_options *options)
{
    struct verification v = {.store = store, .options = options};
    if (!store->environment) {
        return memtx__fail(MEMTX_E_INVALID, "a store on the heap has nothing to verify");
    }
    int status = memtx__store_check_process(store);
    if (!status) {
        status = memtx__snapshot_open(&v.snapshot, store->environment);
    }
    if (!status) {
        status = verify(&v);
    }
    memtx__snapshot_close(v.snapshot);
    memtx__catalogue_release(&v.catalogue);
    return status;
}
