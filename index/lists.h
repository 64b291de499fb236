/* The lists of IVF indexes, and which of them a query looks into.
 *
 * FAISS would take the nprobe lists of each index whose centroids have the largest product with the query. Its
 * centroids are unit vectors here, which say where a list's rows lie but not how far out; and of sixteen runs each
 * would be searched equally deep, though a query's best rows lie in a few lists of all. So lists are ranked over all
 * indexes that are searched together, by
 *
 *     q . mean + |q| radius / sqrt(dim)
 *
 * of the mean of a list's rows and of how far the farthest of them lies from it. The second part is what that row adds
 * where it lies in no particular direction to the query. It is there for a model's few keys that are far from all
 * others and yet the best of nearly every query: they lie in lists of which they are no fair part (bench/README.md,
 * "Indexes side by side").
 */
#ifndef MEMTX_INDEX_LISTS_H
#define MEMTX_INDEX_LISTS_H

#include <stddef.h>
#include <stdint.h>

struct index_lists {
    size_t n, dim;
    float *means;     /* [n][dim] of their rows, as those were added */
    float *radii;     /* [n] at least the largest distance of a row to the mean */
    uint64_t *n_rows; /* [n] */
};

/* n empty lists, the caller's to release, after a failure too. MEMTX_E_NO_MEMORY. */
int index_lists_create(struct index_lists *out, size_t n, size_t dim);
void index_lists_release(struct index_lists *lists);

/* Rows of ids first .. first + n_rows - 1, rows[n_rows][dim], have come into the index; ids[n] are those that a list
 * holds, old and new. */
void index_lists_add(struct index_lists *lists, size_t list, size_t n, const int64_t *ids, uint64_t first,
                     const float *rows);

/* For each query the n_wanted lists with rows that rank highest over all parts, ascending, UINT32_MAX behind the last:
 * chosen[n_q][n_wanted]. List l of a part counts as l + the lists of the parts before it; all together are below
 * UINT32_MAX. Ties go to the lower list. queries[n_q][dim], finite. Uses OpenMP's threads. MEMTX_E_NO_MEMORY. */
int index_lists_choose(uint32_t *chosen, const struct index_lists *const *parts, size_t n_parts, size_t n_q,
                       const float *queries, size_t n_wanted);

#endif
