/* Rows side by side (lanes.h). The sums stay in registers: six queries are as many as AVX2 has room for, and enough for
 * AVX-512 to be kept busy. Vectors of the compiler's, since it would take half of AVX-512's width by itself; the file
 * is compiled with -ffp-contract=fast, for ISO C's rounding between product and sum costs half the speed. */
#include "math/lanes.h"

#include <string.h>

#include "math/clones.h"

typedef float lanes __attribute__((vector_size(MEMTX__LANES * sizeof(float))));

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
