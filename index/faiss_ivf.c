/* Searching the lists of IVF (faiss_index.h): lists.h chooses nprobe for each part, wherever they lie, and FAISS scans
 * those (faiss_IndexIVF_search_preassigned).
 *
 * FAISS's index is told to expect as many lists for a query as there are, and the unused places hold -1, which it passes
 * over: nprobe stands in the index, so it could not differ from query to query, nor be changed while others search. Such
 * a call uses the calling thread alone; the queries are shared among threads here, so that an exception of FAISS's ends
 * a call and not the process. */
#include "faiss_index.h"

#include <stdlib.h>
#include <string.h>

#include <faiss/c_api/IndexFlat_c.h>

#include "ranges.h"

enum {
    SLICE = 16,                 /* queries that a thread takes at a time */
    HELD_PLACES = 1 << 16,      /* of lists that FAISS is told of at once */
    HELD_CHOSEN = 1 << 22,      /* lists of a block of queries: 16 MB */
    MOST_ALL_LISTS = INT32_MAX, /* of all parts */
};

/* A block of queries and one of the parts. */
struct list_search {
    const struct faiss_index *index;
    const float *queries;   /* of the block */
    const uint32_t *chosen; /* [query][n_wanted] of all parts' lists */
    size_t n_wanted;
    uint32_t first_list;    /* this part's among those */
    const float *centroids; /* [n lists][dim] of this part */
};

/* The first of n ascending numbers that is `least` or more. */
static size_t first_from(const uint32_t *numbers, size_t n, uint32_t least)
{
    size_t low = 0, high = n;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (numbers[middle] < least) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* The lists that one query has chosen of this part, for FAISS: assigned[n lists], and q . centroid of each. */
static void assign(idx_t *assigned, float *products, const struct list_search *search, size_t query)
{
    const size_t n_lists = search->index->lists.n, dim = search->index->spec.dim;
    const uint32_t *chosen = search->chosen + query * search->n_wanted;
    const float *q = search->queries + query * dim;
    size_t i = first_from(chosen, search->n_wanted, search->first_list), n = 0;
    for (; i < search->n_wanted && chosen[i] - search->first_list < n_lists; i++) {
        const size_t list = chosen[i] - search->first_list;
        float sum = 0;
        for (size_t j = 0; j < dim; j++) {
            sum += q[j] * search->centroids[list * dim + j];
        }
        assigned[n] = (idx_t)list;
        products[n++] = sum;
    }
    for (; n < n_lists; n++) {
        assigned[n] = -1;
        products[n] = 0;
    }
}

/* index_search (ranges.h); context: a list_search. */
static int search_lists(float *scores, int64_t *ids, const void *context, size_t first, size_t n_q, size_t n_hits)
{
    const struct list_search *search = context;
    const struct faiss_index *self = search->index;
    const FaissIndexIVF *ivf = faiss_IndexIVF_cast(self->faiss);
    const size_t n_lists = self->lists.n, fitting = HELD_PLACES / n_lists + 1;
    const size_t most = fitting < SLICE ? fitting : SLICE, slice = n_q < most ? n_q : most;
    int status = MEMTX_OK;
    char error[256] = "";
#pragma omp parallel if (n_q > 1)
    {
        idx_t *assigned = malloc(slice * n_lists * sizeof *assigned);
        float *products = malloc(slice * n_lists * sizeof *products);
        int failed =
            assigned && products ? MEMTX_OK : memtx_fail(MEMTX_E_NO_MEMORY, "no memory to search %zu lists", n_lists);
#pragma omp for schedule(dynamic)
        for (size_t q = 0; q < n_q; q += slice) {
            const size_t n = n_q - q < slice ? n_q - q : slice;
            for (size_t i = 0; i < n && !failed; i++) {
                assign(assigned + i * n_lists, products + i * n_lists, search, first + q + i);
            }
            if (!failed && faiss_IndexIVF_search_preassigned(
                               ivf, (idx_t)n, search->queries + (first + q) * self->spec.dim, (idx_t)n_hits, assigned,
                               products, scores + q * n_hits, ids + q * n_hits, 0)) {
                failed = index_faiss_fail(MEMTX_E_CORRUPT, self->spec.factory);
            }
        }
        if (failed) {
#pragma omp critical(index_faiss_search_lists)
            {
                status = failed;
                (void)snprintf(error, sizeof error, "%s", memtx_last_error());
            }
        }
        free(products);
        free(assigned);
    }
    return status ? memtx_fail(status, "%s", error) : MEMTX_OK;
}

/* A search on its way. */
struct parts_search {
    const struct memtx_index_part *parts;
    size_t n_parts, n_q, k;
    const float *queries;
    const struct index_lists **lists; /* [n_parts] */
    uint32_t *chosen;                 /* [block][n_wanted] */
    size_t n_wanted, block;
};

/* The block of queries from `first` on. */
static int search_block(float *scores, int64_t *ids, const struct parts_search *s, size_t first)
{
    const struct faiss_index *any = s->parts[0].index;
    const size_t n = s->n_q - first < s->block ? s->n_q - first : s->block;
    const float *queries = s->queries + first * any->spec.dim;
    uint32_t first_list = 0;
    int status = index_lists_choose(s->chosen, s->lists, s->n_parts, n, queries, s->n_wanted);
    for (size_t p = 0; p < s->n_parts && !status; p++) {
        const struct faiss_index *self = s->parts[p].index;
        const size_t offset = (p * s->n_q + first) * s->k;
        size_t n_numbers;
        float *centroids;
        faiss_IndexFlat_xb(faiss_IndexIVF_quantizer(faiss_IndexIVF_cast(self->faiss)), &centroids, &n_numbers);
        const struct list_search search = {self, queries, s->chosen, s->n_wanted, first_list, centroids};
        const struct index_request request = {.n_q = n,
                                              .k = s->k,
                                              .ranges = s->parts[p].ranges,
                                              .n_ranges = s->parts[p].n_ranges,
                                              .n_rows = (uint64_t)faiss_Index_ntotal(self->faiss)};
        status = index_ranges_search(scores + offset, ids + offset, &search, search_lists, &request);
        first_list += (uint32_t)self->lists.n;
    }
    return status;
}

int index_faiss_search_lists(float *scores, int64_t *ids, const struct memtx_index_part *parts, size_t n_parts,
                             size_t n_q, const float *queries, size_t k)
{
    struct parts_search s = {.parts = parts, .n_parts = n_parts, .n_q = n_q, .k = k, .queries = queries};
    const struct faiss_index *any = parts[0].index;
    int status = MEMTX_OK;
    if (n_parts > MOST_ALL_LISTS / any->spec.n_lists) {
        return memtx_fail(MEMTX_E_INVALID, "%zu indexes of %u lists are searched together, %d lists are allowed",
                          n_parts, any->spec.n_lists, MOST_ALL_LISTS);
    }
    s.n_wanted = n_parts * any->spec.nprobe;
    s.block = HELD_CHOSEN / s.n_wanted + 1 < n_q ? HELD_CHOSEN / s.n_wanted + 1 : n_q;
    s.lists = malloc(n_parts * sizeof(const struct index_lists *));
    s.chosen = malloc(s.block * s.n_wanted * sizeof *s.chosen);
    if (!s.lists || !s.chosen) {
        status = memtx_fail(MEMTX_E_NO_MEMORY, "no memory for the lists of %zu queries", s.block);
    }
    for (size_t p = 0; p < n_parts && !status; p++) {
        s.lists[p] = &((const struct faiss_index *)parts[p].index)->lists;
    }
    for (size_t first = 0; first < n_q && !status; first += s.block) {
        status = search_block(scores, ids, &s, first);
    }
    free(s.chosen);
    free(s.lists);
    return status;
}
