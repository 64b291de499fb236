/* A stream (memtx/model.h): what each mode means for the cache, and the scratch. Its documents: document.c. */
#include <omp.h>
#include <string.h>

#include "base/alloc.h"
#include "base/status.h"
#include "math/attention.h"
#include "model/model.h"

enum { MOST_SEGMENT = 1 << 16 };

static const char *const mode_names[] = {"segment", "window", "xl", "sinks", "full", "memory"};

const char *memtx_mode_name(enum memtx_mode mode)
{
    return mode >= MEMTX_MODE_SEGMENT && mode <= MEMTX_MODE_MEMORY ? mode_names[mode] : "unknown";
}

int memtx_mode_parse(enum memtx_mode *out, const char *name)
{
    for (int i = 0; i <= MEMTX_MODE_MEMORY; i++) {
        if (strcmp(name, mode_names[i]) == 0) {
            *out = (enum memtx_mode)i;
            return MEMTX_OK;
        }
    }
    return memtx__fail(MEMTX_E_INVALID, "mode '%s' is none of segment, window, xl, sinks, full, memory", name);
}

struct memtx_stream_options memtx_stream_options_default(void)
{
    return (struct memtx_stream_options){.mode = MEMTX_MODE_SINKS, .window = 512, .segment = 512, .sinks = 4};
}

/* ---- opening ---------------------------------------------------------------------------------- */

/* Sinks, kept rows, band and capacity of the cache by mode: DESIGN 3's table. */
static int set_span(struct memtx_stream *stream)
{
    const struct memtx_stream_options *options = &stream->options;
    const struct memtx__config *config = &stream->model->config;
    struct memtx__kv_cache *cache = &stream->cache;
    *cache = (struct memtx__kv_cache){
        .n_layers = config->n_layers, .n_kv_heads = config->n_kv_heads, .head_size = config->head_size};
    switch (options->mode) {
    case MEMTX_MODE_SEGMENT:
        break;
    case MEMTX_MODE_WINDOW:
        if (options->window < 1) {
            return memtx__fail(MEMTX_E_INVALID, "mode window with a window of 0 tokens (1 or more)");
        }
        cache->most_window = options->window - 1; /* a query is itself one of the W */
        stream->band = options->window;
        break;
    case MEMTX_MODE_XL:
        cache->most_window = options->window;
        break;
    case MEMTX_MODE_SINKS:
    case MEMTX_MODE_MEMORY:
        cache->most_sinks = options->sinks;
        cache->most_window = options->window;
        break;
    case MEMTX_MODE_FULL:
        cache->most_window = options->most_tokens ? options->most_tokens : config->context;
        cache->capacity = cache->most_window;
        break;
    }
    if (options->mode != MEMTX_MODE_FULL) {
        cache->capacity = cache->most_sinks + cache->most_window + options->segment;
    }
    if (cache->capacity > config->context) {
        return memtx__fail(MEMTX_E_CONTEXT, "mode %s: %zu tokens at once; the model's context is %u",
                           memtx_mode_name(options->mode), cache->capacity, config->context);
    }
    return MEMTX_OK;
}

static int check_memory(struct memtx_stream *stream)
{
    const memtx_memory *memory = stream->options.memory;
    struct memtx_memory_facts facts;
    if (stream->options.mode != MEMTX_MODE_MEMORY) {
        return MEMTX_OK;
    }
    if (!memory) {
        return memtx__fail(MEMTX_E_INVALID, "mode memory without a memory");
    }
    memtx_memory_info(&facts, memory);
    if (!stream->options.allow_stale &&
        memcmp(facts.store.spec.fingerprint, stream->model->fingerprint, MEMTX_FINGERPRINT_BYTES) != 0) {
        return memtx__fail(MEMTX_E_MISMATCH, "the memory was made with another model");
    }
    if (facts.options.most_tokens < stream->options.segment) {
        return memtx__fail(MEMTX_E_INVALID, "segments of %u tokens; the memory was opened for %u",
                           stream->options.segment, facts.options.most_tokens);
    }
    for (uint32_t layer = 0; layer < MEMTX_MAX_LAYERS; layer++) {
        stream->layers_kept[layer] = facts.store.spec.heads_kept[layer] != 0;
    }
    stream->memory_layers = stream->layers_kept;
    return MEMTX_OK;
}

static void take_scratch(struct memtx_stream *stream, struct memtx__arena *arena)
{
    const struct memtx__config *config = &stream->model->config;
    const size_t segment = stream->options.segment, head_size = config->head_size;
    const size_t n_q = (size_t)config->n_heads * head_size, n_kv = (size_t)config->n_kv_heads * head_size;
    const size_t n_widest = n_q > config->n_channels ? n_q : config->n_channels;
    struct memtx__attention_sizes sizes = {.n_tokens = segment,
                                           .n_past = stream->cache.capacity,
                                           .n_heads = config->n_heads,
                                           .n_kv_heads = config->n_kv_heads,
                                           .head_size = head_size};
    memtx__kv_cache_take(&stream->cache, arena);
    stream->x = memtx__arena_take(arena, segment * config->n_channels, sizeof(float));
    stream->normed = memtx__arena_take(arena, segment * n_widest, sizeof(float));
    stream->qkv = memtx__arena_take(arena, segment * (n_q + 2 * n_kv), sizeof(float));
    stream->queries = memtx__arena_take(arena, segment * n_q, sizeof(float));
    stream->turned_queries = memtx__arena_take(arena, segment * n_q, sizeof(float));
    stream->turned_keys = memtx__arena_take(arena, stream->cache.capacity * n_kv, sizeof(float));
    stream->attended = memtx__arena_take(arena, segment * n_q, sizeof(float));
    stream->attention_lse = memtx__arena_take(arena, segment * config->n_heads, sizeof(float));
    stream->gate_up = memtx__arena_take(arena, segment * 2 * config->n_feed_forward, sizeof(float));
    stream->activated = memtx__arena_take(arena, segment * config->n_feed_forward, sizeof(float));
    stream->logits = memtx__arena_take(arena, segment * MEMTX__HEAD_TILE, sizeof(float));
    stream->losses = memtx__arena_take(arena, segment, sizeof *stream->losses);
    stream->attention_scratch =
        memtx__arena_take(arena, stream->n_threads * memtx__attention_scratch(&sizes), sizeof(float));
    if (stream->memory_layers) {
        stream->remembered = memtx__arena_take(arena, segment * n_q, sizeof(float));
        stream->memory_lse = memtx__arena_take(arena, segment * config->n_heads, sizeof(float));
        stream->evicted_keys = memtx__arena_take(arena, segment * n_kv, sizeof(float));
        stream->evicted_values = memtx__arena_take(arena, segment * n_kv, sizeof(float));
        stream->state_bytes =
            memtx__arena_take(arena, stream->options.state_segments ? memtx_model_state_bytes(stream) : 0, 1);
    }
}

/* The products of a full segment, made ready before the loop; a shorter last segment makes its own. */
static int plan_products(struct memtx_stream *stream)
{
    const struct memtx__weights *weights = &stream->model->weights;
    const struct memtx__linear_shape shapes[] = {
        weights->layers[0].qkv.shape,  weights->layers[0].output.shape, weights->layers[0].gate_up.shape,
        weights->layers[0].down.shape, weights->head[0].shape,          weights->head[weights->n_head_tiles - 1].shape};
    int status = memtx__linear_plans_create(&stream->plans);
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0] && !status; i++) {
        status = memtx__linear_plan(stream->plans, shapes[i], stream->options.segment);
    }
    return status;
}

static int prepare(struct memtx_stream *stream)
{
    const struct memtx__config *config = &stream->model->config;
    const float *bias = stream->options.gate.bias;
    int status = set_span(stream);
    if (!status) {
        status = check_memory(stream);
    }
    if (!status) {
        status = memtx__tokens_hash_create(&stream->hash);
    }
    if (!status && bias) {
        status = memtx__alloc(&stream->bias, config->n_heads, sizeof *stream->bias);
        if (!status) {
            memcpy(stream->bias, bias, config->n_heads * sizeof *bias);
            stream->options.gate.bias = stream->bias;
        }
    }
    if (!status) {
        status = memtx__rope_create(&stream->rope, config->rope_dims, config->rope_base,
                                    stream->model->weights.rope_factors, stream->cache.capacity);
    }
    if (!status) {
        take_scratch(stream, &stream->arena);
        status = memtx__arena_reserve(&stream->arena);
    }
    if (!status) {
        take_scratch(stream, &stream->arena);
        status = plan_products(stream);
    }
    return status;
}

int memtx_stream_open(memtx_stream **out, const memtx_model *model, const struct memtx_stream_options *options)
{
    memtx_stream *stream;
    *out = NULL;
    struct memtx_stream_options chosen = options ? *options : memtx_stream_options_default();
    if (chosen.segment < 1 || chosen.segment > MOST_SEGMENT) {
        return memtx__fail(MEMTX_E_INVALID, "segments of %u tokens, not in 1..%d", chosen.segment, MOST_SEGMENT);
    }
    int status = memtx__alloc(&stream, 1, sizeof *stream);
    if (status) {
        return status;
    }
    stream->model = model;
    stream->options = chosen;
    stream->n_threads = (size_t)omp_get_max_threads();
    status = prepare(stream);
    if (status) {
        memtx_stream_close(stream);
        return status;
    }
    *out = stream;
    return MEMTX_OK;
}

void memtx_stream_close(memtx_stream *stream)
{
    if (!stream) {
        return;
    }
    memtx__linear_plans_destroy(stream->plans);
    memtx__arena_release(&stream->arena);
    memtx__rope_release(&stream->rope);
    memtx__tokens_hash_destroy(stream->hash);
    memtx__free(stream->bias);
    memtx__free(stream);
}
