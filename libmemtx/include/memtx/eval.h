/* Perplexity of texts under a model, in several modes over the same tokens, with paired differences (DESIGN 10).
 *
 * memtx_eval_run reads the texts once for each mode; memtx_eval_print and memtx_eval_write_json show what came out: the
 * table and the JSON of the command `memtx eval`.
 */
#ifndef MEMTX_EVAL_H
#define MEMTX_EVAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "memtx/model.h"
#include "memtx/reading.h"
#include "memtx/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { MEMTX_EVAL_MOST_MODES = 7 };

/* A mode of DESIGN 3's table; with `random`, memory mode with random retrieval. */
struct memtx_eval_mode {
    enum memtx_mode mode;
    bool random;
};

/* What a progress callback is told, after every segment. */
struct memtx_eval_progress {
    const char *mode;
    size_t mode_index, n_modes;
    size_t n_tokens, n_all_tokens;             /* of this mode: done, all */
    size_t n_total_tokens, n_all_total_tokens; /* of all modes together */
    double seconds;                            /* spent on this mode */
    double nll;                                /* mean so far; NaN before the first scored token */
};

struct memtx_eval_options {
    struct memtx_eval_mode modes[MEMTX_EVAL_MOST_MODES]; /* default: xl, sinks, memory */
    size_t n_modes;
    struct memtx_reading_options reading;
    const char *continued; /* a document of the store: the text, of which it is the beginning, is gone on with where it
                            * stops; modes memory and sinks, one text. NULL: every text is read from its beginning */
    uint64_t n_skipped;    /* of each text, left out of the score */
    uint64_t seed;         /* of random retrieval */
    /* Called after every segment, in the calling thread; anything but 0 ends the run cleanly. NULL: none. */
    int (*progress)(void *context, const struct memtx_eval_progress *progress);
    void *progress_context;
};

/* What one mode gave. */
struct memtx_eval_result {
    char mode[32];
    uint64_t n_tokens;        /* scored */
    double nll;               /* mean, nats per token */
    double ppl;               /* exp(nll) */
    double bits_per_byte;     /* over the bytes of the scored tokens */
    double word_ppl;          /* exp(total nll / words of the scored tokens) */
    double tokens_per_s;      /* run through the model, scored or not */
    double nll_stderr;        /* of nll, over blocks of 512 tokens; NaN below two blocks */
    uint64_t memory_rows;     /* visible at the end */
    uint64_t store_bytes;     /* on disk */
    uint64_t peak_rss_bytes;  /* of the process while the mode ran */
    uint64_t peak_anon_bytes; /* the same without pages of files, sampled after every segment */
    bool complete;            /* false: broken off */
};

/* nll(a) - nll(b) over the tokens that both have scored. */
struct memtx_eval_pair {
    char a[32], b[32];
    uint64_t n_tokens;
    double delta_nll;
    double stderr_512, stderr_4096; /* over blocks of 512 and of 4,096 tokens; NaN below two blocks */
};

typedef struct memtx_eval memtx_eval;

MEMTX_API struct memtx_eval_options memtx_eval_options_default(void);

/* Parses "xl,sinks,memory-random" into options->modes. MEMTX_E_INVALID (unknown, named twice, none). */
MEMTX_API int memtx_eval_parse_modes(struct memtx_eval_options *options, const char *text);

/* Evaluates. What is wrong with options, texts or the store that was given is told before anything is read. *out is the
 * caller's; it is also given when a later failure, or the progress callback, breaks a mode off, and then holds what was
 * scored until then; NULL when nothing was. MEMTX_E_INTERRUPTED; MEMTX_E_INVALID (an option; nothing to score);
 * MEMTX_E_CONTEXT (mode full and a text longer than the model's context); and what model, memory and store say. */
MEMTX_API int memtx_eval_run(memtx_eval **out, const memtx_model *model, const struct memtx_eval_options *options,
                             const struct memtx_reading_text *texts, size_t n_texts);
MEMTX_API void memtx_eval_destroy(memtx_eval *eval); /* NULL is fine */

MEMTX_API size_t memtx_eval_n_results(const memtx_eval *eval);
MEMTX_API const struct memtx_eval_result *memtx_eval_result_at(const memtx_eval *eval,
                                                               size_t i); /* NULL past the end */
MEMTX_API size_t memtx_eval_n_pairs(const memtx_eval *eval);
MEMTX_API const struct memtx_eval_pair *memtx_eval_pair_at(const memtx_eval *eval, size_t i); /* NULL past the end */

/* nll of every token that mode i has scored, in nats, in the order of the texts; borrowed. */
MEMTX_API const float *memtx_eval_nll(size_t *n_out, const memtx_eval *eval, size_t i);

/* What a user ought to know of the store that was given, one line; "" when there is nothing. */
MEMTX_API const char *memtx_eval_warning(const memtx_eval *eval);

/* The table for people. */
MEMTX_API void memtx_eval_print(FILE *file, const memtx_eval *eval);

/* The JSON, to a stream, or into a file that is there whole or not at all. MEMTX_E_IO, MEMTX_E_NO_SPACE. */
MEMTX_API int memtx_eval_print_json(FILE *file, const memtx_eval *eval);
MEMTX_API int memtx_eval_write_json(const char *path, const memtx_eval *eval);

#ifdef __cplusplus
}
#endif
#endif
