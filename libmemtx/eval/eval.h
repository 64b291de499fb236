/* Evaluation's inside: options.c (names and defaults), perplexity.c (the runs), paired.c (differences), usage.c (what
 * the process takes), report.c (table and JSON). */
#ifndef MEMTX_EVAL_EVAL_H
#define MEMTX_EVAL_EVAL_H

#include "memtx/eval.h"

struct memtx__eval_document {
    char name[MEMTX_NAME_BYTES];
    uint32_t *tokens;
    size_t n_tokens;     /* read, after the limit */
    size_t first_scored; /* index in tokens */
    size_t first_nll;    /* index of its first score among all */
    uint8_t hash[MEMTX_HASH_BYTES];
};

struct memtx_eval {
    struct memtx_eval_options options; /* resolved: every default filled in */
    struct memtx_model_facts model;
    char *model_path;
    char *memory_path; /* options.memory_path, as the caller's may go */
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

/* Fills in what depends on the model, and checks. */
int memtx__eval_resolve(struct memtx_eval_options *options, const struct memtx_model_facts *model);

/* The settings that a store records, and is compared by. */
void memtx__eval_settings(char *out, size_t size, const struct memtx_eval_options *options,
                          const struct memtx_model_facts *model);

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
