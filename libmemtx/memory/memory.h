/* The memory's inside: what memory.c (the stream of rows), find.c (which rows), attend.c (attention to them), gather.c
 * (rows by id) and rebuild.c (index files at once) share. clusters.h is find.c's own index. */
#ifndef MEMTX_MEMORY_MEMORY_H
#define MEMTX_MEMORY_MEMORY_H

#include "base/arena.h"
#include "math/rope.h"
#include "memory/clusters.h"
#include "memtx/memory.h"
#include "search/cluster.h"
#include "search/exact.h"
#include "search/runs.h"
#include "store/view.h"

enum { MEMTX__MOST_K = MEMTX__TOPK_MOST_K, MEMTX__MOST_DELTA = 1 << 20 };

/* A range of visible rows whose positions ascend by one. */
struct memtx__range {
    uint64_t first_row;
    uint64_t n_rows;
    uint64_t document;
    uint64_t first_position;
    bool is_own; /* of the document being appended to */
};

/* How the k best are found. */
enum memtx__finder { MEMTX__FIND_EXACT, MEMTX__FIND_RANDOM, MEMTX__FIND_RUNS, MEMTX__FIND_CLUSTER };

struct memtx__choice {
    enum memtx__finder finder;
    struct memtx__first_pass pass; /* of exact search */
    double share;                  /* of the clusters that a query visits, */
    uint64_t least_rows;           /* from so many rows in sight on; fewer are searched exactly */
};

struct memtx_memory {
    memtx_store *store;
    struct memtx_memory_options options;
    float *tau;   /* [n_layers][n_heads] */
    char **names; /* [options.n_scope_names] */
    struct memtx__rope rope;
    struct memtx__view view;
    struct memtx__exact exact;
    struct memtx__choice choice;
    struct memtx__runs runs;         /* of FIND_RUNS */
    struct memtx__clusters clusters; /* of FIND_CLUSTER */
    struct memtx__cluster_search cluster_search;
    struct memtx_index_range *visible; /* the ranges, those that touch as one */
    size_t n_visible_ranges, n_visible_held;
    struct memtx__arena scratch;

    size_t document; /* its place in the store's catalogue; valid while is_open */
    bool is_open;
    bool in_segment; /* the view is held */

    struct memtx__range *ranges; /* visible rows, ascending; made by begin_segment */
    size_t n_ranges, n_ranges_held;
    uint64_t n_visible;

    struct memtx__row_block *blocks; /* of the pair being searched */
    size_t n_blocks, n_blocks_held;
    const unsigned char **values; /* [chunk]: first value rows of the pair being searched; NULL: none was found */
    const unsigned char **keys;
    size_t n_chunks_held;

    uint32_t *staged_tokens; /* [n_staged]: of the segment being appended */
    uint64_t *staged_positions;
    size_t n_staged, n_staged_held, n_positions_held;

    float *queries; /* [most_tokens * group][D]: turned, of one kv head */
    int64_t *ids;   /* [most_tokens * group][k] */
    float *scores;  /* of these, where has_scores: turned query times stored row */
    bool has_scores;
    float *rows;   /* [n_threads][2][D]: a retrieved row, converted, and the turned query */
    float *logits; /* [n_threads][k] */
    size_t n_threads;
};

/* The visible range that holds a row; NULL when none does. O(log ranges). */
const struct memtx__range *memtx__memory_range_of(const struct memtx_memory *memory, uint64_t row);

/* What the queries of one kv head are asked against. */
struct memtx__pair_search {
    const struct memtx_memory *memory;
    uint32_t layer;
    uint32_t kv_head;
    size_t group;
    size_t n_q;
    const float *queries; /* [n_q][H][D] */
    const uint64_t *positions;
};

/* find.c: what the options ask for. MEMTX_E_INVALID. */
int memtx__memory_choose(struct memtx__choice *out, const struct memtx_memory_options *options);

/* find.c: memory->ids[n_q * group][k] of a pair, their scores where memory->has_scores, and the addresses of their
 * chunks in memory->keys and memory->values. */
int memtx__memory_find(struct memtx_memory *memory, const struct memtx__pair_search *search);

/* find.c: makes room for the address of every chunk in sight in keys and values, all NULL. */
int memtx__memory_clear_addresses(struct memtx_memory *memory);

/* find.c: the addresses of every chunk of a pair that holds a visible row, in memory->keys and memory->values, and the
 * visible rows as blocks for the search. Within a segment; the pair is kept. MEMTX_E_CORRUPT, MEMTX_E_NO_MEMORY. */
int memtx__memory_locate(struct memtx_memory *memory, uint32_t layer, uint32_t kv_head);

#endif
