/* The values of stored tensors: every type of MEMTX_TENSOR_TYPE_TABLE to float32. */
#ifndef MEMTX_MATH_QUANT_H
#define MEMTX_MATH_QUANT_H

#include <stddef.h>
#include <stdbool.h>

/* Values in a block and bytes of a block; false for a type that is not in the table. */
bool memtx__quant_layout(size_t *values_per_block, size_t *bytes_per_block, int type);

/* out[n_values] from `bytes` of any alignment. n_values is a multiple of the type's block, the type one of the table.
 * Any thread. */
void memtx__dequantise(float *out, int type, const unsigned char *bytes, size_t n_values);

#endif
