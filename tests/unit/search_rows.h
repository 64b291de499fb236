/* Rows as a search sees them, a searcher with its arena, and the plain search in double that exact search is held
 * against. Shared by the tests of search/. */
#ifndef MEMTX_TESTS_SEARCH_ROWS_H
#define MEMTX_TESTS_SEARCH_ROWS_H

#include "search/exact.h"

enum { FIRST_ID = 1000, BLOCK_ROWS = 700, GAP = 50 };

/* Rows in blocks of BLOCK_ROWS with gaps of dead ids between, in their type and as what the type makes of them. */
struct rows {
    struct memtx__row_set set;
    struct memtx__row_block *blocks;
    unsigned char *stored;
    float *values; /* [n][dim] */
    int64_t *ids;
    size_t n;
};

void rows_make(struct rows *rows, size_t n, size_t dim, enum memtx_row_type type, const float *values);
void rows_free(struct rows *rows);

/* Numbers in [-1, 1), to be freed. */
float *random_values(size_t n, uint64_t seed);

/* A searcher with its arena. */
struct searcher {
    struct memtx__exact exact;
    struct memtx__arena arena;
};

void searcher_make(struct searcher *searcher, struct memtx__first_pass pass, size_t n_queries, size_t k, size_t dim);
void searcher_free(struct searcher *searcher);

/* Whether what was found for a query is what the plain search finds: the same ids but for rows that score as good as
 * equal, scores to the tolerance, what is missing as -1. */
void check_query(const struct rows *rows, const float *query, const float *scores, const int64_t *ids, size_t k);

/* Searches with n_queries random queries and checks them, many of them by sample; gives what the first pass was made
 * in. */
enum memtx__precision same_as_plain(const struct rows *rows, struct memtx__first_pass pass, size_t n_queries, size_t k,
                                    uint64_t seed);

#endif
