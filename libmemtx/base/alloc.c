/* The checked allocator (alloc.h). */
#include "base/alloc.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"

static atomic_long fail_countdown;

void memtx__alloc_fail_at(long n)
{
    atomic_store(&fail_countdown, n);
}

static bool told_to_fail(void)
{
    return atomic_load_explicit(&fail_countdown, memory_order_relaxed) > 0 && atomic_fetch_sub(&fail_countdown, 1) == 1;
}

bool memtx__mul(size_t *out, size_t a, size_t b)
{
    return !__builtin_mul_overflow(a, b, out);
}

bool memtx__add(size_t *out, size_t a, size_t b)
{
    return !__builtin_add_overflow(a, b, out);
}

int memtx__alloc_raw(void *out, size_t n_items, size_t item_bytes)
{
    void *block = NULL;
    size_t bytes = 0;
    memcpy(out, &block, sizeof block);
    if (!memtx__mul(&bytes, n_items, item_bytes) || bytes > SIZE_MAX - MEMTX__ALIGN) {
        return memtx__fail(MEMTX_E_NO_MEMORY, "%zu items of %zu bytes are more than this machine can address", n_items,
                           item_bytes);
    }
    bytes = (bytes + MEMTX__ALIGN) & ~((size_t)MEMTX__ALIGN - 1);
    block = told_to_fail() ? NULL : aligned_alloc(MEMTX__ALIGN, bytes);
    if (!block) {
        return memtx__fail(MEMTX_E_NO_MEMORY, "no memory for %zu bytes", bytes);
    }
    memcpy(out, &block, sizeof block);
    return MEMTX_OK;
}

int memtx__alloc(void *out, size_t n_items, size_t item_bytes)
{
    int status = memtx__alloc_raw(out, n_items, item_bytes);
    if (!status) {
        void *block;
        memcpy(&block, out, sizeof block);
        memset(block, 0, n_items * item_bytes);
    }
    return status;
}

int memtx__grow(void *block, size_t *n_held, size_t n_wanted, size_t item_bytes)
{
    if (n_wanted <= *n_held) {
        return MEMTX_OK;
    }
    size_t n_new = *n_held > SIZE_MAX / 2 ? n_wanted : *n_held * 2;
    if (n_new < n_wanted) {
        n_new = n_wanted;
    }
    void *grown;
    int status = memtx__alloc(&grown, n_new, item_bytes);
    if (status) {
        return status;
    }
    void *old;
    memcpy(&old, block, sizeof old);
    if (*n_held) {
        memcpy(grown, old, *n_held * item_bytes);
    }
    memtx__free(old);
    memcpy(block, &grown, sizeof grown);
    *n_held = n_new;
    return MEMTX_OK;
}

int memtx__copy_text(char **out, const char *text)
{
    size_t n = strlen(text) + 1;
    int status = memtx__alloc_raw(out, n, 1);
    if (!status) {
        memcpy(*out, text, n);
    }
    return status;
}

void memtx__free(void *block)
{
    free(block);
}

/* glibc gives what is free at the end of its heap back to the system as soon as that is more than a threshold, 128 KiB
 * at first; then the same pages are faulted in anew each time. It adapts by itself: when a block is freed that stood in
 * a mapping of its own and is larger than any before (up to 32 MiB), the threshold becomes twice its size. So one block
 * of the size in question is taken and freed, untouched. Nothing is set: a program that has set thresholds of its own
 * keeps them, and one that has freed a larger block sees no difference. */
int memtx__alloc_expect(size_t n_bytes)
{
    static atomic_size_t expected;
    const size_t largest = ((size_t)32 << 20) - ((size_t)64 << 10); /* of those that glibc heeds */
    void *block;
    n_bytes = n_bytes < largest ? n_bytes : largest;
    if (n_bytes <= atomic_load(&expected)) {
        return MEMTX_OK;
    }
    int status = memtx__alloc_raw(&block, n_bytes, 1);
    if (!status) {
        memtx__free(block);
        atomic_store(&expected, n_bytes);
    }
    return status;
}
