/* Loading a model, the forward of a segment, logits and loss (memtx/model.h). */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/status.h"
#include "math/norm.h"
#include "model/model.h"

enum { SAMPLE_BYTES = 1024 };

/* ---- loading ---------------------------------------------------------------------------------- */

static void hash_number(XXH3_state_t *state, uint64_t number)
{
    unsigned char bytes[8];
    memtx__put_u64(bytes, number);
    (void)XXH3_128bits_update(state, bytes, sizeof bytes);
}

static void hash_real(XXH3_state_t *state, double number)
{
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    hash_number(state, bits);
}

/* A tensor's name, type, shape and three pieces of its bytes. */
static void hash_tensor(XXH3_state_t *state, const struct memtx_tensor *tensor)
{
    const size_t n = tensor->n_bytes < SAMPLE_BYTES ? tensor->n_bytes : SAMPLE_BYTES;
    (void)XXH3_128bits_update(state, tensor->name.bytes, tensor->name.n_bytes);
    hash_number(state, (uint64_t)tensor->type);
    for (int d = 0; d < MEMTX_GGUF_MAX_DIMS; d++) {
        hash_number(state, tensor->dims[d]);
    }
    (void)XXH3_128bits_update(state, tensor->bytes, n);
    (void)XXH3_128bits_update(state, tensor->bytes + (tensor->n_bytes - n) / 2, n);
    (void)XXH3_128bits_update(state, tensor->bytes + tensor->n_bytes - n, n);
}

/* Whatever makes keys and values what they are: the architecture's numbers and a sample of every weight. */
static int take_fingerprint(memtx_model *model)
{
    const struct memtx__config *config = &model->config;
    const uint32_t numbers[] = {config->n_layers,  config->n_channels,     config->n_heads,      config->n_kv_heads,
                                config->head_size, config->n_feed_forward, config->n_vocabulary, config->rope_dims};
    XXH3_state_t *state = XXH3_createState();
    if (!state) {
        return memtx__fail(MEMTX_E_NO_MEMORY, "no memory to hash the model");
    }
    (void)XXH3_128bits_reset(state);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        hash_number(state, numbers[i]);
    }
    hash_real(state, config->rope_base);
    hash_real(state, (double)config->norm_epsilon);
    for (size_t i = 0; i < memtx_gguf_n_tensors(model->gguf); i++) {
        hash_tensor(state, memtx_gguf_tensor_at(model->gguf, i));
    }
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state));
    memcpy(model->fingerprint, canonical.digest, MEMTX_FINGERPRINT_BYTES);
    (void)XXH3_freeState(state);
    return MEMTX_OK;
}

int memtx_model_load(memtx_model **out, const char *path, enum memtx_weights weights)
{
    memtx_model *model;
    const enum memtx__weight_type type = weights == MEMTX_WEIGHTS_BF16 ? MEMTX__WEIGHT_BF16 : MEMTX__WEIGHT_F32;
    *out = NULL;
    if (!memtx__weight_type_is_fast(type)) {
        return memtx__fail(MEMTX_E_UNSUPPORTED, "this processor has no bf16 products (use f32 weights)");
    }
    int status = memtx__alloc(&model, 1, sizeof *model);
    if (status) {
        return status;
    }
    model->weight_type = weights;
    status = memtx_gguf_open(&model->gguf, path);
    if (!status) {
        status = memtx__config_read(&model->config, model->gguf);
    }
    if (!status) {
        status = memtx_tokenizer_create(&model->tokenizer, model->gguf);
    }
    if (!status && memtx_tokenizer_n_tokens(model->tokenizer) > model->config.n_vocabulary) {
        status = memtx__fail(MEMTX_E_FORMAT, "%s: %zu tokens in the tokenizer, %u in the embedding", path,
                             memtx_tokenizer_n_tokens(model->tokenizer), model->config.n_vocabulary);
    }
    if (!status) {
        status = memtx__weights_load(&model->weights, &model->config, model->gguf, type);
    }
    if (!status) {
        status = take_fingerprint(model);
    }
    if (status) {
        memtx_model_close(model);
        return status;
    }
    *out = model;
    return MEMTX_OK;
}

void memtx_model_close(memtx_model *model)
{
    if (!model) {
        return;
    }
    memtx__weights_release(&model->weights);
    memtx_tokenizer_destroy(model->tokenizer);
    memtx_gguf_close(model->gguf);
    memtx__free(model);
}

void memtx_model_info(struct memtx_model_facts *out, const memtx_model *model)
{
    const struct memtx__config *config = &model->config;
    *out = (struct memtx_model_facts){
        .path = memtx_gguf_path(model->gguf),
        .n_layers = config->n_layers,
        .n_channels = config->n_channels,
        .n_heads = config->n_heads,
        .n_kv_heads = config->n_kv_heads,
        .head_size = config->head_size,
        .n_feed_forward = config->n_feed_forward,
        .n_vocabulary = config->n_vocabulary,
        .context = config->context,
        .rope_dims = config->rope_dims,
        .rope_base = config->rope_base,
        .weights = model->weight_type,
        .weight_bytes = model->weights.block_bytes,
    };
    memcpy(out->architecture, config->architecture, sizeof out->architecture);
    memcpy(out->name, config->name, sizeof out->name);
    memcpy(out->fingerprint, model->fingerprint, sizeof out->fingerprint);
}

const memtx_tokenizer *memtx_model_tokenizer(const memtx_model *model)
{
    return model->tokenizer;
}

void memtx_model_store_spec(struct memtx_store_spec *out, const memtx_model *model)
{
    const struct memtx__config *config = &model->config;
    *out = (struct memtx_store_spec){
        .n_layers = config->n_layers,
        .n_heads = config->n_heads,
        .n_kv_heads = config->n_kv_heads,
        .head_size = config->head_size,
        .rope_dims = config->rope_dims,
        .rope_base = config->rope_base,
        .rope_factors = model->weights.rope_factors,
        .scale = 1.0F / sqrtf((float)config->head_size),
    };
    memcpy(out->fingerprint, model->fingerprint, sizeof out->fingerprint);
    (void)snprintf(out->tokenizer, sizeof out->tokenizer, "%s", memtx_tokenizer_name(model->tokenizer));
}

/* ---- forward ---------------------------------------------------------------------------------- */

static int check_tokens(const struct memtx_stream *stream, const uint32_t *tokens, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (tokens[i] >= stream->model->config.n_vocabulary) {
            return memtx__fail(MEMTX_E_INVALID, "token id %u in a vocabulary of %u", tokens[i],
                               stream->model->config.n_vocabulary);
        }
    }
    return MEMTX_OK;
}

static int check_segment(const struct memtx_stream *stream, const uint32_t *tokens, size_t n)
{
    if (n < 1 || n > stream->options.segment) {
        return memtx__fail(MEMTX_E_INVALID, "a segment of %zu tokens, not in 1..%u", n, stream->options.segment);
    }
    if (n > stream->cache.capacity - stream->cache.n_rows) {
        return memtx__fail(MEMTX_E_CONTEXT, "mode %s: more than %zu tokens", memtx_mode_name(stream->options.mode),
                           stream->cache.capacity);
    }
    return check_tokens(stream, tokens, n);
}

int memtx_model_forward_segment(const float **hidden, memtx_stream *stream, const uint32_t *tokens, size_t n)
{
    const struct memtx__config *config = &stream->model->config;
    struct memtx__kv_cache *cache = &stream->cache;
    const size_t n_channels = config->n_channels;
    *hidden = NULL;
    int status = check_segment(stream, tokens, n);
    if (status) {
        return status;
    }
    for (size_t t = 0; t < n; t++) {
        memtx__weights_embed(stream->x + t * n_channels, &stream->model->weights, tokens[t], n_channels);
        cache->positions[cache->n_rows + t] = stream->position + t;
        cache->tokens[cache->n_rows + t] = tokens[t];
    }
    if (stream->memory_layers) {
        status = memtx_memory_begin_segment(stream->options.memory);
    }
    for (size_t layer = 0; layer < config->n_layers && !status; layer++) {
        status = memtx__block_fwd(stream, layer, n);
    }
    if (!status) {
        memtx__tokens_hash_add(stream->hash, tokens, n);
        memtx__norm_fwd(stream->x, stream->x, stream->model->weights.output_norm, config->norm_epsilon, n, n_channels);
        status = memtx__stream_end_segment(stream, n);
    }
    if (!status) {
        *hidden = stream->x;
    }
    return status;
}

static int check_rows(const struct memtx_stream *stream, size_t first_row, size_t n_rows)
{
    return first_row > stream->n_last || n_rows > stream->n_last - first_row
               ? memtx__fail(MEMTX_E_INVALID, "rows %zu to %zu of a segment of %zu", first_row, first_row + n_rows,
                             stream->n_last)
               : MEMTX_OK;
}

int memtx_model_nll(float *nll, memtx_stream *stream, size_t first_row, size_t n_rows, const uint32_t *targets)
{
    const struct memtx__weights *weights = &stream->model->weights;
    int status = check_rows(stream, first_row, n_rows);
    if (!status) {
        status = check_tokens(stream, targets, n_rows);
    }
    if (status || n_rows == 0) {
        return status;
    }
    memtx__loss_begin(stream->losses, n_rows);
    for (size_t tile = 0; tile < weights->n_head_tiles && !status; tile++) {
        status =
            memtx__linear_fwd(stream->logits, stream->plans, stream->x + first_row * stream->model->config.n_channels,
                              &weights->head[tile], n_rows);
        if (!status) {
            memtx__loss_add_tile(stream->losses, stream->logits, targets, n_rows, tile * MEMTX__HEAD_TILE,
                                 weights->head[tile].shape.n_out);
        }
    }
    if (!status) {
        memtx__loss_end(nll, stream->losses, n_rows);
    }
    return status;
}

int memtx_model_logits(float *logits, memtx_stream *stream, size_t first_row, size_t n_rows)
{
    const struct memtx__weights *weights = &stream->model->weights;
    const size_t n_vocabulary = stream->model->config.n_vocabulary;
    int status = check_rows(stream, first_row, n_rows);
    for (size_t tile = 0; tile < weights->n_head_tiles && !status && n_rows; tile++) {
        const size_t n = weights->head[tile].shape.n_out;
        status =
            memtx__linear_fwd(stream->logits, stream->plans, stream->x + first_row * stream->model->config.n_channels,
                              &weights->head[tile], n_rows);
        for (size_t row = 0; row < n_rows && !status; row++) {
            memcpy(logits + row * n_vocabulary + tile * MEMTX__HEAD_TILE, stream->logits + row * n, n * sizeof *logits);
        }
    }
    return status;
}
