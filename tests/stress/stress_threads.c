/* Threads over the store, for the thread sanitizer and without it; TAP on stdout.
 *
 * On disk one thread appends the known stream (tests/crash/stream.h), with a capacity so that chunks are freed, while
 * others attend through reader memories of their own over the same store and judge all that they see (ask.h). It ends
 * when each of them has seen so many segments, however long that takes. On the heap a store belongs to one thread: there
 * each thread has its own, and they must not meet in anything that the library keeps for itself.
 *
 * A plain main, since Criterion does not run under the thread sanitizer. To be run with OMP_NUM_THREADS=1: libgomp is not
 * instrumented, and its barriers would be taken for races.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "ask.h"

enum { N_READERS = 4, LEAST_WRITTEN = 300, LEAST_READ = 40, SEGMENTS_OF_ONE_MEMORY = 5, CAPACITY = 600 };

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

static int open_store(memtx_store **out, bool on_heap)
{
    struct memtx_store_options options = memtx_store_options_default();
    const char *place = getenv("TMPDIR");
    options.capacity_rows = CAPACITY;
    options.temporary = !on_heap;
    return memtx_store_open(out, on_heap ? NULL : place ? place : "/tmp", &spec, &options);
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
    if (tell("a store on the heap", open_store(&store, true))) {
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

int main(void)
{
    void *(*const on_disk[1 + N_READERS])(void *) = {append, attend, attend, attend, attend};
    void *(*const on_heap[2])(void *) = {append_and_attend, append_and_attend};
    struct thread *threads = calloc(1 + N_READERS, sizeof *threads);
    struct common common = {NULL};
    spec = crash_spec();
    bool good = threads && !tell("a store on disk", open_store(&common.store, false));
    printf("1..2\n");
    good = good && run(threads, 1 + N_READERS, &common, on_disk);
    good = !tell("closing", memtx_store_close(common.store)) && good;
    printf("%s 1 - threads that attend while one appends\n", good ? "ok" : "not ok");
    for (size_t i = 1; good && i <= N_READERS; i++) {
        printf("# a reader: %llu segments, %llu rows, of %llu\n",
               (unsigned long long)threads[i].asker.counts.n_segments,
               (unsigned long long)threads[i].asker.counts.n_rows, (unsigned long long)threads[0].writer.n_rows);
    }
    const bool heap_good = threads && run(threads, 2, NULL, on_heap);
    printf("%s 2 - threads with a store each, on the heap\n", heap_good ? "ok" : "not ok");
    free(threads);
    return good && heap_good ? 0 : 1;
}
