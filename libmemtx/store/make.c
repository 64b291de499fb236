/* A new store's database (store.h): it is made under another name, with its tables and what it is for, and gets its own
 * when all of that is on disk. LMDB does not sync the pages with which it begins a file, and refuses a file that has
 * only some of them; so a power cut while a store is begun would leave a directory that can be opened no more. What
 * is left instead is a file that the next writer takes away. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/status.h"
#include "store/tables.h"

enum { PATH_BYTES = 4096 };

static int fail_errno(const char *path, const char *what)
{
    return memtx__fail(memtx__errno_status(errno), "%s: cannot %s: %s", path, what, strerror(errno));
}

static int join(char out[PATH_BYTES], const char *path, const char *name)
{
    int n = snprintf(out, PATH_BYTES, "%s/%s", path, name);
    return n > 0 && n < PATH_BYTES ? MEMTX_OK : memtx__fail(MEMTX_E_INVALID, "%.64s..: the path is too long", path);
}

/* A name is on disk when its directory is. One that may not be read (the parent, of somebody else) cannot be synced. */
static int sync_directory(const char *path, const char *shown)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return errno == EACCES ? MEMTX_OK : fail_errno(shown, "open the directory");
    }
    int status = fsync(fd) && errno != EINVAL ? fail_errno(shown, "write the directory") : MEMTX_OK;
    close(fd);
    return status;
}

/* The lock on the store is held, so nobody else has this file and LMDB needs no lock of its own. */
static int fill(struct memtx__environment *environment, const char *file, const struct memtx_store_spec *spec,
                uint32_t chunk_rows)
{
    int code = mdb_env_create(&environment->env);
    if (!code) {
        code = mdb_env_set_maxdbs(environment->env, MEMTX__N_DATABASES);
    }
    if (!code) {
        code = mdb_env_open(environment->env, file, MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOTLS, 0600);
    }
    int status = code ? memtx__lmdb_status(code, environment->path, "begin the database")
                      : memtx__environment_create(environment, spec, chunk_rows);
    if (environment->env) {
        mdb_env_close(environment->env);
    }
    return status;
}

/* An empty file of our own, for LMDB to fill: what stood there, of one that broke off or put there by somebody else, is
 * taken away and not opened. */
static int begin(const char *file, const char *shown)
{
    if (unlink(file) && errno != ENOENT) {
        return fail_errno(shown, "take away what is left of new.mdb");
    }
    int fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return fd < 0 || close(fd) ? fail_errno(shown, "make new.mdb") : MEMTX_OK;
}

int memtx__environment_make(const char *path, const char *shown, const struct memtx_store_spec *spec,
                            uint32_t chunk_rows)
{
    struct memtx__environment environment = {.path = (char *)(uintptr_t)shown,
                                             .pages_mutex = PTHREAD_MUTEX_INITIALIZER,
                                             .pages_are_checked = true, /* they will be this process's own */
                                             .pages_fd = -1};
    char unfinished[PATH_BYTES], finished[PATH_BYTES], parent[PATH_BYTES];
    int status = join(unfinished, path, "new.mdb");
    if (!status) {
        status = join(finished, path, "data.mdb");
    }
    if (!status) {
        status = join(parent, path, "..");
    }
    if (!status) {
        status = begin(unfinished, shown);
    }
    if (status) {
        return status;
    }
    status = fill(&environment, unfinished, spec, chunk_rows);
    if (!status && rename(unfinished, finished)) {
        status = fail_errno(shown, "name the database");
    }
    if (status) {
        (void)unlink(unfinished);
        return status;
    }
    status = sync_directory(path, shown);
    return status ? status : sync_directory(parent, shown);
}
