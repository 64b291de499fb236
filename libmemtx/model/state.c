/* A stream's running state: what a reading needs to go on later, in another process, as if it had never stopped (DESIGN
 * 3, suspended). Position, sinks and window of every layer in f32, the last token's final hidden row (which predicts the
 * next token), and a hash of the tokens read, so that it goes on with the same text alone.
 *
 *   0   8  "memtx\0rs"                   8   4  version, 1
 *   12  4  CRC-32C of the 112 bytes with these four zero
 *   16  4  n_layers                     20   4  kv heads
 *   24  4  head size                    28   4  channels
 *   32  4  W                            36   4  T
 *   40  4  sinks                        44   4  rows held: sinks and window
 *   48  4  of these, sinks              52   4  zero
 *   56  8  position of the next token   64  16  XXH3-128 of the tokens read (u32 each)
 *   80 16  fingerprint of the model     96  16  zero
 *   112    token ids u32[rows], positions u64[rows], hidden row f32[channels],
 *          then for each layer keys and values before RoPE, f32[kv heads][rows][head size] each
 *
 * All little-endian. The bytes behind the header have no checksum here: the store gives each piece its own.
 */
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/status.h"
#include "math/rows.h"
#include "model/model.h"

enum { HEADER_BYTES = 112, CRC_AT = 12, VERSION = 1 };

static const char magic[8] = "memtx\0rs";

static size_t bytes_of(const struct memtx__config *config, size_t n_rows)
{
    const size_t n_row = (size_t)config->n_kv_heads * config->head_size;
    return HEADER_BYTES + n_rows * (sizeof(uint32_t) + sizeof(uint64_t)) + config->n_channels * sizeof(float) +
           config->n_layers * 2 * n_rows * n_row * sizeof(float);
}

size_t memtx_model_state_bytes(const memtx_stream *stream)
{
    return bytes_of(&stream->model->config, stream->cache.most_sinks + stream->cache.most_window);
}

static uint32_t header_checksum(const unsigned char *bytes)
{
    unsigned char header[HEADER_BYTES];
    memcpy(header, bytes, HEADER_BYTES);
    memset(header + CRC_AT, 0, 4);
    return memtx__crc32c(0, header, HEADER_BYTES);
}

/* The numbers from 16 on that a stream must share with a state. */
enum { N_SHARED = 7 };
static const char *const shared_names[N_SHARED] = {"layers", "kv heads", "head size", "channels",
                                                   "window", "segment",  "sinks"};

static void shared_numbers(uint32_t out[N_SHARED], const memtx_stream *stream)
{
    const struct memtx__config *config = &stream->model->config;
    const uint32_t numbers[N_SHARED] = {config->n_layers,     config->n_kv_heads,     config->head_size,
                                        config->n_channels,   stream->options.window, stream->options.segment,
                                        stream->options.sinks};
    memcpy(out, numbers, sizeof numbers);
}

/* One head's rows of one layer, out of or into the cache. */
static float *rows_of(const struct memtx__kv_cache *cache, size_t layer, size_t head, bool values)
{
    float *rows = values ? memtx__kv_cache_values(cache, layer) : memtx__kv_cache_keys(cache, layer);
    return rows + head * cache->capacity * cache->head_size;
}

int memtx_model_save_state(unsigned char *bytes, size_t *n_bytes, const memtx_stream *stream)
{
    const struct memtx__kv_cache *cache = &stream->cache;
    const size_t n_rows = cache->n_rows, n_channels = stream->model->config.n_channels;
    uint32_t shared[N_SHARED];
    *n_bytes = 0;
    if (stream->n_last == 0 ||
        (stream->options.mode != MEMTX_MODE_MEMORY && stream->options.mode != MEMTX_MODE_SINKS)) {
        return memtx__fail(MEMTX_E_INVALID, "mode %s, %zu tokens in the last segment: no state to save",
                           memtx_mode_name(stream->options.mode), stream->n_last);
    }
    memset(bytes, 0, HEADER_BYTES);
    memcpy(bytes, magic, sizeof magic);
    memtx__put_u32(bytes + 8, VERSION);
    shared_numbers(shared, stream);
    for (size_t i = 0; i < N_SHARED; i++) {
        memtx__put_u32(bytes + 16 + 4 * i, shared[i]);
    }
    memtx__put_u32(bytes + 44, (uint32_t)n_rows);
    memtx__put_u32(bytes + 48, (uint32_t)cache->n_sinks);
    memtx__put_u64(bytes + 56, stream->position);
    memtx__tokens_hash_take(bytes + 64, stream->hash);
    memcpy(bytes + 80, stream->model->fingerprint, MEMTX_FINGERPRINT_BYTES);
    memtx__put_u32(bytes + CRC_AT, header_checksum(bytes));
    unsigned char *at = bytes + HEADER_BYTES;
    for (size_t row = 0; row < n_rows; row++, at += 4) {
        memtx__put_u32(at, cache->tokens[row]);
    }
    for (size_t row = 0; row < n_rows; row++, at += 8) {
        memtx__put_u64(at, cache->positions[row]);
    }
    memtx__rows_write(at, MEMTX_ROWS_F32, stream->x + (stream->n_last - 1) * n_channels, n_channels);
    at += 4 * n_channels;
    for (size_t i = 0; i < cache->n_layers * 2 * cache->n_kv_heads; i++) {
        const size_t layer = i / (2 * cache->n_kv_heads), head = i % cache->n_kv_heads;
        const bool values = i / cache->n_kv_heads % 2;
        memtx__rows_write(at, MEMTX_ROWS_F32, rows_of(cache, layer, head, values), n_rows * cache->head_size);
        at += 4 * n_rows * cache->head_size;
    }
    *n_bytes = (size_t)(at - bytes);
    return MEMTX_OK;
}

static int check_header(const memtx_stream *stream, const unsigned char *bytes, size_t n_bytes)
{
    const struct memtx__config *config = &stream->model->config;
    const struct memtx__kv_cache *cache = &stream->cache;
    uint32_t shared[N_SHARED];
    if (n_bytes < HEADER_BYTES || memcmp(bytes, magic, sizeof magic) != 0) {
        return memtx__fail(MEMTX_E_FORMAT, "the document's running state was not left by this runtime");
    }
    if (memtx__get_u32(bytes + 8) != VERSION) {
        return memtx__fail(MEMTX_E_UNSUPPORTED, "a running state of version %u (%d is known)",
                           memtx__get_u32(bytes + 8), VERSION);
    }
    if (header_checksum(bytes) != memtx__get_u32(bytes + CRC_AT)) {
        return memtx__fail(MEMTX_E_CORRUPT, "a running state with a damaged header");
    }
    if (memcmp(bytes + 80, stream->model->fingerprint, MEMTX_FINGERPRINT_BYTES) != 0) {
        return memtx__fail(MEMTX_E_MISMATCH, "the running state is another model's");
    }
    shared_numbers(shared, stream);
    for (size_t i = 0; i < N_SHARED; i++) {
        if (memtx__get_u32(bytes + 16 + 4 * i) != shared[i]) {
            return memtx__fail(MEMTX_E_MISMATCH, "the document was read with a %s of %u, not %u (go on with the same)",
                               shared_names[i], memtx__get_u32(bytes + 16 + 4 * i), shared[i]);
        }
    }
    const uint32_t n_rows = memtx__get_u32(bytes + 44), n_sinks = memtx__get_u32(bytes + 48);
    if (n_rows > cache->most_sinks + cache->most_window || n_sinks > cache->most_sinks || n_sinks > n_rows ||
        n_bytes != bytes_of(config, n_rows)) {
        return memtx__fail(MEMTX_E_CORRUPT, "a running state of %zu bytes for %u rows, %u of them sinks", n_bytes,
                           n_rows, n_sinks);
    }
    return MEMTX_OK;
}

/* That the text begins with the tokens that were read; the stream's hash then stands behind them. */
static int check_text(memtx_stream *stream, const unsigned char *bytes, const uint32_t *tokens, size_t n_tokens)
{
    const uint64_t n_read = memtx__get_u64(bytes + 56);
    uint8_t hash[MEMTX_HASH_BYTES];
    if (n_read > n_tokens) {
        return memtx__fail(MEMTX_E_MISMATCH,
                           "the document was read up to token %llu, the text has %zu (it must begin "
                           "with all that was read)",
                           (unsigned long long)n_read, n_tokens);
    }
    memtx__tokens_hash_reset(stream->hash);
    memtx__tokens_hash_add(stream->hash, tokens, (size_t)n_read);
    memtx__tokens_hash_take(hash, stream->hash);
    return memcmp(hash, bytes + 64, sizeof hash) == 0
               ? MEMTX_OK
               : memtx__fail(MEMTX_E_MISMATCH,
                             "the text does not begin with the %llu tokens that the document was read "
                             "to (give the same text)",
                             (unsigned long long)n_read);
}

int memtx_model_load_state(memtx_stream *stream, const unsigned char *bytes, size_t n_bytes, const uint32_t *tokens,
                           size_t n_tokens)
{
    struct memtx__kv_cache *cache = &stream->cache;
    const size_t n_channels = stream->model->config.n_channels;
    if (stream->options.mode != MEMTX_MODE_MEMORY && stream->options.mode != MEMTX_MODE_SINKS) {
        return memtx__fail(MEMTX_E_INVALID, "mode %s cannot go on from a running state (memory and sinks can)",
                           memtx_mode_name(stream->options.mode));
    }
    int status = check_header(stream, bytes, n_bytes);
    if (!status) {
        status = check_text(stream, bytes, tokens, n_tokens);
    }
    if (status) {
        return status;
    }
    const size_t n_rows = memtx__get_u32(bytes + 44);
    const unsigned char *at = bytes + HEADER_BYTES;
    cache->n_rows = n_rows;
    cache->n_sinks = memtx__get_u32(bytes + 48);
    stream->position = stream->state_position = memtx__get_u64(bytes + 56);
    stream->n_last = 1;
    for (size_t row = 0; row < n_rows; row++, at += 4) {
        cache->tokens[row] = memtx__get_u32(at);
    }
    for (size_t row = 0; row < n_rows; row++, at += 8) {
        cache->positions[row] = memtx__get_u64(at);
    }
    memtx__rows_read(stream->x, MEMTX_ROWS_F32, at, n_channels);
    at += 4 * n_channels;
    for (size_t i = 0; i < cache->n_layers * 2 * cache->n_kv_heads; i++) {
        const size_t layer = i / (2 * cache->n_kv_heads), head = i % cache->n_kv_heads;
        const bool values = i / cache->n_kv_heads % 2;
        memtx__rows_read(rows_of(cache, layer, head, values), MEMTX_ROWS_F32, at, n_rows * cache->head_size);
        at += 4 * n_rows * cache->head_size;
    }
    return MEMTX_OK;
}
