/* The runs of an evaluation (memtx/eval.h): every mode reads the same tokens of the same texts, and scores the same of
 * them; the first token of a document is never scored. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/status.h"
#include "eval/eval.h"

/* One mode on its way. */
struct run {
    memtx_eval *eval;
    struct memtx_eval_result *result;
    float *nll;
    size_t index;       /* of the mode */
    memtx_store *store; /* NULL but for memory */
    memtx_memory *memory;
    memtx_stream *stream;
    double total_nll;
    size_t n_done; /* tokens run through the model */
    double seconds;
};

static double now(void)
{
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* ---- texts ------------------------------------------------------------------------------------ */

static int prepend_bos(struct memtx__eval_document *document, uint32_t bos)
{
    uint32_t *tokens;
    int status = memtx__alloc(&tokens, document->n_tokens + 1, sizeof *tokens);
    if (status) {
        return status;
    }
    tokens[0] = bos;
    if (document->n_tokens) {
        memcpy(tokens + 1, document->tokens, document->n_tokens * sizeof *tokens);
    }
    memtx_tokens_free(document->tokens);
    document->tokens = tokens;
    document->n_tokens++;
    return MEMTX_OK;
}

static int read_text(struct memtx__eval_document *out, const memtx_eval *eval, const memtx_tokenizer *tokenizer,
                     const struct memtx_eval_text *text)
{
    const struct memtx_eval_options *options = &eval->options;
    const uint32_t bos = memtx_tokenizer_bos(tokenizer);
    XXH128_canonical_t hash;
    (void)snprintf(out->name, sizeof out->name, "%s", text->name);
    XXH128_canonicalFromHash(&hash, XXH3_128bits(text->bytes, text->n_bytes));
    memcpy(out->hash, hash.digest, sizeof out->hash);
    int status = memtx_tokenizer_encode(&out->tokens, &out->n_tokens, tokenizer, text->bytes, text->n_bytes);
    if (!status && bos != MEMTX_NO_TOKEN) {
        status = prepend_bos(out, bos);
    }
    if (status) {
        return status;
    }
    if (options->n_tokens && out->n_tokens > options->n_tokens) {
        out->n_tokens = (size_t)options->n_tokens;
    }
    out->first_scored = options->n_skipped > 1 ? (size_t)options->n_skipped : 1;
    if (out->n_tokens <= out->first_scored) {
        return memtx__fail(MEMTX_E_INVALID, "%s: %zu token%s, nothing to score%s", text->name, out->n_tokens,
                           out->n_tokens == 1 ? "" : "s",
                           out->first_scored > 1 ? " after those skipped (lower --skip)" : " (the first never is)");
    }
    return MEMTX_OK;
}

/* Bytes and words of the first n_scored tokens that are scored. A word ends at white space as ASCII knows it. */
static void count_text(uint64_t *n_bytes, uint64_t *n_words, const memtx_eval *eval, const memtx_tokenizer *tokenizer,
                       uint64_t n_scored)
{
    *n_bytes = *n_words = 0;
    for (size_t d = 0; d < eval->n_documents; d++) {
        const struct memtx__eval_document *document = &eval->documents[d];
        bool in_word = false;
        for (size_t i = document->first_scored; i < document->n_tokens && n_scored > 0; i++, n_scored--) {
            struct memtx_text text = memtx_tokenizer_token(tokenizer, document->tokens[i]);
            *n_bytes += text.n_bytes;
            for (size_t byte = 0; byte < text.n_bytes; byte++) {
                bool space = memchr(" \t\n\v\f\r", text.bytes[byte], 6) != NULL;
                *n_words += !space && !in_word;
                in_word = !space;
            }
        }
    }
}

static int read_texts(memtx_eval *eval, const memtx_model *model, const struct memtx_eval_text *texts, size_t n_texts)
{
    const memtx_tokenizer *tokenizer = memtx_model_tokenizer(model);
    int status = memtx__alloc(&eval->documents, n_texts, sizeof *eval->documents);
    for (size_t i = 0; i < n_texts && !status; i++) {
        struct memtx__eval_document *document = &eval->documents[eval->n_documents++];
        status = read_text(document, eval, tokenizer, &texts[i]);
        document->first_nll = eval->n_scored;
        eval->n_scored += status ? 0 : document->n_tokens - document->first_scored;
    }
    if (!status) {
        count_text(&eval->n_bytes, &eval->n_words, eval, tokenizer, eval->n_scored);
    }
    return status;
}

/* Before anything long begins: a text that mode full cannot hold. */
static int check_full(const memtx_eval *eval)
{
    for (size_t m = 0; m < eval->options.n_modes; m++) {
        for (size_t d = 0; d < eval->n_documents && eval->options.modes[m].mode == MEMTX_MODE_FULL; d++) {
            if (eval->documents[d].n_tokens > eval->model.context) {
                return memtx__fail(MEMTX_E_CONTEXT,
                                   "mode full: %s has %zu tokens, the model's context is %u (use --tokens %u, or leave "
                                   "out full)",
                                   eval->documents[d].name, eval->documents[d].n_tokens, eval->model.context,
                                   eval->model.context);
            }
        }
    }
    return MEMTX_OK;
}

/* ---- one mode --------------------------------------------------------------------------------- */

static const char *temporary_path(const struct memtx_eval_options *options)
{
    const char *path = options->temporary_path ? options->temporary_path : getenv("TMPDIR");
    return path && *path ? path : access("/var/tmp", W_OK) == 0 ? "/var/tmp" : "/tmp";
}

static int open_memory(struct run *run, const memtx_model *model, bool random)
{
    const struct memtx_eval_options *options = &run->eval->options;
    const bool given = options->memory_path && !random; /* random retrieval writes to no store that was given */
    struct memtx_store_options store_options = memtx_store_options_default();
    struct memtx_memory_options memory_options = memtx_memory_options_default();
    struct memtx_store_spec spec;
    struct memtx_store_facts facts;
    memtx_model_store_spec(&spec, model);
    spec.row_type = options->row_type;
    for (uint32_t layer = 0; layer < MEMTX_MAX_LAYERS; layer++) {
        if (options->layers[layer]) {
            memtx_store_keep_layer(&spec, layer);
        }
    }
    memtx__eval_settings(spec.settings, sizeof spec.settings, options, &run->eval->model);
    store_options.temporary = !given;
    store_options.durability = options->durability;
    store_options.capacity_rows = options->capacity_rows;
    int status =
        memtx_store_open(&run->store, given ? options->memory_path : temporary_path(options), &spec, &store_options);
    if (status) {
        return status;
    }
    memtx_store_info(&facts, run->store);
    if (strcmp(facts.spec.settings, spec.settings) != 0) {
        (void)snprintf(run->eval->warning, sizeof run->eval->warning, "%.512s was written with %s; now %s",
                       options->memory_path, facts.spec.settings, spec.settings);
    }
    memory_options.k = options->k;
    memory_options.delta = options->delta;
    memory_options.positions = options->positions;
    memory_options.retrieval = random ? MEMTX_RETRIEVAL_RANDOM : MEMTX_RETRIEVAL_EXACT;
    memory_options.lambda = options->lambda;
    memory_options.most_tokens = options->segment;
    memory_options.seed = options->seed;
    return memtx_memory_open(&run->memory, run->store, &memory_options);
}

static int open_stream(struct run *run, const memtx_model *model, struct memtx_eval_mode mode)
{
    const struct memtx_eval_options *options = &run->eval->options;
    struct memtx_stream_options stream = memtx_stream_options_default();
    float *bias = NULL;
    int status = MEMTX_OK;
    stream.mode = mode.mode;
    stream.window = options->window;
    stream.segment = options->segment;
    stream.sinks = options->sinks;
    stream.gate.mode = options->blend;
    for (size_t d = 0; d < run->eval->n_documents && mode.mode == MEMTX_MODE_FULL; d++) {
        uint32_t n = (uint32_t)run->eval->documents[d].n_tokens;
        stream.most_tokens = n > stream.most_tokens ? n : stream.most_tokens;
    }
    if (mode.mode == MEMTX_MODE_MEMORY) {
        status = open_memory(run, model, mode.random);
        stream.memory = run->memory;
    }
    if (!status) {
        status = memtx__alloc(&bias, run->eval->model.n_heads, sizeof *bias);
    }
    for (size_t h = 0; h < run->eval->model.n_heads && !status; h++) {
        bias[h] = options->bias;
    }
    stream.gate.bias = bias;
    if (!status) {
        status = memtx_stream_open(&run->stream, model, &stream);
    }
    memtx__free(bias);
    return status;
}

static int report_progress(const struct run *run)
{
    const memtx_eval *eval = run->eval;
    size_t n_all = 0;
    for (size_t d = 0; d < eval->n_documents; d++) {
        n_all += eval->documents[d].n_tokens;
    }
    struct memtx_eval_progress progress = {
        .mode = run->result->mode,
        .mode_index = run->index,
        .n_modes = eval->options.n_modes,
        .n_tokens = run->n_done,
        .n_all_tokens = n_all,
        .n_total_tokens = run->index * n_all + run->n_done,
        .n_all_total_tokens = eval->options.n_modes * n_all,
        .seconds = run->seconds,
        .nll = run->result->n_tokens ? run->total_nll / (double)run->result->n_tokens : (double)NAN,
    };
    return eval->options.progress && eval->options.progress(eval->options.progress_context, &progress)
               ? memtx__fail(MEMTX_E_INTERRUPTED, "interrupted in mode %s after %zu of %zu tokens", run->result->mode,
                             run->n_done, n_all)
               : MEMTX_OK;
}

/* Tokens first .. first + n - 1 of a document, and the score of those behind them. */
static int run_segment(struct run *run, const struct memtx__eval_document *document, size_t first, size_t n)
{
    const float *hidden;
    const double start = now();
    struct memtx__usage usage;
    int status = memtx_model_forward_segment(&hidden, run->stream, document->tokens + first, n);
    if (status) {
        return status;
    }
    /* Row i predicts token first + i + 1: score those that are there and not skipped. */
    const size_t end = first + n < document->n_tokens ? first + n + 1 : document->n_tokens;
    const size_t begin = first + 1 > document->first_scored ? first + 1 : document->first_scored;
    if (begin < end) {
        float *nll = run->nll + run->result->n_tokens;
        status = memtx_model_nll(nll, run->stream, begin - 1 - first, end - begin, document->tokens + begin);
        for (size_t i = 0; i < end - begin && !status; i++) {
            run->total_nll += (double)nll[i];
        }
        run->result->n_tokens += status ? 0 : end - begin;
    }
    run->n_done += n;
    run->seconds += now() - start;
    memtx__usage_read(&usage);
    run->result->peak_rss_bytes = usage.peak_rss_bytes;
    if (usage.anon_bytes > run->result->peak_anon_bytes) {
        run->result->peak_anon_bytes = usage.anon_bytes;
    }
    return status ? status : report_progress(run);
}

static int run_document(struct run *run, const struct memtx__eval_document *document)
{
    const size_t segment = run->eval->options.segment;
    int status = memtx_model_begin_document(run->stream, document->name);
    for (size_t first = 0; first < document->n_tokens && !status; first += segment) {
        size_t n = document->n_tokens - first < segment ? document->n_tokens - first : segment;
        status = run_segment(run, document, first, n);
    }
    return status ? status : memtx_model_end_document(run->stream);
}

static void finish_result(struct run *run, const memtx_model *model)
{
    struct memtx_eval_result *result = run->result;
    uint64_t n_bytes, n_words;
    count_text(&n_bytes, &n_words, run->eval, memtx_model_tokenizer(model), result->n_tokens);
    result->nll = result->n_tokens ? run->total_nll / (double)result->n_tokens : (double)NAN;
    result->ppl = exp(result->nll);
    result->bits_per_byte = n_bytes ? run->total_nll / log(2.0) / (double)n_bytes : (double)NAN;
    result->word_ppl = n_words ? exp(run->total_nll / (double)n_words) : (double)NAN;
    result->tokens_per_s = run->seconds > 0 ? (double)run->n_done / run->seconds : 0.0;
    if (run->store) {
        struct memtx_store_facts facts;
        memtx_store_info(&facts, run->store);
        result->memory_rows = facts.n_rows - facts.first_row;
        result->store_bytes = facts.disk_bytes;
    }
}

static int close_run(struct run *run)
{
    memtx_stream_close(run->stream);
    memtx_memory_close(run->memory);
    return memtx_store_close(run->store);
}

/* Opens every mode once before the first is run: what is wrong with the third is not told after two have been read. */
static int try_modes(memtx_eval *eval, const memtx_model *model)
{
    int status = MEMTX_OK;
    for (size_t m = 0; m < eval->options.n_modes && !status; m++) {
        struct run run = {.eval = eval, .result = &eval->results[m], .index = m};
        status = open_stream(&run, model, eval->options.modes[m]);
        int closed = close_run(&run);
        status = status ? status : closed;
    }
    return status;
}

static int run_mode(memtx_eval *eval, const memtx_model *model, size_t index)
{
    struct run run = {.eval = eval, .result = &eval->results[index], .index = index};
    const struct memtx_eval_mode mode = eval->options.modes[index];
    (void)snprintf(run.result->mode, sizeof run.result->mode, "%s", memtx__eval_mode_name(mode));
    memtx__usage_begin();
    int status = memtx__alloc(&eval->nll[index], eval->n_scored, sizeof **eval->nll);
    run.nll = eval->nll[index];
    if (!status) {
        status = open_stream(&run, model, mode);
    }
    for (size_t d = 0; d < eval->n_documents && !status; d++) {
        status = run_document(&run, &eval->documents[d]);
    }
    run.result->complete = !status;
    if (!status || status == MEMTX_E_INTERRUPTED || run.result->n_tokens) {
        finish_result(&run, model);
        eval->n_results++;
    }
    int closed = close_run(&run);
    return status ? status : closed;
}

/* Everything that can be wrong before the first token is run. */
static int prepare(memtx_eval *eval, const memtx_model *model, const struct memtx_eval_text *texts, size_t n_texts)
{
    if (n_texts < 1) {
        return memtx__fail(MEMTX_E_INVALID, "no text to read");
    }
    int status = memtx__eval_resolve(&eval->options, &eval->model);
    if (!status && eval->options.memory_path) {
        status = memtx__copy_text(&eval->memory_path, eval->options.memory_path);
        eval->options.memory_path = eval->memory_path;
    }
    if (!status) {
        status = memtx__copy_text(&eval->model_path, eval->model.path);
    }
    if (!status) {
        status = read_texts(eval, model, texts, n_texts);
    }
    if (!status) {
        status = check_full(eval);
    }
    return status ? status : try_modes(eval, model);
}

int memtx_eval_run(memtx_eval **out, const memtx_model *model, const struct memtx_eval_options *options,
                   const struct memtx_eval_text *texts, size_t n_texts)
{
    memtx_eval *eval;
    *out = NULL;
    int status = memtx__alloc(&eval, 1, sizeof *eval);
    if (status) {
        return status;
    }
    eval->options = *options;
    eval->n_threads = (uint32_t)omp_get_max_threads();
    memtx_model_info(&eval->model, model);
    status = prepare(eval, model, texts, n_texts);
    for (size_t m = 0; m < eval->options.n_modes && !status; m++) {
        status = run_mode(eval, model, m);
    }
    if (eval->n_results) {
        int paired = memtx__paired_all(eval);
        status = status ? status : paired;
    } else if (status != MEMTX_E_INTERRUPTED) {
        memtx_eval_destroy(eval);
        return status;
    }
    *out = eval;
    return status;
}

void memtx_eval_destroy(memtx_eval *eval)
{
    if (!eval) {
        return;
    }
    for (size_t i = 0; i < eval->n_documents; i++) {
        memtx_tokens_free(eval->documents[i].tokens);
    }
    for (size_t i = 0; i < MEMTX_EVAL_MOST_MODES; i++) {
        memtx__free(eval->nll[i]);
    }
    memtx__free(eval->documents);
    memtx__free(eval->memory_path);
    memtx__free(eval->model_path);
    memtx__free(eval);
}

/* ---- what came out ---------------------------------------------------------------------------- */

size_t memtx_eval_n_results(const memtx_eval *eval)
{
    return eval->n_results;
}

const struct memtx_eval_result *memtx_eval_result_at(const memtx_eval *eval, size_t i)
{
    return i < eval->n_results ? &eval->results[i] : NULL;
}

size_t memtx_eval_n_pairs(const memtx_eval *eval)
{
    return eval->n_pairs;
}

const struct memtx_eval_pair *memtx_eval_pair_at(const memtx_eval *eval, size_t i)
{
    return i < eval->n_pairs ? &eval->pairs[i] : NULL;
}

const float *memtx_eval_nll(size_t *n_out, const memtx_eval *eval, size_t i)
{
    *n_out = i < eval->n_results ? (size_t)eval->results[i].n_tokens : 0;
    return i < eval->n_results ? eval->nll[i] : NULL;
}

const char *memtx_eval_warning(const memtx_eval *eval)
{
    return eval->warning;
}
