/* Ranges of rows, and dropping what lies outside (ranges.h). */
#include "ranges.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

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

void index_ranges_keep(float *scores, int64_t *ids, size_t k, float *in_scores, int64_t *in_ids, size_t n,
                       const struct memtx_index_range *ranges, size_t n_ranges)
{
    size_t n_kept = 0;
    order_ties(in_scores, in_ids, n);
    for (size_t i = 0; i < n && n_kept < k; i++) {
        if (in_ids[i] >= 0 && is_inside(ranges, n_ranges, (uint64_t)in_ids[i])) {
            scores[n_kept] = in_scores[i];
            ids[n_kept++] = in_ids[i];
        }
    }
    for (; n_kept < k; n_kept++) {
        scores[n_kept] = -INFINITY;
        ids[n_kept] = -1;
    }
}
