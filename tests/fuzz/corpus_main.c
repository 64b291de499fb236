/* Runs a fuzz target once over every file of a folder, the stored corpus: `corpus_NAME FOLDER`. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "fuzz.h"

enum { MAX_BYTES = 1 << 20 };

/* In a block of exactly its size, so that a sanitizer sees one byte too far. */
static int run_file(const char *path)
{
    static unsigned char buffer[MAX_BYTES];
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        return 1;
    }
    size_t n_bytes = fread(buffer, 1, sizeof buffer, file);
    int failed = ferror(file) || n_bytes == sizeof buffer;
    (void)fclose(file);
    unsigned char *bytes = malloc(n_bytes ? n_bytes : 1);
    if (failed || !bytes) {
        (void)fprintf(stderr, "%s: cannot be read, or is not smaller than %d bytes\n", path, MAX_BYTES);
        free(bytes);
        return 1;
    }
    for (size_t i = 0; i < n_bytes; i++) {
        bytes[i] = buffer[i];
    }
    failed = LLVMFuzzerTestOneInput(bytes, n_bytes);
    free(bytes);
    return failed;
}

int main(int n_args, char **args)
{
    int n_files = 0, n_failed = 0;
    DIR *folder = n_args == 2 ? opendir(args[1]) : NULL;
    if (!folder) {
        (void)fprintf(stderr, "usage: %s FOLDER (of files to run)\n", args[0]);
        return 2;
    }
    for (struct dirent *entry; (entry = readdir(folder));) {
        char path[4096];
        if (entry->d_name[0] == '.') {
            continue;
        }
        (void)snprintf(path, sizeof path, "%s/%s", args[1], entry->d_name);
        n_failed += run_file(path);
        n_files++;
    }
    (void)closedir(folder);
    printf("%d files, %d failed\n", n_files, n_failed);
    return n_failed || !n_files; /* an empty corpus tests nothing */
}
