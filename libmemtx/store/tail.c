/* The tail: chunks in RAM (store.h). A slot holds one chunk of every pair: keys and values in turn, each in 64 KiB laid
 * out as LMDB lays out its pages, so that rows are 64-byte aligned in both places, then the token ids. A chunk's header
 * goes along with its rows. Slots that are
 * written are kept and used again: a reading that goes on does not allocate. */
#include "store/store.h"

#include <string.h>

#include "base/alloc.h"

enum { CHUNK_STRIDE_BYTES = MEMTX__CHUNK_BYTES + MEMTX__LMDB_PAGE_HEADER_BYTES };

int memtx__tail_reach(struct memtx__tail *tail, uint64_t chunk)
{
    size_t n_wanted = (size_t)(chunk - tail->first_chunk) + 1;
    int status = memtx__grow(&tail->slots, &tail->n_slots_held, n_wanted, sizeof *tail->slots);
    tail->slot_bytes = 2 * tail->n_pairs * CHUNK_STRIDE_BYTES + 4 * (size_t)tail->chunk_rows;
    for (size_t i = 0; i < n_wanted && !status; i++) {
        if (!tail->slots[i]) {
            status = memtx__alloc_raw(&tail->slots[i], tail->slot_bytes, 1);
        }
    }
    return status;
}

unsigned char *memtx__tail_rows(const struct memtx__tail *tail, enum memtx__chunk_kind kind, size_t pair,
                                uint64_t chunk)
{
    return tail->slots[chunk - tail->first_chunk] + (2 * pair + (kind == MEMTX__VALUES)) * CHUNK_STRIDE_BYTES +
           MEMTX__LMDB_PAGE_HEADER_BYTES + MEMTX__CHUNK_HEADER_BYTES;
}

unsigned char *memtx__tail_tokens(const struct memtx__tail *tail, uint64_t chunk)
{
    return tail->slots[chunk - tail->first_chunk] + 2 * tail->n_pairs * CHUNK_STRIDE_BYTES;
}

void memtx__tail_drop(struct memtx__tail *tail, uint64_t first_kept)
{
    size_t n_dropped = (size_t)(first_kept - tail->first_chunk);
    n_dropped = n_dropped < tail->n_slots_held ? n_dropped : tail->n_slots_held;
    for (size_t step = 0; step < n_dropped; step++) { /* rotate: what was written goes behind what is kept */
        unsigned char *freed = tail->slots[0];
        memmove(tail->slots, tail->slots + 1, (tail->n_slots_held - 1) * sizeof *tail->slots);
        tail->slots[tail->n_slots_held - 1] = freed;
    }
    tail->first_chunk = first_kept;
}

void memtx__tail_release(struct memtx__tail *tail)
{
    for (size_t i = 0; i < tail->n_slots_held; i++) {
        memtx__free(tail->slots[i]);
    }
    memtx__free(tail->slots);
    *tail = (struct memtx__tail){0};
}
