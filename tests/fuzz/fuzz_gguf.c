/* Fuzz target: any bytes as a GGUF file. All that the reader lists is read, to its last byte; what it says of tensors
 * is checked once more. */
#include "fuzz.h"

#include <stdbool.h>
#include <stdlib.h>

#include "math/quant.h"
#include "memtx/gguf.h"

static unsigned sum_bytes(const void *bytes, size_t n_bytes)
{
    unsigned sum = 0;
    for (size_t i = 0; i < n_bytes; i++) {
        sum += ((const unsigned char *)bytes)[i];
    }
    return sum;
}

static void demand(bool holds)
{
    if (!holds) {
        abort();
    }
}

static unsigned walk_value(const memtx_gguf *gguf, const struct memtx_gguf_value *value)
{
    struct memtx_text item;
    size_t cursor = 0;
    uint64_t n_strings = 0;
    unsigned sum = sum_bytes(value->key.bytes, value->key.n_bytes) + sum_bytes(value->bytes, value->n_bytes);
    while (memtx_gguf_next_string(&item, value, &cursor)) {
        sum += sum_bytes(item.bytes, item.n_bytes);
        n_strings++;
    }
    demand(value->item_type != MEMTX_GGUF_STRING || n_strings == value->n_items);
    demand(memtx_gguf_type_name((int)value->type) && memtx_gguf_type_name((int)value->item_type));
    char key[64];
    if (value->key.n_bytes < sizeof key) {
        uint64_t u64;
        double f64;
        bool truth;
        for (size_t i = 0; i < value->key.n_bytes; i++) {
            key[i] = value->key.bytes[i];
        }
        key[value->key.n_bytes] = '\0';
        sum += (unsigned)memtx_gguf_get_u64(&u64, gguf, key, 1, 1000);
        sum += (unsigned)memtx_gguf_get_f64(&f64, gguf, key, -1.0, 1000.0);
        sum += (unsigned)memtx_gguf_get_bool(&truth, gguf, key);
        sum += (unsigned)memtx_gguf_get_text(&item, gguf, key);
    }
    return sum;
}

static unsigned walk_tensor(const struct memtx_tensor *tensor, size_t n_file_bytes)
{
    float block[256];
    size_t n_values, n_bytes;
    unsigned sum = sum_bytes(tensor->name.bytes, tensor->name.n_bytes);
    if (!tensor->bytes) {
        demand(!memtx_tensor_type_name(tensor->type));
        return sum;
    }
    demand(memtx__quant_layout(&n_values, &n_bytes, tensor->type));
    demand(tensor->n_bytes / n_bytes * n_values == tensor->n_values && tensor->n_bytes % n_bytes == 0);
    demand(tensor->offset <= n_file_bytes && tensor->n_bytes <= n_file_bytes - tensor->offset);
    memtx__dequantise(block, tensor->type, tensor->bytes, n_values);
    return sum + sum_bytes(block, n_values * sizeof block[0]) + sum_bytes(tensor->bytes, tensor->n_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    static volatile unsigned sink; /* keeps the reads */
    unsigned sum = 0;
    memtx_gguf *gguf;
    int status = memtx_gguf_open_bytes(&gguf, bytes, n_bytes, "fuzz");
    demand(!status == !!gguf);
    demand(!status || memtx_last_error()[0]);
    if (status) {
        return 0;
    }
    for (size_t i = 0; i < memtx_gguf_n_values(gguf); i++) {
        sum += walk_value(gguf, memtx_gguf_value_at(gguf, i));
    }
    for (size_t i = 0; i < memtx_gguf_n_tensors(gguf); i++) {
        sum += walk_tensor(memtx_gguf_tensor_at(gguf, i), n_bytes);
    }
    sink = sink + sum;
    memtx_gguf_close(gguf);
    return 0;
}
