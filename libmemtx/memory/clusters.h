/* The clusters of a memory (search/cluster.h), one index for each pair, and their files.
 *
 * A block of rows is clustered when it is full and asked for the first time, from the queries that ask: others would
 * have made others. So what was made is kept. Who appends saves the blocks of all pairs into index files beside the
 * database (store_format.h), run by run as they become full and the rest when it closes; who opens the store later
 * loads them, and clusters by itself only the blocks that no whole file has. A store without a directory has no files.
 *
 *     writer   { prepare -> (view begins) refresh -> grow, for each pair asked -> (view ends) } .. -> seal -> close
 *     reader   { (view begins) refresh -> grow .. -> (view ends) } .. -> close
 *
 * What is saved holds every row of the blocks that anybody may see, whatever the scope of the memory that saved it.
 */
#ifndef MEMTX_MEMORY_CLUSTERS_H
#define MEMTX_MEMORY_CLUSTERS_H

#include "search/cluster.h"
#include "search/runs.h"

struct memtx__clusters {
    memtx_store *store;
    struct memtx__cluster_options options;
    struct memtx__cluster **of_pair; /* [n_pairs]; NULL: not asked yet */
    struct memtx__runs files;
    struct memtx__row_block *blocks; /* rows of the block that is being clustered */
    size_t n_blocks, n_blocks_held;
};

/* What asks a pair: a sample of queries for the blocks that are to be clustered. */
struct memtx__clusters_query {
    struct memtx__view *view;
    size_t pair;
    const struct memtx__row_set *visible; /* in scope */
    const float *queries;                 /* [n][D], turned */
    size_t n;
};

/* spec is "cluster", with or without a share; run_rows is that of the memory's options. MEMTX_E_INVALID,
 * MEMTX_E_NO_MEMORY; what is there is released by close. */
int memtx__clusters_open(struct memtx__clusters *out, memtx_store *store, const char *spec, uint64_t run_rows,
                         bool is_writer);
void memtx__clusters_close(struct memtx__clusters *clusters); /* of one that is zero, too */

/* Rows of a block: whole chunks, as near to the default as they come. */
uint32_t memtx__clusters_block_rows(uint32_t chunk_rows);

/* The writer's, while its view is not held: saves full runs of blocks. What fails is a warning (files.warning), and
 * no more is saved. */
void memtx__clusters_prepare(struct memtx__clusters *clusters);

/* The same, and then the full blocks behind them; rows that wait are written first. */
void memtx__clusters_seal(struct memtx__clusters *clusters);

/* The files that a catalogue names: looks at those that are new. MEMTX_E_NO_MEMORY. */
int memtx__clusters_refresh(struct memtx__clusters *clusters, const struct memtx__catalogue *catalogue);

/* The clusters of a pair in *out, borrowed, with those blocks that are full by now: loaded, or made. MEMTX_E_NO_MEMORY,
 * MEMTX_E_CORRUPT (a chunk), or what the product says. */
int memtx__clusters_grow(struct memtx__cluster **out, struct memtx__clusters *clusters,
                         const struct memtx__clusters_query *query);

/* Takes the damaged ones among a store's files of clusters away. MEMTX_E_UNSUPPORTED: there are
 * none of clusters, or others too. MEMTX_E_IO, MEMTX_E_NO_SPACE, MEMTX_E_NO_MEMORY. */
int memtx__clusters_mend(memtx_store *store);

#endif
