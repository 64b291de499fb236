/* A memory: one stream of rows appended to a store, and attention over the k best of them (Memorizing Transformers,
 * section 3.2, with what DESIGN 3 and 4 decide about positions and the blend).
 *
 *     memtx_memory_open -> _begin_document -> { _begin_segment; _attend at each memory layer; _append for each; _commit
 * } ..
 *       -> _end_document -> .. -> _close
 *
 * Keys and queries are given before RoPE; the memory turns by the store's RoPE facts. A handle is one stream and
 * belongs to one thread at a time.
 */
#ifndef MEMTX_MEMORY_H
#define MEMTX_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memtx/status.h"
#include "memtx/store.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Where a retrieved key stands. Others' documents stand at delta either way. */
enum memtx_positions {
    MEMTX_POSITIONS_NEAR = 0, /* at distance min(true distance, delta) */
    MEMTX_POSITIONS_FIXED = 1 /* all at delta: the ablation */
};

enum memtx_retrieval {
    MEMTX_RETRIEVAL_EXACT = 0, /* the k rows of largest R(delta) q . k */
    MEMTX_RETRIEVAL_RANDOM = 1 /* k visible rows drawn without replacement: the control of every claim of gain */
};

struct memtx_memory_options {
    uint32_t k;                     /* neighbours for each query and head, 1..4,096; default 32 */
    uint32_t delta;                 /* virtual distance in tokens; default 2,048 */
    enum memtx_positions positions; /* default near */
    enum memtx_retrieval retrieval; /* default exact */
    const float *tau;               /* [n_layers][n_heads] temperatures, copied; NULL: 1 */
    float lambda;                   /* weight of age, per thousand tokens; default 0 */
    uint32_t most_tokens;           /* the longest segment that will attend or append; default 512 */
    uint64_t seed;                  /* of random retrieval */
};

/* One retrieved row. */
struct memtx_hit {
    int64_t row; /* id; -1 where fewer than k rows were visible */
    float logit; /* as it entered the softmax */
};

typedef struct memtx_memory memtx_memory;

MEMTX_API struct memtx_memory_options memtx_memory_options_default(void);

/* A memory over a store, which stays the caller's and must outlive it. *out is the caller's; NULL on failure.
 * MEMTX_E_INVALID (an option out of range), MEMTX_E_NO_MEMORY. */
MEMTX_API int memtx_memory_open(memtx_memory **out, memtx_store *store, const struct memtx_memory_options *options);
MEMTX_API void memtx_memory_close(memtx_memory *memory); /* NULL is fine; what waits is written by memtx_store_close */

/* A new document: rows appended from now on are its own, and a search sees these alone. A name that the store has
 * already gets "#2", "#3" .. added. Names are cut to 255 bytes. MEMTX_E_INVALID (another is open), MEMTX_E_NO_MEMORY.
 */
MEMTX_API int memtx_memory_begin_document(memtx_memory *memory, const char *name);

/* The document is complete: `hash` is that of its text, or NULL. What waits is written. MEMTX_E_INVALID
 * (none is open, or rows are appended and not committed: it then stays open), or what the store says. */
MEMTX_API int memtx_memory_end_document(memtx_memory *memory, const uint8_t hash[MEMTX_HASH_BYTES]);

/* Before the first attend of a segment: fixes what is visible until the commit. MEMTX_E_IO .. as the store says. */
MEMTX_API int memtx_memory_begin_segment(memtx_memory *memory);

/* Attention over the k best rows of a layer.
 *   V_mem[n_q][n_heads][d]    the blend of their values        LSE_mem[n_q][n_heads]  log-sum-exp of their logits,
 *                             (zero where nothing was found)                          -inf where nothing was found
 *   hits[n_q][n_heads][k]     or NULL
 *   queries[n_q][n_heads][d]  before RoPE                      positions[n_q]         their places in the document
 * Logits are tau * scale * R(min(distance, delta)) q . k - lambda * age. MEMTX_E_INVALID (a layer that is not kept,
 * more queries than most_tokens, a query that is not finite), MEMTX_E_CORRUPT (a damaged chunk). Uses all threads.
 * Exact search costs n_q * n_heads * rows * d multiplications. */
MEMTX_API int memtx_memory_attend(float *V_mem, float *LSE_mem, struct memtx_hit *hits, memtx_memory *memory,
                                  uint32_t layer, size_t n_q, const float *queries, const uint64_t *positions);

/* Stages rows of a layer: keys[n_tokens][n_kv_heads][d] before RoPE, values the same. They follow what the layer staged
 * before, and are invisible until the commit. token_ids[n_tokens] and positions[n_tokens] must be equal in all layers
 * of a segment. MEMTX_E_INVALID (no document, a layer that is not kept, a number that the store's type cannot hold). */
MEMTX_API int memtx_memory_append(memtx_memory *memory, uint32_t layer, size_t n_tokens, const float *keys,
                                  const float *values, const uint32_t *token_ids, const uint64_t *positions);

/* Ends a segment: what every kept layer has staged becomes visible together, and durable as the store's durability
 * says. MEMTX_E_INVALID (layers have staged different numbers of rows: what they have staged is dropped),
 * MEMTX_E_NO_SPACE, MEMTX_E_IO: then the rows stay in RAM and visible, and the next commit tries again. */
MEMTX_API int memtx_memory_commit(memtx_memory *memory);

/* Rows that a search sees now. */
MEMTX_API uint64_t memtx_memory_n_visible(const memtx_memory *memory);

/* Token id, document and position of a row; MEMTX_E_NOT_FOUND for a row that is not visible. */
struct memtx_row_facts {
    uint64_t document;
    uint64_t position;
};
MEMTX_API int memtx_memory_row(struct memtx_row_facts *out, const memtx_memory *memory, uint64_t row);

/* ---- the blend (DESIGN 4) ------------------------------------------------------------------------------------------
 */

enum memtx_blend_mode {
    MEMTX_BLEND_JOINT = 0, /* one softmax over local and retrieved rows */
    MEMTX_BLEND_BIAS = 1,  /* joint with an offset for each head */
    MEMTX_BLEND_PAPER = 2, /* the paper's gate: a constant for each head, independent of content */
    MEMTX_BLEND_OFF = 3    /* local attention, bit for bit */
};

struct memtx_gate {
    enum memtx_blend_mode mode;
    const float *bias; /* b_h [n_heads]; NULL: 0 */
};

/* out[n_q][n_heads][d] = g V_mem + (1 - g) V_loc with g = sigmoid(a (LSE_mem - LSE_loc) + b_h), a = 1 for joint and
 * bias, 0 for paper. Where LSE_mem is -inf (nothing retrieved) and in mode off, out is V_loc to the bit. out may be
 * V_loc. Uses all threads. */
MEMTX_API void memtx_blend(float *out, const float *V_loc, const float *LSE_loc, const float *V_mem,
                           const float *LSE_mem, const struct memtx_gate *gate, size_t n_q, size_t n_heads, size_t d);

/* "joint", "bias", "paper", "off", and back: MEMTX_E_INVALID for another name. */
MEMTX_API const char *memtx_blend_name(enum memtx_blend_mode mode);
MEMTX_API int memtx_blend_parse(enum memtx_blend_mode *out, const char *name);

#ifdef __cplusplus
}
#endif
#endif
