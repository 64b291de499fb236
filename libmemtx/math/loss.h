/* Cross-entropy over a vocabulary that is met in tiles, so that no [T][V] array of logits exists. */
#ifndef MEMTX_MATH_LOSS_H
#define MEMTX_MATH_LOSS_H

#include <stddef.h>
#include <stdint.h>

/* Running state of one row: the largest logit so far, the sum of exponentials relative to it, the target's logit. */
struct memtx__loss_row {
    float highest;
    float target;
    double sum;
};

void memtx__loss_begin(struct memtx__loss_row *rows, size_t n_rows);

/* Takes logits[n_rows][n_tile] of vocabulary entries first_entry .. first_entry + n_tile - 1. Uses all threads. */
void memtx__loss_add_tile(struct memtx__loss_row *rows, const float *logits, const uint32_t *targets, size_t n_rows,
                          size_t first_entry, size_t n_tile);

/* nll[n_rows] in nats. */
void memtx__loss_end(float *nll, const struct memtx__loss_row *rows, size_t n_rows);

#endif
