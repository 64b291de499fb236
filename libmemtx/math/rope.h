/* Rotary position embedding (Su et al. 2021) on adjacent pairs (2i, 2i+1), as GGUF files of architecture llama keep
 * their rows.
 *
 * R(p) turns pair i by p * frequency[i], frequency[i] = base^(-2i / n_dims) / factor[i]. Angles are computed in double;
 * a table holds cosines and sines for the positions that a run can meet.
 */
#ifndef MEMTX_MATH_ROPE_H
#define MEMTX_MATH_ROPE_H

#include <stddef.h>

struct memtx__rope {
    size_t n_pairs;     /* pairs that turn: n_dims / 2; 0 when positions are off */
    size_t n_positions; /* of the table: 0 .. n_positions - 1 */
    float *turns;       /* [n_positions][n_pairs][2]: cosine, sine */
};

/* A table for n_dims turning dimensions (even; 0: positions are off). `factors` [n_dims / 2] or NULL for ones (the
 * tensor rope_freqs.weight). MEMTX_E_NO_MEMORY. Released by memtx__rope_release. */
int memtx__rope_create(struct memtx__rope *out, size_t n_dims, double base, const float *factors, size_t n_positions);
void memtx__rope_release(struct memtx__rope *rope);

/* out[D] = R(position) x[D]; dimensions beyond the turning ones are copied; out may be x. position < n_positions. */
void memtx__rope_turn(float *out, const struct memtx__rope *rope, const float *x, size_t position, size_t head_size);

#endif
