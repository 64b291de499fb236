/* What stands in the stores under tests/compat/, one for each version of the format: the same in all of them, so that
 * the test knows every number. Two documents, f16, layers 0 and 2 of 3; everything is a multiple of 1/8 that f16 holds.
 * From version 2 on there was also a third document, which was removed, and a fourth that is suspended: its running state
 * was written with its first segment, and a second one came after it; and an index file over the first chunk, of the
 * toy that tests/support/toy_index.h is.
 */
#ifndef SAMPLE_H
#define SAMPLE_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "memtx/store.h"

enum { SAMPLE_LAYERS = 3, SAMPLE_HEADS = 4, SAMPLE_KV_HEADS = 2, SAMPLE_HEAD_SIZE = 16, SAMPLE_ROPE_DIMS = 8 };

/* Rows of the two documents; the second one ends with its first two tokens, as a reading with two sinks does. */
enum { SAMPLE_FIRST_ROWS = 2100, SAMPLE_SECOND_ROWS = 70, SAMPLE_SEGMENT = 700, SAMPLE_SINKS = 2 };
enum { SAMPLE_REMOVED_ROWS = 40, SAMPLE_SUSPENDED_ROWS = 100, SAMPLE_STATE_ROWS = 50, SAMPLE_STATE_BYTES = 70000 };

static const float sample_rope_factors[SAMPLE_ROPE_DIMS / 2] = {1.0F, 1.5F, 2.0F, 8.0F};
static const uint8_t sample_hash[MEMTX_HASH_BYTES] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

static inline struct memtx_store_spec sample_spec(void)
{
    struct memtx_store_spec spec = {.n_layers = SAMPLE_LAYERS,
                                    .n_heads = SAMPLE_HEADS,
                                    .n_kv_heads = SAMPLE_KV_HEADS,
                                    .head_size = SAMPLE_HEAD_SIZE,
                                    .rope_dims = SAMPLE_ROPE_DIMS,
                                    .rope_base = 10000.0,
                                    .rope_factors = sample_rope_factors,
                                    .scale = 0.25F,
                                    .row_type = MEMTX_ROWS_F16};
    for (size_t i = 0; i < MEMTX_FINGERPRINT_BYTES; i++) {
        spec.fingerprint[i] = (uint8_t)(0xA0 + i);
    }
    memtx_store_keep_layer(&spec, 0);
    memtx_store_keep_layer(&spec, 2);
    strcpy(spec.tokenizer, "smollm");
    strcpy(spec.settings, "window=512 segment=512 sinks=4");
    return spec;
}

/* Element i of the key (kind 0) or value (kind 1) of a document's token at `position`. */
static inline float sample_number(unsigned document, uint64_t position, unsigned layer, unsigned kv_head, unsigned kind,
                                  unsigned i)
{
    uint64_t mixed = (position * 31 + document * 7 + layer * 5 + kv_head * 3 + kind * 2 + i * 11) * 2654435761U;
    return (float)((int)(mixed >> 16 & 255) - 128) / 8.0F;
}

static inline uint32_t sample_token(unsigned document, uint64_t position)
{
    return (uint32_t)(position * 13 + document * 1000) % 49152;
}

/* Byte i of the running state. */
static inline unsigned char sample_state(size_t i)
{
    return (unsigned char)(i * 7 + i / 256);
}

/* The position of row `row` of the second document, whose sinks come last. */
static inline uint64_t sample_second_position(uint64_t row)
{
    return row < SAMPLE_SECOND_ROWS - SAMPLE_SINKS ? row + SAMPLE_SINKS : row - (SAMPLE_SECOND_ROWS - SAMPLE_SINKS);
}

#endif
