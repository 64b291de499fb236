/* Tensors of the file to the types in which they are multiplied (model.h).
 *
 * Two walks over the same list of parts: the first adds up sizes, then one block is taken, and the second fills it.
 * Each matrix is dequantised by all threads into a scratch matrix and packed from there; the embedding stays in the
 * mapped file and is read row by row, so a tied model keeps it once. Tensors that this runtime would ignore are
 * refused: a bias left out is another model.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/status.h"
#include "math/quant.h"
#include "model/model.h"

enum { PREFIX_BYTES = 32, NAME_BYTES = 64, MOST_PARTS = 3, ROWS_AT_ONCE = 16 };

/* The state of a walk: block NULL while counting. */
struct walk {
    const memtx_gguf *gguf;
    struct memtx__arena arena;
    enum memtx__weight_type type;
    float *plain; /* the matrix being packed */
    size_t n_plain;
    size_t n_taken; /* tensors used */
};

/* A tensor by name, of the shape [n_out][n_in] or [n_in] (n_out 0). */
static int find(const struct memtx_tensor **out, struct walk *walk, const char *name, size_t n_in, size_t n_out)
{
    const struct memtx_tensor *tensor = memtx_gguf_find_tensor(walk->gguf, name);
    size_t values, bytes;
    if (!tensor) {
        return memtx__fail(MEMTX_E_FORMAT, "%s: tensor %s is missing", memtx_gguf_path(walk->gguf), name);
    }
    if (!tensor->bytes || !memtx__quant_layout(&values, &bytes, tensor->type)) {
        return memtx__fail(MEMTX_E_UNSUPPORTED, "%s: tensor %s has type %d, which is not supported",
                           memtx_gguf_path(walk->gguf), name, tensor->type);
    }
    if (tensor->dims[0] != n_in || tensor->dims[1] != (n_out ? n_out : 1) || tensor->n_dims > 2) {
        return memtx__fail(MEMTX_E_FORMAT, "%s: tensor %s is %" PRIu64 " x %" PRIu64 ", not %zu x %zu",
                           memtx_gguf_path(walk->gguf), name, tensor->dims[0], tensor->dims[1], n_in,
                           n_out ? n_out : 1);
    }
    *out = tensor;
    return MEMTX_OK;
}

/* plain[n_rows][n_in] = rows first_row .. of a tensor. */
static void read_rows(float *plain, const struct memtx_tensor *tensor, size_t first_row, size_t n_rows)
{
    const size_t n_in = (size_t)tensor->dims[0], row_bytes = tensor->n_bytes / (size_t)(tensor->n_values / n_in);
#pragma omp parallel for schedule(static)
    for (size_t row = 0; row < n_rows; row += ROWS_AT_ONCE) {
        size_t n = n_rows - row < ROWS_AT_ONCE ? n_rows - row : ROWS_AT_ONCE;
        memtx__dequantise(plain + row * n_in, tensor->type, tensor->bytes + (first_row + row) * row_bytes, n * n_in);
    }
}

/* A part of a matrix: rows of one tensor. */
struct part {
    const char *name;
    size_t n_rows;
};

/* A linear layer whose rows are those of several tensors one after the other. */
static int take_linear(struct memtx__linear *out, struct walk *walk, const char *prefix, size_t n_in,
                       const struct part *parts, size_t n_parts)
{
    const struct memtx_tensor *tensors[MOST_PARTS] = {NULL};
    size_t n_out = 0, packed_bytes;
    for (size_t i = 0; i < n_parts; i++) {
        char name[NAME_BYTES];
        (void)snprintf(name, sizeof name, "%.31s%s", prefix, parts[i].name);
        int status = find(&tensors[i], walk, name, n_in, parts[i].n_rows);
        if (status) {
            return status;
        }
        n_out += parts[i].n_rows;
    }
    out->shape = (struct memtx__linear_shape){n_in, n_out, walk->type};
    int status = memtx__linear_packed_bytes(&packed_bytes, out->shape);
    if (status) {
        return status;
    }
    void *packed = memtx__arena_take(&walk->arena, packed_bytes, 1);
    out->packed = packed;
    walk->n_taken += n_parts;
    walk->n_plain = walk->n_plain > n_out * n_in ? walk->n_plain : n_out * n_in;
    if (!packed) {
        return MEMTX_OK;
    }
    for (size_t i = 0, row = 0; i < n_parts; row += parts[i].n_rows, i++) {
        read_rows(walk->plain + row * n_in, tensors[i], 0, parts[i].n_rows);
    }
    return memtx__linear_pack(packed, out->shape, walk->plain);
}

static int take_norm(const float **out, struct walk *walk, const char *prefix, const char *suffix, size_t n_channels)
{
    const struct memtx_tensor *tensor;
    char name[NAME_BYTES];
    (void)snprintf(name, sizeof name, "%.31s%s", prefix, suffix);
    int status = find(&tensor, walk, name, n_channels, 0);
    if (status) {
        return status;
    }
    float *values = memtx__arena_take(&walk->arena, n_channels, sizeof *values);
    walk->n_taken++;
    if (values) {
        memtx__dequantise(values, tensor->type, tensor->bytes, n_channels);
    }
    *out = values;
    return MEMTX_OK;
}

static int take_layer(struct memtx__layer_weights *out, struct walk *walk, const struct memtx__config *config,
                      size_t layer)
{
    const size_t n_q = (size_t)config->n_heads * config->head_size;
    const size_t n_kv = (size_t)config->n_kv_heads * config->head_size;
    const struct part qkv[] = {{"attn_q.weight", n_q}, {"attn_k.weight", n_kv}, {"attn_v.weight", n_kv}};
    const struct part output[] = {{"attn_output.weight", config->n_channels}};
    const struct part gate_up[] = {{"ffn_gate.weight", config->n_feed_forward},
                                   {"ffn_up.weight", config->n_feed_forward}};
    const struct part down[] = {{"ffn_down.weight", config->n_channels}};
    char prefix[PREFIX_BYTES];
    (void)snprintf(prefix, sizeof prefix, "blk.%zu.", layer);
    int status = take_norm(&out->attention_norm, walk, prefix, "attn_norm.weight", config->n_channels);
    if (!status) {
        status = take_linear(&out->qkv, walk, prefix, config->n_channels, qkv, 3);
    }
    if (!status) {
        status = take_linear(&out->output, walk, prefix, n_q, output, 1);
    }
    if (!status) {
        status = take_norm(&out->feed_forward_norm, walk, prefix, "ffn_norm.weight", config->n_channels);
    }
    if (!status) {
        status = take_linear(&out->gate_up, walk, prefix, config->n_channels, gate_up, 2);
    }
    return status ? status : take_linear(&out->down, walk, prefix, config->n_feed_forward, down, 1);
}

/* The output layer in tiles of the vocabulary; tied to the embedding where the file has no tensor of its own. */
static int take_head(struct memtx__weights *weights, struct walk *walk, const struct memtx__config *config)
{
    const struct memtx_tensor *tensor;
    const char *name = memtx_gguf_find_tensor(walk->gguf, "output.weight") ? "output.weight" : "token_embd.weight";
    int status = find(&tensor, walk, name, config->n_channels, config->n_vocabulary);
    walk->n_taken += strcmp(name, "output.weight") == 0;
    for (size_t tile = 0; tile < weights->n_head_tiles && !status; tile++) {
        const size_t first = tile * MEMTX__HEAD_TILE, n_left = config->n_vocabulary - first;
        const size_t n_rows = n_left < MEMTX__HEAD_TILE ? n_left : MEMTX__HEAD_TILE;
        struct memtx__linear *linear = &weights->head[tile];
        size_t packed_bytes = 0;
        linear->shape = (struct memtx__linear_shape){config->n_channels, n_rows, walk->type};
        status = memtx__linear_packed_bytes(&packed_bytes, linear->shape);
        void *packed = memtx__arena_take(&walk->arena, packed_bytes, 1);
        linear->packed = packed;
        walk->n_plain = walk->n_plain > n_rows * config->n_channels ? walk->n_plain : n_rows * config->n_channels;
        if (!status && packed) {
            read_rows(walk->plain, tensor, first, n_rows);
            status = memtx__linear_pack(packed, linear->shape, walk->plain);
        }
    }
    return status;
}

static int take_all(struct memtx__weights *weights, struct walk *walk, const struct memtx__config *config)
{
    walk->n_taken = 0;
    int status = find(&weights->embedding, walk, "token_embd.weight", config->n_channels, config->n_vocabulary);
    walk->n_taken++;
    for (size_t layer = 0; layer < config->n_layers && !status; layer++) {
        status = take_layer(&weights->layers[layer], walk, config, layer);
    }
    if (!status) {
        status = take_norm(&weights->output_norm, walk, "output_norm", ".weight", config->n_channels);
    }
    return status ? status : take_head(weights, walk, config);
}

static int load_rope_factors(struct memtx__weights *weights, struct walk *walk, const struct memtx__config *config)
{
    const struct memtx_tensor *tensor;
    if (!memtx_gguf_find_tensor(walk->gguf, "rope_freqs.weight")) {
        return MEMTX_OK;
    }
    int status = find(&tensor, walk, "rope_freqs.weight", config->rope_dims / 2, 0);
    if (!status) {
        status = memtx__alloc(&weights->rope_factors, config->rope_dims / 2, sizeof *weights->rope_factors);
    }
    if (status) {
        return status;
    }
    memtx__dequantise(weights->rope_factors, tensor->type, tensor->bytes, config->rope_dims / 2);
    for (size_t i = 0; i < config->rope_dims / 2; i++) {
        if (!(weights->rope_factors[i] > 0.0F)) {
            return memtx__fail(MEMTX_E_FORMAT, "%s: rope_freqs.weight[%zu] is not positive",
                               memtx_gguf_path(walk->gguf), i);
        }
    }
    walk->n_taken++;
    return MEMTX_OK;
}

/* Some tensor of the file that no part has used, for the error text. */
static int refuse_unused(const memtx_gguf *gguf, size_t n_taken)
{
    static const char *const suffixes[] = {
        "attn_norm.weight", "attn_q.weight",      "attn_k.weight",    "attn_v.weight",   "attn_output.weight",
        "ffn_norm.weight",  "ffn_gate.weight",    "ffn_up.weight",    "ffn_down.weight", "token_embd.weight",
        "output.weight",    "output_norm.weight", "rope_freqs.weight"};
    for (size_t i = 0; i < memtx_gguf_n_tensors(gguf); i++) {
        struct memtx_text name = memtx_gguf_tensor_at(gguf, i)->name;
        bool known = false;
        for (size_t s = 0; s < sizeof suffixes / sizeof suffixes[0] && !known; s++) {
            size_t n = strlen(suffixes[s]);
            known = name.n_bytes >= n && memcmp(name.bytes + name.n_bytes - n, suffixes[s], n) == 0;
        }
        if (!known) {
            return memtx__fail(MEMTX_E_UNSUPPORTED, "%s: tensor %.*s is not supported by this runtime",
                               memtx_gguf_path(gguf), (int)(name.n_bytes < 64 ? name.n_bytes : 64), name.bytes);
        }
    }
    return memtx__fail(MEMTX_E_FORMAT, "%s: %zu tensors where the model uses %zu", memtx_gguf_path(gguf),
                       memtx_gguf_n_tensors(gguf), n_taken);
}

int memtx__weights_load(struct memtx__weights *out, const struct memtx__config *config, const memtx_gguf *gguf,
                        enum memtx__weight_type type)
{
    struct walk walk = {.gguf = gguf, .type = type};
    *out = (struct memtx__weights){.n_head_tiles = (config->n_vocabulary + MEMTX__HEAD_TILE - 1) / MEMTX__HEAD_TILE};
    int status = memtx__alloc(&out->layers, config->n_layers, sizeof *out->layers);
    if (!status) {
        status = memtx__alloc(&out->head, out->n_head_tiles, sizeof *out->head);
    }
    if (!status) {
        status = take_all(out, &walk, config);
    }
    if (!status) {
        status = load_rope_factors(out, &walk, config);
    }
    if (!status && walk.n_taken != memtx_gguf_n_tensors(gguf)) {
        status = refuse_unused(gguf, walk.n_taken);
    }
    if (!status) {
        status = memtx__alloc_raw(&walk.plain, walk.n_plain, sizeof *walk.plain);
    }
    if (!status) {
        status = memtx__arena_reserve(&walk.arena);
    }
    if (!status) {
        out->block = walk.arena.block;
        out->block_bytes = walk.arena.size_bytes;
        status = take_all(out, &walk, config);
    }
    memtx__free(walk.plain);
    if (status) {
        memtx__weights_release(out);
    }
    return status;
}

void memtx__weights_release(struct memtx__weights *weights)
{
    memtx__free(weights->layers);
    memtx__free(weights->head);
    memtx__free(weights->block);
    memtx__free(weights->rope_factors);
    *weights = (struct memtx__weights){0};
}

void memtx__weights_embed(float *out, const struct memtx__weights *weights, uint32_t token, size_t n_channels)
{
    const struct memtx_tensor *embedding = weights->embedding;
    const size_t row_bytes = embedding->n_bytes / (size_t)embedding->dims[1];
    memtx__dequantise(out, embedding->type, embedding->bytes + token * row_bytes, n_channels);
}
