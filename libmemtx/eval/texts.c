/* Texts as tokens (reading.h). */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/status.h"
#include "eval/reading.h"

static int prepend_bos(struct memtx__text *text, uint32_t bos)
{
    uint32_t *tokens;
    int status = memtx__alloc(&tokens, text->n_all_tokens + 1, sizeof *tokens);
    if (status) {
        return status;
    }
    tokens[0] = bos;
    if (text->n_all_tokens) {
        memcpy(tokens + 1, text->tokens, text->n_all_tokens * sizeof *tokens);
    }
    memtx_tokens_free(text->tokens);
    text->tokens = tokens;
    text->n_all_tokens++;
    return MEMTX_OK;
}

int memtx__text_read(struct memtx__text *out, const memtx_model *model, const struct memtx_reading_text *text,
                     uint64_t n_most_tokens)
{
    const memtx_tokenizer *tokenizer = memtx_model_tokenizer(model);
    const uint32_t bos = memtx_tokenizer_bos(tokenizer);
    *out = (struct memtx__text){0};
    (void)snprintf(out->name, sizeof out->name, "%s", text->name);
    int status = memtx_tokenizer_encode(&out->tokens, &out->n_all_tokens, tokenizer, text->bytes, text->n_bytes);
    if (!status && bos != MEMTX_NO_TOKEN) {
        status = prepend_bos(out, bos);
    }
    out->n_tokens = n_most_tokens && out->n_all_tokens > n_most_tokens ? (size_t)n_most_tokens : out->n_all_tokens;
    return status;
}

void memtx__text_release(struct memtx__text *text)
{
    memtx_tokens_free(text->tokens);
    *text = (struct memtx__text){0};
}

void memtx__text_count(uint64_t *n_bytes, uint64_t *n_words, const memtx_tokenizer *tokenizer, const uint32_t *tokens,
                       size_t n)
{
    bool in_word = false;
    *n_bytes = *n_words = 0;
    for (size_t i = 0; i < n; i++) {
        const struct memtx_text text = memtx_tokenizer_token(tokenizer, tokens[i]);
        *n_bytes += text.n_bytes;
        for (size_t byte = 0; byte < text.n_bytes; byte++) {
            const bool space = memchr(" \t\n\v\f\r", text.bytes[byte], 6) != NULL;
            *n_words += !space && !in_word;
            in_word = !space;
        }
    }
}
