/* The runs of an evaluation (memtx/eval.h): every mode reads the same tokens of the same texts, and scores the same of
 * them; the first token of a document is never scored. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <time.h>

#include "base/alloc.h"
#include "base/status.h"
#include "eval/eval.h"

/* One mode on its way. */
struct run {
    memtx_eval *eval;
    struct memtx_eval_result *result;
    float *nll;
    size_t index; /* of the mode */
    struct memtx__reading reading;
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

/* Bytes and words of the first n_scored tokens that are scored. */
static void count_scored(uint64_t *n_bytes, uint64_t *n_words, const memtx_eval *eval, const memtx_model *model,
                         uint64_t n_scored)
{
    *n_bytes = *n_words = 0;
    for (size_t d = 0; d < eval->n_documents && n_scored > 0; d++) {
        const struct memtx__eval_document *document = &eval->documents[d];
        const size_t n_all = document->text.n_tokens - document->first_scored;
        const size_t n = n_all < n_scored ? n_all : (size_t)n_scored;
        uint64_t n_more_bytes, n_more_words;
        memtx__text_count(&n_more_bytes, &n_more_words, memtx_model_tokenizer(model),
                          document->text.tokens + document->first_scored, n);
        *n_bytes += n_more_bytes;
        *n_words += n_more_words;
        n_scored -= n;
    }
}

/* ---- one mode --------------------------------------------------------------------------------- */

static int report_progress(const struct run *run)
{
    const memtx_eval *eval = run->eval;
    size_t n_all = 0;
    for (size_t d = 0; d < eval->n_documents; d++) {
        n_all += eval->documents[d].text.n_tokens - eval->documents[d].first_run;
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

/* Scores those of tokens first .. end - 1 that are scored, as predicted from the rows of the last segment, of which row
 * 0 predicts token `first`. */
static int score(struct run *run, const struct memtx__eval_document *document, size_t first, size_t end)
{
    const size_t begin = first > document->first_scored ? first : document->first_scored;
    if (begin >= end) {
        return MEMTX_OK;
    }
    float *nll = run->nll + run->result->n_tokens;
    int status = memtx_model_nll(nll, run->reading.stream, begin - first, end - begin, document->text.tokens + begin);
    for (size_t i = 0; i < end - begin && !status; i++) {
        run->total_nll += (double)nll[i];
    }
    run->result->n_tokens += status ? 0 : end - begin;
    return status;
}

/* Tokens first .. first + n - 1 of a document, and the score of those behind them. */
static int run_segment(struct run *run, const struct memtx__eval_document *document, size_t first, size_t n)
{
    const float *hidden;
    const double start = now();
    struct memtx__usage usage;
    const size_t end = first + n < document->text.n_tokens ? first + n + 1 : document->text.n_tokens;
    int status = memtx_model_forward_segment(&hidden, run->reading.stream, document->text.tokens + first, n);
    if (!status) {
        status = score(run, document, first + 1, end);
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

/* Goes on where the document of the store stops; its last hidden row predicts the first token. */
static int go_on(struct run *run, const struct memtx__eval_document *document)
{
    const memtx_eval *eval = run->eval;
    const struct memtx__text *text = &document->text;
    memtx_stream *stream = run->reading.stream;
    int status = run->reading.memory
                     ? memtx_model_continue_document(stream, eval->options.continued, text->tokens, text->n_tokens)
                     : memtx_model_load_state(stream, eval->state, eval->n_state_bytes, text->tokens, text->n_tokens);
    if (!status && memtx_model_position(stream) != document->first_run) {
        status = memtx__fail(MEMTX_E_BUSY, "another process has gone on with '%s' meanwhile (run it again)",
                             eval->options.continued);
    }
    return status ? status : score(run, document, document->first_run, document->first_run + 1);
}

static int run_document(struct run *run, const struct memtx__eval_document *document)
{
    const size_t segment = run->eval->options.reading.segment, n_tokens = document->text.n_tokens;
    int status = run->eval->options.continued ? go_on(run, document)
                                              : memtx_model_begin_document(run->reading.stream, document->text.name);
    for (size_t first = document->first_run; first < n_tokens && !status; first += segment) {
        size_t n = n_tokens - first < segment ? n_tokens - first : segment;
        status = run_segment(run, document, first, n);
    }
    if (status == MEMTX_E_INTERRUPTED && run->reading.keeps) {
        int suspended = memtx_model_suspend(run->reading.stream);
        status = suspended ? suspended : status;
    }
    return status ? status : memtx_model_end_document(run->reading.stream);
}

static void finish_result(struct run *run, const memtx_model *model)
{
    struct memtx_eval_result *result = run->result;
    uint64_t n_bytes, n_words;
    count_scored(&n_bytes, &n_words, run->eval, model, result->n_tokens);
    result->nll = result->n_tokens ? run->total_nll / (double)result->n_tokens : (double)NAN;
    result->ppl = exp(result->nll);
    result->bits_per_byte = n_bytes ? run->total_nll / log(2.0) / (double)n_bytes : (double)NAN;
    result->word_ppl = n_words ? exp(run->total_nll / (double)n_words) : (double)NAN;
    result->tokens_per_s = run->seconds > 0 ? (double)run->n_done / run->seconds : 0.0;
    if (run->reading.store) {
        struct memtx_store_facts facts;
        memtx_store_info(&facts, run->reading.store);
        result->memory_rows = facts.n_visible_rows;
        result->store_bytes = facts.disk_bytes;
    }
}

static int run_mode(memtx_eval *eval, const memtx_model *model, size_t index)
{
    struct run run = {.eval = eval, .result = &eval->results[index], .index = index};
    (void)snprintf(run.result->mode, sizeof run.result->mode, "%s", memtx__eval_mode_name(eval->options.modes[index]));
    memtx__usage_begin();
    int status = memtx__alloc(&eval->nll[index], eval->n_scored, sizeof **eval->nll);
    run.nll = eval->nll[index];
    if (!status) {
        status = memtx__eval_open_mode(&run.reading, eval, model, index);
    }
    for (size_t d = 0; d < eval->n_documents && !status; d++) {
        status = run_document(&run, &eval->documents[d]);
    }
    run.result->complete = !status;
    if (!status || status == MEMTX_E_INTERRUPTED || run.result->n_tokens) {
        finish_result(&run, model);
        eval->n_results++;
    }
    memtx__reading_take_warning(eval->warning, sizeof eval->warning, &run.reading);
    int closed = memtx__reading_close(&run.reading);
    return status ? status : closed;
}

int memtx_eval_run(memtx_eval **out, const memtx_model *model, const struct memtx_eval_options *options,
                   const struct memtx_reading_text *texts, size_t n_texts)
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
    status = memtx__eval_prepare(eval, model, texts, n_texts);
    if (!status) {
        count_scored(&eval->n_bytes, &eval->n_words, eval, model, eval->n_scored);
    }
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
        memtx__text_release(&eval->documents[i].text);
    }
    for (size_t i = 0; i < MEMTX_EVAL_MOST_MODES; i++) {
        memtx__free(eval->nll[i]);
    }
    memtx__free(eval->documents);
    memtx_store_state_free(eval->state);
    memtx__free(eval->memory_path);
    memtx__free(eval->scope);
    memtx__free(eval->continued);
    memtx__free(eval->index);
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
