/* Clusters and their files: whoever opens a store again is answered, to the bit, as the process that made the clusters
 * was; and whatever happens to the files, what comes back are the right rows with the right scores. */
#include <criterion/criterion.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "hand.h"
#include "run_files.h"
#include "search/kmeans.h"
#include "toy_index.h"

enum { BLOCK = 2040, ROWS = 5 * BLOCK + 300, FEW_Q = 4, K = 32 }; /* a chunk of f32 rows of 8 numbers */

/* All rows stand at delta, so that an answer does not depend on which document asks. */
static struct hand with_clusters(const char *spec, uint64_t run_blocks)
{
    struct hand hand = hand_default();
    hand.path = run_store;
    hand.is_kept = true;
    hand.options.index = spec;
    hand.options.resolve_index = toy_resolve;
    hand.options.run_rows = run_blocks * BLOCK;
    hand.options.scope = MEMTX_SCOPE_ALL;
    hand.options.positions = MEMTX_POSITIONS_FIXED;
    hand.options.k = K;
    return hand;
}

/* Appends up to `end` rows and asks after each piece, so that blocks are clustered as they fill. */
static void grow(struct hand *hand, size_t end)
{
    while (hand->n_rows < end) {
        hand_append(hand, end - hand->n_rows < 600 ? end - hand->n_rows : 600, hand->n_rows);
        hand_attend(hand, MOST_Q, hand->n_rows + 40, hand->n_rows);
    }
}

struct answer {
    float V_mem[MOST_Q][H][D], LSE_mem[MOST_Q][H];
    struct memtx_hit hits[MOST_Q * H * K];
};

static void ask(struct answer *out, struct hand *hand, uint64_t seed)
{
    hand_attend(hand, MOST_Q, hand->n_rows + 40, seed);
    memcpy(out->V_mem, V_mem, sizeof out->V_mem);
    memcpy(out->LSE_mem, LSE_mem, sizeof out->LSE_mem);
    memcpy(out->hits, hits, sizeof out->hits);
}

static bool equal(const struct answer *a, const struct answer *b)
{
    bool same =
        memcmp(a->V_mem, b->V_mem, sizeof a->V_mem) == 0 && memcmp(a->LSE_mem, b->LSE_mem, sizeof a->LSE_mem) == 0;
    for (size_t i = 0; i < MOST_Q * H * K && same; i++) {
        same = a->hits[i].row == b->hits[i].row &&
               memcmp(&a->hits[i].logit, &b->hits[i].logit, sizeof a->hits[i].logit) == 0;
    }
    return same;
}

static bool has_warning(const struct hand *hand)
{
    return *memtx_memory_warning(hand->memory) != '\0';
}

static uint64_t n_covered(const struct hand *hand)
{
    struct memtx_store_facts facts;
    memtx_store_info(&facts, hand->store);
    cr_assert_leq(facts.run_rows, facts.n_written_rows);
    return facts.run_rows;
}

static void verify_as(struct hand *hand, int status)
{
    cr_assert_eq(memtx_store_verify(hand->store, NULL), status, "%s", memtx_last_error());
}

/* ---- answers ---------------------------------------------------------------------------------- */

/* Asks other queries first, from which blocks would be clustered otherwise. */
static bool answers_the_same(struct hand *hand, bool reader, const struct answer *first, bool warns)
{
    static struct answer again;
    hand->options.reader = reader;
    hand_open(hand);
    ask(&again, hand, 77);
    ask(&again, hand, 5);
    cr_assert_eq(has_warning(hand), warns, "%s", memtx_memory_warning(hand->memory));
    hand_leave(hand);
    return equal(first, &again);
}

Test(clusters, the_next_process_answers_as_the_first, .init = run_files_begin, .fini = run_files_end)
{
    static const uint64_t run_blocks[] = {0, 1, 2};
    static struct answer first;
    for (size_t i = 0; i < 3; i++) {
        struct hand hand = with_clusters("cluster@share=0.05", run_blocks[i]);
        hand_open(&hand);
        grow(&hand, ROWS);
        ask(&first, &hand, 5);
        hand_leave(&hand);
        cr_assert_eq(find_run_files(), i == 0 ? 1 : i == 1 ? 5 : 3);
        cr_assert(answers_the_same(&hand, true, &first, false), "a reader");
        cr_assert(answers_the_same(&hand, false, &first, false), "a writer");
        cr_assert(answers_the_same(&hand, true, &first, false), "a reader after a writer that added nothing");
        for (size_t file = find_run_files(); file-- > 0;) {
            cr_assert_eq(unlink(run_files[file]), 0);
        }
        cr_assert(!answers_the_same(&hand, true, &first, true), "without the files it is another answer");
        free(hand.keys);
        free(hand.values);
        free(hand.positions);
        run_files_end();
        run_files_begin();
    }
}

/* A store that is closed and opened again after every step answers as one that stays open. */
static void same_as_open(uint64_t capacity, uint64_t run_blocks)
{
    static struct answer open, reopened;
    struct hand stays = with_clusters("cluster@share=0.05", run_blocks), hand = stays;
    stays.path = NULL;
    stays.store_options.capacity_rows = hand.store_options.capacity_rows = capacity;
    hand_open(&stays);
    for (size_t step = 0; step < 7; step++) {
        const size_t end = stays.n_rows + 500 + step * 3 % 5 * 900;
        hand_open(&hand);
        grow(&stays, end);
        grow(&hand, end);
        ask(&open, &stays, step);
        ask(&reopened, &hand, step);
        cr_assert(equal(&open, &reopened), "capacity %llu, step %zu", (unsigned long long)capacity, step);
        cr_assert(!has_warning(&hand), "%s", memtx_memory_warning(hand.memory));
        (void)n_covered(&hand);
        hand_leave(&hand);
    }
    cr_assert_gt(stays.n_rows, 5 * BLOCK);
    hand_open(&hand);
    verify_as(&hand, MEMTX_OK);
    hand_close(&hand);
    hand_close(&stays);
    run_files_end();
    run_files_begin();
}

Test(clusters, growth_goes_on_over_reopenings, .init = run_files_begin, .fini = run_files_end)
{
    same_as_open(0, 0);
    same_as_open(0, 1);
    same_as_open(0, 2);
    same_as_open(2 * BLOCK + 100, 0);
    same_as_open(2 * BLOCK + 100, 1);
    same_as_open(2 * BLOCK, 3);
}

/* Groups of blocks lie across files, and come with their last block. */
Test(clusters, groups_come_back_too, .init = run_files_begin, .fini = run_files_end)
{
    static struct answer first;
    struct hand hand = with_clusters("cluster@share=0.01", 5);
    hand_open(&hand);
    for (size_t step = 0; hand.n_rows < 34 * BLOCK; step++) {
        hand_append(&hand, 2000, hand.n_rows);
        hand_attend(&hand, FEW_Q, hand.n_rows, step);
    }
    cr_assert_eq(hand.memory->clusters.of_pair[0]->groups->n_blocks, 1);
    ask(&first, &hand, 5);
    hand_leave(&hand);
    cr_assert_eq(find_run_files(), 7);
    cr_assert(answers_the_same(&hand, true, &first, false));
    cr_assert(answers_the_same(&hand, false, &first, false));
    hand.options.reader = true;
    hand_open(&hand);
    ask(&first, &hand, 5);
    cr_assert_eq(hand.memory->clusters.of_pair[0]->groups->n_blocks, 1);
    hand_close(&hand);
}

/* Short runs are made longer until they are full: files do not become more with every process. */
Test(clusters, a_short_run_is_made_longer, .init = run_files_begin, .fini = run_files_end)
{
    struct hand hand = with_clusters("cluster", 3);
    for (size_t n_blocks = 1; n_blocks <= 7; n_blocks++) {
        hand_open(&hand);
        grow(&hand, n_blocks * BLOCK + 10);
        hand_leave(&hand);
        hand_open(&hand);
        cr_assert_eq(n_covered(&hand), n_blocks * BLOCK);
        cr_assert_eq(hand.store->now.n_runs, (n_blocks + 2) / 3);
        cr_assert_eq(find_run_files(), hand.store->now.n_runs);
        const uint32_t next = hand.store->now.state.next_run;
        hand_attend(&hand, MOST_Q, hand.n_rows, 1);
        hand_leave(&hand);
        hand_open(&hand);
        cr_assert_eq(hand.store->now.state.next_run, next, "nothing was added, nothing is written");
        hand_leave(&hand);
    }
    hand_open(&hand);
    hand_close(&hand);
}

/* A reader that stays open finds the blocks of the writer's new runs, and keeps those that it made itself. */
Test(clusters, a_reader_beside_a_writer, .init = run_files_begin, .fini = run_files_end)
{
    struct hand hand = with_clusters("cluster@share=1", 2);
    struct memtx_memory_options options = hand.options;
    memtx_memory *writer, *reader;
    options.reader = true;
    hand.store_options.durability = MEMTX_DURABILITY_FULL;
    hand_open(&hand);
    grow(&hand, BLOCK + 100);
    cr_assert_eq(memtx_memory_open(&reader, hand.store, &options), MEMTX_OK, "%s", memtx_last_error());
    writer = hand.memory;
    for (size_t end = BLOCK; end <= 5 * BLOCK; end += BLOCK) {
        grow(&hand, end + 100);
        if (end > BLOCK) { /* the first block is made by both */
            cr_assert_eq(memtx_memory_seal(writer, NULL), MEMTX_OK);
            cr_assert_eq(n_covered(&hand), end);
        }
        hand.memory = reader;
        hand.options.reader = true;
        hand_attend(&hand, FEW_Q, hand.n_rows, end);
        check_answer(&hand, FEW_Q, 0, hand.n_rows);
        cr_assert(!has_warning(&hand), "%s", memtx_memory_warning(reader));
        cr_assert_eq(reader->clusters.of_pair[0]->n_blocks, end / BLOCK);
        hand.memory = writer;
        hand.options.reader = false;
    }
    const struct memtx__cluster *a = writer->clusters.of_pair[0], *b = reader->clusters.of_pair[0];
    const size_t n_starts = a->per_block + 1;
    cr_assert_eq(memcmp(a->starts + n_starts, b->starts + n_starts, 4 * n_starts * sizeof *a->starts), 0);
    cr_assert_neq(memcmp(a->starts, b->starts, n_starts * sizeof *a->starts), 0);
    memtx_memory_close(reader);
    hand_close(&hand);
}

/* ---- which rows ------------------------------------------------------------------------------- */

/* Who sees one document saves blocks that serve who sees all, those of earlier documents too. */
Test(clusters, what_is_saved_serves_every_scope, .init = run_files_begin, .fini = run_files_end)
{
    static const char *const names[] = {"first", "second", "third"};
    static const size_t sizes[] = {1000, 3000, 2500};
    struct hand hand = with_clusters("cluster@share=1", 0);
    hand.options.scope = MEMTX_SCOPE_DOCUMENT;
    hand.options.index = "exact";
    hand_open(&hand);
    grow(&hand, 2500);
    hand_leave(&hand);
    hand.options.index = "cluster@share=1";
    hand_open(&hand);
    for (size_t d = 0, end = 2500; d < 3; d++) {
        end += sizes[d];
        grow(&hand, end);
        cr_assert_eq(memtx_memory_end_document(hand.memory, NULL), MEMTX_OK);
        cr_assert_eq(memtx_memory_begin_document(hand.memory, names[d]), MEMTX_OK);
    }
    hand_leave(&hand);
    hand.options.scope = MEMTX_SCOPE_ALL;
    hand.options.reader = true;
    hand_open(&hand);
    cr_assert_eq(n_covered(&hand), 4 * BLOCK);
    for (uint64_t seed = 0; seed < 4; seed++) {
        hand_attend(&hand, FEW_Q, hand.n_rows, seed);
        check_answer(&hand, FEW_Q, 0, hand.n_rows);
    }
    cr_assert(!has_warning(&hand));
    hand_close(&hand);
}

/* A document that is removed takes files with it that hold nothing else, and nobody writes them again. */
Test(clusters, removal, .init = run_files_begin, .fini = run_files_end)
{
    static struct answer before;
    struct hand hand = with_clusters("cluster@share=1", 1);
    hand_open(&hand);
    grow(&hand, BLOCK + 100); /* "first" */
    cr_assert_eq(memtx_memory_end_document(hand.memory, NULL), MEMTX_OK);
    cr_assert_eq(memtx_memory_begin_document(hand.memory, "large"), MEMTX_OK);
    grow(&hand, 4 * BLOCK + 100);
    cr_assert_eq(memtx_memory_end_document(hand.memory, NULL), MEMTX_OK);
    cr_assert_eq(memtx_memory_begin_document(hand.memory, "last"), MEMTX_OK);
    grow(&hand, 6 * BLOCK);
    hand_leave(&hand);
    cr_assert_eq(find_run_files(), 6);
    hand.store_options = memtx_store_options_default();
    cr_assert_eq(memtx_store_open(&hand.store, run_store, &hand.spec, &hand.store_options), MEMTX_OK);
    cr_assert_eq(memtx_store_remove_document(hand.store, "large"), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(find_run_files(), 4, "blocks 2 and 3 held nothing else");
    const uint32_t next = hand.store->now.state.next_run;
    cr_assert_eq(memtx_store_close(hand.store), MEMTX_OK);
    for (int reader = 0; reader < 2; reader++) {
        hand.options.reader = reader;
        hand_open(&hand);
        ask(&before, &hand, 3);
        for (size_t i = 0; i < MOST_Q * H * K; i++) {
            const int64_t row = before.hits[i].row;
            cr_assert((row >= 0 && row < BLOCK + 100) || (row >= 4 * BLOCK + 100 && row < 6 * BLOCK), "row %lld",
                      (long long)row);
        }
        cr_assert_eq(hand.store->now.state.next_run, next, "nothing is written anew");
        cr_assert(!has_warning(&hand));
        hand_leave(&hand);
    }
    hand.options.reader = false;
    hand_open(&hand);
    grow(&hand, 8 * BLOCK);
    hand_leave(&hand);
    cr_assert_eq(find_run_files(), 4 + 2);
    hand_open(&hand);
    verify_as(&hand, MEMTX_OK);
    hand_close(&hand);
}

/* Ids of rows that a crash takes are given to others: no file holds them. */
Test(clusters, rows_that_wait_are_in_no_file, .init = run_files_begin, .fini = run_files_end)
{
    struct hand hand = with_clusters("cluster", 1);
    hand.store_options.group_segments = 1U << 30;
    hand.store_options.group_milliseconds = 1U << 30;
    hand.store_options.group_bytes = (size_t)1 << 40;
    hand_open(&hand);
    grow(&hand, 3 * BLOCK + 10);
    hand_attend(&hand, MOST_Q, hand.n_rows, 1);
    cr_assert_eq(hand.store->n_written_rows, 0);
    cr_assert_eq(n_covered(&hand), 0);
    cr_assert_eq(find_run_files(), 0);
    cr_assert_eq(memtx_memory_seal(hand.memory, NULL), MEMTX_OK);
    cr_assert_eq(n_covered(&hand), 3 * BLOCK, "what waited was written first");
    grow(&hand, 4 * BLOCK + 10);
    hand_leave(&hand);
    cr_assert_eq(find_run_files(), 4);
    hand_open(&hand);
    hand_close(&hand);
}

Test(clusters, stores_without_a_directory_have_no_files, .init = run_files_begin, .fini = run_files_end)
{
    for (int where = 0; where < 2; where++) {
        struct hand hand = with_clusters("cluster@share=1", 1);
        hand.path = where ? run_folder : NULL;
        hand.is_kept = false;
        hand_open(&hand);
        grow(&hand, 3 * BLOCK);
        check_answer(&hand, 1, 0, hand.n_rows);
        cr_assert_eq(n_covered(&hand), 0);
        cr_assert_eq(memtx_memory_seal(hand.memory, NULL), MEMTX_OK);
        cr_assert(!has_warning(&hand));
        cr_assert_eq(hand.memory->clusters.of_pair[1]->n_blocks, 3);
        cr_assert_eq(hand.memory->clusters.files.n_loaded, 0);
        hand_close(&hand);
    }
}

/* Blocks are whole chunks about the usual number, where a block can hold one. */
Test(clusters, block_rows)
{
    for (uint32_t row_bytes = 2; row_bytes <= 2048; row_bytes += 2) {
        const uint32_t chunk_rows = 65280 / row_bytes, block_rows = memtx__clusters_block_rows(chunk_rows);
        cr_assert(block_rows >= 32 && block_rows <= MEMTX__KMEANS_MOST_ROWS, "%u", block_rows);
        cr_assert(block_rows % chunk_rows == 0 || (row_bytes == 2 && chunk_rows % block_rows == 0), "%u", chunk_rows);
        cr_assert(chunk_rows >= 2040 ||
                      (2 * block_rows + chunk_rows >= 2 * 2040 && 2 * block_rows <= chunk_rows + 2 * 2040),
                  "%u rows of chunks of %u", block_rows, chunk_rows);
    }
    cr_assert_eq(memtx__clusters_block_rows(510), 2040);
    cr_assert_eq(memtx__clusters_block_rows(255), 2040);
}

/* ---- what happens to files -------------------------------------------------------------------- */

static struct hand made;

/* With a share of 1 every row is met that stands in some cluster: what was lost would be missed. */
static void make_store(void)
{
    run_files_begin();
    made = with_clusters("cluster@share=1", 2);
    hand_open(&made);
    grow(&made, ROWS);
    hand_leave(&made);
    cr_assert_eq(find_run_files(), 3);
}

static void end_store(void)
{
    free(made.keys);
    free(made.values);
    free(made.positions);
    run_files_end();
}

static void one_answers(const char *what, bool reader, bool is_damaged, int verified)
{
    made.options.reader = reader;
    made.store_options = memtx_store_options_default();
    hand_open(&made);
    const int status = memtx_store_verify(made.store, NULL);
    cr_assert_eq(status, verified, "%s: %d", what, status);
    hand_attend(&made, FEW_Q, made.n_rows + 40, 9);
    check_answer(&made, FEW_Q, 0, made.n_rows);
    cr_assert_eq(has_warning(&made), is_damaged, "%s: %s", what, memtx_memory_warning(made.memory));
    cr_assert(verified == MEMTX_OK || strstr(memtx_memory_warning(made.memory), "index file of rows"), "%s",
              memtx_memory_warning(made.memory));
    hand_leave(&made);
}

/* A reader clusters by itself what is bad, and so does the writer, who also puts a new file in its place. */
static void all_answer_verified(const char *what, bool is_damaged, int verified)
{
    one_answers(what, true, is_damaged, verified);
    one_answers(what, false, is_damaged, verified);
    one_answers(what, true, false, MEMTX_OK);
    cr_assert_eq(find_run_files(), 3, "%s", what);
}

static void all_answer(const char *what, bool is_damaged)
{
    all_answer_verified(what, is_damaged, is_damaged ? MEMTX_E_CORRUPT : MEMTX_OK);
}

Test(damage, bytes_that_are_flipped, .init = make_store, .fini = end_store)
{
    char what[64];
    for (size_t at = 0, n = 1; at < n; at += 4096) {
        cr_assert_eq(find_run_files(), 3);
        unsigned char *bytes = read_bytes(&n, run_files[0]);
        if (at < n) {
            bytes[at] ^= 0x10;
            write_bytes(run_files[0], bytes, n);
            (void)snprintf(what, sizeof what, "byte %zu of %zu", at, n);
            all_answer(what, true);
        }
        free(bytes);
    }
}

Test(damage, files_that_are_cut, .init = make_store, .fini = end_store)
{
    char what[64];
    for (size_t i = 0; i < 10; i++) {
        size_t n;
        cr_assert_eq(find_run_files(), 3);
        unsigned char *bytes = read_bytes(&n, run_files[1]);
        write_bytes(run_files[1], bytes, n * i / 10 + i % 3);
        free(bytes);
        (void)snprintf(what, sizeof what, "cut at %zu of %zu", n * i / 10, n);
        all_answer(what, true);
    }
}

Test(damage, files_that_are_gone_or_others, .init = make_store, .fini = end_store)
{
    char other[sizeof run_files[0] + 8];
    size_t n;
    all_answer("nothing", false);
    (void)find_run_files();
    cr_assert_eq(unlink(run_files[2]), 0);
    all_answer("gone", true);
    (void)find_run_files();
    (void)snprintf(other, sizeof other, "%s.x", run_files[0]);
    cr_assert(rename(run_files[0], other) == 0 && rename(run_files[1], run_files[0]) == 0 &&
              rename(other, run_files[1]) == 0);
    all_answer("swapped", true);
    (void)find_run_files();
    unsigned char *bytes = read_bytes(&n, run_files[0]);
    write_bytes(run_files[1], bytes, n);
    free(bytes);
    all_answer("a foreign one", true);
    (void)find_run_files();
    for (size_t i = 0; i < 3; i++) {
        cr_assert_eq(unlink(run_files[i]), 0);
    }
    all_answer("all gone", true);
}

/* A hole among whole runs is filled as soon as its blocks are there, and by itself. */
Test(damage, a_hole_is_filled_at_once, .init = run_files_begin, .fini = run_files_end)
{
    struct hand hand = with_clusters("cluster@share=1", 1);
    struct stat before, after;
    hand_open(&hand);
    grow(&hand, ROWS);
    hand_leave(&hand);
    cr_assert_eq(find_run_files(), 5);
    cr_assert_eq(unlink(run_files[1]), 0);
    cr_assert_eq(stat(run_files[2], &before), 0);
    hand.options.run_rows = 3 * BLOCK;
    hand_open(&hand);
    hand_attend(&hand, FEW_Q, hand.n_rows, 1);
    cr_assert_eq(find_run_files(), 4, "it is clustered");
    hand_attend(&hand, FEW_Q, hand.n_rows, 1);
    cr_assert_eq(find_run_files(), 5, "and saved");
    hand_close(&hand);
    cr_assert_eq(find_run_files(), 5);
    cr_assert_eq(stat(run_files[1], &after), 0);
    cr_assert_eq(before.st_ino, after.st_ino, "the others stay");
}

/* A record that fits its file, of blocks that are not this memory's: as another version of the library could leave. */
Test(damage, blocks_of_another_length, .init = make_store, .fini = end_store)
{
    made.options.reader = true;
    hand_open(&made);
    cr_assert_eq(memtx_memory_begin_segment(made.memory), MEMTX_OK);
    made.memory->clusters.files.loaded[1].run.n_rows -= BLOCK;
    memtx_memory_end_segment(made.memory);
    hand_attend(&made, FEW_Q, made.n_rows + 40, 9);
    check_answer(&made, FEW_Q, 0, made.n_rows);
    cr_assert_not_null(strstr(memtx_memory_warning(made.memory), "other blocks"));
    hand_leave(&made);
    made.options.reader = false;
    hand_open(&made);
    hand_attend(&made, FEW_Q, made.n_rows + 40, 9);
    for (size_t pair = 0; pair < G; pair++) {
        made.memory->clusters.of_pair[pair]->options.seed = 1;
    }
    struct memtx__loaded_run *second = &made.memory->clusters.files.loaded[1];
    second->is_good = false;
    hand_leave(&made); /* saves the second anew, with the seed in it */
    all_answer_verified("another seed", true, MEMTX_OK);
}

/* ---- another index, and upkeep ---------------------------------------------------------------- */

Test(upkeep, the_files_of_another_kind_are_replaced, .init = make_store, .fini = end_store)
{
    made.options.index = "cluster@share=0.99999";
    all_answer("another share is no other kind", false);
    made.options.index = "toy:all";
    one_answers("a toy over clusters", true, true, MEMTX_OK);
    one_answers("a toy over clusters", false, true, MEMTX_OK);
    made.options.index = "cluster@share=1";
    one_answers("clusters over toys", false, true, MEMTX_OK);
    one_answers("clusters over toys", false, false, MEMTX_OK);
}

static int rebuild(const char *index, uint64_t run_rows)
{
    struct memtx_memory_options options = made.options;
    options.reader = false;
    options.index = index;
    options.run_rows = run_rows;
    made.store_options = memtx_store_options_default();
    cr_assert_eq(memtx_store_open(&made.store, run_store, NULL, &made.store_options), MEMTX_OK);
    const int status = memtx_memory_rebuild(made.store, &options, NULL);
    cr_assert_eq(memtx_store_close(made.store), MEMTX_OK);
    return status;
}

Test(upkeep, a_rebuild_keeps_what_is_whole, .init = make_store, .fini = end_store)
{
    static struct answer first, again;
    struct stat facts[2];
    made.options.index = "cluster@share=0.05";
    made.options.reader = true;
    hand_open(&made);
    ask(&first, &made, 5);
    hand_leave(&made);
    cr_assert_eq(stat(run_files[1], &facts[0]), 0);
    cr_assert_eq(rebuild(NULL, 0), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(rebuild("cluster@share=0.5", 0), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(find_run_files(), 3);
    cr_assert_eq(stat(run_files[1], &facts[1]), 0);
    cr_assert_eq(facts[0].st_ino, facts[1].st_ino);
    cr_assert_eq(unlink(run_files[0]), 0);
    cr_assert_eq(rebuild(NULL, 0), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(find_run_files(), 2);
    hand_open(&made);
    verify_as(&made, MEMTX_OK);
    ask(&again, &made, 5);
    cr_assert(!has_warning(&made) && !equal(&first, &again), "its blocks are clustered from this question");
    hand_leave(&made);
    made.options.reader = false;
    hand_open(&made);
    hand_attend(&made, MOST_Q, made.n_rows, 5);
    hand_leave(&made);
    cr_assert_eq(find_run_files(), 3, "the next who appends saves them");
}

Test(upkeep, a_rebuild_cannot_make_clusters, .init = make_store, .fini = end_store)
{
    cr_assert_eq(rebuild("cluster", BLOCK), MEMTX_E_UNSUPPORTED);
    cr_assert_eq(rebuild("cluster@share=2", 0), MEMTX_E_INVALID);
    cr_assert_eq(rebuild("toy:all", 0), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(find_run_files(), 0, "128 chunks are not full");
    cr_assert_eq(rebuild("cluster", 0), MEMTX_E_UNSUPPORTED, "there are none");
    cr_assert_not_null(strstr(memtx_last_error(), "queries"), "%s", memtx_last_error());
    cr_assert_eq(rebuild("toy:all", BLOCK), MEMTX_OK);
    cr_assert_eq(find_run_files(), 5);
    cr_assert_eq(rebuild("cluster", 0), MEMTX_E_UNSUPPORTED, "there are others");
    cr_assert_eq(find_run_files(), 5);
}

Test(upkeep, a_copy_has_them, .init = make_store, .fini = end_store)
{
    static struct answer first;
    char copy[80];
    made.options.index = "cluster@share=0.05";
    made.options.reader = true;
    hand_open(&made);
    ask(&first, &made, 5);
    (void)snprintf(copy, sizeof copy, "%s/copy", run_folder);
    cr_assert_eq(memtx_store_compact(made.store, copy, NULL), MEMTX_OK, "%s", memtx_last_error());
    hand_leave(&made);
    (void)snprintf(run_store, sizeof run_store, "%s", copy);
    made.path = run_store;
    cr_assert(answers_the_same(&made, true, &first, false));
}

/* ---- what fails ------------------------------------------------------------------------------- */

/* Where no file can be written, answers go on, and it is said once. */
Test(fails, writing_a_file, .init = run_files_begin, .fini = run_files_end)
{
    char name[160];
    struct hand hand = with_clusters("cluster@share=1", 1);
    hand_open(&hand);
    (void)snprintf(name, sizeof name, "%s/run.tmp", run_store);
    cr_assert_eq(mkdir(name, 0700), 0);
    grow(&hand, 3 * BLOCK);
    check_answer(&hand, FEW_Q, 0, hand.n_rows);
    cr_assert(has_warning(&hand));
    cr_assert_eq(n_covered(&hand), 0);
    cr_assert_eq(rmdir(name), 0);
    hand_leave(&hand);
    cr_assert_eq(find_run_files(), 0, "it is not tried again");
    hand_open(&hand);
    hand_attend(&hand, MOST_Q, hand.n_rows, 1);
    hand_leave(&hand);
    cr_assert_eq(find_run_files(), 3, "but by the next");
    hand_open(&hand);
    hand_close(&hand);
}

/* Whichever allocation fails, asking again is answered. */
Test(fails, no_memory_for_what_is_loaded, .init = make_store, .fini = end_store)
{
    int status = MEMTX_E_NO_MEMORY;
    made.options.reader = true;
    for (long n = 1; status; n++) {
        hand_open(&made);
        memtx__alloc_fail_at(n);
        status = memtx_memory_begin_segment(made.memory);
        if (!status) {
            status = memtx_memory_attend(V_mem[0][0], LSE_mem[0], hits, made.memory, LAYER, FEW_Q, queries[0][0],
                                         query_positions);
        }
        memtx__alloc_fail_at(0);
        cr_assert(status == MEMTX_OK || status == MEMTX_E_NO_MEMORY, "%ld: %s", n, memtx_last_error());
        memtx_memory_end_segment(made.memory);
        hand_attend(&made, FEW_Q, made.n_rows + 40, 9);
        check_answer(&made, FEW_Q, 0, made.n_rows);
        hand_leave(&made);
        cr_assert_lt(n, 200);
    }
}
