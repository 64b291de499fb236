/* RMSNorm (Zhang and Sennrich 2019): y = x / sqrt(mean(x^2) + epsilon) * weight. */
#ifndef MEMTX_MATH_NORM_H
#define MEMTX_MATH_NORM_H

#include <stddef.h>

/* y[T][C] from x[T][C] and weight[C]; y may be x. Uses all threads. */
void memtx__norm_fwd(float *y, const float *x, const float *weight, float epsilon, size_t n_tokens, size_t n_channels);

#endif
