/* The checker of LMDB's file over its metas: which transaction is the newest, what a failed commit leaves, what a writer
 * does meanwhile, and files that are not ours. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "store/records.h"
#include "pages_file.h"

/* As a writer does that notes its transaction in the state record; 0: it notes none. */
static void write_state(uint64_t noted)
{
    unsigned char record[MEMTX__STATE_BYTES];
    MDB_txn *txn;
    MDB_dbi dbi;
    MDB_val key = {5, "state"}, value;
    MDB_env *env = pages_open_env(0);
    cr_assert_not_null(env);
    cr_assert_eq(mdb_txn_begin(env, NULL, 0, &txn), 0);
    cr_assert_eq(mdb_dbi_open(txn, "meta", 0, &dbi), 0);
    cr_assert_eq(mdb_get(txn, dbi, &key, &value), 0);
    memcpy(record, value.mv_data, sizeof record);
    memtx__put_u64(record + 32, noted == 1 ? mdb_txn_id(txn) : noted);
    memtx__put_u32(record + 44, 0);
    memtx__put_u32(record + 44, memtx__crc32c(0, record, sizeof record));
    value = (MDB_val){sizeof record, record};
    cr_assert_eq(mdb_put(txn, dbi, &key, &value, 0), 0);
    cr_assert_eq(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

static uint64_t transaction_of(size_t meta)
{
    return memtx__get_u64(pages_data + meta * PAGE + 144);
}

static void put_transaction(size_t meta, uint64_t transaction)
{
    unsigned char bytes[8];
    memtx__put_u64(bytes, transaction);
    pages_put(meta * PAGE + 144, bytes, 8);
}

Test(newest, no_meta_can_bring_back_an_older_state, .init = pages_begin, .fini = pages_end)
{
    pages_make_store(20);
    write_state(1);
    write_state(1);
    for (int i = 0; i < 4; i++, write_state(1)) {
        pages_load();
        pages_pass();
        const size_t newest = transaction_of(0) < transaction_of(1);
        const uint64_t transaction = transaction_of(newest);
        put_transaction(newest, transaction - 2); /* now the one before is the newest */
        pages_refused(MEMTX_E_CORRUPT, "leads to what");
        put_transaction(newest, transaction);
        put_transaction(1 - newest, transaction + 1);
        pages_refused(MEMTX_E_CORRUPT, "leads to what");
        put_transaction(1 - newest, transaction + 3);
        pages_refused(MEMTX_E_CORRUPT, "follow");
        put_transaction(1 - newest, transaction - 1);
        pages_pass();
    }
    write_state(0); /* one that notes nothing */
    write_state(0);
    pages_pass();
    write_state(5);
    pages_refused(MEMTX_E_CORRUPT, "leads to what 5 wrote");
}

/* Whether nothing of the file is another than when it was loaded. */
static bool is_as_loaded(void)
{
    unsigned char *now = malloc(n_pages_bytes);
    cr_assert_eq(pread(pages_fd, now, n_pages_bytes, 0), (ssize_t)n_pages_bytes);
    const bool equal =
        lseek(pages_fd, 0, SEEK_END) == (off_t)n_pages_bytes && memcmp(now, pages_data, n_pages_bytes) == 0;
    free(now);
    return equal;
}

/* When the last write of a commit fails, LMDB puts the older transaction and last page back into the meta, not the
 * trees. */
Test(newest, a_commit_whose_last_write_failed_is_rolled_forward, .init = pages_begin, .fini = pages_end)
{
    unsigned char bytes[16];
    pages_make_store(20);
    write_state(1);
    pages_load();
    const size_t older = transaction_of(0) > transaction_of(1);
    memcpy(bytes, pages_data + older * PAGE + 136, 16);
    write_state(1);
    pages_load();
    pages_pass();
    pages_put(older * PAGE + 136, bytes, 16);
    pages_refused(MEMTX_E_CORRUPT, "which is whole"); /* a newest meta gone back looks the same */
    cr_assert_eq(memtx__pages_roll_forward(pages_fd, pages_name), MEMTX_OK, "%s", memtx_last_error());
    cr_assert(is_as_loaded(), "more than the number was written");
    pages_pass();
    memtx__put_u64(bytes, memtx__get_u64(bytes) - 1);
    pages_put(older * PAGE + 136, bytes, 16);
    pages_load();
    pages_pass(); /* the commit had made the file grow: nothing is read through its meta */
    cr_assert_eq(memtx__pages_roll_forward(pages_fd, pages_name), MEMTX_OK, "%s", memtx_last_error());
    cr_assert(is_as_loaded(), "a commit that is not whole was taken for one");
}

Test(newest, only_the_next_transaction_is_rolled_forward, .init = pages_begin, .fini = pages_end)
{
    pages_make_store(20);
    write_state(1);
    write_state(1);
    pages_load();
    const size_t newest = transaction_of(0) < transaction_of(1);
    const uint64_t transaction = transaction_of(newest);
    put_transaction(1 - newest, transaction + 1); /* an older meta that says it is the newest */
    pages_load();
    cr_assert_eq(memtx__pages_roll_forward(pages_fd, pages_name), MEMTX_OK, "%s", memtx_last_error());
    cr_assert(is_as_loaded());
    put_transaction(1 - newest, transaction + 3);
    cr_assert_eq(memtx__pages_roll_forward(pages_fd, pages_name), MEMTX_E_CORRUPT);
    (void)ftruncate(pages_fd, 100);
    cr_assert_eq(memtx__pages_roll_forward(pages_fd, pages_name), MEMTX_E_FORMAT);
    (void)ftruncate(pages_fd, 0);
    cr_assert_eq(memtx__pages_roll_forward(pages_fd, pages_name), MEMTX_OK);
}

Test(newest, a_store_that_was_only_begun, .init = pages_begin, .fini = pages_end)
{
    MDB_env *env = pages_open_env(0);
    cr_assert_not_null(env);
    mdb_env_close(env);
    pages_pass();
    pages_put_byte(PAGE + 144, 1);
    pages_pass(); /* an empty one all the same */
    pages_put_byte(144, 1);
    pages_refused(MEMTX_E_CORRUPT, "follow");
}

Test(others, files_of_other_programs, .init = pages_begin, .fini = pages_end)
{
    MDB_txn *txn;
    MDB_dbi dbi;
    MDB_val key = {1, "k"}, value = {1, "v"};
    pages_put(0, "no LMDB file", 12);
    pages_refused(MEMTX_E_FORMAT, "not an LMDB file");
    cr_assert_eq(unlink(pages_name), 0);
    pages_close();
    MDB_env *env = pages_open_env(0);
    cr_assert_not_null(env);
    cr_assert_eq(mdb_txn_begin(env, NULL, 0, &txn), 0);
    cr_assert_eq(mdb_dbi_open(txn, NULL, 0, &dbi), 0);
    cr_assert_eq(mdb_put(txn, dbi, &key, &value, 0), 0); /* data in the main table */
    cr_assert_eq(mdb_txn_commit(txn), 0);
    pages_pass(); /* its structure is; that it is no store others say */
    cr_assert_eq(mdb_txn_begin(env, NULL, 0, &txn), 0);
    cr_assert_eq(mdb_dbi_open(txn, "many", MDB_CREATE | MDB_DUPSORT, &dbi), 0);
    cr_assert_eq(mdb_put(txn, dbi, &key, &value, 0), 0);
    cr_assert_eq(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
    pages_refused(MEMTX_E_CORRUPT, "table many has flags 4");
    pages_close();
    pages_fd = open("/dev/null", O_RDONLY);
    cr_assert_geq(pages_fd, 0);
    pages_refused(MEMTX_E_IO, "not a regular file");
}

/* ---- beside a writer -------------------------------------------------------------------------- */

struct checks {
    atomic_bool ended;
    size_t n_fine, n_busy;
    int failed; /* the first other status */
    char text[256];
};

static void *check_often(void *context)
{
    struct checks *checks = context;
    while (!atomic_load(&checks->ended) && !checks->failed) {
        const int status = memtx__pages_check(NULL, pages_fd, pages_name, MEMTX__PAGES_SMALL, 0);
        checks->n_fine += status == MEMTX_OK;
        checks->n_busy += status == MEMTX_E_BUSY;
        if (status && status != MEMTX_E_BUSY) {
            checks->failed = status;
            (void)snprintf(checks->text, sizeof checks->text, "%s", memtx_last_error());
        }
    }
    return NULL;
}

static void put_number(MDB_env *env, unsigned number)
{
    unsigned char bytes[3000] = {0};
    MDB_txn *txn;
    MDB_dbi dbi;
    MDB_val key = {sizeof number, &number}, value = {sizeof bytes, bytes};
    cr_assert_eq(mdb_txn_begin(env, NULL, 0, &txn), 0);
    cr_assert_eq(mdb_dbi_open(txn, "numbers", MDB_CREATE, &dbi), 0);
    cr_assert_eq(mdb_put(txn, dbi, &key, &value, 0), 0);
    cr_assert_eq(mdb_txn_commit(txn), 0);
}

/* A reader holds all pages, so every transaction lies where the file did not yet reach. */
Test(writer, makes_the_file_grow_while_it_is_checked, .init = pages_begin, .fini = pages_end)
{
    static struct checks checks;
    pthread_t thread;
    MDB_txn *reader;
    MDB_env *env = pages_open_env(MDB_NOSYNC | MDB_NOTLS);
    cr_assert_not_null(env);
    cr_assert_eq(mdb_txn_begin(env, NULL, MDB_RDONLY, &reader), 0);
    pages_open();
    cr_assert_eq(pthread_create(&thread, NULL, check_often, &checks), 0);
    for (unsigned number = 0; number < 20000; number++) {
        put_number(env, number % 50);
    }
    atomic_store(&checks.ended, true);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    mdb_txn_abort(reader);
    mdb_env_close(env);
    printf("# %zu checks passed, %zu busy\n", checks.n_fine, checks.n_busy);
    cr_assert_eq(checks.failed, MEMTX_OK, "%s", checks.text);
    cr_assert_gt(checks.n_fine, 0);
}
