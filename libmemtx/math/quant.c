/* Dequantising (quant.h): the block layouts of GGUF's tensor types.
 *
 * Takes the bytes of whole blocks at any alignment, gives float32. Each type is one plain loop over blocks whose inner
 * loops have fixed lengths, so that compilers vectorise them; products and sums are rounded in the order in which the
 * format's own implementation rounds them, so results are equal bit for bit. f16 scales and all else little-endian.
 *
 *     type   values  bytes of a block
 *     Q4_0   32      d f16, 16 nibble pairs                           d * (q - 8)
 *     Q4_1   32      d f16, m f16, 16 nibble pairs                    d * q + m
 *     Q5_0   32      d f16, fifth bits u32, 16 nibble pairs           d * (q - 16)
 *     Q5_1   32      d f16, m f16, fifth bits u32, 16 nibble pairs    d * q + m
 *     Q8_0   32      d f16, 32 int8                                   d * q
 *     Q4_K   256     d f16, m f16, 12 packed scales, 128 nibble pairs               d * s * q - m * t
 *     Q5_K   256     d f16, m f16, 12 packed scales, 32 fifth bits, 128 nibble pairs   the same
 *     Q6_K   256     128 low nibble pairs, 64 pairs of high bits, 16 int8 scales, d f16   d * s * (q - 32)
 *
 * In the types of 32, byte i holds value i in its low and value i + 16 in its high nibble. */
#include "math/quant.h"

#include "base/bytes.h"
#include "math/half.h"
#include "memtx/gguf.h"

enum { SMALL = 32, HALF = SMALL / 2, LARGE = 256 };

bool memtx__quant_layout(size_t *values_per_block, size_t *bytes_per_block, int type)
{
    switch (type) {
#define LAYOUT_CASE(name, value, values, bytes)                                                                        \
    case value:                                                                                                        \
        *values_per_block = values;                                                                                    \
        *bytes_per_block = bytes;                                                                                      \
        return true;
        MEMTX_TENSOR_TYPE_TABLE(LAYOUT_CASE)
#undef LAYOUT_CASE
    default:
        return false;
    }
}

static float get_f16(const unsigned char *bytes)
{
    return memtx__f16_to_f32(memtx__get_u16(bytes));
}

static void dequantise_f32(float *restrict out, const unsigned char *restrict bytes, size_t n_values)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    /* The loop below takes five times as long: compilers do not see through it. */
    memcpy(out, bytes, n_values * sizeof *out);
#else
    for (size_t i = 0; i < n_values; i++) {
        out[i] = memtx__get_f32(bytes + 4 * i);
    }
#endif
}

static void dequantise_q4_0(float *restrict out, const unsigned char *restrict block, size_t n_blocks)
{
    for (; n_blocks; n_blocks--, block += 18, out += SMALL) {
        float d = get_f16(block);
        const unsigned char *q = block + 2;
        for (int i = 0; i < HALF; i++) {
            out[i] = d * (float)((q[i] & 15) - 8);
            out[i + HALF] = d * (float)((q[i] >> 4) - 8);
        }
    }
}

static void dequantise_q4_1(float *restrict out, const unsigned char *restrict block, size_t n_blocks)
{
    for (; n_blocks; n_blocks--, block += 20, out += SMALL) {
        float d = get_f16(block), m = get_f16(block + 2);
        const unsigned char *q = block + 4;
        for (int i = 0; i < HALF; i++) {
            out[i] = d * (float)(q[i] & 15) + m;
            out[i + HALF] = d * (float)(q[i] >> 4) + m;
        }
    }
}

static void dequantise_q5_0(float *restrict out, const unsigned char *restrict block, size_t n_blocks)
{
    for (; n_blocks; n_blocks--, block += 22, out += SMALL) {
        float d = get_f16(block);
        uint32_t fifth = memtx__get_u32(block + 2);
        const unsigned char *q = block + 6;
        for (int i = 0; i < HALF; i++) {
            out[i] = d * (float)((q[i] & 15) + (int)(fifth >> i << 4 & 16) - 16);
            out[i + HALF] = d * (float)((q[i] >> 4) + (int)(fifth >> (i + HALF) << 4 & 16) - 16);
        }
    }
}

static void dequantise_q5_1(float *restrict out, const unsigned char *restrict block, size_t n_blocks)
{
    for (; n_blocks; n_blocks--, block += 24, out += SMALL) {
        float d = get_f16(block), m = get_f16(block + 2);
        uint32_t fifth = memtx__get_u32(block + 4);
        const unsigned char *q = block + 8;
        for (int i = 0; i < HALF; i++) {
            out[i] = d * (float)((q[i] & 15) + (int)(fifth >> i << 4 & 16)) + m;
            out[i + HALF] = d * (float)((q[i] >> 4) + (int)(fifth >> (i + HALF) << 4 & 16)) + m;
        }
    }
}

static void dequantise_q8_0(float *restrict out, const unsigned char *restrict block, size_t n_blocks)
{
    for (; n_blocks; n_blocks--, block += 34, out += SMALL) {
        float d = get_f16(block);
        const signed char *q = (const signed char *)block + 2;
        for (int i = 0; i < SMALL; i++) {
            out[i] = d * (float)q[i];
        }
    }
}

/* The 6-bit scale and minimum of group g (0..7) of a Q4_K or Q5_K block: the first four groups in the low six bits of
 * bytes 0..3 and 4..7, the last four in the nibbles of bytes 8..11 below the two high bits of the former. */
static void get_scale_and_min(int *scale, int *min, const unsigned char *packed, int g)
{
    if (g < 4) {
        *scale = packed[g] & 63;
        *min = packed[g + 4] & 63;
    } else {
        *scale = (packed[g + 4] & 15) | (packed[g - 4] >> 6 << 4);
        *min = packed[g + 4] >> 4 | (packed[g] >> 6 << 4);
    }
}

/* 32 bytes of nibbles hold two groups: the low ones, then the high ones. */
static void dequantise_q4_k(float *restrict out, const unsigned char *restrict block, size_t n_blocks)
{
    for (; n_blocks; n_blocks--, block += 144, out += LARGE) {
        float d = get_f16(block), d_min = get_f16(block + 2);
        for (int g = 0; g < 8; g++) {
            int scale, min, shift = g % 2 * 4;
            get_scale_and_min(&scale, &min, block + 4, g);
            float s = d * (float)scale, m = d_min * (float)min;
            const unsigned char *q = block + 16 + g / 2 * SMALL;
            for (int i = 0; i < SMALL; i++) {
                out[g * SMALL + i] = s * (float)(q[i] >> shift & 15) - m;
            }
        }
    }
}

static void dequantise_q5_k(float *restrict out, const unsigned char *restrict block, size_t n_blocks)
{
    for (; n_blocks; n_blocks--, block += 176, out += LARGE) {
        float d = get_f16(block), d_min = get_f16(block + 2);
        const unsigned char *fifth = block + 16;
        for (int g = 0; g < 8; g++) {
            int scale, min, shift = g % 2 * 4;
            get_scale_and_min(&scale, &min, block + 4, g);
            float s = d * (float)scale, m = d_min * (float)min;
            const unsigned char *q = block + 48 + g / 2 * SMALL;
            for (int i = 0; i < SMALL; i++) {
                out[g * SMALL + i] = s * (float)((q[i] >> shift & 15) + (fifth[i] >> g << 4 & 16)) - m;
            }
        }
    }
}

/* A half of 128 values has 64 low bytes (values i and i + 64 share one for i < 64) and 32 high ones (each holds the two
 * high bits of values i, i + 32, i + 64 and i + 96); 16 values share a scale. */
static void dequantise_q6_k(float *restrict out, const unsigned char *restrict block, size_t n_blocks)
{
    for (; n_blocks; n_blocks--, block += 210, out += LARGE) {
        float d = get_f16(block + 208);
        for (int g = 0; g < LARGE / 16; g++) {
            const unsigned char *low = block + g / 8 * 64 + g % 4 * 16;
            const unsigned char *high = block + 128 + g / 8 * 32 + g % 2 * 16;
            int low_shift = g % 8 / 4 * 4, high_shift = g % 8 / 2 * 2;
            float s = d * (float)(signed char)block[192 + g];
            for (int i = 0; i < 16; i++) {
                int q = (low[i] >> low_shift & 15) | (high[i] >> high_shift & 3) << 4;
                out[g * 16 + i] = s * (float)(q - 32);
            }
        }
    }
}

void memtx__dequantise(float *out, int type, const unsigned char *bytes, size_t n_values)
{
    switch (type) {
    case MEMTX_TENSOR_F32:
        dequantise_f32(out, bytes, n_values);
        break;
    case MEMTX_TENSOR_F16:
        memtx__f16_to_f32_n(out, bytes, n_values);
        break;
    case MEMTX_TENSOR_BF16:
        memtx__bf16_to_f32_n(out, bytes, n_values);
        break;
    case MEMTX_TENSOR_Q4_0:
        dequantise_q4_0(out, bytes, n_values / SMALL);
        break;
    case MEMTX_TENSOR_Q4_1:
        dequantise_q4_1(out, bytes, n_values / SMALL);
        break;
    case MEMTX_TENSOR_Q5_0:
        dequantise_q5_0(out, bytes, n_values / SMALL);
        break;
    case MEMTX_TENSOR_Q5_1:
        dequantise_q5_1(out, bytes, n_values / SMALL);
        break;
    case MEMTX_TENSOR_Q8_0:
        dequantise_q8_0(out, bytes, n_values / SMALL);
        break;
    case MEMTX_TENSOR_Q4_K:
        dequantise_q4_k(out, bytes, n_values / LARGE);
        break;
    case MEMTX_TENSOR_Q5_K:
        dequantise_q5_k(out, bytes, n_values / LARGE);
        break;
    case MEMTX_TENSOR_Q6_K:
        dequantise_q6_k(out, bytes, n_values / LARGE);
        break;
    default:
        break;
    }
}
