/* XXH3-128 over token ids, each as four little-endian bytes: what tells whether two readings read the same. Of ids and
 * not of text, since they are what a model has read, and a reading may stop at any of them. */
#ifndef MEMTX_TEXT_TOKENS_HASH_H
#define MEMTX_TEXT_TOKENS_HASH_H

#include <stddef.h>
#include <stdint.h>

struct memtx__tokens_hash; /* on its way */

int memtx__tokens_hash_create(struct memtx__tokens_hash **out); /* MEMTX_E_NO_MEMORY */
void memtx__tokens_hash_destroy(struct memtx__tokens_hash *hash);
void memtx__tokens_hash_reset(struct memtx__tokens_hash *hash);
void memtx__tokens_hash_add(struct memtx__tokens_hash *hash, const uint32_t *tokens, size_t n_tokens);
void memtx__tokens_hash_take(uint8_t out[16], const struct memtx__tokens_hash *hash); /* of all that was added */

#endif
