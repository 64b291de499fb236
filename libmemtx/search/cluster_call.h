/* One search of the cluster index, as cluster_search.c (rows) and cluster_choice.c (which clusters) share it. */
#ifndef MEMTX_SEARCH_CLUSTER_CALL_H
#define MEMTX_SEARCH_CLUSTER_CALL_H

#include "search/cluster.h"

struct memtx__cluster_call {
    struct memtx__cluster_search *search;
    const struct memtx__cluster *cluster;
    const struct memtx__row_set *rows;
    const float *queries;
    size_t n_queries, k;
    size_t n_wanted;
    struct memtx__row_set tail; /* visible rows outside the index */
    size_t n_visible;
};

/* Takes from search->arena what choosing needs, of the sizes that the search has by then. */
void memtx__cluster_choice_take(struct memtx__cluster_search *search);

/* The sizes that choosing in groups needs for this index with up to n_clusters; 0 where it goes by all centroids. */
void memtx__cluster_choice_measure(struct memtx__cluster_choice *out, const struct memtx__cluster *cluster,
                                   size_t n_clusters, double share);

/* The share of the clusters of clusters, here called tops, in which a search of that share of the clusters looks for
 * them; 0: it scores all centroids. */
double memtx__cluster_top_share(const struct memtx__cluster *cluster, double share);

/* search->wanted[q][call->n_wanted] and n_wanted[q] for the queries first .. first + n - 1, with the scratch of one
 * thread. Fails as memtx__product does. */
int memtx__cluster_choose(const struct memtx__cluster_call *call, size_t thread, size_t first, size_t n);

/* list[starts[c] .. starts[c + 1]): those of n lists wanted[i][n_wanted] of which n_found[i] hold c, as first + i, for
 * each of n_clusters. */
void memtx__cluster_turn_around(uint32_t *list, uint32_t *starts, const uint32_t *wanted, const uint32_t *n_found,
                                size_t n_wanted, size_t first, size_t n, size_t n_clusters);

#endif
