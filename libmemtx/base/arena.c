/* Arena (arena.h). */
#include "base/arena.h"

#include <stdint.h>

#include "base/alloc.h"

void *memtx__arena_take(struct memtx__arena *arena, size_t n_items, size_t item_bytes)
{
    size_t bytes, end;
    if (!memtx__mul(&bytes, n_items, item_bytes) || bytes > SIZE_MAX - MEMTX__ALIGN ||
        !memtx__add(&end, arena->used_bytes, (bytes + MEMTX__ALIGN - 1) & ~((size_t)MEMTX__ALIGN - 1))) {
        arena->used_bytes = SIZE_MAX;
        return NULL;
    }
    void *piece = arena->block ? arena->block + arena->used_bytes : NULL;
    arena->used_bytes = end;
    return piece;
}

int memtx__arena_reserve(struct memtx__arena *arena)
{
    int status = memtx__alloc_raw(&arena->block, arena->used_bytes, 1);
    if (!status) {
        arena->size_bytes = arena->used_bytes;
        arena->used_bytes = 0;
    }
    return status;
}

void memtx__arena_release(struct memtx__arena *arena)
{
    memtx__free(arena->block);
    *arena = (struct memtx__arena){0};
}
