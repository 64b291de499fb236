/* Index files (run_file.h): a head that says where the blob of each pair is and what its hash must be, then the blobs. The
 * run's record in the database has the hash of the head, so that a file that is damaged, cut, swapped with another or
 * another store's is noticed before an index looks at it.
 */
#include "store/run_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/file.h"
#include "base/status.h"

enum { PIECE_BYTES = 1 << 18, NAME_BYTES = 32, BLOB_ALIGN = 64 };

static const char unfinished[] = "run.tmp";

static void name_of(char out[NAME_BYTES], const struct memtx__run *run)
{
    (void)snprintf(out, NAME_BYTES, "run-%016llx.idx", (unsigned long long)run->generation);
}

int memtx__run_file_failed(const char *what)
{
    const int error = errno;
    return memtx__fail(memtx__errno_status(error), "cannot %s an index file: %s", what, strerror(error));
}

static size_t head_bytes(const memtx_store *store)
{
    return MEMTX__RUN_HEAD_BYTES + store->n_pairs * MEMTX__RUN_BLOB_BYTES;
}

static void take_hash(uint8_t out[MEMTX_HASH_BYTES], XXH128_hash_t hash)
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, hash);
    memcpy(out, canonical.digest, MEMTX_HASH_BYTES);
}

/* The hash of n_bytes from `offset` on, also copied to descriptor `to` unless it is -1. */
static int hash_range(uint8_t out[MEMTX_HASH_BYTES], int fd, uint64_t offset, uint64_t n_bytes, int to)
{
    XXH3_state_t *state = XXH3_createState();
    unsigned char *piece = malloc(PIECE_BYTES);
    int status = state && piece ? MEMTX_OK : memtx__fail(MEMTX_E_NO_MEMORY, "no memory to read an index file");
    if (!status) {
        (void)XXH3_128bits_reset(state);
    }
    for (uint64_t done = 0; done < n_bytes && !status;) {
        const size_t n = n_bytes - done < PIECE_BYTES ? (size_t)(n_bytes - done) : PIECE_BYTES;
        const ssize_t n_read = pread(fd, piece, n, (off_t)(offset + done));
        if (n_read <= 0) {
            status =
                n_read < 0 ? memtx__run_file_failed("read") : memtx__fail(MEMTX_E_CORRUPT, "an index file is cut off");
        } else if (to >= 0 && write(to, piece, (size_t)n_read) != n_read) {
            status = memtx__run_file_failed("copy");
        } else {
            (void)XXH3_128bits_update(state, piece, (size_t)n_read);
            done += (uint64_t)n_read;
        }
    }
    if (!status) {
        take_hash(out, XXH3_128bits_digest(state));
    }
    free(piece);
    (void)XXH3_freeState(state);
    return status;
}

/* ---- making one ------------------------------------------------------------------------------- */

/* A file that has no name any more. */
static int open_nameless(void)
{
    char path[4096];
    const char *folder = getenv("TMPDIR");
    (void)snprintf(path, sizeof path, "%s/memtx-run-XXXXXX", folder && *folder ? folder : "/var/tmp");
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0) {
        (void)unlink(path);
    }
    return fd;
}

int memtx__run_file_create(FILE **out, const memtx_store *store)
{
    *out = NULL;
    const int folder = store->directory ? memtx__directory_fd(store->directory) : -1;
    if (folder >= 0) {
        (void)unlinkat(folder, unfinished, 0); /* of a writer that was killed */
    }
    int fd = folder < 0 ? open_nameless() : openat(folder, unfinished, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    *out = fd < 0 ? NULL : fdopen(fd, "w+b");
    if (*out && fseek(*out, (long)((head_bytes(store) + BLOB_ALIGN - 1) / BLOB_ALIGN * BLOB_ALIGN), SEEK_SET) == 0) {
        return MEMTX_OK;
    }
    int status = memtx__run_file_failed("make");
    if (*out) {
        memtx__run_file_discard(*out, store);
    } else if (fd >= 0) {
        close(fd);
    }
    *out = NULL;
    return status;
}

int memtx__run_file_end_blob(struct memtx__run_blob *out, FILE *file, uint64_t offset)
{
    const off_t end = ftello(file);
    if (end < 0 || (uint64_t)end < offset || fflush(file)) {
        return memtx__run_file_failed("write");
    }
    *out = (struct memtx__run_blob){.offset = offset, .n_bytes = (uint64_t)end - offset};
    const off_t next = (end + BLOB_ALIGN - 1) / BLOB_ALIGN * BLOB_ALIGN;
    int status = hash_range(out->hash, fileno(file), offset, out->n_bytes, -1);
    return status || fseeko(file, next, SEEK_SET) == 0 ? status : memtx__run_file_failed("write");
}

static void encode_head(unsigned char *out, const memtx_store *store, const struct memtx__run *run,
                        const struct memtx__run_blob *blobs)
{
    memset(out, 0, head_bytes(store));
    memcpy(out, MEMTX__RUN_MAGIC, 8);
    memtx__put_u32(out + 8, MEMTX__RUN_VERSION);
    memtx__put_u32(out + 12, (uint32_t)store->n_pairs);
    memtx__put_u64(out + 16, run->first_row);
    memtx__put_u64(out + 24, run->n_rows);
    memtx__put_u64(out + 32, run->generation);
    memtx__put_u32(out + 40, store->spec.head_size);
    memcpy(out + 48, store->spec.fingerprint, MEMTX_FINGERPRINT_BYTES);
    for (size_t pair = 0; pair < store->n_pairs; pair++) {
        unsigned char *at = out + MEMTX__RUN_HEAD_BYTES + pair * MEMTX__RUN_BLOB_BYTES;
        memtx__put_u32(at, store->pairs[pair].layer);
        memtx__put_u32(at + 4, store->pairs[pair].kv_head);
        memtx__put_u64(at + 8, blobs[pair].offset);
        memtx__put_u64(at + 16, blobs[pair].n_bytes);
        memcpy(at + 24, blobs[pair].hash, MEMTX_HASH_BYTES);
    }
}

/* On disk, under its own name. */
static int name_file(FILE *file, const memtx_store *store, const struct memtx__run *run)
{
    char name[NAME_BYTES];
    if (!store->directory) {
        return MEMTX_OK;
    }
    const int folder = memtx__directory_fd(store->directory);
    name_of(name, run);
    if (fsync(fileno(file)) || renameat(folder, unfinished, folder, name)) {
        return memtx__run_file_failed("write");
    }
    if (fsync(folder)) {
        int status = memtx__run_file_failed("write");
        memtx__run_file_remove(store, run);
        return status;
    }
    return MEMTX_OK;
}

int memtx__run_file_finish(FILE *file, const memtx_store *store, struct memtx__run *run,
                           const struct memtx__run_blob *blobs)
{
    unsigned char *head;
    struct stat facts;
    const size_t n_bytes = head_bytes(store);
    int status = memtx__alloc(&head, n_bytes, 1);
    if (status) {
        return status;
    }
    encode_head(head, store, run, blobs);
    take_hash(run->hash, XXH3_128bits(head, n_bytes));
    if (fflush(file) || pwrite(fileno(file), head, n_bytes, 0) != (ssize_t)n_bytes || fstat(fileno(file), &facts)) {
        status = memtx__run_file_failed("write");
    } else {
        run->n_bytes = (uint64_t)facts.st_size;
        status = name_file(file, store, run);
    }
    memtx__free(head);
    return status;
}

void memtx__run_file_discard(FILE *file, const memtx_store *store)
{
    if (!file) {
        return;
    }
    (void)fclose(file);
    if (store->directory) {
        (void)unlinkat(memtx__directory_fd(store->directory), unfinished, 0);
    }
}

/* ---- reading one ------------------------------------------------------------------------------ */

static int damaged(const struct memtx__run *run, const char *why)
{
    return memtx__fail(MEMTX_E_CORRUPT, "the index file of rows %llu to %llu: %s (memtx store rebuild mends that)",
                       (unsigned long long)run->first_row, (unsigned long long)(run->first_row + run->n_rows - 1), why);
}

/* Blobs lie within the file, and each is of the pair whose place it has. */
static int decode_head(struct memtx__run_blob *blobs, const unsigned char *head, const memtx_store *store,
                       const struct memtx__run *run)
{
    if (memcmp(head, MEMTX__RUN_MAGIC, 8) != 0 || memtx__get_u32(head + 8) != MEMTX__RUN_VERSION ||
        memtx__get_u32(head + 12) != store->n_pairs || memtx__get_u64(head + 16) != run->first_row ||
        memtx__get_u64(head + 24) != run->n_rows) {
        return damaged(run, "is another's");
    }
    for (size_t pair = 0; pair < store->n_pairs; pair++) {
        const unsigned char *at = head + MEMTX__RUN_HEAD_BYTES + pair * MEMTX__RUN_BLOB_BYTES;
        blobs[pair] = (struct memtx__run_blob){.offset = memtx__get_u64(at + 8), .n_bytes = memtx__get_u64(at + 16)};
        memcpy(blobs[pair].hash, at + 24, MEMTX_HASH_BYTES);
        if (memtx__get_u32(at) != store->pairs[pair].layer || memtx__get_u32(at + 4) != store->pairs[pair].kv_head ||
            blobs[pair].offset > run->n_bytes || blobs[pair].n_bytes > run->n_bytes - blobs[pair].offset) {
            return damaged(run, "has a place that is not in it");
        }
    }
    return MEMTX_OK;
}

static int open_file(FILE **out, const memtx_store *store, const struct memtx__run *run)
{
    char name[NAME_BYTES];
    struct stat facts;
    name_of(name, run);
    int fd = openat(memtx__directory_fd(store->directory), name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT  ? damaged(run, "is not there")
               : errno == ELOOP ? damaged(run, "is a symbolic link")
                                : memtx__run_file_failed("open");
    }
    int status = fstat(fd, &facts) ? memtx__run_file_failed("open") : MEMTX_OK;
    if (!status && memtx__directory_check_own(store->directory, name, &facts)) {
        status = damaged(run, "is not a plain file of the store's own");
    } else if (!status && (uint64_t)facts.st_size != run->n_bytes) {
        status = damaged(run, "has another size");
    }
    *out = status ? NULL : fdopen(fd, "rb");
    if (!*out) {
        status = status ? status : memtx__run_file_failed("open");
        close(fd);
    }
    return status;
}

int memtx__run_file_open(FILE **out, struct memtx__run_blob *blobs, const memtx_store *store,
                         const struct memtx__run *run)
{
    unsigned char *head;
    uint8_t hash[MEMTX_HASH_BYTES];
    const size_t n_bytes = head_bytes(store);
    *out = NULL;
    int status = memtx__alloc(&head, n_bytes, 1);
    if (!status) {
        status = store->directory ? open_file(out, store, run) : damaged(run, "has no name");
    }
    if (!status && pread(fileno(*out), head, n_bytes, 0) != (ssize_t)n_bytes) {
        status = damaged(run, "is cut off");
    }
    if (!status) {
        take_hash(hash, XXH3_128bits(head, n_bytes));
        status = memcmp(hash, run->hash, sizeof hash) == 0 ? decode_head(blobs, head, store, run)
                                                           : damaged(run, "its head is damaged or another's");
    }
    memtx__free(head);
    if (status && *out) {
        (void)fclose(*out);
        *out = NULL;
    }
    return status;
}

int memtx__run_file_check(FILE *file, const struct memtx__run_blob *blob, const struct memtx__run *run,
                          const struct memtx__pair *pair)
{
    uint8_t hash[MEMTX_HASH_BYTES];
    char why[96];
    int status = hash_range(hash, fileno(file), blob->offset, blob->n_bytes, -1);
    if (!status && memcmp(hash, blob->hash, sizeof hash) != 0) {
        (void)snprintf(why, sizeof why, "layer %u, kv head %u is damaged", pair->layer, pair->kv_head);
        status = damaged(run, why);
    }
    return status || fseeko(file, (off_t)blob->offset, SEEK_SET) == 0 ? status : memtx__run_file_failed("read");
}

/* ---- their names ------------------------------------------------------------------------------ */

void memtx__run_file_remove(const memtx_store *store, const struct memtx__run *run)
{
    char name[NAME_BYTES];
    name_of(name, run);
    if (store->directory) {
        (void)unlinkat(memtx__directory_fd(store->directory), name, 0);
    }
}

int memtx__run_file_copy(const memtx_store *store, const struct memtx__run *run, const char *to)
{
    char name[NAME_BYTES], path[4096];
    uint8_t hash[MEMTX_HASH_BYTES];
    FILE *file;
    struct memtx__run_blob *blobs;
    int status = memtx__alloc(&blobs, store->n_pairs, sizeof *blobs);
    if (status) {
        return status;
    }
    status = memtx__run_file_open(&file, blobs, store, run);
    for (size_t pair = 0; pair < store->n_pairs && !status; pair++) {
        status = memtx__run_file_check(file, &blobs[pair], run, &store->pairs[pair]);
    }
    memtx__free(blobs);
    if (status) {
        if (file) {
            (void)fclose(file);
        }
        return status;
    }
    name_of(name, run);
    int fd = snprintf(path, sizeof path, "%s/%s", to, name) < (int)sizeof path
                 ? open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)
                 : -1;
    status = fd < 0 ? memtx__run_file_failed("copy") : hash_range(hash, fileno(file), 0, run->n_bytes, fd);
    if (!status && fsync(fd)) {
        status = memtx__run_file_failed("copy");
    }
    if (fd >= 0) {
        close(fd);
    }
    (void)fclose(file);
    return status;
}

void memtx__run_file_remove_copy(const struct memtx__run *run, const char *to)
{
    char name[NAME_BYTES], path[4096];
    name_of(name, run);
    if (snprintf(path, sizeof path, "%s/%s", to, name) < (int)sizeof path) {
        (void)unlink(path);
    }
}

static bool is_run(const memtx_store *store, const char *name)
{
    char other[NAME_BYTES];
    bool found = false;
    for (size_t i = 0; i < store->now.n_runs && !found; i++) {
        name_of(other, &store->now.runs[i]);
        found = strcmp(name, other) == 0;
    }
    return found;
}

void memtx__run_file_remove_strays(const memtx_store *store)
{
    const int folder = store->directory ? memtx__directory_fd(store->directory) : -1;
    const int fd = folder < 0 ? -1 : openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;
    while (list && (entry = readdir(list))) {
        const size_t n = strlen(entry->d_name);
        const bool is_index = n == 24 && strncmp(entry->d_name, "run-", 4) == 0 &&
                              strspn(entry->d_name + 4, "0123456789abcdef") == 16 &&
                              strcmp(entry->d_name + 20, ".idx") == 0;
        if (strcmp(entry->d_name, unfinished) == 0 || (is_index && !is_run(store, entry->d_name))) {
            (void)unlinkat(folder, entry->d_name, 0);
        }
    }
    if (list) {
        (void)closedir(list);
    } else if (fd >= 0) {
        close(fd);
    }
}
