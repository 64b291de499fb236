/* Opening a GGUF file: parsing with every number bounded before it is used (memtx/gguf.h).
 *
 * Takes the bytes of a file, mapped or the caller's, gives struct memtx_gguf. The layout, all of it little-endian (v2
 * of the format widened v1's lengths to 64 bits, v3 says that files of the other byte order exist; v2 and v3 are read):
 *
 *     "GGUF"  version u32  n_tensors u64  n_values u64
 *     n_values times:   key string, type u32, value        a string is a length u64 and that many bytes;
 *                                                          an array an item type u32, a count u64 and the items
 *     n_tensors times:  name string, n_dims u32, dims u64 each, type u32, offset u64
 *     zeros to the next multiple of general.alignment (32 where it is absent), then the tensors' bytes; an offset
 * counts from here and is a multiple of the alignment
 *
 * A count is compared with the bytes that are left before it is used, and the arrays grow with what has been read, so
 * a file makes the reader allocate at most some times its own size. Arrays of arrays, which the format allows and no
 * known file has, are refused. Cost: one pass over the names and values and two sorts; the tensors' bytes are not
 * touched.
 *
 * A file that another process shortens while it is mapped raises SIGBUS when it is read: nothing can be checked there.
 */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/status.h"
#include "gguf/cursor.h"
#include "gguf/internal.h"
#include "math/quant.h"

enum {
    MIN_VALUE_BYTES = 9 + 4 + 1,          /* a key of one byte and its length, the type, a value of one byte */
    MIN_TENSOR_BYTES = 9 + 4 + 8 + 4 + 8, /* a name of one byte and its length, n_dims, one dim, type, offset */
    MIN_STRING_BYTES = 8,
    MIN_ALIGN = 8,
    MAX_ALIGN = 65536
};

/* Sorts pointers to texts and refuses two that are equal. */
static int compare_texts(const void *a, const void *b)
{
    return memtx__text_compare(**(const struct memtx_text *const *)a, **(const struct memtx_text *const *)b);
}

static int sort_names(const struct memtx_text **names, size_t n, const char *path, const char *what)
{
    qsort(names, n, sizeof(struct memtx_text *), compare_texts);
    for (size_t i = 1; i < n; i++) {
        if (!memtx__text_compare(*names[i - 1], *names[i])) {
            return memtx__fail(MEMTX_E_FORMAT, "%s: %s \"%.*s\" is there twice", path, what,
                               memtx__shown_bytes(*names[i]), names[i]->bytes);
        }
    }
    return MEMTX_OK;
}

/* ---- header ----------------------------------------------------------------------------------- */

static int check_magic(struct memtx__cursor *cursor)
{
    const unsigned char *magic = cursor->bytes;
    if (!cursor->n_bytes) {
        return memtx__fail(MEMTX_E_FORMAT, "%s: the file is empty", cursor->path);
    }
    if (cursor->n_bytes >= 4 && !memcmp(magic, "FUGG", 4)) {
        return memtx__fail(MEMTX_E_FORMAT, "%s: big-endian file; only little-endian GGUF is read", cursor->path);
    }
    if (cursor->n_bytes < 4 || memcmp(magic, "GGUF", 4)) {
        char shown[3 * 4 + 1] = "";
        for (size_t i = 0; i < 4 && i < cursor->n_bytes; i++) {
            static const char digits[] = "0123456789abcdef";
            memcpy(shown + 3 * i, (char[]){' ', digits[magic[i] >> 4], digits[magic[i] & 15], 0}, 4);
        }
        return memtx__fail(MEMTX_E_FORMAT,
                           "%s: not a GGUF file: it begins with the bytes%s; 47 47 55 46 must stand there",
                           cursor->path, shown);
    }
    if (cursor->n_bytes < MEMTX__GGUF_HEADER_BYTES) {
        return memtx__fail(MEMTX_E_FORMAT, "%s: cut off: it has %zu bytes, a GGUF header alone takes %d", cursor->path,
                           cursor->n_bytes, MEMTX__GGUF_HEADER_BYTES);
    }
    cursor->at = 4;
    return MEMTX_OK;
}

static int parse_header(struct memtx_gguf *gguf, struct memtx__cursor *cursor)
{
    uint64_t n_tensors, n_values;
    int status = check_magic(cursor);
    if (!status) {
        status = memtx__take_u32(&gguf->version, cursor, "the version");
    }
    if (status) {
        return status;
    }
    if (gguf->version && !(gguf->version & 0xFFFFFF)) {
        return memtx__fail(MEMTX_E_FORMAT,
                           "%s: big-endian file (its version reads 0x%08x); only little-endian GGUF is read",
                           cursor->path, (unsigned)gguf->version);
    }
    if (gguf->version < 2 || gguf->version > 3) {
        return memtx__fail(MEMTX_E_UNSUPPORTED, "%s: GGUF version %u; versions 2 and 3 are read", cursor->path,
                           (unsigned)gguf->version);
    }
    status = memtx__take_count(&n_tensors, cursor, MIN_TENSOR_BYTES, "the number of tensors");
    if (!status) {
        status = memtx__take_count(&n_values, cursor, MIN_VALUE_BYTES, "the number of keys");
    }
    if (!status) {
        gguf->n_tensors = (size_t)n_tensors;
        gguf->n_values = (size_t)n_values;
    }
    return status;
}

/* ---- keys and values -------------------------------------------------------------------------- */

static int fail_value(const struct memtx__cursor *cursor, int code, const struct memtx_gguf_value *value,
                      const char *why, unsigned long long number)
{
    return memtx__fail(code, "%s: key \"%.*s\": %s %llu", cursor->path, memtx__shown_bytes(value->key),
                       value->key.bytes, why, number);
}

static int parse_array(struct memtx_gguf_value *value, struct memtx__cursor *cursor)
{
    uint32_t item_type;
    int status = memtx__take_u32(&item_type, cursor, "an array's item type");
    if (status) {
        return status;
    }
    if (item_type == MEMTX_GGUF_ARRAY) {
        return fail_value(cursor, MEMTX_E_UNSUPPORTED, value, "an array of arrays is not read: item type", item_type);
    }
    if (item_type > MEMTX_GGUF_F64) {
        return fail_value(cursor, MEMTX_E_FORMAT, value, "an array's item type must lie in 0 .. 12, it is", item_type);
    }
    value->item_type = (enum memtx_gguf_type)item_type;
    size_t item_bytes = memtx__gguf_type_bytes((int)item_type);
    status =
        memtx__take_count(&value->n_items, cursor, item_bytes ? item_bytes : MIN_STRING_BYTES, "an array's length");
    if (status) {
        return status;
    }
    value->bytes = cursor->bytes + cursor->at;
    if (item_bytes) {
        const unsigned char *items;
        return memtx__take(&items, cursor, value->n_items * item_bytes, "an array");
    }
    for (uint64_t i = 0; i < value->n_items && !status; i++) {
        struct memtx_text item;
        status = memtx__take_string(&item, cursor, "a string of an array");
    }
    return status;
}

static int parse_value(struct memtx_gguf_value *value, struct memtx__cursor *cursor)
{
    uint32_t type = 0;
    int status = memtx__take_name(&value->key, cursor, "a key");
    if (!status) {
        status = memtx__take_u32(&type, cursor, "a value's type");
    }
    if (status) {
        return status;
    }
    if (type > MEMTX_GGUF_F64) {
        return fail_value(cursor, MEMTX_E_FORMAT, value, "a value's type must lie in 0 .. 12, it is", type);
    }
    value->type = value->item_type = (enum memtx_gguf_type)type;
    value->n_items = 1;
    value->bytes = cursor->bytes + cursor->at;
    if (type == MEMTX_GGUF_ARRAY) {
        status = parse_array(value, cursor);
    } else if (type == MEMTX_GGUF_STRING) {
        struct memtx_text text;
        status = memtx__take_string(&text, cursor, "a string");
    } else {
        const unsigned char *number;
        status = memtx__take(&number, cursor, memtx__gguf_type_bytes((int)type), "a number");
    }
    value->n_bytes = (size_t)(cursor->bytes + cursor->at - value->bytes);
    return status;
}

static int parse_values(struct memtx_gguf *gguf, struct memtx__cursor *cursor)
{
    int status = MEMTX_OK;
    size_t n_held = 0;
    for (size_t i = 0; i < gguf->n_values && !status; i++) {
        status = memtx__grow(&gguf->values, &n_held, i + 1, sizeof *gguf->values);
        if (!status) {
            status = parse_value(&gguf->values[i], cursor);
        }
    }
    if (!status) {
        status = memtx__alloc(&gguf->keys, gguf->n_values, sizeof *gguf->keys);
    }
    if (status) {
        return status;
    }
    for (size_t i = 0; i < gguf->n_values; i++) {
        gguf->keys[i] = &gguf->values[i].key;
    }
    return sort_names(gguf->keys, gguf->n_values, gguf->path, "key");
}

/* ---- tensors ---------------------------------------------------------------------------------- */

static int fail_tensor(const struct memtx__cursor *cursor, const struct memtx_tensor *tensor, const char *what,
                       unsigned long long value, const char *range)
{
    return memtx__fail(MEMTX_E_FORMAT, "%s: tensor \"%.*s\": %s %llu%s", cursor->path, memtx__shown_bytes(tensor->name),
                       tensor->name.bytes, what, value, range);
}

static int parse_dims(struct memtx_tensor *tensor, struct memtx__cursor *cursor)
{
    uint32_t n_dims;
    int status = memtx__take_u32(&n_dims, cursor, "a tensor's number of dimensions");
    if (status) {
        return status;
    }
    if (n_dims < 1 || n_dims > MEMTX_GGUF_MAX_DIMS) {
        return fail_tensor(cursor, tensor, "the number of dimensions is", n_dims, "; 1 .. 4 are allowed");
    }
    tensor->n_dims = (int)n_dims;
    tensor->n_values = 1;
    for (uint32_t i = 0; i < MEMTX_GGUF_MAX_DIMS; i++) {
        tensor->dims[i] = 1;
        status = i < n_dims ? memtx__take_u64(&tensor->dims[i], cursor, "a tensor's dimension") : MEMTX_OK;
        if (status) {
            return status;
        }
        if (!tensor->dims[i]) {
            return fail_tensor(cursor, tensor, "a dimension is", 0, "; at least 1 is needed");
        }
        if (__builtin_mul_overflow(tensor->n_values, tensor->dims[i], &tensor->n_values)) {
            return fail_tensor(cursor, tensor, "the product of the dimensions up to", tensor->dims[i],
                               " passes 2^64 - 1");
        }
    }
    return MEMTX_OK;
}

/* Bytes from values; an unknown type has none. A number of bytes that cannot be in the file is refused here. */
static int size_tensor(struct memtx_tensor *tensor, struct memtx__cursor *cursor)
{
    size_t block_values, block_bytes;
    if (!memtx__quant_layout(&block_values, &block_bytes, tensor->type)) {
        return MEMTX_OK;
    }
    if (tensor->dims[0] % block_values) {
        return memtx__fail(MEMTX_E_FORMAT,
                           "%s: tensor \"%.*s\": its first dimension is %llu; %s needs a multiple of %zu", cursor->path,
                           memtx__shown_bytes(tensor->name), tensor->name.bytes, (unsigned long long)tensor->dims[0],
                           memtx_tensor_type_name(tensor->type), block_values);
    }
    uint64_t n_blocks = tensor->n_values / block_values;
    if (n_blocks > cursor->n_bytes / block_bytes) {
        return memtx__fail(MEMTX_E_FORMAT,
                           "%s: tensor \"%.*s\": %llu values of type %s do not fit in a file of %zu bytes",
                           cursor->path, memtx__shown_bytes(tensor->name), tensor->name.bytes,
                           (unsigned long long)tensor->n_values, memtx_tensor_type_name(tensor->type), cursor->n_bytes);
    }
    tensor->n_bytes = (size_t)n_blocks * block_bytes;
    return MEMTX_OK;
}

static int parse_tensor(struct memtx_tensor *tensor, struct memtx__cursor *cursor)
{
    uint32_t type = 0;
    int status = memtx__take_name(&tensor->name, cursor, "a tensor's name");
    if (!status) {
        status = parse_dims(tensor, cursor);
    }
    if (!status) {
        status = memtx__take_u32(&type, cursor, "a tensor's type");
    }
    if (!status) {
        status = memtx__take_u64(&tensor->offset, cursor, "a tensor's offset");
    }
    if (!status && type > INT32_MAX) {
        status = fail_tensor(cursor, tensor, "its type is", type, "; at most 2147483647 is allowed");
    }
    tensor->type = (int)type;
    return status ? status : size_tensor(tensor, cursor);
}

/* Turns the offset, which counts from the data, into one that counts from the file, and finds the bytes. */
static int place_tensor(struct memtx_tensor *tensor, const struct memtx__cursor *cursor, size_t data_at, size_t align)
{
    if (tensor->offset % align) {
        return memtx__fail(MEMTX_E_FORMAT, "%s: tensor \"%.*s\": offset %llu is not a multiple of the alignment %zu",
                           cursor->path, memtx__shown_bytes(tensor->name), tensor->name.bytes,
                           (unsigned long long)tensor->offset, align);
    }
    if (data_at > cursor->n_bytes || tensor->offset > cursor->n_bytes - data_at ||
        tensor->n_bytes > cursor->n_bytes - data_at - (size_t)tensor->offset) {
        return memtx__fail(MEMTX_E_FORMAT,
                           "%s: tensor \"%.*s\": offset %zu + %llu + %zu bytes lies outside the file of %zu bytes",
                           cursor->path, memtx__shown_bytes(tensor->name), tensor->name.bytes, data_at,
                           (unsigned long long)tensor->offset, tensor->n_bytes, cursor->n_bytes);
    }
    tensor->offset += data_at;
    tensor->bytes = tensor->n_bytes ? cursor->bytes + tensor->offset : NULL;
    return MEMTX_OK;
}

static int compare_offsets(const void *a, const void *b)
{
    const struct memtx_tensor *x = (const void *)*(const struct memtx_text *const *)a;
    const struct memtx_tensor *y = (const void *)*(const struct memtx_text *const *)b;
    if (x->offset != y->offset) {
        return x->offset < y->offset ? -1 : 1;
    }
    return (x->n_bytes > y->n_bytes) - (x->n_bytes < y->n_bytes);
}

/* Sorts `names` by the tensors' offsets, as a scratch for this check. */
static int check_overlap(const struct memtx_gguf *gguf)
{
    qsort(gguf->names, gguf->n_tensors, sizeof(struct memtx_text *), compare_offsets);
    for (size_t i = 1; i < gguf->n_tensors; i++) {
        const struct memtx_tensor *a = (const void *)gguf->names[i - 1], *b = (const void *)gguf->names[i];
        if (a->offset + a->n_bytes > b->offset) {
            return memtx__fail(MEMTX_E_FORMAT,
                               "%s: tensors \"%.*s\" (offset %llu + %zu bytes) and \"%.*s\" (offset %llu) overlap",
                               gguf->path, memtx__shown_bytes(a->name), a->name.bytes, (unsigned long long)a->offset,
                               a->n_bytes, memtx__shown_bytes(b->name), b->name.bytes, (unsigned long long)b->offset);
        }
    }
    return MEMTX_OK;
}

static int read_alignment(size_t *out, const struct memtx_gguf *gguf)
{
    static const char key[] = "general.alignment";
    uint64_t align = MEMTX__GGUF_DEFAULT_ALIGN;
    int status =
        memtx_gguf_find_value(gguf, key) ? memtx_gguf_get_u64(&align, gguf, key, MIN_ALIGN, MAX_ALIGN) : MEMTX_OK;
    if (!status && align & (align - 1)) {
        status = memtx__fail(MEMTX_E_FORMAT, "%s: key \"%s\" is %llu; it must be a power of two", gguf->path, key,
                             (unsigned long long)align);
    }
    *out = (size_t)align;
    return status;
}

static int parse_tensors(struct memtx_gguf *gguf, struct memtx__cursor *cursor)
{
    int status = MEMTX_OK;
    size_t n_held = 0;
    for (size_t i = 0; i < gguf->n_tensors && !status; i++) {
        status = memtx__grow(&gguf->tensors, &n_held, i + 1, sizeof *gguf->tensors);
        if (!status) {
            status = parse_tensor(&gguf->tensors[i], cursor);
        }
    }
    return status;
}

static int place_tensors(struct memtx_gguf *gguf, const struct memtx__cursor *cursor)
{
    size_t align;
    int status = read_alignment(&align, gguf);
    for (size_t i = 0; i < gguf->n_tensors && !status; i++) {
        status = place_tensor(&gguf->tensors[i], cursor, (cursor->at + align - 1) & ~(align - 1), align);
    }
    if (!status) {
        status = memtx__alloc(&gguf->names, gguf->n_tensors, sizeof *gguf->names);
    }
    if (status) {
        return status;
    }
    for (size_t i = 0; i < gguf->n_tensors; i++) {
        gguf->names[i] = &gguf->tensors[i].name;
    }
    status = check_overlap(gguf);
    return status ? status : sort_names(gguf->names, gguf->n_tensors, gguf->path, "tensor");
}

/* ---- open and close --------------------------------------------------------------------------- */

/* Takes over the map, on failure too. */
static int open_map(memtx_gguf **out, struct memtx__map map, const void *bytes, size_t n_bytes, const char *path)
{
    struct memtx_gguf *gguf;
    struct memtx__cursor cursor = {path, bytes, n_bytes, 0};
    int status = memtx__alloc(&gguf, 1, sizeof *gguf);
    if (status) {
        memtx__map_close(&map);
        return status;
    }
    gguf->map = map;
    gguf->bytes = bytes;
    gguf->n_bytes = n_bytes;
    status = memtx__copy_text(&gguf->path, path);
    if (!status) {
        status = parse_header(gguf, &cursor);
    }
    if (!status) {
        status = parse_values(gguf, &cursor);
    }
    if (!status) {
        status = parse_tensors(gguf, &cursor);
    }
    if (!status) {
        status = place_tensors(gguf, &cursor);
    }
    if (status) {
        memtx_gguf_close(gguf);
        return status;
    }
    *out = gguf;
    return MEMTX_OK;
}

int memtx_gguf_open_bytes(memtx_gguf **out, const void *bytes, size_t n_bytes, const char *name)
{
    *out = NULL;
    if (!name || (!bytes && n_bytes)) {
        return memtx__fail(MEMTX_E_INVALID, "a GGUF needs bytes and a name; %s is NULL", name ? "bytes" : "the name");
    }
    return open_map(out, (struct memtx__map){0}, bytes, n_bytes, name);
}

int memtx_gguf_open(memtx_gguf **out, const char *path)
{
    struct memtx__map map;
    *out = NULL;
    if (!path) {
        return memtx__fail(MEMTX_E_INVALID, "the path of a GGUF is NULL");
    }
    int status = memtx__map_open(&map, path);
    return status ? status : open_map(out, map, map.bytes, map.n_bytes, path);
}

void memtx_gguf_close(memtx_gguf *gguf)
{
    if (!gguf) {
        return;
    }
    memtx__free(gguf->names);
    memtx__free(gguf->tensors);
    memtx__free(gguf->keys);
    memtx__free(gguf->values);
    memtx__free(gguf->path);
    memtx__map_close(&gguf->map);
    memtx__free(gguf);
}
