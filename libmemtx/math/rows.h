/* Rows of keys and values in their stored type (memtx/store.h: f16, bf16, f32, little-endian) to and from float32. */
#ifndef MEMTX_MATH_ROWS_H
#define MEMTX_MATH_ROWS_H

#include <stddef.h>

#include "memtx/store.h"

size_t memtx__row_type_bytes(enum memtx_row_type type); /* of one value */

/* out[n_values] from stored rows of any alignment. Any thread. */
void memtx__rows_read(float *out, enum memtx_row_type type, const unsigned char *rows, size_t n_values);

/* Asks memory for a row that is read soon: rows that lie anywhere are then waited for together. Any thread. */
static inline void memtx__row_fetch(const unsigned char *row, size_t row_bytes)
{
    enum { LINE_BYTES = 64 };
    for (size_t byte = 0; byte < row_bytes; byte += LINE_BYTES) {
        __builtin_prefetch(row + byte);
    }
}

/* The sum of a[i] * b[i]; the order of the terms is the compiler's. Any thread. */
float memtx__dot(const float *a, const float *b, size_t n);

/* rows, of any alignment, from values[n_values], rounded to the type. Any thread. */
void memtx__rows_write(unsigned char *rows, enum memtx_row_type type, const float *values, size_t n_values);

#endif
