/* Local attention (attention.h).
 *
 * The work is cut into tasks of one kv head and a block of queries: the block's rows of all the group's heads stand
 * together, so that one product meets the keys with all of them, and the logits of a task stay in a core's cache. A
 * block sees no key past its last query, which spares the upper triangle but for the block itself. oneDNN makes the two
 * products; softmax runs over the visible part of a row and the rest is set to zero before the values are summed.
 */
#include "math/attention.h"

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>

#include "base/status.h"
#include "math/clones.h"
#include "math/exp.h"
#include "math/linear.h"
#include "math/shapes.h"

enum {
    MOST_BLOCK_QUERIES = 64,
    LEAST_BLOCK_QUERIES = 8,
    LOGIT_BLOCK_FLOATS = 256 * 1024, /* 1 MiB: a core's second-level cache */
};

MEMTX__CLONES static void softmax_row(float *sum, float *lse, float *x, float scale, size_t n)
{
    float highest = -INFINITY;
#pragma omp simd reduction(max : highest)
    for (size_t i = 0; i < n; i++) {
        highest = x[i] > highest ? x[i] : highest;
    }
    float shift = highest * scale;
    float total = 0;
#pragma omp simd reduction(+ : total)
    for (size_t i = 0; i < n; i++) {
        x[i] = memtx__exp(x[i] * scale - shift);
        total += x[i];
    }
    *sum = total;
    *lse = shift + logf(total);
}

/* Clones stay within their file: clang gives them names that no other file finds. */
void memtx__softmax_row(float *sum, float *lse, float *x, float scale, size_t n)
{
    softmax_row(sum, lse, x, scale, n);
}

MEMTX__CLONES static void scale_row(float *out, const float *x, float factor, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        out[i] = x[i] * factor;
    }
}

static size_t block_queries(const struct memtx__attention_sizes *sizes)
{
    size_t rows = sizes->n_past + sizes->n_tokens;
    size_t group = sizes->n_heads / sizes->n_kv_heads;
    size_t n = LOGIT_BLOCK_FLOATS / (group * rows);
    n = n < LEAST_BLOCK_QUERIES ? LEAST_BLOCK_QUERIES : n > MOST_BLOCK_QUERIES ? MOST_BLOCK_QUERIES : n;
    return n < sizes->n_tokens ? n : sizes->n_tokens;
}

size_t memtx__attention_scratch(const struct memtx__attention_sizes *largest)
{
    /* A shorter past makes blocks longer, so the bound takes the most rows and the most logits that any block has. */
    size_t rows = largest->n_past + largest->n_tokens;
    size_t group = largest->n_heads / largest->n_kv_heads;
    size_t logits = group * LEAST_BLOCK_QUERIES * rows;
    logits = logits > LOGIT_BLOCK_FLOATS ? logits : LOGIT_BLOCK_FLOATS;
    return logits + group * MOST_BLOCK_QUERIES * (2 * largest->head_size + 1);
}

/* One block of queries first .. first + n - 1 of one kv head. */
static int attend_block(float *out, float *lse, const float *q, const float *k, const float *v, float *scratch,
                        const struct memtx__attention_sizes *sizes, size_t kv_head, size_t first, size_t n)
{
    const size_t head_size = sizes->head_size, n_heads = sizes->n_heads;
    const size_t group = n_heads / sizes->n_kv_heads, n_rows = group * n;
    const size_t end = sizes->n_past + first + n; /* past the last key that the block sees */
    const size_t oldest = sizes->n_past + first + 1;
    const size_t begin = sizes->band && oldest > sizes->band ? oldest - sizes->band : 0;
    const size_t n_keys = end - begin;
    const float *keys = k + (kv_head * sizes->cache_rows + begin) * head_size;
    const float *values = v + (kv_head * sizes->cache_rows + begin) * head_size;
    float *queries = scratch, *sums = queries + n_rows * head_size, *totals = sums + n_rows * head_size;
    float *logits = totals + n_rows;

    for (size_t t = 0; t < n; t++) { /* row t * group + h */
        memcpy(queries + t * group * head_size, q + ((first + t) * n_heads + kv_head * group) * head_size,
               group * head_size * sizeof *queries);
    }
    int status = memtx__product(logits, queries, keys, true, n_rows, n_keys, head_size, n_keys, head_size, head_size);
    if (status) {
        return status;
    }
    for (size_t row = 0; row < n_rows; row++) {
        size_t t = first + row / group, newest = sizes->n_past + t + 1; /* past the query's own row */
        size_t low = sizes->band && newest > sizes->band ? newest - sizes->band - begin : 0, high = newest - begin;
        float *x = logits + row * n_keys;
        memset(x, 0, low * sizeof *x);
        memset(x + high, 0, (n_keys - high) * sizeof *x);
        softmax_row(&totals[row], &lse[t * n_heads + kv_head * group + row % group], x + low, sizes->scale, high - low);
    }
    status = memtx__product(sums, logits, values, false, n_rows, head_size, n_keys, head_size, n_keys, head_size);
    for (size_t row = 0; row < n_rows && !status; row++) {
        scale_row(out + ((first + row / group) * n_heads + kv_head * group + row % group) * head_size,
                  sums + row * head_size, 1.0F / totals[row], head_size);
    }
    return status;
}

int memtx__attention_fwd(float *out, float *lse, const float *q, const float *k, const float *v, float *scratch,
                         const struct memtx__attention_sizes *sizes)
{
    const size_t block = block_queries(sizes);
    const size_t n_blocks = (sizes->n_tokens + block - 1) / block;
    const size_t stride = memtx__attention_scratch(sizes);
    int status = MEMTX_OK;
#pragma omp parallel for collapse(2) schedule(dynamic) reduction(min : status) num_threads((int)sizes->n_threads)
    for (size_t kv_head = 0; kv_head < sizes->n_kv_heads; kv_head++) {
        for (size_t reversed = 0; reversed < n_blocks; reversed++) { /* the longest tasks first */
            size_t first = (n_blocks - 1 - reversed) * block;
            size_t n = sizes->n_tokens - first < block ? sizes->n_tokens - first : block;
            int failed = attend_block(out, lse, q, k, v, scratch + (size_t)omp_get_thread_num() * stride, sizes,
                                      kv_head, first, n);
            status = failed < status ? failed : status;
        }
    }
    /* said in the worker's thread: say it in the caller's */
    return status ? memtx__fail(status, "a product of attention failed: %s", memtx_status_text(status)) : MEMTX_OK;
}

void memtx__attention_fwd_plain(float *out, float *lse, const float *q, const float *k, const float *v,
                                const struct memtx__attention_sizes *sizes)
{
    const size_t head_size = sizes->head_size, group = sizes->n_heads / sizes->n_kv_heads;
    for (size_t t = 0; t < sizes->n_tokens; t++) {
        for (size_t h = 0; h < sizes->n_heads; h++) {
            const size_t end = sizes->n_past + t + 1;
            const size_t begin = sizes->band && end > sizes->band ? end - sizes->band : 0;
            const float *query = q + (t * sizes->n_heads + h) * head_size;
            const float *keys = k + h / group * sizes->cache_rows * head_size;
            const float *values = v + h / group * sizes->cache_rows * head_size;
            float *result = out + (t * sizes->n_heads + h) * head_size;
            double highest = -INFINITY, total = 0, sums[MEMTX__MAX_HEAD_SIZE] = {0};
            for (int pass = 0; pass < 2; pass++) { /* the largest logit, then the sums relative to it */
                for (size_t row = begin; row < end; row++) {
                    double logit = 0;
                    for (size_t d = 0; d < head_size; d++) {
                        logit += (double)query[d] * (double)keys[row * head_size + d];
                    }
                    logit *= (double)sizes->scale;
                    if (pass == 0) {
                        highest = logit > highest ? logit : highest;
                        continue;
                    }
                    double weight = exp(logit - highest);
                    total += weight;
                    for (size_t d = 0; d < head_size; d++) {
                        sums[d] += weight * (double)values[row * head_size + d];
                    }
                }
            }
            for (size_t d = 0; d < head_size; d++) {
                result[d] = (float)(sums[d] / total);
            }
            lse[t * sizes->n_heads + h] = (float)(highest + log(total));
        }
    }
}
