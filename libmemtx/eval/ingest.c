/* Texts into a store (memtx/ingest.h). What is to be done with each text is planned first, against the store as it is;
 * then they are read in order, in one stream. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/status.h"
#include "eval/reading.h"
#include "memtx/ingest.h"

/* A text and what is to be done with it. */
struct plan {
    struct memtx__text text;
    size_t first;      /* token that is read first */
    bool is_held;      /* nothing is to be done */
    bool is_continued; /* the store has a document of this name */
};

struct ingest {
    const struct memtx_ingest_options *options;
    struct memtx_reading_options reading_options; /* resolved */
    struct memtx_ingest_report *report;
    struct memtx__reading reading;
    struct plan *plans;
    size_t n_plans;
    uint64_t n_done, n_all; /* tokens */
    double start;
};

struct memtx_ingest_options memtx_ingest_options_default(void)
{
    return (struct memtx_ingest_options){.reading = memtx_reading_options_default()};
}

static double now(void)
{
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* ---- planning --------------------------------------------------------------------------------- */

/* The document of the text's name is there. */
static int plan_continued(struct plan *plan, const struct memtx_document *document)
{
    const struct memtx__text *text = &plan->text;
    bool begins = false;
    int status = memtx__past_begins(&begins, document, text->tokens, text->n_all_tokens);
    if (status) {
        return status;
    }
    if (document->n_read == 0) {
        return memtx__fail(MEMTX_E_INVALID,
                           "document '%s' broke off and left no running state to go on from (remove it with memtx "
                           "store rm, or read under another --name)",
                           document->name);
    }
    if (!begins) {
        return memtx__fail(
            MEMTX_E_MISMATCH,
            "%s does not begin with the %llu tokens that were read as document '%s' (give the same text, "
            "or read it under another --name)",
            text->name, (unsigned long long)document->n_read, document->name);
    }
    plan->is_held = document->ended && document->n_read >= text->n_tokens;
    if (!plan->is_held && !document->state_bytes) {
        return memtx__fail(MEMTX_E_INVALID,
                           "document '%s' has no running state to go on from (remove it with memtx store rm, or read "
                           "under another --name)",
                           document->name);
    }
    if (!plan->is_held && document->n_read > text->n_tokens) {
        return memtx__fail(MEMTX_E_INVALID, "document '%s' was read up to token %llu, which is past --tokens %zu",
                           document->name, (unsigned long long)document->n_read, text->n_tokens);
    }
    plan->is_continued = true;
    plan->first = (size_t)document->n_read;
    return MEMTX_OK;
}

static int plan_text(struct ingest *ingest, size_t i, const memtx_store *store)
{
    struct plan *plan = &ingest->plans[i];
    struct memtx_ingest_result *result = &ingest->report->results[i];
    struct memtx_document document;
    int status = MEMTX_OK;
    if (store && memtx_store_document_named(&document, store, plan->text.name) == MEMTX_OK) {
        status = plan_continued(plan, &document);
    } else if (store && !ingest->reading_options.allow_seen) {
        status = memtx__past_find(&document, store, &plan->text);
        plan->is_held = !status && document.ended;
        status = status == MEMTX_E_NOT_FOUND ? MEMTX_OK : status;
    }
    if (!status && store && !plan->is_held) {
        status = memtx__past_refuse(store, &ingest->reading_options, &plan->text, plan->text.name);
    }
    *result = (struct memtx_ingest_result){.n_tokens = plan->first, .n_tokens_before = plan->first};
    (void)snprintf(result->name, sizeof result->name, "%s", plan->is_held ? document.name : plan->text.name);
    if (!status && plan->is_held) {
        result->outcome = MEMTX_INGEST_HELD;
        result->n_tokens = result->n_tokens_before = document.n_read;
    }
    return status;
}

/* Texts of one name would go on with each other, and the same text twice would be read twice. */
static int check_twins(const struct ingest *ingest)
{
    for (size_t i = 0; i < ingest->n_plans; i++) {
        for (size_t j = 0; j < i; j++) {
            const struct memtx__text *a = &ingest->plans[i].text, *b = &ingest->plans[j].text;
            if (strcmp(a->name, b->name) == 0) {
                return memtx__fail(MEMTX_E_INVALID, "two texts are called %s (read them one by one, with --name)",
                                   a->name);
            }
            if (!ingest->reading_options.allow_seen && a->n_tokens == b->n_tokens &&
                memcmp(a->tokens, b->tokens, a->n_tokens * sizeof *a->tokens) == 0) {
                return memtx__fail(MEMTX_E_EXISTS, "%s and %s are the same text (leave one out, or --allow-seen)",
                                   b->name, a->name);
            }
        }
    }
    return MEMTX_OK;
}

static int read_texts(struct ingest *ingest, const memtx_model *model, const struct memtx_reading_text *texts,
                      size_t n_texts)
{
    int status = memtx__alloc(&ingest->plans, n_texts, sizeof *ingest->plans);
    for (size_t i = 0; i < n_texts && !status; i++) {
        struct memtx__text *text = &ingest->plans[ingest->n_plans++].text;
        struct memtx_reading_text named = texts[i];
        named.name = ingest->options->name ? ingest->options->name : named.name;
        status = memtx__text_read(text, model, &named, ingest->reading_options.n_tokens);
        if (!status && text->n_tokens == 0) {
            status = memtx__fail(MEMTX_E_INVALID, "%s: an empty text", texts[i].name);
        }
    }
    return status;
}

static void take_facts(struct memtx_ingest_report *report, const memtx_store *store)
{
    memtx_store_info(&report->store, store);
    report->store.spec.rope_factors = NULL;
}

static int plan_all(struct ingest *ingest, const struct memtx_model_facts *model)
{
    memtx_store *store;
    int status = check_twins(ingest);
    if (status) {
        return status;
    }
    status = memtx__reading_look(&store, &ingest->reading_options, model);
    if (store) {
        take_facts(ingest->report, store);
    }
    for (size_t i = 0; i < ingest->n_plans && !status; i++) {
        struct plan *plan = &ingest->plans[i];
        status = plan_text(ingest, i, store);
        ingest->n_all += plan->is_held ? 0 : plan->text.n_tokens - plan->first;
    }
    (void)memtx_store_close(store); /* read-only: nothing waits */
    return status ? status : memtx__reading_resolve(&ingest->reading_options, model, "all");
}

/* ---- reading ---------------------------------------------------------------------------------- */

static struct memtx_ingest_progress progress_of(const struct ingest *ingest, size_t i)
{
    return (struct memtx_ingest_progress){
        .name = ingest->report->results[i].name,
        .text = i,
        .n_texts = ingest->n_plans,
        .n_tokens = ingest->n_done,
        .n_all_tokens = ingest->n_all,
        .seconds = now() - ingest->start,
    };
}

static int report_progress(const struct ingest *ingest, size_t i)
{
    const struct memtx_ingest_options *options = ingest->options;
    const struct memtx_ingest_progress progress = progress_of(ingest, i);
    return options->progress && options->progress(options->progress_context, &progress)
               ? memtx__fail(MEMTX_E_INTERRUPTED, "interrupted after %llu of %llu tokens (the same command goes on)",
                             (unsigned long long)ingest->n_done, (unsigned long long)ingest->n_all)
               : MEMTX_OK;
}

static int begin(struct ingest *ingest, size_t i)
{
    const struct plan *plan = &ingest->plans[i];
    struct memtx_ingest_result *result = &ingest->report->results[i];
    memtx_stream *stream = ingest->reading.stream;
    struct memtx_document document;
    int status = plan->is_continued ? memtx_model_continue_document(stream, plan->text.name, plan->text.tokens,
                                                                    plan->text.n_all_tokens)
                                    : memtx_model_begin_document(stream, plan->text.name);
    if (!status && memtx_model_position(stream) != plan->first) {
        status = memtx__fail(MEMTX_E_BUSY, "another process has gone on with '%s' meanwhile (run it again)",
                             plan->text.name);
    }
    if (!status) {
        status = memtx_memory_document(&document, ingest->reading.memory);
    }
    if (!status) {
        (void)snprintf(result->name, sizeof result->name, "%s", document.name);
    }
    return status;
}

static int read_segments(struct ingest *ingest, size_t i)
{
    const struct memtx__text *text = &ingest->plans[i].text;
    const size_t segment = ingest->reading_options.segment;
    int status = MEMTX_OK;
    for (size_t first = ingest->plans[i].first; first < text->n_tokens && !status;) {
        const size_t n = text->n_tokens - first < segment ? text->n_tokens - first : segment;
        const float *hidden;
        status = memtx_model_forward_segment(&hidden, ingest->reading.stream, text->tokens + first, n);
        if (!status) {
            first += n;
            ingest->n_done += n;
            ingest->report->results[i].n_tokens = first;
            status = report_progress(ingest, i);
        }
    }
    return status;
}

static int read_document(struct ingest *ingest, size_t i)
{
    struct memtx_ingest_result *result = &ingest->report->results[i];
    const double start = now();
    int status = begin(ingest, i);
    if (!status) {
        status = read_segments(ingest, i);
    }
    if (!status) {
        status = memtx_model_end_document(ingest->reading.stream);
        result->outcome = status ? MEMTX_INGEST_FAILED : MEMTX_INGEST_READ;
    } else if (status == MEMTX_E_INTERRUPTED) {
        int suspended = memtx_model_suspend(ingest->reading.stream);
        status = suspended ? suspended : status;
        result->outcome = suspended ? MEMTX_INGEST_FAILED : MEMTX_INGEST_STOPPED;
    } else {
        result->outcome = MEMTX_INGEST_FAILED;
    }
    result->seconds = now() - start;
    return status;
}

static int report_sealing(void *context, const struct memtx_store_progress *sealing)
{
    const struct ingest *ingest = context;
    struct memtx_ingest_progress progress = progress_of(ingest, ingest->n_plans - 1);
    progress.n_index_bytes = sealing->n_bytes;
    progress.n_all_index_bytes = sealing->n_all_bytes;
    progress.seconds = sealing->seconds;
    return ingest->options->progress(ingest->options->progress_context, &progress);
}

/* What the reading left behind of index files, so that who asks tomorrow finds them. */
static int seal(struct ingest *ingest)
{
    struct memtx_store_upkeep_options upkeep = memtx_store_upkeep_options_default();
    upkeep.progress = ingest->options->progress ? report_sealing : NULL;
    upkeep.progress_context = ingest;
    return memtx_memory_seal(ingest->reading.memory, &upkeep);
}

static bool any_unread(const struct ingest *ingest)
{
    bool any = false;
    for (size_t i = 0; i < ingest->n_plans && !any; i++) {
        any = !ingest->plans[i].is_held;
    }
    return any;
}

static int read_all(struct ingest *ingest, const memtx_model *model)
{
    const struct memtx__reading_mode mode = {.mode = MEMTX_MODE_MEMORY, .in_background = true};
    int status = memtx__reading_open(&ingest->reading, model, &ingest->reading_options, &mode);
    ingest->start = now();
    for (size_t i = 0; i < ingest->n_plans && !status; i++) {
        if (!ingest->plans[i].is_held) {
            status = read_document(ingest, i);
        }
    }
    if (!status) {
        status = seal(ingest);
    }
    (void)snprintf(ingest->report->warning, sizeof ingest->report->warning, "%s", ingest->reading.warning);
    memtx__reading_take_warning(ingest->report->warning, sizeof ingest->report->warning, &ingest->reading);
    if (ingest->reading.store) {
        take_facts(ingest->report, ingest->reading.store);
    }
    int closed = memtx__reading_close(&ingest->reading);
    return status ? status : closed;
}

static int check_options(const struct memtx_ingest_options *options, size_t n_texts)
{
    if (!options->reading.memory_path) {
        return memtx__fail(MEMTX_E_INVALID, "no store to read into");
    }
    if (n_texts < 1 || (options->name && n_texts > 1)) {
        return memtx__fail(MEMTX_E_INVALID,
                           n_texts ? "one name for %zu texts (read them one by one)" : "no text to read", n_texts);
    }
    return MEMTX_OK;
}

int memtx_ingest_run(struct memtx_ingest_report *report, const memtx_model *model,
                     const struct memtx_ingest_options *options, const struct memtx_reading_text *texts, size_t n_texts)
{
    struct ingest ingest = {.options = options, .reading_options = options->reading, .report = report};
    struct memtx_model_facts facts;
    memset(report->results, 0, n_texts * sizeof *report->results);
    report->store = (struct memtx_store_facts){0};
    report->warning[0] = '\0';
    memtx_model_info(&facts, model);
    int status = check_options(options, n_texts);
    if (!status) {
        status = read_texts(&ingest, model, texts, n_texts);
    }
    if (!status) {
        status = plan_all(&ingest, &facts);
    }
    if (!status && any_unread(&ingest)) {
        status = read_all(&ingest, model);
    }
    for (size_t i = 0; i < ingest.n_plans; i++) {
        memtx__text_release(&ingest.plans[i].text);
    }
    memtx__free(ingest.plans);
    return status;
}
