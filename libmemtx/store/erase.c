/* Transactions that take rows away (store.h): a document that is removed, or the rows of one that is gone on with which
 * came after its running state. What it leaves are dead rows; a chunk that holds nothing else goes with it, but for the
 * last one, which is still being filled. */
#include "base/status.h"
#include "store/tables.h"

/* Extents of the document that reach beyond `from`: gone, or cut short. */
static int erase_extents(memtx_store *store, MDB_txn *txn, uint64_t document, uint64_t from)
{
    const struct memtx__environment *environment = store->environment;
    int code = MDB_SUCCESS;
    for (size_t i = 0; i < store->now.n_extents && !code; i++) {
        struct memtx__extent extent = store->now.extents[i];
        unsigned char name[8];
        MDB_val key = memtx__number_key(name, extent.first_row);
        if (extent.document != document || extent.first_row + extent.n_rows <= from) {
            continue;
        }
        if (extent.first_row >= from) {
            code = mdb_del(txn, environment->databases[MEMTX__DB_EXTENTS], &key, NULL);
        } else {
            extent.n_rows = from - extent.first_row;
            code = memtx__lmdb_put_extent(environment, txn, &extent);
        }
    }
    return code;
}

static int erase_running(const memtx_store *store, MDB_txn *txn, uint64_t document)
{
    int code = MDB_SUCCESS;
    for (uint32_t piece = 0; !code; piece++) {
        unsigned char name[MEMTX__PIECE_KEY_BYTES];
        MDB_val key = memtx__piece_key(name, document, piece);
        code = mdb_del(txn, store->environment->databases[MEMTX__DB_RUNNING], &key, NULL);
    }
    return code == MDB_NOTFOUND ? MDB_SUCCESS : code;
}

/* Everything that stands under a chunk's number. */
static int erase_chunk(const memtx_store *store, MDB_txn *txn, uint64_t chunk)
{
    static const enum memtx__database databases[] = {MEMTX__DB_TOKENS, MEMTX__DB_KEYS, MEMTX__DB_VALUES};
    int code = MDB_SUCCESS;
    for (size_t i = 0; i < 3 && !code; i++) {
        MDB_cursor *cursor;
        unsigned char name[8];
        MDB_val key = memtx__number_key(name, chunk), value;
        code = mdb_cursor_open(txn, store->environment->databases[databases[i]], &cursor);
        if (code) {
            return code;
        }
        while ((code = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE)) == MDB_SUCCESS && key.mv_size >= 8 &&
               memtx__get_be(key.mv_data, 8) == chunk) {
            code = mdb_cursor_del(cursor, 0);
            if (code) {
                break;
            }
            key = memtx__number_key(name, chunk);
        }
        mdb_cursor_close(cursor);
        code = code == MDB_NOTFOUND ? MDB_SUCCESS : code;
    }
    return code;
}

/* Chunks of the document's rows in which no row is left, asked of the catalogue as it will be. */
static int erase_chunks(const memtx_store *store, MDB_txn *txn, const struct memtx__catalogue *after, uint64_t document,
                        uint64_t from)
{
    const uint64_t last = store->now.state.n_rows / store->chunk_rows;
    uint64_t next = store->n_freed_chunks; /* none twice */
    int code = MDB_SUCCESS;
    for (size_t i = 0; i < store->now.n_extents && !code; i++) {
        const struct memtx__extent *extent = &store->now.extents[i];
        const uint64_t end_row = extent->first_row + extent->n_rows;
        const uint64_t first_row = extent->first_row > from ? extent->first_row : from;
        if (extent->document != document || end_row <= first_row) {
            continue;
        }
        uint64_t chunk = first_row / store->chunk_rows;
        for (chunk = chunk > next ? chunk : next; chunk * store->chunk_rows < end_row && chunk < last && !code;
             chunk++) {
            if (!memtx__catalogue_has_rows(after, chunk * store->chunk_rows, (chunk + 1) * store->chunk_rows)) {
                code = erase_chunk(store, txn, chunk);
            }
            next = chunk + 1;
        }
    }
    return code;
}

int memtx__environment_erase(memtx_store *store, const struct memtx__catalogue *after, uint64_t document, uint64_t from)
{
    struct memtx__environment *environment = store->environment;
    const size_t place = memtx__catalogue_document(after, document);
    unsigned char name[8];
    MDB_val key = memtx__number_key(name, document);
    MDB_txn *txn;
    int status = memtx__lmdb_begin(&txn, environment);
    if (status) {
        return status;
    }
    int code = erase_extents(store, txn, document, from);
    if (!code && place == MEMTX__NOWHERE) {
        code = mdb_del(txn, environment->databases[MEMTX__DB_DOCS], &key, NULL);
        code = code ? code : erase_running(store, txn, document);
    } else if (!code) {
        code = memtx__lmdb_put_document(environment, txn, &after->documents[place].facts);
    }
    if (!code) {
        code = erase_chunks(store, txn, after, document, from);
    }
    if (!code) {
        code = memtx__lmdb_put_state(environment, txn, &store->now.state);
    }
    return memtx__lmdb_end(txn, environment, code, "take rows away");
}
