/* Index files beside the database: runs (store_format.h). A run covers rows first_row .. first_row + n_rows - 1 of every
 * pair, with one blob for each pair, which is an index's own business (memtx/index.h); what is proved here is that the
 * bytes are those that were written. A file is named by its number, so that no record can name another.
 *
 * A store without a directory has files without names, which only their maker can read.
 */
#ifndef MEMTX_STORE_RUN_FILE_H
#define MEMTX_STORE_RUN_FILE_H

#include <stdio.h>

#include "store/store.h"

struct memtx__run_blob {
    uint64_t offset;
    uint64_t n_bytes;
    uint8_t hash[MEMTX_HASH_BYTES];
};

/* A new file, open for reading and writing, whose position is that of the first blob. Nobody sees it before it is
 * finished. One at a time for each store. MEMTX_E_IO, MEMTX_E_NO_SPACE. */
int memtx__run_file_create(FILE **out, const memtx_store *store);

/* What was written since `offset` is a blob: reads it for its hash, and moves the position on to where the next begins. */
int memtx__run_file_end_blob(struct memtx__run_blob *out, FILE *file, uint64_t offset);

/* The status for errno after writing to the file has failed, with the thread's error text. */
int memtx__run_file_failed(const char *what);

/* Writes the head, syncs, and gives the file its name; run->n_bytes and run->hash are set. The file stays open. On failure
 * nothing of it is left. */
int memtx__run_file_finish(FILE *file, const memtx_store *store, struct memtx__run *run,
                           const struct memtx__run_blob *blobs);

/* Takes away a file that was not finished, and closes it. */
void memtx__run_file_discard(FILE *file, const memtx_store *store);

/* Opens the file of a run and reads its head: blobs[n_pairs] are where it says. MEMTX_E_CORRUPT (not there, another size,
 * another head, no plain file of the store's own), MEMTX_E_IO. */
int memtx__run_file_open(FILE **out, struct memtx__run_blob *blobs, const memtx_store *store,
                         const struct memtx__run *run);

/* Reads a blob and compares its hash; the position is then its beginning. MEMTX_E_CORRUPT names run and pair. */
int memtx__run_file_check(FILE *file, const struct memtx__run_blob *blob, const struct memtx__run *run,
                          const struct memtx__pair *pair);

void memtx__run_file_remove(const memtx_store *store, const struct memtx__run *run);

/* Copies a run's file into directory `to`, checked on the way; MEMTX_E_CORRUPT: it is none. And takes it away there. */
int memtx__run_file_copy(const memtx_store *store, const struct memtx__run *run, const char *to);
void memtx__run_file_remove_copy(const struct memtx__run *run, const char *to);

/* Takes away index files of no run, which a writer left that was killed. */
void memtx__run_file_remove_strays(const memtx_store *store);

#endif
