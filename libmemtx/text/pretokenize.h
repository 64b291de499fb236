/* Pre-tokenizing: a text is cut into pieces (words, numbers, runs of white space) before BPE merges inside each.
 *
 * A GGUF file names its pre-tokenizer; the pattern behind each name is a row of a table in pretokenize.c.
 */
#ifndef MEMTX_TEXT_PRETOKENIZE_H
#define MEMTX_TEXT_PRETOKENIZE_H

#include <stdbool.h>
#include <stddef.h>

#include "memtx/gguf.h"

struct memtx__pretokenizer {
    const char *name;   /* static */
    bool ignore_merges; /* a piece that is a token as a whole is that token, whatever the merges say */
    void *general;      /* pcre2_general_context: the library's allocator */
    void *match;        /* pcre2_match_context: limits; only read while matching */
    void *code;         /* pcre2_code */
};

/* Compiles the pattern of a name. `jit`: to machine code where the platform lets it; slower without, never different.
 * On failure *out is empty. MEMTX_E_UNSUPPORTED (the text names it and lists the known ones; or
 * PCRE2 lacks Unicode), MEMTX_E_NO_MEMORY. */
int memtx__pretokenizer_create(struct memtx__pretokenizer *out, struct memtx_text name, bool jit);
void memtx__pretokenizer_destroy(struct memtx__pretokenizer *pretokenizer); /* an empty one is fine */

/* A walk over the pieces of one text. Several walks may share a pretokenizer, in any threads. */
struct memtx__pieces {
    const struct memtx__pretokenizer *pretokenizer;
    void *found; /* pcre2_match_data */
    const char *text;
    size_t n_bytes;
    size_t at;             /* where the next piece begins */
    size_t fragment_begin; /* the valid UTF-8 that is being matched: [fragment_begin, fragment_end) */
    size_t fragment_end;
};

/* Begins a walk; `text` is borrowed until memtx__pieces_end. MEMTX_E_NO_MEMORY. */
int memtx__pieces_begin(struct memtx__pieces *out, const struct memtx__pretokenizer *pretokenizer, const char *text,
                        size_t n_bytes);

/* The next piece, borrowed from the text: the pieces are the whole text in order, none of them empty. At the end
 * n_bytes is 0. MEMTX_E_NO_MEMORY. */
int memtx__pieces_next(struct memtx_text *out, struct memtx__pieces *pieces);

void memtx__pieces_end(struct memtx__pieces *pieces); /* one that did not begin is fine */

/* PCRE2's version as text. */
void memtx__pretokenizer_version(char *out, size_t size);

#endif
