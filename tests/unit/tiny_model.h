/* A tiny model with random weights, made by the tests themselves: a GGUF file of architecture llama in a temporary
 * folder, a few thousand parameters, a vocabulary of 256 bytes and some merges. Drives every fast test, so they need no
 * download. Its weights are large enough that attention is not flat and that each mode has a NLL of its own. */
#ifndef MEMTX_TESTS_TINY_MODEL_H
#define MEMTX_TESTS_TINY_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memtx/model.h"

enum { TINY_MERGES = 44, TINY_VOCABULARY = 256 + TINY_MERGES };

struct tiny_options {
    uint32_t n_layers;       /* 3 */
    uint32_t n_channels;     /* 32: not n_heads * head_size, so that nothing takes one for the other */
    uint32_t n_heads;        /* 6 */
    uint32_t n_kv_heads;     /* 2 */
    uint32_t head_size;      /* 8 */
    uint32_t n_feed_forward; /* 48 */
    uint32_t context;        /* 4,096 */
    uint32_t rope_dims;      /* 8; 0: positions are off */
    bool untied;             /* an output matrix of its own */
    uint64_t seed;

    /* What is wrong with the file; "" or 0 where nothing is. */
    const char *missing;      /* a tensor or a key that is left out */
    const char *misshapen;    /* a tensor with one row more */
    const char *extra;        /* a tensor that the model does not have */
    const char *architecture; /* in place of llama */
    const char *rope_scaling; /* llama.rope.scaling.type */
    const char *changed_key;  /* a number that stands in the file as changed_value */
    uint64_t changed_value;
};

struct tiny_model {
    char folder[64];
    char path[96];
};

struct tiny_options tiny_options_default(void);

/* Writes the file; tiny_model_remove removes it. Fails the test on an error. */
void tiny_model_write(struct tiny_model *out, const struct tiny_options *options);
void tiny_model_remove(const struct tiny_model *model);

/* The same, loaded in f32; the file may go at once, what is mapped stays. */
memtx_model *tiny_model_load(const struct tiny_options *options);

/* Random tokens of the tiny vocabulary. */
void tiny_tokens(uint32_t *tokens, size_t n, uint64_t seed);

/* Runs tokens through a stream that has begun a document, in segments of `segment`: nll[n - 1], of tokens 1 .. n - 1.
 */
void tiny_run(float *nll, memtx_stream *stream, const uint32_t *tokens, size_t n, size_t segment);

/* Opens a stream, begins a document, runs, closes. */
void tiny_nll(float *nll, const memtx_model *model, const struct memtx_stream_options *options, const uint32_t *tokens,
              size_t n);

/* A store on the heap for the model, keeping the layers whose bit is set, and a memory over it. */
struct tiny_memory {
    memtx_store *store;
    memtx_memory *memory;
};

enum { TINY_ALL_LAYERS = 0xFFFF };

void tiny_memory_open(struct tiny_memory *out, const memtx_model *model, uint32_t layers, enum memtx_row_type type,
                      const struct memtx_memory_options *options);
void tiny_memory_close(struct tiny_memory *memory);

/* The largest difference between two lists, and the mean of their differences without sign. */
double largest_difference(const float *a, const float *b, size_t n);
double mean_difference(const float *a, const float *b, size_t n);

#endif
