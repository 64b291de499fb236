/* Ranges of rows that a search may return, and what is done for an index that cannot filter: it is asked for more hits
 * than are wanted, and those outside of the ranges are dropped. */
#ifndef MEMTX_INDEX_RANGES_H
#define MEMTX_INDEX_RANGES_H

#include <stddef.h>
#include <stdint.h>

#include "memtx/index.h"

/* Ascending, disjoint, within n_rows, or MEMTX_E_INVALID. The rows in them in *n_visible. */
int index_ranges_check(uint64_t *n_visible, const struct memtx_index_range *ranges, size_t n_ranges, uint64_t n_rows);

/* How many hits to ask an index of n_rows for, so that k of the n_visible remain: k and all that is hidden where that is
 * little, else (2 k + 16) n_rows / n_visible, at most the larger of k and INDEX_MOST_FETCHED, and never more than there
 * are rows. Where what is visible lies among the best as it lies among all, k remain with next to certainty until the
 * bound is reached. n_visible > 0. */
enum { INDEX_MOST_FETCHED = 1024 };
size_t index_ranges_fetch(size_t k, uint64_t n_rows, uint64_t n_visible);

/* The first k of one query's n hits, best first, that lie in the ranges, the lower row first where scores are equal; -inf
 * and -1 behind them. Hits whose id is negative are none. in_scores[n] and in_ids[n] are reordered; scores[k] and ids[k]
 * may be the same arrays where k is not less than n. */
void index_ranges_keep(float *scores, int64_t *ids, size_t k, float *in_scores, int64_t *in_ids, size_t n,
                       const struct memtx_index_range *ranges, size_t n_ranges);

#endif
