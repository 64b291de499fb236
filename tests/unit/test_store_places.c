/* Where a store can be and who may use it: what does not fit, is no store or is in use is refused, with the reason; nothing
 * is left behind. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <lmdb.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store_fixture.h"

/* ---- what does not fit ------------------------------------------------------------------------ */

/* Opening is refused with this status and one line that holds `piece`. */
static void refused(const char *at, const struct memtx_store_spec *spec, int status, const char *piece)
{
    memtx_store *store = (memtx_store *)folder;
    int got = memtx_store_open(&store, at, spec, NULL);
    cr_assert_eq(got, status, "%d: %s (wanted: %s)", got, memtx_last_error(), piece);
    cr_assert_null(store);
    cr_assert(strstr(memtx_last_error(), piece), "\"%s\" does not hold \"%s\"", memtx_last_error(), piece);
    cr_assert_null(strchr(memtx_last_error(), '\n'));
}

Test(mismatch, the_difference_is_named, .init = make_folder, .fini = remove_folder)
{
    float factors[D / 2];
    memtx_store *store = open_store();
    fill(store);
    close_store(store);
    for (int i = 0; i < 12; i++) {
        struct memtx_store_spec spec = spec_default();
        const char *piece = "model of 4 layers, 4 heads over 2 of size 64";
        switch (i) {
        case 0:
            spec.n_layers = 5;
            break;
        case 1:
            spec.n_heads = 8;
            break;
        case 2:
            spec.n_kv_heads = 4;
            break;
        case 3:
            spec.head_size = 80;
            break;
        case 4:
            spec.fingerprint[15] ^= 1;
            piece = "another model";
            break;
        case 5:
            spec.row_type = MEMTX_ROWS_BF16;
            piece = "keeps f16 rows, not bf16";
            break;
        case 6:
            spec.heads_kept[LAYER_A] = 0;
            piece = "keeps layer 1";
            break;
        case 7:
            memtx_store_keep_layer(&spec, 0);
            piece = "does not keep layer 0";
            break;
        case 8:
            spec.rope_dims = 32;
            piece = "not 32, 10000";
            break;
        case 9:
            spec.rope_base = 100000.0;
            piece = "not 64, 100000";
            break;
        case 10:
            spec.scale = 0.25F;
            piece = "0.25";
            break;
        default:
            for (size_t pair = 0; pair < D / 2; pair++) {
                factors[pair] = 1.0F + (float)(pair == 31);
            }
            spec.rope_factors = factors;
            piece = "factors";
            break;
        }
        refused(path, &spec, MEMTX_E_MISMATCH, piece);
        cr_assert(strstr(memtx_last_error(), path), "the path is named");
    }
    struct memtx_store_spec spec = spec_default();
    (void)snprintf(spec.settings, sizeof spec.settings, "W=2048"); /* may differ */
    for (size_t pair = 0; pair < D / 2; pair++) {
        factors[pair] = 1.0F; /* is what none means */
    }
    spec.rope_factors = factors;
    store = open_with(path, &spec, NULL);
    check_filled(store); /* none of the refusals has done harm */
    close_store(store);
}

Test(mismatch, rope_factors_are_kept, .init = make_folder, .fini = remove_folder)
{
    float factors[D / 2];
    struct memtx_store_spec spec = spec_default();
    for (size_t pair = 0; pair < D / 2; pair++) {
        factors[pair] = 1.0F + (float)pair / 4.0F;
    }
    spec.rope_factors = factors;
    close_store(open_with(path, &spec, NULL));
    memtx_store *store = open_with(path, NULL, NULL);
    cr_assert_not_null(store->spec.rope_factors);
    cr_assert_eq(memcmp(store->spec.rope_factors, factors, sizeof factors), 0);
    close_store(store);
    close_store(open_with(path, &spec, NULL));
    factors[3] = 9.0F;
    refused(path, &spec, MEMTX_E_MISMATCH, "factors");
}

Test(refused, specs_out_of_range)
{
    for (int i = 0; i < 11; i++) {
        struct memtx_store_spec spec = spec_default();
        switch (i) {
        case 0:
            spec.n_layers = 0;
            break;
        case 1:
            spec.n_layers = 513;
            break;
        case 2:
            spec.n_heads = 3;
            break;
        case 3:
            spec.n_heads = 0;
            break;
        case 4:
            spec.n_kv_heads = 0;
            break;
        case 5:
            spec.head_size = 0;
            break;
        case 6:
            spec.head_size = 513;
            break;
        case 7:
            spec.rope_dims = 65;
            break;
        case 8:
            spec.rope_dims = 63;
            break;
        case 9:
            memtx_store_keep_layer(&spec, 4);
            break;
        default:
            spec.heads_kept[LAYER_A] = spec.heads_kept[LAYER_B] = 0;
            break;
        }
        refused(NULL, &spec, MEMTX_E_INVALID, "");
    }
}

/* ---- where it cannot be ----------------------------------------------------------------------- */

static void write_file(const char *name, const char *bytes)
{
    FILE *file = fopen(name, "w");
    cr_assert_not_null(file);
    (void)fputs(bytes, file);
    (void)fclose(file);
}

Test(places, that_are_no_store, .init = make_folder, .fini = remove_folder)
{
    struct memtx_store_spec spec = spec_default();
    char name[128];
    refused("/nonexistent/folder/store", &spec, MEMTX_E_NOT_FOUND, "/nonexistent/folder/store");
    write_file(path, "a file");
    refused(path, &spec, MEMTX_E_FORMAT, "is not a directory");
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(mkdir(path, 0755), 0);
    (void)snprintf(name, sizeof name, "%s/thesis.txt", path);
    write_file(name, "other work");
    refused(path, &spec, MEMTX_E_FORMAT, "holds files but no store");
    cr_assert_eq(n_entries(path), 1, "nothing was put beside it");
    cr_assert_eq(unlink(name), 0);
    close_store(open_with(path, &spec, NULL)); /* empty by now */
}

Test(places, an_lmdb_file_of_something_else, .init = make_folder, .fini = remove_folder)
{
    struct memtx_store_spec spec = spec_default();
    char name[128];
    cr_assert_eq(mkdir(path, 0700), 0);
    (void)snprintf(name, sizeof name, "%s/data.mdb", path);
    write_file(name, "no LMDB file at all, but long enough to be looked at by whoever opens it");
    memtx_store *store;
    int status = memtx_store_open(&store, path, &spec, NULL);
    cr_assert(status == MEMTX_E_FORMAT || status == MEMTX_E_CORRUPT || status == MEMTX_E_IO, "%d: %s", status,
              memtx_last_error());
    cr_assert_null(store);
}

Test(places, no_store_and_none_wanted, .init = make_folder, .fini = remove_folder)
{
    refused(path, NULL, MEMTX_E_NOT_FOUND, path);
}

/* What is left when a writer ends between LMDB's beginning of the file and the first transaction. */
Test(places, a_database_in_which_nothing_was_written, .init = make_folder, .fini = remove_folder)
{
    MDB_env *env;
    struct memtx_store_spec spec = spec_default();
    cr_assert_eq(mkdir(path, 0700), 0);
    cr_assert_eq(mdb_env_create(&env), 0);
    cr_assert_eq(mdb_env_open(env, path, 0, 0600), 0);
    mdb_env_close(env);
    refused(path, NULL, MEMTX_E_NOT_FOUND, "there is no store");
    close_store(open_with(path, &spec, NULL));
}

Test(places, an_empty_database, .init = make_folder, .fini = remove_folder)
{
    struct memtx_store_options options = memtx_store_options_default();
    memtx_store *store;
    char name[128];
    options.read_only = true;
    cr_assert_eq(mkdir(path, 0700), 0);
    (void)snprintf(name, sizeof name, "%s/data.mdb", path);
    write_file(name, "");
    cr_assert_eq(memtx_store_open(&store, path, NULL, &options), MEMTX_E_NOT_FOUND, "%s", memtx_last_error());
    cr_assert_not_null(strstr(memtx_last_error(), "there is no store"), "%s", memtx_last_error());
    refused(path, NULL, MEMTX_E_NOT_FOUND, "there is no store");
    close_store(open_store());
}

Test(places, a_store_that_was_only_begun, .init = make_folder, .fini = remove_folder)
{
    static const char *const names[] = {"writer", "new.mdb"};
    char name[128];
    cr_assert_eq(mkdir(path, 0700), 0);
    for (size_t i = 0; i < 2; i++) {
        (void)snprintf(name, sizeof name, "%s/%s", path, names[i]);
        int fd = open(name, O_WRONLY | O_CREAT, 0600);
        cr_assert(fd >= 0 && (i == 0 || write(fd, "half", 4) == 4) && close(fd) == 0);
    }
    refused(path, NULL, MEMTX_E_NOT_FOUND, "there is no store");
    close_store(open_store());
    cr_assert_neq(access(name, F_OK), 0, "the half is gone");
    close_store(open_store());
}

Test(places, that_may_not_be_written, .init = make_folder, .fini = remove_folder)
{
    struct memtx_store_spec spec = spec_default();
    if (geteuid() == 0) {
        cr_skip_test("root may write anywhere");
    }
    cr_assert_eq(chmod(folder, 0500), 0);
    refused(path, &spec, MEMTX_E_IO, path);
    cr_assert_eq(chmod(folder, 0700), 0);
}

Test(places, files_are_the_owners_alone, .init = make_folder, .fini = remove_folder)
{
    static const char *const names[] = {"data.mdb", "lock.mdb", "writer"};
    char name[128];
    struct stat facts;
    (void)umask(0);
    close_store(open_store());
    cr_assert_eq(stat(path, &facts), 0);
    cr_assert_eq(facts.st_mode & 0777, 0700);
    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(name, sizeof name, "%s/%s", path, names[i]);
        cr_assert_eq(stat(name, &facts), 0, "%s", name);
        cr_assert_eq(facts.st_mode & 0777, 0600, "%s", name);
    }
}

Test(places, a_temporary_store_leaves_nothing, .init = make_folder, .fini = remove_folder)
{
    struct memtx_store_spec spec = spec_default();
    struct memtx_store_options options = memtx_store_options_default();
    options.temporary = true;
    memtx_store *store = open_with(folder, &spec, &options);
    memtx_store *other = open_with(folder, &spec, &options);
    cr_assert_eq(n_entries(folder), 0, "its names go at once, so that a kill leaves nothing either");
    fill(store);
    fill(other);
    check_filled(store);
    close_store(store);
    check_filled(other);
    close_store(other);
    cr_assert_eq(n_entries(folder), 0);
}

/* ---- one writer ------------------------------------------------------------------------------- */

Test(writers, this_process_opens_a_store_once, .init = make_folder, .fini = remove_folder)
{
    struct memtx_store_spec spec = spec_default();
    char other_name[128];
    memtx_store *store = open_store();
    refused(path, &spec, MEMTX_E_BUSY, "this process");
    (void)snprintf(other_name, sizeof other_name, "%s/link", folder);
    cr_assert_eq(symlink(path, other_name), 0);
    refused(other_name, &spec, MEMTX_E_BUSY, "this process");
    fill(store);
    refused(path, &spec, MEMTX_E_BUSY, "this process");
    check_filled(store);
    close_store(store);
    store = open_store();
    check_filled(store);
    close_store(store);
}

/* The refused opening must not have dropped the locks that LMDB holds for this process: it loses them when any other
 * descriptor of lock.mdb is closed. */
static int n_posix_locks(const char *directory)
{
    char name[128];
    int pipes[2], n = 0;
    (void)snprintf(name, sizeof name, "%s/lock.mdb", directory);
    cr_assert_eq(pipe(pipes), 0);
    pid_t child = fork(); /* a process sees the locks of others only; this one opens no store */
    if (child == 0) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        int fd = open(name, O_RDWR);
        char found = fd >= 0 && fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
        (void)!write(pipes[1], &found, 1);
        _exit(0);
    }
    char found = 0;
    cr_assert_eq(read(pipes[0], &found, 1), 1);
    (void)waitpid(child, NULL, 0);
    (void)close(pipes[0]);
    (void)close(pipes[1]);
    n += found;
    return n;
}

Test(writers, a_refused_opening_keeps_the_locks, .init = make_folder, .fini = remove_folder)
{
    struct memtx_store_spec spec = spec_default();
    memtx_store *store = open_store();
    cr_assert_eq(n_posix_locks(path), 1);
    refused(path, &spec, MEMTX_E_BUSY, "this process");
    cr_assert_eq(n_posix_locks(path), 1);
    close_store(store);
}

Test(writers, another_process, .init = make_folder, .fini = remove_folder)
{
    int ready[2];
    char byte = 0;
    struct memtx_store_spec spec = spec_default();
    cr_assert_eq(pipe(ready), 0);
    pid_t child = fork(); /* before anything is opened here */
    if (child == 0) {
        memtx_store *store;
        size_t document;
        byte = memtx_store_open(&store, path, &spec, NULL) == MEMTX_OK &&
               memtx__store_add_document(&document, store, "text") == MEMTX_OK &&
               append_rows(store, document, 100, 0) == MEMTX_OK && memtx__store_flush(store) == MEMTX_OK;
        (void)!write(ready[1], &byte, 1);
        (void)pause();
        _exit(0);
    }
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    cr_assert_eq(byte, 1, "the other process could not write");
    refused(path, &spec, MEMTX_E_BUSY, "is writing to this store");
    cr_assert_eq(kill(child, SIGKILL), 0);
    (void)waitpid(child, NULL, 0);
    memtx_store *store = open_store(); /* a killed writer leaves no lock behind */
    check_rows(store, 0, 100);
    close_store(store);
}

/* ---- a commit whose last write failed --------------------------------------------------------- */

enum { PAGE_BYTES = 4096, TRANSACTION_AT = 144, MOST_FILE = 4 << 20 };

/* Reads or writes the whole file of the store at `path`; gives the descriptor's count. */
static size_t move_file(unsigned char *bytes, size_t n_bytes, bool write_it)
{
    char name[128];
    (void)snprintf(name, sizeof name, "%s/data.mdb", path);
    int fd = open(name, (write_it ? O_WRONLY : O_RDONLY) | O_CLOEXEC);
    const ssize_t n = write_it ? pwrite(fd, bytes, n_bytes, 0) : pread(fd, bytes, n_bytes, 0);
    cr_assert(fd >= 0 && n >= 0 && close(fd) == 0);
    return (size_t)n;
}

/* The file as LMDB leaves it when it could not write the newest commit's meta page: with the number before last. */
static void take_number_back(unsigned char *bytes)
{
    uint64_t numbers[2];
    memcpy(&numbers[0], bytes + TRANSACTION_AT, 8);
    memcpy(&numbers[1], bytes + PAGE_BYTES + TRANSACTION_AT, 8);
    const size_t newest = numbers[0] < numbers[1];
    numbers[newest] -= 2;
    memcpy(bytes + newest * PAGE_BYTES + TRANSACTION_AT, &numbers[newest], 8);
}

/* Opens the store for reading in a process of its own, which says so and waits to be killed. */
static pid_t start_reader(void)
{
    int ready[2];
    char is_open = 0;
    cr_assert_eq(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        struct memtx_store_options options = memtx_store_options_default();
        memtx_store *store;
        options.read_only = true;
        is_open = memtx_store_open(&store, path, NULL, &options) == MEMTX_OK;
        (void)!write(ready[1], &is_open, 1);
        (void)pause();
        _exit(0);
    }
    cr_assert_eq(read(ready[0], &is_open, 1), 1);
    cr_assert_eq(is_open, 1, "the reader could not open the store");
    return child;
}

/* Readers are told; a writer gives the commit its number, but not while a process reads on in the state before. */
Test(unfinished, a_commit_without_its_number_is_found_again, .init = make_folder, .fini = remove_folder)
{
    static unsigned char before[MOST_FILE], after[MOST_FILE];
    const struct memtx_store_spec spec = spec_default();
    struct memtx_store_options reading = memtx_store_options_default();
    reading.read_only = true;
    memtx_store *store = open_store();
    append(store, add_document(store, "text"), 100, 0);
    close_store(store);
    const size_t n_before = move_file(before, MOST_FILE, false);
    store = open_store();
    append(store, add_document(store, "another"), 50, 0);
    close_store(store);
    const size_t n_after = move_file(after, MOST_FILE, false);
    take_number_back(after);

    move_file(before, n_before, true);
    pid_t reader = start_reader();
    move_file(after, n_after, true);
    cr_assert_eq(memtx_store_open(&store, path, NULL, &reading), MEMTX_E_CORRUPT);
    cr_assert(strstr(memtx_last_error(), "which is whole (opening the store to write"), "%s", memtx_last_error());
    refused(path, &spec, MEMTX_E_BUSY, "other processes still read the one before");
    (void)kill(reader, SIGKILL);
    (void)waitpid(reader, NULL, 0);
    store = open_store();
    check_rows(store, 0, 150);
    append(store, add_document(store, "a third"), 50, 0);
    check_rows(store, 0, 200);
    close_store(store);
    store = open_with(path, NULL, &reading);
    check_rows(store, 0, 200);
    close_store(store);
}
