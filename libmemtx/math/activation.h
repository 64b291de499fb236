/* SwiGLU (Shazeer 2020) and the addition of a residual. */
#ifndef MEMTX_MATH_ACTIVATION_H
#define MEMTX_MATH_ACTIVATION_H

#include <stddef.h>

/* y[T][F] = silu(x[T][0..F)) * x[T][F..2F), x being [T][2F]: gate and up of one fused product. Uses all threads. */
void memtx__swiglu_fwd(float *y, const float *x, size_t n_tokens, size_t n_channels);

/* x[n] += y[n]. Uses all threads. */
void memtx__add_fwd(float *x, const float *y, size_t n);

#endif
