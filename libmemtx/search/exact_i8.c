/* Bounds from int8 (exact_i8.h). Sixteen rows are turned on their side, and everything is done to all of them at once. */
#include "search/exact_i8.h"

#include <math.h>
#include <string.h>

#include "math/clones.h"
#include "math/lanes.h"

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
    rows->columns = memtx__arena_take(arena, dim * LANES, sizeof *rows->columns);
    rows->is_out = false;
}

/* ---- the transform ---------------------------------------------------------------------------- */

/* values[n][width] of `width` vectors side by side, n a power of two: sums and differences, over and over. */
MEMTX__CLONES static void add_and_subtract(float *values, size_t n, size_t width)
{
    for (size_t half = 1; half < n; half *= 2) {
        for (size_t first = 0; first < n; first += 2 * half) {
            float *a = values + first * width, *b = a + half * width;
#pragma omp simd
            for (size_t i = 0; i < half * width; i++) {
                const float sum = a[i] + b[i], difference = a[i] - b[i];
                a[i] = sum;
                b[i] = difference;
            }
        }
    }
}

MEMTX__CLONES static void multiply(float *values, float factor, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        values[i] *= factor;
    }
}

/* Orthogonal, of any dim: in blocks, the powers of two that it is the sum of. */
static void transform(float *values, size_t dim, size_t width)
{
    for (size_t first = 0; first < dim;) {
        size_t n = 1;
        while (n * 2 <= dim - first) {
            n *= 2;
        }
        add_and_subtract(values + first * width, n, width);
        multiply(values + first * width, 1 / sqrtf((float)n), n * width);
        first += n;
    }
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
    transform(spare, dim, 1);
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

/* columns[dim][LANES] less the centre, and the bits of the largest size in each row before. */
MEMTX__CLONES static void take_centre(int32_t bits[LANES], float *columns, const float *centre, size_t dim)
{
    for (size_t i = 0; i < dim; i++) {
#pragma omp simd
        for (size_t lane = 0; lane < LANES; lane++) {
            int32_t size;
            memcpy(&size, &columns[i * LANES + lane], sizeof size);
            size &= SIZE_BITS;
            bits[lane] = size > bits[lane] ? size : bits[lane];
            columns[i * LANES + lane] -= centre[i];
        }
    }
}

MEMTX__CLONES static void find_largest(float largest[LANES], const float *columns, size_t dim)
{
    for (size_t i = 0; i < dim; i++) {
#pragma omp simd
        for (size_t lane = 0; lane < LANES; lane++) {
            const float size = fabsf(columns[i * LANES + lane]);
            largest[lane] = size > largest[lane] ? size : largest[lane];
        }
    }
}

/* What is rounded off, squared, and what is left, squared, of each row; words[four][lane] are its numbers, 128 more than
 * they are. */
MEMTX__CLONES static void round_columns(uint32_t *words, float lost[LANES], float kept[LANES], const float *columns,
                                        const float steps[LANES], const float scales[LANES], size_t dim)
{
    for (size_t four = 0; four * FOUR < dim; four++) {
        uint32_t word[LANES] = {0};
        for (size_t i = 0; i < FOUR; i++) {
            const size_t column = four * FOUR + i;
#pragma omp simd
            for (size_t lane = 0; lane < LANES; lane++) {
                const float x = column < dim ? columns[column * LANES + lane] : 0, scaled = x * steps[lane];
                const int32_t number = (int32_t)(scaled + (scaled < 0 ? -0.5F : 0.5F));
                const float rounded = (float)number * scales[lane], left = x - rounded;
                lost[lane] += left * left;
                kept[lane] += rounded * rounded;
                word[lane] |= (uint32_t)(number + 128) << (8 * i);
            }
        }
        memcpy(words + four * LANES, word, sizeof word);
    }
}

void memtx__i8_round_rows(struct memtx__i8_rows *rows, size_t first, const float *values, size_t n, const float *centre,
                          float loss, size_t dim)
{
    float largest[LANES] = {0}, steps[LANES], scales[LANES], lost[LANES] = {0}, kept[LANES] = {0};
    int32_t bits[LANES] = {0}, most;
    float length = 0;
    memcpy(&most, &MOST, sizeof most);
    memtx__lanes_turn(rows->columns, values, dim);
    take_centre(bits, rows->columns, centre, dim);
    transform(rows->columns, dim, LANES);
    find_largest(largest, rows->columns, dim);
    for (size_t i = 0; i < dim; i++) {
        length += centre[i] * centre[i];
    }
    length = sqrtf(length);
    for (size_t lane = 0; lane < LANES; lane++) {
        const bool has_numbers =
            bits[lane] <= most && largest[lane] >= LEAST; /* else they are zero, or it has no bound */
        steps[lane] = has_numbers ? 127 / largest[lane] : 0;
        scales[lane] = has_numbers ? largest[lane] / 127 : 0;
        for (size_t i = 0; i < dim && bits[lane] > most; i++) {
            rows->columns[i * LANES + lane] = 0; /* no NaN to be made an integer of */
        }
    }
    round_columns((uint32_t *)(void *)(rows->numbers + first * memtx__i8_query_bytes(dim)), lost, kept, rows->columns,
                  steps, scales, dim);
    for (size_t lane = 0; lane < LANES; lane++) {
        const float e = sqrtf(lost[lane]), x = sqrtf(kept[lane]);
        rows->scales[first + lane] = bits[lane] >= INFINITE_BITS ? NAN : scales[lane];
        rows->slacks[first + lane] = e + loss * x + (e + x + 2 * length) * rounding(dim);
        rows->is_out |= lane < n && ((bits[lane] > most && bits[lane] < INFINITE_BITS) ||
                                     (bits[lane] <= most && largest[lane] > 0 && largest[lane] < LEAST));
    }
}
