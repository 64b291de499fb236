/* LMDB under the store (store.h): opening, what the store is for. load.c reads and write.c writes the rest.
 *
 * Every write is one synced transaction: never MDB_NOSYNC or MDB_NOMETASYNC, with which a crash can corrupt the file,
 * and never MDB_WRITEMAP, with which a full disk is a signal. The map is reserved large (address space, not disk), so
 * that it need never grow under a reader. Chunks go to keys that ascend with time, so LMDB's pages fill up.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/crc32c.h"
#include "base/file.h"
#include "base/status.h"
#include "math/rows.h"
#include "math/shapes.h"
#include "store/pages.h"
#include "store/tables.h"

static const size_t largest_map_bytes = (size_t)1 << 40;
static const size_t smallest_map_bytes = (size_t)1 << 30;
static const off_t lock_file_bytes = 8192; /* LMDB's header and its 126 readers */

const char *const memtx__database_names[MEMTX__N_DATABASES] = {"meta", "docs",   "extents", "tokens",
                                                               "keys", "values", "running", "runs"};

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
    case MDB_BAD_TXN:
        status = MEMTX_E_CORRUPT;
        break;
    case MDB_PANIC: /* a meta page could not be written: what is on disk is good, and this process writes no more */
        status = MEMTX_E_IO;
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

int memtx__lmdb_begin(MDB_txn **out, struct memtx__environment *environment)
{
    int n_dead;
    *out = NULL;
    int status = memtx__environment_check_pages(environment);
    if (status) {
        return status;
    }
    (void)mdb_reader_check(environment->env, &n_dead); /* a reader that was killed would hold its pages for ever */
    return memtx__lmdb_status(mdb_txn_begin(environment->env, NULL, 0, out), environment->path, "begin a transaction");
}

/* LMDB says EIO of a write that came back short, which is how a disk answers that has just become full: ENOSPC instead,
 * where next to nothing is free. */
static int commit(MDB_txn *txn, const struct memtx__environment *environment)
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

int memtx__lmdb_end(MDB_txn *txn, const struct memtx__environment *environment, int code, const char *what)
{
    if (code) {
        mdb_txn_abort(txn);
    } else {
        code = commit(txn, environment);
    }
    return memtx__lmdb_status(code, environment->path, what);
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

/* LMDB makes lock.mdb without its blocks and maps it: on a full disk the first write to it would be a signal. And it
 * would follow a link that another user has put there since the files were looked at. So it is made, and looked at,
 * before. This process has no other descriptor of it, whose locks the close would end. What else goes wrong LMDB will
 * say. */
static int reserve_lock_file(const char *path, const char *shown, bool read_only)
{
    char file[4096];
    struct stat facts, folder;
    int status = MEMTX_OK;
    int n = snprintf(file, sizeof file, "%s/lock.mdb", path);
    int fd = n > 0 && (size_t)n < sizeof file ? open(file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
    if (fd < 0) {
        return errno == ELOOP ? memtx__fail(MEMTX_E_FORMAT, "%s/lock.mdb: is a symbolic link", shown) : MEMTX_OK;
    }
    if (!fstat(fd, &facts) && !stat(path, &folder)) {
        status = memtx__directory_check_facts(shown, "lock.mdb", &facts, folder.st_uid);
        if (!status && (!read_only || facts.st_size < lock_file_bytes) &&
            memtx__errno_status(posix_fallocate(fd, 0, lock_file_bytes)) == MEMTX_E_NO_SPACE) {
            status = memtx__fail(MEMTX_E_NO_SPACE, "%s: cannot make lock.mdb: %s", shown, strerror(ENOSPC));
        }
    }
    close(fd);
    return status;
}

static int open_env(struct memtx__environment *environment, const char *path, bool read_only)
{
    int code = MDB_SUCCESS;
    int status = reserve_lock_file(path, environment->path, read_only);
    if (status) {
        return status;
    }
    for (size_t bytes = largest_map_bytes; bytes >= smallest_map_bytes; bytes /= 2) {
        code = mdb_env_create(&environment->env);
        if (!code) {
            code = mdb_env_set_maxdbs(environment->env, MEMTX__N_DATABASES);
        }
        if (!code) {
            code = mdb_env_set_mapsize(environment->env, bytes);
        }
        if (!code) {
            code = mdb_env_open(environment->env, path, MDB_NOTLS | (read_only ? MDB_RDONLY : 0), 0600);
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

/* A writer that dies between its meta page and the number in lock.mdb that tells of it leaves that number one behind while
 * others have the store open. LMDB sets it right when the next transaction that writes begins: before that we would load
 * the state before, and then go on from it over the newer one. Where a number was written in its place (roll_forward)
 * LMDB does not; that waits until the others are gone. */
static int settle(struct memtx__environment *environment)
{
    MDB_txn *txn;
    MDB_envinfo facts = {0};
    uint64_t next = 0;
    int code = mdb_txn_begin(environment->env, NULL, 0, &txn);
    if (!code) {
        next = mdb_txn_id(txn);
        mdb_txn_abort(txn);
        code = mdb_env_info(environment->env, &facts);
    }
    if (!code && next != facts.me_last_txnid + 1) {
        return memtx__fail(MEMTX_E_BUSY,
                           "%s: its last commit ended in an error of the disk; other processes still read "
                           "the one before (end them, then open it again)",
                           environment->path);
    }
    return memtx__lmdb_status(code, environment->path, "begin a transaction");
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
        if (code == MDB_NOTFOUND && i >= MEMTX__N_DATABASES_V1) {
            code = MDB_SUCCESS; /* version 1; what a newer one lacks is missed when it is looked for */
        }
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

/* A temporary store's files lose their names at once: however the process ends, the space comes back. */
static int open_temporary(struct memtx__environment *environment, const char *parent)
{
    int status = make_temporary(&environment->path, parent);
    if (!status) {
        status = open_env(environment, environment->path, false);
        unlink_database(environment->path);
        (void)rmdir(environment->path);
    }
    environment->pages_are_checked = true; /* they will be this process's own */
    return status;
}

/* Again when a writer of another process has gone on meanwhile. */
static int check_pages(const struct memtx__environment *environment, enum memtx__pages_extent extent)
{
    enum { MOST_TRIES = 16 };
    int status = MEMTX_E_BUSY;
    for (int i = 0; i < MOST_TRIES && status == MEMTX_E_BUSY; i++) {
        status = memtx__pages_check(NULL, environment->pages_fd, environment->path, extent, 0);
    }
    return status;
}

/* The newest commit, where only the writing of its number failed. */
static int roll_forward(const struct memtx__environment *environment, const char *file)
{
    int fd = open(file, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return memtx__fail(memtx__errno_status(errno), "%s: cannot open the database to write: %s", environment->path,
                           strerror(errno));
    }
    int status = memtx__pages_roll_forward(fd, environment->path);
    close(fd);
    return status;
}

/* LMDB trusts its pages: those that opening looks at are checked before, the others when they are first used. */
static int check_before(struct memtx__environment *environment, const char *path, bool read_only)
{
    char file[4096];
    int n = snprintf(file, sizeof file, "%s/data.mdb", path);
    if (n < 0 || (size_t)n >= sizeof file) {
        return memtx__fail(MEMTX_E_INVALID, "%s: the path is too long", environment->path);
    }
    environment->pages_fd = open(file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (environment->pages_fd < 0) {
        environment->pages_are_checked = errno == ENOENT;
        return errno == ENOENT ? MEMTX_OK
                               : memtx__fail(memtx__errno_status(errno), "%s: cannot open the database: %s",
                                             environment->path, strerror(errno));
    }
    int status = check_pages(environment, MEMTX__PAGES_SMALL);
    if (status == MEMTX_E_CORRUPT && !read_only) {
        status = roll_forward(environment, file);
        if (!status) {
            status = check_pages(environment, MEMTX__PAGES_SMALL);
        }
    }
    return status;
}

static int open_in(struct memtx__environment *environment, const char *path, const char *shown, bool read_only)
{
    int status = memtx__copy_text(&environment->path, shown);
    if (!status) {
        status = check_before(environment, path, read_only);
    }
    if (status) {
        return status;
    }
    status = open_env(environment, path, read_only);
    if (status && environment->pages_are_checked && !read_only) {
        unlink_database(path); /* one that could not be begun (a full disk) is not left half made */
    }
    return status;
}

int memtx__environment_open(struct memtx__environment **out, bool *is_new, const char *path, const char *shown,
                            const struct memtx_store_options *options)
{
    struct memtx__environment *environment;
    *out = NULL;
    /* LMDB takes each page that a transaction writes from malloc, and frees it when that ends. */
    int status = options->read_only ? MEMTX_OK : memtx__alloc_expect(options->group_bytes);
    if (!status) {
        status = memtx__alloc(&environment, 1, sizeof *environment);
    }
    if (status) {
        return status;
    }
    (void)pthread_mutex_init(&environment->pages_mutex, NULL);
    environment->pages_fd = -1;
    status =
        options->temporary ? open_temporary(environment, path) : open_in(environment, path, shown, options->read_only);
    if (!status && !options->read_only) {
        status = settle(environment);
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

int memtx__environment_check_pages(struct memtx__environment *environment)
{
    int status = MEMTX_OK;
    (void)pthread_mutex_lock(&environment->pages_mutex);
    if (!environment->pages_are_checked) {
        status = check_pages(environment, MEMTX__PAGES_ALL);
        environment->pages_are_checked = !status;
    }
    (void)pthread_mutex_unlock(&environment->pages_mutex);
    return status;
}

void memtx__environment_close(struct memtx__environment *environment)
{
    if (environment) {
        if (environment->env) {
            mdb_env_close(environment->env);
        }
        if (environment->pages_fd >= 0) {
            close(environment->pages_fd);
        }
        (void)pthread_mutex_destroy(&environment->pages_mutex);
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

int memtx_store_free_bytes(uint64_t *out, memtx_store *store)
{
    struct memtx__environment *environment = store->environment;
    struct memtx__snapshot *snapshot = NULL;
    MDB_cursor *cursor = NULL;
    MDB_val key, value;
    *out = 0;
    int status = memtx__store_check_process(store);
    if (status || !environment) {
        return status;
    }
    status = memtx__snapshot_open(&snapshot, environment);
    if (!status) {
        status = memtx__snapshot_renew(snapshot);
    }
    if (!status) {
        int code = mdb_cursor_open(snapshot->txn, 0, &cursor); /* table 0: each record a count and so many pages */
        while (!code && (code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == MDB_SUCCESS) {
            *out += memtx__get_u64(value.mv_data) * MEMTX__PAGE_BYTES;
        }
        status = code == MDB_NOTFOUND ? MEMTX_OK : memtx__lmdb_status(code, environment->path, "read the free pages");
    }
    if (cursor) {
        mdb_cursor_close(cursor);
    }
    memtx__snapshot_close(snapshot);
    return status;
}

/* ---- records ---------------------------------------------------------------------------------- */

int memtx__lmdb_put_run(const struct memtx__environment *environment, MDB_txn *txn, const struct memtx__run *run)
{
    unsigned char name[8], record[MEMTX__RUN_BYTES];
    MDB_val key = memtx__number_key(name, run->first_row), value = {sizeof record, record};
    memtx__run_encode(record, run);
    return mdb_put(txn, environment->databases[MEMTX__DB_RUNS], &key, &value, 0);
}

int memtx__lmdb_put_spec(const struct memtx__environment *environment, MDB_txn *txn,
                         const struct memtx_store_spec *spec, uint32_t chunk_rows)
{
    unsigned char record[MEMTX__MOST_SPEC_BYTES];
    MDB_val key = memtx__text_key("spec"), value = {memtx__spec_encode(record, spec, chunk_rows), record};
    return mdb_put(txn, environment->databases[MEMTX__DB_META], &key, &value, 0);
}

int memtx__lmdb_put_state(struct memtx__environment *environment, MDB_txn *txn, struct memtx__state *state)
{
    unsigned char record[MEMTX__STATE_BYTES];
    MDB_val key = memtx__text_key("state"), value = {sizeof record, record};
    state->transaction = mdb_txn_id(txn);
    memtx__state_encode(record, state);
    return mdb_put(txn, environment->databases[MEMTX__DB_META], &key, &value, 0);
}

int memtx__lmdb_put_document(const struct memtx__environment *environment, MDB_txn *txn,
                             const struct memtx_document *document)
{
    unsigned char name[8], record[MEMTX__DOCUMENT_BYTES];
    MDB_val key = memtx__number_key(name, document->id), value = {sizeof record, record};
    memtx__document_encode(record, document);
    return mdb_put(txn, environment->databases[MEMTX__DB_DOCS], &key, &value, 0);
}

int memtx__lmdb_put_extent(const struct memtx__environment *environment, MDB_txn *txn,
                           const struct memtx__extent *extent)
{
    unsigned char name[8], record[MEMTX__EXTENT_BYTES];
    MDB_val key = memtx__number_key(name, extent->first_row), value = {sizeof record, record};
    memtx__extent_encode(record, extent);
    return mdb_put(txn, environment->databases[MEMTX__DB_EXTENTS], &key, &value, 0);
}

int memtx__environment_create(struct memtx__environment *environment, const struct memtx_store_spec *spec,
                              uint32_t chunk_rows)
{
    float factors[MEMTX__MAX_HEAD_SIZE / 2];
    struct memtx__state state = {0};
    MDB_txn *txn;
    int status = memtx__lmdb_begin(&txn, environment), code = MDB_SUCCESS;
    if (status) {
        return status;
    }
    for (int i = 0; i < MEMTX__N_DATABASES && !code; i++) {
        code = mdb_dbi_open(txn, memtx__database_names[i], MDB_CREATE, &environment->databases[i]);
    }
    if (!code) {
        code = memtx__lmdb_put_spec(environment, txn, spec, chunk_rows);
    }
    if (!code) {
        code = memtx__lmdb_put_state(environment, txn, &state);
    }
    if (!code && spec->rope_factors) {
        MDB_val key = memtx__text_key("rope"), value = {spec->rope_dims / 2 * sizeof *factors, factors};
        memtx__rows_write((unsigned char *)factors, MEMTX_ROWS_F32, spec->rope_factors, spec->rope_dims / 2);
        code = mdb_put(txn, environment->databases[MEMTX__DB_META], &key, &value, 0);
    }
    return memtx__lmdb_end(txn, environment, code, "write what the store is for");
}
