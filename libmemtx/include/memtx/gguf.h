/* GGUF files: a bounded reader and a writer (format versions 2 and 3, little-endian).
 *
 * The reader maps the file and checks everything before it answers: every count, length, offset and product is compared
 * with the bytes that are there, tensors must lie inside the file, be aligned and not overlap. Nothing is allocated by
 * a number from the file before that number is bounded. What it returns is borrowed from the open file.
 */
#ifndef MEMTX_GGUF_H
#define MEMTX_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memtx/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { MEMTX_GGUF_MAX_DIMS = 4 };

/* X(name, value, values in a block, bytes of a block): the tensor types whose layout is known. */
#define MEMTX_TENSOR_TYPE_TABLE(X)                                                                                     \
    X(F32, 0, 1, 4)                                                                                                    \
    X(F16, 1, 1, 2)                                                                                                    \
    X(Q4_0, 2, 32, 18)                                                                                                 \
    X(Q4_1, 3, 32, 20)                                                                                                 \
    X(Q5_0, 6, 32, 22)                                                                                                 \
    X(Q5_1, 7, 32, 24)                                                                                                 \
    X(Q8_0, 8, 32, 34)                                                                                                 \
    X(Q4_K, 12, 256, 144)                                                                                              \
    X(Q5_K, 13, 256, 176)                                                                                              \
    X(Q6_K, 14, 256, 210)                                                                                              \
    X(BF16, 30, 1, 2)

enum memtx_tensor_type {
#define MEMTX_TENSOR_TYPE_ENUM(name, value, values, bytes) MEMTX_TENSOR_##name = value,
    MEMTX_TENSOR_TYPE_TABLE(MEMTX_TENSOR_TYPE_ENUM)
#undef MEMTX_TENSOR_TYPE_ENUM
};

enum memtx_gguf_type {
    MEMTX_GGUF_U8 = 0,
    MEMTX_GGUF_I8 = 1,
    MEMTX_GGUF_U16 = 2,
    MEMTX_GGUF_I16 = 3,
    MEMTX_GGUF_U32 = 4,
    MEMTX_GGUF_I32 = 5,
    MEMTX_GGUF_F32 = 6,
    MEMTX_GGUF_BOOL = 7,
    MEMTX_GGUF_STRING = 8,
    MEMTX_GGUF_ARRAY = 9,
    MEMTX_GGUF_U64 = 10,
    MEMTX_GGUF_I64 = 11,
    MEMTX_GGUF_F64 = 12
};

/* Bytes of a text that is not terminated by a zero. */
struct memtx_text {
    const char *bytes;
    size_t n_bytes;
};

/* A value of the file's key/value part. */
struct memtx_gguf_value {
    struct memtx_text key;
    enum memtx_gguf_type type;      /* MEMTX_GGUF_ARRAY for an array */
    enum memtx_gguf_type item_type; /* of an array's items (never itself an array); else equal to type */
    uint64_t n_items;               /* of an array; 1 for a single value */
    const unsigned char *bytes;     /* the value, or the array's first item, as it stands in the file */
    size_t n_bytes;
};

struct memtx_tensor {
    struct memtx_text name;
    int type;                           /* enum memtx_tensor_type, or another number that this library cannot read */
    int n_dims;                         /* 1..4 */
    uint64_t dims[MEMTX_GGUF_MAX_DIMS]; /* dims[0] is contiguous: a matrix [n_out][n_in] has dims {n_in, n_out}; 1
                                           beyond n_dims */
    uint64_t n_values;
    uint64_t offset;            /* of its first byte in the file */
    const unsigned char *bytes; /* NULL when the type is unknown */
    size_t n_bytes;
};

typedef struct memtx_gguf memtx_gguf;

/* Opens and checks a file. *out is the caller's, closed by memtx_gguf_close; NULL on failure. MEMTX_E_NOT_FOUND,
 * MEMTX_E_IO, MEMTX_E_NO_MEMORY, MEMTX_E_FORMAT (not GGUF, cut off, an offset outside, overlapping tensors, big-endian
 * ..), MEMTX_E_UNSUPPORTED (version 1, or newer than 3; an array of arrays), MEMTX_E_INVALID (a NULL path). A tensor of
 * an unknown type is listed but has no bytes. */
MEMTX_API int memtx_gguf_open(memtx_gguf **out, const char *path);

/* The same over bytes in memory, which must stay until the close. `name` stands for the path in error texts. */
MEMTX_API int memtx_gguf_open_bytes(memtx_gguf **out, const void *bytes, size_t n_bytes, const char *name);

MEMTX_API void memtx_gguf_close(memtx_gguf *gguf); /* NULL is fine */

/* Reading an open file: any number of threads. */
MEMTX_API uint32_t memtx_gguf_version(const memtx_gguf *gguf);
MEMTX_API size_t memtx_gguf_file_bytes(const memtx_gguf *gguf);
MEMTX_API const char *memtx_gguf_path(const memtx_gguf *gguf);
MEMTX_API size_t memtx_gguf_n_values(const memtx_gguf *gguf);
MEMTX_API size_t memtx_gguf_n_tensors(const memtx_gguf *gguf);
MEMTX_API const struct memtx_gguf_value *memtx_gguf_value_at(const memtx_gguf *gguf, size_t i); /* NULL past the end */
MEMTX_API const struct memtx_tensor *memtx_gguf_tensor_at(const memtx_gguf *gguf, size_t i);    /* NULL past the end */
MEMTX_API const struct memtx_gguf_value *memtx_gguf_find_value(const memtx_gguf *gguf, const char *key); /* or NULL */
MEMTX_API const struct memtx_tensor *memtx_gguf_find_tensor(const memtx_gguf *gguf, const char *name);   /* or NULL */

/* A single value by key, converted where that loses nothing (any integer type for u64; f32 or f64 for f64).
 * MEMTX_E_NOT_FOUND when there is no such key, MEMTX_E_FORMAT when it holds something else or lies outside [low, high].
 */
MEMTX_API int memtx_gguf_get_u64(uint64_t *out, const memtx_gguf *gguf, const char *key, uint64_t low, uint64_t high);
MEMTX_API int memtx_gguf_get_f64(double *out, const memtx_gguf *gguf, const char *key, double low, double high);
MEMTX_API int memtx_gguf_get_bool(bool *out, const memtx_gguf *gguf, const char *key);
MEMTX_API int memtx_gguf_get_text(struct memtx_text *out, const memtx_gguf *gguf, const char *key);

/* Walks the items of a string array: *cursor starts at 0 and is moved on; false at the end. */
MEMTX_API bool memtx_gguf_next_string(struct memtx_text *out, const struct memtx_gguf_value *array, size_t *cursor);

/* "Q4_1" and so on; "type N is unknown" has no name: NULL. Any thread. */
MEMTX_API const char *memtx_tensor_type_name(int type);
MEMTX_API const char *memtx_gguf_type_name(int type);

/* ---- writing ---------------------------------------------------------------------------------- */

typedef struct memtx_gguf_writer memtx_gguf_writer;

/* A writer collects values and tensors (copies) in memory; _write puts them into a file, whole or not at all.
 * Errors of the add functions: MEMTX_E_NO_MEMORY, MEMTX_E_EXISTS (the key or tensor is there already),
 * MEMTX_E_INVALID (a size that is no multiple of the type's block, more than 4 dimensions, a key or name that is empty
 * or longer than 65,535 bytes, the key general.alignment, which is the writer's). */
MEMTX_API int memtx_gguf_writer_create(memtx_gguf_writer **out);
MEMTX_API void memtx_gguf_writer_destroy(memtx_gguf_writer *writer); /* NULL is fine */
MEMTX_API int memtx_gguf_writer_add_u32(memtx_gguf_writer *writer, const char *key, uint32_t value);
MEMTX_API int memtx_gguf_writer_add_u64(memtx_gguf_writer *writer, const char *key, uint64_t value);
MEMTX_API int memtx_gguf_writer_add_f32(memtx_gguf_writer *writer, const char *key, float value);
MEMTX_API int memtx_gguf_writer_add_bool(memtx_gguf_writer *writer, const char *key, bool value);
MEMTX_API int memtx_gguf_writer_add_text(memtx_gguf_writer *writer, const char *key, const char *value);
MEMTX_API int memtx_gguf_writer_add_texts(memtx_gguf_writer *writer, const char *key, const struct memtx_text *items,
                                          size_t n_items);
/* An array of numbers, item_type one of the number types; `items` is laid out as in memory on this machine. */
MEMTX_API int memtx_gguf_writer_add_numbers(memtx_gguf_writer *writer, const char *key, enum memtx_gguf_type item_type,
                                            const void *items, size_t n_items);
/* A tensor of a type in MEMTX_TENSOR_TYPE_TABLE; `bytes` already in that type's layout. */
MEMTX_API int memtx_gguf_writer_add_tensor(memtx_gguf_writer *writer, const char *name, enum memtx_tensor_type type,
                                           int n_dims, const uint64_t *dims, const void *bytes, size_t n_bytes);
/* MEMTX_E_IO, MEMTX_E_NO_SPACE, MEMTX_E_NO_MEMORY. Tensors are aligned to 32 bytes; format version 3. */
MEMTX_API int memtx_gguf_writer_write(const memtx_gguf_writer *writer, const char *path);

#ifdef __cplusplus
}
#endif
#endif
