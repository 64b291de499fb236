/* Options of reading and evaluating: defaults, and what they are called (memtx/reading.h, memtx/eval.h). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "eval/eval.h"

struct memtx_reading_options memtx_reading_options_default(void)
{
    return (struct memtx_reading_options){
        .window = 512, .segment = 512, .sinks = 4, .k = 32, .bias = NAN, .delta = MEMTX_DELTA_DEFAULT};
}

struct memtx_eval_options memtx_eval_options_default(void)
{
    return (struct memtx_eval_options){
        .modes = {{MEMTX_MODE_XL, false}, {MEMTX_MODE_SINKS, false}, {MEMTX_MODE_MEMORY, false}},
        .n_modes = 3,
        .reading = memtx_reading_options_default(),
    };
}

const char *memtx__eval_mode_name(struct memtx_eval_mode mode)
{
    return mode.random ? "memory-random" : memtx_mode_name(mode.mode);
}

/* Copies the next item of a comma-separated list, an empty one behind a last comma too; false at its end, which is a
 * *rest of NULL. */
static bool next_item(char *item, size_t size, const char **rest)
{
    const char *begin = *rest;
    if (!begin) {
        return false;
    }
    size_t n = strcspn(begin, ",");
    *rest = begin[n] == ',' ? begin + n + 1 : NULL;
    n = n < size - 1 ? n : size - 1;
    memcpy(item, begin, n);
    item[n] = '\0';
    return true;
}

int memtx_eval_parse_modes(struct memtx_eval_options *options, const char *text)
{
    char item[64];
    options->n_modes = 0;
    while (next_item(item, sizeof item, &text)) {
        struct memtx_eval_mode mode = {MEMTX_MODE_MEMORY, strcmp(item, "memory-random") == 0};
        if (!mode.random && memtx_mode_parse(&mode.mode, item)) {
            return memtx__fail(MEMTX_E_INVALID,
                               "mode '%s' is none of segment, window, xl, sinks, full, memory, memory-random", item);
        }
        for (size_t i = 0; i < options->n_modes; i++) {
            if (options->modes[i].mode == mode.mode && options->modes[i].random == mode.random) {
                return memtx__fail(MEMTX_E_INVALID, "mode %s is named twice", item);
            }
        }
        options->modes[options->n_modes++] = mode;
    }
    return options->n_modes ? MEMTX_OK : memtx__fail(MEMTX_E_INVALID, "no mode is named");
}

static int parse_layer(unsigned long *out, const char *text, const char **end, uint32_t n_layers)
{
    char *stop;
    *out = strtoul(text, &stop, 10);
    *end = stop;
    if (stop == text || *text < '0' || *text > '9' || *out >= n_layers) {
        return memtx__fail(MEMTX_E_INVALID, "layer '%s' is none of 0 to %u", text, n_layers - 1);
    }
    return MEMTX_OK;
}

int memtx_reading_parse_layers(uint64_t *heads_kept, const char *text, uint32_t n_layers, uint32_t n_kv_heads)
{
    char item[64];
    bool any = false;
    memset(heads_kept, 0, MEMTX_MAX_LAYERS * sizeof *heads_kept);
    while (next_item(item, sizeof item, &text)) {
        unsigned long first, last = n_layers - 1;
        const char *end;
        if (strcmp(item, "all") == 0) {
            first = 0;
        } else if (strcmp(item, "upper") == 0) {
            first = n_layers / 2;
        } else {
            int status = parse_layer(&first, item, &end, n_layers);
            last = first;
            if (!status && *end == '-') {
                status = parse_layer(&last, end + 1, &end, n_layers);
            }
            if (!status && (*end || last < first)) {
                status = memtx__fail(MEMTX_E_INVALID, "layers '%s': not a number or a range such as 15-29", item);
            }
            if (status) {
                return status;
            }
        }
        for (unsigned long layer = first; layer <= last; layer++) {
            heads_kept[layer] = UINT64_MAX >> (MEMTX_MAX_KV_HEADS - n_kv_heads);
            any = true;
        }
    }
    return any ? MEMTX_OK : memtx__fail(MEMTX_E_INVALID, "no layer is named");
}
