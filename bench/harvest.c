/* harvest: what a memory of the default model would hold and be asked, saved so that indexes can be measured on it.
 *
 * Reads texts with eval's settings (W = T = 512, s = 4), each as a document, and saves for each (layer, kv head) the
 * keys and values of all rows, and the queries of the last full segments, turned by delta as the search sees them. The
 * reading is that of mode sinks: retrieval is random with k = 1, and a gate of 0 keeps what it finds out.
 *
 * One file for each pair, OUT/LAYER-HEAD.harvest, little-endian:
 *
 *   bytes  what
 *   8      "mtxharv1"
 *   4      u32 layer
 *   4      u32 kv head
 *   4      u32 d, numbers of a row
 *   4      u32 n_segments
 *   4      u32 n_queries of each segment: its tokens times the query heads of the kv head, heads within tokens
 *   4      f32 scale of the softmax
 *   8      u64 n_rows
 *   then   f16 keys[n_rows][d], before RoPE, as they are stored; f16 values[n_rows][d]
 *   then   for each segment: u64 n_visible (it may see rows 0 .. n_visible - 1), f32 queries[n_queries][d]
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bench.h"
#include "memtx/memtx.h"

enum { SEGMENT = 512, MOST_SEGMENTS = 64, GATHERED = 8192, MOST_PATH = 4096, SECONDS_BETWEEN = 10 };

struct harvest {
    const char *out;
    uint32_t delta;
    size_t n_tokens, n_segments, n_read;
    double start, told; /* when reading began, and its progress was last shown */
    memtx_model *model;
    struct memtx_store_spec spec;
    memtx_store *store;
    memtx_memory *memory;
    memtx_stream *stream;
    float *queries[MEMTX_MAX_LAYERS];    /* [n_segments][SEGMENT][n_heads][d]: a ring */
    uint64_t *visible[MEMTX_MAX_LAYERS]; /* [n_segments] */
    size_t n_seen[MEMTX_MAX_LAYERS];
};

static void check(int status, const char *what)
{
    if (status) {
        bench_die(what, memtx_last_error());
    }
}

static void *take(size_t n_items, size_t item_bytes)
{
    void *block = calloc(n_items, item_bytes);
    if (!block) {
        bench_die("memory", "there is none left");
    }
    return block;
}

/* ---- reading ---------------------------------------------------------------------------------- */

/* The memory is asked: keeps the queries of a full segment, in the place of the oldest. */
static void keep_queries(void *context, uint32_t layer, size_t n_q, const float *queries, const uint64_t *positions)
{
    struct harvest *h = context;
    const size_t n_values = (size_t)SEGMENT * h->spec.n_heads * h->spec.head_size;
    (void)positions;
    if (n_q == SEGMENT && memtx_memory_n_visible(h->memory) > 0) {
        const size_t place = h->n_seen[layer]++ % h->n_segments;
        memcpy(h->queries[layer] + place * n_values, queries, n_values * sizeof *queries);
        h->visible[layer][place] = memtx_memory_n_visible(h->memory);
    }
}

static void open_stream(struct harvest *h, const char *layers)
{
    struct memtx_store_options store = memtx_store_options_default();
    struct memtx_memory_options memory = memtx_memory_options_default();
    struct memtx_stream_options stream = memtx_stream_options_default();
    const char *directory = getenv("TMPDIR");
    memtx_model_store_spec(&h->spec, h->model);
    check(memtx_reading_parse_layers(h->spec.heads_kept, layers, h->spec.n_layers, h->spec.n_kv_heads), "--layers");
    for (uint32_t layer = 0; layer < h->spec.n_layers; layer++) {
        if (h->spec.heads_kept[layer]) {
            h->queries[layer] =
                take(h->n_segments * SEGMENT, (size_t)h->spec.n_heads * h->spec.head_size * sizeof(float));
            h->visible[layer] = take(h->n_segments, sizeof(uint64_t));
        }
    }
    store.temporary = true;
    check(memtx_store_open(&h->store, directory ? directory : "/var/tmp", &h->spec, &store), "store");
    memory.k = 1;
    memory.retrieval = MEMTX_RETRIEVAL_RANDOM;
    memory.scope = MEMTX_SCOPE_ALL;
    memory.delta = h->delta;
    memory.asked = keep_queries;
    memory.asked_context = h;
    check(memtx_memory_open(&h->memory, h->store, &memory), "memory");
    float *bias = take(h->spec.n_heads, sizeof *bias);
    for (size_t head = 0; head < h->spec.n_heads; head++) {
        bias[head] = -1000; /* its sigmoid is 0 in f32 */
    }
    stream.mode = MEMTX_MODE_MEMORY;
    stream.memory = h->memory;
    stream.gate = (struct memtx_gate){.mode = MEMTX_BLEND_PAPER, .bias = bias};
    check(memtx_stream_open(&h->stream, h->model, &stream), "stream");
    free(bias);
}

static char *read_file(size_t *n_bytes, const char *path)
{
    FILE *file = fopen(path, "rb");
    const long size = file && !fseek(file, 0, SEEK_END) ? ftell(file) : -1;
    if (size <= 0) {
        bench_die(path, "cannot read, or empty (run data/get)");
    }
    rewind(file);
    char *bytes = take((size_t)size, 1);
    if (fread(bytes, 1, (size_t)size, file) != (size_t)size) {
        bench_die(path, "cannot read");
    }
    (void)fclose(file);
    *n_bytes = (size_t)size;
    return bytes;
}

static void show_progress(struct harvest *h)
{
    const double now = bench_now(), rate = (double)h->n_read / (now - h->start);
    if (now - h->told >= SECONDS_BETWEEN) {
        (void)fprintf(stderr, "%zu of %zu tokens, %.0f a second, %.0f s left\n", h->n_read, h->n_tokens, rate,
                      (double)(h->n_tokens - h->n_read) / rate);
        h->told = now;
    }
}

/* One text as a document, as much of it as --tokens leaves. */
static void read_text(struct harvest *h, const char *path)
{
    uint32_t *tokens;
    const float *hidden;
    const size_t n_most = h->n_tokens - h->n_read;
    size_t n_bytes, n_tokens;
    char *bytes = read_file(&n_bytes, path);
    check(memtx_tokenizer_encode(&tokens, &n_tokens, memtx_model_tokenizer(h->model), bytes, n_bytes), path);
    free(bytes);
    n_tokens = n_tokens < n_most ? n_tokens : n_most;
    check(memtx_model_begin_document(h->stream, path), "document");
    for (size_t at = 0; at < n_tokens; at += SEGMENT) {
        const size_t n = n_tokens - at < SEGMENT ? n_tokens - at : SEGMENT;
        check(memtx_model_forward_segment(&hidden, h->stream, tokens + at, n), "forward");
        h->n_read += n;
        show_progress(h);
    }
    check(memtx_model_end_document(h->stream), "end of document");
    memtx_tokens_free(tokens);
}

static void read_texts(struct harvest *h, const char *paths)
{
    char *list = take(strlen(paths) + 1, 1), *rest = list;
    memcpy(list, paths, strlen(paths));
    h->start = h->told = bench_now();
    for (char *path = strsep(&rest, ","); path && h->n_read < h->n_tokens; path = strsep(&rest, ",")) {
        read_text(h, path);
        (void)fprintf(stderr, "%zu tokens, up to %s\n", h->n_read, path);
    }
    free(list);
    if (h->n_read < h->n_tokens) {
        bench_die("--texts", "fewer tokens than --tokens asks for");
    }
}

/* ---- writing ---------------------------------------------------------------------------------- */

struct output {
    FILE *file;
    char path[MOST_PATH];
};

static void write_bytes(struct output *out, const void *bytes, size_t n_bytes)
{
    if (fwrite(bytes, 1, n_bytes, out->file) != n_bytes) {
        bench_die(out->path, "cannot write");
    }
}

static void put_le(unsigned char *bytes, uint64_t value, int n_bytes)
{
    for (int i = 0; i < n_bytes; i++) {
        bytes[i] = (unsigned char)(value >> (8 * i));
    }
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static void write_number(struct output *out, uint64_t value, int n_bytes)
{
    unsigned char bytes[8];
    put_le(bytes, value, n_bytes);
    write_bytes(out, bytes, (size_t)n_bytes);
}

/* The f16 of a number that is one, as every number of a gathered row is. */
static uint16_t half_of(float value)
{
    const uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000, exponent = bits >> 23 & 0xFF;
    if (exponent >= 113) {
        return (uint16_t)(sign | ((bits & 0x7FFFFFFF) - (112U << 23)) >> 13);
    }
    return (uint16_t)(sign | (uint32_t)ldexpf(fabsf(value), 24));
}

static void write_rows(struct output *out, struct harvest *h, uint32_t layer, uint32_t kv_head, bool values)
{
    const uint64_t n_rows = memtx_memory_n_visible(h->memory);
    const size_t d = h->spec.head_size;
    int64_t *ids = take(GATHERED, sizeof *ids);
    float *rows = take(GATHERED * d, sizeof *rows);
    unsigned char *halves = take(GATHERED * d, 2);
    for (uint64_t first = 0; first < n_rows; first += GATHERED) {
        const size_t n = n_rows - first < GATHERED ? (size_t)(n_rows - first) : GATHERED;
        for (size_t i = 0; i < n; i++) {
            ids[i] = (int64_t)(first + i);
        }
        check(memtx_memory_gather(values ? NULL : rows, values ? rows : NULL, h->memory, layer, kv_head, n, ids),
              "gather");
        for (size_t i = 0; i < n * d; i++) {
            put_le(halves + 2 * i, half_of(rows[i]), 2);
        }
        write_bytes(out, halves, 2 * n * d);
    }
    free(ids);
    free(rows);
    free(halves);
}

/* turns[d / 2][2]: cosine and sine of the turn by delta. */
static void find_turns(double *turns, const struct harvest *h)
{
    for (uint32_t pair = 0; pair < h->spec.head_size / 2; pair++) {
        double frequency = pow(h->spec.rope_base, -2.0 * pair / h->spec.rope_dims);
        frequency /= h->spec.rope_factors ? (double)h->spec.rope_factors[pair] : 1;
        const double angle = 2 * pair < h->spec.rope_dims ? h->delta * frequency : 0;
        turns[2 * pair] = cos(angle);
        turns[2 * pair + 1] = sin(angle);
    }
}

static void write_queries(struct output *out, const struct harvest *h, uint32_t layer, uint32_t kv_head)
{
    const size_t d = h->spec.head_size, n_heads = h->spec.n_heads, group = n_heads / h->spec.n_kv_heads;
    double *turns = take(d, sizeof *turns);
    unsigned char *bytes = take(d, 4);
    find_turns(turns, h);
    for (size_t s = 0; s < h->n_segments; s++) {
        const size_t place = (h->n_seen[layer] + s) % h->n_segments;
        write_number(out, h->visible[layer][place], 8);
        for (size_t i = 0; i < SEGMENT * group; i++) {
            const float *q =
                h->queries[layer] + ((place * SEGMENT + i / group) * n_heads + kv_head * group + i % group) * d;
            for (size_t j = 0; j < d; j += 2) {
                const double a = (double)q[j], b = (double)q[j + 1];
                put_le(bytes + 4 * j, bits_of((float)(a * turns[j] - b * turns[j + 1])), 4);
                put_le(bytes + 4 * j + 4, bits_of((float)(a * turns[j + 1] + b * turns[j])), 4);
            }
            write_bytes(out, bytes, 4 * d);
        }
    }
    free(turns);
    free(bytes);
}

static void write_pair(struct harvest *h, uint32_t layer, uint32_t kv_head)
{
    struct output out;
    const int length = snprintf(out.path, sizeof out.path, "%s/%02u-%u.harvest", h->out, layer, kv_head);
    if (length < 0 || length >= MOST_PATH || !(out.file = fopen(out.path, "wb"))) {
        bench_die(h->out, "cannot make a file there");
    }
    if (h->n_seen[layer] < h->n_segments) {
        bench_die("--segments", "more than there were full segments that had rows to ask for");
    }
    write_bytes(&out, "mtxharv1", 8);
    write_number(&out, layer, 4);
    write_number(&out, kv_head, 4);
    write_number(&out, h->spec.head_size, 4);
    write_number(&out, h->n_segments, 4);
    write_number(&out, (uint64_t)SEGMENT * h->spec.n_heads / h->spec.n_kv_heads, 4);
    write_number(&out, bits_of(h->spec.scale), 4);
    write_number(&out, memtx_memory_n_visible(h->memory), 8);
    write_rows(&out, h, layer, kv_head, false);
    write_rows(&out, h, layer, kv_head, true);
    write_queries(&out, h, layer, kv_head);
    if (fclose(out.file)) {
        bench_die(out.path, "cannot write");
    }
}

static void write_all(struct harvest *h)
{
    (void)mkdir(h->out, 0700);
    check(memtx_memory_begin_segment(h->memory), "segment");
    for (uint32_t layer = 0; layer < h->spec.n_layers; layer++) {
        for (uint32_t kv_head = 0; h->spec.heads_kept[layer] && kv_head < h->spec.n_kv_heads; kv_head++) {
            write_pair(h, layer, kv_head);
        }
    }
}

/* ---- the command ------------------------------------------------------------------------------ */

static const char usage[] =
    "Usage: harvest [--model FILE] [--texts FILE,FILE,..] [--tokens N] [--segments N] [--layers LIST] [--delta N]\n"
    "               [--weights f32|bf16] [--out DIR] [--threads N]\n"
    "Keys, values and queries of the model over the first N tokens of the texts, to measure indexes on.\n"
    "Defaults: Persuasion, 16384 tokens, 3 segments, layers 3,15,27, delta 2048, f32, data/cache/harvest.\n";

int main(int argc, char **argv)
{
    static const char *const names[] = {"harvest", NULL};
    struct harvest h = {.out = "data/cache/harvest"};
    struct bench_setting setting = {0};
    const char *model = "data/cache/model.gguf", *texts = "data/cache/books/persuasion.txt", *tokens = "16384";
    const char *segments = "3", *layers = "3,15,27", *delta = "2048", *weights = "f32";
    const struct bench_option options[] = {{"model", &model},       {"texts", &texts},   {"tokens", &tokens},
                                           {"segments", &segments}, {"layers", &layers}, {"delta", &delta},
                                           {"weights", &weights},   {"out", &h.out},     {NULL, NULL}};
    bench_read_command_line(&setting, &(struct bench_program){usage, names, options}, argc, argv);
    h.n_tokens = (size_t)bench_count("--tokens", tokens, 1, UINT32_MAX);
    h.n_segments = (size_t)bench_count("--segments", segments, 1, MOST_SEGMENTS);
    h.delta = (uint32_t)bench_count("--delta", delta, 0, 1 << 20);
    if (strcmp(weights, "f32") != 0 && strcmp(weights, "bf16") != 0) {
        bench_die("--weights", "is neither f32 nor bf16");
    }
    check(memtx_model_load(&h.model, model, strcmp(weights, "bf16") == 0 ? MEMTX_WEIGHTS_BF16 : MEMTX_WEIGHTS_F32),
          "model");
    open_stream(&h, layers);
    read_texts(&h, texts);
    write_all(&h);
    memtx_stream_close(h.stream);
    memtx_memory_close(h.memory);
    check(memtx_store_close(h.store), "store");
    memtx_model_close(h.model);
    for (uint32_t layer = 0; layer < MEMTX_MAX_LAYERS; layer++) {
        free(h.queries[layer]);
        free(h.visible[layer]);
    }
    return 0;
}
