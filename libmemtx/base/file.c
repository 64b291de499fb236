/* Files (file.h). */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/status.h"

int memtx__errno_status(int error)
{
    switch (error) {
    case ENOSPC:
    case EDQUOT:
        return MEMTX_E_NO_SPACE;
    case ENOENT:
        return MEMTX_E_NOT_FOUND;
    case ENOMEM:
        return MEMTX_E_NO_MEMORY;
    default:
        return MEMTX_E_IO;
    }
}

static int fail_errno(const char *path, const char *what)
{
    int error = errno;
    return memtx__fail(memtx__errno_status(error), "%s: cannot %s: %s", path, what, strerror(error));
}

int memtx__map_open(struct memtx__map *out, const char *path)
{
    int status = MEMTX_OK;
    struct stat facts;
    *out = (struct memtx__map){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return fail_errno(path, "open");
    }
    if (fstat(fd, &facts)) {
        status = fail_errno(path, "read its size");
        goto done;
    }
    if (!S_ISREG(facts.st_mode)) {
        status = memtx__fail(MEMTX_E_IO, "%s: not a regular file", path);
        goto done;
    }
    if (facts.st_size > 0) {
        void *bytes = mmap(NULL, (size_t)facts.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (bytes == MAP_FAILED) {
            status = fail_errno(path, "map");
            goto done;
        }
        *out = (struct memtx__map){bytes, (size_t)facts.st_size};
    }
done:
    close(fd);
    return status;
}

void memtx__map_close(struct memtx__map *map)
{
    if (map->bytes) {
        munmap((void *)(uintptr_t)map->bytes, map->n_bytes);
    }
    *map = (struct memtx__map){0};
}

static int write_all(int fd, const char *path, const unsigned char *bytes, size_t n_bytes)
{
    while (n_bytes) {
        ssize_t n = write(fd, bytes, n_bytes);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return fail_errno(path, "write");
        }
        bytes += n;
        n_bytes -= (size_t)n;
    }
    return fsync(fd) ? fail_errno(path, "flush") : MEMTX_OK;
}

int memtx__sync_directory(const char *path)
{
    char *directory;
    int status = memtx__copy_text(&directory, path);
    if (status) {
        return status;
    }
    char *slash = strrchr(directory, '/');
    if (slash == directory) {
        directory[1] = '\0';
    } else if (slash) {
        *slash = '\0';
    }
    int fd = open(slash ? directory : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || (fsync(fd) && errno != EINVAL)) {
        status = fail_errno(directory, "flush the directory");
    }
    if (fd >= 0) {
        close(fd);
    }
    memtx__free(directory);
    return status;
}

int memtx__write_file(const char *path, const void *bytes, size_t n_bytes)
{
    size_t size = strlen(path) + sizeof ".XXXXXX";
    char *temporary;
    int status = memtx__alloc(&temporary, size, 1);
    if (status) {
        return status;
    }
    (void)snprintf(temporary, size, "%s.XXXXXX", path);
    int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0) {
        status = fail_errno(path, "create a file beside it");
        goto done;
    }
    status = write_all(fd, path, bytes, n_bytes);
    if (close(fd) && !status) {
        status = fail_errno(path, "close");
    }
    if (!status && rename(temporary, path)) {
        status = fail_errno(path, "rename the new file to it");
    }
    if (status) {
        (void)unlink(temporary);
        goto done;
    }
    status = memtx__sync_directory(path);
done:
    memtx__free(temporary);
    return status;
}
