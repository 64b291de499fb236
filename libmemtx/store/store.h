/* The store's inside: what its files share. See memtx/store.h for what it is, store_format.h for what stands on disk.
 *
 *   store.c        open, close, facts
 *   spec.c         what a store is for: checked, and compared with what is asked of it
 *   documents.c    documents: made, found, removed, gone on with; running states
 *   append.c       rows: appended, committed, flushed
 *   runs.c         index files: entered, dropped
 *   run_file.c     an index file: its head, its blobs, its name
 *   catalogue.c    documents, extents and runs in RAM
 *   tail.c         the newest chunks in RAM, where rows are appended and from where they are written
 *   directory.c    the directory: whose it is, what stands in it, one writer
 *   environment.c  LMDB: opening, records (tables.h: what the next six share with it)
 *   snapshot.c     what a reader sees: the store as one transaction left it
 *   make.c         a new store's database, whole or not at all
 *   load.c         an existing store into memory
 *   write.c        the transaction that writes what waits
 *   erase.c        the transactions that take documents, or rows of one, away
 *   verify.c       reads everything
 *   copy.c         compaction
 *   progress.c     how far verification and compaction are
 *   pages.c        LMDB's own pages, checked before LMDB reads them
 *   view.c         where rows stand, for searching
 *   records.c      bytes of the records
 */
#ifndef MEMTX_STORE_STORE_H
#define MEMTX_STORE_STORE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "memtx/store.h"
#include "store/catalogue.h"

/* Chunks of all pairs from first_chunk on, each with keys and values: the only place that rows are appended to. On the
 * heap it is the whole store; on disk, what is not yet written and the one chunk that is not full. */
struct memtx__tail {
    unsigned char *
        *slots; /* [n_slots_held]: slot i is chunk first_chunk + i; slots beyond are free for reuse, or NULL */
    size_t n_slots_held;
    uint64_t first_chunk;
    size_t slot_bytes;
    size_t n_pairs;
    uint32_t chunk_rows;
};

/* A pair that is kept. */
struct memtx__pair {
    uint32_t layer;
    uint32_t kv_head;
};

struct memtx__environment; /* LMDB; NULL on the heap */
struct memtx__directory;   /* NULL on the heap, and of a temporary store */

/* A document's running state on its way to disk, with the next commit. */
struct memtx__pending_state {
    const unsigned char *bytes; /* borrowed until the commit; NULL: none */
    size_t n_bytes;
    size_t document; /* its place in the catalogue */
    uint64_t n_read;
    uint8_t hash[MEMTX_HASH_BYTES];
};

struct memtx_store {
    struct memtx_store_spec spec;
    float *rope_factors;
    struct memtx_store_options options;
    uint32_t version; /* of the format it has on disk */
    uint32_t chunk_rows;
    uint32_t row_bytes;        /* of one head's key or value */
    struct memtx__pair *pairs; /* [n_pairs] kept, by layer and kv head; a pair's place here is its number */
    size_t n_pairs;
    size_t first_pair[MEMTX_MAX_LAYERS]; /* of a layer; where none of it is kept, of the next */
    pid_t process;                       /* that opened it: a forked child must not go on with it */

    struct memtx__catalogue now; /* the writer's newest; in a store that is read-only, as of the opening */
    struct memtx__tail tail;
    bool lacks_tail;                     /* the last chunk is not full, and still on disk alone */
    uint32_t n_staged[MEMTX_MAX_LAYERS]; /* rows appended to a layer since the last commit */
    struct memtx__pending_state pending;

    bool has_writer;       /* one memory appends at a time: staged rows and the tail are its own */
    atomic_int n_memories; /* open over the store, in any threads */

    struct memtx__environment *environment;
    struct memtx__directory *directory;
    uint64_t n_written_rows;   /* of now.state.n_rows */
    uint64_t n_chunks_at_open; /* chunks below were written by an earlier process: checked when first read */
    uint64_t n_freed_chunks;   /* chunks below are gone from disk */
    size_t first_dirty_extent; /* extents from here on differ from the disk's */
    uint32_t n_waiting_commits;
    uint64_t waiting_since_ns;
};

/* ---- store.c ---------------------------------------------------------------------------------- */

/* MEMTX_E_INVALID in a child that was forked with the store open. */
int memtx__store_check_process(const memtx_store *store);
/* The same, and that the store may be written. */
int memtx__store_check_writable(const memtx_store *store);

/* The number of a pair; -1: it is not kept. O(pairs of the layer). */
ptrdiff_t memtx__store_pair(const memtx_store *store, uint32_t layer, uint32_t kv_head);

/* The writer's marks after everything that waited has been written. */
void memtx__store_all_written(memtx_store *store);

/* ---- spec.c ----------------------------------------------------------------------------------- */

int memtx__spec_check(const struct memtx_store_spec *spec);
/* What an existing store was made for against what is asked of it: names the first difference, MEMTX_E_MISMATCH. */
int memtx__spec_compare(const char *path, const struct memtx_store_spec *has, const struct memtx_store_spec *wanted,
                        bool allow_stale);

/* ---- documents.c ------------------------------------------------------------------------------ */

/* Makes document `name`, empty and open; its place in store->now.documents in *out. A name that is taken gets "#2",
 * "#3" .. added. */
int memtx__store_add_document(size_t *out, memtx_store *store, const char *name);

/* Opens a document again where its running state was taken (or at its beginning, without one): rows that came after it
 * are dead from now on, on disk when this returns. MEMTX_E_NOT_FOUND. */
int memtx__store_reopen_document(size_t *out, memtx_store *store, const char *name);

/* ---- runs.c ----------------------------------------------------------------------------------- */

/* Enters a run whose file is finished, in the place of those that it overlaps, whose files go; on disk when this
 * returns. After a failure its file is gone, unless it was the commit that failed: then the record may stand in the
 * database all the same, and the file stays until the next opening. */
int memtx__store_enter_run(memtx_store *store, const struct memtx__run *run);

/* Takes out runs, and their files: all, or those whose rows nobody can see any more. */
int memtx__store_drop_runs(memtx_store *store, bool all);

/* Takes out one run, of the catalogue, and its file. */
int memtx__store_drop_run(memtx_store *store, const struct memtx__run *run);

/* ---- append.c --------------------------------------------------------------------------------- */

/* Stages n rows of one layer: keys[n][G][D], values[n][G][D], of which the pairs kept are taken. Rows follow those
 * staged before. MEMTX_E_INVALID for a layer of which nothing is kept, or a number taken that is not finite after
 * rounding. */
int memtx__store_append(memtx_store *store, uint32_t layer, size_t n_rows, const float *keys, const float *values);

/* Makes the staged rows visible, as rows of a document: every kept layer must have staged n_rows, or
 * all that is staged is dropped (MEMTX_E_INVALID). Writes them, or not
 * yet, as the durability says; a running state that is pending is written with them, now. n_rows may be 0. */
int memtx__store_commit(memtx_store *store, size_t document, size_t n_rows, const uint32_t *token_ids,
                        const uint64_t *positions);

/* Drops what is appended and not committed. */
void memtx__store_discard_staged(memtx_store *store);

/* Writes everything that waits. */
int memtx__store_flush(memtx_store *store);

/* ---- tail.c ----------------------------------------------------------------------------------- */

int memtx__tail_reach(struct memtx__tail *tail, uint64_t chunk); /* makes the slots up to this chunk */
unsigned char *memtx__tail_rows(const struct memtx__tail *tail, enum memtx__chunk_kind kind, size_t pair,
                                uint64_t chunk);
unsigned char *memtx__tail_tokens(const struct memtx__tail *tail, uint64_t chunk); /* u32[chunk_rows] little-endian */
void memtx__tail_drop(struct memtx__tail *tail, uint64_t first_kept); /* slots of chunks below become free */
void memtx__tail_release(struct memtx__tail *tail);

/* ---- directory.c ------------------------------------------------------------------------------ */

/* Opens a store's directory and keeps it: what the path names later does not matter any more. Where there is none it is
 * made (0700) if that is asked for, else MEMTX_E_NOT_FOUND. For writing, the right to write is taken: MEMTX_E_BUSY says
 * who has it. MEMTX_E_BUSY too when this process has the directory open already, by device and inode. MEMTX_E_FORMAT (no
 * directory; files that are links, or no store's), MEMTX_E_INVALID (others may write into it), MEMTX_E_IO,
 * MEMTX_E_NO_SPACE. */
int memtx__directory_open(struct memtx__directory **out, const char *path, bool make, bool write);
/* What stands under a file's name in the directory `path` of this owner: nothing but a plain file with one name will do,
 * which belongs to us, to the directory's owner or to root. MEMTX_E_FORMAT, MEMTX_E_INVALID. */
int memtx__directory_check_facts(const char *path, const char *name, const struct stat *facts, uid_t owner);
/* After a failure: takes away again what memtx__directory_open has made. NULL is fine. */
void memtx__directory_discard(struct memtx__directory *directory);
void memtx__directory_close(struct memtx__directory *directory); /* NULL is fine */
int memtx__directory_fd(const struct memtx__directory *directory);
const char *memtx__directory_pinned(const struct memtx__directory *directory); /* a path to it that nobody can change */
/* That the facts of a file of this name are those of a plain file of the store's own. */
int memtx__directory_check_own(const struct memtx__directory *directory, const char *name, const struct stat *facts);
bool memtx__directory_has_database(const struct memtx__directory *directory); /* one that is not empty */

/* ---- environment.c ---------------------------------------------------------------------------- */

/* Opens the LMDB environment in a directory (`shown` is its name in messages), or in a temporary one under it; *is_new
 * tells that nothing is in it yet. */
int memtx__environment_open(struct memtx__environment **out, bool *is_new, const char *path, const char *shown,
                            const struct memtx_store_options *options);
void memtx__environment_close(struct memtx__environment *environment);
/* All tables, the spec and an empty state, in one transaction. */
int memtx__environment_create(struct memtx__environment *environment, const struct memtx_store_spec *spec,
                              uint32_t chunk_rows);
uint64_t memtx__environment_bytes(const struct memtx__environment *environment);
/* Before the big tables or the free list are used for the first time: checks LMDB's pages, once. Any thread. */
int memtx__environment_check_pages(struct memtx__environment *environment);

/* LMDB's version as text. */
void memtx__environment_version(char *out, size_t size);

/* A snapshot for reading, one for each view. Renewed and reset around a segment. */
struct memtx__snapshot;
int memtx__snapshot_open(struct memtx__snapshot **out, struct memtx__environment *environment);
void memtx__snapshot_close(struct memtx__snapshot *snapshot);
int memtx__snapshot_renew(struct memtx__snapshot *snapshot);
void memtx__snapshot_reset(struct memtx__snapshot *snapshot);
uint64_t memtx__snapshot_id(const struct memtx__snapshot *snapshot); /* grows with every transaction that wrote */
/* The chunk's bytes, borrowed until the pages are freed, which only the writer does. */
int memtx__snapshot_chunk(const unsigned char **bytes, size_t *n_bytes, struct memtx__snapshot *snapshot,
                          enum memtx__chunk_kind kind, uint64_t chunk, uint32_t layer, uint32_t kv_head);
/* Token ids of a chunk, u32[n_rows] little-endian at no particular address, checked; borrowed as the chunk's bytes are. */
int memtx__snapshot_tokens(const unsigned char **tokens, struct memtx__snapshot *snapshot, uint64_t chunk,
                           uint32_t n_rows);
/* load.c: the catalogue as the snapshot has it, in place of what *out held. */
int memtx__snapshot_catalogue(struct memtx__catalogue *out, struct memtx__snapshot *snapshot, uint32_t version);
/* load.c: the running state of a document of the snapshot's catalogue, owned by the caller. */
int memtx__snapshot_state(unsigned char **bytes, struct memtx__snapshot *snapshot,
                          const struct memtx_document *document);

/* make.c: the database of a new store, complete and on disk, in a directory that has none; `shown` is its name in
 * messages. The lock is held. */
int memtx__environment_make(const char *path, const char *shown, const struct memtx_store_spec *spec,
                            uint32_t chunk_rows);

/* ---- load.c, write.c, erase.c ----------------------------------------------------------------- */

/* The spec of an existing store; *rope_factors (owned by the caller) NULL where all are one. */
int memtx__environment_load_spec(struct memtx_store_spec *spec, uint32_t *version, uint32_t *chunk_rows,
                                 float **rope_factors, struct memtx__environment *environment);
/* The catalogue into the store. */
int memtx__environment_load(memtx_store *store);
/* The rows of the last chunk, if it is not full, into the tail of a store that is written to; once. Whoever is the first
 * to need them calls it, for it checks all of LMDB's pages, which opening must not cost. */
int memtx__environment_load_tail(memtx_store *store);
/* The newest running state, owned by the caller. */
int memtx__environment_load_state(unsigned char **bytes, size_t *n_bytes, struct memtx__environment *environment,
                                  uint32_t version, const char *name);

/* One synced transaction with all that waits. */
int memtx__environment_write(memtx_store *store);
/* A store of an older version becomes one of the newest, in one transaction. */
int memtx__environment_upgrade(memtx_store *store);

/* One synced transaction that takes a document's rows from row id `from` on away, and the document itself where it is
 * not in `after`: the catalogue as it will be. */
int memtx__environment_erase(memtx_store *store, const struct memtx__catalogue *after, uint64_t document,
                             uint64_t from);

#endif
