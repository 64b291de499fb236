/* Indexes through FAISS: what they find, and that nothing else comes back. What they refuse: test_index_faults.c. */
#include <omp.h>
#include <pthread.h>
#include <unistd.h>

#include "index_rows.h"
#include "ranges.h"

enum { N_ROWS = 3000, K = 10 };

/* A spec of each type, and the recall@10 that it must reach on 3,000 clustered rows: what was seen, less some. A plain
 * scan of a part of the lists at random would give that part. */
static const struct type {
    const char *spec;
    double least;
    bool scans;   /* its answer does not depend on k, but for the end */
    bool is_slow; /* to train: made at one size only */
} types[] = {
    {"faiss:Flat", 1, true, false},
    {"faiss:SQ8", 0.95, true, false},
    {"faiss:SQfp16", 0.99, true, false},
    {"faiss:SQ6", 0.9, true, false},
    {"faiss:SQ4", 0.7, true, false},
    {"faiss:PQ8x4", 0.2, true, false},
    {"faiss:PQ8", 0.4, true, true},
    {"faiss:IVF64,Flat@nprobe=16", 0.95, true, false},
    {"faiss:IVF64,Flat@nprobe=64,mmap=0", 1, true, false},
    {"faiss:IVF64,SQ8@nprobe=16", 0.9, true, false},
    {"faiss:IVF64,SQfp16@nprobe=16", 0.95, true, false},
    {"faiss:IVF64,PQ8x4@nprobe=16", 0.2, true, false},
    {"faiss:HNSW16", 0.8, false, false},
    {"faiss:HNSW16@efSearch=200,efConstruction=100", 0.95, false, false},
    {"faiss:HNSW16,SQ8@efSearch=64", 0.8, false, false},
};
enum { N_TYPES = sizeof types / sizeof types[0] };

static const uint32_t dims[] = {32, 64, 80, 128};

static void check_recall(const struct type *type, uint32_t dim, const float *rows)
{
    enum { N_QUERIES = 200 };
    float *queries = clustered(N_QUERIES, dim, dim, 1);
    void *index = built(type->spec, N_ROWS, rows, dim);
    struct hits want = plain_search(N_QUERIES, queries, K, N_ROWS, rows, dim);
    struct hits got = searched_all(type->spec, index, N_QUERIES, queries, K);
    const double found = recall(&got, &want);
    (void)fprintf(stderr, "# %s dim %u: recall@%d %.3f\n", type->spec, dim, K, found);
    cr_expect(found >= type->least, "%s dim %u: recall@%d %.3f", type->spec, dim, K, found);
    hits_free(&got);
    hits_free(&want);
    resolved(type->spec)->destroy(index);
    free(queries);
}

Test(recall, of_each_type_and_size)
{
    for (size_t d = 0; d < sizeof dims / sizeof dims[0]; d++) {
        float *rows = clustered(N_ROWS, dims[d], dims[d], 0);
        for (size_t t = 0; t < N_TYPES; t++) {
            if (!types[t].is_slow || dims[d] == 64) {
                check_recall(&types[t], dims[d], rows);
            }
        }
        free(rows);
    }
}

/* The options reach FAISS: more lists, or a wider search or build, find more. */
Test(recall, grows_with_the_options)
{
    enum { DIM = 64, N_QUERIES = 200 };
    static const char *const pairs[][2] = {
        {"faiss:IVF64,Flat@nprobe=1", "faiss:IVF64,Flat@nprobe=8"},
        {"faiss:IVF64,Flat", "faiss:IVF64,Flat@nprobe=24"}, /* 4 by default */
        {"faiss:IVF64,Flat@nprobe=1", "faiss:IVF64,Flat"},
        {"faiss:HNSW4@efSearch=16,efConstruction=8", "faiss:HNSW4@efConstruction=8"},
        {"faiss:HNSW4@efSearch=1,efConstruction=8", "faiss:HNSW4@efSearch=300,efConstruction=8"},
        {"faiss:HNSW4@efConstruction=2", "faiss:HNSW4@efConstruction=200"},
    };
    float *rows = scattered(N_ROWS, DIM, 1), *queries = scattered(N_QUERIES, DIM, 2);
    struct hits want = plain_search(N_QUERIES, queries, K, N_ROWS, rows, DIM);
    for (size_t p = 0; p < sizeof pairs / sizeof pairs[0]; p++) {
        double found[2];
        for (size_t i = 0; i < 2; i++) {
            void *index = built(pairs[p][i], N_ROWS, rows, DIM);
            struct hits got = searched_all(pairs[p][i], index, N_QUERIES, queries, K);
            found[i] = recall(&got, &want);
            hits_free(&got);
            resolved(pairs[p][i])->destroy(index);
        }
        cr_expect(found[1] > found[0] + 0.1, "%s %.3f, %s %.3f", pairs[p][0], found[0], pairs[p][1], found[1]);
    }
    hits_free(&want);
    free(queries);
    free(rows);
}

/* A query's budget of lists goes where its best rows are: eight indexes asked together find more than each by itself,
 * in as many lists; and what they find is what is there. */
Test(parts, are_searched_as_one)
{
    enum { DIM = 64, N_PARTS = 8, N = 1000, N_QUERIES = 96, SMALL_K = 30 };
    static const char *const specs[] = {"faiss:IVF100,Flat@nprobe=1", "faiss:IVF100,SQ8@nprobe=1"};
    float *queries = malloc(N_QUERIES * DIM * sizeof *queries), *rows = malloc(N_PARTS * N * DIM * sizeof *rows);
    for (size_t p = 0; p < N_PARTS; p++) { /* each part with centres of its own, and queries near those */
        const size_t n_each = N_QUERIES / N_PARTS * DIM;
        float *some = clustered(N, DIM, 30 + p, 0), *near = clustered(N_QUERIES / N_PARTS, DIM, 30 + p, 1);
        memcpy(rows + p * N * DIM, some, N * DIM * sizeof *rows);
        memcpy(queries + p * n_each, near, n_each * sizeof *near);
        free(near);
        free(some);
    }
    struct hits want = plain_search(N_QUERIES, queries, SMALL_K, N_PARTS * N, rows, DIM);
    for (size_t s = 0; s < sizeof specs / sizeof specs[0]; s++) {
        const struct memtx_index_range all = {0, N};
        struct memtx_index_part parts[N_PARTS];
        void *indexes[N_PARTS];
        struct hits together = hits_make(N_PARTS * N_QUERIES, SMALL_K);
        double found[2] = {0};
        for (size_t p = 0; p < N_PARTS; p++) {
            indexes[p] = built(specs[s], N, rows + p * N * DIM, DIM);
            parts[p] = (struct memtx_index_part){indexes[p], &all, 1};
        }
        cr_assert_eq(
            resolved(specs[s])->search(together.scores, together.ids, parts, N_PARTS, N_QUERIES, queries, SMALL_K), 0,
            "%s", memtx_last_error());
        for (size_t p = 0; p < N_PARTS; p++) {
            struct hits alone = searched_all(specs[s], indexes[p], N_QUERIES, queries, SMALL_K);
            struct hits part = {together.scores + p * N_QUERIES * SMALL_K, together.ids + p * N_QUERIES * SMALL_K,
                                N_QUERIES, SMALL_K};
            for (size_t i = 0; i < N_QUERIES * SMALL_K; i++) {
                const float *query = queries + i / SMALL_K * DIM;
                cr_assert(part.ids[i] < 0 || fabs(dot(query, rows + (p * N + (size_t)part.ids[i]) * DIM, DIM) -
                                                  (double)part.scores[i]) < (s ? 0.5 : 1e-4));
                alone.ids[i] += alone.ids[i] < 0 ? 0 : (int64_t)(p * N);
                part.ids[i] += part.ids[i] < 0 ? 0 : (int64_t)(p * N);
            }
            found[0] += recall(&alone, &want);
            found[1] += recall(&part, &want);
            hits_free(&alone);
            resolved(specs[s])->destroy(indexes[p]);
        }
        (void)fprintf(stderr, "# %s: %.3f alone, %.3f together\n", specs[s], found[0], found[1]);
        cr_expect(found[1] > 0.8 && found[1] > found[0] + 0.1, "%s: %.3f alone, %.3f together", specs[s], found[0],
                  found[1]);
        hits_free(&together);
    }
    hits_free(&want);
    free(queries);
    free(rows);
}

/* All that is chosen may lie in one part: nearly all of its lists then, which FAISS is told of in several turns. */
Test(parts, one_may_hold_all_that_is_chosen)
{
    enum { DIM = 64, N_PARTS = 8, N = 2000, N_QUERIES = 40, LARGE = 5, SMALL_K = 50 };
    const char *spec = "faiss:IVF100,Flat@nprobe=12";
    const struct memtx_index_range all = {0, N};
    float *queries = scattered(N_QUERIES, DIM, 31), *rows = scattered(N_PARTS * N, DIM, 32);
    struct memtx_index_part parts[N_PARTS];
    void *indexes[N_PARTS];
    for (size_t p = 0; p < N_PARTS; p++) {
        for (size_t i = 0; i < N * DIM; i++) {
            rows[p * N * DIM + i] *= p == LARGE ? 1 : 0.01F;
        }
        indexes[p] = built(spec, N, rows + p * N * DIM, DIM);
        parts[p] = (struct memtx_index_part){indexes[p], &all, 1};
    }
    struct hits want = plain_search(N_QUERIES, queries, SMALL_K, N, rows + LARGE * N * DIM, DIM);
    struct hits got = hits_make(N_PARTS * N_QUERIES, SMALL_K);
    cr_assert_eq(resolved(spec)->search(got.scores, got.ids, parts, N_PARTS, N_QUERIES, queries, SMALL_K), 0);
    struct hits part = {got.scores + LARGE * N_QUERIES * SMALL_K, got.ids + LARGE * N_QUERIES * SMALL_K, N_QUERIES,
                        SMALL_K};
    cr_assert_gt(recall(&part, &want), 0.95, "%.3f", recall(&part, &want));
    for (size_t i = 0; i < N_QUERIES * SMALL_K; i++) { /* best first, none twice */
        const bool follows = i % SMALL_K > 0;
        cr_assert(!follows || part.scores[i] < part.scores[i - 1]);
        cr_assert(fabs(dot(queries + i / SMALL_K * DIM, rows + (LARGE * N + (size_t)part.ids[i]) * DIM, DIM) -
                       (double)part.scores[i]) < 1e-3);
    }
    for (size_t p = 0; p < N_PARTS; p++) {
        resolved(spec)->destroy(indexes[p]);
    }
    hits_free(&got);
    hits_free(&want);
    free(queries);
    free(rows);
}

/* A row far from all others is the best of most queries, and lies in a list of which it is no fair part. */
Test(parts, a_row_far_out_is_found)
{
    enum { DIM = 64, N_QUERIES = 200, FAR = 1234 };
    const char *spec = "faiss:IVF64,Flat@nprobe=2";
    float *rows = scattered(N_ROWS, DIM, 21), *queries = scattered(N_QUERIES, DIM, 22);
    for (size_t j = 0; j < DIM; j++) {
        rows[FAR * DIM + j] *= 6;
    }
    void *index = built(spec, N_ROWS, rows, DIM);
    struct hits want = plain_search(N_QUERIES, queries, 1, N_ROWS, rows, DIM);
    struct hits got = searched_all(spec, index, N_QUERIES, queries, 1);
    size_t n_best = 0, n_found = 0;
    for (size_t q = 0; q < N_QUERIES; q++) {
        n_best += want.ids[q] == FAR;
        n_found += want.ids[q] == FAR && got.ids[q] == FAR;
    }
    (void)fprintf(stderr, "# %zu of %zu\n", n_found, n_best);
    cr_assert_gt(n_best, 60);
    cr_assert_geq(n_found * 10, n_best * 9, "%zu of %zu", n_found, n_best);
    hits_free(&got);
    hits_free(&want);
    resolved(spec)->destroy(index);
    free(queries);
    free(rows);
}

/* Both ways in which FAISS scans (up to 19 queries row by row, else by products), and more neighbours than rows. */
Test(flat, equals_the_plain_search)
{
    enum { DIM = 80, MOST_QUERIES = 1536 };
    static const struct {
        size_t n_q, k, n;
    } cases[] = {{1, 1, 1},     {1, 40, 3},      {19, 10, 500},          {20, 10, 500},
                 {7, 150, 900}, {300, 150, 900}, {MOST_QUERIES, 32, 700}};
    float *rows = clustered(1000, DIM, 2, 0), *queries = clustered(MOST_QUERIES, DIM, 2, 1);
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        const size_t n_q = cases[c].n_q, k = cases[c].k;
        void *index = built("faiss:Flat", cases[c].n, rows, DIM);
        struct hits got = searched_all("faiss:Flat", index, n_q, queries, k);
        struct hits want = plain_search(n_q, queries, k, cases[c].n, rows, DIM);
        for (size_t i = 0; i < n_q * k; i++) {
            const float a = got.scores[i], b = want.scores[i];
            cr_assert(a == b || fabsf(a - b) < 1e-4F, "case %zu, hit %zu: %g, %g", c, i, (double)a, (double)b);
            /* another row only where two are as good */
            cr_assert(got.ids[i] == want.ids[i] ||
                          fabs(dot(queries + i / k * DIM, rows + got.ids[i] * DIM, DIM) - (double)b) < 1e-4,
                      "case %zu, hit %zu", c, i);
        }
        hits_free(&got);
        hits_free(&want);
        resolved("faiss:Flat")->destroy(index);
    }
    free(queries);
    free(rows);
}

/* ---- ranges ----------------------------------------------------------------------------------- */

/* Random ranges over n rows, some empty, with about `share` of the rows in them. */
static size_t random_ranges(struct memtx_index_range *ranges, size_t most, uint64_t n, double share,
                            struct memtx__rng *rng)
{
    size_t n_ranges = 0;
    uint64_t at = 0;
    const uint64_t step = n / most + 1;
    while (at < n && n_ranges < most) {
        const uint64_t span = 1 + memtx__rng_below(rng, 2 * step), left = n - at;
        const uint64_t wanted = (uint64_t)((double)span * share + 0.5);
        ranges[n_ranges++] = (struct memtx_index_range){at, wanted < left ? wanted : left};
        at += span;
    }
    return n_ranges;
}

/* Which rows lie in the ranges: visible[N_STREWN]. */
enum { N_STREWN = 20000 };

static void mark(bool *visible, const struct memtx_index_range *ranges, size_t n_ranges)
{
    memset(visible, 0, N_STREWN * sizeof *visible);
    for (size_t i = 0; i < n_ranges; i++) {
        memset(visible + ranges[i].first, true, ranges[i].n_rows);
    }
}

/* In the ranges, best first, ties by row, none twice, what is missing at the end. Returns how many there are. */
static size_t check_hits(const struct type *type, const struct hits *hits, size_t q, const bool *visible)
{
    const float *scores = hits->scores + q * hits->k;
    const int64_t *ids = hits->ids + q * hits->k;
    size_t n = 0;
    while (n < hits->k && ids[n] >= 0) {
        cr_assert(ids[n] < N_STREWN && visible[ids[n]], "%s: row %ld", type->spec, (long)ids[n]);
        cr_assert(n == 0 || scores[n - 1] > scores[n] || (scores[n - 1] == scores[n] && ids[n - 1] < ids[n]), "%s",
                  type->spec);
        for (size_t i = 0; i < n; i++) {
            cr_assert_neq(ids[i], ids[n], "%s", type->spec);
        }
        n++;
    }
    for (size_t i = n; i < hits->k; i++) {
        cr_assert(ids[i] == -1 && scores[i] == -INFINITY, "%s: hit %zu", type->spec, i);
    }
    return n;
}

/* The index's own ranking of all rows, less those outside, must begin with what a search in ranges gives. */
static void check_is_head(const struct type *type, const struct hits *hits, size_t q, size_t n_found,
                          const struct hits *all, const bool *visible)
{
    const int64_t *ranking = all->ids + q * all->k;
    size_t at = 0;
    for (size_t i = 0; i < n_found; i++, at++) {
        while (at < all->k && ranking[at] >= 0 && !visible[ranking[at]]) {
            at++;
        }
        cr_assert(at < all->k && ranking[at] == hits->ids[q * hits->k + i], "%s: query %zu, hit %zu", type->spec, q, i);
    }
}

/* What index_ranges_fetch promises: of the first so many of the ranking all visible ones come back. */
static size_t promised(const struct hits *all, size_t q, size_t k, size_t n_fetched, const bool *visible)
{
    size_t n = 0;
    for (size_t i = 0; i < n_fetched; i++) {
        const int64_t id = all->ids[q * all->k + i];
        n += id >= 0 && visible[id];
    }
    return n < k ? n : k;
}

static void check_ranges(const struct type *type, const void *index, const float *queries, const struct hits *all,
                         struct memtx__rng *rng)
{
    enum { MOST_RANGES = 40, N_QUERIES = 30 };
    static const size_t ks[] = {1, 10, 100};
    static bool visible[N_STREWN];
    const double share = (double)memtx__rng_below(rng, 101) / 100;
    struct memtx_index_range ranges[MOST_RANGES];
    const size_t n_ranges = random_ranges(ranges, 1 + (size_t)memtx__rng_below(rng, MOST_RANGES), N_ROWS, share, rng);
    const size_t k = ks[memtx__rng_below(rng, 3)];
    uint64_t n_visible = 0;
    cr_assert_eq(index_ranges_check(&n_visible, ranges, n_ranges, N_ROWS), 0);
    mark(visible, ranges, n_ranges);
    struct hits hits = searched(type->spec, index, N_QUERIES, queries, k, ranges, n_ranges);
    for (size_t q = 0; q < N_QUERIES; q++) {
        const size_t n_found = check_hits(type, &hits, q, visible);
        if (type->scans && n_visible) {
            const size_t n_fetched = index_ranges_fetch(k, N_ROWS, n_visible);
            const size_t wanted = promised(all, q, k, n_fetched, visible);
            check_is_head(type, &hits, q, n_found, all, visible);
            cr_assert(n_found == wanted, "%s: %zu found, %zu promised", type->spec, n_found, wanted);
        }
    }
    hits_free(&hits);
}

Test(ranges, nothing_outside_and_what_is_promised)
{
    enum { DIM = 32, N_QUERIES = 30, N_TRIALS = 60 };
    float *rows = clustered(N_ROWS, DIM, 3, 0), *queries = clustered(N_QUERIES, DIM, 3, 1);
    struct memtx__rng rng = memtx__rng_create(4, 0);
    for (size_t t = 0; t < N_TYPES; t++) {
        if (types[t].is_slow) {
            continue;
        }
        void *index = built(types[t].spec, N_ROWS, rows, DIM);
        struct hits all = searched_all(types[t].spec, index, N_QUERIES, queries, N_ROWS);
        for (size_t i = 0; i < N_TRIALS; i++) {
            check_ranges(&types[t], index, queries, &all, &rng);
        }
        hits_free(&all);
        resolved(types[t].spec)->destroy(index);
    }
    free(queries);
    free(rows);
}

/* Where the visible rows are strewn at random, k are found; so with many queries, in several blocks of scratch, where
 * each query has its own answer. */
Test(ranges, k_remain_where_rows_are_hidden_at_random)
{
    enum { DIM = 32, N_QUERIES = 1536, N_LAST = 20, N = 32 };
    static bool visible[N_STREWN];
    float *rows = clustered(N_STREWN, DIM, 5, 0), *queries = clustered(N_QUERIES, DIM, 5, 1);
    struct memtx_index_range *ranges = malloc(N_STREWN * sizeof *ranges);
    void *index = built("faiss:SQ8", N_STREWN, rows, DIM);
    static const uint64_t one_in[] = {2, 10};
    for (size_t s = 0; s < 2; s++) {
        struct memtx__rng rng = memtx__rng_create(6, s);
        size_t n_ranges = 0;
        for (uint64_t i = 0; i < N_STREWN; i++) {
            if (memtx__rng_below(&rng, one_in[s]) == 0) {
                ranges[n_ranges++] = (struct memtx_index_range){i, 1};
            }
        }
        mark(visible, ranges, n_ranges);
        struct hits hits = searched("faiss:SQ8", index, N_QUERIES, queries, N, ranges, n_ranges);
        for (size_t q = 0; q < N_QUERIES; q++) {
            cr_assert_eq(check_hits(&types[1], &hits, q, visible), N, "1 in %lu, query %zu", (unsigned long)one_in[s],
                         q);
        }
        struct hits last =
            searched("faiss:SQ8", index, N_LAST, queries + (N_QUERIES - N_LAST) * DIM, N, ranges, n_ranges);
        cr_assert_eq(memcmp(last.ids, hits.ids + (N_QUERIES - N_LAST) * N, N_LAST * N * sizeof *last.ids), 0);
        hits_free(&last);
        hits_free(&hits);
    }
    resolved("faiss:SQ8")->destroy(index);
    free(ranges);
    free(queries);
    free(rows);
}

Test(ranges, none_and_empty_ones_and_no_queries)
{
    enum { DIM = 32, N_QUERIES = 5 };
    static const bool visible[N_STREWN];
    float *rows = clustered(N_ROWS, DIM, 7, 0);
    for (size_t t = 0; t < N_TYPES; t++) {
        if (types[t].is_slow) {
            continue;
        }
        const struct memtx_index_range empty[] = {{0, 0}, {7, 0}, {N_ROWS, 0}}, all = {0, N_ROWS};
        void *index = built(types[t].spec, N_ROWS, rows, DIM);
        const struct memtx_index_part part = {index, &all, 1};
        struct hits none = searched(types[t].spec, index, N_QUERIES, rows, K, NULL, 0);
        struct hits nothing = searched(types[t].spec, index, N_QUERIES, rows, K, empty, 3);
        for (size_t q = 0; q < N_QUERIES; q++) {
            cr_assert_eq(check_hits(&types[t], &none, q, visible), 0);
            cr_assert_eq(check_hits(&types[t], &nothing, q, visible), 0);
        }
        cr_assert_eq(resolved(types[t].spec)->search(NULL, NULL, &part, 1, 0, NULL, K), 0);
        cr_assert_eq(resolved(types[t].spec)->search(NULL, NULL, &part, 1, N_QUERIES, rows, 0), 0);
        hits_free(&none);
        hits_free(&nothing);
        resolved(types[t].spec)->destroy(index);
    }
    free(rows);
}

Test(ranges, an_index_without_rows_finds_none)
{
    static const struct memtx_index_range all = {0, 0};
    static const char *const specs[] = {"faiss:Flat", "faiss:HNSW8", "faiss:IVF4,Flat", "faiss:PQ8x4"};
    const float query[32] = {1};
    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
        void *index = NULL;
        cr_assert_eq(resolved(specs[i])->create(&index, specs[i], 32), 0);
        struct hits hits = searched(specs[i], index, 1, query, 2, &all, 1);
        cr_assert(hits.ids[0] == -1 && hits.ids[1] == -1 && hits.scores[0] == -INFINITY);
        hits_free(&hits);
        resolved(specs[i])->destroy(index);
    }
}

/* ---- on disk ---------------------------------------------------------------------------------- */

enum { N_SAVED = 1000 };

static void check_same(const char *spec, const struct hits *a, const struct hits *b)
{
    cr_assert_eq(memcmp(a->scores, b->scores, a->n_q * a->k * sizeof *a->scores), 0, "%s", spec);
    cr_assert_eq(memcmp(a->ids, b->ids, a->n_q * a->k * sizeof *a->ids), 0, "%s", spec);
}

/* How often this process has the file mapped. */
static int times_mapped(const char *path)
{
    char line[4096];
    int n = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    cr_assert_not_null(maps);
    while (fgets(line, sizeof line, maps)) {
        n += strstr(line, path) != NULL;
    }
    (void)fclose(maps);
    return n;
}

/* Two blobs of one file behind an odd offset, other bytes between and behind; closed and removed before the search. */
static void check_loaded(const char *spec, const unsigned char *bytes, size_t n_bytes, uint32_t dim,
                         const struct hits *want, const float *queries)
{
    static const char noise[4001] = "noise";
    char path[] = "/tmp/memtx-index-XXXXXX";
    FILE *file = fdopen(mkstemp(path), "w+b");
    void *loaded[2];
    cr_assert_not_null(file);
    for (size_t i = 0; i < 2; i++) {
        cr_assert_eq(fwrite(noise, 1, sizeof noise, file), sizeof noise);
        cr_assert_eq(fwrite(bytes, 1, n_bytes, file), n_bytes);
    }
    cr_assert_eq(fwrite(noise, 1, sizeof noise, file), sizeof noise);
    for (size_t i = 0; i < 2; i++) {
        const size_t at = sizeof noise + i * (sizeof noise + n_bytes);
        cr_assert_eq(fseek(file, (long)at, SEEK_SET), 0);
        cr_assert_eq(resolved(spec)->load(&loaded[i], spec, dim, file, n_bytes), 0, "%s", memtx_last_error());
        cr_assert_eq(ftell(file), (long)(at + n_bytes));
    }
    const bool maps = strstr(spec, "IVF") && !strstr(spec, "mmap=0");
    cr_assert_eq(unlink(path), 0);
    (void)fclose(file);
    cr_assert_eq(times_mapped(path), maps ? 2 : 0, "%s", spec);
    for (size_t i = 0; i < 2; i++) {
        struct memtx_index_facts facts;
        struct hits got = searched_all(spec, loaded[i], want->n_q, queries, want->k);
        check_same(spec, &got, want);
        resolved(spec)->info(&facts, loaded[i]);
        cr_assert_eq(facts.n_mapped_bytes > 0, maps, "%s", spec);
        cr_assert(facts.n_rows == N_SAVED && facts.dim == dim, "%s", spec);
        hits_free(&got);
        resolved(spec)->destroy(loaded[i]);
    }
    cr_assert_eq(times_mapped(path), 0, "%s", spec);
}

Test(disk, what_was_saved_answers_bit_for_bit)
{
    enum { N_QUERIES = 64 };
    for (size_t t = 0; t < N_TYPES; t++) {
        const uint32_t dim = dims[t % 4];
        if (types[t].is_slow) {
            continue;
        }
        float *rows = clustered(N_SAVED, dim, 8, 0), *queries = clustered(N_QUERIES, dim, 8, 1);
        void *index = built(types[t].spec, N_SAVED, rows, dim), *again = built(types[t].spec, N_SAVED, rows, dim);
        size_t n_bytes = 0, n_bytes_again = 0;
        unsigned char *bytes = saved(&n_bytes, types[t].spec, index);
        unsigned char *bytes_again = saved(&n_bytes_again, types[t].spec, again);
        cr_assert(n_bytes == n_bytes_again && memcmp(bytes, bytes_again, n_bytes) == 0, "%s: made twice, not the same",
                  types[t].spec);
        struct hits want = searched_all(types[t].spec, index, N_QUERIES, queries, K);
        check_loaded(types[t].spec, bytes, n_bytes, dim, &want, queries);
        struct memtx_index_facts facts;
        resolved(types[t].spec)->info(&facts, index);
        cr_expect(fabs((double)facts.n_bytes / (double)n_bytes - 1) < 0.02, "%s: %lu bytes estimated, %zu saved",
                  types[t].spec, (unsigned long)facts.n_bytes, n_bytes);
        hits_free(&want);
        free(bytes);
        free(bytes_again);
        resolved(types[t].spec)->destroy(index);
        resolved(types[t].spec)->destroy(again);
        free(queries);
        free(rows);
    }
}

/* ---- threads ---------------------------------------------------------------------------------- */

/* The tests run with one OpenMP thread, or with many other tests beside them they would wait for each other in FAISS's
 * many small regions. With two, HNSW becomes the same graph, and each type answers as with one. */
Test(threads, of_OpenMP_change_nothing)
{
    enum { DIM = 32, N_QUERIES = 40 };
    static const char *const specs[] = {"faiss:HNSW8", "faiss:HNSW8,SQ8", "faiss:SQ8", "faiss:IVF64,SQ8@nprobe=8"};
    float *rows = clustered(N_ROWS, DIM, 12, 0), *queries = clustered(N_QUERIES, DIM, 12, 1);
    for (size_t s = 0; s < sizeof specs / sizeof specs[0]; s++) {
        size_t n_bytes[2];
        unsigned char *bytes[2];
        struct hits hits[2];
        void *index = NULL;
        for (size_t i = 0; i < 2; i++) {
            const bool is_graph = strstr(specs[s], "HNSW") != NULL;
            omp_set_num_threads(is_graph ? 1 + (int)i : 1);
            if (i == 0 || is_graph) {
                resolved(specs[s])->destroy(index);
                index = built(specs[s], N_ROWS, rows, DIM);
                cr_assert_eq(omp_get_max_threads(), 1 + (is_graph ? (int)i : 0), "%s: threads are put back", specs[s]);
            }
            omp_set_num_threads(1 + (int)i);
            bytes[i] = saved(&n_bytes[i], specs[s], index);
            hits[i] = searched_all(specs[s], index, N_QUERIES, queries, K);
        }
        cr_expect(n_bytes[0] == n_bytes[1] && memcmp(bytes[0], bytes[1], n_bytes[0]) == 0, "%s", specs[s]);
        check_same(specs[s], &hits[0], &hits[1]);
        for (size_t i = 0; i < 2; i++) {
            hits_free(&hits[i]);
            free(bytes[i]);
        }
        resolved(specs[s])->destroy(index);
    }
    free(queries);
    free(rows);
}

struct job {
    const char *spec;
    const void *index;
    const float *queries;
    const struct hits *want;
};

static void *search_often(void *argument)
{
    const struct job *job = argument;
    for (int i = 0; i < 20; i++) {
        struct hits got = searched_all(job->spec, job->index, job->want->n_q, job->queries, job->want->k);
        check_same(job->spec, &got, job->want);
        hits_free(&got);
    }
    return NULL;
}

Test(threads, search_one_index_at_once)
{
    enum { DIM = 64, N_QUERIES = 64, N_THREADS = 3 };
    static const char *const specs[] = {"faiss:Flat", "faiss:HNSW16", "faiss:IVF64,SQ8@nprobe=8"};
    float *rows = clustered(N_ROWS, DIM, 9, 0), *queries = clustered(N_QUERIES, DIM, 9, 1);
    for (size_t s = 0; s < sizeof specs / sizeof specs[0]; s++) {
        void *index = built(specs[s], N_ROWS, rows, DIM), *mapped = NULL;
        FILE *file = tmpfile();
        cr_assert_eq(resolved(specs[s])->save(index, file), 0);
        const long n_bytes = ftell(file);
        rewind(file);
        cr_assert_eq(resolved(specs[s])->load(&mapped, specs[s], DIM, file, (uint64_t)n_bytes), 0);
        (void)fclose(file);
        struct hits want = searched_all(specs[s], index, N_QUERIES, queries, K);
        struct job job = {specs[s], mapped, queries, &want};
        pthread_t threads[N_THREADS];
        for (size_t i = 0; i < N_THREADS; i++) {
            cr_assert_eq(pthread_create(&threads[i], NULL, search_often, &job), 0);
        }
        for (size_t i = 0; i < N_THREADS; i++) {
            cr_assert_eq(pthread_join(threads[i], NULL), 0);
        }
        hits_free(&want);
        resolved(specs[s])->destroy(index);
        resolved(specs[s])->destroy(mapped);
    }
    free(queries);
    free(rows);
}
