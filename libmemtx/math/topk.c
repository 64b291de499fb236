/* The k best (topk.h). Cutting back finds the k-th score by counting; the final sort is of at most k candidates. */
#include "math/topk.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "math/clones.h"

enum { SCAN = 32, LEAST_ROOM = 64 };

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

/* A score's bits as an integer of the same order; the two zeros are one. */
static int32_t order_of(float score)
{
    const float one_zero = score + 0.0F;
    int32_t bits;
    memcpy(&bits, &one_zero, sizeof bits);
    return bits >= 0 ? bits : bits ^ INT32_MAX;
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

/* The k-th largest of n orders, found bit by bit from the top. 32 counts are vector code without a branch; a quickselect
 * of as few candidates spends its time on branches that nobody can foresee. */
static int32_t kth_largest(const int32_t *orders, size_t n, size_t k)
{
    int32_t kth = count_from(orders, 0, n) >= k ? 0 : INT32_MIN;
    for (int bit = 30; bit >= 0; bit--) {
        int32_t higher = kth + (INT32_C(1) << bit);
        kth = count_from(orders, higher, n) >= k ? higher : kth;
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

static void cut_back(struct memtx__topk *topk)
{
    struct memtx__candidate *c = topk->candidates;
    int32_t orders[MEMTX__TOPK_MOST_CANDIDATES];
    const size_t n = topk->n, k = topk->k;
    for (size_t i = 0; i < n; i++) {
        orders[i] = order_of(c[i].score);
    }
    const int32_t kth = kth_largest(orders, n, k);
    const size_t n_places = k - count_from(orders, kth + 1, n), n_ties = count_from(orders, kth, n) - (k - n_places);
    const int64_t last = n_ties > n_places ? last_tie(c, orders, kth, n, n_places) : INT64_MAX;
    topk->n = 0;
    for (size_t i = 0; i < n; i++) {
        if (orders[i] == kth) {
            topk->threshold = c[i].score;
        }
        if (orders[i] > kth || (orders[i] == kth && c[i].id <= last)) {
            c[topk->n++] = c[i];
        }
    }
}

void memtx__topk_push(struct memtx__topk *topk, struct memtx__candidate candidate)
{
    if (topk->n == topk->capacity) {
        cut_back(topk);
    }
    topk->candidates[topk->n++] = candidate;
}

MEMTX__CLONES static bool any_above(const float *scores, float threshold)
{
    int n_above = 0;
#pragma omp simd reduction(+ : n_above)
    for (int i = 0; i < SCAN; i++) {
        n_above += scores[i] > threshold;
    }
    return n_above > 0;
}

static void add_few(struct memtx__topk *topk, const float *scores, int64_t first_id, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (scores[i] > topk->threshold && scores[i] <= FLT_MAX) {
            memtx__topk_push(topk, (struct memtx__candidate){scores[i], first_id + (int64_t)i});
        }
    }
}

void memtx__topk_add(struct memtx__topk *topk, const float *scores, int64_t first_id, size_t n)
{
    size_t i = 0;
    for (; i + SCAN <= n; i += SCAN) {
        if (any_above(scores + i, topk->threshold)) {
            add_few(topk, scores + i, first_id + (int64_t)i, SCAN);
        }
    }
    add_few(topk, scores + i, first_id + (int64_t)i, n - i);
    if (topk->n >= topk->k && !isfinite(topk->threshold)) {
        cut_back(topk); /* the first threshold as soon as there is one */
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

size_t memtx__topk_end(struct memtx__topk *topk)
{
    if (topk->n > topk->k) {
        cut_back(topk);
    }
    sort_best_first(topk->candidates, topk->n);
    return topk->n;
}
