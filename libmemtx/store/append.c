/* Rows appended to a store (store.h).
 *
 * Rows are appended to the tail in RAM, rounded to the store's type there and then, so that what is retrieved does not
 * depend on where it is kept. A commit makes them visible; a flush writes them, all layers and heads and the records in
 * one transaction. On the heap there is no flush and the tail is the store.
 */
#include <math.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/status.h"
#include "math/clones.h"
#include "math/rows.h"
#include "store/store.h"

/* Rounds n rows of one pair out of [n][G][D] into the tail. Their checksum is taken while they are in the cache. */
static void stage_pair(memtx_store *store, enum memtx__chunk_kind kind, size_t pair, uint64_t first, size_t n_rows,
                       const float *values, size_t stride)
{
    for (size_t done = 0; done < n_rows;) {
        const uint64_t chunk = (first + done) / store->chunk_rows;
        const uint32_t at = (uint32_t)((first + done) % store->chunk_rows);
        const size_t n_left = n_rows - done, n_room = store->chunk_rows - at, n = n_left < n_room ? n_left : n_room;
        unsigned char *rows = memtx__tail_rows(&store->tail, kind, pair, chunk);
        for (size_t i = 0; i < n; i++) {
            memtx__rows_write(rows + (at + i) * store->row_bytes, store->spec.row_type, values + (done + i) * stride,
                              store->spec.head_size);
        }
        if (store->environment) {
            memtx__chunk_cover(rows - MEMTX__CHUNK_HEADER_BYTES, at, (uint32_t)n, store->row_bytes);
        }
        done += n;
    }
}

MEMTX__CLONES static bool all_fit(const float *numbers, size_t n, float largest)
{
    int unfit = 0;
#pragma omp simd reduction(| : unfit)
    for (size_t i = 0; i < n; i++) {
        unfit |= !(fabsf(numbers[i]) <= largest); /* which a NaN is not either */
    }
    return !unfit;
}

/* All numbers at once, since nearly always they fit; then those of the pairs kept, a row at a time, for the message. */
static int check_fit(const memtx_store *store, uint32_t layer, const float *numbers, size_t n_rows)
{
    const size_t head_size = store->spec.head_size, n_row = store->spec.n_kv_heads * head_size;
    const float largest = store->spec.row_type == MEMTX_ROWS_F16 ? 65504.0F : 3.38e38F;
    if (all_fit(numbers, n_rows * n_row, largest)) {
        return MEMTX_OK;
    }
    for (size_t i = 0; i < n_rows * store->spec.n_kv_heads; i++) {
        const size_t row = i / store->spec.n_kv_heads;
        const uint32_t head = (uint32_t)(i % store->spec.n_kv_heads);
        if (memtx_store_keeps(&store->spec, layer, head) &&
            !all_fit(numbers + row * n_row + head * head_size, head_size, largest)) {
            return memtx__fail(MEMTX_E_INVALID, "layer %u, kv head %u: a key or value of row %zu does not fit into %s",
                               layer, head, row, memtx_row_type_name(store->spec.row_type));
        }
    }
    return MEMTX_OK;
}

int memtx__store_append(memtx_store *store, uint32_t layer, size_t n_rows, const float *keys, const float *values)
{
    if (layer >= store->spec.n_layers || !store->spec.heads_kept[layer]) {
        return memtx__fail(MEMTX_E_INVALID, "layer %u is not kept by this store", layer);
    }
    const size_t n_kv_heads = store->spec.n_kv_heads, head_size = store->spec.head_size;
    int status = check_fit(store, layer, keys, n_rows);
    if (!status) {
        status = check_fit(store, layer, values, n_rows);
    }
    if (status) {
        return status;
    }
    status = memtx__environment_load_tail(store);
    if (status) {
        return status;
    }
    const uint64_t first = store->now.state.n_rows + store->n_staged[layer];
    status = n_rows ? memtx__tail_reach(&store->tail, (first + n_rows - 1) / store->chunk_rows) : MEMTX_OK;
    if (status) {
        return status;
    }
    for (size_t pair = store->first_pair[layer]; pair < store->n_pairs && store->pairs[pair].layer == layer; pair++) {
        const size_t head = store->pairs[pair].kv_head;
        stage_pair(store, MEMTX__KEYS, pair, first, n_rows, keys + head * head_size, n_kv_heads * head_size);
        stage_pair(store, MEMTX__VALUES, pair, first, n_rows, values + head * head_size, n_kv_heads * head_size);
    }
    store->n_staged[layer] += (uint32_t)n_rows;
    return MEMTX_OK;
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
    const uint64_t waiting_rows = store->now.state.n_rows - store->n_written_rows;
    return store->pending.bytes || options->durability == MEMTX_DURABILITY_FULL ||
           store->n_waiting_commits >= options->group_segments ||
           waiting_rows * store->row_bytes * 2 * store->n_pairs >= options->group_bytes ||
           (now_ns() - store->waiting_since_ns) / 1000000U >= options->group_milliseconds;
}

/* That every kept layer has staged n_rows. */
static int check_staged(const memtx_store *store, size_t n_rows)
{
    for (uint32_t layer = 0; layer < store->spec.n_layers; layer++) {
        if (store->spec.heads_kept[layer] && store->n_staged[layer] != n_rows) {
            return memtx__fail(MEMTX_E_INVALID, "layer %u has %u rows to commit, not %zu", layer,
                               store->n_staged[layer], n_rows);
        }
    }
    return MEMTX_OK;
}

/* The staged rows become rows of the document. All or nothing. */
static int take_staged(memtx_store *store, struct memtx__document *document, size_t n_rows, const uint32_t *token_ids,
                       const uint64_t *positions)
{
    struct memtx__state *state = &store->now.state;
    const uint64_t first = state->n_rows;
    size_t changed;
    int status = check_staged(store, n_rows);
    if (!status) {
        status = memtx__catalogue_extend(&changed, &store->now, document->facts.id, first, n_rows, positions);
    }
    memtx__store_discard_staged(store); /* taken, or as if nothing had been said: no later commit takes them */
    if (status) {
        return status;
    }
    store->first_dirty_extent = changed < store->first_dirty_extent ? changed : store->first_dirty_extent;
    for (size_t i = 0; i < n_rows; i++) {
        uint64_t row = first + i;
        memtx__put_u32(memtx__tail_tokens(&store->tail, row / store->chunk_rows) + 4 * (row % store->chunk_rows),
                       token_ids[i]);
    }
    state->n_rows += n_rows;
    document->facts.n_tokens += n_rows;
    document->is_dirty = true;
    if (store->options.capacity_rows && state->n_rows > store->options.capacity_rows) {
        uint64_t first_row = state->n_rows - store->options.capacity_rows;
        state->first_row = first_row > state->first_row ? first_row : state->first_row;
    }
    return MEMTX_OK;
}

/* The document's record tells of the running state that goes with this commit. */
static void take_pending(const memtx_store *store, struct memtx__document *document)
{
    const struct memtx__pending_state *pending = &store->pending;
    document->facts.n_read = pending->n_read;
    document->facts.state_row = store->now.state.n_rows;
    document->facts.state_bytes = pending->n_bytes;
    memcpy(document->facts.hash, pending->hash, MEMTX_HASH_BYTES);
}

/* On the heap the running state is kept as a copy; and only what nobody can see any more is given up. */
static int commit_on_heap(memtx_store *store, struct memtx__document *document)
{
    const struct memtx__pending_state *pending = &store->pending;
    memtx__tail_drop(&store->tail, store->now.state.first_row / store->chunk_rows);
    if (!pending->bytes) {
        return MEMTX_OK;
    }
    unsigned char *copy;
    int status = memtx__alloc_raw(&copy, pending->n_bytes, 1);
    if (!status) {
        memcpy(copy, pending->bytes, pending->n_bytes);
        memtx__free(document->kept);
        document->kept = copy;
        take_pending(store, document);
    }
    return status;
}

static int commit_on_disk(memtx_store *store, struct memtx__document *document)
{
    const struct memtx_document before = document->facts;
    if (store->n_waiting_commits++ == 0) {
        store->waiting_since_ns = now_ns();
    }
    if (store->pending.bytes) {
        take_pending(store, document);
    }
    int status = must_write(store) ? memtx__store_flush(store) : MEMTX_OK;
    if (status && store->pending.bytes) { /* the rows are tried again, this state is not: the one before it stands */
        document->facts = before;
    }
    return status;
}

int memtx__store_commit(memtx_store *store, size_t document, size_t n_rows, const uint32_t *token_ids,
                        const uint64_t *positions)
{
    struct memtx__document *d = &store->now.documents[document];
    int status = memtx__store_check_writable(store);
    if (!status) {
        status = take_staged(store, d, n_rows, token_ids, positions);
    }
    if (!status) {
        status = store->environment ? commit_on_disk(store, d) : commit_on_heap(store, d);
    }
    store->pending = (struct memtx__pending_state){0};
    return status;
}

void memtx__store_discard_staged(memtx_store *store)
{
    memset(store->n_staged, 0, sizeof store->n_staged);
}

int memtx__store_flush(memtx_store *store)
{
    if (!store->environment || store->n_waiting_commits == 0) {
        return MEMTX_OK;
    }
    int status = memtx__store_check_process(store);
    if (!status) {
        status = memtx__environment_write(store);
    }
    if (!status) {
        memtx__store_all_written(store);
        memtx__tail_drop(&store->tail, store->now.state.n_rows / store->chunk_rows);
        (void)memtx__store_drop_runs(store, false); /* in vain: the next flush does */
    }
    return status;
}
