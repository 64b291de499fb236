/* Upper bounds of inner products from int8, for a first pass that misses nothing (exact.h).
 *
 * Of a row k and a query q, x = H (k - c) and z = H q are rounded to int8, each in steps of its own largest number; c
 * is a quarter of the mean of some rows, and H an orthogonal transform (Hadamard's, in powers of two), after which no
 * number of a row is much larger than the others. With what was rounded off, e = |x - x'| and f = |z - z'|, by Cauchy
 * and Schwarz
 *
 *     q . k  =  q . c + z . x  <=  q . c + z' . x' + |z| e + f |x'|
 *
 * and something more for the roundings of float32 on either side. Where a quarter of the mean is taken off, at
 * most some 100 rows of 65,280 have a bound that reaches the score of the 32nd best of a model's queries; with all or
 * nothing taken off, or without the transform, they are more (bench/README.md, "First passes of exact search").
 *
 * A query's bounds come divided by its scale, and without q . c, which are the same for all rows.
 */
#ifndef MEMTX_SEARCH_EXACT_I8_H
#define MEMTX_SEARCH_EXACT_I8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "math/lanes_i8.h"

/* What the bounds of a query's rows are made of, beside its numbers. */
struct memtx__i8_side {
    float scale;  /* of its numbers */
    float shift;  /* q . c */
    float length; /* |z| */
    float loss;   /* f / |z| */
};

/* A query's numbers are kept in fours of a row: bytes that `dim` numbers take. */
size_t memtx__i8_query_bytes(size_t dim);

/* numbers[memtx__i8_query_bytes(dim)] of query[dim] for centre[dim]; spare[dim] is written. false: its numbers are too
 * large, too small or all zero, and it has no bounds. Any thread. */
bool memtx__i8_round_query(int8_t *numbers, struct memtx__i8_side *side, const float *query, const float *centre,
                           float *spare, size_t dim);

/* A query ready for math/lanes_i8.h, which borrows its numbers; its limit is still to be set. */
struct memtx__i8_query memtx__i8_query_of(const int8_t *numbers, const struct memtx__i8_side *side, size_t dim);

/* Rows of one tile. */
struct memtx__i8_rows {
    uint8_t *numbers; /* as math/lanes_i8.h reads them */
    float *scales;    /* NaN: a row that is not finite */
    float *slacks;    /* e + loss |x'| and what rounding may add */
    float *columns;   /* [dim][I8_LANES] */
    bool is_out;      /* a row's numbers are too large or too small for bounds; stays until it is set anew */
};

/* Room for n_rows, a multiple of MEMTX__I8_ROWS, from an arena that may be counting. */
void memtx__i8_rows_take(struct memtx__i8_rows *rows, struct memtx__arena *arena, size_t n_rows, size_t dim);

/* Rows first .. first + I8_LANES - 1 of the tile, a whole group, from values[I8_LANES][dim], of which there are n. loss
 * is the largest of all queries. */
void memtx__i8_round_rows(struct memtx__i8_rows *rows, size_t first, const float *values, size_t n, const float *centre,
                          float loss, size_t dim);

#endif
