/* Selecting the k largest of many scores, against a full sort. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "base/rng.h"
#include "math/select.h"

enum { MOST = 5000 };

struct scored {
    float score;
    uint32_t place;
};

static int by_rank(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;
    if (x->score != y->score) {
        return x->score > y->score ? -1 : 1;
    }
    return x->place < y->place ? -1 : x->place > y->place;
}

static int by_place(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;
    return x->place < y->place ? -1 : x->place > y->place;
}

static void same_as_sorted(const float *scores, size_t n, size_t k)
{
    static struct scored all[MOST];
    static float given[MOST];
    static uint32_t places[MOST];
    static int32_t orders[MOST];
    size_t n_finite = 0;
    for (size_t i = 0; i < n; i++) {
        given[i] = scores[i];
        if (isfinite(scores[i])) {
            all[n_finite++] = (struct scored){scores[i], (uint32_t)i};
        }
    }
    qsort(all, n_finite, sizeof *all, by_rank);
    const size_t expected = k < n_finite ? k : n_finite;
    qsort(all, expected, sizeof *all, by_place);
    cr_assert_eq(memtx__select_largest(places, orders, given, n, k), expected, "of %zu, k %zu", n, k);
    for (size_t i = 0; i < expected; i++) {
        cr_assert_eq(places[i], all[i].place, "of %zu, k %zu: %u at %zu, not %u", n, k, places[i], i, all[i].place);
    }
}

static void at_all_counts(const float *scores)
{
    static const size_t n[] = {0, 1, 2, 31, 32, 33, 500, MOST},
                        k[] = {1, 2, 31, 32, 150, 250, 499, 500, 2500, 4999, 5000, 6000};
    for (size_t i = 0; i < sizeof n / sizeof n[0]; i++) {
        for (size_t j = 0; j < sizeof k / sizeof k[0]; j++) {
            same_as_sorted(scores, n[i], k[j]);
        }
    }
}

Test(select, random_scores)
{
    static float scores[MOST];
    struct memtx__rng rng = memtx__rng_create(1, 0);
    for (size_t i = 0; i < MOST; i++) {
        scores[i] = memtx__rng_signed(&rng) * memtx__rng_signed(&rng);
    }
    at_all_counts(scores);
}

Test(select, few_different_scores)
{
    static float scores[MOST];
    struct memtx__rng rng = memtx__rng_create(2, 0);
    for (size_t i = 0; i < MOST; i++) {
        scores[i] = (float)memtx__rng_below(&rng, 5) - 2.0F; /* both zeros among them */
        scores[i] = scores[i] == 0 && i % 2 ? -0.0F : scores[i];
    }
    at_all_counts(scores);
}

Test(select, what_is_not_finite_is_passed_over)
{
    static const float odd[] = {NAN, INFINITY, -INFINITY};
    static float scores[MOST];
    struct memtx__rng rng = memtx__rng_create(3, 0);
    for (size_t i = 0; i < MOST; i++) {
        scores[i] = i % 3 ? memtx__rng_signed(&rng) : odd[i / 3 % 3];
    }
    at_all_counts(scores);
    for (size_t i = 0; i < MOST; i++) {
        scores[i] = odd[i % 3];
    }
    at_all_counts(scores);
}

/* Most scores in one corner of a range that a few stretch as far as it goes. */
Test(select, scores_of_every_size)
{
    static float scores[MOST];
    struct memtx__rng rng = memtx__rng_create(4, 0);
    for (size_t i = 0; i < MOST; i++) {
        scores[i] = i % 100 == 7 ? 3e38F * memtx__rng_signed(&rng) : 1e-30F * memtx__rng_signed(&rng);
    }
    at_all_counts(scores);
}
