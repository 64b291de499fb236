/* The k best of a stream of scores, against a sort. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "math/topk.h"

enum { MOST = 5000 };

static struct memtx__candidate sorted[MOST];
static float scores[MOST];

static int by_rank(const void *a, const void *b)
{
    const struct memtx__candidate *x = a, *y = b;
    if (x->score != y->score) {
        return x->score > y->score ? -1 : 1;
    }
    return x->id < y->id ? -1 : 1;
}

/* Adds scores[n] in pieces of `piece`, from id 100 on, and compares with the sort. */
static void same_as_sort(size_t n, size_t k, size_t piece)
{
    struct memtx__topk topk;
    struct memtx__candidate *room = malloc(memtx__topk_capacity(k) * sizeof *room);
    size_t n_sorted = 0;
    for (size_t i = 0; i < n; i++) {
        if (isfinite(scores[i])) {
            sorted[n_sorted++] = (struct memtx__candidate){scores[i], 100 + (int64_t)i};
        }
    }
    qsort(sorted, n_sorted, sizeof *sorted, by_rank);
    memtx__topk_begin(&topk, room, k);
    for (size_t first = 0; first < n; first += piece) {
        memtx__topk_add(&topk, scores + first, 100 + (int64_t)first, n - first < piece ? n - first : piece);
    }
    size_t n_found = memtx__topk_end(&topk);
    cr_assert_eq(n_found, k < n_sorted ? k : n_sorted, "n %zu, k %zu: %zu found", n, k, n_found);
    for (size_t i = 0; i < n_found; i++) {
        cr_assert(room[i].id == sorted[i].id && room[i].score == sorted[i].score,
                  "n %zu, k %zu, pieces of %zu, rank %zu: id %lld, not %lld", n, k, piece, i, (long long)room[i].id,
                  (long long)sorted[i].id);
    }
    free(room);
}

static void at_all_sizes(void)
{
    static const size_t n[] = {0, 1, 2, 31, 32, 33, 200, 1000, MOST}, k[] = {1, 2, 31, 32, 64, 100, 999, 4096};
    static const size_t pieces[] = {1, 7, 512, MOST};
    for (size_t i = 0; i < sizeof n / sizeof n[0]; i++) {
        for (size_t j = 0; j < sizeof k / sizeof k[0]; j++) {
            for (size_t p = 0; p < sizeof pieces / sizeof pieces[0]; p++) {
                same_as_sort(n[i], k[j], pieces[p]);
            }
        }
    }
}

Test(topk, random)
{
    struct memtx__rng rng = memtx__rng_create(1, 0);
    for (size_t i = 0; i < MOST; i++) {
        scores[i] = memtx__rng_signed(&rng);
    }
    at_all_sizes();
}

Test(topk, ascending)
{
    for (size_t i = 0; i < MOST; i++) {
        scores[i] = (float)i - 2000.0F;
    }
    at_all_sizes();
}

Test(topk, descending)
{
    for (size_t i = 0; i < MOST; i++) {
        scores[i] = 2000.0F - (float)i;
    }
    at_all_sizes();
}

Test(topk, all_equal)
{
    for (size_t i = 0; i < MOST; i++) {
        scores[i] = -3.0F;
    }
    at_all_sizes();
}

Test(topk, few_distinct_scores)
{
    struct memtx__rng rng = memtx__rng_create(2, 0);
    for (size_t i = 0; i < MOST; i++) {
        scores[i] = (float)memtx__rng_below(&rng, 5);
    }
    at_all_sizes();
}

Test(topk, what_is_no_number_is_passed_over)
{
    struct memtx__rng rng = memtx__rng_create(3, 0);
    static const float odd[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < MOST; i++) {
        scores[i] = i % 3 ? memtx__rng_signed(&rng) : odd[i / 3 % 3];
    }
    at_all_sizes();
    for (size_t i = 0; i < MOST; i++) {
        scores[i] = odd[i % 3];
    }
    at_all_sizes();
    memset(scores, 0, sizeof scores);
    scores[7] = 3.4e38F;
    scores[9] = -3.4e38F;
    at_all_sizes();
}

/* Merging: candidates of any order of ids. */
Test(topk, pushed_in_any_order)
{
    enum { N = 1000, K = 50 };
    struct memtx__topk topk;
    struct memtx__rng rng = memtx__rng_create(4, 0);
    struct memtx__candidate *room = malloc(memtx__topk_capacity(K) * sizeof *room);
    memtx__topk_begin(&topk, room, K);
    for (size_t i = 0; i < N; i++) {
        int64_t id = (int64_t)(i * 7919 % N); /* each once */
        sorted[i] = (struct memtx__candidate){(float)memtx__rng_below(&rng, 20), id};
        memtx__topk_push(&topk, sorted[i]);
    }
    qsort(sorted, N, sizeof *sorted, by_rank);
    cr_assert_eq(memtx__topk_end(&topk), K);
    for (size_t i = 0; i < K; i++) {
        cr_assert(room[i].id == sorted[i].id && room[i].score == sorted[i].score);
    }
    free(room);
}
