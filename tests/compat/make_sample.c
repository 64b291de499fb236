/* Makes the sample store of tests/compat/: run once for each version of the format, by the library that had it.
 *
 *     build/tests/make_sample DIRECTORY
 */
#include <stdio.h>
#include <stdlib.h>

#include "memtx/memory.h"
#include "sample.h"
#include "toy_index.h"

static void check(int status)
{
    if (status) {
        (void)fprintf(stderr, "make_sample: %s\n", memtx_last_error());
        exit(1);
    }
}

/* Rows first .. first + n - 1 of a document, a segment. */
static void append(memtx_memory *memory, unsigned document, uint64_t first, size_t n)
{
    static float rows[2][SAMPLE_SEGMENT][SAMPLE_KV_HEADS][SAMPLE_HEAD_SIZE];
    uint32_t tokens[SAMPLE_SEGMENT];
    uint64_t positions[SAMPLE_SEGMENT];
    check(memtx_memory_begin_segment(memory));
    for (unsigned layer = 0; layer < SAMPLE_LAYERS; layer += 2) {
        for (size_t t = 0; t < n; t++) {
            positions[t] = document == 1 ? sample_second_position(first + t) : first + t;
            tokens[t] = sample_token(document, positions[t]);
            for (unsigned head = 0; head < SAMPLE_KV_HEADS; head++) {
                for (unsigned i = 0; i < SAMPLE_HEAD_SIZE; i++) {
                    rows[0][t][head][i] = sample_number(document, positions[t], layer, head, 0, i);
                    rows[1][t][head][i] = sample_number(document, positions[t], layer, head, 1, i);
                }
            }
        }
        check(memtx_memory_append(memory, layer, n, rows[0][0][0], rows[1][0][0], tokens, positions));
    }
    check(memtx_memory_commit(memory));
}

/* The documents that every version has. */
static void write_ended(memtx_memory *memory)
{
    check(memtx_memory_begin_document(memory, "first"));
    for (uint64_t row = 0; row < SAMPLE_FIRST_ROWS; row += SAMPLE_SEGMENT) {
        append(memory, 0, row, SAMPLE_SEGMENT);
    }
    check(memtx_memory_end_document(memory, sample_hash));
    check(memtx_memory_begin_document(memory, "second"));
    append(memory, 1, 0, SAMPLE_SECOND_ROWS);
    check(memtx_memory_end_document(memory, NULL));
}

static void write_suspended(memtx_memory *memory)
{
    static unsigned char state[SAMPLE_STATE_BYTES];
    for (size_t i = 0; i < SAMPLE_STATE_BYTES; i++) {
        state[i] = sample_state(i);
    }
    check(memtx_memory_begin_document(memory, "removed"));
    check(memtx_memory_set_state(memory, state, sizeof state, SAMPLE_REMOVED_ROWS, sample_hash));
    append(memory, 2, 0, SAMPLE_REMOVED_ROWS);
    memtx_memory_abandon_document(memory);
    check(memtx_memory_begin_document(memory, "suspended"));
    check(memtx_memory_set_state(memory, state, sizeof state, SAMPLE_STATE_ROWS, sample_hash));
    append(memory, 3, 0, SAMPLE_STATE_ROWS);
    append(memory, 3, SAMPLE_STATE_ROWS, SAMPLE_SUSPENDED_ROWS - SAMPLE_STATE_ROWS);
    memtx_memory_abandon_document(memory);
}

int main(int argc, char **argv)
{
    const struct memtx_store_spec spec = sample_spec();
    struct memtx_memory_options options = memtx_memory_options_default();
    memtx_store *store;
    memtx_memory *memory;
    if (argc != 2) {
        (void)fprintf(stderr, "usage: make_sample DIRECTORY\n");
        return 2;
    }
    options.most_tokens = SAMPLE_SEGMENT;
    check(memtx_store_open(&store, argv[1], &spec, NULL));
    check(memtx_memory_open(&memory, store, &options));
    write_ended(memory);
    write_suspended(memory);
    memtx_memory_close(memory); /* a document is removed while nobody appends */
    check(memtx_store_remove_document(store, "removed"));
    options.index = "toy:all";
    options.resolve_index = toy_resolve;
    options.run_rows = 1; /* a chunk: the first rows */
    check(memtx_memory_rebuild(store, &options, NULL));
    check(memtx_store_close(store));
    return 0;
}
