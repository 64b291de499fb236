/* Bounds from int8 (exact_i8.h). Sixteen rows are turned on their side, and everything is done to all of them at once. */
#include "search/exact_i8.h"

#include <math.h>
#include <string.h>

#include "math/clones.h"
#include "math/lanes.h"
#include "math/rows.h"

enum { LANES = MEMTX__I8_LANES, FOUR = MEMTX__I8_FOUR, INFINITE_BITS = 0x7F800000, SIZE_BITS = 0x7FFFFFFF };
_Static_assert((int)MEMTX__I8_LANES == (int)MEMTX__LANES, "rows are turned by lanes.h");

/* Numbers of this size at most have squares and sums that are far from the ends of float32. */
static const float MOST = 0x1p50F, LEAST = 0x1p-50F;

/* What float32 may add to or take from a product of vectors of lengths one, here, in the transform and in the search
 * that is bounded: a part in 2^24 for each of the terms and steps, twice. */
static float rounding(size_t dim)
{
    return (float)(dim + 64) * 0x1p-22F;
}

static size_t fours_of(size_t dim)
{
    return (dim + FOUR - 1) / FOUR;
}

size_t memtx__i8_query_bytes(size_t dim)
{
    return fours_of(dim) * FOUR;
}

void memtx__i8_rows_take(struct memtx__i8_rows *rows, struct memtx__arena *arena, size_t n_rows, size_t dim)
{
    rows->numbers = memtx__arena_take(arena, n_rows, memtx__i8_query_bytes(dim));
    rows->scales = memtx__arena_take(arena, n_rows, sizeof *rows->scales);
    rows->slacks = memtx__arena_take(arena, n_rows, sizeof *rows->slacks);
    rows->columns = memtx__arena_take(arena, fours_of(dim) * FOUR * LANES, sizeof *rows->columns);
    rows->is_out = false;
}

/* ---- the transform ---------------------------------------------------------------------------- */

/* Sums and differences of values[n][width], `width` vectors side by side: of numbers that stand `half` apart. An
 * orthogonal transform, and so is the next. */
static inline void combine_two(float *values, size_t n, size_t width, size_t half)
{
    const float factor = 0x1.6A09E6p-1F; /* sqrt(1/2) */
    for (size_t first = 0; first < n; first += 2 * half) {
        float *a = values + first * width, *b = a + half * width;
#pragma omp simd
        for (size_t i = 0; i < half * width; i++) {
            const float sum = a[i] + b[i], difference = a[i] - b[i];
            a[i] = factor * sum;
            b[i] = factor * difference;
        }
    }
}

/* The same for `half` and 2 * half together. */
static inline void combine_four(float *values, size_t n, size_t width, size_t half)
{
    for (size_t first = 0; first < n; first += 4 * half) {
        float *a = values + first * width, *b = a + half * width, *c = b + half * width, *d = c + half * width;
#pragma omp simd
        for (size_t i = 0; i < half * width; i++) {
            const float ab = a[i] + b[i], a_b = a[i] - b[i], cd = c[i] + d[i], c_d = c[i] - d[i];
            a[i] = 0.5F * (ab + cd);
            b[i] = 0.5F * (a_b + c_d);
            c[i] = 0.5F * (ab - cd);
            d[i] = 0.5F * (a_b - c_d);
        }
    }
}

/* Hadamard's, of any dim: in blocks, the powers of two that it is the sum of. */
static inline void transform(float *values, size_t dim, size_t width)
{
    for (size_t n; dim > 0; values += n * width, dim -= n) {
        size_t half = 1;
        for (n = 1; n * 2 <= dim;) {
            n *= 2;
        }
        if (__builtin_ctzll(n) % 2) {
            combine_two(values, n, width, half);
            half = 2;
        }
        for (; half < n; half *= 4) {
            combine_four(values, n, width, half);
        }
    }
}

MEMTX__CLONES static void transform_one(float *values, size_t dim)
{
    transform(values, dim, 1);
}

MEMTX__CLONES static void transform_lanes(float *columns, size_t dim)
{
    transform(columns, dim, LANES);
}

/* ---- queries ---------------------------------------------------------------------------------- */

bool memtx__i8_round_query(int8_t *numbers, struct memtx__i8_side *side, const float *query, const float *centre,
                           float *spare, size_t dim)
{
    float largest = 0;
    double shift = 0, square = 0, lost = 0;
    for (size_t i = 0; i < dim; i++) {
        shift += (double)query[i] * (double)centre[i];
        square += (double)query[i] * (double)query[i];
    }
    memset(numbers, 0, memtx__i8_query_bytes(dim));
    *side = (struct memtx__i8_side){.shift = (float)shift};
    if (!(square <= (double)MOST * (double)MOST) || square < (double)LEAST * (double)LEAST) {
        return false;
    }
    memcpy(spare, query, dim * sizeof *spare);
    transform_one(spare, dim);
    for (size_t i = 0; i < dim; i++) {
        largest = fmaxf(largest, fabsf(spare[i]));
    }
    side->scale = largest / 127;
    for (size_t i = 0; i < dim; i++) {
        const float rounded = nearbyintf(spare[i] / side->scale);
        const double left = (double)spare[i] - (double)rounded * (double)side->scale;
        numbers[i] = (int8_t)rounded;
        lost += left * left;
    }
    side->length = (float)sqrt(square);
    side->loss = (float)(sqrt(lost) / sqrt(square));
    return true;
}

struct memtx__i8_query memtx__i8_query_of(const int8_t *numbers, const struct memtx__i8_side *side, size_t dim)
{
    int32_t sum = 0;
    for (size_t i = 0; i < memtx__i8_query_bytes(dim); i++) {
        sum += numbers[i];
    }
    return (struct memtx__i8_query){numbers, -128 * sum, side->length / side->scale, 0};
}

/* ---- rows ------------------------------------------------------------------------------------- */

/* Of each row. */
struct lanes {
    int32_t size_bits[LANES]; /* of the largest of its numbers as it is stored: sizes order as their bits do */
    float largest[LANES];     /* of its numbers that are rounded */
    float steps[LANES];       /* that the largest has: 127, or 0 where there is nothing to round */
    float scales[LANES];      /* a step */
    float lost[LANES];        /* what is rounded off, squared */
    float kept[LANES];        /* and what is left */
};

static int32_t bits_of(float value)
{
    int32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* columns[dim][LANES] less the centre, and the largest size in each row before. */
MEMTX__CLONES static void take_centre(struct lanes *lanes, float *columns, const float *centre, size_t dim)
{
    int32_t most[LANES] = {0};
    for (size_t i = 0; i < dim; i++) {
#pragma omp simd
        for (size_t lane = 0; lane < LANES; lane++) {
            const int32_t size = bits_of(columns[i * LANES + lane]) & SIZE_BITS;
            most[lane] = size > most[lane] ? size : most[lane];
            columns[i * LANES + lane] -= centre[i];
        }
    }
    memcpy(lanes->size_bits, most, sizeof most);
}

/* columns[fours][FOUR][LANES] */
MEMTX__CLONES static void find_largest(struct lanes *lanes, const float *columns, size_t fours)
{
    float most[LANES] = {0};
    for (size_t four = 0; four < fours; four++, columns += FOUR * LANES) {
#pragma omp simd
        for (size_t lane = 0; lane < LANES; lane++) {
            const float a = fabsf(columns[lane]), b = fabsf(columns[LANES + lane]);
            const float c = fabsf(columns[2 * LANES + lane]), d = fabsf(columns[3 * LANES + lane]);
            const float ab = a > b ? a : b, cd = c > d ? c : d, abcd = ab > cd ? ab : cd;
            most[lane] = abcd > most[lane] ? abcd : most[lane];
        }
    }
    memcpy(lanes->largest, most, sizeof most);
}

/* words[fours][LANES] are the rows' numbers, 128 more than they are. A number is what it is added to this for: the sum
 * is a whole number, and its last bits are these. */
MEMTX__CLONES static void round_columns(uint32_t *words, struct lanes *lanes, const float *columns, size_t fours)
{
    static const float whole = 0x1.8p23F;
    float lost[LANES] = {0}, kept[LANES] = {0};
    for (size_t four = 0; four < fours; four++, columns += FOUR * LANES, words += LANES) {
#pragma omp simd
        for (size_t lane = 0; lane < LANES; lane++) {
            uint32_t word = 0;
            float lost_here = 0, kept_here = 0;
            for (size_t i = 0; i < FOUR; i++) {
                const float x = columns[i * LANES + lane], number = x * lanes->steps[lane] + whole;
                const float rounded = (number - whole) * lanes->scales[lane], left = x - rounded;
                lost_here += left * left;
                kept_here += rounded * rounded;
                word |= (((uint32_t)bits_of(number) + 128) & UINT8_MAX) << (8 * i);
            }
            lost[lane] += lost_here;
            kept[lane] += kept_here;
            words[lane] = word;
        }
    }
    memcpy(lanes->lost, lost, sizeof lost);
    memcpy(lanes->kept, kept, sizeof kept);
}

/* How rows are rounded: to zeros those that have no bounds or are no numbers. */
MEMTX__CLONES static void choose_steps(struct lanes *lanes)
{
#pragma omp simd
    for (size_t lane = 0; lane < LANES; lane++) {
        const bool rounds = lanes->size_bits[lane] <= bits_of(MOST) && lanes->largest[lane] >= LEAST;
        lanes->steps[lane] = rounds ? 127 / lanes->largest[lane] : 0;
        lanes->scales[lane] = rounds ? lanes->largest[lane] / 127 : 0;
    }
}

/* What is too large, or no number, makes no number of the sums either. */
static void clear_unusual(float *columns, const struct lanes *lanes, size_t dim)
{
    for (size_t lane = 0; lane < LANES; lane++) {
        for (size_t i = 0; i < dim && lanes->size_bits[lane] > bits_of(MOST); i++) {
            columns[i * LANES + lane] = 0;
        }
    }
}

/* slacks[LANES] for centres of this length. */
MEMTX__CLONES static void find_slacks(float *slacks, const struct lanes *lanes, float length, float loss,
                                      float rounding)
{
#pragma omp simd
    for (size_t lane = 0; lane < LANES; lane++) {
        const float e = sqrtf(lanes->lost[lane]), x = sqrtf(lanes->kept[lane]);
        slacks[lane] = e + loss * x + (e + x + 2 * length) * rounding;
    }
}

void memtx__i8_round_rows(struct memtx__i8_rows *rows, size_t first, const float *values, size_t n, const float *centre,
                          float loss, size_t dim)
{
    const size_t fours = fours_of(dim);
    const float length = sqrtf(memtx__dot(centre, centre, dim));
    struct lanes lanes;
    memset(rows->columns + dim * LANES, 0, (fours * FOUR - dim) * LANES * sizeof *rows->columns);
    memtx__lanes_turn(rows->columns, values, dim);
    take_centre(&lanes, rows->columns, centre, dim);
    transform_lanes(rows->columns, dim);
    find_largest(&lanes, rows->columns, fours);
    choose_steps(&lanes);
    clear_unusual(rows->columns, &lanes, dim);
    round_columns((uint32_t *)(void *)(rows->numbers + first * memtx__i8_query_bytes(dim)), &lanes, rows->columns,
                  fours);
    find_slacks(rows->slacks + first, &lanes, length, loss, rounding(dim));
    for (size_t lane = 0; lane < LANES; lane++) {
        const int32_t bits = lanes.size_bits[lane];
        rows->scales[first + lane] = bits >= INFINITE_BITS ? NAN : lanes.scales[lane];
        rows->is_out |= lane < n && ((bits > bits_of(MOST) && bits < INFINITE_BITS) ||
                                     (bits <= bits_of(MOST) && lanes.largest[lane] > 0 && lanes.largest[lane] < LEAST));
    }
}
