/* The k best of a stream of scores, for each query: kept by threshold, without sorting everything.
 *
 * A query's candidates stand in a buffer of 2k (or more). A score enters only if it beats the threshold, the k-th best
 * of what has been seen; when the buffer is full it is cut back to the k best and the threshold rises. Scores come in
 * ascending order of row id, so a tie with the threshold never displaces the lower id.
 */
#ifndef MEMTX_MATH_TOPK_H
#define MEMTX_MATH_TOPK_H

#include <stddef.h>
#include <stdint.h>

enum { MEMTX__TOPK_MOST_K = 4096, MEMTX__TOPK_MOST_CANDIDATES = 2 * MEMTX__TOPK_MOST_K };

struct memtx__candidate {
    float score;
    int64_t id;
};

struct memtx__topk {
    struct memtx__candidate *candidates; /* [capacity], borrowed */
    size_t k;
    size_t capacity;
    size_t n;
    float threshold; /* scores up to and including this one are of no interest */
};

/* Room that one query needs, in candidates, for k neighbours. */
size_t memtx__topk_capacity(size_t k);

/* Begins empty, for k in 1..4,096; `candidates` has room for memtx__topk_capacity(k) and stays the caller's. */
void memtx__topk_begin(struct memtx__topk *topk, struct memtx__candidate *candidates, size_t k);

/* Takes scores[n] of the rows first_id, first_id + 1 .. ; ids must ascend from call to call. NaN and infinite scores
 * are passed over: a damaged row is never returned. */
void memtx__topk_add(struct memtx__topk *topk, const float *scores, int64_t first_id, size_t n);

/* Of a full buffer: keeps the k best, and perhaps a few more. */
void memtx__topk_make_room(struct memtx__topk *topk);

/* Takes one candidate of any id: for merging. Ties then go to the lower id all the same, at memtx__topk_end. */
static inline void memtx__topk_push(struct memtx__topk *topk, struct memtx__candidate candidate)
{
    if (topk->n == topk->capacity) {
        memtx__topk_make_room(topk);
    }
    topk->candidates[topk->n++] = candidate;
}

/* Drops all but the k best, in no particular order; gives the number that is left. */
size_t memtx__topk_cut(struct memtx__topk *topk);

/* Sorts what is left, best first, ties by the lower id, and gives its number, at most k. */
size_t memtx__topk_end(struct memtx__topk *topk);

/* ids[k] and scores[k] (either may be NULL) of what was sorted; -1 and -inf behind it. */
void memtx__topk_give(float *scores, int64_t *ids, const struct memtx__topk *topk, size_t k);

#endif
