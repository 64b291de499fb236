/* How far long work over a store is, in bytes of what it has to read: chunks with a visible row, their token ids, running
 * states. Whoever asked for the work is told after each of them, and may break it off. */
#ifndef MEMTX_STORE_PROGRESS_H
#define MEMTX_STORE_PROGRESS_H

#include <time.h>

#include "store/store.h"

struct memtx__progress {
    struct memtx_store_upkeep_options options;
    struct memtx_store_progress now;
    struct timespec begun;
};

/* Begins work over all that the catalogue says the store holds. options NULL: nobody is told. */
void memtx__progress_begin(struct memtx__progress *out, const struct memtx_store_upkeep_options *options,
                           const memtx_store *store, const struct memtx__catalogue *catalogue);

/* So much more is done. MEMTX_E_INTERRUPTED when the callback says so. */
int memtx__progress_add(struct memtx__progress *progress, uint64_t n_bytes);

#endif
