/* The one checked allocator of the library: aligned, sizes multiplied with care, made to fail by tests. */
#ifndef MEMTX_BASE_ALLOC_H
#define MEMTX_BASE_ALLOC_H

#include <stdbool.h>
#include <stddef.h>

enum { MEMTX__ALIGN = 64 }; /* bytes: a cache line, and the widest vector register */

/* n_items * item_bytes zeroed bytes, 64-byte aligned, in *out (a pointer to a pointer). MEMTX_E_NO_MEMORY, and *out =
 * NULL, when the product overflows or the system has none. Zero items give a block that may be freed but not read. */
int memtx__alloc(void *out, size_t n_items, size_t item_bytes);

/* The same without clearing: for large buffers that are filled before they are read. */
int memtx__alloc_raw(void *out, size_t n_items, size_t item_bytes);

/* Grows *block, which holds *n_held items, to at least n_wanted (doubling); what it held is kept, on failure too. */
int memtx__grow(void *block, size_t *n_held, size_t n_wanted, size_t item_bytes);

/* A copy of a text, owned by the caller. */
int memtx__copy_text(char **out, const char *text);

void memtx__free(void *block); /* NULL is fine */

/* Blocks that are small each and up to n_bytes together will be taken and freed again and again, by whatever library:
 * the C library had better keep them (alloc.c). Any thread. MEMTX_E_NO_MEMORY. */
int memtx__alloc_expect(size_t n_bytes);

/* false when a * b or a + b does not fit; *out is then untouched. */
bool memtx__mul(size_t *out, size_t a, size_t b);
bool memtx__add(size_t *out, size_t a, size_t b);

/* Tests: the n-th allocation from now on fails (1 is the next); 0 switches that off. */
void memtx__alloc_fail_at(long n);

#endif
