/* A memory that a test fills and asks by hand: one layer, random rows that are kept beside it, queries, and a check of
 * everything that one attend answers against the definition, in double. What goes wrong fails the test. */
#ifndef MEMTX_TESTS_HAND_H
#define MEMTX_TESTS_HAND_H

#include "memory/memory.h"

enum { LAYER = 1, OTHER_LAYER = 2, H = 4, G = 2, D = 8, GROUP = H / G, MOST_Q = 16, MOST_K = 64 };

struct hand {
    const char *path; /* under which the store is made, a temporary one; NULL: on the heap */
    bool is_kept;     /* `path` is the store's own directory, and stays */
    struct memtx_store_spec spec;
    struct memtx_store_options store_options;
    struct memtx_memory_options options;
    memtx_store *store;
    memtx_memory *memory;
    float *keys, *values; /* what was appended, [n_rows][G][D], by row id */
    uint64_t *positions;
    size_t n_rows;
};

struct hand hand_default(void);     /* on the heap, f32, k = 5, delta = 100 */
void hand_open(struct hand *hand);  /* a reader opens the store read-only, and no document */
void hand_leave(struct hand *hand); /* closes memory and store, and keeps what was appended */
void hand_close(struct hand *hand);

/* Appends n random rows; the first value of a row's head is 1,000 * head + id, and its token 7 * id. */
void hand_append(struct hand *hand, size_t n, uint64_t first_position);

/* What was asked, and the answers. */
extern float V_mem[MOST_Q][H][D], LSE_mem[MOST_Q][H];
extern struct memtx_hit hits[MOST_Q * H * MOST_K];
extern float queries[MOST_Q][H][D];
extern uint64_t query_positions[MOST_Q];
const struct memtx_hit *hits_of(const struct hand *hand, size_t q, size_t head);

/* Asks n_q random queries that stand at `position` and behind; ends the segment. */
void hand_attend(struct hand *hand, size_t n_q, uint64_t position, uint64_t seed);

/* Float32 sums of eight products of numbers below two. */
static const double logit_tolerance = 1e-5;

/* Everything one attend answered, against the rows that were appended: first_row .. end are those to be seen. */
void check_answer(const struct hand *hand, size_t n_q, size_t first_row, size_t end);

#endif
