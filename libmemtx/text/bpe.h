/* Byte-pair encoding of one piece: which neighbours merge, in the file's order of merges. */
#ifndef MEMTX_TEXT_BPE_H
#define MEMTX_TEXT_BPE_H

#include <stddef.h>
#include <stdint.h>

#include "memtx/gguf.h"
#include "text/vocabulary.h"

struct memtx__merge {
    uint32_t left;
    uint32_t right;
    uint32_t merged;
};

struct memtx__bpe {
    uint32_t byte_ids[256];      /* the token of each byte, or MEMTX_NO_TOKEN */
    struct memtx__merge *merges; /* [n_merges] by rank, the first to be applied first */
    size_t n_merges;
    uint32_t *slots; /* from (left, right) to the rank: a hash table with open addressing */
    size_t n_slots;  /* a power of two, at least twice the merges */
};

/* Reads tokenizer.ggml.merges. On failure *out is empty. MEMTX_E_FORMAT (the text names the merge),
 * MEMTX_E_NO_MEMORY. */
int memtx__bpe_create(struct memtx__bpe *out, const memtx_gguf *gguf, const struct memtx__spellings *spellings,
                      const struct memtx__vocabulary *vocabulary);
void memtx__bpe_destroy(struct memtx__bpe *bpe); /* an empty one is fine */

/* What one thread needs while it merges; starts as zeros, grows with the longest piece. */
struct memtx__bpe_scratch {
    struct memtx__bpe_symbol *symbols;
    size_t n_symbols_held;
    uint64_t *heap;
    size_t n_heap;
    size_t n_heap_held;
};

void memtx__bpe_scratch_release(struct memtx__bpe_scratch *scratch);

/* Merges a piece into ids[0 .. *n_ids), which has room for one for each byte. O(n log n). MEMTX_E_FORMAT (a byte
 * without a token: the text names it), MEMTX_E_NO_MEMORY. */
int memtx__bpe_encode(uint32_t *ids, size_t *n_ids, struct memtx__bpe_scratch *scratch, const struct memtx__bpe *bpe,
                      struct memtx_text piece);

#endif
