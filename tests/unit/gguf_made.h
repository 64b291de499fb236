/* GGUF files made by hand, byte by byte, so that they can be wrong in one place: the file is `made`, and each put goes
 * on where the one before ended. Shared by the tests of gguf/. */
#ifndef MEMTX_TESTS_GGUF_MADE_H
#define MEMTX_TESTS_GGUF_MADE_H

#include <stddef.h>
#include <stdint.h>

#include "memtx/gguf.h"

enum { MADE_MOST_BYTES = 1 << 18 };

extern struct made {
    unsigned char bytes[MADE_MOST_BYTES];
    size_t n_bytes;
} made;

void made_put_header(uint64_t n_tensors, uint64_t n_values); /* begins a new file */
void made_put(uint64_t value, int n_bytes);
void made_put_text(const char *text);
void made_put_key(const char *key, uint32_t type);
void made_put_number(const char *key, uint32_t type, uint64_t bits, int n_bytes);
void made_put_tensor(const char *name, uint32_t type, uint32_t n_dims, const uint64_t *dims, uint64_t offset);
/* Zeros up to the data, then n_bytes of them. */
void made_put_data(size_t n_bytes);

/* A file of one tensor. */
void made_one_tensor(uint32_t type, uint32_t n_dims, const uint64_t *dims, uint64_t offset, size_t n_data_bytes);

/* Opens n_bytes bytes of `made` in a block of exactly that size, so that a sanitizer sees one byte too far. The block
 * lives until the next call. */
int made_open_part(memtx_gguf **out, size_t n_bytes);

/* Opens all of it, which must be good. */
memtx_gguf *made_open(void);

/* The file is refused with this status, a text that names it and holds `piece`, in one line. */
void made_refused(int status, const char *piece);

#endif
