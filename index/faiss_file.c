/* Saving and loading (faiss_index.h). What is saved, in the machine's own byte order:
 *
 *     bytes                 what
 *     8                     "mtxfaiss"
 *     4 4 4 4               version (1), dim, lists of IVF (0: none), 0
 *     4 dim                 the mean row, float32
 *     4 dim for each list   the mean of the list's rows, float32
 *     4 for each list       how far they reach from it, float32
 *     all others            FAISS's index, over the rows less the mean row
 *
 * FAISS_IO_FLAG_MMAP of FAISS's C header does not map; the value of the C++ header does. */
#include "faiss_index.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>

#include <faiss/c_api/IndexFlat_c.h>
#include <faiss/c_api/index_io_c.h>

enum { READ_MAPPED = 0x646f0008 }; /* IO_FLAG_MMAP of faiss/index_io.h */

enum { FAISS_BYTES = 512, MOST_LEVELS = 10 }; /* of a saved index beside its rows, and of HNSW above them, generously */

enum { VERSION = 1 };

struct head {
    char magic[8];
    uint32_t version, dim, n_lists, zero;
};

static struct head head_of(const struct index_spec *spec)
{
    return (struct head){{'m', 't', 'x', 'f', 'a', 'i', 's', 's'}, VERSION, spec->dim, spec->n_lists, 0};
}

/* ---- saving ----------------------------------------------------------------------------------- */

static int fail_to_save(void)
{
    return memtx_fail(errno == ENOSPC ? MEMTX_E_NO_SPACE : MEMTX_E_IO, "saving an index: %s", strerror(errno));
}

int index_faiss_save(const void *index, FILE *file)
{
    const struct faiss_index *self = index;
    const size_t dim = self->spec.dim;
    const struct head head = head_of(&self->spec);
    if (self->is_loaded) { /* FAISS would write the name of a file in the place of mapped lists */
        return memtx_fail(MEMTX_E_INVALID, "index %s: one that was loaded is not saved", self->spec.factory);
    }
    errno = 0;
    if (fwrite(&head, sizeof head, 1, file) != 1 || fwrite(self->mean, sizeof *self->mean, dim, file) != dim ||
        fwrite(self->lists.means, dim * sizeof *self->mean, self->lists.n, file) != self->lists.n ||
        fwrite(self->lists.radii, sizeof *self->lists.radii, self->lists.n, file) != self->lists.n) {
        return fail_to_save();
    }
    if (faiss_write_index(self->faiss, file)) {
        return index_faiss_fail(errno == ENOSPC ? MEMTX_E_NO_SPACE : MEMTX_E_IO, "saving an index");
    }
    return fflush(file) ? fail_to_save() : MEMTX_OK;
}

/* ---- loading ---------------------------------------------------------------------------------- */

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

/* Whether it has as many centroids as it has lists, in a flat index. */
static bool has_centroids(const FaissIndexIVF *ivf, size_t n_lists, size_t dim)
{
    FaissIndexFlat *flat = faiss_IndexFlat_cast(faiss_IndexIVF_quantizer(ivf));
    float *centroids;
    size_t n_numbers = 0;
    if (flat) {
        faiss_IndexFlat_xb(flat, &centroids, &n_numbers);
    }
    return faiss_IndexIVF_nlist(ivf) == n_lists && n_numbers == n_lists * dim;
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
        wanted / 20 + FAISS_BYTES + MOST_LEVELS * sizeof(int32_t) * spec->n_links + sizeof(uint64_t) * spec->n_lists;
    const bool has_size = n_bytes + slack >= wanted && n_bytes <= wanted + slack;
    const bool has_lists = ivf ? has_centroids(ivf, spec->n_lists, spec->dim) : spec->n_lists == 0;
    if (faiss_Index_d(self->faiss) != (int)spec->dim || !has_lists || !has_size ||
        faiss_Index_metric_type(self->faiss) != METRIC_INNER_PRODUCT) {
        return memtx_fail(MEMTX_E_MISMATCH, "index '%s' of dim %u: the file's %lld rows of dim %d are of another type",
                          text, spec->dim, (long long)n_rows, faiss_Index_d(self->faiss));
    }
    return MEMTX_OK;
}

/* numbers[n] of the file, each finite and of a size that sums of products may have. */
static int read_numbers(float *numbers, size_t n, FILE *file)
{
    const float most = 1e18F; /* above the distance of two rows of 4,096 numbers of index_most_number */
    if (fread(numbers, sizeof *numbers, n, file) != n) {
        return memtx_fail(MEMTX_E_IO, "loading an index: %s", strerror(errno));
    }
    for (size_t i = 0; i < n; i++) {
        if (!(fabsf(numbers[i]) <= most)) {
            return memtx_fail(MEMTX_E_CORRUPT, "loading an index: a mean of %g", (double)numbers[i]);
        }
    }
    return MEMTX_OK;
}

/* Our own part of n_bytes. */
static int read_head(struct faiss_index *self, const char *text, FILE *file, uint64_t n_bytes)
{
    const size_t dim = self->spec.dim, n_lists = self->lists.n;
    const struct head wanted = head_of(&self->spec);
    struct head head;
    if (n_bytes < sizeof head + (dim + n_lists * (dim + 1)) * sizeof(float) ||
        fread(&head, sizeof head, 1, file) != 1 ||
        memcmp(&head, &wanted, sizeof head.magic + sizeof head.version) != 0) {
        return memtx_fail(MEMTX_E_CORRUPT, "loading an index: not one of version %d", VERSION);
    }
    if (memcmp(&head, &wanted, sizeof head) != 0) {
        return memtx_fail(MEMTX_E_MISMATCH, "index '%s' of dim %u: the file's is of dim %u with %u lists", text,
                          self->spec.dim, head.dim, head.n_lists);
    }
    int status = read_numbers(self->mean, dim, file);
    if (!status) {
        status = read_numbers(self->lists.means, n_lists * dim, file);
    }
    return status ? status : read_numbers(self->lists.radii, n_lists, file);
}

static int read_faiss(struct faiss_index *self, const char *text, FILE *file, uint64_t n_bytes)
{
    off_t start = 0;
    int status = check_extent(&start, file, n_bytes);
    if (!status) {
        status = read_head(self, text, file, n_bytes);
    }
    if (status) {
        return status;
    }
    const bool maps = self->spec.n_lists && self->spec.mmap;
    if (faiss_read_index(file, maps ? READ_MAPPED : 0, &self->faiss)) {
        self->faiss = NULL;
        return index_faiss_fail(ferror(file) ? MEMTX_E_IO : MEMTX_E_CORRUPT, "loading an index");
    }
    if (ftello(file) < start || (uint64_t)(ftello(file) - start) != n_bytes) {
        return memtx_fail(MEMTX_E_CORRUPT, "loading an index: FAISS read %lld bytes, %llu belong to it",
                          (long long)(ftello(file) - start), (unsigned long long)n_bytes);
    }
    status = check_loaded(self, text, n_bytes);
    if (status) {
        return status;
    }
    for (size_t list = 0; list < self->lists.n; list++) {
        self->lists.n_rows[list] = faiss_IndexIVF_get_list_size(faiss_IndexIVF_cast(self->faiss), list);
    }
    if (maps) {
        self->n_mapped_bytes = index_spec_list_bytes(&self->spec, (uint64_t)faiss_Index_ntotal(self->faiss));
    }
    return index_faiss_set_options(self);
}

int index_faiss_load(void **index, const char *spec, uint32_t dim, FILE *file, uint64_t n_bytes)
{
    struct faiss_index *self = NULL;
    *index = NULL;
    int status = index_faiss_make(&self, spec, dim);
    if (!status) {
        status = read_faiss(self, spec, file, n_bytes);
    }
    if (status) {
        index_faiss_destroy(self);
        return status;
    }
    self->is_loaded = true;
    *index = self;
    return MEMTX_OK;
}
