/* What evaluating and ingesting share: texts as tokens (texts.c), options resolved and the store, memory and stream that
 * they ask for (reading.c), what a store holds of a text already (past.c). */
#ifndef MEMTX_EVAL_READING_H
#define MEMTX_EVAL_READING_H

#include "memtx/model.h"
#include "memtx/reading.h"

/* How often a reading into a store that was given leaves its running state: a break costs at most so many segments. */
enum { MEMTX__STATE_SEGMENTS = 16 };

/* ---- texts.c ---------------------------------------------------------------------------------- */

struct memtx__text {
    char name[MEMTX_NAME_BYTES];
    uint32_t *tokens;
    size_t n_tokens;     /* to be read, after the limit */
    size_t n_all_tokens; /* of the whole text */
};

/* A text's tokens, with BOS in front where the model's file says so. Release it on failure too. */
int memtx__text_read(struct memtx__text *out, const memtx_model *model, const struct memtx_reading_text *text,
                     uint64_t n_most_tokens);
void memtx__text_release(struct memtx__text *text);

/* Bytes and words of tokens[n]. A word ends at white space as ASCII knows it, and with the call. */
void memtx__text_count(uint64_t *n_bytes, uint64_t *n_words, const memtx_tokenizer *tokenizer, const uint32_t *tokens,
                       size_t n);

/* ---- reading.c -------------------------------------------------------------------------------- */

/* A mode of reading, with what it needs open. */
struct memtx__reading {
    memtx_store *store; /* NULL but for memory */
    memtx_memory *memory;
    memtx_stream *stream;
    char index[192];    /* how the memory finds rows */
    bool keeps;         /* the store is one that was given: what is read stays, with running states */
    char warning[2048]; /* what a user ought to know of the store that was given; "" when there is nothing */
};

struct memtx__reading_mode {
    enum memtx_mode mode;
    bool random;          /* random retrieval, over a temporary store */
    uint64_t seed;        /* of it */
    uint32_t most_tokens; /* mode full: of the longest text */
    bool in_background;   /* indexes are built in a thread */
};

/* Fills in what depends on the model, and checks. `layers` are taken where none are set. */
int memtx__reading_resolve(struct memtx_reading_options *options, const struct memtx_model_facts *model,
                           const char *layers);

/* Opens the store that was given, if it is there, for reading: NULL otherwise. Its pairs are taken where none are set,
 * if they can be the model's. */
int memtx__reading_look(memtx_store **out, struct memtx_reading_options *options,
                        const struct memtx_model_facts *model);

/* Close it on failure too; closing writes what waits. */
int memtx__reading_open(struct memtx__reading *out, const memtx_model *model,
                        const struct memtx_reading_options *options, const struct memtx__reading_mode *mode);
int memtx__reading_close(struct memtx__reading *reading);

/* Adds what the memory has to say of its index files to the warning, before it is closed. */
void memtx__reading_take_warning(char *warning, size_t size, const struct memtx__reading *reading);

/* ---- past.c ----------------------------------------------------------------------------------- */

/* The documents that a scope names, in one block that the caller frees; *n_names is 0 for the others. MEMTX_E_NOT_FOUND
 * (a name that the store does not have), MEMTX_E_NO_MEMORY. */
int memtx__scope_parse(enum memtx_scope *scope, const char ***names, size_t *n_names, const char *text,
                       const memtx_store *store);

/* Whether tokens[n] begin with all that was read of a document. */
int memtx__past_begins(bool *out, const struct memtx_document *document, const uint32_t *tokens, size_t n);

/* Refuses a text that documents in scope hold, in part or whole, by the hash of what was read of them; all but document
 * `continued`, which may be NULL. MEMTX_E_EXISTS. */
int memtx__past_refuse(const memtx_store *store, const struct memtx_reading_options *options,
                       const struct memtx__text *text, const char *continued);

/* The first document of which the text to be read is what was read, neither more nor less. MEMTX_E_NOT_FOUND. */
int memtx__past_find(struct memtx_document *out, const memtx_store *store, const struct memtx__text *text);

#endif
