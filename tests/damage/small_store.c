/* The damage campaign's store (small_store.h): made, appended to and read through the public interface; only token ids,
 * which nothing returns yet, are looked up in their table. */
#include "small_store.h"

#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/status.h"
#include "memtx/memory.h"
#include "store/tables.h"
#include "stream.h"

enum { CAPACITY = 400, STATE_BYTES = 70000, MOST_IDS = 1024 };

/* ---- written ---------------------------------------------------------------------------------- */

struct writer {
    memtx_store *store;
    memtx_memory *memory;
};

static int open_writer(struct writer *out, const char *path, const struct memtx_store_spec *spec)
{
    struct memtx_store_options options = memtx_store_options_default();
    struct memtx_memory_options small = memtx_memory_options_default();
    *out = (struct writer){0};
    options.capacity_rows = CAPACITY;
    small.k = 1;
    small.delta = 1; /* a short table of angles: nothing is searched */
    small.most_tokens = CRASH_MOST_ROWS;
    int status = memtx_store_open(&out->store, path, spec, &options);
    return status ? status : memtx_memory_open(&out->memory, out->store, &small);
}

static int close_writer(struct writer *writer)
{
    memtx_memory_close(writer->memory);
    return memtx_store_close(writer->store);
}

/* Another segment of the open document. */
static int append_segment(struct writer *writer)
{
    static float numbers[2][CRASH_MOST_ROWS * CRASH_KV_HEADS * CRASH_HEAD_SIZE];
    uint32_t token_ids[CRASH_MOST_ROWS];
    uint64_t positions[CRASH_MOST_ROWS];
    struct memtx_store_facts facts;
    struct memtx_document document;
    memtx_store_info(&facts, writer->store);
    int status = memtx_memory_document(&document, writer->memory);
    if (!status) {
        status = memtx_memory_begin_segment(writer->memory);
    }
    for (uint32_t layer = 0; layer < CRASH_LAYERS && !status; layer += 2) {
        for (size_t i = 0; i < CRASH_MOST_ROWS; i++) {
            const struct crash_row row = {facts.n_rows + i, document.id, crash_position(document.n_tokens + i)};
            token_ids[i] = crash_token(&row);
            positions[i] = row.position;
            for (uint32_t head = 0; head < CRASH_KV_HEADS; head++) {
                const size_t at = (i * CRASH_KV_HEADS + head) * CRASH_HEAD_SIZE;
                crash_numbers(numbers[0] + at, &row, false, layer, head);
                crash_numbers(numbers[1] + at, &row, true, layer, head);
            }
        }
        status =
            memtx_memory_append(writer->memory, layer, CRASH_MOST_ROWS, numbers[0], numbers[1], token_ids, positions);
    }
    return status ? status : memtx_memory_commit(writer->memory);
}

/* The next commit carries a running state. */
static int set_state(struct writer *writer)
{
    static unsigned char state[STATE_BYTES];
    uint8_t hash[MEMTX_HASH_BYTES];
    for (size_t i = 0; i < STATE_BYTES; i++) {
        state[i] = (unsigned char)(i * i / 255);
    }
    crash_hash(hash, 1, 1);
    return memtx_memory_set_state(writer->memory, state, STATE_BYTES, CRASH_MOST_ROWS, hash);
}

/* A document of so many segments; a suspended one has its running state with the one before the last, and no end. */
static int append_document(struct writer *writer, const char *name, unsigned n_segments, bool is_suspended)
{
    int status = memtx_memory_begin_document(writer->memory, name);
    for (unsigned i = 0; i < n_segments && !status; i++) {
        if (is_suspended && i + 2 == n_segments) {
            status = set_state(writer);
        }
        if (!status) {
            status = append_segment(writer);
        }
    }
    if (!status && is_suspended) {
        memtx_memory_abandon_document(writer->memory);
    } else if (!status) {
        status = memtx_memory_end_document(writer->memory, NULL);
    }
    return status;
}

int small_store_make(const char *path)
{
    const struct memtx_store_spec spec = crash_spec();
    struct writer writer;
    int status = open_writer(&writer, path, &spec);
    if (!status) {
        status = append_document(&writer, "long", 6, false);
    }
    if (!status) {
        status = append_document(&writer, "removed", 2, true);
    }
    if (!status) {
        status = append_document(&writer, "short", 1, false);
    }
    memtx_memory_close(writer.memory); /* a document is removed while nobody appends */
    writer.memory = NULL;
    if (!status) {
        status = memtx_store_remove_document(writer.store, "removed");
    }
    int closed = close_writer(&writer);
    status = status ? status : closed;
    if (!status) {
        status = open_writer(&writer, path, &spec);
        if (!status) {
            status = append_document(&writer, "suspended", 2, true);
        }
        closed = close_writer(&writer);
    }
    return status ? status : closed;
}

int small_store_append(const char *path)
{
    struct writer writer;
    int status = open_writer(&writer, path, NULL);
    if (!status) {
        status = append_document(&writer, "appended", 1, false);
    }
    int closed = close_writer(&writer);
    return status ? status : closed;
}

/* ---- read ------------------------------------------------------------------------------------- */

static int put(struct answers *out, const void *bytes, size_t n_bytes)
{
    if (out->n_bytes + n_bytes > out->n_held) {
        const size_t n_held = 2 * (out->n_bytes + n_bytes);
        unsigned char *larger = realloc(out->bytes, n_held);
        if (!larger) {
            return memtx__fail(MEMTX_E_NO_MEMORY, "no memory for the answers");
        }
        out->bytes = larger;
        out->n_held = n_held;
    }
    if (n_bytes) {
        memcpy(out->bytes + out->n_bytes, bytes, n_bytes);
    }
    out->n_bytes += n_bytes;
    return MEMTX_OK;
}

static int put_number(struct answers *out, uint64_t number)
{
    return put(out, &number, sizeof number);
}

static int put_facts(struct answers *out, const struct memtx_store_facts *facts)
{
    const uint64_t numbers[] = {facts->format_version, facts->n_rows,      facts->first_row,
                                facts->n_written_rows, facts->n_documents, facts->chunk_rows};
    unsigned char spec[MEMTX__MOST_SPEC_BYTES];
    const size_t n_bytes = memtx__spec_encode(spec, &facts->spec, (uint32_t)facts->chunk_rows);
    int status = put(out, numbers, sizeof numbers);
    if (!status) {
        status = put(out, spec, n_bytes);
    }
    return status || !facts->spec.rope_factors
               ? status
               : put(out, facts->spec.rope_factors, facts->spec.rope_dims / 2 * sizeof(float));
}

static int put_documents(struct answers *out, memtx_store *store)
{
    struct memtx_document document;
    int status = MEMTX_OK;
    for (uint64_t i = 0; !status && memtx_store_document_at(&document, store, i) == MEMTX_OK; i++) {
        unsigned char record[MEMTX__DOCUMENT_BYTES];
        memtx__document_encode(record, &document);
        status = put(out, record, sizeof record);
        if (!status && document.state_bytes) {
            unsigned char *state;
            size_t n_bytes;
            status = memtx_store_state(&state, &n_bytes, store, document.name);
            status = status ? status : put(out, state, n_bytes);
            memtx_store_state_free(state);
        }
    }
    return status;
}

/* The places of all visible rows; their ids in ids[*n]. */
static int put_places(struct answers *out, int64_t ids[MOST_IDS], size_t *n, const memtx_memory *memory,
                      uint64_t n_rows)
{
    struct memtx_row_facts row;
    int status = put_number(out, memtx_memory_n_visible(memory));
    *n = 0;
    for (uint64_t id = 0; id < n_rows && *n < MOST_IDS && !status; id++) {
        if (memtx_memory_row(&row, memory, id) == MEMTX_OK) {
            const uint64_t numbers[] = {id, row.document, row.position};
            ids[(*n)++] = (int64_t)id;
            status = put(out, numbers, sizeof numbers);
        }
    }
    return status;
}

static int put_rows(struct answers *out, memtx_memory *memory, const struct memtx_store_facts *facts)
{
    static float keys[MOST_IDS * CRASH_HEAD_SIZE], values[MOST_IDS * CRASH_HEAD_SIZE];
    int64_t ids[MOST_IDS];
    size_t n;
    int status = memtx_memory_begin_segment(memory);
    if (!status) {
        status = put_places(out, ids, &n, memory, facts->n_rows);
    }
    for (uint32_t i = 0; i < CRASH_LAYERS * CRASH_KV_HEADS && !status; i++) {
        status = memtx_memory_gather(keys, values, memory, i / CRASH_KV_HEADS, i % CRASH_KV_HEADS, n, ids);
        if (status == MEMTX_E_INVALID && i / CRASH_KV_HEADS % 2) {
            status = MEMTX_OK; /* a layer that is not kept */
            continue;
        }
        status = status ? status : put(out, keys, n * CRASH_HEAD_SIZE * sizeof *keys);
        status = status ? status : put(out, values, n * CRASH_HEAD_SIZE * sizeof *values);
    }
    memtx_memory_end_segment(memory);
    return status;
}

/* Token ids of the chunks from the first visible row on. */
static int put_tokens(struct answers *out, memtx_store *store, const struct memtx_store_facts *facts)
{
    struct memtx__snapshot *snapshot;
    int status = memtx__snapshot_open(&snapshot, store->environment);
    if (!status) {
        status = memtx__snapshot_renew(snapshot);
    }
    for (uint64_t chunk = facts->first_row / facts->chunk_rows; chunk * facts->chunk_rows < facts->n_rows && !status;
         chunk++) {
        unsigned char name[8];
        MDB_val key = memtx__number_key(name, chunk), value;
        int code = mdb_get(snapshot->txn, store->environment->databases[MEMTX__DB_TOKENS], &key, &value);
        if (code || value.mv_size < 4 ||
            memtx__crc32c(0, value.mv_data, value.mv_size - 4) !=
                memtx__get_u32((unsigned char *)value.mv_data + value.mv_size - 4)) {
            status = memtx__fail(MEMTX_E_CORRUPT, "the token ids of chunk %llu are missing or damaged",
                                 (unsigned long long)chunk);
        } else {
            status = put(out, value.mv_data, value.mv_size);
        }
    }
    memtx__snapshot_close(snapshot);
    return status;
}

int small_store_read(struct answers *out, memtx_store *store)
{
    struct memtx_memory_options reader = memtx_memory_options_default();
    struct memtx_store_facts facts;
    memtx_memory *memory;
    uint64_t free_bytes = 0;
    reader.reader = true;
    reader.scope = MEMTX_SCOPE_ALL;
    reader.k = reader.most_tokens = reader.delta = 1;
    out->n_bytes = 0;
    memtx_store_info(&facts, store);
    int status = put_facts(out, &facts);
    if (!status) {
        status = put_documents(out, store);
    }
    if (!status) {
        status = memtx_memory_open(&memory, store, &reader);
        status = status ? status : put_rows(out, memory, &facts);
        memtx_memory_close(memory);
    }
    if (!status) {
        status = put_tokens(out, store, &facts);
    }
    if (!status) {
        status = memtx_store_free_bytes(&free_bytes, store);
    }
    status = status ? status : put_number(out, free_bytes);
    return status ? status : put_number(out, facts.disk_bytes);
}
