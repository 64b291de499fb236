/* The memory: what it holds and when, what it retrieves, where retrieved keys stand; the blend. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/rng.h"
#include "math/half.h"
#include "memory/memory.h"
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

/* ---- a memory by hand ------------------------------------------------------------------------- */

enum { LAYER = 1, OTHER_LAYER = 2, H = 4, G = 2, D = 8, GROUP = H / G, MOST_Q = 16, MOST_K = 64 };

struct hand {
    const char *path; /* under which the store is made, a temporary one; NULL: on the heap */
    struct memtx_store_spec spec;
    struct memtx_store_options store_options;
    struct memtx_memory_options options;
    memtx_store *store;
    memtx_memory *memory;
    float *keys, *values; /* what was appended, [n_rows][G][D], by row id */
    uint64_t *positions;
    size_t n_rows;
};

static struct hand hand_default(void)
{
    struct hand hand = {.store_options = memtx_store_options_default(), .options = memtx_memory_options_default()};
    hand.spec = (struct memtx_store_spec){.n_layers = 3,
                                          .n_heads = H,
                                          .n_kv_heads = G,
                                          .head_size = D,
                                          .rope_dims = D,
                                          .rope_base = 10000.0,
                                          .scale = 0.5F,
                                          .row_type = MEMTX_ROWS_F32};
    hand.spec.layers_kept[LAYER] = true;
    hand.options.k = 5;
    hand.options.delta = 100;
    return hand;
}

static void hand_open(struct hand *hand)
{
    hand->store_options.temporary = hand->path != NULL;
    cr_assert_eq(memtx_store_open(&hand->store, hand->path, &hand->spec, &hand->store_options), MEMTX_OK, "%s",
                 memtx_last_error());
    cr_assert_eq(memtx_memory_open(&hand->memory, hand->store, &hand->options), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(memtx_memory_begin_document(hand->memory, "first"), MEMTX_OK);
}

static void hand_close(struct hand *hand)
{
    memtx_memory_close(hand->memory);
    cr_assert_eq(memtx_store_close(hand->store), MEMTX_OK);
    free(hand->keys);
    free(hand->values);
    free(hand->positions);
}

/* Numbers that f32 rows keep; the first value of a row's head is 1,000 * head + id, so that a row can say which it is.
 */
static void hand_append(struct hand *hand, size_t n, uint64_t first_position)
{
    static uint32_t ids[4096];
    struct memtx__rng rng = memtx__rng_create(17, hand->n_rows);
    const size_t end = hand->n_rows + n;
    hand->keys = realloc(hand->keys, end * G * D * sizeof *hand->keys);
    hand->values = realloc(hand->values, end * G * D * sizeof *hand->values);
    hand->positions = realloc(hand->positions, end * sizeof *hand->positions);
    for (size_t i = hand->n_rows * G * D; i < end * G * D; i++) {
        hand->keys[i] = memtx__rng_signed(&rng);
        hand->values[i] = i % D ? memtx__rng_signed(&rng) : 1000.0F * (float)(i / D % G) + (float)(i / D / G);
    }
    for (size_t i = 0; i < n; i++) {
        hand->positions[hand->n_rows + i] = first_position + i;
        ids[i] = (uint32_t)(7 * (hand->n_rows + i));
    }
    cr_assert_eq(memtx_memory_append(hand->memory, LAYER, n, hand->keys + hand->n_rows * G * D,
                                     hand->values + hand->n_rows * G * D, ids, hand->positions + hand->n_rows),
                 MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(memtx_memory_commit(hand->memory), MEMTX_OK, "%s", memtx_last_error());
    hand->n_rows = end;
}

static float V_mem[MOST_Q][H][D], LSE_mem[MOST_Q][H];
static struct memtx_hit hits[MOST_Q * H * MOST_K];
static float queries[MOST_Q][H][D];
static uint64_t query_positions[MOST_Q];

static const struct memtx_hit *hits_of(const struct hand *hand, size_t q, size_t head)
{
    return hits + (q * H + head) * hand->options.k;
}

/* Asks n_q random queries that stand at `position` and behind; ends the segment. */
static void hand_attend(struct hand *hand, size_t n_q, uint64_t position, uint64_t seed)
{
    struct memtx__rng rng = memtx__rng_create(seed, 5);
    for (size_t q = 0; q < n_q; q++) {
        query_positions[q] = position + q;
        for (size_t i = 0; i < H * D; i++) {
            queries[q][i / D][i % D] = 2.0F * memtx__rng_signed(&rng);
        }
    }
    cr_assert_eq(memtx_memory_begin_segment(hand->memory), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(
        memtx_memory_attend(V_mem[0][0], LSE_mem[0], hits, hand->memory, LAYER, n_q, queries[0][0], query_positions),
        MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(memtx_memory_commit(hand->memory), MEMTX_OK, "%s", memtx_last_error());
}

/* R(distance) q . k in double. */
static double turned_dot(const struct memtx_store_spec *spec, const float *q, const float *k, double distance)
{
    double sum = 0;
    for (size_t i = 0; i < D; i += 2) {
        double angle = i < spec->rope_dims ? distance * pow(spec->rope_base, -(double)i / (double)spec->rope_dims) : 0;
        if (i < spec->rope_dims && spec->rope_factors) {
            angle /= (double)spec->rope_factors[i / 2];
        }
        sum += ((double)q[i] * cos(angle) - (double)q[i + 1] * sin(angle)) * (double)k[i];
        sum += ((double)q[i] * sin(angle) + (double)q[i + 1] * cos(angle)) * (double)k[i + 1];
    }
    return sum;
}

/* Float32 sums of eight products of numbers below two. */
static const double logit_tolerance = 1e-5;
/* Two scores as near as this may change places. */
static const double tie_tolerance = 1e-5;

/* Everything one attend answered, against the rows that were appended: first_row .. end are those to be seen. */
static void check_answer(const struct hand *hand, size_t n_q, size_t first_row, size_t end)
{
    const struct memtx_memory_options *o = &hand->options;
    const size_t n_seen = end - first_row, n = n_seen < o->k ? n_seen : o->k;
    for (size_t q = 0; q < n_q; q++) {
        for (size_t head = 0; head < H; head++) {
            const struct memtx_hit *found = hits_of(hand, q, head);
            const float *query = queries[q][head];
            double worst = INFINITY, highest = -INFINITY, total = 0, sums[D] = {0};
            for (size_t j = 0; j < n; j++) {
                cr_assert(found[j].row >= (int64_t)first_row && found[j].row < (int64_t)end, "row %lld",
                          (long long)found[j].row);
                for (size_t other = 0; other < j; other++) {
                    cr_assert_neq(found[j].row, found[other].row, "row %lld twice", (long long)found[j].row);
                }
                const size_t row = (size_t)found[j].row;
                const float *key = hand->keys + (row * G + head / GROUP) * D;
                const uint64_t age = query_positions[q] - hand->positions[row];
                const double distance =
                    (double)(o->positions == MEMTX_POSITIONS_NEAR && age < o->delta ? age : o->delta);
                const double score = turned_dot(&hand->spec, query, key, (double)o->delta);
                const double logit = (double)hand->spec.scale * turned_dot(&hand->spec, query, key, distance) -
                                     (double)o->lambda * (double)age / 1000.0;
                cr_assert_leq(score, worst + tie_tolerance, "best first");
                worst = score;
                cr_assert_float_eq((double)found[j].logit, logit, logit_tolerance, "row %zu at distance %g", row,
                                   distance);
                highest = logit > highest ? logit : highest;
            }
            for (size_t j = n; j < o->k; j++) {
                cr_assert(found[j].row == -1 && found[j].logit == -INFINITY);
            }
            for (size_t row = first_row; row < end && n == o->k; row++) { /* nothing better was left out */
                bool is_found = false;
                for (size_t j = 0; j < n; j++) {
                    is_found |= found[j].row == (int64_t)row;
                }
                const float *key = hand->keys + (row * G + head / GROUP) * D;
                cr_assert(is_found || turned_dot(&hand->spec, query, key, (double)o->delta) <= worst + tie_tolerance);
            }
            for (size_t j = 0; j < n; j++) {
                const float *value = hand->values + ((size_t)found[j].row * G + head / GROUP) * D;
                cr_assert_eq(value[0], 1000.0F * (float)(head / GROUP) + (float)found[j].row);
                double weight = exp((double)found[j].logit - highest);
                total += weight;
                for (size_t d = 0; d < D; d++) {
                    sums[d] += weight * (double)value[d];
                }
            }
            if (n == 0) {
                cr_assert(LSE_mem[q][head] == -INFINITY && V_mem[q][head][0] == 0.0F);
                continue;
            }
            cr_assert_float_eq((double)LSE_mem[q][head], highest + log(total), logit_tolerance);
            for (size_t d = 0; d < D; d++) {
                cr_assert_float_eq((double)V_mem[q][head][d], sums[d] / total, d ? 1e-5 : 5e-3); /* ids reach 6,000 */
            }
        }
    }
}

/* ---- what is retrieved ------------------------------------------------------------------------ */

Test(retrieval, each_row_is_the_row_it_claims_to_be)
{
    struct hand hand = hand_default();
    hand_open(&hand);
    for (size_t step = 0; step < 12; step++) {
        hand_append(&hand, 37, hand.n_rows);
        hand_attend(&hand, MOST_Q, hand.n_rows + 40, step);
        check_answer(&hand, MOST_Q, 0, hand.n_rows);
    }
    hand_close(&hand);
}

Test(retrieval, near_and_fixed_at_several_deltas)
{
    static const uint32_t deltas[] = {0, 1, 30, 64, 1000, 100000};
    for (size_t i = 0; i < sizeof deltas / sizeof deltas[0]; i++) {
        for (int positions = MEMTX_POSITIONS_NEAR; positions <= MEMTX_POSITIONS_FIXED; positions++) {
            struct hand hand = hand_default();
            hand.options.delta = deltas[i];
            hand.options.positions = (enum memtx_positions)positions;
            hand_open(&hand);
            hand_append(&hand, 90, 0);
            hand_attend(&hand, MOST_Q, 100, i);
            check_answer(&hand, MOST_Q, 0, 90);
            hand_close(&hand);
        }
    }
}

Test(retrieval, rope_factors_part_of_the_head_and_none)
{
    static const float factors[] = {1.0F, 2.0F, 4.0F, 8.0F};
    for (int i = 0; i < 3; i++) {
        struct hand hand = hand_default();
        hand.spec.rope_dims = i == 0 ? D : i == 1 ? 4 : 0;
        hand.spec.rope_factors = i == 0 ? factors : NULL;
        hand_open(&hand);
        hand_append(&hand, 90, 0);
        hand_attend(&hand, MOST_Q, 130, 3);
        check_answer(&hand, MOST_Q, 0, 90);
        hand_close(&hand);
    }
}

Test(retrieval, lambda_weighs_age_in_thousands)
{
    struct hand hand = hand_default();
    hand.options.lambda = 3.5F;
    hand_open(&hand);
    hand_append(&hand, 500, 0);
    hand_attend(&hand, MOST_Q, 2500, 3);
    check_answer(&hand, MOST_Q, 0, 500);
    hand_close(&hand);
}

Test(retrieval, tau_of_each_head)
{
    float tau[3 * H];
    struct hand hand = hand_default();
    for (size_t i = 0; i < 3 * H; i++) {
        tau[i] = 0.25F * (float)(i + 1);
    }
    hand_open(&hand);
    hand_append(&hand, 50, 0);
    hand_attend(&hand, 1, 200, 3);
    static struct memtx_hit plain[H * MOST_K];
    memcpy(plain, hits, sizeof plain);
    hand_close(&hand);
    hand = hand_default();
    hand.options.tau = tau;
    hand_open(&hand);
    hand_append(&hand, 50, 0);
    hand_attend(&hand, 1, 200, 3);
    for (size_t i = 0; i < H * hand.options.k; i++) {
        cr_assert_eq(hits[i].row, plain[i].row);
        cr_assert_float_eq(hits[i].logit, plain[i].logit * tau[LAYER * H + i / hand.options.k], logit_tolerance);
    }
    hand_close(&hand);
}

Test(retrieval, an_empty_memory_finds_nothing)
{
    for (int retrieval = MEMTX_RETRIEVAL_EXACT; retrieval <= MEMTX_RETRIEVAL_RANDOM; retrieval++) {
        struct hand hand = hand_default();
        hand.options.retrieval = (enum memtx_retrieval)retrieval;
        hand_open(&hand);
        memset(V_mem, 1, sizeof V_mem);
        hand_attend(&hand, MOST_Q, 0, 1);
        cr_assert_eq(memtx_memory_n_visible(hand.memory), 0);
        check_answer(&hand, MOST_Q, 0, 0);
        hand_close(&hand);
    }
}

Test(retrieval, memory_smaller_than_k)
{
    struct hand hand = hand_default();
    hand.options.k = 20;
    hand_open(&hand);
    for (size_t step = 0; step < 8; step++) {
        hand_append(&hand, 3, hand.n_rows);
        hand_attend(&hand, MOST_Q, hand.n_rows, step);
        cr_assert_eq(memtx_memory_n_visible(hand.memory), hand.n_rows);
        check_answer(&hand, MOST_Q, 0, hand.n_rows);
    }
    hand_close(&hand);
}

/* Past the capacity the oldest go, and only they: also over the seams of chunks. */
Test(retrieval, first_in_first_out_past_capacity)
{
    static const size_t capacities[] = {1, 7, 60, 1500};
    for (size_t i = 0; i < sizeof capacities / sizeof capacities[0]; i++) {
        struct hand hand = hand_default();
        hand.store_options.capacity_rows = capacities[i];
        hand_open(&hand);
        for (size_t step = 0; step < 24; step++) {
            hand_append(&hand, step % 3 ? 37 : 600, hand.n_rows);
            size_t first = hand.n_rows > capacities[i] ? hand.n_rows - capacities[i] : 0;
            hand_attend(&hand, MOST_Q, hand.n_rows, step);
            cr_assert_eq(memtx_memory_n_visible(hand.memory), hand.n_rows - first);
            check_answer(&hand, MOST_Q, first, hand.n_rows);
        }
        cr_assert_gt(hand.n_rows, 2 * hand.store->chunk_rows, "several chunks");
        hand_close(&hand);
    }
}

Test(retrieval, another_document_is_out_of_sight)
{
    struct hand hand = hand_default();
    struct memtx_row_facts facts;
    hand_open(&hand);
    hand_append(&hand, 80, 0);
    cr_assert_eq(memtx_memory_end_document(hand.memory, NULL), MEMTX_OK);
    cr_assert_eq(memtx_memory_begin_document(hand.memory, "second"), MEMTX_OK);
    hand_attend(&hand, MOST_Q, 0, 1);
    check_answer(&hand, MOST_Q, 0, 0);
    hand_append(&hand, 30, 0);
    hand_attend(&hand, MOST_Q, 30, 1);
    check_answer(&hand, MOST_Q, 80, 110);
    cr_assert_eq(memtx_memory_n_visible(hand.memory), 30);
    cr_assert_eq(memtx_memory_row(&facts, hand.memory, 79), MEMTX_E_NOT_FOUND);
    cr_assert_eq(memtx_memory_row(&facts, hand.memory, 110), MEMTX_E_NOT_FOUND);
    cr_assert_eq(memtx_memory_row(&facts, hand.memory, 85), MEMTX_OK);
    cr_assert_eq(facts.position, 5);
    cr_assert_eq(facts.document, hand.store->now.documents[1].facts.id);
    hand_close(&hand);
}

/* Rows whose places do not follow one another: the window, then the sinks. */
Test(retrieval, places_that_jump)
{
    struct hand hand = hand_default();
    hand.options.k = MOST_K;
    hand_open(&hand);
    hand_append(&hand, 20, 4);
    hand_append(&hand, 10, 24);
    hand_append(&hand, 4, 0);
    hand_attend(&hand, MOST_Q, 50, 1);
    check_answer(&hand, MOST_Q, 0, 34);
    cr_assert_eq(hand.store->now.n_extents, 2);
    hand_close(&hand);
}

Test(retrieval, a_segment_searches_before_it_appends)
{
    struct hand hand = hand_default();
    static uint32_t ids[8];
    static uint64_t positions[8] = {20, 21, 22, 23, 24, 25, 26, 27};
    hand_open(&hand);
    hand_append(&hand, 20, 0);
    hand_attend(&hand, MOST_Q, 28, 1);
    cr_assert_eq(memtx_memory_begin_segment(hand.memory), MEMTX_OK);
    cr_assert_eq(memtx_memory_append(hand.memory, LAYER, 8, hand.keys, hand.values, ids, positions), MEMTX_OK);
    cr_assert_eq(
        memtx_memory_attend(V_mem[0][0], LSE_mem[0], hits, hand.memory, LAYER, MOST_Q, queries[0][0], query_positions),
        MEMTX_OK);
    check_answer(&hand, MOST_Q, 0, 20);
    cr_assert_eq(memtx_memory_commit(hand.memory), MEMTX_OK);
    cr_assert_eq(memtx_memory_begin_segment(hand.memory), MEMTX_OK);
    cr_assert_eq(memtx_memory_n_visible(hand.memory), 28);
    hand_close(&hand);
}

/* A number that the type rounds comes back rounded. */
Test(retrieval, rows_are_rounded_when_they_are_appended)
{
    struct hand hand = hand_default();
    hand.spec.row_type = MEMTX_ROWS_F16;
    hand.options.k = 1;
    hand_open(&hand);
    hand_append(&hand, 1, 0);
    hand_attend(&hand, 1, 10, 1);
    for (size_t head = 0; head < H; head++) {
        for (size_t d = 0; d < D; d++) {
            float value = hand.values[head / GROUP * D + d];
            cr_assert_eq(V_mem[0][head][d], memtx__f16_to_f32(memtx__f32_to_f16(value)));
        }
    }
    hand_close(&hand);
}

/* ---- random retrieval ------------------------------------------------------------------------- */

Test(random, visible_rows_without_replacement_by_seed)
{
    static struct memtx_hit first[MOST_Q * H * MOST_K];
    for (int run = 0; run < 3; run++) {
        struct hand hand = hand_default();
        hand.options.retrieval = MEMTX_RETRIEVAL_RANDOM;
        hand.options.k = 40;
        hand.options.seed = run == 2 ? 2 : 1;
        hand.store_options.capacity_rows = 70;
        hand_open(&hand);
        hand_append(&hand, 50, 0);
        cr_assert_eq(memtx_memory_end_document(hand.memory, NULL), MEMTX_OK);
        cr_assert_eq(memtx_memory_begin_document(hand.memory, "second"), MEMTX_OK);
        hand_append(&hand, 30, 10);
        hand_append(&hand, 10, 0);
        hand_append(&hand, 10, 60);
        hand_attend(&hand, MOST_Q, 100, 1);
        for (size_t i = 0; i < MOST_Q * H; i++) {
            for (size_t j = 0; j < 40; j++) {
                int64_t row = hits[i * 40 + j].row;
                cr_assert(row >= 50 && row < 100, "row %lld", (long long)row);
                for (size_t other = 0; other < j; other++) {
                    cr_assert_neq(row, hits[i * 40 + other].row);
                }
            }
        }
        if (run == 0) {
            memcpy(first, hits, sizeof first);
        } else {
            bool same = true;
            for (size_t i = 0; i < MOST_Q * H * 40; i++) {
                same &= first[i].row == hits[i].row;
            }
            cr_assert_eq(same, run == 1, "the seed decides");
        }
        hand_close(&hand);
    }
}

Test(random, every_row_is_drawn_about_as_often)
{
    enum { N_ROWS = 50, K = 10, N_DRAWS = 200 * MOST_Q * H };
    /* A row is drawn with chance 1/5 in each of 12,800 draws: 2,560 times, standard deviation 45. Six of them. */
    const double expected = (double)N_DRAWS * K / N_ROWS, allowed = 6 * 45;
    static unsigned n_drawn[N_ROWS];
    struct hand hand = hand_default();
    hand.options.retrieval = MEMTX_RETRIEVAL_RANDOM;
    hand.options.k = K;
    hand_open(&hand);
    hand_append(&hand, N_ROWS, 0);
    for (size_t step = 0; step < 200; step++) {
        hand_attend(&hand, MOST_Q, 100 + step * MOST_Q, 1);
        for (size_t i = 0; i < MOST_Q * H * K; i++) {
            n_drawn[hits[i].row]++;
        }
    }
    for (size_t row = 0; row < N_ROWS; row++) {
        cr_assert_float_eq((double)n_drawn[row], expected, allowed, "row %zu: %u times", row, n_drawn[row]);
    }
    hand_close(&hand);
}

Test(random, fewer_rows_than_k_are_all_drawn)
{
    struct hand hand = hand_default();
    hand.options.retrieval = MEMTX_RETRIEVAL_RANDOM;
    hand.options.k = 20;
    hand_open(&hand);
    hand_append(&hand, 7, 0);
    hand_attend(&hand, MOST_Q, 100, 1);
    for (size_t i = 0; i < MOST_Q * H; i++) {
        unsigned seen = 0;
        for (size_t j = 0; j < 7; j++) {
            seen |= 1U << hits[i * 20 + j].row;
        }
        cr_assert_eq(seen, 0x7F);
        cr_assert_eq(hits[i * 20 + 7].row, -1);
    }
    hand_close(&hand);
}

/* ---- rows by id ------------------------------------------------------------------------------- */

enum { MOST_GATHERED = 64 };

static float gathered_keys[MOST_GATHERED][D], gathered_values[MOST_GATHERED][D];

static int gather(struct hand *hand, uint32_t kv_head, size_t n, const int64_t *ids)
{
    return memtx_memory_gather(gathered_keys[0], gathered_values[0], hand->memory, LAYER, kv_head, n, ids);
}

/* Gathers ids at random out of first .. end, some of them more than once, and compares with what was appended. */
static void check_gathered(struct hand *hand, size_t first, size_t end)
{
    struct memtx__rng rng = memtx__rng_create(29, end);
    int64_t ids[MOST_GATHERED];
    uint32_t tokens[MOST_GATHERED];
    for (size_t i = 0; i < MOST_GATHERED; i++) {
        ids[i] = (int64_t)(first + memtx__rng_below(&rng, end - first));
    }
    ids[0] = (int64_t)end - 1;
    ids[1] = ids[MOST_GATHERED - 1] = (int64_t)first;
    cr_assert_eq(memtx_memory_tokens(tokens, hand->memory, MOST_GATHERED, ids), MEMTX_OK, "%s", memtx_last_error());
    for (size_t i = 0; i < MOST_GATHERED; i++) {
        cr_assert_eq(tokens[i], 7 * ids[i]);
    }
    for (uint32_t head = 0; head < G; head++) {
        cr_assert_eq(gather(hand, head, MOST_GATHERED, ids), MEMTX_OK, "%s", memtx_last_error());
        for (size_t i = 0; i < MOST_GATHERED; i++) {
            const size_t at = ((size_t)ids[i] * G + head) * D;
            cr_assert_arr_eq(gathered_keys[i], hand->keys + at, sizeof gathered_keys[i], "row %lld", (long long)ids[i]);
            cr_assert_arr_eq(gathered_values[i], hand->values + at, sizeof gathered_values[i]);
        }
    }
}

static void check_out_of_sight(struct hand *hand, int64_t seen, int64_t unseen)
{
    const int64_t ids[] = {seen, seen, unseen, seen, -2};
    uint32_t tokens[5];
    char expected[32];
    (void)snprintf(expected, sizeof expected, "row %lld is", (long long)unseen);
    cr_assert_eq(gather(hand, 0, 2, ids), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(gather(hand, 0, 5, ids), MEMTX_E_NOT_FOUND, "row %lld", (long long)unseen);
    cr_assert_not_null(strstr(memtx_last_error(), expected), "'%s' names another than %lld", memtx_last_error(),
                       (long long)unseen);
    cr_assert_eq(memtx_memory_tokens(tokens, hand->memory, 2, ids), MEMTX_OK);
    cr_assert_eq(memtx_memory_tokens(tokens, hand->memory, 5, ids), MEMTX_E_NOT_FOUND);
    cr_assert_not_null(strstr(memtx_last_error(), expected));
}

Test(gather, rows_are_those_that_were_appended)
{
    for (int on_disk = 0; on_disk < 2; on_disk++) {
        struct hand hand = hand_default();
        hand.path = on_disk ? "/tmp" : NULL;
        hand_open(&hand);
        for (size_t step = 0; step < 9; step++) {
            hand_append(&hand, 700, hand.n_rows);
            cr_assert_eq(memtx_memory_begin_segment(hand.memory), MEMTX_OK);
            check_gathered(&hand, 0, hand.n_rows);
            cr_assert_eq(memtx_memory_commit(hand.memory), MEMTX_OK);
        }
        cr_assert_eq(hand.store->tail.first_chunk > 0, on_disk, "written, or all in RAM");
        cr_assert_gt(hand.n_rows, 3 * hand.store->chunk_rows, "several chunks");
        hand_close(&hand);
    }
}

Test(gather, keys_or_values_alone_or_nothing)
{
    const int64_t id = 3;
    struct hand hand = hand_default();
    hand_open(&hand);
    hand_append(&hand, 5, 0);
    cr_assert_eq(memtx_memory_begin_segment(hand.memory), MEMTX_OK);
    cr_assert_eq(memtx_memory_gather(gathered_keys[0], NULL, hand.memory, LAYER, 1, 1, &id), MEMTX_OK);
    cr_assert_eq(memtx_memory_gather(NULL, gathered_values[0], hand.memory, LAYER, 0, 1, &id), MEMTX_OK);
    cr_assert_arr_eq(gathered_keys[0], hand.keys + (3 * G + 1) * D, sizeof gathered_keys[0]);
    cr_assert_arr_eq(gathered_values[0], hand.values + 3 * G * D, sizeof gathered_values[0]);
    cr_assert_eq(memtx_memory_gather(NULL, NULL, hand.memory, LAYER, 0, 1, &id), MEMTX_OK);
    cr_assert_eq(memtx_memory_gather(NULL, NULL, hand.memory, LAYER, 0, 0, NULL), MEMTX_OK);
    hand_close(&hand);
}

Test(gather, a_row_out_of_sight_is_named)
{
    static const float rows[G * D];
    static const uint32_t token;
    static const uint64_t place = 30;
    struct hand hand = hand_default();
    hand_open(&hand);
    hand_append(&hand, 80, 0);
    cr_assert_eq(memtx_memory_end_document(hand.memory, NULL), MEMTX_OK);
    cr_assert_eq(memtx_memory_begin_document(hand.memory, "second"), MEMTX_OK);
    hand_append(&hand, 30, 0);
    cr_assert_eq(memtx_memory_begin_segment(hand.memory), MEMTX_OK);
    cr_assert_eq(memtx_memory_append(hand.memory, LAYER, 1, rows, rows, &token, &place), MEMTX_OK);
    check_gathered(&hand, 80, 110);
    check_out_of_sight(&hand, 80, 79);   /* of another document */
    check_out_of_sight(&hand, 109, 110); /* not committed */
    check_out_of_sight(&hand, 100, -1);
    check_out_of_sight(&hand, 100, INT64_MAX);
    check_out_of_sight(&hand, 100, INT64_MIN);
    hand_close(&hand);
}

Test(gather, past_capacity)
{
    for (int on_disk = 0; on_disk < 2; on_disk++) {
        struct hand hand = hand_default();
        hand.path = on_disk ? "/tmp" : NULL;
        hand.store_options.capacity_rows = 1500;
        hand_open(&hand);
        for (size_t step = 0; step < 12; step++) {
            hand_append(&hand, 600, hand.n_rows);
        }
        cr_assert_eq(memtx_memory_begin_segment(hand.memory), MEMTX_OK);
        check_gathered(&hand, hand.n_rows - 1500, hand.n_rows);
        check_out_of_sight(&hand, (int64_t)hand.n_rows - 1500, (int64_t)hand.n_rows - 1501);
        check_out_of_sight(&hand, (int64_t)hand.n_rows - 1, 0);
        hand_close(&hand);
    }
}

Test(gather, calls_that_are_refused)
{
    const int64_t id = 3;
    uint32_t token;
    struct hand hand = hand_default();
    hand_open(&hand);
    hand_append(&hand, 5, 0);
    cr_assert_eq(gather(&hand, 0, 1, &id), MEMTX_E_INVALID, "no segment has begun");
    cr_assert_eq(memtx_memory_tokens(&token, hand.memory, 1, &id), MEMTX_E_INVALID);
    cr_assert_eq(memtx_memory_begin_segment(hand.memory), MEMTX_OK);
    cr_assert_eq(gather(&hand, G, 1, &id), MEMTX_E_INVALID);
    cr_assert_eq(memtx_memory_gather(NULL, NULL, hand.memory, 0, 0, 1, &id), MEMTX_E_INVALID, "not kept");
    cr_assert_eq(memtx_memory_gather(NULL, NULL, hand.memory, UINT32_MAX, 0, 1, &id), MEMTX_E_INVALID);
    cr_assert_eq(gather(&hand, 0, 1, &id), MEMTX_OK);
    hand_close(&hand);
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
        hand.spec.layers_kept[OTHER_LAYER] = true;
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

/* ---- the blend -------------------------------------------------------------------------------- */

enum { N_Q = 3 };

static float V_loc[N_Q][H][D], LSE_loc[N_Q][H], out[N_Q][H][D];

static void fill_blend(void)
{
    struct memtx__rng rng = memtx__rng_create(23, 0);
    for (size_t i = 0; i < N_Q * H; i++) {
        LSE_loc[i / H][i % H] = 3.0F * memtx__rng_signed(&rng);
        LSE_mem[i / H][i % H] = 3.0F * memtx__rng_signed(&rng);
        for (size_t d = 0; d < D; d++) {
            V_loc[i / H][i % H][d] = memtx__rng_signed(&rng);
            V_mem[i / H][i % H][d] = memtx__rng_signed(&rng);
        }
    }
}

Test(blend, every_mode_against_its_formula)
{
    const float bias[H] = {-4.0F, -1.0F, 0.0F, 2.5F};
    fill_blend();
    for (int mode = MEMTX_BLEND_JOINT; mode <= MEMTX_BLEND_OFF; mode++) {
        const struct memtx_gate gate = {(enum memtx_blend_mode)mode, bias};
        memtx_blend(out[0][0], V_loc[0][0], LSE_loc[0], V_mem[0][0], LSE_mem[0], &gate, N_Q, H, D);
        for (size_t i = 0; i < N_Q * H; i++) {
            const double b = mode == MEMTX_BLEND_JOINT ? 0 : (double)bias[i % H];
            const double a = mode == MEMTX_BLEND_PAPER ? 0 : 1;
            const double x = a * ((double)LSE_mem[i / H][i % H] - (double)LSE_loc[i / H][i % H]) + b;
            const double g = mode == MEMTX_BLEND_OFF ? 0 : 1 / (1 + exp(-x));
            for (size_t d = 0; d < D; d++) {
                double expected = g * (double)V_mem[i / H][i % H][d] + (1 - g) * (double)V_loc[i / H][i % H][d];
                cr_assert_float_eq((double)out[i / H][i % H][d], expected, 1e-6); /* float32 */
            }
        }
    }
}

Test(blend, nothing_retrieved_is_local_attention_to_the_bit)
{
    const float bias[H] = {5.0F, 5.0F, 5.0F, 5.0F};
    for (int mode = MEMTX_BLEND_JOINT; mode <= MEMTX_BLEND_OFF; mode++) {
        for (int in_place = 0; in_place < 2; in_place++) {
            const struct memtx_gate gate = {(enum memtx_blend_mode)mode, bias};
            static float expected[N_Q][H][D];
            fill_blend();
            memcpy(expected, V_loc, sizeof expected);
            for (size_t head = 0; head < H; head++) {
                LSE_mem[1][head] = -INFINITY;
                memset(V_mem[1][head], 0, sizeof V_mem[1][head]);
            }
            float *to = in_place ? V_loc[0][0] : out[0][0];
            memtx_blend(to, V_loc[0][0], LSE_loc[0], V_mem[0][0], LSE_mem[0], &gate, N_Q, H, D);
            cr_assert_eq(memcmp(to + H * D, expected[1], sizeof expected[1]), 0);
            cr_assert_eq(memcmp(to, expected[0], sizeof expected[0]) == 0, mode == MEMTX_BLEND_OFF);
        }
    }
}

Test(blend, names)
{
    for (int i = MEMTX_BLEND_JOINT; i <= MEMTX_BLEND_OFF; i++) {
        enum memtx_blend_mode mode;
        cr_assert_eq(memtx_blend_parse(&mode, memtx_blend_name((enum memtx_blend_mode)i)), MEMTX_OK);
        cr_assert_eq((int)mode, i);
        cr_assert_eq(memtx_blend_parse(&mode, "Joint"), MEMTX_E_INVALID);
    }
}
