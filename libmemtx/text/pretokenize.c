/* Pre-tokenizers (pretokenize.h): PCRE2 patterns by the name that a GGUF file gives.
 *
 * The specification is Hugging Face's `tokenizers` library, whose own pattern engine differs from PCRE2 in one thing
 * that matters here: its `\s` is Unicode's White_Space, while PCRE2's (with UCP) also takes U+180E. So white space is
 * spelled out. Letters and numbers follow the Unicode version of the PCRE2 library.
 *
 * Patterns only ever see valid UTF-8. The text is cut into fragments first, at every byte that is not part of a valid
 * sequence; those bytes become pieces of their own. That is what PCRE2_MATCH_INVALID_UTF would do, but without JIT
 * that option checks the rest of the text again for each piece, which is quadratic. What a pattern leaves out inside a
 * fragment (these leave out nothing) becomes a piece too.
 *
 * Cost: O(n). A run of white space is walked at most three times: by `\s*[\r\n]+`, by `\s+(?!\S)`, which gives back
 * one character, and as the piece itself. One character class repeated needs no stack, so long runs are harmless.
 */
#include "text/pretokenize.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/alloc.h"
#include "base/status.h"

/* Unicode's White_Space, for use inside a class. */
#define WHITE                                                                                                          \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"

#define OTHER "[^" WHITE "\\p{L}\\p{N}]"

#define GPT2_PATTERN                                                                                                   \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?" OTHER "+|[" WHITE "]+(?![^" WHITE "])|[" WHITE "]+"

/* Each \p{N} is cut out first, and GPT-2's pattern is applied to what stands between them. In one pattern: a number
 * never takes a space along, and a number, being the end of what the second step sees, ends white space as the end of
 * the text does. */
#define DIGITS_PATTERN                                                                                                 \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+|\\p{N}| ?" OTHER "+|[" WHITE "]+(?![^" WHITE "\\p{N}])|[" WHITE "]+"

#define LLAMA3_PATTERN                                                                                                 \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?" OTHER "+[\\r\\n]*|[" WHITE             \
    "]*[\\r\\n]+|[" WHITE "]+(?![^" WHITE "])|[" WHITE "]+"

struct pattern_row {
    const char *name; /* as in llama.cpp's converter */
    const char *pattern;
    bool ignore_merges;
};

static const struct pattern_row pattern_rows[] = {
    {"smollm", DIGITS_PATTERN, false},    {"starcoder", DIGITS_PATTERN, false}, {"refact", DIGITS_PATTERN, false},
    {"command-r", DIGITS_PATTERN, false}, {"gpt-2", GPT2_PATTERN, false},       {"llama-bpe", LLAMA3_PATTERN, true},
    {"llama3", LLAMA3_PATTERN, true},     {"llama-v3", LLAMA3_PATTERN, true},
};

enum { N_PATTERNS = sizeof pattern_rows / sizeof pattern_rows[0], KNOWN_BYTES = 256, MESSAGE_BYTES = 128 };

static const struct pattern_row *find_pattern(struct memtx_text name)
{
    for (size_t i = 0; i < N_PATTERNS; i++) {
        if (strlen(pattern_rows[i].name) == name.n_bytes && !memcmp(pattern_rows[i].name, name.bytes, name.n_bytes)) {
            return &pattern_rows[i];
        }
    }
    return NULL;
}

static int fail_unknown(struct memtx_text name)
{
    char known[KNOWN_BYTES] = "";
    size_t used = 0;
    for (size_t i = 0; i < N_PATTERNS && used < sizeof known; i++) {
        int n = snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", pattern_rows[i].name);
        used += n > 0 ? (size_t)n : 0;
    }
    return memtx__fail(MEMTX_E_UNSUPPORTED, "unknown pre-tokenizer \"%.*s\" (known: %s)",
                       name.n_bytes < 64 ? (int)name.n_bytes : 64, name.bytes, known);
}

static int fail_pcre2(int error)
{
    PCRE2_UCHAR message[MESSAGE_BYTES] = "";
    (void)pcre2_get_error_message(error, message, sizeof message);
    bool memory = error == PCRE2_ERROR_NOMEMORY || error == PCRE2_ERROR_HEAP_FAILED || error == PCRE2_ERROR_HEAPLIMIT;
    return memtx__fail(memory ? MEMTX_E_NO_MEMORY : MEMTX_E_UNSUPPORTED, "PCRE2: %s (%d)", (const char *)message,
                       error); /* else: a library built without Unicode */
}

static void *pcre2_take(size_t n_bytes, void *unused)
{
    void *block = NULL;
    (void)unused;
    (void)memtx__alloc_raw(&block, n_bytes, 1);
    return block;
}

static void pcre2_release(void *block, void *unused)
{
    (void)unused;
    memtx__free(block);
}

static int compile(struct memtx__pretokenizer *out, const char *pattern, bool jit)
{
    int error = 0;
    size_t error_at = 0;
    int status = MEMTX_OK;
    pcre2_compile_context *context = pcre2_compile_context_create(out->general);
    if (!context) {
        return fail_pcre2(PCRE2_ERROR_NOMEMORY);
    }
    out->code =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error, &error_at, context);
    if (!out->code) {
        status = fail_pcre2(error);
        goto done;
    }
    if (jit) {
        (void)pcre2_jit_compile(out->code, PCRE2_JIT_COMPLETE); /* where it can't, pcre2_match interprets */
    }
done:
    pcre2_compile_context_free(context);
    return status;
}

int memtx__pretokenizer_create(struct memtx__pretokenizer *out, struct memtx_text name, bool jit)
{
    *out = (struct memtx__pretokenizer){0};
    const struct pattern_row *row = find_pattern(name);
    if (!row) {
        return fail_unknown(name);
    }
    int status = MEMTX_OK;
    out->name = row->name;
    out->ignore_merges = row->ignore_merges;
    out->general = pcre2_general_context_create(pcre2_take, pcre2_release, NULL);
    if (out->general) {
        out->match = pcre2_match_context_create(out->general);
    }
    if (!out->match) {
        status = fail_pcre2(PCRE2_ERROR_NOMEMORY);
        goto done;
    }
    /* The limits guard against patterns that explode, and stop at ten million steps: long runs need more. */
    (void)pcre2_set_match_limit(out->match, UINT32_MAX);
    (void)pcre2_set_depth_limit(out->match, UINT32_MAX);
    status = compile(out, row->pattern, jit);
done:
    if (status) {
        memtx__pretokenizer_destroy(out);
    }
    return status;
}

void memtx__pretokenizer_destroy(struct memtx__pretokenizer *pretokenizer)
{
    pcre2_code_free(pretokenizer->code);
    pcre2_match_context_free(pretokenizer->match);
    pcre2_general_context_free(pretokenizer->general);
    *pretokenizer = (struct memtx__pretokenizer){0};
}

/* Bytes of the valid UTF-8 sequence at the beginning of n bytes; 0 where there is none (RFC 3629: shortest form only,
 * no surrogates, nothing above U+10FFFF). */
static size_t sequence_bytes(const unsigned char *b, size_t n)
{
    if (b[0] < 0x80) {
        return 1;
    }
    size_t length = b[0] >= 0xC2 && b[0] < 0xE0   ? 2
                    : b[0] >= 0xE0 && b[0] < 0xF0 ? 3
                    : b[0] >= 0xF0 && b[0] < 0xF5 ? 4
                                                  : 0;
    if (!length || length > n) {
        return 0;
    }
    unsigned low = b[0] == 0xE0 ? 0xA0 : b[0] == 0xF0 ? 0x90 : 0x80;
    unsigned high = b[0] == 0xED ? 0x9F : b[0] == 0xF4 ? 0x8F : 0xBF;
    if (b[1] < low || b[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < length; i++) {
        if ((b[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    return length;
}

/* Bytes from the beginning of n > 0 bytes that are all valid UTF-8, or, when the first is not, all invalid. */
static size_t run_bytes(bool *valid, const char *text, size_t n)
{
    const unsigned char *b = (const unsigned char *)text;
    size_t length = sequence_bytes(b, n);
    size_t at = length ? length : 1;
    *valid = length > 0;
    while (at < n) {
        length = sequence_bytes(b + at, n - at);
        if ((length > 0) != *valid) {
            break;
        }
        at += length ? length : 1;
    }
    return at;
}

int memtx__pieces_begin(struct memtx__pieces *out, const struct memtx__pretokenizer *pretokenizer, const char *text,
                        size_t n_bytes)
{
    *out = (struct memtx__pieces){.pretokenizer = pretokenizer, .text = text, .n_bytes = n_bytes};
    out->found = pcre2_match_data_create(1, pretokenizer->general);
    return out->found ? MEMTX_OK : fail_pcre2(PCRE2_ERROR_NOMEMORY);
}

/* The first match in the fragment from `at` on, as offsets into the text; an empty one at the fragment's end when
 * nothing more matches. */
static int find_match(size_t *begin, size_t *end, const struct memtx__pieces *pieces)
{
    const struct memtx__pretokenizer *pretokenizer = pieces->pretokenizer;
    PCRE2_SPTR fragment = (PCRE2_SPTR)pieces->text + pieces->fragment_begin;
    size_t length = pieces->fragment_end - pieces->fragment_begin;
    size_t start = pieces->at - pieces->fragment_begin;
    uint32_t options = PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY;
    int found = pcre2_match(pretokenizer->code, fragment, length, start, options, pieces->found, pretokenizer->match);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) {
        options |= PCRE2_NO_JIT;
        found = pcre2_match(pretokenizer->code, fragment, length, start, options, pieces->found, pretokenizer->match);
    }
    if (found == PCRE2_ERROR_NOMATCH) {
        *begin = *end = pieces->fragment_end;
        return MEMTX_OK;
    }
    if (found < 0) {
        return fail_pcre2(found);
    }
    const size_t *offsets = pcre2_get_ovector_pointer(pieces->found);
    *begin = pieces->fragment_begin + offsets[0];
    *end = pieces->fragment_begin + offsets[1];
    return MEMTX_OK;
}

int memtx__pieces_next(struct memtx_text *out, struct memtx__pieces *pieces)
{
    size_t begin = pieces->at;
    size_t end = begin;
    *out = (struct memtx_text){pieces->text + begin, 0};
    if (begin == pieces->n_bytes) {
        return MEMTX_OK;
    }
    if (begin == pieces->fragment_end) {
        bool valid;
        size_t n = run_bytes(&valid, pieces->text + begin, pieces->n_bytes - begin);
        pieces->fragment_begin = begin;
        pieces->fragment_end = begin + n;
        if (!valid) {
            pieces->at = pieces->fragment_end;
            out->n_bytes = n;
            return MEMTX_OK;
        }
    }
    int status = find_match(&begin, &end, pieces);
    if (!status) {
        out->n_bytes = (begin > pieces->at ? begin : end) - pieces->at; /* what lies before the match is a piece */
        pieces->at += out->n_bytes;
    }
    return status;
}

void memtx__pieces_end(struct memtx__pieces *pieces)
{
    pcre2_match_data_free(pieces->found);
    *pieces = (struct memtx__pieces){0};
}

void memtx__pretokenizer_version(char *out, size_t size)
{
    char text[64] = ""; /* "10.42 2022-12-11" */
    (void)pcre2_config(PCRE2_CONFIG_VERSION, text);
    text[strcspn(text, " ")] = '\0';
    (void)snprintf(out, size, "%s", text);
}
