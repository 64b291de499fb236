/* LMDB under the store (store.h): the only file that includes lmdb.h.
 *
 * Every write is one synced transaction: never MDB_NOSYNC or MDB_NOMETASYNC, with which a crash can corrupt the file,
 * and never MDB_WRITEMAP, with which a full disk is a signal. The map is reserved large (address space, not disk), so
 * that it need never grow under a reader. Chunks go to keys that ascend with time, so LMDB's pages fill up.
 */
#include <errno.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/file.h"
#include "base/status.h"
#include "math/rows.h"
#include "math/shapes.h"
#include "store/store.h"

enum { N_DATABASES = 6 };
enum database { DB_META, DB_DOCS, DB_EXTENTS, DB_TOKENS, DB_KEYS, DB_VALUES };

static const char *const database_names[N_DATABASES] = {"meta", "docs", "extents", "tokens", "keys", "values"};
static const size_t largest_map_bytes = (size_t)1 << 40;
static const size_t smallest_map_bytes = (size_t)1 << 30;

struct memtx__environment {
    MDB_env *env;
    MDB_dbi databases[N_DATABASES];
    char *path;
};

static int translate(int code, const char *path, const char *what)
{
    int status;
    switch (code) {
    case MDB_SUCCESS:
        return MEMTX_OK;
    case MDB_NOTFOUND:
        status = MEMTX_E_CORRUPT; /* what is looked up here ought to be there */
        break;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_PANIC:
    case MDB_BAD_TXN:
        status = MEMTX_E_CORRUPT;
        break;
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
        status = MEMTX_E_FORMAT;
        break;
    case MDB_MAP_FULL:
        status = MEMTX_E_NO_SPACE;
        break;
    case MDB_READERS_FULL:
        status = MEMTX_E_BUSY;
        break;
    default:
        status = code > 0 ? memtx__errno_status(code) : MEMTX_E_IO;
        break;
    }
    return memtx__fail(status, "%s: cannot %s: %s", path, what, mdb_strerror(code));
}

void memtx__environment_version(char *out, size_t size)
{
    int major, minor, patch;
    (void)mdb_version(&major, &minor, &patch);
    (void)snprintf(out, size, "%d.%d.%d", major, minor, patch);
}

/* ---- opening
 * --------------------------------------------------------------------------------------------------------- */

static bool has_file(const char *directory, const char *name)
{
    char file[4096];
    struct stat facts;
    int n = snprintf(file, sizeof file, "%s/%s", directory, name);
    return n > 0 && (size_t)n < sizeof file && lstat(file, &facts) == 0;
}

int memtx__environment_prepare(const char *path)
{
    struct stat facts;
    if (mkdir(path, 0700) == 0) {
        return MEMTX_OK;
    }
    if (errno != EEXIST) {
        return memtx__fail(memtx__errno_status(errno), "%s: cannot make the directory: %s", path, strerror(errno));
    }
    if (stat(path, &facts) || !S_ISDIR(facts.st_mode)) {
        return memtx__fail(MEMTX_E_FORMAT, "%s: is not a directory (a store is one)", path);
    }
    if (!has_file(path, "data.mdb")) {
        if (rmdir(path) == 0) { /* empty, so it may become a store */
            return memtx__environment_prepare(path);
        }
        if (!has_file(path, "writer")) {
            return memtx__fail(MEMTX_E_FORMAT, "%s: holds files but no store (name an empty or a new directory)", path);
        }
    }
    return MEMTX_OK;
}

static int make_temporary(char **path, const char *parent)
{
    size_t size = strlen(parent) + sizeof "/memtx-XXXXXX";
    int status = memtx__alloc(path, size, 1);
    if (status) {
        return status;
    }
    (void)snprintf(*path, size, "%s/memtx-XXXXXX", parent);
    if (!mkdtemp(*path)) {
        return memtx__fail(memtx__errno_status(errno), "%s: cannot make a temporary directory: %s", parent,
                           strerror(errno));
    }
    return MEMTX_OK;
}

/* The files of a temporary store lose their names at once: however the process ends, the space comes back. */
static void unlink_temporary(const char *path)
{
    static const char *const files[] = {"data.mdb", "lock.mdb"};
    char file[4096];
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        if (snprintf(file, sizeof file, "%s/%s", path, files[i]) < (int)sizeof file) {
            (void)unlink(file);
        }
    }
    (void)rmdir(path);
}

static int open_env(struct memtx__environment *environment)
{
    int code = MDB_SUCCESS;
    for (size_t bytes = largest_map_bytes; bytes >= smallest_map_bytes; bytes /= 2) {
        code = mdb_env_create(&environment->env);
        if (!code) {
            code = mdb_env_set_maxdbs(environment->env, N_DATABASES);
        }
        if (!code) {
            code = mdb_env_set_mapsize(environment->env, bytes);
        }
        if (!code) {
            code = mdb_env_open(environment->env, environment->path, MDB_NOTLS, 0600);
        }
        if (!code) {
            break;
        }
        mdb_env_close(environment->env);
        environment->env = NULL;
        if (code != ENOMEM) {
            break; /* only a map that does not fit is tried smaller */
        }
    }
    return translate(code, environment->path, "open the database");
}

static int open_databases(struct memtx__environment *environment)
{
    MDB_txn *txn;
    int n_dead;
    (void)mdb_reader_check(environment->env, &n_dead);
    int code = mdb_txn_begin(environment->env, NULL, 0, &txn);
    if (code) {
        return translate(code, environment->path, "begin a transaction");
    }
    for (int i = 0; i < N_DATABASES && !code; i++) {
        code = mdb_dbi_open(txn, database_names[i], MDB_CREATE, &environment->databases[i]);
    }
    if (code) {
        mdb_txn_abort(txn);
    } else {
        code = mdb_txn_commit(txn);
    }
    return translate(code, environment->path, "open its tables");
}

int memtx__environment_open(struct memtx__environment **out, bool *is_new, const char *path, bool temporary)
{
    struct memtx__environment *environment;
    *out = NULL;
    int status = memtx__alloc(&environment, 1, sizeof *environment);
    if (status) {
        return status;
    }
    if (temporary) {
        *is_new = true;
        status = make_temporary(&environment->path, path);
    } else {
        *is_new = !has_file(path, "data.mdb");
        status = memtx__copy_text(&environment->path, path);
    }
    if (!status) {
        status = open_env(environment);
        if (temporary) {
            unlink_temporary(environment->path);
        }
    }
    if (!status) {
        status = open_databases(environment);
    }
    if (status) {
        memtx__environment_close(environment);
        return status;
    }
    *out = environment;
    return MEMTX_OK;
}

void memtx__environment_close(struct memtx__environment *environment)
{
    if (environment) {
        if (environment->env) {
            mdb_env_close(environment->env);
        }
        memtx__free(environment->path);
        memtx__free(environment);
    }
}

uint64_t memtx__environment_bytes(const struct memtx__environment *environment)
{
    MDB_envinfo info;
    MDB_stat facts;
    if (mdb_env_info(environment->env, &info) || mdb_env_stat(environment->env, &facts)) {
        return 0;
    }
    return (info.me_last_pgno + 1) * (uint64_t)facts.ms_psize;
}

/* ---- records
 * ----------------------------------------------------------------------------------------------------------- */

static MDB_val text_key(const char *text)
{
    return (MDB_val){strlen(text), (void *)(uintptr_t)text};
}

static MDB_val number_key(unsigned char bytes[8], uint64_t number)
{
    memtx__put_be(bytes, number, 8);
    return (MDB_val){8, bytes};
}

static MDB_val chunk_key(unsigned char bytes[MEMTX__CHUNK_KEY_BYTES], uint64_t chunk, uint32_t layer, uint32_t kv_head)
{
    memtx__put_be(bytes, chunk, 8);
    memtx__put_be(bytes + 8, layer, 2);
    memtx__put_be(bytes + 10, kv_head, 2);
    return (MDB_val){MEMTX__CHUNK_KEY_BYTES, bytes};
}

int memtx__environment_create_spec(struct memtx__environment *environment, const struct memtx_store_spec *spec,
                                   uint32_t chunk_rows)
{
    unsigned char record[MEMTX__SPEC_BYTES], state[MEMTX__STATE_BYTES];
    float factors[MEMTX__MAX_HEAD_SIZE / 2];
    MDB_txn *txn;
    int code = mdb_txn_begin(environment->env, NULL, 0, &txn);
    if (code) {
        return translate(code, environment->path, "begin a transaction");
    }
    MDB_val key = text_key("spec"), value = {sizeof record, record};
    memtx__spec_encode(record, spec, chunk_rows);
    code = mdb_put(txn, environment->databases[DB_META], &key, &value, 0);
    if (!code) {
        key = text_key("state");
        value = (MDB_val){sizeof state, state};
        memtx__state_encode(state, &(struct memtx__state){0});
        code = mdb_put(txn, environment->databases[DB_META], &key, &value, 0);
    }
    if (!code && spec->rope_factors) {
        key = text_key("rope");
        value = (MDB_val){spec->rope_dims / 2 * sizeof *factors, factors};
        memtx__rows_write((unsigned char *)factors, MEMTX_ROWS_F32, spec->rope_factors, spec->rope_dims / 2);
        code = mdb_put(txn, environment->databases[DB_META], &key, &value, 0);
    }
    if (code) {
        mdb_txn_abort(txn);
    } else {
        code = mdb_txn_commit(txn);
    }
    return translate(code, environment->path, "write what the store is for");
}

int memtx__environment_load_spec(struct memtx_store_spec *spec, uint32_t *chunk_rows, float **rope_factors,
                                 struct memtx__environment *environment)
{
    MDB_txn *txn;
    *rope_factors = NULL;
    int status = translate(mdb_txn_begin(environment->env, NULL, MDB_RDONLY, &txn), environment->path, "read");
    if (status) {
        return status;
    }
    MDB_val key = text_key("spec"), value;
    int code = mdb_get(txn, environment->databases[DB_META], &key, &value);
    if (code == MDB_NOTFOUND) {
        status = memtx__fail(MEMTX_E_FORMAT, "%s: holds an LMDB database that is not a memtx store", environment->path);
    } else {
        status = translate(code, environment->path, "read what the store is for");
    }
    if (!status) {
        status = memtx__spec_decode(spec, chunk_rows, value.mv_data, value.mv_size);
    }
    key = text_key("rope");
    if (!status && mdb_get(txn, environment->databases[DB_META], &key, &value) == MDB_SUCCESS) {
        if (value.mv_size != spec->rope_dims / 2 * sizeof **rope_factors) {
            status =
                memtx__fail(MEMTX_E_CORRUPT, "%s: the rope record has %zu bytes", environment->path, value.mv_size);
        } else {
            status = memtx__alloc(rope_factors, value.mv_size, 1);
        }
        if (!status) {
            memtx__rows_read(*rope_factors, MEMTX_ROWS_F32, value.mv_data, spec->rope_dims / 2);
            spec->rope_factors = *rope_factors;
        }
    }
    mdb_txn_abort(txn);
    return status;
}

/* ---- loading
 * -------------------------------------------------------------------------------------------------------------- */

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

static int walk(memtx_store *store, MDB_txn *txn, enum database database, take_record *take)
{
    const struct memtx__environment *environment = store->environment;
    MDB_cursor *cursor;
    MDB_val key, value;
    int status = MEMTX_OK;
    int code = mdb_cursor_open(txn, environment->databases[database], &cursor);
    if (code) {
        return translate(code, environment->path, "read");
    }
    while (!status && (code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == MDB_SUCCESS) {
        status = key.mv_size == 8 ? take(store, memtx__get_be(key.mv_data, 8), value.mv_data, value.mv_size)
                                  : memtx__fail(MEMTX_E_CORRUPT, "%s: a key of %zu bytes in table %s",
                                                environment->path, key.mv_size, database_names[database]);
    }
    mdb_cursor_close(cursor);
    return status || code == MDB_NOTFOUND ? status : translate(code, environment->path, "read");
}

static int get_chunk(const unsigned char **bytes, size_t *n_bytes, const struct memtx__environment *environment,
                     MDB_txn *txn, enum memtx__chunk_kind kind, uint64_t chunk, uint32_t layer, uint32_t kv_head)
{
    unsigned char name[MEMTX__CHUNK_KEY_BYTES];
    MDB_val key = chunk_key(name, chunk, layer, kv_head), value;
    int code = mdb_get(txn, environment->databases[kind == MEMTX__KEYS ? DB_KEYS : DB_VALUES], &key, &value);
    if (code) {
        return memtx__fail(MEMTX_E_CORRUPT, "%s: chunk %llu of layer %u, kv head %u: %s", environment->path,
                           (unsigned long long)chunk, layer, kv_head,
                           code == MDB_NOTFOUND ? "is missing" : mdb_strerror(code));
    }
    *bytes = value.mv_data;
    *n_bytes = value.mv_size;
    return MEMTX_OK;
}

/* The last chunk goes on being appended to, so it is copied into the tail. */
static int load_last_chunk(memtx_store *store, MDB_txn *txn)
{
    const uint64_t chunk = store->state.n_rows / store->chunk_rows;
    const uint32_t n_rows = (uint32_t)(store->state.n_rows % store->chunk_rows);
    unsigned char name[8];
    MDB_val key = number_key(name, chunk), value;
    int status = memtx__tail_reach(&store->tail, chunk);
    for (uint32_t layer = 0; layer < store->spec.n_layers && !status; layer++) {
        for (uint32_t head = 0; head < store->spec.n_kv_heads && store->first_pair[layer] >= 0 && !status; head++) {
            for (int kind = MEMTX__KEYS; kind <= MEMTX__VALUES && !status; kind++) {
                const unsigned char *bytes = NULL, *rows = NULL;
                size_t n_bytes = 0;
                struct memtx__chunk_facts facts = {
                    (enum memtx__chunk_kind)kind, chunk * store->chunk_rows, n_rows, store->row_bytes, layer, head};
                status = get_chunk(&bytes, &n_bytes, store->environment, txn, facts.kind, chunk, layer, head);
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
    int code = mdb_get(txn, store->environment->databases[DB_TOKENS], &key, &value);
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
    int status = translate(mdb_txn_begin(environment->env, NULL, MDB_RDONLY, &txn), environment->path, "read");
    if (status) {
        return status;
    }
    MDB_val key = text_key("state"), value;
    status = translate(mdb_get(txn, environment->databases[DB_META], &key, &value), environment->path,
                       "read the state record");
    if (!status) {
        status = memtx__state_decode(&store->state, value.mv_data, value.mv_size);
    }
    if (!status) {
        status = walk(store, txn, DB_DOCS, take_document);
    }
    if (!status) {
        status = walk(store, txn, DB_EXTENTS, take_extent);
    }
    if (!status) {
        store->tail.first_chunk = store->state.n_rows / store->chunk_rows;
        status = store->state.n_rows % store->chunk_rows ? load_last_chunk(store, txn) : MEMTX_OK;
    }
    mdb_txn_abort(txn);
    return status;
}

/* ---- writing
 * --------------------------------------------------------------------------------------------------------------- */

static int put_chunk(memtx_store *store, MDB_txn *txn, const struct memtx__chunk_facts *facts, uint64_t chunk)
{
    const struct memtx__environment *environment = store->environment;
    unsigned char name[MEMTX__CHUNK_KEY_BYTES];
    MDB_val key = chunk_key(name, chunk, facts->layer, facts->kv_head);
    MDB_val value = {memtx__chunk_bytes(facts->n_rows, facts->row_bytes), NULL};
    size_t pair = (size_t)store->first_pair[facts->layer] + facts->kv_head;
    const unsigned char *rows = memtx__tail_rows(&store->tail, facts->kind, pair, chunk);
    size_t used_bytes = (size_t)facts->n_rows * facts->row_bytes;
    int code = mdb_put(txn, environment->databases[facts->kind == MEMTX__KEYS ? DB_KEYS : DB_VALUES], &key, &value,
                       MDB_RESERVE);
    if (!code) {
        unsigned char *bytes = value.mv_data;
        memtx__chunk_encode(bytes, facts, rows);
        memcpy(bytes + MEMTX__CHUNK_HEADER_BYTES, rows, used_bytes);
        memset(bytes + MEMTX__CHUNK_HEADER_BYTES + used_bytes, 0,
               value.mv_size - MEMTX__CHUNK_HEADER_BYTES - used_bytes);
    }
    return code;
}

static int put_tokens(memtx_store *store, MDB_txn *txn, uint64_t chunk, uint32_t n_rows)
{
    unsigned char name[8];
    MDB_val key = number_key(name, chunk), value = {4 * (size_t)n_rows + 4, NULL};
    const unsigned char *tokens = memtx__tail_tokens(&store->tail, chunk);
    int code = mdb_put(txn, store->environment->databases[DB_TOKENS], &key, &value, MDB_RESERVE);
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
         chunk * store->chunk_rows < store->state.n_rows && !code; chunk++) {
        uint64_t first = chunk * store->chunk_rows, n_left = store->state.n_rows - first;
        uint32_t n_rows = n_left < store->chunk_rows ? (uint32_t)n_left : store->chunk_rows;
        for (uint32_t layer = 0; layer < store->spec.n_layers && !code; layer++) {
            for (uint32_t head = 0; head < store->spec.n_kv_heads && store->first_pair[layer] >= 0 && !code; head++) {
                for (int kind = MEMTX__KEYS; kind <= MEMTX__VALUES && !code; kind++) {
                    struct memtx__chunk_facts facts = {
                        (enum memtx__chunk_kind)kind, first, n_rows, store->row_bytes, layer, head};
                    code = put_chunk(store, txn, &facts, chunk);
                }
            }
        }
        if (!code) {
            code = put_tokens(store, txn, chunk, n_rows);
        }
    }
    return code;
}

static int put_records(memtx_store *store, MDB_txn *txn)
{
    const struct memtx__environment *environment = store->environment;
    unsigned char name[8], record[MEMTX__DOCUMENT_BYTES];
    int code = MDB_SUCCESS;
    for (size_t i = 0; i < store->n_documents && !code; i++) {
        if (store->documents_dirty[i]) {
            MDB_val key = number_key(name, store->documents[i].id), value = {MEMTX__DOCUMENT_BYTES, record};
            memtx__document_encode(record, &store->documents[i]);
            code = mdb_put(txn, environment->databases[DB_DOCS], &key, &value, 0);
        }
    }
    for (size_t i = store->first_dirty_extent; i < store->n_extents && !code; i++) {
        MDB_val key = number_key(name, store->extents[i].first_row), value = {MEMTX__EXTENT_BYTES, record};
        memtx__extent_encode(record, &store->extents[i]);
        code = mdb_put(txn, environment->databases[DB_EXTENTS], &key, &value, 0);
    }
    if (!code) {
        MDB_val key = text_key("state"), value = {MEMTX__STATE_BYTES, record};
        memtx__state_encode(record, &store->state);
        code = mdb_put(txn, environment->databases[DB_META], &key, &value, 0);
    }
    return code;
}

/* Removes chunks that are older than every visible row. */
static int delete_chunks(memtx_store *store, MDB_txn *txn)
{
    static const enum database databases[] = {DB_TOKENS, DB_KEYS, DB_VALUES};
    const struct memtx__environment *environment = store->environment;
    const uint64_t first_kept = store->state.first_row / store->chunk_rows;
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
    const char *path = store->environment->path;
    int code = mdb_txn_begin(store->environment->env, NULL, 0, &txn);
    if (code) {
        return translate(code, path, "begin a transaction");
    }
    store->state.n_commits++;
    code = put_chunks(store, txn);
    if (!code) {
        code = put_records(store, txn);
    }
    if (!code) {
        code = delete_chunks(store, txn);
    }
    if (code) {
        mdb_txn_abort(txn);
    } else {
        code = mdb_txn_commit(txn);
    }
    if (code) {
        store->state.n_commits--;
    }
    return translate(code, path, "write");
}

/* ---- snapshots
 * --------------------------------------------------------------------------------------------------------------- */

struct memtx__snapshot {
    struct memtx__environment *environment;
    MDB_txn *txn;
};

int memtx__snapshot_open(struct memtx__snapshot **out, struct memtx__environment *environment)
{
    struct memtx__snapshot *snapshot;
    *out = NULL;
    int status = memtx__alloc(&snapshot, 1, sizeof *snapshot);
    if (status) {
        return status;
    }
    snapshot->environment = environment;
    status = translate(mdb_txn_begin(environment->env, NULL, MDB_RDONLY, &snapshot->txn), environment->path, "read");
    if (status) {
        memtx__free(snapshot);
        return status;
    }
    mdb_txn_reset(snapshot->txn);
    *out = snapshot;
    return MEMTX_OK;
}

void memtx__snapshot_close(struct memtx__snapshot *snapshot)
{
    if (snapshot) {
        mdb_txn_abort(snapshot->txn);
        memtx__free(snapshot);
    }
}

int memtx__snapshot_renew(struct memtx__snapshot *snapshot)
{
    return translate(mdb_txn_renew(snapshot->txn), snapshot->environment->path, "read");
}

void memtx__snapshot_reset(struct memtx__snapshot *snapshot)
{
    mdb_txn_reset(snapshot->txn);
}

int memtx__snapshot_chunk(const unsigned char **bytes, size_t *n_bytes, struct memtx__snapshot *snapshot,
                          enum memtx__chunk_kind kind, uint64_t chunk, uint32_t layer, uint32_t kv_head)
{
    return get_chunk(bytes, n_bytes, snapshot->environment, snapshot->txn, kind, chunk, layer, kv_head);
}
