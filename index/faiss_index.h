/* An index of FAISS as the files of this folder share it. Only they include FAISS's headers: their names have no prefix.
 *
 *     faiss.c       the table of operations: making, building, searching what has no lists
 *     faiss_ivf.c   searching lists that lists.c has chosen
 *     faiss_file.c  saving and loading
 */
#ifndef MEMTX_INDEX_FAISS_INDEX_H
#define MEMTX_INDEX_FAISS_INDEX_H

#include <stdbool.h>
#include <stdio.h>

#include <faiss/c_api/IndexIVF_c.h>
#include <faiss/c_api/Index_c.h>

#include "lists.h"
#include "memtx/index.h"
#include "spec.h"

struct faiss_index {
    FaissIndex *faiss; /* over the rows less their mean */
    struct index_spec spec;
    float *mean;              /* [dim] of the training rows */
    struct index_lists lists; /* IVF */
    size_t n_told;            /* of a query's lists, that FAISS is told at once */
    uint64_t n_mapped_bytes;
    bool is_loaded;
};

/* The last error of FAISS on this thread, as `status`. */
int index_faiss_fail(int status, const char *what);

/* An index without what FAISS has of it, in *out, for index_faiss_destroy, on failure too. As check says. */
int index_faiss_make(struct faiss_index **out, const char *spec, uint32_t dim);
void index_faiss_destroy(void *index);

/* Options that FAISS keeps in the index. */
int index_faiss_set_options(struct faiss_index *self);

/* memtx/index.h. */
int index_faiss_save(const void *index, FILE *file);
int index_faiss_load(void **index, const char *spec, uint32_t dim, FILE *file, uint64_t n_bytes);

/* memtx/index.h's search for IVF: what it gives, but that q . mean is not in the scores. Ranges are checked. */
int index_faiss_search_lists(float *scores, int64_t *ids, const struct memtx_index_part *parts, size_t n_parts,
                             size_t n_q, const float *queries, size_t k);

#endif
