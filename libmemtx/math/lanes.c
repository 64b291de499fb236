/* Rows side by side (lanes.h). The sums stay in registers: six queries are as many as AVX2 has room for, and enough for
 * AVX-512 to be kept busy. Vectors of the compiler's, since it would take half of AVX-512's width by itself; the file
 * is compiled with -ffp-contract=fast, for ISO C's rounding between product and sum costs half the speed.
 *
 * Rows are turned around four by four in registers: numbers stored one by one, a line apart, make whatever is read next
 * wait, which took as long as the scores of eight queries. */
#include "math/lanes.h"

#include <string.h>

#include "math/clones.h"

typedef float lanes __attribute__((vector_size(MEMTX__LANES * sizeof(float))));
typedef float four __attribute__((vector_size(4 * sizeof(float))));

static four load_four(const float *from)
{
    four numbers;
    memcpy(&numbers, from, sizeof numbers);
    return numbers;
}

/* Four rows' numbers i .. i + 3 become four columns' numbers of these rows. */
static void turn_fours(float *columns, const float *rows, size_t dim)
{
    const four a = load_four(rows), b = load_four(rows + dim), c = load_four(rows + 2 * dim);
    const four d = load_four(rows + 3 * dim);
    const four ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    const four cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    const four turned[4] = {
        __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5), __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7),
        __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5), __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7)};
    for (size_t i = 0; i < 4; i++) {
        memcpy(columns + i * MEMTX__LANES, &turned[i], sizeof turned[i]);
    }
}

void memtx__lanes_turn(float *columns, const float *rows, size_t dim)
{
    size_t i = 0;
    for (; i + 4 <= dim; i += 4) {
        for (size_t row = 0; row < MEMTX__LANES; row += 4) {
            turn_fours(columns + i * MEMTX__LANES + row, rows + row * dim + i, dim);
        }
    }
    for (; i < dim; i++) {
        for (size_t row = 0; row < MEMTX__LANES; row++) {
            columns[i * MEMTX__LANES + row] = rows[row * dim + i];
        }
    }
}

MEMTX__CLONES static void score_lanes(float scores[MEMTX__LANE_QUERIES][MEMTX__LANES], const float *columns,
                                      const float *const queries[MEMTX__LANE_QUERIES], size_t dim)
{
    lanes sums[MEMTX__LANE_QUERIES] = {{0}};
    for (size_t i = 0; i < dim; i++) {
        lanes column;
        memcpy(&column, columns + i * MEMTX__LANES, sizeof column);
        for (size_t q = 0; q < MEMTX__LANE_QUERIES; q++) {
            sums[q] += queries[q][i] * column;
        }
    }
    memcpy(scores, sums, sizeof sums);
}

void memtx__lanes_score(float scores[MEMTX__LANE_QUERIES][MEMTX__LANES], const float *columns,
                        const float *const queries[MEMTX__LANE_QUERIES], size_t dim)
{
    score_lanes(scores, columns, queries, dim);
}

MEMTX__CLONES static unsigned lanes_from(const float scores[MEMTX__LANES], float from)
{
    unsigned found = 0;
#pragma omp simd reduction(| : found)
    for (int i = 0; i < MEMTX__LANES; i++) {
        found |= (unsigned)(scores[i] >= from) << i;
    }
    return found;
}

unsigned memtx__lanes_from(const float scores[MEMTX__LANES], float from)
{
    return lanes_from(scores, from);
}
