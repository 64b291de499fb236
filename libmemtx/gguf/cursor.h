/* Reading a file front to back with every length compared with the bytes that are left.
 *
 * Each function moves the cursor on over what it takes and names that by `what` in its error: MEMTX_E_FORMAT, with
 * *out zero. What is taken is borrowed from the file's bytes. */
#ifndef MEMTX_GGUF_CURSOR_H
#define MEMTX_GGUF_CURSOR_H

#include <stddef.h>
#include <stdint.h>

#include "memtx/gguf.h"

enum { MEMTX__GGUF_MAX_NAME = 65535 }; /* bytes of a key (the format's limit) and of a tensor's name */

struct memtx__cursor {
    const char *path; /* for error texts */
    const unsigned char *bytes;
    size_t n_bytes;
    size_t at; /* what is read next */
};

int memtx__take(const unsigned char **out, struct memtx__cursor *cursor, uint64_t n_bytes, const char *what);
int memtx__take_u32(uint32_t *out, struct memtx__cursor *cursor, const char *what);
int memtx__take_u64(uint64_t *out, struct memtx__cursor *cursor, const char *what);
int memtx__take_string(struct memtx_text *out, struct memtx__cursor *cursor, const char *what);

/* A key or a tensor's name: a string of 1 .. MEMTX__GGUF_MAX_NAME bytes. */
int memtx__take_name(struct memtx_text *out, struct memtx__cursor *cursor, const char *what);

/* The count of things that take at least min_bytes each: what is left must be able to hold them. */
int memtx__take_count(uint64_t *out, struct memtx__cursor *cursor, size_t min_bytes, const char *what);

#endif
