/* Stores as the unit tests of the store use them: a small model's, in a folder of its own or on the heap, and rows of which
 * each number follows from its place, so that a row can be judged on its own. What goes wrong fails the test. */
#ifndef MEMTX_TESTS_STORE_FIXTURE_H
#define MEMTX_TESTS_STORE_FIXTURE_H

#include "store/store.h"

enum { L = 4, LAYER_A = 1, LAYER_B = 3, H = 4, G = 2, D = 64, MOST_ROWS = 2048 };

extern char folder[64], path[96]; /* of this test: .init = make_folder, .fini = remove_folder; a store's place in it */
void make_folder(void);
void remove_folder(void);
void remove_all(const char *directory);
size_t n_entries(const char *directory);

/* f16 rows of layers LAYER_A and LAYER_B. */
struct memtx_store_spec spec_default(void);
memtx_store *open_with(const char *at, const struct memtx_store_spec *spec, const struct memtx_store_options *options);
memtx_store *open_store(void); /* spec_default, at `path` */
void close_store(memtx_store *store);

size_t add_document(memtx_store *store, const char *name);
/* Appends n rows whose places in the text begin at `position`; their token ids are 7 times the row's id. */
int append_rows(memtx_store *store, size_t document, size_t n, uint64_t position);
void append(memtx_store *store, size_t document, size_t n, uint64_t position);

/* Reads every visible row: the first failure, or MEMTX_OK when all are what was appended. A wrong row fails the test. */
int read_rows(memtx_store *store);
void check_rows(memtx_store *store, uint64_t first,
                uint64_t end); /* those visible, and that they are first .. end - 1 */
const struct memtx__extent *extent_of(const memtx_store *store, uint64_t row); /* NULL: it is in none */
void check_place(const memtx_store *store, uint64_t row, uint64_t document, uint64_t position);

/* Two documents of 1,300 rows together. */
void fill(memtx_store *store);
void check_filled(memtx_store *store);

/* Opens the store at `path` and reads all: MEMTX_OK with every row right, or what was said. */
int open_and_read(void);

#endif
