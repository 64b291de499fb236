/* Rows, searchers and the plain search (search_rows.h). */
#include "search_rows.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "math/rows.h"
#include "memtx/status.h"

/* Float32 sums of up to 256 products: relative to what the terms' sizes add up to. */
static const double score_tolerance = 1e-5;

void rows_make(struct rows *rows, size_t n, size_t dim, enum memtx_row_type type, const float *values)
{
    const size_t row_bytes = dim * memtx__row_type_bytes(type), n_blocks = (n + BLOCK_ROWS - 1) / BLOCK_ROWS;
    *rows = (struct rows){.n = n};
    rows->blocks = calloc(n_blocks + 1, sizeof *rows->blocks);
    rows->stored = malloc(n * row_bytes + 1);
    rows->values = malloc((n * dim + 1) * sizeof *rows->values);
    rows->ids = malloc((n + 1) * sizeof *rows->ids);
    memtx__rows_write(rows->stored, type, values, n * dim);
    memtx__rows_read(rows->values, type, rows->stored, n * dim);
    for (size_t i = 0; i < n; i++) {
        rows->ids[i] = (int64_t)(FIRST_ID + i + i / BLOCK_ROWS * GAP);
    }
    for (size_t b = 0; b < n_blocks; b++) {
        size_t first = b * BLOCK_ROWS, n_rows = n - first < BLOCK_ROWS ? n - first : BLOCK_ROWS;
        rows->blocks[b] =
            (struct memtx__row_block){rows->stored + first * row_bytes, (uint64_t)rows->ids[first], n_rows};
    }
    rows->set = (struct memtx__row_set){rows->blocks, n_blocks, type, dim};
}

void rows_free(struct rows *rows)
{
    free(rows->blocks);
    free(rows->stored);
    free(rows->values);
    free(rows->ids);
}

float *random_values(size_t n, uint64_t seed)
{
    struct memtx__rng rng = memtx__rng_create(seed, 0);
    float *values = malloc((n + 1) * sizeof *values);
    for (size_t i = 0; i < n; i++) {
        values[i] = memtx__rng_signed(&rng);
    }
    return values;
}

void searcher_make(struct searcher *searcher, struct memtx__first_pass pass, size_t n_queries, size_t k, size_t dim)
{
    *searcher = (struct searcher){0};
    memtx__exact_take_low(&searcher->exact, &searcher->arena, pass, n_queries, k, dim);
    cr_assert_eq(memtx__arena_reserve(&searcher->arena), 0);
    memtx__exact_take_low(&searcher->exact, &searcher->arena, pass, n_queries, k, dim);
    cr_assert_eq(memtx__exact_prepare(&searcher->exact), 0, "%s", memtx_last_error());
}

void searcher_free(struct searcher *searcher)
{
    memtx__exact_release(&searcher->exact);
    memtx__arena_release(&searcher->arena);
}

struct scored {
    double score, size; /* the sum, and the sum of the terms without sign */
    int64_t id;
};

static int by_rank(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;
    if (x->score != y->score) {
        return x->score > y->score ? -1 : 1;
    }
    return x->id < y->id ? -1 : x->id > y->id;
}

/* All rows for one query, best first; rows without a finite score are left out. */
static size_t plain_search(struct scored *out, const struct rows *rows, const float *query)
{
    size_t n = 0;
    for (size_t i = 0; i < rows->n; i++) {
        struct scored one = {0, 0, rows->ids[i]};
        for (size_t d = 0; d < rows->set.dim; d++) {
            double term = (double)query[d] * (double)rows->values[i * rows->set.dim + d];
            one.score += term;
            one.size += fabs(term);
        }
        if (isfinite(one.score)) {
            out[n++] = one;
        }
    }
    qsort(out, n, sizeof *out, by_rank);
    return n;
}

static const struct scored *find(const struct scored *all, size_t n, int64_t id)
{
    for (size_t i = 0; i < n; i++) {
        if (all[i].id == id) {
            return &all[i];
        }
    }
    return NULL;
}

void check_query(const struct rows *rows, const float *query, const float *scores, const int64_t *ids, size_t k)
{
    struct scored *all = malloc((rows->n + 1) * sizeof *all);
    const size_t n = plain_search(all, rows, query), n_found = k < n ? k : n;
    for (size_t i = 0; i < k; i++) {
        if (i >= n_found) {
            cr_assert(ids[i] == -1 && scores[i] == -INFINITY, "rank %zu of %zu rows: id %lld", i, n, (long long)ids[i]);
            continue;
        }
        const struct scored *found = ids[i] == all[i].id ? &all[i] : find(all, n, ids[i]);
        cr_assert_not_null(found, "id %lld is no row", (long long)ids[i]);
        const double allowed = score_tolerance * (found->size + all[i].size);
        cr_assert_float_eq((double)scores[i], found->score, allowed);
        /* Another row than the plain search's stands here only if the two are as good as equal. */
        cr_assert_leq(fabs(found->score - all[i].score), allowed, "rank %zu: %lld, not %lld", i, (long long)ids[i],
                      (long long)all[i].id);
        for (size_t j = 0; j < i; j++) {
            cr_assert_neq(ids[j], ids[i], "id %lld twice", (long long)ids[i]);
        }
    }
    free(all);
}

enum memtx__precision same_as_plain(const struct rows *rows, struct memtx__first_pass pass, size_t n_queries, size_t k,
                                    uint64_t seed)
{
    const size_t dim = rows->set.dim;
    struct searcher searcher;
    float *queries = random_values(n_queries * dim, seed), *scores = malloc(n_queries * k * sizeof *scores);
    int64_t *ids = malloc(n_queries * k * sizeof *ids);
    searcher_make(&searcher, pass, n_queries, k, dim);
    cr_assert_eq(memtx__exact_search(scores, ids, &searcher.exact, &rows->set, queries, n_queries, k), MEMTX_OK, "%s",
                 memtx_last_error());
    const size_t step = n_queries < 40 ? 1 : n_queries / 40 | 1; /* many are checked by sample */
    for (size_t q = 0; q < n_queries; q += step) {
        check_query(rows, queries + q * dim, scores + q * k, ids + q * k, k);
    }
    const enum memtx__precision made_in = searcher.exact.made_in;
    searcher_free(&searcher);
    free(queries);
    free(scores);
    free(ids);
    return made_in;
}
