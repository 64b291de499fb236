/* Rows to measure indexes with (rows_file.h). */
#include "rows_file.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

enum { MOST_DIM = 512, MOST_SEGMENTS = 1 << 16, MOST_QUERIES = 1 << 20 };

static void *take(size_t n, size_t item_bytes)
{
    void *block = calloc(n ? n : 1, item_bytes);
    if (!block) {
        bench_die("memory", "there is none left");
    }
    return block;
}

/* ---- drawn ------------------------------------------------------------------------------------ */

/* splitmix64: the library's own generator is its own business. */
static uint64_t draw(uint64_t *state)
{
    uint64_t mixed = *state += UINT64_C(0x9E3779B97F4A7C15);
    mixed = (mixed ^ mixed >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    mixed = (mixed ^ mixed >> 27) * UINT64_C(0x94D049BB133111EB);
    return mixed ^ mixed >> 31;
}

static double draw_unit(uint64_t *state)
{
    return ((double)(draw(state) >> 11) + 0.5) * 0x1p-53;
}

static float *draw_units(size_t n, size_t dim, uint64_t *state)
{
    const double turn = 6.283185307179586;
    float *rows = take(n * dim, sizeof *rows);
    for (size_t row = 0; row < n; row++) {
        double total = 0;
        for (size_t i = 0; i < dim; i++) { /* normal numbers, so that no direction is preferred */
            const double x = sqrt(-2 * log(draw_unit(state))) * cos(turn * draw_unit(state));
            rows[row * dim + i] = (float)x;
            total += x * x;
        }
        for (size_t i = 0; i < dim; i++) {
            rows[row * dim + i] /= (float)sqrt(total);
        }
    }
    return rows;
}

void bench_rows_draw(struct bench_rows *out, size_t n_rows, size_t n_queries, size_t dim, uint64_t seed)
{
    uint64_t state = seed;
    *out = (struct bench_rows){.n_rows = n_rows, .n_queries = n_queries, .n_sample = n_queries, .dim = dim};
    out->scale = (float)sqrt((double)dim); /* as if keys and queries had the length that a model's have */
    out->keys = draw_units(n_rows, dim, &state);
    out->values = draw_units(n_rows, dim, &state);
    out->queries = draw_units(n_queries, dim, &state);
    out->sample = draw_units(n_queries, dim, &state);
}

/* ---- harvested -------------------------------------------------------------------------------- */

enum { HEADER_BYTES = 40 };

struct header {
    uint32_t layer, kv_head, dim, n_segments, n_queries;
    float scale;
    uint64_t n_rows;
};

static void get(FILE *file, const char *path, void *out, size_t n_bytes)
{
    if (fread(out, 1, n_bytes, file) != n_bytes) {
        bench_die(path, ferror(file) ? strerror(errno) : "ends early");
    }
}

static FILE *open_file(struct header *out, const char *path)
{
    char magic[8];
    FILE *file = fopen(path, "rb");
    if (!file) {
        bench_die(path, strerror(errno));
    }
    get(file, path, magic, sizeof magic);
    if (memcmp(magic, "mtxharv1", sizeof magic) != 0) {
        bench_die(path, "was not written by bench/harvest");
    }
    get(file, path, &out->layer, 4);
    get(file, path, &out->kv_head, 4);
    get(file, path, &out->dim, 4);
    get(file, path, &out->n_segments, 4);
    get(file, path, &out->n_queries, 4);
    get(file, path, &out->scale, 4);
    get(file, path, &out->n_rows, 8);
    if (out->dim < 1 || out->dim > MOST_DIM || out->n_segments < 1 || out->n_segments > MOST_SEGMENTS ||
        out->n_queries < 1 || out->n_queries > MOST_QUERIES || out->n_rows < 1 || out->n_rows > UINT64_C(1) << 32 ||
        !isfinite(out->scale)) {
        bench_die(path, "its numbers make no sense");
    }
    return file;
}

static float from_half(uint16_t half)
{
    const int exponent = half >> 10 & 31, fraction = half & 1023;
    const float sign = half & 0x8000 ? -1.0F : 1.0F;
    return sign * (exponent ? ldexpf((float)(fraction + 1024), exponent - 25) : ldexpf((float)fraction, -24));
}

static float *read_halves(FILE *file, const char *path, size_t n)
{
    enum { PIECE = 4096 };
    uint16_t halves[PIECE];
    float *numbers = take(n, sizeof *numbers);
    for (size_t done = 0; done < n;) {
        const size_t n_piece = n - done < PIECE ? n - done : PIECE;
        get(file, path, halves, n_piece * sizeof *halves);
        for (size_t i = 0; i < n_piece; i++) {
            numbers[done + i] = from_half(halves[i]);
        }
        done += n_piece;
    }
    return numbers;
}

static void go_to(FILE *file, const char *path, uint64_t at)
{
    if (fseeko(file, (off_t)at, SEEK_SET)) {
        bench_die(path, strerror(errno));
    }
}

/* Where a segment begins; n_segments: where the file ends. */
static uint64_t segment_at(const struct header *header, uint64_t segment)
{
    const uint64_t segment_bytes = 8 + (uint64_t)header->n_queries * header->dim * 4;
    return HEADER_BYTES + 4 * header->n_rows * header->dim + segment * segment_bytes;
}

/* The queries and the sample; rows that the sample's segment sees. */
static uint64_t read_queries(struct bench_rows *out, const char *path, size_t n_queries)
{
    struct header header;
    uint64_t n_visible;
    char why[160];
    FILE *file = open_file(&header, path);
    const size_t n_each = header.n_queries, n_asked = (n_queries + n_each - 1) / n_each;
    if (header.dim != out->dim) {
        bench_die(path, "has rows of another size");
    }
    if (n_asked + 1 > header.n_segments) {
        (void)snprintf(why, sizeof why,
                       "has %" PRIu32 " segments of %zu queries: %zu queries (--queries) and a sample before them take "
                       "%zu segments",
                       header.n_segments, n_each, n_queries, n_asked + 1);
        bench_die(path, why);
    }
    uint64_t segment = header.n_segments - n_asked - 1;
    out->n_queries = n_queries;
    out->n_sample = n_each;
    out->sample = take(n_each * out->dim, sizeof *out->sample);
    out->queries = take(n_queries * out->dim, sizeof *out->queries);
    go_to(file, path, segment_at(&header, segment));
    get(file, path, &n_visible, sizeof n_visible);
    get(file, path, out->sample, n_each * out->dim * sizeof *out->sample);
    for (size_t q = 0; q < n_queries; q += n_each) {
        const size_t n = n_queries - q < n_each ? n_queries - q : n_each;
        go_to(file, path, segment_at(&header, ++segment) + sizeof n_visible);
        get(file, path, out->queries + q * out->dim, n * out->dim * sizeof *out->queries);
    }
    (void)fclose(file);
    return n_visible;
}

void bench_rows_read(struct bench_rows *out, const char *keys, const char *queries, size_t n_rows, size_t n_queries)
{
    struct header header;
    char why[160];
    FILE *file = open_file(&header, keys);
    const size_t dim = header.dim;
    *out = (struct bench_rows){.n_rows = n_rows, .dim = dim, .scale = header.scale};
    const uint64_t n_seen = read_queries(out, queries, n_queries);
    const uint64_t n_visible = n_seen < header.n_rows ? n_seen : header.n_rows;
    if (n_rows > n_visible) {
        (void)snprintf(why, sizeof why, "%" PRIu64 " rows are there for its queries, and %zu are asked for (--rows)",
                       n_visible, n_rows);
        bench_die(keys, why);
    }
    const uint64_t first = n_visible - n_rows;
    go_to(file, keys, HEADER_BYTES + 2 * first * dim);
    out->keys = read_halves(file, keys, n_rows * dim);
    go_to(file, keys, HEADER_BYTES + 2 * (header.n_rows + first) * dim);
    out->values = read_halves(file, keys, n_rows * dim);
    (void)fclose(file);
}

void bench_rows_drop(struct bench_rows *rows)
{
    free(rows->keys);
    free(rows->values);
    rows->keys = rows->values = NULL;
}

void bench_rows_release(struct bench_rows *rows)
{
    bench_rows_drop(rows);
    free(rows->queries);
    free(rows->sample);
    *rows = (struct bench_rows){0};
}
