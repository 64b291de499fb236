/* Answers from an open GGUF file (memtx/gguf.h): lookup by name, single values converted and checked, strings walked.
 *
 * Everything the reader left in struct memtx_gguf has been checked against the file, so nothing here can leave it. A
 * lookup is a binary search over sorted names. */
#include <string.h>

#include "base/bytes.h"
#include "base/status.h"
#include "gguf/internal.h"

enum { STRING_HEADER = 8 }; /* bytes of a string's length */

struct type_row {
    const char *name;
    size_t n_bytes;
};

static const struct type_row type_rows[] = {
    [MEMTX_GGUF_U8] = {"u8", 1},       [MEMTX_GGUF_I8] = {"i8", 1},     [MEMTX_GGUF_U16] = {"u16", 2},
    [MEMTX_GGUF_I16] = {"i16", 2},     [MEMTX_GGUF_U32] = {"u32", 4},   [MEMTX_GGUF_I32] = {"i32", 4},
    [MEMTX_GGUF_F32] = {"f32", 4},     [MEMTX_GGUF_BOOL] = {"bool", 1}, [MEMTX_GGUF_STRING] = {"string", 0},
    [MEMTX_GGUF_ARRAY] = {"array", 0}, [MEMTX_GGUF_U64] = {"u64", 8},   [MEMTX_GGUF_I64] = {"i64", 8},
    [MEMTX_GGUF_F64] = {"f64", 8},
};

static const struct type_row *find_type(int type)
{
    return type >= 0 && (size_t)type < sizeof type_rows / sizeof type_rows[0] ? &type_rows[type] : NULL;
}

const char *memtx_gguf_type_name(int type)
{
    const struct type_row *row = find_type(type);
    return row ? row->name : NULL;
}

size_t memtx__gguf_type_bytes(int type)
{
    const struct type_row *row = find_type(type);
    return row ? row->n_bytes : 0;
}

const char *memtx_tensor_type_name(int type)
{
    switch (type) {
#define TYPE_CASE(name, value, values, bytes)                                                                          \
    case value:                                                                                                        \
        return #name;
        MEMTX_TENSOR_TYPE_TABLE(TYPE_CASE)
#undef TYPE_CASE
    default:
        return NULL;
    }
}

/* ---- what is in the file ---------------------------------------------------------------------- */

uint32_t memtx_gguf_version(const memtx_gguf *gguf)
{
    return gguf->version;
}

size_t memtx_gguf_file_bytes(const memtx_gguf *gguf)
{
    return gguf->n_bytes;
}

const char *memtx_gguf_path(const memtx_gguf *gguf)
{
    return gguf->path;
}

size_t memtx_gguf_n_values(const memtx_gguf *gguf)
{
    return gguf->n_values;
}

size_t memtx_gguf_n_tensors(const memtx_gguf *gguf)
{
    return gguf->n_tensors;
}

const struct memtx_gguf_value *memtx_gguf_value_at(const memtx_gguf *gguf, size_t i)
{
    return i < gguf->n_values ? &gguf->values[i] : NULL;
}

const struct memtx_tensor *memtx_gguf_tensor_at(const memtx_gguf *gguf, size_t i)
{
    return i < gguf->n_tensors ? &gguf->tensors[i] : NULL;
}

int memtx__text_compare(struct memtx_text a, struct memtx_text b)
{
    int order = memcmp(a.bytes, b.bytes, a.n_bytes < b.n_bytes ? a.n_bytes : b.n_bytes);
    return order ? order : (a.n_bytes > b.n_bytes) - (a.n_bytes < b.n_bytes);
}

static const struct memtx_text *find_text(const struct memtx_text *const *sorted, size_t n, const char *wanted)
{
    struct memtx_text text = {wanted, strlen(wanted)};
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = memtx__text_compare(*sorted[middle], text);
        if (!order) {
            return sorted[middle];
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

const struct memtx_gguf_value *memtx_gguf_find_value(const memtx_gguf *gguf, const char *key)
{
    return (const struct memtx_gguf_value *)find_text(gguf->keys, gguf->n_values, key);
}

const struct memtx_tensor *memtx_gguf_find_tensor(const memtx_gguf *gguf, const char *name)
{
    return (const struct memtx_tensor *)find_text(gguf->names, gguf->n_tensors, name);
}

/* ---- single values ---------------------------------------------------------------------------- */

static int find_needed(const struct memtx_gguf_value **out, const memtx_gguf *gguf, const char *key)
{
    *out = memtx_gguf_find_value(gguf, key);
    return *out ? MEMTX_OK : memtx__fail(MEMTX_E_NOT_FOUND, "%s: there is no key \"%s\"", gguf->path, key);
}

static int fail_type(const memtx_gguf *gguf, const struct memtx_gguf_value *value, const char *wanted)
{
    return memtx__fail(MEMTX_E_FORMAT, "%s: key \"%.*s\" holds a value of type %s; it must be %s", gguf->path,
                       memtx__shown_bytes(value->key), value->key.bytes, memtx_gguf_type_name((int)value->type),
                       wanted);
}

/* An integer value as a magnitude and a sign; false for any other type. */
static bool read_integer(uint64_t *out, bool *negative, const struct memtx_gguf_value *value)
{
    int n_bits = 8 * (int)memtx__gguf_type_bytes((int)value->type);
    switch (value->type) {
    case MEMTX_GGUF_U8:
    case MEMTX_GGUF_U16:
    case MEMTX_GGUF_U32:
    case MEMTX_GGUF_U64:
        *out = memtx__get_le(value->bytes, n_bits / 8);
        *negative = false;
        return true;
    case MEMTX_GGUF_I8:
    case MEMTX_GGUF_I16:
    case MEMTX_GGUF_I32:
    case MEMTX_GGUF_I64:
        *out = memtx__get_le(value->bytes, n_bits / 8);
        *negative = *out >> (n_bits - 1) & 1;
        if (*negative) {
            *out = (UINT64_MAX >> (64 - n_bits)) - *out + 1;
        }
        return true;
    default:
        return false;
    }
}

int memtx_gguf_get_u64(uint64_t *out, const memtx_gguf *gguf, const char *key, uint64_t low, uint64_t high)
{
    const struct memtx_gguf_value *value;
    uint64_t number;
    bool negative;
    int status = find_needed(&value, gguf, key);
    if (status) {
        return status;
    }
    if (!read_integer(&number, &negative, value)) {
        return fail_type(gguf, value, "an integer");
    }
    if (negative || number < low || number > high) {
        return memtx__fail(MEMTX_E_FORMAT, "%s: key \"%s\" is %s%llu; it must lie in %llu .. %llu", gguf->path, key,
                           negative ? "-" : "", (unsigned long long)number, (unsigned long long)low,
                           (unsigned long long)high);
    }
    *out = number;
    return MEMTX_OK;
}

int memtx_gguf_get_f64(double *out, const memtx_gguf *gguf, const char *key, double low, double high)
{
    const struct memtx_gguf_value *value;
    double number;
    int status = find_needed(&value, gguf, key);
    if (status) {
        return status;
    }
    if (value->type == MEMTX_GGUF_F32) {
        number = (double)memtx__get_f32(value->bytes);
    } else if (value->type == MEMTX_GGUF_F64) {
        uint64_t bits = memtx__get_u64(value->bytes);
        memcpy(&number, &bits, sizeof number);
    } else {
        return fail_type(gguf, value, "f32 or f64");
    }
    if (!(number >= low && number <= high)) { /* so that NaN is refused too */
        return memtx__fail(MEMTX_E_FORMAT, "%s: key \"%s\" is %g; it must lie in %g .. %g", gguf->path, key, number,
                           low, high);
    }
    *out = number;
    return MEMTX_OK;
}

int memtx_gguf_get_bool(bool *out, const memtx_gguf *gguf, const char *key)
{
    const struct memtx_gguf_value *value;
    int status = find_needed(&value, gguf, key);
    if (status) {
        return status;
    }
    if (value->type != MEMTX_GGUF_BOOL) {
        return fail_type(gguf, value, "bool");
    }
    if (value->bytes[0] > 1) {
        return memtx__fail(MEMTX_E_FORMAT, "%s: key \"%s\" is %d; a bool must be 0 or 1", gguf->path, key,
                           value->bytes[0]);
    }
    *out = value->bytes[0];
    return MEMTX_OK;
}

int memtx_gguf_get_text(struct memtx_text *out, const memtx_gguf *gguf, const char *key)
{
    const struct memtx_gguf_value *value;
    int status = find_needed(&value, gguf, key);
    if (status) {
        return status;
    }
    if (value->type != MEMTX_GGUF_STRING) {
        return fail_type(gguf, value, "a string");
    }
    *out = (struct memtx_text){(const char *)value->bytes + STRING_HEADER, value->n_bytes - STRING_HEADER};
    return MEMTX_OK;
}

bool memtx_gguf_next_string(struct memtx_text *out, const struct memtx_gguf_value *array, size_t *cursor)
{
    if (array->item_type != MEMTX_GGUF_STRING || *cursor >= array->n_bytes) {
        return false;
    }
    const unsigned char *item = array->bytes + *cursor;
    *out = (struct memtx_text){(const char *)item + STRING_HEADER, (size_t)memtx__get_u64(item)};
    *cursor += STRING_HEADER + out->n_bytes;
    return true;
}
