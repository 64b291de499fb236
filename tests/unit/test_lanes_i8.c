/* The kernel of bounds from int8 (math/lanes_i8.h), against plain sums. */
#include "math/lanes_i8.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

static void *take(size_t n_bytes)
{
    void *block = aligned_alloc(64, (n_bytes + 63) / 64 * 64);
    cr_assert_not_null(block);
    return block;
}

/* Every number of queries that is no whole six, with numbers as large as they come. */
Test(lanes_i8, equal_the_plain_sum)
{
    static const size_t fours_of[] = {1, 2, 16, 20, 128};
    enum { MOST_QUERIES = 13, N = 2 * MEMTX__I8_ROWS, MOST_BYTES = 512 };
    struct memtx__rng rng = memtx__rng_create(1, 0);
    uint8_t *rows = take(N * MOST_BYTES);
    int8_t *numbers = take(MOST_QUERIES * MOST_BYTES);
    float *scales = take(N * sizeof *scales), *slacks = take(N * sizeof *slacks);
    float *scores = take(MOST_QUERIES * N * sizeof *scores);
    uint64_t above[MOST_QUERIES * N / MEMTX__I8_ROWS];
    for (size_t c = 0; c < sizeof fours_of / sizeof fours_of[0]; c++) {
        const size_t fours = fours_of[c], n_bytes = fours * MEMTX__I8_FOUR;
        for (size_t i = 0; i < N * n_bytes; i++) {
            rows[i] = c % 2 ? 255 : (uint8_t)memtx__rng_below(&rng, 256);
        }
        for (size_t i = 0; i < MOST_QUERIES * n_bytes; i++) {
            numbers[i] = c % 2 ? -127 : (int8_t)((int)memtx__rng_below(&rng, 255) - 127);
        }
        for (size_t i = 0; i < N; i++) {
            scales[i] = i == 77 ? NAN : 0.01F * memtx__rng_signed(&rng);
            slacks[i] = 1 + memtx__rng_signed(&rng);
        }
        for (size_t n_queries = 1; n_queries <= MOST_QUERIES; n_queries++) {
            struct memtx__i8_query queries[MOST_QUERIES];
            for (size_t q = 0; q < n_queries; q++) {
                queries[q] = (struct memtx__i8_query){numbers + q * n_bytes, (int32_t)q * 1000 - 3000, (float)q * 0.5F,
                                                      q == 3 ? -INFINITY : 0.1F};
            }
            const struct memtx__i8_block block = {rows, scales, slacks, N, fours};
            memset(above, 0xAA, sizeof above);
            memtx__lanes_i8_score(scores, &block, queries, n_queries);
            memtx__lanes_i8_compare(above, &block, queries, n_queries);
            for (size_t i = 0; i < n_queries * N; i++) {
                const size_t q = i / N, row = i % N, group = row / MEMTX__I8_LANES, lane = row % MEMTX__I8_LANES;
                int32_t sum = queries[q].offset;
                for (size_t j = 0; j < n_bytes; j++) {
                    const size_t four = j / MEMTX__I8_FOUR, at = j % MEMTX__I8_FOUR;
                    sum += rows[((group * fours + four) * MEMTX__I8_LANES + lane) * MEMTX__I8_FOUR + at] *
                           queries[q].numbers[j];
                }
                const float wanted = fmaf(queries[q].factor, slacks[row], (float)sum * scales[row]);
                const bool is_above = above[i / MEMTX__I8_ROWS] >> i % MEMTX__I8_ROWS & 1;
                cr_assert(scores[i] == wanted || (isnan(scores[i]) && isnan(wanted)), "%zu fours, %zu of %zu queries",
                          fours, q, n_queries);
                cr_assert_eq(is_above, wanted > queries[q].limit);
            }
        }
    }
    free(scores);
    free(slacks);
    free(scales);
    free(numbers);
    free(rows);
}
