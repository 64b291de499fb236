/* Matrix products: linear layers with packed weights, and bare products of tiles. The only file that knows oneDNN, in
 * its versions 2 and 3, is linear.c.
 *
 * A linear layer is y[T][n_out] = x[T][n_in] w[n_out][n_in]^T, in float32, or with x and w rounded to bfloat16 and sums
 * in float32. Weights are packed once, in the layout that oneDNN likes best for segments; a plan is a product made
 * ready for one number of rows.
 */
#ifndef MEMTX_MATH_LINEAR_H
#define MEMTX_MATH_LINEAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum memtx__weight_type { MEMTX__WEIGHT_F32, MEMTX__WEIGHT_BF16 };

struct memtx__linear_shape {
    size_t n_in;
    size_t n_out;
    enum memtx__weight_type type;
};

/* One layer's weights: the shape and the packed bytes, borrowed from whoever holds the weights. */
struct memtx__linear {
    struct memtx__linear_shape shape;
    const void *packed;
};

/* Whether products of this type are worth using: bf16 only where the processor multiplies it in hardware. */
bool memtx__weight_type_is_fast(enum memtx__weight_type type);

/* Bytes of the packed weights; MEMTX_E_UNSUPPORTED when oneDNN has no kernel (bf16 before AVX-512). Any thread. */
int memtx__linear_packed_bytes(size_t *out, struct memtx__linear_shape shape);

/* packed from plain weights[n_out][n_in] in f32; uses all threads. */
int memtx__linear_pack(void *packed, struct memtx__linear_shape shape, const float *weights);

/* The plans of one stream of segments: a product made ready for each (shape, n_rows) that was asked for. Belongs to one
 * thread at a time; each product itself uses all threads. */
struct memtx__linear_plans;

int memtx__linear_plans_create(struct memtx__linear_plans **out);
void memtx__linear_plans_destroy(struct memtx__linear_plans *plans);

/* Makes the plan of a shape and a number of rows, so that memtx__linear_fwd finds it and allocates nothing. */
int memtx__linear_plan(struct memtx__linear_plans *plans, struct memtx__linear_shape shape, size_t n_rows);

/* y[n_rows][n_out] from x[n_rows][n_in]. Makes the plan if it is not there yet. */
int memtx__linear_fwd(float *y, struct memtx__linear_plans *plans, const float *x, const struct memtx__linear *linear,
                      size_t n_rows);

/* The specification of memtx__linear_fwd in f32, on plain weights. */
void memtx__linear_fwd_plain(float *y, const float *x, const float *weights, size_t n_rows, size_t n_in, size_t n_out);

/* c[m][n] = a[m][k] b, rows of c, a, b being ldc, lda, ldb floats apart; b is [k][n], or [n][k] when b_transposed.
 * Inside a parallel region it runs on the calling thread alone. */
int memtx__product(float *c, const float *a, const float *b, bool b_transposed, size_t m, size_t n, size_t k,
                   size_t ldc, size_t lda, size_t ldb);

/* ---- bare products in low precision ------------------------------------------------------------ */

/* What both factors of a bare product are kept in; sums are f32, of I8 exact s32 (math/lanes_i8.h). */
enum memtx__precision { MEMTX__PRECISION_F32, MEMTX__PRECISION_BF16, MEMTX__PRECISION_I8 };

/* Whether the processor multiplies this type in hardware, faster than f32. Where it does not, products of int8 may
 * saturate or be slow, and those of bf16 may have no kernel: they are not to be used. */
bool memtx__precision_is_fast(enum memtx__precision precision);

/* Products of bf16 matrices of one shape, made ready for n_threads threads, each of which multiplies by itself. */
struct memtx__bf16_product;

int memtx__bf16_product_create(struct memtx__bf16_product **out, size_t n_threads, size_t m, size_t n, size_t k);
void memtx__bf16_product_destroy(struct memtx__bf16_product *product); /* NULL is fine */

/* c[m][n] = a[m][k] b[n][k]^T with f32 sums, in which denormal numbers may count as zero. Any thread, as `thread` of
 * 0 .. n_threads - 1, one at a time for each number; allocates nothing. */
int memtx__bf16_product_run(float *c, struct memtx__bf16_product *product, size_t thread, const uint16_t *a,
                            const uint16_t *b);

/* oneDNN's version as text. */
void memtx__linear_version(char *out, size_t size);

#endif
