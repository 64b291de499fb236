/* The blend of local attention and memory (memtx/memory.h, DESIGN 4): every mode is one sigmoid.
 *
 * g = sigmoid(LSE_mem - LSE_loc) is exactly the share that the retrieved rows have in one softmax over both sets. The
 * paper's code scales local attention down when the memory is empty; here nothing retrieved means V_loc, a case of its
 * own, since 0 * inf is not a number.
 */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/status.h"
#include "math/clones.h"
#include "memtx/memory.h"

static const char *const blend_names[] = {"joint", "bias", "paper", "off"};

const char *memtx_blend_name(enum memtx_blend_mode mode)
{
    return mode >= MEMTX_BLEND_JOINT && mode <= MEMTX_BLEND_OFF ? blend_names[mode] : "unknown";
}

int memtx_blend_parse(enum memtx_blend_mode *out, const char *name)
{
    for (int i = 0; i < 4; i++) {
        if (strcmp(name, blend_names[i]) == 0) {
            *out = (enum memtx_blend_mode)i;
            return MEMTX_OK;
        }
    }
    return memtx__fail(MEMTX_E_INVALID, "blend '%s' is none of joint, bias, paper, off", name);
}

MEMTX__CLONES static void mix(float *out, const float *local, const float *memory, float share, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        out[i] = share * memory[i] + (1.0F - share) * local[i];
    }
}

void memtx_blend(float *out, const float *V_loc, const float *LSE_loc, const float *V_mem, const float *LSE_mem,
                 const struct memtx_gate *gate, size_t n_q, size_t n_heads, size_t d)
{
    const float slope = gate->mode == MEMTX_BLEND_PAPER ? 0.0F : 1.0F;
    const bool use_bias = gate->bias && gate->mode != MEMTX_BLEND_JOINT;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n_q * n_heads; i++) {
        if (gate->mode == MEMTX_BLEND_OFF || isinf(LSE_mem[i])) {
            memmove(out + i * d, V_loc + i * d, d * sizeof *out);
            continue;
        }
        float logit = slope * (LSE_mem[i] - LSE_loc[i]) + (use_bias ? gate->bias[i % n_heads] : 0.0F);
        mix(out + i * d, V_loc + i * d, V_mem + i * d, 1.0F / (1.0F + expf(-logit)), d);
    }
}
