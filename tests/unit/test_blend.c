/* The blend: every mode against its formula, and what nothing retrieved means. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "hand.h"

enum { N_Q = 3 };

static float V_loc[N_Q][H][D], LSE_loc[N_Q][H], out[N_Q][H][D];

static void fill_blend(void)
{
    struct memtx__rng rng = memtx__rng_create(23, 0);
    for (size_t i = 0; i < N_Q * H; i++) {
        LSE_loc[i / H][i % H] = 3.0F * memtx__rng_signed(&rng);
        LSE_mem[i / H][i % H] = 3.0F * memtx__rng_signed(&rng);
        for (size_t d = 0; d < D; d++) {
            V_loc[i / H][i % H][d] = memtx__rng_signed(&rng);
            V_mem[i / H][i % H][d] = memtx__rng_signed(&rng);
        }
    }
}

Test(blend, every_mode_against_its_formula)
{
    const float bias[H] = {-4.0F, -1.0F, 0.0F, 2.5F};
    fill_blend();
    for (int mode = MEMTX_BLEND_JOINT; mode <= MEMTX_BLEND_OFF; mode++) {
        const struct memtx_gate gate = {(enum memtx_blend_mode)mode, bias};
        memtx_blend(out[0][0], V_loc[0][0], LSE_loc[0], V_mem[0][0], LSE_mem[0], &gate, N_Q, H, D);
        for (size_t i = 0; i < N_Q * H; i++) {
            const double b = mode == MEMTX_BLEND_JOINT ? 0 : (double)bias[i % H];
            const double a = mode == MEMTX_BLEND_PAPER ? 0 : 1;
            const double x = a * ((double)LSE_mem[i / H][i % H] - (double)LSE_loc[i / H][i % H]) + b;
            const double g = mode == MEMTX_BLEND_OFF ? 0 : 1 / (1 + exp(-x));
            for (size_t d = 0; d < D; d++) {
                double expected = g * (double)V_mem[i / H][i % H][d] + (1 - g) * (double)V_loc[i / H][i % H][d];
                cr_assert_float_eq((double)out[i / H][i % H][d], expected, 1e-6); /* float32 */
            }
        }
    }
}

Test(blend, nothing_retrieved_is_local_attention_to_the_bit)
{
    const float bias[H] = {5.0F, 5.0F, 5.0F, 5.0F};
    for (int mode = MEMTX_BLEND_JOINT; mode <= MEMTX_BLEND_OFF; mode++) {
        for (int in_place = 0; in_place < 2; in_place++) {
            const struct memtx_gate gate = {(enum memtx_blend_mode)mode, bias};
            static float expected[N_Q][H][D];
            fill_blend();
            memcpy(expected, V_loc, sizeof expected);
            for (size_t head = 0; head < H; head++) {
                LSE_mem[1][head] = -INFINITY;
                memset(V_mem[1][head], 0, sizeof V_mem[1][head]);
            }
            float *to = in_place ? V_loc[0][0] : out[0][0];
            memtx_blend(to, V_loc[0][0], LSE_loc[0], V_mem[0][0], LSE_mem[0], &gate, N_Q, H, D);
            cr_assert_eq(memcmp(to + H * D, expected[1], sizeof expected[1]), 0);
            cr_assert_eq(memcmp(to, expected[0], sizeof expected[0]) == 0, mode == MEMTX_BLEND_OFF);
        }
    }
}

Test(blend, names)
{
    for (int i = MEMTX_BLEND_JOINT; i <= MEMTX_BLEND_OFF; i++) {
        enum memtx_blend_mode mode;
        cr_assert_eq(memtx_blend_parse(&mode, memtx_blend_name((enum memtx_blend_mode)i)), MEMTX_OK);
        cr_assert_eq((int)mode, i);
        cr_assert_eq(memtx_blend_parse(&mode, "Joint"), MEMTX_E_INVALID);
    }
}
