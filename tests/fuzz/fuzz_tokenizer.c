/* Fuzz target: the tokenizer. The first byte chooses. 0, 1, 2: the rest is a text for a tiny vocabulary under one of
 * three pre-tokenizers. 3: the rest is a GGUF file, whose tokenizer, if it has one, is given a text. Whatever is
 * encoded must decode to the same bytes. */
#include "fuzz.h"

#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

#include "memtx/tokenizer.h"
#include "tiny_vocabulary.h"

static const char *const pre_tokenizers[] = {"smollm", "gpt-2", "llama-bpe"};

enum { N_PRE = sizeof pre_tokenizers / sizeof pre_tokenizers[0] };

static void demand(bool holds)
{
    if (!holds) {
        abort();
    }
}

static memtx_tokenizer *create(const char *pre)
{
    static struct tiny_vocabulary recipe;
    char path[] = "/tmp/memtx_fuzz_tokenizer_XXXXXX";
    memtx_gguf *gguf = NULL;
    memtx_tokenizer *tokenizer = NULL;
    int fd = mkstemp(path);
    demand(fd >= 0);
    tiny_fill(&recipe);
    recipe.pre = pre;
    demand(!tiny_write(&recipe, path));
    demand(!memtx_gguf_open(&gguf, path));
    demand(!unlink(path) && !close(fd));
    demand(!memtx_tokenizer_create(&tokenizer, gguf));
    memtx_gguf_close(gguf);
    return tokenizer;
}

/* `whole`: the vocabulary has every byte. */
static void encode(const memtx_tokenizer *tokenizer, const char *text, size_t n_bytes, bool whole)
{
    uint32_t *ids;
    size_t n, at = 0;
    int status = memtx_tokenizer_encode(&ids, &n, tokenizer, text, n_bytes);
    demand(!status || (!whole && status == MEMTX_E_FORMAT && !ids && !n));
    for (size_t i = 0; i < n; i++) {
        struct memtx_text token = memtx_tokenizer_token(tokenizer, ids[i]);
        demand(token.n_bytes <= n_bytes - at && (!whole || !memcmp(token.bytes, text + at, token.n_bytes)));
        at += token.n_bytes;
    }
    demand(status || at == n_bytes);
    memtx_tokens_free(ids);
}

static void load(const uint8_t *bytes, size_t n_bytes)
{
    static const char text[] = "hello world  12 aaaa whole";
    memtx_gguf *gguf;
    memtx_tokenizer *tokenizer;
    if (memtx_gguf_open_bytes(&gguf, bytes, n_bytes, "fuzz")) {
        return;
    }
    if (!memtx_tokenizer_create(&tokenizer, gguf)) {
        for (const char *c = text; *c; c++) { /* each suffix by itself: one may have a byte that is no token */
            encode(tokenizer, c, strlen(c), false);
        }
        memtx_tokenizer_destroy(tokenizer);
    }
    memtx_gguf_close(gguf);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    static memtx_tokenizer *tokenizers[N_PRE]; /* made once, kept until the end */
    if (!n_bytes) {
        return 0;
    }
    unsigned choice = bytes[0] % (N_PRE + 1);
    if (choice == N_PRE) {
        load(bytes + 1, n_bytes - 1);
        return 0;
    }
    if (!tokenizers[choice]) {
        tokenizers[choice] = create(pre_tokenizers[choice]);
    }
    encode(tokenizers[choice], (const char *)bytes + 1, n_bytes - 1, true);
    return 0;
}
