/* An existing store into memory (store.h): what it is for, state, documents, extents, and the rows of the chunk that
 * goes on being appended to. Full chunks stay where they are until a search asks for them, so opening does not depend on
 * the number of rows. */
#include "base/alloc.h"
#include "base/crc32c.h"
#include "base/status.h"
#include "math/rows.h"
#include "store/tables.h"

/* The RoPE factors of a decoded spec record, into the spec. */
static int load_factors(float **rope_factors, struct memtx_store_spec *spec, const unsigned char *spec_record,
                        const struct memtx__environment *environment, MDB_txn *txn)
{
    MDB_val key = memtx__text_key("rope"), value = {0, NULL};
    const int code = mdb_get(txn, environment->databases[MEMTX__DB_META], &key, &value);
    const bool is_there = code == MDB_SUCCESS;
    int status = is_there || code == MDB_NOTFOUND
                     ? memtx__spec_check_factors(spec_record, value.mv_data, is_there ? value.mv_size : 0)
                     : memtx__lmdb_status(code, environment->path, "read the rope record");
    if (status || !is_there) {
        return status;
    }
    if (value.mv_size != spec->rope_dims / 2 * sizeof **rope_factors) {
        return memtx__fail(MEMTX_E_CORRUPT, "%s: the rope record has %zu bytes", environment->path, value.mv_size);
    }
    status = memtx__alloc(rope_factors, value.mv_size, 1);
    if (!status) {
        memtx__rows_read(*rope_factors, MEMTX_ROWS_F32, value.mv_data, spec->rope_dims / 2);
        spec->rope_factors = *rope_factors;
    }
    return status;
}

int memtx__environment_load_spec(struct memtx_store_spec *spec, uint32_t *version, uint32_t *chunk_rows,
                                 float **rope_factors, struct memtx__environment *environment)
{
    MDB_txn *txn;
    *rope_factors = NULL;
    int status = memtx__lmdb_status(mdb_txn_begin(environment->env, NULL, MDB_RDONLY, &txn), environment->path, "read");
    if (status) {
        return status;
    }
    MDB_val key = memtx__text_key("spec"), value;
    int code = mdb_get(txn, environment->databases[MEMTX__DB_META], &key, &value);
    if (code == MDB_NOTFOUND) {
        status = memtx__fail(MEMTX_E_FORMAT, "%s: holds an LMDB database that is not a memtx store", environment->path);
    } else {
        status = memtx__lmdb_status(code, environment->path, "read what the store is for");
    }
    if (!status) {
        status = memtx__spec_decode(spec, version, chunk_rows, value.mv_data, value.mv_size);
    }
    for (int i = MEMTX__N_DATABASES_V1; i < MEMTX__N_DATABASES && !status && *version >= 2; i++) {
        if (!environment->databases[i]) {
            status =
                memtx__fail(MEMTX_E_CORRUPT, "%s: table %s is missing", environment->path, memtx__database_names[i]);
        }
    }
    if (!status) {
        status = load_factors(rope_factors, spec, value.mv_data, environment, txn);
    }
    mdb_txn_abort(txn);
    return status;
}

typedef int take_record(struct memtx__catalogue *catalogue, uint32_t version, uint64_t number,
                        const unsigned char *bytes, size_t n_bytes);

static int walk(struct memtx__catalogue *catalogue, const struct memtx__snapshot *snapshot, uint32_t version,
                enum memtx__database database, take_record *take)
{
    const struct memtx__environment *environment = snapshot->environment;
    MDB_cursor *cursor;
    MDB_val key, value;
    int status = MEMTX_OK;
    int code = mdb_cursor_open(snapshot->txn, environment->databases[database], &cursor);
    if (code) {
        return memtx__lmdb_status(code, environment->path, "read");
    }
    while (!status && (code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == MDB_SUCCESS) {
        status = key.mv_size == 8
                     ? take(catalogue, version, memtx__get_be(key.mv_data, 8), value.mv_data, value.mv_size)
                     : memtx__fail(MEMTX_E_CORRUPT, "%s: a key of %zu bytes in table %s", environment->path,
                                   key.mv_size, memtx__database_names[database]);
    }
    mdb_cursor_close(cursor);
    return status || code == MDB_NOTFOUND ? status : memtx__lmdb_status(code, environment->path, "read");
}

int memtx__snapshot_catalogue(struct memtx__catalogue *out, struct memtx__snapshot *snapshot, uint32_t version)
{
    const struct memtx__environment *environment = snapshot->environment;
    MDB_val key = memtx__text_key("state"), value;
    out->n_documents = out->n_extents = out->n_runs = 0;
    int status = memtx__lmdb_status(mdb_get(snapshot->txn, environment->databases[MEMTX__DB_META], &key, &value),
                                    environment->path, "read the state record");
    if (!status) {
        status = memtx__state_decode(&out->state, value.mv_data, value.mv_size);
    }
    if (!status && out->state.transaction && out->state.transaction != memtx__snapshot_id(snapshot)) {
        status =
            memtx__fail(MEMTX_E_CORRUPT, "%s: transaction %llu is taken for %llu", environment->path,
                        (unsigned long long)out->state.transaction, (unsigned long long)memtx__snapshot_id(snapshot));
    }
    if (!status) {
        status = walk(out, snapshot, version, MEMTX__DB_DOCS, memtx__catalogue_take_document);
    }
    if (!status) {
        status = walk(out, snapshot, version, MEMTX__DB_EXTENTS, memtx__catalogue_take_extent);
    }
    if (!status && version >= 2) {
        status = walk(out, snapshot, version, MEMTX__DB_RUNS, memtx__catalogue_take_run);
    }
    return status;
}

static int load_rows(memtx_store *store, MDB_txn *txn, enum memtx__chunk_kind kind, size_t pair, uint64_t chunk,
                     uint32_t n_rows)
{
    const struct memtx__pair *kept = &store->pairs[pair];
    const struct memtx__chunk_facts facts = {
        kind, chunk * store->chunk_rows, n_rows, store->row_bytes, kept->layer, kept->kv_head};
    const unsigned char *bytes = NULL, *rows = NULL;
    size_t n_bytes = 0;
    int status = memtx__lmdb_chunk(&bytes, &n_bytes, store->environment, txn, kind, chunk, kept->layer, kept->kv_head);
    if (!status) {
        status = memtx__chunk_decode(&rows, bytes, n_bytes, &facts, true);
    }
    if (!status) {
        memcpy(memtx__tail_rows(&store->tail, kind, pair, chunk) - MEMTX__CHUNK_HEADER_BYTES, bytes,
               MEMTX__CHUNK_HEADER_BYTES + (size_t)n_rows * store->row_bytes);
    }
    return status;
}

/* The last chunk goes on being appended to, so it is copied into the tail. */
static int load_last_chunk(memtx_store *store, MDB_txn *txn)
{
    const uint64_t chunk = store->now.state.n_rows / store->chunk_rows;
    const uint32_t n_rows = (uint32_t)(store->now.state.n_rows % store->chunk_rows);
    unsigned char name[8];
    MDB_val key = memtx__number_key(name, chunk), value;
    int status = memtx__tail_reach(&store->tail, chunk);
    for (size_t pair = 0; pair < store->n_pairs && !status; pair++) {
        status = load_rows(store, txn, MEMTX__KEYS, pair, chunk, n_rows);
        status = status ? status : load_rows(store, txn, MEMTX__VALUES, pair, chunk, n_rows);
    }
    if (status) {
        return status;
    }
    int code = mdb_get(txn, store->environment->databases[MEMTX__DB_TOKENS], &key, &value);
    if (code || value.mv_size != 4 * (size_t)n_rows + 4 ||
        memtx__crc32c(0, value.mv_data, 4 * (size_t)n_rows) !=
            memtx__get_u32((const unsigned char *)value.mv_data + 4 * (size_t)n_rows)) {
        return memtx__fail(MEMTX_E_CORRUPT, "%s: the token ids of chunk %llu are damaged", store->environment->path,
                           (unsigned long long)chunk);
    }
    memcpy(memtx__tail_tokens(&store->tail, chunk), value.mv_data, 4 * (size_t)n_rows);
    return MEMTX_OK;
}

int memtx__environment_load(memtx_store *store)
{
    struct memtx__snapshot snapshot = {.environment = store->environment};
    int status = memtx__lmdb_status(mdb_txn_begin(store->environment->env, NULL, MDB_RDONLY, &snapshot.txn),
                                    store->environment->path, "read");
    if (status) {
        return status;
    }
    mdb_txn_reset(snapshot.txn);
    status = memtx__snapshot_renew(&snapshot);
    if (!status) {
        status = memtx__snapshot_catalogue(&store->now, &snapshot, store->version);
    }
    if (!status) {
        store->tail.first_chunk = store->now.state.n_rows / store->chunk_rows;
    }
    store->lacks_tail = !store->options.read_only && store->now.state.n_rows % store->chunk_rows;
    mdb_txn_abort(snapshot.txn);
    return status;
}

int memtx__environment_load_tail(memtx_store *store)
{
    MDB_txn *txn;
    if (!store->lacks_tail) {
        return MEMTX_OK;
    }
    int status = memtx__environment_check_pages(store->environment);
    if (!status) {
        status = memtx__lmdb_status(mdb_txn_begin(store->environment->env, NULL, MDB_RDONLY, &txn),
                                    store->environment->path, "read");
    }
    if (!status) {
        status = load_last_chunk(store, txn);
        mdb_txn_abort(txn);
        store->lacks_tail = status != MEMTX_OK;
    }
    return status;
}

/* Copies piece by piece; each is bounded by what the document's record says, and that by the pieces that are there. */
static int copy_pieces(unsigned char *bytes, const struct memtx__environment *environment, MDB_txn *txn,
                       const struct memtx_document *document)
{
    const size_t most = MEMTX__CHUNK_BYTES - MEMTX__PIECE_HEADER_BYTES;
    int status = MEMTX_OK;
    uint32_t number = 0;
    for (size_t done = 0; done < document->state_bytes && !status; number++) {
        const size_t n_left = (size_t)document->state_bytes - done, n_bytes = n_left < most ? n_left : most;
        unsigned char name[MEMTX__PIECE_KEY_BYTES];
        MDB_val key = memtx__piece_key(name, document->id, number), value;
        const unsigned char *data = NULL;
        status = memtx__lmdb_status(mdb_get(txn, environment->databases[MEMTX__DB_RUNNING], &key, &value),
                                    environment->path, "read a running state");
        if (!status) {
            status = memtx__piece_decode(&data, number, document->state_row, n_bytes, value.mv_data, value.mv_size);
        }
        if (!status) {
            memcpy(bytes + done, data, n_bytes);
            done += n_bytes;
        }
    }
    return status;
}

int memtx__snapshot_state(unsigned char **bytes, struct memtx__snapshot *snapshot,
                          const struct memtx_document *document)
{
    const struct memtx__environment *environment = snapshot->environment;
    *bytes = NULL;
    if (document->state_bytes > memtx__environment_bytes(environment)) {
        return memtx__fail(MEMTX_E_CORRUPT, "%s: a running state of %llu bytes, more than the whole store",
                           environment->path, (unsigned long long)document->state_bytes);
    }
    int status = memtx__alloc_raw(bytes, (size_t)document->state_bytes, 1);
    if (!status) {
        status = copy_pieces(*bytes, environment, snapshot->txn, document);
    }
    if (status) {
        memtx__free(*bytes);
        *bytes = NULL;
    }
    return status;
}

static int load_state_of(unsigned char **bytes, size_t *n_bytes, struct memtx__snapshot *snapshot,
                         const struct memtx__catalogue *catalogue, const char *name)
{
    const size_t place = memtx__catalogue_named(catalogue, name);
    if (place == MEMTX__NOWHERE) {
        return memtx__fail(MEMTX_E_NOT_FOUND, "the store has no document '%s'", name);
    }
    const struct memtx_document *document = &catalogue->documents[place].facts;
    if (!document->state_bytes) {
        return memtx__fail(MEMTX_E_NOT_FOUND, "document '%s' has no running state to go on from", name);
    }
    *n_bytes = (size_t)document->state_bytes;
    return memtx__snapshot_state(bytes, snapshot, document);
}

int memtx__environment_load_state(unsigned char **bytes, size_t *n_bytes, struct memtx__environment *environment,
                                  uint32_t version, const char *name)
{
    struct memtx__snapshot *snapshot;
    struct memtx__catalogue catalogue = {0};
    *bytes = NULL;
    int status = memtx__snapshot_open(&snapshot, environment);
    if (status) {
        return status;
    }
    status = memtx__snapshot_renew(snapshot);
    if (!status) {
        status = memtx__snapshot_catalogue(&catalogue, snapshot, version);
    }
    if (!status) {
        status = load_state_of(bytes, n_bytes, snapshot, &catalogue, name);
    }
    memtx__catalogue_release(&catalogue);
    memtx__snapshot_close(snapshot);
    return status;
}
