/* An index for whole segments of queries over the rows of one (layer, kv head): clusters of keys that lie together.
 *
 *     memtx__cluster_create -> { memtx__cluster_add (or _load) for each block, as it fills } -> memtx__cluster_destroy
 *     memtx__cluster_reserve -> memtx__cluster_search ..
 *
 * Row ids are cut into blocks of `block_rows`, each clustered by k-means on its own: a block never changes, so the
 * index grows with the memory, is the same whether it grew or was made at once, and can be saved block by block. It
 * keeps the centroids, rounded to the type of the rows, and for each cluster the places of its rows; the rows are read
 * where they stand. At d = 64 and clusters of 32 rows of f16 that is 6.2 bytes for each row.
 *
 * A search scores all centroids, keeps for each query the best share of the clusters, turns these lists around so that
 * each cluster is read once and meets all the queries that want it, and merges what it finds with an exact search of
 * the rows outside full blocks. Scores are inner products with the stored rows.
 *
 * Where there are many clusters scoring all centroids would cost the most. So the centroids of each `group_blocks`
 * blocks are clustered in turn, as if they were the rows of a block: `groups` is an index like this one, whose row ids
 * are clusters. A query then looks at the centroids of its best clusters of clusters only.
 */
#ifndef MEMTX_SEARCH_CLUSTER_H
#define MEMTX_SEARCH_CLUSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "search/exact.h"

struct memtx__cluster_options {
    uint32_t block_rows;   /* 1..16,384; default 2,040: four chunks of f16 rows of 64 */
    uint32_t cluster_rows; /* rows of a cluster in the mean, 1..block_rows; default 32 */
    uint32_t n_rounds;     /* of k-means, 1..100; default 4 */
    uint32_t group_blocks; /* blocks whose centroids are clustered together; default 32, 0: none are */
    uint64_t seed;         /* of k-means */
};

struct memtx__cluster {
    struct memtx__cluster_options options;
    enum memtx_row_type type;
    size_t dim;
    size_t per_block; /* clusters of a block; some may have no rows: their centroid is NaN */
    uint64_t first_block;
    size_t n_blocks;
    unsigned char *centroids; /* [n_blocks][per_block][dim] of the type */
    float *spreads;           /* [n_blocks][per_block]: how much the scores of a cluster's rows differ; see cluster.c */
    uint16_t *starts;         /* [n_blocks][per_block + 1]: where in the block's order a cluster begins */
    uint16_t *order;          /* [n_blocks][block_rows]: places in the block, cluster by cluster, ascending in each */
    size_t centroids_held, spreads_held, starts_held, order_held;
    struct memtx__cluster *groups; /* of which each block is a group of this one's clusters; NULL: there are none */
};

struct memtx__cluster_options memtx__cluster_options_default(void);

/* An empty index, whose first block will hold the row ids from first_block * block_rows on. *out is the caller's; NULL
 * on failure. options may be NULL. MEMTX_E_INVALID (an option out of range), MEMTX_E_NO_MEMORY. */
int memtx__cluster_create(struct memtx__cluster **out, enum memtx_row_type type, size_t dim, uint64_t first_block,
                          const struct memtx__cluster_options *options);
void memtx__cluster_destroy(struct memtx__cluster *cluster); /* NULL is fine */

/* Clusters the next block, first_block + n_blocks, of which `rows` holds all rows that a search may ever see; what it
 * holds beside them does not matter. Rows that are not there, and rows that are no numbers, are in no cluster.
 * queries[n_queries][dim] are a sample of those that will be asked, turned as they will be: a segment's are enough.
 * Rows then lie together when such queries score them alike. NULL, or 0: there is no sample, and many more clusters
 * are to be visited for the same recall. Uses all threads. MEMTX_E_INVALID (another type or dim), MEMTX_E_NO_MEMORY;
 * the index is then as it was. */
int memtx__cluster_add(struct memtx__cluster *cluster, const struct memtx__row_set *rows, const float *queries,
                       size_t n_queries);

/* ---- as bytes (cluster_bytes.c has the format) ------------------------------------------------ */

/* Bytes of the blocks `block` .. block + n_blocks - 1, with the groups among them. */
size_t memtx__cluster_bytes(const struct memtx__cluster *cluster, uint64_t block, size_t n_blocks);

/* bytes[memtx__cluster_bytes(block, n_blocks)] of the blocks `block` .. block + n_blocks - 1, which the index has. */
void memtx__cluster_save(unsigned char *bytes, const struct memtx__cluster *cluster, uint64_t block, size_t n_blocks);

/* Appends those of the blocks that were saved which the index has not; the next one must be among them. Groups that end
 * among them come too, where those before them are there; others are made by the next block that is added.
 * MEMTX_E_CORRUPT (not what was saved), MEMTX_E_MISMATCH (another type, dim, options or place), MEMTX_E_NO_MEMORY; the
 * index is then as it was. */
int memtx__cluster_load(struct memtx__cluster *cluster, const unsigned char *bytes, size_t n_bytes);

/* Room for n_blocks more blocks behind those that are there; for cluster.c and cluster_bytes.c. MEMTX_E_NO_MEMORY. */
int memtx__cluster_grow(struct memtx__cluster *cluster, size_t n_blocks);

/* ---- search (cluster_search.c) ---------------------------------------------------------------- */

/* Scratch of choosing clusters by groups (cluster_choice.c), of each thread. */
struct memtx__cluster_choice {
    size_t most_tops;     /* clusters of clusters; 0: the index has no groups, or too few */
    size_t most_members;  /* clusters that a query looks at */
    uint32_t *wanted;     /* [n_threads][abreast][most_tops]: tops of each query */
    uint32_t *n_wanted;   /* [n_threads][abreast] */
    uint32_t *lists;      /* [n_threads][abreast * most_tops]: queries of each top */
    uint32_t *starts;     /* [n_threads][most_tops + 1] */
    float *queries;       /* [n_threads][abreast][dim]: those that want a top */
    float *scores;        /* [n_threads][abreast][TILE]: of these and some of its clusters */
    uint32_t *ids;        /* [n_threads][TILE]: of these clusters */
    float *spreads;       /* [n_threads][TILE] */
    float *member_scores; /* [n_threads][abreast][most_members]: what each query has looked at */
    uint32_t *members;    /* [n_threads][abreast][most_members] */
    uint32_t *n_members;  /* [n_threads][abreast] */
};

/* Scratch of one searcher, for any index of the same dim. Zero before the first reserve. */
struct memtx__cluster_search {
    struct memtx__arena arena;
    size_t most_queries, most_k, dim, n_threads;
    size_t most_clusters, most_row_blocks, most_block_rows, most_wanted;
    double share;

    struct memtx__exact exact;
    uint32_t *wanted;                    /* [most_queries][most_wanted]: clusters, ascending */
    uint32_t *n_wanted;                  /* [most_queries] */
    uint32_t *lists;                     /* [most_queries][most_wanted]: queries of each cluster, by threads */
    uint32_t *list_starts;               /* [n_threads][most_clusters + 1] */
    float *scores;                       /* [n_threads]: of some queries and all centroids */
    float *centroids;                    /* [n_threads]: a tile of them, converted */
    int32_t *orders;                     /* [n_threads][most_clusters]: of a selection */
    uint32_t *places;                    /* [n_threads][most_clusters]: of a selection */
    const unsigned char **rows_at;       /* [n_threads][most_block_rows]: of the block that is met; NULL: not visible */
    float *tiles;                        /* [n_threads]: rows of a cluster, as they are and turned around */
    struct memtx__candidate *candidates; /* [most_queries][memtx__topk_capacity(k)] */
    struct memtx__topk *topk;            /* [most_queries] */
    float *tail_scores;                  /* [most_queries][most_k] */
    int64_t *tail_ids;
    float *short_queries; /* [most_queries][dim]: those that found too little */
    size_t *short_places;
    bool *is_visible;                     /* [most_clusters], by blocks: a row of the block is */
    struct memtx__row_block *tail_blocks; /* [most_row_blocks + 1] */
    struct memtx__cluster_choice choice;
};

/* bench/README.md has the figures by which this and the size of the clusters were chosen. */
#define MEMTX__CLUSTER_SHARE_DEFAULT 0.05

/* Scratch for up to n_queries queries, k neighbours and a share of the clusters (above 0, up to 1) in this index as it
 * is, over up to n_row_blocks blocks of visible rows, for the number of threads that OpenMP has now. Allocates only
 * when what is there is too small, and then twice what is needed of what grows. MEMTX_E_INVALID, MEMTX_E_NO_MEMORY. */
int memtx__cluster_reserve(struct memtx__cluster_search *search, const struct memtx__cluster *cluster, size_t n_queries,
                           size_t k, double share, size_t n_row_blocks);
void memtx__cluster_search_release(struct memtx__cluster_search *search);

/* Clusters that each query of such a search visits: the share of n_clusters, and enough to hold 8 k rows. */
size_t memtx__cluster_n_wanted(const struct memtx__cluster *cluster, size_t n_clusters, size_t k, double share);

/* As memtx__exact_search, over all of `rows`: ids[n_queries][k] and scores[n_queries][k] (either may be NULL), best
 * first, ties to the lower id. Of the rows in full blocks a query meets those of its best clusters; up to min(k, rows
 * that are numbers) are found in any case: a query that is short of them searches all rows. Uses all threads,
 * allocates nothing. MEMTX_E_INVALID (a query that is not finite, more than was reserved), or what the product says. */
int memtx__cluster_search(float *scores, int64_t *ids, struct memtx__cluster_search *search,
                          const struct memtx__cluster *cluster, const struct memtx__row_set *rows, const float *queries,
                          size_t n_queries, size_t k);

#endif
