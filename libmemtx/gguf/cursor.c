/* Bounded reading of a file's pieces (cursor.h). */
#include "gguf/cursor.h"

#include "base/bytes.h"
#include "base/status.h"

static size_t left(const struct memtx__cursor *cursor)
{
    return cursor->n_bytes - cursor->at;
}

int memtx__take(const unsigned char **out, struct memtx__cursor *cursor, uint64_t n_bytes, const char *what)
{
    *out = NULL;
    if (n_bytes > left(cursor)) {
        return memtx__fail(
            MEMTX_E_FORMAT,
            "%s: cut off or damaged: %s takes %llu bytes at offset %zu; the file of %zu bytes has %zu left",
            cursor->path, what, (unsigned long long)n_bytes, cursor->at, cursor->n_bytes, left(cursor));
    }
    *out = cursor->bytes + cursor->at;
    cursor->at += (size_t)n_bytes;
    return MEMTX_OK;
}

int memtx__take_u32(uint32_t *out, struct memtx__cursor *cursor, const char *what)
{
    const unsigned char *bytes;
    int status = memtx__take(&bytes, cursor, 4, what);
    *out = bytes ? memtx__get_u32(bytes) : 0;
    return status;
}

int memtx__take_u64(uint64_t *out, struct memtx__cursor *cursor, const char *what)
{
    const unsigned char *bytes;
    int status = memtx__take(&bytes, cursor, 8, what);
    *out = bytes ? memtx__get_u64(bytes) : 0;
    return status;
}

int memtx__take_string(struct memtx_text *out, struct memtx__cursor *cursor, const char *what)
{
    uint64_t n_bytes;
    const unsigned char *bytes = NULL;
    int status = memtx__take_u64(&n_bytes, cursor, what);
    if (!status) {
        status = memtx__take(&bytes, cursor, n_bytes, what);
    }
    *out = (struct memtx_text){(const char *)bytes, bytes ? (size_t)n_bytes : 0};
    return status;
}

int memtx__take_name(struct memtx_text *out, struct memtx__cursor *cursor, const char *what)
{
    int status = memtx__take_string(out, cursor, what);
    if (!status && (out->n_bytes < 1 || out->n_bytes > MEMTX__GGUF_MAX_NAME)) {
        status = memtx__fail(MEMTX_E_FORMAT, "%s: %s at offset %zu has %zu bytes; 1 .. %d are allowed", cursor->path,
                             what, cursor->at - out->n_bytes, out->n_bytes, MEMTX__GGUF_MAX_NAME);
    }
    return status;
}

int memtx__take_count(uint64_t *out, struct memtx__cursor *cursor, size_t min_bytes, const char *what)
{
    int status = memtx__take_u64(out, cursor, what);
    if (!status && *out > left(cursor) / min_bytes) {
        status = memtx__fail(MEMTX_E_FORMAT,
                             "%s: cut off or damaged: %s is %llu; the %zu bytes that are left hold at most %zu",
                             cursor->path, what, (unsigned long long)*out, left(cursor), left(cursor) / min_bytes);
    }
    return status;
}
