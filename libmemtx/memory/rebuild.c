/* Index files built anew (memtx/memory.h): all are dropped, then span after span is sealed. What is interrupted is gone
 * on with by the next writer, or by another rebuild. */
#include <string.h>
#include <time.h>

#include "base/status.h"
#include "memory/memory.h"

struct rebuilding {
    const struct memtx_store_upkeep_options *upkeep;
    struct memtx_store_progress now;
    struct timespec begun;
    uint64_t row_bytes; /* of a key */
};

static int tell(void *context, uint64_t n_rows)
{
    struct rebuilding *r = context;
    struct timespec now;
    r->now.n_bytes += n_rows * r->row_bytes;
    if (!r->upkeep || !r->upkeep->progress) {
        return 0;
    }
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    r->now.seconds = (double)(now.tv_sec - r->begun.tv_sec) + 1e-9 * (double)(now.tv_nsec - r->begun.tv_nsec);
    return r->upkeep->progress(r->upkeep->progress_context, &r->now);
}

static int build_all(struct memtx__runs *runs, struct memtx__view *view, struct rebuilding *r)
{
    const memtx_store *store = runs->store;
    struct memtx__run next;
    int status = memtx__store_drop_runs(runs->store, true);
    const uint64_t n_rows =
        store->now.state.n_rows - store->now.state.first_row / store->chunk_rows * store->chunk_rows;
    r->row_bytes = store->row_bytes;
    r->now.n_all_bytes =
        n_rows / runs->choice.run_rows * runs->choice.run_rows * store->n_pairs * (uint64_t)store->row_bytes;
    while (!status && memtx__runs_next(&next, runs)) {
        runs->sealing = (struct memtx__sealing){.store = runs->store,
                                                .view = view,
                                                .choice = &runs->choice,
                                                .run = next,
                                                .blobs = runs->sealing.blobs,
                                                .tell = tell,
                                                .tell_context = r};
        status = memtx__view_begin(view);
        if (!status) {
            status = memtx__run_build(&runs->sealing);
            memtx__view_end(view);
        }
        if (!status) {
            status = memtx__runs_enter(runs, &runs->sealing);
        }
    }
    return status;
}

int memtx_memory_rebuild(memtx_store *store, const struct memtx_memory_options *options,
                         const struct memtx_store_upkeep_options *upkeep)
{
    struct memtx__runs runs = {0};
    struct memtx__view view = {0};
    struct rebuilding r = {.upkeep = upkeep};
    char spec[MEMTX__RUN_SPEC_BYTES];
    int status = memtx__store_check_writable(store);
    if (!status && !store->directory) {
        status = memtx__fail(MEMTX_E_INVALID, "a store without a directory has no index files");
    }
    if (!status && atomic_load(&store->n_memories) > 0) {
        status = memtx__fail(MEMTX_E_BUSY, "a memory is open over the store (close it first)");
    }
    if (!status && !options->index && store->now.n_runs == 0) {
        return MEMTX_OK;
    }
    if (status) {
        return status;
    }
    const uint64_t run_rows =
        options->run_rows || store->now.n_runs == 0 ? options->run_rows : store->now.runs[0].n_rows;
    (void)snprintf(spec, sizeof spec, "%s", options->index ? options->index : store->now.runs[0].spec);
    (void)clock_gettime(CLOCK_MONOTONIC, &r.begun);
    status = memtx__runs_open(&runs, store, spec, options->resolve_index, run_rows, true, false);
    if (!status) {
        status = memtx__view_open(&view, store, false);
    }
    if (!status) {
        status = build_all(&runs, &view, &r);
    }
    if (view.store) {
        memtx__view_close(&view);
    }
    memtx__runs_close(&runs);
    return status;
}
