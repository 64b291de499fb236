/* The three types in which keys and values are kept, and their conversion: IEEE binary16, bfloat16, float32. To half
 * types rounding is to nearest, ties to even; what is too large for f16 becomes infinity, NaN stays NaN. */
#ifndef MEMTX_MATH_HALF_H
#define MEMTX_MATH_HALF_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

float memtx__f16_to_f32(uint16_t half);
uint16_t memtx__f32_to_f16(float value);

static inline float memtx__bf16_to_f32(uint16_t half)
{
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint16_t memtx__f32_to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7FFFFFFF) > 0x7F800000) {
        return (uint16_t)(bits >> 16 | 0x40); /* a quiet NaN: rounding might carry it into infinity */
    }
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/* n values at once, `half` of any alignment; the F16C instructions where the processor has them. */
void memtx__f16_to_f32_n(float *out, const void *half, size_t n);
void memtx__f32_to_f16_n(void *half, const float *values, size_t n);
void memtx__bf16_to_f32_n(float *out, const void *half, size_t n);
void memtx__f32_to_bf16_n(void *half, const float *values, size_t n);

#endif
