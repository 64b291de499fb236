/* Conversion of half-precision numbers (half.h).
 *
 * The functions of one number are the specification, in integer arithmetic; where the processor has F16C or AVX-512,
 * arrays go through these eight or sixteen at a time and give the same bits (a signalling NaN becomes a quiet one in
 * all). Half-precision numbers are little-endian bytes, as files and stores hold them. */
#include "math/half.h"

#include "base/bytes.h"
#include "math/clones.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define F16C __attribute__((target("avx2,f16c")))
#define AVX512 __attribute__((target("avx512f")))
#endif

enum {
    F32_INFINITY = 0x7F800000,
    F32_QUIET = 0x00400000,
    F32_MIN_F16_NORMAL = 0x38800000, /* 2^-14 */
    F32_ABOVE_F16 = 0x47800000,      /* 2^16; from 65,520 on rounding carries into infinity by itself */
    EXPONENT_SHIFT = (127 - 15) << 23
};

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

float memtx__f16_to_f32(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t exponent = half >> 10 & 31;
    uint32_t fraction = half & 0x3FF;
    if (exponent == 0) {
        return float_of(sign | bits_of((float)fraction * 0x1p-24F)); /* zero and subnormal numbers, exactly */
    }
    if (exponent == 31) {
        return float_of(sign | F32_INFINITY | fraction << 13 | (fraction ? F32_QUIET : 0));
    }
    return float_of(sign | ((exponent << 23) + (fraction << 13) + EXPONENT_SHIFT));
}

uint16_t memtx__f32_to_f16(float value)
{
    uint32_t bits = bits_of(value);
    uint32_t sign = bits >> 16 & 0x8000;
    uint32_t size = bits & 0x7FFFFFFF;
    if (size > F32_INFINITY) {
        return (uint16_t)(sign | 0x7E00 | (size >> 13 & 0x3FF));
    }
    if (size >= F32_ABOVE_F16) {
        return (uint16_t)(sign | 0x7C00);
    }
    if (size < F32_MIN_F16_NORMAL) {
        /* One half has a last bit worth 2^-24, which is that of a subnormal f16: the addition rounds. */
        return (uint16_t)(sign | (bits_of(float_of(size) + 0.5F) - bits_of(0.5F)));
    }
    return (uint16_t)(sign | (size - EXPONENT_SHIFT + 0xFFF + (size >> 13 & 1)) >> 13);
}

#if defined(F16C)
/* Each converts as many eights, or sixteens, as there are and returns how many numbers that was. */
AVX512 static size_t f16_to_f32_sixteens(float *out, const unsigned char *half, size_t n)
{
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        _mm512_storeu_ps(out + i, _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(half + 2 * i))));
    }
    return i;
}

F16C static size_t f16_to_f32_eights(float *out, const unsigned char *half, size_t n)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128((const void *)(half + 2 * i))));
    }
    return i;
}

F16C static size_t f32_to_f16_eights(unsigned char *half, const float *values, size_t n)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m128i eight = _mm256_cvtps_ph(_mm256_loadu_ps(values + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        _mm_storeu_si128((void *)(half + 2 * i), eight);
    }
    return i;
}

/* Every processor with AVX2 that has been made has F16C; not every compiler lets F16C itself be asked for. */
static int have_f16c(void)
{
    return __builtin_cpu_supports("avx2");
}
#endif

void memtx__f16_to_f32_n(float *out, const void *half, size_t n)
{
    const unsigned char *bytes = half;
    size_t i = 0;
#if defined(F16C)
    if (__builtin_cpu_supports("avx512f")) {
        i = f16_to_f32_sixteens(out, bytes, n);
    } else if (have_f16c()) {
        i = f16_to_f32_eights(out, bytes, n);
    }
#endif
    for (; i < n; i++) {
        out[i] = memtx__f16_to_f32(memtx__get_u16(bytes + 2 * i));
    }
}

void memtx__f32_to_f16_n(void *half, const float *values, size_t n)
{
    unsigned char *bytes = half;
    size_t i = 0;
#if defined(F16C)
    if (have_f16c()) {
        i = f32_to_f16_eights(bytes, values, n);
    }
#endif
    for (; i < n; i++) {
        memtx__put_u16(bytes + 2 * i, memtx__f32_to_f16(values[i]));
    }
}

MEMTX__CLONES static void bf16_to_f32(float *out, const unsigned char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        out[i] = memtx__bf16_to_f32(memtx__get_u16(bytes + 2 * i));
    }
}

void memtx__bf16_to_f32_n(float *out, const void *half, size_t n)
{
    bf16_to_f32(out, half, n);
}

void memtx__f32_to_bf16_n(void *half, const float *values, size_t n)
{
    unsigned char *bytes = half;
    for (size_t i = 0; i < n; i++) {
        memtx__put_u16(bytes + 2 * i, memtx__f32_to_bf16(values[i]));
    }
}
