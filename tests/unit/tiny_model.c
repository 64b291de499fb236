/* The tiny model (tiny_model.h). */
#include "tiny_model.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/rng.h"
#include "memtx/gguf.h"

struct tiny_options tiny_options_default(void)
{
    return (struct tiny_options){.n_layers = 3,
                                 .n_channels = 32,
                                 .n_heads = 6,
                                 .n_kv_heads = 2,
                                 .head_size = 8,
                                 .n_feed_forward = 48,
                                 .context = 4096,
                                 .rope_dims = 8,
                                 .seed = 1,
                                 .missing = "",
                                 .misshapen = "",
                                 .extra = "",
                                 .architecture = "llama",
                                 .changed_key = ""};
}

static void done(int status)
{
    cr_assert_eq(status, MEMTX_OK, "%s", memtx_last_error());
}

/* ---- the vocabulary --------------------------------------------------------------------------- */

/* The spelling of a byte in GPT-2's alphabet, UTF-8; its length. */
static size_t spell(char *out, int byte)
{
    int character = 0x100;
    for (int b = 0; b <= byte; b++) {
        bool printable = (b > 0x20 && b < 0x7F) || (b > 0xA0 && b != 0xAD);
        if (b == byte) {
            character = printable ? b : character;
        } else {
            character += !printable;
        }
    }
    if (character < 0x80) {
        out[0] = (char)character;
        return 1;
    }
    out[0] = (char)(0xC0 | character >> 6);
    out[1] = (char)(0x80 | (character & 0x3F));
    return 2;
}

static void add_vocabulary(memtx_gguf_writer *writer)
{
    static char bytes[TINY_VOCABULARY][4], merged[TINY_MERGES][4];
    struct memtx_text tokens[TINY_VOCABULARY], merges[TINY_MERGES];
    int32_t types[TINY_VOCABULARY];
    for (int i = 0; i < 256; i++) {
        tokens[i] = (struct memtx_text){bytes[i], spell(bytes[i], i)};
    }
    for (int i = 0; i < TINY_MERGES; i++) {
        char left = (char)('a' + i % 26), right = (char)('a' + (7 * i + i / 26 + 1) % 26);
        bytes[256 + i][0] = merged[i][0] = left;
        bytes[256 + i][1] = merged[i][2] = right;
        merged[i][1] = ' ';
        tokens[256 + i] = (struct memtx_text){bytes[256 + i], 2};
        merges[i] = (struct memtx_text){merged[i], 3};
    }
    for (int i = 0; i < TINY_VOCABULARY; i++) {
        types[i] = 1; /* ordinary */
    }
    done(memtx_gguf_writer_add_text(writer, "tokenizer.ggml.model", "gpt2"));
    done(memtx_gguf_writer_add_text(writer, "tokenizer.ggml.pre", "smollm"));
    done(memtx_gguf_writer_add_texts(writer, "tokenizer.ggml.tokens", tokens, TINY_VOCABULARY));
    done(memtx_gguf_writer_add_texts(writer, "tokenizer.ggml.merges", merges, TINY_MERGES));
    done(memtx_gguf_writer_add_numbers(writer, "tokenizer.ggml.token_type", MEMTX_GGUF_I32, types, TINY_VOCABULARY));
}

/* ---- numbers and tensors ---------------------------------------------------------------------- */

struct maker {
    memtx_gguf_writer *writer;
    const struct tiny_options *options;
    struct memtx__rng rng;
};

static void add_count(struct maker *maker, const char *key, uint64_t value)
{
    if (strcmp(key, maker->options->missing) == 0) {
        return;
    }
    if (strcmp(key, maker->options->changed_key) == 0) {
        value = maker->options->changed_value;
    }
    done(memtx_gguf_writer_add_u64(maker->writer, key, value));
}

/* middle + spread * a number in [-1, 1), n_out rows of n_in; one dimension where n_out is 0. */
static void add_tensor(struct maker *maker, const char *name, size_t n_in, size_t n_out, float middle, float spread)
{
    if (strcmp(name, maker->options->missing) == 0) {
        return;
    }
    uint64_t dims[] = {n_in, n_out};
    dims[n_out ? 1 : 0] += strcmp(name, maker->options->misshapen) == 0;
    size_t n = (size_t)dims[0] * (n_out ? (size_t)dims[1] : 1);
    float *values = malloc(n * sizeof *values);
    for (size_t i = 0; i < n; i++) {
        values[i] = middle + spread * memtx__rng_signed(&maker->rng);
    }
    done(memtx_gguf_writer_add_tensor(maker->writer, name, MEMTX_TENSOR_F32, n_out ? 2 : 1, dims, values,
                                      n * sizeof *values));
    free(values);
}

static void add_layer(struct maker *maker, uint32_t layer)
{
    const struct tiny_options *o = maker->options;
    const size_t n_q = (size_t)o->n_heads * o->head_size, n_kv = (size_t)o->n_kv_heads * o->head_size;
    /* Normed channels are about 1, so queries and keys come out at about sqrt(C / 3) times the spread: 1.5, and logits
     * vary by about two from key to key. */
    const float wide = 1.5F / sqrtf((float)o->n_channels / 3.0F);
    const struct {
        const char *name;
        size_t n_in, n_out;
        float middle, spread;
    } tensors[] = {
        {"attn_norm.weight", o->n_channels, 0, 1.0F, 0.3F},
        {"attn_q.weight", o->n_channels, n_q, 0, wide},
        {"attn_k.weight", o->n_channels, n_kv, 0, wide},
        {"attn_v.weight", o->n_channels, n_kv, 0, wide},
        {"attn_output.weight", n_q, o->n_channels, 0, 0.3F},
        {"ffn_norm.weight", o->n_channels, 0, 1.0F, 0.3F},
        {"ffn_gate.weight", o->n_channels, o->n_feed_forward, 0, wide},
        {"ffn_up.weight", o->n_channels, o->n_feed_forward, 0, wide},
        {"ffn_down.weight", o->n_feed_forward, o->n_channels, 0, 0.15F},
    };
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
        char name[64];
        (void)snprintf(name, sizeof name, "blk.%u.%s", layer, tensors[i].name);
        add_tensor(maker, name, tensors[i].n_in, tensors[i].n_out, tensors[i].middle, tensors[i].spread);
    }
}

void tiny_model_write(struct tiny_model *out, const struct tiny_options *options)
{
    struct maker maker = {.options = options, .rng = memtx__rng_create(options->seed, 0)};
    done(memtx_gguf_writer_create(&maker.writer));
    done(memtx_gguf_writer_add_text(maker.writer, "general.architecture", options->architecture));
    add_count(&maker, "llama.block_count", options->n_layers);
    add_count(&maker, "llama.embedding_length", options->n_channels);
    add_count(&maker, "llama.feed_forward_length", options->n_feed_forward);
    add_count(&maker, "llama.attention.head_count", options->n_heads);
    add_count(&maker, "llama.attention.head_count_kv", options->n_kv_heads);
    add_count(&maker, "llama.attention.key_length", options->head_size);
    add_count(&maker, "llama.context_length", options->context);
    add_count(&maker, "llama.rope.dimension_count", options->rope_dims);
    done(memtx_gguf_writer_add_f32(maker.writer, "llama.rope.freq_base", 10000.0F));
    done(memtx_gguf_writer_add_f32(maker.writer, "llama.attention.layer_norm_rms_epsilon", 1e-5F));
    if (options->rope_scaling) {
        done(memtx_gguf_writer_add_text(maker.writer, "llama.rope.scaling.type", options->rope_scaling));
    }
    add_vocabulary(maker.writer);
    add_tensor(&maker, "token_embd.weight", options->n_channels, TINY_VOCABULARY, 0, 1.5F);
    for (uint32_t layer = 0; layer < options->n_layers; layer++) {
        add_layer(&maker, layer);
    }
    add_tensor(&maker, "output_norm.weight", options->n_channels, 0, 0.4F, 0.1F); /* logits vary by about two */
    if (options->untied) {
        add_tensor(&maker, "output.weight", options->n_channels, TINY_VOCABULARY, 0, 1.5F);
    }
    if (options->extra[0]) {
        add_tensor(&maker, options->extra, options->n_channels, 0, 0, 1.0F);
    }
    (void)snprintf(out->folder, sizeof out->folder, "/tmp/memtx-tiny-XXXXXX");
    cr_assert_not_null(mkdtemp(out->folder));
    (void)snprintf(out->path, sizeof out->path, "%s/tiny.gguf", out->folder);
    done(memtx_gguf_writer_write(maker.writer, out->path));
    memtx_gguf_writer_destroy(maker.writer);
}

void tiny_model_remove(const struct tiny_model *model)
{
    (void)unlink(model->path);
    (void)rmdir(model->folder);
}

memtx_model *tiny_model_load(const struct tiny_options *options)
{
    struct tiny_model file;
    memtx_model *model;
    tiny_model_write(&file, options);
    int status = memtx_model_load(&model, file.path, MEMTX_WEIGHTS_F32);
    tiny_model_remove(&file);
    done(status);
    return model;
}

/* ---- running ---------------------------------------------------------------------------------- */

void tiny_tokens(uint32_t *tokens, size_t n, uint64_t seed)
{
    struct memtx__rng rng = memtx__rng_create(seed, 1);
    for (size_t i = 0; i < n; i++) {
        tokens[i] = (uint32_t)memtx__rng_below(&rng, TINY_VOCABULARY);
    }
}

void tiny_run(float *nll, memtx_stream *stream, const uint32_t *tokens, size_t n, size_t segment)
{
    for (size_t first = 0; first < n; first += segment) {
        const float *hidden;
        const size_t n_tokens = n - first < segment ? n - first : segment;
        done(memtx_model_forward_segment(&hidden, stream, tokens + first, n_tokens));
        cr_assert_not_null(hidden);
        const size_t n_scored = first + n_tokens < n ? n_tokens : n_tokens - 1; /* nothing follows the last token */
        done(memtx_model_nll(nll + first, stream, 0, n_scored, tokens + first + 1));
    }
}

void tiny_nll(float *nll, const memtx_model *model, const struct memtx_stream_options *options, const uint32_t *tokens,
              size_t n)
{
    memtx_stream *stream;
    done(memtx_stream_open(&stream, model, options));
    done(memtx_model_begin_document(stream, "text"));
    tiny_run(nll, stream, tokens, n, options->segment);
    memtx_stream_close(stream);
}

void tiny_memory_open(struct tiny_memory *out, const memtx_model *model, uint32_t layers, enum memtx_row_type type,
                      const struct memtx_memory_options *options)
{
    struct memtx_store_spec spec;
    memtx_model_store_spec(&spec, model);
    spec.row_type = type;
    for (uint32_t layer = 0; layer < spec.n_layers; layer++) {
        if (layers >> layer & 1) {
            memtx_store_keep_layer(&spec, layer);
        }
    }
    done(memtx_store_open(&out->store, NULL, &spec, NULL));
    done(memtx_memory_open(&out->memory, out->store, options));
}

void tiny_memory_close(struct tiny_memory *memory)
{
    memtx_memory_close(memory->memory);
    done(memtx_store_close(memory->store));
}

double largest_difference(const float *a, const float *b, size_t n)
{
    double largest = 0;
    for (size_t i = 0; i < n; i++) {
        double difference = fabs((double)a[i] - (double)b[i]);
        largest = !(difference <= largest) ? difference : largest; /* NaN is a difference too */
    }
    return largest;
}

double mean_difference(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += fabs((double)a[i] - (double)b[i]);
    }
    return sum / (double)n;
}
