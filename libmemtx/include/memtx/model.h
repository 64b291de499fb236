/* The bundled runtime: a decoder (RMSNorm, RoPE, grouped-query attention, SwiGLU) read from a GGUF file, and streams
 * that run texts through it a segment at a time, in the modes of DESIGN 3.
 *
 *     memtx_model_load -> memtx_stream_open
 *         -> { memtx_model_begin_document; { memtx_model_forward_segment; memtx_model_nll } ..;
 *              memtx_model_end_document } ..
 *         -> memtx_stream_close -> memtx_model_close
 *
 * A model is read-only once loaded and may serve several streams; a stream belongs to one thread at a time and uses all
 * OpenMP threads. The segment loop does not allocate.
 */
#ifndef MEMTX_MODEL_H
#define MEMTX_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "memtx/memory.h"
#include "memtx/status.h"
#include "memtx/store.h"
#include "memtx/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The type in which weights are multiplied. bf16 rounds the weights and the inputs of every product; sums stay f32. */
enum memtx_weights { MEMTX_WEIGHTS_F32 = 0, MEMTX_WEIGHTS_BF16 = 1 };

enum memtx_mode {
    MEMTX_MODE_SEGMENT = 0, /* a query sees the tokens of its segment up to itself */
    MEMTX_MODE_WINDOW = 1,  /* exactly the last W tokens, itself included */
    MEMTX_MODE_XL = 2,      /* the W cached before the segment, and its segment (Transformer-XL) */
    MEMTX_MODE_SINKS = 3,   /* the first s tokens, then as xl (StreamingLLM) */
    MEMTX_MODE_FULL = 4,    /* everything, up to the model's context */
    MEMTX_MODE_MEMORY = 5   /* as sinks, and at memory layers the k best of its memory (Memorizing Transformers) */
};

struct memtx_model_facts {
    const char *path; /* of the file, borrowed from the model */
    char architecture[32];
    char name[128];
    uint32_t n_layers, n_channels, n_heads, n_kv_heads, head_size, n_feed_forward, n_vocabulary, context;
    uint32_t rope_dims;
    double rope_base;
    enum memtx_weights weights;
    size_t weight_bytes; /* in their working type */
    uint8_t fingerprint[MEMTX_FINGERPRINT_BYTES];
};

typedef struct memtx_model memtx_model;
typedef struct memtx_stream memtx_stream;

/* Loads a GGUF file of architecture llama with its tokenizer; weights are converted once to their working type. *out is
 * the caller's; NULL on failure. MEMTX_E_NOT_FOUND, MEMTX_E_FORMAT (not GGUF, damaged, missing or misshapen tensors),
 * MEMTX_E_UNSUPPORTED (another architecture, tensor type, tokenizer; bf16 on a processor without it),
 * MEMTX_E_NO_MEMORY. */
MEMTX_API int memtx_model_load(memtx_model **out, const char *path, enum memtx_weights weights);
MEMTX_API void memtx_model_close(memtx_model *model); /* NULL is fine; after its streams */
MEMTX_API void memtx_model_info(struct memtx_model_facts *out, const memtx_model *model);
MEMTX_API const memtx_tokenizer *memtx_model_tokenizer(const memtx_model *model); /* borrowed */

/* What a store for this model keeps: everything but row type, heads_kept and settings, which the caller sets.
 * rope_factors is borrowed from the model. */
MEMTX_API void memtx_model_store_spec(struct memtx_store_spec *out, const memtx_model *model);

struct memtx_stream_options {
    enum memtx_mode mode;    /* default sinks */
    uint32_t window;         /* W, default 512; in mode window at least 1 */
    uint32_t segment;        /* T, the longest segment, default 512 */
    uint32_t sinks;          /* s, default 4 */
    uint32_t most_tokens;    /* mode full: of the longest text; 0: the model's context */
    memtx_memory *memory;    /* mode memory: borrowed, must outlive the stream */
    struct memtx_gate gate;  /* mode memory: default joint; bias [n_heads] is copied */
    uint32_t state_segments; /* mode memory: the running state is stored every so many segments and at the end of a
                              * document, and after the first; 0 (default): never */
    bool allow_stale;        /* mode memory: take a memory that another model of the same shape has filled */
};

MEMTX_API struct memtx_stream_options memtx_stream_options_default(void);

/* A stream over a model, with all the scratch it will need. *out is the caller's; NULL on failure. MEMTX_E_INVALID (an
 * option out of range), MEMTX_E_MISMATCH (a memory made for another model), MEMTX_E_CONTEXT (sinks, window and segment,
 * or most_tokens, are more than the model's context), MEMTX_E_NO_MEMORY. */
MEMTX_API int memtx_stream_open(memtx_stream **out, const memtx_model *model,
                                const struct memtx_stream_options *options);
MEMTX_API void memtx_stream_close(memtx_stream *stream); /* NULL is fine */

/* A new document: window, sinks and position are empty. `name` is that of the document in the memory. */
MEMTX_API int memtx_model_begin_document(memtx_stream *stream, const char *name);

/* Runs tokens [n], 1..T of them, through the model, and then moves what leaves the window into the memory. *hidden
 * points to the last block's output after the final norm, [n][n_channels], borrowed until the next call.
 * MEMTX_E_INVALID (n, or a token outside the vocabulary), MEMTX_E_CONTEXT (mode full past most_tokens), or what the
 * memory says; after a failure only memtx_model_reset and memtx_stream_close are of use. */
MEMTX_API int memtx_model_forward_segment(const float **hidden, memtx_stream *stream, const uint32_t *tokens, size_t n);

/* nll[n_rows], in nats, of targets[n_rows] as predicted from rows first_row .. of the last segment. MEMTX_E_INVALID (a
 * row that the segment did not have, a target outside the vocabulary). */
MEMTX_API int memtx_model_nll(float *nll, memtx_stream *stream, size_t first_row, size_t n_rows,
                              const uint32_t *targets);

/* logits[n_rows][n_vocabulary] of rows first_row .. of the last segment. */
MEMTX_API int memtx_model_logits(float *logits, memtx_stream *stream, size_t first_row, size_t n_rows);

/* The document is complete: in mode memory the window and then the sinks are appended too, after a last running state.
 * The stream is then empty. */
MEMTX_API int memtx_model_end_document(memtx_stream *stream);

/* Drops window, sinks and position. A document that is open in the memory is given up there (memtx/memory.h); a new one
 * may begin, also after a failure. */
MEMTX_API void memtx_model_reset(memtx_stream *stream);

/* Tokens that the stream has read of its document. */
MEMTX_API uint64_t memtx_model_position(const memtx_stream *stream);

/* ---- going on later (DESIGN 3, suspended) ----------------------------------------------------- */

/* Mode memory: stores the running state now, between two segments, and gives the document up there, so that
 * memtx_model_continue_document can go on with it, in this process or another. What the memory says. */
MEMTX_API int memtx_model_suspend(memtx_stream *stream);

/* Mode memory: goes on with document `name` of the store where its running state was taken, or from its beginning where
 * it has none. tokens[n_tokens] are those of its text from the beginning: of these the first that were read must be the
 * same; the next segment begins at memtx_model_position. The state's last hidden row stands as a segment of one token,
 * so that memtx_model_nll scores the next token. Nothing in the store changes unless all fits. MEMTX_E_NOT_FOUND,
 * MEMTX_E_MISMATCH (another text; read with another W, T or s), MEMTX_E_CORRUPT, or what the store says. */
MEMTX_API int memtx_model_continue_document(memtx_stream *stream, const char *name, const uint32_t *tokens,
                                            size_t n_tokens);

/* The same from and to bytes, for modes memory and sinks: the stream alone, no document. save writes at most
 * memtx_model_state_bytes; MEMTX_E_INVALID before the first segment. */
MEMTX_API size_t memtx_model_state_bytes(const memtx_stream *stream);
MEMTX_API int memtx_model_save_state(unsigned char *bytes, size_t *n_bytes, const memtx_stream *stream);
MEMTX_API int memtx_model_load_state(memtx_stream *stream, const unsigned char *bytes, size_t n_bytes,
                                     const uint32_t *tokens, size_t n_tokens);

/* "segment", "window", "xl", "sinks", "full", "memory", and back: MEMTX_E_INVALID for another name. */
MEMTX_API const char *memtx_mode_name(enum memtx_mode mode);
MEMTX_API int memtx_mode_parse(enum memtx_mode *out, const char *name);

#ifdef __cplusplus
}
#endif
#endif
