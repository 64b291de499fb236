/* Compaction (memtx/store.h): a copy of what a store holds into a new directory, table by table in the order of the
 * keys, so that LMDB's pages are full and none is free. Chunks without a visible row stay behind; everything is checked
 * on the way. The copy grows under a temporary name and gets its own when it is whole.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/crc32c.h"
#include "base/file.h"
#include "base/status.h"
#include "store/progress.h"
#include "store/tables.h"

enum { RECORDS_OF_TRANSACTION = 512 }; /* 32 MiB of chunks */

struct copying {
    memtx_store *store;
    struct memtx__snapshot *from;
    struct memtx__environment *to;
    struct memtx__catalogue catalogue;
    MDB_txn *txn; /* of the copy; NULL between two */
    size_t n_in_transaction;
    struct memtx__progress progress;
};

/* Every transaction carries the whole state: the copy is none until it has its name. */
static int end_transaction(struct copying *c)
{
    if (!c->txn) {
        return MEMTX_OK;
    }
    struct memtx__state state = c->catalogue.state;
    MDB_txn *txn = c->txn;
    int code = memtx__lmdb_put_state(c->to, txn, &state);
    c->txn = NULL;
    c->n_in_transaction = 0;
    return memtx__lmdb_end(txn, c->to, code, "write the copy");
}

static int put(struct copying *c, enum memtx__database database, MDB_val *key, MDB_val *value)
{
    int status = c->txn ? MEMTX_OK : memtx__lmdb_begin(&c->txn, c->to);
    if (!status) {
        status = memtx__lmdb_status(mdb_put(c->txn, c->to->databases[database], key, value, MDB_APPEND), c->to->path,
                                    "write the copy");
    }
    if (!status && ++c->n_in_transaction == RECORDS_OF_TRANSACTION) {
        status = end_transaction(c);
    }
    const size_t n_uncounted =
        database == MEMTX__DB_RUNNING && value->mv_size > MEMTX__PIECE_HEADER_BYTES ? MEMTX__PIECE_HEADER_BYTES : 0;
    return status ? status : memtx__progress_add(&c->progress, value->mv_size - n_uncounted);
}

/* A chunk of keys or values, checked; its rows may be more than are visible. */
static int check_chunk(const struct copying *c, enum memtx__database database, const MDB_val *key, const MDB_val *value)
{
    const unsigned char *name = key->mv_data, *rows;
    const memtx_store *store = c->store;
    struct memtx__chunk_facts facts = {.kind = database == MEMTX__DB_KEYS ? MEMTX__KEYS : MEMTX__VALUES,
                                       .row_bytes = store->row_bytes};
    if (key->mv_size != MEMTX__CHUNK_KEY_BYTES) {
        return memtx__fail(MEMTX_E_CORRUPT, "a chunk's key of %zu bytes", key->mv_size);
    }
    facts.first_row = memtx__get_be(name, 8) * store->chunk_rows;
    facts.layer = (uint32_t)memtx__get_be(name + 8, 2);
    facts.kv_head = (uint32_t)memtx__get_be(name + 10, 2);
    if (!memtx_store_keeps(&store->spec, facts.layer, facts.kv_head)) {
        return memtx__fail(MEMTX_E_CORRUPT, "a chunk of layer %u, kv head %u, which the store does not keep",
                           facts.layer, facts.kv_head);
    }
    return memtx__chunk_decode(&rows, value->mv_data, value->mv_size, &facts, true);
}

/* Token ids, and pieces of running states: each under the number that it carries, of a document that has one. */
static int check_other(const struct copying *c, enum memtx__database database, const MDB_val *key, const MDB_val *value)
{
    const unsigned char *name = key->mv_data, *bytes = value->mv_data, *data;
    const size_t n_bytes = value->mv_size;
    if (database == MEMTX__DB_TOKENS) {
        return n_bytes >= 4 && memtx__crc32c(0, bytes, n_bytes - 4) == memtx__get_u32(bytes + n_bytes - 4)
                   ? MEMTX_OK
                   : memtx__fail(MEMTX_E_CORRUPT, "the token ids of chunk %llu are damaged",
                                 (unsigned long long)memtx__get_be(name, 8));
    }
    const size_t place = key->mv_size == MEMTX__PIECE_KEY_BYTES
                             ? memtx__catalogue_document(&c->catalogue, memtx__get_be(name, 8))
                             : MEMTX__NOWHERE;
    if (place == MEMTX__NOWHERE || n_bytes < MEMTX__PIECE_HEADER_BYTES) {
        return memtx__fail(MEMTX_E_CORRUPT, "a piece of a running state, of %zu bytes, belongs to no document",
                           n_bytes);
    }
    return memtx__piece_decode(&data, (uint32_t)memtx__get_be(name + 8, 4),
                               c->catalogue.documents[place].facts.state_row, n_bytes - MEMTX__PIECE_HEADER_BYTES,
                               bytes, n_bytes);
}

static int copy_record(struct copying *c, enum memtx__database database, MDB_val *key, MDB_val *value)
{
    const bool is_chunk = database == MEMTX__DB_KEYS || database == MEMTX__DB_VALUES;
    if (is_chunk || database == MEMTX__DB_TOKENS) {
        if (key->mv_size < 8) {
            return memtx__fail(MEMTX_E_CORRUPT, "a key of %zu bytes", key->mv_size);
        }
        if (!memtx__catalogue_sees(&c->catalogue, memtx__get_be(key->mv_data, 8), c->store->chunk_rows)) {
            return MEMTX_OK;
        }
    }
    int status = is_chunk ? check_chunk(c, database, key, value) : check_other(c, database, key, value);
    return status ? status : put(c, database, key, value);
}

static int copy_table(struct copying *c, enum memtx__database database)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    int status = MEMTX_OK;
    int code = mdb_cursor_open(c->from->txn, c->from->environment->databases[database], &cursor);
    if (code) {
        return memtx__lmdb_status(code, c->from->environment->path, "read");
    }
    while (!status && (code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == MDB_SUCCESS) {
        status = copy_record(c, database, &key, &value);
    }
    mdb_cursor_close(cursor);
    return status || code == MDB_NOTFOUND ? status : memtx__lmdb_status(code, c->from->environment->path, "read");
}

/* Documents and extents in the newest format; the rest record by record. */
static int copy_tables(struct copying *c)
{
    static const enum memtx__database databases[] = {MEMTX__DB_TOKENS, MEMTX__DB_KEYS, MEMTX__DB_VALUES,
                                                     MEMTX__DB_RUNNING};
    const size_t n = c->store->version >= 2 ? 4 : 3;
    int status = memtx__lmdb_begin(&c->txn, c->to);
    int code = MDB_SUCCESS;
    for (size_t i = 0; i < c->catalogue.n_documents && !code && !status; i++) {
        code = memtx__lmdb_put_document(c->to, c->txn, &c->catalogue.documents[i].facts);
    }
    for (size_t i = 0; i < c->catalogue.n_extents && !code && !status; i++) {
        code = memtx__lmdb_put_extent(c->to, c->txn, &c->catalogue.extents[i]);
    }
    status = status ? status : memtx__lmdb_status(code, c->to->path, "write the copy");
    for (size_t i = 0; i < n && !status; i++) {
        status = copy_table(c, databases[i]);
    }
    return status ? status : end_transaction(c);
}

static int copy_into(struct copying *c, const char *temporary, const char *shown)
{
    const struct memtx_store_options options = memtx_store_options_default();
    bool is_new;
    int status = memtx__environment_open(&c->to, &is_new, temporary, shown, &options);
    if (!status) {
        status = memtx__environment_create(c->to, &c->store->spec, c->store->chunk_rows);
    }
    if (!status) {
        status = copy_tables(c);
    }
    if (c->txn) {
        mdb_txn_abort(c->txn);
    }
    memtx__environment_close(c->to);
    return status;
}

/* ---- the new directory ------------------------------------------------------------------------ */

static void remove_files(const char *path)
{
    static const char *const files[] = {"data.mdb", "lock.mdb"};
    char file[4096];
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        if (snprintf(file, sizeof file, "%s/%s", path, files[i]) < (int)sizeof file) {
            (void)unlink(file);
        }
    }
}

static int make_temporary(char **out, const char *new_path)
{
    struct stat facts;
    size_t size = strlen(new_path) + sizeof ".XXXXXX", n = strlen(new_path);
    if (lstat(new_path, &facts) == 0) {
        return memtx__fail(MEMTX_E_EXISTS, "%s: exists already (name a new directory for the copy)", new_path);
    }
    int status = memtx__alloc(out, size, 1);
    if (status) {
        return status;
    }
    while (n > 1 && new_path[n - 1] == '/') {
        n--;
    }
    (void)snprintf(*out, size, "%.*s.XXXXXX", (int)n, new_path);
    return mkdtemp(*out) ? MEMTX_OK
                         : memtx__fail(memtx__errno_status(errno), "%s: cannot make a directory beside it: %s",
                                       new_path, strerror(errno));
}

static int name_copy(const char *temporary, const char *new_path)
{
    if (rename(temporary, new_path)) {
        return memtx__fail(memtx__errno_status(errno), "%s: cannot give the copy its name: %s", new_path,
                           strerror(errno));
    }
    return memtx__sync_directory(new_path);
}

/* Fills the directory and gives it its name, or takes it away. It is held meanwhile, so that nobody who may write
 * beside it can have the copy written, or removed, where a link leads. */
static int fill_directory(struct copying *c, const char *temporary, const char *new_path)
{
    char pinned[32];
    struct stat facts = {0};
    int fd = open(temporary, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &facts) || facts.st_uid != geteuid()) {
        if (fd >= 0) {
            close(fd);
        }
        return memtx__fail(MEMTX_E_IO, "%s: somebody took the copy's directory away", new_path);
    }
    (void)snprintf(pinned, sizeof pinned, "/proc/self/fd/%d", fd);
    const char *place = access(pinned, F_OK) == 0 ? pinned : temporary; /* no /proc: as well as can be */
    int status = copy_into(c, place, new_path);
    status = status ? status : name_copy(temporary, new_path);
    if (status) {
        remove_files(place);
        (void)rmdir(temporary);
    }
    close(fd);
    return status;
}

int memtx_store_compact(memtx_store *store, const char *new_path, const struct memtx_store_upkeep_options *options)
{
    struct copying c = {.store = store};
    char *temporary = NULL;
    if (!store->environment) {
        return memtx__fail(MEMTX_E_INVALID, "a store on the heap cannot be compacted");
    }
    int status = memtx__store_check_process(store);
    if (!status && !store->options.read_only) {
        status = memtx__store_flush(store);
    }
    if (!status) {
        status = memtx__snapshot_open(&c.from, store->environment);
    }
    if (!status) {
        status = memtx__snapshot_renew(c.from);
    }
    if (!status) {
        status = memtx__snapshot_catalogue(&c.catalogue, c.from, store->version);
    }
    if (!status) {
        memtx__progress_begin(&c.progress, options, store, &c.catalogue);
        status = make_temporary(&temporary, new_path);
    }
    if (!status) {
        status = fill_directory(&c, temporary, new_path);
    }
    memtx__free(temporary);
    memtx__catalogue_release(&c.catalogue);
    memtx__snapshot_close(c.from);
    return status;
}
