/* One synced transaction with all that waits (store.h): chunks, token ids, documents, extents, state; and chunks that
 * are older than every visible row are deleted. Whatever fails, the transaction is dropped and the store is as before.
 */
#include "base/crc32c.h"
#include "base/status.h"
#include "store/tables.h"

/* One chunk that waits: the n-th of store->n_pairs pairs, keys and values in turn. */
static struct memtx__chunk_facts facts_of(const memtx_store *store, uint64_t chunk, size_t n)
{
    const uint64_t first = chunk * store->chunk_rows, n_left = store->now.state.n_rows - first;
    const struct memtx__pair *pair = &store->pairs[n / 2];
    return (struct memtx__chunk_facts){n % 2 ? MEMTX__VALUES : MEMTX__KEYS,
                                       first,
                                       n_left < store->chunk_rows ? (uint32_t)n_left : store->chunk_rows,
                                       store->row_bytes,
                                       pair->layer,
                                       pair->kv_head};
}

/* Where a chunk stands in the tail, its header before its rows. */
static unsigned char *chunk_at(const memtx_store *store, uint64_t chunk, size_t n)
{
    return memtx__tail_rows(&store->tail, n % 2 ? MEMTX__VALUES : MEMTX__KEYS, n / 2, chunk) -
           MEMTX__CHUNK_HEADER_BYTES;
}

static int put_chunk(memtx_store *store, MDB_txn *txn, uint64_t chunk, size_t n)
{
    const struct memtx__environment *environment = store->environment;
    const struct memtx__chunk_facts facts = facts_of(store, chunk, n);
    unsigned char name[MEMTX__CHUNK_KEY_BYTES];
    MDB_val key = memtx__chunk_key(name, chunk, facts.layer, facts.kv_head);
    MDB_val value = {memtx__chunk_bytes(facts.n_rows, facts.row_bytes), NULL};
    const size_t used_bytes = MEMTX__CHUNK_HEADER_BYTES + (size_t)facts.n_rows * facts.row_bytes;
    int code = mdb_put(txn, environment->databases[facts.kind == MEMTX__KEYS ? MEMTX__DB_KEYS : MEMTX__DB_VALUES], &key,
                       &value, MDB_RESERVE);
    if (!code) {
        unsigned char *bytes = chunk_at(store, chunk, n);
        memtx__chunk_encode(bytes, &facts);
        memcpy(value.mv_data, bytes, used_bytes);
        memset((unsigned char *)value.mv_data + used_bytes, 0, value.mv_size - used_bytes);
    }
    return code;
}

static int put_tokens(memtx_store *store, MDB_txn *txn, uint64_t chunk, uint32_t n_rows)
{
    unsigned char name[8];
    MDB_val key = memtx__number_key(name, chunk), value = {4 * (size_t)n_rows + 4, NULL};
    const unsigned char *tokens = memtx__tail_tokens(&store->tail, chunk);
    int code = mdb_put(txn, store->environment->databases[MEMTX__DB_TOKENS], &key, &value, MDB_RESERVE);
    if (!code) {
        memcpy(value.mv_data, tokens, 4 * (size_t)n_rows);
        memtx__put_u32((unsigned char *)value.mv_data + 4 * (size_t)n_rows,
                       memtx__crc32c(0, tokens, 4 * (size_t)n_rows));
    }
    return code;
}

static int put_chunks(memtx_store *store, MDB_txn *txn)
{
    int code = MDB_SUCCESS;
    for (uint64_t chunk = store->n_written_rows / store->chunk_rows;
         chunk * store->chunk_rows < store->now.state.n_rows && !code; chunk++) {
        for (size_t n = 0; n < 2 * store->n_pairs && !code; n++) {
            code = put_chunk(store, txn, chunk, n);
        }
        if (!code) {
            code = put_tokens(store, txn, chunk, facts_of(store, chunk, 0).n_rows);
        }
    }
    return code;
}

/* Writes the running state of `document`, in place of the one before. */
static int put_running(memtx_store *store, MDB_txn *txn, const struct memtx_document *document)
{
    const struct memtx__pending_state *pending = &store->pending;
    const size_t most = MEMTX__CHUNK_BYTES - MEMTX__PIECE_HEADER_BYTES;
    const MDB_dbi running = store->environment->databases[MEMTX__DB_RUNNING];
    unsigned char name[MEMTX__PIECE_KEY_BYTES];
    uint32_t number = 0;
    int code = MDB_SUCCESS;
    for (size_t done = 0; done < pending->n_bytes && !code; number++) {
        const size_t n_left = pending->n_bytes - done, n_bytes = n_left < most ? n_left : most;
        MDB_val key = memtx__piece_key(name, document->id, number);
        MDB_val value = {MEMTX__PIECE_HEADER_BYTES + n_bytes, NULL};
        code = mdb_put(txn, running, &key, &value, MDB_RESERVE);
        if (!code) {
            memcpy((unsigned char *)value.mv_data + MEMTX__PIECE_HEADER_BYTES, pending->bytes + done, n_bytes);
            memtx__piece_encode(value.mv_data, number, document->state_row, n_bytes);
            done += n_bytes;
        }
    }
    while (!code) { /* a longer one before */
        MDB_val key = memtx__piece_key(name, document->id, number++);
        code = mdb_del(txn, running, &key, NULL);
    }
    return code == MDB_NOTFOUND ? MDB_SUCCESS : code;
}

static int put_records(memtx_store *store, MDB_txn *txn)
{
    const struct memtx__catalogue *now = &store->now;
    int code = MDB_SUCCESS;
    for (size_t i = 0; i < now->n_documents && !code; i++) {
        if (now->documents[i].is_dirty) {
            code = memtx__lmdb_put_document(store->environment, txn, &now->documents[i].facts);
        }
        if (!code && store->pending.bytes && i == store->pending.document) {
            code = put_running(store, txn, &now->documents[i].facts);
        }
    }
    for (size_t i = store->first_dirty_extent; i < now->n_extents && !code; i++) {
        code = memtx__lmdb_put_extent(store->environment, txn, &now->extents[i]);
    }
    return code ? code : memtx__lmdb_put_state(store->environment, txn, &store->now.state);
}

/* Removes chunks that are older than every visible row. */
static int delete_chunks(memtx_store *store, MDB_txn *txn)
{
    static const enum memtx__database databases[] = {MEMTX__DB_TOKENS, MEMTX__DB_KEYS, MEMTX__DB_VALUES};
    const struct memtx__environment *environment = store->environment;
    const uint64_t first_kept = store->now.state.first_row / store->chunk_rows;
    for (size_t i = 0; i < 3 && store->n_freed_chunks < first_kept; i++) {
        MDB_cursor *cursor;
        MDB_val key, value;
        int code = mdb_cursor_open(txn, environment->databases[databases[i]], &cursor);
        if (code) {
            return code;
        }
        while ((code = mdb_cursor_get(cursor, &key, &value, MDB_FIRST)) == MDB_SUCCESS && key.mv_size >= 8 &&
               memtx__get_be(key.mv_data, 8) < first_kept) {
            code = mdb_cursor_del(cursor, 0);
            if (code) {
                break;
            }
        }
        mdb_cursor_close(cursor);
        if (code && code != MDB_NOTFOUND) {
            return code;
        }
    }
    return MDB_SUCCESS;
}

int memtx__environment_write(memtx_store *store)
{
    MDB_txn *txn;
    int status = memtx__environment_load_tail(store);
    if (!status) {
        status = memtx__lmdb_begin(&txn, store->environment);
    }
    if (status) {
        return status;
    }
    store->now.state.n_commits++;
    int code = put_chunks(store, txn);
    if (!code) {
        code = put_records(store, txn);
    }
    if (!code) {
        code = delete_chunks(store, txn);
    }
    status = memtx__lmdb_end(txn, store->environment, code, "write");
    if (status) {
        store->now.state.n_commits--;
    }
    return status;
}

int memtx__environment_upgrade(memtx_store *store)
{
    struct memtx__environment *environment = store->environment;
    const struct memtx__catalogue *now = &store->now;
    MDB_txn *txn;
    int status = memtx__lmdb_begin(&txn, environment), code = MDB_SUCCESS;
    if (status) {
        return status;
    }
    for (int i = MEMTX__N_DATABASES_V1; i < MEMTX__N_DATABASES && !code; i++) {
        code = mdb_dbi_open(txn, memtx__database_names[i], MDB_CREATE, &environment->databases[i]);
    }
    for (size_t i = 0; i < now->n_documents && !code; i++) {
        code = memtx__lmdb_put_document(environment, txn, &now->documents[i].facts);
    }
    for (size_t i = 0; i < now->n_extents && !code; i++) {
        code = memtx__lmdb_put_extent(environment, txn, &now->extents[i]);
    }
    if (!code) {
        code = memtx__lmdb_put_spec(environment, txn, &store->spec, store->chunk_rows);
    }
    if (!code) {
        code = memtx__lmdb_put_state(environment, txn, &store->now.state);
    }
    status = memtx__lmdb_end(txn, environment, code, "bring the store to the newest format");
    store->version = status ? store->version : MEMTX__FORMAT_VERSION;
    return status;
}
