/* The tokenizer (libmemtx/text) over vocabularies made here: ids counted by hand and by a plain merger, files that are
 * not what they should be, the round trip of any bytes, long words, memory that runs out. */
#include <criterion/criterion.h>

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "memtx/tokenizer.h"
#include "text/pretokenize.h"
#include "leak_check.h"
#include "tiny_vocabulary.h"

enum { MEGABYTE = 1 << 20, SEED = 4 };

static const char *const every_pre[] = {"smollm", "gpt-2", "llama-bpe"};

enum { N_PRE = sizeof every_pre / sizeof every_pre[0] };

static struct tiny_vocabulary recipe;

static void setup(void)
{
    tiny_fill(&recipe);
}

TestSuite(tokenizer, .init = setup);

/* ---- helpers ---------------------------------------------------------------------------------- */

static memtx_gguf *open_tiny(void)
{
    char path[] = "/tmp/memtx_tokenizer_XXXXXX";
    memtx_gguf *gguf = NULL;
    int fd = mkstemp(path);
    cr_assert(fd >= 0);
    cr_assert_eq(tiny_write(&recipe, path), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(memtx_gguf_open(&gguf, path), MEMTX_OK, "%s", memtx_last_error());
    (void)unlink(path);
    (void)close(fd);
    return gguf;
}

static memtx_tokenizer *create(void)
{
    memtx_gguf *gguf = open_tiny();
    memtx_tokenizer *tokenizer;
    cr_assert_eq(memtx_tokenizer_create(&tokenizer, gguf), MEMTX_OK, "%s", memtx_last_error());
    memtx_gguf_close(gguf); /* the tokenizer has copied what it needs */
    return tokenizer;
}

/* The file that `recipe` describes is refused, with that code and those words. */
static void expect_refused(int status, const char *words)
{
    memtx_gguf *gguf = open_tiny();
    memtx_tokenizer *tokenizer = (memtx_tokenizer *)&recipe;
    cr_expect_eq(memtx_tokenizer_create(&tokenizer, gguf), status, "%s: %s", words, memtx_last_error());
    cr_expect_null(tokenizer);
    cr_expect(strstr(memtx_last_error(), words), "\"%s\" is not in \"%s\"", words, memtx_last_error());
    memtx_gguf_close(gguf);
    cr_expect(!memory_is_lost());
}

static void expect_ids(const memtx_tokenizer *tokenizer, const char *text, const uint32_t *expected, size_t n_expected)
{
    uint32_t *ids;
    size_t n;
    cr_assert_eq(memtx_tokenizer_encode(&ids, &n, tokenizer, text, strlen(text)), MEMTX_OK, "%s", memtx_last_error());
    cr_expect_eq(n, n_expected, "\"%s\": %zu ids, not %zu", text, n, n_expected);
    for (size_t i = 0; i < n && i < n_expected; i++) {
        cr_expect_eq(ids[i], expected[i], "\"%s\": id %zu is %u, not %u", text, i, ids[i], expected[i]);
    }
    memtx_tokens_free(ids);
}

#define EXPECT_IDS(tokenizer, text, ...)                                                                               \
    expect_ids(tokenizer, text, (const uint32_t[]){__VA_ARGS__},                                                       \
               sizeof(const uint32_t[]){__VA_ARGS__} / sizeof(uint32_t))

/* Encodes; the tokens' bytes must be the text again. Returns how many there are. */
static size_t expect_round_trip(const memtx_tokenizer *tokenizer, const char *text, size_t n_bytes)
{
    uint32_t *ids;
    size_t n, at = 0;
    cr_assert_eq(memtx_tokenizer_encode(&ids, &n, tokenizer, text, n_bytes), MEMTX_OK, "%s", memtx_last_error());
    for (size_t i = 0; i < n; i++) {
        struct memtx_text token = memtx_tokenizer_token(tokenizer, ids[i]);
        cr_assert(token.n_bytes <= n_bytes - at && !memcmp(token.bytes, text + at, token.n_bytes),
                  "%s: token %zu, id %u, is not what stands at byte %zu of %zu", memtx_tokenizer_name(tokenizer), i,
                  ids[i], at, n_bytes);
        at += token.n_bytes;
    }
    cr_assert_eq(at, n_bytes);
    memtx_tokens_free(ids);
    return n;
}

/* ---- ids -------------------------------------------------------------------------------------- */

Test(tokenizer, ids_by_hand)
{
    memtx_tokenizer *tokenizer = create();
    EXPECT_IDS(tokenizer, "hello world", 259, 265, 'l', 'd');
    EXPECT_IDS(tokenizer, "aaa", 261, 'a'); /* the leftmost of equal ranks */
    EXPECT_IDS(tokenizer, "aaaaa", 262, 'a');
    EXPECT_IDS(tokenizer, "aaaaaaa", 262, 261, 'a');
    EXPECT_IDS(tokenizer, "lor", 'l', 264); /* the lower rank, though it stands to the right */
    EXPECT_IDS(tokenizer, "lol", 266, 'l');
    EXPECT_IDS(tokenizer, "whole", 'w', 'h', 'o', 'l', 'e'); /* a token that no merges make */
    EXPECT_IDS(tokenizer, "<|end|>", '<', '|', 'e', 'n', 'd', '|', '>');
    EXPECT_IDS(tokenizer, "\n\t", '\n', '\t');
    EXPECT_IDS(tokenizer, "\xC3\xA9", 0xC3, 0xA9);
    expect_ids(tokenizer, "", NULL, 0);
    memtx_tokenizer_destroy(tokenizer);
}

Test(tokenizer, pre_tokenizer_decides_what_may_merge)
{
    memtx_tokenizer *tokenizer = create();
    EXPECT_IDS(tokenizer, "a  12", 'a', 263, '1', '2'); /* digits are cut out first: two spaces end a piece */
    memtx_tokenizer_destroy(tokenizer);
    recipe.pre = "gpt-2";
    tokenizer = create();
    EXPECT_IDS(tokenizer, "a  12", 'a', ' ', ' ', '1', '2');
    EXPECT_IDS(tokenizer, "whole", 'w', 'h', 'o', 'l', 'e');
    memtx_tokenizer_destroy(tokenizer);
    recipe.pre = "llama-bpe";
    tokenizer = create();
    EXPECT_IDS(tokenizer, "whole", 267); /* ignore_merges */
    EXPECT_IDS(tokenizer, "whol", 'w', 'h', 'o', 'l');
    memtx_tokenizer_destroy(tokenizer);
}

Test(tokenizer, facts)
{
    memtx_tokenizer *tokenizer = create();
    struct memtx_text token = memtx_tokenizer_token(tokenizer, 260);
    cr_expect(token.n_bytes == 2 && !memcmp(token.bytes, " w", 2));
    token = memtx_tokenizer_token(tokenizer, 268);
    cr_expect(token.n_bytes == 7 && !memcmp(token.bytes, "<|end|>", 7));
    token = memtx_tokenizer_token(tokenizer, 0);
    cr_expect(token.n_bytes == 1 && token.bytes[0] == '\0');
    cr_expect_eq(memtx_tokenizer_token(tokenizer, 269).n_bytes, 0);
    cr_expect_eq(memtx_tokenizer_token(tokenizer, MEMTX_NO_TOKEN).n_bytes, 0);
    cr_expect_eq(memtx_tokenizer_n_tokens(tokenizer), 269);
    cr_expect_str_eq(memtx_tokenizer_name(tokenizer), "smollm");
    cr_expect_eq(memtx_tokenizer_bos(tokenizer), MEMTX_NO_TOKEN);
    memtx_tokenizer_destroy(tokenizer);
    memtx_tokenizer_destroy(NULL);
}

Test(tokenizer, bos_only_where_the_file_says_so)
{
    static const struct {
        int64_t bos;
        int add;
        uint32_t expected;
    } cases[] = {
        {268, -1, MEMTX_NO_TOKEN}, {268, 0, MEMTX_NO_TOKEN}, {268, 1, 268}, {0, 1, 0}, {-1, 0, MEMTX_NO_TOKEN}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        recipe.bos = cases[i].bos;
        recipe.add_bos = cases[i].add;
        memtx_tokenizer *tokenizer = create();
        cr_expect_eq(memtx_tokenizer_bos(tokenizer), cases[i].expected, "case %zu", i);
        memtx_tokenizer_destroy(tokenizer);
    }
}

/* The definition of BPE, in so many words: while any pair merges, merge the leftmost of the lowest rank. */
static size_t merge_plainly(uint32_t *ids, const uint32_t (*merges)[3], size_t n_merges, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        ids[i] = (unsigned char)text[i];
    }
    for (size_t rank = 0; rank < n_merges;) {
        size_t at = 0;
        while (at + 1 < n && (ids[at] != merges[rank][0] || ids[at + 1] != merges[rank][1])) {
            at++;
        }
        if (at + 1 >= n) {
            rank++;
            continue;
        }
        ids[at] = merges[rank][2];
        memmove(ids + at + 1, ids + at + 2, (n - at - 2) * sizeof *ids);
        n--;
        rank = 0;
    }
    return n;
}

/* Merges drawn at random over three letters, results that several merges make among them. */
static size_t draw_merges(uint32_t (*merges)[3], size_t n_wanted, struct memtx__rng *rng)
{
    recipe.n_merges = 0;
    recipe.n_tokens = recipe.n_types = 256;
    size_t n = 0;
    while (n < n_wanted) {
        uint32_t pair[2];
        bool again = false;
        for (int side = 0; side < 2; side++) {
            uint64_t draw = memtx__rng_below(rng, recipe.n_tokens - 256 + 3);
            pair[side] = draw < 3 ? (uint32_t)('a' + draw) : (uint32_t)(256 + draw - 3);
        }
        for (size_t i = 0; i < n; i++) {
            again = again || (merges[i][0] == pair[0] && merges[i][1] == pair[1]);
        }
        if (again || strlen(recipe.tokens[pair[0]]) + strlen(recipe.tokens[pair[1]]) > 8) {
            continue;
        }
        tiny_add_merge(&recipe, recipe.tokens[pair[0]], recipe.tokens[pair[1]]);
        char merged[TINY_TEXT_BYTES];
        (void)snprintf(merged, sizeof merged, "%.8s%.8s", recipe.tokens[pair[0]], recipe.tokens[pair[1]]);
        uint32_t id = 256;
        while (strcmp(recipe.tokens[id], merged)) {
            id++;
        }
        memcpy(merges[n++], (uint32_t[]){pair[0], pair[1], id}, sizeof merges[0]);
    }
    return n;
}

Test(tokenizer, merges_as_defined)
{
    struct memtx__rng rng = memtx__rng_create(SEED, 0);
    for (int round = 0; round < 20; round++) {
        uint32_t merges[100][3];
        size_t n_merges = draw_merges(merges, 100, &rng);
        memtx_tokenizer *tokenizer = create();
        for (int word = 0; word < 100; word++) {
            char text[201];
            uint32_t ids[200];
            size_t n = memtx__rng_below(&rng, 200);
            for (size_t i = 0; i < n; i++) {
                text[i] = (char)('a' + memtx__rng_below(&rng, 3));
            }
            text[n] = '\0';
            size_t n_ids = merge_plainly(ids, (const uint32_t(*)[3])merges, n_merges, text, n);
            expect_ids(tokenizer, text, ids, n_ids);
        }
        memtx_tokenizer_destroy(tokenizer);
    }
}

/* ---- files that are not what they should be --------------------------------------------------- */

Test(tokenizer, missing_keys)
{
    static const char *const needed[] = {"model", "pre", "tokens", "merges"};
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        recipe.omit = needed[i];
        expect_refused(MEMTX_E_FORMAT, needed[i]);
    }
    recipe.omit = "token_type"; /* all ordinary then */
    memtx_tokenizer_destroy(create());
    recipe.omit = NULL;
    recipe.add_bos = 1;
    expect_refused(MEMTX_E_FORMAT, "bos_token_id");
}

Test(tokenizer, wrong_types)
{
    static const char *const keys[] = {"model", "pre", "tokens", "merges", "token_type", "add_bos_token"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        recipe.wrong = keys[i];
        expect_refused(MEMTX_E_FORMAT, keys[i]);
    }
    recipe.wrong = "bos_token_id";
    recipe.add_bos = 1;
    expect_refused(MEMTX_E_FORMAT, "bos_token_id");
    recipe.wrong = NULL;
    recipe.bos = 269; /* one past the last token */
    expect_refused(MEMTX_E_FORMAT, "bos_token_id");
}

Test(tokenizer, unknown_kinds)
{
    recipe.pre = "qwen99";
    expect_refused(MEMTX_E_UNSUPPORTED, "qwen99");
    expect_refused(MEMTX_E_UNSUPPORTED, "smollm, starcoder, refact, command-r, gpt-2, llama-bpe, llama3, llama-v3");
    recipe.pre = "";
    expect_refused(MEMTX_E_UNSUPPORTED, "pre-tokenizer \"\"");
    recipe.pre = "smollm";
    recipe.model = "llama"; /* SentencePiece */
    expect_refused(MEMTX_E_UNSUPPORTED, "\"llama\"");
}

Test(tokenizer, tokens_that_cannot_be)
{
    recipe.n_types--;
    expect_refused(MEMTX_E_FORMAT, "269 tokens, but 268");
    recipe.n_types += 2;
    expect_refused(MEMTX_E_FORMAT, "269 tokens, but 270");
    recipe.n_types--;
    recipe.types[7] = 7;
    expect_refused(MEMTX_E_FORMAT, "token 7 has type 7");
    recipe.types[7] = -1;
    expect_refused(MEMTX_E_FORMAT, "token 7 has type");
    recipe.types[7] = TINY_NORMAL;
    strcpy(recipe.tokens[267], "hello");
    expect_refused(MEMTX_E_FORMAT, "tokens 259 and 267 are both \"hello\"");
    strcpy(recipe.tokens[267], "");
    expect_refused(MEMTX_E_FORMAT, "token 267 of 269 is empty");
    strcpy(recipe.tokens[267], "whole");
    recipe.n_tokens = recipe.n_types = 0;
    expect_refused(MEMTX_E_FORMAT, "0 tokens");
}

Test(tokenizer, merges_that_cannot_be)
{
    static const struct {
        const char *merge;
        const char *words;
    } cases[] = {
        {"nothere o", "first part"},
        {"o nothere", "second part"},
        {"h l", "makes a text that is no token"},
        {"hello", "one space"},
        {" hello", "one space"},
        {"hello ", "one space"},
        {"h  e", "one space"},
        {"h e l", "one space"},
        {" ", "one space"},
        {"", "one space"},
        {"h e", "twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        setup();
        strcpy(recipe.merges[recipe.n_merges++], cases[i].merge);
        expect_refused(MEMTX_E_FORMAT, cases[i].words);
        expect_refused(MEMTX_E_FORMAT, cases[i].merge);
        expect_refused(MEMTX_E_FORMAT, "merge 11,");
    }
}

Test(tokenizer, merge_into_a_token_of_other_bytes)
{
    recipe.types[260] = TINY_CONTROL; /* now the three bytes of its spelling, which are no space and no w */
    expect_refused(MEMTX_E_FORMAT, "merge 4, ");
    expect_refused(MEMTX_E_FORMAT, "means other bytes");
}

Test(tokenizer, no_merges_at_all)
{
    recipe.n_merges = 0;
    memtx_tokenizer *tokenizer = create();
    EXPECT_IDS(tokenizer, "hello", 'h', 'e', 'l', 'l', 'o');
    memtx_tokenizer_destroy(tokenizer);
}

Test(tokenizer, byte_without_token)
{
    uint32_t *ids = (uint32_t *)&recipe;
    size_t n = 1;
    strcpy(recipe.tokens[0xFF], "filler"); /* absent */
    recipe.types['~'] = TINY_CONTROL;      /* there, but plain text never gives it */
    memtx_tokenizer *tokenizer = create();
    cr_expect_eq(memtx_tokenizer_encode(&ids, &n, tokenizer, "hello world \xFF", 13), MEMTX_E_FORMAT);
    cr_expect(strstr(memtx_last_error(), "0xFF") && strstr(memtx_last_error(), "byte 12 "), "%s", memtx_last_error());
    cr_expect(!ids && !n);
    cr_expect_eq(memtx_tokenizer_encode(&ids, &n, tokenizer, "~", 1), MEMTX_E_FORMAT);
    cr_expect(strstr(memtx_last_error(), "0x7E"), "%s", memtx_last_error());
    EXPECT_IDS(tokenizer, "hello", 259);
    memtx_tokenizer_destroy(tokenizer);
}

Test(tokenizer, control_token_only_through_merges)
{
    recipe.types[259] = TINY_CONTROL; /* hello, which merges make */
    recipe.types[267] = TINY_CONTROL; /* whole, which they don't */
    recipe.pre = "llama-bpe";
    memtx_tokenizer *tokenizer = create();
    EXPECT_IDS(tokenizer, "hello", 259);
    EXPECT_IDS(tokenizer, "whole", 'w', 'h', 'o', 'l', 'e');
    memtx_tokenizer_destroy(tokenizer);
}

Test(tokenizer, spelling_outside_the_alphabet_stays_as_it_is)
{
    static const char *const spellings[] = {"\xEF\xBD\x9C", "a b",      "\xC5\x84", "\xC3",
                                            "\xC0\x80",     "\xC1\x81", "\x80",     "a\n"};
    for (size_t i = 0; i < sizeof spellings / sizeof spellings[0]; i++) {
        strcpy(recipe.tokens[267], spellings[i]);
        memtx_tokenizer *tokenizer = create();
        struct memtx_text token = memtx_tokenizer_token(tokenizer, 267);
        cr_expect(token.n_bytes == strlen(spellings[i]) && !memcmp(token.bytes, spellings[i], token.n_bytes), "%zu", i);
        memtx_tokenizer_destroy(tokenizer);
    }
}

Test(tokenizer, invalid_arguments)
{
    memtx_tokenizer *tokenizer = NULL;
    uint32_t *ids;
    size_t n;
    cr_expect_eq(memtx_tokenizer_create(NULL, NULL), MEMTX_E_INVALID);
    cr_expect_eq(memtx_tokenizer_create(&tokenizer, NULL), MEMTX_E_INVALID);
    cr_expect_null(tokenizer);
    cr_expect_eq(memtx_tokenizer_encode(&ids, &n, NULL, "a", 1), MEMTX_E_INVALID);
    cr_expect_null(ids);
    tokenizer = create();
    cr_expect_eq(memtx_tokenizer_encode(NULL, &n, tokenizer, "a", 1), MEMTX_E_INVALID);
    cr_expect_eq(memtx_tokenizer_encode(&ids, NULL, tokenizer, "a", 1), MEMTX_E_INVALID);
    cr_expect_eq(memtx_tokenizer_encode(&ids, &n, tokenizer, NULL, 1), MEMTX_E_INVALID);
    cr_expect_eq(memtx_tokenizer_encode(&ids, &n, tokenizer, NULL, 0), MEMTX_OK);
    cr_expect_eq(n, 0);
    memtx_tokens_free(ids);
    memtx_tokenizer_destroy(tokenizer);
}

/* ---- any bytes -------------------------------------------------------------------------------- */

static const char *const fragments[] = {
    "hello",    " world",       "  ",        "\r\n",         "\n\n",         "\t",       "1234",     "'ll",
    "'S",       "\xE2\x80\x99", "\xC2\xA0",  "\xC2\x85",     "\xE1\xA0\x8E", "\xE3\x80", "\xED\xA0", "\xF0\x9F\x98\x80",
    "\xF0\x9F", "\xC3\xA9",     "e\xCC\x81", "\xE4\xBD\xA0", "\xD9\xA3",     "...",      "aaaa",     "\xC0\x80",
};

/* Up to 400 bytes: noise and what is near the edges of the patterns. */
static size_t draw_text(char *out, struct memtx__rng *rng)
{
    size_t n = 0;
    for (uint64_t left = memtx__rng_below(rng, 80); left; left--) {
        if (memtx__rng_below(rng, 3) == 0) {
            out[n++] = (char)memtx__rng_below(rng, 256);
        } else {
            const char *fragment = fragments[memtx__rng_below(rng, sizeof fragments / sizeof fragments[0])];
            memcpy(out + n, fragment, strlen(fragment));
            n += strlen(fragment);
        }
    }
    return n;
}

Test(tokenizer, round_trip_of_any_bytes)
{
    struct memtx__rng rng = memtx__rng_create(SEED, 1);
    for (int pre = 0; pre < N_PRE; pre++) {
        recipe.pre = every_pre[pre];
        memtx_tokenizer *tokenizer = create();
        for (int i = 0; i < 4000; i++) {
            char text[800];
            size_t n = draw_text(text, &rng);
            (void)expect_round_trip(tokenizer, text, n);
        }
        char every_byte[512];
        for (int i = 0; i < 512; i++) {
            every_byte[i] = (char)i;
        }
        (void)expect_round_trip(tokenizer, every_byte, sizeof every_byte);
        memtx_tokenizer_destroy(tokenizer);
    }
}

static void expect_same_pieces(const struct memtx__pretokenizer *a, const struct memtx__pretokenizer *b,
                               const char *text, size_t n_bytes)
{
    struct memtx__pieces walks[2];
    struct memtx_text pieces[2];
    cr_assert_eq(memtx__pieces_begin(&walks[0], a, text, n_bytes), MEMTX_OK);
    cr_assert_eq(memtx__pieces_begin(&walks[1], b, text, n_bytes), MEMTX_OK);
    size_t at = 0;
    do {
        cr_assert_eq(memtx__pieces_next(&pieces[0], &walks[0]), MEMTX_OK);
        cr_assert_eq(memtx__pieces_next(&pieces[1], &walks[1]), MEMTX_OK);
        cr_assert(pieces[0].bytes == text + at && pieces[1].bytes == text + at);
        cr_assert_eq(pieces[0].n_bytes, pieces[1].n_bytes, "%s at byte %zu", a->name, at);
        at += pieces[0].n_bytes;
    } while (pieces[0].n_bytes);
    cr_assert_eq(at, n_bytes);
    memtx__pieces_end(&walks[0]);
    memtx__pieces_end(&walks[1]);
}

Test(tokenizer, compiled_and_interpreted_patterns_agree)
{
    struct memtx__rng rng = memtx__rng_create(SEED, 2);
    char *run;
    cr_assert_eq(memtx__alloc(&run, MEGABYTE, 1), MEMTX_OK);
    for (int pre = 0; pre < N_PRE; pre++) {
        struct memtx__pretokenizer jit, plain;
        struct memtx_text name = {every_pre[pre], strlen(every_pre[pre])};
        cr_assert_eq(memtx__pretokenizer_create(&jit, name, true), MEMTX_OK);
        cr_assert_eq(memtx__pretokenizer_create(&plain, name, false), MEMTX_OK);
        for (int i = 0; i < 2000; i++) {
            char text[800];
            size_t n = draw_text(text, &rng);
            expect_same_pieces(&jit, &plain, text, n);
        }
        for (const char *c = " a!\n7\xFF"; *c; c++) {
            memset(run, *c, MEGABYTE);
            expect_same_pieces(&jit, &plain, run, MEGABYTE);
        }
        memtx__pretokenizer_destroy(&jit);
        memtx__pretokenizer_destroy(&plain);
    }
    memtx__free(run);
}

static size_t count_pieces(const struct memtx__pretokenizer *pretokenizer, const char *text, size_t n_bytes)
{
    struct memtx__pieces pieces;
    struct memtx_text piece;
    size_t n = 0;
    cr_assert_eq(memtx__pieces_begin(&pieces, pretokenizer, text, n_bytes), MEMTX_OK);
    while (memtx__pieces_next(&piece, &pieces) == MEMTX_OK && piece.n_bytes) {
        n++;
    }
    memtx__pieces_end(&pieces);
    return n;
}

Test(tokenizer, pieces)
{
    static const struct {
        const char *text;
        size_t expected[N_PRE];
    } cases[] = {
        {"it's 1,000 o'clock", {11, 8, 8}},
        {"a\xC2\x85\xC2\x85z", {4, 4, 3}}, /* U+0085 is white space; Llama 3's words take one character along */
        {"!\xE1\xA0\x8E!", {1, 1, 1}},     /* U+180E is not */
        {"!\x1C!", {1, 1, 1}},             /* nor is U+001C */
        {"\xFF\xFE"
         "a\x80"
         "b\x81\x82",
         {5, 5, 5}},                   /* a run of what is not UTF-8 is one piece */
        {"!\xED\xA0\x80!", {3, 3, 3}}, /* nor are surrogates UTF-8 */
        {"!\xE0\x80\xAF!", {3, 3, 3}}, /* longer than need be */
        {"!\xF0\x80\x80\xAF!", {3, 3, 3}},
        {"!\xF4\x90\x80\x80!", {3, 3, 3}}, /* beyond U+10FFFF */
        {"!\xF4\x8F\xBF\xBF!", {1, 1, 1}},
        {"!\xED\x9F\xBF!", {1, 1, 1}},
        {"x \xFF", {3, 3, 3}}, /* white space before it stands at a text's end */
    };
    for (int pre = 0; pre < N_PRE; pre++) {
        struct memtx__pretokenizer pretokenizer;
        struct memtx_text name = {every_pre[pre], strlen(every_pre[pre])};
        cr_assert_eq(memtx__pretokenizer_create(&pretokenizer, name, true), MEMTX_OK);
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            size_t n = count_pieces(&pretokenizer, cases[i].text, strlen(cases[i].text));
            cr_expect_eq(n, cases[i].expected[pre], "case %zu, %s: %zu pieces", i, every_pre[pre], n);
        }
        memtx__pretokenizer_destroy(&pretokenizer);
    }
}

static size_t put_utf8(char *out, unsigned c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i; i--, c >>= 6) {
        out[i] = (char)(0x80 | (c & 0x3F));
    }
    out[0] = (char)(0xF00 >> n | c);
    return n;
}

/* Two of a character and a mark: of white space only, the second may stand alone, and the mark too. */
Test(tokenizer, white_space_is_that_of_unicode)
{
    static const unsigned white[] = {0x09,   0x0A,   0x0B,   0x0C,   0x0D,   0x85,   0xA0,   0x1680,
                                     0x2000, 0x2001, 0x2002, 0x2003, 0x2004, 0x2005, 0x2006, 0x2007,
                                     0x2008, 0x2009, 0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000};
    struct memtx__pretokenizer pretokenizer;
    size_t n_white = 0;
    cr_assert_eq(memtx__pretokenizer_create(&pretokenizer, (struct memtx_text){"gpt-2", 5}, true), MEMTX_OK);
    for (unsigned c = 0; c < 0x110000; c++) {
        char text[9];
        size_t n = put_utf8(text, c);
        n += put_utf8(text + n, c);
        text[n++] = '!';
        bool is_white = n_white < sizeof white / sizeof white[0] && white[n_white] == c;
        n_white += is_white;
        if (c < 0xD800 || c > 0xDFFF) {
            size_t n_pieces = count_pieces(&pretokenizer, text, n);
            cr_expect((n_pieces == 3) == is_white, "U+%04X: %zu pieces", c, n_pieces);
        }
    }
    cr_expect_eq(n_white, sizeof white / sizeof white[0]);
    memtx__pretokenizer_destroy(&pretokenizer);
}

Test(tokenizer, long_words)
{
    char *text;
    cr_assert_eq(memtx__alloc(&text, MEGABYTE + 1, 1), MEMTX_OK);
    for (int pre = 0; pre < N_PRE; pre++) {
        recipe.pre = every_pre[pre];
        memtx_tokenizer *tokenizer = create();
        memset(text, 'a', MEGABYTE);
        cr_expect_eq(expect_round_trip(tokenizer, text, MEGABYTE), MEGABYTE / 4);
        memset(text, ' ', MEGABYTE);
        cr_expect_eq(expect_round_trip(tokenizer, text, MEGABYTE), MEGABYTE / 2);
        text[MEGABYTE] = 'w'; /* takes the last space along */
        cr_expect_eq(expect_round_trip(tokenizer, text, MEGABYTE + 1), MEGABYTE / 2 + 1);
        memset(text, 0, MEGABYTE);
        cr_expect_eq(expect_round_trip(tokenizer, text, MEGABYTE), MEGABYTE);
        memset(text, 0xFF, MEGABYTE);
        cr_expect_eq(expect_round_trip(tokenizer, text, MEGABYTE), MEGABYTE);
        memtx_tokenizer_destroy(tokenizer);
    }
    memtx__free(text);
}

/* ---- memory and threads ----------------------------------------------------------------------- */

static const char some_text[] = "hello world, aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa \xFF\xFF lol  12 whole";

Test(tokenizer, create_without_memory)
{
    memtx_gguf *gguf = open_tiny();
    int n_failed = 0, n_after = 0; /* a pattern that cannot be compiled to machine code is interpreted: no failure */
    for (long n = 1; n_after < 20; n++) {
        memtx_tokenizer *tokenizer = (memtx_tokenizer *)&recipe;
        memtx__alloc_fail_at(n);
        int status = memtx_tokenizer_create(&tokenizer, gguf);
        memtx__alloc_fail_at(0);
        cr_assert(status == MEMTX_OK || status == MEMTX_E_NO_MEMORY, "allocation %ld: %s", n, memtx_last_error());
        if (status) {
            cr_expect_null(tokenizer);
            n_failed++;
            n_after = 0;
        } else {
            (void)expect_round_trip(tokenizer, some_text, sizeof some_text);
            memtx_tokenizer_destroy(tokenizer);
            n_after++;
        }
    }
    cr_expect_geq(n_failed, 12);
    memtx_gguf_close(gguf);
    cr_expect(!memory_is_lost());
}

Test(tokenizer, encode_without_memory)
{
    memtx_tokenizer *tokenizer = create();
    int status = MEMTX_E_NO_MEMORY, n_failed = 0;
    for (long n = 1; status; n++) {
        uint32_t *ids = (uint32_t *)&recipe;
        size_t n_ids = 1;
        memtx__alloc_fail_at(n);
        status = memtx_tokenizer_encode(&ids, &n_ids, tokenizer, some_text, sizeof some_text);
        memtx__alloc_fail_at(0);
        cr_assert(status == MEMTX_OK || status == MEMTX_E_NO_MEMORY, "allocation %ld: %s", n, memtx_last_error());
        cr_expect(!status || (!ids && !n_ids));
        n_failed += status != MEMTX_OK;
        memtx_tokens_free(ids);
    }
    cr_expect_geq(n_failed, 5); /* words, ids, the match, symbols, candidates */
    memtx_tokenizer_destroy(tokenizer);
    cr_expect(!memory_is_lost());
}

static void *encode_often(void *tokenizer)
{
    struct memtx__rng rng = memtx__rng_create(SEED, 3);
    for (int i = 0; i < 300; i++) {
        char text[800];
        size_t n = draw_text(text, &rng);
        (void)expect_round_trip(tokenizer, text, n);
    }
    return NULL;
}

Test(tokenizer, threads_share_one)
{
    enum { N_THREADS = 4 };
    pthread_t threads[N_THREADS];
    memtx_tokenizer *tokenizer = create();
    for (int i = 0; i < N_THREADS; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, encode_often, tokenizer), 0);
    }
    for (int i = 0; i < N_THREADS; i++) {
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
    }
    memtx_tokenizer_destroy(tokenizer);
}
