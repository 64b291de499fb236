/* Tail and runs: whatever index there is, and whatever happens to its files, each query gets its min(k, visible) rows, and
 * with an index that finds everything it gets the best. toy_index.h counts, so that the intended path is known to run. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "hand.h"
#include "run_files.h"
#include "toy_index.h"

enum { RUN = 2040, ROWS = 3 * RUN + 300, FEW_Q = 4 }; /* a chunk of f32 rows of 8 numbers: the shortest run */

static struct hand with_index(const char *spec)
{
    struct hand hand = hand_default();
    hand.path = run_store;
    hand.is_kept = true;
    hand.options.index = spec;
    hand.options.resolve_index = toy_resolve;
    hand.options.run_rows = RUN;
    hand.options.scope = MEMTX_SCOPE_ALL;
    return hand;
}

/* Appends ROWS rows in pieces. */
static void fill(struct hand *hand)
{
    while (hand->n_rows < ROWS) {
        hand_append(hand, ROWS - hand->n_rows < 500 ? ROWS - hand->n_rows : 500, hand->n_rows);
    }
}

static void ask(struct hand *hand, uint64_t seed)
{
    hand_attend(hand, MOST_Q, hand->n_rows + 40, seed);
    check_answer(hand, MOST_Q, 0, hand->n_rows);
}

/* ---- answers ---------------------------------------------------------------------------------- */

/* Where the rows are: on the heap, in a temporary store, in a directory. */
Test(runs, answers_are_those_of_exact_search, .init = run_files_begin, .fini = run_files_end)
{
    static const char *const specs[] = {"toy:all", "toy:half"};
    for (int where = 0; where < 3; where++) {
        for (size_t i = 0; i < 2; i++) {
            struct hand hand = with_index(specs[i]);
            hand.path = where == 0 ? NULL : where == 1 ? run_folder : run_store;
            hand.is_kept = where == 2;
            hand_open(&hand);
            toy_built = toy_loaded = toy_asked = 0;
            for (size_t step = 0; hand.n_rows < ROWS; step++) {
                hand_append(&hand, 777, hand.n_rows);
                ask(&hand, step);
            }
            cr_assert_eq(toy_built, 3 * G, "%s in %d: %d indexes", specs[i], where, toy_built);
            cr_assert_eq(toy_loaded, 3 * G);
            cr_assert_gt(toy_asked, 3 * G);
            hand_close(&hand);
            if (where == 2) {
                cr_assert_eq(find_run_files(), 3);
                run_files_end();
                run_files_begin();
            }
        }
    }
}

Test(runs, the_next_process_finds_the_same_and_builds_nothing, .init = run_files_begin, .fini = run_files_end)
{
    static struct memtx_hit before[MOST_Q * H * MOST_K];
    struct hand hand = with_index("toy:half");
    hand_open(&hand);
    fill(&hand);
    ask(&hand, 1);
    memcpy(before, hits, sizeof before);
    memtx_memory_close(hand.memory);
    cr_assert_eq(memtx_store_close(hand.store), MEMTX_OK);
    toy_built = 0;
    hand_open(&hand);
    hand_attend(&hand, MOST_Q, hand.n_rows + 40, 1);
    cr_assert_eq(toy_built, 0);
    for (size_t i = 0; i < MOST_Q * H * hand.options.k; i++) { /* the document is another's now: other logits */
        cr_assert_eq(hits[i].row, before[i].row);
    }
    cr_assert_eq(*memtx_memory_warning(hand.memory), '\0', "%s", memtx_memory_warning(hand.memory));
    hand_close(&hand);
}

Test(runs, capacity_drops_them_with_their_files, .init = run_files_begin, .fini = run_files_end)
{
    struct hand hand = with_index("toy:half");
    hand.store_options.capacity_rows = 2 * RUN + 100;
    hand_open(&hand);
    while (hand.n_rows < 6 * RUN) {
        hand_append(&hand, 600, hand.n_rows);
        hand_attend(&hand, MOST_Q, hand.n_rows + 40, hand.n_rows);
        const size_t first = hand.n_rows > 2 * RUN + 100 ? hand.n_rows - 2 * RUN - 100 : 0;
        check_answer(&hand, MOST_Q, first, hand.n_rows);
    }
    cr_assert_eq(memtx_store_verify(hand.store, NULL), MEMTX_OK, "%s", memtx_last_error());
    hand_close(&hand);
    cr_assert_leq(find_run_files(), 3, "%zu", find_run_files());
}

static size_t n_found(const struct hand *hand, size_t first, size_t end)
{
    size_t n = 0;
    for (size_t i = 0; i < MOST_Q * H * hand->options.k; i++) {
        cr_assert(hits[i].row == -1 || (hits[i].row >= (int64_t)first && hits[i].row < (int64_t)end), "row %lld",
                  (long long)hits[i].row);
        n += hits[i].row >= 0;
    }
    return n;
}

/* A document that a run holds a little of, one that it holds most of, and one that is removed. */
Test(runs, scope_and_removal, .init = run_files_begin, .fini = run_files_end)
{
    static const char *const names[] = {"small", "large", "last"};
    static const size_t sizes[] = {3, 3 * RUN, 900};
    struct hand hand = with_index("toy:all");
    size_t first = 0;
    hand_open(&hand);
    memtx_memory_abandon_document(hand.memory);
    for (size_t d = 0; d < 3; d++) {
        cr_assert_eq(memtx_memory_begin_document(hand.memory, names[d]), MEMTX_OK);
        for (size_t done = 0; done < sizes[d]; done += 300) {
            hand_append(&hand, sizes[d] - done < 300 ? sizes[d] - done : 300, done);
        }
        cr_assert_eq(memtx_memory_end_document(hand.memory, NULL), MEMTX_OK);
    }
    cr_assert_eq(memtx_memory_begin_segment(hand.memory), MEMTX_OK); /* seals */
    memtx_memory_end_segment(hand.memory);
    memtx_memory_close(hand.memory);
    for (size_t d = 0; d < 3; first += sizes[d++]) {
        hand.options.scope = MEMTX_SCOPE_NAMED;
        hand.options.scope_names = &names[d];
        hand.options.n_scope_names = 1;
        cr_assert_eq(memtx_memory_open(&hand.memory, hand.store, &hand.options), MEMTX_OK, "%s", memtx_last_error());
        cr_assert_eq(memtx_memory_begin_document(hand.memory, "asks"), MEMTX_OK);
        hand_attend(&hand, MOST_Q, 100000, d);
        const size_t k = hand.options.k < sizes[d] ? hand.options.k : sizes[d];
        cr_assert_eq(n_found(&hand, first, first + sizes[d]), MOST_Q * H * k);
        memtx_memory_close(hand.memory);
    }
    cr_assert_eq(find_run_files(), 1 + 2);
    cr_assert_eq(memtx_store_remove_document(hand.store, "large"), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_leq(find_run_files(), 2, "a run of which no row is left goes");
    hand.options.scope = MEMTX_SCOPE_ALL;
    cr_assert_eq(memtx_memory_open(&hand.memory, hand.store, &hand.options), MEMTX_OK);
    cr_assert_eq(memtx_memory_begin_document(hand.memory, "asks again"), MEMTX_OK);
    for (size_t seed = 0; seed < 3; seed++) {
        hand_attend(&hand, MOST_Q, 100000, seed);
        for (size_t i = 0; i < MOST_Q * H * hand.options.k; i++) {
            cr_assert(hits[i].row >= 0 && (hits[i].row < 3 || hits[i].row >= 3 + 3 * RUN), "row %lld",
                      (long long)hits[i].row);
        }
    }
    hand_close(&hand);
}

/* ---- what happens to files -------------------------------------------------------------------- */

static struct hand made;

static void make_store(void)
{
    run_files_begin();
    made = with_index("toy:all");
    hand_open(&made);
    fill(&made);
    ask(&made, 5);
    memtx_memory_close(made.memory);
    cr_assert_eq(memtx_store_close(made.store), MEMTX_OK);
}

/* As a reader: exact where the file is bad. As a writer: built anew. Both answer as the rows say. */
static void both_answer_verified(const char *what, bool is_damaged, int verified)
{
    struct memtx_store_options options = memtx_store_options_default();
    struct memtx_memory_options reader = made.options;
    memtx_store *store;
    options.read_only = true;
    reader.reader = true;
    cr_assert_eq(memtx_store_open(&store, run_store, NULL, &options), MEMTX_OK, "%s: %s", what, memtx_last_error());
    cr_assert_eq(memtx_store_verify(store, NULL), verified, "%s: %s", what, memtx_last_error());
    cr_assert_eq(memtx_memory_open(&made.memory, store, &reader), MEMTX_OK);
    cr_assert_eq(memtx_memory_begin_segment(made.memory), MEMTX_OK, "%s: %s", what, memtx_last_error());
    cr_assert_eq(
        memtx_memory_attend(V_mem[0][0], LSE_mem[0], hits, made.memory, LAYER, FEW_Q, queries[0][0], query_positions),
        MEMTX_OK, "%s: %s", what, memtx_last_error());
    cr_assert_eq(*memtx_memory_warning(made.memory) != '\0', is_damaged, "%s", what);
    made.options.positions = MEMTX_POSITIONS_FIXED; /* a reader's rows stand at delta */
    check_answer(&made, FEW_Q, 0, made.n_rows);
    memtx_memory_close(made.memory);
    cr_assert_eq(memtx_store_close(store), MEMTX_OK);
    toy_built = 0;
    made.store_options = memtx_store_options_default();
    cr_assert_eq(memtx_store_open(&made.store, run_store, NULL, &made.store_options), MEMTX_OK, "%s",
                 memtx_last_error());
    cr_assert_eq(memtx_memory_open(&made.memory, made.store, &made.options), MEMTX_OK);
    cr_assert_eq(memtx_memory_begin_document(made.memory, "asks"), MEMTX_OK);
    hand_attend(&made, FEW_Q, made.n_rows + 40, 5);
    check_answer(&made, FEW_Q, 0, made.n_rows);
    cr_assert_eq(toy_built != 0, is_damaged, "%s: %d built", what, toy_built);
    cr_assert_eq(*memtx_memory_warning(made.memory) != '\0', is_damaged, "%s", what);
    memtx_memory_close(made.memory);
    cr_assert_eq(memtx_store_verify(made.store, NULL), MEMTX_OK, "%s: %s", what, memtx_last_error());
    cr_assert_eq(memtx_store_close(made.store), MEMTX_OK);
    cr_assert_eq(find_run_files(), 3, "%s", what);
}

static void both_answer(const char *what, bool is_damaged)
{
    both_answer_verified(what, is_damaged, is_damaged ? MEMTX_E_CORRUPT : MEMTX_OK);
}

static void find_files(void)
{
    cr_assert_eq(find_run_files(), 3);
}

Test(damage, bytes_that_are_flipped, .init = make_store, .fini = run_files_end)
{
    char what[64];
    size_t n;
    for (size_t at = 0;; at += 4096) {
        find_files();
        unsigned char *bytes = read_bytes(&n, run_files[0]);
        if (at >= n) {
            free(bytes);
            break;
        }
        bytes[at] ^= 0x10;
        write_bytes(run_files[0], bytes, n);
        free(bytes);
        (void)snprintf(what, sizeof what, "byte %zu of %zu", at, n);
        both_answer(what, true);
    }
}

Test(damage, files_that_are_cut, .init = make_store, .fini = run_files_end)
{
    char what[64];
    size_t n;
    for (size_t i = 0; i < 20; i++) {
        find_files();
        unsigned char *bytes = read_bytes(&n, run_files[1]);
        write_bytes(run_files[1], bytes, n * i / 20 + i % 3);
        free(bytes);
        (void)snprintf(what, sizeof what, "cut at %zu of %zu", n * i / 20, n);
        both_answer(what, true);
    }
}

Test(damage, files_that_are_gone_or_others, .init = make_store, .fini = run_files_end)
{
    size_t n;
    find_files();
    both_answer("nothing", false);
    cr_assert_eq(unlink(run_files[2]), 0);
    both_answer("gone", true);
    find_files();
    char other[sizeof run_files[0] + 8];
    (void)snprintf(other, sizeof other, "%s.x", run_files[0]);
    cr_assert(rename(run_files[0], other) == 0 && rename(run_files[1], run_files[0]) == 0 &&
              rename(other, run_files[1]) == 0);
    both_answer("swapped", true);
    find_files();
    unsigned char *bytes = read_bytes(&n, run_files[0]);
    write_bytes(run_files[1], bytes, n); /* as another store's of the same size would */
    free(bytes);
    both_answer("a foreign one", true);
    find_files();
    cr_assert(unlink(run_files[0]) == 0 && symlink("/etc/passwd", run_files[0]) == 0);
    both_answer("a link out of the directory", true);
    find_files();
    cr_assert(unlink(run_files[0]) == 0 && mkfifo(run_files[0], 0600) == 0);
    both_answer("a pipe", true);
}

Test(damage, what_a_writer_left_that_was_killed, .init = make_store, .fini = run_files_end)
{
    char name[160];
    (void)snprintf(name, sizeof name, "%s/run.tmp", run_store);
    write_bytes(name, (const unsigned char *)"half", 4);
    (void)snprintf(name, sizeof name, "%s/run-00000000000000ff.idx", run_store);
    write_bytes(name, (const unsigned char *)"no record", 9);
    made.store_options = memtx_store_options_default();
    cr_assert_eq(memtx_store_open(&made.store, run_store, NULL, &made.store_options), MEMTX_OK);
    cr_assert_eq(memtx_store_close(made.store), MEMTX_OK);
    cr_assert_eq(find_run_files(), 3);
}

/* ---- upkeep ----------------------------------------------------------------------------------- */

Test(upkeep, a_copy_has_them_and_a_rebuild_makes_others, .init = make_store, .fini = run_files_end)
{
    char copy[80];
    struct memtx_memory_options options = made.options;
    (void)snprintf(copy, sizeof copy, "%s/copy", run_folder);
    made.store_options = memtx_store_options_default();
    cr_assert_eq(memtx_store_open(&made.store, run_store, NULL, &made.store_options), MEMTX_OK);
    cr_assert_eq(memtx_store_compact(made.store, copy, NULL), MEMTX_OK, "%s", memtx_last_error());
    toy_built = 0;
    options.index = "toy:half@x=1";
    options.run_rows = 1;
    cr_assert_eq(memtx_memory_rebuild(made.store, &options, NULL), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(toy_built, 3 * G);
    cr_assert_eq(find_run_files(), 3);
    options.index = "toy:none";
    cr_assert_eq(memtx_memory_rebuild(made.store, &options, NULL), MEMTX_E_INVALID);
    options.index = NULL;
    options.run_rows = 3 * RUN;
    cr_assert_eq(memtx_memory_rebuild(made.store, &options, NULL), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(find_run_files(), 1);
    cr_assert_eq(memtx_store_verify(made.store, NULL), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(memtx_store_close(made.store), MEMTX_OK);
    (void)snprintf(run_store, sizeof run_store, "%s", copy);
    both_answer("a copy", false);
}

static int stop(void *context, const struct memtx_store_progress *progress)
{
    int *n = context;
    cr_assert(progress->n_bytes <= progress->n_all_bytes && progress->n_bytes > 0);
    return ++*n == G + 1;
}

Test(upkeep, a_rebuild_that_is_interrupted, .init = make_store, .fini = run_files_end)
{
    struct memtx_store_upkeep_options upkeep = memtx_store_upkeep_options_default();
    int n = 0;
    upkeep.progress = stop;
    upkeep.progress_context = &n;
    made.store_options = memtx_store_options_default();
    cr_assert_eq(memtx_store_open(&made.store, run_store, NULL, &made.store_options), MEMTX_OK);
    cr_assert_eq(memtx_memory_rebuild(made.store, &made.options, &upkeep), MEMTX_E_INTERRUPTED);
    cr_assert_eq(find_run_files(), 1);
    cr_assert_eq(memtx_store_close(made.store), MEMTX_OK);
    toy_built = 0;
    cr_assert_eq(memtx_store_open(&made.store, run_store, NULL, &made.store_options), MEMTX_OK);
    cr_assert_eq(memtx_memory_open(&made.memory, made.store, &made.options), MEMTX_OK);
    cr_assert_eq(memtx_memory_begin_document(made.memory, "asks"), MEMTX_OK);
    ask(&made, 9);
    cr_assert_eq(toy_built, 2 * G, "the writer goes on");
    hand_close(&made);
}

Test(upkeep, another_kind_is_built_other_options_are_not, .init = make_store, .fini = run_files_end)
{
    made.options.index = "toy:all@how=fast";
    both_answer("other options", false);
    made.options.index = "toy:half";
    both_answer_verified("another kind", true, MEMTX_OK);
}

/* The lengths of runs are those of their kind: another does not inherit them, but for a hole among its own. */
Test(upkeep, another_kind_has_its_own_lengths, .init = make_store, .fini = run_files_end)
{
    made.options.index = "toy:half";
    made.options.run_rows = 2 * RUN;
    made.store_options = memtx_store_options_default();
    cr_assert_eq(memtx_store_open(&made.store, run_store, NULL, &made.store_options), MEMTX_OK);
    cr_assert_eq(memtx_memory_open(&made.memory, made.store, &made.options), MEMTX_OK);
    cr_assert_eq(memtx_memory_begin_document(made.memory, "asks"), MEMTX_OK);
    toy_built = 0;
    ask(&made, 9);
    cr_assert_eq(toy_built, G);
    cr_assert_eq(find_run_files(), 1 + 1, "2 runs have become one, the third stays");
    cr_assert_eq(made.store->now.runs[0].n_rows, 2 * RUN);
    memtx_memory_close(made.memory);
    made.options.index = "toy:all";
    cr_assert_eq(memtx_memory_open(&made.memory, made.store, &made.options), MEMTX_OK);
    cr_assert_eq(memtx_memory_begin_document(made.memory, "asks"), MEMTX_OK);
    ask(&made, 9);
    cr_assert_eq(toy_built, 2 * G, "the one before its own");
    cr_assert_eq(*memtx_memory_warning(made.memory) != '\0', true);
    hand_close(&made);
    cr_assert_eq(find_run_files(), 2);
}

Test(refused, specs)
{
    struct hand hand = hand_default();
    char longest[400];
    cr_assert_eq(memtx_store_open(&hand.store, NULL, &hand.spec, NULL), MEMTX_OK);
    hand.options.index = "toy:all";
    cr_assert_eq(memtx_memory_open(&hand.memory, hand.store, &hand.options), MEMTX_E_UNSUPPORTED, "no resolver");
    hand.options.resolve_index = toy_resolve;
    hand.options.index = "faiss:Flat";
    cr_assert_eq(memtx_memory_open(&hand.memory, hand.store, &hand.options), MEMTX_E_UNSUPPORTED);
    hand.options.index = "toy:none";
    cr_assert_eq(memtx_memory_open(&hand.memory, hand.store, &hand.options), MEMTX_E_INVALID);
    memset(longest, 'x', sizeof longest);
    memcpy(longest, "toy:all", 7);
    longest[sizeof longest - 1] = '\0';
    hand.options.index = longest;
    cr_assert_eq(memtx_memory_open(&hand.memory, hand.store, &hand.options), MEMTX_E_INVALID);
    hand.options.index = "exact";
    cr_assert_eq(memtx_memory_open(&hand.memory, hand.store, &hand.options), MEMTX_OK);
    memtx_memory_close(hand.memory);
    cr_assert_eq(memtx_store_close(hand.store), MEMTX_OK);
}

/* ---- in the background ------------------------------------------------------------------------ */

Test(background, answers_are_right_at_any_time, .init = run_files_begin, .fini = run_files_end)
{
    struct hand hand = with_index("toy:slow");
    hand.options.seal_in_background = true;
    hand_open(&hand);
    for (size_t step = 0; hand.n_rows < 4 * RUN; step++) {
        hand_append(&hand, 500, hand.n_rows);
        ask(&hand, step);
    }
    for (size_t i = 0; i < 500 && hand.store->now.n_runs < 4; i++) { /* until all that is full is sealed */
        ask(&hand, i);
        (void)nanosleep(&(struct timespec){0, 5000000}, NULL);
    }
    ask(&hand, 1);
    cr_assert_gt(toy_asked, 0);
    cr_assert_eq(*memtx_memory_warning(hand.memory), '\0', "%s", memtx_memory_warning(hand.memory));
    hand_close(&hand);
    cr_assert_eq(find_run_files(), 4);
}

/* Closing does not wait for what is half built, and leaves nothing of it. */
Test(background, closing_while_one_is_built, .init = run_files_begin, .fini = run_files_end)
{
    struct hand hand = with_index("toy:slow");
    hand.options.seal_in_background = true;
    hand_open(&hand);
    fill(&hand);
    cr_assert_eq(memtx_memory_begin_segment(hand.memory), MEMTX_OK);
    memtx_memory_end_segment(hand.memory);
    hand_close(&hand);
    cr_assert_leq(find_run_files(), 1);
}
