/* Stands between a program and the C library (LD_PRELOAD), to fail a call of its choice or to record what reaches the
 * store's file. Linux with glibc: the calls go to the kernel by their numbers, memory to glibc's own allocator, and what
 * is done with a stream to glibc, whose own calls below it cannot be stood between.
 *
 * Environment, read when the program calls crash_shim_arm:
 *
 *   MEMTX_SHIM_CLASS    write    write, pwrite, writev, pwritev, fwrite, fflush, to other files than stdin, stdout and
 *                                stderr
 *                       read     read, pread, fread, the same
 *                       sync     fsync, fdatasync, msync
 *                       truncate ftruncate, posix_fallocate
 *                       map      mmap
 *                       memory   malloc, calloc, realloc, posix_memalign, aligned_alloc
 *                       open     open, openat
 *                       name     unlink, unlinkat, rmdir, rename, renameat
 *                       mkdir    mkdir, mkdirat
 *   MEMTX_SHIM_AT       the n-th call of the class fails, counted from 1
 *   MEMTX_SHIM_ERROR    an errno, or 0: a write puts down half and says so, once
 *   MEMTX_SHIM_LATE     set: a write or sync that fails is done all the same, as when the disk's answer is lost
 *   MEMTX_SHIM_KILL     set: the program is killed when the write is done, before it knows
 *   MEMTX_SHIM_STICKY   set: all later calls of the class fail as well, as a full disk stays full
 *   MEMTX_SHIM_REPORT   file that gets `C calls, F failed` when the program exits
 *   MEMTX_SHIM_LOG      file that gets a record of each event on a store's database (shim_log.h)
 */
#include "shim_log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { MOST_FDS = 1024, IS_DATA = 1, IS_DSYNC = 2, IS_DIRECTORY = 4 };

static bool armed, late, kills, sticky;
static const char *class_name, *report;
static long fail_at, n_calls, n_failed;
static int error;
static int log_fd = -1;
static unsigned char fds[MOST_FDS]; /* what each one is */
static char directory[4096];        /* of the database that was renamed last */

void crash_shim_arm(void);

static const char *setting(const char *name)
{
    const char *value = getenv(name);
    return value ? value : "";
}

void crash_shim_arm(void)
{
    const char *log = setting("MEMTX_SHIM_LOG");
    class_name = setting("MEMTX_SHIM_CLASS");
    report = setting("MEMTX_SHIM_REPORT");
    fail_at = strtol(setting("MEMTX_SHIM_AT"), NULL, 10);
    error = (int)strtol(setting("MEMTX_SHIM_ERROR"), NULL, 10);
    kills = getenv("MEMTX_SHIM_KILL") != NULL;
    late = kills || getenv("MEMTX_SHIM_LATE") != NULL;
    sticky = getenv("MEMTX_SHIM_STICKY") != NULL;
    if (log[0]) {
        log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    }
    armed = true;
}

__attribute__((destructor)) static void tell(void)
{
    if (armed && report[0]) {
        char line[64];
        int n = snprintf(line, sizeof line, "%ld calls, %ld failed\n", n_calls, n_failed);
        long fd = syscall(SYS_openat, AT_FDCWD, report, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        (void)syscall(SYS_write, fd, line, n);
    }
}

/* Counts a call; whether it is one to fail, with errno set. */
static bool fails(const char *name)
{
    if (!armed || strcmp(class_name, name) != 0) {
        return false;
    }
    n_calls++;
    if (n_calls == fail_at || (sticky && n_calls > fail_at && fail_at > 0)) {
        n_failed++;
        errno = error;
        return true;
    }
    return false;
}

/* ---- the record ------------------------------------------------------------------------------- */

static void record(enum shim_event event, uint64_t offset, const struct iovec *parts, int n_parts, size_t n_bytes)
{
    struct shim_record header = {(uint32_t)event, 0, offset, n_bytes};
    if (log_fd < 0) {
        return;
    }
    (void)syscall(SYS_write, log_fd, &header, sizeof header);
    for (int i = 0; i < n_parts && n_bytes > 0; i++) {
        size_t n = parts[i].iov_len < n_bytes ? parts[i].iov_len : n_bytes;
        (void)syscall(SYS_write, log_fd, parts[i].iov_base, n);
        n_bytes -= n;
    }
}

static int what_is(int fd)
{
    return armed && fd >= 0 && fd < MOST_FDS ? fds[fd] : 0;
}

static void record_write(int fd, uint64_t offset, const struct iovec *parts, int n_parts, long n_written)
{
    if (n_written <= 0) {
        return;
    }
    if (what_is(fd) & IS_DATA) {
        record(what_is(fd) & IS_DSYNC ? SHIM_DURABLE_WRITE : SHIM_WRITE, offset, parts, n_parts, (size_t)n_written);
    } else if (fd == STDOUT_FILENO && armed) {
        record(SHIM_STDOUT, 0, parts, n_parts, (size_t)n_written);
    }
}

static bool ends_with(const char *path, const char *end)
{
    const size_t n = strlen(path), n_end = strlen(end);
    return n >= n_end && strcmp(path + n - n_end, end) == 0;
}

static int opened(int fd, const char *path, int flags)
{
    if (fd >= 0 && fd < MOST_FDS) {
        fds[fd] = strcmp(path, directory) == 0 ? IS_DIRECTORY : 0;
        if (ends_with(path, "/data.mdb") || ends_with(path, "/new.mdb")) {
            fds[fd] = flags & O_DSYNC ? IS_DATA | IS_DSYNC : IS_DATA;
        }
    }
    return fd;
}

static void renamed(const char *path)
{
    if (armed && ends_with(path, "/data.mdb")) {
        (void)snprintf(directory, sizeof directory, "%.*s", (int)(strlen(path) - strlen("/data.mdb")), path);
        record(SHIM_RENAME, 0, NULL, 0, 0);
    }
}

/* ---- writes ----------------------------------------------------------------------------------- */

/* All four kinds: offset -1 is the file's own position. */
static ssize_t write_parts(int fd, const struct iovec *parts, int n_parts, off_t offset)
{
    off_t at = offset >= 0 || !(what_is(fd) & IS_DATA) ? offset : lseek(fd, 0, SEEK_CUR);
    const bool fail = fd > STDERR_FILENO && fails("write");
    struct iovec half = {0};
    if (fail && error && !late) {
        return -1;
    }
    if (fail && !error) {
        half = (struct iovec){parts[0].iov_base, parts[0].iov_len / 2}; /* one part, half of it */
        parts = &half;
        n_parts = 1;
    }
    long n =
        offset >= 0 ? syscall(SYS_pwritev, fd, parts, n_parts, offset, 0) : syscall(SYS_writev, fd, parts, n_parts);
    record_write(fd, (uint64_t)at, parts, n_parts, n);
    if (fail && kills) {
        (void)raise(SIGKILL);
    }
    if (fail && error) {
        errno = error;
        return -1;
    }
    return n;
}

ssize_t write(int fd, const void *bytes, size_t n_bytes)
{
    struct iovec part = {(void *)(uintptr_t)bytes, n_bytes};
    return write_parts(fd, &part, 1, -1);
}

ssize_t pwrite(int fd, const void *bytes, size_t n_bytes, off_t offset)
{
    struct iovec part = {(void *)(uintptr_t)bytes, n_bytes};
    return write_parts(fd, &part, 1, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t n_bytes, off64_t offset)
{
    return pwrite(fd, bytes, n_bytes, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int n_parts)
{
    return write_parts(fd, parts, n_parts, -1);
}

ssize_t pwritev(int fd, const struct iovec *parts, int n_parts, off_t offset)
{
    return write_parts(fd, parts, n_parts, offset);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int n_parts, off64_t offset)
{
    return write_parts(fd, parts, n_parts, offset);
}

/* ---- reads ------------------------------------------------------------------------------------ */

ssize_t read(int fd, void *bytes, size_t n_bytes)
{
    return fd > STDERR_FILENO && fails("read") ? -1 : syscall(SYS_read, fd, bytes, n_bytes);
}

ssize_t pread(int fd, void *bytes, size_t n_bytes, off_t offset)
{
    return fd > STDERR_FILENO && fails("read") ? -1 : syscall(SYS_pread64, fd, bytes, n_bytes, offset);
}

ssize_t pread64(int fd, void *bytes, size_t n_bytes, off64_t offset)
{
    return pread(fd, bytes, n_bytes, offset);
}

/* ---- streams ---------------------------------------------------------------------------------- */

size_t _IO_fwrite(const void *bytes, size_t item_bytes, size_t n_items, FILE *stream);
size_t _IO_fread(void *bytes, size_t item_bytes, size_t n_items, FILE *stream);
int _IO_fflush(FILE *stream);

static bool is_file(FILE *stream)
{
    return stream && fileno(stream) > STDERR_FILENO;
}

size_t fwrite(const void *bytes, size_t item_bytes, size_t n_items, FILE *stream)
{
    const bool fail = is_file(stream) && fails("write");
    if (fail && error && !late) {
        return 0;
    }
    size_t n_written = _IO_fwrite(bytes, item_bytes, fail && !error ? n_items / 2 : n_items, stream);
    if (fail && error) {
        errno = error;
        return 0;
    }
    return n_written;
}

/* There is no half of it: a flush that is to put down half puts down nothing. */
int fflush(FILE *stream)
{
    const bool fail = is_file(stream) && fails("write");
    int result = fail && !late ? EOF : _IO_fflush(stream);
    if (fail) {
        errno = error ? error : ENOSPC;
        return EOF;
    }
    return result;
}

size_t fread(void *bytes, size_t item_bytes, size_t n_items, FILE *stream)
{
    return is_file(stream) && fails("read") ? 0 : _IO_fread(bytes, item_bytes, n_items, stream);
}

/* ---- syncs, sizes, maps ----------------------------------------------------------------------- */

static int sync_file(int fd, long call)
{
    const bool fail = fails("sync");
    if (fail && !late) {
        return -1;
    }
    int result = (int)syscall(call, fd);
    if (result == 0 && what_is(fd)) {
        record(what_is(fd) & IS_DATA ? SHIM_SYNC : SHIM_SYNC_NAME, 0, NULL, 0, 0);
    }
    if (fail) {
        errno = error;
        return -1;
    }
    return result;
}

int fsync(int fd)
{
    return sync_file(fd, SYS_fsync);
}

int fdatasync(int fd)
{
    return sync_file(fd, SYS_fdatasync);
}

int msync(void *address, size_t n_bytes, int flags)
{
    return fails("sync") ? -1 : (int)syscall(SYS_msync, address, n_bytes, flags);
}

int ftruncate(int fd, off_t size)
{
    return fails("truncate") ? -1 : (int)syscall(SYS_ftruncate, fd, size);
}

int posix_fallocate(int fd, off_t offset, off_t n_bytes)
{
    if (fails("truncate")) {
        return error;
    }
    return syscall(SYS_fallocate, fd, 0, offset, n_bytes) ? errno : 0;
}

int posix_fallocate64(int fd, off64_t offset, off64_t n_bytes)
{
    return posix_fallocate(fd, offset, n_bytes);
}

int ftruncate64(int fd, off64_t size)
{
    return ftruncate(fd, size);
}

void *mmap(void *address, size_t n_bytes, int protection, int flags, int fd, off_t offset)
{
    return fails("map") ? MAP_FAILED : (void *)syscall(SYS_mmap, address, n_bytes, protection, flags, fd, offset);
}

void *mmap64(void *address, size_t n_bytes, int protection, int flags, int fd, off64_t offset)
{
    return mmap(address, n_bytes, protection, flags, fd, offset);
}

/* ---- names ------------------------------------------------------------------------------------ */

static int open_at(int at, const char *path, int flags, mode_t mode)
{
    return fails("open") ? -1 : opened((int)syscall(SYS_openat, at, path, flags, mode), path, flags);
}

/* The mode is there only for flags that make a file; taking it always would read what nobody gave. */
#define MODE_OF(flags, mode)                                                                                           \
    do {                                                                                                               \
        if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                         \
            va_list more;                                                                                              \
            va_start(more, flags);                                                                                     \
            (mode) = va_arg(more, mode_t);                                                                             \
            va_end(more);                                                                                              \
        }                                                                                                              \
    } while (0)

int open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    MODE_OF(flags, mode);
    return open_at(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    mode_t mode = 0;
    MODE_OF(flags, mode);
    return open_at(AT_FDCWD, path, flags, mode);
}

int openat(int at, const char *path, int flags, ...)
{
    mode_t mode = 0;
    MODE_OF(flags, mode);
    return open_at(at, path, flags, mode);
}

int openat64(int at, const char *path, int flags, ...)
{
    mode_t mode = 0;
    MODE_OF(flags, mode);
    return open_at(at, path, flags, mode);
}

int unlinkat(int at, const char *path, int flags)
{
    return fails("name") ? -1 : (int)syscall(SYS_unlinkat, at, path, flags);
}

int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}

int rmdir(const char *path)
{
    return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

int rename(const char *from, const char *to)
{
    int result = fails("name") ? -1 : (int)syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to);
    if (result == 0) {
        renamed(to);
    }
    return result;
}

int renameat(int from_at, const char *from, int to_at, const char *to)
{
    return fails("name") ? -1 : (int)syscall(SYS_renameat, from_at, from, to_at, to);
}

int mkdirat(int at, const char *path, mode_t mode)
{
    return fails("mkdir") ? -1 : (int)syscall(SYS_mkdirat, at, path, mode);
}

int mkdir(const char *path, mode_t mode)
{
    return mkdirat(AT_FDCWD, path, mode);
}

/* ---- memory ----------------------------------------------------------------------------------- */

void *__libc_malloc(size_t n_bytes);
void *__libc_calloc(size_t n_items, size_t item_bytes);
void *__libc_realloc(void *block, size_t n_bytes);
void *__libc_memalign(size_t alignment, size_t n_bytes);

void *malloc(size_t n_bytes)
{
    return fails("memory") ? NULL : __libc_malloc(n_bytes);
}

void *calloc(size_t n_items, size_t item_bytes)
{
    return fails("memory") ? NULL : __libc_calloc(n_items, item_bytes);
}

void *realloc(void *block, size_t n_bytes)
{
    return fails("memory") ? NULL : __libc_realloc(block, n_bytes);
}

void *aligned_alloc(size_t alignment, size_t n_bytes)
{
    return fails("memory") ? NULL : __libc_memalign(alignment, n_bytes);
}

int posix_memalign(void **out, size_t alignment, size_t n_bytes)
{
    if (fails("memory")) {
        return error;
    }
    void *block = __libc_memalign(alignment, n_bytes);
    if (!block) {
        return ENOMEM;
    }
    *out = block;
    return 0;
}
