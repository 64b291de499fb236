/* The memory as a stream of rows (memtx/memory.h): documents, appending, what is visible. Attention stands in attend.c.
 */
#include "memory/memory.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/alloc.h"
#include "base/status.h"

struct memtx_memory_options memtx_memory_options_default(void)
{
    return (struct memtx_memory_options){.k = 32, .delta = 2048, .most_tokens = 512};
}

static int check_options(const struct memtx_memory_options *options)
{
    if (options->k < 1 || options->k > MEMTX__MOST_K) {
        return memtx__fail(MEMTX_E_INVALID, "k is %u, not in 1..%d", options->k, MEMTX__MOST_K);
    }
    if (options->delta > MEMTX__MOST_DELTA) {
        return memtx__fail(MEMTX_E_INVALID, "delta is %u tokens, not in 0..%d", options->delta, MEMTX__MOST_DELTA);
    }
    if (!isfinite(options->lambda) || options->positions > MEMTX_POSITIONS_FIXED ||
        options->retrieval > MEMTX_RETRIEVAL_RANDOM) {
        return memtx__fail(MEMTX_E_INVALID, "lambda %g, positions %d, retrieval %d: one is out of range",
                           (double)options->lambda, (int)options->positions, (int)options->retrieval);
    }
    if (options->scope > MEMTX_SCOPE_ALL || (options->scope == MEMTX_SCOPE_NAMED && options->n_scope_names < 1) ||
        (options->scope == MEMTX_SCOPE_DOCUMENT && options->reader)) {
        return memtx__fail(MEMTX_E_INVALID, "scope %d with %zu names%s (all, or at least one name)",
                           (int)options->scope, options->n_scope_names, options->reader ? " for a reader" : "");
    }
    if (options->most_tokens < 1 || options->most_tokens > 1 << 16) {
        return memtx__fail(MEMTX_E_INVALID, "segments of up to %u tokens, not in 1..%d", options->most_tokens, 1 << 16);
    }
    return MEMTX_OK;
}

static void take_scratch(struct memtx_memory *memory, struct memtx__arena *arena)
{
    const struct memtx_store_spec *spec = &memory->store->spec;
    const size_t n_queries = (size_t)memory->options.most_tokens * (spec->n_heads / spec->n_kv_heads);
    const size_t k = memory->options.k, head_size = spec->head_size;
    memory->queries = memtx__arena_take(arena, n_queries * head_size, sizeof *memory->queries);
    memory->ids = memtx__arena_take(arena, n_queries * k, sizeof *memory->ids);
    memory->scores = memtx__arena_take(arena, n_queries * k, sizeof *memory->scores);
    memory->rows = memtx__arena_take(arena, memory->n_threads * 2 * head_size, sizeof *memory->rows);
    memory->logits = memtx__arena_take(arena, memory->n_threads * k, sizeof *memory->logits);
    memtx__exact_take_low(&memory->exact, arena, memory->choice.pass, n_queries, k, head_size);
    if (memory->choice.finder == MEMTX__FIND_RUNS) {
        memtx__runs_take(&memory->runs, arena, n_queries, k, head_size);
    }
}

static int copy_names(struct memtx_memory *memory, const struct memtx_memory_options *options)
{
    int status = memtx__alloc(&memory->names, options->n_scope_names, sizeof *memory->names);
    memory->options.scope_names = NULL;
    for (size_t i = 0; i < options->n_scope_names && !status; i++) {
        struct memtx_document document;
        status = memtx_store_document_named(&document, memory->store, options->scope_names[i]);
        if (!status) {
            status = memtx__copy_text(&memory->names[i], options->scope_names[i]);
        }
    }
    return status;
}

static int prepare(struct memtx_memory *memory, const struct memtx_memory_options *options)
{
    const struct memtx_store_spec *spec = &memory->store->spec;
    const size_t n_tau = (size_t)spec->n_layers * spec->n_heads;
    memory->n_threads = (size_t)omp_get_max_threads();
    int status = memtx__alloc(&memory->tau, n_tau, sizeof *memory->tau);
    for (size_t i = 0; i < n_tau && !status; i++) {
        memory->tau[i] = options->tau ? options->tau[i] : 1.0F;
    }
    if (!status) {
        status = copy_names(memory, options);
    }
    if (!status) {
        status = memtx__rope_create(&memory->rope, spec->rope_dims, spec->rope_base, spec->rope_factors,
                                    (size_t)options->delta + 1);
    }
    if (!status) {
        status = memtx__view_open(&memory->view, memory->store, options->reader);
    }
    if (!status && memory->choice.finder == MEMTX__FIND_RUNS) {
        status = memtx__runs_open(&memory->runs, memory->store, options->index, options->resolve_index,
                                  options->run_rows, !options->reader, options->seal_in_background);
    }
    if (!status && memory->choice.finder == MEMTX__FIND_CLUSTER) {
        status =
            memtx__clusters_open(&memory->clusters, memory->store, options->index, options->run_rows, !options->reader);
    }
    if (!status) {
        take_scratch(memory, &memory->scratch);
        status = memtx__arena_reserve(&memory->scratch);
    }
    if (!status) {
        take_scratch(memory, &memory->scratch);
        status = memtx__exact_prepare(&memory->exact);
    }
    return status;
}

static int check_store(const memtx_store *store, bool reader)
{
    if (reader) {
        return memtx__store_check_process(store);
    }
    return store->has_writer ? memtx__fail(MEMTX_E_BUSY, "a memory that appends to the store is open already (close it "
                                                         "first)")
                             : memtx__store_check_writable(store);
}

int memtx_memory_open(memtx_memory **out, memtx_store *store, const struct memtx_memory_options *options)
{
    struct memtx_memory_options chosen = options ? *options : memtx_memory_options_default();
    memtx_memory *memory;
    *out = NULL;
    struct memtx__choice choice;
    int status = check_options(&chosen);
    if (!status) {
        status = memtx__memory_choose(&choice, &chosen);
    }
    if (!status) {
        status = check_store(store, chosen.reader);
    }
    if (!status) {
        status = memtx__alloc(&memory, 1, sizeof *memory);
    }
    if (status) {
        return status;
    }
    memory->store = store;
    memory->choice = choice;
    if (!chosen.reader) {
        store->has_writer = true;
    }
    (void)atomic_fetch_add(&store->n_memories, 1);
    memory->options = chosen;
    memory->options.tau = NULL; /* the copy is memory->tau */
    memory->options.index = NULL;
    status = prepare(memory, &chosen);
    if (status) {
        memtx_memory_close(memory);
        return status;
    }
    *out = memory;
    return MEMTX_OK;
}

void memtx_memory_close(memtx_memory *memory)
{
    if (!memory) {
        return;
    }
    memtx_memory_end_segment(memory);
    memtx__clusters_seal(&memory->clusters); /* what fails there only costs the next reader its time */
    if (!memory->options.reader) {
        memory->store->has_writer = false;
    }
    memtx__runs_close(&memory->runs);
    memtx__clusters_close(&memory->clusters);
    memtx__cluster_search_release(&memory->cluster_search);
    memtx__exact_release(&memory->exact);
    memtx__view_close(&memory->view);
    (void)atomic_fetch_sub(&memory->store->n_memories, 1);
    memtx__arena_release(&memory->scratch);
    memtx__rope_release(&memory->rope);
    for (size_t i = 0; memory->names && i < memory->options.n_scope_names; i++) {
        memtx__free(memory->names[i]);
    }
    memtx__free(memory->names);
    memtx__free(memory->tau);
    memtx__free(memory->ranges);
    memtx__free(memory->visible);
    memtx__free(memory->blocks);
    memtx__free(memory->keys);
    memtx__free(memory->values);
    memtx__free(memory->staged_tokens);
    memtx__free(memory->staged_positions);
    memtx__free(memory);
}

/* ---- documents -------------------------------------------------------------------------------- */

static int check_no_document(const memtx_memory *memory)
{
    if (memory->options.reader) {
        return memtx__fail(MEMTX_E_INVALID, "this memory only reads");
    }
    return memory->is_open ? memtx__fail(MEMTX_E_INVALID, "a document is open already") : MEMTX_OK;
}

static int check_document(const memtx_memory *memory)
{
    return memory->is_open ? MEMTX_OK : memtx__fail(MEMTX_E_INVALID, "no document is open");
}

int memtx_memory_begin_document(memtx_memory *memory, const char *name)
{
    int status = check_no_document(memory);
    if (!status) {
        status = memtx__store_add_document(&memory->document, memory->store, name);
        memory->is_open = !status;
    }
    return status;
}

int memtx_memory_reopen_document(memtx_memory *memory, const char *name)
{
    int status = check_no_document(memory);
    if (!status) {
        status = memtx__store_reopen_document(&memory->document, memory->store, name);
        memory->is_open = !status;
    }
    return status;
}

int memtx_memory_set_state(memtx_memory *memory, const void *bytes, size_t n_bytes, uint64_t n_read,
                           const uint8_t hash[MEMTX_HASH_BYTES])
{
    struct memtx__pending_state *pending = &memory->store->pending;
    int status = check_document(memory);
    if (status) {
        return status;
    }
    if (n_bytes < 1 || n_bytes > (size_t)UINT32_MAX) {
        return memtx__fail(MEMTX_E_INVALID, "a running state of %zu bytes, not 1 to 2^32", n_bytes);
    }
    *pending = (struct memtx__pending_state){
        .bytes = bytes, .n_bytes = n_bytes, .document = memory->document, .n_read = n_read};
    memcpy(pending->hash, hash, MEMTX_HASH_BYTES);
    return MEMTX_OK;
}

void memtx_memory_end_segment(memtx_memory *memory)
{
    if (memory->in_segment) {
        memtx__view_end(&memory->view);
        memory->in_segment = false;
    }
}

int memtx_memory_end_document(memtx_memory *memory, const uint8_t hash[MEMTX_HASH_BYTES])
{
    int status = check_document(memory);
    if (status) {
        return status;
    }
    if (memory->n_staged) {
        return memtx__fail(MEMTX_E_INVALID, "%zu rows are appended and not committed", memory->n_staged);
    }
    struct memtx_document *document = &memory->store->now.documents[memory->document].facts;
    memtx_memory_end_segment(memory);
    document->ended = true;
    if (hash) {
        memcpy(document->hash, hash, MEMTX_HASH_BYTES);
        document->n_read = document->state_bytes ? document->n_read : document->n_tokens;
    }
    memory->is_open = false;
    status = memtx__store_commit(memory->store, memory->document, 0, NULL, NULL);
    return status ? status : memtx__store_flush(memory->store);
}

void memtx_memory_abandon_document(memtx_memory *memory)
{
    memtx_memory_end_segment(memory);
    if (memory->is_open) {
        memtx__store_discard_staged(memory->store);
        memory->store->pending = (struct memtx__pending_state){0};
    }
    memory->n_staged = 0;
    memory->is_open = false;
}

int memtx_memory_document(struct memtx_document *out, const memtx_memory *memory)
{
    int status = check_document(memory);
    if (!status) {
        *out = memory->store->now.documents[memory->document].facts;
    }
    return status;
}

void memtx_memory_info(struct memtx_memory_facts *out, const memtx_memory *memory)
{
    *out = (struct memtx_memory_facts){.options = memory->options};
    memtx_store_info(&out->store, memory->store);
}

const char *memtx_memory_warning(const memtx_memory *memory)
{
    return memory->choice.finder == MEMTX__FIND_CLUSTER ? memory->clusters.files.warning : memory->runs.warning;
}

memtx_store *memtx_memory_store(const memtx_memory *memory)
{
    return memory->store;
}

/* ---- what is visible -------------------------------------------------------------------------- */

/* Whether a search sees the document at this place of the catalogue. */
static bool in_scope(const memtx_memory *memory, size_t place)
{
    const char *name = memory->view.catalogue->documents[place].facts.name;
    bool is_named = false;
    for (size_t i = 0; i < memory->options.n_scope_names && !is_named; i++) {
        is_named = strcmp(memory->names[i], name) == 0;
    }
    return memory->options.scope == MEMTX_SCOPE_ALL || is_named || (memory->is_open && place == memory->document);
}

/* The extents of the documents in scope, without what the capacity has put out of sight. */
static int collect_ranges(memtx_memory *memory)
{
    const struct memtx__catalogue *catalogue = memory->view.catalogue;
    const uint64_t first_row = catalogue->state.first_row;
    int status = memtx__grow(&memory->ranges, &memory->n_ranges_held, catalogue->n_extents, sizeof *memory->ranges);
    memory->n_ranges = 0;
    memory->n_visible = 0;
    for (size_t i = 0; i < catalogue->n_extents && !status; i++) {
        const struct memtx__extent *extent = &catalogue->extents[i];
        const uint64_t end = extent->first_row + extent->n_rows;
        const size_t place = memtx__catalogue_document(catalogue, extent->document);
        if (end <= first_row || !in_scope(memory, place)) {
            continue;
        }
        uint64_t first = extent->first_row > first_row ? extent->first_row : first_row;
        memory->ranges[memory->n_ranges++] =
            (struct memtx__range){.first_row = first,
                                  .n_rows = end - first,
                                  .document = extent->document,
                                  .first_position = extent->first_position + (first - extent->first_row),
                                  .is_own = memory->is_open && place == memory->document};
        memory->n_visible += end - first;
    }
    return status;
}

/* Ranges as a search in runs wants them: where one ends at the beginning of the next, they are one. */
static int join_ranges(struct memtx_memory *memory)
{
    int status = memtx__grow(&memory->visible, &memory->n_visible_held, memory->n_ranges, sizeof *memory->visible);
    memory->n_visible_ranges = 0;
    for (size_t i = 0; i < memory->n_ranges && !status; i++) {
        const struct memtx__range *range = &memory->ranges[i];
        struct memtx_index_range *last =
            memory->n_visible_ranges ? &memory->visible[memory->n_visible_ranges - 1] : NULL;
        if (last && last->first + last->n_rows == range->first_row) {
            last->n_rows += range->n_rows;
        } else {
            memory->visible[memory->n_visible_ranges++] = (struct memtx_index_range){range->first_row, range->n_rows};
        }
    }
    return status;
}

int memtx_memory_begin_segment(memtx_memory *memory)
{
    if (memory->in_segment) {
        return memtx__fail(MEMTX_E_INVALID, "a segment has begun already");
    }
    int status = memory->options.scope == MEMTX_SCOPE_DOCUMENT ? check_document(memory) : MEMTX_OK;
    if (!status && memory->choice.finder == MEMTX__FIND_RUNS && !memory->options.reader) {
        memtx__runs_prepare(&memory->runs, &memory->view);
    }
    if (!status && memory->choice.finder == MEMTX__FIND_CLUSTER) {
        memtx__clusters_prepare(&memory->clusters);
    }
    if (!status) {
        status = memtx__view_begin(&memory->view);
    }
    memory->in_segment = !status;
    if (!status) {
        status = collect_ranges(memory);
    }
    if (!status && memory->choice.finder == MEMTX__FIND_RUNS) {
        status = memtx__runs_refresh(&memory->runs, memory->view.catalogue);
    }
    if (!status && memory->choice.finder == MEMTX__FIND_CLUSTER) {
        status = memtx__clusters_refresh(&memory->clusters, memory->view.catalogue);
    }
    if (!status && memory->choice.finder == MEMTX__FIND_RUNS) {
        status = join_ranges(memory);
    }
    if (status) {
        memtx_memory_end_segment(memory);
    }
    return status;
}

uint64_t memtx_memory_n_visible(const memtx_memory *memory)
{
    return memory->n_visible;
}

const struct memtx__range *memtx__memory_range_of(const struct memtx_memory *memory, uint64_t row)
{
    size_t low = 0, high = memory->n_ranges;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (memory->ranges[middle].first_row <= row) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    const struct memtx__range *range = low ? &memory->ranges[low - 1] : NULL;
    return range && row - range->first_row < range->n_rows ? range : NULL;
}

int memtx_memory_row(struct memtx_row_facts *out, const memtx_memory *memory, uint64_t row)
{
    const struct memtx__range *range = memtx__memory_range_of(memory, row);
    if (!range) {
        return memtx__fail(MEMTX_E_NOT_FOUND, "row %llu is not visible", (unsigned long long)row);
    }
    *out = (struct memtx_row_facts){range->document, range->first_position + (row - range->first_row)};
    return MEMTX_OK;
}

/* ---- appending -------------------------------------------------------------------------------- */

/* The first layer of a segment says which tokens; the others must say the same. */
static int stage_tokens(memtx_memory *memory, size_t first, size_t n_tokens, const uint32_t *token_ids,
                        const uint64_t *positions)
{
    int status =
        memtx__grow(&memory->staged_tokens, &memory->n_staged_held, first + n_tokens, sizeof *memory->staged_tokens);
    if (!status) {
        status = memtx__grow(&memory->staged_positions, &memory->n_positions_held, first + n_tokens,
                             sizeof *memory->staged_positions);
    }
    if (status) {
        return status;
    }
    if (first == memory->n_staged) {
        memcpy(memory->staged_tokens + first, token_ids, n_tokens * sizeof *token_ids);
        memcpy(memory->staged_positions + first, positions, n_tokens * sizeof *positions);
        memory->n_staged += n_tokens;
    } else if (first + n_tokens > memory->n_staged ||
               memcmp(memory->staged_tokens + first, token_ids, n_tokens * sizeof *token_ids) != 0 ||
               memcmp(memory->staged_positions + first, positions, n_tokens * sizeof *positions) != 0) {
        return memtx__fail(MEMTX_E_INVALID, "two layers of a segment append different tokens");
    }
    return MEMTX_OK;
}

int memtx_memory_append(memtx_memory *memory, uint32_t layer, size_t n_tokens, const float *keys, const float *values,
                        const uint32_t *token_ids, const uint64_t *positions)
{
    int status = check_document(memory);
    if (status) {
        return status;
    }
    const size_t first = layer < MEMTX_MAX_LAYERS ? memory->store->n_staged[layer] : 0, n_before = memory->n_staged;
    status = stage_tokens(memory, first, n_tokens, token_ids, positions);
    if (!status) {
        status = memtx__store_append(memory->store, layer, n_tokens, keys, values);
    }
    if (status) {
        memory->n_staged = n_before; /* what is refused leaves nothing behind */
    }
    return status;
}

int memtx_memory_commit(memtx_memory *memory)
{
    int status = check_document(memory);
    if (status) {
        return status;
    }
    memtx_memory_end_segment(memory);
    size_t n_rows = memory->n_staged;
    memory->n_staged = 0;
    return memtx__store_commit(memory->store, memory->document, n_rows, memory->staged_tokens,
                               memory->staged_positions);
}
