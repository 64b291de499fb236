/* What an evaluation shows: a table for people, JSON for programs (memtx/eval.h). */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/status.h"
#include "eval/eval.h"

enum { COUNT_BYTES = 32, BLOCK_TOKENS = 512 };

/* ---- the table -------------------------------------------------------------------------------- */

/* 16384 as "16,384". */
static const char *with_commas(char out[COUNT_BYTES], uint64_t n)
{
    char digits[COUNT_BYTES];
    int length = snprintf(digits, sizeof digits, "%llu", (unsigned long long)n), at = 0;
    for (int i = 0; i < length && at < COUNT_BYTES - 2; i++) {
        if (i && (length - i) % 3 == 0) {
            out[at++] = ',';
        }
        out[at++] = digits[i];
    }
    out[at] = '\0';
    return out;
}

static const char *as_size(char out[COUNT_BYTES], uint64_t n_bytes)
{
    if (n_bytes == 0) {
        (void)snprintf(out, COUNT_BYTES, "-");
    } else if (n_bytes >= (uint64_t)1 << 30) {
        (void)snprintf(out, COUNT_BYTES, "%.2f GiB", (double)n_bytes / 0x1p30);
    } else {
        (void)snprintf(out, COUNT_BYTES, "%.1f MiB", (double)n_bytes / 0x1p20);
    }
    return out;
}

/* A figure; the perplexity of a model without a clue can have more digits than the column. */
static const char *as_figure(char out[COUNT_BYTES], double value, int n_decimals)
{
    if (isfinite(value)) {
        (void)snprintf(out, COUNT_BYTES, value < 1e5 ? "%.*f" : "%.*e", n_decimals, value);
    } else { /* nothing scored, or no word in it */
        (void)snprintf(out, COUNT_BYTES, isnan(value) ? "-" : "inf");
    }
    return out;
}

static void print_pair(FILE *file, const struct memtx_eval_pair *pair)
{
    if (!pair->n_tokens) {
        (void)fprintf(file, "  %-13s - %-13s  (no token scored by both)\n", pair->a, pair->b);
        return;
    }
    (void)fprintf(file, "  %-13s - %-13s  %+.4f", pair->a, pair->b, pair->delta_nll);
    if (isnan(pair->stderr_512)) {
        (void)fprintf(file, "  (fewer than two blocks of 512 tokens: no standard error)\n");
        return;
    }
    (void)fprintf(file, " +- %.4f", pair->stderr_512);
    if (!isnan(pair->stderr_4096)) {
        (void)fprintf(file, " (blocks of 4,096: +- %.4f)", pair->stderr_4096);
    }
    (void)fputc('\n', file);
}

void memtx_eval_print(FILE *file, const memtx_eval *eval)
{
    char tokens[COUNT_BYTES], rows[COUNT_BYTES], disk[COUNT_BYTES], rss[COUNT_BYTES];
    char nll[COUNT_BYTES], ppl[COUNT_BYTES], bits[COUNT_BYTES], word_ppl[COUNT_BYTES];
    (void)fprintf(file, "%-14s%10s%9s%10s%11s%10s%10s%13s%12s%12s\n", "mode", "tokens", "nll", "ppl", "bits/byte",
                  "word ppl", "tokens/s", "memory rows", "on disk", "peak RSS");
    for (size_t i = 0; i < eval->n_results; i++) {
        const struct memtx_eval_result *r = &eval->results[i];
        (void)fprintf(file, "%-14s%10s%9s%10s%11s%10s%10.0f%13s%12s%12s%s\n", r->mode, with_commas(tokens, r->n_tokens),
                      as_figure(nll, r->nll, 4), as_figure(ppl, r->ppl, 3), as_figure(bits, r->bits_per_byte, 4),
                      as_figure(word_ppl, r->word_ppl, 2), r->tokens_per_s,
                      r->memory_rows ? with_commas(rows, r->memory_rows) : "-", as_size(disk, r->store_bytes),
                      as_size(rss, r->peak_rss_bytes), r->complete ? "" : "  (broken off)");
    }
    if (eval->n_pairs) {
        (void)fprintf(file,
                      "\npaired differences in nll, nats per token, +- standard error over blocks of 512 tokens\n");
    }
    for (size_t i = 0; i < eval->n_pairs; i++) {
        print_pair(file, &eval->pairs[i]);
    }
}

/* ---- JSON ------------------------------------------------------------------------------------- */

/* Bytes of the UTF-8 character that a text begins with; 0: it is none. A terminating zero stops every walk. */
static size_t character_bytes(const unsigned char *c)
{
    static const unsigned char first_low[] = {0xC2, 0xE0, 0xF0}, first_high[] = {0xDF, 0xEF, 0xF4};
    if (*c < 0x80) {
        return 1;
    }
    for (size_t more = 1; more <= 3; more++) {
        if (*c < first_low[more - 1] || *c > first_high[more - 1]) {
            continue;
        }
        const unsigned char low = *c == 0xE0 ? 0xA0 : *c == 0xF0 ? 0x90 : 0x80; /* no longer than need be */
        const unsigned char high = *c == 0xED   ? 0x9F
                                   : *c == 0xF4 ? 0x8F
                                                : 0xBF; /* no surrogates, nothing past 10FFFF */
        bool good = c[1] >= low && c[1] <= high;
        for (size_t i = 2; i <= more && good; i++) {
            good = (c[i] & 0xC0) == 0x80;
        }
        return good ? more + 1 : 0;
    }
    return 0;
}

/* Names of files are bytes, JSON is UTF-8: what is none becomes U+FFFD. */
static void put_text(FILE *file, const char *text)
{
    (void)fputc('"', file);
    for (const unsigned char *c = (const unsigned char *)text; *c;) {
        const size_t n = character_bytes(c);
        if (*c == '"' || *c == '\\') {
            (void)fprintf(file, "\\%c", *c);
        } else if (*c < 0x20 || *c == 0x7F) {
            (void)fprintf(file, "\\u%04x", *c);
        } else if (n) {
            (void)fwrite(c, 1, n, file);
        } else {
            (void)fputs("\\ufffd", file);
        }
        c += n ? n : 1;
    }
    (void)fputc('"', file);
}

/* JSON knows no NaN: null. */
static void put_number(FILE *file, const char *name, double value)
{
    if (isfinite(value)) {
        (void)fprintf(file, ", \"%s\": %.9g", name, value);
    } else {
        (void)fprintf(file, ", \"%s\": null", name);
    }
}

static void put_count(FILE *file, const char *name, uint64_t value)
{
    (void)fprintf(file, ", \"%s\": %llu", name, (unsigned long long)value);
}

static void put_named_text(FILE *file, const char *name, const char *text)
{
    (void)fprintf(file, ", \"%s\": ", name);
    if (text) {
        put_text(file, text);
    } else {
        (void)fputs("null", file);
    }
}

static void put_options(FILE *file, const memtx_eval *eval)
{
    const struct memtx_eval_options *o = &eval->options;
    const struct memtx_reading_options *r = &o->reading;
    const char *separator = "";
    (void)fputs("{\"modes\": [", file);
    for (size_t i = 0; i < o->n_modes; i++) {
        (void)fprintf(file, "%s\"%s\"", i ? ", " : "", memtx__eval_mode_name(o->modes[i]));
    }
    (void)fputs("], \"layers\": [", file);
    for (size_t layer = 0; layer < eval->model.n_layers; layer++) {
        if (r->heads_kept[layer]) {
            (void)fprintf(file, "%s%zu", separator, layer);
            separator = ", ";
        }
    }
    (void)fputc(']', file);
    put_count(file, "window", r->window);
    put_count(file, "segment", r->segment);
    put_count(file, "sinks", r->sinks);
    put_named_text(file, "memory", r->memory_path);
    put_named_text(file, "index", r->index);
    put_named_text(file, "scope", r->scope ? r->scope : "this");
    put_named_text(file, "continue", o->continued);
    put_count(file, "k", r->k);
    put_named_text(file, "blend", memtx_blend_name(r->blend));
    put_number(file, "bias", (double)r->bias);
    put_count(file, "delta", r->delta);
    put_named_text(file, "positions", r->positions == MEMTX_POSITIONS_FIXED ? "fixed" : "near");
    put_number(file, "lambda", (double)r->lambda);
    put_count(file, "capacity", r->capacity_rows);
    put_named_text(file, "store_type", memtx_row_type_name(r->row_type));
    put_named_text(file, "durability", r->durability == MEMTX_DURABILITY_FULL ? "full" : "group");
    put_named_text(file, "weights", eval->model.weights == MEMTX_WEIGHTS_BF16 ? "bf16" : "f32");
    put_count(file, "tokens", r->n_tokens);
    put_count(file, "skip", o->n_skipped);
    put_count(file, "threads", eval->n_threads);
    put_count(file, "seed", o->seed);
    (void)fputc('}', file);
}

static void put_model(FILE *file, const memtx_eval *eval)
{
    const struct memtx_model_facts *m = &eval->model;
    (void)fputs("{\"name\": ", file);
    put_text(file, m->name);
    put_named_text(file, "path", eval->model_path);
    put_named_text(file, "architecture", m->architecture);
    put_count(file, "layers", m->n_layers);
    put_count(file, "heads", m->n_heads);
    put_count(file, "kv_heads", m->n_kv_heads);
    put_count(file, "head_size", m->head_size);
    put_count(file, "context", m->context);
    put_count(file, "weight_bytes", m->weight_bytes);
    (void)fputs(", \"fingerprint\": \"", file);
    for (size_t i = 0; i < sizeof m->fingerprint; i++) {
        (void)fprintf(file, "%02x", m->fingerprint[i]);
    }
    (void)fputs("\"}", file);
}

/* The scores of document d in result r: nll[*first .. *end). */
static void score_range(size_t *first, size_t *end, const memtx_eval *eval, const struct memtx_eval_result *r, size_t d)
{
    *first = eval->documents[d].first_nll;
    *end = d + 1 < eval->n_documents ? eval->documents[d + 1].first_nll : eval->n_scored;
    *end = *end < r->n_tokens ? *end : (size_t)r->n_tokens;
}

static double mean_of(const float *nll, size_t first, size_t end)
{
    double total = 0;
    for (size_t t = first; t < end; t++) {
        total += (double)nll[t];
    }
    return total / (double)(end - first);
}

/* Mean nll of each block of 512 scored tokens in order, a new one at each document: the blocks of the standard errors,
 * so that runs of different options can be paired. */
static void put_blocks(FILE *file, const memtx_eval *eval, size_t i)
{
    const char *separator = "";
    (void)fputs(", \"block_nll\": [", file);
    for (size_t d = 0; d < eval->n_documents; d++) {
        size_t first, end;
        score_range(&first, &end, eval, &eval->results[i], d);
        for (; first < end; first += BLOCK_TOKENS, separator = ", ") {
            size_t block_end = end - first < BLOCK_TOKENS ? end : first + BLOCK_TOKENS;
            (void)fprintf(file, "%s%.7g", separator, mean_of(eval->nll[i], first, block_end));
        }
    }
    (void)fputc(']', file);
}

static void put_result(FILE *file, const memtx_eval *eval, size_t i)
{
    const struct memtx_eval_result *r = &eval->results[i];
    (void)fputs("{\"mode\": ", file);
    put_text(file, r->mode);
    put_count(file, "tokens", r->n_tokens);
    put_number(file, "nll", r->nll);
    put_number(file, "nll_stderr", r->nll_stderr);
    put_number(file, "ppl", r->ppl);
    put_number(file, "bits_per_byte", r->bits_per_byte);
    put_number(file, "word_ppl", r->word_ppl);
    put_number(file, "tokens_per_s", r->tokens_per_s);
    put_count(file, "memory_rows", r->memory_rows);
    put_count(file, "store_bytes", r->store_bytes);
    put_count(file, "peak_rss_bytes", r->peak_rss_bytes);
    put_count(file, "peak_anon_bytes", r->peak_anon_bytes);
    (void)fprintf(file, ", \"complete\": %s, \"documents\": [", r->complete ? "true" : "false");
    for (size_t d = 0; d < eval->n_documents && eval->documents[d].first_nll < r->n_tokens; d++) {
        size_t first, end;
        score_range(&first, &end, eval, r, d);
        (void)fprintf(file, "%s{\"name\": ", d ? ", " : "");
        put_text(file, eval->documents[d].text.name);
        put_count(file, "tokens", end - first);
        put_number(file, "nll", mean_of(eval->nll[i], first, end));
        (void)fputc('}', file);
    }
    (void)fputc(']', file);
    put_blocks(file, eval, i);
    (void)fputc('}', file);
}

static void put_pair(FILE *file, const struct memtx_eval_pair *pair)
{
    (void)fputs("{\"a\": ", file);
    put_text(file, pair->a);
    put_named_text(file, "b", pair->b);
    put_count(file, "tokens", pair->n_tokens);
    put_number(file, "delta_nll", pair->delta_nll);
    put_number(file, "stderr", pair->stderr_512);
    put_number(file, "stderr_4096", pair->stderr_4096);
    (void)fputc('}', file);
}

int memtx_eval_print_json(FILE *file, const memtx_eval *eval)
{
    (void)fprintf(file, "{\"memtx\": \"%s\",\n \"options\": ", MEMTX_VERSION);
    put_options(file, eval);
    (void)fputs(",\n \"model\": ", file);
    put_model(file, eval);
    (void)fprintf(file, ",\n \"scored\": {\"tokens\": %zu, \"bytes\": %llu, \"words\": %llu}", eval->n_scored,
                  (unsigned long long)eval->n_bytes, (unsigned long long)eval->n_words);
    (void)fputs(",\n \"texts\": [", file);
    for (size_t d = 0; d < eval->n_documents; d++) {
        (void)fputs(d ? ", {\"name\": " : "{\"name\": ", file);
        put_text(file, eval->documents[d].text.name);
        put_count(file, "tokens", eval->documents[d].text.n_tokens);
        put_count(file, "first", eval->documents[d].first_run);
        (void)fputc('}', file);
    }
    (void)fputc(']', file);
    put_named_text(file, "note", *eval->warning ? eval->warning : NULL);
    (void)fputs(",\n \"runs\": [", file);
    for (size_t i = 0; i < eval->n_results; i++) {
        (void)fputs(i ? ",\n  " : "\n  ", file);
        put_result(file, eval, i);
    }
    (void)fputs("],\n \"pairs\": [", file);
    for (size_t i = 0; i < eval->n_pairs; i++) {
        (void)fputs(i ? ",\n  " : "\n  ", file);
        put_pair(file, &eval->pairs[i]);
    }
    (void)fputs("]}\n", file);
    return fflush(file) || ferror(file) ? memtx__fail(MEMTX_E_IO, "cannot write the JSON") : MEMTX_OK;
}

/* A pipe or a device is written to as it is. */
static int write_special(const char *path, const memtx_eval *eval)
{
    FILE *file = fopen(path, "w");
    if (!file) {
        return memtx__fail(memtx__errno_status(errno), "%s: cannot open: %s", path, strerror(errno));
    }
    int status = memtx_eval_print_json(file, eval);
    return fclose(file) && !status ? memtx__fail(MEMTX_E_IO, "%s: cannot write: %s", path, strerror(errno)) : status;
}

int memtx_eval_write_json(const char *path, const memtx_eval *eval)
{
    struct stat facts;
    if (stat(path, &facts) == 0 && !S_ISREG(facts.st_mode)) {
        return write_special(path, eval);
    }
    char *text = NULL;
    size_t n_bytes = 0;
    FILE *file = open_memstream(&text, &n_bytes);
    if (!file) {
        return memtx__fail(MEMTX_E_NO_MEMORY, "no memory for the JSON");
    }
    int status = memtx_eval_print_json(file, eval);
    (void)fclose(file);
    if (!status) {
        status = memtx__write_file(path, text, n_bytes);
    }
    free(text);
    return status;
}
