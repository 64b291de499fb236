/* What a memory retrieves, where retrieved keys stand, and the control with random rows. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "hand.h"
#include "math/half.h"

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

/* What option `asked` was told: a call's queries and places, copied. */
struct heard {
    size_t n_calls, n_q;
    uint32_t layer;
    float queries[MOST_Q][H][D];
    uint64_t positions[MOST_Q];
};

static void hear(void *context, uint32_t layer, size_t n_q, const float *asked, const uint64_t *positions)
{
    struct heard *heard = context;
    heard->n_calls++;
    heard->n_q = n_q;
    heard->layer = layer;
    memcpy(heard->queries, asked, n_q * sizeof heard->queries[0]);
    memcpy(heard->positions, positions, n_q * sizeof *positions);
}

Test(retrieval, whoever_wants_is_told_what_was_asked)
{
    struct heard heard = {0};
    struct hand hand = hand_default();
    hand.options.asked = hear;
    hand.options.asked_context = &heard;
    hand_open(&hand);
    hand_append(&hand, 90, 0);
    hand_attend(&hand, 7, 100, 1);
    check_answer(&hand, 7, 0, 90);
    cr_assert(heard.n_calls == 1 && heard.n_q == 7 && heard.layer == LAYER);
    cr_assert_arr_eq(heard.queries, queries, 7 * sizeof queries[0]);
    cr_assert_arr_eq(heard.positions, query_positions, 7 * sizeof query_positions[0]);
    cr_assert_eq(
        memtx_memory_attend(V_mem[0][0], LSE_mem[0], NULL, hand.memory, LAYER, 7, queries[0][0], query_positions),
        MEMTX_E_INVALID, "no segment has begun");
    cr_assert_eq(heard.n_calls, 1, "what is refused was not asked");
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
