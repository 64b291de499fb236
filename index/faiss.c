/* FAISS through its C API, behind memtx/index.h. The mean of the training rows is taken off every row: it ranks nothing
 * differently for a query, and IVF and HNSW find much more without it (DESIGN 6). What this file has to look out for
 * (index/README.md tells more):
 *
 *   - An exception in one of FAISS's parallel regions ends the process. So numbers, counts and ranges are checked
 *     before FAISS sees them, and a loaded index, whose mapped lists throw on writing, takes no rows.
 *   - The metric is given with the factory string and looked at again: some types ignore it.
 *   - There are no search parameters for one call and no filter (ranges.h), and remove_ids is not used.
 *   - k-means says on stderr when it has few points: it is then given them several times over.
 *   - HNSW's links depend on the order in which threads come: it is built by one.
 *   - BLAS with threads of its own, times OpenMP's threads: OpenBLAS then gets one.
 */
#include "faiss.h"

#include <math.h>
#include <omp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <faiss/c_api/AutoTune_c.h>
#include <faiss/c_api/error_c.h>
#include <faiss/c_api/index_factory_c.h>

#include "faiss_index.h"
#include "ranges.h"

enum {
    ADDED_ROWS = 1 << 14, /* copied and added at a time */
    TOLD_SHARES = 4,      /* of nprobe: lists of a query that FAISS takes at once */
};

/* ---- errors, threads -------------------------------------------------------------------------- */

int index_faiss_fail(int status, const char *what)
{
    const char *text = faiss_get_last_error();
    if (text && strstr(text, "bad_alloc")) {
        status = MEMTX_E_NO_MEMORY;
    }
    return memtx_fail(status, "%s: FAISS: %s", what, text ? text : "unknown error");
}

/* OpenBLAS's own; absent in another BLAS. */
extern int openblas_get_parallel(void) __attribute__((weak));
extern void openblas_set_num_threads(int n) __attribute__((weak));

static void quiet_blas(void)
{
    enum { OWN_THREADS = 1 }; /* of openblas_get_parallel: 0 none, 2 OpenMP's */
    if (openblas_get_parallel && openblas_set_num_threads && openblas_get_parallel() == OWN_THREADS) {
        openblas_set_num_threads(1);
    }
}

static void prepare(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, quiet_blas);
}

/* ---- making ----------------------------------------------------------------------------------- */

static int faiss_check(const char *spec, uint32_t dim, uint64_t n_rows)
{
    struct index_spec parsed;
    const int status = index_spec_parse(&parsed, spec, dim);
    return status ? status : index_spec_check_rows(&parsed, spec, n_rows);
}

void index_faiss_destroy(void *index)
{
    struct faiss_index *self = index;
    if (self) {
        faiss_Index_free(self->faiss);
        index_lists_release(&self->lists);
        free(self->mean);
        free(self);
    }
}

int index_faiss_set_options(struct faiss_index *self)
{
    const struct index_spec *spec = &self->spec;
    if (spec->n_lists) { /* of several parts one may hold more of a query's lists than its share (faiss_ivf.c) */
        const size_t n = (size_t)TOLD_SHARES * spec->nprobe;
        self->n_told = n < spec->n_lists ? n : spec->n_lists;
        faiss_IndexIVF_set_nprobe(faiss_IndexIVF_cast(self->faiss), self->n_told);
    }
    if (!spec->n_links) {
        return MEMTX_OK;
    }
    FaissParameterSpace *space = NULL;
    if (faiss_ParameterSpace_new(&space)) {
        return index_faiss_fail(MEMTX_E_NO_MEMORY, "index");
    }
    const bool failed =
        faiss_ParameterSpace_set_index_parameter(space, self->faiss, "efSearch", spec->ef_search) ||
        faiss_ParameterSpace_set_index_parameter(space, self->faiss, "efConstruction", spec->ef_construction);
    faiss_ParameterSpace_free(space);
    return failed ? index_faiss_fail(MEMTX_E_MISMATCH, spec->factory) : MEMTX_OK;
}

int index_faiss_make(struct faiss_index **out, const char *spec, uint32_t dim)
{
    struct faiss_index *self = *out = calloc(1, sizeof *self);
    if (!self) {
        return memtx_fail(MEMTX_E_NO_MEMORY, "index '%s': no memory", spec);
    }
    prepare();
    int status = index_spec_parse(&self->spec, spec, dim);
    if (!status) {
        self->mean = calloc(dim, sizeof *self->mean);
        status = self->mean ? index_lists_create(&self->lists, self->spec.n_lists, dim)
                            : memtx_fail(MEMTX_E_NO_MEMORY, "index '%s': no memory", spec);
    }
    return status;
}

static int faiss_create(void **index, const char *spec, uint32_t dim)
{
    struct faiss_index *self = NULL;
    *index = NULL;
    int status = index_faiss_make(&self, spec, dim);
    if (!status && faiss_index_factory(&self->faiss, (int)dim, self->spec.factory, METRIC_INNER_PRODUCT)) {
        self->faiss = NULL;
        status = index_faiss_fail(MEMTX_E_UNSUPPORTED, spec);
    }
    if (!status && faiss_Index_metric_type(self->faiss) != METRIC_INNER_PRODUCT) {
        status = memtx_fail(MEMTX_E_UNSUPPORTED, "index '%s': FAISS has no inner product for it", spec);
    }
    if (!status) {
        status = index_faiss_set_options(self);
    }
    if (status) {
        index_faiss_destroy(self);
        return status;
    }
    *index = self;
    return MEMTX_OK;
}

/* ---- building --------------------------------------------------------------------------------- */

static int check_numbers(const float *rows, size_t n, size_t dim, float most, const char *what)
{
    for (size_t i = 0; i < n; i++) {
        bool good = true;
        for (size_t j = 0; j < dim; j++) {
            good &= fabsf(rows[i * dim + j]) <= most; /* not so for NaN either */
        }
        for (size_t j = 0; !good && j < dim; j++) {
            const float x = rows[i * dim + j];
            if (!(fabsf(x) <= most)) {
                return memtx_fail(MEMTX_E_INVALID, "%s %zu holds %g at %zu: finite numbers up to %g are allowed", what,
                                  i, (double)x, j, (double)most);
            }
        }
    }
    return MEMTX_OK;
}

/* The mean row of rows[n][dim]. */
static void take_mean(float *mean, const float *rows, size_t n, size_t dim)
{
    double sums[INDEX_MAX_DIM] = {0};
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < dim; j++) {
            sums[j] += (double)rows[i * dim + j];
        }
    }
    for (size_t j = 0; j < dim; j++) {
        mean[j] = (float)(sums[j] / (double)n);
    }
}

/* n_wanted rows less the mean, the n over and over; the caller's to free. */
static int centre(float **out, const struct faiss_index *self, size_t n_wanted, const float *rows, size_t n)
{
    const size_t dim = self->spec.dim;
    *out = malloc(n_wanted * dim * sizeof **out);
    if (!*out) {
        return memtx_fail(MEMTX_E_NO_MEMORY, "no memory for %zu rows of an index", n_wanted);
    }
    for (size_t i = 0; i < n_wanted; i++) {
        for (size_t j = 0; j < dim; j++) {
            (*out)[i * dim + j] = rows[i % n * dim + j] - self->mean[j];
        }
    }
    return MEMTX_OK;
}

static int faiss_train(void *index, size_t n, const float *rows)
{
    struct faiss_index *self = index;
    const struct index_spec *spec = &self->spec;
    const uint64_t n_least = index_spec_min_training_rows(spec), n_good = index_spec_good_training_rows(spec);
    if (self->is_loaded || faiss_Index_ntotal(self->faiss) > 0) {
        return memtx_fail(MEMTX_E_INVALID, "index %s: training comes before the rows", spec->factory);
    }
    if (n < n_least || n > INDEX_MAX_ROWS) {
        return memtx_fail(MEMTX_E_INVALID, "index %s: %zu rows to train with, it takes %llu to %d", spec->factory, n,
                          (unsigned long long)n_least, INDEX_MAX_ROWS);
    }
    const size_t n_given = n < n_good ? (size_t)n_good : n;
    float *centred = NULL;
    int status = check_numbers(rows, n, spec->dim, index_spec_most_value(spec), "row");
    if (!status) {
        take_mean(self->mean, rows, n, spec->dim);
        status = centre(&centred, self, n_given, rows, n);
    }
    if (!status && faiss_Index_train(self->faiss, (idx_t)n_given, centred)) {
        status = index_faiss_fail(MEMTX_E_INVALID, spec->factory);
    }
    free(centred);
    return status;
}

/* By the calling thread without others. */
static int add_alone(FaissIndex *faiss, size_t n, const float *rows)
{
    const int n_threads = omp_get_max_threads();
    omp_set_num_threads(1);
    const int failed = faiss_Index_add(faiss, (idx_t)n, rows);
    omp_set_num_threads(n_threads);
    return failed;
}

/* Rows first .. of the index are rows[][dim]: to the means of the lists that they have come into. */
static int note_lists(struct faiss_index *self, uint64_t first, const float *rows)
{
    const FaissIndexIVF *ivf = faiss_IndexIVF_cast(self->faiss);
    size_t n_most = 0;
    for (size_t list = 0; list < self->lists.n; list++) {
        const size_t n = faiss_IndexIVF_get_list_size(ivf, list);
        n_most = n > n_most ? n : n_most;
    }
    int64_t *ids = malloc((n_most + 1) * sizeof *ids);
    for (size_t list = 0; list < self->lists.n && ids; list++) {
        faiss_IndexIVF_invlists_get_ids(ivf, list, ids);
        index_lists_add(&self->lists, list, faiss_IndexIVF_get_list_size(ivf, list), ids, first, rows);
    }
    const bool has_failed = !ids;
    free(ids);
    return has_failed ? memtx_fail(MEMTX_E_NO_MEMORY, "no memory for a list of %zu rows", n_most) : MEMTX_OK;
}

static int add_centred(struct faiss_index *self, size_t n, const float *rows)
{
    float *centred = NULL;
    int status = centre(&centred, self, n, rows, n);
    if (!status &&
        (self->spec.n_links ? add_alone(self->faiss, n, centred) : faiss_Index_add(self->faiss, (idx_t)n, centred))) {
        status = index_faiss_fail(MEMTX_E_INVALID, self->spec.factory);
    }
    free(centred);
    return status;
}

static int faiss_add(void *index, size_t n, const float *rows)
{
    struct faiss_index *self = index;
    const struct index_spec *spec = &self->spec;
    const uint64_t n_rows = (uint64_t)faiss_Index_ntotal(self->faiss);
    if (self->is_loaded || !faiss_Index_is_trained(self->faiss)) {
        return memtx_fail(MEMTX_E_INVALID, "index %s: %s", spec->factory,
                          self->is_loaded ? "one that was loaded takes no rows" : "not trained yet");
    }
    if (n > INDEX_MAX_ROWS - n_rows) {
        return memtx_fail(MEMTX_E_INVALID, "index %s: %zu rows on %llu, it takes %d", spec->factory, n,
                          (unsigned long long)n_rows, INDEX_MAX_ROWS);
    }
    int status = check_numbers(rows, n, spec->dim, index_spec_most_value(spec), "row");
    for (size_t first = 0; first < n && !status; first += ADDED_ROWS) {
        status = add_centred(self, n - first < ADDED_ROWS ? n - first : ADDED_ROWS, rows + first * spec->dim);
    }
    return status || n == 0 || !spec->n_lists ? status : note_lists(self, n_rows, rows);
}

/* ---- searching -------------------------------------------------------------------------------- */

struct plain_search {
    const struct faiss_index *index;
    const float *queries;
};

/* The n_hits best of all rows. */
static int search_rows(float *scores, int64_t *ids, const void *context, size_t first, size_t n_q, size_t n_hits)
{
    const struct plain_search *search = context;
    const struct index_spec *spec = &search->index->spec;
    if (faiss_Index_search(search->index->faiss, (idx_t)n_q, search->queries + first * spec->dim, (idx_t)n_hits, scores,
                           ids)) {
        return index_faiss_fail(MEMTX_E_CORRUPT, spec->factory);
    }
    return MEMTX_OK;
}

static int search_plainly(float *scores, int64_t *ids, const struct memtx_index_part *part, size_t n_q,
                          const float *queries, size_t k)
{
    const struct plain_search search = {part->index, queries};
    const struct index_request request = {
        .n_q = n_q,
        .k = k,
        .ranges = part->ranges,
        .n_ranges = part->n_ranges,
        .n_rows = (uint64_t)faiss_Index_ntotal(search.index->faiss),
    };
    return index_ranges_search(scores, ids, &search, search_rows, &request);
}

/* FAISS has scored the rows less their mean. */
static void add_mean(float *scores, const struct faiss_index *self, size_t n_q, const float *queries, size_t k)
{
    const size_t dim = self->spec.dim;
#pragma omp parallel for schedule(static) if (n_q > 1)
    for (size_t q = 0; q < n_q; q++) {
        double sum = 0;
        for (size_t j = 0; j < dim; j++) {
            sum += (double)queries[q * dim + j] * (double)self->mean[j];
        }
        for (size_t i = 0; i < k; i++) {
            scores[q * k + i] += (float)sum; /* -inf stays so */
        }
    }
}

static int faiss_search(float *scores, int64_t *ids, const struct memtx_index_part *parts, size_t n_parts, size_t n_q,
                        const float *queries, size_t k)
{
    const struct faiss_index *first = n_parts ? parts[0].index : NULL;
    int status = first ? check_numbers(queries, n_q, first->spec.dim, index_most_number, "query") : MEMTX_OK;
    for (size_t p = 0; p < n_parts && !status; p++) {
        const struct faiss_index *self = parts[p].index;
        uint64_t n_visible;
        status = index_ranges_check(&n_visible, parts[p].ranges, parts[p].n_ranges,
                                    (uint64_t)faiss_Index_ntotal(self->faiss));
    }
    if (status || !first || n_q == 0 || k == 0) {
        return status;
    }
    if (first->spec.n_lists) {
        status = index_faiss_search_lists(scores, ids, parts, n_parts, n_q, queries, k);
    }
    for (size_t p = 0; p < n_parts && !status; p++) {
        if (!first->spec.n_lists) {
            status = search_plainly(scores + p * n_q * k, ids + p * n_q * k, &parts[p], n_q, queries, k);
        }
        if (!status) {
            add_mean(scores + p * n_q * k, parts[p].index, n_q, queries, k);
        }
    }
    return status;
}

static void faiss_info(struct memtx_index_facts *out, const void *index)
{
    const struct faiss_index *self = index;
    const uint64_t n_rows = (uint64_t)faiss_Index_ntotal(self->faiss);
    *out = (struct memtx_index_facts){.n_rows = n_rows, .dim = self->spec.dim, .n_mapped_bytes = self->n_mapped_bytes};
    out->n_bytes = index_spec_other_bytes(&self->spec, n_rows);
    if (!self->n_mapped_bytes) {
        out->n_bytes += index_spec_list_bytes(&self->spec, n_rows);
    }
}

const struct memtx_index_operations index_faiss_operations = {
    .check = faiss_check,
    .create = faiss_create,
    .train = faiss_train,
    .add = faiss_add,
    .search = faiss_search,
    .save = index_faiss_save,
    .load = index_faiss_load,
    .info = faiss_info,
    .destroy = index_faiss_destroy,
};
