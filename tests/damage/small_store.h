/* The store that the damage campaign damages, and all that can be read of it.
 *
 * It is small and has something in every table that this version writes: three documents, one of them suspended with a
 * running state of two pieces and rows after it, the rows of a fourth that was removed, chunks that its capacity has
 * freed, and so pages that are free. Its rows are those of the known stream (crash/stream.h).
 */
#ifndef MEMTX_TESTS_DAMAGE_SMALL_STORE_H
#define MEMTX_TESTS_DAMAGE_SMALL_STORE_H

#include <stddef.h>

#include "memtx/store.h"

/* Makes the store in directory `path`, where nothing is yet. */
int small_store_make(const char *path);

/* What the next writer does: one more document of one segment. */
int small_store_append(const char *path);

/* What was returned, one answer behind the other. */
struct answers {
    unsigned char *bytes; /* the caller's, with free() */
    size_t n_bytes, n_held;
};

enum { SIZES_BYTES = 16 }; /* at the end of the answers: what follows from the file's size, not from what it holds */

/* Everything that a reader is told of the store: facts, documents, running states, places of the rows, keys and values
 * of all layers and heads, token ids, sizes. The first failure; *out then holds what was told before it. */
int small_store_read(struct answers *out, memtx_store *store);

#endif
