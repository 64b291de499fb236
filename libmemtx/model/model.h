/* The runtime's inside.
 *
 *   config.c    numbers of the model, read from the file and bounded
 *   weights.c   tensors to their working type
 *   kv_cache.c  sinks and window of a stream; what is evicted
 *   block.c     one block, forward
 *   stream.c    a stream: modes, scratch
 *   document.c  documents of a stream: begun, gone on with, ended; what goes to the memory
 *   state.c     the running state as bytes
 *   model.c     loading, the forward of a segment, logits and loss
 */
#ifndef MEMTX_MODEL_MODEL_H
#define MEMTX_MODEL_MODEL_H

#include "base/arena.h"
#include "math/linear.h"
#include "math/loss.h"
#include "math/rope.h"
#include "memtx/gguf.h"
#include "memtx/model.h"
#include "text/tokens_hash.h"

enum { MEMTX__HEAD_TILE = 4096 }; /* vocabulary entries of one product of the output layer */

struct memtx__config {
    char architecture[32];
    char name[128];
    uint32_t n_layers, n_channels, n_heads, n_kv_heads, head_size, n_feed_forward, n_vocabulary, context;
    uint32_t rope_dims;
    double rope_base;
    float norm_epsilon;
};

/* MEMTX_E_FORMAT, MEMTX_E_UNSUPPORTED: the text names key, value and range. */
int memtx__config_read(struct memtx__config *out, const memtx_gguf *gguf);

struct memtx__layer_weights {
    const float *attention_norm;    /* [C] */
    struct memtx__linear qkv;       /* [(H + 2G) D][C]: rows of q, then k, then v */
    struct memtx__linear output;    /* [C][H D] */
    const float *feed_forward_norm; /* [C] */
    struct memtx__linear gate_up;   /* [2F][C]: rows of gate, then up */
    struct memtx__linear down;      /* [C][F] */
};

struct memtx__weights {
    struct memtx__layer_weights *layers;
    const float *output_norm;   /* [C] */
    struct memtx__linear *head; /* tiles of MEMTX__HEAD_TILE entries, the last one shorter */
    size_t n_head_tiles;
    const struct memtx_tensor *embedding; /* [V][C], read from the file row by row */
    float *rope_factors;                  /* [rope_dims / 2] or NULL */
    unsigned char *block;                 /* all packed weights and norms */
    size_t block_bytes;
};

int memtx__weights_load(struct memtx__weights *out, const struct memtx__config *config, const memtx_gguf *gguf,
                        enum memtx__weight_type type);
void memtx__weights_release(struct memtx__weights *weights);

/* out[C]: the embedding of one token. */
void memtx__weights_embed(float *out, const struct memtx__weights *weights, uint32_t token, size_t n_channels);

struct memtx_model {
    memtx_gguf *gguf;
    memtx_tokenizer *tokenizer;
    struct memtx__config config;
    struct memtx__weights weights;
    enum memtx_weights weight_type;
    uint8_t fingerprint[MEMTX_FINGERPRINT_BYTES];
};

/* Keys and values that a stream holds: first the sinks, then the window, then the segment being run; keys before RoPE.
 */
struct memtx__kv_cache {
    size_t n_layers, n_kv_heads, head_size;
    size_t capacity;     /* rows */
    size_t most_sinks;   /* s */
    size_t most_window;  /* rows kept after a segment beside the sinks */
    size_t n_sinks;      /* of n_rows, the first */
    size_t n_rows;       /* before the segment being run */
    float *keys;         /* [n_layers][G][capacity][D] */
    float *values;       /* the same */
    uint64_t *positions; /* [capacity] */
    uint32_t *tokens;    /* [capacity] */
};

void memtx__kv_cache_take(struct memtx__kv_cache *cache, struct memtx__arena *arena);
float *memtx__kv_cache_keys(const struct memtx__kv_cache *cache, size_t layer);   /* [G][capacity][D] */
float *memtx__kv_cache_values(const struct memtx__kv_cache *cache, size_t layer); /* [G][capacity][D] */

/* Ends a segment of n tokens that stand behind n_rows: gives the number of rows that must leave, which are then those
 * from *first on; memtx__kv_cache_drop takes them out. */
size_t memtx__kv_cache_end_segment(size_t *first, struct memtx__kv_cache *cache, size_t n);
void memtx__kv_cache_drop(struct memtx__kv_cache *cache, size_t first, size_t n);

/* out[n][G][D] from n rows of one layer's keys or values (as memtx__kv_cache_keys gives them). */
void memtx__kv_cache_gather(float *out, const struct memtx__kv_cache *cache, const float *rows, size_t first, size_t n);

struct memtx_stream {
    const memtx_model *model;
    struct memtx_stream_options options;
    float *bias; /* [H]: a copy of options.gate.bias */
    size_t band; /* of attention; 0 but in mode window */
    struct memtx__kv_cache cache;
    struct memtx__rope rope;
    struct memtx__linear_plans *plans;
    struct memtx__arena arena;       /* everything below and the cache */
    uint64_t position;               /* of the next token in its document */
    uint64_t state_position;         /* of the running state that is stored */
    size_t n_since_state;            /* segments */
    struct memtx__tokens_hash *hash; /* of the document's tokens so far */
    size_t n_last;                   /* tokens of the last segment */
    size_t n_threads;                /* for which the scratch was taken */
    bool layers_kept[MEMTX_MAX_LAYERS];
    const bool *memory_layers; /* layers_kept, or NULL: no memory */

    float *x;                        /* [T][C] residual */
    float *normed;                   /* [T][C] */
    float *qkv;                      /* [T][(H + 2G) D] */
    float *queries, *turned_queries; /* [T][H][D] before and after RoPE */
    float *turned_keys;              /* [G][capacity][D] */
    float *attended, *attention_lse; /* [T][H][D], [T][H] */
    float *remembered, *memory_lse;  /* [T][H][D], [T][H] */
    float *gate_up, *activated;      /* [T][2F], [T][F] */
    float *logits;                   /* [T][MEMTX__HEAD_TILE] */
    struct memtx__loss_row *losses;  /* [T] */
    float *attention_scratch;
    float *evicted_keys, *evicted_values; /* [T][G][D] */
    unsigned char *state_bytes;           /* [memtx_model_state_bytes], where states are stored */
};

/* Ends a segment of n tokens: what leaves the window goes to the memory, in the order of the text. */
int memtx__stream_end_segment(struct memtx_stream *stream, size_t n);

/* One block over the n tokens of x, in place (Llama; Memorizing Transformers, section 3.1 at memory layers). */
int memtx__block_fwd(struct memtx_stream *stream, size_t layer, size_t n);

#endif
