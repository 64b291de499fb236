/* LMDB under the store (store.h): opening, what the store is for, snapshots. load.c reads and write.c writes the rest.
 *
 * Every write is one synced transaction: never MDB_NOSYNC or MDB_NOMETASYNC, with which a crash can corrupt the file,
 * and never MDB_WRITEMAP, with which a full disk is a signal. The map is reserved large (address space, not disk), so
 * that it need never grow under a reader. Chunks go to keys that ascend with time, so LMDB's pages fill up.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/status.h"
#include "math/rows.h"
#include "math/shapes.h"
#include "store/tables.h"

static const size_t largest_map_bytes = (size_t)1 << 40;
static const size_t smallest_map_bytes = (size_t)1 << 30;

const char *const memtx__database_names[MEMTX__N_DATABASES] = {"meta", "docs", "extents", "tokens", "keys", "values"};

int memtx__lmdb_status(int code, const char *path, const char *what)
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

int memtx__lmdb_commit(MDB_txn *txn, const struct memtx__environment *environment)
{
    const unsigned long nearly_full_bytes = 1UL << 20;
    mdb_filehandle_t fd;
    struct statvfs facts;
    int code = mdb_txn_commit(txn);
    if (code == EIO && !mdb_env_get_fd(environment->env, &fd) && !fstatvfs(fd, &facts) &&
        facts.f_bavail < nearly_full_bytes / facts.f_frsize) {
        code = ENOSPC;
    }
    return code;
}

int memtx__lmdb_chunk(const unsigned char **bytes, size_t *n_bytes, const struct memtx__environment *environment,
                      MDB_txn *txn, enum memtx__chunk_kind kind, uint64_t chunk, uint32_t layer, uint32_t kv_head)
{
    unsigned char name[MEMTX__CHUNK_KEY_BYTES];
    MDB_val key = memtx__chunk_key(name, chunk, layer, kv_head), value;
    int code =
        mdb_get(txn, environment->databases[kind == MEMTX__KEYS ? MEMTX__DB_KEYS : MEMTX__DB_VALUES], &key, &value);
    if (code) {
        return memtx__fail(MEMTX_E_CORRUPT, "%s: chunk %llu of layer %u, kv head %u: %s", environment->path,
                           (unsigned long long)chunk, layer, kv_head,
                           code == MDB_NOTFOUND ? "is missing" : mdb_strerror(code));
    }
    *bytes = value.mv_data;
    *n_bytes = value.mv_size;
    return MEMTX_OK;
}

void memtx__environment_version(char *out, size_t size)
{
    int major, minor, patch;
    (void)mdb_version(&major, &minor, &patch);
    (void)snprintf(out, size, "%d.%d.%d", major, minor, patch);
}

/* ---- opening ---------------------------------------------------------------------------------- */

static bool has_file(const char *directory, const char *name)
{
    char file[4096];
    struct stat facts;
    int n = snprintf(file, sizeof file, "%s/%s", directory, name);
    return n > 0 && (size_t)n < sizeof file && lstat(file, &facts) == 0;
}

bool memtx__environment_exists(const char *path)
{
    return has_file(path, "data.mdb");
}

/* A directory that is no store may become one when it is empty. It stays the directory it is, with its owner and mode:
 * the files in it are 0600 anyhow. */
static int check_empty(const char *path)
{
    DIR *directory = opendir(path);
    const struct dirent *entry = NULL;
    if (!directory) {
        return memtx__fail(memtx__errno_status(errno), "%s: cannot look into the directory: %s", path, strerror(errno));
    }
    do {
        entry = readdir(directory);
    } while (entry && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0));
    (void)closedir(directory);
    return entry ? memtx__fail(MEMTX_E_FORMAT, "%s: holds files but no store (name an empty or a new directory)", path)
                 : MEMTX_OK;
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
    if (has_file(path, "data.mdb") || has_file(path, "writer")) {
        return MEMTX_OK;
    }
    return check_empty(path);
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

static void unlink_database(const char *path)
{
    static const char *const files[] = {"data.mdb", "lock.mdb"};
    char file[4096];
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        if (snprintf(file, sizeof file, "%s/%s", path, files[i]) < (int)sizeof file) {
            (void)unlink(file);
        }
    }
}

static int open_env(struct memtx__environment *environment)
{
    int code = MDB_SUCCESS;
    for (size_t bytes = largest_map_bytes; bytes >= smallest_map_bytes; bytes /= 2) {
        code = mdb_env_create(&environment->env);
        if (!code) {
            code = mdb_env_set_maxdbs(environment->env, MEMTX__N_DATABASES);
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
    return memtx__lmdb_status(code, environment->path, "open the database");
}

/* The tables of an existing store. An environment in which nothing was ever written is new; one that holds other tables
 * is somebody else's and is left alone. */
static int open_tables(bool *is_new, struct memtx__environment *environment)
{
    MDB_txn *txn;
    MDB_dbi root;
    MDB_stat facts = {0};
    int n_dead;
    (void)mdb_reader_check(environment->env, &n_dead);
    int code = mdb_txn_begin(environment->env, NULL, MDB_RDONLY, &txn);
    if (code) {
        return memtx__lmdb_status(code, environment->path, "read");
    }
    code = mdb_dbi_open(txn, NULL, 0, &root);
    if (!code) {
        code = mdb_stat(txn, root, &facts);
    }
    *is_new = !code && facts.ms_entries == 0;
    for (int i = 0; i < MEMTX__N_DATABASES && !code && !*is_new; i++) {
        code = mdb_dbi_open(txn, memtx__database_names[i], 0, &environment->databases[i]);
    }
    if (code == MDB_NOTFOUND || code == MDB_INCOMPATIBLE) {
        mdb_txn_abort(txn);
        return memtx__fail(MEMTX_E_FORMAT, "%s: holds an LMDB database that is not a memtx store", environment->path);
    }
    if (code) {
        mdb_txn_abort(txn);
    } else {
        code = mdb_txn_commit(txn); /* which keeps the tables' handles */
    }
    return memtx__lmdb_status(code, environment->path, "open its tables");
}

int memtx__environment_open(struct memtx__environment **out, bool *is_new, const char *path, bool temporary)
{
    struct memtx__environment *environment;
    *out = NULL;
    int status = memtx__alloc(&environment, 1, sizeof *environment);
    if (status) {
        return status;
    }
    status = temporary ? make_temporary(&environment->path, path) : memtx__copy_text(&environment->path, path);
    if (!status) {
        const bool is_there = !temporary && has_file(path, "data.mdb");
        status = open_env(environment);
        /* A temporary store's files lose their names at once: however the process ends, the space comes back. And a
         * database that could not be begun (a full disk) is not left half made. */
        if (temporary || (status && !is_there)) {
            unlink_database(environment->path);
        }
        if (temporary) {
            (void)rmdir(environment->path);
        }
    }
    if (!status) {
        status = open_tables(is_new, environment);
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

/* ---- records ---------------------------------------------------------------------------------- */

int memtx__environment_create(struct memtx__environment *environment, const struct memtx_store_spec *spec,
                              uint32_t chunk_rows)
{
    unsigned char record[MEMTX__SPEC_BYTES], state[MEMTX__STATE_BYTES];
    float factors[MEMTX__MAX_HEAD_SIZE / 2];
    MDB_txn *txn;
    int code = mdb_txn_begin(environment->env, NULL, 0, &txn);
    if (code) {
        return memtx__lmdb_status(code, environment->path, "begin a transaction");
    }
    for (int i = 0; i < MEMTX__N_DATABASES && !code; i++) {
        code = mdb_dbi_open(txn, memtx__database_names[i], MDB_CREATE, &environment->databases[i]);
    }
    MDB_val key = memtx__text_key("spec"), value = {sizeof record, record};
    memtx__spec_encode(record, spec, chunk_rows);
    if (!code) {
        code = mdb_put(txn, environment->databases[MEMTX__DB_META], &key, &value, 0);
    }
    if (!code) {
        key = memtx__text_key("state");
        value = (MDB_val){sizeof state, state};
        memtx__state_encode(state, &(struct memtx__state){0});
        code = mdb_put(txn, environment->databases[MEMTX__DB_META], &key, &value, 0);
    }
    if (!code && spec->rope_factors) {
        key = memtx__text_key("rope");
        value = (MDB_val){spec->rope_dims / 2 * sizeof *factors, factors};
        memtx__rows_write((unsigned char *)factors, MEMTX_ROWS_F32, spec->rope_factors, spec->rope_dims / 2);
        code = mdb_put(txn, environment->databases[MEMTX__DB_META], &key, &value, 0);
    }
    if (code) {
        mdb_txn_abort(txn);
    } else {
        code = memtx__lmdb_commit(txn, environment);
    }
    return memtx__lmdb_status(code, environment->path, "write what the store is for");
}

int memtx__environment_load_spec(struct memtx_store_spec *spec, uint32_t *chunk_rows, float **rope_factors,
                                 struct memtx__environment *environment)
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
        status = memtx__spec_decode(spec, chunk_rows, value.mv_data, value.mv_size);
    }
    key = memtx__text_key("rope");
    if (!status && mdb_get(txn, environment->databases[MEMTX__DB_META], &key, &value) == MDB_SUCCESS) {
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

/* ---- snapshots -------------------------------------------------------------------------------- */

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
    status = memtx__lmdb_status(mdb_txn_begin(environment->env, NULL, MDB_RDONLY, &snapshot->txn), environment->path,
                                "read");
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
    return memtx__lmdb_status(mdb_txn_renew(snapshot->txn), snapshot->environment->path, "read");
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
