/* The store's inside: what its files share. See memtx/store.h for what it is, store_format.h for what stands on disk.
 *
 *   store.c        open, close, documents, append and commit: the stream as a whole
 *   tail.c         the newest chunks in RAM, where rows are appended and from where they are written
 *   environment.c  LMDB: opening, what the store is for, snapshots (tables.h: what the next two share with it)
 *   load.c         an existing store into memory
 *   write.c        the transaction that writes what waits
 *   view.c         where rows stand, for searching
 *   lock.c         one writer
 *   records.c      bytes of the records
 */
#ifndef MEMTX_STORE_STORE_H
#define MEMTX_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memtx/store.h"
#include "store/records.h"

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

struct memtx__environment; /* LMDB; NULL on the heap */
struct memtx__lock;

struct memtx_store {
    struct memtx_store_spec spec;
    float *rope_factors;
    struct memtx_store_options options;
    uint32_t chunk_rows;
    uint32_t row_bytes;                   /* of one head's key or value */
    size_t n_pairs;                       /* (layer, kv head) pairs kept */
    int32_t first_pair[MEMTX_MAX_LAYERS]; /* of a layer, -1: not kept */

    struct memtx__state state;
    struct memtx_document *documents;
    size_t n_documents, n_documents_held;
    struct memtx__extent *extents; /* ascending */
    size_t n_extents, n_extents_held;

    struct memtx__tail tail;
    uint32_t n_staged[MEMTX_MAX_LAYERS]; /* rows appended to a layer since the last commit */

    struct memtx__environment *environment;
    struct memtx__lock *lock;
    uint64_t n_written_rows;   /* of state.n_rows */
    uint64_t n_chunks_at_open; /* chunks below were written by an earlier process: checked when first read */
    uint64_t n_freed_chunks;   /* chunks below are gone from disk */
    size_t first_dirty_extent; /* extents from here on differ from the disk's */
    bool *documents_dirty;     /* [n_documents_held] */
    uint32_t n_waiting_commits;
    uint64_t waiting_since_ns;
};

/* ---- store.c ---- */

/* Makes document `name`, empty and open; its index in store->documents in *out. A name that is taken gets "#2", "#3" ..
 * added. */
int memtx__store_add_document(size_t *out, memtx_store *store, const char *name);

/* Stages n rows of one layer: keys[n][G][D], values[n][G][D]. Rows follow those staged before. MEMTX_E_INVALID for a
 * layer that is not kept or a value that is not finite after rounding. */
int memtx__store_append(memtx_store *store, uint32_t layer, size_t n_rows, const float *keys, const float *values);

/* Makes the staged rows visible, as rows of a document: every kept layer must have staged n_rows, or
 * all that is staged is dropped (MEMTX_E_INVALID). Writes them, or not
 * yet, as the durability says. n_rows may be 0 (only the document changed). */
int memtx__store_commit(memtx_store *store, size_t document, size_t n_rows, const uint32_t *token_ids,
                        const uint64_t *positions);

/* Writes everything that waits. */
int memtx__store_flush(memtx_store *store);

/* The extent that holds a row, or NULL. O(log extents). */
const struct memtx__extent *memtx__store_extent_of(const memtx_store *store, uint64_t row);

/* ---- tail.c ---- */

int memtx__tail_reach(struct memtx__tail *tail, uint64_t chunk); /* makes the slots up to this chunk */
unsigned char *memtx__tail_rows(const struct memtx__tail *tail, enum memtx__chunk_kind kind, size_t pair,
                                uint64_t chunk);
unsigned char *memtx__tail_tokens(const struct memtx__tail *tail, uint64_t chunk); /* u32[chunk_rows] little-endian */
void memtx__tail_drop(struct memtx__tail *tail, uint64_t first_kept); /* slots of chunks below become free */
void memtx__tail_release(struct memtx__tail *tail);

/* ---- environment.c ---- */

/* Makes the directory where there is none, and refuses one that holds something else than a store. */
int memtx__environment_prepare(const char *path);
/* Opens the LMDB environment in a directory, or in a temporary one under it; *is_new tells that nothing is in it yet.
 * The lock is taken before: a second opening in one process would lose LMDB's own locks. */
int memtx__environment_open(struct memtx__environment **out, bool *is_new, const char *path, bool temporary);
void memtx__environment_close(struct memtx__environment *environment);
/* All tables, the spec and an empty state, in one transaction. */
int memtx__environment_create(struct memtx__environment *environment, const struct memtx_store_spec *spec,
                              uint32_t chunk_rows);
/* The spec of an existing store; *rope_factors (owned by the caller) NULL where all are one. */
int memtx__environment_load_spec(struct memtx_store_spec *spec, uint32_t *chunk_rows, float **rope_factors,
                                 struct memtx__environment *environment);
/* load.c: state, documents, extents and the rows of the last chunk, if it is not full, into the store. */
int memtx__environment_load(memtx_store *store);
/* write.c: one synced transaction with all that waits. */
int memtx__environment_write(memtx_store *store);
uint64_t memtx__environment_bytes(const struct memtx__environment *environment);

/* LMDB's version as text. */
void memtx__environment_version(char *out, size_t size);

/* A snapshot for reading, one for each view. Renewed and reset around a segment. */
struct memtx__snapshot;
int memtx__snapshot_open(struct memtx__snapshot **out, struct memtx__environment *environment);
void memtx__snapshot_close(struct memtx__snapshot *snapshot);
int memtx__snapshot_renew(struct memtx__snapshot *snapshot);
void memtx__snapshot_reset(struct memtx__snapshot *snapshot);
/* The chunk's bytes, borrowed until the pages are freed, which only the writer does. */
int memtx__snapshot_chunk(const unsigned char **bytes, size_t *n_bytes, struct memtx__snapshot *snapshot,
                          enum memtx__chunk_kind kind, uint64_t chunk, uint32_t layer, uint32_t kv_head);

/* ---- lock.c ---- */

/* Takes the right to write a store: MEMTX_E_BUSY when another process or this one has it. */
int memtx__lock_take(struct memtx__lock **out, const char *path);
void memtx__lock_release(struct memtx__lock *lock);

#endif
