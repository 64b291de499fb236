/* Local attention of a segment over its cache: causal, grouped-query, with the log-sum-exp of every row kept, since a
 * memory is blended in by it (Memorizing Transformers, 3.1; DESIGN 4).
 */
#ifndef MEMTX_MATH_ATTENTION_H
#define MEMTX_MATH_ATTENTION_H

#include <stddef.h>

struct memtx__attention_sizes {
    size_t n_tokens;   /* T: queries */
    size_t n_past;     /* rows of the cache before the segment's own; the segment's keys are rows n_past + t */
    size_t band;       /* a query sees only the last `band` rows, itself included; 0: all */
    size_t n_heads;    /* H */
    size_t n_kv_heads; /* G */
    size_t head_size;  /* D */
    size_t cache_rows; /* rows between one kv head and the next in k and v: at least n_past + n_tokens */
    float scale;       /* of the logits: 1 / sqrt(D) unless the model says otherwise */
    size_t n_threads;  /* for which the scratch was taken */
};

/* Scratch of memtx__attention_fwd, in floats for each thread, for any segment within the sizes given. */
size_t memtx__attention_scratch(const struct memtx__attention_sizes *largest);

/* out[T][H][D] and lse[T][H] from q[T][H][D], k[G][cache_rows][D], v[G][cache_rows][D], q and k rotated. Query t sees
 * the rows 0 .. n_past + t within its band. scratch: memtx__attention_scratch floats for each of sizes->n_threads
 * threads, which are used. MEMTX_E_NO_MEMORY or MEMTX_E_UNSUPPORTED from the product. */
int memtx__attention_fwd(float *out, float *lse, const float *q, const float *k, const float *v, float *scratch,
                         const struct memtx__attention_sizes *sizes);

/* The specification of memtx__attention_fwd: one query and head at a time, sums in double. */
void memtx__attention_fwd_plain(float *out, float *lse, const float *q, const float *k, const float *v,
                                const struct memtx__attention_sizes *sizes);

/* Turns logits into weights that are not yet divided by their sum: x[i] = exp(x[i] * scale - highest), and gives the
 * sum and the log-sum-exp of x[i] * scale. n > 0. */
void memtx__softmax_row(float *sum, float *lse, float *x, float scale, size_t n);

#endif
