/* One block, forward: x += attention(norm(x)); x += feed_forward(norm(x)). Read from top to bottom.
 *
 * Keys enter the cache before RoPE and are turned for every segment anew, at their place in the cache: a stream has no
 * end, and what is evicted goes to the memory unturned. At a memory layer the same unturned queries ask the memory, and
 * the gate blends what it answers with local attention before the output product (Memorizing Transformers, 3.1).
 */
#include <math.h>
#include <string.h>

#include "math/activation.h"
#include "math/attention.h"
#include "math/norm.h"
#include "model/model.h"

/* qkv[n][(H + 2G) D] to queries[n][H][D] and to the cache's rows behind n_rows. */
static void split_qkv(struct memtx_stream *stream, size_t layer, size_t n)
{
    const struct memtx__config *config = &stream->model->config;
    const struct memtx__kv_cache *cache = &stream->cache;
    const size_t head_size = config->head_size, n_heads = config->n_heads, n_kv_heads = config->n_kv_heads;
    const size_t n_all = (n_heads + 2 * n_kv_heads) * head_size;
    float *keys = memtx__kv_cache_keys(cache, layer), *values = memtx__kv_cache_values(cache, layer);
#pragma omp parallel for schedule(static)
    for (size_t t = 0; t < n; t++) {
        const float *row = stream->qkv + t * n_all;
        memcpy(stream->queries + t * n_heads * head_size, row, n_heads * head_size * sizeof *row);
        for (size_t head = 0; head < n_kv_heads; head++) {
            const size_t place = (head * cache->capacity + cache->n_rows + t) * head_size;
            memcpy(keys + place, row + (n_heads + head) * head_size, head_size * sizeof *row);
            memcpy(values + place, row + (n_heads + n_kv_heads + head) * head_size, head_size * sizeof *row);
        }
    }
}

/* Turns the segment's queries and all keys of the cache to their places in the cache. */
static void turn(struct memtx_stream *stream, size_t layer, size_t n)
{
    const struct memtx__config *config = &stream->model->config;
    const struct memtx__kv_cache *cache = &stream->cache;
    const size_t head_size = config->head_size, n_heads = config->n_heads, n_rows = cache->n_rows + n;
    const float *keys = memtx__kv_cache_keys(cache, layer);
#pragma omp parallel for schedule(static)
    for (size_t t = 0; t < n; t++) {
        for (size_t head = 0; head < n_heads; head++) {
            const size_t place = (t * n_heads + head) * head_size;
            memtx__rope_turn(stream->turned_queries + place, &stream->rope, stream->queries + place, cache->n_rows + t,
                             head_size);
        }
    }
    for (size_t head = 0; head < config->n_kv_heads; head++) {
#pragma omp parallel for schedule(static)
        for (size_t row = 0; row < n_rows; row++) {
            const size_t place = (head * cache->capacity + row) * head_size;
            memtx__rope_turn(stream->turned_keys + place, &stream->rope, keys + place, row, head_size);
        }
    }
}

static int attend(struct memtx_stream *stream, size_t layer, size_t n)
{
    const struct memtx__config *config = &stream->model->config;
    const struct memtx__kv_cache *cache = &stream->cache;
    struct memtx__attention_sizes sizes = {
        .n_tokens = n,
        .n_past = cache->n_rows,
        .band = stream->band,
        .n_heads = config->n_heads,
        .n_kv_heads = config->n_kv_heads,
        .head_size = config->head_size,
        .cache_rows = cache->capacity,
        .scale = 1.0F / sqrtf((float)config->head_size),
        .n_threads = stream->n_threads,
    };
    int status =
        memtx__attention_fwd(stream->attended, stream->attention_lse, stream->turned_queries, stream->turned_keys,
                             memtx__kv_cache_values(cache, layer), stream->attention_scratch, &sizes);
    if (status || !stream->memory_layers || !stream->memory_layers[layer] ||
        stream->options.gate.mode == MEMTX_BLEND_OFF) {
        return status;
    }
    status = memtx_memory_attend(stream->remembered, stream->memory_lse, NULL, stream->options.memory, (uint32_t)layer,
                                 n, stream->queries, cache->positions + cache->n_rows);
    if (!status) {
        memtx_blend(stream->attended, stream->attended, stream->attention_lse, stream->remembered, stream->memory_lse,
                    &stream->options.gate, n, config->n_heads, config->head_size);
    }
    return status;
}

int memtx__block_fwd(struct memtx_stream *stream, size_t layer, size_t n)
{
    const struct memtx__config *config = &stream->model->config;
    const struct memtx__layer_weights *weights = &stream->model->weights.layers[layer];
    const size_t n_channels = config->n_channels;

    memtx__norm_fwd(stream->normed, stream->x, weights->attention_norm, config->norm_epsilon, n, n_channels);
    int status = memtx__linear_fwd(stream->qkv, stream->plans, stream->normed, &weights->qkv, n);
    if (status) {
        return status;
    }
    split_qkv(stream, layer, n);
    turn(stream, layer, n);
    status = attend(stream, layer, n);
    if (!status) {
        status = memtx__linear_fwd(stream->normed, stream->plans, stream->attended, &weights->output, n);
    }
    if (status) {
        return status;
    }
    memtx__add_fwd(stream->x, stream->normed, n * n_channels);

    memtx__norm_fwd(stream->normed, stream->x, weights->feed_forward_norm, config->norm_epsilon, n, n_channels);
    status = memtx__linear_fwd(stream->gate_up, stream->plans, stream->normed, &weights->gate_up, n);
    if (status) {
        return status;
    }
    memtx__swiglu_fwd(stream->activated, stream->gate_up, n, config->n_feed_forward);
    status = memtx__linear_fwd(stream->normed, stream->plans, stream->activated, &weights->down, n);
    if (status) {
        return status;
    }
    memtx__add_fwd(stream->x, stream->normed, n * n_channels);
    return MEMTX_OK;
}
