/* The tokens of a byte-level vocabulary, and GPT-2's alphabet in which a GGUF file spells them.
 *
 * The alphabet gives each byte a printable character: the printable ones of Latin-1 stand for themselves, the other
 * 68 for U+0100 onwards (a space is U+0120). A file spells tokens and merges in it; in memory a token is the bytes
 * that it means. Tokens of other types (control, user-defined ..) are spelled as they are.
 */
#ifndef MEMTX_TEXT_VOCABULARY_H
#define MEMTX_TEXT_VOCABULARY_H

#include <stddef.h>
#include <stdint.h>

#include "memtx/gguf.h"

/* From texts to their ids: a hash table with open addressing. */
struct memtx__text_table {
    const struct memtx_text *texts; /* by id; borrowed */
    uint32_t *slots;                /* ids, or MEMTX_NO_TOKEN */
    size_t n_slots;                 /* a power of two, at least twice the texts */
};

/* The id of a text, or MEMTX_NO_TOKEN. Any thread. */
uint32_t memtx__text_table_find(const struct memtx__text_table *table, struct memtx_text text);

/* tokenizer.ggml.tokens as it stands in the file, from which everything here is borrowed. */
struct memtx__spellings {
    size_t n_tokens;
    struct memtx_text *texts; /* [n_tokens] none empty, no two equal */
    struct memtx__text_table table;
};

/* On failure *out is empty. MEMTX_E_FORMAT, MEMTX_E_NO_MEMORY. */
int memtx__spellings_create(struct memtx__spellings *out, const memtx_gguf *gguf);
void memtx__spellings_destroy(struct memtx__spellings *spellings); /* an empty one is fine */

struct memtx__vocabulary {
    size_t n_tokens;
    struct memtx_text *tokens;         /* [n_tokens] the bytes that each means */
    char *bytes;                       /* the block that `tokens` points into */
    struct memtx__text_table ordinary; /* from bytes to the tokens of type NORMAL that are spelled in the alphabet */
};

/* Decodes the spellings, with tokenizer.ggml.token_type (all NORMAL where the file has none). On failure *out is
 * empty. MEMTX_E_FORMAT, MEMTX_E_NO_MEMORY. */
int memtx__vocabulary_create(struct memtx__vocabulary *out, const memtx_gguf *gguf,
                             const struct memtx__spellings *spellings);
void memtx__vocabulary_destroy(struct memtx__vocabulary *vocabulary); /* an empty one is fine */

/* The string array of that key, which must be there. MEMTX_E_FORMAT. */
int memtx__vocabulary_find_texts(const struct memtx_gguf_value **out, const memtx_gguf *gguf, const char *key);

/* For "%.*s" in an error text: how many bytes of a file's text to show. */
int memtx__vocabulary_shown(struct memtx_text text);

#endif
