/* What must hold of a model with a memory whatever its weights are (DESIGN 4's identities), and memory mode against the
 * plain decoder in double. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "plain_decoder.h"
#include "tiny_model.h"

/* Float32 sums in another order; what is compared differs by more than a hundred times this from its neighbours. */
static const double nll_tolerance = 2e-4;

enum { N_TOKENS = 400 };

static uint32_t tokens[N_TOKENS];
static float nll[N_TOKENS], other[N_TOKENS];

struct setting {
    uint32_t window, segment, sinks;
};

static struct memtx_stream_options memory_stream(struct setting setting, memtx_memory *memory,
                                                 enum memtx_blend_mode blend, const float *bias)
{
    struct memtx_stream_options options = memtx_stream_options_default();
    options.mode = memory ? MEMTX_MODE_MEMORY : MEMTX_MODE_SINKS;
    options.window = setting.window;
    options.segment = setting.segment;
    options.sinks = setting.sinks;
    options.memory = memory;
    options.gate = (struct memtx_gate){blend, bias};
    return options;
}

static void run_full(float *out, const memtx_model *model)
{
    struct memtx_stream_options options = memtx_stream_options_default();
    options.mode = MEMTX_MODE_FULL;
    options.segment = 100;
    tiny_nll(out, model, &options, tokens, N_TOKENS);
}

static void run_memory(float *out, const memtx_model *model, struct setting setting,
                       const struct memtx_memory_options *chosen, enum memtx_row_type type)
{
    struct tiny_memory memory;
    tiny_memory_open(&memory, model, TINY_ALL_LAYERS, type, chosen);
    struct memtx_stream_options options = memory_stream(setting, memory.memory, MEMTX_BLEND_JOINT, NULL);
    tiny_nll(out, model, &options, tokens, N_TOKENS);
    tiny_memory_close(&memory);
}

/* ---- joint over everything is full attention -------------------------------------------------- */

static const struct setting without_sinks[] = {{32, 32, 0}, {50, 37, 0}, {0, 32, 0},
                                               {0, 1, 0},   {1, 64, 0},  {300, 7, 0}};
static const struct setting with_sinks[] = {{32, 32, 4}, {50, 37, 10}, {0, 16, 3}, {20, 3, 40}};

static void equals_full(struct tiny_options tiny, const struct setting *settings, size_t n_settings, uint32_t delta,
                        enum memtx_positions positions)
{
    memtx_model *model = tiny_model_load(&tiny);
    struct memtx_memory_options chosen = memtx_memory_options_default();
    chosen.k = N_TOKENS;
    chosen.delta = delta;
    chosen.positions = positions;
    tiny_tokens(tokens, N_TOKENS, 5);
    run_full(other, model);
    for (size_t i = 0; i < n_settings; i++) {
        run_memory(nll, model, settings[i], &chosen, MEMTX_ROWS_F32);
        double difference = largest_difference(nll, other, N_TOKENS - 1);
        cr_assert_leq(difference, nll_tolerance, "W %u, T %u, s %u, delta %u: a token differs by %g",
                      settings[i].window, settings[i].segment, settings[i].sinks, delta, difference);
    }
    memtx_model_close(model);
}

Test(identities, joint_over_all_rows_is_full_attention)
{
    struct tiny_options tiny = tiny_options_default();
    equals_full(tiny, without_sinks, sizeof without_sinks / sizeof without_sinks[0], N_TOKENS, MEMTX_POSITIONS_NEAR);
    equals_full(tiny, without_sinks, 1, 10 * N_TOKENS, MEMTX_POSITIONS_NEAR);
}

/* Each of a group's heads must ask its own kv head: one kv head for all would hide h % G. */
Test(identities, joint_is_full_attention_for_every_grouping)
{
    static const uint32_t n_kv_heads[] = {1, 2, 3, 6};
    for (size_t i = 0; i < sizeof n_kv_heads / sizeof n_kv_heads[0]; i++) {
        struct tiny_options tiny = tiny_options_default();
        tiny.n_kv_heads = n_kv_heads[i];
        tiny.n_layers = 2;
        equals_full(tiny, without_sinks, 2, N_TOKENS, MEMTX_POSITIONS_NEAR);
    }
}

Test(identities, without_positions_at_any_delta)
{
    struct tiny_options tiny = tiny_options_default();
    tiny.rope_dims = 0;
    for (uint32_t delta = 0; delta <= 1000; delta += 500) { /* near below and past the text, fixed between */
        const enum memtx_positions positions = delta == 500 ? MEMTX_POSITIONS_FIXED : MEMTX_POSITIONS_NEAR;
        equals_full(tiny, without_sinks, 4, delta, positions);
        equals_full(tiny, with_sinks, 4, delta, positions);
    }
}

/* The same comparison must fail where the identity does not hold. */
Test(identities, what_breaks_the_identity_shows)
{
    struct tiny_options tiny = tiny_options_default();
    memtx_model *model = tiny_model_load(&tiny);
    struct memtx_memory_options chosen = memtx_memory_options_default();
    tiny_tokens(tokens, N_TOKENS, 5);
    run_full(other, model);
    for (int broken = 0; broken < 4; broken++) {
        chosen = memtx_memory_options_default();
        chosen.k = broken == 0 ? 20 : N_TOKENS;
        chosen.delta = broken == 1 ? 30 : N_TOKENS;
        chosen.positions = broken == 2 ? MEMTX_POSITIONS_FIXED : MEMTX_POSITIONS_NEAR;
        chosen.lambda = broken == 3 ? 10.0F : 0.0F;
        run_memory(nll, model, without_sinks[0], &chosen, MEMTX_ROWS_F32);
        cr_assert_gt(mean_difference(nll, other, N_TOKENS - 1), 10 * nll_tolerance, "%d", broken);
    }
    memtx_model_close(model);
}

/* ---- the gate shut ---------------------------------------------------------------------------- */

Test(identities, off_is_sinks_to_the_bit)
{
    struct tiny_options tiny = tiny_options_default();
    memtx_model *model = tiny_model_load(&tiny);
    struct memtx_memory_options chosen = memtx_memory_options_default();
    tiny_tokens(tokens, N_TOKENS, 5);
    for (size_t i = 0; i < sizeof with_sinks / sizeof with_sinks[0]; i++) {
        struct tiny_memory memory;
        tiny_memory_open(&memory, model, TINY_ALL_LAYERS, MEMTX_ROWS_F16, &chosen);
        struct memtx_stream_options off = memory_stream(with_sinks[i], memory.memory, MEMTX_BLEND_OFF, NULL);
        struct memtx_stream_options sinks = memory_stream(with_sinks[i], NULL, MEMTX_BLEND_OFF, NULL);
        tiny_nll(nll, model, &off, tokens, N_TOKENS);
        tiny_nll(other, model, &sinks, tokens, N_TOKENS);
        cr_assert_eq(memcmp(nll, other, (N_TOKENS - 1) * sizeof *nll), 0);
        tiny_memory_close(&memory);
    }
    memtx_model_close(model);
}

/* Before the first row is visible every blend is local attention, to the bit. */
Test(identities, empty_memory_is_sinks_to_the_bit)
{
    struct tiny_options tiny = tiny_options_default();
    memtx_model *model = tiny_model_load(&tiny);
    struct memtx_memory_options chosen = memtx_memory_options_default();
    const struct setting setting = {64, 32, 4};
    const size_t n_before = 64 + 32; /* tokens of the segments that run before anything is evicted */
    tiny_tokens(tokens, N_TOKENS, 5);
    struct memtx_stream_options sinks = memory_stream(setting, NULL, MEMTX_BLEND_OFF, NULL);
    tiny_nll(other, model, &sinks, tokens, N_TOKENS);
    for (int blend = MEMTX_BLEND_JOINT; blend <= MEMTX_BLEND_PAPER; blend++) {
        const float bias[] = {1, 2, 3, -1, -2, -3};
        struct tiny_memory memory;
        tiny_memory_open(&memory, model, TINY_ALL_LAYERS, MEMTX_ROWS_F16, &chosen);
        struct memtx_stream_options options = memory_stream(setting, memory.memory, (enum memtx_blend_mode)blend, bias);
        tiny_nll(nll, model, &options, tokens, N_TOKENS);
        cr_assert_eq(memcmp(nll, other, n_before * sizeof *nll), 0, "blend %d", blend);
        cr_assert_gt(mean_difference(nll + n_before, other + n_before, N_TOKENS - 1 - n_before), 10 * nll_tolerance);
        tiny_memory_close(&memory);
    }
    memtx_model_close(model);
}

/* ---- memory mode against the plain decoder ---------------------------------------------------- */

/* A row at rank k may change places with the next, and a number may round to the other f16: chance, for single tokens.
 */
static const double row_tolerance = 2e-3;
static const double any_tolerance = 0.1;
static const double mean_tolerance = 2e-4;

struct case_row {
    const char *name;
    struct setting setting;
    uint32_t layers, k, delta;
    enum memtx_positions positions;
    enum memtx_blend_mode blend;
    float bias, lambda, tau;
    enum memtx_row_type type;
    uint64_t capacity;
};

static void run_plain(float *out, const char *path, const struct case_row *row)
{
    struct plain_options plain = {
        .mode = MEMTX_MODE_MEMORY,
        .window = row->setting.window,
        .segment = row->setting.segment,
        .sinks = row->setting.sinks,
        .memory_layers = row->layers,
        .k = row->k,
        .delta = row->delta,
        .fixed = row->positions == MEMTX_POSITIONS_FIXED,
        .store_is_full = row->type == MEMTX_ROWS_F32,
        .a = row->blend == MEMTX_BLEND_PAPER ? 0 : 1,
        .b = row->blend == MEMTX_BLEND_JOINT ? 0 : (double)row->bias,
        .lambda = (double)row->lambda,
        .tau = (double)row->tau,
        .capacity = (size_t)row->capacity,
    };
    plain_nll(out, path, &plain, tokens, N_TOKENS);
}

static void run_case(float *out, const memtx_model *model, const struct case_row *row)
{
    struct memtx_store_spec spec;
    struct memtx_store_options store_options = memtx_store_options_default();
    struct memtx_memory_options options = memtx_memory_options_default();
    memtx_store *store;
    memtx_memory *memory;
    float bias[6], tau[3 * 6];
    for (size_t i = 0; i < 3 * 6; i++) {
        bias[i % 6] = row->bias;
        tau[i] = row->tau > 0 ? row->tau : 1.0F;
    }
    memtx_model_store_spec(&spec, model);
    spec.row_type = row->type;
    for (uint32_t layer = 0; layer < spec.n_layers; layer++) {
        if (row->layers >> layer & 1) {
            memtx_store_keep_layer(&spec, layer);
        }
    }
    store_options.capacity_rows = row->capacity;
    options.k = row->k;
    options.delta = row->delta;
    options.positions = row->positions;
    options.lambda = row->lambda;
    options.tau = tau;
    cr_assert_eq(memtx_store_open(&store, NULL, &spec, &store_options), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(memtx_memory_open(&memory, store, &options), MEMTX_OK, "%s", memtx_last_error());
    struct memtx_stream_options stream = memory_stream(row->setting, memory, row->blend, bias);
    tiny_nll(out, model, &stream, tokens, N_TOKENS);
    memtx_memory_close(memory);
    cr_assert_eq(memtx_store_close(store), MEMTX_OK);
}

static void compare(const struct case_row *row)
{
    size_t n_off = 0;
    double sum = 0;
    for (size_t i = 0; i < N_TOKENS - 1; i++) {
        n_off += fabs((double)nll[i] - (double)other[i]) > row_tolerance;
        sum += (double)nll[i] - (double)other[i];
    }
    double largest = largest_difference(nll, other, N_TOKENS - 1), mean = fabs(sum / (N_TOKENS - 1));
    /* Two rows that are nearly equal may change places at rank k with the rounding of a processor's kernels, and what
     * they leave behind is read by later tokens: some may be off a little, the mean may not. */
    cr_assert(largest <= any_tolerance && n_off <= N_TOKENS / 10 && mean <= mean_tolerance,
              "%s: %zu of %d tokens are off, by up to %g; the mean by %g", row->name, n_off, N_TOKENS, largest, mean);
}

/* layers: bits. What is not named has its default. */
static const struct case_row cases[] = {
    {.name = "joint, near", .setting = {40, 32, 4}, .layers = 7, .k = 9, .delta = 160},
    {.name = "joint, fixed",
     .setting = {40, 32, 4},
     .layers = 7,
     .k = 9,
     .delta = 160,
     .positions = MEMTX_POSITIONS_FIXED},
    {.name = "nearly all rows, f32",
     .setting = {40, 32, 4},
     .layers = 7,
     .k = 300,
     .delta = 160,
     .type = MEMTX_ROWS_F32},
    {.name = "upper layer", .setting = {40, 32, 4}, .layers = 4, .k = 9, .delta = 160},
    {.name = "outer layers", .setting = {40, 32, 4}, .layers = 5, .k = 9, .delta = 160},
    {.name = "delta past the text", .setting = {40, 32, 4}, .layers = 7, .k = 9, .delta = 2000},
    {.name = "delta below the window", .setting = {40, 32, 4}, .layers = 7, .k = 9, .delta = 10},
    {.name = "delta 0", .setting = {40, 32, 4}, .layers = 7, .k = 9, .delta = 0},
    {.name = "k 1", .setting = {40, 32, 4}, .layers = 7, .k = 1, .delta = 160},
    {.name = "lambda", .setting = {40, 32, 4}, .layers = 7, .k = 9, .delta = 160, .lambda = 8.0F},
    {.name = "lambda, fixed",
     .setting = {40, 32, 4},
     .layers = 7,
     .k = 9,
     .delta = 160,
     .lambda = 8.0F,
     .positions = MEMTX_POSITIONS_FIXED},
    {.name = "tau", .setting = {40, 32, 4}, .layers = 7, .k = 9, .delta = 160, .tau = 0.5F},
    {.name = "bias -1",
     .setting = {40, 32, 4},
     .layers = 7,
     .k = 9,
     .delta = 160,
     .blend = MEMTX_BLEND_BIAS,
     .bias = -1.0F},
    {.name = "bias 2",
     .setting = {40, 32, 4},
     .layers = 7,
     .k = 9,
     .delta = 160,
     .blend = MEMTX_BLEND_BIAS,
     .bias = 2.0F},
    {.name = "paper -1",
     .setting = {40, 32, 4},
     .layers = 7,
     .k = 9,
     .delta = 160,
     .blend = MEMTX_BLEND_PAPER,
     .bias = -1.0F},
    {.name = "joint takes no bias",
     .setting = {40, 32, 4},
     .layers = 7,
     .k = 9,
     .delta = 160,
     .blend = MEMTX_BLEND_JOINT,
     .bias = 5.0F},
    {.name = "no window", .setting = {0, 32, 4}, .layers = 7, .k = 9, .delta = 160},
    {.name = "sinks longer than a segment", .setting = {24, 5, 12}, .layers = 7, .k = 9, .delta = 160},
    {.name = "segments that do not divide", .setting = {33, 29, 3}, .layers = 7, .k = 9, .delta = 160},
    {.name = "capacity", .setting = {40, 32, 4}, .layers = 7, .k = 9, .delta = 160, .capacity = 50},
    {.name = "capacity of one row", .setting = {40, 32, 4}, .layers = 7, .k = 9, .delta = 160, .capacity = 1},
    {.name = "all of a capacity, f32",
     .setting = {40, 32, 4},
     .layers = 7,
     .k = 77,
     .delta = 160,
     .type = MEMTX_ROWS_F32,
     .capacity = 77},
};

enum { N_CASES = sizeof cases / sizeof cases[0] };

Test(memory_mode, same_as_plain)
{
    struct tiny_options tiny = tiny_options_default();
    struct tiny_model file;
    memtx_model *model;
    tiny_tokens(tokens, N_TOKENS, 5);
    tiny_model_write(&file, &tiny);
    cr_assert_eq(memtx_model_load(&model, file.path, MEMTX_WEIGHTS_F32), MEMTX_OK, "%s", memtx_last_error());
    for (size_t i = 0; i < N_CASES; i++) {
        run_plain(other, file.path, &cases[i]);
        run_case(nll, model, &cases[i]);
        compare(&cases[i]);
    }
    tiny_model_remove(&file);
    memtx_model_close(model);
}

/* So that a case which agrees with the plain decoder says something: each setting has figures of its own. */
Test(memory_mode, cases_differ)
{
    static float all[N_CASES][N_TOKENS];
    struct tiny_options tiny = tiny_options_default();
    memtx_model *model = tiny_model_load(&tiny);
    tiny_tokens(tokens, N_TOKENS, 5);
    for (size_t i = 0; i < N_CASES; i++) {
        run_case(all[i], model, &cases[i]);
        for (size_t j = 0; j < i; j++) {
            bool same = cases[i].blend == MEMTX_BLEND_JOINT && strstr(cases[i].name, "no bias") && j == 0;
            double difference = mean_difference(all[i], all[j], N_TOKENS - 1);
            cr_assert(same == (difference == 0.0) && (same || difference > row_tolerance), "%s and %s differ by %g",
                      cases[i].name, cases[j].name, difference);
        }
    }
    memtx_model_close(model);
}

/* The store's type rounds what is kept, and what is read is the same from the heap and from the disk. */
Test(memory_mode, type_of_the_rows)
{
    struct tiny_options tiny = tiny_options_default();
    memtx_model *model = tiny_model_load(&tiny);
    static float exact[N_TOKENS];
    struct case_row row = cases[0];
    tiny_tokens(tokens, N_TOKENS, 5);
    row.type = MEMTX_ROWS_F32;
    run_case(exact, model, &row);
    row.type = MEMTX_ROWS_F16;
    run_case(nll, model, &row);
    row.type = MEMTX_ROWS_BF16;
    run_case(other, model, &row);
    double f16 = mean_difference(nll, exact, N_TOKENS - 1), bf16 = mean_difference(other, exact, N_TOKENS - 1);
    /* f16 keeps three bits more than bf16. */
    cr_assert(f16 > 0 && bf16 > 2 * f16 && bf16 < any_tolerance, "f16 %g, bf16 %g", f16, bf16);
    memtx_model_close(model);
}
