/* An arena: one block sized before the run, handed out in order. A module that needs scratch takes its pieces twice:
 * once from an arena without a block, which only counts, and once from the real one. So the size is never written down
 * a second time, and the segment loop allocates nothing. */
#ifndef MEMTX_BASE_ARENA_H
#define MEMTX_BASE_ARENA_H

#include <stddef.h>

struct memtx__arena {
    unsigned char *block; /* NULL while counting */
    size_t used_bytes;
    size_t size_bytes;
};

/* n_items * item_bytes bytes, 64-byte aligned, not cleared; NULL while counting. Sums saturate, so that a size that
 * does not fit is refused by memtx__arena_reserve and not wrapped round. */
void *memtx__arena_take(struct memtx__arena *arena, size_t n_items, size_t item_bytes);

/* Allocates what the counting pass added up, and starts handing out from its beginning. */
int memtx__arena_reserve(struct memtx__arena *arena);

void memtx__arena_release(struct memtx__arena *arena);

#endif
