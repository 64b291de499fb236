/* The k best (topk.h). Cutting back is a quickselect in place; the final sort is of at most k candidates. */
#include "math/topk.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>

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

/* Moves the k best to the front (Hoare's selection; the pivot is the median of three). */
static void select_best(struct memtx__candidate *c, size_t n, size_t k)
{
    size_t low = 0, high = n - 1;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (better(c[middle], c[low])) {
            swap(&c[middle], &c[low]);
        }
        if (better(c[high], c[low])) {
            swap(&c[high], &c[low]);
        }
        if (better(c[high], c[middle])) {
            swap(&c[high], &c[middle]);
        }
        struct memtx__candidate pivot = c[middle];
        size_t i = low, j = high;
        while (i <= j) {
            while (better(c[i], pivot)) {
                i++;
            }
            while (better(pivot, c[j])) {
                j--;
            }
            if (i <= j) {
                swap(&c[i], &c[j]);
                i++;
                if (j == 0) {
                    break;
                }
                j--;
            }
        }
        if (k <= j + 1 && j < high) {
            high = j;
        } else if (k > i) {
            low = i;
        } else {
            return;
        }
    }
}

static void cut_back(struct memtx__topk *topk)
{
    struct memtx__candidate *c = topk->candidates;
    select_best(c, topk->n, topk->k);
    topk->n = topk->k;
    size_t worst = 0;
    for (size_t i = 1; i < topk->n; i++) {
        worst = better(c[worst], c[i]) ? i : worst;
    }
    topk->threshold = c[worst].score;
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
