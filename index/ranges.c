/* Ranges of rows, and dropping what lies outside (ranges.h). */
#include "ranges.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

/* Hits of an over-fetching search that are held at once: 12 MB. */
enum { SCRATCH_HITS = 1 << 20 };

int index_ranges_check(uint64_t *n_visible, const struct memtx_index_range *ranges, size_t n_ranges, uint64_t n_rows)
{
    uint64_t end = 0;
    *n_visible = 0;
    for (size_t i = 0; i < n_ranges; i++) {
        const struct memtx_index_range range = ranges[i];
        if (range.first < end || range.first > n_rows || range.n_rows > n_rows - range.first) {
            return memtx_fail(MEMTX_E_INVALID,
                              "range %zu holds %llu rows from %llu on: ranges are ascending, disjoint and end at %llu",
                              i, (unsigned long long)range.n_rows, (unsigned long long)range.first,
                              (unsigned long long)n_rows);
        }
        end = range.first + range.n_rows;
        *n_visible += range.n_rows;
    }
    return MEMTX_OK;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

size_t index_ranges_fetch(size_t k, uint64_t n_rows, uint64_t n_visible)
{
    if (k >= n_rows) {
        return (size_t)n_rows;
    }
    const uint64_t all = k + (n_rows - n_visible); /* the k best visible ones are among so many */
    const double share = (2.0 * (double)k + 16.0) * (double)n_rows / (double)n_visible;
    const uint64_t most = k > INDEX_MOST_FETCHED ? k : INDEX_MOST_FETCHED;
    const uint64_t n = share < (double)most ? (uint64_t)share : most;
    return (size_t)least(least(all, n_rows), n > k ? n : k);
}

static int compare_ids(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void order_ties(const float *scores, int64_t *ids, size_t n)
{
    for (size_t first = 0, end; first < n; first = end) {
        for (end = first + 1; end < n && scores[end] == scores[first];) {
            end++;
        }
        if (end - first > 1) {
            qsort(ids + first, end - first, sizeof *ids, compare_ids);
        }
    }
}

static bool is_inside(const struct memtx_index_range *ranges, size_t n_ranges, uint64_t row)
{
    size_t low = 0, high = n_ranges; /* the last range that begins at the row or before */
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (ranges[middle].first <= row) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low && row - ranges[low - 1].first < ranges[low - 1].n_rows;
}

/* The first k of one query's n hits that lie in the ranges; -inf and -1 behind them. in_scores[n] and in_ids[n] are put
 * in order, and may be where scores and ids of the query are, if n is not over k. */
static void keep(float *scores, int64_t *ids, const struct index_request *r, size_t query, float *in_scores,
                 int64_t *in_ids, size_t n)
{
    size_t n_kept = 0;
    scores += query * r->k;
    ids += query * r->k;
    order_ties(in_scores, in_ids, n);
    for (size_t i = 0; i < n && n_kept < r->k; i++) {
        if (in_ids[i] >= 0 && is_inside(r->ranges, r->n_ranges, (uint64_t)in_ids[i])) {
            scores[n_kept] = in_scores[i];
            ids[n_kept++] = in_ids[i];
        }
    }
    for (; n_kept < r->k; n_kept++) {
        scores[n_kept] = -INFINITY;
        ids[n_kept] = -1;
    }
}

/* n_hits for each query, a block of queries at a time. */
static int search_aside(float *scores, int64_t *ids, const void *context, index_search search,
                        const struct index_request *r, size_t n_hits)
{
    const size_t fitting = n_hits < SCRATCH_HITS ? SCRATCH_HITS / n_hits : 1;
    const size_t block = r->n_q < fitting ? r->n_q : fitting;
    float *found = malloc(block * n_hits * sizeof *found);
    int64_t *found_ids = malloc(block * n_hits * sizeof *found_ids);
    int status = MEMTX_OK;
    if (!found || !found_ids) {
        free(found_ids);
        free(found);
        return memtx_fail(MEMTX_E_NO_MEMORY, "no memory for %zu hits", block * n_hits);
    }
    for (size_t first = 0; !status && first < r->n_q; first += block) {
        const size_t n = r->n_q - first < block ? r->n_q - first : block;
        status = search(found, found_ids, context, first, n, n_hits);
        if (!status) {
#pragma omp parallel for schedule(static) if (n > 1)
            for (size_t q = 0; q < n; q++) {
                keep(scores, ids, r, first + q, found + q * n_hits, found_ids + q * n_hits, n_hits);
            }
        }
    }
    free(found_ids);
    free(found);
    return status;
}

int index_ranges_search(float *scores, int64_t *ids, const void *context, index_search search,
                        const struct index_request *request)
{
    const struct index_request *r = request;
    uint64_t n_visible = 0;
    int status = index_ranges_check(&n_visible, r->ranges, r->n_ranges, r->n_rows);
    if (status || r->n_q == 0 || r->k == 0) {
        return status;
    }
    const size_t n_hits = n_visible ? index_ranges_fetch(r->k, r->n_rows, n_visible) : 0;
    if (n_hits != 0 && n_hits != r->k) {
        return search_aside(scores, ids, context, search, r, n_hits);
    }
    if (n_hits != 0) { /* as many as are wanted: they are written where they belong */
        status = search(scores, ids, context, 0, r->n_q, n_hits);
    }
    if (!status) {
#pragma omp parallel for schedule(static) if (r->n_q > 1)
        for (size_t q = 0; q < r->n_q; q++) {
            keep(scores, ids, r, q, scores + q * r->k, ids + q * r->k, n_hits);
        }
    }
    return status;
}
