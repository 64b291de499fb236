/* The ways in which a memory finds its best rows (options.index), each against the rows that were appended: those that
 * find all must answer as exact search does, the others must give min(k, visible) rows that are what they claim to be,
 * and most of the best. */
#include <criterion/criterion.h>
#include <string.h>

#include "hand.h"

enum { ROWS = 3 * 2040 + 500 };

static struct memtx_hit exact[MOST_Q * H * MOST_K];

/* One answer over ROWS rows; k = 32, so that clusters and candidates matter. */
static struct hand answer(const char *index, uint64_t capacity)
{
    struct hand hand = hand_default();
    hand.options.index = index;
    hand.options.k = 32;
    hand.store_options.capacity_rows = capacity;
    hand_open(&hand);
    while (hand.n_rows < ROWS) {
        hand_append(&hand, ROWS - hand.n_rows < 500 ? ROWS - hand.n_rows : 500, hand.n_rows);
        hand_attend(&hand, MOST_Q, ROWS + 40, 3); /* also while there is little */
    }
    return hand;
}

static double share_of_exact(const struct hand *hand)
{
    size_t n = 0;
    for (size_t q = 0; q < MOST_Q * H; q++) {
        for (size_t i = 0; i < hand->options.k; i++) {
            for (size_t j = 0; j < hand->options.k; j++) {
                n += hits[q * hand->options.k + i].row == exact[q * hand->options.k + j].row;
            }
        }
    }
    return (double)n / (double)(MOST_Q * H * hand->options.k);
}

static void answer_exactly(uint64_t capacity)
{
    struct hand hand = answer("exact", capacity);
    check_answer(&hand, MOST_Q, capacity ? ROWS - capacity : 0, ROWS);
    memcpy(exact, hits, sizeof exact);
    hand_close(&hand);
}

Test(find, what_finds_all_answers_as_exact_search)
{
    static const char *const all[] = {"exact:f32", "exact:bf16", "exact:i8", "cluster@share=1"};
    for (size_t i = 0; i < 4; i++) {
        struct hand hand = answer(all[i], 0);
        check_answer(&hand, MOST_Q, 0, ROWS);
        hand_close(&hand);
    }
}

Test(find, clusters_find_most)
{
    static const char *const some[] = {"cluster", "cluster@share=0.2"};
    static const double least[] = {0.5, 0.8};
    for (size_t i = 0; i < 4; i++) {
        const uint64_t capacity = i / 2 ? 2 * 2040 + 100 : 0;
        answer_exactly(capacity);
        struct hand hand = answer(some[i % 2], capacity);
        for (size_t j = 0; j < MOST_Q * H * hand.options.k; j++) {
            cr_assert(hits[j].row >= (int64_t)(capacity ? ROWS - capacity : 0) && hits[j].row < ROWS, "%s: row %lld",
                      some[i % 2], (long long)hits[j].row);
        }
        const double share = share_of_exact(&hand);
        cr_expect_geq(share, least[i % 2], "%s, capacity %llu: %g", some[i % 2], (unsigned long long)capacity, share);
        cr_expect_leq(share, 1.0);
        hand_close(&hand);
    }
}

Test(find, clusters_leave_something_out)
{
    answer_exactly(0);
    struct hand hand = answer("cluster@share=0.01", 0);
    cr_assert_lt(share_of_exact(&hand), 1.0, "so they have been asked");
    hand_close(&hand);
}

/* The rows in sight decide, and are clustered no sooner. */
Test(find, clusters_from_a_number_of_rows_on)
{
    static const char *const specs[] = {"cluster@share=0.01,from=%d", "cluster@from=%d,share=0.01"};
    char spec[64];
    for (size_t i = 0; i < 4; i++) {
        const uint64_t capacity = i / 2 ? 2 * 2040 + 100 : 0;
        const int n_visible = capacity ? (int)capacity : ROWS;
        answer_exactly(capacity);
        for (int more = 0; more < 2; more++) {
            (void)snprintf(spec, sizeof spec, specs[i % 2], n_visible + more);
            struct hand hand = answer(spec, capacity);
            cr_expect_eq(share_of_exact(&hand) < 1.0, more == 0, "%s, %d rows", spec, n_visible);
            hand_close(&hand);
        }
    }
}

Test(refused, specs)
{
    static const char *const none[] = {
        "exact:f8",       "exact@share=1", "cluster@share=0", "cluster@share=2", "cluster@share=0.1x",
        "cluster@k=3",    "cluster:8",     "clusters",        "exactly",         "cluster@share=nan",
        "cluster@",       "cluster@from=", "cluster@from=-1", "cluster@from=5x", "cluster@from=5,",
        "cluster@,from=5"};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        struct hand hand = hand_default();
        cr_assert_eq(memtx_store_open(&hand.store, NULL, &hand.spec, NULL), MEMTX_OK);
        hand.options.index = none[i];
        const int status = memtx_memory_open(&hand.memory, hand.store, &hand.options);
        cr_assert(status == MEMTX_E_INVALID || status == MEMTX_E_UNSUPPORTED, "%s: %d", none[i], status);
        cr_assert_not_null(strstr(memtx_last_error(), none[i]), "%s", memtx_last_error());
        cr_assert_eq(memtx_store_close(hand.store), MEMTX_OK);
    }
}
