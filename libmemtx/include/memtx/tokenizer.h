/* Text to token ids and back: the byte-level BPE that a model's GGUF file carries.
 *
 * decode(encode(x)) == x for every byte sequence. A vocabulary may lack bytes that its makers never met (the default
 * model lacks 21 that plain UTF-8 text seldom has); a text with such a byte is refused, not read without it. Text
 * that looks like a special token is encoded as the text it is.
 */
#ifndef MEMTX_TOKENIZER_H
#define MEMTX_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "memtx/gguf.h"
#include "memtx/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MEMTX_NO_TOKEN UINT32_MAX /* no id; too large for an enum of ISO C */

typedef struct memtx_tokenizer memtx_tokenizer;

/* Reads the tokenizer of an open GGUF file (tokenizer.ggml.model, .pre, .tokens, .merges, .token_type ..), copying what
 * it needs. *out is the caller's; NULL on failure. MEMTX_E_UNSUPPORTED (not a byte-level BPE, an unknown
 * pre-tokenizer: the text names it), MEMTX_E_FORMAT, MEMTX_E_NO_MEMORY. */
MEMTX_API int memtx_tokenizer_create(memtx_tokenizer **out, const memtx_gguf *gguf);
MEMTX_API void memtx_tokenizer_destroy(memtx_tokenizer *tokenizer); /* NULL is fine */

/* Ids of a text, in a new array that the caller releases with memtx_tokens_free. No BOS is added.
 * MEMTX_E_NO_MEMORY; MEMTX_E_FORMAT when the vocabulary lacks one of the text's bytes. Any number of threads may encode
 * with one tokenizer. O(n log n) in the length of a word, O(n) in the text. */
MEMTX_API int memtx_tokenizer_encode(uint32_t **out, size_t *n_out, const memtx_tokenizer *tokenizer, const char *text,
                                     size_t n_bytes);
MEMTX_API void memtx_tokens_free(uint32_t *tokens);

/* XXH3-128 of token ids, each as four little-endian bytes: by which a store knows a text again. MEMTX_E_NO_MEMORY. */
MEMTX_API int memtx_tokens_hash(uint8_t out[16], const uint32_t *tokens, size_t n_tokens);

/* The bytes of one token, borrowed from the tokenizer; those of a special token are its name. An id outside the
 * vocabulary gives no bytes. Any thread. */
MEMTX_API struct memtx_text memtx_tokenizer_token(const memtx_tokenizer *tokenizer, uint32_t id);

MEMTX_API size_t memtx_tokenizer_n_tokens(const memtx_tokenizer *tokenizer);
MEMTX_API const char *memtx_tokenizer_name(const memtx_tokenizer *tokenizer); /* the pre-tokenizer: "smollm" .. */
MEMTX_API uint32_t
memtx_tokenizer_bos(const memtx_tokenizer *tokenizer); /* MEMTX_NO_TOKEN unless the file says to add it */

#ifdef __cplusplus
}
#endif
#endif
