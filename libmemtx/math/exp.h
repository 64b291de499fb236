/* exp(x) in float32, written so that loops over it become vector code.
 *
 * x = n ln 2 + r with |r| <= ln 2 / 2; exp(r) by a polynomial of degree 6 (relative error below 2e-7), times 2^n put
 * together from bits. Below -87 the result is 0, so that exp(-inf) is; above 88 it stays at exp(88); callers keep NaN
 * out, which has no integer to be rounded to.
 */
#ifndef MEMTX_MATH_EXP_H
#define MEMTX_MATH_EXP_H

#include <stdint.h>
#include <string.h>

static inline float memtx__exp(float x)
{
    const float lowest = -87.0F, highest = 88.0F;
    const float round_bits = 12582912.0F; /* 1.5 * 2^23: adding it rounds to an integer */
    float clamped = x < lowest ? lowest : x;
    clamped = clamped > highest ? highest : clamped;
    float shifted = clamped * 1.44269504F + round_bits;
    float n = shifted - round_bits;
    float r = clamped - n * 0.693145752F - n * 1.42860677e-6F;
    float p = 1.38888889e-3F;
    p = p * r + 8.33333333e-3F;
    p = p * r + 4.16666667e-2F;
    p = p * r + 1.66666667e-1F;
    p = p * r + 0.5F;
    p = p * r + 1.0F;
    p = p * r + 1.0F;
    int32_t exponent = ((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &exponent, sizeof scale);
    float result = p * scale;
    return x < lowest ? 0.0F : result;
}

#endif
