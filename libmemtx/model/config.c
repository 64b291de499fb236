/* The numbers of a model, read from its file and bounded before anything is sized by them (model.h). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "math/shapes.h"
#include "model/model.h"

enum {
    MOST_CHANNELS = 1 << 16,
    MOST_FEED_FORWARD = 1 << 18,
    MOST_HEADS = 1024,
    MOST_VOCABULARY = 1 << 20,
    MOST_CONTEXT = 1 << 24,
};

static void copy_text(char *out, size_t size, struct memtx_text text)
{
    size_t n = text.n_bytes < size - 1 ? text.n_bytes : size - 1;
    memcpy(out, text.bytes, n);
    out[n] = '\0';
}

/* The file's key ARCHITECTURE.name as a number in [low, high]; where `fallback` is not NULL the key may be missing. */
static int read_count(uint32_t *out, const struct memtx__config *config, const memtx_gguf *gguf, const char *name,
                      uint32_t low, uint32_t high, const uint32_t *fallback)
{
    char key[128];
    uint64_t value;
    (void)snprintf(key, sizeof key, "%s.%s", config->architecture, name);
    if (fallback && !memtx_gguf_find_value(gguf, key)) {
        *out = *fallback;
        return MEMTX_OK;
    }
    int status = memtx_gguf_get_u64(&value, gguf, key, low, high);
    if (!status) {
        *out = (uint32_t)value;
    }
    return status;
}

static int read_number(double *out, const struct memtx__config *config, const memtx_gguf *gguf, const char *name,
                       double low, double high, const double *fallback)
{
    char key[128];
    (void)snprintf(key, sizeof key, "%s.%s", config->architecture, name);
    if (fallback && !memtx_gguf_find_value(gguf, key)) {
        *out = *fallback;
        return MEMTX_OK;
    }
    return memtx_gguf_get_f64(out, gguf, key, low, high);
}

static int read_architecture(struct memtx__config *out, const memtx_gguf *gguf)
{
    struct memtx_text text;
    int status = memtx_gguf_get_text(&text, gguf, "general.architecture");
    if (status) {
        return status;
    }
    copy_text(out->architecture, sizeof out->architecture, text);
    if (strcmp(out->architecture, "llama") != 0) {
        return memtx__fail(MEMTX_E_UNSUPPORTED, "%s: architecture '%s' is not supported (llama is)",
                           memtx_gguf_path(gguf), out->architecture);
    }
    if (memtx_gguf_find_value(gguf, "general.name") && !memtx_gguf_get_text(&text, gguf, "general.name")) {
        copy_text(out->name, sizeof out->name, text);
    }
    return MEMTX_OK;
}

/* RoPE that is scaled by position is another model; refuse it rather than compute something else. */
static int read_rope(struct memtx__config *out, const memtx_gguf *gguf)
{
    const double usual_base = 10000.0;
    struct memtx_text scaling;
    char key[64];
    int status = read_count(&out->rope_dims, out, gguf, "rope.dimension_count", 0, out->head_size, &out->head_size);
    if (!status) {
        status = read_number(&out->rope_base, out, gguf, "rope.freq_base", 1.0, 1e12, &usual_base);
    }
    if (!status && out->rope_dims % 2 != 0) {
        status = memtx__fail(MEMTX_E_FORMAT, "%s: %u turning dimensions, an odd number", memtx_gguf_path(gguf),
                             out->rope_dims);
    }
    (void)snprintf(key, sizeof key, "%s.rope.scaling.type", out->architecture);
    if (!status && memtx_gguf_find_value(gguf, key)) {
        status = memtx_gguf_get_text(&scaling, gguf, key);
        if (!status && !(scaling.n_bytes == 4 && memcmp(scaling.bytes, "none", 4) == 0)) {
            status =
                memtx__fail(MEMTX_E_UNSUPPORTED, "%s: RoPE scaling '%.*s' is not supported (none is)",
                            memtx_gguf_path(gguf), (int)(scaling.n_bytes < 32 ? scaling.n_bytes : 32), scaling.bytes);
        }
    }
    return status;
}

int memtx__config_read(struct memtx__config *out, const memtx_gguf *gguf)
{
    double epsilon = 0;
    *out = (struct memtx__config){0};
    int status = read_architecture(out, gguf);
    if (!status) {
        status = read_count(&out->n_layers, out, gguf, "block_count", 1, MEMTX_MAX_LAYERS, NULL);
    }
    if (!status) {
        status = read_count(&out->n_channels, out, gguf, "embedding_length", 1, MOST_CHANNELS, NULL);
    }
    if (!status) {
        status = read_count(&out->n_feed_forward, out, gguf, "feed_forward_length", 1, MOST_FEED_FORWARD, NULL);
    }
    if (!status) {
        status = read_count(&out->n_heads, out, gguf, "attention.head_count", 1, MOST_HEADS, NULL);
    }
    if (!status) {
        status =
            read_count(&out->n_kv_heads, out, gguf, "attention.head_count_kv", 1, MEMTX_MAX_KV_HEADS, &out->n_heads);
    }
    if (!status && out->n_kv_heads > MEMTX_MAX_KV_HEADS) { /* as many as heads, where the file does not say */
        status = memtx__fail(MEMTX_E_UNSUPPORTED, "%s: %u kv heads, up to %d can be", memtx_gguf_path(gguf),
                             out->n_kv_heads, MEMTX_MAX_KV_HEADS);
    }
    if (!status && out->n_heads % out->n_kv_heads != 0) {
        status = memtx__fail(MEMTX_E_FORMAT, "%s: %u heads do not share %u kv heads evenly", memtx_gguf_path(gguf),
                             out->n_heads, out->n_kv_heads);
    }
    if (!status) {
        const uint32_t even_share = out->n_channels / out->n_heads;
        status = read_count(&out->head_size, out, gguf, "attention.key_length", 1, MEMTX__MAX_HEAD_SIZE, &even_share);
    }
    if (!status && (out->head_size < 1 || out->head_size > MEMTX__MAX_HEAD_SIZE)) {
        status = memtx__fail(MEMTX_E_FORMAT, "%s: heads of size %u, not in 1..%d", memtx_gguf_path(gguf),
                             out->head_size, MEMTX__MAX_HEAD_SIZE);
    }
    if (!status) {
        status = read_count(&out->context, out, gguf, "context_length", 1, MOST_CONTEXT, NULL);
    }
    if (!status) {
        status = read_number(&epsilon, out, gguf, "attention.layer_norm_rms_epsilon", 1e-12, 1.0, NULL);
        out->norm_epsilon = (float)epsilon;
    }
    if (!status) {
        status = read_rope(out, gguf);
    }
    const struct memtx_tensor *embedding = memtx_gguf_find_tensor(gguf, "token_embd.weight");
    if (!status && (!embedding || embedding->n_dims != 2 || embedding->dims[1] > MOST_VOCABULARY)) {
        status = memtx__fail(MEMTX_E_FORMAT, "%s: token_embd.weight is %s", memtx_gguf_path(gguf),
                             embedding ? "misshapen" : "missing");
    }
    if (!status) {
        out->n_vocabulary = (uint32_t)embedding->dims[1];
    }
    return status;
}
