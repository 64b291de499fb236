/* The decoder and its memory written down plainly, in double, straight from DESIGN.md, sections 3 and 4: loops over all
 * tokens of a text, no cache, no segments in time, no store. What a query sees is a function of two places in the text.
 * Shares no code with the library but the reader of GGUF files and the rounding of rows. */
#ifndef MEMTX_TESTS_PLAIN_DECODER_H
#define MEMTX_TESTS_PLAIN_DECODER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memtx/model.h"

struct plain_options {
    enum memtx_mode mode;
    size_t window, segment, sinks; /* W, T, s */

    /* Mode memory. */
    uint32_t memory_layers; /* bit l: layer l */
    size_t k;
    size_t delta;
    bool fixed;         /* all rows at distance delta */
    bool store_is_full; /* rows stay in f32: not rounded to f16 */
    double a, b;        /* of the gate: joint 1, 0 */
    double lambda;      /* per thousand tokens */
    double tau;         /* temperature; 0 stands for 1 */
    size_t capacity;    /* of the memory in rows; 0: no limit */
};

/* Whether the token at place t_query attends locally to the one at t_key (DESIGN 3's table). */
bool plain_sees(const struct plain_options *options, size_t t_query, size_t t_key);

/* nll[n - 1] of tokens 1 .. n - 1 under the GGUF file at `path` (f32 tensors, no rope_freqs). */
void plain_nll(float *nll, const char *path, const struct plain_options *options, const uint32_t *tokens, size_t n);

#endif
