/* Stands between a program and the C library (LD_PRELOAD) and does what another user could do who may write where a
 * store is: between the store's checks and what it does then, it puts a link in the place of something, once.
 *
 * Environment:
 *
 *   MEMTX_SWAP_AT      lmdb     before the first file is opened through the store's directory, whose checks are done
 *                      writer   before the file "writer" is opened
 *                      new      after new.mdb was taken away
 *                      copy     after the directory of a copy was made, which is then the place
 *   MEMTX_SWAP_PLACE   where the link comes to be
 *   MEMTX_SWAP_AWAY    the name that what was there gets; empty: nothing is there
 *   MEMTX_SWAP_TARGET  where the link leads
 *   MEMTX_SWAP_HARD    set: a second name of the target in place of a symbolic link
 *   MEMTX_SWAP_TOLD    a file that is made when it is done
 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool is_done;

static void swap_at(const char *moment, const char *place)
{
    const char *at = getenv("MEMTX_SWAP_AT"), *away = getenv("MEMTX_SWAP_AWAY"), *target = getenv("MEMTX_SWAP_TARGET");
    const char *told = getenv("MEMTX_SWAP_TOLD");
    place = place ? place : getenv("MEMTX_SWAP_PLACE");
    if (is_done || !at || strcmp(at, moment) != 0 || !place || !away || !target || !told) {
        return;
    }
    is_done = true;
    if ((!*away || rename(place, away) == 0) &&
        (getenv("MEMTX_SWAP_HARD") ? link(target, place) : symlink(target, place)) == 0) {
        close((int)syscall(SYS_openat, AT_FDCWD, told, O_WRONLY | O_CREAT, 0600));
    }
}

static bool ends_with(const char *path, const char *end)
{
    const size_t n = strlen(path), n_end = strlen(end);
    return n >= n_end && strcmp(path + n - n_end, end) == 0;
}

int access(const char *path, int mode)
{
    if (strncmp(path, "/proc/self/fd/", 14) == 0) {
        swap_at("lmdb", NULL);
    }
    return (int)syscall(SYS_access, path, mode);
}

int openat64(int folder, const char *path, int flags, ...)
{
    unsigned mode = 0;
    if (flags & O_CREAT) {
        va_list args;
        va_start(args, flags);
        mode = va_arg(args, unsigned);
        va_end(args);
    }
    if (strcmp(path, "writer") == 0) {
        swap_at("writer", NULL);
    }
    return (int)syscall(SYS_openat, folder, path, flags, mode);
}

int unlink(const char *path)
{
    int status = (int)syscall(SYS_unlink, path);
    if (ends_with(path, "/new.mdb")) {
        swap_at("new", NULL);
    }
    return status;
}

/* Six letters that nobody else has chosen are not needed here: a test's directory is its own. */
char *mkdtemp(char *template)
{
    memcpy(template + strlen(template) - 6, "swap00", 6);
    if (syscall(SYS_mkdir, template, 0700)) {
        return NULL;
    }
    swap_at("copy", template);
    return template;
}
