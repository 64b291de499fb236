/* One writer (store.h): the file "writer" in the store's directory, held with flock by the process that writes, which a
 * kill releases; and a list of the stores that this process has open, by device and inode, since LMDB loses its own
 * locks when one process opens the same environment twice. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/status.h"
#include "store/store.h"

struct memtx__lock {
    struct memtx__lock *next;
    dev_t device;
    ino_t inode;
    int fd;
};

static pthread_mutex_t open_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct memtx__lock *open_locks;

static bool open_here(const struct memtx__lock *lock)
{
    for (const struct memtx__lock *other = open_locks; other; other = other->next) {
        if (other->device == lock->device && other->inode == lock->inode) {
            return true;
        }
    }
    return false;
}

static int take(struct memtx__lock *lock, const char *path, const char *file)
{
    struct stat facts;
    lock->fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (lock->fd < 0 || fstat(lock->fd, &facts)) {
        return memtx__fail(memtx__errno_status(errno), "%s: cannot open the lock file: %s", path, strerror(errno));
    }
    lock->device = facts.st_dev;
    lock->inode = facts.st_ino;
    if (open_here(lock)) {
        return memtx__fail(MEMTX_E_BUSY, "%s: this process has the store open already", path);
    }
    if (flock(lock->fd, LOCK_EX | LOCK_NB)) {
        return errno == EWOULDBLOCK
                   ? memtx__fail(MEMTX_E_BUSY, "%s: another process is writing to this store (wait until it ends)",
                                 path)
                   : memtx__fail(MEMTX_E_IO, "%s: cannot lock: %s", path, strerror(errno));
    }
    return MEMTX_OK;
}

int memtx__lock_take(struct memtx__lock **out, const char *path)
{
    struct memtx__lock *lock;
    char *file = NULL;
    size_t size = strlen(path) + sizeof "/writer";
    *out = NULL;
    int status = memtx__alloc(&lock, 1, sizeof *lock);
    if (status) {
        return status;
    }
    lock->fd = -1;
    status = memtx__alloc(&file, size, 1);
    if (!status) {
        (void)snprintf(file, size, "%s/writer", path);
        (void)pthread_mutex_lock(&open_mutex);
        status = take(lock, path, file);
        if (!status) {
            lock->next = open_locks;
            open_locks = lock;
        }
        (void)pthread_mutex_unlock(&open_mutex);
    }
    memtx__free(file);
    if (status) {
        if (lock->fd >= 0) {
            close(lock->fd);
        }
        memtx__free(lock);
        return status;
    }
    *out = lock;
    return MEMTX_OK;
}

void memtx__lock_release(struct memtx__lock *lock)
{
    if (!lock) {
        return;
    }
    (void)pthread_mutex_lock(&open_mutex);
    struct memtx__lock **link = &open_locks;
    while (*link != lock) {
        link = &(*link)->next;
    }
    *link = lock->next;
    (void)pthread_mutex_unlock(&open_mutex);
    close(lock->fd);
    memtx__free(lock);
}
