/* Ranking lists (lists.h): one matrix product of a block of queries and all means, then for each query the n_wanted-th
 * best score, and what is above it. Cost: the product, and little more than one pass over the scores, since a bound
 * taken from a sample of them leaves few. */
#include "lists.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "memtx/status.h"
#include "spec.h"

/* Of a block: scores that a thread holds at once (4 MB), and queries. One score in SAMPLED is looked at first. */
enum { HELD_SCORES = 1 << 20, MOST_QUERIES = 64, SAMPLED = 16 };

/* What the radius counts for (bench/README.md, "Indexes side by side"). */
static const float RADIUS_COUNTED = 1;

/* C[n][m] := B[n][k] A[m][k]^T in the terms of rows, from the BLAS that FAISS itself is linked with. */
extern void sgemm_(const char *trans_a, const char *trans_b, const int *m, const int *n, const int *k,
                   const float *alpha, const float *a, const int *lda, const float *b, const int *ldb,
                   const float *beta, float *c, const int *ldc);

int index_lists_create(struct index_lists *out, size_t n, size_t dim)
{
    *out = (struct index_lists){.n = n, .dim = dim};
    out->means = calloc(n * dim + 1, sizeof *out->means);
    out->radii = calloc(n + 1, sizeof *out->radii);
    out->n_rows = calloc(n + 1, sizeof *out->n_rows);
    return out->means && out->radii && out->n_rows ? MEMTX_OK
                                                   : memtx_fail(MEMTX_E_NO_MEMORY, "no memory for %zu lists", n);
}

void index_lists_release(struct index_lists *lists)
{
    free(lists->n_rows);
    free(lists->radii);
    free(lists->means);
    *lists = (struct index_lists){0};
}

static double distance(const float *a, const float *b, size_t dim)
{
    double sum = 0;
    for (size_t j = 0; j < dim; j++) {
        sum += ((double)a[j] - (double)b[j]) * ((double)a[j] - (double)b[j]);
    }
    return sqrt(sum);
}

void index_lists_add(struct index_lists *lists, size_t list, size_t n, const int64_t *ids, uint64_t first,
                     const float *rows)
{
    const size_t dim = lists->dim;
    float *mean = lists->means + list * dim, old[INDEX_MAX_DIM];
    double sums[INDEX_MAX_DIM];
    if (n == lists->n_rows[list]) {
        return;
    }
    for (size_t j = 0; j < dim; j++) {
        old[j] = mean[j];
        sums[j] = (double)mean[j] * (double)lists->n_rows[list];
    }
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; (uint64_t)ids[i] >= first && j < dim; j++) {
            sums[j] += (double)rows[((uint64_t)ids[i] - first) * dim + j];
        }
    }
    for (size_t j = 0; j < dim; j++) {
        mean[j] = (float)(sums[j] / (double)n);
    }
    double radius = lists->n_rows[list] ? (double)lists->radii[list] + distance(old, mean, dim) : 0;
    for (size_t i = 0; i < n; i++) {
        if ((uint64_t)ids[i] >= first) {
            radius = fmax(radius, distance(rows + ((uint64_t)ids[i] - first) * dim, mean, dim));
        }
    }
    lists->radii[list] = (float)radius;
    lists->n_rows[list] = n;
}

/* ---- choosing --------------------------------------------------------------------------------- */

/* All lists that are searched together. */
struct all_lists {
    const struct index_lists *const *parts;
    size_t n_parts, n, dim;
    float *reach; /* [n] their radii; -inf of one that is empty */
};

static int gather_lists(struct all_lists *all, const struct index_lists *const *parts, size_t n_parts)
{
    *all = (struct all_lists){.parts = parts, .n_parts = n_parts, .dim = n_parts ? parts[0]->dim : 0};
    for (size_t p = 0; p < n_parts; p++) {
        all->n += parts[p]->n;
    }
    all->reach = malloc((all->n + 1) * sizeof *all->reach);
    for (size_t p = 0, first = 0; all->reach && p < n_parts; first += parts[p++]->n) {
        for (size_t i = 0; i < parts[p]->n; i++) {
            all->reach[first + i] = parts[p]->n_rows[i] ? parts[p]->radii[i] : -INFINITY;
        }
    }
    return all->reach ? MEMTX_OK : memtx_fail(MEMTX_E_NO_MEMORY, "no memory to rank %zu lists", all->n);
}

/* scores[n_q][all->n] */
static void score(float *scores, const struct all_lists *all, size_t n_q, const float *queries)
{
    const float one = 1, zero = 0;
    const int n = (int)n_q, k = (int)all->dim, stride = (int)all->n;
    for (size_t p = 0, first = 0; p < all->n_parts; first += all->parts[p++]->n) {
        const int m = (int)all->parts[p]->n;
        sgemm_("T", "N", &m, &n, &k, &one, all->parts[p]->means, &k, queries, &k, &zero, scores + first, &stride);
    }
    for (size_t q = 0; q < n_q; q++) {
        float *out = scores + q * all->n, square = 0;
        for (size_t j = 0; j < all->dim; j++) {
            square += queries[q * all->dim + j] * queries[q * all->dim + j];
        }
        const float counted = RADIUS_COUNTED * sqrtf(square / (float)all->dim) + FLT_MIN; /* not zero times infinite */
        for (size_t i = 0; i < all->n; i++) {
            out[i] += counted * all->reach[i];
        }
    }
}

static void swap(float *a, float *b)
{
    const float kept = *a;
    *a = *b;
    *b = kept;
}

/* The k-th largest of scores[n], 1 <= k <= n, which are put in another order. No NaN. */
static float kth_largest(float *scores, size_t n, size_t k)
{
    size_t low = 0, high = n - 1; /* it is within */
    while (low < high) {
        const float pivot = scores[low + (high - low) / 2];
        size_t i = low, j = high;
        while (true) { /* those before i are at least the pivot, those behind j at most */
            while (scores[i] > pivot) {
                i++;
            }
            while (scores[j] < pivot) {
                j--;
            }
            if (i >= j) {
                break;
            }
            swap(&scores[i++], &scores[j--]);
        }
        if (k - 1 <= j) {
            high = j;
        } else {
            low = j + 1;
        }
    }
    return scores[low];
}

/* What a thread works with for one query. */
struct scratch {
    float *values;    /* [n_all] */
    uint32_t *places; /* [n_all] */
};

/* A bound that the n_wanted-th largest of scores[n] is hardly ever below, from every SAMPLED-th score. */
static float guess_bound(const struct scratch *scratch, const float *scores, size_t n, size_t n_wanted)
{
    const size_t n_sample = n / SAMPLED;
    const double fair = (double)n_wanted * (double)n_sample / (double)n;
    const size_t k = (size_t)(fair + 4 * sqrt(fair)) + 4;
    for (size_t i = 0; i < n_sample; i++) {
        scratch->values[i] = scores[i * SAMPLED];
    }
    return k < n_sample ? kth_largest(scratch->values, n_sample, k) : -INFINITY;
}

/* The places of scores[n] that are at least `bound`, ascending, without a branch that cannot be foreseen. */
static size_t gather(uint32_t *places, const float *scores, size_t n, float bound)
{
    size_t n_found = 0;
    for (size_t i = 0; i < n; i++) {
        places[n_found] = (uint32_t)i;
        n_found += scores[i] >= bound;
    }
    return n_found;
}

/* One query's lists. */
static void choose(uint32_t *chosen, const struct scratch *scratch, const float *scores, size_t n_all, size_t n_wanted)
{
    size_t n_found = gather(scratch->places, scores, n_all, guess_bound(scratch, scores, n_all, n_wanted)), n = 0;
    if (n_found < n_wanted) {
        n_found = gather(scratch->places, scores, n_all, -INFINITY);
    }
    float least = -INFINITY; /* a score that is taken while there is room */
    if (n_wanted < n_found) {
        for (size_t i = 0; i < n_found; i++) {
            scratch->values[i] = scores[scratch->places[i]];
        }
        least = kth_largest(scratch->values, n_found, n_wanted);
    }
    size_t n_above = 0;
    for (size_t i = 0; i < n_found; i++) {
        n_above += scores[scratch->places[i]] > least;
    }
    for (size_t i = 0; i < n_found && n < n_wanted; i++) {
        const float value = scores[scratch->places[i]];
        const bool is_tie = value == least && value > -INFINITY && n_above < n_wanted;
        if (value > least || is_tie) {
            chosen[n++] = scratch->places[i];
            n_above += is_tie;
        }
    }
    for (; n < n_wanted; n++) {
        chosen[n] = UINT32_MAX;
    }
}

static int choose_all(uint32_t *chosen, const struct all_lists *all, size_t n_q, const float *queries, size_t n_wanted)
{
    bool has_failed = false;
    const size_t fitting = HELD_SCORES / (all->n + 1) + 1, most = fitting < MOST_QUERIES ? fitting : MOST_QUERIES;
    const size_t block = n_q > 0 && n_q < most ? n_q : most;
#pragma omp parallel reduction(|| : has_failed) if (n_q > 1)
    {
        float *scores = malloc(block * (all->n + 1) * sizeof *scores);
        const struct scratch scratch = {malloc((all->n + 1) * sizeof *scratch.values),
                                        malloc((all->n + 1) * sizeof *scratch.places)};
        has_failed = !scores || !scratch.values || !scratch.places;
#pragma omp for schedule(dynamic)
        for (size_t first = 0; first < n_q; first += block) {
            const size_t n = n_q - first < block ? n_q - first : block;
            if (has_failed) {
                continue;
            }
            score(scores, all, n, queries + first * all->dim);
            for (size_t q = 0; q < n; q++) {
                choose(chosen + (first + q) * n_wanted, &scratch, scores + q * all->n, all->n, n_wanted);
            }
        }
        free(scratch.places);
        free(scratch.values);
        free(scores);
    }
    return has_failed ? memtx_fail(MEMTX_E_NO_MEMORY, "no memory to rank %zu lists", all->n) : MEMTX_OK;
}

int index_lists_choose(uint32_t *chosen, const struct index_lists *const *parts, size_t n_parts, size_t n_q,
                       const float *queries, size_t n_wanted)
{
    struct all_lists all;
    int status = gather_lists(&all, parts, n_parts);
    if (!status) {
        status = choose_all(chosen, &all, n_q, queries, n_wanted);
    }
    free(all.reach);
    return status;
}
