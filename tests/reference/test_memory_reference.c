/* Modes sinks and memory against an independent implementation in NumPy, on the first tokens of Northanger Abbey: NLL
 * of every token in eight settings, and what single queries retrieved. Tolerances are those of README.md's table. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "math/norm.h"
#include "math/rows.h"
#include "memory/memory.h"
#include "model/model.h"
#include "reference.h"
#include "unit/tiny_model.h"

static const double sinks_tolerance = 1e-3;      /* of a token; nothing but float32's rounding */
static const double sinks_mean_tolerance = 1e-5; /* relative */
static const double mean_tolerance = 1e-4;
static const double row_tolerance = 2e-3; /* of 99 tokens in 100 */
static const double any_tolerance = 0.1;  /* a row at rank k that changes places with the next is chance */

static size_t count_of(const char *run, const char *key)
{
    return (size_t)json_number(run, key);
}

/* A stream as a run of the file says, with its memory. */
struct setting {
    memtx_store *store;
    memtx_memory *memory;
    memtx_stream *stream;
};

static void open_setting(struct setting *out, const memtx_model *model, const char *run)
{
    struct memtx_stream_options stream = memtx_stream_options_default();
    struct memtx_memory_options memory = memtx_memory_options_default();
    struct memtx_store_spec spec;
    float bias[64];
    size_t n_layers;
    *out = (struct setting){0};
    stream.window = (uint32_t)count_of(run, "window");
    stream.segment = (uint32_t)count_of(run, "segment");
    stream.sinks = (uint32_t)count_of(run, "sinks");
    if (json_is(run, "mode", "memory")) {
        double *layers = json_numbers(&n_layers, run, "layers");
        memtx_model_store_spec(&spec, model);
        spec.row_type = MEMTX_ROWS_F16;
        for (size_t i = 0; i < n_layers; i++) {
            memtx_store_keep_layer(&spec, (uint32_t)layers[i]);
        }
        free(layers);
        memory.k = (uint32_t)count_of(run, "k");
        memory.delta = (uint32_t)count_of(run, "delta");
        memory.positions = json_is(run, "positions", "fixed") ? MEMTX_POSITIONS_FIXED : MEMTX_POSITIONS_NEAR;
        cr_assert_eq(memtx_store_open(&out->store, NULL, &spec, NULL), MEMTX_OK, "%s", memtx_last_error());
        cr_assert_eq(memtx_memory_open(&out->memory, out->store, &memory), MEMTX_OK, "%s", memtx_last_error());
        for (size_t i = 0; i < 64; i++) {
            bias[i] = (float)json_number(run, "b");
        }
        stream.mode = MEMTX_MODE_MEMORY;
        stream.memory = out->memory;
        stream.gate.mode = json_number(run, "a") == 0   ? MEMTX_BLEND_PAPER
                           : json_number(run, "b") == 0 ? MEMTX_BLEND_JOINT
                                                        : MEMTX_BLEND_BIAS;
        stream.gate.bias = bias;
    }
    cr_assert_eq(memtx_stream_open(&out->stream, model, &stream), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(memtx_model_begin_document(out->stream, "text"), MEMTX_OK);
}

static void close_setting(struct setting *setting)
{
    memtx_stream_close(setting->stream);
    memtx_memory_close(setting->memory);
    (void)memtx_store_close(setting->store);
}

static void check_run(const memtx_model *model, const uint32_t *ids, const char *run)
{
    const size_t n = count_of(run, "n_tokens"), segment = count_of(run, "segment");
    const bool has_memory = json_is(run, "mode", "memory");
    /* Tokens of segments that end before anything has left the window: as the model. */
    const size_t n_local =
        has_memory ? (count_of(run, "window") + count_of(run, "sinks")) / segment * segment + segment : n;
    struct setting setting;
    char name[64] = "";
    size_t n_nll, n_off = 0;
    double *expected = json_numbers(&n_nll, run, "nll"), sum = 0, largest = 0;
    float *nll = malloc(n * sizeof *nll);
    (void)sscanf(json_find(run, "name"), "\"%63[^\"]", name);
    cr_assert_eq(n_nll, n - 1);
    open_setting(&setting, model, run);
    tiny_run(nll, setting.stream, ids, n, segment);
    close_setting(&setting);
    for (size_t i = 0; i < n - 1; i++) {
        double off = fabs((double)nll[i] - expected[i]);
        sum += (double)nll[i];
        largest = !(off <= largest) ? off : largest;
        n_off += !(off <= row_tolerance);
        cr_assert(i + 1 >= n_local || off <= sinks_tolerance, "%s: token %zu is off by %g", name, i + 1, off);
    }
    const double mean = sum / (double)n_nll, expected_mean = json_number(run, "mean_nll");
    fprintf(stderr, "%s: mean NLL %.6f, off by %.1e; a token by %.1e at most, %zu by more than %g\n", name, mean,
            fabs(mean - expected_mean), largest, n_off, row_tolerance);
    cr_assert_leq(fabs(mean - expected_mean), has_memory ? mean_tolerance : sinks_mean_tolerance * expected_mean,
                  "%s: mean %.7f, not %.7f", name, mean, expected_mean);
    cr_assert(largest <= (has_memory ? any_tolerance : sinks_tolerance), "%s: a token is off by %g", name, largest);
    cr_assert_leq(n_off, n / 100, "%s: %zu tokens are off", name, n_off);
    free(expected);
    free(nll);
}

Test(memory_reference, nll_in_every_setting)
{
    memtx_model *model = reference_model();
    char *file = reference_load("memory_reference.json");
    const char *runs = json_find(file, "runs");
    size_t n;
    uint32_t *ids = reference_ids(&n, file);
    cr_assert_eq(json_count(runs), 8);
    for (size_t i = 0; i < json_count(runs); i++) {
        check_run(model, ids, json_item(runs, i));
    }
    memtx_model_close(model);
    free(ids);
    free(file);
}

/* ---- what single queries retrieved ------------------------------------------------------------ */

static const double score_tolerance = 1e-3; /* relative to the largest */
static const double lse_tolerance = 2e-3;

static double score_of(const struct setting *setting, uint32_t layer, size_t head, const float *query, int64_t row)
{
    memtx_memory *memory = setting->memory;
    const memtx_store *store = setting->store;
    const size_t d = store->spec.head_size, kv_head = head / (store->spec.n_heads / store->spec.n_kv_heads);
    const unsigned char *rows;
    float turned[64], key[64];
    double sum = 0;
    cr_assert_eq(memtx__view_chunk(&rows, &memory->view, MEMTX__KEYS, layer, (uint32_t)kv_head,
                                   (uint64_t)row / store->chunk_rows),
                 MEMTX_OK);
    memtx__rows_read(key, store->spec.row_type, rows + (uint64_t)row % store->chunk_rows * store->row_bytes, d);
    memtx__rope_turn(turned, &memory->rope, query, memory->options.delta, d);
    for (size_t i = 0; i < d; i++) {
        sum += (double)turned[i] * (double)key[i];
    }
    return sum;
}

/* The probe's query stands in the segment that `stream` has just run through `layer`. */
static void check_probe(const struct setting *setting, const char *probe, size_t first, size_t n)
{
    memtx_stream *stream = setting->stream;
    const struct memtx_store_spec *spec = &setting->store->spec;
    const uint32_t layer = (uint32_t)count_of(probe, "layer"), k = setting->memory->options.k;
    const size_t t = count_of(probe, "position") - first, head = count_of(probe, "head");
    size_t n_hits, n_same = 0;
    double *expected = json_numbers(&n_hits, probe, "hits"), *scores = json_numbers(&n_hits, probe, "scores");
    struct memtx_hit *hits = malloc(n * spec->n_heads * k * sizeof *hits);
    const struct memtx_hit *found = hits + (t * spec->n_heads + head) * k;
    cr_assert(n_hits == k);
    cr_assert_eq(memtx_memory_attend(stream->remembered, stream->memory_lse, hits, setting->memory, layer, n,
                                     stream->queries, stream->cache.positions + stream->cache.n_rows),
                 MEMTX_OK);
    const float *query = stream->queries + (t * spec->n_heads + head) * spec->head_size;
    for (size_t i = 0; i < k; i++) {
        for (size_t j = 0; j < k; j++) {
            n_same += found[i].row == (int64_t)expected[j];
        }
        cr_assert_float_eq(score_of(setting, layer, head, query, found[i].row), scores[i],
                           score_tolerance * fmax(fabs(scores[0]), fabs(scores[k - 1])), "layer %u, rank %zu", layer,
                           i);
    }
    cr_assert_geq(n_same, k - 1, "layer %u, position %zu, head %zu: %zu of %u rows", layer, first + t, head, n_same, k);
    const size_t at = t * spec->n_heads + head;
    cr_assert_float_eq((double)stream->memory_lse[at], json_number(probe, "lse_mem"), lse_tolerance);
    cr_assert_float_eq((double)stream->attention_lse[at], json_number(probe, "lse_loc"), lse_tolerance);
    free(expected);
    free(scores);
    free(hits);
}

/* A segment as memtx_model_forward_segment runs it, with the probes asked after their layer. */
static size_t run_probed(const struct setting *setting, const char *probes, const uint32_t *ids, size_t first, size_t n)
{
    memtx_stream *stream = setting->stream;
    const struct memtx__config *config = &stream->model->config;
    size_t n_checked = 0;
    for (size_t t = 0; t < n; t++) {
        memtx__weights_embed(stream->x + t * config->n_channels, &stream->model->weights, ids[first + t],
                             config->n_channels);
        stream->cache.positions[stream->cache.n_rows + t] = first + t;
        stream->cache.tokens[stream->cache.n_rows + t] = ids[first + t];
    }
    cr_assert_eq(memtx_memory_begin_segment(setting->memory), MEMTX_OK);
    for (size_t layer = 0; layer < config->n_layers; layer++) {
        cr_assert_eq(memtx__block_fwd(stream, layer, n), MEMTX_OK);
        for (size_t i = 0; i < json_count(probes); i++) {
            const char *probe = json_item(probes, i);
            const size_t position = count_of(probe, "position");
            if (count_of(probe, "layer") == layer && position >= first && position < first + n) {
                check_probe(setting, probe, first, n);
                n_checked++;
            }
        }
    }
    cr_assert_eq(memtx__stream_end_segment(stream, n), MEMTX_OK);
    return n_checked;
}

Test(memory_reference, what_queries_retrieve)
{
    memtx_model *model = reference_model();
    char *file = reference_load("memory_reference.json");
    const char *runs = json_find(file, "runs"), *probes = json_find(file, "probes");
    struct setting setting;
    size_t n, n_checked = 0;
    uint32_t *ids = reference_ids(&n, file);
    cr_assert(json_is(json_item(runs, 1), "name", "memory"));
    open_setting(&setting, model, json_item(runs, 1));
    for (size_t first = 0; first < n; first += 512) {
        n_checked += run_probed(&setting, probes, ids, first, 512);
    }
    cr_assert_eq(n_checked, 27);
    close_setting(&setting);
    memtx_model_close(model);
    free(ids);
    free(file);
}
