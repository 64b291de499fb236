/* Where rows stand: the addresses of chunks, in the tail or in LMDB's map, for one reader of a store.
 *
 * A full chunk never moves and is never rewritten; it goes only when it is older than every visible row. So an address
 * that was looked up once serves until then, and a search over a million rows does not look up a thousand chunks again
 * for every segment. Between memtx__view_begin and memtx__view_end the snapshot is held, and what is visible stays.
 */
#ifndef MEMTX_STORE_VIEW_H
#define MEMTX_STORE_VIEW_H

#include "store/store.h"

struct memtx__view {
    memtx_store *store;
    struct memtx__snapshot *snapshot; /* NULL on the heap */
    const unsigned char *
        *rows; /* [n_chunks_held][n_pairs][2]: first rows of full chunks on disk, NULL: not looked up */
    size_t n_chunks_held;
};

int memtx__view_open(struct memtx__view *out, memtx_store *store);
void memtx__view_close(struct memtx__view *view);

/* Holds what is visible now. One thread; while it is held any number of threads may read what was returned. */
int memtx__view_begin(struct memtx__view *view);
void memtx__view_end(struct memtx__view *view);

/* The first row of a chunk that holds visible rows, borrowed until the view ends. A chunk that an earlier process wrote
 * is checked against its checksum when it is first looked up: MEMTX_E_CORRUPT. */
int memtx__view_chunk(const unsigned char **rows, struct memtx__view *view, enum memtx__chunk_kind kind, uint32_t layer,
                      uint32_t kv_head, uint64_t chunk);

#endif
