/* cluster_recall: the cluster index on keys and queries of a real model (bench/harvest.c), against exact search.
 *
 *     build/tests/cluster_recall [--no-sample] [--no-groups] [--rows N] [--sizes LIST] [--shares LIST] FILE.harvest ..
 *
 * The queries of a file's first segment are the sample that clusters are made by, unless --no-sample says that there
 * is none; those of the others are asked. --rows: of the newest rows that the first segment sees only so many, in whole
 * blocks. --no-groups: all centroids are scored, however many there are. --sizes (of clusters, in rows) and --shares (in
 * per cent) are by default those of the table in bench/README.md. A JSON line for each file, size of the clusters and share: recall of the k
 * best; the relative error of V_mem, the softmax over what was found, all at delta; the mass of that softmax found, of
 * exact search's; rows met; processor time of both searches, in turn in one run, medians over segments and repeats;
 * and that of clustering for a row. It is of all threads together, and so what else the machine does matters less:
 * OMP_NUM_THREADS=1 says most.
 */
#include <getopt.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/file.h"
#include "math/half.h"
#include "math/rows.h"
#include "search/cluster.h"

enum {
    K = 32,
    CHUNK_ROWS = 510,
    HEADER_BYTES = 40,
    MOST_SEGMENTS = 64,
    MOST_QUERIES = 1 << 16,
    N_REPEATS = 3,
    MOST_LIST = 16
};

struct settings {
    bool with_sample, with_groups;
    size_t n_rows; /* 0: all */
    size_t n_sizes, n_shares;
    double sizes[MOST_LIST], shares[MOST_LIST]; /* rows of a cluster; shares of the clusters, in per cent */
};

struct segment {
    size_t n_visible;
    const unsigned char *queries; /* f32 [n_queries][dim] */
};

struct harvest {
    struct memtx__map map;
    uint32_t layer, kv_head, dim, n_segments, n_queries;
    float scale;
    size_t n_rows;
    const unsigned char *keys, *values; /* f16 [n_rows][dim] */
    struct segment segments[MOST_SEGMENTS];
};

/* What both searches gave, summed over queries, and the times of each call. */
struct outcome {
    double n_queries, recall, error, mass, met;
    double exact[MOST_SEGMENTS * N_REPEATS], cluster[MOST_SEGMENTS * N_REPEATS];
    size_t n_times;
};

static void fail(const char *what, const char *why)
{
    (void)fprintf(stderr, "cluster_recall: %s: %s\n", what, why);
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

/* ---- the file --------------------------------------------------------------------------------- */

static void read_harvest(struct harvest *h, const char *path)
{
    check(memtx__map_open(&h->map, path));
    const unsigned char *bytes = h->map.bytes;
    if (h->map.n_bytes < HEADER_BYTES || memcmp(bytes, "mtxharv1", 8) != 0) {
        fail(path, "no harvest");
    }
    h->layer = memtx__get_u32(bytes + 8);
    h->kv_head = memtx__get_u32(bytes + 12);
    h->dim = memtx__get_u32(bytes + 16);
    h->n_segments = memtx__get_u32(bytes + 20);
    h->n_queries = memtx__get_u32(bytes + 24);
    h->scale = memtx__get_f32(bytes + 28);
    h->n_rows = (size_t)memtx__get_u64(bytes + 32);
    if (h->dim < 1 || h->dim > 512 || h->n_segments < 2 || h->n_segments > MOST_SEGMENTS || h->n_queries < 1 ||
        h->n_queries > MOST_QUERIES || h->n_rows < 1 || h->n_rows > UINT32_MAX ||
        h->map.n_bytes !=
            HEADER_BYTES + h->n_rows * h->dim * 4 + h->n_segments * (8 + (size_t)h->n_queries * h->dim * 4)) {
        fail(path, "a damaged harvest");
    }
    h->keys = bytes + HEADER_BYTES;
    h->values = h->keys + h->n_rows * h->dim * 2;
    const unsigned char *at = h->values + h->n_rows * h->dim * 2;
    for (size_t s = 0; s < h->n_segments; s++, at += 8 + (size_t)h->n_queries * h->dim * 4) {
        h->segments[s] = (struct segment){(size_t)memtx__get_u64(at), at + 8};
        if (h->segments[s].n_visible < K || h->segments[s].n_visible > h->n_rows) {
            fail(path, "a damaged harvest: a segment sees rows that are not there");
        }
    }
}

/* Forgets all but the newest n rows that the first segment sees. */
static void keep_newest(struct harvest *h, size_t n)
{
    if (n > h->segments[0].n_visible) {
        fail("--rows", "the first segment sees fewer");
    }
    const size_t n_forgotten = h->segments[0].n_visible - n;
    h->keys += n_forgotten * h->dim * 2;
    h->values += n_forgotten * h->dim * 2;
    h->n_rows -= n_forgotten;
    for (size_t s = 0; s < h->n_segments; s++) {
        h->segments[s].n_visible -= n_forgotten;
    }
}

/* The first n rows in chunks. */
static struct memtx__row_set rows_of(struct memtx__row_block *blocks, const struct harvest *h, size_t n)
{
    size_t n_blocks = 0;
    for (size_t row = 0; row < n; row += CHUNK_ROWS) {
        blocks[n_blocks++] =
            (struct memtx__row_block){h->keys + row * h->dim * 2, row, n - row < CHUNK_ROWS ? n - row : CHUNK_ROWS};
    }
    return (struct memtx__row_set){blocks, n_blocks, MEMTX_ROWS_F16, h->dim};
}

static void read_queries(float *queries, const struct harvest *h, const struct segment *segment)
{
    memtx__rows_read(queries, MEMTX_ROWS_F32, segment->queries, (size_t)h->n_queries * h->dim);
}

/* ---- one comparison --------------------------------------------------------------------------- */

/* V_mem of the rows found, and the sum of the softmax's terms relative to the best score given. */
static double attend(double *V, const struct harvest *h, const float *scores, const int64_t *ids, float best)
{
    double total = 0;
    float value[512];
    memset(V, 0, h->dim * sizeof *V);
    for (size_t i = 0; i < K && ids[i] >= 0; i++) {
        const double weight = exp((double)h->scale * (double)(scores[i] - best));
        total += weight;
        memtx__f16_to_f32_n(value, h->values + (size_t)ids[i] * h->dim * 2, h->dim);
        for (size_t d = 0; d < h->dim; d++) {
            V[d] += weight * (double)value[d];
        }
    }
    for (size_t d = 0; d < h->dim; d++) {
        V[d] /= total;
    }
    return total;
}

static size_t n_common(const int64_t *a, const int64_t *b)
{
    size_t n = 0;
    for (size_t i = 0; i < K; i++) {
        for (size_t j = 0; j < K; j++) {
            n += a[i] == b[j];
        }
    }
    return n;
}

struct answer {
    float *scores; /* [n_queries][K] */
    int64_t *ids;
};

static void compare(struct outcome *out, const struct harvest *h, const struct answer *exact,
                    const struct answer *cluster)
{
    double V[512], V_exact[512];
    for (size_t q = 0; q < h->n_queries; q++) {
        const float best = exact->scores[q * K];
        const double all = attend(V_exact, h, exact->scores + q * K, exact->ids + q * K, best);
        const double found = attend(V, h, cluster->scores + q * K, cluster->ids + q * K, best);
        double error = 0, size = 0;
        for (size_t d = 0; d < h->dim; d++) {
            error += (V[d] - V_exact[d]) * (V[d] - V_exact[d]);
            size += V_exact[d] * V_exact[d];
        }
        out->recall += (double)n_common(exact->ids + q * K, cluster->ids + q * K) / K;
        out->error += sqrt(error / size);
        out->mass += found / all;
    }
    out->n_queries += h->n_queries;
}

/* Rows in the clusters that the last search wanted. */
static double n_met(const struct memtx__cluster_search *search, const struct memtx__cluster *cluster, size_t n_queries,
                    size_t n_wanted)
{
    double n = 0;
    for (size_t q = 0; q < n_queries; q++) {
        for (size_t i = 0; i < search->n_wanted[q]; i++) {
            const size_t c = search->wanted[q * n_wanted + i];
            const uint16_t *starts =
                cluster->starts + c / cluster->per_block * (cluster->per_block + 1) + c % cluster->per_block;
            n += starts[1] - starts[0];
        }
    }
    return n;
}

struct searchers {
    struct memtx__exact exact;
    struct memtx__arena arena;
    struct memtx__cluster_search cluster;
    struct memtx__row_block *blocks;
    float *queries;
    struct answer by_exact, by_cluster;
};

static void run_segment(struct outcome *out, struct searchers *s, const struct harvest *h,
                        const struct memtx__cluster *cluster, const struct segment *segment, double share)
{
    const struct memtx__row_set rows = rows_of(s->blocks, h, segment->n_visible);
    read_queries(s->queries, h, segment);
    check(memtx__cluster_reserve(&s->cluster, cluster, h->n_queries, K, share, rows.n_blocks));
    for (size_t repeat = 0; repeat < N_REPEATS; repeat++, out->n_times++) {
        const double start = now();
        check(memtx__exact_search(s->by_exact.scores, s->by_exact.ids, &s->exact, &rows, s->queries, h->n_queries, K));
        const double middle = now();
        check(memtx__cluster_search(s->by_cluster.scores, s->by_cluster.ids, &s->cluster, cluster, &rows, s->queries,
                                    h->n_queries, K));
        out->exact[out->n_times] = middle - start;
        out->cluster[out->n_times] = now() - middle;
    }
    compare(out, h, &s->by_exact, &s->by_cluster);
    const size_t n_clusters =
        (segment->n_visible + cluster->options.block_rows - 1) / cluster->options.block_rows * cluster->per_block;
    const size_t n_all = cluster->n_blocks * cluster->per_block;
    out->met += n_met(&s->cluster, cluster, h->n_queries,
                      memtx__cluster_n_wanted(cluster, n_clusters < n_all ? n_clusters : n_all, K, share)) /
                (double)segment->n_visible;
}

/* An index of all full blocks that the first segment sees, made by its queries as the sample; *seconds it took a row. */
static struct memtx__cluster *make_cluster(double *seconds, const struct searchers *s, const struct harvest *h,
                                           uint32_t cluster_rows, const struct settings *settings)
{
    struct memtx__cluster_options options = memtx__cluster_options_default();
    struct memtx__cluster *cluster;
    options.cluster_rows = cluster_rows;
    options.group_blocks = settings->with_groups ? options.group_blocks : 0;
    check(memtx__cluster_create(&cluster, MEMTX_ROWS_F16, h->dim, 0, &options));
    read_queries(s->queries, h, &h->segments[0]);
    const size_t n_blocks = h->segments[0].n_visible / options.block_rows;
    const struct memtx__row_set rows = rows_of(s->blocks, h, h->segments[0].n_visible);
    const double start = now();
    for (size_t block = 0; block < n_blocks; block++) {
        check(memtx__cluster_add(cluster, &rows, s->queries, settings->with_sample ? h->n_queries : 0));
    }
    *seconds = (now() - start) / (double)(n_blocks * options.block_rows);
    return cluster;
}

static void compare_at(const struct harvest *h, struct searchers *s, const struct memtx__cluster *cluster, double share,
                       double seconds)
{
    struct outcome out = {0};
    for (size_t segment = 1; segment < h->n_segments; segment++) {
        run_segment(&out, s, h, cluster, &h->segments[segment], share);
    }
    const double exact = median(out.exact, out.n_times), search = median(out.cluster, out.n_times), n = out.n_queries;
    (void)printf("{\"layer\": %u, \"kv_head\": %u, \"rows\": %zu, \"cluster_rows\": %u, \"share\": %.4f, "
                 "\"recall\": %.4f, \"V_error\": %.4f, \"mass\": %.4f, \"met\": %.4f, \"exact_ms\": %.2f, "
                 "\"cluster_ms\": %.2f, \"ratio\": %.3f, \"us_a_row\": %.2f}\n",
                 h->layer, h->kv_head, h->n_rows, cluster->options.cluster_rows, share, out.recall / n, out.error / n,
                 out.mass / n, out.met / n, exact * 1e3, search * 1e3, search / exact, seconds * 1e6);
    (void)fflush(stdout);
}

static void run_file(const char *path, const struct settings *settings)
{
    struct harvest h;
    struct searchers s = {0};
    read_harvest(&h, path);
    if (settings->n_rows) {
        keep_newest(&h, settings->n_rows);
    }
    s.blocks = take(h.n_rows / CHUNK_ROWS + 1, sizeof *s.blocks);
    s.queries = take((size_t)h.n_queries * h.dim, sizeof *s.queries);
    s.by_exact = (struct answer){take((size_t)h.n_queries * K, sizeof(float)), take((size_t)h.n_queries * K, 8)};
    s.by_cluster = (struct answer){take((size_t)h.n_queries * K, sizeof(float)), take((size_t)h.n_queries * K, 8)};
    memtx__exact_take(&s.exact, &s.arena, h.n_queries, K, h.dim);
    check(memtx__arena_reserve(&s.arena));
    memtx__exact_take(&s.exact, &s.arena, h.n_queries, K, h.dim);
    for (size_t i = 0; i < settings->n_sizes; i++) {
        double seconds;
        struct memtx__cluster *cluster = make_cluster(&seconds, &s, &h, (uint32_t)settings->sizes[i], settings);
        for (size_t j = 0; j < settings->n_shares; j++) {
            compare_at(&h, &s, cluster, settings->shares[j] / 100, seconds);
        }
        memtx__cluster_destroy(cluster);
    }
    memtx__cluster_search_release(&s.cluster);
    memtx__arena_release(&s.arena);
    memtx__map_close(&h.map);
    free(s.blocks);
    free(s.queries);
    free(s.by_exact.scores);
    free(s.by_exact.ids);
    free(s.by_cluster.scores);
    free(s.by_cluster.ids);
}

static void show_usage(void)
{
    (void)fputs("Usage: cluster_recall [--no-sample] [--no-groups] [--rows N] [--sizes LIST] [--shares LIST] "
                "FILE.harvest ..\n",
                stderr);
    exit(2);
}

/* Numbers above 0, with commas between. */
static size_t read_list(double *out, const char *text)
{
    size_t n = 0;
    for (char *end; n < MOST_LIST; text = end + 1) {
        out[n] = strtod(text, &end);
        if (end == text || !(out[n++] > 0) || (*end && *end != ',')) {
            show_usage();
        }
        if (!*end) {
            return n;
        }
    }
    show_usage();
    return 0;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"no-sample", no_argument, NULL, 's'},    {"no-groups", no_argument, NULL, 'g'},
        {"rows", required_argument, NULL, 'r'},   {"sizes", required_argument, NULL, 'c'},
        {"shares", required_argument, NULL, 'p'}, {NULL, 0, NULL, 0}};
    struct settings settings = {.with_sample = true, .with_groups = true};
    settings.n_sizes = read_list(settings.sizes, "8,16,32");
    settings.n_shares = read_list(settings.shares, "1,2,3,5,10");
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        double rows[MOST_LIST];
        switch (option) {
        case 's':
            settings.with_sample = false;
            break;
        case 'g':
            settings.with_groups = false;
            break;
        case 'r':
            (void)read_list(rows, optarg);
            settings.n_rows = (size_t)rows[0];
            break;
        case 'c':
            settings.n_sizes = read_list(settings.sizes, optarg);
            break;
        case 'p':
            settings.n_shares = read_list(settings.shares, optarg);
            break;
        default:
            show_usage();
        }
    }
    if (optind >= argc) {
        show_usage();
    }
    for (int i = optind; i < argc; i++) {
        run_file(argv[i], &settings);
    }
    return 0;
}
