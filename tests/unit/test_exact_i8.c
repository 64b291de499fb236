/* Upper bounds of inner products from int8 (search/exact_i8.h). */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "search/exact_i8.h"

enum { N_QUERIES = 40, N_ROWS = MEMTX__I8_ROWS };

struct case_of {
    size_t dim;
    float mean, outlier, size; /* of all numbers, of every 17th, and what all are multiplied by */
};

static void make(float *out, size_t n, const struct case_of *c, struct memtx__rng *rng)
{
    for (size_t i = 0; i < n * c->dim; i++) {
        out[i] = c->size * (memtx__rng_signed(rng) + c->mean + (i % c->dim % 17 == 3 ? c->outlier : 0));
    }
}

static double length_of(const float *a, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)a[i] * (double)a[i];
    }
    return sqrt(sum);
}

/* No product is above its bound, and no bound is much above its product. */
static void check_bounds(const struct case_of *c, bool has_centre)
{
    struct memtx__rng rng = memtx__rng_create(c->dim, 1);
    struct memtx__arena arena = {0};
    struct memtx__i8_rows tile;
    float *rows = malloc(N_ROWS * c->dim * sizeof *rows), *queries = malloc(N_QUERIES * c->dim * sizeof *queries);
    float *centre = calloc(c->dim, sizeof *centre), *spare = malloc(c->dim * sizeof *spare);
    const size_t n_bytes = memtx__i8_query_bytes(c->dim);
    int8_t *numbers = malloc(N_QUERIES * n_bytes);
    struct memtx__i8_side sides[N_QUERIES];
    struct memtx__i8_query ready[N_QUERIES];
    float *bounds = aligned_alloc(64, N_QUERIES * N_ROWS * sizeof *bounds), loss = 0;
    make(rows, N_ROWS, c, &rng);
    make(queries, N_QUERIES, c, &rng);
    for (size_t i = 0; has_centre && i < N_ROWS * c->dim; i++) {
        centre[i % c->dim] += rows[i] / (2 * N_ROWS);
    }
    for (size_t q = 0; q < N_QUERIES; q++) {
        cr_assert(memtx__i8_round_query(numbers + q * n_bytes, &sides[q], queries + q * c->dim, centre, spare, c->dim));
        ready[q] = memtx__i8_query_of(numbers + q * n_bytes, &sides[q], c->dim);
        loss = fmaxf(loss, sides[q].loss);
    }
    memtx__i8_rows_take(&tile, &arena, N_ROWS, c->dim);
    cr_assert_eq(memtx__arena_reserve(&arena), 0);
    memtx__i8_rows_take(&tile, &arena, N_ROWS, c->dim);
    for (size_t row = 0; row < N_ROWS; row += MEMTX__I8_LANES) {
        memtx__i8_round_rows(&tile, row, rows + row * c->dim, MEMTX__I8_LANES, centre, loss, c->dim);
    }
    cr_assert(!tile.is_out);
    const struct memtx__i8_block block = {tile.numbers, tile.scales, tile.slacks, N_ROWS, n_bytes / MEMTX__I8_FOUR};
    memtx__lanes_i8_score(bounds, &block, ready, N_QUERIES);
    for (size_t i = 0; i < N_QUERIES * N_ROWS; i++) {
        const float *query = queries + i / N_ROWS * c->dim, *row = rows + i % N_ROWS * c->dim;
        const struct memtx__i8_side *side = &sides[i / N_ROWS];
        const double bound = (double)bounds[i] * (double)side->scale + (double)side->shift;
        double product = 0;
        for (size_t j = 0; j < c->dim; j++) {
            product += (double)query[j] * (double)row[j];
        }
        cr_assert_geq(bound, product, "dim %zu: %.9g, %.9g", c->dim, bound, product);
        cr_assert_leq(bound - product, 0.1 * length_of(query, c->dim) * (length_of(row, c->dim) + 1e-3),
                      "dim %zu: %.9g, %.9g", c->dim, bound, product);
    }
    memtx__arena_release(&arena);
    free(bounds);
    free(numbers);
    free(spare);
    free(centre);
    free(queries);
    free(rows);
}

Test(exact_i8, no_product_is_above_its_bound)
{
    static const struct case_of cases[] = {
        {1, 0, 0, 1},      {3, 0.5F, 0, 1},  {32, 0, 0, 1},     {64, 0, 0, 1},    {64, 3, 0, 1},
        {64, 0, 30, 1},    {64, 1, 5, 1e9F}, {64, 1, 5, 1e-9F}, {80, 0.5F, 4, 1}, {96, 0, 0, 1},
        {128, 2, 10, 100}, {200, 0, 0, 1},   {256, 0, 3, 1},    {255, 1, 1, 1},   {512, 0, 0, 0.1F},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        check_bounds(&cases[i], false);
        check_bounds(&cases[i], true);
    }
}

/* What has no bounds is said, and what is no number gets none. */
Test(exact_i8, what_is_too_large_or_too_small_or_no_number)
{
    enum { DIM = 8 };
    static const float odd[] = {1e30F, -1e16F, 1e-30F, NAN, INFINITY, 0};
    float centre[DIM] = {0}, spare[DIM], query[DIM], rows[MEMTX__I8_LANES * DIM];
    int8_t numbers[DIM];
    struct memtx__i8_side side;
    struct memtx__arena arena = {0};
    struct memtx__i8_rows tile;
    memtx__i8_rows_take(&tile, &arena, N_ROWS, DIM);
    cr_assert_eq(memtx__arena_reserve(&arena), 0);
    memtx__i8_rows_take(&tile, &arena, N_ROWS, DIM);
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        const bool is_number = isfinite(odd[i]);
        for (size_t j = 0; j < DIM; j++) {
            query[j] = odd[i];
            for (size_t lane = 0; lane < MEMTX__I8_LANES; lane++) {
                rows[lane * DIM + j] = lane == 5 ? odd[i] : 1;
            }
        }
        if (is_number) {
            cr_expect_not(memtx__i8_round_query(numbers, &side, query, centre, spare, DIM), "%g", (double)odd[i]);
        }
        tile.is_out = false;
        memtx__i8_round_rows(&tile, 0, rows, MEMTX__I8_LANES, centre, 0.01F, DIM);
        cr_expect_eq(tile.is_out, is_number && odd[i] != 0, "%g", (double)odd[i]);
        cr_expect_eq(isnan(tile.scales[5]), !is_number, "%g", (double)odd[i]);
        cr_expect(isfinite(tile.scales[4]) && tile.scales[4] > 0);
        tile.is_out = false;
        memtx__i8_round_rows(&tile, 0, rows, 5, centre, 0.01F, DIM); /* it is no row */
        cr_expect_not(tile.is_out);
    }
    memtx__arena_release(&arena);
}
