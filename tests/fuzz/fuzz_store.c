/* Fuzz target: any bytes as a store's data.mdb. What the checker of LMDB's pages lets through is opened, and all that
 * can be read of it is read: LMDB must not be brought down by a file that passed. */
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/pages.h"
#include "store/store.h"
#include "store/tables.h"

static char folder[64], data_file[96];

static void demand(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void remove_folder(void)
{
    static const char *const names[] = {"data.mdb", "lock.mdb", "writer"};
    char name[128];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        (void)snprintf(name, sizeof name, "%s/%s", folder, names[i]);
        (void)unlink(name);
    }
    (void)rmdir(folder);
}

static void make_folder(void)
{
    (void)snprintf(folder, sizeof folder, "%s/memtx-fuzz-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    demand(mkdtemp(folder));
    (void)snprintf(data_file, sizeof data_file, "%s/data.mdb", folder);
    demand(atexit(remove_folder) == 0);
}

static unsigned sum_bytes(const void *bytes, size_t n_bytes)
{
    unsigned sum = 0;
    for (size_t i = 0; i < n_bytes; i++) {
        sum += ((const unsigned char *)bytes)[i];
    }
    return sum;
}

/* Every key and value of a table, both by walking and by its key. */
static unsigned read_table(MDB_txn *txn, const char *name)
{
    MDB_dbi table;
    MDB_cursor *cursor;
    MDB_val key, value, again;
    unsigned sum = 0;
    if (mdb_dbi_open(txn, name, 0, &table)) {
        return 0;
    }
    demand(mdb_cursor_open(txn, table, &cursor) == 0);
    int code;
    while ((code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == MDB_SUCCESS) {
        sum += sum_bytes(key.mv_data, key.mv_size) + sum_bytes(value.mv_data, value.mv_size);
        demand(mdb_get(txn, table, &key, &again) == 0 && again.mv_data == value.mv_data);
    }
    demand(code == MDB_NOTFOUND);
    mdb_cursor_close(cursor);
    return sum;
}

/* LMDB by itself: it finds its way through what passed, and can write to it. */
static unsigned use_lmdb(void)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi table;
    unsigned sum = 0;
    demand(mdb_env_create(&env) == 0 && mdb_env_set_maxdbs(env, 8) == 0 &&
           mdb_env_set_mapsize(env, (size_t)1 << 30) == 0);
    if (mdb_env_open(env, folder, MDB_NOSYNC | MDB_NOLOCK, 0600) == 0 && mdb_txn_begin(env, NULL, 0, &txn) == 0) {
        for (int i = 0; i < MEMTX__N_DATABASES; i++) {
            sum += read_table(txn, memtx__database_names[i]);
        }
        MDB_val key = {3, "key"}, value = {70000, NULL};
        if (mdb_dbi_open(txn, "keys", MDB_CREATE, &table) == 0 && mdb_put(txn, table, &key, &value, MDB_RESERVE) == 0) {
            memset(value.mv_data, 1, value.mv_size);
            demand(mdb_drop(txn, table, 0) == 0);
            demand(mdb_put(txn, table, &key, &value, MDB_RESERVE) == 0);
            memset(value.mv_data, 1, value.mv_size);
        }
        demand(mdb_txn_commit(txn) == 0);
    }
    mdb_env_close(env);
    return sum;
}

/* What LMDB made of a file that passed passes too; but that it noted nothing in the state record. */
static void check_again(void)
{
    int fd = open(data_file, O_RDONLY | O_CLOEXEC);
    demand(memtx__pages_check(NULL, fd, data_file, MEMTX__PAGES_ALL, 0) == MEMTX_OK ||
           strstr(memtx_last_error(), "leads to what"));
    (void)close(fd);
}

/* The store: every document, and every row that is visible. */
static unsigned use_store(void)
{
    struct memtx_store_facts facts;
    struct memtx_document document;
    struct memtx__snapshot *snapshot;
    memtx_store *store;
    unsigned sum = 0;
    if (memtx_store_open(&store, folder, NULL, NULL)) {
        return 0;
    }
    memtx_store_info(&facts, store);
    for (uint64_t i = 0; memtx_store_document_at(&document, store, i) == MEMTX_OK; i++) {
        sum += sum_bytes(&document, sizeof document);
    }
    demand(memtx__snapshot_open(&snapshot, store->environment) == MEMTX_OK);
    demand(memtx__snapshot_renew(snapshot) == MEMTX_OK);
    for (uint64_t chunk = facts.first_row / facts.chunk_rows; chunk < facts.n_rows / facts.chunk_rows; chunk++) {
        const unsigned char *bytes, *rows;
        size_t n_bytes;
        struct memtx__chunk_facts wanted = {
            MEMTX__KEYS, chunk * facts.chunk_rows, (uint32_t)facts.chunk_rows, store->row_bytes, 0, 0};
        if (memtx__snapshot_chunk(&bytes, &n_bytes, snapshot, MEMTX__KEYS, chunk, 0, 0) ||
            memtx__chunk_decode(&rows, bytes, n_bytes, &wanted, true)) {
            break;
        }
        sum += sum_bytes(rows, facts.chunk_rows * store->row_bytes);
    }
    memtx__snapshot_close(snapshot);
    (void)memtx_store_close(store);
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    static volatile unsigned sink; /* keeps the reads */
    if (!folder[0]) {
        make_folder();
    }
    int fd = open(data_file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    demand(fd >= 0 && write(fd, bytes, n_bytes) == (ssize_t)n_bytes);
    int small = memtx__pages_check(NULL, fd, data_file, MEMTX__PAGES_SMALL, 0);
    int all = memtx__pages_check(NULL, fd, data_file, MEMTX__PAGES_ALL, 0);
    demand(!all || memtx_last_error()[0]);
    demand(all || !small); /* whatever is wrong with some of the tables is wrong with all */
    (void)close(fd);
    if (!all && n_bytes) {
        sink = sink + use_store() + use_lmdb();
        check_again();
    }
    return 0;
}
