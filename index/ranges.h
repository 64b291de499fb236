/* Ranges of rows that a search may return, and what is done for an index that cannot filter: it is asked for more hits
 * than are wanted, and those outside of the ranges are dropped. */
#ifndef MEMTX_INDEX_RANGES_H
#define MEMTX_INDEX_RANGES_H

#include <stddef.h>
#include <stdint.h>

#include "memtx/index.h"

/* Ascending, disjoint, within n_rows, or MEMTX_E_INVALID. The rows in them in *n_visible. */
int index_ranges_check(uint64_t *n_visible, const struct memtx_index_range *ranges, size_t n_ranges, uint64_t n_rows);

/* How many hits to ask an index of n_rows for, so that k of the n_visible remain: k and all that is hidden where that
 * is little, else (2 k + 16) n_rows / n_visible, at most the larger of k and INDEX_MOST_FETCHED, and never more than
 * there are rows. Where what is visible lies among the best as it lies among all, k remain with next to certainty until
 * the bound is reached. n_visible > 0. */
enum { INDEX_MOST_FETCHED = 1024 };
size_t index_ranges_fetch(size_t k, uint64_t n_rows, uint64_t n_visible);

/* A search without ranges: the n_hits best of all rows for each of queries first .. first + n_q - 1 of the request, best
 * first, ids[n_q][n_hits] -1 where there are no more. n_hits is at most the rows. 0 or MEMTX_E_. */
typedef int (*index_search)(float *scores, int64_t *ids, const void *context, size_t first, size_t n_q, size_t n_hits);

struct index_request {
    size_t n_q, k;
    const struct memtx_index_range *ranges;
    size_t n_ranges;
    uint64_t n_rows; /* of the index */
};

/* What memtx/index.h asks of one part, made of a search without ranges: scores[n_q][k], ids[n_q][k]. MEMTX_E_INVALID (the
 * ranges), MEMTX_E_NO_MEMORY, or as `search` says. */
int index_ranges_search(float *scores, int64_t *ids, const void *context, index_search search,
                        const struct index_request *request);

#endif
