/* RMSNorm (norm.h). */
#include "math/norm.h"

#include <math.h>

#include "math/clones.h"

MEMTX__CLONES static void norm_row(float *y, const float *x, const float *weight, float epsilon, size_t n_channels)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t c = 0; c < n_channels; c++) {
        sum += x[c] * x[c];
    }
    float scale = 1.0F / sqrtf(sum / (float)n_channels + epsilon);
#pragma omp simd
    for (size_t c = 0; c < n_channels; c++) {
        y[c] = x[c] * scale * weight[c];
    }
}

void memtx__norm_fwd(float *y, const float *x, const float *weight, float epsilon, size_t n_tokens, size_t n_channels)
{
#pragma omp parallel for schedule(static)
    for (size_t t = 0; t < n_tokens; t++) {
        norm_row(y + t * n_channels, x + t * n_channels, weight, epsilon, n_channels);
    }
}
