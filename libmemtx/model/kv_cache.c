/* The rows that a stream holds, and which of them leave after a segment (model.h, DESIGN 3).
 *
 * The rows stand in one piece: sinks, window, segment. Nothing leaves before the sinks are full, so the sinks are
 * simply the first rows; what leaves stands right behind them, and the rest moves down: W rows of a layer, a few MB a
 * segment.
 */
#include <string.h>

#include "model/model.h"

void memtx__kv_cache_take(struct memtx__kv_cache *cache, struct memtx__arena *arena)
{
    const size_t layer_rows = cache->n_kv_heads * cache->capacity;
    cache->keys = memtx__arena_take(arena, cache->n_layers * layer_rows, cache->head_size * sizeof *cache->keys);
    cache->values = memtx__arena_take(arena, cache->n_layers * layer_rows, cache->head_size * sizeof *cache->values);
    cache->positions = memtx__arena_take(arena, cache->capacity, sizeof *cache->positions);
    cache->tokens = memtx__arena_take(arena, cache->capacity, sizeof *cache->tokens);
}

float *memtx__kv_cache_keys(const struct memtx__kv_cache *cache, size_t layer)
{
    return cache->keys + layer * cache->n_kv_heads * cache->capacity * cache->head_size;
}

float *memtx__kv_cache_values(const struct memtx__kv_cache *cache, size_t layer)
{
    return cache->values + layer * cache->n_kv_heads * cache->capacity * cache->head_size;
}

size_t memtx__kv_cache_end_segment(size_t *first, struct memtx__kv_cache *cache, size_t n)
{
    cache->n_rows += n;
    if (cache->n_sinks < cache->most_sinks) {
        cache->n_sinks = cache->n_rows < cache->most_sinks ? cache->n_rows : cache->most_sinks;
    }
    *first = cache->n_sinks;
    size_t n_behind = cache->n_rows - cache->n_sinks;
    return n_behind > cache->most_window ? n_behind - cache->most_window : 0;
}

void memtx__kv_cache_drop(struct memtx__kv_cache *cache, size_t first, size_t n)
{
    const size_t n_after = cache->n_rows - first - n, head_size = cache->head_size;
    if (n == 0) {
        return;
    }
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < cache->n_layers * cache->n_kv_heads; i++) {
        float *keys = cache->keys + i * cache->capacity * head_size;
        float *values = cache->values + i * cache->capacity * head_size;
        memmove(keys + first * head_size, keys + (first + n) * head_size, n_after * head_size * sizeof *keys);
        memmove(values + first * head_size, values + (first + n) * head_size, n_after * head_size * sizeof *values);
    }
    memmove(cache->positions + first, cache->positions + first + n, n_after * sizeof *cache->positions);
    memmove(cache->tokens + first, cache->tokens + first + n, n_after * sizeof *cache->tokens);
    cache->n_rows -= n;
}

void memtx__kv_cache_gather(float *out, const struct memtx__kv_cache *cache, const float *rows, size_t first, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t head = 0; head < cache->n_kv_heads; head++) {
            memcpy(out + (i * cache->n_kv_heads + head) * cache->head_size,
                   rows + (head * cache->capacity + first + i) * cache->head_size, cache->head_size * sizeof *out);
        }
    }
}
