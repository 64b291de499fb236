/* exact_passes: the first passes of exact search (search/exact.h) beside each other and beside the bare product.
 *
 *     build/tests/exact_passes [--repeats N] --rows N [--dim D]     random rows and queries
 *     build/tests/exact_passes [--repeats N] FILE.harvest ..        keys and queries of a real model, as the program
 *                                                                   harvest saves them
 *
 * A JSON line for each number of queries and pass: milliseconds of a search; of the bare products of the same shapes and
 * type, in tiles that stay in cache; their ratio; how many times the search is faster than that in f32; and recall of
 * the k best that the search in f32 finds. One thread, since other work on a shared machine makes threads wait for each
 * other; processor time, medians over repeats in which all passes take turns.
 *
 * A harvest is little-endian: "mtxharv1", u32 layer, kv head, d, segments, queries of a segment, f32 scale, u64 rows;
 * f16 keys[rows][d], f16 values[rows][d]; then for each segment u64 visible rows and f32 queries[queries][d].
 */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/rng.h"
#include "bench.h"
#include "math/rows.h"
#include "search/exact_tile.h"
#include "search/exact.h"

enum { K = 32, CHUNK_ROWS = 510, HEADER_BYTES = 40, MOST_REPEATS = 64, MOST_ROWS = 1 << 22 };

struct pass {
    const char *name;
    struct memtx__first_pass first;
};

static const struct pass passes[] = {
    {"f32", {MEMTX__PRECISION_F32, 0}}, {"bf16", {MEMTX__PRECISION_BF16, 2}}, {"bf16", {MEMTX__PRECISION_BF16, 3}},
    {"i8", {MEMTX__PRECISION_I8, 4}},   {"i8", {MEMTX__PRECISION_I8, 5}},
};
enum { N_PASSES = sizeof passes / sizeof passes[0] };

static size_t n_repeats = 9;

/* What is searched: chunks of f16 rows, as a store has them, and queries. */
struct data {
    const char *name;
    const unsigned char *keys; /* f16 [n_rows][dim] */
    float *queries;            /* [n_queries][dim] */
    size_t n_rows, n_queries, dim;
    struct memtx__row_block *blocks;
    struct memtx__row_set set;
};

static void fail(const char *what, const char *why)
{
    (void)fprintf(stderr, "exact_passes: %s: %s\n", what, why);
    exit(1);
}

static void check(int status)
{
    if (status) {
        fail("search", memtx_last_error());
    }
}

static double now(void)
{
    struct timespec time;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, ascending);
    return values[n / 2];
}

static void *take(size_t n_items, size_t item_bytes)
{
    void *block = calloc(n_items, item_bytes);
    if (!block) {
        fail("memory", "there is none left");
    }
    return block;
}

/* ---- one search ------------------------------------------------------------------------------- */

struct searcher {
    struct memtx__exact exact;
    struct memtx__arena arena;
    int64_t *ids;
    double seconds[MOST_REPEATS], bare[MOST_REPEATS];
};

static void open_searcher(struct searcher *s, const struct pass *pass, size_t n_queries, size_t dim)
{
    memtx__exact_take_low(&s->exact, &s->arena, pass->first, n_queries, K, dim);
    check(memtx__arena_reserve(&s->arena));
    memtx__exact_take_low(&s->exact, &s->arena, pass->first, n_queries, K, dim);
    check(memtx__exact_prepare(&s->exact));
    s->ids = take(n_queries * K, sizeof *s->ids);
}

static void close_searcher(struct searcher *s)
{
    memtx__exact_release(&s->exact);
    memtx__arena_release(&s->arena);
    free(s->ids);
}

/* The products of a search alone, of the tile that the scratch happens to hold; in int8 those of oneDNN. */
static void multiply(const struct searcher *s, const struct data *data, size_t n_queries)
{
    const enum memtx__precision precision = s->exact.precision;
    struct memtx__arena arena = {s->exact.tiles, 0, s->exact.tile_bytes};
    struct memtx__tile tile;
    const bool is_i8 = precision == MEMTX__PRECISION_I8;
    const size_t most = is_i8 ? MEMTX__TILE_QUERIES : memtx__tile_most_queries(precision);
    memtx__tile_take(&tile, &arena, precision, data->dim);
    tile.product = s->exact.product;
    tile.n_rows = CHUNK_ROWS;
    for (size_t row = 0; row < data->n_rows; row += CHUNK_ROWS) {
        for (size_t q = 0; q < n_queries; q += most) {
            const size_t n = n_queries - q < most ? n_queries - q : most;
            const void *queries =
                s->exact.low_queries ? (const void *)s->exact.low_queries : (const void *)data->queries;
            if (is_i8) {
                bench_product_i8((int32_t *)(void *)tile.products, s->exact.bounds.numbers,
                                 (const int8_t *)tile.i8.numbers, n, CHUNK_ROWS, data->dim);
            } else {
                check(memtx__tile_multiply(&tile, queries, n));
            }
        }
    }
}

static double recall(const struct searcher *exact, const struct searcher *s, size_t n_queries)
{
    size_t n = 0;
    for (size_t q = 0; q < n_queries; q++) {
        for (size_t i = 0; i < K; i++) {
            for (size_t j = 0; j < K; j++) {
                n += exact->ids[q * K + i] == s->ids[q * K + j];
            }
        }
    }
    return (double)n / (double)(n_queries * K);
}

static void run(const struct data *data, size_t n_queries)
{
    static struct searcher searchers[N_PASSES];
    for (size_t i = 0; i < N_PASSES; i++) {
        searchers[i] = (struct searcher){0};
        open_searcher(&searchers[i], &passes[i], n_queries, data->dim);
    }
    for (size_t repeat = 0; repeat <= n_repeats; repeat++) { /* the first is warm-up */
        for (size_t i = 0; i < N_PASSES; i++) {
            struct searcher *s = &searchers[i];
            const double start = now();
            check(memtx__exact_search(NULL, s->ids, &s->exact, &data->set, data->queries, n_queries, K));
            const double middle = now();
            multiply(s, data, n_queries);
            s->seconds[repeat ? repeat - 1 : 0] = middle - start;
            s->bare[repeat ? repeat - 1 : 0] = now() - middle;
        }
    }
    double f32 = 0;
    for (size_t i = 0; i < N_PASSES; i++) {
        struct searcher *s = &searchers[i];
        const double seconds = median(s->seconds, n_repeats), bare = median(s->bare, n_repeats);
        f32 = i == 0 ? seconds : f32;
        (void)printf("{\"data\": \"%s\", \"rows\": %zu, \"dim\": %zu, \"queries\": %zu, \"pass\": \"%s\", \"made_in\": "
                     "\"%s\", \"candidates\": %zu, \"search_ms\": %.2f, \"bare_ms\": %.2f, \"ratio\": %.3f, "
                     "\"times_f32\": %.2f, \"recall\": %.5f, \"again\": %zu}\n",
                     data->name, data->n_rows, data->dim, n_queries, passes[i].name,
                     s->exact.made_in == passes[i].first.precision ? passes[i].name : "f32", s->exact.n_candidates,
                     seconds * 1e3, bare * 1e3, bare / seconds, f32 / seconds, recall(&searchers[0], s, n_queries),
                     s->exact.bounds.n_again);
        (void)fflush(stdout);
    }
    for (size_t i = 0; i < N_PASSES; i++) {
        close_searcher(&searchers[i]);
    }
}

/* ---- data ------------------------------------------------------------------------------------- */

static void run_all(struct data *data)
{
    size_t n_blocks = 0;
    data->blocks = take(data->n_rows / CHUNK_ROWS + 1, sizeof *data->blocks);
    for (size_t row = 0; row < data->n_rows; row += CHUNK_ROWS) {
        const size_t n = data->n_rows - row < CHUNK_ROWS ? data->n_rows - row : CHUNK_ROWS;
        data->blocks[n_blocks++] = (struct memtx__row_block){data->keys + row * data->dim * 2, row, n};
    }
    data->set = (struct memtx__row_set){data->blocks, n_blocks, MEMTX_ROWS_F16, data->dim};
    run(data, data->n_queries < 512 ? data->n_queries : 512);
    if (data->n_queries > 512) {
        run(data, data->n_queries);
    }
    free(data->blocks);
}

static void run_random(size_t n_rows, size_t dim)
{
    enum { N_QUERIES = 1536 };
    struct memtx__rng rng = memtx__rng_create(1, 0);
    float *row = take(dim, sizeof *row), *queries = take(N_QUERIES * dim, sizeof *queries);
    unsigned char *keys = take(n_rows * dim, 2);
    for (size_t i = 0; i < n_rows; i++) {
        for (size_t d = 0; d < dim; d++) {
            row[d] = memtx__rng_signed(&rng);
        }
        memtx__rows_write(keys + i * dim * 2, MEMTX_ROWS_F16, row, dim);
    }
    for (size_t i = 0; i < N_QUERIES * dim; i++) {
        queries[i] = memtx__rng_signed(&rng);
    }
    run_all(&(struct data){
        .name = "random", .keys = keys, .queries = queries, .n_rows = n_rows, .n_queries = N_QUERIES, .dim = dim});
    free(row);
    free(keys);
    free(queries);
}

/* The last segment and all that it may see. */
static void run_harvest(const char *path)
{
    struct memtx__map map;
    check(memtx__map_open(&map, path));
    if (map.n_bytes < HEADER_BYTES || memcmp(map.bytes, "mtxharv1", 8) != 0) {
        fail(path, "no harvest");
    }
    const size_t dim = memtx__get_u32(map.bytes + 16), n_segments = memtx__get_u32(map.bytes + 20);
    const size_t n_queries = memtx__get_u32(map.bytes + 24), n_rows = (size_t)memtx__get_u64(map.bytes + 32);
    if (dim < 1 || dim > 512 || n_segments < 1 || n_segments > 64 || n_queries < 1 || n_queries > 1 << 16 ||
        n_rows < 1 || n_rows > MOST_ROWS ||
        map.n_bytes != HEADER_BYTES + n_rows * dim * 4 + n_segments * (8 + n_queries * dim * 4)) {
        fail(path, "a damaged harvest");
    }
    const unsigned char *segment = map.bytes + map.n_bytes - (8 + n_queries * dim * 4);
    const size_t n_visible = (size_t)memtx__get_u64(segment);
    float *queries = take(n_queries * dim, sizeof *queries);
    for (size_t i = 0; i < n_queries * dim; i++) {
        queries[i] = memtx__get_f32(segment + 8 + 4 * i);
    }
    run_all(&(struct data){.name = path,
                           .keys = map.bytes + HEADER_BYTES,
                           .queries = queries,
                           .n_rows = n_visible < n_rows ? n_visible : n_rows,
                           .n_queries = n_queries,
                           .dim = dim});
    free(queries);
    memtx__map_close(&map);
}

static size_t count(const char *option, const char *text, size_t most)
{
    char *end;
    const unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || value < 1 || value > most) {
        fail(option, "out of range");
    }
    return (size_t)value;
}

int main(int argc, char **argv)
{
    size_t n_rows = 0, dim = 64;
    int i = 1;
    for (; i + 1 < argc && strncmp(argv[i], "--", 2) == 0; i += 2) {
        if (strcmp(argv[i], "--rows") == 0) {
            n_rows = count(argv[i], argv[i + 1], MOST_ROWS);
        } else if (strcmp(argv[i], "--dim") == 0) {
            dim = count(argv[i], argv[i + 1], 512);
        } else if (strcmp(argv[i], "--repeats") == 0) {
            n_repeats = count(argv[i], argv[i + 1], MOST_REPEATS);
        } else {
            break;
        }
    }
    if ((i == argc) == (n_rows == 0) || (i < argc && argv[i][0] == '-')) {
        (void)fputs(
            "Usage: exact_passes [--repeats N] --rows N [--dim D]\n       exact_passes [--repeats N] FILE.harvest ..\n",
            stderr);
        return 2;
    }
    omp_set_num_threads(1);
    if (n_rows) {
        run_random(n_rows, dim);
    }
    for (; i < argc; i++) {
        run_harvest(argv[i]);
    }
    return 0;
}
