/* Runs in the catalogue and in the database (store.h): one transaction for each change, before which the new file is on
 * disk, and after which the old ones go. So what a record names is there, unless somebody took it away. */
#include "store/run_file.h"

#include "base/alloc.h"
#include "base/status.h"
#include "store/tables.h"

static bool overlap(const struct memtx__run *a, const struct memtx__run *b)
{
    return a->first_row < b->first_row + b->n_rows && b->first_row < a->first_row + a->n_rows;
}

/* Which of the runs stay. */
typedef bool keeps(const memtx_store *store, const struct memtx__run *run, const void *context);

static bool keep_apart(const memtx_store *store, const struct memtx__run *run, const void *context)
{
    (void)store;
    return !overlap(run, context);
}

static bool keep_visible(const memtx_store *store, const struct memtx__run *run, const void *context)
{
    (void)context;
    return memtx__catalogue_sees_run(&store->now, run);
}

static bool keep_none(const memtx_store *store, const struct memtx__run *run, const void *context)
{
    (void)store;
    (void)run;
    (void)context;
    return false;
}

/* The state as it is on disk, when nothing waits: a document that was begun and has no commit yet has no record, and
 * its id is not given out. */
static int put_state(memtx_store *store, MDB_txn *txn)
{
    struct memtx__state state = store->now.state;
    for (size_t i = store->now.n_documents; i > 0 && store->now.documents[i - 1].is_dirty; i--) {
        state.next_document = store->now.documents[i - 1].facts.id;
    }
    int code = memtx__lmdb_put_state(store->environment, txn, &state);
    store->now.state.transaction = state.transaction;
    return code;
}

/* After a failure *may_stand says whether the change may be in the database all the same: a commit that failed with its
 * last write can still be found there when the store is opened again. */
static int write_change(bool *may_stand, memtx_store *store, const struct memtx__run *added, keeps *keep,
                        const void *context)
{
    struct memtx__environment *environment = store->environment;
    MDB_txn *txn;
    int status = memtx__lmdb_begin(&txn, environment), code = MDB_SUCCESS;
    if (status) {
        return status;
    }
    for (size_t i = 0; i < store->now.n_runs && !code; i++) {
        unsigned char name[8];
        MDB_val key = memtx__number_key(name, store->now.runs[i].first_row);
        if (!keep(store, &store->now.runs[i], context)) {
            code = mdb_del(txn, environment->databases[MEMTX__DB_RUNS], &key, NULL);
        }
    }
    if (!code && added) {
        code = memtx__lmdb_put_run(environment, txn, added);
    }
    if (!code) {
        code = put_state(store, txn);
    }
    *may_stand = !code;
    return memtx__lmdb_end(txn, environment, code, "change the index files");
}

/* Database first, then files, then the catalogue. Its state record says what is written: what waits goes before. */
static int change(bool *may_stand, memtx_store *store, const struct memtx__run *added, keeps *keep, const void *context)
{
    struct memtx__catalogue *now = &store->now;
    size_t n_kept = 0, place = 0;
    *may_stand = false;
    int status = memtx__store_check_writable(store);
    if (!status) {
        status = memtx__store_flush(store);
    }
    if (!status) {
        status = memtx__grow(&now->runs, &now->n_runs_held, now->n_runs + 1, sizeof *now->runs);
    }
    if (!status) {
        status = write_change(may_stand, store, added, keep, context);
    }
    if (status) {
        return status;
    }
    for (size_t i = 0; i < now->n_runs; i++) {
        if (keep(store, &now->runs[i], context)) {
            now->runs[n_kept++] = now->runs[i];
        } else {
            memtx__run_file_remove(store, &now->runs[i]);
        }
    }
    now->n_runs = n_kept;
    if (added) {
        while (place < now->n_runs && now->runs[place].first_row < added->first_row) {
            place++;
        }
        memmove(&now->runs[place + 1], &now->runs[place], (now->n_runs - place) * sizeof *now->runs);
        now->runs[place] = *added;
        now->n_runs++;
    }
    return MEMTX_OK;
}

int memtx__store_enter_run(memtx_store *store, const struct memtx__run *run)
{
    const uint32_t next = store->now.state.next_run;
    bool may_stand;
    store->now.state.next_run = (uint32_t)run->generation + 1;
    int status = change(&may_stand, store, run, keep_apart, run);
    if (status && !may_stand) {
        store->now.state.next_run = next;
        memtx__run_file_remove(store, run);
    } /* else the number is taken; if no record has it after all, the next opening takes the file away */
    return status;
}

int memtx__store_drop_runs(memtx_store *store, bool all)
{
    keeps *keep = all ? keep_none : keep_visible;
    bool any = false, may_stand;
    for (size_t i = 0; i < store->now.n_runs && !any; i++) {
        any = !keep(store, &store->now.runs[i], NULL);
    }
    return any ? change(&may_stand, store, NULL, keep, NULL) : MEMTX_OK;
}

int memtx__store_drop_run(memtx_store *store, const struct memtx__run *run)
{
    bool may_stand;
    return change(&may_stand, store, NULL, keep_apart, run);
}
