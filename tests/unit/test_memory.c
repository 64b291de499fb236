/* The memory: that every token is held exactly once, and which calls are refused. test_attend.c has what it retrieves,
 * test_gather.c rows by id, test_blend.c the blend. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "hand.h"
#include "model/model.h"
#include "tiny_model.h"

/* ---- exactly once (DESIGN 3's invariant) ------------------------------------------------------ */

enum { N_TEXT = 700 };

static uint32_t text[N_TEXT];

/* Each place before n_read is in exactly one of {sinks, window, memory}; the memory's are in order. */
static void check_exactly_once(const memtx_stream *stream, const memtx_store *store, uint64_t first_row, size_t n_read)
{
    static unsigned n_times[N_TEXT];
    const struct memtx__kv_cache *cache = &stream->cache;
    uint64_t next = first_row;
    memset(n_times, 0, sizeof n_times);
    for (size_t i = 0; i < cache->n_rows; i++) {
        cr_assert_lt(cache->positions[i], n_read);
        cr_assert_eq(cache->tokens[i], text[cache->positions[i]]);
        n_times[cache->positions[i]]++;
    }
    for (size_t i = 0; i < store->now.n_extents; i++) {
        const struct memtx__extent *extent = &store->now.extents[i];
        if (extent->first_row < first_row) {
            continue; /* of an earlier document */
        }
        cr_assert_eq(extent->first_row, next, "a hole among the rows");
        next += extent->n_rows;
        for (uint64_t row = 0; row < extent->n_rows; row++) {
            const uint64_t id = extent->first_row + row, chunk = id / store->chunk_rows;
            cr_assert_lt(extent->first_position + row, n_read);
            n_times[extent->first_position + row]++;
            cr_assert_eq(memtx__get_u32(memtx__tail_tokens(&store->tail, chunk) + 4 * (id % store->chunk_rows)),
                         text[extent->first_position + row]);
        }
    }
    cr_assert_eq(next, store->now.state.n_rows);
    for (size_t t = 0; t < n_read; t++) {
        cr_assert_eq(n_times[t], 1, "of %zu tokens read, the one at %zu is held %u times", n_read, t, n_times[t]);
    }
}

static void read_document(memtx_stream *stream, const struct tiny_memory *memory,
                          const struct memtx_stream_options *options)
{
    const struct memtx__kv_cache *cache = &stream->cache;
    const uint64_t first_row = memory->store->now.state.n_rows;
    cr_assert_eq(memtx_model_begin_document(stream, "text"), MEMTX_OK, "%s", memtx_last_error());
    for (size_t first = 0, n; first < N_TEXT; first += n) {
        const float *hidden;
        n = N_TEXT - first < options->segment ? N_TEXT - first : options->segment;
        cr_assert_eq(memtx_model_forward_segment(&hidden, stream, text + first, n), MEMTX_OK, "%s", memtx_last_error());
        check_exactly_once(stream, memory->store, first_row, first + n);
        const size_t n_sinks = first + n < options->sinks ? first + n : options->sinks;
        const size_t n_behind = first + n - n_sinks;
        cr_assert_eq(cache->n_sinks, n_sinks);
        cr_assert_eq(cache->n_rows - n_sinks, n_behind < options->window ? n_behind : options->window);
    }
    const size_t n_sinks = cache->n_sinks;
    cr_assert_eq(memtx_model_end_document(stream), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(cache->n_rows, 0);
    check_exactly_once(stream, memory->store, first_row, N_TEXT);
    /* The window went first and the sinks last. */
    const struct memtx__extent *last = &memory->store->now.extents[memory->store->now.n_extents - 1];
    if (n_sinks && n_sinks < N_TEXT) {
        cr_assert_eq(last->first_position, 0);
        cr_assert_eq(last->n_rows, n_sinks);
    }
    cr_assert_eq(memory->store->now.state.n_rows, first_row + N_TEXT);
}

Test(exactly_once, after_every_segment)
{
    static const uint32_t settings[][3] = {{64, 32, 4},  {0, 32, 4},  {0, 1, 0},   {50, 37, 0},   {10, 64, 3},
                                           {40, 5, 13},  {0, 7, 20},  {1, 1, 1},   {512, 512, 4}, {100, 512, 600},
                                           {900, 64, 4}, {3, 300, 0}, {30, 1, 800}};
    struct tiny_options tiny = tiny_options_default();
    struct memtx_memory_options chosen = memtx_memory_options_default();
    tiny.n_layers = 2;
    memtx_model *model = tiny_model_load(&tiny);
    tiny_tokens(text, N_TEXT, 11);
    chosen.k = 4;
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        struct tiny_memory memory;
        memtx_stream *stream;
        struct memtx_stream_options options = memtx_stream_options_default();
        tiny_memory_open(&memory, model, 2, MEMTX_ROWS_F16, &chosen);
        options.mode = MEMTX_MODE_MEMORY;
        options.memory = memory.memory;
        options.window = settings[i][0];
        options.segment = settings[i][1];
        options.sinks = settings[i][2];
        cr_assert_eq(memtx_stream_open(&stream, model, &options), MEMTX_OK, "%s", memtx_last_error());
        read_document(stream, &memory, &options);
        read_document(stream, &memory, &options); /* a second document of the same stream */
        memtx_stream_close(stream);
        tiny_memory_close(&memory);
    }
    memtx_model_close(model);
}

/* ---- what is refused -------------------------------------------------------------------------- */

Test(refused, options)
{
    struct hand hand = hand_default();
    memtx_memory *memory;
    hand_open(&hand);
    struct memtx_memory_options wrong = hand.options;
    wrong.k = 0;
    cr_assert_eq(memtx_memory_open(&memory, hand.store, &wrong), MEMTX_E_INVALID);
    cr_assert_null(memory);
    wrong.k = 4097;
    cr_assert_eq(memtx_memory_open(&memory, hand.store, &wrong), MEMTX_E_INVALID);
    wrong = hand.options;
    wrong.delta = UINT32_MAX;
    cr_assert_eq(memtx_memory_open(&memory, hand.store, &wrong), MEMTX_E_INVALID);
    wrong = hand.options;
    wrong.most_tokens = 0;
    cr_assert_eq(memtx_memory_open(&memory, hand.store, &wrong), MEMTX_E_INVALID);
    hand_close(&hand);
}

static int attend_layer(struct hand *hand, uint32_t layer, size_t n_q)
{
    return memtx_memory_attend(V_mem[0][0], LSE_mem[0], hits, hand->memory, layer, n_q, queries[0][0], query_positions);
}

Test(refused, calls_out_of_turn)
{
    struct hand hand = hand_default();
    hand.options.most_tokens = 4;
    hand_open(&hand);
    hand_append(&hand, 10, 0);
    cr_assert_eq(attend_layer(&hand, LAYER, 1), MEMTX_E_INVALID, "no segment has begun");
    cr_assert_eq(memtx_memory_begin_document(hand.memory, "again"), MEMTX_E_INVALID);
    cr_assert_eq(memtx_memory_begin_segment(hand.memory), MEMTX_OK);
    cr_assert_eq(memtx_memory_begin_segment(hand.memory), MEMTX_E_INVALID);
    cr_assert_eq(attend_layer(&hand, 0, 1), MEMTX_E_INVALID, "layer 0 is not kept");
    cr_assert_eq(attend_layer(&hand, 3, 1), MEMTX_E_INVALID);
    cr_assert_eq(attend_layer(&hand, UINT32_MAX, 1), MEMTX_E_INVALID);
    cr_assert_eq(attend_layer(&hand, LAYER, 5), MEMTX_E_INVALID, "more than most_tokens");
    cr_assert_eq(attend_layer(&hand, LAYER, 4), MEMTX_OK);
    cr_assert_eq(memtx_memory_commit(hand.memory), MEMTX_OK);
    cr_assert_eq(memtx_memory_end_document(hand.memory, NULL), MEMTX_OK);
    cr_assert_eq(memtx_memory_end_document(hand.memory, NULL), MEMTX_E_INVALID);
    cr_assert_eq(memtx_memory_begin_segment(hand.memory), MEMTX_E_INVALID);
    cr_assert_eq(memtx_memory_commit(hand.memory), MEMTX_E_INVALID);
    hand_close(&hand);
}

/* A document that ends inside a segment does not keep the next one from beginning its own. */
Test(refused, a_document_that_ends_inside_a_segment)
{
    struct hand hand = hand_default();
    hand_open(&hand);
    hand_append(&hand, 10, 0);
    cr_assert_eq(memtx_memory_begin_segment(hand.memory), MEMTX_OK);
    static const float rows[G * D];
    static const uint32_t id;
    static const uint64_t place = 10;
    cr_assert_eq(memtx_memory_append(hand.memory, LAYER, 1, rows, rows, &id, &place), MEMTX_OK);
    cr_assert_eq(memtx_memory_end_document(hand.memory, NULL), MEMTX_E_INVALID, "a row waits for its commit");
    cr_assert_eq(memtx_memory_commit(hand.memory), MEMTX_OK);
    cr_assert_eq(memtx_memory_begin_segment(hand.memory), MEMTX_OK);
    cr_assert_eq(memtx_memory_end_document(hand.memory, NULL), MEMTX_OK);
    cr_assert_eq(attend_layer(&hand, LAYER, 1), MEMTX_E_INVALID);
    cr_assert_eq(memtx_memory_begin_document(hand.memory, "second"), MEMTX_OK);
    hand_attend(&hand, 1, 0, 1);
    check_answer(&hand, 1, 0, 0);
    hand_close(&hand);
}

Test(refused, queries_that_are_no_numbers)
{
    for (int retrieval = MEMTX_RETRIEVAL_EXACT; retrieval <= MEMTX_RETRIEVAL_RANDOM; retrieval++) {
        struct hand hand = hand_default();
        hand.options.retrieval = (enum memtx_retrieval)retrieval;
        hand_open(&hand);
        hand_append(&hand, 10, 0);
        hand_attend(&hand, MOST_Q, 20, 1);
        cr_assert_eq(memtx_memory_begin_segment(hand.memory), MEMTX_OK);
        queries[3][2][5] = NAN;
        cr_assert_eq(attend_layer(&hand, LAYER, MOST_Q), MEMTX_E_INVALID);
        queries[3][2][5] = INFINITY;
        cr_assert_eq(attend_layer(&hand, LAYER, MOST_Q), MEMTX_E_INVALID);
        queries[3][2][5] = 1;
        cr_assert_eq(attend_layer(&hand, LAYER, MOST_Q), MEMTX_OK);
        hand_close(&hand);
    }
}

Test(refused, numbers_that_the_type_cannot_hold)
{
    static const struct {
        enum memtx_row_type type;
        float largest, too_large;
    } rows[] = {{MEMTX_ROWS_F16, 65504.0F, 65536.0F},
                {MEMTX_ROWS_BF16, 3.3e38F, INFINITY},
                {MEMTX_ROWS_F32, 3.3e38F, INFINITY}};
    static uint32_t ids[2];
    static uint64_t positions[2] = {0, 1};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const float wrong[] = {rows[i].too_large, -rows[i].too_large, NAN, INFINITY};
        struct hand hand = hand_default();
        hand.spec.row_type = rows[i].type;
        hand_open(&hand);
        for (size_t j = 0; j < 2 * sizeof wrong / sizeof wrong[0]; j++) {
            float keys[2 * G * D] = {0}, values[2 * G * D] = {0};
            *(j % 2 ? &keys[G * D + 3] : &values[2 * G * D - 1]) = wrong[j / 2];
            cr_assert_eq(memtx_memory_append(hand.memory, LAYER, 2, keys, values, ids, positions), MEMTX_E_INVALID,
                         "%s: %g", memtx_row_type_name(rows[i].type), (double)wrong[j / 2]);
        }
        float keys[2 * G * D] = {rows[i].largest}, values[2 * G * D] = {-rows[i].largest};
        cr_assert_eq(memtx_memory_append(hand.memory, LAYER, 2, keys, values, ids, positions), MEMTX_OK);
        cr_assert_eq(memtx_memory_commit(hand.memory), MEMTX_OK, "what was refused has left nothing behind");
        cr_assert_eq(hand.store->now.state.n_rows, 2);
        hand_close(&hand);
    }
}

Test(refused, layers_that_append_different_tokens)
{
    static const float rows[4 * G * D];
    static const uint32_t ids[] = {1, 2, 3, 4}, other_ids[] = {1, 2, 9, 4};
    static const uint64_t positions[] = {0, 1, 2, 3}, other_positions[] = {0, 1, 2, 7};
    for (int wrong = 0; wrong < 5; wrong++) {
        struct hand hand = hand_default();
        memtx_store_keep_layer(&hand.spec, OTHER_LAYER);
        hand_open(&hand);
        cr_assert_eq(memtx_memory_append(hand.memory, LAYER, 4, rows, rows, ids, positions), MEMTX_OK);
        if (wrong < 3) {
            cr_assert_eq(memtx_memory_append(hand.memory, OTHER_LAYER, wrong == 2 ? 5 : 4, rows, rows,
                                             wrong == 0 ? other_ids : ids, wrong == 1 ? other_positions : positions),
                         MEMTX_E_INVALID);
        } else if (wrong == 3) {
            cr_assert_eq(memtx_memory_append(hand.memory, OTHER_LAYER, 2, rows, rows, ids, positions), MEMTX_OK);
        }
        cr_assert_eq(memtx_memory_commit(hand.memory), MEMTX_E_INVALID, "case %d", wrong);
        cr_assert_eq(hand.store->now.state.n_rows, 0);
        /* What was refused is gone, and the next segment is as good as any. */
        cr_assert_eq(memtx_memory_append(hand.memory, LAYER, 3, rows, rows, other_ids, other_positions), MEMTX_OK);
        cr_assert_eq(memtx_memory_append(hand.memory, OTHER_LAYER, 3, rows, rows, other_ids, other_positions), MEMTX_OK,
                     "%s", memtx_last_error());
        cr_assert_eq(memtx_memory_commit(hand.memory), MEMTX_OK, "%s", memtx_last_error());
        cr_assert_eq(hand.store->now.state.n_rows, 3);
        hand_close(&hand);
    }
}
