/* A tile of rows in the type of the first pass, and its product with blocks of queries: one thread's part of exact
 * search (exact.h).
 *
 * In bf16 both factors are rounded. In int8 products are upper bounds (exact_i8.h), of which only those above a query's
 * limit are told. First passes rank rows, and their products are never given out.
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
    MEMTX__TILE_QUERIES_I8 = 4 * MEMTX__I8_QUERIES,
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
    uint64_t *above;                     /* [TILE_QUERIES_I8][TILE_ROWS / I8_ROWS] of int8: bounds above the limit */
    float *products;                     /* [TILE_QUERIES][TILE_ROWS]; in int8 free for others */
    size_t n_rows;                       /* that were read */
};

/* Takes the scratch of a tile from an arena that may be counting (base/arena.h). */
void memtx__tile_take(struct memtx__tile *tile, struct memtx__arena *arena, enum memtx__precision precision,
                      size_t dim);

/* Bytes of a query, as the product takes it: numbers, or a struct memtx__i8_query. */
size_t memtx__tile_query_bytes(enum memtx__precision precision, size_t dim);

/* low[dim] in bf16 from a finite query[dim]. Any thread. */
void memtx__tile_round_bf16(void *low, const float *query, size_t dim);

/* Queries that one product takes at most, not in int8: there it is TILE_QUERIES_I8. */
size_t memtx__tile_most_queries(enum memtx__precision precision);

/* The tile from n_rows <= TILE_ROWS stored rows. A row that is not finite gets scores that are not. In bf16 numbers
 * below 2^-126 may count as zero, and those above 2^127 * (2 - 2^-8) as infinite. */
void memtx__tile_read(struct memtx__tile *tile, enum memtx_row_type type, const unsigned char *stored, size_t n_rows);

/* Multiplies the tile by n queries, as the pass takes them: into products, or in int8 into above. In bf16 whole blocks
 * are read: TILE_QUERIES_BF16 queries must be there, whatever they are. */
int memtx__tile_multiply(struct memtx__tile *tile, const void *queries, size_t n);

/* Of int8, rows of the tile rounded up to whole I8_ROWS: bits of what is behind the tile's rows mean nothing. */
size_t memtx__tile_whole_rows(const struct memtx__tile *tile);

/* Offers the products of n queries, not in int8, to their states topk[n]; the tile's rows are first_id, first_id + 1 ..
 */
void memtx__tile_give(struct memtx__topk *topk, const struct memtx__tile *tile, size_t n, int64_t first_id);

#endif
