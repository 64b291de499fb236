/* Products of int8 (lanes_i8.h). With VNNI 24 sums of 16 rows each stay in registers, six queries by four groups; they
 * have names, since gcc keeps an array or structure of so many in memory. */
#include "math/lanes_i8.h"

#include <math.h>
#include <string.h>

#if defined(__x86_64__) && !defined(MEMTX__PLAIN) /* which a test asks for */
#include <immintrin.h>
#define VNNI __attribute__((target("avx512f,avx512bw,avx512vnni")))
#define INLINE static inline __attribute__((always_inline)) /* for a constant NULL to be one inside */
#endif

/* ---- as it is meant --------------------------------------------------------------------------- */

static int32_t sum_up(const struct memtx__i8_block *rows, size_t row, const struct memtx__i8_query *query)
{
    const size_t group = row / MEMTX__I8_LANES, lane = row % MEMTX__I8_LANES;
    int32_t sum = query->offset;
    for (size_t j = 0; j < rows->fours; j++) {
        const uint8_t *some = rows->numbers + ((group * rows->fours + j) * MEMTX__I8_LANES + lane) * MEMTX__I8_FOUR;
        for (size_t i = 0; i < MEMTX__I8_FOUR; i++) {
            sum += some[i] * query->numbers[j * MEMTX__I8_FOUR + i];
        }
    }
    return sum;
}

/* Both functions in one, here and below: scores or above is NULL. */
static void run_plainly(float *scores, uint64_t *above, const struct memtx__i8_block *rows,
                        const struct memtx__i8_query *queries, size_t n_queries)
{
    if (above) {
        memset(above, 0, n_queries * rows->n / MEMTX__I8_ROWS * sizeof *above);
    }
    for (size_t i = 0; i < n_queries * rows->n; i++) {
        const struct memtx__i8_query *query = &queries[i / rows->n];
        const size_t row = i % rows->n;
        const float score = fmaf(query->factor, rows->slacks[row], (float)sum_up(rows, row, query) * rows->scales[row]);
        if (scores) {
            scores[i] = score;
        } else {
            above[i / MEMTX__I8_ROWS] |= (uint64_t)(score > query->limit) << i % MEMTX__I8_ROWS;
        }
    }
}

/* ---- with VNNI -------------------------------------------------------------------------------- */

#if defined(VNNI)

/* Sums are int32 for the compiler too: as __m512i, of int64, gcc copies each whenever it is added to. */
typedef int32_t sums_16 __attribute__((vector_size(64)));

VNNI static inline __m512i numbers_of(const struct memtx__i8_query *query, size_t j)
{
    int32_t numbers;
    memcpy(&numbers, query->numbers + j * MEMTX__I8_FOUR, sizeof numbers);
    return _mm512_set1_epi32(numbers);
}

/* Scores of a group, to where they are wanted, or else a bit for each that is above the limit. */
VNNI INLINE uint64_t give(float *scores, sums_16 sums, const struct memtx__i8_block *rows, size_t row,
                          const struct memtx__i8_query *query)
{
    const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps((__m512i)sums), _mm512_load_ps(rows->scales + row));
    const __m512 all = _mm512_fmadd_ps(_mm512_set1_ps(query->factor), _mm512_load_ps(rows->slacks + row), scaled);
    if (scores) {
        _mm512_store_ps(scores + row, all);
        return 0;
    }
    return _mm512_cmp_ps_mask(all, _mm512_set1_ps(query->limit), _CMP_GT_OQ);
}

/* Of query q the sums of four groups, by name. */
#define BEGIN(q)                                                                                                       \
    sums_16 a##q = (sums_16)_mm512_set1_epi32(queries[q].offset);                                                      \
    sums_16 b##q = a##q, c##q = a##q, d##q = a##q
#define READ                                                                                                           \
    const __m512i a = _mm512_load_si512(at), b = _mm512_load_si512(at + group_bytes);                                  \
    const __m512i c = _mm512_load_si512(at + 2 * group_bytes), d = _mm512_load_si512(at + 3 * group_bytes);            \
    __m512i numbers
#define ADD(q)                                                                                                         \
    numbers = numbers_of(&queries[q], j);                                                                              \
    a##q = (sums_16)_mm512_dpbusd_epi32((__m512i)a##q, a, numbers);                                                    \
    b##q = (sums_16)_mm512_dpbusd_epi32((__m512i)b##q, b, numbers);                                                    \
    c##q = (sums_16)_mm512_dpbusd_epi32((__m512i)c##q, c, numbers);                                                    \
    d##q = (sums_16)_mm512_dpbusd_epi32((__m512i)d##q, d, numbers)
#define GIVE(q)                                                                                                        \
    to = scores ? scores + q * rows->n : NULL;                                                                         \
    bits = give(to, a##q, rows, row, &queries[q]) | give(to, b##q, rows, row + 16, &queries[q]) << 16 |                \
           give(to, c##q, rows, row + 32, &queries[q]) << 32 | give(to, d##q, rows, row + 48, &queries[q]) << 48;      \
    if (above) {                                                                                                       \
        above[q * (rows->n / MEMTX__I8_ROWS)] = bits;                                                                  \
    }

/* Rows row .. row + 63 for six queries. */
VNNI INLINE void run_six(float *scores, uint64_t *above, const struct memtx__i8_block *rows, size_t row,
                         const struct memtx__i8_query *queries)
{
    const size_t four_bytes = MEMTX__I8_LANES * MEMTX__I8_FOUR, group_bytes = rows->fours * four_bytes;
    const uint8_t *at = rows->numbers + row / MEMTX__I8_LANES * group_bytes;
    uint64_t bits;
    float *to;
    BEGIN(0);
    BEGIN(1);
    BEGIN(2);
    BEGIN(3);
    BEGIN(4);
    BEGIN(5);
    for (size_t j = 0; j < rows->fours; j++, at += four_bytes) {
        READ;
        ADD(0);
        ADD(1);
        ADD(2);
        ADD(3);
        ADD(4);
        ADD(5);
    }
    GIVE(0);
    GIVE(1);
    GIVE(2);
    GIVE(3);
    GIVE(4);
    GIVE(5);
}

/* The same for one. */
VNNI INLINE void run_one(float *scores, uint64_t *above, const struct memtx__i8_block *rows, size_t row,
                         const struct memtx__i8_query *queries)
{
    const size_t four_bytes = MEMTX__I8_LANES * MEMTX__I8_FOUR, group_bytes = rows->fours * four_bytes;
    const uint8_t *at = rows->numbers + row / MEMTX__I8_LANES * group_bytes;
    uint64_t bits;
    float *to;
    BEGIN(0);
    for (size_t j = 0; j < rows->fours; j++, at += four_bytes) {
        READ;
        ADD(0);
    }
    GIVE(0);
}

VNNI INLINE void run_fast(float *scores, uint64_t *above, const struct memtx__i8_block *rows,
                          const struct memtx__i8_query *queries, size_t n_queries)
{
    const size_t n_blocks = rows->n / MEMTX__I8_ROWS, n_sixes = n_queries - n_queries % MEMTX__I8_QUERIES;
    for (size_t block = 0; block < n_blocks; block++) {
        const size_t row = block * MEMTX__I8_ROWS;
        for (size_t q = 0; q < n_queries; q += q < n_sixes ? MEMTX__I8_QUERIES : 1) {
            float *to = scores ? scores + q * rows->n : NULL;
            uint64_t *bits = above ? above + q * n_blocks + block : NULL;
            if (q < n_sixes) {
                run_six(to, bits, rows, row, queries + q);
            } else {
                run_one(to, bits, rows, row, queries + q);
            }
        }
    }
}

VNNI static void score_fast(float *scores, const struct memtx__i8_block *rows, const struct memtx__i8_query *queries,
                            size_t n_queries)
{
    run_fast(scores, NULL, rows, queries, n_queries);
}

VNNI static void compare_fast(uint64_t *above, const struct memtx__i8_block *rows,
                              const struct memtx__i8_query *queries, size_t n_queries)
{
    run_fast(NULL, above, rows, queries, n_queries);
}

#endif

static void run(float *scores, uint64_t *above, const struct memtx__i8_block *rows,
                const struct memtx__i8_query *queries, size_t n_queries)
{
#if defined(VNNI)
    if (__builtin_cpu_supports("avx512vnni")) {
        if (scores) {
            score_fast(scores, rows, queries, n_queries);
        } else {
            compare_fast(above, rows, queries, n_queries);
        }
        return;
    }
#endif
    run_plainly(scores, above, rows, queries, n_queries);
}

void memtx__lanes_i8_score(float *scores, const struct memtx__i8_block *rows, const struct memtx__i8_query *queries,
                           size_t n_queries)
{
    run(scores, NULL, rows, queries, n_queries);
}

void memtx__lanes_i8_compare(uint64_t *above, const struct memtx__i8_block *rows, const struct memtx__i8_query *queries,
                             size_t n_queries)
{
    run(NULL, above, rows, queries, n_queries);
}
