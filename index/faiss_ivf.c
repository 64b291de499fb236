/* Searching the lists of IVF (faiss_index.h): lists.h chooses nprobe for each part, wherever they lie, and FAISS scans
 * those (faiss_IndexIVF_search_preassigned).
 *
 * How many lists of a query FAISS takes at once, its own nprobe, stands in the index: it could not differ from query to
 * query, nor be changed while others search. It is some times the nprobe of the spec, and unused places hold -1, which
 * FAISS passes over; a query that has chosen more of one part is asked about again, and what was found is merged. A call
 * uses the calling thread alone; the queries are shared among threads here, so that an exception of FAISS's ends a call
 * and not the process. */
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

/* What a thread works with. */
struct scratch {
    idx_t *assigned; /* [SLICE][n_told] lists */
    float *products; /* [SLICE][n_told] of their queries and centroids */
    float *scores;   /* [2][n_hits] of one query that is asked about again, and room to merge them */
    idx_t *ids;      /* [2][n_hits] */
};

/* The lists that one query has chosen of this part, but for the first n_skipped of them, for FAISS: assigned[n_told],
 * and q . centroid of each in products[n_told]. Gives the number of lists. */
static size_t assign(idx_t *assigned, float *products, const struct list_search *search, size_t query, size_t n_skipped)
{
    const size_t n_lists = search->index->lists.n, dim = search->index->spec.dim, n_told = search->index->n_told;
    const uint32_t *chosen = search->chosen + query * search->n_wanted;
    const float *q = search->queries + query * dim;
    size_t i = first_from(chosen, search->n_wanted, search->first_list) + n_skipped, n = 0;
    for (; i < search->n_wanted && n < n_told && chosen[i] - search->first_list < n_lists; i++) {
        const size_t list = chosen[i] - search->first_list;
        float sum = 0;
        for (size_t j = 0; j < dim; j++) {
            sum += q[j] * search->centroids[list * dim + j];
        }
        assigned[n] = (idx_t)list;
        products[n++] = sum;
    }
    for (size_t unused = n; unused < n_told; unused++) {
        assigned[unused] = -1;
        products[unused] = 0;
    }
    return n;
}

/* scores[n_hits] and ids[n_hits], best first, with those of the scratch, which are other rows. */
static void merge(float *scores, int64_t *ids, const struct scratch *scratch, size_t n_hits)
{
    float *merged = scratch->scores + n_hits;
    idx_t *merged_ids = scratch->ids + n_hits;
    for (size_t n = 0, i = 0, j = 0; n < n_hits; n++) {
        const bool is_new = ids[i] < 0 || scratch->scores[j] > scores[i];
        merged[n] = is_new ? scratch->scores[j] : scores[i];
        merged_ids[n] = is_new ? scratch->ids[j++] : ids[i++];
    }
    memcpy(scores, merged, n_hits * sizeof *scores);
    memcpy(ids, merged_ids, n_hits * sizeof *ids);
}

/* Hits of the queries first .. first + n - 1, up to SLICE, in the lists of the scratch. */
static int ask(float *scores, int64_t *ids, const struct list_search *search, const struct scratch *scratch,
               size_t first, size_t n, size_t n_hits)
{
    const struct faiss_index *self = search->index;
    return faiss_IndexIVF_search_preassigned(faiss_IndexIVF_cast(self->faiss), (idx_t)n,
                                             search->queries + first * self->spec.dim, (idx_t)n_hits, scratch->assigned,
                                             scratch->products, scores, ids, 0)
               ? index_faiss_fail(MEMTX_E_CORRUPT, self->spec.factory)
               : MEMTX_OK;
}

static int search_slice(float *scores, int64_t *ids, const struct list_search *search, const struct scratch *scratch,
                        size_t first, size_t n, size_t n_hits)
{
    const size_t n_told = search->index->n_told;
    bool has_more[SLICE];
    for (size_t i = 0; i < n; i++) {
        has_more[i] =
            assign(scratch->assigned + i * n_told, scratch->products + i * n_told, search, first + i, 0) == n_told;
    }
    int status = ask(scores, ids, search, scratch, first, n, n_hits);
    for (size_t i = 0; i < n; i++) {
        for (size_t n_skipped = n_told; has_more[i] && !status; n_skipped += n_told) {
            has_more[i] = assign(scratch->assigned, scratch->products, search, first + i, n_skipped) > 0;
            if (has_more[i]) {
                status = ask(scratch->scores, scratch->ids, search, scratch, first + i, 1, n_hits);
            }
            if (has_more[i] && !status) {
                merge(scores + i * n_hits, ids + i * n_hits, scratch, n_hits);
            }
        }
    }
    return status;
}

/* index_search (ranges.h); context: a list_search. */
static int search_lists(float *scores, int64_t *ids, const void *context, size_t first, size_t n_q, size_t n_hits)
{
    const struct list_search *search = context;
    const size_t n_told = search->index->n_told, fitting = HELD_PLACES / n_told + 1;
    const size_t most = fitting < SLICE ? fitting : SLICE, slice = n_q < most ? n_q : most;
    int status = MEMTX_OK;
    char error[256] = "";
#pragma omp parallel if (n_q > 1)
    {
        const struct scratch scratch = {
            malloc(slice * n_told * sizeof *scratch.assigned), malloc(slice * n_told * sizeof *scratch.products),
            malloc(2 * n_hits * sizeof *scratch.scores), malloc(2 * n_hits * sizeof *scratch.ids)};
        int failed = scratch.assigned && scratch.products && scratch.scores && scratch.ids
                         ? MEMTX_OK
                         : memtx_fail(MEMTX_E_NO_MEMORY, "no memory to search %zu lists", n_told);
#pragma omp for schedule(dynamic)
        for (size_t q = 0; q < n_q; q += slice) {
            const size_t n = n_q - q < slice ? n_q - q : slice;
            if (!failed) {
                failed = search_slice(scores + q * n_hits, ids + q * n_hits, search, &scratch, first + q, n, n_hits);
            }
        }
        if (failed) {
#pragma omp critical(index_faiss_search_lists)
            {
                status = failed;
                (void)snprintf(error, sizeof error, "%s", memtx_last_error());
            }
        }
        free(scratch.ids);
        free(scratch.scores);
        free(scratch.products);
        free(scratch.assigned);
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
