/* Index files built at once (memtx/memory.h): those that are due, or all anew, for which the old ones are dropped
 * first. What is interrupted is gone on with by the next writer, or by another rebuild. */
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

/* Builds all that is due and tells how far it is. */
static int seal(struct memtx__runs *runs, struct memtx__view *view, const struct memtx_store_upkeep_options *upkeep)
{
    struct rebuilding r = {.upkeep = upkeep, .row_bytes = runs->store->row_bytes};
    (void)clock_gettime(CLOCK_MONOTONIC, &r.begun);
    int status = memtx__store_flush(runs->store);
    if (!status) {
        r.now.n_all_bytes = memtx__runs_n_due(runs) * runs->store->row_bytes;
        status = memtx__runs_seal(runs, view, tell, &r);
    }
    return status;
}

int memtx_memory_seal(memtx_memory *memory, const struct memtx_store_upkeep_options *upkeep)
{
    if (memory->in_segment || memory->options.reader) {
        return memtx__fail(MEMTX_E_INVALID, "indexes are built between segments, by who appends");
    }
    memtx__clusters_seal(&memory->clusters);
    return memory->choice.finder == MEMTX__FIND_RUNS ? seal(&memory->runs, &memory->view, upkeep) : MEMTX_OK;
}

static bool are_clusters(const char *spec)
{
    return memtx__runs_same_kind(spec, "cluster");
}

/* Clusters cannot be made here, where nobody asks: what is whole stays as it is. */
static int mend_clusters(memtx_store *store, const char *spec, uint64_t run_rows)
{
    struct memtx_memory_options options = memtx_memory_options_default();
    struct memtx__choice choice;
    options.index = spec;
    int status = memtx__memory_choose(&choice, &options);
    if (!status && run_rows) {
        status = memtx__fail(MEMTX_E_UNSUPPORTED,
                             "index 'cluster': files of %llu rows: those of clusters keep the lengths that they have",
                             (unsigned long long)run_rows);
    }
    return status ? status : memtx__clusters_mend(store);
}

int memtx_memory_rebuild(memtx_store *store, const struct memtx_memory_options *options,
                         const struct memtx_store_upkeep_options *upkeep)
{
    struct memtx__runs runs = {0};
    struct memtx__view view = {0};
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
    const bool has_length = store->now.n_runs > 0 && !are_clusters(store->now.runs[0].spec); /* clusters' are any */
    const uint64_t run_rows = options->run_rows || !has_length ? options->run_rows : store->now.runs[0].n_rows;
    (void)snprintf(spec, sizeof spec, "%s", options->index ? options->index : store->now.runs[0].spec);
    if (are_clusters(spec)) {
        return mend_clusters(store, spec, options->run_rows);
    }
    status = memtx__runs_open(&runs, store, spec, options->resolve_index, run_rows, true, false);
    if (!status) {
        status = memtx__view_open(&view, store, false);
    }
    if (!status) {
        status = memtx__store_drop_runs(store, true);
    }
    if (!status) {
        status = seal(&runs, &view, upkeep);
    }
    if (!status && *runs.warning) {
        status = memtx__fail(MEMTX_E_IO, "%s", runs.warning);
    }
    if (view.store) {
        memtx__view_close(&view);
    }
    memtx__runs_close(&runs);
    return status;
}
