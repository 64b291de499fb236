/* The runtime on a tiny model: what a file must be, what each mode sees, streams and documents. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "math/linear.h"
#include "model/model.h"
#include "plain_decoder.h"
#include "tiny_model.h"

/* Float32 over three small layers: 1e-5 is what is seen; the modes differ by more than a hundred times the bound. */
static const double nll_tolerance = 2e-4;

enum { N_TOKENS = 300 };

static uint32_t tokens[2 * N_TOKENS];
static float nll[N_TOKENS], other[N_TOKENS];

static struct memtx_stream_options options_of(enum memtx_mode mode, uint32_t window, uint32_t segment, uint32_t sinks)
{
    struct memtx_stream_options options = memtx_stream_options_default();
    options.mode = mode;
    options.window = window;
    options.segment = segment;
    options.sinks = sinks;
    return options;
}

static memtx_stream *open_stream(const memtx_model *model, struct memtx_stream_options options)
{
    memtx_stream *stream;
    cr_assert_eq(memtx_stream_open(&stream, model, &options), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(memtx_model_begin_document(stream, "text"), MEMTX_OK, "%s", memtx_last_error());
    return stream;
}

/* ---- loading ---------------------------------------------------------------------------------- */

/* The file is refused with this status and one line that holds `piece`. */
static void refused(const struct tiny_options *options, int status, const char *piece)
{
    struct tiny_model file;
    memtx_model *model = (memtx_model *)&file;
    tiny_model_write(&file, options);
    int got = memtx_model_load(&model, file.path, MEMTX_WEIGHTS_F32);
    tiny_model_remove(&file);
    cr_assert_eq(got, status, "%d: %s (wanted: %s)", got, memtx_last_error(), piece);
    cr_assert_null(model);
    cr_assert(strstr(memtx_last_error(), piece), "\"%s\" does not hold \"%s\"", memtx_last_error(), piece);
    cr_assert_null(strchr(memtx_last_error(), '\n'));
}

Test(loading, what_the_file_says)
{
    struct tiny_options options = tiny_options_default();
    struct memtx_model_facts facts;
    memtx_model *model = tiny_model_load(&options);
    memtx_model_info(&facts, model);
    cr_assert_str_eq(facts.architecture, "llama");
    cr_assert_eq(facts.n_layers, 3);
    cr_assert_eq(facts.n_channels, 32);
    cr_assert_eq(facts.n_heads, 6);
    cr_assert_eq(facts.n_kv_heads, 2);
    cr_assert_eq(facts.head_size, 8);
    cr_assert_eq(facts.n_vocabulary, TINY_VOCABULARY);
    cr_assert_eq(memtx_tokenizer_n_tokens(memtx_model_tokenizer(model)), TINY_VOCABULARY);
    memtx_model_close(model);
}

Test(loading, another_seed_has_another_fingerprint)
{
    struct memtx_model_facts facts[2];
    struct tiny_options options = tiny_options_default();
    for (int i = 0; i < 2; i++, options.seed++) {
        memtx_model *model = tiny_model_load(&options);
        memtx_model_info(&facts[i], model);
        memtx_model_close(model);
    }
    cr_assert_neq(memcmp(facts[0].fingerprint, facts[1].fingerprint, MEMTX_FINGERPRINT_BYTES), 0);
}

Test(loading, no_file)
{
    memtx_model *model;
    cr_assert_eq(memtx_model_load(&model, "/nonexistent/model.gguf", MEMTX_WEIGHTS_F32), MEMTX_E_NOT_FOUND);
    cr_assert_null(model);
}

Test(loading, a_missing_tensor_is_named)
{
    static const char *const names[] = {"token_embd.weight",   "output_norm.weight",       "blk.0.attn_norm.weight",
                                        "blk.1.attn_k.weight", "blk.2.attn_output.weight", "blk.2.ffn_down.weight"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct tiny_options options = tiny_options_default();
        options.missing = names[i];
        refused(&options, MEMTX_E_FORMAT, names[i]);
    }
}

Test(loading, a_missing_key_is_named)
{
    static const char *const keys[] = {"llama.block_count", "llama.embedding_length", "llama.context_length",
                                       "llama.attention.head_count"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        struct tiny_options options = tiny_options_default();
        options.missing = keys[i];
        refused(&options, MEMTX_E_NOT_FOUND, keys[i]);
    }
}

Test(loading, more_kv_heads_than_can_be)
{
    struct tiny_options options = tiny_options_default();
    options.n_heads = options.n_kv_heads = 65;
    options.missing = "llama.attention.head_count_kv";
    refused(&options, MEMTX_E_UNSUPPORTED, "65 kv heads, up to 64 can be");
    options.n_heads = options.n_kv_heads = 64;
    memtx_model_close(tiny_model_load(&options));
}

Test(loading, a_misshapen_tensor_is_named)
{
    static const char *const names[] = {"blk.0.attn_q.weight", "blk.1.ffn_up.weight", "blk.2.ffn_norm.weight"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct tiny_options options = tiny_options_default();
        options.misshapen = names[i];
        refused(&options, MEMTX_E_FORMAT, names[i]);
    }
}

Test(loading, a_tensor_that_would_be_ignored)
{
    struct tiny_options options = tiny_options_default();
    options.extra = "blk.0.attn_q.bias";
    refused(&options, MEMTX_E_UNSUPPORTED, "blk.0.attn_q.bias");
    options.extra = "blk.7.attn_norm.weight";
    refused(&options, MEMTX_E_FORMAT, "tensors");
}

Test(loading, another_architecture)
{
    struct tiny_options options = tiny_options_default();
    options.architecture = "gpt2";
    refused(&options, MEMTX_E_UNSUPPORTED, "'gpt2'");
}

Test(loading, scaled_rope)
{
    struct tiny_options options = tiny_options_default();
    options.rope_scaling = "yarn";
    refused(&options, MEMTX_E_UNSUPPORTED, "'yarn'");
    options.rope_scaling = "none";
    memtx_model_close(tiny_model_load(&options));
}

Test(loading, absurd_counts)
{
    static const struct {
        const char *key;
        uint64_t value;
    } rows[] = {
        {"llama.block_count", 0},
        {"llama.block_count", UINT64_C(1) << 60},
        {"llama.block_count", 4},
        {"llama.embedding_length", 0},
        {"llama.embedding_length", UINT64_MAX},
        {"llama.embedding_length", 33},
        {"llama.feed_forward_length", UINT64_C(1) << 40},
        {"llama.attention.head_count", 0},
        {"llama.attention.head_count", 7},
        {"llama.attention.head_count", UINT32_MAX},
        {"llama.attention.head_count_kv", 0},
        {"llama.attention.head_count_kv", 4},
        {"llama.attention.key_length", 0},
        {"llama.attention.key_length", 1 << 20},
        {"llama.context_length", 0},
        {"llama.context_length", UINT64_MAX},
        {"llama.rope.dimension_count", 7},
        {"llama.rope.dimension_count", 10},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct tiny_options options = tiny_options_default();
        options.changed_key = rows[i].key;
        options.changed_value = rows[i].value;
        refused(&options, MEMTX_E_FORMAT, "tiny.gguf");
    }
}

/* ---- what each mode sees ---------------------------------------------------------------------- */

/* The mode against the plain decoder. */
static void same_as_plain(struct tiny_options options, enum memtx_mode mode, uint32_t window, uint32_t segment,
                          uint32_t sinks)
{
    struct tiny_model file;
    memtx_model *model;
    struct plain_options plain = {.mode = mode, .window = window, .segment = segment, .sinks = sinks};
    struct memtx_stream_options stream = options_of(mode, window, segment, sinks);
    tiny_tokens(tokens, N_TOKENS, 7);
    tiny_model_write(&file, &options);
    plain_nll(other, file.path, &plain, tokens, N_TOKENS);
    cr_assert_eq(memtx_model_load(&model, file.path, MEMTX_WEIGHTS_F32), MEMTX_OK, "%s", memtx_last_error());
    tiny_model_remove(&file);
    tiny_nll(nll, model, &stream, tokens, N_TOKENS);
    memtx_model_close(model);
    double difference = largest_difference(nll, other, N_TOKENS - 1);
    cr_assert_leq(difference, nll_tolerance, "%s, W %u, T %u, s %u: a token differs by %g", memtx_mode_name(mode),
                  window, segment, sinks, difference);
}

Test(spans, segment)
{
    same_as_plain(tiny_options_default(), MEMTX_MODE_SEGMENT, 0, 64, 0);
    same_as_plain(tiny_options_default(), MEMTX_MODE_SEGMENT, 0, 1, 0);
}

Test(spans, window)
{
    same_as_plain(tiny_options_default(), MEMTX_MODE_WINDOW, 40, 32, 0);
    same_as_plain(tiny_options_default(), MEMTX_MODE_WINDOW, 1, 16, 0);
    same_as_plain(tiny_options_default(), MEMTX_MODE_WINDOW, 16, 100, 0);
}

Test(spans, xl)
{
    same_as_plain(tiny_options_default(), MEMTX_MODE_XL, 48, 32, 0);
    same_as_plain(tiny_options_default(), MEMTX_MODE_XL, 10, 64, 0);
    same_as_plain(tiny_options_default(), MEMTX_MODE_XL, 0, 50, 0);
}

Test(spans, sinks)
{
    same_as_plain(tiny_options_default(), MEMTX_MODE_SINKS, 48, 32, 4);
    same_as_plain(tiny_options_default(), MEMTX_MODE_SINKS, 0, 32, 4);
    same_as_plain(tiny_options_default(), MEMTX_MODE_SINKS, 20, 3, 10);
    same_as_plain(tiny_options_default(), MEMTX_MODE_SINKS, 40, 1, 7);
    same_as_plain(tiny_options_default(), MEMTX_MODE_SINKS, 40, 64, 0);
}

Test(spans, full)
{
    same_as_plain(tiny_options_default(), MEMTX_MODE_FULL, 0, 64, 0);
}

/* Without groups, one group for all, heads of a size that is no multiple of a register, part of a head turning. */
Test(spans, other_shapes)
{
    static const uint32_t shapes[][4] = {{4, 4, 8, 8}, {6, 1, 8, 8}, {6, 3, 10, 4}, {2, 2, 20, 0}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct tiny_options options = tiny_options_default();
        options.n_heads = shapes[i][0];
        options.n_kv_heads = shapes[i][1];
        options.head_size = shapes[i][2];
        options.rope_dims = shapes[i][3];
        options.untied = i % 2;
        options.n_layers = 1 + (uint32_t)i;
        same_as_plain(options, MEMTX_MODE_SINKS, 30, 40, 3);
        same_as_plain(options, MEMTX_MODE_FULL, 0, 100, 0);
    }
}

/* So that a test which holds for one mode says nothing about another. */
Test(spans, modes_differ)
{
    static const enum memtx_mode modes[] = {MEMTX_MODE_SEGMENT, MEMTX_MODE_WINDOW, MEMTX_MODE_XL, MEMTX_MODE_SINKS,
                                            MEMTX_MODE_FULL};
    enum { N_MODES = sizeof modes / sizeof modes[0] };
    static float all[N_MODES][N_TOKENS];
    struct tiny_options options = tiny_options_default();
    memtx_model *model = tiny_model_load(&options);
    tiny_tokens(tokens, N_TOKENS, 7);
    for (size_t i = 0; i < N_MODES; i++) {
        struct memtx_stream_options stream = options_of(modes[i], 40, 32, 4);
        tiny_nll(all[i], model, &stream, tokens, N_TOKENS);
        for (size_t j = 0; j < i; j++) {
            double difference = mean_difference(all[i] + 100, all[j] + 100, N_TOKENS - 101);
            cr_assert_gt(difference, 100 * nll_tolerance, "%s and %s differ by %g", memtx_mode_name(modes[i]),
                         memtx_mode_name(modes[j]), difference);
        }
    }
    memtx_model_close(model);
}

/* How a text is cut must not matter where the span does not depend on it. */
static void segment_size_does_not_matter(enum memtx_mode mode, uint32_t window)
{
    static const uint32_t sizes[] = {512, 1, 7, 64};
    enum { N_LONG = 600 };
    static uint32_t text[N_LONG];
    static float one[N_LONG], first[N_LONG];
    struct tiny_options options = tiny_options_default();
    memtx_model *model = tiny_model_load(&options);
    tiny_tokens(text, N_LONG, 3);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct memtx_stream_options stream = options_of(mode, window, sizes[i], 0);
        tiny_nll(i ? one : first, model, &stream, text, N_LONG);
        double difference = i ? largest_difference(one, first, N_LONG - 1) : 0;
        cr_assert_leq(difference, nll_tolerance, "segments of %u: a token differs by %g", sizes[i], difference);
    }
    memtx_model_close(model);
}

Test(segments, size_does_not_matter_in_full)
{
    segment_size_does_not_matter(MEMTX_MODE_FULL, 0);
}

Test(segments, size_does_not_matter_in_window)
{
    segment_size_does_not_matter(MEMTX_MODE_WINDOW, 50);
    segment_size_does_not_matter(MEMTX_MODE_WINDOW, 1);
}

/* ---- streams ---------------------------------------------------------------------------------- */

Test(streams, full_past_the_context_is_refused)
{
    struct tiny_options options = tiny_options_default();
    const float *hidden;
    memtx_stream *stream;
    options.context = 100;
    memtx_model *model = tiny_model_load(&options);
    tiny_tokens(tokens, N_TOKENS, 7);
    stream = open_stream(model, options_of(MEMTX_MODE_FULL, 0, 50, 0));
    cr_assert_eq(memtx_model_forward_segment(&hidden, stream, tokens, 50), MEMTX_OK);
    cr_assert_eq(memtx_model_forward_segment(&hidden, stream, tokens, 50), MEMTX_OK);
    cr_assert_eq(memtx_model_forward_segment(&hidden, stream, tokens, 1), MEMTX_E_CONTEXT);
    cr_assert_null(hidden);
    memtx_stream_close(stream);
    struct memtx_stream_options too_long = options_of(MEMTX_MODE_SINKS, 60, 40, 1);
    cr_assert_eq(memtx_stream_open(&stream, model, &too_long), MEMTX_E_CONTEXT);
    cr_assert_null(stream);
    memtx_model_close(model);
}

Test(streams, bad_input_is_refused)
{
    struct tiny_options options = tiny_options_default();
    memtx_model *model = tiny_model_load(&options);
    memtx_stream *stream = open_stream(model, options_of(MEMTX_MODE_XL, 16, 16, 0));
    const float *hidden;
    float one;
    uint32_t outside[] = {0, TINY_VOCABULARY, 1};
    tiny_tokens(tokens, N_TOKENS, 7);
    cr_assert_eq(memtx_model_forward_segment(&hidden, stream, tokens, 0), MEMTX_E_INVALID);
    cr_assert_eq(memtx_model_forward_segment(&hidden, stream, tokens, 17), MEMTX_E_INVALID);
    cr_assert_eq(memtx_model_forward_segment(&hidden, stream, outside, 3), MEMTX_E_INVALID);
    cr_assert(strstr(memtx_last_error(), "300"), "%s", memtx_last_error());
    cr_assert_eq(memtx_model_nll(&one, stream, 0, 1, tokens), MEMTX_E_INVALID);
    cr_assert_eq(memtx_model_forward_segment(&hidden, stream, tokens, 16), MEMTX_OK);
    cr_assert_eq(memtx_model_nll(&one, stream, 16, 1, tokens), MEMTX_E_INVALID);
    cr_assert_eq(memtx_model_nll(&one, stream, SIZE_MAX, 1, tokens), MEMTX_E_INVALID);
    cr_assert_eq(memtx_model_nll(&one, stream, 1, SIZE_MAX, tokens), MEMTX_E_INVALID);
    cr_assert_eq(memtx_model_nll(&one, stream, 0, 1, outside + 1), MEMTX_E_INVALID);
    memtx_stream_close(stream);

    struct memtx_stream_options wrong = options_of(MEMTX_MODE_WINDOW, 0, 16, 0);
    cr_assert_eq(memtx_stream_open(&stream, model, &wrong), MEMTX_E_INVALID);
    wrong = options_of(MEMTX_MODE_XL, 16, 0, 0);
    cr_assert_eq(memtx_stream_open(&stream, model, &wrong), MEMTX_E_INVALID);
    wrong = options_of(MEMTX_MODE_MEMORY, 16, 16, 0);
    cr_assert_eq(memtx_stream_open(&stream, model, &wrong), MEMTX_E_INVALID, "no memory was given");
    memtx_model_close(model);
}

/* A second document reads as the first one did: nothing is left of what came before. */
Test(streams, reset_empties)
{
    static const enum memtx_mode modes[] = {MEMTX_MODE_WINDOW, MEMTX_MODE_XL, MEMTX_MODE_SINKS, MEMTX_MODE_FULL};
    struct tiny_options options = tiny_options_default();
    memtx_model *model = tiny_model_load(&options);
    tiny_tokens(tokens, 2 * N_TOKENS, 7);
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        memtx_stream *stream = open_stream(model, options_of(modes[i], 40, 32, 4));
        tiny_run(nll, stream, tokens, N_TOKENS, 32);
        for (int way = 0; way < 3; way++) {
            tiny_run(other, stream, tokens + N_TOKENS, N_TOKENS, 32);
            if (way == 0) {
                memtx_model_reset(stream);
            } else if (way == 1) {
                cr_assert_eq(memtx_model_begin_document(stream, "again"), MEMTX_OK);
            } else {
                cr_assert_eq(memtx_model_end_document(stream), MEMTX_OK);
            }
            tiny_run(other, stream, tokens, N_TOKENS, 32);
            cr_assert_eq(largest_difference(nll, other, N_TOKENS - 1), 0.0, "%s", memtx_mode_name(modes[i]));
        }
        memtx_stream_close(stream);
    }
    memtx_model_close(model);
}

Test(streams, logits_and_nll_agree)
{
    static float logits[32][TINY_VOCABULARY];
    struct tiny_options options = tiny_options_default();
    memtx_model *model = tiny_model_load(&options);
    memtx_stream *stream = open_stream(model, options_of(MEMTX_MODE_XL, 16, 32, 0));
    const float *hidden;
    tiny_tokens(tokens, N_TOKENS, 7);
    cr_assert_eq(memtx_model_forward_segment(&hidden, stream, tokens, 32), MEMTX_OK);
    cr_assert_eq(memtx_model_logits(logits[3], stream, 3, 20), MEMTX_OK);
    cr_assert_eq(memtx_model_nll(nll, stream, 3, 20, tokens + 4), MEMTX_OK);
    for (size_t row = 3; row < 23; row++) {
        double total = 0;
        for (size_t i = 0; i < TINY_VOCABULARY; i++) {
            total += exp((double)logits[row][i]);
        }
        double expected = log(total) - (double)logits[row][tokens[row + 1]];
        cr_assert_float_eq((double)nll[row - 3], expected, 1e-5); /* both from the same float32 logits */
    }
    memtx_stream_close(stream);
    memtx_model_close(model);
}

Test(streams, bf16_weights_are_close)
{
    /* bf16 keeps 8 bits: a product is 2^-9 off, three layers of them some per cent of a logit of about two. */
    const double bf16_tolerance = 0.05;
    struct tiny_model file;
    struct tiny_options options = tiny_options_default();
    struct memtx_stream_options stream = options_of(MEMTX_MODE_SINKS, 40, 32, 4);
    memtx_model *f32, *bf16;
    tiny_tokens(tokens, N_TOKENS, 7);
    tiny_model_write(&file, &options);
    int status = memtx_model_load(&bf16, file.path, MEMTX_WEIGHTS_BF16);
    if (status == MEMTX_E_UNSUPPORTED) {
        tiny_model_remove(&file);
        cr_skip_test("this processor has no bf16 products");
    }
    cr_assert_eq(status, MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(memtx_model_load(&f32, file.path, MEMTX_WEIGHTS_F32), MEMTX_OK);
    tiny_model_remove(&file);
    tiny_nll(nll, f32, &stream, tokens, N_TOKENS);
    tiny_nll(other, bf16, &stream, tokens, N_TOKENS);
    double difference = mean_difference(nll, other, N_TOKENS - 1);
    cr_assert_leq(difference, bf16_tolerance);
    cr_assert_gt(difference, 0.0, "bf16 was not used");
    memtx_model_close(f32);
    memtx_model_close(bf16);
}

Test(streams, names_of_modes)
{
    for (int i = 0; i <= MEMTX_MODE_MEMORY; i++) {
        enum memtx_mode mode;
        cr_assert_eq(memtx_mode_parse(&mode, memtx_mode_name((enum memtx_mode)i)), MEMTX_OK);
        cr_assert_eq((int)mode, i);
    }
    enum memtx_mode mode;
    cr_assert_eq(memtx_mode_parse(&mode, "rnt"), MEMTX_E_INVALID);
    cr_assert_str_eq(memtx_mode_name((enum memtx_mode)99), "unknown");
}
