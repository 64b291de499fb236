/* Indexes that are built in a thread beside the one that appends and attends, while another attends as a reader, for the
 * thread sanitizer and without it; TAP on stdout. The index finds everything (tests/support/toy_index.h), so each hit is
 * judged: the query is a row that was appended, whose own key lies nearest to it.
 *
 * A plain main, with OMP_NUM_THREADS=1: see stress_threads.c.
 */
#include <pthread.h>
#include <stdio.h>

#include "memtx/memtx.h"
#include "toy_index.h"

enum { HEAD_SIZE = 64, SEGMENT = 102, LEAST_RUNS = 6, MOST_SEGMENTS = 400, K = 3 };

struct reader {
    memtx_store *store;
    atomic_bool stop;
    int n_wrong;
    uint64_t n_asked;
};

static int fail(const char *what)
{
    printf("# %s: %s\n", what, memtx_last_error());
    return 1;
}

/* Row `row`: a direction of its own, all of one length, so that its best match is itself. */
static void make_row(float out[HEAD_SIZE], uint64_t row)
{
    for (unsigned i = 0; i < HEAD_SIZE; i++) {
        uint64_t mixed = (row * HEAD_SIZE + i + 1) * UINT64_C(0x9E3779B97F4A7C15);
        mixed = (mixed ^ mixed >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
        out[i] = (mixed ^ mixed >> 27) & 1024 ? 1.0F : -1.0F;
    }
}

static struct memtx_memory_options options_of(bool reader)
{
    struct memtx_memory_options options = memtx_memory_options_default();
    options.k = K;
    options.scope = MEMTX_SCOPE_ALL;
    options.most_tokens = SEGMENT;
    options.index = "toy:slow";
    options.resolve_index = toy_resolve;
    options.run_rows = 1; /* a chunk */
    options.reader = reader;
    options.seal_in_background = true;
    return options;
}

/* Asks for rows that are visible; the number of wrong answers. */
static int ask(memtx_memory *memory, uint64_t seed)
{
    static const uint64_t position = 1 << 20;
    float query[HEAD_SIZE], V_mem[HEAD_SIZE], LSE_mem;
    struct memtx_hit hits[K];
    const uint64_t n = memtx_memory_n_visible(memory);
    int n_wrong = 0;
    for (uint64_t i = 0; i < 4 && n; i++) {
        const uint64_t row = (seed * 7919 + i * 104729) % n;
        make_row(query, row);
        if (memtx_memory_attend(V_mem, &LSE_mem, hits, memory, 0, 1, query, &position)) {
            return fail("attending");
        }
        if (hits[0].row != (int64_t)row) {
            printf("# row %llu of %llu: found %lld\n", (unsigned long long)row, (unsigned long long)n,
                   (long long)hits[0].row);
            n_wrong++;
        }
    }
    return n_wrong;
}

static void *read_on(void *context)
{
    struct reader *reader = context;
    const struct memtx_memory_options options = options_of(true);
    memtx_memory *memory;
    if (memtx_memory_open(&memory, reader->store, &options)) {
        reader->n_wrong += fail("a reader");
        return NULL;
    }
    while (!atomic_load(&reader->stop)) {
        if (memtx_memory_begin_segment(memory)) {
            reader->n_wrong += fail("a reader's segment");
            break;
        }
        reader->n_wrong += ask(memory, reader->n_asked++);
        memtx_memory_end_segment(memory);
    }
    memtx_memory_close(memory);
    return NULL;
}

/* One segment appended, after some questions. */
static int append(memtx_memory *memory, uint64_t first)
{
    static float rows[SEGMENT][HEAD_SIZE];
    uint32_t tokens[SEGMENT];
    uint64_t positions[SEGMENT];
    if (memtx_memory_begin_segment(memory)) {
        return fail("the writer's segment");
    }
    int n_wrong = ask(memory, first);
    for (unsigned i = 0; i < SEGMENT; i++) {
        make_row(rows[i], first + i);
        tokens[i] = (uint32_t)(first + i);
        positions[i] = first + i;
    }
    n_wrong += memtx_memory_append(memory, 0, SEGMENT, rows[0], rows[0], tokens, positions) != MEMTX_OK;
    return n_wrong + (memtx_memory_commit(memory) ? fail("a commit") : 0);
}

static int run(const char *path)
{
    struct memtx_store_spec spec = {.n_layers = 1,
                                    .n_heads = 1,
                                    .n_kv_heads = 1,
                                    .head_size = HEAD_SIZE,
                                    .scale = 1.0F,
                                    .row_type = MEMTX_ROWS_F16};
    const struct memtx_memory_options options = options_of(false);
    struct reader reader = {0};
    struct memtx_store_facts facts = {0};
    memtx_memory *memory;
    pthread_t thread;
    int n_wrong = 0;
    memtx_store_keep_layer(&spec, 0);
    if (memtx_store_open(&reader.store, path, &spec, NULL) || memtx_memory_open(&memory, reader.store, &options) ||
        memtx_memory_begin_document(memory, "text") || pthread_create(&thread, NULL, read_on, &reader)) {
        return fail("opening");
    }
    for (uint64_t n = 0; n < MOST_SEGMENTS && facts.n_runs < LEAST_RUNS && !n_wrong; n++) {
        n_wrong += append(memory, n * SEGMENT);
        memtx_store_info(&facts, reader.store);
    }
    n_wrong += memtx_memory_seal(memory, NULL) ? fail("sealing") : 0;
    atomic_store(&reader.stop, true);
    (void)pthread_join(thread, NULL);
    printf("# %llu runs, %d searches in them, %llu segments of the reader\n", (unsigned long long)facts.n_runs,
           toy_asked, (unsigned long long)reader.n_asked);
    n_wrong += reader.n_wrong + (facts.n_runs < LEAST_RUNS) + (toy_asked == 0) + (reader.n_asked == 0);
    n_wrong += *memtx_memory_warning(memory) ? fail(memtx_memory_warning(memory)) : 0;
    memtx_memory_close(memory);
    return n_wrong + (memtx_store_verify(reader.store, NULL) ? fail("verification") : 0) +
           (memtx_store_close(reader.store) ? fail("closing") : 0);
}

int main(void)
{
    const char *place = getenv("TMPDIR");
    char path[4000], command[4200];
    (void)snprintf(path, sizeof path, "%s/memtx-sealing-XXXXXX", place ? place : "/tmp");
    if (!mkdtemp(path)) {
        perror(path);
        return 1;
    }
    printf("1..1\n");
    const int n_wrong = run(path);
    printf("%s 1 - indexes are built beside an appender and a reader\n", n_wrong ? "not ok" : "ok");
    (void)snprintf(command, sizeof command, "rm -rf '%s'", path);
    return system(command) || n_wrong; /* NOLINT(cert-env33-c): a folder of its own */
}
