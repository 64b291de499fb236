/* That the pages of a store's transactions are kept by malloc and not asked of the system anew each time, which costs a
 * third of the speed of appending (base/alloc.c). Counts the process's page faults. Prints them; exit 0 or 1. */
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "memtx/memtx.h"

enum { LAYERS = 2, KV_HEADS = 3, HEAD_SIZE = 64, SEGMENT = 512, GROUP_SEGMENTS = 4, N_WARM_UP = 40, N_GROUPS = 8 };
/* A segment fills a bit more than a chunk of 64 KiB of each layer, kv head, and of keys and values. */
enum { PAGES_OF_GROUP = GROUP_SEGMENTS * LAYERS * KV_HEADS * 2 * 16 };

static long n_faults(void)
{
    struct rusage usage;
    memset(&usage, 0, sizeof usage);
    (void)getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt;
}

static int write_groups(memtx_memory *memory, size_t n_groups)
{
    static float rows[SEGMENT * KV_HEADS * HEAD_SIZE];
    static uint32_t tokens[SEGMENT];
    static uint64_t positions[SEGMENT], n_written;
    int status = MEMTX_OK;
    for (size_t segment = 0; segment < n_groups * GROUP_SEGMENTS && !status; segment++) {
        for (size_t i = 0; i < SEGMENT; i++) {
            positions[i] = n_written + i;
        }
        for (uint32_t layer = 0; layer < LAYERS && !status; layer++) {
            status = memtx_memory_append(memory, layer, SEGMENT, rows, rows, tokens, positions);
        }
        status = status ? status : memtx_memory_commit(memory);
        n_written += SEGMENT;
    }
    return status;
}

int main(void)
{
    struct memtx_store_spec spec = {
        .n_layers = LAYERS, .n_heads = KV_HEADS, .n_kv_heads = KV_HEADS, .head_size = HEAD_SIZE, .scale = 1};
    struct memtx_store_options options = memtx_store_options_default();
    memtx_store *store;
    memtx_memory *memory = NULL;
    long before = 0, after = 0;
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        memtx_store_keep_layer(&spec, layer);
    }
    options.temporary = true;
    options.group_segments = GROUP_SEGMENTS;
    options.group_milliseconds = UINT32_MAX;
    int status = memtx_store_open(&store, "/tmp", &spec, &options);
    status = status ? status : memtx_memory_open(&memory, store, NULL);
    status = status ? status : memtx_memory_begin_document(memory, "text");
    status = status ? status : write_groups(memory, N_WARM_UP);
    before = n_faults();
    status = status ? status : write_groups(memory, N_GROUPS);
    after = n_faults();
    (void)printf("%ld page faults while %d pages were written: %s\n", after - before, N_GROUPS * PAGES_OF_GROUP,
                 status ? memtx_last_error() : "no error");
    memtx_memory_close(memory);
    status = memtx_store_close(store) || status;
    return status || after - before > N_GROUPS * PAGES_OF_GROUP / 32;
}
