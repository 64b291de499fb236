/* A tile of rows in the type of the first pass, and its product with blocks of queries: one thread's part of exact
 * search (exact.h).
 *
 * In bf16 both factors are rounded. In int8 each row and each query is scaled by itself, its largest number to 127;
 * what a query is scaled by does not matter to its own ranking and is not kept. First passes rank rows, and their scores
 * are never given out.
 */
#ifndef MEMTX_SEARCH_EXACT_TILE_H
#define MEMTX_SEARCH_EXACT_TILE_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "math/linear.h"
#include "memtx/store.h"

/* The scores of a block stay in a core's second-level cache until they are scanned. */
enum { MEMTX__TILE_ROWS = 512, MEMTX__TILE_QUERIES = 256, MEMTX__TILE_QUERIES_BF16 = 64 };

struct memtx__tile {
    enum memtx__precision precision;
    size_t dim;
    struct memtx__bf16_product *product; /* in bf16: of TILE_QUERIES_BF16 x TILE_ROWS; borrowed */
    size_t thread;                       /* whose part of it */
    float *rows;                         /* [TILE_ROWS][dim]: the tile in f32; otherwise room for it */
    void *low_rows;                      /* [TILE_ROWS][dim] u16 or s8; NULL in f32 */
    float *scales;                       /* [TILE_ROWS] of int8 */
    void *products;                      /* [TILE_QUERIES][TILE_ROWS] f32 or s32 */
    float *scores;                       /* [TILE_ROWS] of one query, of int8 */
    size_t n_rows;                       /* that were read */
};

/* Takes the scratch of a tile from an arena that may be counting (base/arena.h). */
void memtx__tile_take(struct memtx__tile *tile, struct memtx__arena *arena, enum memtx__precision precision,
                      size_t dim);

/* Bytes of one number of a query. */
size_t memtx__tile_query_bytes(enum memtx__precision precision);

/* low[n][dim] from finite queries[n][dim], in BF16 or I8. Any thread. */
void memtx__tile_round_queries(void *low, enum memtx__precision precision, const float *queries, size_t n, size_t dim);

/* Queries that one product takes at most. */
size_t memtx__tile_most_queries(enum memtx__precision precision);

/* The tile from n_rows <= TILE_ROWS stored rows. A row that is not finite gets scores that are not. In int8 a row whose
 * numbers are all below 2^-90 counts as zero, in bf16 those below 2^-126 may, and those above 2^127 * (2 - 2^-8) as
 * infinite. */
void memtx__tile_read(struct memtx__tile *tile, enum memtx_row_type type, const unsigned char *stored, size_t n_rows);

/* Multiplies the tile by n queries in the pass's type. In bf16 whole blocks are read: TILE_QUERIES_BF16 queries must be
 * there, whatever they are. */
int memtx__tile_multiply(struct memtx__tile *tile, const void *queries, size_t n);

/* scores[n_rows] of query i of the last product, up to a positive factor of the query's own; valid until the next call. */
const float *memtx__tile_scores(struct memtx__tile *tile, size_t i);

#endif
