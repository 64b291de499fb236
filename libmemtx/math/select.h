/* The places of the k largest of many scores that stand in memory, in no order of rank: for choosing clusters, and for
 * limits of exact search. Where the scores come as a stream and the best are wanted in order, topk.h is the one. */
#ifndef MEMTX_MATH_SELECT_H
#define MEMTX_MATH_SELECT_H

#include <stddef.h>
#include <stdint.h>

/* places[min(k, finite scores)], ascending, of the largest of scores[n]; ties go to the lower place, what is not
 * finite is passed over, and becomes -inf. places and orders have room for n, which is below 2^31; k is 1 or more.
 * Gives their number. */
size_t memtx__select_largest(uint32_t *places, int32_t *orders, float *scores, size_t n, size_t k);

#endif
