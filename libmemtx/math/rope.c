/* Rotary position embedding (rope.h). */
#include "math/rope.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/status.h"
#include "math/clones.h"

int memtx__rope_create(struct memtx__rope *out, size_t n_dims, double base, const float *factors, size_t n_positions)
{
    *out = (struct memtx__rope){.n_pairs = n_dims / 2, .n_positions = n_positions};
    int status = memtx__alloc(&out->turns, n_positions, 2 * out->n_pairs * sizeof *out->turns);
    if (status) {
        return status;
    }
#pragma omp parallel for schedule(static)
    for (size_t pair = 0; pair < out->n_pairs; pair++) {
        double frequency = pow(base, -2.0 * (double)pair / (double)n_dims);
        if (factors) {
            frequency /= (double)factors[pair];
        }
        for (size_t position = 0; position < n_positions; position++) {
            float *turn = out->turns + 2 * (position * out->n_pairs + pair);
            turn[0] = (float)cos((double)position * frequency);
            turn[1] = (float)sin((double)position * frequency);
        }
    }
    return MEMTX_OK;
}

void memtx__rope_release(struct memtx__rope *rope)
{
    memtx__free(rope->turns);
    *rope = (struct memtx__rope){0};
}

MEMTX__CLONES static void turn_pairs(float *out, const float *x, const float *turns, size_t n_pairs)
{
#pragma omp simd
    for (size_t i = 0; i < n_pairs; i++) {
        float cosine = turns[2 * i], sine = turns[2 * i + 1];
        float a = x[2 * i], b = x[2 * i + 1];
        out[2 * i] = a * cosine - b * sine;
        out[2 * i + 1] = a * sine + b * cosine;
    }
}

void memtx__rope_turn(float *out, const struct memtx__rope *rope, const float *x, size_t position, size_t head_size)
{
    size_t n_turning = 2 * rope->n_pairs;
    turn_pairs(out, x, rope->turns + position * n_turning, rope->n_pairs);
    if (out != x && n_turning < head_size) {
        memcpy(out + n_turning, x + n_turning, (head_size - n_turning) * sizeof *out);
    }
}
