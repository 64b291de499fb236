/* Writing a GGUF file (memtx/gguf.h); its layout stands in gguf/reader.c.
 *
 * A writer holds the key/value part as it will stand in the file and a copy of each tensor; _write puts them together
 * in one block of memory, so its cost is twice the tensors' bytes for that time. A failing call leaves the writer as it
 * was. Names are compared one by one: fine for thousands of them, not for millions. */
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/file.h"
#include "base/status.h"
#include "gguf/cursor.h"
#include "gguf/internal.h"
#include "math/quant.h"

enum { VERSION = 3 };

struct tensor_entry {
    char *name;
    uint32_t type;
    uint32_t n_dims;
    uint64_t dims[MEMTX_GGUF_MAX_DIMS];
    uint64_t offset; /* from the first tensor */
    unsigned char *bytes;
    size_t n_bytes;
};

struct memtx_gguf_writer {
    unsigned char *values; /* the key/value part */
    size_t n_value_bytes, n_value_bytes_held;
    char **keys;
    size_t n_keys, n_keys_held;
    struct tensor_entry *tensors;
    size_t n_tensors, n_tensors_held;
    uint64_t n_data_bytes; /* of the tensors, each with its padding */
};

int memtx_gguf_writer_create(memtx_gguf_writer **out)
{
    return memtx__alloc(out, 1, sizeof **out);
}

void memtx_gguf_writer_destroy(memtx_gguf_writer *writer)
{
    if (!writer) {
        return;
    }
    for (size_t i = 0; i < writer->n_tensors; i++) {
        memtx__free(writer->tensors[i].bytes);
        memtx__free(writer->tensors[i].name);
    }
    for (size_t i = 0; i < writer->n_keys; i++) {
        memtx__free(writer->keys[i]);
    }
    memtx__free(writer->tensors);
    memtx__free(writer->keys);
    memtx__free(writer->values);
    memtx__free(writer);
}

static unsigned char *put_string(unsigned char *at, const char *bytes, size_t n_bytes)
{
    memtx__put_u64(at, n_bytes);
    if (n_bytes) {
        memcpy(at + 8, bytes, n_bytes);
    }
    return at + 8 + n_bytes;
}

static int check_name(const char *name, const char *what)
{
    size_t n_bytes = name ? strlen(name) : 0;
    if (n_bytes < 1 || n_bytes > MEMTX__GGUF_MAX_NAME) {
        return memtx__fail(MEMTX_E_INVALID, "%s has %zu bytes; 1 .. %d are allowed", what, n_bytes,
                           MEMTX__GGUF_MAX_NAME);
    }
    return MEMTX_OK;
}

/* ---- values ----------------------------------------------------------------------------------- */

static int check_key(const memtx_gguf_writer *writer, const char *key)
{
    int status = check_name(key, "a key");
    if (status) {
        return status;
    }
    if (!strcmp(key, "general.alignment")) {
        return memtx__fail(MEMTX_E_INVALID, "key \"%s\" is not the caller's: tensors are aligned to %d bytes", key,
                           MEMTX__GGUF_DEFAULT_ALIGN);
    }
    for (size_t i = 0; i < writer->n_keys; i++) {
        if (!strcmp(writer->keys[i], key)) {
            return memtx__fail(MEMTX_E_EXISTS, "key \"%s\" is there already", key);
        }
    }
    return MEMTX_OK;
}

/* Adds a key and its type; *at is then the place of a value of n_bytes bytes, which the caller fills. */
static int begin_value(unsigned char **at, memtx_gguf_writer *writer, const char *key, enum memtx_gguf_type type,
                       size_t n_bytes)
{
    char *copy;
    size_t n_wanted;
    int status = check_key(writer, key);
    if (status) {
        return status;
    }
    size_t n_key = strlen(key);
    if (!memtx__add(&n_wanted, writer->n_value_bytes, 8 + n_key + 4) || !memtx__add(&n_wanted, n_wanted, n_bytes)) {
        return memtx__fail(MEMTX_E_NO_MEMORY, "key \"%s\": %zu bytes are too many", key, n_bytes);
    }
    status = memtx__grow(&writer->values, &writer->n_value_bytes_held, n_wanted, 1);
    if (!status) {
        status = memtx__grow(&writer->keys, &writer->n_keys_held, writer->n_keys + 1, sizeof *writer->keys);
    }
    if (!status) {
        status = memtx__copy_text(&copy, key);
    }
    if (status) {
        return status;
    }
    *at = put_string(writer->values + writer->n_value_bytes, key, n_key);
    memtx__put_u32(*at, (uint32_t)type);
    *at += 4;
    writer->n_value_bytes = n_wanted;
    writer->keys[writer->n_keys++] = copy;
    return MEMTX_OK;
}

/* An array's item type and length before n_bytes bytes of items. */
static int begin_array(unsigned char **at, memtx_gguf_writer *writer, const char *key, enum memtx_gguf_type item_type,
                       size_t n_items, size_t n_bytes)
{
    size_t n_all;
    if (!memtx__add(&n_all, n_bytes, 12)) {
        return memtx__fail(MEMTX_E_NO_MEMORY, "key \"%s\": %zu bytes are too many", key ? key : "", n_bytes);
    }
    int status = begin_value(at, writer, key, MEMTX_GGUF_ARRAY, n_all);
    if (!status) {
        memtx__put_u32(*at, (uint32_t)item_type);
        memtx__put_u64(*at + 4, n_items);
        *at += 12;
    }
    return status;
}

static int add_number(memtx_gguf_writer *writer, const char *key, enum memtx_gguf_type type, uint64_t bits)
{
    unsigned char *at;
    size_t n_bytes = memtx__gguf_type_bytes((int)type);
    int status = begin_value(&at, writer, key, type, n_bytes);
    if (!status) {
        memtx__put_le(at, bits, (int)n_bytes);
    }
    return status;
}

int memtx_gguf_writer_add_u32(memtx_gguf_writer *writer, const char *key, uint32_t value)
{
    return add_number(writer, key, MEMTX_GGUF_U32, value);
}

int memtx_gguf_writer_add_u64(memtx_gguf_writer *writer, const char *key, uint64_t value)
{
    return add_number(writer, key, MEMTX_GGUF_U64, value);
}

int memtx_gguf_writer_add_f32(memtx_gguf_writer *writer, const char *key, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return add_number(writer, key, MEMTX_GGUF_F32, bits);
}

int memtx_gguf_writer_add_bool(memtx_gguf_writer *writer, const char *key, bool value)
{
    return add_number(writer, key, MEMTX_GGUF_BOOL, value);
}

int memtx_gguf_writer_add_text(memtx_gguf_writer *writer, const char *key, const char *value)
{
    unsigned char *at;
    if (!value) {
        return memtx__fail(MEMTX_E_INVALID, "key \"%s\": the text is NULL", key ? key : "");
    }
    size_t n_bytes = strlen(value);
    int status = begin_value(&at, writer, key, MEMTX_GGUF_STRING, 8 + n_bytes);
    if (!status) {
        (void)put_string(at, value, n_bytes);
    }
    return status;
}

int memtx_gguf_writer_add_texts(memtx_gguf_writer *writer, const char *key, const struct memtx_text *items,
                                size_t n_items)
{
    unsigned char *at;
    size_t n_bytes;
    if (!memtx__mul(&n_bytes, n_items, 8)) {
        return memtx__fail(MEMTX_E_NO_MEMORY, "key \"%s\": %zu texts are too many", key ? key : "", n_items);
    }
    for (size_t i = 0; i < n_items; i++) {
        if (!memtx__add(&n_bytes, n_bytes, items[i].n_bytes)) {
            return memtx__fail(MEMTX_E_NO_MEMORY, "key \"%s\": its texts are too long", key ? key : "");
        }
    }
    int status = begin_array(&at, writer, key, MEMTX_GGUF_STRING, n_items, n_bytes);
    for (size_t i = 0; i < n_items && !status; i++) {
        at = put_string(at, items[i].bytes, items[i].n_bytes);
    }
    return status;
}

/* A number of 1, 2, 4 or 8 bytes as this machine holds it, to little-endian. */
static void put_number(unsigned char *at, const unsigned char *native, size_t n_bytes)
{
    uint16_t two;
    uint32_t four;
    uint64_t eight;
    switch (n_bytes) {
    case 2:
        memcpy(&two, native, 2);
        memtx__put_u16(at, two);
        break;
    case 4:
        memcpy(&four, native, 4);
        memtx__put_u32(at, four);
        break;
    case 8:
        memcpy(&eight, native, 8);
        memtx__put_u64(at, eight);
        break;
    default:
        *at = *native;
        break;
    }
}

int memtx_gguf_writer_add_numbers(memtx_gguf_writer *writer, const char *key, enum memtx_gguf_type item_type,
                                  const void *items, size_t n_items)
{
    unsigned char *at;
    size_t n_bytes, item_bytes = memtx__gguf_type_bytes((int)item_type);
    if (!item_bytes) {
        return memtx__fail(MEMTX_E_INVALID, "key \"%s\": type %d is not that of a number", key ? key : "",
                           (int)item_type);
    }
    if (!memtx__mul(&n_bytes, n_items, item_bytes)) {
        return memtx__fail(MEMTX_E_NO_MEMORY, "key \"%s\": %zu numbers are too many", key ? key : "", n_items);
    }
    int status = begin_array(&at, writer, key, item_type, n_items, n_bytes);
    for (size_t i = 0; i < n_items && !status; i++) {
        put_number(at + i * item_bytes, (const unsigned char *)items + i * item_bytes, item_bytes);
    }
    return status;
}

/* ---- tensors ---------------------------------------------------------------------------------- */

/* Checks a tensor's type, dimensions and size. */
static int check_tensor(const char *name, int type, int n_dims, const uint64_t *dims, size_t n_bytes)
{
    size_t block_values, block_bytes, n_values = 1, wanted;
    if (!memtx__quant_layout(&block_values, &block_bytes, type)) {
        return memtx__fail(MEMTX_E_INVALID, "tensor \"%s\": type %d is unknown", name, type);
    }
    if (n_dims < 1 || n_dims > MEMTX_GGUF_MAX_DIMS) {
        return memtx__fail(MEMTX_E_INVALID, "tensor \"%s\": %d dimensions; 1 .. %d are allowed", name, n_dims,
                           MEMTX_GGUF_MAX_DIMS);
    }
    if (dims[0] % block_values) {
        return memtx__fail(MEMTX_E_INVALID, "tensor \"%s\": its first dimension is %llu; %s needs a multiple of %zu",
                           name, (unsigned long long)dims[0], memtx_tensor_type_name(type), block_values);
    }
    for (int i = 0; i < n_dims; i++) {
        if (!dims[i] || __builtin_mul_overflow(n_values, dims[i], &n_values)) {
            return memtx__fail(MEMTX_E_INVALID,
                               "tensor \"%s\": dimension %d is %llu; the product must lie in 1 .. 2^64 - 1", name, i,
                               (unsigned long long)dims[i]);
        }
    }
    if (!memtx__mul(&wanted, n_values / block_values, block_bytes) || wanted != n_bytes) {
        return memtx__fail(MEMTX_E_INVALID, "tensor \"%s\": %zu bytes given for %zu values of type %s", name, n_bytes,
                           n_values, memtx_tensor_type_name(type));
    }
    return MEMTX_OK;
}

static int check_tensor_name(const memtx_gguf_writer *writer, const char *name)
{
    int status = check_name(name, "a tensor's name");
    for (size_t i = 0; i < writer->n_tensors && !status; i++) {
        if (!strcmp(writer->tensors[i].name, name)) {
            status = memtx__fail(MEMTX_E_EXISTS, "tensor \"%s\" is there already", name);
        }
    }
    return status;
}

static size_t align_up(size_t n_bytes)
{
    return (n_bytes + MEMTX__GGUF_DEFAULT_ALIGN - 1) & ~((size_t)MEMTX__GGUF_DEFAULT_ALIGN - 1);
}

int memtx_gguf_writer_add_tensor(memtx_gguf_writer *writer, const char *name, enum memtx_tensor_type type, int n_dims,
                                 const uint64_t *dims, const void *bytes, size_t n_bytes)
{
    struct tensor_entry entry = {.type = (uint32_t)type, .n_dims = (uint32_t)n_dims, .n_bytes = n_bytes};
    int status = check_tensor_name(writer, name);
    if (!status) {
        status = check_tensor(name, (int)type, n_dims, dims, n_bytes);
    }
    if (!status) {
        status = memtx__grow(&writer->tensors, &writer->n_tensors_held, writer->n_tensors + 1, sizeof *writer->tensors);
    }
    if (!status) {
        status = memtx__copy_text(&entry.name, name);
    }
    if (!status) {
        status = memtx__alloc_raw(&entry.bytes, n_bytes, 1);
    }
    if (status) {
        memtx__free(entry.name);
        return status;
    }
    memcpy(entry.bytes, bytes, n_bytes);
    memcpy(entry.dims, dims, (size_t)n_dims * sizeof *dims);
    entry.offset = writer->n_data_bytes;
    writer->n_data_bytes += align_up(n_bytes);
    writer->tensors[writer->n_tensors++] = entry;
    return MEMTX_OK;
}

/* ---- the file --------------------------------------------------------------------------------- */

static size_t info_bytes(const struct tensor_entry *tensor)
{
    return 8 + strlen(tensor->name) + 4 + 8 * (size_t)tensor->n_dims + 4 + 8;
}

static unsigned char *put_info(unsigned char *at, const struct tensor_entry *tensor)
{
    at = put_string(at, tensor->name, strlen(tensor->name));
    memtx__put_u32(at, tensor->n_dims);
    at += 4;
    for (uint32_t i = 0; i < tensor->n_dims; i++, at += 8) {
        memtx__put_u64(at, tensor->dims[i]);
    }
    memtx__put_u32(at, tensor->type);
    memtx__put_u64(at + 4, tensor->offset);
    return at + 12;
}

int memtx_gguf_writer_write(const memtx_gguf_writer *writer, const char *path)
{
    unsigned char *file;
    size_t n_head = MEMTX__GGUF_HEADER_BYTES + writer->n_value_bytes, n_all;
    if (!path) {
        return memtx__fail(MEMTX_E_INVALID, "the path of a GGUF is NULL");
    }
    for (size_t i = 0; i < writer->n_tensors; i++) {
        n_head += info_bytes(&writer->tensors[i]);
    }
    if (!memtx__add(&n_all, align_up(n_head), (size_t)writer->n_data_bytes)) {
        return memtx__fail(MEMTX_E_NO_MEMORY, "%s: %llu bytes of tensors are too many", path,
                           (unsigned long long)writer->n_data_bytes);
    }
    int status = memtx__alloc(&file, n_all, 1);
    if (status) {
        return status;
    }
    memcpy(file, "GGUF", 4);
    memtx__put_u32(file + 4, VERSION);
    memtx__put_u64(file + 8, writer->n_tensors);
    memtx__put_u64(file + 16, writer->n_keys);
    if (writer->n_value_bytes) {
        memcpy(file + MEMTX__GGUF_HEADER_BYTES, writer->values, writer->n_value_bytes);
    }
    unsigned char *at = file + MEMTX__GGUF_HEADER_BYTES + writer->n_value_bytes;
    unsigned char *data = file + align_up(n_head);
    for (size_t i = 0; i < writer->n_tensors; i++) {
        at = put_info(at, &writer->tensors[i]);
        memcpy(data + writer->tensors[i].offset, writer->tensors[i].bytes, writer->tensors[i].n_bytes);
    }
    status = memtx__write_file(path, file, n_all);
    memtx__free(file);
    return status;
}
