/* Stored rows (rows.h). */
#include "math/rows.h"

#include <string.h>

#include "base/bytes.h"
#include "math/clones.h"
#include "math/half.h"

enum { LANES = 16 };

/* Of a reduction over an array gcc adds up the lanes one after the other, through memory. */
typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));

MEMTX__CLONES static float dot(const float *a, const float *b, size_t n)
{
    lanes even = {0}, odd = {0}, a_lanes, b_lanes;
    size_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        memcpy(&a_lanes, a + i, sizeof a_lanes);
        memcpy(&b_lanes, b + i, sizeof b_lanes);
        even += a_lanes * b_lanes;
        memcpy(&a_lanes, a + i + LANES, sizeof a_lanes);
        memcpy(&b_lanes, b + i + LANES, sizeof b_lanes);
        odd += a_lanes * b_lanes;
    }
    const lanes all = even + odd;
    float sum = (((all[0] + all[8]) + (all[4] + all[12])) + ((all[2] + all[10]) + (all[6] + all[14]))) +
                (((all[1] + all[9]) + (all[5] + all[13])) + ((all[3] + all[11]) + (all[7] + all[15])));
    for (; i < n; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

float memtx__dot(const float *a, const float *b, size_t n)
{
    return dot(a, b, n);
}

size_t memtx__row_type_bytes(enum memtx_row_type type)
{
    return type == MEMTX_ROWS_F32 ? 4 : 2;
}

void memtx__rows_read(float *out, enum memtx_row_type type, const unsigned char *rows, size_t n_values)
{
    switch (type) {
    case MEMTX_ROWS_F16:
        memtx__f16_to_f32_n(out, rows, n_values);
        break;
    case MEMTX_ROWS_BF16:
        memtx__bf16_to_f32_n(out, rows, n_values);
        break;
    case MEMTX_ROWS_F32:
        for (size_t i = 0; i < n_values; i++) {
            out[i] = memtx__get_f32(rows + 4 * i);
        }
        break;
    }
}

void memtx__rows_write(unsigned char *rows, enum memtx_row_type type, const float *values, size_t n_values)
{
    switch (type) {
    case MEMTX_ROWS_F16:
        memtx__f32_to_f16_n(rows, values, n_values);
        break;
    case MEMTX_ROWS_BF16:
        memtx__f32_to_bf16_n(rows, values, n_values);
        break;
    case MEMTX_ROWS_F32:
        for (size_t i = 0; i < n_values; i++) {
            uint32_t bits;
            memcpy(&bits, &values[i], sizeof bits);
            memtx__put_u32(rows + 4 * i, bits);
        }
        break;
    }
}
