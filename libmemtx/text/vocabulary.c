/* Vocabulary (vocabulary.h). What it allocates is bounded by the bytes that the tokens take in the file. */
#include "text/vocabulary.h"

#include <stdbool.h>
#include <string.h>

#include <xxhash.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/status.h"
#include "memtx/tokenizer.h"

enum { SHOWN_BYTES = 64 };

/* llama.cpp's token types, as a GGUF file numbers them. */
enum token_type {
    TOKEN_UNDEFINED,
    TOKEN_NORMAL,
    TOKEN_UNKNOWN,
    TOKEN_CONTROL,
    TOKEN_USER_DEFINED,
    TOKEN_UNUSED,
    TOKEN_BYTE
};

int memtx__vocabulary_shown(struct memtx_text text)
{
    return text.n_bytes < SHOWN_BYTES ? (int)text.n_bytes : SHOWN_BYTES;
}

int memtx__vocabulary_find_texts(const struct memtx_gguf_value **out, const memtx_gguf *gguf, const char *key)
{
    *out = memtx_gguf_find_value(gguf, key);
    if (!*out) {
        return memtx__fail(MEMTX_E_FORMAT, "%s: no tokenizer: %s is missing", memtx_gguf_path(gguf), key);
    }
    if ((*out)->type != MEMTX_GGUF_ARRAY || (*out)->item_type != MEMTX_GGUF_STRING) {
        return memtx__fail(MEMTX_E_FORMAT, "%s: %s is no array of strings", memtx_gguf_path(gguf), key);
    }
    return MEMTX_OK;
}

/* ---- from texts to ids ------------------------------------------------------------------------ */

static bool same_text(struct memtx_text a, struct memtx_text b)
{
    return a.n_bytes == b.n_bytes && !memcmp(a.bytes, b.bytes, a.n_bytes);
}

/* The slot that holds the text, or the free one where it would go. */
static size_t find_slot(const struct memtx__text_table *table, struct memtx_text text)
{
    size_t slot = (size_t)XXH3_64bits(text.bytes, text.n_bytes) & (table->n_slots - 1);
    while (table->slots[slot] != MEMTX_NO_TOKEN && !same_text(table->texts[table->slots[slot]], text)) {
        slot = (slot + 1) & (table->n_slots - 1);
    }
    return slot;
}

uint32_t memtx__text_table_find(const struct memtx__text_table *table, struct memtx_text text)
{
    return table->slots[find_slot(table, text)];
}

static int create_table(struct memtx__text_table *out, const struct memtx_text *texts, size_t n_texts)
{
    size_t n_slots = 2;
    while (n_slots < 2 * n_texts) {
        n_slots *= 2;
    }
    int status = memtx__alloc_raw(&out->slots, n_slots, sizeof *out->slots);
    if (!status) {
        memset(out->slots, 0xFF, n_slots * sizeof *out->slots); /* MEMTX_NO_TOKEN in each */
        out->texts = texts;
        out->n_slots = n_slots;
    }
    return status;
}

/* false when another id has that text already. */
static bool enter(struct memtx__text_table *table, uint32_t id)
{
    size_t slot = find_slot(table, table->texts[id]);
    bool is_new = table->slots[slot] == MEMTX_NO_TOKEN;
    if (is_new) {
        table->slots[slot] = id;
    }
    return is_new;
}

/* ---- the file's spellings --------------------------------------------------------------------- */

static int read_spellings(struct memtx__spellings *out, const memtx_gguf *gguf, const struct memtx_gguf_value *array)
{
    size_t cursor = 0;
    for (size_t id = 0; id < out->n_tokens; id++) {
        struct memtx_text text;
        if (!memtx_gguf_next_string(&text, array, &cursor) || !text.n_bytes) {
            return memtx__fail(MEMTX_E_FORMAT, "%s: token %zu of %zu is empty", memtx_gguf_path(gguf), id,
                               out->n_tokens);
        }
        out->texts[id] = text;
        if (!enter(&out->table, (uint32_t)id)) {
            return memtx__fail(MEMTX_E_FORMAT, "%s: tokens %u and %zu are both \"%.*s\"", memtx_gguf_path(gguf),
                               memtx__text_table_find(&out->table, text), id, memtx__vocabulary_shown(text),
                               text.bytes);
        }
    }
    return MEMTX_OK;
}

int memtx__spellings_create(struct memtx__spellings *out, const memtx_gguf *gguf)
{
    const struct memtx_gguf_value *array;
    *out = (struct memtx__spellings){0};
    int status = memtx__vocabulary_find_texts(&array, gguf, "tokenizer.ggml.tokens");
    if (status) {
        return status;
    }
    if (!array->n_items || array->n_items >= MEMTX_NO_TOKEN / 2) {
        return memtx__fail(MEMTX_E_FORMAT, "%s: %llu tokens; a vocabulary has 1 to %u", memtx_gguf_path(gguf),
                           (unsigned long long)array->n_items, MEMTX_NO_TOKEN / 2 - 1);
    }
    out->n_tokens = (size_t)array->n_items;
    status = memtx__alloc_raw(&out->texts, out->n_tokens, sizeof *out->texts);
    if (!status) {
        status = create_table(&out->table, out->texts, out->n_tokens);
    }
    if (!status) {
        status = read_spellings(out, gguf, array);
    }
    if (status) {
        memtx__spellings_destroy(out);
    }
    return status;
}

void memtx__spellings_destroy(struct memtx__spellings *spellings)
{
    memtx__free(spellings->table.slots);
    memtx__free(spellings->texts);
    *spellings = (struct memtx__spellings){0};
}

/* ---- from spellings to bytes ------------------------------------------------------------------ */

enum { ALPHABET_END = 0x100 + 68 }; /* one past its last character */

struct alphabet {
    short bytes[ALPHABET_END]; /* by character; -1: not in the alphabet */
};

static void make_alphabet(struct alphabet *out)
{
    int next = 0x100;
    memset(out->bytes, 0xFF, sizeof out->bytes);
    for (int byte = 0; byte < 256; byte++) {
        bool printable = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
        out->bytes[printable ? byte : next++] = (short)byte;
    }
}

/* Writes the bytes that a spelling means, at most as many as it has itself; false when it is not in the alphabet. */
static bool decode_spelling(char *out, size_t *n_out, const struct alphabet *alphabet, struct memtx_text text)
{
    const unsigned char *b = (const unsigned char *)text.bytes;
    size_t n = 0;
    for (size_t i = 0; i < text.n_bytes; i++) {
        unsigned character = b[i];
        if (character >= 0x80) { /* two bytes of UTF-8 reach as far as the alphabet does */
            if (i + 1 == text.n_bytes || (character & 0xE0) != 0xC0 || (b[i + 1] & 0xC0) != 0x80) {
                return false;
            }
            character = (character & 0x1F) << 6 | (b[++i] & 0x3F);
            if (character < 0x80) {
                return false;
            }
        }
        if (character >= ALPHABET_END || alphabet->bytes[character] < 0) {
            return false;
        }
        out[n++] = (char)alphabet->bytes[character];
    }
    *n_out = n;
    return true;
}

/* The array of token types, or NULL where the file has none. */
static int find_types(const struct memtx_gguf_value **out, const memtx_gguf *gguf, size_t n_tokens)
{
    static const char key[] = "tokenizer.ggml.token_type";
    *out = memtx_gguf_find_value(gguf, key);
    if (!*out) {
        return MEMTX_OK;
    }
    if ((*out)->type != MEMTX_GGUF_ARRAY ||
        ((*out)->item_type != MEMTX_GGUF_I32 && (*out)->item_type != MEMTX_GGUF_U32)) {
        return memtx__fail(MEMTX_E_FORMAT, "%s: %s is no array of 32-bit integers", memtx_gguf_path(gguf), key);
    }
    if ((*out)->n_items != n_tokens) {
        return memtx__fail(MEMTX_E_FORMAT, "%s: %zu tokens, but %llu in %s", memtx_gguf_path(gguf), n_tokens,
                           (unsigned long long)(*out)->n_items, key);
    }
    return MEMTX_OK;
}

static int read_type(uint32_t *out, const memtx_gguf *gguf, const struct memtx_gguf_value *types, size_t id)
{
    *out = types ? memtx__get_u32(types->bytes + 4 * id) : TOKEN_NORMAL;
    if (*out > TOKEN_BYTE) {
        return memtx__fail(MEMTX_E_FORMAT, "%s: token %zu has type %u; known are %d to %d", memtx_gguf_path(gguf), id,
                           *out, TOKEN_UNDEFINED, TOKEN_BYTE);
    }
    return MEMTX_OK;
}

static int decode_tokens(struct memtx__vocabulary *out, const memtx_gguf *gguf, const struct memtx_text *spellings,
                         const struct memtx_gguf_value *types)
{
    struct alphabet alphabet;
    char *bytes = out->bytes;
    make_alphabet(&alphabet);
    for (size_t id = 0; id < out->n_tokens; id++) {
        uint32_t type;
        size_t n = spellings[id].n_bytes;
        int status = read_type(&type, gguf, types, id);
        if (status) {
            return status;
        }
        bool ordinary = type == TOKEN_NORMAL && decode_spelling(bytes, &n, &alphabet, spellings[id]);
        if (!ordinary) {
            memcpy(bytes, spellings[id].bytes, n);
        }
        out->tokens[id] = (struct memtx_text){bytes, n};
        if (ordinary) {
            (void)enter(&out->ordinary, (uint32_t)id); /* new: no two spellings are equal, nor two that decode */
        }
        bytes += n;
    }
    return MEMTX_OK;
}

int memtx__vocabulary_create(struct memtx__vocabulary *out, const memtx_gguf *gguf,
                             const struct memtx__spellings *spellings)
{
    const struct memtx_gguf_value *types;
    size_t n_bytes = 0;
    *out = (struct memtx__vocabulary){.n_tokens = spellings->n_tokens};
    for (size_t id = 0; id < spellings->n_tokens; id++) {
        n_bytes += spellings->texts[id].n_bytes; /* parts of one mapped file: no overflow */
    }
    int status = find_types(&types, gguf, out->n_tokens);
    if (!status) {
        status = memtx__alloc_raw(&out->tokens, out->n_tokens, sizeof *out->tokens);
    }
    if (!status) {
        status = memtx__alloc_raw(&out->bytes, n_bytes, 1);
    }
    if (!status) {
        status = create_table(&out->ordinary, out->tokens, out->n_tokens);
    }
    if (!status) {
        status = decode_tokens(out, gguf, spellings->texts, types);
    }
    if (status) {
        memtx__vocabulary_destroy(out);
    }
    return status;
}

void memtx__vocabulary_destroy(struct memtx__vocabulary *vocabulary)
{
    memtx__free(vocabulary->ordinary.slots);
    memtx__free(vocabulary->bytes);
    memtx__free(vocabulary->tokens);
    *vocabulary = (struct memtx__vocabulary){0};
}
