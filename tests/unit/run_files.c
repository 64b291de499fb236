/* A store's index files (run_files.h). */
#include "run_files.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char run_folder[64], run_store[128];
char run_files[MOST_RUN_FILES][192];

void run_files_begin(void)
{
    (void)snprintf(run_folder, sizeof run_folder, "/tmp/memtx-runs-XXXXXX");
    cr_assert_not_null(mkdtemp(run_folder));
    (void)snprintf(run_store, sizeof run_store, "%s/store", run_folder);
}

void run_files_end(void)
{
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf %s", run_folder);
    cr_assert_eq(system(command), 0); /* NOLINT(cert-env33-c): a test's own folder */
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

size_t find_run_files(void)
{
    DIR *list = opendir(run_store);
    const struct dirent *entry;
    size_t n = 0;
    cr_assert_not_null(list);
    while ((entry = readdir(list))) {
        const bool is_run = strncmp(entry->d_name, "run-", 4) == 0;
        cr_assert(is_run || *entry->d_name == '.' || strcmp(entry->d_name, "writer") == 0 ||
                      strstr(entry->d_name, ".mdb"),
                  "%s", entry->d_name);
        if (is_run) {
            cr_assert_lt(n, MOST_RUN_FILES);
            (void)snprintf(run_files[n++], sizeof run_files[0], "%s/%.40s", run_store, entry->d_name);
        }
    }
    (void)closedir(list);
    qsort(run_files, n, sizeof run_files[0], by_name);
    return n;
}

unsigned char *read_bytes(size_t *n, const char *name)
{
    struct stat facts;
    FILE *file = fopen(name, "rb");
    cr_assert(file && fstat(fileno(file), &facts) == 0, "%s", name);
    unsigned char *bytes = malloc((size_t)facts.st_size + 1);
    *n = fread(bytes, 1, (size_t)facts.st_size, file);
    (void)fclose(file);
    return bytes;
}

void write_bytes(const char *name, const unsigned char *bytes, size_t n)
{
    (void)unlink(name);
    FILE *file = fopen(name, "wb");
    cr_assert(file && fwrite(bytes, 1, n, file) == n && fclose(file) == 0);
    cr_assert_eq(chmod(name, 0600), 0);
}
