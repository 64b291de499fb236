/* GGUF files made by hand (gguf_made.h). */
#include "gguf_made.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

struct made made;

void made_put(uint64_t value, int n_bytes)
{
    memtx__put_le(made.bytes + made.n_bytes, value, n_bytes);
    made.n_bytes += (size_t)n_bytes;
}

void made_put_text(const char *text)
{
    size_t n = strlen(text);
    made_put(n, 8);
    memcpy(made.bytes + made.n_bytes, text, n);
    made.n_bytes += n;
}

void made_put_header(uint64_t n_tensors, uint64_t n_values)
{
    made.n_bytes = 0;
    memcpy(made.bytes, "GGUF", 4);
    made.n_bytes = 4;
    made_put(3, 4);
    made_put(n_tensors, 8);
    made_put(n_values, 8);
}

void made_put_key(const char *key, uint32_t type)
{
    made_put_text(key);
    made_put(type, 4);
}

void made_put_number(const char *key, uint32_t type, uint64_t bits, int n_bytes)
{
    made_put_key(key, type);
    made_put(bits, n_bytes);
}

void made_put_tensor(const char *name, uint32_t type, uint32_t n_dims, const uint64_t *dims, uint64_t offset)
{
    made_put_text(name);
    made_put(n_dims, 4);
    for (uint32_t i = 0; i < n_dims; i++) {
        made_put(dims[i], 8);
    }
    made_put(type, 4);
    made_put(offset, 8);
}

void made_put_data(size_t n_bytes)
{
    while (made.n_bytes % 32) {
        made_put(0, 1);
    }
    memset(made.bytes + made.n_bytes, 0, n_bytes);
    made.n_bytes += n_bytes;
}

void made_one_tensor(uint32_t type, uint32_t n_dims, const uint64_t *dims, uint64_t offset, size_t n_data_bytes)
{
    made_put_header(1, 0);
    made_put_tensor("w", type, n_dims, dims, offset);
    made_put_data(n_data_bytes);
}

int made_open_part(memtx_gguf **out, size_t n_bytes)
{
    static unsigned char *block;
    free(block);
    block = malloc(n_bytes ? n_bytes : 1);
    memcpy(block, made.bytes, n_bytes);
    return memtx_gguf_open_bytes(out, block, n_bytes, "made.gguf");
}

memtx_gguf *made_open(void)
{
    memtx_gguf *gguf;
    cr_assert_eq(made_open_part(&gguf, made.n_bytes), MEMTX_OK, "%s", memtx_last_error());
    return gguf;
}

void made_refused(int status, const char *piece)
{
    memtx_gguf *gguf = (memtx_gguf *)made.bytes;
    int got = made_open_part(&gguf, made.n_bytes);
    cr_assert_eq(got, status, "%d: %s (wanted: %s)", got, memtx_last_error(), piece);
    cr_assert_null(gguf);
    cr_assert(strstr(memtx_last_error(), piece), "\"%s\" does not hold \"%s\"", memtx_last_error(), piece);
    cr_assert(!strncmp(memtx_last_error(), "made.gguf: ", 11), "%s", memtx_last_error());
    cr_assert_null(strchr(memtx_last_error(), '\n'));
}
