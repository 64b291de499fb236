/* Options, model and texts of the commands that read texts (reading.h). */
#include "reading.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "../index/indexes.h"

bool cli_is(const char *option, const char *name)
{
    return strcmp(option, name) == 0;
}

bool cli_set_u32(uint32_t *out, const char *option, const char *argument, uint64_t low, uint64_t high)
{
    uint64_t value;
    if (!cli_parse_count(&value, option, argument, low, high)) {
        return false;
    }
    *out = (uint32_t)value;
    return true;
}

static bool set_float(float *out, const char *option, const char *argument, double low, double high)
{
    double value;
    if (!cli_parse_number(&value, option, argument, low, high)) {
        return false;
    }
    *out = (float)value;
    return true;
}

bool cli_set_word(int *out, const char *option, const char *argument, const char *zero, const char *one)
{
    if (strcmp(argument, zero) != 0 && strcmp(argument, one) != 0) {
        (void)cli_fail(EXIT_USAGE, "--%s %s: not %s or %s", option, argument, zero, one);
        return false;
    }
    *out = strcmp(argument, one) == 0;
    return true;
}

bool cli_check_parsed(const char *option, int status)
{
    if (status) {
        (void)cli_fail(EXIT_USAGE, "--%s: %s", option, memtx_last_error());
    }
    return !status;
}

/* How a search looks, and what it sees. */
static bool take_search_option(struct cli_reading *reading, const char *name, const char *argument)
{
    struct memtx_reading_options *o = reading->options;
    int word = 0;
    bool good = true;
    if (cli_is(name, "layers")) {
        reading->layers = argument;
    } else if (cli_is(name, "k")) {
        good = cli_set_u32(&o->k, name, argument, 1, 4096);
    } else if (cli_is(name, "blend")) {
        good = cli_check_parsed(name, memtx_blend_parse(&o->blend, argument));
    } else if (cli_is(name, "bias")) {
        reading->bias_given = good = set_float(&o->bias, name, argument, -1000, 1000);
    } else if (cli_is(name, "delta")) {
        good = cli_set_u32(&o->delta, name, argument, 0, 1 << 20);
    } else if (cli_is(name, "positions")) {
        good = cli_set_word(&word, name, argument, "near", "fixed");
        o->positions = word ? MEMTX_POSITIONS_FIXED : MEMTX_POSITIONS_NEAR;
    } else if (cli_is(name, "lambda")) {
        good = set_float(&o->lambda, name, argument, 0, 1e6);
    } else if (cli_is(name, "index")) {
        o->index = argument;
    } else if (cli_is(name, "run-rows")) {
        good = cli_parse_count(&o->run_rows, name, argument, 1, UINT64_C(1) << 32);
    } else if (cli_is(name, "scope")) {
        o->scope = argument;
    } else if (cli_is(name, "allow-seen")) {
        o->allow_seen = true;
    }
    return good;
}

/* What the store is. */
static bool take_store_option(struct cli_reading *reading, const char *name, const char *argument)
{
    struct memtx_reading_options *o = reading->options;
    int word = 0;
    bool good = true;
    if (cli_is(name, "memory")) {
        o->memory_path = argument;
    } else if (cli_is(name, "allow-stale")) {
        o->allow_stale = true;
    } else if (cli_is(name, "capacity")) {
        good = cli_parse_count(&o->capacity_rows, name, argument, 1, UINT64_C(1) << 48);
    } else if (cli_is(name, "store-type")) {
        good = cli_check_parsed(name, memtx_row_type_parse(&o->row_type, argument));
    } else if (cli_is(name, "durability")) {
        good = cli_set_word(&word, name, argument, "group", "full");
        o->durability = word ? MEMTX_DURABILITY_FULL : MEMTX_DURABILITY_GROUP;
    } else {
        good = take_search_option(reading, name, argument);
    }
    return good;
}

void cli_begin_reading(struct cli_reading *reading, struct memtx_reading_options *options)
{
    *reading = (struct cli_reading){.options = options};
    options->resolve_index = memtx_index_resolve;
}

bool cli_take_reading_option(struct cli_reading *reading, const char *name, const char *argument)
{
    struct memtx_reading_options *o = reading->options;
    int word = 0;
    bool good = true;
    if (cli_is(name, "window")) {
        good = cli_set_u32(&o->window, name, argument, 0, 1 << 20);
    } else if (cli_is(name, "segment")) {
        good = cli_set_u32(&o->segment, name, argument, 1, 1 << 16);
    } else if (cli_is(name, "sinks")) {
        good = cli_set_u32(&o->sinks, name, argument, 0, 1 << 16);
    } else if (cli_is(name, "tokens")) {
        good = cli_parse_count(&o->n_tokens, name, argument, 1, UINT64_C(1) << 48);
    } else if (cli_is(name, "weights")) {
        good = cli_set_word(&word, name, argument, "f32", "bf16");
        reading->weights = word ? MEMTX_WEIGHTS_BF16 : MEMTX_WEIGHTS_F32;
    } else if (cli_is(name, "threads")) {
        good = cli_parse_count(&reading->n_threads, name, argument, 1, 1024);
    } else {
        good = take_store_option(reading, name, argument);
    }
    return good;
}

bool cli_check_reading(const struct cli_reading *reading)
{
    const enum memtx_blend_mode blend = reading->options->blend;
    const bool good = !reading->bias_given || (blend != MEMTX_BLEND_JOINT && blend != MEMTX_BLEND_OFF);
    if (!good) {
        (void)cli_fail(EXIT_USAGE, "--bias has no effect with --blend %s (use --blend bias)", memtx_blend_name(blend));
    }
    return good;
}

memtx_model *cli_load_model(int *exit_code, const char *command, struct cli_reading *reading, const char *path)
{
    memtx_model *model;
    struct memtx_model_facts facts;
    if (reading->n_threads) {
        omp_set_num_threads((int)reading->n_threads);
    }
    cli_progress("loading %s", path);
    int status = memtx_model_load(&model, path, reading->weights);
    cli_progress_clear();
    if (status) {
        *exit_code = cli_fail_status(command, status);
        return NULL;
    }
    memtx_model_info(&facts, model);
    if (reading->layers &&
        !cli_check_parsed("layers", memtx_reading_parse_layers(reading->options->heads_kept, reading->layers,
                                                               facts.n_layers, facts.n_kv_heads))) {
        *exit_code = EXIT_USAGE;
        memtx_model_close(model);
        return NULL;
    }
    return model;
}

bool cli_read_texts(struct cli_texts *out, size_t n, char **paths)
{
    *out = (struct cli_texts){calloc(n, sizeof *out->texts), calloc(n, sizeof *out->files), n};
    if (!out->texts || !out->files) {
        (void)cli_fail(EXIT_FAILED, "out of memory");
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (!cli_read_text(&out->files[i], paths[i])) {
            return false;
        }
        out->texts[i] =
            (struct memtx_reading_text){cli_base_name(paths[i]), out->files[i].bytes, out->files[i].n_bytes};
    }
    return true;
}

void cli_free_texts(struct cli_texts *texts)
{
    for (size_t i = 0; texts->files && i < texts->n; i++) {
        cli_free_text(&texts->files[i]);
    }
    free(texts->files);
    free(texts->texts);
    *texts = (struct cli_texts){0};
}
