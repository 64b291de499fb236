/* An existing store into memory (store.h): state, documents, extents, and the rows of the chunk that goes on being
 * appended to. Full chunks stay where they are until a search asks for them, so opening does not depend on the number
 * of rows. */
#include "base/alloc.h"
#include "base/crc32c.h"
#include "base/status.h"
#include "store/tables.h"

typedef int take_record(memtx_store *store, uint64_t number, const unsigned char *bytes, size_t n_bytes);

static int take_document(memtx_store *store, uint64_t number, const unsigned char *bytes, size_t n_bytes)
{
    int status =
        memtx__grow(&store->documents, &store->n_documents_held, store->n_documents + 1, sizeof *store->documents);
    return status ? status : memtx__document_decode(&store->documents[store->n_documents++], number, bytes, n_bytes);
}

static int take_extent(memtx_store *store, uint64_t number, const unsigned char *bytes, size_t n_bytes)
{
    int status = memtx__grow(&store->extents, &store->n_extents_held, store->n_extents + 1, sizeof *store->extents);
    if (status) {
        return status;
    }
    struct memtx__extent *extent = &store->extents[store->n_extents];
    const struct memtx__extent *before = store->n_extents ? extent - 1 : NULL;
    status = memtx__extent_decode(extent, number, bytes, n_bytes);
    if (!status && (number > store->state.n_rows || extent->n_rows > store->state.n_rows - number ||
                    (before && before->first_row + before->n_rows > number))) {
        return memtx__fail(MEMTX_E_CORRUPT, "the extent at row %llu does not fit between its neighbours",
                           (unsigned long long)number);
    }
    store->n_extents += !status;
    return status;
}

static int walk(memtx_store *store, MDB_txn *txn, enum memtx__database database, take_record *take)
{
    const struct memtx__environment *environment = store->environment;
    MDB_cursor *cursor;
    MDB_val key, value;
    int status = MEMTX_OK;
    int code = mdb_cursor_open(txn, environment->databases[database], &cursor);
    if (code) {
        return memtx__lmdb_status(code, environment->path, "read");
    }
    while (!status && (code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == MDB_SUCCESS) {
        status = key.mv_size == 8 ? take(store, memtx__get_be(key.mv_data, 8), value.mv_data, value.mv_size)
                                  : memtx__fail(MEMTX_E_CORRUPT, "%s: a key of %zu bytes in table %s",
                                                environment->path, key.mv_size, memtx__database_names[database]);
    }
    mdb_cursor_close(cursor);
    return status || code == MDB_NOTFOUND ? status : memtx__lmdb_status(code, environment->path, "read");
}

/* The last chunk goes on being appended to, so it is copied into the tail. */
static int load_last_chunk(memtx_store *store, MDB_txn *txn)
{
    const uint64_t chunk = store->state.n_rows / store->chunk_rows;
    const uint32_t n_rows = (uint32_t)(store->state.n_rows % store->chunk_rows);
    unsigned char name[8];
    MDB_val key = memtx__number_key(name, chunk), value;
    int status = memtx__tail_reach(&store->tail, chunk);
    for (uint32_t layer = 0; layer < store->spec.n_layers && !status; layer++) {
        for (uint32_t head = 0; head < store->spec.n_kv_heads && store->first_pair[layer] >= 0 && !status; head++) {
            for (int kind = MEMTX__KEYS; kind <= MEMTX__VALUES && !status; kind++) {
                const unsigned char *bytes = NULL, *rows = NULL;
                size_t n_bytes = 0;
                struct memtx__chunk_facts facts = {
                    (enum memtx__chunk_kind)kind, chunk * store->chunk_rows, n_rows, store->row_bytes, layer, head};
                status = memtx__lmdb_chunk(&bytes, &n_bytes, store->environment, txn, facts.kind, chunk, layer, head);
                if (!status) {
                    status = memtx__chunk_decode(&rows, bytes, n_bytes, &facts, true);
                }
                if (!status) {
                    memcpy(memtx__tail_rows(&store->tail, facts.kind, (size_t)store->first_pair[layer] + head, chunk),
                           rows, (size_t)n_rows * store->row_bytes);
                }
            }
        }
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
    struct memtx__environment *environment = store->environment;
    MDB_txn *txn;
    int status = memtx__lmdb_status(mdb_txn_begin(environment->env, NULL, MDB_RDONLY, &txn), environment->path, "read");
    if (status) {
        return status;
    }
    MDB_val key = memtx__text_key("state"), value;
    status = memtx__lmdb_status(mdb_get(txn, environment->databases[MEMTX__DB_META], &key, &value), environment->path,
                                "read the state record");
    if (!status) {
        status = memtx__state_decode(&store->state, value.mv_data, value.mv_size);
    }
    if (!status) {
        status = walk(store, txn, MEMTX__DB_DOCS, take_document);
    }
    if (!status) {
        status = walk(store, txn, MEMTX__DB_EXTENTS, take_extent);
    }
    if (!status) {
        store->tail.first_chunk = store->state.n_rows / store->chunk_rows;
        status = store->state.n_rows % store->chunk_rows ? load_last_chunk(store, txn) : MEMTX_OK;
    }
    mdb_txn_abort(txn);
    return status;
}
