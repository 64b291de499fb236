/* The tokenizer (memtx/tokenizer.h): a text is cut into pieces (pretokenize.h), each piece merged (bpe.h).
 *
 * Words come again: each encode keeps a small table of the words it saw last and the ids they gave, on which most of a
 * natural text's words are found. It belongs to the call, so a tokenizer is read-only and any thread may use it.
 */
#include "memtx/tokenizer.h"

#include <stdbool.h>
#include <string.h>

#include <xxhash.h>

#include "base/alloc.h"
#include "base/status.h"
#include "text/bpe.h"
#include "text/pretokenize.h"
#include "text/vocabulary.h"

enum {
    WORD_BYTES = 20,
    WORD_IDS = 10,
    MOST_WORDS = 4096, /* 256 KiB: stays in the second-level cache */
    WORD_BITS = 6,     /* a text has a table of its bytes >> WORD_BITS words at most: small texts clear little */
};

struct word {
    uint32_t ids[WORD_IDS];
    char bytes[WORD_BYTES];
    unsigned char n_bytes; /* 0: free */
    unsigned char n_ids;
};

struct memtx_tokenizer {
    struct memtx__pretokenizer pretokenizer;
    struct memtx__vocabulary vocabulary;
    struct memtx__bpe bpe;
    uint32_t bos;
};

/* ---- from a file ------------------------------------------------------------------------------ */

/* A text that must be there. */
static int read_text(struct memtx_text *out, const memtx_gguf *gguf, const char *key)
{
    int status = memtx_gguf_get_text(out, gguf, key);
    return status == MEMTX_E_NOT_FOUND
               ? memtx__fail(MEMTX_E_FORMAT, "%s: no tokenizer: %s is missing", memtx_gguf_path(gguf), key)
               : status;
}

static int check_model(const memtx_gguf *gguf)
{
    struct memtx_text model;
    int status = read_text(&model, gguf, "tokenizer.ggml.model");
    if (status) {
        return status;
    }
    if (model.n_bytes != 4 || memcmp(model.bytes, "gpt2", 4)) {
        return memtx__fail(MEMTX_E_UNSUPPORTED, "%s: tokenizer model \"%.*s\" (known: gpt2, a byte-level BPE)",
                           memtx_gguf_path(gguf), memtx__vocabulary_shown(model), model.bytes);
    }
    return MEMTX_OK;
}

static int read_bos(uint32_t *out, const memtx_gguf *gguf, size_t n_tokens)
{
    bool add = false;
    uint64_t id;
    *out = MEMTX_NO_TOKEN;
    int status = memtx_gguf_get_bool(&add, gguf, "tokenizer.ggml.add_bos_token");
    if ((status && status != MEMTX_E_NOT_FOUND) || !add) {
        return status == MEMTX_E_NOT_FOUND ? MEMTX_OK : status;
    }
    status = memtx_gguf_get_u64(&id, gguf, "tokenizer.ggml.bos_token_id", 0, n_tokens - 1);
    if (status == MEMTX_E_NOT_FOUND) {
        return memtx__fail(MEMTX_E_FORMAT, "%s: add_bos_token without bos_token_id", memtx_gguf_path(gguf));
    }
    if (!status) {
        *out = (uint32_t)id;
    }
    return status;
}

static int load(struct memtx_tokenizer *out, const memtx_gguf *gguf)
{
    struct memtx__spellings spellings = {0};
    struct memtx_text pre;
    int status = check_model(gguf);
    if (!status) {
        status = read_text(&pre, gguf, "tokenizer.ggml.pre");
    }
    if (!status) {
        status = memtx__pretokenizer_create(&out->pretokenizer, pre, true);
        if (status) { /* which knows no file */
            status = memtx__fail(status, "%s: %s", memtx_gguf_path(gguf), memtx_last_error());
        }
    }
    if (!status) {
        status = memtx__spellings_create(&spellings, gguf);
    }
    if (!status) {
        status = memtx__vocabulary_create(&out->vocabulary, gguf, &spellings);
    }
    if (!status) {
        status = memtx__bpe_create(&out->bpe, gguf, &spellings, &out->vocabulary);
    }
    if (!status) {
        status = read_bos(&out->bos, gguf, out->vocabulary.n_tokens);
    }
    memtx__spellings_destroy(&spellings);
    return status;
}

int memtx_tokenizer_create(memtx_tokenizer **out, const memtx_gguf *gguf)
{
    if (!out) {
        return memtx__fail(MEMTX_E_INVALID, "no place for the tokenizer");
    }
    *out = NULL;
    if (!gguf) {
        return memtx__fail(MEMTX_E_INVALID, "no file to read a tokenizer from");
    }
    memtx_tokenizer *tokenizer;
    int status = memtx__alloc(&tokenizer, 1, sizeof *tokenizer);
    if (status) {
        return status;
    }
    status = load(tokenizer, gguf);
    if (status) {
        memtx_tokenizer_destroy(tokenizer);
        return status;
    }
    *out = tokenizer;
    return MEMTX_OK;
}

void memtx_tokenizer_destroy(memtx_tokenizer *tokenizer)
{
    if (tokenizer) {
        memtx__bpe_destroy(&tokenizer->bpe);
        memtx__vocabulary_destroy(&tokenizer->vocabulary);
        memtx__pretokenizer_destroy(&tokenizer->pretokenizer);
        memtx__free(tokenizer);
    }
}

/* ---- encoding --------------------------------------------------------------------------------- */

/* One call of encode. */
struct encoder {
    const struct memtx_tokenizer *tokenizer;
    struct memtx__bpe_scratch scratch;
    struct word *words;
    size_t n_words; /* a power of two */
    uint32_t *ids;
    size_t n_ids;
    size_t n_ids_held;
};

static int encoder_begin(struct encoder *out, const struct memtx_tokenizer *tokenizer, size_t n_bytes)
{
    *out = (struct encoder){.tokenizer = tokenizer, .n_words = 1};
    while (out->n_words < MOST_WORDS && out->n_words < n_bytes >> WORD_BITS) {
        out->n_words *= 2;
    }
    int status = memtx__alloc(&out->words, out->n_words, sizeof *out->words);
    if (!status) {
        status = memtx__grow(&out->ids, &out->n_ids_held, n_bytes / 4 + 1, sizeof *out->ids);
    }
    return status;
}

static void encoder_end(struct encoder *encoder)
{
    memtx__free(encoder->ids);
    memtx__free(encoder->words);
    memtx__bpe_scratch_release(&encoder->scratch);
}

/* Appends the ids of a piece that is not among the words. */
static int append_merged(struct encoder *encoder, struct memtx_text piece)
{
    const struct memtx_tokenizer *tokenizer = encoder->tokenizer;
    if (tokenizer->pretokenizer.ignore_merges) {
        uint32_t id = memtx__text_table_find(&tokenizer->vocabulary.ordinary, piece);
        if (id != MEMTX_NO_TOKEN) {
            encoder->ids[encoder->n_ids++] = id;
            return MEMTX_OK;
        }
    }
    size_t n;
    int status = memtx__bpe_encode(encoder->ids + encoder->n_ids, &n, &encoder->scratch, &tokenizer->bpe, piece);
    encoder->n_ids += n;
    return status;
}

static int append_piece(struct encoder *encoder, struct memtx_text piece)
{
    size_t n_before = encoder->n_ids;
    int status = memtx__grow(&encoder->ids, &encoder->n_ids_held, n_before + piece.n_bytes, sizeof *encoder->ids);
    if (status) {
        return status;
    }
    if (piece.n_bytes > WORD_BYTES) {
        return append_merged(encoder, piece);
    }
    struct word *word = &encoder->words[XXH3_64bits(piece.bytes, piece.n_bytes) & (encoder->n_words - 1)];
    if (word->n_bytes == piece.n_bytes && !memcmp(word->bytes, piece.bytes, piece.n_bytes)) {
        memcpy(encoder->ids + n_before, word->ids, word->n_ids * sizeof *word->ids);
        encoder->n_ids += word->n_ids;
        return MEMTX_OK;
    }
    status = append_merged(encoder, piece);
    size_t n = encoder->n_ids - n_before;
    if (!status && n <= WORD_IDS) {
        memcpy(word->bytes, piece.bytes, piece.n_bytes);
        memcpy(word->ids, encoder->ids + n_before, n * sizeof *word->ids);
        word->n_bytes = (unsigned char)piece.n_bytes;
        word->n_ids = (unsigned char)n;
    }
    return status;
}

static int encode_pieces(struct encoder *encoder, const char *text, size_t n_bytes)
{
    struct memtx__pieces pieces;
    struct memtx_text piece = {0};
    int status = memtx__pieces_begin(&pieces, &encoder->tokenizer->pretokenizer, text, n_bytes);
    while (!status) {
        status = memtx__pieces_next(&piece, &pieces);
        if (status || !piece.n_bytes) {
            break;
        }
        status = append_piece(encoder, piece);
        if (status == MEMTX_E_FORMAT) {
            (void)memtx__fail(status, "%s (in the word at byte %zu of the text)", memtx_last_error(),
                              (size_t)(piece.bytes - text));
        }
    }
    memtx__pieces_end(&pieces);
    return status;
}

int memtx_tokenizer_encode(uint32_t **out, size_t *n_out, const memtx_tokenizer *tokenizer, const char *text,
                           size_t n_bytes)
{
    if (!out || !n_out) {
        return memtx__fail(MEMTX_E_INVALID, "no place for the tokens");
    }
    *out = NULL;
    *n_out = 0;
    if (!tokenizer || (!text && n_bytes)) {
        return memtx__fail(MEMTX_E_INVALID, "no tokenizer, or no text");
    }
    struct encoder encoder;
    int status = encoder_begin(&encoder, tokenizer, n_bytes);
    if (!status) {
        status = encode_pieces(&encoder, text ? text : "", n_bytes);
    }
    if (!status) {
        *out = encoder.ids;
        *n_out = encoder.n_ids;
        encoder.ids = NULL;
    }
    encoder_end(&encoder);
    return status;
}

void memtx_tokens_free(uint32_t *tokens)
{
    memtx__free(tokens);
}

/* ---- facts ------------------------------------------------------------------------------------ */

struct memtx_text memtx_tokenizer_token(const memtx_tokenizer *tokenizer, uint32_t id)
{
    return id < tokenizer->vocabulary.n_tokens ? tokenizer->vocabulary.tokens[id] : (struct memtx_text){"", 0};
}

size_t memtx_tokenizer_n_tokens(const memtx_tokenizer *tokenizer)
{
    return tokenizer->vocabulary.n_tokens;
}

const char *memtx_tokenizer_name(const memtx_tokenizer *tokenizer)
{
    return tokenizer->pretokenizer.name;
}

uint32_t memtx_tokenizer_bos(const memtx_tokenizer *tokenizer)
{
    return tokenizer->bos;
}
