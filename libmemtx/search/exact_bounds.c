/* What exact search in int8 has beside its first pass (exact.h, exact_i8.h): bounds to begin with, and whether anything
 * may have been lost.
 *
 * Which rows become candidates is a matter of time alone, since what is found is proved afterwards: so bounds are
 * compared with a limit from the start, the one that a few candidates of a sample of the rows are above. Without it, each
 * tile would bring its best, most of them for nothing.
 */
#include <math.h>
#include <string.h>

#include "math/rows.h"
#include "search/exact_call.h"

enum {
    CENTRE_ROWS = 256,            /* of which the mean is taken */
    SAMPLE_ROWS = 4096,           /* of which limits are taken */
    LEAST_ROWS = 4 * SAMPLE_ROWS, /* fewer are not worth it */
    LEAST_TOPS = 8,               /* of the sample are above the limit at least */
    LEAST_AGAIN = 16,             /* queries for which oneDNN adds up in the same order as for many */
};

/* Of the mean (bench/bound_facts.py). */
static const float CENTRE_SHARE = 0.25F;

/* Rows whose sizes add up to more are left out of the mean. */
static const float MOST_CENTRE = 0x1p40F;

void memtx__exact_take_bounds(struct memtx__exact_bounds *bounds, struct memtx__arena *arena, size_t most_queries,
                              size_t dim)
{
    bounds->centre = memtx__arena_take(arena, dim, sizeof *bounds->centre);
    bounds->numbers = memtx__arena_take(arena, most_queries, memtx__i8_query_bytes(dim));
    bounds->sides = memtx__arena_take(arena, most_queries, sizeof *bounds->sides);
    bounds->is_sure = memtx__arena_take(arena, most_queries, sizeof *bounds->is_sure);
    bounds->again = memtx__arena_take(arena, most_queries, sizeof *bounds->again);
    bounds->queries = memtx__arena_take(arena, most_queries * dim, sizeof *bounds->queries);
}

/* ---- some of the rows ------------------------------------------------------------------------- */

/* Every step-th row, one after the other. */
struct walk {
    const struct memtx__row_set *rows;
    size_t block, row, step;
};

static const unsigned char *next_row(struct walk *walk)
{
    const struct memtx__row_block *blocks = walk->rows->blocks;
    while (walk->row >= blocks[walk->block].n_rows) {
        walk->row -= blocks[walk->block++].n_rows;
    }
    const unsigned char *row =
        blocks[walk->block].rows + walk->row * walk->rows->dim * memtx__row_type_bytes(walk->rows->type);
    walk->row += walk->step;
    return row;
}

/* A share of the mean of some rows that are numbers of the usual size. */
static void find_centre(float *centre, const struct memtx__exact_call *search, float *row)
{
    const struct memtx__row_set *rows = search->rows;
    const size_t n_taken = search->n_rows < CENTRE_ROWS ? search->n_rows : CENTRE_ROWS;
    struct walk walk = {.rows = rows, .step = search->n_rows / n_taken};
    size_t n = 0;
    memset(centre, 0, rows->dim * sizeof *centre);
    for (size_t taken = 0; taken < n_taken; taken++) {
        float size = 0;
        memtx__rows_read(row, rows->type, next_row(&walk), rows->dim);
        for (size_t i = 0; i < rows->dim; i++) {
            size += fabsf(row[i]);
        }
        for (size_t i = 0; i < rows->dim && size < MOST_CENTRE; i++) {
            centre[i] += row[i];
        }
        n += size < MOST_CENTRE;
    }
    for (size_t i = 0; i < rows->dim && n; i++) {
        centre[i] *= CENTRE_SHARE / (float)n;
    }
}

/* ---- before the pass -------------------------------------------------------------------------- */

bool memtx__exact_round_queries(const struct memtx__exact_call *search)
{
    struct memtx__exact_bounds *bounds = &search->exact->bounds;
    const size_t dim = search->rows->dim, n_bytes = memtx__i8_query_bytes(dim);
    struct memtx__i8_query *queries = (struct memtx__i8_query *)(void *)search->exact->low_queries;
    bool has_bounds = true;
    float loss = 0;
    find_centre(bounds->centre, search, memtx__exact_tile(search->exact, MEMTX__PRECISION_F32).rows);
#pragma omp parallel for schedule(static) num_threads((int)search->exact->n_threads) reduction(&& : has_bounds) \
    reduction(max : loss)
    for (size_t q = 0; q < search->n_queries; q++) {
        struct memtx__i8_side *side = &bounds->sides[q];
        float *spare = memtx__exact_tile(search->exact, MEMTX__PRECISION_F32).rows;
        has_bounds = memtx__i8_round_query(bounds->numbers + q * n_bytes, side, search->queries + q * dim,
                                           bounds->centre, spare, dim) &&
                     has_bounds;
        queries[q] = memtx__i8_query_of(bounds->numbers + q * n_bytes, side, dim);
        loss = side->loss > loss ? side->loss : loss;
    }
    bounds->loss = loss;
    return has_bounds;
}

/* As many of the sample as stand for k rows of all, and some more, for the sample is small. */
static size_t n_tops(size_t k, size_t n_rows)
{
    const double fair = (double)k * SAMPLE_ROWS / (double)n_rows;
    const size_t n = (size_t)(fair + sqrt(fair)) + 1;
    return n > LEAST_TOPS ? n : LEAST_TOPS;
}

void memtx__exact_begin_limits(struct memtx__topk *topk, const struct memtx__exact_call *search,
                               struct memtx__tile *tile, size_t first, size_t n)
{
    const struct memtx__row_set *rows = search->rows;
    const size_t row_bytes = rows->dim * memtx__row_type_bytes(rows->type), k = topk[0].k;
    const size_t tops = n_tops(k, search->n_rows);
    struct walk walk = {.rows = rows, .step = search->n_rows / SAMPLE_ROWS};
    unsigned char *stored = (unsigned char *)tile->products; /* free until the tile is multiplied */
    const size_t fitting = MEMTX__TILE_QUERIES * MEMTX__TILE_ROWS * sizeof(float) / row_bytes;
    const size_t n_each = fitting < MEMTX__TILE_ROWS ? fitting : MEMTX__TILE_ROWS;
    if (search->n_rows < LEAST_ROWS || tops >= k) {
        return;
    }
    for (size_t i = 0; i < n; i++) {
        memtx__topk_begin(&topk[i], topk[i].candidates, tops);
    }
    for (size_t row = 0; row < SAMPLE_ROWS; row += n_each) {
        const size_t n_rows = SAMPLE_ROWS - row < n_each ? SAMPLE_ROWS - row : n_each;
        for (size_t i = 0; i < n_rows; i++) {
            memcpy(stored + i * row_bytes, next_row(&walk), row_bytes);
        }
        memtx__tile_read(tile, rows->type, stored, n_rows);
        (void)memtx__exact_scan_tile(topk, search, tile, first, n, (int64_t)row); /* cannot fail in int8 */
    }
    for (size_t i = 0; i < n; i++) {
        (void)memtx__topk_cut(&topk[i]);
        const float limit = topk[i].n == tops ? topk[i].threshold : -INFINITY;
        memtx__topk_begin(&topk[i], topk[i].candidates, k);
        topk[i].threshold = limit;
    }
}

/* ---- after it --------------------------------------------------------------------------------- */

/* A bound of the first pass in terms of scores. */
static double bound_of(const struct memtx__i8_side *side, float bound)
{
    return (double)bound * (double)side->scale + (double)side->shift;
}

size_t memtx__exact_drop_low(struct memtx__candidate *candidates, const struct memtx__exact_call *search, size_t q,
                             size_t n, float score)
{
    const struct memtx__i8_side *side = &search->exact->bounds.sides[q];
    size_t n_kept = 0;
    for (size_t i = 0; i < n; i++) {
        candidates[n_kept] = candidates[i];
        n_kept += bound_of(side, candidates[i].score) >= (double)score;
    }
    return n_kept;
}

bool memtx__exact_is_sure(const struct memtx__exact_call *search, size_t q, size_t n, float left)
{
    return left == -INFINITY || (n == search->k && bound_of(&search->exact->bounds.sides[q], left) <
                                                       (double)search->exact->topk[q].candidates[n - 1].score);
}

size_t memtx__exact_gather_unsure(const struct memtx__exact_call *search)
{
    struct memtx__exact_bounds *bounds = &search->exact->bounds;
    const size_t dim = search->rows->dim;
    bounds->n_again = 0;
    for (size_t q = 0; q < search->n_queries; q++) {
        if (search->is_out || !bounds->is_sure[q]) {
            memcpy(bounds->queries + bounds->n_again * dim, search->queries + q * dim, dim * sizeof *bounds->queries);
            bounds->again[bounds->n_again++] = q;
        }
    }
    size_t n = bounds->n_again;
    for (; n > 0 && n < LEAST_AGAIN; n++) { /* the last once more */
        memcpy(bounds->queries + n * dim, bounds->queries + (n - 1) * dim, dim * sizeof *bounds->queries);
        bounds->again[n] = bounds->again[n - 1];
    }
    return n;
}
