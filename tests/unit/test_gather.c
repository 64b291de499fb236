/* Rows of a memory by their ids: keys, values, tokens. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "base/rng.h"
#include "hand.h"

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
