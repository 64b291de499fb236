/* A store's index files as tests find, damage and count them, in a folder of each test's own: .init = run_files_begin,
 * .fini = run_files_end. What goes wrong fails the test. */
#ifndef MEMTX_TESTS_RUN_FILES_H
#define MEMTX_TESTS_RUN_FILES_H

#include <stddef.h>

enum { MOST_RUN_FILES = 16 };

extern char run_folder[64], run_store[128]; /* the folder, and the place of the store in it */
extern char run_files[MOST_RUN_FILES][192]; /* as they were found, by their numbers */

void run_files_begin(void);
void run_files_end(void);

/* Their number, and their names into run_files, of which the numbers go up with each that is built. Anything else in
 * the store than what a store has fails the test. */
size_t find_run_files(void);

unsigned char *read_bytes(size_t *n, const char *name);                   /* to be freed */
void write_bytes(const char *name, const unsigned char *bytes, size_t n); /* in the place of what is there */

#endif
