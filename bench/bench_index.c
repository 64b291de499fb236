/* Indexes side by side over the rows of one (layer, kv head), on random unit vectors or on what bench/harvest took from a
 * real model: what they find, what attention makes of it, how fast, at what cost. JSON lines.
 *
 * All go through a memory over one store, as a runtime uses them: queries/s is that of memtx_memory_attend, whose
 * gathering and softmax are the same for each. recall is against exact search: the share of its k rows that came back;
 * V_error the mean of |V - V_exact| / |V_exact|, LSE_error that of |LSE - LSE_exact|, over all queries.
 *
 * Clusters are made from a sample of other queries, which every memory is asked first: an index that had seen the very
 * queries that it is asked would look better than it is.
 */
#include <dirent.h>
#include <malloc.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../index/indexes.h"
#include "bench.h"
#include "memtx/memtx.h"
#include "rows_file.h"

enum { APPENDED = 4096, MOST_BATCH = 1 << 16, N_BATCHES = 3, MOST_SPEC = 256 };

static const size_t batches[N_BATCHES - 1] = {1, 32};

/* What one index answers and costs. */
struct figures {
    double recall, V_error, LSE_error;
    double queries_per_s[N_BATCHES]; /* of 1, of 32, of all queries at once */
    double build_s, bytes_per_row;
    long rss_kib;
};

struct bench {
    struct bench_setting setting;
    struct bench_rows rows;
    size_t k;
    size_t most_queries; /* of those asked at once */
    uint64_t run_rows;
    double most_seconds;   /* after which a batch is not repeated */
    const char *data;      /* for the report */
    char built[MOST_SPEC]; /* the spec of the index files in the store, and what they took; "": there are none */
    double built_s, built_bytes_per_row;
    char path[4096];
    float *V, *LSE, *exact_V, *exact_LSE;
    struct memtx_hit *hits, *exact_hits;
    uint64_t *positions;
};

static void check(int status, const char *what)
{
    if (status) {
        bench_die(what, memtx_last_error());
    }
}

static void *take(size_t n, size_t item_bytes)
{
    void *block = calloc(n ? n : 1, item_bytes);
    if (!block) {
        bench_die("memory", "there is none left");
    }
    return block;
}

/* ---- the store -------------------------------------------------------------------------------- */

static void remove_store(const char *path)
{
    DIR *list = opendir(path);
    const struct dirent *entry;
    char file[5000];
    while (list && (entry = readdir(list))) {
        (void)snprintf(file, sizeof file, "%s/%s", path, entry->d_name);
        (void)unlink(file);
    }
    if (list) {
        (void)closedir(list);
    }
    (void)rmdir(path);
}

/* Positions are off: the queries have been turned already. */
static struct memtx_store_spec spec_of(const struct bench *b)
{
    struct memtx_store_spec spec = {.n_layers = 1,
                                    .n_heads = 1,
                                    .n_kv_heads = 1,
                                    .head_size = (uint32_t)b->rows.dim,
                                    .scale = b->rows.scale,
                                    .row_type = MEMTX_ROWS_F16};
    memtx_store_keep_layer(&spec, 0);
    return spec;
}

static void fill_store(const struct bench *b)
{
    const struct memtx_store_spec spec = spec_of(b);
    struct memtx_memory_options options = memtx_memory_options_default();
    uint32_t *tokens = take(APPENDED, sizeof *tokens);
    uint64_t *positions = take(APPENDED, sizeof *positions);
    memtx_store *store;
    memtx_memory *memory;
    options.most_tokens = APPENDED;
    check(memtx_store_open(&store, b->path, &spec, NULL), "store");
    check(memtx_memory_open(&memory, store, &options), "memory");
    check(memtx_memory_begin_document(memory, "rows"), "document");
    for (size_t row = 0; row < b->rows.n_rows; row += APPENDED) {
        const size_t n = b->rows.n_rows - row < APPENDED ? b->rows.n_rows - row : APPENDED;
        for (size_t i = 0; i < n; i++) {
            positions[i] = row + i;
        }
        check(memtx_memory_append(memory, 0, n, b->rows.keys + row * b->rows.dim, b->rows.values + row * b->rows.dim,
                                  tokens, positions),
              "append");
        check(memtx_memory_commit(memory), "commit");
    }
    check(memtx_memory_end_document(memory, NULL), "document");
    memtx_memory_close(memory);
    check(memtx_store_close(store), "store");
    free(tokens);
    free(positions);
}

/* ---- one index -------------------------------------------------------------------------------- */

static struct memtx_memory_options options_of(const struct bench *b, const char *index)
{
    struct memtx_memory_options options = memtx_memory_options_default();
    options.k = (uint32_t)b->k;
    options.scope = MEMTX_SCOPE_ALL;
    options.most_tokens = (uint32_t)b->most_queries;
    options.index = index;
    options.resolve_index = memtx_index_resolve;
    options.run_rows = b->run_rows;
    options.reader = true;
    return options;
}

/* Whether the files that are there serve a spec too: what follows the @ is for searching, but for efConstruction. */
static bool is_built(const struct bench *b, const char *index)
{
    const size_t n = strcspn(index, "@");
    return strcmp(b->built, index) == 0 || (strcspn(b->built, "@") == n && strncmp(b->built, index, n) == 0 &&
                                            !strstr(b->built, "efConstruction") && !strstr(index, "efConstruction"));
}

/* Seconds for all queries, n at a time. */
static double ask(const struct bench *b, memtx_memory *memory, const float *queries, size_t n_all, size_t n)
{
    const double start = bench_now();
    check(memtx_memory_begin_segment(memory), "segment");
    for (size_t q = 0; q < n_all; q += n) {
        const size_t n_now = n_all - q < n ? n_all - q : n;
        check(memtx_memory_attend(b->V + q * b->rows.dim, b->LSE + q, b->hits + q * b->k, memory, 0, n_now,
                                  queries + q * b->rows.dim, b->positions),
              "attend");
    }
    memtx_memory_end_segment(memory);
    return bench_now() - start;
}

static bool is_cluster(const char *index)
{
    return strncmp(index, "cluster", strlen("cluster")) == 0;
}

/* Clusters are made when they are first asked, with the sample: that takes what asking it again does not. A memory that
 * may write does so once more and saves them. */
static void build_clusters(struct bench *b, memtx_store *store, struct memtx_memory_options options)
{
    const size_t n = b->rows.n_sample;
    memtx_memory *memory;
    check(memtx_memory_open(&memory, store, &options), options.index);
    const double first = ask(b, memory, b->rows.sample, n, n);
    b->built_s = fmax(first - ask(b, memory, b->rows.sample, n, n), 0);
    memtx_memory_close(memory);
    options.reader = false;
    check(memtx_memory_open(&memory, store, &options), options.index);
    (void)ask(b, memory, b->rows.sample, n, n);
    check(memtx_memory_seal(memory, NULL), options.index);
    memtx_memory_close(memory);
}

/* The index files of a spec. Exact search has none. */
static void build(struct figures *out, struct bench *b, const char *index)
{
    const struct memtx_memory_options options = options_of(b, index);
    const struct memtx_index_operations *operations;
    struct memtx_store_facts facts;
    memtx_store *store;
    if (!is_cluster(index) && memtx_index_resolve(&operations, index) != MEMTX_OK) {
        return;
    }
    if (!is_built(b, index)) {
        check(memtx_store_open(&store, b->path, NULL, NULL), "store");
        if (is_cluster(index)) {
            build_clusters(b, store, options);
        } else {
            const double start = bench_now();
            check(memtx_memory_rebuild(store, &options, NULL), index);
            b->built_s = bench_now() - start;
        }
        memtx_store_info(&facts, store);
        b->built_bytes_per_row = facts.run_rows ? (double)facts.run_bytes / (double)facts.run_rows : 0;
        check(memtx_store_close(store), "store");
        (void)snprintf(b->built, sizeof b->built, "%s", index);
    }
    out->build_s = b->built_s;
    out->bytes_per_row = b->built_bytes_per_row;
}

/* The last batch is of all queries: their answers are there afterwards. */
static void time_batches(struct figures *out, const struct bench *b, memtx_memory *memory)
{
    double seconds[BENCH_MOST_REPEATS];
    for (size_t i = 0; i < N_BATCHES; i++) {
        const size_t n = i < N_BATCHES - 1 ? batches[i] : b->rows.n_queries;
        const size_t n_wanted = i < N_BATCHES - 1 ? 8 * n : n;
        const size_t n_all = n_wanted < b->rows.n_queries ? n_wanted : b->rows.n_queries;
        const double start = bench_now();
        size_t n_done = 0;
        do {
            seconds[n_done++] = ask(b, memory, b->rows.queries, n_all, n);
        } while (n_done < b->setting.n_repeats && bench_now() - start < b->most_seconds);
        out->queries_per_s[i] = (double)n_all / bench_median(seconds, n_done);
    }
}

static double recall_of(const struct bench *b, size_t q)
{
    size_t n_found = 0, n_exact = 0;
    for (size_t i = 0; i < b->k; i++) {
        const int64_t row = b->exact_hits[q * b->k + i].row;
        n_exact += row >= 0;
        for (size_t j = 0; j < b->k && row >= 0; j++) {
            n_found += b->hits[q * b->k + j].row == row;
        }
    }
    return n_exact ? (double)n_found / (double)n_exact : 1;
}

static void compare(struct figures *out, const struct bench *b)
{
    const size_t dim = b->rows.dim, n = b->rows.n_queries;
    for (size_t q = 0; q < n; q++) {
        double apart = 0, length = 0;
        for (size_t i = 0; i < dim; i++) {
            const double exact = (double)b->exact_V[q * dim + i], found = (double)b->V[q * dim + i];
            apart += (found - exact) * (found - exact);
            length += exact * exact;
        }
        out->recall += recall_of(b, q) / (double)n;
        out->V_error += (length > 0 ? sqrt(apart / length) : 0) / (double)n;
        out->LSE_error += fabs((double)b->LSE[q] - (double)b->exact_LSE[q]) / (double)n;
    }
}

static long rss_kib(void)
{
    char line[128];
    long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file) && sscanf(line, "VmRSS: %ld", &kib) != 1) { /* NOLINT */
    }
    if (file) {
        (void)fclose(file);
    }
    return kib;
}

static void measure(struct figures *out, struct bench *b, const char *index, bool is_oracle)
{
    const struct memtx_memory_options options = options_of(b, index);
    struct memtx_store_options read_only = memtx_store_options_default();
    memtx_store *store;
    memtx_memory *memory;
    *out = (struct figures){0};
    (void)malloc_trim(0); /* rss_kib is not what others have left behind */
    build(out, b, index);
    read_only.read_only = true;
    check(memtx_store_open(&store, b->path, NULL, &read_only), "store");
    check(memtx_memory_open(&memory, store, &options), index);
    (void)ask(b, memory, b->rows.sample, b->rows.n_sample, b->rows.n_sample); /* files are loaded, pages checked */
    if (is_oracle) {
        (void)ask(b, memory, b->rows.queries, b->rows.n_queries, b->rows.n_queries);
        memcpy(b->exact_V, b->V, b->rows.n_queries * b->rows.dim * sizeof *b->V);
        memcpy(b->exact_LSE, b->LSE, b->rows.n_queries * sizeof *b->LSE);
        memcpy(b->exact_hits, b->hits, b->rows.n_queries * b->k * sizeof *b->hits);
    } else {
        time_batches(out, b, memory);
        compare(out, b);
        out->rss_kib = rss_kib();
    }
    if (*memtx_memory_warning(memory)) {
        bench_die(index, memtx_memory_warning(memory));
    }
    memtx_memory_close(memory);
    check(memtx_store_close(store), "store");
}

static void print_figures(FILE *file, const struct bench *b, const char *index, const struct figures *f)
{
    (void)fprintf(file,
                  "{\"index\": \"%s\", \"data\": \"%s\", \"rows\": %zu, \"queries\": %zu, \"sample\": %zu, "
                  "\"dim\": %zu, \"k\": %zu, \"threads\": %d, \"recall\": %.4f, \"V_error\": %.4f, "
                  "\"LSE_error\": %.4f, \"queries_per_s\": %.1f, \"queries_per_s_1\": %.1f, "
                  "\"queries_per_s_32\": %.1f, \"build_s\": %.3f, \"bytes_per_row\": %.1f, \"rss_mib\": %.1f}\n",
                  index, b->data, b->rows.n_rows, b->rows.n_queries, b->rows.n_sample, b->rows.dim, b->k,
                  omp_get_max_threads(), f->recall, f->V_error, f->LSE_error, f->queries_per_s[2], f->queries_per_s[0],
                  f->queries_per_s[1], f->build_s, f->bytes_per_row, (double)f->rss_kib / 1024);
    (void)fflush(file);
}

/* ---- the command ------------------------------------------------------------------------------ */

static const char usage[] =
    "Usage: bench_index [--rows N] [--queries N] [--dim N] [--k N] [--run-rows N] [--indexes LIST] [--json FILE]\n"
    "                   [--keys FILE [--real-queries FILE]] [--repeats N] [--seconds N] [--threads N]\n"
    "Indexes side by side over N rows, as JSON lines; --json -: to standard output (default).\n"
    "--indexes: specs, separated by semicolons, or by commas before exact, cluster and faiss: (default\n"
    "  exact,faiss:Flat), such as exact,faiss:IVF1024,Flat@nprobe=32,faiss:HNSW32@efSearch=64; one that differs from\n"
    "  the one before in nprobe, efSearch or mmap alone is not built again\n"
    "--keys: the newest N rows of a file that bench/harvest wrote, asked with its last queries (or those of\n"
    "  --real-queries), the segment before which is a sample that an index may be made from; without it random unit\n"
    "  vectors. --run-rows: rows of one index (default: all that fill chunks).\n"
    "--repeats: of each batch (default 5), none begun after --seconds (default 5).\n";

static void open_bench(struct bench *b, const char *folder)
{
    const size_t n_sample = b->rows.n_sample, dim = b->rows.dim;
    const size_t n = b->most_queries = b->rows.n_queries > n_sample ? b->rows.n_queries : n_sample;
    (void)snprintf(b->path, sizeof b->path, "%s/memtx-bench-XXXXXX", folder);
    if (!mkdtemp(b->path)) {
        bench_die(b->path, "cannot be made");
    }
    b->V = take(n * dim, sizeof *b->V);
    b->exact_V = take(n * dim, sizeof *b->V);
    b->LSE = take(n, sizeof *b->LSE);
    b->exact_LSE = take(n, sizeof *b->LSE);
    b->hits = take(n * b->k, sizeof *b->hits);
    b->exact_hits = take(n * b->k, sizeof *b->hits);
    b->positions = take(n, sizeof *b->positions);
    fill_store(b);
    bench_rows_drop(&b->rows);
}

static void close_bench(struct bench *b)
{
    remove_store(b->path);
    bench_rows_release(&b->rows);
    free(b->V);
    free(b->exact_V);
    free(b->LSE);
    free(b->exact_LSE);
    free(b->hits);
    free(b->exact_hits);
    free(b->positions);
}

static bool begins_spec(const char *text)
{
    static const char *const kinds[] = {"exact", "cluster", "faiss:"};
    bool begins = false;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0] && !begins; i++) {
        begins = strncmp(text, kinds[i], strlen(kinds[i])) == 0;
    }
    return begins;
}

/* The next spec of a list: up to a semicolon, or to a comma before another. */
static char *next_spec(char **rest)
{
    char *spec = *rest;
    for (char *c = spec; c && *c; c++) {
        if (*c == ';' || (*c == ',' && begins_spec(c + 1))) {
            *c = '\0';
            *rest = c + 1;
            return spec;
        }
    }
    *rest = NULL;
    return spec;
}

/* The command line as it was given, with the defaults. */
struct request {
    const char *rows, *queries, *dim, *k, *run_rows, *keys, *real_queries, *seconds, *indexes, *json;
};

static void read_request(struct request *r, struct bench_setting *setting, int argc, char **argv)
{
    static const char *const names[] = {NULL};
    *r = (struct request){.rows = "65536", .queries = "1536", .dim = "64", .k = "32", .seconds = "5"};
    r->indexes = "exact,faiss:Flat";
    r->json = "-";
    const struct bench_option options[] = {
        {"rows", &r->rows},       {"queries", &r->queries},   {"dim", &r->dim},   {"k", &r->k},
        {"indexes", &r->indexes}, {"run-rows", &r->run_rows}, {"json", &r->json}, {"real-queries", &r->real_queries},
        {"keys", &r->keys},       {"seconds", &r->seconds},   {NULL, NULL}};
    bench_read_command_line(setting, &(struct bench_program){usage, names, options}, argc, argv);
}

static void get_rows(struct bench *b, const struct request *r)
{
    const size_t n_rows = (size_t)bench_count("--rows", r->rows, 1, UINT64_C(1) << 32);
    const size_t n_queries = (size_t)bench_count("--queries", r->queries, 1, MOST_BATCH);
    if (r->keys) {
        bench_rows_read(&b->rows, r->keys, r->real_queries ? r->real_queries : r->keys, n_rows, n_queries);
        b->data = r->keys;
    } else {
        bench_rows_draw(&b->rows, n_rows, n_queries, (size_t)bench_count("--dim", r->dim, 1, 512), 1);
    }
    const uint64_t chunk_rows = 65280 / (2 * b->rows.dim);
    b->run_rows = r->run_rows            ? bench_count("--run-rows", r->run_rows, 1, UINT64_C(1) << 32)
                  : n_rows >= chunk_rows ? n_rows / chunk_rows * chunk_rows
                                         : chunk_rows;
}

int main(int argc, char **argv)
{
    struct bench b = {.setting.n_repeats = 5, .data = "random"};
    struct figures figures;
    struct request request;
    const char *folder = getenv("TMPDIR");
    read_request(&request, &b.setting, argc, argv);
    b.k = (size_t)bench_count("--k", request.k, 1, 4096);
    b.most_seconds = (double)bench_count("--seconds", request.seconds, 1, 3600);
    get_rows(&b, &request);
    FILE *out = strcmp(request.json, "-") == 0 ? stdout : fopen(request.json, "w");
    char *list = strdup(request.indexes);
    if (!out || !list) {
        bench_die(request.json, "cannot be written");
    }
    open_bench(&b, folder ? folder : "/var/tmp");
    measure(&figures, &b, "exact", true);
    for (char *rest = list; rest;) {
        const char *spec = next_spec(&rest);
        measure(&figures, &b, spec, false);
        print_figures(out, &b, spec, &figures);
    }
    close_bench(&b);
    free(list);
    return fclose(out) ? 1 : 0;
}
