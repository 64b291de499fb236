/* The cluster index under test: rows, an index over them, a searcher, and the plain specification of its answers. What
 * goes wrong fails the test.
 *
 * Rows and queries are small whole numbers, so that sums are exact in any order and answers can be compared to the
 * bit, ties included.
 */
#ifndef MEMTX_TESTS_CLUSTER_FIXTURE_H
#define MEMTX_TESTS_CLUSTER_FIXTURE_H

#include "search/cluster.h"

enum { DIM = 8, BLOCK_ROWS = 100, CLUSTER_ROWS = 7, CHUNK = 30, MOST_Q = 96, MOST_K = 200, FIRST_BLOCK = 3 };
/* Some rows before the first block, and some behind the last. */
enum { FIRST_ID = FIRST_BLOCK * BLOCK_ROWS - 20, N_ROWS = 1263 };

struct fixture {
    enum memtx_row_type type;
    float *values;         /* [N_ROWS][DIM], as the type has them */
    unsigned char *stored; /* the same, as they are kept */
    struct memtx__row_block blocks[N_ROWS];
    struct memtx__row_set rows;
    struct memtx__cluster_options options; /* of the index; fixture_options unless a test wants others */
    struct memtx__cluster *cluster;
    struct memtx__cluster_search search;
    float queries[MOST_Q * DIM];
    size_t n_sample; /* of the queries, the first so many, by which the index is made */
};

struct answer {
    float scores[MOST_Q * MOST_K];
    int64_t ids[MOST_Q * MOST_K];
};

struct memtx__cluster_options fixture_options(void);

/* Random whole numbers from -most to most; the index is made by whoever has changed them, or left them as they are. */
struct fixture *fixture_make_rows(enum memtx_row_type type, uint64_t most, uint64_t seed);
void fixture_make_index(struct fixture *f);
struct fixture *fixture_make(enum memtx_row_type type, uint64_t seed); /* both, of numbers up to 2 */
void fixture_unmake(struct fixture *f);

/* Rows i of which (i + shift) % step < seen are to be seen, in pieces that end at chunks of CHUNK rows too. */
void fixture_see(struct fixture *f, size_t shift, size_t step, size_t seen);

/* An index of all full blocks of the rows. */
struct memtx__cluster *fixture_cluster(const struct memtx__row_set *rows, const struct memtx__cluster_options *options,
                                       const float *sample, size_t n);

void fixture_ask(struct answer *out, struct fixture *f, size_t n_queries, size_t k, double share);

/* With a sample of queries spreads are any numbers; they get few digits, so that sums stay exact. And no two are equal:
 * clusters of one row often promise the same, and groups do not break ties by the number. Twice is as good as once. */
void round_spreads(struct fixture *f);

/* What was answered, against the specification; the two others ask too. */
void check_answers(const struct answer *answer, const struct fixture *f, size_t n_queries, size_t k, double share);
void same_as_specified(struct fixture *f, size_t n_queries, size_t k, double share);

/* A share of 1 against exact search. */
void same_as_exact(struct fixture *f, size_t n_queries, size_t k);

#endif
