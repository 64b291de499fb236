/* Whether a store holds a prefix of the known stream (stream.h). The only file of the campaigns that looks into the
 * store's private structs is inspect.c. */
#ifndef MEMTX_TESTS_CRASH_INSPECT_H
#define MEMTX_TESTS_CRASH_INSPECT_H

#include "store/catalogue.h"
#include "stream.h"

struct crash_state {
    uint64_t n_rows;
    uint64_t n_documents;
    uint64_t n_ended; /* documents that are complete */
};

/* Opens the store in `path`, for what `spec` says or as it is (NULL), and reads every visible row of every document:
 * numbers, token ids, places, names, hashes and counts are those of the stream, and first_row is what `capacity` makes
 * it. A path where there is no store yet holds none: zeros. Otherwise what the store said, or MEMTX_E_CORRUPT with the
 * first difference as memtx_last_error(). */
int crash_inspect(struct crash_state *out, const char *path, const struct memtx_store_spec *spec, uint64_t capacity);

/* Opens the store in `path` once more: verification finds nothing, beside the database are the index files that it names
 * and no others, and every visible row is found by its key through them. Where there is no store it does nothing.
 * MEMTX_E_CORRUPT, or what the store said. */
int crash_inspect_index(const char *path);

/* Whether all that was acknowledged is there: MEMTX_E_CORRUPT if not. */
int crash_compare(const struct crash_state *state, uint64_t n_rows, uint64_t n_ended);

/* A catalogue against the stream, extent by extent: rows follow each other without a hole, documents in order, positions
 * as the stream has them; names, hashes and counts; and the first visible row is what `capacity` makes it.
 * MEMTX_E_CORRUPT. */
int crash_check_catalogue(const struct memtx__catalogue *catalogue, uint64_t capacity);

/* What row `id` of a catalogue that passed is. */
struct crash_row crash_row_of(const struct memtx__catalogue *catalogue, uint64_t id);

#endif
