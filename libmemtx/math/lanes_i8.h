/* Products of int8 for upper bounds of inner products: rows that stand side by side against queries (search/exact_i8.h).
 *
 * A row's numbers are kept as unsigned, 128 more than they are, since the instruction (VNNI's vpdpbusd) multiplies
 * unsigned by signed; what that adds to a sum is the query's own and taken off where the sum begins. */
#ifndef MEMTX_MATH_LANES_I8_H
#define MEMTX_MATH_LANES_I8_H

#include <stddef.h>
#include <stdint.h>

enum {
    MEMTX__I8_LANES = 16, /* rows side by side */
    MEMTX__I8_ROWS = 64,  /* that are multiplied at once: four times as many, a bit for each */
    MEMTX__I8_QUERIES = 6,
    MEMTX__I8_FOUR = 4, /* numbers of a row that stand together */
};

struct memtx__i8_query {
    const int8_t *numbers; /* [fours][FOUR] */
    int32_t offset;        /* -128 times their sum */
    float factor;          /* of slacks; 0 or more */
    float limit;           /* above which a score is of interest */
};

/* Rows side by side. */
struct memtx__i8_block {
    const uint8_t *numbers; /* [group][fours][LANES][FOUR], 64-byte aligned, and so are the others */
    const float *scales;    /* [n] */
    const float *slacks;    /* [n] */
    size_t n;               /* a multiple of MEMTX__I8_ROWS */
    size_t fours;           /* fours * FOUR is at most 2^16 */
};

/* For each of n_queries: scores[row] = scales[row] * (row . query) + factor * slacks[row], rounded twice, queries being
 * n scores apart, 64-byte aligned. */
void memtx__lanes_i8_score(float *scores, const struct memtx__i8_block *rows, const struct memtx__i8_query *queries,
                           size_t n_queries);

/* above[n_queries][n / MEMTX__I8_ROWS], a bit for each row, set where that score is above the query's limit (never for
 * NaN). Scores that nobody reads take no room of a cache. */
void memtx__lanes_i8_compare(uint64_t *above, const struct memtx__i8_block *rows, const struct memtx__i8_query *queries,
                             size_t n_queries);

#endif
