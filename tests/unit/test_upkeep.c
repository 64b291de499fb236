/* Looking after a store: a document removed or gone on with, verification, compaction, readers beside the writer, and the
 * stores of every version of the format (tests/compat/). Rows are those of tests/compat/sample.h. */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "memtx/memory.h"
#include "sample.h"

static char folder[64];
static char path[160], other[128];

static void make_folder(void)
{
    (void)snprintf(folder, sizeof folder, "/tmp/memtx-upkeep-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/store", folder);
    (void)snprintf(other, sizeof other, "%s/copy", folder);
}

static void shell(const char *format, const char *a, const char *b)
{
    char command[512];
    (void)snprintf(command, sizeof command, format, a, b);
    cr_assert_eq(system(command), 0, "%s", command);
}

static void remove_folder(void)
{
    shell("rm -r %s%s", folder, "");
}

static memtx_store *open_store(const char *at, bool read_only)
{
    const struct memtx_store_spec spec = sample_spec();
    struct memtx_store_options options = memtx_store_options_default();
    memtx_store *store;
    options.read_only = read_only;
    cr_assert_eq(memtx_store_open(&store, at, read_only ? NULL : &spec, &options), MEMTX_OK, "%s", memtx_last_error());
    return store;
}

static memtx_memory *open_memory(memtx_store *store, bool reader, const char *name)
{
    struct memtx_memory_options options = memtx_memory_options_default();
    memtx_memory *memory;
    options.most_tokens = SAMPLE_SEGMENT;
    options.reader = reader;
    options.scope = name ? MEMTX_SCOPE_NAMED : reader ? MEMTX_SCOPE_ALL : MEMTX_SCOPE_DOCUMENT;
    options.scope_names = &name;
    options.n_scope_names = name ? 1 : 0;
    cr_assert_eq(memtx_memory_open(&memory, store, &options), MEMTX_OK, "%s", memtx_last_error());
    return memory;
}

/* Tokens first .. first + n - 1 of a document as rows, in one commit. */
static void append(memtx_memory *memory, unsigned document, uint64_t first, size_t n)
{
    static float rows[2][SAMPLE_SEGMENT][SAMPLE_KV_HEADS][SAMPLE_HEAD_SIZE];
    uint32_t tokens[SAMPLE_SEGMENT];
    uint64_t positions[SAMPLE_SEGMENT];
    for (unsigned layer = 0; layer < SAMPLE_LAYERS; layer += 2) {
        for (size_t i = 0; i < 2 * n * SAMPLE_KV_HEADS * SAMPLE_HEAD_SIZE; i++) {
            const unsigned d = i % SAMPLE_HEAD_SIZE, head = i / SAMPLE_HEAD_SIZE % SAMPLE_KV_HEADS;
            const size_t t = i / SAMPLE_HEAD_SIZE / SAMPLE_KV_HEADS % n;
            const unsigned kind = (unsigned)(i / SAMPLE_HEAD_SIZE / SAMPLE_KV_HEADS / n);
            rows[kind][t][head][d] = sample_number(document, first + t, layer, head, kind, d);
        }
        for (size_t t = 0; t < n; t++) {
            positions[t] = first + t;
            tokens[t] = sample_token(document, first + t);
        }
        cr_assert_eq(memtx_memory_append(memory, layer, n, rows[0][0][0], rows[1][0][0], tokens, positions), MEMTX_OK);
    }
    cr_assert_eq(memtx_memory_commit(memory), MEMTX_OK, "%s", memtx_last_error());
}

/* What a reader sees of a document: n_rows, each the one that its place says it is. */
static void check_document(memtx_store *store, const char *name, unsigned document, uint64_t n_rows)
{
    memtx_memory *memory = open_memory(store, true, name);
    float keys[SAMPLE_HEAD_SIZE], values[SAMPLE_HEAD_SIZE];
    uint64_t n_seen = 0;
    struct memtx_store_facts facts;
    memtx_store_info(&facts, store);
    cr_assert_eq(memtx_memory_begin_segment(memory), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(memtx_memory_n_visible(memory), n_rows);
    for (int64_t id = 0; id < (int64_t)facts.n_rows + 1000; id++) {
        struct memtx_row_facts row;
        if (memtx_memory_row(&row, memory, (uint64_t)id) != MEMTX_OK) {
            continue;
        }
        uint32_t token;
        n_seen++;
        cr_assert_eq(memtx_memory_tokens(&token, memory, 1, &id), MEMTX_OK, "%s", memtx_last_error());
        cr_assert_eq(token, sample_token(document, row.position));
        cr_assert_eq(memtx_memory_gather(keys, values, memory, 2, 1, 1, &id), MEMTX_OK, "%s", memtx_last_error());
        for (unsigned d = 0; d < SAMPLE_HEAD_SIZE; d++) {
            cr_assert_eq(keys[d], sample_number(document, row.position, 2, 1, 0, d));
            cr_assert_eq(values[d], sample_number(document, row.position, 2, 1, 1, d));
        }
    }
    cr_assert_eq(n_seen, n_rows);
    memtx_memory_end_segment(memory);
    memtx_memory_close(memory);
}

/* Two documents, "first" of 4,200 rows (two full chunks and a bit) and "second" of 100. */
static void fill(memtx_store *store)
{
    memtx_memory *memory = open_memory(store, false, NULL);
    cr_assert_eq(memtx_memory_begin_document(memory, "first"), MEMTX_OK);
    for (uint64_t first = 0; first < 4200; first += SAMPLE_SEGMENT) {
        append(memory, 0, first, SAMPLE_SEGMENT);
    }
    cr_assert_eq(memtx_memory_end_document(memory, NULL), MEMTX_OK);
    cr_assert_eq(memtx_memory_begin_document(memory, "second"), MEMTX_OK);
    append(memory, 1, 0, 100);
    cr_assert_eq(memtx_memory_end_document(memory, NULL), MEMTX_OK);
    memtx_memory_close(memory);
}

static void verify(const char *at)
{
    memtx_store *store = open_store(at, true);
    cr_assert_eq(memtx_store_verify(store, NULL), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(memtx_store_close(store), MEMTX_OK);
}

Test(upkeep, a_store_of_version_1, .init = make_folder, .fini = remove_folder)
{
    struct memtx_document document;
    struct memtx_store_facts facts;
    shell("mkdir -m 700 %s && gzip -dc " MEMTX_SOURCE_ROOT "/tests/compat/v1.mdb.gz > %s/data.mdb", path, path);
    verify(path);
    for (int turn = 0; turn < 2; turn++) { /* as it is, and as the newest version */
        memtx_store *store = open_store(path, turn == 0);
        memtx_store_info(&facts, store);
        cr_assert_eq(facts.format_version, turn == 0 ? 1 : 2);
        cr_assert_str_eq(facts.spec.settings, "window=512 segment=512 sinks=4");
        cr_assert_eq(facts.spec.rope_factors[3], 8.0F);
        check_document(store, "first", 0, SAMPLE_FIRST_ROWS);
        check_document(store, "second", 1, SAMPLE_SECOND_ROWS);
        cr_assert_eq(memtx_store_document_named(&document, store, "second"), MEMTX_OK);
        cr_assert_eq(document.n_tokens, SAMPLE_SECOND_ROWS);
        cr_assert_eq(document.state_bytes, 0);
        cr_assert_eq(memtx_store_close(store), MEMTX_OK);
    }
    verify(path);
}

/* Beside what version 1 has: a removed document, one that is suspended, an index file. */
Test(upkeep, a_store_of_version_2, .init = make_folder, .fini = remove_folder)
{
    struct memtx_document document;
    struct memtx_store_facts facts;
    unsigned char *state;
    size_t n_bytes;
    shell("mkdir -m 700 %s && gzip -dc " MEMTX_SOURCE_ROOT "/tests/compat/v2.mdb.gz > %s/data.mdb", path, path);
    shell("umask 077; gzip -dc " MEMTX_SOURCE_ROOT "/tests/compat/v2-run.idx.gz > %s/run-0000000000000000.idx%s", path,
          "");
    verify(path);
    for (int turn = 0; turn < 2; turn++) {
        memtx_store *store = open_store(path, turn == 0);
        memtx_store_info(&facts, store);
        cr_assert_eq(facts.format_version, 2);
        cr_assert_eq(facts.n_runs, 1);
        cr_assert_eq(facts.run_rows, 2040);
        cr_assert_str_eq(facts.index, "toy:all");
        check_document(store, "first", 0, SAMPLE_FIRST_ROWS);
        check_document(store, "second", 1, SAMPLE_SECOND_ROWS);
        check_document(store, "suspended", 3, SAMPLE_SUSPENDED_ROWS);
        cr_assert_eq(memtx_store_document_named(&document, store, "removed"), MEMTX_E_NOT_FOUND);
        cr_assert_eq(memtx_store_document_named(&document, store, "suspended"), MEMTX_OK);
        cr_assert_eq(document.n_read, SAMPLE_STATE_ROWS);
        cr_assert_eq(memcmp(document.hash, sample_hash, sizeof sample_hash), 0);
        cr_assert_eq(memtx_store_state(&state, &n_bytes, store, "suspended"), MEMTX_OK, "%s", memtx_last_error());
        cr_assert_eq(n_bytes, SAMPLE_STATE_BYTES);
        for (size_t byte = 0; byte < n_bytes; byte++) {
            cr_assert_eq(state[byte], sample_state(byte));
        }
        memtx_store_state_free(state);
        cr_assert_eq(memtx_store_close(store), MEMTX_OK);
    }
    verify(path);
}

Test(upkeep, a_removed_document_is_gone, .init = make_folder, .fini = remove_folder)
{
    struct memtx_document document;
    uint64_t before, after;
    memtx_store *store = open_store(path, false);
    fill(store);
    cr_assert_eq(memtx_store_free_bytes(&before, store), MEMTX_OK);
    cr_assert_eq(memtx_store_remove_document(store, "third"), MEMTX_E_NOT_FOUND);
    cr_assert_eq(memtx_store_remove_document(store, "first"), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(memtx_store_document_named(&document, store, "first"), MEMTX_E_NOT_FOUND);
    check_document(store, "second", 1, 100);
    cr_assert_eq(memtx_store_free_bytes(&after, store), MEMTX_OK);
    cr_assert_gt(after, before + 2 * 8 * 65536 - 1, "two chunks of eight tables' worth");
    cr_assert_eq(memtx_store_close(store), MEMTX_OK);
    verify(path);
    store = open_store(path, false);
    check_document(store, "second", 1, 100);
    fill(store); /* whose second document becomes second#2 */
    check_document(store, "first", 0, 4200);
    check_document(store, "second#2", 1, 100);
    cr_assert_eq(memtx_store_close(store), MEMTX_OK);
    verify(path);
}

/* Rows after the running state are dead when a document is gone on with; the state is what was given. */
Test(upkeep, a_document_goes_on_at_its_running_state, .init = make_folder, .fini = remove_folder)
{
    static unsigned char state[200000];
    static const uint8_t hash[MEMTX_HASH_BYTES] = {7};
    unsigned char *found;
    size_t n_found;
    for (int on_disk = 0; on_disk < 2; on_disk++) {
        const struct memtx_store_spec spec = sample_spec();
        memtx_store *store;
        cr_assert_eq(memtx_store_open(&store, on_disk ? path : NULL, &spec, NULL), MEMTX_OK);
        memtx_memory *memory = open_memory(store, false, NULL);
        memset(state, 0x5A, sizeof state);
        cr_assert_eq(memtx_memory_begin_document(memory, "text"), MEMTX_OK);
        append(memory, 0, 0, 300);
        cr_assert_eq(memtx_memory_set_state(memory, state, sizeof state, 300, hash), MEMTX_OK);
        append(memory, 0, 300, 100);
        memset(state, 0, sizeof state); /* it was borrowed until the commit */
        append(memory, 0, 400, 500);
        memtx_memory_abandon_document(memory);
        memtx_memory_close(memory);
        if (on_disk) {
            cr_assert_eq(memtx_store_close(store), MEMTX_OK);
            verify(path);
            store = open_store(path, false);
        }
        cr_assert_eq(memtx_store_state(&found, &n_found, store, "text"), MEMTX_OK, "%s", memtx_last_error());
        cr_assert_eq(n_found, sizeof state);
        cr_assert(found[0] == 0x5A && found[n_found - 1] == 0x5A);
        memtx_store_state_free(found);
        memory = open_memory(store, false, NULL);
        cr_assert_eq(memtx_memory_reopen_document(memory, "text"), MEMTX_OK, "%s", memtx_last_error());
        cr_assert_eq(memtx_memory_begin_segment(memory), MEMTX_OK);
        cr_assert_eq(memtx_memory_n_visible(memory), 400);
        append(memory, 0, 400, 250);
        cr_assert_eq(memtx_memory_end_document(memory, NULL), MEMTX_OK);
        memtx_memory_close(memory);
        check_document(store, "text", 0, 650);
        cr_assert_eq(memtx_store_close(store), MEMTX_OK);
    }
    verify(path);
}

/* What a progress callback was told, and with which call it ends the work (0: with none). */
struct watch {
    uint64_t n_calls, stop_at, n_bytes, n_all_bytes;
    double seconds;
};

static int watch_progress(void *context, const struct memtx_store_progress *p)
{
    struct watch *watch = context;
    cr_assert(p->n_bytes > watch->n_bytes && p->n_bytes <= p->n_all_bytes, "%llu, then %llu of %llu",
              (unsigned long long)watch->n_bytes, (unsigned long long)p->n_bytes, (unsigned long long)p->n_all_bytes);
    cr_assert(p->seconds >= watch->seconds && (watch->n_calls == 0 || p->n_all_bytes == watch->n_all_bytes));
    *watch = (struct watch){watch->n_calls + 1, watch->stop_at, p->n_bytes, p->n_all_bytes, p->seconds};
    return watch->n_calls == watch->stop_at;
}

/* Verifies, or where `copy` is given compacts. */
static int work(struct watch *watch, memtx_store *store, const char *copy, uint64_t stop_at)
{
    struct memtx_store_upkeep_options options = memtx_store_upkeep_options_default();
    *watch = (struct watch){.stop_at = stop_at};
    options.progress = watch_progress;
    options.progress_context = watch;
    return copy ? memtx_store_compact(store, copy, &options) : memtx_store_verify(store, &options);
}

Test(upkeep, long_work_says_how_far_it_is_and_can_be_ended, .init = make_folder, .fini = remove_folder)
{
    static const unsigned char state[100000] = {1};
    static const uint8_t hash[MEMTX_HASH_BYTES] = {7};
    struct watch watch;
    uint64_t n_all_bytes = 0;
    memtx_store *store = open_store(path, false);
    fill(store);
    memtx_memory *memory = open_memory(store, false, NULL);
    cr_assert_eq(memtx_memory_begin_document(memory, "suspended"), MEMTX_OK);
    cr_assert_eq(memtx_memory_set_state(memory, state, sizeof state, 50, hash), MEMTX_OK);
    append(memory, 2, 0, 50);
    memtx_memory_abandon_document(memory);
    memtx_memory_close(memory);
    cr_assert_eq(memtx_store_remove_document(store, "first"), MEMTX_OK); /* chunks that no longer count */
    for (int compacts = 0; compacts < 2; compacts++) {
        const char *copy = compacts ? other : NULL;
        cr_assert_eq(work(&watch, store, copy, 0), MEMTX_OK, "%s", memtx_last_error());
        cr_assert_eq(watch.n_bytes, watch.n_all_bytes);
        cr_assert(watch.n_all_bytes > sizeof state && (!compacts || watch.n_all_bytes == n_all_bytes));
        n_all_bytes = watch.n_all_bytes;
        const uint64_t n_calls = watch.n_calls;
        shell("rm -rf %s%s", other, "");
        for (uint64_t stop_at = 1; stop_at <= n_calls; stop_at++) {
            cr_assert_eq(work(&watch, store, copy, stop_at), MEMTX_E_INTERRUPTED);
            cr_assert_eq(watch.n_calls, stop_at);
            shell("test $(ls %s | wc -l) = 1%s", folder, ""); /* nothing is left of a copy that broke off */
        }
    }
    cr_assert_eq(memtx_store_close(store), MEMTX_OK);
    verify(path);
}

struct reading {
    memtx_memory *memory;
    const uint8_t *hash;
    uint64_t n_read;
};

/* The document gets further rows, and another running state of another size. */
static void read_on(const struct reading *r)
{
    static const unsigned char state[300] = {2};
    cr_assert_eq(memtx_memory_set_state(r->memory, state, sizeof state - r->n_read, r->n_read, r->hash), MEMTX_OK);
    append(r->memory, 0, r->n_read - 50, 50);
}

static int read_on_once(void *context, const struct memtx_store_progress *p)
{
    struct reading *r = context;
    (void)p;
    if (r->n_read == 50) {
        r->n_read = 100;
        read_on(r);
    }
    return 0;
}

/* Verification looks at one state of the store, whatever is written meanwhile. */
Test(upkeep, verification_beside_a_writer, .init = make_folder, .fini = remove_folder)
{
    static const uint8_t hash[MEMTX_HASH_BYTES] = {7};
    struct memtx_store_upkeep_options options = memtx_store_upkeep_options_default();
    memtx_store *store = open_store(path, false);
    struct reading r = {open_memory(store, false, NULL), hash, 50};
    for (int i = 0; i < 2; i++) { /* while the first one's state is checked the second goes on */
        if (i) {
            memtx_memory_abandon_document(r.memory);
        }
        cr_assert_eq(memtx_memory_begin_document(r.memory, "text"), MEMTX_OK);
        read_on(&r);
    }
    options.progress = read_on_once;
    options.progress_context = &r;
    cr_assert_eq(memtx_store_verify(store, &options), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(r.n_read, 100);
    memtx_memory_close(r.memory);
    cr_assert_eq(memtx_store_close(store), MEMTX_OK);
    verify(path);
}

/* One document, longer than what is visible of it. */
Test(upkeep, verification_of_what_a_capacity_leaves, .init = make_folder, .fini = remove_folder)
{
    const struct memtx_store_spec spec = sample_spec();
    struct memtx_store_options options = memtx_store_options_default();
    struct memtx_store_facts facts;
    memtx_store *store;
    options.capacity_rows = 1000;
    cr_assert_eq(memtx_store_open(&store, path, &spec, &options), MEMTX_OK, "%s", memtx_last_error());
    fill(store);
    cr_assert_eq(memtx_store_verify(store, NULL), MEMTX_OK, "%s", memtx_last_error());
    memtx_store_info(&facts, store);
    cr_assert_eq(facts.n_visible_rows, 1000);
    cr_assert_eq(memtx_store_close(store), MEMTX_OK);
    verify(path);
}

/* Opens document "text" of the store at `path`, makes it where it is not, and reads on. */
static void write_state(bool is_new, uint64_t n_read)
{
    static const uint8_t hash[MEMTX_HASH_BYTES] = {7};
    memtx_store *store = open_store(path, false);
    struct reading r = {open_memory(store, false, NULL), hash, n_read};
    cr_assert_eq(is_new ? memtx_memory_begin_document(r.memory, "text")
                        : memtx_memory_reopen_document(r.memory, "text"),
                 MEMTX_OK, "%s", memtx_last_error());
    read_on(&r);
    memtx_memory_close(r.memory);
    cr_assert_eq(memtx_store_close(store), MEMTX_OK, "%s", memtx_last_error());
}

/* A store that is open for reading gives the state that is on disk now, whatever it saw when it was opened. */
Test(upkeep, a_state_beside_a_writer, .init = make_folder, .fini = remove_folder)
{
    int opened[2], written[2], child_status;
    char byte = 0;
    unsigned char *state;
    size_t n_bytes;
    cr_assert(pipe(opened) == 0 && pipe(written) == 0);
    pid_t child = fork(); /* the writer, in a process of its own */
    if (child == 0) {
        (void)!read(opened[0], &byte, 1);
        write_state(false, 100);
        (void)!write(written[1], &byte, 1);
        _exit(0);
    }
    write_state(true, 50);
    memtx_store *store = open_store(path, true);
    (void)!write(opened[1], &byte, 1);
    (void)!read(written[0], &byte, 1);
    cr_assert_eq(memtx_store_state(&state, &n_bytes, store, "text"), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(n_bytes, 200);
    memtx_store_state_free(state);
    cr_assert_eq(memtx_store_close(store), MEMTX_OK);
    cr_assert(waitpid(child, &child_status, 0) == child && child_status == 0);
}

Test(upkeep, a_compacted_copy_holds_the_same, .init = make_folder, .fini = remove_folder)
{
    struct memtx_store_facts facts, copied;
    memtx_store *store = open_store(path, false);
    fill(store);
    cr_assert_eq(memtx_store_remove_document(store, "second"), MEMTX_OK);
    memtx_store_info(&facts, store);
    cr_assert_eq(memtx_store_compact(store, other, NULL), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(memtx_store_compact(store, other, NULL), MEMTX_E_EXISTS);
    cr_assert_eq(memtx_store_close(store), MEMTX_OK);
    shell("mv %s %s-moved", other, other);
    (void)snprintf(path, sizeof path, "%s-moved", other);
    verify(path);
    store = open_store(path, false);
    memtx_store_info(&copied, store);
    cr_assert_eq(copied.n_rows, facts.n_rows, "ids stay");
    cr_assert_lt(copied.disk_bytes, facts.disk_bytes);
    check_document(store, "first", 0, 4200);
    cr_assert_eq(memtx_store_close(store), MEMTX_OK);
}

Test(upkeep, readers_see_what_was_committed, .init = make_folder, .fini = remove_folder)
{
    int ready[2];
    char byte = 0;
    memtx_store *store;
    cr_assert_eq(pipe(ready), 0);
    pid_t child = fork(); /* the writer, in a process of its own */
    if (child == 0) {
        store = open_store(path, false);
        fill(store);
        (void)!write(ready[1], &byte, 1);
        (void)pause();
        _exit(0);
    }
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    store = open_store(path, true);
    check_document(store, "first", 0, 4200);
    check_document(store, "second", 1, 100);
    memtx_memory *memory = open_memory(store, true, NULL);
    cr_assert_eq(memtx_memory_begin_document(memory, "no"), MEMTX_E_INVALID);
    memtx_memory_close(memory);
    cr_assert_eq(memtx_store_remove_document(store, "first"), MEMTX_E_INVALID);
    cr_assert_eq(memtx_store_close(store), MEMTX_OK);
    (void)kill(child, SIGKILL);
    (void)waitpid(child, NULL, 0);
}

/* Whether a page of the file is a leaf, in use or not: LMDB's header tells page and kind. */
static bool is_leaf(const unsigned char *page, size_t number)
{
    uint64_t named;
    memcpy(&named, page, sizeof named);
    return named == number && page[10] == 2 && page[11] == 0;
}

/* A transaction that writes has all of LMDB's pages checked before: here nothing has looked at the big tables yet,
 * since the last chunk is full. */
Test(upkeep, damaged_pages_are_not_written_to, .init = make_folder, .fini = remove_folder)
{
    enum { PAGE_BYTES = 4096, MOST_PAGES = 1024, LOWER_AT = 12 };
    static unsigned char pages[MOST_PAGES][PAGE_BYTES];
    char name[192];
    size_t n_refused = 0;
    memtx_store *store = open_store(path, false);
    memtx_memory *memory = open_memory(store, false, NULL);
    cr_assert_eq(memtx_memory_begin_document(memory, "text"), MEMTX_OK);
    for (uint64_t first = 0; first < 4080; first += 680) {
        append(memory, 0, first, 680);
    }
    cr_assert_eq(memtx_memory_end_document(memory, NULL), MEMTX_OK);
    memtx_memory_close(memory);
    cr_assert_eq(memtx_store_close(store), MEMTX_OK);
    (void)snprintf(name, sizeof name, "%s/data.mdb", path);
    FILE *file = fopen(name, "r+b");
    cr_assert_not_null(file);
    const size_t n_pages = fread(pages, PAGE_BYTES, MOST_PAGES, file);
    for (size_t i = 0; i < n_pages; i++) {
        if (!is_leaf(pages[i], i)) {
            continue;
        }
        (void)fseek(file, (long)(i * PAGE_BYTES + LOWER_AT), SEEK_SET);
        cr_assert_eq(fwrite("\xFF\xFF", 1, 2, file), 2);
        (void)fflush(file);
        const struct memtx_store_spec spec = sample_spec();
        if (memtx_store_open(&store, path, &spec, NULL) == MEMTX_OK) {
            const int status = memtx_store_remove_document(store, "text");
            cr_assert(status == MEMTX_OK || strstr(memtx_last_error(), "page"), "%d: %s", status, memtx_last_error());
            n_refused += status == MEMTX_E_CORRUPT;
            (void)memtx_store_close(store);
        }
        (void)fseek(file, 0, SEEK_SET);
        cr_assert_eq(fwrite(pages, PAGE_BYTES, n_pages, file), n_pages);
        (void)fflush(file);
    }
    (void)fclose(file);
    cr_assert_geq(n_refused, 3, "tokens, keys and values; not %zu", n_refused);
    verify(path);
}

/* A forked child cannot go on with its parent's store. */
Test(upkeep, a_fork_is_refused, .init = make_folder, .fini = remove_folder)
{
    int outcome = 0;
    memtx_store *store = open_store(path, false);
    fill(store);
    pid_t child = fork();
    if (child == 0) {
        struct memtx_memory_options options = memtx_memory_options_default();
        memtx_memory *memory;
        _exit(memtx_store_verify(store, NULL) == MEMTX_E_INVALID &&
                      memtx_memory_open(&memory, store, &options) == MEMTX_E_INVALID
                  ? 0
                  : 1);
    }
    cr_assert_eq(waitpid(child, &outcome, 0), child);
    cr_assert_eq(outcome, 0);
    check_document(store, "first", 0, 4200);
    cr_assert_eq(memtx_store_close(store), MEMTX_OK);
}
