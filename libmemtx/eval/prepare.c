/* Before an evaluation's first token is run: everything that can be wrong with options, texts and the store that was
 * given (eval.h). */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/status.h"
#include "eval/eval.h"

static bool has_mode(const memtx_eval *eval, enum memtx_mode mode, bool random)
{
    for (size_t m = 0; m < eval->options.n_modes; m++) {
        if (eval->options.modes[m].mode == mode && eval->options.modes[m].random == random) {
            return true;
        }
    }
    return false;
}

/* ---- options ---------------------------------------------------------------------------------- */

static int keep_text(char **copy, const char **option)
{
    if (!*option) {
        return MEMTX_OK;
    }
    int status = memtx__copy_text(copy, *option);
    *option = *copy;
    return status;
}

/* Going on with a document: what can, and what must be there. */
static int check_continued(const memtx_eval *eval, size_t n_texts)
{
    const struct memtx_eval_options *options = &eval->options;
    if (!options->continued) {
        return MEMTX_OK;
    }
    if (!options->reading.memory_path || n_texts != 1) {
        return memtx__fail(MEMTX_E_INVALID, "going on with '%s' takes the store it is in, and one text (%zu are given)",
                           options->continued, n_texts);
    }
    for (size_t m = 0; m < options->n_modes; m++) {
        const struct memtx_eval_mode mode = options->modes[m];
        if (mode.random || (mode.mode != MEMTX_MODE_MEMORY && mode.mode != MEMTX_MODE_SINKS)) {
            return memtx__fail(MEMTX_E_INVALID, "mode %s cannot go on with a document (memory and sinks can)",
                               memtx__eval_mode_name(mode));
        }
    }
    return MEMTX_OK;
}

static int check_options(const memtx_eval *eval, size_t n_texts)
{
    const struct memtx_eval_options *options = &eval->options;
    const char *scope = options->reading.scope;
    if (n_texts < 1) {
        return memtx__fail(MEMTX_E_INVALID, "no text to read");
    }
    if (options->n_modes < 1 || options->n_modes > MEMTX_EVAL_MOST_MODES) {
        return memtx__fail(MEMTX_E_INVALID, "%zu modes, not 1 to %d", options->n_modes, MEMTX_EVAL_MOST_MODES);
    }
    if (scope && strcmp(scope, "this") != 0 && options->reading.memory_path &&
        has_mode(eval, MEMTX_MODE_MEMORY, true)) {
        return memtx__fail(MEMTX_E_INVALID,
                           "mode memory-random reads into a store of its own, and cannot see what scope "
                           "'%s' names (leave out one of the two)",
                           scope);
    }
    return check_continued(eval, n_texts);
}

/* ---- texts ------------------------------------------------------------------------------------ */

static int read_texts(memtx_eval *eval, const memtx_model *model, const struct memtx_reading_text *texts,
                      size_t n_texts)
{
    int status = memtx__alloc(&eval->documents, n_texts, sizeof *eval->documents);
    for (size_t i = 0; i < n_texts && !status; i++) {
        struct memtx__eval_document *document = &eval->documents[eval->n_documents++];
        status = memtx__text_read(&document->text, model, &texts[i], eval->options.reading.n_tokens);
    }
    return status;
}

/* A text that mode full cannot hold. */
static int check_full(const memtx_eval *eval)
{
    for (size_t d = 0; d < eval->n_documents && has_mode(eval, MEMTX_MODE_FULL, false); d++) {
        const struct memtx__text *text = &eval->documents[d].text;
        if (text->n_tokens > eval->model.context) {
            return memtx__fail(MEMTX_E_CONTEXT,
                               "mode full: %s has %zu tokens, the model's context is %u (use --tokens %u, or leave "
                               "out full)",
                               text->name, text->n_tokens, eval->model.context, eval->model.context);
        }
    }
    return MEMTX_OK;
}

/* Which tokens are scored: the first of a document never is, nor what was read before. */
static int set_scored(memtx_eval *eval)
{
    eval->n_scored = 0;
    for (size_t d = 0; d < eval->n_documents; d++) {
        struct memtx__eval_document *document = &eval->documents[d];
        const struct memtx__text *text = &document->text;
        size_t first = eval->options.n_skipped > 1 ? (size_t)eval->options.n_skipped : 1;
        first = first > document->first_run ? first : document->first_run;
        if (text->n_tokens <= first) {
            return memtx__fail(MEMTX_E_INVALID, "%s: %zu token%s, nothing to score%s", text->name, text->n_tokens,
                               text->n_tokens == 1 ? "" : "s",
                               document->first_run >= text->n_tokens ? " behind what the store holds of it"
                               : first > 1                           ? " after those skipped (lower --skip)"
                                                                     : " (the first never is)");
        }
        document->first_scored = first;
        document->first_nll = eval->n_scored;
        eval->n_scored += text->n_tokens - first;
    }
    return MEMTX_OK;
}

/* ---- the store that was given ----------------------------------------------------------------- */

/* The same text twice in one run, where one would find the other. */
static int refuse_twins(const memtx_eval *eval)
{
    const struct memtx_reading_options *options = &eval->options.reading;
    if (options->allow_seen || !options->scope || strcmp(options->scope, "all") != 0) {
        return MEMTX_OK;
    }
    for (size_t i = 0; i < eval->n_documents; i++) {
        for (size_t j = 0; j < i; j++) {
            const struct memtx__text *a = &eval->documents[i].text, *b = &eval->documents[j].text;
            if (a->n_tokens == b->n_tokens && memcmp(a->tokens, b->tokens, a->n_tokens * sizeof *a->tokens) == 0) {
                return memtx__fail(MEMTX_E_EXISTS,
                                   "%s and %s are the same text, and both in scope (leave one out, or "
                                   "--allow-seen)",
                                   b->name, a->name);
            }
        }
    }
    return MEMTX_OK;
}

static int take_state(memtx_eval *eval, memtx_store *store)
{
    struct memtx_document document;
    int status = memtx_store_document_named(&document, store, eval->options.continued);
    if (!status) {
        status = memtx_store_state(&eval->state, &eval->n_state_bytes, store, eval->options.continued);
    }
    if (!status) {
        eval->documents[0].first_run = (size_t)document.n_read;
    }
    return status;
}

static int look_at_store(memtx_eval *eval)
{
    struct memtx_eval_options *options = &eval->options;
    memtx_store *store;
    int status = memtx__reading_look(&store, &options->reading, &eval->model);
    if (!status && options->continued && !store) {
        status = memtx__fail(MEMTX_E_NOT_FOUND, "%s: there is no store", options->reading.memory_path);
    }
    for (size_t d = 0; d < eval->n_documents && store && !status && has_mode(eval, MEMTX_MODE_MEMORY, false); d++) {
        status = memtx__past_refuse(store, &options->reading, &eval->documents[d].text, options->continued);
    }
    if (!status && options->continued) {
        status = take_state(eval, store);
    }
    (void)memtx_store_close(store); /* read-only: nothing waits */
    return status ? status : refuse_twins(eval);
}

/* ---- all of it -------------------------------------------------------------------------------- */

int memtx__eval_open_mode(struct memtx__reading *out, const memtx_eval *eval, const memtx_model *model, size_t index)
{
    struct memtx__reading_mode mode = {.mode = eval->options.modes[index].mode,
                                       .random = eval->options.modes[index].random,
                                       .seed = eval->options.seed};
    for (size_t d = 0; d < eval->n_documents && mode.mode == MEMTX_MODE_FULL; d++) {
        uint32_t n = (uint32_t)eval->documents[d].text.n_tokens;
        mode.most_tokens = n > mode.most_tokens ? n : mode.most_tokens;
    }
    return memtx__reading_open(out, model, &eval->options.reading, &mode);
}

static int try_modes(memtx_eval *eval, const memtx_model *model)
{
    const struct memtx__text *text = &eval->documents[0].text;
    int status = MEMTX_OK;
    for (size_t m = 0; m < eval->options.n_modes && !status; m++) {
        struct memtx__reading reading;
        status = memtx__eval_open_mode(&reading, eval, model, m);
        if (!status && eval->state) {
            status =
                memtx_model_load_state(reading.stream, eval->state, eval->n_state_bytes, text->tokens, text->n_tokens);
        }
        if (*reading.warning) {
            (void)snprintf(eval->warning, sizeof eval->warning, "%s", reading.warning);
        }
        if (!status && !eval->index && *reading.index) {
            status = memtx__copy_text(&eval->index, reading.index);
            eval->options.reading.index = eval->index;
        }
        int closed = memtx__reading_close(&reading);
        status = status ? status : closed;
    }
    return status;
}

int memtx__eval_prepare(memtx_eval *eval, const memtx_model *model, const struct memtx_reading_text *texts,
                        size_t n_texts)
{
    struct memtx_eval_options *options = &eval->options;
    int status = check_options(eval, n_texts);
    if (!status) {
        status = keep_text(&eval->memory_path, &options->reading.memory_path);
    }
    if (!status) {
        status = keep_text(&eval->scope, &options->reading.scope);
    }
    if (!status) {
        status = keep_text(&eval->continued, &options->continued);
    }
    if (!status) {
        status = keep_text(&eval->index, &options->reading.index);
    }
    if (!status) {
        status = memtx__copy_text(&eval->model_path, eval->model.path);
    }
    if (!status) {
        status = read_texts(eval, model, texts, n_texts);
    }
    if (!status) {
        status = look_at_store(eval);
    }
    if (!status) {
        status = memtx__reading_resolve(&options->reading, &eval->model, "upper");
    }
    if (!status) {
        status = set_scored(eval);
    }
    if (!status) {
        status = check_full(eval);
    }
    return status ? status : try_modes(eval, model);
}
