/* An open GGUF file, as gguf/reader.c fills it and gguf/values.c answers from it. */
#ifndef MEMTX_GGUF_INTERNAL_H
#define MEMTX_GGUF_INTERNAL_H

#include "base/file.h"
#include "memtx/gguf.h"

enum {
    MEMTX__GGUF_DEFAULT_ALIGN = 32, /* of tensors, where general.alignment says nothing else */
    MEMTX__GGUF_HEADER_BYTES = 24   /* magic, version, number of tensors, number of values */
};

struct memtx_gguf {
    struct memtx__map map; /* empty when the bytes are the caller's */
    char *path;            /* or the name the caller gave them */
    const unsigned char *bytes;
    size_t n_bytes;
    uint32_t version;
    size_t n_values, n_tensors;
    struct memtx_gguf_value *values; /* in the file's order */
    struct memtx_tensor *tensors;    /* in the file's order */
    /* Pointers to the values' keys and to the tensors' names, sorted by text. A key stands first in its value and a
     * name first in its tensor, so a pointer to one is a pointer to the other. */
    const struct memtx_text **keys;
    const struct memtx_text **names;
};

/* What a type of value takes: its bytes, 0 for those of variable length and for numbers that are no type. */
size_t memtx__gguf_type_bytes(int type);

/* Order of texts: as bytes, a shorter one before those it begins. Negative, 0 or positive. */
int memtx__text_compare(struct memtx_text a, struct memtx_text b);

/* How much of a name or key an error text repeats, for "%.*s". */
static inline int memtx__shown_bytes(struct memtx_text text)
{
    return text.n_bytes < 80 ? (int)text.n_bytes : 80;
}

#endif
