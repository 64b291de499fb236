/* bench_model: the speed of the runtime, as ratios to what is measured beside it in the same run. JSON lines on stdout.
 *
 *   load       seconds from the file to a model in its working type
 *   forward    xl at T = W = 512: the rate of all matrix work (weights, attention's two products, the output layer)
 *              against the rate that oneDNN reaches on the same shapes, each measured in turn, medians
 *   memory     tokens/s with a memory of so many rows at so many layers, against sinks mode, segments in turn
 *   search     marginal cost of a row in exact search (product and top-k), against the bare product in tiles that stay
 *              in cache
 */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../index/indexes.h"
#include "bench.h"
#include "memtx/memtx.h"

enum { SEGMENT = 512, WINDOW = 512, SINKS = 4, MOST_SHAPES = 8, TILE_ROWS = 1024 };

struct setting {
    struct bench_setting shared;
    const char *model_path;
    const char *text_path;
    enum memtx_weights weights;
    memtx_model *model;
    struct memtx_model_facts facts;
    uint32_t *tokens;
    size_t n_tokens;
};

static void check(int status, const char *what)
{
    if (status) {
        bench_die(what, memtx_last_error());
    }
}

static void begin_line(const char *bench, const struct setting *s)
{
    (void)printf("{\"bench\": \"%s\", \"weights\": \"%s\", \"threads\": %d", bench,
                 s->weights == MEMTX_WEIGHTS_BF16 ? "bf16" : "f32", omp_get_max_threads());
}

/* ---- streams ---------------------------------------------------------------------------------- */

/* A stream that goes round its text; the memory, if any, holds what it has read. */
struct reader {
    const struct setting *setting;
    memtx_store *store;
    memtx_memory *memory;
    memtx_stream *stream;
    size_t at;
};

/* A memory of n_rows rows (its capacity) in the layers from first_layer on. */
struct memory_case {
    const char *index; /* NULL: the default */
    uint32_t first_layer, n_layers;
    uint64_t n_rows;
};

static void open_memory(struct reader *r, const struct memory_case *c)
{
    struct memtx_store_spec spec;
    struct memtx_store_options store = memtx_store_options_default();
    struct memtx_memory_options memory = memtx_memory_options_default();
    const char *directory = getenv("TMPDIR");
    memtx_model_store_spec(&spec, r->setting->model);
    for (uint32_t layer = c->first_layer; layer < c->first_layer + c->n_layers; layer++) {
        memtx_store_keep_layer(&spec, layer);
    }
    store.temporary = true;
    store.capacity_rows = c->n_rows;
    memory.index = c->index;
    memory.resolve_index = memtx_index_resolve;
    check(memtx_store_open(&r->store, directory ? directory : "/var/tmp", &spec, &store), "store");
    check(memtx_memory_open(&r->memory, r->store, &memory), "memory");
}

/* With a memory, or in a mode without when that is NULL. */
static void open_reader(struct reader *r, const struct setting *s, enum memtx_mode mode, const struct memory_case *c)
{
    struct memtx_stream_options options = memtx_stream_options_default();
    *r = (struct reader){.setting = s};
    options.mode = mode;
    options.window = WINDOW;
    options.segment = SEGMENT;
    options.sinks = SINKS;
    if (c) {
        open_memory(r, c);
        options.memory = r->memory;
    }
    check(memtx_stream_open(&r->stream, s->model, &options), "stream");
    check(memtx_model_begin_document(r->stream, "bench"), "document");
}

static void close_reader(struct reader *r)
{
    memtx_stream_close(r->stream);
    memtx_memory_close(r->memory);
    check(memtx_store_close(r->store), "store");
}

/* Seconds of one segment: forward, eviction, loss of every token. */
static double read_segment(struct reader *r)
{
    const float *hidden;
    float nll[SEGMENT];
    if (r->at + SEGMENT + 1 > r->setting->n_tokens) {
        r->at = 0;
    }
    const uint32_t *tokens = r->setting->tokens + r->at;
    double start = bench_now();
    check(memtx_model_forward_segment(&hidden, r->stream, tokens, SEGMENT), "forward");
    check(memtx_model_nll(nll, r->stream, 0, SEGMENT, tokens + 1), "loss");
    r->at += SEGMENT;
    return bench_now() - start;
}

/* ---- forward ---------------------------------------------------------------------------------- */

struct shape {
    const char *name;
    size_t n_rows, n_in, n_out;
    double flops; /* of this shape in one segment: what is visible, of attention */
    struct bench_product *product;
    double seconds[BENCH_MOST_REPEATS];
};

static size_t list_shapes(struct shape *shapes, const struct memtx_model_facts *f)
{
    const size_t n_q = (size_t)f->n_heads * f->head_size, n_kv = (size_t)f->n_kv_heads * f->head_size;
    const size_t group_rows = (size_t)SEGMENT * f->n_heads / f->n_kv_heads, span = WINDOW + SEGMENT;
    const double visible = (double)SEGMENT * f->n_heads * (WINDOW + (SEGMENT + 1) / 2.0);
    const double layers = f->n_layers;
    const struct shape all[] = {
        {.name = "qkv", .n_rows = SEGMENT, .n_in = f->n_channels, .n_out = n_q + 2 * n_kv, .flops = layers},
        {.name = "output", .n_rows = SEGMENT, .n_in = n_q, .n_out = f->n_channels, .flops = layers},
        {.name = "gate_up",
         .n_rows = SEGMENT,
         .n_in = f->n_channels,
         .n_out = 2 * (size_t)f->n_feed_forward,
         .flops = layers},
        {.name = "down", .n_rows = SEGMENT, .n_in = f->n_feed_forward, .n_out = f->n_channels, .flops = layers},
        {.name = "head", .n_rows = SEGMENT, .n_in = f->n_channels, .n_out = f->n_vocabulary, .flops = 1},
        {.name = "scores", .n_rows = group_rows, .n_in = f->head_size, .n_out = span},
        {.name = "values", .n_rows = group_rows, .n_in = span, .n_out = f->head_size},
    };
    const size_t n = sizeof all / sizeof all[0];
    for (size_t i = 0; i < n; i++) {
        shapes[i] = all[i];
        shapes[i].flops *= 2.0 * (double)all[i].n_rows * (double)all[i].n_in * (double)all[i].n_out;
        if (i >= n - 2) { /* attention: only what the mask lets through counts */
            shapes[i].flops = 2.0 * visible * f->head_size * layers;
        }
    }
    return n;
}

static double shape_flops(const struct shape *shape)
{
    return 2.0 * (double)shape->n_rows * (double)shape->n_in * (double)shape->n_out;
}

static void bench_forward(const struct setting *s)
{
    struct shape shapes[MOST_SHAPES];
    struct reader reader;
    double seconds[BENCH_MOST_REPEATS], flops = 0, bare = 0;
    const bool bf16 = s->weights == MEMTX_WEIGHTS_BF16;
    const size_t n_shapes = list_shapes(shapes, &s->facts);
    open_reader(&reader, s, MEMTX_MODE_XL, NULL);
    for (size_t i = 0; i < n_shapes; i++) {
        shapes[i].product = bench_product_create(shapes[i].n_rows, shapes[i].n_in, shapes[i].n_out,
                                                 bf16 && i < n_shapes - 2); /* attention stays in f32 */
        (void)bench_product_run(shapes[i].product);
    }
    (void)read_segment(&reader);
    (void)read_segment(&reader); /* the cache is full */
    for (size_t repeat = 0; repeat < s->shared.n_repeats; repeat++) {
        seconds[repeat] = read_segment(&reader);
        for (size_t i = 0; i < n_shapes; i++) {
            const int n = shape_flops(&shapes[i]) < 1e10 ? 8 : 1; /* long enough for the clock */
            double start = bench_now();
            for (int j = 0; j < n; j++) {
                (void)bench_product_run(shapes[i].product);
            }
            shapes[i].seconds[repeat] = (bench_now() - start) / n;
        }
    }
    const double segment = bench_median(seconds, s->shared.n_repeats);
    begin_line("forward", s);
    (void)printf(", \"onednn_gflops\": {");
    for (size_t i = 0; i < n_shapes; i++) {
        double rate = shape_flops(&shapes[i]) / bench_median(shapes[i].seconds, s->shared.n_repeats);
        flops += shapes[i].flops;
        bare += shapes[i].flops / rate;
        (void)printf("%s\"%s\": %.0f", i ? ", " : "", shapes[i].name, rate / 1e9);
        bench_product_destroy(shapes[i].product);
    }
    (void)printf(
        "}, \"mode\": \"xl\", \"segment\": %d, \"tokens_per_s\": %.1f, \"gflops\": %.1f, \"bare_gflops\": %.1f, "
        "\"ratio\": %.3f}\n",
        SEGMENT, SEGMENT / segment, flops / segment / 1e9, flops / bare / 1e9, bare / segment);
    (void)fflush(stdout);
    close_reader(&reader);
}

/* ---- memory ----------------------------------------------------------------------------------- */

/* Reads until the memory holds n_rows (its capacity), then memory and sinks a segment each in turn. */
static void bench_memory(const struct setting *s, const struct memory_case *c)
{
    struct reader memory, sinks;
    double m = 0, w = 0; /* means: every so many segments one is written to disk, and that belongs to it */
    open_reader(&memory, s, MEMTX_MODE_MEMORY, c);
    open_reader(&sinks, s, MEMTX_MODE_SINKS, NULL);
    struct memtx_store_facts facts;
    do {
        (void)read_segment(&memory);
        memtx_store_info(&facts, memory.store);
    } while (facts.n_rows - facts.first_row < c->n_rows);
    for (int warm = 0; warm < 2; warm++) {
        (void)read_segment(&sinks);
    }
    for (size_t repeat = 0; repeat < s->shared.n_repeats; repeat++) {
        m += read_segment(&memory) / (double)s->shared.n_repeats;
        w += read_segment(&sinks) / (double)s->shared.n_repeats;
    }
    begin_line("memory", s);
    (void)printf(", \"index\": \"%s\", \"layers\": %u, \"first_layer\": %u, \"rows\": %llu, \"tokens_per_s\": %.1f, "
                 "\"sinks_tokens_per_s\": %.1f, \"ratio\": %.3f, \"ms_per_layer\": %.2f}\n",
                 c->index ? c->index : "exact", c->n_layers, c->first_layer, (unsigned long long)c->n_rows, SEGMENT / m,
                 SEGMENT / w, w / m, (m - w) * 1e3 / c->n_layers);
    (void)fflush(stdout);
    close_reader(&memory);
    close_reader(&sinks);
}

/* ---- search ----------------------------------------------------------------------------------- */

static float noise(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (float)(int32_t)(*state >> 32) * 0x1p-31F;
}

/* A memory of random rows at one layer. The cost of a search does not depend on the values but through the rate at
 * which the k best change, which is that of a random order. */
static void fill(memtx_memory *memory, const struct memtx_model_facts *f, uint64_t n_rows, uint64_t *state)
{
    const size_t n_values = (size_t)SEGMENT * f->n_kv_heads * f->head_size;
    float *rows = malloc(n_values * sizeof *rows);
    uint32_t tokens[SEGMENT] = {0};
    uint64_t positions[SEGMENT];
    for (uint64_t row = 0; row < n_rows; row += SEGMENT) {
        for (size_t i = 0; i < n_values; i++) {
            rows[i] = noise(state);
        }
        for (size_t i = 0; i < SEGMENT; i++) {
            positions[i] = row + i;
        }
        check(memtx_memory_append(memory, 0, SEGMENT, rows, rows, tokens, positions), "append");
        check(memtx_memory_commit(memory), "commit");
    }
    free(rows);
}

static double time_attend(memtx_memory *memory, const float *queries, float *out, float *lse, uint64_t position,
                          size_t n_repeats)
{
    double seconds[BENCH_MOST_REPEATS];
    uint64_t positions[SEGMENT];
    for (size_t i = 0; i < SEGMENT; i++) {
        positions[i] = position + i;
    }
    check(memtx_memory_begin_segment(memory), "segment");
    for (size_t repeat = 0; repeat < n_repeats + 1; repeat++) {
        double start = bench_now();
        check(memtx_memory_attend(out, lse, NULL, memory, 0, SEGMENT, queries, positions), "attend");
        seconds[repeat ? repeat - 1 : 0] = bench_now() - start; /* the first is warm-up */
    }
    check(memtx_memory_commit(memory), "commit");
    return bench_median(seconds, n_repeats);
}

static void bench_search(const struct setting *s, uint64_t n_few, uint64_t n_many)
{
    const struct memtx_model_facts *f = &s->facts;
    const size_t n_queries = (size_t)SEGMENT * f->n_heads * f->head_size, group = f->n_heads / f->n_kv_heads;
    float *queries = malloc(n_queries * sizeof *queries), *out = malloc(n_queries * sizeof *out);
    float *lse = malloc((size_t)SEGMENT * f->n_heads * sizeof *lse);
    struct memtx_store_spec spec;
    struct memtx_store_options store_options = memtx_store_options_default();
    struct memtx_memory_options memory_options = memtx_memory_options_default();
    memtx_store *store;
    memtx_memory *memory;
    uint64_t state = 1;
    double bare[BENCH_MOST_REPEATS];
    memtx_model_store_spec(&spec, s->model);
    memtx_store_keep_layer(&spec, 0);
    store_options.temporary = true;
    check(memtx_store_open(&store, getenv("TMPDIR") ? getenv("TMPDIR") : "/var/tmp", &spec, &store_options), "store");
    memory_options.index = "exact:f32"; /* as the bare product is */
    check(memtx_memory_open(&memory, store, &memory_options), "memory");
    check(memtx_memory_begin_document(memory, "bench"), "document");
    for (size_t i = 0; i < n_queries; i++) {
        queries[i] = noise(&state);
    }
    fill(memory, f, n_few, &state);
    const double few = time_attend(memory, queries, out, lse, n_many, s->shared.n_repeats);
    fill(memory, f, n_many - n_few, &state);
    const double many = time_attend(memory, queries, out, lse, n_many, s->shared.n_repeats);
    /* The bare product in tiles whose result stays in cache, as a search has it: its fastest form. */
    const size_t n_tiles = (size_t)(n_many - n_few) / TILE_ROWS;
    struct bench_product *product = bench_product_create(SEGMENT * group, f->head_size, TILE_ROWS, false);
    (void)bench_product_run(product);
    for (size_t repeat = 0; repeat < s->shared.n_repeats; repeat++) {
        bare[repeat] = 0;
        for (size_t tile = 0; tile < n_tiles * f->n_kv_heads; tile++) {
            bare[repeat] += bench_product_run(product);
        }
    }
    const double b = bench_median(bare, s->shared.n_repeats);
    begin_line("search", s);
    (void)printf(", \"queries\": %zu, \"rows\": [%llu, %llu], \"attend_ms\": [%.2f, %.2f], \"bare_product_ms\": %.2f, "
                 "\"ratio\": %.3f}\n",
                 SEGMENT * group, (unsigned long long)n_few, (unsigned long long)n_many, few * 1e3, many * 1e3, b * 1e3,
                 b / (many - few));
    (void)fflush(stdout);
    bench_product_destroy(product);
    memtx_memory_close(memory);
    check(memtx_store_close(store), "store");
    free(queries);
    free(out);
    free(lse);
}

/* ---- the command ------------------------------------------------------------------------------ */

static void load(struct setting *s)
{
    double seconds[3];
    for (int i = 0; i < 3; i++) {
        memtx_model_close(s->model);
        double start = bench_now();
        check(memtx_model_load(&s->model, s->model_path, s->weights), "model");
        seconds[i] = bench_now() - start;
    }
    memtx_model_info(&s->facts, s->model);
    begin_line("load", s);
    (void)printf(", \"seconds\": %.3f, \"weight_bytes\": %zu}\n", bench_median(seconds, 3), s->facts.weight_bytes);
    (void)fflush(stdout);
}

static void read_text(struct setting *s)
{
    FILE *file = fopen(s->text_path, "rb");
    char *bytes = NULL;
    long n_bytes = file && !fseek(file, 0, SEEK_END) ? ftell(file) : -1;
    if (n_bytes > 0) {
        rewind(file);
        bytes = malloc((size_t)n_bytes);
    }
    if (!bytes || fread(bytes, 1, (size_t)n_bytes, file) != (size_t)n_bytes) {
        bench_die(s->text_path, "cannot read (run ./quickstart --setup)");
    }
    (void)fclose(file);
    check(memtx_tokenizer_encode(&s->tokens, &s->n_tokens, memtx_model_tokenizer(s->model), bytes, (size_t)n_bytes),
          "text");
    free(bytes);
    if (s->n_tokens < 3 * SEGMENT) {
        bench_die(s->text_path, "too short");
    }
}

static void run_memory(const struct setting *s, const char *index, const char *layers, const char *rows)
{
    const uint32_t n_all = s->facts.n_layers;
    struct memory_case c = {index, n_all / 2, n_all - n_all / 2, 16384};
    if (layers) {
        c.n_layers = (uint32_t)bench_count("--layers", layers, 1, n_all);
        c.first_layer = n_all - c.n_layers;
    }
    if (rows) {
        c.n_rows = bench_count("--rows", rows, SEGMENT, UINT32_MAX);
    }
    bench_memory(s, &c);
    if (!index && !layers && !rows) {
        bench_memory(s, &(struct memory_case){NULL, n_all / 2, 1, 65536});
    }
}

static const char usage[] =
    "Usage: bench_model [--model FILE] [--text FILE] [--weights f32|bf16] [--repeats N] [--threads N]\n"
    "                   [--only load|forward|memory|search] [--index SPEC] [--layers N] [--rows N]\n"
    "Speed of the runtime as ratios to what is measured beside it; JSON lines. `memory` is measured with 16,384 rows "
    "in\n"
    "the upper half of the layers and 65,536 in one, or with the index, last N layers and rows that are given.\n";

int main(int argc, char **argv)
{
    static const char *const names[] = {"load", "forward", "memory", "search", NULL};
    struct setting s = {
        .model_path = "data/cache/model.gguf", .text_path = "data/cache/books/persuasion.txt", .shared.n_repeats = 9};
    const char *weights = "f32", *index = NULL, *layers = NULL, *rows = NULL;
    const struct bench_option options[] = {
        {"model", &s.model_path}, {"text", &s.text_path}, {"weights", &weights}, {"index", &index},
        {"layers", &layers},      {"rows", &rows},        {NULL, NULL}};
    bench_read_command_line(&s.shared, &(struct bench_program){usage, names, options}, argc, argv);
    s.weights = strcmp(weights, "bf16") == 0 ? MEMTX_WEIGHTS_BF16 : MEMTX_WEIGHTS_F32;
    if (s.weights == MEMTX_WEIGHTS_F32 && strcmp(weights, "f32") != 0) {
        bench_die("--weights", "not f32 or bf16");
    }
    load(&s);
    read_text(&s);
    if (bench_wants(&s.shared, "forward")) {
        bench_forward(&s);
    }
    if (bench_wants(&s.shared, "search")) {
        bench_search(&s, 16384, 65536);
    }
    if (bench_wants(&s.shared, "memory")) {
        run_memory(&s, index, layers, rows);
    }
    memtx_tokens_free(s.tokens);
    memtx_model_close(s.model);
    return 0;
}
