/* SwiGLU and residual (activation.h). */
#include "math/activation.h"

#include "math/clones.h"
#include "math/exp.h"

MEMTX__CLONES static void swiglu_row(float *y, const float *gate, const float *up, size_t n_channels)
{
#pragma omp simd
    for (size_t c = 0; c < n_channels; c++) {
        y[c] = gate[c] / (1.0F + memtx__exp(-gate[c])) * up[c];
    }
}

void memtx__swiglu_fwd(float *y, const float *x, size_t n_tokens, size_t n_channels)
{
#pragma omp parallel for schedule(static)
    for (size_t t = 0; t < n_tokens; t++) {
        const float *row = x + t * 2 * n_channels;
        swiglu_row(y + t * n_channels, row, row + n_channels, n_channels);
    }
}

void memtx__add_fwd(float *x, const float *y, size_t n)
{
#pragma omp parallel for simd schedule(static)
    for (size_t i = 0; i < n; i++) {
        x[i] += y[i];
    }
}
