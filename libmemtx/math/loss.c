/* Cross-entropy in tiles (loss.h): log-sum-exp carried from tile to tile as (highest, sum relative to it). */
#include "math/loss.h"

#include <math.h>

#include "math/clones.h"
#include "math/exp.h"

void memtx__loss_begin(struct memtx__loss_row *rows, size_t n_rows)
{
    for (size_t i = 0; i < n_rows; i++) {
        rows[i] = (struct memtx__loss_row){.highest = -INFINITY};
    }
}

enum { SUM_BLOCK = 64 };

MEMTX__CLONES static float highest_of(const float *values, size_t n)
{
    float highest = -INFINITY;
#pragma omp simd reduction(max : highest)
    for (size_t i = 0; i < n; i++) {
        highest = values[i] > highest ? values[i] : highest;
    }
    return highest;
}

/* In double from block to block: a long float32 sum loses what is small beside it, always to the same side. */
MEMTX__CLONES static double sum_of_exp(const float *values, float highest, size_t n)
{
    double total = 0;
    for (size_t first = 0; first < n; first += SUM_BLOCK) {
        const size_t end = n - first < SUM_BLOCK ? n : first + SUM_BLOCK;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (size_t i = first; i < end; i++) {
            sum += memtx__exp(values[i] - highest);
        }
        total += (double)sum;
    }
    return total;
}

static void add_row(struct memtx__loss_row *row, const float *logits, uint32_t target, size_t first_entry,
                    size_t n_tile)
{
    float highest = highest_of(logits, n_tile);
    if (highest > row->highest) {
        row->sum *= exp((double)row->highest - (double)highest);
        row->highest = highest;
    }
    row->sum += sum_of_exp(logits, row->highest, n_tile);
    if (target >= first_entry && target - first_entry < n_tile) {
        row->target = logits[target - first_entry];
    }
}

void memtx__loss_add_tile(struct memtx__loss_row *rows, const float *logits, const uint32_t *targets, size_t n_rows,
                          size_t first_entry, size_t n_tile)
{
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n_rows; i++) {
        add_row(&rows[i], logits + i * n_tile, targets[i], first_entry, n_tile);
    }
}

void memtx__loss_end(float *nll, const struct memtx__loss_row *rows, size_t n_rows)
{
    for (size_t i = 0; i < n_rows; i++) {
        nll[i] = (float)(log(rows[i].sum) + (double)rows[i].highest - (double)rows[i].target);
    }
}
