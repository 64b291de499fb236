/* A memory that asks, over a store of the known stream (tests/crash/stream.h) to which another goes on appending: each
 * segment is judged by itself, whole. */
#ifndef MEMTX_TESTS_STRESS_ASK_H
#define MEMTX_TESTS_STRESS_ASK_H

#include "stream.h"

enum { STRESS_MOST_ROWS = 1024, STRESS_QUERIES = 4, STRESS_K = 4 };

struct stress_ask_counts {
    uint64_t n_segments;
    uint64_t n_rows; /* of all segments, each in every layer and head */
};

/* Large, so not for the stack. */
struct stress_asker {
    memtx_memory *memory;
    uint64_t capacity;
    uint64_t n_glances; /* before a segment: 0, or what the caller sets */
    struct memtx__rng rng;
    uint64_t n_store_rows; /* of the store, as the newest segment saw it */
    struct stress_ask_counts counts;
    int64_t ids[STRESS_MOST_ROWS];
    float keys[STRESS_MOST_ROWS * CRASH_HEAD_SIZE];
    float values[STRESS_MOST_ROWS * CRASH_HEAD_SIZE];
};

/* Opens a reader over the store, which must have the capacity: 1..STRESS_MOST_ROWS. What is sought changes with the
 * seed. *out is to be closed after a failure too; counts and n_store_rows go on from what stands there. */
int stress_asker_open(struct stress_asker *out, memtx_store *store, uint64_t capacity, uint64_t seed);
void stress_asker_close(struct stress_asker *asker);

/* The parts of a segment, for who waits in between: begin, judge as often as one likes, end. */
int stress_ask_begin(struct stress_asker *asker);
/* What is visible: documents, extents and the first row are those of the stream, and no row that an earlier segment saw
 * has been taken back; each visible row, gathered from each layer and head, is the one it claims to be, document and
 * position too; and queries that are keys of rows find those, and nothing that is not visible. MEMTX_E_CORRUPT with the
 * first difference, or what the memory said. */
int stress_ask_judge(struct stress_asker *asker);
void stress_ask_end(struct stress_asker *asker);

/* A segment, after n_glances snapshots that are only taken: half of them are judged a second time after up to 20 ms, in which the writer frees what it may. */
int stress_ask(struct stress_asker *asker);

#endif
