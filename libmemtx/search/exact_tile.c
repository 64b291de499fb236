/* Tiles (exact_tile.h). Rows are converted a few at a time, so that what they are in between stays in the first-level
 * cache; this is done once for all queries of a thread. */
#include "search/exact_tile.h"

#include <math.h>
#include <string.h>

#include "math/clones.h"
#include "math/half.h"
#include "math/rows.h"

enum { ROWS_AT_ONCE = 8, INFINITE_BITS = 0x7F800000, SIZE_BITS = 0x7FFFFFFF };

/* Any positive factor of all scores will do. With this one sums of up to 2^16 products of int8 neither overflow nor, for
 * rows that do not count as zero, become denormal. */
static const float I8_FACTOR = 0x1p-30F, I8_LEAST = 0x1p-90F;

void memtx__tile_take(struct memtx__tile *tile, struct memtx__arena *arena, enum memtx__precision precision, size_t dim)
{
    *tile = (struct memtx__tile){.precision = precision, .dim = dim};
    tile->rows = memtx__arena_take(arena, MEMTX__TILE_ROWS * dim, sizeof *tile->rows);
    tile->products = memtx__arena_take(arena, MEMTX__TILE_QUERIES * MEMTX__TILE_ROWS, sizeof(float));
    if (precision != MEMTX__PRECISION_F32) {
        tile->low_rows = memtx__arena_take(arena, MEMTX__TILE_ROWS * dim, memtx__tile_query_bytes(precision));
        tile->scales = memtx__arena_take(arena, MEMTX__TILE_ROWS, sizeof *tile->scales);
        tile->scores = memtx__arena_take(arena, MEMTX__TILE_ROWS, sizeof *tile->scores);
    }
}

size_t memtx__tile_query_bytes(enum memtx__precision precision)
{
    switch (precision) {
    case MEMTX__PRECISION_BF16:
        return sizeof(uint16_t);
    case MEMTX__PRECISION_I8:
        return sizeof(int8_t);
    default:
        return sizeof(float);
    }
}

size_t memtx__tile_most_queries(enum memtx__precision precision)
{
    return precision == MEMTX__PRECISION_BF16 ? MEMTX__TILE_QUERIES_BF16 : MEMTX__TILE_QUERIES;
}

/* ---- rounding --------------------------------------------------------------------------------- */

MEMTX__CLONES static void round_bf16(uint16_t *out, const float *values, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        out[i] = memtx__f32_to_bf16(values[i]);
    }
}

/* The bits of the largest number without its sign: NaN is above infinity, and infinity above all numbers. */
MEMTX__CLONES static int32_t largest_bits(const float *values, size_t n)
{
    int32_t largest = 0;
#pragma omp simd reduction(max : largest)
    for (size_t i = 0; i < n; i++) {
        int32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        bits &= SIZE_BITS;
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

MEMTX__CLONES static void round_scaled(int8_t *out, const float *values, float factor, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        const float scaled = values[i] * factor;
        out[i] = (int8_t)(int32_t)(scaled + (scaled < 0 ? -0.5F : 0.5F));
    }
}

/* One row or query to int8; gives the factor that its scores are to be multiplied by. */
static float round_i8(int8_t *out, const float *values, size_t n)
{
    const int32_t bits = largest_bits(values, n);
    float largest;
    memcpy(&largest, &bits, sizeof largest);
    if (bits >= INFINITE_BITS || largest < I8_LEAST) {
        memset(out, 0, n);
        return bits >= INFINITE_BITS ? NAN : I8_FACTOR;
    }
    round_scaled(out, values, 127 / largest, n);
    return largest * I8_FACTOR;
}

void memtx__tile_round_queries(void *low, enum memtx__precision precision, const float *queries, size_t n, size_t dim)
{
    if (precision == MEMTX__PRECISION_BF16) {
        round_bf16(low, queries, n * dim);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        (void)round_i8((int8_t *)low + i * dim, queries + i * dim, dim);
    }
}

void memtx__tile_read(struct memtx__tile *tile, enum memtx_row_type type, const unsigned char *stored, size_t n_rows)
{
    const size_t dim = tile->dim, row_bytes = dim * memtx__row_type_bytes(type);
    tile->n_rows = n_rows;
    if (tile->precision == MEMTX__PRECISION_F32) {
        memtx__rows_read(tile->rows, type, stored, n_rows * dim);
        return;
    }
    for (size_t first = 0; first < n_rows; first += ROWS_AT_ONCE) {
        const size_t n = n_rows - first < ROWS_AT_ONCE ? n_rows - first : ROWS_AT_ONCE;
        memtx__rows_read(tile->rows, type, stored + first * row_bytes, n * dim);
        if (tile->precision == MEMTX__PRECISION_BF16) {
            round_bf16((uint16_t *)tile->low_rows + first * dim, tile->rows, n * dim);
            continue;
        }
        for (size_t i = 0; i < n; i++) {
            tile->scales[first + i] = round_i8((int8_t *)tile->low_rows + (first + i) * dim, tile->rows + i * dim, dim);
        }
    }
}

/* ---- product ---------------------------------------------------------------------------------- */

int memtx__tile_multiply(struct memtx__tile *tile, const void *queries, size_t n)
{
    const size_t dim = tile->dim;
    switch (tile->precision) {
    case MEMTX__PRECISION_BF16:
        return memtx__bf16_product_run(tile->products, tile->product, tile->thread, queries, tile->low_rows);
    case MEMTX__PRECISION_I8:
        return memtx__product_i8(tile->products, queries, tile->low_rows, n, tile->n_rows, dim);
    default:
        return memtx__product(tile->products, queries, tile->rows, true, n, tile->n_rows, dim, tile->n_rows, dim, dim);
    }
}

MEMTX__CLONES static void scale(float *scores, const int32_t *products, const float *scales, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        scores[i] = (float)products[i] * scales[i];
    }
}

const float *memtx__tile_scores(struct memtx__tile *tile, size_t i)
{
    switch (tile->precision) {
    case MEMTX__PRECISION_BF16:
        return (const float *)tile->products + i * MEMTX__TILE_ROWS;
    case MEMTX__PRECISION_I8:
        scale(tile->scores, (const int32_t *)tile->products + i * tile->n_rows, tile->scales, tile->n_rows);
        return tile->scores;
    default:
        return (const float *)tile->products + i * tile->n_rows;
    }
}
