/* Texts read into a store, to be found there later (DESIGN 3): memory mode without a score. What the command
 * `memtx ingest` does.
 *
 * A reading that was broken off, by its callback or with its process, goes on where its last running state was taken when
 * the same text is given again, and then equals one that never stopped.
 */
#ifndef MEMTX_INGEST_H
#define MEMTX_INGEST_H

#include <stddef.h>
#include <stdint.h>

#include "memtx/model.h"
#include "memtx/reading.h"
#include "memtx/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a progress callback is told, after every segment. */
struct memtx_ingest_progress {
    const char *name; /* of the document */
    size_t text, n_texts;
    uint64_t n_tokens, n_all_tokens;           /* of all texts together, without what the store held before */
    double seconds;                            /* spent on them */
    uint64_t n_index_bytes, n_all_index_bytes; /* of keys, when index files are built after the reading; else 0 */
};

struct memtx_ingest_options {
    struct memtx_reading_options reading; /* memory_path must be set; without layers and a store all are kept */
    const char *name;                     /* of the document, when one text is read; NULL: the text's own */
    /* Called after every segment, in the calling thread; anything but 0 ends the reading cleanly. NULL: none. */
    int (*progress)(void *context, const struct memtx_ingest_progress *progress);
    void *progress_context;
};

/* What became of a text. */
enum memtx_ingest_outcome {
    MEMTX_INGEST_UNREAD = 0,  /* a failure, or the callback, came before */
    MEMTX_INGEST_READ = 1,    /* to its end, or to the limit */
    MEMTX_INGEST_HELD = 2,    /* the store held all of it before, as document `name` */
    MEMTX_INGEST_STOPPED = 3, /* broken off at n_tokens; the same call goes on from there */
    MEMTX_INGEST_FAILED = 4   /* the failure was this one's */
};

struct memtx_ingest_result {
    enum memtx_ingest_outcome outcome;
    char name[MEMTX_NAME_BYTES]; /* of the document */
    uint64_t n_tokens;           /* of the text that the document holds now */
    uint64_t n_tokens_before;    /* of these, from an earlier reading */
    double seconds;
};

struct memtx_ingest_report {
    struct memtx_ingest_result *results; /* [n_texts], the caller's */
    struct memtx_store_facts store;      /* after the reading; spec.rope_factors is NULL */
    char warning[2048];                  /* what a user ought to know of the store; "" when there is nothing */
};

MEMTX_API struct memtx_ingest_options memtx_ingest_options_default(void);

/* Reads texts into the store, each as a document of its name. A document that is there already is gone on with if the
 * text begins with all that was read of it, and what it held is not read again; a text of which another document holds
 * just this is left alone, unless allow_seen. What is wrong with options, texts, or a document to go on with is told
 * before anything is read. report->results is filled in on failure too. MEMTX_E_INTERRUPTED; MEMTX_E_MISMATCH (a text
 * that does not go on where the document stops, a store of another model); MEMTX_E_INVALID (an option; an empty text; a
 * document that has no running state to go on from); and what model, memory and store say. */
MEMTX_API int memtx_ingest_run(struct memtx_ingest_report *report, const memtx_model *model,
                               const struct memtx_ingest_options *options, const struct memtx_reading_text *texts,
                               size_t n_texts);

#ifdef __cplusplus
}
#endif
#endif
