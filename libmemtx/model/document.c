/* Documents of a stream (memtx/model.h): begun, gone on with, ended; and what leaves the window on its way to the memory
 * (DESIGN 3). The running state goes there too, every so many segments, in the same transaction as the rows before it. */
#include "base/status.h"
#include "model/model.h"

void memtx_model_reset(memtx_stream *stream)
{
    stream->cache.n_rows = 0;
    stream->cache.n_sinks = 0;
    stream->position = stream->state_position = 0;
    stream->n_since_state = 0;
    stream->n_last = 0;
    memtx__tokens_hash_reset(stream->hash);
    if (stream->memory_layers) {
        memtx_memory_abandon_document(stream->options.memory);
    }
}

uint64_t memtx_model_position(const memtx_stream *stream)
{
    return stream->position;
}

int memtx_model_begin_document(memtx_stream *stream, const char *name)
{
    memtx_model_reset(stream);
    return stream->memory_layers ? memtx_memory_begin_document(stream->options.memory, name) : MEMTX_OK;
}

/* ---- what leaves the window ------------------------------------------------------------------- */

/* Appends rows first .. of the cache to the memory, at most a segment at a time. */
static int remember(struct memtx_stream *stream, size_t first, size_t n)
{
    const struct memtx__kv_cache *cache = &stream->cache;
    int status = MEMTX_OK;
    for (size_t done = 0; done < n && !status;) {
        const size_t row = first + done;
        const size_t n_rows = n - done < stream->options.segment ? n - done : stream->options.segment;
        for (size_t layer = 0; layer < cache->n_layers && !status; layer++) {
            if (!stream->memory_layers[layer]) {
                continue;
            }
            memtx__kv_cache_gather(stream->evicted_keys, cache, memtx__kv_cache_keys(cache, layer), row, n_rows);
            memtx__kv_cache_gather(stream->evicted_values, cache, memtx__kv_cache_values(cache, layer), row, n_rows);
            status = memtx_memory_append(stream->options.memory, (uint32_t)layer, n_rows, stream->evicted_keys,
                                         stream->evicted_values, cache->tokens + row, cache->positions + row);
        }
        done += n_rows;
    }
    return status;
}

/* The running state goes with the next commit. */
static int give_state(struct memtx_stream *stream)
{
    uint8_t hash[MEMTX_HASH_BYTES];
    size_t n_bytes;
    int status = memtx_model_save_state(stream->state_bytes, &n_bytes, stream);
    if (!status) {
        memtx__tokens_hash_take(hash, stream->hash);
        status = memtx_memory_set_state(stream->options.memory, stream->state_bytes, n_bytes, stream->position, hash);
    }
    if (!status) {
        stream->state_position = stream->position;
    }
    return status;
}

int memtx__stream_end_segment(struct memtx_stream *stream, size_t n)
{
    size_t first;
    const size_t n_leaving = memtx__kv_cache_end_segment(&first, &stream->cache, n);
    int status = stream->memory_layers ? remember(stream, first, n_leaving) : MEMTX_OK;
    memtx__kv_cache_drop(&stream->cache, first, n_leaving);
    stream->position += n;
    stream->n_last = n;
    stream->n_since_state++;
    if (status || !stream->memory_layers) {
        return status;
    }
    const bool is_due = stream->n_since_state >= stream->options.state_segments;
    if (stream->options.state_segments && (is_due || stream->state_position == 0)) {
        status = give_state(stream); /* after the first segment too: no document is ever long without one */
        stream->n_since_state = is_due ? 0 : stream->n_since_state;
    }
    return status ? status : memtx_memory_commit(stream->options.memory);
}

/* ---- stopping and going on -------------------------------------------------------------------- */

/* Stores the state as it is now, unless it stands there already. */
static int store_state(struct memtx_stream *stream)
{
    if (stream->position == stream->state_position) {
        return MEMTX_OK;
    }
    int status = give_state(stream);
    return status ? status : memtx_memory_commit(stream->options.memory);
}

int memtx_model_end_document(memtx_stream *stream)
{
    const struct memtx__kv_cache *cache = &stream->cache;
    uint8_t hash[MEMTX_HASH_BYTES];
    int status = MEMTX_OK;
    memtx__tokens_hash_take(hash, stream->hash);
    if (stream->memory_layers) {
        status = stream->options.state_segments ? store_state(stream) : MEMTX_OK;
        if (!status) {
            status = remember(stream, cache->n_sinks, cache->n_rows - cache->n_sinks);
        }
        if (!status) {
            status = remember(stream, 0, cache->n_sinks);
        }
        if (!status) {
            status = memtx_memory_commit(stream->options.memory);
        }
        if (!status) {
            status = memtx_memory_end_document(stream->options.memory, hash);
        }
    }
    memtx_model_reset(stream);
    return status;
}

int memtx_model_suspend(memtx_stream *stream)
{
    if (!stream->memory_layers || !stream->options.state_segments) {
        return memtx__fail(MEMTX_E_INVALID, "only mode memory with state_segments can be suspended");
    }
    int status = store_state(stream);
    memtx_model_reset(stream);
    return status;
}

int memtx_model_continue_document(memtx_stream *stream, const char *name, const uint32_t *tokens, size_t n_tokens)
{
    unsigned char *bytes = NULL;
    size_t n_bytes = 0;
    struct memtx_document document;
    memtx_model_reset(stream);
    if (!stream->memory_layers) {
        return memtx__fail(MEMTX_E_INVALID, "only mode memory goes on with a document of a store");
    }
    memtx_store *store = memtx_memory_store(stream->options.memory);
    int status = memtx_store_document_named(&document, store, name);
    if (!status && document.state_bytes) {
        status = memtx_store_state(&bytes, &n_bytes, store, name);
        if (!status) {
            status = memtx_model_load_state(stream, bytes, n_bytes, tokens, n_tokens);
        }
    }
    if (!status) {
        status = memtx_memory_reopen_document(stream->options.memory, name);
    }
    if (status) {
        memtx_model_reset(stream);
    }
    memtx_store_state_free(bytes);
    return status;
}
