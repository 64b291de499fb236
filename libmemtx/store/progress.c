/* Progress of verification and compaction (progress.h). What there is to do is known without reading it: a chunk's bytes
 * follow from its rows, and a document's record tells those of its running state. */
#include "store/progress.h"

#include "base/status.h"

struct memtx_store_upkeep_options memtx_store_upkeep_options_default(void)
{
    return (struct memtx_store_upkeep_options){.progress = NULL};
}

void memtx__progress_begin(struct memtx__progress *out, const struct memtx_store_upkeep_options *options,
                           const memtx_store *store, const struct memtx__catalogue *catalogue)
{
    *out = (struct memtx__progress){.options = options ? *options : memtx_store_upkeep_options_default()};
    uint64_t *sum = &out->now.n_all_bytes;
    for (uint64_t chunk = 0; chunk * store->chunk_rows < catalogue->state.n_rows; chunk++) {
        if (memtx__catalogue_sees(catalogue, chunk, store->chunk_rows)) {
            const uint32_t n_rows = memtx__catalogue_chunk_rows(catalogue, chunk, store->chunk_rows);
            *sum += 2 * store->n_pairs * memtx__chunk_bytes(n_rows, store->row_bytes) + 4 * (uint64_t)n_rows + 4;
        }
    }
    for (size_t i = 0; i < catalogue->n_documents; i++) {
        *sum += catalogue->documents[i].facts.state_bytes;
    }
    (void)clock_gettime(CLOCK_MONOTONIC, &out->begun);
}

int memtx__progress_add(struct memtx__progress *progress, uint64_t n_bytes)
{
    struct timespec now;
    progress->now.n_bytes += n_bytes;
    if (!progress->options.progress) {
        return MEMTX_OK;
    }
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    progress->now.seconds =
        (double)(now.tv_sec - progress->begun.tv_sec) + 1e-9 * (double)(now.tv_nsec - progress->begun.tv_nsec);
    return progress->options.progress(progress->options.progress_context, &progress->now)
               ? memtx__fail(MEMTX_E_INTERRUPTED, "interrupted after %llu of %llu bytes",
                             (unsigned long long)progress->now.n_bytes, (unsigned long long)progress->now.n_all_bytes)
               : MEMTX_OK;
}
