/* Evaluation's inside: prepare.c (all that can be wrong before the first token), perplexity.c (the runs), paired.c
 * (differences), usage.c (what the process takes), report.c (table and JSON). What it shares with ingesting: reading.h. */
#ifndef MEMTX_EVAL_EVAL_H
#define MEMTX_EVAL_EVAL_H

#include "eval/reading.h"
#include "memtx/eval.h"

struct memtx__eval_document {
    struct memtx__text text;
    size_t first_run;    /* token that is run first: 0, or where a document is gone on with */
    size_t first_scored; /* index in its tokens */
    size_t first_nll;    /* index of its first score among all */
};

struct memtx_eval {
    struct memtx_eval_options options; /* resolved: every default filled in */
    struct memtx_model_facts model;
    char *model_path;
    char *memory_path, *scope, *continued, *index; /* of options, as the caller's may go */
    unsigned char *state;                          /* running state of the document gone on with */
    size_t n_state_bytes;
    uint32_t n_threads;
    struct memtx__eval_document *documents;
    size_t n_documents;
    size_t n_scored; /* of one complete mode */
    uint64_t n_bytes, n_words;
    struct memtx_eval_result results[MEMTX_EVAL_MOST_MODES];
    float *nll[MEMTX_EVAL_MOST_MODES]; /* [n_scored] */
    size_t n_results;
    struct memtx_eval_pair pairs[2 * MEMTX_EVAL_MOST_MODES];
    size_t n_pairs;
    char warning[2048];
};

/* "memory-random" and the names of the modes. */
const char *memtx__eval_mode_name(struct memtx_eval_mode mode);

/* prepare.c: texts, options, the store that was given, one opening of every mode: what is wrong with the third is not
 * told after two have been read. */
int memtx__eval_prepare(memtx_eval *eval, const memtx_model *model, const struct memtx_reading_text *texts,
                        size_t n_texts);

/* What mode `index` of an evaluation needs open. */
int memtx__eval_open_mode(struct memtx__reading *out, const memtx_eval *eval, const memtx_model *model, size_t index);

/* Mean of x[n] and the standard error of the mean over blocks of block_tokens that do not cross documents
 * (starts[n_starts]: where each begins). A ratio estimator, since the last block of a document is shorter. NaN below
 * two blocks. */
void memtx__paired_mean(double *mean, double *standard_error, const double *x, size_t n, const size_t *starts,
                        size_t n_starts, size_t block_tokens);

/* Every pair that a report shows. MEMTX_E_NO_MEMORY. */
int memtx__paired_all(memtx_eval *eval);

/* Memory of this process in bytes, 0 where the system does not tell. */
struct memtx__usage {
    uint64_t peak_rss_bytes; /* since memtx__usage_begin */
    uint64_t anon_bytes;     /* now */
};
void memtx__usage_begin(void);
void memtx__usage_read(struct memtx__usage *out);

#endif
