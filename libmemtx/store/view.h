/* Where rows stand: the addresses of chunks, in the tail or in LMDB's map, for one memory over a store.
 *
 * The memory that appends sees the newest, what is not written yet out of the tail. Every other one is a reader: it sees
 * what is on disk as its snapshot has it, with a catalogue of its own, and shares nothing that changes with the writer
 * or other threads. (On the heap there is only one thread, and a reader sees the newest too.)
 *
 * A full chunk never moves and is never rewritten; it goes only when it holds no visible row. So an address that was
 * looked up once serves until then, and a search over a million rows does not look up a thousand chunks again for every
 * segment. Between memtx__view_begin and memtx__view_end the snapshot is held, and what is visible stays.
 */
#ifndef MEMTX_STORE_VIEW_H
#define MEMTX_STORE_VIEW_H

#include "store/store.h"

struct memtx__view {
    memtx_store *store;
    bool is_reader;
    const struct memtx__catalogue *catalogue; /* what is there, from begin to end */
    struct memtx__snapshot *snapshot;         /* NULL on the heap */
    struct memtx__catalogue own;              /* a reader's, as of own_id */
    uint64_t own_id;
    const unsigned char *
        *rows; /* [n_chunks_held][n_pairs][2]: first rows of full chunks on disk, NULL: not looked up */
    size_t n_chunks_held;
};

int memtx__view_open(struct memtx__view *out, memtx_store *store, bool is_reader);
void memtx__view_close(struct memtx__view *view);

/* Holds what is visible now. One thread; while it is held any number of threads may read what was returned. */
int memtx__view_begin(struct memtx__view *view);
void memtx__view_end(struct memtx__view *view);

/* The first row of a chunk that holds visible rows, borrowed until the view ends. A chunk that this process did not
 * write is checked against its checksum when it is first looked up: MEMTX_E_CORRUPT. MEMTX_E_INVALID (the pair is not
 * kept). */
int memtx__view_chunk(const unsigned char **rows, struct memtx__view *view, enum memtx__chunk_kind kind, uint32_t layer,
                      uint32_t kv_head, uint64_t chunk);

/* The token ids of a chunk that holds visible rows, u32 each, little-endian; borrowed until the view ends.
 * MEMTX_E_CORRUPT. */
int memtx__view_tokens(const unsigned char **tokens, struct memtx__view *view, uint64_t chunk);

#endif
