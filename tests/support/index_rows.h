/* Rows in clusters, a plain search over them, and building an index: for the tests of indexes. */
#ifndef MEMTX_INDEX_ROWS_H
#define MEMTX_INDEX_ROWS_H

#include <criterion/criterion.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "indexes.h"

enum { N_CLUSTERS = 60 };

/* n points about N_CLUSTERS centres, which `seed` fixes; `stream` chooses the points. The caller's. */
static inline float *clustered(size_t n, size_t dim, uint64_t seed, uint64_t stream)
{
    struct memtx__rng centres = memtx__rng_create(seed, 0), points = memtx__rng_create(seed, stream + 1);
    float *centre = malloc(N_CLUSTERS * dim * sizeof *centre), *rows = malloc((n * dim + 1) * sizeof *rows);
    for (size_t i = 0; i < N_CLUSTERS * dim; i++) {
        centre[i] = memtx__rng_signed(&centres);
    }
    for (size_t i = 0; i < n; i++) {
        const float *c = centre + memtx__rng_below(&points, N_CLUSTERS) * dim;
        for (size_t j = 0; j < dim; j++) {
            rows[i * dim + j] = c[j] + 0.5F * memtx__rng_signed(&points);
        }
    }
    free(centre);
    return rows;
}

/* n points anywhere; the caller's. */
static inline float *scattered(size_t n, size_t dim, uint64_t seed)
{
    struct memtx__rng rng = memtx__rng_create(seed, 0);
    float *rows = malloc((n * dim + 1) * sizeof *rows);
    for (size_t i = 0; i < n * dim; i++) {
        rows[i] = memtx__rng_signed(&rng);
    }
    return rows;
}

static inline const struct memtx_index_operations *resolved(const char *spec)
{
    const struct memtx_index_operations *operations = NULL;
    cr_assert_eq(memtx_index_resolve(&operations, spec), 0, "%s", memtx_last_error());
    return operations;
}

/* Checked, created, trained on all rows, which are then added in two parts. */
static inline void *built(const char *spec, size_t n, const float *rows, uint32_t dim)
{
    const struct memtx_index_operations *operations = resolved(spec);
    void *index = NULL;
    const size_t half = n / 2;
    cr_assert_eq(operations->check(spec, dim, n), 0, "%s", memtx_last_error());
    cr_assert_eq(operations->create(&index, spec, dim), 0, "%s", memtx_last_error());
    cr_assert_eq(operations->train(index, n, rows), 0, "%s", memtx_last_error());
    cr_assert_eq(operations->add(index, half, rows), 0, "%s", memtx_last_error());
    cr_assert_eq(operations->add(index, n - half, rows + half * dim), 0, "%s", memtx_last_error());
    return index;
}

/* What a search gave. */
struct hits {
    float *scores; /* [n_q][k] */
    int64_t *ids;
    size_t n_q, k;
};

static inline void hits_free(struct hits *hits)
{
    free(hits->scores);
    free(hits->ids);
}

static inline struct hits hits_make(size_t n_q, size_t k)
{
    struct hits hits = {.n_q = n_q, .k = k};
    hits.scores = malloc((n_q * k + 1) * sizeof *hits.scores);
    hits.ids = malloc((n_q * k + 1) * sizeof *hits.ids);
    return hits;
}

static inline struct hits searched(const char *spec, const void *index, size_t n_q, const float *queries, size_t k,
                                   const struct memtx_index_range *ranges, size_t n_ranges)
{
    struct hits hits = hits_make(n_q, k);
    const struct memtx_index_part part = {index, ranges, n_ranges};
    cr_assert_eq(resolved(spec)->search(hits.scores, hits.ids, &part, 1, n_q, queries, k), 0, "%s", memtx_last_error());
    return hits;
}

static inline struct hits searched_all(const char *spec, const void *index, size_t n_q, const float *queries, size_t k)
{
    struct memtx_index_facts facts;
    resolved(spec)->info(&facts, index);
    const struct memtx_index_range all = {0, facts.n_rows};
    return searched(spec, index, n_q, queries, k, &all, 1);
}

static inline double dot(const float *a, const float *b, size_t dim)
{
    double sum = 0;
    for (size_t j = 0; j < dim; j++) {
        sum += (double)a[j] * (double)b[j];
    }
    return sum;
}

/* The k best of n rows for each query by plain search in double, the lower row first where scores are equal. */
static inline struct hits plain_search(size_t n_q, const float *queries, size_t k, size_t n, const float *rows,
                                       size_t dim)
{
    struct hits hits = hits_make(n_q, k);
    double *best = malloc(k * sizeof *best);
    for (size_t q = 0; q < n_q; q++) {
        int64_t *ids = hits.ids + q * k;
        size_t n_held = 0;
        for (size_t i = 0; i < n; i++) {
            const double score = dot(queries + q * dim, rows + i * dim, dim);
            size_t at = n_held < k ? n_held++ : k;
            for (; at > 0 && best[at - 1] < score; at--) {
                if (at < k) {
                    best[at] = best[at - 1];
                    ids[at] = ids[at - 1];
                }
            }
            if (at < k) {
                best[at] = score;
                ids[at] = (int64_t)i;
            }
        }
        for (size_t j = 0; j < k; j++) {
            hits.scores[q * k + j] = j < n_held ? (float)best[j] : -INFINITY;
            ids[j] = j < n_held ? ids[j] : -1;
        }
    }
    free(best);
    return hits;
}

/* The share of `want`'s rows that `got` has. */
static inline double recall(const struct hits *got, const struct hits *want)
{
    size_t n_found = 0;
    for (size_t q = 0; q < want->n_q; q++) {
        for (size_t i = 0; i < want->k; i++) {
            for (size_t j = 0; j < got->k; j++) {
                n_found += got->ids[q * got->k + j] == want->ids[q * want->k + i];
            }
        }
    }
    return (double)n_found / (double)(want->n_q * want->k);
}

/* The bytes that save writes, the caller's. */
static inline unsigned char *saved(size_t *n_bytes, const char *spec, const void *index)
{
    FILE *file = tmpfile();
    cr_assert_not_null(file);
    cr_assert_eq(resolved(spec)->save(index, file), 0, "%s", memtx_last_error());
    *n_bytes = (size_t)ftell(file);
    unsigned char *bytes = malloc(*n_bytes);
    rewind(file);
    cr_assert_eq(fread(bytes, 1, *n_bytes, file), *n_bytes);
    (void)fclose(file);
    return bytes;
}

#endif
