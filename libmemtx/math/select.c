/* Selection (select.h). A threshold that lets between k and 2k through is found by halving the range of the scores,
 * which takes a few counts without a branch; the exact one is then found among these few, in the order of their bits. */
#include "math/select.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "math/clones.h"

enum { SCAN = 32, MOST_HALVINGS = 24 };

/* What is not finite becomes -inf, which no threshold lets through. Gives the number of the others. */
MEMTX__CLONES static size_t clean(float *scores, size_t n)
{
    int32_t n_finite = 0;
#pragma omp simd reduction(+ : n_finite)
    for (size_t i = 0; i < n; i++) {
        const int32_t finite = fabsf(scores[i]) <= FLT_MAX;
        scores[i] = finite ? scores[i] : -INFINITY;
        n_finite += finite;
    }
    return (size_t)n_finite;
}

/* The least and the greatest of cleaned scores, of which one is finite. */
MEMTX__CLONES static void bounds_of(float *least, float *greatest, const float *scores, size_t n)
{
    float low = FLT_MAX, high = -FLT_MAX;
#pragma omp simd reduction(min : low) reduction(max : high)
    for (size_t i = 0; i < n; i++) {
        const float no_gap = scores[i] >= -FLT_MAX ? scores[i] : FLT_MAX;
        low = no_gap < low ? no_gap : low;
        high = scores[i] > high ? scores[i] : high;
    }
    *least = low;
    *greatest = high;
}

MEMTX__CLONES static size_t count_scores(const float *scores, float from, size_t n)
{
    int32_t n_found = 0;
#pragma omp simd reduction(+ : n_found)
    for (size_t i = 0; i < n; i++) {
        n_found += scores[i] >= from;
    }
    return (size_t)n_found;
}

MEMTX__CLONES static size_t count_orders(const int32_t *orders, int32_t from, size_t n)
{
    int32_t n_found = 0;
#pragma omp simd reduction(+ : n_found)
    for (size_t i = 0; i < n; i++) {
        n_found += orders[i] >= from;
    }
    return (size_t)n_found;
}

/* A threshold that at least k scores reach, and few more where they differ enough. */
static float rough_threshold(const float *scores, float least, float greatest, size_t n, size_t k)
{
    float low = least, high = greatest;
    for (int i = 0; i < MOST_HALVINGS; i++) {
        const float middle = low / 2 + high / 2;
        const size_t n_found = count_scores(scores, middle, n);
        if (n_found < k) {
            high = middle;
            continue;
        }
        low = middle;
        if (n_found <= 2 * k) {
            break;
        }
    }
    return low;
}

MEMTX__CLONES static uint32_t which_from(const float *scores, float from)
{
    uint32_t found = 0;
#pragma omp simd reduction(| : found)
    for (int i = 0; i < SCAN; i++) {
        found |= (uint32_t)(scores[i] >= from) << i;
    }
    return found;
}

static size_t places_from(uint32_t *places, const float *scores, float from, size_t n)
{
    size_t n_found = 0, i = 0;
    for (; i + SCAN <= n; i += SCAN) {
        for (uint32_t found = which_from(scores + i, from); found; found &= found - 1) {
            places[n_found++] = (uint32_t)i + (uint32_t)__builtin_ctz(found);
        }
    }
    for (; i < n; i++) {
        if (scores[i] >= from) {
            places[n_found++] = (uint32_t)i;
        }
    }
    return n_found;
}

/* A score's bits as an integer of the same order; the two zeros are one. */
static int32_t order_of(float score)
{
    const float one_zero = score + 0.0F;
    int32_t bits;
    memcpy(&bits, &one_zero, sizeof bits);
    return bits >= 0 ? bits : bits ^ INT32_MAX;
}

/* An order that k of n reach, or where ties leave none, the k-th largest; at least k reach `least`, none is above
 * `greatest`. */
static int32_t kth_order(const int32_t *orders, int32_t least, int32_t greatest, size_t n, size_t k)
{
    int64_t low = least, high = greatest;
    while (low < high) {
        const int64_t middle = low + (high - low + 1) / 2;
        const size_t n_found = count_orders(orders, (int32_t)middle, n);
        if (n_found == k) {
            return (int32_t)middle;
        }
        low = n_found > k ? middle : low;
        high = n_found > k ? high : middle - 1;
    }
    return (int32_t)low;
}

size_t memtx__select_largest(uint32_t *places, int32_t *orders, float *scores, size_t n, size_t k)
{
    float least, greatest;
    if (clean(scores, n) <= k) {
        return places_from(places, scores, -FLT_MAX, n);
    }
    bounds_of(&least, &greatest, scores, n);
    const float threshold = rough_threshold(scores, least, greatest, n, k);
    const size_t n_found = places_from(places, scores, threshold, n);
    for (size_t i = 0; i < n_found; i++) {
        orders[i] = order_of(scores[places[i]]);
    }
    const int32_t kth = kth_order(orders, order_of(threshold), order_of(greatest), n_found, k);
    size_t n_places = k - count_orders(orders, kth + 1, n_found), n_kept = 0;
    for (size_t i = 0; i < n_found; i++) { /* without a branch: what does not stay is written over by the next */
        const bool ties = orders[i] == kth && n_places > 0, stays = orders[i] > kth || ties;
        n_places -= ties;
        places[n_kept] = places[i];
        n_kept += stays;
    }
    return n_kept;
}
