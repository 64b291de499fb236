/* Tiles (exact_tile.h). Rows are converted a few at a time, so that what they are in between stays in the first-level
 * cache; this is done once for all queries of a thread. */
#include "search/exact_tile.h"

#include <stdbool.h>
#include <string.h>

#include "math/clones.h"
#include "math/half.h"
#include "math/rows.h"

enum { ROWS_AT_ONCE = MEMTX__I8_LANES };

void memtx__tile_take(struct memtx__tile *tile, struct memtx__arena *arena, enum memtx__precision precision, size_t dim)
{
    *tile = (struct memtx__tile){.precision = precision, .dim = dim};
    tile->rows = memtx__arena_take(arena, MEMTX__TILE_ROWS * dim, sizeof *tile->rows);
    tile->products = memtx__arena_take(arena, MEMTX__TILE_QUERIES * MEMTX__TILE_ROWS, sizeof(float));
    if (precision == MEMTX__PRECISION_BF16) {
        tile->low_rows = memtx__arena_take(arena, MEMTX__TILE_ROWS * dim, sizeof(uint16_t));
    }
    if (precision == MEMTX__PRECISION_I8) {
        memtx__i8_rows_take(&tile->i8, arena, MEMTX__TILE_ROWS, dim);
        tile->above =
            memtx__arena_take(arena, MEMTX__TILE_QUERIES_I8 * MEMTX__TILE_ROWS / MEMTX__I8_ROWS, sizeof *tile->above);
    }
}

size_t memtx__tile_query_bytes(enum memtx__precision precision, size_t dim)
{
    switch (precision) {
    case MEMTX__PRECISION_BF16:
        return dim * sizeof(uint16_t);
    case MEMTX__PRECISION_I8:
        return sizeof(struct memtx__i8_query);
    default:
        return dim * sizeof(float);
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

void memtx__tile_round_bf16(void *low, const float *query, size_t dim)
{
    round_bf16(low, query, dim);
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
        memset(tile->rows + n * dim, 0, (ROWS_AT_ONCE - n) * dim * sizeof *tile->rows);
        memtx__i8_round_rows(&tile->i8, first, tile->rows, n, tile->centre, tile->loss, dim);
    }
}

/* ---- product ---------------------------------------------------------------------------------- */

size_t memtx__tile_whole_rows(const struct memtx__tile *tile)
{
    return (tile->n_rows + MEMTX__I8_ROWS - 1) / MEMTX__I8_ROWS * MEMTX__I8_ROWS;
}

int memtx__tile_multiply(struct memtx__tile *tile, const void *queries, size_t n)
{
    const size_t dim = tile->dim;
    if (tile->precision == MEMTX__PRECISION_BF16) {
        return memtx__bf16_product_run(tile->products, tile->product, tile->thread, queries, tile->low_rows);
    }
    if (tile->precision == MEMTX__PRECISION_I8) {
        const struct memtx__i8_block rows = {tile->i8.numbers, tile->i8.scales, tile->i8.slacks,
                                             memtx__tile_whole_rows(tile), memtx__i8_query_bytes(dim) / MEMTX__I8_FOUR};
        memtx__lanes_i8_compare(tile->above, &rows, queries, n);
        return MEMTX_OK;
    }
    return memtx__product(tile->products, queries, tile->rows, true, n, tile->n_rows, dim, tile->n_rows, dim, dim);
}

void memtx__tile_give(struct memtx__topk *topk, const struct memtx__tile *tile, size_t n, int64_t first_id)
{
    const size_t n_apart = tile->precision == MEMTX__PRECISION_F32 ? tile->n_rows : MEMTX__TILE_ROWS;
    for (size_t q = 0; q < n; q++) {
        memtx__topk_add(&topk[q], tile->products + q * n_apart, first_id, tile->n_rows);
    }
}
