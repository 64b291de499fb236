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

#include "base/rng.h"
#include "memtx/memory.h"
#include "memtx/store.h"

enum {
    CRASH_LAYERS = 3, /* of which 0 and 2 are kept */
    CRASH_HEADS = 4,
    CRASH_KV_HEADS = 2,
    CRASH_HEAD_SIZE = 128,   /* 255 rows fill a chunk */
    CRASH_MOST_ROWS = 64,    /* of a segment */
    CRASH_GROUP_SEGMENTS = 4 /* that group durability writes together */
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
    bool times; /* the lines tell how long each commit took */
    bool
        has_index; /* a toy index of each chunk is built at once; segments are of CRASH_MOST_ROWS rows, and each asks */
};

/* Appends so many segments to the store in plan->path, which is made if need be, as new documents. After each commit
 * and end of a document that returned 0 one line goes to stdout, with one write(2):
 *
 *     acknowledged R rows, E documents, W written          with `times` follows: , N us
 *
 * E documents are ended; of the R rows W are on disk. 0, or the first failure; the store is closed in any case. Where
 * all went well but for an index file, stderr has the memory's warning as one line. */
int crash_write(const struct crash_plan *plan);

/* The writer by steps, over a store that is the caller's: one in each store. Large, so not for the stack. */
struct crash_writer {
    const struct crash_plan *plan; /* NULL: nothing is said */
    memtx_store *store;
    memtx_memory *memory;
    struct memtx__rng rng;
    uint64_t n_rows;     /* of the store, acknowledged or not */
    uint64_t n_ended;    /* documents */
    bool in_document;    /* whose .. */
    uint64_t document;   /* id, */
    uint64_t n_tokens;   /* rows so far */
    uint64_t n_segments; /* and segments to come are these */
    float keys[CRASH_MOST_ROWS * CRASH_KV_HEADS * CRASH_HEAD_SIZE];
    float values[CRASH_MOST_ROWS * CRASH_KV_HEADS * CRASH_HEAD_SIZE];
};

/* After a failure too the writer is to be closed, before its store. */
int crash_writer_open(struct crash_writer *out, memtx_store *store, const struct crash_plan *plan, uint64_t seed);
/* One segment, and a document's beginning and end where they fall due. */
int crash_writer_append(struct crash_writer *writer);
void crash_writer_close(struct crash_writer *writer);

/* ---- with an index ---------------------------------------------------------------------------- */

/* In a segment that has begun: the keys of row `id`, in each layer and head, find that row. With a delta of 0, or alone.
 * MEMTX_E_CORRUPT if not, or what the memory said. */
int crash_ask(memtx_memory *memory, uint64_t id);

/* Every visible row through a reader with the index; *n_asked indexes were asked. A warning is MEMTX_E_CORRUPT too. */
int crash_ask_all(size_t *n_asked, memtx_store *store);

#endif
