/* A reading that stops and goes on in another opening of the store equals one that never stopped (DESIGN 3, suspended),
 * bit by bit. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memtx/memory.h"
#include "tiny_model.h"

enum { N_TEXT = 480, SEGMENT = 32, WINDOW = 48, SINKS = 3 };

static char folder[64];
static uint32_t text[N_TEXT];
static memtx_model *model;

static void begin(void)
{
    const struct tiny_options options = tiny_options_default();
    (void)snprintf(folder, sizeof folder, "/tmp/memtx-state-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    tiny_tokens(text, N_TEXT, 5);
    model = tiny_model_load(&options);
}

static void end(void)
{
    char command[96];
    memtx_model_close(model);
    (void)snprintf(command, sizeof command, "rm -r %s", folder);
    cr_assert_eq(system(command), 0);
}

/* A store in the folder, a memory and a stream over it. */
struct reading {
    memtx_store *store;
    memtx_memory *memory;
    memtx_stream *stream;
};

static struct reading open_reading(const char *name, uint32_t segment, uint32_t state_segments)
{
    struct reading r;
    struct memtx_store_spec spec;
    struct memtx_memory_options memory = memtx_memory_options_default();
    struct memtx_stream_options stream = memtx_stream_options_default();
    char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    memtx_model_store_spec(&spec, model);
    memtx_store_keep_layer(&spec, 1);
    memtx_store_keep_layer(&spec, 2);
    cr_assert_eq(memtx_store_open(&r.store, path, &spec, NULL), MEMTX_OK, "%s", memtx_last_error());
    memory.k = 8;
    cr_assert_eq(memtx_memory_open(&r.memory, r.store, &memory), MEMTX_OK);
    stream.mode = MEMTX_MODE_MEMORY;
    stream.window = WINDOW;
    stream.segment = segment;
    stream.sinks = SINKS;
    stream.memory = r.memory;
    stream.state_segments = state_segments;
    cr_assert_eq(memtx_stream_open(&r.stream, model, &stream), MEMTX_OK, "%s", memtx_last_error());
    return r;
}

static void close_reading(struct reading *r)
{
    memtx_stream_close(r->stream);
    memtx_memory_close(r->memory);
    cr_assert_eq(memtx_store_close(r->store), MEMTX_OK, "%s", memtx_last_error());
}

/* nll of tokens `from` .. n - 1, the first of them from what the stream read before. */
static void go_on(float *nll, const struct reading *r, size_t from, size_t n)
{
    cr_assert_eq(memtx_model_position(r->stream), from);
    cr_assert_eq(memtx_model_nll(nll, r->stream, 0, 1, text + from), MEMTX_OK, "%s", memtx_last_error());
    tiny_run(nll + 1, r->stream, text + from, n - from, SEGMENT);
}

static void read_whole(float *nll)
{
    struct reading r = open_reading("whole", SEGMENT, 3);
    cr_assert_eq(memtx_model_begin_document(r.stream, "text"), MEMTX_OK);
    tiny_run(nll, r.stream, text, N_TEXT, SEGMENT);
    cr_assert_eq(memtx_model_end_document(r.stream), MEMTX_OK, "%s", memtx_last_error());
    close_reading(&r);
}

/* Ended, suspended, or dropped a segment after the last state: each time the rest is what it would have been. */
Test(state, an_interrupted_reading_equals_an_uninterrupted_one, .init = begin, .fini = end)
{
    enum { FIRST = 6 * SEGMENT };
    static float whole[N_TEXT], part[N_TEXT];
    static const char *const names[] = {"ended", "suspended", "dropped"};
    read_whole(whole);
    for (int how = 0; how < 3; how++) {
        struct reading r = open_reading(names[how], SEGMENT, 3);
        cr_assert_eq(memtx_model_begin_document(r.stream, "text"), MEMTX_OK);
        tiny_run(part, r.stream, text, how == 2 ? FIRST + SEGMENT : FIRST, SEGMENT);
        cr_assert_eq(how == 0   ? memtx_model_end_document(r.stream)
                     : how == 1 ? memtx_model_suspend(r.stream)
                                : MEMTX_OK,
                     MEMTX_OK, "%s", memtx_last_error());
        close_reading(&r);
        r = open_reading(names[how], SEGMENT, 3);
        cr_assert_eq(memtx_model_continue_document(r.stream, "text", text, N_TEXT), MEMTX_OK, "%s", memtx_last_error());
        go_on(part, &r, FIRST, N_TEXT);
        cr_assert_eq(memcmp(part, whole + FIRST - 1, (N_TEXT - FIRST) * sizeof *part), 0, "%s", names[how]);
        cr_assert_eq(memtx_model_end_document(r.stream), MEMTX_OK);
        struct memtx_document document;
        cr_assert_eq(memtx_store_document_named(&document, r.store, "text"), MEMTX_OK);
        cr_assert_eq(document.n_tokens, N_TEXT, "every token is a row, once");
        cr_assert_eq(memtx_store_verify(r.store, NULL), MEMTX_OK, "%s", memtx_last_error());
        close_reading(&r);
    }
}

Test(state, what_does_not_go_on_is_refused_and_changes_nothing, .init = begin, .fini = end)
{
    static float nll[N_TEXT];
    struct memtx_document before, after;
    struct reading r = open_reading("store", SEGMENT, 3);
    cr_assert_eq(memtx_model_begin_document(r.stream, "text"), MEMTX_OK);
    tiny_run(nll, r.stream, text, 5 * SEGMENT, SEGMENT);
    cr_assert_eq(memtx_model_end_document(r.stream), MEMTX_OK);
    cr_assert_eq(memtx_store_document_named(&before, r.store, "text"), MEMTX_OK);
    cr_assert_eq(memtx_model_continue_document(r.stream, "other", text, N_TEXT), MEMTX_E_NOT_FOUND);
    cr_assert_eq(memtx_model_continue_document(r.stream, "text", text, 5 * SEGMENT - 1), MEMTX_E_MISMATCH);
    text[7] ^= 1;
    cr_assert_eq(memtx_model_continue_document(r.stream, "text", text, N_TEXT), MEMTX_E_MISMATCH);
    text[7] ^= 1;
    close_reading(&r);
    r = open_reading("store", SEGMENT / 2, 3);
    cr_assert_eq(memtx_model_continue_document(r.stream, "text", text, N_TEXT), MEMTX_E_MISMATCH);
    cr_assert(strstr(memtx_last_error(), "segment of 32, not 16"), "%s", memtx_last_error());
    cr_assert_eq(memtx_store_document_named(&after, r.store, "text"), MEMTX_OK);
    cr_assert_eq(memcmp(&before, &after, sizeof before), 0);
    close_reading(&r);
}
