/* A tile of rows in the type of the first pass, and its product with blocks of queries: one thread's part of exact
 * search (exact.h).
 *
 * In bf16 both factors are rounded. In int8 scores are upper bounds (exact_i8.h). First passes rank rows, and their
 * scores are never given out.
 */
#ifndef MEMTX_SEARCH_EXACT_TILE_H
#define MEMTX_SEARCH_EXACT_TILE_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "math/linear.h"
#include "math/topk.h"
#include "memtx/store.h"
#include "search/exact_i8.h"

/* The scores of a block stay in a core's second-level cache until they are scanned. */
enum {
    MEMTX__TILE_ROWS = 512,
    MEMTX__TILE_QUERIES = 256,
    MEMTX__TILE_QUERIES_BF16 = 64,
    MEMTX__TILE_QUERIES_I8 = 4 * MEMTX__I8_QUERIES, /* and those of these in the first-level cache */
};

struct memtx__tile {
    enum memtx__precision precision;
    size_t dim;
    struct memtx__bf16_product *product; /* in bf16: of TILE_QUERIES_BF16 x TILE_ROWS; borrowed */
    size_t thread;                       /* whose part of it */
    float *rows;                         /* [TILE_ROWS][dim]: the tile in f32; otherwise room for it */
    void *low_rows;                      /* [TILE_ROWS][dim] u16, in bf16 */
    struct memtx__i8_rows i8;            /* in int8 */
    const float *centre;                 /* [dim] of int8; borrowed */
    float loss;                          /* the largest of a query, of int8 */
    uint64_t *above;                     /* [TILE_QUERIES_I8][TILE_ROWS / I8_ROWS] of int8: scores above the limit */
    float *products;                     /* [TILE_QUERIES][TILE_ROWS] */
    size_t n_rows;                       /* that were read */
};

/* Takes the scratch of a tile from an arena that may be counting (base/arena.h). */
void memtx__tile_take(struct memtx__tile *tile, struct memtx__arena *arena, enum memtx__precision precision,
                      size_t dim);

/* Bytes of a query, as the product takes it: numbers, or a struct memtx__i8_query. */
size_t memtx__tile_query_bytes(enum memtx__precision precision, size_t dim);

/* low[dim] in bf16 from a finite query[dim]. Any thread. */
void memtx__tile_round_bf16(void *low, const float *query, size_t dim);

/* Queries that one product takes at most. */
size_t memtx__tile_most_queries(enum memtx__precision precision);

/* The tile from n_rows <= TILE_ROWS stored rows. A row that is not finite gets scores that are not. In bf16 numbers
 * below 2^-126 may count as zero, and those above 2^127 * (2 - 2^-8) as infinite. */
void memtx__tile_read(struct memtx__tile *tile, enum memtx_row_type type, const unsigned char *stored, size_t n_rows);

/* Multiplies the tile by n queries, as the pass takes them, whose states are topk[n]. In bf16 whole blocks are read:
 * TILE_QUERIES_BF16 queries must be there, whatever they are. */
int memtx__tile_multiply(struct memtx__tile *tile, const void *queries, const struct memtx__topk *topk, size_t n);

/* Offers the scores of the last product, of n queries, to their states topk[n]; the tile's rows are first_id,
 * first_id + 1 .. */
void memtx__tile_give(struct memtx__topk *topk, struct memtx__tile *tile, size_t n, int64_t first_id);

#endif
