/* A known stream: what the crash and fault campaigns append to a store and look for in it afterwards.
 *
 * Each number of a row follows from the row's id, document and position and from its layer, kv head and place in the
 * head, so that a row can be judged on its own: one that stands at another's place, or is of another time, is seen. The
 * documents of a store have ascending ids and follow each other in its rows; how long they are is the writer's seed,
 * which a check need not know.
 */
#ifndef MEMTX_TESTS_CRASH_STREAM_H
#define MEMTX_TESTS_CRASH_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memtx/store.h"

enum {
    CRASH_LAYERS = 3, /* of which 0 and 2 are kept */
    CRASH_HEADS = 4,
    CRASH_KV_HEADS = 2,
    CRASH_HEAD_SIZE = 128, /* 255 rows fill a chunk */
    CRASH_MOST_ROWS = 64   /* of a segment */
};

struct crash_row {
    uint64_t id;
    uint64_t document;
    uint64_t position;
};

/* What a store of the stream is for; rope_factors is static. */
struct memtx_store_spec crash_spec(void);

/* Where row i of a document stands: the text leaps now and then, as sinks and window make it do, which begins a new
 * extent. */
uint64_t crash_position(uint64_t i);

uint32_t crash_token(const struct crash_row *row);
void crash_hash(uint8_t out[MEMTX_HASH_BYTES], uint64_t document, uint64_t n_tokens);
void crash_name(char out[MEMTX_NAME_BYTES], uint64_t document);

/* out[CRASH_HEAD_SIZE]: whole numbers that f16 keeps. The first five say which row it is. */
void crash_numbers(float *out, const struct crash_row *row, bool is_value, uint32_t layer, uint32_t kv_head);

struct crash_plan {
    const char *path;
    uint64_t n_segments;
    enum memtx_durability durability;
    uint64_t capacity;
    uint64_t seed;
    bool
        again; /* a commit that fails for the disk's sake is tried once more, and the stream goes on if that succeeds */
};

/* Appends so many segments to the store in plan->path, which is made if need be, as new documents. After each commit
 * and end of a document that returned 0 one line goes to stdout, with one write(2):
 *
 *     acknowledged R rows, E documents, W written
 *
 * E documents are ended; of the R rows W are on disk. 0, or the first failure; the store is closed in any case. */
int crash_write(const struct crash_plan *plan);

#endif
