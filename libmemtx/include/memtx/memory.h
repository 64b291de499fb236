/* A memory: one stream of rows appended to a store, and attention over the k best of them (Memorizing Transformers,
 * section 3.2, with what DESIGN 3 and 4 decide about positions and the blend).
 *
 *     memtx_memory_open -> _begin_document
 *         -> { _begin_segment; _attend at each memory layer; _append for each; _commit } ..
 *         -> _end_document -> .. -> _close
 *
 * One that only asks (options.reader) has no document of its own:
 *
 *     memtx_memory_open -> { _begin_segment; _attend at each memory layer; _end_segment } .. -> _close
 *
 * Keys and queries are given before RoPE; the memory turns by the store's RoPE facts. A handle is one stream and
 * belongs to one thread at a time. Over one store on disk one handle appends, and any number of readers ask meanwhile in
 * threads of their own; each sees what was on disk when its segment began.
 */
#ifndef MEMTX_MEMORY_H
#define MEMTX_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memtx/index.h"
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

/* Which documents a search sees (DESIGN 3). The one that is being appended to is always among them. */
enum memtx_scope {
    MEMTX_SCOPE_DOCUMENT = 0, /* the one being appended to, alone */
    MEMTX_SCOPE_NAMED = 1,    /* those of scope_names */
    MEMTX_SCOPE_ALL = 2
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
    bool reader;                    /* asks only; default false */
    enum memtx_scope scope;         /* default document */
    const char *const *scope_names; /* [n_scope_names] for scope named; copied */
    size_t n_scope_names;
    const char *index;                  /* how the best rows are found, copied. NULL or "exact": exact search;
                                         * "exact:f32", "exact:bf16", "exact:i8": the same with a first pass over all
                                         * rows in that type, where the processor is fast in it (default: i8, which
                                         * misses nothing, as f32; bf16 may); "cluster", "cluster@share=0.05,from=32640": by
                                         * clusters, of which each query visits a share (default 0.05) once so many rows
                                         * are in sight (default 0; fewer are searched exactly), and which who appends
                                         * saves into index files; else the spec of an index (memtx/index.h) */
    memtx_index_resolver resolve_index; /* finds it; NULL: only exact is known */
    uint64_t run_rows;                  /* rows that one index covers, rounded up to chunks; 0 (default): 128 chunks */
    bool seal_in_background;            /* indexes are built in a thread: what is found then depends on timing */
    /* Called by every attend before it searches, in the calling thread, with the queries as they were given; borrowed
     * until it returns. For whoever measures what a memory is asked. NULL (default): none. */
    void (*asked)(void *context, uint32_t layer, size_t n_q, const float *queries, const uint64_t *positions);
    void *asked_context;
};

/* One retrieved row. */
struct memtx_hit {
    int64_t row; /* id; -1 where fewer than k rows were visible */
    float logit; /* as it entered the softmax */
};

typedef struct memtx_memory memtx_memory;

MEMTX_API struct memtx_memory_options memtx_memory_options_default(void);

/* A memory over a store, which stays the caller's and must outlive it. *out is the caller's; NULL on failure.
 * A reader may be opened in any thread; with scope_names, which are looked up in the store, only while none appends.
 * MEMTX_E_INVALID (an option out of range; a reader of its own document; not a reader over a read-only store),
 * MEMTX_E_NOT_FOUND (a name of the scope), MEMTX_E_BUSY (another memory appends to the store already),
 * MEMTX_E_NO_MEMORY, or what the store says. */
MEMTX_API int memtx_memory_open(memtx_memory **out, memtx_store *store, const struct memtx_memory_options *options);
/* NULL is fine. What waits is written by memtx_store_close; with clusters, whose files are written here, now. */
MEMTX_API void memtx_memory_close(memtx_memory *memory);

/* A new document: rows appended from now on are its own. A name that the store has already gets "#2", "#3" .. added.
 * Names are cut to 255 bytes. MEMTX_E_INVALID (another is open; a reader), MEMTX_E_NO_MEMORY. */
MEMTX_API int memtx_memory_begin_document(memtx_memory *memory, const char *name);

/* Opens a document of the store again, to go on with it where its running state was taken (memtx_store_state), or from
 * its beginning where there is none: rows that came after it are dead from now on. On disk when this returns.
 * MEMTX_E_NOT_FOUND, MEMTX_E_INVALID, or what the store says. */
MEMTX_API int memtx_memory_reopen_document(memtx_memory *memory, const char *name);

/* The next commit carries a running state of the open document: bytes[n_bytes], 1 .. 2^32, whatever the caller needs to
 * go on after n_read tokens, whose memtx_tokens_hash is `hash`. It stands on disk in one transaction with the rows, in
 * the place of the one before, when that commit returns; when the commit fails the one before stays. Borrowed until
 * then. MEMTX_E_INVALID (no document is open, a size out of range). */
MEMTX_API int memtx_memory_set_state(memtx_memory *memory, const void *bytes, size_t n_bytes, uint64_t n_read,
                                     const uint8_t hash[MEMTX_HASH_BYTES]);

/* The document is complete: `hash` is memtx_tokens_hash of its tokens, or NULL. What waits is written. MEMTX_E_INVALID
 * (none is open, or rows are appended and not committed: it then stays open), or what the store says. */
MEMTX_API int memtx_memory_end_document(memtx_memory *memory, const uint8_t hash[MEMTX_HASH_BYTES]);

/* The open document as it stands, its name as the store has it. MEMTX_E_INVALID (none is open). */
MEMTX_API int memtx_memory_document(struct memtx_document *out, const memtx_memory *memory);

/* Gives the open document up where it is: rows that are committed stay, as those of a document that broke off; what is
 * appended and not committed is dropped. Without an open document it does nothing. */
MEMTX_API void memtx_memory_abandon_document(memtx_memory *memory);

/* Before the first attend of a segment: fixes what is visible until the commit. MEMTX_E_IO .. as the store says. */
MEMTX_API int memtx_memory_begin_segment(memtx_memory *memory);

/* Ends a segment without a commit: a reader's way. Without one it does nothing. */
MEMTX_API void memtx_memory_end_segment(memtx_memory *memory);

/* Attention over the k best rows of a layer.
 *   V_mem[n_q][n_heads][d]    the blend of their values        LSE_mem[n_q][n_heads]  log-sum-exp of their logits,
 *                             (zero where nothing was found)                          -inf where nothing was found
 *                             Heads whose kv head the store does not keep find nothing.
 *   hits[n_q][n_heads][k]     or NULL
 *   queries[n_q][n_heads][d]  before RoPE                      positions[n_q]         their places in the document
 * Logits are tau * scale * R(min(distance, delta)) q . k - lambda * age. MEMTX_E_INVALID (a layer of which nothing is
 * kept, more queries than most_tokens, a query that is not finite), MEMTX_E_CORRUPT (a damaged chunk). Uses all
 * threads. Exact search costs n_q * n_heads * rows * d multiplications. */
MEMTX_API int memtx_memory_attend(float *V_mem, float *LSE_mem, struct memtx_hit *hits, memtx_memory *memory,
                                  uint32_t layer, size_t n_q, const float *queries, const uint64_t *positions);

/* Stages rows of a layer: keys[n_tokens][n_kv_heads][d] before RoPE, values the same; of these the store takes the kv
 * heads that it keeps. They follow what the layer staged before, and are invisible until the commit.
 * token_ids[n_tokens] and positions[n_tokens] must be equal in all layers of a segment. MEMTX_E_INVALID (no document, a
 * layer of which nothing is kept, a number to be kept that the store's type cannot hold). */
MEMTX_API int memtx_memory_append(memtx_memory *memory, uint32_t layer, size_t n_tokens, const float *keys,
                                  const float *values, const uint32_t *token_ids, const uint64_t *positions);

/* Ends a segment: what every kept layer has staged becomes visible together, and durable as the store's durability
 * says. MEMTX_E_INVALID (layers have staged different numbers of rows: what they have staged is dropped),
 * MEMTX_E_NO_SPACE, MEMTX_E_IO: then the rows stay in RAM and visible, and the next commit tries again (in vain
 * when LMDB's own meta page was what failed: then the store must be opened anew). */
MEMTX_API int memtx_memory_commit(memtx_memory *memory);

/* What a memory was opened with and over; not while another thread appends to the store. options.tau is NULL;
 * store.spec.rope_factors is borrowed from the store. */
struct memtx_memory_facts {
    struct memtx_memory_options options;
    struct memtx_store_facts store;
};
MEMTX_API void memtx_memory_info(struct memtx_memory_facts *out, const memtx_memory *memory);

/* What a user ought to know of the index files, one line: what was damaged, or could not be built. "" when there is
 * nothing. Borrowed until the next call. */
MEMTX_API const char *memtx_memory_warning(const memtx_memory *memory);

/* Builds the index files that are due: all full spans of rows on disk, with what is being built in the background first;
 * for whoever has appended and wants the next reader to find them. Clusters are saved as far as they have been made,
 * from what was asked. Between segments. MEMTX_E_INTERRUPTED (those that are finished stay); what else goes wrong is a
 * warning, and those rows are searched exactly. */
MEMTX_API int memtx_memory_seal(memtx_memory *memory, const struct memtx_store_upkeep_options *upkeep);

/* Builds the index files of a store in a directory anew, with index, resolve_index and run_rows of the options (index
 * NULL, run_rows 0: as the files have it; without an index nothing is done where there are none); the newest rows, fewer than run_rows,
 * stay without. Files of clusters, which are made from the queries of a reading, cannot be built: those that are whole
 * stay, those that are damaged go, and the next reading makes them anew. No memory may be open over the store.
 * MEMTX_E_UNSUPPORTED (clusters for a store without them or with other files too; clusters with run_rows),
 * MEMTX_E_INVALID (a spec; read-only; no directory), MEMTX_E_BUSY,
 * MEMTX_E_INTERRUPTED (the files that are finished stay), MEMTX_E_CORRUPT (a chunk), MEMTX_E_NO_SPACE, MEMTX_E_IO. */
MEMTX_API int memtx_memory_rebuild(memtx_store *store, const struct memtx_memory_options *options,
                                   const struct memtx_store_upkeep_options *upkeep);

/* The store that it stands over; borrowed. */
MEMTX_API memtx_store *memtx_memory_store(const memtx_memory *memory);

/* Rows that a search sees now. */
MEMTX_API uint64_t memtx_memory_n_visible(const memtx_memory *memory);

/* Document and position of a row; MEMTX_E_NOT_FOUND for a row that is not visible. */
struct memtx_row_facts {
    uint64_t document;
    uint64_t position;
};
MEMTX_API int memtx_memory_row(struct memtx_row_facts *out, const memtx_memory *memory, uint64_t row);

/* token_ids[n] of the rows with these ids, which must be visible in the segment that has begun, in any order.
 * MEMTX_E_NOT_FOUND names the first that is not; MEMTX_E_INVALID (no segment), MEMTX_E_CORRUPT. Each run of ids of one
 * chunk costs a look-up and a checksum of 4 bytes a row. */
MEMTX_API int memtx_memory_tokens(uint32_t *token_ids, memtx_memory *memory, size_t n, const int64_t *ids);

/* keys[n][d] and values[n][d] (either may be NULL) of the rows with these ids, as float32, before RoPE. ids[n] must be
 * visible in the segment that has begun, in any order; MEMTX_E_NOT_FOUND names the first that is not, and what keys and
 * values then hold is not said. MEMTX_E_INVALID (no segment, a layer or kv head that is not kept),
 * MEMTX_E_CORRUPT (a damaged chunk), MEMTX_E_NO_MEMORY. Uses all threads. Beside the n rows it looks at the address of
 * every chunk in sight, so ask for many at once. */
MEMTX_API int memtx_memory_gather(float *keys, float *values, memtx_memory *memory, uint32_t layer, uint32_t kv_head,
                                  size_t n, const int64_t *ids);

/* ---- the blend (DESIGN 4) --------------------------------------------------------------------- */

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
