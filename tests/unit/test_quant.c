/* Dequantising and half-precision conversion: against blocks packed here from known numbers, against figures of an
 * independent implementation (tests/reference), and F16C against the conversion in software. All comparisons are of
 * bits: nothing here is allowed to round differently. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/rng.h"
#include "math/half.h"
#include "math/quant.h"
#include "memtx/gguf.h"
#include "quant_reference.h"

enum { MAX_VALUES = 256, N_ROUNDS = 200 };

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The library's values of `bytes`, which lie in a block of exactly their size at an odd address; true when each has the
 * wanted bits. */
static bool gives(int type, const unsigned char *bytes, size_t n_bytes, const float *wanted, size_t n_values)
{
    bool equal = true;
    unsigned char *copy = malloc(n_bytes + 1);
    float *got = malloc(n_values * sizeof *got);
    memcpy(copy + 1, bytes, n_bytes);
    memtx__dequantise(got, type, copy + 1, n_values);
    for (size_t i = 0; i < n_values && equal; i++) {
        equal = bits_of(got[i]) == bits_of(wanted[i]);
        if (!equal) {
            cr_log_error("%s: value %zu is %.9g, not %.9g", memtx_tensor_type_name(type), i, (double)got[i],
                         (double)wanted[i]);
        }
    }
    free(got);
    free(copy);
    return equal;
}

/* ---- blocks packed from known numbers --------------------------------------------------------- */

/* A scale and its f16 at `at`. */
static float put_scale(unsigned char *at, struct memtx__rng *rng)
{
    uint16_t half = memtx__f32_to_f16(memtx__rng_signed(rng) * 0.125F);
    memtx__put_u16(at, half);
    return memtx__f16_to_f32(half);
}

/* The types of 32 values: `n_bits` bits each, zero point `zero` or, where it is -1, a minimum. */
static bool small_type_holds(int type, int n_bits, int zero, struct memtx__rng *rng)
{
    unsigned char block[64] = {0};
    float wanted[32];
    float d = put_scale(block, rng), m = zero < 0 ? put_scale(block + 2, rng) : 0.0F;
    unsigned char *fifth = block + (zero < 0 ? 4 : 2), *nibbles = fifth + (n_bits == 5 ? 4 : 0);
    for (int i = 0; i < 32; i++) {
        int q = (int)memtx__rng_below(rng, (uint64_t)1 << n_bits);
        nibbles[i % 16] |= (unsigned char)((q & 15) << (i < 16 ? 0 : 4));
        if (n_bits == 5) {
            fifth[i / 8] |= (unsigned char)(q >> 4 << i % 8);
        }
        wanted[i] = zero < 0 ? d * (float)q + m : d * (float)(q - zero);
    }
    return gives(type, block, (size_t)(nibbles + 16 - block), wanted, 32);
}

Test(quant, types_of_32_values)
{
    struct memtx__rng rng = memtx__rng_create(1, 0);
    for (int round = 0; round < N_ROUNDS; round++) {
        cr_assert(small_type_holds(MEMTX_TENSOR_Q4_0, 4, 8, &rng));
        cr_assert(small_type_holds(MEMTX_TENSOR_Q4_1, 4, -1, &rng));
        cr_assert(small_type_holds(MEMTX_TENSOR_Q5_0, 5, 16, &rng));
        cr_assert(small_type_holds(MEMTX_TENSOR_Q5_1, 5, -1, &rng));
    }
}

Test(quant, q8_0)
{
    struct memtx__rng rng = memtx__rng_create(2, 0);
    for (int round = 0; round < N_ROUNDS; round++) {
        unsigned char block[34];
        float wanted[32], d = put_scale(block, &rng);
        for (int i = 0; i < 32; i++) {
            int q = (int)memtx__rng_below(&rng, 256) - 128;
            block[2 + i] = (unsigned char)q;
            wanted[i] = d * (float)q;
        }
        cr_assert(gives(MEMTX_TENSOR_Q8_0, block, sizeof block, wanted, 32));
    }
}

/* Packs the six-bit scales and minima of the eight groups of a Q4_K or Q5_K block. */
static void pack_scales(unsigned char *packed, const int *scales, const int *mins)
{
    for (int g = 0; g < 4; g++) {
        packed[g] = (unsigned char)(scales[g] | scales[g + 4] >> 4 << 6);
        packed[g + 4] = (unsigned char)(mins[g] | mins[g + 4] >> 4 << 6);
        packed[g + 8] = (unsigned char)((scales[g + 4] & 15) | (mins[g + 4] & 15) << 4);
    }
}

static bool large_type_holds(int type, int n_bits, struct memtx__rng *rng)
{
    unsigned char block[176] = {0};
    int scales[8], mins[8];
    float wanted[256];
    float d = put_scale(block, rng), d_min = put_scale(block + 2, rng);
    unsigned char *fifth = block + 16, *nibbles = block + (n_bits == 5 ? 48 : 16);
    for (int g = 0; g < 8; g++) {
        scales[g] = (int)memtx__rng_below(rng, 64);
        mins[g] = (int)memtx__rng_below(rng, 64);
    }
    pack_scales(block + 4, scales, mins);
    for (int v = 0; v < 256; v++) {
        int q = (int)memtx__rng_below(rng, (uint64_t)1 << n_bits), g = v / 32;
        nibbles[v / 64 * 32 + v % 32] |= (unsigned char)((q & 15) << (g % 2 ? 4 : 0));
        if (n_bits == 5) {
            fifth[v % 32] |= (unsigned char)(q >> 4 << g);
        }
        wanted[v] = d * (float)scales[g] * (float)q - d_min * (float)mins[g];
    }
    return gives(type, block, (size_t)(nibbles + 128 - block), wanted, 256);
}

Test(quant, q4_k_and_q5_k)
{
    struct memtx__rng rng = memtx__rng_create(3, 0);
    for (int round = 0; round < N_ROUNDS; round++) {
        cr_assert(large_type_holds(MEMTX_TENSOR_Q4_K, 4, &rng));
        cr_assert(large_type_holds(MEMTX_TENSOR_Q5_K, 5, &rng));
    }
}

Test(quant, q6_k)
{
    struct memtx__rng rng = memtx__rng_create(4, 0);
    for (int round = 0; round < N_ROUNDS; round++) {
        unsigned char block[210] = {0};
        float wanted[256], d = put_scale(block + 208, &rng);
        for (int g = 0; g < 16; g++) {
            block[192 + g] = (unsigned char)memtx__rng_below(&rng, 256);
        }
        for (int v = 0; v < 256; v++) {
            int q = (int)memtx__rng_below(&rng, 64), scale = block[192 + v / 16], quarter = v % 128 / 32;
            block[v / 128 * 64 + v % 64] |= (unsigned char)((q & 15) << (quarter < 2 ? 0 : 4));
            block[128 + v / 128 * 32 + v % 32] |= (unsigned char)(q >> 4 << 2 * quarter);
            wanted[v] = d * (float)(scale < 128 ? scale : scale - 256) * (float)(q - 32);
        }
        cr_assert(gives(MEMTX_TENSOR_Q6_K, block, sizeof block, wanted, 256));
    }
}

Test(quant, plain_types)
{
    unsigned char f32[4 * 37], f16[2 * 37], bf16[2 * 37];
    float wanted[37], from_f16[37], from_bf16[37];
    struct memtx__rng rng = memtx__rng_create(5, 0);
    for (int i = 0; i < 37; i++) {
        wanted[i] = memtx__rng_signed(&rng);
        memtx__put_u32(f32 + 4 * i, bits_of(wanted[i]));
        memtx__put_u16(f16 + 2 * i, memtx__f32_to_f16(wanted[i]));
        memtx__put_u16(bf16 + 2 * i, memtx__f32_to_bf16(wanted[i]));
        from_f16[i] = memtx__f16_to_f32(memtx__f32_to_f16(wanted[i]));
        from_bf16[i] = memtx__bf16_to_f32(memtx__f32_to_bf16(wanted[i]));
        cr_assert_float_eq(from_f16[i], wanted[i], 0x1p-11F);
        cr_assert_float_eq(from_bf16[i], wanted[i], 0x1p-8F);
    }
    cr_assert(gives(MEMTX_TENSOR_F32, f32, sizeof f32, wanted, 37));
    cr_assert(gives(MEMTX_TENSOR_F16, f16, sizeof f16, from_f16, 37));
    cr_assert(gives(MEMTX_TENSOR_BF16, bf16, sizeof bf16, from_bf16, 37));
}

/* ---- figures of another implementation -------------------------------------------------------- */

Test(quant, reference)
{
    size_t n = sizeof quant_references / sizeof quant_references[0];
    for (size_t r = 0; r < n; r++) {
        const struct quant_reference *reference = &quant_references[r];
        float wanted[MAX_VALUES];
        size_t block_values, block_bytes;
        for (size_t i = 0; i < reference->n_values; i++) {
            wanted[i] = float_of(reference->values[i]);
        }
        cr_assert(memtx__quant_layout(&block_values, &block_bytes, reference->type));
        cr_assert(gives(reference->type, reference->bytes, reference->n_values / block_values * block_bytes, wanted,
                        reference->n_values));
    }
}

Test(quant, layout)
{
    size_t values, bytes;
    cr_assert(memtx__quant_layout(&values, &bytes, MEMTX_TENSOR_Q6_K));
    cr_assert_eq(values, 256);
    cr_assert_eq(bytes, 210);
    cr_assert_not(memtx__quant_layout(&values, &bytes, 4));
    cr_assert_not(memtx__quant_layout(&values, &bytes, -1));
    cr_assert_not(memtx__quant_layout(&values, &bytes, 1 << 30));
}

/* ---- half precision --------------------------------------------------------------------------- */

/* By the definition of binary16. */
static double value_of_half(int half)
{
    int exponent = half >> 10 & 31, fraction = half & 1023;
    double size = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return half & 0x8000 ? -size : size;
}

Test(half, every_f16_both_ways)
{
    for (int half = 0; half < 65536; half++) {
        float value = memtx__f16_to_f32((uint16_t)half);
        uint16_t back = memtx__f32_to_f16(value);
        if ((half & 0x7C00) == 0x7C00) {
            cr_assert_eq(isnan(value), !!(half & 0x3FF), "%04x", (unsigned)half);
            cr_assert_eq(!!signbit(value), half >> 15, "%04x", (unsigned)half);
            cr_assert_eq(back | (half & 0x3FF ? 0x200 : 0), half | (half & 0x3FF ? 0x200 : 0), "%04x", (unsigned)half);
        } else {
            cr_assert_eq((double)value, value_of_half(half), "%04x", (unsigned)half);
            cr_assert_eq(back, half, "%04x", (unsigned)half);
        }
    }
}

/* Between neighbours the nearer is taken, in the middle the even one. */
Test(half, f16_rounding)
{
    for (int half = 0; half < 0x7BFF; half++) {
        float middle = (float)((value_of_half(half) + value_of_half(half + 1)) / 2); /* exact: 12 bits */
        cr_assert_eq(memtx__f32_to_f16(middle), half + (half & 1), "%04x", (unsigned)half);
        cr_assert_eq(memtx__f32_to_f16(nextafterf(middle, 0.0F)), half, "%04x", (unsigned)half);
        cr_assert_eq(memtx__f32_to_f16(nextafterf(middle, 1e9F)), half + 1, "%04x", (unsigned)half);
        cr_assert_eq(memtx__f32_to_f16(-middle), (half + (half & 1)) | 0x8000, "%04x", (unsigned)half);
    }
    cr_assert_eq(memtx__f32_to_f16(nextafterf(65520.0F, 0.0F)), 0x7BFF);
    cr_assert_eq(memtx__f32_to_f16(65520.0F), 0x7C00);
    cr_assert_eq(memtx__f32_to_f16(-3e38F), 0xFC00);
    cr_assert_eq(memtx__f32_to_f16(-0x1p-149F), 0x8000);
}

Test(half, bf16)
{
    for (uint32_t half = 0; half < 65536; half++) {
        float value = memtx__bf16_to_f32((uint16_t)half);
        cr_assert_eq(bits_of(value), half << 16);
        if (isnan(value)) {
            cr_assert_eq(memtx__f32_to_bf16(value), half | 0x40);
        } else {
            cr_assert_eq(memtx__f32_to_bf16(value), half);
        }
        if ((half & 0x7F80) != 0x7F80) {
            cr_assert_eq(memtx__f32_to_bf16(float_of(half << 16 | 0x8000)), half + (half & 1));
            cr_assert_eq(memtx__f32_to_bf16(float_of(half << 16 | 0x7FFF)), half);
            cr_assert_eq(memtx__f32_to_bf16(float_of(half << 16 | 0x8001)), half + 1);
        }
    }
    cr_assert_eq(memtx__f32_to_bf16(float_of(0x7F800001)), 0x7FC0); /* not infinity */
}

/* Many at once equal one at a time, NaNs included: every f16, and a sample of every region of f32. */
Test(half, arrays_equal_single_numbers)
{
    enum { N = 65536 };
    unsigned char *halves = malloc(2 * N + 1), *back = malloc(2 * N + 1);
    float *values = malloc(N * sizeof *values);
    for (uint32_t i = 0; i < N; i++) {
        memtx__put_u16(halves + 1 + 2 * i, (uint16_t)i);
    }
    memtx__f16_to_f32_n(values, halves + 1, N);
    for (uint32_t i = 0; i < N; i++) {
        cr_assert_eq(bits_of(values[i]), bits_of(memtx__f16_to_f32((uint16_t)i)), "%04x", (unsigned)i);
    }
    struct memtx__rng rng = memtx__rng_create(6, 0);
    for (int round = 0; round < 64; round++) {
        for (uint32_t i = 0; i < N; i++) {
            values[i] = float_of((uint32_t)memtx__rng_u64(&rng));
            if (round % 2) { /* the exponents in which an f16 rounds, and its neighbours */
                values[i] = float_of((bits_of(values[i]) & 0x807FFFFF) | (100 + i % 48) << 23);
            }
        }
        memtx__f32_to_f16_n(back + 1, values, N);
        for (uint32_t i = 0; i < N; i++) {
            cr_assert_eq(memtx__get_u16(back + 1 + 2 * i), memtx__f32_to_f16(values[i]), "%08x",
                         (unsigned)bits_of(values[i]));
        }
    }
    free(values);
    free(back);
    free(halves);
}

/* Lengths around the vectors': nothing is left out, nothing beyond is written. */
Test(half, array_lengths)
{
    for (size_t n = 0; n <= 33; n++) {
        unsigned char *f16 = malloc(2 * n + 2), *bf16 = malloc(2 * n + 2);
        float *values = calloc(n + 1, sizeof *values), *back = malloc((n + 1) * sizeof *back);
        for (size_t i = 0; i < n; i++) {
            values[i] = (float)(i + 1) * 0.25F; /* exact in both */
        }
        back[n] = 7.0F;
        memtx__put_u16(f16 + 2 * n, 0xA5A5);
        memtx__put_u16(bf16 + 2 * n, 0xA5A5);
        memtx__f32_to_f16_n(f16, values, n);
        memtx__f32_to_bf16_n(bf16, values, n);
        memtx__f16_to_f32_n(back, f16, n);
        cr_assert(!n || !memcmp(back, values, n * sizeof *values), "f16, %zu", n);
        memset(back, 0, n * sizeof *back);
        memtx__bf16_to_f32_n(back, bf16, n);
        cr_assert(!n || !memcmp(back, values, n * sizeof *values), "bf16, %zu", n);
        cr_assert_eq(back[n], 7.0F);
        cr_assert_eq(memtx__get_u16(f16 + 2 * n), 0xA5A5, "%zu", n);
        cr_assert_eq(memtx__get_u16(bf16 + 2 * n), 0xA5A5, "%zu", n);
        free(back);
        free(values);
        free(bf16);
        free(f16);
    }
}
