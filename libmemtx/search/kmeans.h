/* k-means (Lloyd) over a few thousand rows: what the cluster index makes of a block.
 *
 * Plain and deterministic: it begins with rows drawn by a seed, and each round assigns every row to its nearest
 * centroid and moves the centroids to the means. The result does not depend on the number of threads.
 */
#ifndef MEMTX_SEARCH_KMEANS_H
#define MEMTX_SEARCH_KMEANS_H

#include <stddef.h>
#include <stdint.h>

enum { MEMTX__KMEANS_MOST_ROWS = 1 << 14, MEMTX__NO_CLUSTER = UINT16_MAX };

struct memtx__kmeans {
    size_t n_rows; /* 1..16,384 */
    size_t dim;
    size_t n_clusters; /* 1..n_rows */
    size_t n_rounds;   /* 1 or more */
    uint64_t seed, stream;
};

/* cluster_of[n_rows] from rows[n_rows][dim]. A row that is not finite belongs to MEMTX__NO_CLUSTER; a cluster may have
 * no rows where there are fewer different ones. Uses all threads. MEMTX_E_NO_MEMORY, or what the product says. */
int memtx__kmeans(uint16_t *cluster_of, const float *rows, const struct memtx__kmeans *sizes);

#endif
