/* What a reader sees of LMDB (store.h): the store as one transaction left it. */

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/status.h"
#include "store/tables.h"

int memtx__snapshot_open(struct memtx__snapshot **out, struct memtx__environment *environment)
{
    struct memtx__snapshot *snapshot;
    *out = NULL;
    int status = memtx__alloc(&snapshot, 1, sizeof *snapshot);
    if (status) {
        return status;
    }
    snapshot->environment = environment;
    status = memtx__lmdb_status(mdb_txn_begin(environment->env, NULL, MDB_RDONLY, &snapshot->txn), environment->path,
                                "read");
    if (!status) {
        status = memtx__environment_check_pages(environment);
        mdb_txn_reset(snapshot->txn);
    }
    if (status) {
        memtx__snapshot_close(snapshot);
        return status;
    }
    *out = snapshot;
    return MEMTX_OK;
}

void memtx__snapshot_close(struct memtx__snapshot *snapshot)
{
    if (snapshot) {
        if (snapshot->txn) {
            mdb_txn_abort(snapshot->txn);
        }
        memtx__free(snapshot);
    }
}

uint64_t memtx__snapshot_id(const struct memtx__snapshot *snapshot)
{
    return mdb_txn_id(snapshot->txn);
}

/* LMDB takes the newest transaction's number and copies its meta page in two steps. Two commits in between put a newer
 * meta page in that place: the snapshot is then that one's, whole, but goes by the older number. */
static bool is_overtaken(const struct memtx__snapshot *snapshot)
{
    const struct memtx__environment *environment = snapshot->environment;
    MDB_val key = memtx__text_key("state"), value;
    struct memtx__state state;
    return mdb_get(snapshot->txn, environment->databases[MEMTX__DB_META], &key, &value) == MDB_SUCCESS &&
           memtx__state_decode(&state, value.mv_data, value.mv_size) == MEMTX_OK &&
           state.transaction > memtx__snapshot_id(snapshot);
}

int memtx__snapshot_renew(struct memtx__snapshot *snapshot)
{
    enum { MOST_TRIES = 16 };
    const char *path = snapshot->environment->path;
    for (int i = 0; i < MOST_TRIES; i++) {
        int status = memtx__lmdb_status(mdb_txn_renew(snapshot->txn), path, "read");
        if (status || !is_overtaken(snapshot)) {
            return status;
        }
        mdb_txn_reset(snapshot->txn);
    }
    return memtx__fail(MEMTX_E_BUSY, "%s: a writer overtook the reading %d times (try again)", path, MOST_TRIES);
}

void memtx__snapshot_reset(struct memtx__snapshot *snapshot)
{
    mdb_txn_reset(snapshot->txn);
}

int memtx__snapshot_chunk(const unsigned char **bytes, size_t *n_bytes, struct memtx__snapshot *snapshot,
                          enum memtx__chunk_kind kind, uint64_t chunk, uint32_t layer, uint32_t kv_head)
{
    return memtx__lmdb_chunk(bytes, n_bytes, snapshot->environment, snapshot->txn, kind, chunk, layer, kv_head);
}

int memtx__snapshot_tokens(const unsigned char **tokens, struct memtx__snapshot *snapshot, uint64_t chunk,
                           uint32_t n_rows)
{
    const struct memtx__environment *environment = snapshot->environment;
    const size_t n_bytes = 4 * (size_t)n_rows;
    unsigned char name[8];
    MDB_val key = memtx__number_key(name, chunk), value;
    int code = mdb_get(snapshot->txn, environment->databases[MEMTX__DB_TOKENS], &key, &value);
    if (code || value.mv_size != n_bytes + 4 ||
        memtx__crc32c(0, value.mv_data, n_bytes) != memtx__get_u32((const unsigned char *)value.mv_data + n_bytes)) {
        return memtx__fail(MEMTX_E_CORRUPT, "%s: the token ids of chunk %llu are %s", environment->path,
                           (unsigned long long)chunk, code == MDB_NOTFOUND ? "missing" : "damaged");
    }
    *tokens = value.mv_data;
    return MEMTX_OK;
}
