/* A vocabulary small enough to merge by hand: the 256 bytes, whose ids are their values, and a few merges. What a test
 * wants otherwise it changes in the recipe before the file is written. */
#ifndef MEMTX_TINY_VOCABULARY_H
#define MEMTX_TINY_VOCABULARY_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "memtx/gguf.h"

#define TINY_KEY "tokenizer.ggml."

enum { TINY_MOST = 1024, TINY_TEXT_BYTES = 64, TINY_NORMAL = 1, TINY_CONTROL = 3 };

struct tiny_vocabulary {
    const char *model;
    const char *pre;
    char tokens[TINY_MOST][TINY_TEXT_BYTES];
    int32_t types[TINY_MOST];
    size_t n_tokens;
    size_t n_types;
    char merges[TINY_MOST][TINY_TEXT_BYTES];
    size_t n_merges;
    int64_t bos;       /* written when it is not negative */
    int add_bos;       /* written when it is not negative */
    const char *omit;  /* a key without its prefix that is left out, or NULL */
    const char *wrong; /* one that gets a number of type f32 for its value */
};

/* GPT-2's character for a byte, in UTF-8. */
static inline void tiny_spell_byte(char *out, int byte)
{
    int next = 0x100, character = byte;
    for (int b = 0; b <= byte; b++) {
        bool printable = (b > 0x20 && b < 0x7F) || (b > 0xA0 && b != 0xAD);
        character = printable ? b : next++;
    }
    if (character < 0x80) {
        out[0] = (char)character;
        out[1] = '\0';
    } else {
        out[0] = (char)(0xC0 | character >> 6);
        out[1] = (char)(0x80 | (character & 0x3F));
        out[2] = '\0';
    }
}

static inline uint32_t tiny_add_token(struct tiny_vocabulary *tiny, const char *spelling, int32_t type)
{
    (void)snprintf(tiny->tokens[tiny->n_tokens], TINY_TEXT_BYTES, "%s", spelling);
    tiny->types[tiny->n_tokens] = type;
    tiny->n_types++;
    return (uint32_t)tiny->n_tokens++;
}

/* A merge, and its result as a token unless it is one already. */
static inline void tiny_add_merge(struct tiny_vocabulary *tiny, const char *left, const char *right)
{
    char merged[TINY_TEXT_BYTES], merge[TINY_TEXT_BYTES]; /* the two may be texts of `tiny` itself */
    (void)snprintf(merged, sizeof merged, "%s%s", left, right);
    (void)snprintf(merge, sizeof merge, "%s %s", left, right);
    memcpy(tiny->merges[tiny->n_merges++], merge, sizeof merge);
    for (size_t id = 0; id < tiny->n_tokens; id++) {
        if (!strcmp(tiny->tokens[id], merged)) {
            return;
        }
    }
    (void)tiny_add_token(tiny, merged, TINY_NORMAL);
}

#define TINY_SPACE "\xC4\xA0" /* U+0120 */

/* Ids: he 256, ll 257, hell 258, hello 259, _w 260, aa 261, aaaa 262, __ 263, or 264, _wor 265, lo 266; then whole 267,
 * which no merge makes, and <|end|> 268, a control token (_ is a space). */
static inline void tiny_fill(struct tiny_vocabulary *out)
{
    static const char *const pairs[][2] = {
        {"h", "e"},        {"l", "l"},
        {"he", "ll"},      {"hell", "o"},
        {TINY_SPACE, "w"}, {"a", "a"},
        {"aa", "aa"},      {TINY_SPACE, TINY_SPACE},
        {"o", "r"},        {TINY_SPACE "w", "or"},
        {"l", "o"},
    };
    *out = (struct tiny_vocabulary){.model = "gpt2", .pre = "smollm", .bos = -1, .add_bos = -1};
    for (int byte = 0; byte < 256; byte++) {
        char spelling[3];
        tiny_spell_byte(spelling, byte);
        (void)tiny_add_token(out, spelling, TINY_NORMAL);
    }
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        tiny_add_merge(out, pairs[i][0], pairs[i][1]);
    }
    (void)tiny_add_token(out, "whole", TINY_NORMAL);
    (void)tiny_add_token(out, "<|end|>", TINY_CONTROL);
}

/* false when the key is to be left out, or has been written with a wrong type. */
static inline bool tiny_wants(memtx_gguf_writer *writer, const struct tiny_vocabulary *tiny, const char *key,
                              int *status)
{
    char whole[TINY_TEXT_BYTES];
    (void)snprintf(whole, sizeof whole, TINY_KEY "%s", key);
    if (!*status && tiny->wrong && !strcmp(tiny->wrong, key)) {
        *status = memtx_gguf_writer_add_f32(writer, whole, 1.5f);
        return false;
    }
    return !*status && !(tiny->omit && !strcmp(tiny->omit, key));
}

static inline int tiny_add_texts(memtx_gguf_writer *writer, const char *key, const char (*texts)[TINY_TEXT_BYTES],
                                 size_t n_texts)
{
    struct memtx_text items[TINY_MOST];
    for (size_t i = 0; i < n_texts; i++) {
        items[i] = (struct memtx_text){texts[i], strlen(texts[i])};
    }
    return memtx_gguf_writer_add_texts(writer, key, items, n_texts);
}

/* Writes the vocabulary as a GGUF file without tensors. */
static inline int tiny_write(const struct tiny_vocabulary *tiny, const char *path)
{
    memtx_gguf_writer *writer;
    int status = memtx_gguf_writer_create(&writer);
    if (tiny_wants(writer, tiny, "model", &status)) {
        status = memtx_gguf_writer_add_text(writer, TINY_KEY "model", tiny->model);
    }
    if (tiny_wants(writer, tiny, "pre", &status)) {
        status = memtx_gguf_writer_add_text(writer, TINY_KEY "pre", tiny->pre);
    }
    if (tiny_wants(writer, tiny, "tokens", &status)) {
        status = tiny_add_texts(writer, TINY_KEY "tokens", tiny->tokens, tiny->n_tokens);
    }
    if (tiny_wants(writer, tiny, "token_type", &status)) {
        status =
            memtx_gguf_writer_add_numbers(writer, TINY_KEY "token_type", MEMTX_GGUF_I32, tiny->types, tiny->n_types);
    }
    if (tiny_wants(writer, tiny, "merges", &status)) {
        status = tiny_add_texts(writer, TINY_KEY "merges", tiny->merges, tiny->n_merges);
    }
    if (tiny_wants(writer, tiny, "bos_token_id", &status) && tiny->bos >= 0) {
        status = memtx_gguf_writer_add_u32(writer, TINY_KEY "bos_token_id", (uint32_t)tiny->bos);
    }
    if (tiny_wants(writer, tiny, "add_bos_token", &status) && tiny->add_bos >= 0) {
        status = memtx_gguf_writer_add_bool(writer, TINY_KEY "add_bos_token", tiny->add_bos);
    }
    if (!status) {
        status = memtx_gguf_writer_write(writer, path);
    }
    memtx_gguf_writer_destroy(writer);
    return status;
}

#endif
