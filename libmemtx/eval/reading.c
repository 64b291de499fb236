/* What a mode of reading needs: options that the model completes, the store and the memory over it, the stream
 * (reading.h). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/status.h"
#include "eval/reading.h"

enum { MOST_DELTA = 1 << 20 }; /* of a memory */

/* ---- options ---------------------------------------------------------------------------------- */

static bool any_layer(const struct memtx_reading_options *options)
{
    for (size_t layer = 0; layer < MEMTX_MAX_LAYERS; layer++) {
        if (options->heads_kept[layer]) {
            return true;
        }
    }
    return false;
}

int memtx__reading_resolve(struct memtx_reading_options *options, const struct memtx_model_facts *model,
                           const char *layers)
{
    const float usual_bias = -1.0F, usual_paper_bias = -4.0F; /* on a pretrained model: DESIGN 4 */
    if (options->segment < 1) {
        return memtx__fail(MEMTX_E_INVALID, "a segment of 0 tokens (1 or more)");
    }
    if (!any_layer(options)) {
        int status = memtx_reading_parse_layers(options->heads_kept, layers, model->n_layers, model->n_kv_heads);
        if (status) {
            return status;
        }
    }
    if (options->delta == MEMTX_DELTA_DEFAULT) {
        uint64_t larger = options->window > options->segment ? options->window : options->segment;
        uint64_t most = model->context < MOST_DELTA ? model->context : MOST_DELTA;
        options->delta = (uint32_t)(4 * larger < most ? 4 * larger : most);
    }
    if (options->delta > model->context) {
        return memtx__fail(MEMTX_E_INVALID, "delta is %u tokens, more than the model's context of %u", options->delta,
                           model->context);
    }
    if (isnan(options->bias)) {
        options->bias = options->blend == MEMTX_BLEND_PAPER  ? usual_paper_bias
                        : options->blend == MEMTX_BLEND_BIAS ? usual_bias
                                                             : 0.0F;
    }
    return MEMTX_OK;
}

/* The settings that a store records, and is compared by. */
static void print_settings(char *out, size_t size, const struct memtx_reading_options *options,
                           const struct memtx_model_facts *model)
{
    (void)snprintf(out, size, "window=%u segment=%u sinks=%u k=%u delta=%u positions=%s blend=%s bias=%g weights=%s",
                   options->window, options->segment, options->sinks, options->k, options->delta,
                   options->positions == MEMTX_POSITIONS_FIXED ? "fixed" : "near", memtx_blend_name(options->blend),
                   (double)options->bias, model->weights == MEMTX_WEIGHTS_BF16 ? "bf16" : "f32");
}

/* ---- the store -------------------------------------------------------------------------------- */

int memtx__reading_look(memtx_store **out, struct memtx_reading_options *options, const struct memtx_model_facts *model)
{
    struct memtx_store_options store_options = memtx_store_options_default();
    struct memtx_store_facts facts;
    const bool is_named = options->scope && strcmp(options->scope, "this") != 0 && strcmp(options->scope, "all") != 0;
    *out = NULL;
    store_options.read_only = true;
    int status =
        options->memory_path ? memtx_store_open(out, options->memory_path, NULL, &store_options) : MEMTX_E_NOT_FOUND;
    if (status == MEMTX_E_NOT_FOUND && is_named) {
        return memtx__fail(MEMTX_E_NOT_FOUND, "scope '%s': there is no store that has such documents", options->scope);
    }
    if (status) {
        return status == MEMTX_E_NOT_FOUND ? MEMTX_OK : status;
    }
    memtx_store_info(&facts, *out);
    if (!any_layer(options) && facts.spec.n_layers == model->n_layers && facts.spec.n_kv_heads == model->n_kv_heads) {
        memcpy(options->heads_kept, facts.spec.heads_kept, sizeof options->heads_kept);
    }
    return MEMTX_OK;
}

static const char *temporary_path(const struct memtx_reading_options *options)
{
    const char *path = options->temporary_path ? options->temporary_path : getenv("TMPDIR");
    return path && *path ? path : access("/var/tmp", W_OK) == 0 ? "/var/tmp" : "/tmp";
}

static int open_store(struct memtx__reading *reading, const memtx_model *model,
                      const struct memtx_reading_options *options)
{
    struct memtx_store_options store_options = memtx_store_options_default();
    struct memtx_model_facts model_facts;
    struct memtx_store_facts facts;
    struct memtx_store_spec spec;
    memtx_model_info(&model_facts, model);
    memtx_model_store_spec(&spec, model);
    spec.row_type = options->row_type;
    memcpy(spec.heads_kept, options->heads_kept, sizeof spec.heads_kept);
    print_settings(spec.settings, sizeof spec.settings, options, &model_facts);
    store_options.temporary = !reading->keeps;
    store_options.durability = options->durability;
    store_options.capacity_rows = options->capacity_rows;
    store_options.allow_stale = options->allow_stale;
    int status = memtx_store_open(&reading->store, reading->keeps ? options->memory_path : temporary_path(options),
                                  &spec, &store_options);
    if (status) {
        return status;
    }
    memtx_store_info(&facts, reading->store);
    const bool is_stale = memcmp(facts.spec.fingerprint, spec.fingerprint, sizeof spec.fingerprint) != 0;
    if (is_stale || strcmp(facts.spec.settings, spec.settings) != 0) {
        (void)snprintf(reading->warning, sizeof reading->warning, "%.512s was written %swith %s; now %s",
                       options->memory_path, is_stale ? "by another model, " : "", facts.spec.settings, spec.settings);
    }
    return MEMTX_OK;
}

/* How the memory finds rows: as was asked, or as the store's index files were made, if that is known here. */
static void choose_index(struct memtx__reading *reading, const struct memtx_reading_options *options)
{
    const struct memtx_index_operations *operations;
    struct memtx_store_facts facts;
    const char *index = options->index ? options->index : MEMTX_READING_INDEX;
    memtx_store_info(&facts, reading->store);
    const bool is_known = strncmp(facts.index, "cluster", strlen("cluster")) == 0 ||
                          (*facts.index && options->resolve_index && !options->resolve_index(&operations, facts.index));
    (void)snprintf(reading->index, sizeof reading->index, "%s", !options->index && is_known ? facts.index : index);
}

static int open_memory(struct memtx__reading *reading, const struct memtx_reading_options *options,
                       const struct memtx__reading_mode *mode)
{
    struct memtx_memory_options memory_options = memtx_memory_options_default();
    const char **names;
    memory_options.k = options->k;
    memory_options.delta = options->delta;
    memory_options.positions = options->positions;
    memory_options.retrieval = mode->random ? MEMTX_RETRIEVAL_RANDOM : MEMTX_RETRIEVAL_EXACT;
    memory_options.lambda = options->lambda;
    memory_options.most_tokens = options->segment;
    memory_options.seed = mode->seed;
    choose_index(reading, options);
    memory_options.index = reading->index;
    memory_options.resolve_index = options->resolve_index;
    memory_options.run_rows = options->run_rows;
    memory_options.seal_in_background = mode->in_background;
    int status = memtx__scope_parse(&memory_options.scope, &names, &memory_options.n_scope_names, options->scope,
                                    reading->store);
    memory_options.scope_names = names;
    if (!status) {
        status = memtx_memory_open(&reading->memory, reading->store, &memory_options);
    }
    memtx__free(names);
    return status;
}

/* ---- all three -------------------------------------------------------------------------------- */

static int open_stream(struct memtx__reading *reading, const memtx_model *model,
                       const struct memtx_reading_options *options, const struct memtx__reading_mode *mode)
{
    struct memtx_stream_options stream = memtx_stream_options_default();
    struct memtx_model_facts facts;
    float *bias;
    memtx_model_info(&facts, model);
    stream.mode = mode->mode;
    stream.window = options->window;
    stream.segment = options->segment;
    stream.sinks = options->sinks;
    stream.most_tokens = mode->most_tokens;
    stream.memory = reading->memory;
    stream.allow_stale = options->allow_stale;
    stream.state_segments = reading->keeps ? MEMTX__STATE_SEGMENTS : 0;
    stream.gate.mode = options->blend;
    int status = memtx__alloc(&bias, facts.n_heads, sizeof *bias);
    for (size_t h = 0; h < facts.n_heads && !status; h++) {
        bias[h] = options->bias;
    }
    stream.gate.bias = bias;
    if (!status) {
        status = memtx_stream_open(&reading->stream, model, &stream);
    }
    memtx__free(bias);
    return status;
}

int memtx__reading_open(struct memtx__reading *out, const memtx_model *model,
                        const struct memtx_reading_options *options, const struct memtx__reading_mode *mode)
{
    int status = MEMTX_OK;
    *out = (struct memtx__reading){0};
    if (mode->mode == MEMTX_MODE_MEMORY) {
        out->keeps = options->memory_path && !mode->random;
        status = open_store(out, model, options);
        if (!status) {
            status = open_memory(out, options, mode);
        }
    }
    return status ? status : open_stream(out, model, options, mode);
}

void memtx__reading_take_warning(char *warning, size_t size, const struct memtx__reading *reading)
{
    const char *more = reading->memory ? memtx_memory_warning(reading->memory) : "";
    const size_t n = strlen(warning);
    if (*more && !strstr(warning, more)) {
        (void)snprintf(warning + n, size - n, "%s%s", n ? "; " : "", more);
    }
}

int memtx__reading_close(struct memtx__reading *reading)
{
    memtx_stream_close(reading->stream);
    memtx_memory_close(reading->memory);
    int status = memtx_store_close(reading->store);
    reading->stream = NULL;
    reading->memory = NULL;
    reading->store = NULL;
    return status;
}
