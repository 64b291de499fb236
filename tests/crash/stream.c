/* The known stream and its writer, through the public interface (stream.h). */
#include "stream.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "toy_index.h"

enum { LEAP_ROWS = 97, LEAP = 5, N_OWN_NUMBERS = 5, MOST_DOCUMENT_SEGMENTS = 9 };

struct memtx_store_spec crash_spec(void)
{
    static float factors[CRASH_HEAD_SIZE / 2];
    struct memtx_store_spec spec = {.fingerprint = "a known stream!",
                                    .n_layers = CRASH_LAYERS,
                                    .n_heads = CRASH_HEADS,
                                    .n_kv_heads = CRASH_KV_HEADS,
                                    .head_size = CRASH_HEAD_SIZE,
                                    .rope_dims = CRASH_HEAD_SIZE,
                                    .rope_base = 10000.0,
                                    .rope_factors = factors,
                                    .scale = 0.125F,
                                    .row_type = MEMTX_ROWS_F16,
                                    .tokenizer = "none",
                                    .settings = "a known stream"};
    for (size_t i = 0; i < CRASH_HEAD_SIZE / 2; i++) {
        factors[i] = 1.0F + (float)(i % 8);
    }
    memtx_store_keep_layer(&spec, 0);
    memtx_store_keep_layer(&spec, 2);
    return spec;
}

uint64_t crash_position(uint64_t i)
{
    return i + i / LEAP_ROWS * LEAP;
}

uint32_t crash_token(const struct crash_row *row)
{
    struct memtx__rng rng = memtx__rng_create(row->document, row->position);
    return (uint32_t)memtx__rng_u64(&rng);
}

void crash_hash(uint8_t out[MEMTX_HASH_BYTES], uint64_t document, uint64_t n_tokens)
{
    struct memtx__rng rng = memtx__rng_create(~document, n_tokens);
    for (size_t i = 0; i < MEMTX_HASH_BYTES; i++) {
        out[i] = (uint8_t)memtx__rng_u64(&rng);
    }
}

void crash_name(char out[MEMTX_NAME_BYTES], uint64_t document)
{
    memset(out, 0, MEMTX_NAME_BYTES);
    (void)snprintf(out, MEMTX_NAME_BYTES, "document %llu", (unsigned long long)document);
}

void crash_numbers(float *out, const struct crash_row *row, bool is_value, uint32_t layer, uint32_t kv_head)
{
    const uint64_t own[N_OWN_NUMBERS] = {row->id, row->id / 1024, row->position, row->position / 1024, row->document};
    const uint64_t place = ((uint64_t)layer * CRASH_KV_HEADS + kv_head) * 2 + is_value;
    struct memtx__rng rng = memtx__rng_create(row->document << 32 | row->position, place);
    for (size_t i = 0; i < CRASH_HEAD_SIZE; i++) {
        out[i] = i < N_OWN_NUMBERS ? (float)(own[i] % 1024) : (float)memtx__rng_below(&rng, 2048) - 1024.0F;
    }
}

/* ---- the writer ------------------------------------------------------------------------------- */

static uint64_t now_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000U + (uint64_t)now.tv_nsec / 1000U;
}

static void acknowledge(const struct crash_writer *writer, uint64_t began_us)
{
    struct memtx_store_facts facts;
    char line[128], took[32] = "";
    if (!writer->plan) {
        return;
    }
    if (writer->plan->times) {
        (void)snprintf(took, sizeof took, ", %llu us", (unsigned long long)(now_us() - began_us));
    }
    memtx_store_info(&facts, writer->store);
    int n = snprintf(line, sizeof line, "acknowledged %llu rows, %llu documents, %llu written%s\n",
                     (unsigned long long)facts.n_rows, (unsigned long long)writer->n_ended,
                     (unsigned long long)facts.n_written_rows, took);
    if (write(STDOUT_FILENO, line, (size_t)n) < 0) {
        return; /* nobody listens: the stream goes on */
    }
}

static void choose_index(struct memtx_memory_options *options)
{
    options->index = "toy:all";
    options->resolve_index = toy_resolve;
    options->run_rows = 1; /* rounded up to a chunk */
    options->scope = MEMTX_SCOPE_ALL;
    options->delta = 0; /* nothing is turned, so the best row for a row's key is itself */
}

int crash_writer_open(struct crash_writer *out, memtx_store *store, const struct crash_plan *plan, uint64_t seed)
{
    struct memtx_memory_options small = memtx_memory_options_default();
    struct memtx_store_facts facts;
    struct memtx_document document;
    small.k = 1;
    small.most_tokens = CRASH_MOST_ROWS;
    if (plan && plan->has_index) {
        choose_index(&small);
    }
    *out = (struct crash_writer){.plan = plan, .store = store};
    int status = memtx_memory_open(&out->memory, store, &small);
    if (status) {
        return status;
    }
    memtx_store_info(&facts, store);
    out->n_rows = facts.n_rows;
    out->rng = memtx__rng_create(seed, facts.n_rows);
    for (uint64_t i = 0; i < facts.n_documents && !status; i++) {
        status = memtx_store_document_at(&document, store, i);
        out->n_ended += !status && document.ended;
    }
    return status;
}

static int begin_document(struct crash_writer *writer)
{
    struct memtx_store_facts facts;
    struct memtx_document document;
    char name[MEMTX_NAME_BYTES];
    memtx_store_info(&facts, writer->store);
    crash_name(name, facts.n_documents); /* ids ascend from 0 */
    int status = memtx_memory_begin_document(writer->memory, name);
    if (!status) {
        status = memtx_store_document_at(&document, writer->store, facts.n_documents);
    }
    if (!status) {
        writer->in_document = true;
        writer->document = document.id;
        writer->n_tokens = 0;
        writer->n_segments = 1 + memtx__rng_below(&writer->rng, MOST_DOCUMENT_SEGMENTS);
    }
    return status;
}

static int append_layer(struct crash_writer *writer, uint32_t layer, size_t n_rows)
{
    uint32_t token_ids[CRASH_MOST_ROWS];
    uint64_t positions[CRASH_MOST_ROWS];
    for (size_t i = 0; i < n_rows; i++) {
        const struct crash_row row = {writer->n_rows + i, writer->document, crash_position(writer->n_tokens + i)};
        token_ids[i] = crash_token(&row);
        positions[i] = row.position;
        for (uint32_t head = 0; head < CRASH_KV_HEADS; head++) {
            const size_t at = (i * CRASH_KV_HEADS + head) * CRASH_HEAD_SIZE;
            crash_numbers(writer->keys + at, &row, false, layer, head);
            crash_numbers(writer->values + at, &row, true, layer, head);
        }
    }
    return memtx_memory_append(writer->memory, layer, n_rows, writer->keys, writer->values, token_ids, positions);
}

static int commit(struct crash_writer *writer)
{
    int status = memtx_memory_commit(writer->memory);
    if (writer->plan && writer->plan->again && (status == MEMTX_E_IO || status == MEMTX_E_NO_SPACE)) {
        status = memtx_memory_commit(writer->memory);
    }
    return status;
}

/* A row of those that are visible. */
static int ask(struct crash_writer *writer)
{
    const uint64_t n_visible = memtx_memory_n_visible(writer->memory);
    return n_visible ? crash_ask(writer->memory, writer->n_rows - 1 - memtx__rng_below(&writer->rng, n_visible))
                     : MEMTX_OK;
}

static int write_segment(struct crash_writer *writer)
{
    const bool has_index = writer->plan && writer->plan->has_index;
    const size_t n_rows = has_index ? CRASH_MOST_ROWS : 1 + (size_t)memtx__rng_below(&writer->rng, CRASH_MOST_ROWS);
    int status = memtx_memory_begin_segment(writer->memory);
    if (!status && has_index) {
        status = ask(writer);
    }
    if (!status) {
        status = append_layer(writer, 0, n_rows);
    }
    if (!status) {
        status = append_layer(writer, 2, n_rows);
    }
    const uint64_t began_us = now_us();
    if (!status) {
        status = commit(writer);
    }
    if (!status) {
        writer->n_rows += n_rows;
        writer->n_tokens += n_rows;
        writer->n_segments--;
        acknowledge(writer, began_us);
    }
    return status;
}

static int end_document(struct crash_writer *writer)
{
    uint8_t hash[MEMTX_HASH_BYTES];
    crash_hash(hash, writer->document, writer->n_tokens);
    writer->in_document = false;
    const uint64_t began_us = now_us();
    int status = memtx_memory_end_document(writer->memory, hash);
    if (!status) {
        writer->n_ended++;
        acknowledge(writer, began_us);
    }
    return status;
}

int crash_writer_append(struct crash_writer *writer)
{
    int status = writer->in_document ? MEMTX_OK : begin_document(writer);
    if (!status) {
        status = write_segment(writer);
    }
    return status || writer->n_segments ? status : end_document(writer);
}

void crash_writer_close(struct crash_writer *writer)
{
    memtx_memory_close(writer->memory); /* a document that is open is one that broke off */
    writer->memory = NULL;
}

int crash_write(const struct crash_plan *plan)
{
    static struct crash_writer writer;
    const struct memtx_store_spec spec = crash_spec();
    struct memtx_store_options options = memtx_store_options_default();
    char warning[512] = "";
    memtx_store *store;
    options.durability = plan->durability;
    options.group_segments = CRASH_GROUP_SEGMENTS;
    options.capacity_rows = plan->capacity;
    int status = memtx_store_open(&store, plan->path, &spec, &options);
    if (status) {
        return status;
    }
    status = crash_writer_open(&writer, store, plan, plan->seed);
    for (uint64_t i = 0; i < plan->n_segments && !status; i++) {
        status = crash_writer_append(&writer);
    }
    if (!status) {
        (void)snprintf(warning, sizeof warning, "%s", memtx_memory_warning(writer.memory));
    }
    crash_writer_close(&writer);
    int closed = memtx_store_close(store);
    if (!status && !closed && *warning) {
        (void)fprintf(stderr, "memtx: warning: %s\n", warning);
    }
    return status ? status : closed;
}

/* ---- with an index ---------------------------------------------------------------------------- */

int crash_ask(memtx_memory *memory, uint64_t id)
{
    enum { GROUP = CRASH_HEADS / CRASH_KV_HEADS };
    float queries[CRASH_HEADS * CRASH_HEAD_SIZE], V_mem[CRASH_HEADS * CRASH_HEAD_SIZE], LSE_mem[CRASH_HEADS];
    struct memtx_hit hits[CRASH_HEADS];
    struct memtx_row_facts facts;
    const uint64_t position = 0;
    int status = memtx_memory_row(&facts, memory, id);
    for (uint32_t layer = 0; layer < CRASH_LAYERS && !status; layer += 2) { /* those that are kept */
        const struct crash_row row = {id, facts.document, facts.position};
        for (uint32_t head = 0; head < CRASH_HEADS; head++) {
            crash_numbers(queries + head * CRASH_HEAD_SIZE, &row, false, layer, head / GROUP);
        }
        status = memtx_memory_attend(V_mem, LSE_mem, hits, memory, layer, 1, queries, &position);
        for (uint32_t head = 0; head < CRASH_HEADS && !status; head++) {
            if (hits[head].row != (int64_t)id) {
                status = memtx_fail(MEMTX_E_CORRUPT, "the key of row %llu in layer %u, head %u found row %lld",
                                    (unsigned long long)id, layer, head, (long long)hits[head].row);
            }
        }
    }
    return status;
}

int crash_ask_all(size_t *n_asked, memtx_store *store)
{
    struct memtx_memory_options options = memtx_memory_options_default();
    struct memtx_store_facts facts;
    memtx_memory *memory;
    options.k = 1;
    options.most_tokens = 1;
    options.reader = true;
    choose_index(&options);
    memtx_store_info(&facts, store);
    toy_asked = 0;
    int status = memtx_memory_open(&memory, store, &options);
    if (!status) {
        status = memtx_memory_begin_segment(memory);
    }
    for (uint64_t id = facts.first_row; id < facts.n_rows && !status; id++) {
        status = crash_ask(memory, id);
    }
    if (!status && *memtx_memory_warning(memory)) {
        status = memtx_fail(MEMTX_E_CORRUPT, "a warning: %s", memtx_memory_warning(memory));
    }
    *n_asked = (size_t)toy_asked;
    memtx_memory_close(memory);
    return status;
}
