/* A hash of token ids (tokens_hash.h). */
#include "text/tokens_hash.h"

#include <string.h>
#include <xxhash.h>

#include "base/bytes.h"
#include "base/status.h"
#include "memtx/tokenizer.h"

enum { TOKENS_AT_ONCE = 1024 };

/* The struct is xxHash's own: nothing is added to it. */
static XXH3_state_t *state_of(struct memtx__tokens_hash *hash)
{
    return (XXH3_state_t *)(void *)hash;
}

int memtx__tokens_hash_create(struct memtx__tokens_hash **out)
{
    XXH3_state_t *state = XXH3_createState();
    *out = (struct memtx__tokens_hash *)(void *)state;
    if (!state) {
        return memtx__fail(MEMTX_E_NO_MEMORY, "no memory to hash the tokens");
    }
    memtx__tokens_hash_reset(*out);
    return MEMTX_OK;
}

void memtx__tokens_hash_destroy(struct memtx__tokens_hash *hash)
{
    if (hash) {
        (void)XXH3_freeState(state_of(hash));
    }
}

void memtx__tokens_hash_reset(struct memtx__tokens_hash *hash)
{
    (void)XXH3_128bits_reset(state_of(hash));
}

void memtx__tokens_hash_add(struct memtx__tokens_hash *hash, const uint32_t *tokens, size_t n_tokens)
{
    unsigned char bytes[4 * TOKENS_AT_ONCE];
    while (n_tokens) {
        const size_t n = n_tokens < TOKENS_AT_ONCE ? n_tokens : TOKENS_AT_ONCE;
        for (size_t i = 0; i < n; i++) {
            memtx__put_u32(bytes + 4 * i, tokens[i]);
        }
        (void)XXH3_128bits_update(state_of(hash), bytes, 4 * n);
        tokens += n;
        n_tokens -= n;
    }
}

void memtx__tokens_hash_take(uint8_t out[16], const struct memtx__tokens_hash *hash)
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest((const XXH3_state_t *)(const void *)hash));
    memcpy(out, canonical.digest, sizeof canonical.digest);
}

int memtx_tokens_hash(uint8_t out[16], const uint32_t *tokens, size_t n_tokens)
{
    struct memtx__tokens_hash *hash;
    int status = memtx__tokens_hash_create(&hash);
    if (!status) {
        memtx__tokens_hash_add(hash, tokens, n_tokens);
        memtx__tokens_hash_take(out, hash);
    }
    memtx__tokens_hash_destroy(hash);
    return status;
}
