/* Threads over the store, for the thread sanitizer and without it; TAP on stdout.
 *
 * On disk one thread appends the known stream (tests/crash/stream.h), with a capacity so that chunks are freed, while
 * others attend through reader memories of their own over the same store and judge all that they see (ask.h). It ends
 * when each of them has seen so many segments, however long that takes. Then several attend over that store, opened for
 * reading: what the first use of it checks, one does for all. On the heap a store belongs to one thread: there each
 * has its own, and they must not meet in anything that the library keeps for itself.
 *
 * A plain main, since Criterion does not run under the thread sanitizer. To be run with OMP_NUM_THREADS=1: libgomp is
 * not instrumented, so what its barriers keep apart would be taken for races.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ask.h"

enum { N_READERS = 4, LEAST_WRITTEN = 150, LEAST_READ = 20, SEGMENTS_OF_ONE_MEMORY = 5, CAPACITY = 600 };

static struct memtx_store_spec spec; /* of every store here */

struct common {
    memtx_store *store;
    atomic_int n_content; /* readers that have seen enough, or failed */
    atomic_bool written;  /* the writer has ended */
};

struct thread {
    pthread_t id;
    struct common *common; /* NULL: on the heap */
    uint64_t seed;
    struct stress_asker asker;
    struct crash_writer writer;
};

/* The error text is the thread's own. */
static int tell(const char *who, int status)
{
    if (status) {
        printf("# %s: %s\n", who, memtx_last_error());
    }
    return status;
}

static int open_store(memtx_store **out, const char *path, bool read_only)
{
    struct memtx_store_options options = memtx_store_options_default();
    options.capacity_rows = CAPACITY;
    options.read_only = read_only;
    return memtx_store_open(out, path, &spec, &options);
}

/* ---- one store on disk ------------------------------------------------------------------------ */

static void *append(void *context)
{
    struct thread *thread = context;
    struct common *common = thread->common;
    int status = crash_writer_open(&thread->writer, common->store, NULL, thread->seed);
    for (int n = 0; !status && (n < LEAST_WRITTEN || atomic_load(&common->n_content) < N_READERS); n++) {
        status = crash_writer_append(&thread->writer);
    }
    crash_writer_close(&thread->writer);
    atomic_store(&common->written, true);
    return tell("the writer", status) ? thread : NULL;
}

/* Some segments through one memory. */
static int attend_some(struct thread *thread)
{
    int status = stress_asker_open(&thread->asker, thread->common->store, CAPACITY, thread->seed);
    for (int n = 0; n < SEGMENTS_OF_ONE_MEMORY && !status; n++) {
        const uint64_t n_before = thread->asker.counts.n_segments;
        status = stress_ask(&thread->asker);
        if (status || (n_before < LEAST_READ && thread->asker.counts.n_segments >= LEAST_READ)) {
            atomic_fetch_add(&thread->common->n_content, 1);
        }
    }
    stress_asker_close(&thread->asker);
    return status;
}

static void *attend(void *context)
{
    struct thread *thread = context;
    int status = MEMTX_OK;
    while (!status && (!atomic_load(&thread->common->written) || thread->asker.counts.n_segments < LEAST_READ)) {
        status = attend_some(thread);
    }
    return tell("a reader", status) ? thread : NULL;
}

/* ---- a store for each thread ------------------------------------------------------------------ */

static void *append_and_attend(void *context)
{
    struct thread *thread = context;
    memtx_store *store;
    if (tell("a store on the heap", open_store(&store, NULL, false))) {
        return thread;
    }
    int status = crash_writer_open(&thread->writer, store, NULL, thread->seed);
    if (!status) {
        status = stress_asker_open(&thread->asker, store, CAPACITY, thread->seed);
    }
    for (int n = 0; n < LEAST_WRITTEN && !status; n++) {
        status = crash_writer_append(&thread->writer);
        if (!status && n % 8 == 0) {
            status = stress_ask_begin(&thread->asker);
        }
        if (!status && n % 8 == 0) {
            status = stress_ask_judge(&thread->asker);
            stress_ask_end(&thread->asker);
        }
    }
    stress_asker_close(&thread->asker);
    crash_writer_close(&thread->writer);
    (void)tell("on the heap", status);
    return memtx_store_close(store) || status ? thread : NULL;
}

/* ---- all of them ------------------------------------------------------------------------------ */

/* Runs work[i] in thread i, and waits; whether none has failed. */
static bool run(struct thread *threads, size_t n, struct common *common, void *(*const *work)(void *))
{
    bool good = true;
    size_t n_started = 0;
    for (; n_started < n; n_started++) {
        struct thread *thread = &threads[n_started];
        thread->common = common;
        thread->seed = n_started;
        thread->asker.counts = (struct stress_ask_counts){0};
        thread->asker.n_store_rows = 0;
        if (pthread_create(&thread->id, NULL, work[n_started], thread)) {
            perror("thread");
            exit(1); /* the others would wait for it */
        }
    }
    for (size_t i = 0; i < n_started; i++) {
        void *failed;
        (void)pthread_join(threads[i].id, &failed);
        good = good && !failed;
    }
    return good;
}

/* Opens a store on disk, runs the threads over it, closes it. */
static bool run_on_disk(struct thread *threads, size_t n, const char *path, bool read_only,
                        void *(*const *work)(void *))
{
    struct common common = {.written = read_only};
    if (tell("opening", open_store(&common.store, path, read_only))) {
        return false;
    }
    bool good = run(threads, n, &common, work);
    return !tell("closing", memtx_store_close(common.store)) && good;
}

static void remove_store(const char *path)
{
    static const char *const files[] = {"data.mdb", "lock.mdb", "writer"};
    char name[4096];
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        (void)snprintf(name, sizeof name, "%s/%s", path, files[i]);
        (void)unlink(name);
    }
    (void)rmdir(path);
}

static bool say(int number, bool good, const char *what)
{
    printf("%s %d - %s\n", good ? "ok" : "not ok", number, what);
    return good;
}

int main(void)
{
    void *(*const on_disk[1 + N_READERS])(void *) = {append, attend, attend, attend, attend};
    void *(*const on_heap[2])(void *) = {append_and_attend, append_and_attend};
    struct thread *threads = calloc(1 + N_READERS, sizeof *threads);
    const char *place = getenv("TMPDIR");
    char path[4000];
    (void)snprintf(path, sizeof path, "%s/memtx-threads-XXXXXX", place ? place : "/tmp");
    if (!threads || !mkdtemp(path)) {
        perror(path);
        return 1;
    }
    spec = crash_spec();
    printf("1..3\n");
    bool good = say(1, run_on_disk(threads, 1 + N_READERS, path, false, on_disk), "threads attend while one appends");
    printf("# %llu rows written\n", (unsigned long long)threads[0].writer.n_rows);
    for (size_t i = 1; i <= N_READERS; i++) {
        printf("# %llu segments, %llu rows read\n", (unsigned long long)threads[i].asker.counts.n_segments,
               (unsigned long long)threads[i].asker.counts.n_rows);
    }
    good = say(2, run_on_disk(threads, N_READERS, path, true, on_disk + 1), "threads attend over a store") && good;
    good = say(3, run(threads, 2, NULL, on_heap), "threads with a store each, on the heap") && good;
    remove_store(path);
    free(threads);
    return good ? 0 : 1;
}
