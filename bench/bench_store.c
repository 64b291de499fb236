/* bench_store: the speed of the store, as ratios to what is measured beside it in the same run. JSON lines on stdout.
 *
 *   append   rows a second in group mode, numbers in and synced rows out, against a plain write and fdatasync of as many
 *            bytes, as often, to a file beside it; in turn, medians. And the bytes on disk against those of the rows
 *   gather   32 random rows for each of 1,536 queries out of a store that is warm (every chunk looked up once), against
 *            the same out of an array in RAM; in turn, medians
 *   open     milliseconds to open and close a store of 10,000 rows and one of many, in turn, medians
 *   large    10 million rows written and searched: rows a second, seconds for a segment, and the most anonymous memory
 *            that the process had; then `open` of that store
 *
 * Stores are shaped as the default model's: 3 kv heads of 64, f16. Rows are random numbers, and making them is not timed.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <omp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "bench.h"
#include "memtx/memtx.h"

enum { SEGMENT = 512, N_LAYERS = 30, N_HEADS = 9, N_KV_HEADS = 3, HEAD_SIZE = 64 };
enum { ROW_BYTES = 2 * HEAD_SIZE, GROUP_SEGMENTS = 8, SAMPLE_NS = 10 * 1000 * 1000 };

struct setting {
    struct bench_setting shared;
    const char *directory;
    uint64_t n_rows; /* 0: what each benchmark has as its own */
};

static void check(int status, const char *what)
{
    if (status) {
        bench_die(what, memtx_last_error());
    }
}

static void *take(size_t n_bytes)
{
    void *block = malloc(n_bytes);
    if (!block) {
        bench_die("memory", "there is none left");
    }
    return block;
}

static void begin_line(const char *bench)
{
    (void)printf("{\"bench\": \"%s\", \"threads\": %d", bench, omp_get_max_threads());
}

static uint64_t random_bits(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return *state >> 32;
}

static float noise(uint64_t *state)
{
    return (float)(int32_t)random_bits(state) * 0x1p-31F;
}

/* ---- directories of our own ------------------------------------------------------------------- */

/* Stores that are opened again need a directory. It goes when the process ends, also by Ctrl-C: a signal handler may
 * call unlinkat and rmdir. */
static struct directory {
    char path[4096];
    int fd;
} directories[2];
static volatile sig_atomic_t n_directories;

static void remove_directories(void)
{
    for (; n_directories > 0; n_directories--) {
        const struct directory *directory = &directories[n_directories - 1];
        (void)unlinkat(directory->fd, "data.mdb", 0);
        (void)unlinkat(directory->fd, "lock.mdb", 0);
        (void)unlinkat(directory->fd, "writer", 0);
        (void)close(directory->fd);
        (void)rmdir(directory->path);
    }
}

static void end_by_signal(int signal_number)
{
    remove_directories();
    (void)raise(signal_number); /* whose action is the system's again */
}

static void catch_signals(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = end_by_signal;
    action.sa_flags = (int)SA_RESETHAND;
    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGHUP, &action, NULL);
    (void)atexit(remove_directories);
}

static const char *make_directory(const struct setting *s)
{
    struct directory *directory = &directories[n_directories];
    int n = snprintf(directory->path, sizeof directory->path, "%s/memtx-bench-XXXXXX", s->directory);
    if (n < 0 || (size_t)n >= sizeof directory->path || !mkdtemp(directory->path)) {
        bench_die(s->directory, "cannot make a directory");
    }
    directory->fd = open(directory->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    n_directories++;
    return directory->path;
}

/* ---- writing a store -------------------------------------------------------------------------- */

/* A stream of random rows into a store; every layer gets the same. */
struct writer {
    memtx_store *store;
    memtx_memory *memory;
    uint32_t n_layers;
    uint64_t n_rows, random;
    float *keys, *values; /* [SEGMENT][G][D], of the last segment */
};

static uint64_t raw_bytes(const struct writer *w, uint64_t n_rows)
{
    return n_rows * w->n_layers * N_KV_HEADS * 2 * ROW_BYTES;
}

/* In directory `path`, or in a temporary one when that is NULL. The last n_layers of the model are kept. */
static void open_writer(struct writer *w, const struct setting *s, const char *path, uint32_t n_layers)
{
    const size_t n_values = (size_t)SEGMENT * N_KV_HEADS * HEAD_SIZE;
    struct memtx_store_spec spec = {.n_layers = N_LAYERS,
                                    .n_heads = N_HEADS,
                                    .n_kv_heads = N_KV_HEADS,
                                    .head_size = HEAD_SIZE,
                                    .rope_dims = HEAD_SIZE,
                                    .rope_base = 100000.0,
                                    .scale = 0.125F,
                                    .row_type = MEMTX_ROWS_F16};
    struct memtx_store_options options = memtx_store_options_default();
    for (uint32_t layer = N_LAYERS - n_layers; layer < N_LAYERS; layer++) {
        memtx_store_keep_layer(&spec, layer);
    }
    options.temporary = !path;
    options.group_segments = GROUP_SEGMENTS;
    options.group_milliseconds = UINT32_MAX; /* after so many segments, however slow the machine */
    *w = (struct writer){.n_layers = n_layers, .random = 1};
    w->keys = take(2 * n_values * sizeof *w->keys);
    w->values = w->keys + n_values;
    check(memtx_store_open(&w->store, path ? path : s->directory, &spec, &options), "store");
    check(memtx_memory_open(&w->memory, w->store, NULL), "memory");
    check(memtx_memory_begin_document(w->memory, "bench"), "document");
}

static void close_writer(struct writer *w)
{
    memtx_memory_close(w->memory);
    check(memtx_store_close(w->store), "store");
    free(w->keys);
}

/* One segment of n rows; the seconds that appending and committing took. */
static double write_segment(struct writer *w, size_t n)
{
    static uint32_t tokens[SEGMENT];
    uint64_t positions[SEGMENT];
    for (size_t i = 0; i < n * N_KV_HEADS * HEAD_SIZE; i++) {
        w->keys[i] = noise(&w->random);
        w->values[i] = noise(&w->random);
    }
    for (size_t i = 0; i < n; i++) {
        tokens[i] = (uint32_t)(w->n_rows + i);
        positions[i] = w->n_rows + i;
    }
    double start = bench_now();
    for (uint32_t layer = N_LAYERS - w->n_layers; layer < N_LAYERS; layer++) {
        check(memtx_memory_append(w->memory, layer, n, w->keys, w->values, tokens, positions), "append");
    }
    check(memtx_memory_commit(w->memory), "commit");
    w->n_rows += n;
    return bench_now() - start;
}

/* Writes up to row `end`. */
static double write_rows(struct writer *w, uint64_t end)
{
    double seconds = 0;
    while (w->n_rows < end) {
        seconds += write_segment(w, end - w->n_rows < SEGMENT ? (size_t)(end - w->n_rows) : SEGMENT);
    }
    return seconds;
}

/* ---- append ----------------------------------------------------------------------------------- */

/* A file without a name. */
static int open_plain(const struct setting *s)
{
    char path[4096];
    int n = snprintf(path, sizeof path, "%s/memtx-bench-XXXXXX", s->directory);
    int fd = n > 0 && (size_t)n < sizeof path ? mkstemp(path) : -1;
    if (fd < 0) {
        bench_die(s->directory, "cannot make a file");
    }
    (void)unlink(path);
    return fd;
}

/* Appends n_bytes n_times, each synced. */
static double write_plain(int fd, const unsigned char *bytes, size_t n_bytes, size_t n_times)
{
    double start = bench_now();
    for (size_t i = 0; i < n_times; i++) {
        for (size_t done = 0; done < n_bytes;) {
            ssize_t n = write(fd, bytes + done, n_bytes - done);
            if (n <= 0) {
                bench_die("plain file", "cannot write");
            }
            done += (size_t)n;
        }
        if (fdatasync(fd)) {
            bench_die("plain file", "cannot sync");
        }
    }
    return bench_now() - start;
}

static void bench_append(const struct setting *s, uint32_t n_layers)
{
    enum { N_GROUPS = 8, N_ROUND = N_GROUPS * GROUP_SEGMENTS * SEGMENT, N_AT_END = 262144 };
    struct writer w;
    struct memtx_store_facts facts;
    double append[BENCH_MOST_REPEATS], plain[BENCH_MOST_REPEATS];
    open_writer(&w, s, NULL, n_layers);
    const int fd = open_plain(s);
    const size_t group_bytes = (size_t)raw_bytes(&w, GROUP_SEGMENTS * SEGMENT);
    unsigned char *bytes = take(group_bytes);
    for (size_t i = 0; i < group_bytes; i++) {
        bytes[i] = (unsigned char)random_bits(&w.random);
    }
    (void)write_rows(&w, N_ROUND); /* the tail's slots are there */
    for (size_t repeat = 0; repeat < s->shared.n_repeats; repeat++) {
        append[repeat] = write_rows(&w, w.n_rows + N_ROUND);
        plain[repeat] = write_plain(fd, bytes, group_bytes, N_GROUPS);
    }
    (void)write_rows(&w, N_AT_END);
    memtx_store_info(&facts, w.store);
    const double a = bench_median(append, s->shared.n_repeats), p = bench_median(plain, s->shared.n_repeats);
    const double mib = (double)(group_bytes * N_GROUPS) / 1048576;
    begin_line("append");
    (void)printf(", \"layers\": %u, \"rows_per_s\": %.0f, \"mib_per_s\": %.1f, \"plain_mib_per_s\": %.1f, "
                 "\"ratio\": %.3f, \"rows\": %" PRIu64 ", \"disk_to_raw\": %.4f}\n",
                 n_layers, N_ROUND / a, mib / a, mib / p, p / a, facts.n_rows,
                 (double)facts.disk_bytes / (double)raw_bytes(&w, facts.n_rows));
    (void)fflush(stdout);
    (void)close(fd);
    free(bytes);
    close_writer(&w);
}

/* ---- gather ----------------------------------------------------------------------------------- */

enum { N_QUERIES = 1536, K = 32, N_IDS = N_QUERIES * K, KV_HEAD = 1, WARM_UP = 3 };

/* The library's conversion, which is private: F16C, eight at a time. Of a loop over _Float16 gcc 12 makes one number at
 * a time, and clang 14 does not know the type here. */
#if defined(__x86_64__)
#define F16C __attribute__((target("avx2,f16c")))

F16C static void widen(float *out, const uint16_t *half)
{
    for (size_t d = 0; d < HEAD_SIZE; d += 8) {
        _mm256_storeu_ps(out + d, _mm256_cvtph_ps(_mm_loadu_si128((const void *)(half + d))));
    }
}

F16C static void narrow(uint16_t *half, const float *values)
{
    for (size_t d = 0; d < HEAD_SIZE; d += 8) {
        __m128i eight = _mm256_cvtps_ph(_mm256_loadu_ps(values + d), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        _mm_storeu_si128((void *)(half + d), eight);
    }
}
#else
static void widen(float *out, const uint16_t *half)
{
    _Float16 numbers[HEAD_SIZE];
    memcpy(numbers, half, sizeof numbers);
    for (size_t d = 0; d < HEAD_SIZE; d++) {
        out[d] = (float)numbers[d];
    }
}

static void narrow(uint16_t *half, const float *values)
{
    _Float16 numbers[HEAD_SIZE];
    for (size_t d = 0; d < HEAD_SIZE; d++) {
        numbers[d] = (_Float16)values[d];
    }
    memcpy(half, numbers, sizeof numbers);
}
#endif

/* The same rows of the kv head as a program would hold them that has nothing but RAM: f16. */
struct array {
    uint16_t *keys, *values; /* [n_rows][D] */
};

static void copy_segment(const struct array *array, const struct writer *w, uint64_t first, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const size_t from = (i * N_KV_HEADS + KV_HEAD) * HEAD_SIZE, to = (first + i) * HEAD_SIZE;
        narrow(array->keys + to, w->keys + from);
        narrow(array->values + to, w->values + from);
    }
}

/* What a gather writes. */
struct rows {
    float *keys, *values; /* [N_IDS][D] */
};

static struct rows take_rows(void)
{
    const size_t n_bytes = (size_t)N_IDS * HEAD_SIZE * sizeof(float);
    struct rows rows = {take(n_bytes), take(n_bytes)};
    memset(rows.keys, 0, n_bytes); /* the pages are there */
    memset(rows.values, 0, n_bytes);
    return rows;
}

static double gather_plain(struct rows *out, const struct array *array, const int64_t *ids)
{
    double start = bench_now();
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < N_IDS; i++) {
        widen(out->keys + i * HEAD_SIZE, array->keys + (size_t)ids[i] * HEAD_SIZE);
        widen(out->values + i * HEAD_SIZE, array->values + (size_t)ids[i] * HEAD_SIZE);
    }
    return bench_now() - start;
}

static double gather_store(struct rows *out, memtx_memory *memory, const int64_t *ids)
{
    double start = bench_now();
    check(memtx_memory_gather(out->keys, out->values, memory, N_LAYERS - 1, KV_HEAD, N_IDS, ids), "gather");
    return bench_now() - start;
}

static bool same_rows(const struct rows *a, const struct rows *b)
{
    const size_t n_bytes = (size_t)N_IDS * HEAD_SIZE * sizeof(float);
    return memcmp(a->keys, b->keys, n_bytes) == 0 && memcmp(a->values, b->values, n_bytes) == 0;
}

static void bench_gather(const struct setting *s)
{
    const uint64_t n_rows = s->n_rows ? s->n_rows : 1000000;
    const size_t n_bytes = (size_t)n_rows * ROW_BYTES;
    struct array array = {take(n_bytes), take(n_bytes)};
    struct rows a = take_rows(), b = take_rows();
    struct writer w;
    double store[BENCH_MOST_REPEATS], plain[BENCH_MOST_REPEATS];
    int64_t *ids = take(N_IDS * sizeof *ids);
    open_writer(&w, s, NULL, 1);
    for (uint64_t first = 0; first < n_rows; first = w.n_rows) {
        (void)write_segment(&w, n_rows - first < SEGMENT ? (size_t)(n_rows - first) : SEGMENT);
        copy_segment(&array, &w, first, (size_t)(w.n_rows - first));
    }
    check(memtx_memory_begin_segment(w.memory), "segment");
    for (size_t repeat = 0; repeat < s->shared.n_repeats + WARM_UP; repeat++) {
        for (size_t i = 0; i < N_IDS; i++) {
            ids[i] = (int64_t)(random_bits(&w.random) % n_rows);
        }
        const size_t i = repeat < WARM_UP ? 0 : repeat - WARM_UP;
        store[i] = gather_store(&a, w.memory, ids);
        plain[i] = gather_plain(&b, &array, ids);
        if (!same_rows(&a, &b)) {
            bench_die("gather", "the store and the array differ");
        }
    }
    const double g = bench_median(store, s->shared.n_repeats), p = bench_median(plain, s->shared.n_repeats);
    begin_line("gather");
    (void)printf(", \"rows\": %" PRIu64 ", \"queries\": %d, \"k\": %d, \"gather_ms\": %.2f, \"plain_ms\": %.2f, "
                 "\"ratio\": %.3f}\n",
                 n_rows, N_QUERIES, K, g * 1e3, p * 1e3, p / g);
    (void)fflush(stdout);
    check(memtx_memory_commit(w.memory), "commit");
    close_writer(&w);
    free(ids);
    free(a.keys);
    free(a.values);
    free(b.keys);
    free(b.values);
    free(array.keys);
    free(array.values);
}

/* ---- open ------------------------------------------------------------------------------------- */

enum { FEW_ROWS = 10000 };

static void check_space(const struct setting *s, uint64_t n_bytes)
{
    struct statvfs facts;
    if (statvfs(s->directory, &facts)) {
        bench_die(s->directory, "cannot look at the disk");
    }
    if ((uint64_t)facts.f_bavail * facts.f_frsize < n_bytes) {
        char why[128];
        (void)snprintf(why, sizeof why, "needs %.1f GB free (name another directory with --dir)",
                       (double)n_bytes / 1e9);
        bench_die(s->directory, why);
    }
}

/* A store of n rows at one layer, closed. */
static const char *write_store(const struct setting *s, uint64_t n_rows)
{
    const char *path = make_directory(s);
    struct writer w;
    open_writer(&w, s, path, 1);
    (void)write_rows(&w, n_rows);
    check(memtx_memory_end_document(w.memory, NULL), "document");
    close_writer(&w);
    return path;
}

static double time_open(const char *path, uint64_t n_rows)
{
    memtx_store *store;
    struct memtx_store_facts facts;
    double start = bench_now();
    check(memtx_store_open(&store, path, NULL, NULL), "open");
    memtx_store_info(&facts, store);
    check(memtx_store_close(store), "close");
    double seconds = bench_now() - start;
    if (facts.n_rows != n_rows) {
        bench_die(path, "the store lost rows");
    }
    return seconds;
}

/* The store at `path` against one of a few rows. */
static void compare_open(const struct setting *s, const char *path, uint64_t n_rows)
{
    const char *few_path = write_store(s, FEW_ROWS);
    double few[BENCH_MOST_REPEATS], many[BENCH_MOST_REPEATS];
    (void)time_open(few_path, FEW_ROWS);
    (void)time_open(path, n_rows);
    for (size_t repeat = 0; repeat < s->shared.n_repeats; repeat++) {
        few[repeat] = time_open(few_path, FEW_ROWS);
        many[repeat] = time_open(path, n_rows);
    }
    const double f = bench_median(few, s->shared.n_repeats), m = bench_median(many, s->shared.n_repeats);
    begin_line("open");
    (void)printf(", \"rows\": [%d, %" PRIu64 "], \"open_ms\": [%.3f, %.3f], \"ratio\": %.3f}\n", FEW_ROWS, n_rows,
                 f * 1e3, m * 1e3, f / m);
    (void)fflush(stdout);
}

static void bench_open(const struct setting *s)
{
    const uint64_t n_rows = s->n_rows ? s->n_rows : 1000000;
    compare_open(s, write_store(s, n_rows), n_rows);
    remove_directories();
}

/* ---- large ------------------------------------------------------------------------------------ */

/* A thread that looks at the process's anonymous memory all the time: between two calls the peak of one is gone. */
struct sampler {
    pthread_t thread;
    atomic_bool ends;
    unsigned long peak_kib; /* read when the thread has ended */
};

static unsigned long anonymous_kib(void)
{
    char line[256];
    unsigned long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file) && sscanf(line, "RssAnon: %lu", &kib) != 1) {
    }
    if (!file || !kib) {
        bench_die("/proc/self/status", "does not tell RssAnon");
    }
    (void)fclose(file);
    return kib;
}

static void *sample(void *argument)
{
    struct sampler *sampler = argument;
    while (!atomic_load(&sampler->ends)) {
        const struct timespec pause = {0, SAMPLE_NS};
        unsigned long kib = anonymous_kib();
        sampler->peak_kib = kib > sampler->peak_kib ? kib : sampler->peak_kib;
        (void)nanosleep(&pause, NULL);
    }
    return NULL;
}

static void start_sampler(struct sampler *sampler)
{
    *sampler = (struct sampler){.peak_kib = 0};
    if (pthread_create(&sampler->thread, NULL, sample, sampler)) {
        bench_die("large", "cannot start a thread");
    }
}

static unsigned long stop_sampler(struct sampler *sampler)
{
    atomic_store(&sampler->ends, true);
    (void)pthread_join(sampler->thread, NULL);
    return sampler->peak_kib;
}

/* Seconds of one segment's search at the kept layer: all heads of 512 queries against all rows. */
static double search(struct writer *w, float *V_mem, float *LSE_mem, float *queries)
{
    uint64_t positions[SEGMENT];
    for (size_t i = 0; i < (size_t)SEGMENT * N_HEADS * HEAD_SIZE; i++) {
        queries[i] = noise(&w->random);
    }
    for (size_t i = 0; i < SEGMENT; i++) {
        positions[i] = w->n_rows + i;
    }
    double start = bench_now();
    check(memtx_memory_begin_segment(w->memory), "segment");
    check(memtx_memory_attend(V_mem, LSE_mem, NULL, w->memory, N_LAYERS - 1, SEGMENT, queries, positions), "attend");
    check(memtx_memory_commit(w->memory), "commit");
    return bench_now() - start;
}

static void bench_large(const struct setting *s)
{
    enum { N_SEARCHES = 3 };
    const uint64_t n_rows = s->n_rows ? s->n_rows : 10000000;
    const size_t n_values = (size_t)SEGMENT * N_HEADS * HEAD_SIZE;
    float *queries = take(n_values * sizeof *queries), *V_mem = take(n_values * sizeof *V_mem);
    float *LSE_mem = take((size_t)SEGMENT * N_HEADS * sizeof *LSE_mem);
    struct sampler sampler;
    struct writer w;
    struct memtx_store_facts facts;
    double searches[N_SEARCHES];
    check_space(s, n_rows * N_KV_HEADS * 2 * ROW_BYTES / 6 * 7);
    const char *path = make_directory(s);
    start_sampler(&sampler);
    open_writer(&w, s, path, 1);
    const double writing = write_rows(&w, n_rows);
    for (size_t i = 0; i < N_SEARCHES; i++) {
        searches[i] = search(&w, V_mem, LSE_mem, queries);
    }
    const double first = searches[0];
    memtx_store_info(&facts, w.store);
    check(memtx_memory_end_document(w.memory, NULL), "document");
    close_writer(&w);
    begin_line("large");
    (void)printf(", \"rows\": %" PRIu64 ", \"rows_per_s\": %.0f, \"first_search_s\": %.2f, \"search_s\": %.2f, "
                 "\"peak_anon_mib\": %.0f, \"disk_to_raw\": %.4f}\n",
                 n_rows, (double)n_rows / writing, first, bench_median(searches, N_SEARCHES),
                 (double)stop_sampler(&sampler) / 1024,
                 (double)facts.disk_bytes / (double)(n_rows * N_KV_HEADS * 2 * ROW_BYTES));
    (void)fflush(stdout);
    compare_open(s, path, n_rows);
    remove_directories();
    free(queries);
    free(V_mem);
    free(LSE_mem);
}

/* ---- the command ------------------------------------------------------------------------------ */

static const char usage[] =
    "Usage: bench_store [--dir DIR] [--rows N] [--repeats N] [--threads N] [--only append|gather|open|large]\n"
    "Speed of the store as ratios to what is measured beside it; JSON lines. Stores are made in DIR ($TMPDIR\n"
    "or /var/tmp) and removed. --rows: of gather and open (1,000,000) and of large (10,000,000, 9 GB), which\n"
    "runs only when it is asked for.\n";

static void run(const struct setting *s)
{
    if (bench_wants(&s->shared, "append")) {
        bench_append(s, 1);
        bench_append(s, N_LAYERS / 2);
    }
    if (bench_wants(&s->shared, "gather")) {
        bench_gather(s);
    }
    if (bench_wants(&s->shared, "open")) {
        bench_open(s);
    }
    if (s->shared.only && strcmp(s->shared.only, "large") == 0) {
        bench_large(s);
    }
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"append", "gather", "open", "large", NULL};
    struct setting s = {.directory = getenv("TMPDIR") ? getenv("TMPDIR") : "/var/tmp", .shared.n_repeats = 9};
    const char *rows = NULL;
    const struct bench_option options[] = {{"dir", &s.directory}, {"rows", &rows}, {NULL, NULL}};
    bench_read_command_line(&s.shared, &(struct bench_program){usage, names, options}, argc, argv);
    s.n_rows = rows ? bench_count("--rows", rows, 1, UINT64_C(1) << 40) : 0;
    catch_signals();
    run(&s);
    return 0;
}
