/* The tokenizer against Hugging Face's `tokenizers`: pieces of three pre-tokenizers, and ids under the default model's
 * vocabulary, of six novels, 1 MB of C, a torture list and random strings. Figures: tokenizer_reference.json.
 *
 * The model is MEMTX_MODEL or MEMTX_DATA/model.gguf, the texts are in MEMTX_DATA/books and /code; MEMTX_DATA is
 * data/cache of the sources unless the environment says otherwise. What is absent is skipped. */
#include <criterion/criterion.h>

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/file.h"
#include "memtx/tokenizer.h"
#include "text/pretokenize.h"

enum { N_PRE_TOKENIZERS = 3, PATH_BYTES = 4096 };

struct reference_list {
    size_t n;
    uint32_t crc32;
};

struct reference_text {
    const char *name;
    const char *file;
    size_t n_bytes; /* from the file's beginning */
    uint32_t crc32;
    struct reference_list ids;
    struct reference_list pieces[N_PRE_TOKENIZERS];
};

struct reference_input {
    const char *name;
    const char *unit;
    size_t n_unit_bytes;
    size_t n_times;
    int n_missing; /* bytes in it that the vocabulary lacks */
    int is_utf8;   /* else only the round trip is defined */
    struct reference_list ids;
    struct reference_list pieces[N_PRE_TOKENIZERS];
};

#include "tokenizer_reference.h"

#define N_OF(array) (sizeof(array) / sizeof((array)[0]))

/* ---- helpers ---------------------------------------------------------------------------------- */

/* zlib's CRC-32 (reflected polynomial 0xEDB88320), a bit at a time. */
static uint32_t add_crc32(uint32_t crc, const void *bytes, size_t n_bytes)
{
    crc = ~crc;
    for (size_t i = 0; i < n_bytes; i++) {
        crc ^= ((const unsigned char *)bytes)[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
        }
    }
    return ~crc;
}

static void add_number(struct reference_list *list, size_t number)
{
    unsigned char bytes[4];
    memtx__put_u32(bytes, (uint32_t)number);
    list->crc32 = add_crc32(list->crc32, bytes, sizeof bytes);
    list->n++;
}

static void expect_same(const char *name, const char *what, struct reference_list got, struct reference_list expected)
{
    cr_expect(got.n == expected.n && got.crc32 == expected.crc32, "%s: %s: %zu (CRC-32 %08x), not %zu (%08x)", name,
              what, got.n, got.crc32, expected.n, expected.crc32);
}

static void data_path(char *out, const char *folder, const char *file)
{
    const char *data = getenv("MEMTX_DATA");
    (void)snprintf(out, PATH_BYTES, "%s/%s%s", data ? data : MEMTX_SOURCE_ROOT "/data/cache", folder, file);
}

static memtx_tokenizer *create_or_skip(void)
{
    char path[PATH_BYTES];
    memtx_gguf *gguf;
    memtx_tokenizer *tokenizer;
    const char *model = getenv("MEMTX_MODEL");
    data_path(path, "", "model.gguf");
    int status = memtx_gguf_open(&gguf, model ? model : path);
    if (status == MEMTX_E_NOT_FOUND) {
        cr_skip_test("no model: %s", memtx_last_error());
    }
    cr_assert_eq(status, MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(memtx_tokenizer_create(&tokenizer, gguf), MEMTX_OK, "%s", memtx_last_error());
    memtx_gguf_close(gguf);
    return tokenizer;
}

/* false when the text is absent, or is not the one that the figures were made from. */
static bool open_text(struct memtx__map *out, const struct reference_text *text)
{
    char path[PATH_BYTES];
    data_path(path, strcmp(text->name, "code") ? "books/" : "code/", text->file);
    if (memtx__map_open(out, path)) {
        return false;
    }
    if (out->n_bytes < text->n_bytes || add_crc32(0, out->bytes, text->n_bytes) != text->crc32) {
        (void)fprintf(stderr, "%s: another version than the reference was made from\n", path);
        memtx__map_close(out);
        return false;
    }
    return true;
}

static char *make_input(size_t *n_bytes, const struct reference_input *input)
{
    char *text;
    *n_bytes = input->n_unit_bytes * input->n_times;
    cr_assert_eq(memtx__alloc(&text, *n_bytes, 1), MEMTX_OK);
    for (size_t i = 0; i < input->n_times; i++) {
        memcpy(text + i * input->n_unit_bytes, input->unit, input->n_unit_bytes);
    }
    return text;
}

static struct reference_list list_pieces(const struct memtx__pretokenizer *pretokenizer, const char *text,
                                         size_t n_bytes)
{
    struct memtx__pieces pieces;
    struct memtx_text piece;
    struct reference_list list = {0};
    cr_assert_eq(memtx__pieces_begin(&pieces, pretokenizer, text, n_bytes), MEMTX_OK);
    while (!memtx__pieces_next(&piece, &pieces) && piece.n_bytes) {
        add_number(&list, piece.n_bytes);
    }
    memtx__pieces_end(&pieces);
    return list;
}

/* Encodes; the tokens' bytes must be the text again. */
static struct reference_list list_ids(const memtx_tokenizer *tokenizer, const char *name, const char *text,
                                      size_t n_bytes)
{
    uint32_t *ids;
    size_t n, at = 0;
    struct reference_list list = {0};
    cr_assert_eq(memtx_tokenizer_encode(&ids, &n, tokenizer, text, n_bytes), MEMTX_OK, "%s: %s", name,
                 memtx_last_error());
    for (size_t i = 0; i < n; i++) {
        struct memtx_text token = memtx_tokenizer_token(tokenizer, ids[i]);
        cr_assert(token.n_bytes <= n_bytes - at && !memcmp(token.bytes, text + at, token.n_bytes), "%s: token %zu",
                  name, i);
        at += token.n_bytes;
        add_number(&list, ids[i]);
    }
    cr_expect_eq(at, n_bytes, "%s", name);
    memtx_tokens_free(ids);
    return list;
}

/* ---- pieces ----------------------------------------------------------------------------------- */

static void create_all(struct memtx__pretokenizer *out)
{
    for (int i = 0; i < N_PRE_TOKENIZERS; i++) {
        struct memtx_text name = {pre_tokenizers[i], strlen(pre_tokenizers[i])};
        cr_assert_eq(memtx__pretokenizer_create(&out[i], name, true), MEMTX_OK, "%s", memtx_last_error());
    }
}

static void destroy_all(struct memtx__pretokenizer *pretokenizers)
{
    for (int i = 0; i < N_PRE_TOKENIZERS; i++) {
        memtx__pretokenizer_destroy(&pretokenizers[i]);
    }
}

Test(tokenizer_reference, pieces_of_torture_list)
{
    struct memtx__pretokenizer pretokenizers[N_PRE_TOKENIZERS];
    create_all(pretokenizers);
    for (size_t i = 0; i < N_OF(reference_inputs); i++) {
        const struct reference_input *input = &reference_inputs[i];
        size_t n_bytes;
        char *text = make_input(&n_bytes, input);
        for (int pre = 0; pre < N_PRE_TOKENIZERS && input->is_utf8; pre++) {
            expect_same(input->name, pre_tokenizers[pre], list_pieces(&pretokenizers[pre], text, n_bytes),
                        input->pieces[pre]);
        }
        memtx__free(text);
    }
    destroy_all(pretokenizers);
}

Test(tokenizer_reference, pieces_of_texts)
{
    struct memtx__pretokenizer pretokenizers[N_PRE_TOKENIZERS];
    size_t n_read = 0;
    create_all(pretokenizers);
    for (size_t i = 0; i < N_OF(reference_texts); i++) {
        const struct reference_text *text = &reference_texts[i];
        struct memtx__map map;
        if (!open_text(&map, text)) {
            continue;
        }
        for (int pre = 0; pre < N_PRE_TOKENIZERS; pre++) {
            expect_same(text->name, pre_tokenizers[pre],
                        list_pieces(&pretokenizers[pre], (const char *)map.bytes, text->n_bytes), text->pieces[pre]);
        }
        memtx__map_close(&map);
        n_read++;
    }
    destroy_all(pretokenizers);
    if (!n_read) {
        cr_skip_test("no texts");
    }
}

/* ---- ids -------------------------------------------------------------------------------------- */

Test(tokenizer_reference, ids_of_torture_list)
{
    memtx_tokenizer *tokenizer = create_or_skip();
    for (size_t i = 0; i < N_OF(reference_inputs); i++) {
        const struct reference_input *input = &reference_inputs[i];
        size_t n_bytes;
        char *text = make_input(&n_bytes, input);
        if (input->n_missing) {
            uint32_t *ids;
            size_t n;
            cr_expect_eq(memtx_tokenizer_encode(&ids, &n, tokenizer, text, n_bytes), MEMTX_E_FORMAT, "%s", input->name);
            cr_expect_null(ids);
        } else {
            struct reference_list ids = list_ids(tokenizer, input->name, text, n_bytes);
            if (input->is_utf8) {
                expect_same(input->name, "ids", ids, input->ids);
            }
        }
        memtx__free(text);
    }
    memtx_tokenizer_destroy(tokenizer);
}

Test(tokenizer_reference, ids_of_texts)
{
    memtx_tokenizer *tokenizer = create_or_skip();
    size_t n_read = 0;
    for (size_t i = 0; i < N_OF(reference_texts); i++) {
        const struct reference_text *text = &reference_texts[i];
        struct memtx__map map;
        if (open_text(&map, text)) {
            expect_same(text->name, "ids", list_ids(tokenizer, text->name, (const char *)map.bytes, text->n_bytes),
                        text->ids);
            memtx__map_close(&map);
            n_read++;
        }
    }
    memtx_tokenizer_destroy(tokenizer);
    if (!n_read) {
        cr_skip_test("no texts");
    }
}

Test(tokenizer_reference, facts_of_the_model)
{
    memtx_tokenizer *tokenizer = create_or_skip();
    cr_expect_eq(memtx_tokenizer_n_tokens(tokenizer), 49152);
    cr_expect_str_eq(memtx_tokenizer_name(tokenizer), "smollm");
    cr_expect_eq(memtx_tokenizer_bos(tokenizer), MEMTX_NO_TOKEN);
    memtx_tokenizer_destroy(tokenizer);
}
