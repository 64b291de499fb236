/* The k best (topk.h). Cutting back finds a threshold by counting; the final sort is of at most k candidates. */
#include "math/topk.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "math/clones.h"

#if defined(__x86_64__) && !defined(MEMTX__PLAIN) /* which a test asks for */
#include <immintrin.h>
#define AVX512 __attribute__((target("avx512f")))
#endif

enum { SCAN = 32, SPAN = 512, LEAST_ROOM = 64, INFINITE_BITS = 0x7F800000 };

size_t memtx__topk_capacity(size_t k)
{
    return k < LEAST_ROOM ? k + LEAST_ROOM : 2 * k;
}

void memtx__topk_begin(struct memtx__topk *topk, struct memtx__candidate *candidates, size_t k)
{
    *topk = (struct memtx__topk){
        .candidates = candidates, .k = k, .capacity = memtx__topk_capacity(k), .threshold = -INFINITY};
}

static bool better(struct memtx__candidate a, struct memtx__candidate b)
{
    return a.score > b.score || (a.score == b.score && a.id < b.id);
}

static void swap(struct memtx__candidate *a, struct memtx__candidate *b)
{
    struct memtx__candidate held = *a;
    *a = *b;
    *b = held;
}

/* Scores' bits as integers of the same order; the two zeros are one. */
MEMTX__CLONES static void orders_of(int32_t *orders, const struct memtx__candidate *c, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        const float one_zero = c[i].score + 0.0F;
        int32_t bits;
        memcpy(&bits, &one_zero, sizeof bits);
        orders[i] = bits >= 0 ? bits : bits ^ INT32_MAX;
    }
}

static float score_of(int32_t order)
{
    const int32_t bits = order >= 0 ? order : order ^ INT32_MAX;
    float score;
    memcpy(&score, &bits, sizeof score);
    return score;
}

MEMTX__CLONES static size_t count_from(const int32_t *orders, int32_t lowest, size_t n)
{
    int32_t n_found = 0;
#pragma omp simd reduction(+ : n_found)
    for (size_t i = 0; i < n; i++) {
        n_found += orders[i] >= lowest;
    }
    return (size_t)n_found;
}

/* The least and the greatest of those that are not below `lowest`. */
MEMTX__CLONES static void bounds_from(int32_t *least, int32_t *greatest, const int32_t *orders, int32_t lowest,
                                      size_t n)
{
    int32_t low = INT32_MAX, high = INT32_MIN;
#pragma omp simd reduction(min : low) reduction(max : high)
    for (size_t i = 0; i < n; i++) {
        int32_t order = orders[i] >= lowest ? orders[i] : INT32_MAX;
        low = order < low ? order : low;
        high = orders[i] > high ? orders[i] : high;
    }
    *least = low;
    *greatest = high;
}

/* An order that the k best of n reach: one that k .. most reach, and then *no_ties, or else, where ties leave no such
 * choice, the k-th largest itself. Found bit by bit, from the first bit in which they differ. Such counts are vector code
 * without a branch; a quickselect of as few candidates spends its time on branches that nobody can foresee. */
static int32_t near_kth_largest(bool *no_ties, const int32_t *orders, size_t n, size_t k, size_t most)
{
    int32_t least, greatest, kth;
    int bit = 30;
    bounds_from(&least, &greatest, orders, INT32_MIN, n);
    if ((least < 0) != (greatest < 0)) {
        kth = count_from(orders, 0, n) >= k ? 0 : INT32_MIN;
    } else {
        bit = least == greatest ? -1 : 31 - __builtin_clz((uint32_t)least ^ (uint32_t)greatest);
        kth = bit < 0 ? least : (int32_t)((uint32_t)least >> bit >> 1 << bit << 1); /* what they have in common */
    }
    *no_ties = false;
    for (; bit >= 0; bit--) {
        int32_t higher = (int32_t)((uint32_t)kth + (UINT32_C(1) << bit));
        size_t n_above = count_from(orders, higher, n);
        if (n_above >= k && n_above <= most) {
            bounds_from(&least, &greatest, orders, higher, n);
            *no_ties = true;
            return least;
        }
        kth = n_above > k ? higher : kth;
    }
    return kth;
}

/* The highest id that stays when of the candidates at the k-th order only the n_places lowest ids may. */
static int64_t last_tie(const struct memtx__candidate *c, const int32_t *orders, int32_t kth, size_t n, size_t n_places)
{
    int64_t last = INT64_MIN;
    for (size_t place = 0; place < n_places; place++) {
        int64_t next = INT64_MAX;
        for (size_t i = 0; i < n; i++) {
            next = orders[i] == kth && c[i].id > last && c[i].id < next ? c[i].id : next;
        }
        last = next;
    }
    return last;
}

/* How many more than k are as good as k where a search goes on: the fewer, the longer the search for a threshold. */
static size_t n_spare(const struct memtx__topk *topk)
{
    return (topk->capacity - topk->k) / 4;
}

/* To k candidates and up to `spare` more; the threshold rises. */
static void cut_back(struct memtx__topk *topk, size_t spare)
{
    struct memtx__candidate *c = topk->candidates;
    int32_t orders[MEMTX__TOPK_MOST_CANDIDATES];
    const size_t n = topk->n, k = topk->k;
    bool no_ties;
    orders_of(orders, c, n);
    const int32_t kth = near_kth_largest(&no_ties, orders, n, k, k + spare);
    int64_t last = INT64_MAX;
    if (!no_ties && count_from(orders, kth, n) > k) {
        last = last_tie(c, orders, kth, n, k - count_from(orders, kth + 1, n));
    }
    topk->threshold = score_of(kth);
    size_t n_kept = 0;
    for (size_t i = 0; i < n; i++) { /* without a branch: what does not stay is written over by the next */
        const int stays = (orders[i] > kth) | ((orders[i] == kth) & (c[i].id <= last));
        c[n_kept] = c[i];
        n_kept += (size_t)stays;
    }
    topk->n = n_kept;
}

void memtx__topk_make_room(struct memtx__topk *topk)
{
    cut_back(topk, n_spare(topk));
}

/* The first of the blocks of SCAN scores from i on that has one above the threshold; where there is none, the rest that
 * is no whole block. */
MEMTX__CLONES static size_t skip_below(const float *scores, float threshold, size_t i, size_t n)
{
    for (; i + SCAN <= n; i += SCAN) {
        int n_above = 0;
#pragma omp simd reduction(+ : n_above)
        for (size_t j = 0; j < SCAN; j++) {
            n_above += scores[i + j] > threshold;
        }
        if (n_above) {
            break;
        }
    }
    return i;
}

/* Bit i: scores[i] is above the threshold. */
MEMTX__CLONES static uint32_t which_above(const float *scores, float threshold)
{
    uint32_t above = 0;
#pragma omp simd reduction(| : above)
    for (int i = 0; i < SCAN; i++) {
        above |= (uint32_t)(scores[i] > threshold) << i;
    }
    return above;
}

/* The scores above the threshold: their values and places in hits and at, in order; both have room for n and SCAN
 * more. Gives their number. */
static size_t find_above(float *hits, int32_t *at, const float *scores, float threshold, size_t n)
{
    size_t n_hits = 0, i = skip_below(scores, threshold, 0, n);
    while (i + SCAN <= n) {
        for (uint32_t above = which_above(scores + i, threshold); above; above &= above - 1) {
            at[n_hits] = (int32_t)i + __builtin_ctz(above);
            hits[n_hits] = scores[at[n_hits]];
            n_hits++;
        }
        i = skip_below(scores, threshold, i + SCAN, n);
    }
    for (; i < n; i++) {
        if (scores[i] > threshold) {
            at[n_hits] = (int32_t)i;
            hits[n_hits++] = scores[i];
        }
    }
    return n_hits;
}

#if defined(AVX512)
/* The hits among up to 16 scores from `first` on, behind the n_hits there are; gives the number of all. */
AVX512 static size_t take_above(float *hits, int32_t *at, size_t n_hits, const float *scores, __m512 threshold,
                                size_t first, size_t n)
{
    const __m512i places = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __mmask16 there = (__mmask16)(n >= 16 ? 0xFFFF : (1 << n) - 1);
    const __m512 some = _mm512_maskz_loadu_ps(there, scores + first);
    const __mmask16 above = _mm512_mask_cmp_ps_mask(there, some, threshold, _CMP_GT_OQ);
    const __m512i place = _mm512_add_epi32(places, _mm512_set1_epi32((int)first));
    _mm512_storeu_ps(hits + n_hits, _mm512_maskz_compress_ps(above, some));
    _mm512_storeu_si512(at + n_hits, _mm512_maskz_compress_epi32(above, place));
    return n_hits + (size_t)__builtin_popcount(above);
}

/* As find_above, with a branch for each 64 scores instead of one for each hit: where there are hits is hard to
 * foresee. */
AVX512 static size_t find_above_avx512(float *hits, int32_t *at, const float *scores, float threshold, size_t n)
{
    const __m512 limit = _mm512_set1_ps(threshold);
    size_t n_hits = 0, i = 0;
    for (; i + 64 <= n; i += 64) {
        unsigned above = 0;
        for (size_t part = 0; part < 64; part += 16) {
            above |= _mm512_cmp_ps_mask(_mm512_loadu_ps(scores + i + part), limit, _CMP_GT_OQ);
        }
        for (size_t part = 0; above && part < 64; part += 16) {
            n_hits = take_above(hits, at, n_hits, scores, limit, i + part, 16);
        }
    }
    for (; i < n; i += 16) {
        n_hits = take_above(hits, at, n_hits, scores, limit, i, n - i);
    }
    return n_hits;
}
#endif

/* The same of bare scores, of which those that are not finite come last. */
MEMTX__CLONES static void orders_of_scores(int32_t *orders, const float *scores, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        const float one_zero = scores[i] + 0.0F;
        int32_t bits;
        memcpy(&bits, &one_zero, sizeof bits);
        const int32_t order = bits >= 0 ? bits : bits ^ INT32_MAX;
        orders[i] = (bits & INT32_MAX) < INFINITE_BITS ? order : INT32_MIN;
    }
}

/* The score that about the k best of the first span reach, and no fewer; -inf where there are not as many. It spares half
 * of the candidates that would come and go before there is a threshold. */
static float first_threshold(const struct memtx__topk *topk, const float *scores, size_t n)
{
    int32_t orders[SPAN];
    bool no_ties;
    if (n <= topk->k) {
        return -INFINITY;
    }
    orders_of_scores(orders, scores, n);
    const int32_t order = near_kth_largest(&no_ties, orders, n, topk->k, topk->k + n_spare(topk));
    return order == INT32_MIN ? -INFINITY : score_of(order);
}

/* Up to SPAN scores. */
static void add_span(struct memtx__topk *topk, const float *scores, int64_t first_id, size_t n)
{
    const float reached = topk->n == 0 ? first_threshold(topk, scores, n) : -INFINITY;
    const float below = isfinite(reached) ? nextafterf(reached, -INFINITY) : topk->threshold;
    float hits[SPAN + SCAN];
    int32_t at[SPAN + SCAN];
    size_t n_hits;
#if defined(AVX512)
    if (__builtin_cpu_supports("avx512f")) {
        n_hits = find_above_avx512(hits, at, scores, below, n);
    } else
#endif
    {
        n_hits = find_above(hits, at, scores, below, n);
    }
    for (size_t i = 0; i < n_hits; i++) { /* the threshold may have risen in between */
        if (hits[i] > topk->threshold && hits[i] <= FLT_MAX) {
            memtx__topk_push(topk, (struct memtx__candidate){hits[i], first_id + at[i]});
        }
    }
    if (reached > topk->threshold) {
        topk->threshold = reached;
    }
}

void memtx__topk_add(struct memtx__topk *topk, const float *scores, int64_t first_id, size_t n)
{
    for (size_t i = 0; i < n; i += SPAN) {
        add_span(topk, scores + i, first_id + (int64_t)i, n - i < SPAN ? n - i : SPAN);
    }
    if (topk->n >= topk->k && !isfinite(topk->threshold)) {
        cut_back(topk, 0); /* the first threshold as soon as there is one */
    }
}

/* Lets candidate `root` of a heap sink whose top is the worst. */
static void sink(struct memtx__candidate *c, size_t root, size_t n)
{
    for (size_t child = 2 * root + 1; child < n; child = 2 * root + 1) {
        child += child + 1 < n && better(c[child], c[child + 1]);
        if (!better(c[root], c[child])) {
            return;
        }
        swap(&c[root], &c[child]);
        root = child;
    }
}

/* Best first; a heap sort, since qsort may allocate. */
static void sort_best_first(struct memtx__candidate *c, size_t n)
{
    for (size_t root = n / 2; root-- > 0;) {
        sink(c, root, n);
    }
    for (size_t end = n; end-- > 1;) { /* the worst of what is left goes to the end */
        swap(&c[0], &c[end]);
        sink(c, 0, end);
    }
}

size_t memtx__topk_cut(struct memtx__topk *topk)
{
    if (topk->n > topk->k) {
        cut_back(topk, 0);
    }
    return topk->n;
}

size_t memtx__topk_end(struct memtx__topk *topk)
{
    (void)memtx__topk_cut(topk);
    sort_best_first(topk->candidates, topk->n);
    return topk->n;
}

void memtx__topk_give(float *scores, int64_t *ids, const struct memtx__topk *topk, size_t k)
{
    for (size_t i = 0; i < k; i++) {
        const struct memtx__candidate found =
            i < topk->n ? topk->candidates[i] : (struct memtx__candidate){-INFINITY, -1};
        if (ids) {
            ids[i] = found.id;
        }
        if (scores) {
            scores[i] = found.score;
        }
    }
}
