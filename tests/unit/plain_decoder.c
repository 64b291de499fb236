/* The plain decoder (plain_decoder.h). */
#include "plain_decoder.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "math/half.h"
#include "memtx/gguf.h"

struct plain {
    memtx_gguf *gguf;
    const struct plain_options *options;
    size_t n_layers, n_channels, n_heads, n_kv_heads, head_size, n_feed_forward, n_vocabulary, rope_dims;
    double rope_base, epsilon;
    size_t n;                /* tokens */
    double *turns;           /* [n + delta][rope_dims / 2][2] cosine and sine by distance */
    double *q, *k, *v;       /* of one layer: [n][H][D], [n][G][D], before RoPE */
    double *kept_k, *kept_v; /* as the store keeps them */
    double *logits;          /* [n] */
    double *scores;          /* [n] */
    bool *found;             /* [n] */
};

/* ---- what is seen: DESIGN 3's table -------------------------------------------------------------------------------
 */

static size_t segment_start(const struct plain_options *options, size_t t)
{
    return t / options->segment * options->segment;
}

static size_t n_sinks_held(const struct plain_options *options, size_t start)
{
    bool has_sinks = options->mode == MEMTX_MODE_SINKS || options->mode == MEMTX_MODE_MEMORY;
    return !has_sinks ? 0 : options->sinks < start ? options->sinks : start;
}

bool plain_sees(const struct plain_options *options, size_t t_query, size_t t_key)
{
    const size_t start = segment_start(options, t_query);
    if (t_key > t_query) {
        return false;
    }
    switch (options->mode) {
    case MEMTX_MODE_SEGMENT:
        return t_key >= start;
    case MEMTX_MODE_WINDOW:
        return t_query - t_key < options->window;
    case MEMTX_MODE_XL:
        return t_key + options->window >= start;
    case MEMTX_MODE_SINKS:
    case MEMTX_MODE_MEMORY:
        return t_key < options->sinks || t_key + options->window >= start;
    case MEMTX_MODE_FULL:
        return true;
    }
    return false;
}

/* How far apart they stand inside the cache: a sink stands right before the window, wherever it is in the text. */
static size_t cache_distance(const struct plain_options *options, size_t t_query, size_t t_key)
{
    const size_t start = segment_start(options, t_query), n_sinks = n_sinks_held(options, start);
    size_t first = start > options->window ? start - options->window : 0; /* of the window */
    first = first < n_sinks ? n_sinks : first;
    return t_key < n_sinks ? (t_query - first + n_sinks) - t_key : t_query - t_key;
}

/* In the memory when t_query is run: left the window before its segment, is no sink, and is within the capacity. */
static bool is_remembered(const struct plain_options *options, size_t t_query, size_t t_key)
{
    const size_t start = segment_start(options, t_query);
    const size_t end = start > options->window ? start - options->window : 0; /* before the window */
    return t_key < end && t_key >= options->sinks && (!options->capacity || t_key + options->capacity >= end);
}

/* ---- pieces -------------------------------------------------------------------------------------------------------
 */

static const float *weights(const struct plain *plain, size_t layer, const char *name)
{
    char full[64];
    if (layer < plain->n_layers) {
        (void)snprintf(full, sizeof full, "blk.%zu.%s", layer, name);
    } else {
        (void)snprintf(full, sizeof full, "%s", name);
    }
    const struct memtx_tensor *tensor = memtx_gguf_find_tensor(plain->gguf, full);
    return tensor ? (const float *)(const void *)tensor->bytes : NULL;
}

static void multiply(double *out, const float *w, const double *x, size_t n_in, size_t n_out)
{
    for (size_t i = 0; i < n_out; i++) {
        out[i] = 0;
        for (size_t j = 0; j < n_in; j++) {
            out[i] += (double)w[i * n_in + j] * x[j];
        }
    }
}

static void norm(double *out, const struct plain *plain, const double *x, const float *weight)
{
    double sum = 0;
    for (size_t i = 0; i < plain->n_channels; i++) {
        sum += x[i] * x[i];
    }
    double factor = 1.0 / sqrt(sum / (double)plain->n_channels + plain->epsilon);
    for (size_t i = 0; i < plain->n_channels; i++) {
        out[i] = x[i] * factor * (double)weight[i];
    }
}

/* R(distance) q . k: pairs (2i, 2i + 1) turn. */
static double turned_dot(const struct plain *plain, const double *q, const double *k, size_t distance)
{
    const double *turn = plain->turns + distance * plain->rope_dims;
    double sum = 0;
    for (size_t i = 0; i < plain->rope_dims; i += 2) {
        sum += (q[i] * turn[i] - q[i + 1] * turn[i + 1]) * k[i] + (q[i] * turn[i + 1] + q[i + 1] * turn[i]) * k[i + 1];
    }
    for (size_t i = plain->rope_dims; i < plain->head_size; i++) {
        sum += q[i] * k[i];
    }
    return sum;
}

/* ---- attention ----------------------------------------------------------------------------------------------------
 */

/* Softmax over the tokens with found[t]: out[D] = sum of their values, and the log-sum-exp; -inf where there is none.
 */
static double sum_values(double *out, const struct plain *plain, const double *values, size_t kv_head)
{
    double highest = -INFINITY, total = 0;
    memset(out, 0, plain->head_size * sizeof *out);
    for (size_t t = 0; t < plain->n; t++) {
        highest = plain->found[t] && plain->logits[t] > highest ? plain->logits[t] : highest;
    }
    for (size_t t = 0; t < plain->n; t++) {
        if (plain->found[t]) {
            double weight = exp(plain->logits[t] - highest);
            total += weight;
            for (size_t d = 0; d < plain->head_size; d++) {
                out[d] += weight * values[(t * plain->n_kv_heads + kv_head) * plain->head_size + d];
            }
        }
    }
    for (size_t d = 0; d < plain->head_size && total > 0; d++) {
        out[d] /= total;
    }
    return total > 0 ? highest + log(total) : -INFINITY;
}

static double attend_locally(double *out, struct plain *plain, size_t t_query, size_t head)
{
    const size_t kv_head = head / (plain->n_heads / plain->n_kv_heads);
    const double *q = plain->q + (t_query * plain->n_heads + head) * plain->head_size;
    for (size_t t = 0; t < plain->n; t++) {
        plain->found[t] = plain_sees(plain->options, t_query, t);
        if (plain->found[t]) {
            plain->logits[t] = turned_dot(plain, q, plain->k + (t * plain->n_kv_heads + kv_head) * plain->head_size,
                                          cache_distance(plain->options, t_query, t)) /
                               sqrt((double)plain->head_size);
        }
    }
    return sum_values(out, plain, plain->v, kv_head);
}

/* The k best of the memory by R(delta) q . k, ties to the earlier; their logits at min(distance, delta). */
static double attend_to_memory(double *out, struct plain *plain, size_t t_query, size_t head)
{
    const struct plain_options *options = plain->options;
    const size_t kv_head = head / (plain->n_heads / plain->n_kv_heads);
    const double *q = plain->q + (t_query * plain->n_heads + head) * plain->head_size;
    for (size_t t = 0; t < plain->n; t++) {
        const double *k = plain->kept_k + (t * plain->n_kv_heads + kv_head) * plain->head_size;
        plain->found[t] = false;
        plain->scores[t] = is_remembered(options, t_query, t) ? turned_dot(plain, q, k, options->delta) : -INFINITY;
    }
    for (size_t rank = 0; rank < options->k; rank++) {
        size_t best = 0;
        for (size_t t = 1; t < plain->n; t++) {
            best = plain->scores[t] > plain->scores[best] ? t : best;
        }
        if (plain->scores[best] == -INFINITY) {
            break;
        }
        const double *k = plain->kept_k + (best * plain->n_kv_heads + kv_head) * plain->head_size;
        const size_t age = t_query - best, distance = options->fixed || age > options->delta ? options->delta : age;
        plain->found[best] = true;
        plain->scores[best] = -INFINITY;
        plain->logits[best] = (options->tau > 0 ? options->tau : 1.0) * turned_dot(plain, q, k, distance) /
                                  sqrt((double)plain->head_size) -
                              options->lambda * (double)age / 1000.0;
    }
    return sum_values(out, plain, plain->kept_v, kv_head);
}

static void attend(double *out, struct plain *plain, size_t layer, size_t t_query, size_t head)
{
    double *remembered = malloc(plain->head_size * sizeof *remembered);
    const double lse_local = attend_locally(out, plain, t_query, head);
    if (plain->options->mode == MEMTX_MODE_MEMORY && plain->options->memory_layers >> layer & 1) {
        const double lse_memory = attend_to_memory(remembered, plain, t_query, head);
        if (lse_memory > -INFINITY) {
            double gate = 1.0 / (1.0 + exp(-(plain->options->a * (lse_memory - lse_local) + plain->options->b)));
            for (size_t d = 0; d < plain->head_size; d++) {
                out[d] = gate * remembered[d] + (1.0 - gate) * out[d];
            }
        }
    }
    free(remembered);
}

/* ---- the model -----------------------------------------------------------------------------------------------------
 */

static void store_rows(double *kept, const struct plain *plain, const double *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float value = (float)rows[i];
        kept[i] = (double)(plain->options->store_is_full ? value : memtx__f16_to_f32(memtx__f32_to_f16(value)));
    }
}

static void run_layer(double *x, struct plain *plain, size_t layer)
{
    const size_t c = plain->n_channels, f = plain->n_feed_forward;
    const size_t n_q = plain->n_heads * plain->head_size, n_kv = plain->n_kv_heads * plain->head_size;
    double *normed = malloc((c + n_q + 3 * f) * sizeof *normed), *attended = normed + c, *gate = attended + n_q,
           *up = gate + f, *active = up + f;
    for (size_t t = 0; t < plain->n; t++) {
        norm(normed, plain, x + t * c, weights(plain, layer, "attn_norm.weight"));
        multiply(plain->q + t * n_q, weights(plain, layer, "attn_q.weight"), normed, c, n_q);
        multiply(plain->k + t * n_kv, weights(plain, layer, "attn_k.weight"), normed, c, n_kv);
        multiply(plain->v + t * n_kv, weights(plain, layer, "attn_v.weight"), normed, c, n_kv);
    }
    store_rows(plain->kept_k, plain, plain->k, plain->n * n_kv);
    store_rows(plain->kept_v, plain, plain->v, plain->n * n_kv);
    for (size_t t = 0; t < plain->n; t++) {
        for (size_t head = 0; head < plain->n_heads; head++) {
            attend(attended + head * plain->head_size, plain, layer, t, head);
        }
        multiply(normed, weights(plain, layer, "attn_output.weight"), attended, n_q, c);
        for (size_t i = 0; i < c; i++) {
            x[t * c + i] += normed[i];
        }
        norm(normed, plain, x + t * c, weights(plain, layer, "ffn_norm.weight"));
        multiply(gate, weights(plain, layer, "ffn_gate.weight"), normed, c, f);
        multiply(up, weights(plain, layer, "ffn_up.weight"), normed, c, f);
        for (size_t i = 0; i < f; i++) {
            active[i] = gate[i] / (1.0 + exp(-gate[i])) * up[i];
        }
        multiply(normed, weights(plain, layer, "ffn_down.weight"), active, f, c);
        for (size_t i = 0; i < c; i++) {
            x[t * c + i] += normed[i];
        }
    }
    free(normed);
}

static double token_nll(const struct plain *plain, const double *x, uint32_t target)
{
    const float *head = weights(plain, SIZE_MAX, "output.weight");
    head = head ? head : weights(plain, SIZE_MAX, "token_embd.weight");
    double *normed = malloc((plain->n_channels + plain->n_vocabulary) * sizeof *normed);
    double *logits = normed + plain->n_channels, total = 0;
    norm(normed, plain, x, weights(plain, SIZE_MAX, "output_norm.weight"));
    multiply(logits, head, normed, plain->n_channels, plain->n_vocabulary);
    for (size_t i = 0; i < plain->n_vocabulary; i++) {
        total += exp(logits[i]);
    }
    double nll = log(total) - logits[target];
    free(normed);
    return nll;
}

static size_t count(const struct plain *plain, const char *key)
{
    uint64_t value;
    cr_assert_eq(memtx_gguf_get_u64(&value, plain->gguf, key, 0, UINT32_MAX), MEMTX_OK, "%s", memtx_last_error());
    return (size_t)value;
}

static void open_file(struct plain *plain, const char *path)
{
    cr_assert_eq(memtx_gguf_open(&plain->gguf, path), MEMTX_OK, "%s", memtx_last_error());
    plain->n_layers = count(plain, "llama.block_count");
    plain->n_channels = count(plain, "llama.embedding_length");
    plain->n_feed_forward = count(plain, "llama.feed_forward_length");
    plain->n_heads = count(plain, "llama.attention.head_count");
    plain->n_kv_heads = count(plain, "llama.attention.head_count_kv");
    plain->head_size = count(plain, "llama.attention.key_length");
    plain->rope_dims = count(plain, "llama.rope.dimension_count");
    plain->n_vocabulary = (size_t)memtx_gguf_find_tensor(plain->gguf, "token_embd.weight")->dims[1];
    (void)memtx_gguf_get_f64(&plain->rope_base, plain->gguf, "llama.rope.freq_base", 0, 1e12);
    (void)memtx_gguf_get_f64(&plain->epsilon, plain->gguf, "llama.attention.layer_norm_rms_epsilon", 0, 1);
}

static void make_turns(struct plain *plain)
{
    const size_t n_distances = plain->n + plain->options->delta + 1;
    plain->turns = calloc(n_distances * plain->rope_dims + 1, sizeof *plain->turns);
    for (size_t distance = 0; distance < n_distances; distance++) {
        for (size_t i = 0; i < plain->rope_dims; i += 2) {
            double angle = (double)distance * pow(plain->rope_base, -(double)i / (double)plain->rope_dims);
            plain->turns[distance * plain->rope_dims + i] = cos(angle);
            plain->turns[distance * plain->rope_dims + i + 1] = sin(angle);
        }
    }
}

void plain_nll(float *nll, const char *path, const struct plain_options *options, const uint32_t *tokens, size_t n)
{
    struct plain plain = {.options = options, .n = n};
    open_file(&plain, path);
    make_turns(&plain);
    const size_t n_q = n * plain.n_heads * plain.head_size, n_kv = n * plain.n_kv_heads * plain.head_size;
    plain.q = calloc(n_q + 4 * n_kv + 2 * n, sizeof *plain.q);
    plain.k = plain.q + n_q;
    plain.v = plain.k + n_kv;
    plain.kept_k = plain.v + n_kv;
    plain.kept_v = plain.kept_k + n_kv;
    plain.logits = plain.kept_v + n_kv;
    plain.scores = plain.logits + n;
    plain.found = calloc(n, sizeof *plain.found);

    const float *embedding = weights(&plain, SIZE_MAX, "token_embd.weight");
    double *x = malloc(n * plain.n_channels * sizeof *x);
    for (size_t t = 0; t < n; t++) {
        for (size_t i = 0; i < plain.n_channels; i++) {
            x[t * plain.n_channels + i] = (double)embedding[tokens[t] * plain.n_channels + i];
        }
    }
    for (size_t layer = 0; layer < plain.n_layers; layer++) {
        run_layer(x, &plain, layer);
    }
    for (size_t t = 0; t + 1 < n; t++) {
        nll[t] = (float)token_nll(&plain, x + t * plain.n_channels, tokens[t + 1]);
    }
    free(x);
    free(plain.found);
    free(plain.q);
    free(plain.turns);
    memtx_gguf_close(plain.gguf);
}
