/* A store's directory (store.h): whose it is, what stands in it, and who writes.
 *
 * The directory is opened once and LMDB reaches it through that descriptor, so that renaming it or putting a link in its
 * place changes nothing. Its files must be plain files with one name: LMDB would follow a link out of the store. The
 * right to write is a lock (flock) on the file "writer", which a kill releases; a line in it tells who has it. A list of
 * the directories that this process has open, by device and inode, keeps it from opening one twice: LMDB would lose its
 * own locks.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/file.h"
#include "base/status.h"
#include "store/store.h"

struct memtx__directory {
    struct memtx__directory *next; /* in the list of open ones */
    bool is_listed;
    dev_t device;
    ino_t inode;
    uid_t owner;
    int fd;
    int writer_fd; /* -1 for reading */
    bool made, made_writer;
    char *path;
    char pinned[32];
};

static pthread_mutex_t list_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct memtx__directory *open_directories;

static int fail_errno(const struct memtx__directory *directory, const char *what)
{
    int error = errno;
    return memtx__fail(memtx__errno_status(error), "%s: cannot %s: %s", directory->path, what, strerror(error));
}

/* ---- what it is ------------------------------------------------------------------------------- */

static int open_directory(struct memtx__directory *directory, bool make)
{
    if (make && mkdir(directory->path, 0700) == 0) {
        directory->made = true;
    } else if (make && errno != EEXIST) {
        return fail_errno(directory, "make the directory");
    }
    directory->fd = open(directory->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory->fd < 0 && errno == ENOENT) {
        return memtx__fail(MEMTX_E_NOT_FOUND, "%s: there is no store", directory->path);
    }
    if (directory->fd < 0 && errno == ENOTDIR) {
        return memtx__fail(MEMTX_E_FORMAT, "%s: is not a directory (a store is one)", directory->path);
    }
    return directory->fd < 0 ? fail_errno(directory, "open the directory") : MEMTX_OK;
}

/* Whoever may write into the directory may put anything in the place of its files; in one that is sticky, as /tmp is, only
 * where there is none yet, and what is not ours is seen. */
static int check_owner(struct memtx__directory *directory)
{
    struct stat facts;
    if (fstat(directory->fd, &facts)) {
        return fail_errno(directory, "look at the directory");
    }
    directory->device = facts.st_dev;
    directory->inode = facts.st_ino;
    directory->owner = facts.st_uid;
    if (facts.st_uid != geteuid() && facts.st_uid != 0 && geteuid() != 0) {
        return memtx__fail(MEMTX_E_INVALID, "%s: belongs to another user, who could change the store", directory->path);
    }
    if ((facts.st_mode & S_IWOTH) && !(facts.st_mode & S_ISVTX)) {
        return memtx__fail(MEMTX_E_INVALID, "%s: every user can write into it (chmod o-w it)", directory->path);
    }
    return MEMTX_OK;
}

int memtx__directory_check_facts(const char *path, const char *name, const struct stat *facts, uid_t owner)
{
    if (!S_ISREG(facts->st_mode) || facts->st_nlink != 1) {
        return memtx__fail(MEMTX_E_FORMAT, "%s/%s: is %s, not a file of the store's own", path, name,
                           S_ISLNK(facts->st_mode)   ? "a symbolic link"
                           : S_ISREG(facts->st_mode) ? "a file with several names"
                                                     : "not a plain file");
    }
    if (facts->st_uid != geteuid() && facts->st_uid != owner && facts->st_uid != 0) {
        return memtx__fail(MEMTX_E_INVALID, "%s/%s: belongs to another user, who could change the store", path, name);
    }
    return MEMTX_OK;
}

/* 1 when the file is there, 0 when not, or a status. */
static int check_file(const struct memtx__directory *directory, const char *name)
{
    struct stat facts;
    if (fstatat(directory->fd, name, &facts, AT_SYMLINK_NOFOLLOW)) {
        return errno == ENOENT ? 0 : fail_errno(directory, "look at its files");
    }
    int status = memtx__directory_check_facts(directory->path, name, &facts, directory->owner);
    return status ? status : 1;
}

/* A directory that is no store may become one when it is empty. It stays the directory it is, with its owner and mode:
 * the files in it are 0600 anyhow. */
static int check_empty(const struct memtx__directory *directory)
{
    int fd = openat(directory->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry = NULL;
    if (!list) {
        int status = fail_errno(directory, "look into the directory");
        if (fd >= 0) {
            close(fd);
        }
        return status;
    }
    do {
        entry = readdir(list);
    } while (entry && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0));
    (void)closedir(list);
    return entry ? memtx__fail(MEMTX_E_FORMAT, "%s: holds files but no store (name an empty or a new directory)",
                               directory->path)
                 : MEMTX_OK;
}

static int check_files(const struct memtx__directory *directory, bool make)
{
    static const char *const names[] = {"data.mdb", "writer", "lock.mdb"};
    int is_there[3];
    for (size_t i = 0; i < 3; i++) {
        is_there[i] = check_file(directory, names[i]);
        if (is_there[i] < 0) {
            return is_there[i];
        }
    }
    if (is_there[0] || (make && is_there[1])) {
        return MEMTX_OK;
    }
    return make ? check_empty(directory) : memtx__fail(MEMTX_E_NOT_FOUND, "%s: there is no store", directory->path);
}

/* ---- who has it ------------------------------------------------------------------------------- */

static int enter_list(struct memtx__directory *directory)
{
    int status = MEMTX_OK;
    (void)pthread_mutex_lock(&list_mutex);
    for (const struct memtx__directory *other = open_directories; other; other = other->next) {
        if (other->device == directory->device && other->inode == directory->inode) {
            status = memtx__fail(MEMTX_E_BUSY, "%s: this process has the store open already", directory->path);
        }
    }
    if (!status) {
        directory->next = open_directories;
        directory->is_listed = true;
        open_directories = directory;
    }
    (void)pthread_mutex_unlock(&list_mutex);
    return status;
}

static void leave_list(struct memtx__directory *directory)
{
    (void)pthread_mutex_lock(&list_mutex);
    for (struct memtx__directory **link = &open_directories; directory->is_listed && *link; link = &(*link)->next) {
        if (*link == directory) {
            *link = directory->next;
            break;
        }
    }
    (void)pthread_mutex_unlock(&list_mutex);
}

/* "another process", or what the line in the file says: "process 1234 (memtx)". */
static void read_holder(char *out, size_t size, int fd)
{
    char line[64];
    long process = 0;
    char program[32] = "";
    ssize_t n = pread(fd, line, sizeof line - 1, 0);
    line[n > 0 ? n : 0] = '\0';
    if (sscanf(line, "%ld %31[^\n]", &process, program) == 2 && process > 0) { /* NOLINT(cert-err34-c): checked */
        (void)snprintf(out, size, "process %ld (%s)", process, program);
    } else {
        (void)snprintf(out, size, "another process");
    }
}

static int take_lock(struct memtx__directory *directory)
{
    const int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW;
    struct stat facts;
    char text[64];
    directory->writer_fd = openat(directory->fd, "writer", flags | O_CREAT | O_EXCL, 0600);
    directory->made_writer = directory->writer_fd >= 0;
    if (directory->writer_fd < 0 && errno == EEXIST) {
        directory->writer_fd = openat(directory->fd, "writer", flags);
    }
    if (directory->writer_fd < 0 || fstat(directory->writer_fd, &facts)) {
        return fail_errno(directory, "open the lock file");
    }
    /* Again: it may have come after the files were looked at. */
    int status = memtx__directory_check_facts(directory->path, "writer", &facts, directory->owner);
    if (status) {
        return status;
    }
    if (flock(directory->writer_fd, LOCK_EX | LOCK_NB)) {
        if (errno != EWOULDBLOCK) {
            return fail_errno(directory, "lock");
        }
        read_holder(text, sizeof text, directory->writer_fd);
        return memtx__fail(MEMTX_E_BUSY, "%s: %s is writing to this store (wait until it ends)", directory->path, text);
    }
    /* Only for people: a full disk does not matter here. */
    int n = snprintf(text, sizeof text, "%ld %.31s\n", (long)getpid(), program_invocation_short_name);
    if (ftruncate(directory->writer_fd, 0) == 0) {
        (void)!pwrite(directory->writer_fd, text, (size_t)n, 0);
    }
    return MEMTX_OK;
}

/* ---- opening ---------------------------------------------------------------------------------- */

static int open_and_check(struct memtx__directory *directory, const char *path, bool make, bool write)
{
    int status = memtx__copy_text(&directory->path, path);
    if (!status) {
        status = open_directory(directory, make);
    }
    if (!status) {
        status = check_owner(directory);
    }
    if (!status) {
        status = check_files(directory, make);
    }
    if (!status) {
        status = enter_list(directory);
    }
    return status || !write ? status : take_lock(directory);
}

int memtx__directory_open(struct memtx__directory **out, const char *path, bool make, bool write)
{
    struct memtx__directory *directory;
    *out = NULL;
    int status = memtx__alloc(&directory, 1, sizeof *directory);
    if (status) {
        return status;
    }
    directory->fd = directory->writer_fd = -1;
    status = open_and_check(directory, path, make, write);
    if (status) {
        memtx__directory_discard(directory);
        memtx__directory_close(directory);
        return status;
    }
    (void)snprintf(directory->pinned, sizeof directory->pinned, "/proc/self/fd/%d", directory->fd);
    *out = directory;
    return MEMTX_OK;
}

const char *memtx__directory_pinned(const struct memtx__directory *directory)
{
    return access(directory->pinned, F_OK) == 0 ? directory->pinned : directory->path; /* no /proc: as well as can be */
}

bool memtx__directory_has_database(const struct memtx__directory *directory)
{
    struct stat facts;
    return fstatat(directory->fd, "data.mdb", &facts, AT_SYMLINK_NOFOLLOW) == 0 && facts.st_size > 0;
}

void memtx__directory_discard(struct memtx__directory *directory)
{
    if (directory && directory->made_writer) {
        (void)unlinkat(directory->fd, "writer", 0);
    }
    if (directory && directory->made) {
        (void)unlinkat(directory->fd, "lock.mdb", 0);
        (void)rmdir(directory->path);
    }
}

void memtx__directory_close(struct memtx__directory *directory)
{
    if (!directory) {
        return;
    }
    leave_list(directory);
    if (directory->writer_fd >= 0) {
        close(directory->writer_fd);
    }
    if (directory->fd >= 0) {
        close(directory->fd);
    }
    memtx__free(directory->path);
    memtx__free(directory);
}
