/* LMDB's file of a small store, and of LMDB by itself, as the tests of its checker change it, in a folder of each test's
 * own: .init = pages_begin, .fini = pages_end. What goes wrong fails the test. */
#ifndef MEMTX_TESTS_PAGES_FILE_H
#define MEMTX_TESTS_PAGES_FILE_H

#include <stddef.h>

#include "store/pages.h"
#include "store/store.h"

struct MDB_env; /* of lmdb.h, for who includes it */

enum { PAGE = 4096, PAGES_HEAD_SIZE = 512, PAGES_DOCUMENTS = 40 };

extern char pages_folder[64], pages_name[96]; /* the folder, and the file in it */
extern int pages_fd;                          /* of the file, once one of the functions below has opened it */
extern unsigned char *pages_data;             /* the file as pages_load has read it */
extern size_t n_pages_bytes;

void pages_begin(void);
void pages_end(void);

void pages_open(void);
void pages_close(void);
void pages_load(void);
void pages_put(size_t at, const void *bytes, size_t n);
void pages_put_byte(size_t at, unsigned char byte);

int pages_check(enum memtx__pages_extent extent);
void pages_pass(void);                            /* both extents */
void pages_refused(int status, const char *text); /* so, with a message that has the text in it */

/* One layer with one head of PAGES_HEAD_SIZE. */
struct memtx_store_spec pages_spec(void);
/* A store of so many rows, in at most PAGES_DOCUMENTS documents, by many small transactions: more documents and extents than a page holds, and chunks that
 * were freed. */
void pages_make_store(size_t n_rows);

struct MDB_env *pages_open_env(unsigned flags); /* LMDB over the file; NULL: it refuses */

#endif
