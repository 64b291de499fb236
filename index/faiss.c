/* FAISS through its C API, behind memtx/index.h. What this file has to look out for (index/README.md tells more):
 *
 *   - An exception in one of FAISS's parallel regions ends the process. So numbers, counts and ranges are checked
 *     before FAISS sees them, and a loaded index, whose mapped lists throw on writing, takes no rows.
 *   - FAISS_IO_FLAG_MMAP of its C header does not map; the value of the C++ header does.
 *   - The metric is given with the factory string and looked at again: some types ignore it.
 *   - There are no search parameters for one call and no filter (ranges.h), and remove_ids is not used.
 *   - k-means says on stderr when it has few points: it is then given them several times over.
 *   - HNSW's links depend on the order in which threads come: it is built by one.
 *   - BLAS with threads of its own, times OpenMP's threads: OpenBLAS then gets one.
 */
#include "faiss.h"

#include <errno.h>
#include <math.h>
#include <omp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <faiss/c_api/AutoTune_c.h>
#include <faiss/c_api/IndexIVF_c.h>
#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/error_c.h>
#include <faiss/c_api/index_factory_c.h>
#include <faiss/c_api/index_io_c.h>

#include "ranges.h"
#include "spec.h"

enum { READ_MAPPED = 0x646f0008 }; /* IO_FLAG_MMAP of faiss/index_io.h */

enum {
    HEADER_BYTES = 512,
    MOST_LEVELS = 10
}; /* of a saved index beside its rows, and of HNSW above them, generously */

struct faiss_index {
    FaissIndex *faiss;
    struct index_spec spec;
    uint64_t n_mapped_bytes;
    bool is_loaded;
};

/* ---- errors, threads -------------------------------------------------------------------------- */

/* The last error of FAISS on this thread, as `status`. */
static int fail(int status, const char *what)
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

static void faiss_destroy(void *index)
{
    struct faiss_index *self = index;
    if (self) {
        faiss_Index_free(self->faiss);
        free(self);
    }
}

/* Options that FAISS keeps in the index. */
static int set_options(struct faiss_index *self)
{
    const struct index_spec *spec = &self->spec;
    if (spec->n_lists) {
        faiss_IndexIVF_set_nprobe(faiss_IndexIVF_cast(self->faiss), spec->nprobe);
    }
    if (!spec->n_links) {
        return MEMTX_OK;
    }
    FaissParameterSpace *space = NULL;
    if (faiss_ParameterSpace_new(&space)) {
        return fail(MEMTX_E_NO_MEMORY, "index");
    }
    const bool failed =
        faiss_ParameterSpace_set_index_parameter(space, self->faiss, "efSearch", spec->ef_search) ||
        faiss_ParameterSpace_set_index_parameter(space, self->faiss, "efConstruction", spec->ef_construction);
    faiss_ParameterSpace_free(space);
    return failed ? fail(MEMTX_E_MISMATCH, spec->factory) : MEMTX_OK;
}

static int make_empty(struct faiss_index **out, const char *spec, uint32_t dim)
{
    *out = calloc(1, sizeof **out);
    if (!*out) {
        return memtx_fail(MEMTX_E_NO_MEMORY, "index '%s': no memory", spec);
    }
    prepare();
    return index_spec_parse(&(*out)->spec, spec, dim);
}

static int faiss_create(void **index, const char *spec, uint32_t dim)
{
    struct faiss_index *self = NULL;
    *index = NULL;
    int status = make_empty(&self, spec, dim);
    if (!status && faiss_index_factory(&self->faiss, (int)dim, self->spec.factory, METRIC_INNER_PRODUCT)) {
        self->faiss = NULL;
        status = fail(MEMTX_E_UNSUPPORTED, spec);
    }
    if (!status && faiss_Index_metric_type(self->faiss) != METRIC_INNER_PRODUCT) {
        status = memtx_fail(MEMTX_E_UNSUPPORTED, "index '%s': FAISS has no inner product for it", spec);
    }
    if (!status) {
        status = set_options(self);
    }
    if (status) {
        faiss_destroy(self);
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

/* Rows over and over until they are n_wanted; the caller's to free. */
static int repeat_rows(float **out, size_t n_wanted, size_t n, const float *rows, size_t dim)
{
    *out = malloc(n_wanted * dim * sizeof **out);
    if (!*out) {
        return memtx_fail(MEMTX_E_NO_MEMORY, "no memory for %zu rows to train with", n_wanted);
    }
    for (size_t i = 0; i < n_wanted; i++) {
        memcpy(*out + i * dim, rows + i % n * dim, dim * sizeof **out);
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
    int status = check_numbers(rows, n, spec->dim, index_spec_most_value(spec), "row");
    float *more = NULL;
    if (!status && n < n_good) {
        status = repeat_rows(&more, (size_t)n_good, n, rows, spec->dim);
    }
    if (!status && faiss_Index_train(self->faiss, (idx_t)(more ? n_good : n), more ? more : rows)) {
        status = fail(MEMTX_E_INVALID, spec->factory);
    }
    free(more);
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
    const int status = check_numbers(rows, n, spec->dim, index_spec_most_value(spec), "row");
    if (status || n == 0) {
        return status;
    }
    const int failed = spec->n_links ? add_alone(self->faiss, n, rows) : faiss_Index_add(self->faiss, (idx_t)n, rows);
    return failed ? fail(MEMTX_E_INVALID, spec->factory) : MEMTX_OK;
}

/* ---- searching -------------------------------------------------------------------------------- */

/* The n_hits best of all rows. */
static int search_rows(float *scores, int64_t *ids, const void *index, size_t n_q, const float *queries, size_t n_hits)
{
    const struct faiss_index *self = index;
    if (faiss_Index_search(self->faiss, (idx_t)n_q, queries, (idx_t)n_hits, scores, ids)) {
        return fail(MEMTX_E_CORRUPT, self->spec.factory);
    }
    return MEMTX_OK;
}

static int faiss_search(float *scores, int64_t *ids, const void *index, size_t n_q, const float *queries, size_t k,
                        const struct memtx_index_range *ranges, size_t n_ranges)
{
    const struct faiss_index *self = index;
    const struct index_request request = {
        .queries = queries,
        .n_q = n_q,
        .dim = self->spec.dim,
        .k = k,
        .ranges = ranges,
        .n_ranges = n_ranges,
        .n_rows = (uint64_t)faiss_Index_ntotal(self->faiss),
    };
    const int status = check_numbers(queries, n_q, self->spec.dim, index_most_number, "query");
    return status ? status : index_ranges_search(scores, ids, index, search_rows, &request);
}

/* ---- on disk ---------------------------------------------------------------------------------- */

static int faiss_save(const void *index, FILE *file)
{
    const struct faiss_index *self = index;
    if (self->is_loaded) { /* FAISS would write the name of a file in the place of mapped lists */
        return memtx_fail(MEMTX_E_INVALID, "index %s: one that was loaded is not saved", self->spec.factory);
    }
    errno = 0;
    if (faiss_write_index(self->faiss, file)) {
        return fail(errno == ENOSPC ? MEMTX_E_NO_SPACE : MEMTX_E_IO, "saving an index");
    }
    if (fflush(file)) {
        return memtx_fail(errno == ENOSPC ? MEMTX_E_NO_SPACE : MEMTX_E_IO, "saving an index: %s", strerror(errno));
    }
    return MEMTX_OK;
}

/* That n_bytes are there from the file's position on, which comes back in *start. */
static int check_extent(off_t *start, FILE *file, uint64_t n_bytes)
{
    struct stat facts;
    *start = ftello(file);
    if (*start < 0 || fstat(fileno(file), &facts)) {
        return memtx_fail(MEMTX_E_IO, "loading an index: %s", strerror(errno));
    }
    if (!S_ISREG(facts.st_mode)) {
        return memtx_fail(MEMTX_E_INVALID, "loading an index: not a regular file");
    }
    if (facts.st_size < *start || (uint64_t)(facts.st_size - *start) < n_bytes) {
        return memtx_fail(MEMTX_E_CORRUPT, "loading an index: %llu bytes at %lld in a file of %lld",
                          (unsigned long long)n_bytes, (long long)*start, (long long)facts.st_size);
    }
    return MEMTX_OK;
}

/* Whether what FAISS read is what the spec says. The C API does not tell a type's code (faiss_Index_sa_code_size leaves
 * its result out), but codes of another type have another length. */
static int check_loaded(const struct faiss_index *self, const char *text, uint64_t n_bytes)
{
    const struct index_spec *spec = &self->spec;
    FaissIndexIVF *ivf = faiss_IndexIVF_cast(self->faiss);
    const idx_t n_rows = faiss_Index_ntotal(self->faiss);
    if (n_rows < 0 || n_rows > INDEX_MAX_ROWS || !faiss_Index_is_trained(self->faiss)) {
        return memtx_fail(MEMTX_E_CORRUPT, "index '%s': the file says %lld rows", text, (long long)n_rows);
    }
    const uint64_t n_rows_read = (uint64_t)n_rows;
    const uint64_t wanted = index_spec_list_bytes(spec, n_rows_read) + index_spec_other_bytes(spec, n_rows_read);
    /* the lengths of lists may be left out where most are empty */
    const uint64_t slack =
        wanted / 20 + HEADER_BYTES + MOST_LEVELS * sizeof(int32_t) * spec->n_links + sizeof(uint64_t) * spec->n_lists;
    const bool has_size = n_bytes + slack >= wanted && n_bytes <= wanted + slack;
    if (faiss_Index_d(self->faiss) != (int)spec->dim || (ivf ? faiss_IndexIVF_nlist(ivf) : 0) != spec->n_lists ||
        !has_size || faiss_Index_metric_type(self->faiss) != METRIC_INNER_PRODUCT) {
        return memtx_fail(MEMTX_E_MISMATCH, "index '%s' of dim %u: the file's %lld rows of dim %d are of another type",
                          text, spec->dim, (long long)n_rows, faiss_Index_d(self->faiss));
    }
    return MEMTX_OK;
}

static int read_faiss(struct faiss_index *self, const char *text, FILE *file, uint64_t n_bytes)
{
    off_t start = 0;
    int status = check_extent(&start, file, n_bytes);
    if (status) {
        return status;
    }
    const bool maps = self->spec.n_lists && self->spec.mmap;
    if (faiss_read_index(file, maps ? READ_MAPPED : 0, &self->faiss)) {
        self->faiss = NULL;
        return fail(ferror(file) ? MEMTX_E_IO : MEMTX_E_CORRUPT, "loading an index");
    }
    if (ftello(file) < start || (uint64_t)(ftello(file) - start) != n_bytes) {
        return memtx_fail(MEMTX_E_CORRUPT, "loading an index: FAISS read %lld bytes, %llu belong to it",
                          (long long)(ftello(file) - start), (unsigned long long)n_bytes);
    }
    status = check_loaded(self, text, n_bytes);
    if (!status && maps) {
        self->n_mapped_bytes = index_spec_list_bytes(&self->spec, (uint64_t)faiss_Index_ntotal(self->faiss));
    }
    return status ? status : set_options(self);
}

static int faiss_load(void **index, const char *spec, uint32_t dim, FILE *file, uint64_t n_bytes)
{
    struct faiss_index *self = NULL;
    *index = NULL;
    int status = make_empty(&self, spec, dim);
    if (!status) {
        status = read_faiss(self, spec, file, n_bytes);
    }
    if (status) {
        faiss_destroy(self);
        return status;
    }
    self->is_loaded = true;
    *index = self;
    return MEMTX_OK;
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
    .save = faiss_save,
    .load = faiss_load,
    .info = faiss_info,
    .destroy = faiss_destroy,
};
