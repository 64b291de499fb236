/* The store as a stream (store.h): opening, documents, appending, committing.
 *
 * Rows are appended to the tail in RAM, rounded to the store's type there and then, so that what is retrieved does not
 * depend on where it is kept. A commit makes them visible; a flush writes them, all layers and heads and the records in
 * one transaction. On the heap there is no flush and the tail is the store.
 */
#include "store/store.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/status.h"
#include "math/rows.h"
#include "math/shapes.h"

static const char *const row_type_names[] = {"f16", "bf16", "f32"};

const char *memtx_row_type_name(enum memtx_row_type type)
{
    return type >= MEMTX_ROWS_F16 && type <= MEMTX_ROWS_F32 ? row_type_names[type] : "unknown";
}

int memtx_row_type_parse(enum memtx_row_type *out, const char *name)
{
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, row_type_names[i]) == 0) {
            *out = (enum memtx_row_type)i;
            return MEMTX_OK;
        }
    }
    return memtx__fail(MEMTX_E_INVALID, "store type '%s' is none of f16, bf16, f32", name);
}

struct memtx_store_options memtx_store_options_default(void)
{
    return (struct memtx_store_options){.durability = MEMTX_DURABILITY_GROUP,
                                        .group_segments = 4,
                                        .group_milliseconds = 1000,
                                        .group_bytes = (size_t)32 << 20};
}

/* ---- opening
 * ----------------------------------------------------------------------------------------------------------- */

static int check_spec(const struct memtx_store_spec *spec)
{
    size_t n_kept = 0;
    if (spec->n_layers < 1 || spec->n_layers > MEMTX_MAX_LAYERS) {
        return memtx__fail(MEMTX_E_INVALID, "a store for %u layers (1 to %d can be)", spec->n_layers, MEMTX_MAX_LAYERS);
    }
    if (spec->n_kv_heads < 1 || spec->n_kv_heads > MEMTX_MAX_KV_HEADS || spec->n_heads % spec->n_kv_heads != 0 ||
        spec->n_heads < spec->n_kv_heads) {
        return memtx__fail(MEMTX_E_INVALID, "a store for %u heads over %u kv heads", spec->n_heads, spec->n_kv_heads);
    }
    if (spec->head_size < 1 || spec->head_size > MEMTX__MAX_HEAD_SIZE || spec->rope_dims > spec->head_size ||
        spec->rope_dims % 2 != 0 || spec->row_type > MEMTX_ROWS_F32 || spec->row_type < MEMTX_ROWS_F16) {
        return memtx__fail(MEMTX_E_INVALID, "a store for heads of %u with %u turning dimensions, row type %d",
                           spec->head_size, spec->rope_dims, (int)spec->row_type);
    }
    for (uint32_t layer = 0; layer < MEMTX_MAX_LAYERS; layer++) {
        if (spec->layers_kept[layer] && layer >= spec->n_layers) {
            return memtx__fail(MEMTX_E_INVALID, "layer %u of a model of %u", layer, spec->n_layers);
        }
        n_kept += spec->layers_kept[layer];
    }
    return n_kept ? MEMTX_OK : memtx__fail(MEMTX_E_INVALID, "a store that keeps no layer");
}

static float factor_of(const struct memtx_store_spec *spec, uint32_t pair)
{
    return spec->rope_factors ? spec->rope_factors[pair] : 1.0F;
}

static bool same_rope(const struct memtx_store_spec *a, const struct memtx_store_spec *b)
{
    bool same = a->rope_dims == b->rope_dims && (a->rope_base == b->rope_base || a->rope_dims == 0);
    for (uint32_t pair = 0; same && pair < a->rope_dims / 2; pair++) {
        same = factor_of(a, pair) == factor_of(b, pair);
    }
    return same;
}

/* What an existing store was made for against what is asked of it: names the first difference. */
static int compare_spec(const char *path, const struct memtx_store_spec *has, const struct memtx_store_spec *wanted)
{
    if (has->n_layers != wanted->n_layers || has->n_heads != wanted->n_heads || has->n_kv_heads != wanted->n_kv_heads ||
        has->head_size != wanted->head_size) {
        return memtx__fail(MEMTX_E_MISMATCH,
                           "%s: was made for a model of %u layers, %u heads over %u of size %u, not %u, %u over %u of "
                           "size %u (use another directory)",
                           path, has->n_layers, has->n_heads, has->n_kv_heads, has->head_size, wanted->n_layers,
                           wanted->n_heads, wanted->n_kv_heads, wanted->head_size);
    }
    if (memcmp(has->fingerprint, wanted->fingerprint, MEMTX_FINGERPRINT_BYTES) != 0) {
        return memtx__fail(MEMTX_E_MISMATCH,
                           "%s: was made with another model of the same shape (use another directory)", path);
    }
    if (!same_rope(has, wanted) || has->scale != wanted->scale) {
        return memtx__fail(MEMTX_E_MISMATCH,
                           "%s: was made for RoPE of %u dimensions, base %g and logits scaled by %g, not %u, %g, %g%s (use "
                           "another directory)",
                           path, has->rope_dims, has->rope_base, (double)has->scale, wanted->rope_dims,
                           wanted->rope_base, (double)wanted->scale,
                           has->rope_factors || wanted->rope_factors ? ", with its own factors" : "");
    }
    if (has->row_type != wanted->row_type) {
        return memtx__fail(MEMTX_E_MISMATCH, "%s: keeps %s rows, not %s (use --store-type %s or another directory)",
                           path, memtx_row_type_name(has->row_type), memtx_row_type_name(wanted->row_type),
                           memtx_row_type_name(has->row_type));
    }
    for (uint32_t layer = 0; layer < has->n_layers; layer++) {
        if (has->layers_kept[layer] != wanted->layers_kept[layer]) {
            return memtx__fail(MEMTX_E_MISMATCH, "%s: %s layer %u, which is %s for (use the layers it was made with)",
                               path, has->layers_kept[layer] ? "keeps" : "does not keep", layer,
                               has->layers_kept[layer] ? "not asked" : "asked");
        }
    }
    return MEMTX_OK;
}

/* Numbers that follow from the spec. */
static void derive(memtx_store *store)
{
    store->row_bytes = (uint32_t)(store->spec.head_size * memtx__row_type_bytes(store->spec.row_type));
    store->chunk_rows = (MEMTX__CHUNK_BYTES - MEMTX__CHUNK_HEADER_BYTES) / store->row_bytes;
    store->n_pairs = 0;
    for (uint32_t layer = 0; layer < MEMTX_MAX_LAYERS; layer++) {
        store->first_pair[layer] = store->spec.layers_kept[layer] ? (int32_t)store->n_pairs : -1;
        store->n_pairs += store->spec.layers_kept[layer] ? store->spec.n_kv_heads : 0;
    }
    store->tail.n_pairs = store->n_pairs;
    store->tail.chunk_rows = store->chunk_rows;
}

static int open_existing(memtx_store *store, const char *path, const struct memtx_store_spec *wanted)
{
    uint32_t chunk_rows;
    int status = memtx__environment_load_spec(&store->spec, &chunk_rows, &store->rope_factors, store->environment);
    if (!status) {
        status = check_spec(&store->spec);
    }
    if (!status && wanted) {
        status = compare_spec(path, &store->spec, wanted);
    }
    if (status) {
        return status;
    }
    derive(store);
    if (chunk_rows != store->chunk_rows) {
        return memtx__fail(MEMTX_E_CORRUPT, "%s: chunks of %u rows where %u fit", path, chunk_rows, store->chunk_rows);
    }
    status = memtx__environment_load(store);
    if (!status) {
        status = memtx__alloc(&store->documents_dirty, store->n_documents_held + 1, sizeof *store->documents_dirty);
    }
    store->n_written_rows = store->state.n_rows;
    store->n_chunks_at_open = store->state.n_rows / store->chunk_rows;
    store->n_freed_chunks = store->state.first_row / store->chunk_rows;
    store->first_dirty_extent = store->n_extents;
    return status;
}

static int open_new(memtx_store *store, const char *path, const struct memtx_store_spec *spec)
{
    if (!spec) {
        return memtx__fail(MEMTX_E_NOT_FOUND, "%s: there is no store", path ? path : "(heap)");
    }
    store->spec = *spec;
    if (spec->rope_factors) {
        int status = memtx__alloc(&store->rope_factors, spec->rope_dims / 2, sizeof *store->rope_factors);
        if (status) {
            return status;
        }
        memcpy(store->rope_factors, spec->rope_factors, spec->rope_dims / 2 * sizeof *store->rope_factors);
        store->spec.rope_factors = store->rope_factors;
    }
    derive(store);
    return path ? memtx__environment_create(store->environment, spec, store->chunk_rows) : MEMTX_OK;
}

int memtx_store_open(memtx_store **out, const char *path, const struct memtx_store_spec *spec,
                     const struct memtx_store_options *options)
{
    memtx_store *store;
    bool is_new = true;
    *out = NULL;
    int status = spec ? check_spec(spec) : MEMTX_OK;
    if (status) {
        return status;
    }
    status = memtx__alloc(&store, 1, sizeof *store);
    if (status) {
        return status;
    }
    store->options = options ? *options : memtx_store_options_default();
    if (path && !store->options.temporary) { /* the lock first: LMDB must not open what this process has open */
        status = memtx__environment_prepare(path);
        if (!status) {
            status = memtx__lock_take(&store->lock, path);
        }
    }
    if (!status && path) {
        status = memtx__environment_open(&store->environment, &is_new, path, store->options.temporary);
    }
    if (!status) {
        status = is_new ? open_new(store, path, spec) : open_existing(store, path, spec);
    }
    if (status) {
        store->n_written_rows = store->state.n_rows; /* nothing to write */
        (void)memtx_store_close(store);
        return status;
    }
    *out = store;
    return MEMTX_OK;
}

int memtx_store_close(memtx_store *store)
{
    if (!store) {
        return MEMTX_OK;
    }
    int status = memtx__store_flush(store);
    memtx__environment_close(store->environment);
    memtx__lock_release(store->lock);
    memtx__tail_release(&store->tail);
    memtx__free(store->documents);
    memtx__free(store->documents_dirty);
    memtx__free(store->extents);
    memtx__free(store->rope_factors);
    memtx__free(store);
    return status;
}

void memtx_store_info(struct memtx_store_facts *out, const memtx_store *store)
{
    *out = (struct memtx_store_facts){
        .format_version = MEMTX__FORMAT_VERSION,
        .spec = store->spec,
        .n_rows = store->state.n_rows,
        .first_row = store->state.first_row,
        .n_written_rows = store->n_written_rows,
        .n_documents = store->n_documents,
        .disk_bytes = store->environment ? memtx__environment_bytes(store->environment) : 0,
        .chunk_rows = store->chunk_rows,
    };
}

/* ---- documents
 * --------------------------------------------------------------------------------------------------------- */

int memtx_store_document_at(struct memtx_document *out, const memtx_store *store, uint64_t i)
{
    if (i >= store->n_documents) {
        return memtx__fail(MEMTX_E_NOT_FOUND, "document %llu of %zu", (unsigned long long)i, store->n_documents);
    }
    *out = store->documents[i];
    return MEMTX_OK;
}

static bool name_is_taken(const memtx_store *store, const char *name)
{
    for (size_t i = 0; i < store->n_documents; i++) {
        if (strcmp(store->documents[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

int memtx__store_add_document(size_t *out, memtx_store *store, const char *name)
{
    struct memtx_document document = {.id = store->state.next_document};
    (void)snprintf(document.name, sizeof document.name, "%s", name);
    for (unsigned n = 2; name_is_taken(store, document.name); n++) {
        (void)snprintf(document.name, sizeof document.name, "%.200s#%u", name, n);
    }
    size_t n_held = store->n_documents_held, n_dirty_held = n_held;
    int status = memtx__grow(&store->documents, &n_held, store->n_documents + 1, sizeof *store->documents);
    if (!status && n_held > store->n_documents_held) {
        status = memtx__grow(&store->documents_dirty, &n_dirty_held, n_held, sizeof *store->documents_dirty);
    }
    if (status) {
        return status;
    }
    store->n_documents_held = n_held;
    store->state.next_document++;
    store->documents[store->n_documents] = document;
    store->documents_dirty[store->n_documents] = true;
    *out = store->n_documents++;
    return MEMTX_OK;
}

const struct memtx__extent *memtx__store_extent_of(const memtx_store *store, uint64_t row)
{
    size_t low = 0, high = store->n_extents; /* the last extent that begins at or before the row */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (store->extents[middle].first_row <= row) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    const struct memtx__extent *extent = low ? &store->extents[low - 1] : NULL;
    return extent && row - extent->first_row < extent->n_rows ? extent : NULL;
}

/* ---- appending
 * ---------------------------------------------------------------------------------------------------------- */

/* Rounds n rows of one pair out of [n][G][D] into the tail. */
static void stage_pair(memtx_store *store, enum memtx__chunk_kind kind, size_t pair, uint64_t first, size_t n_rows,
                       const float *values, size_t stride)
{
    const size_t head_size = store->spec.head_size;
    for (size_t i = 0; i < n_rows; i++) {
        uint64_t row = first + i;
        unsigned char *rows = memtx__tail_rows(&store->tail, kind, pair, row / store->chunk_rows);
        memtx__rows_write(rows + row % store->chunk_rows * store->row_bytes, store->spec.row_type, values + i * stride,
                          head_size);
    }
}

int memtx__store_append(memtx_store *store, uint32_t layer, size_t n_rows, const float *keys, const float *values)
{
    if (layer >= store->spec.n_layers || store->first_pair[layer] < 0) {
        return memtx__fail(MEMTX_E_INVALID, "layer %u is not kept by this store", layer);
    }
    const size_t n_kv_heads = store->spec.n_kv_heads, head_size = store->spec.head_size;
    const float largest = store->spec.row_type == MEMTX_ROWS_F16 ? 65504.0F : 3.38e38F;
    for (size_t i = 0; i < n_rows * n_kv_heads * head_size; i++) {
        if (!(fabsf(keys[i]) <= largest && fabsf(values[i]) <= largest)) {
            return memtx__fail(MEMTX_E_INVALID, "layer %u: a key or value of row %zu does not fit into %s", layer,
                               i / (n_kv_heads * head_size), memtx_row_type_name(store->spec.row_type));
        }
    }
    const uint64_t first = store->state.n_rows + store->n_staged[layer];
    int status = n_rows ? memtx__tail_reach(&store->tail, (first + n_rows - 1) / store->chunk_rows) : MEMTX_OK;
    if (status) {
        return status;
    }
    for (size_t head = 0; head < n_kv_heads; head++) {
        size_t pair = (size_t)store->first_pair[layer] + head;
        stage_pair(store, MEMTX__KEYS, pair, first, n_rows, keys + head * head_size, n_kv_heads * head_size);
        stage_pair(store, MEMTX__VALUES, pair, first, n_rows, values + head * head_size, n_kv_heads * head_size);
    }
    store->n_staged[layer] += (uint32_t)n_rows;
    return MEMTX_OK;
}

/* Whether row `id` at `position` follows the last row of an extent. */
static bool goes_on(const struct memtx__extent *extent, uint64_t document, uint64_t id, uint64_t position)
{
    return extent && extent->document == document && extent->first_row + extent->n_rows == id &&
           extent->first_position + extent->n_rows == position;
}

/* Puts positions[n] of rows first .. into extents, going on with the last one where they follow it. All or nothing:
 * room for the new extents is made before any is changed. */
static int extend(memtx_store *store, uint64_t document, uint64_t first, size_t n_rows, const uint64_t *positions)
{
    size_t n_new = 0;
    for (size_t i = 0; i < n_rows; i++) {
        n_new += i == 0 || positions[i] != positions[i - 1] + 1;
    }
    int status = memtx__grow(&store->extents, &store->n_extents_held, store->n_extents + n_new, sizeof *store->extents);
    for (size_t i = 0; i < n_rows && !status; i++) {
        struct memtx__extent *last = store->n_extents ? &store->extents[store->n_extents - 1] : NULL;
        if (!goes_on(last, document, first + i, positions[i])) {
            last = &store->extents[store->n_extents++];
            *last = (struct memtx__extent){first + i, 0, document, positions[i]};
        }
        last->n_rows++;
        size_t dirty = (size_t)(last - store->extents);
        store->first_dirty_extent = dirty < store->first_dirty_extent ? dirty : store->first_dirty_extent;
    }
    return status;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static bool must_write(const memtx_store *store)
{
    const struct memtx_store_options *options = &store->options;
    const uint64_t waiting_rows = store->state.n_rows - store->n_written_rows;
    return options->durability == MEMTX_DURABILITY_FULL || store->n_waiting_commits >= options->group_segments ||
           waiting_rows * store->row_bytes * 2 * store->n_pairs >= options->group_bytes ||
           (now_ns() - store->waiting_since_ns) / 1000000U >= options->group_milliseconds;
}

int memtx__store_commit(memtx_store *store, size_t document, size_t n_rows, const uint32_t *token_ids,
                        const uint64_t *positions)
{
    const uint64_t first = store->state.n_rows;
    for (uint32_t layer = 0; layer < store->spec.n_layers; layer++) {
        if (store->first_pair[layer] >= 0 && store->n_staged[layer] != n_rows) {
            const uint32_t n_staged = store->n_staged[layer];
            memset(store->n_staged, 0, sizeof store->n_staged);
            return memtx__fail(MEMTX_E_INVALID, "layer %u has %u rows to commit, not %zu", layer, n_staged, n_rows);
        }
    }
    int status = extend(store, store->documents[document].id, first, n_rows, positions);
    if (status) { /* as if nothing had been said: rows that no commit gave must not get into the file */
        memset(store->n_staged, 0, sizeof store->n_staged);
        return status;
    }
    for (size_t i = 0; i < n_rows; i++) {
        uint64_t row = first + i;
        memtx__put_u32(memtx__tail_tokens(&store->tail, row / store->chunk_rows) + 4 * (row % store->chunk_rows),
                       token_ids[i]);
    }
    memset(store->n_staged, 0, sizeof store->n_staged);
    store->state.n_rows += n_rows;
    store->documents[document].n_tokens += n_rows;
    store->documents_dirty[document] = true;
    if (store->options.capacity_rows && store->state.n_rows > store->options.capacity_rows) {
        uint64_t first_row = store->state.n_rows - store->options.capacity_rows;
        store->state.first_row = first_row > store->state.first_row ? first_row : store->state.first_row;
    }
    if (!store->environment) { /* the heap: only what nobody can see any more is given up */
        memtx__tail_drop(&store->tail, store->state.first_row / store->chunk_rows);
        return MEMTX_OK;
    }
    if (store->n_waiting_commits++ == 0) {
        store->waiting_since_ns = now_ns();
    }
    return must_write(store) ? memtx__store_flush(store) : MEMTX_OK;
}

int memtx__store_flush(memtx_store *store)
{
    if (!store->environment || store->n_waiting_commits == 0) {
        return MEMTX_OK;
    }
    int status = memtx__environment_write(store);
    if (status) {
        return status;
    }
    memset(store->documents_dirty, 0, store->n_documents * sizeof *store->documents_dirty);
    store->n_waiting_commits = 0;
    store->n_written_rows = store->state.n_rows;
    store->n_freed_chunks = store->state.first_row / store->chunk_rows;
    store->first_dirty_extent = store->n_extents;
    memtx__tail_drop(&store->tail, store->state.n_rows / store->chunk_rows);
    return MEMTX_OK;
}
