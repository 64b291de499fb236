/* Judging what a reader sees (ask.h).
 *
 * Rows are asked for through the public interface alone; which rows there should be, only the catalogue of the reader's
 * snapshot tells, and it is judged first. With delta 0 nothing is turned, so a query that is a row's key finds that row
 * before any other: a random key's product with another is far below that with itself. Its logit is so far above the
 * others that the softmax gives it all, and V_mem is its value to the bit.
 */
#include "ask.h"

#include <string.h>
#include <time.h>

#include "base/status.h"
#include "inspect.h"
#include "memory/memory.h"

enum { MOST_WAIT_US = 20000 };

typedef unsigned long long number; /* as %llu wants it */

int stress_asker_open(struct stress_asker *out, memtx_store *store, uint64_t capacity, uint64_t seed)
{
    struct memtx_memory_options options = memtx_memory_options_default();
    options.k = STRESS_K;
    options.delta = 0;
    options.most_tokens = STRESS_QUERIES;
    options.reader = true;
    options.scope = MEMTX_SCOPE_ALL;
    out->capacity = capacity;
    out->rng = memtx__rng_create(seed, out->counts.n_segments);
    return memtx_memory_open(&out->memory, store, &options);
}

void stress_asker_close(struct stress_asker *asker)
{
    memtx_memory_close(asker->memory);
    asker->memory = NULL;
}

/* ---- rows ------------------------------------------------------------------------------------- */

static const struct memtx__catalogue *catalogue_of(const struct stress_asker *asker)
{
    return asker->memory->view.catalogue;
}

static int check_numbers(const float *numbers, const struct crash_row *row, bool is_value, uint32_t layer,
                         uint32_t kv_head)
{
    float wanted[CRASH_HEAD_SIZE];
    crash_numbers(wanted, row, is_value, layer, kv_head);
    return memcmp(numbers, wanted, sizeof wanted) == 0
               ? MEMTX_OK
               : memtx__fail(MEMTX_E_CORRUPT,
                             "row %llu (document %llu, position %llu), layer %u, kv head %u: another %s; it begins "
                             "with %.0f %.0f %.0f",
                             (number)row->id, (number)row->document, (number)row->position, layer, kv_head,
                             is_value ? "value" : "key", (double)numbers[0], (double)numbers[1], (double)numbers[2]);
}

/* Every visible row from one pair, in an order that begins somewhere. */
static int check_pair(struct stress_asker *asker, uint32_t layer, uint32_t kv_head)
{
    const struct memtx__state *state = &catalogue_of(asker)->state;
    const size_t n = (size_t)(state->n_rows - state->first_row), begin = (size_t)memtx__rng_below(&asker->rng, n);
    for (size_t i = 0; i < n; i++) {
        asker->ids[i] = (int64_t)(state->first_row + (begin + i) % n);
    }
    int status = memtx_memory_gather(asker->keys, asker->values, asker->memory, layer, kv_head, n, asker->ids);
    for (size_t i = 0; i < n && !status; i++) {
        const struct crash_row row = crash_row_of(catalogue_of(asker), (uint64_t)asker->ids[i]);
        status = check_numbers(asker->keys + i * CRASH_HEAD_SIZE, &row, false, layer, kv_head);
        if (!status) {
            status = check_numbers(asker->values + i * CRASH_HEAD_SIZE, &row, true, layer, kv_head);
        }
    }
    asker->counts.n_rows += status ? 0 : n;
    return status;
}

/* Document and position as the memory tells them, and that what is just outside is not visible. */
static int check_places(const struct stress_asker *asker)
{
    const struct memtx__state *state = &catalogue_of(asker)->state;
    struct memtx_row_facts facts;
    if (memtx_memory_n_visible(asker->memory) != state->n_rows - state->first_row ||
        memtx_memory_row(&facts, asker->memory, state->n_rows) != MEMTX_E_NOT_FOUND ||
        (state->first_row && memtx_memory_row(&facts, asker->memory, state->first_row - 1) != MEMTX_E_NOT_FOUND)) {
        return memtx__fail(MEMTX_E_CORRUPT, "%llu rows are visible, not the rows %llu to %llu",
                           (number)memtx_memory_n_visible(asker->memory), (number)state->first_row,
                           (number)state->n_rows);
    }
    for (uint64_t id = state->first_row; id < state->n_rows; id++) {
        const struct crash_row row = crash_row_of(catalogue_of(asker), id);
        int status = memtx_memory_row(&facts, asker->memory, id);
        if (status || facts.document != row.document || facts.position != row.position) {
            return memtx__fail(MEMTX_E_CORRUPT, "row %llu is not at position %llu of document %llu", (number)id,
                               (number)row.position, (number)row.document);
        }
    }
    return MEMTX_OK;
}

/* ---- queries ---------------------------------------------------------------------------------- */

/* What one query and head found: first the row whose key it was, then others that are visible, each once. */
static int check_hits(const struct stress_asker *asker, const struct memtx_hit *hits, const struct crash_row *wanted)
{
    const struct memtx__state *state = &catalogue_of(asker)->state;
    const uint64_t n_visible = state->n_rows - state->first_row;
    for (size_t i = 0; i < STRESS_K; i++) {
        const uint64_t row = (uint64_t)hits[i].row;
        bool fits = i < n_visible ? row >= state->first_row && row < state->n_rows : hits[i].row == -1;
        for (size_t j = 0; j < i && i < n_visible; j++) {
            fits = fits && hits[j].row != hits[i].row;
        }
        if (!fits || (i == 0 && row != wanted->id)) {
            return memtx__fail(MEMTX_E_CORRUPT, "the key of row %llu found, as number %zu, row %lld; %llu are visible",
                               (number)wanted->id, i, (long long)hits[i].row, (number)n_visible);
        }
    }
    return MEMTX_OK;
}

static int check_attention(struct stress_asker *asker, uint32_t layer)
{
    enum { GROUP = CRASH_HEADS / CRASH_KV_HEADS, N = STRESS_QUERIES * CRASH_HEADS };
    const struct memtx__state *state = &catalogue_of(asker)->state;
    const uint64_t positions[STRESS_QUERIES] = {0};
    float queries[N * CRASH_HEAD_SIZE], V_mem[N * CRASH_HEAD_SIZE], LSE_mem[N];
    struct memtx_hit hits[N * STRESS_K];
    struct crash_row wanted[N];
    for (uint32_t i = 0; i < N; i++) {
        const uint64_t id = state->first_row + memtx__rng_below(&asker->rng, state->n_rows - state->first_row);
        wanted[i] = crash_row_of(catalogue_of(asker), id);
        crash_numbers(queries + i * CRASH_HEAD_SIZE, &wanted[i], false, layer, i % CRASH_HEADS / GROUP);
    }
    int status = memtx_memory_attend(V_mem, LSE_mem, hits, asker->memory, layer, STRESS_QUERIES, queries, positions);
    for (uint32_t i = 0; i < N && !status; i++) {
        status = check_hits(asker, hits + i * STRESS_K, &wanted[i]);
        if (!status && LSE_mem[i] != hits[i * STRESS_K].logit) {
            status = memtx__fail(MEMTX_E_CORRUPT, "row %llu has the logit %g and not all of the softmax, %g",
                                 (number)wanted[i].id, (double)hits[i * STRESS_K].logit, (double)LSE_mem[i]);
        }
        if (!status) {
            status = check_numbers(V_mem + i * CRASH_HEAD_SIZE, &wanted[i], true, layer, i % CRASH_HEADS / GROUP);
        }
    }
    return status;
}

/* ---- a segment -------------------------------------------------------------------------------- */

int stress_ask_begin(struct stress_asker *asker)
{
    return memtx_memory_begin_segment(asker->memory);
}

void stress_ask_end(struct stress_asker *asker)
{
    memtx_memory_end_segment(asker->memory);
}

int stress_ask_judge(struct stress_asker *asker)
{
    const struct memtx__catalogue *catalogue = catalogue_of(asker);
    int status = crash_check_catalogue(catalogue, asker->capacity);
    if (!status && catalogue->state.n_rows < asker->n_store_rows) {
        status = memtx__fail(MEMTX_E_CORRUPT, "%llu rows are there; there were %llu before",
                             (number)catalogue->state.n_rows, (number)asker->n_store_rows);
    }
    if (status || catalogue->state.n_rows == 0) {
        return status;
    }
    asker->n_store_rows = catalogue->state.n_rows;
    status = check_places(asker);
    for (uint32_t layer = 0; layer < CRASH_LAYERS && !status; layer += 2) { /* those that are kept */
        for (uint32_t head = 0; head < CRASH_KV_HEADS && !status; head++) {
            status = check_pair(asker, layer, head);
        }
        if (!status) {
            status = check_attention(asker, layer);
        }
    }
    return status;
}

/* Takes and gives back so many snapshots, and nothing else: most of the time is LMDB's. */
static int glance(struct stress_asker *asker)
{
    struct memtx__view *view = &asker->memory->view;
    int status = MEMTX_OK;
    for (uint64_t i = 0; i < asker->n_glances && !status; i++) {
        status = memtx__view_begin(view);
        if (!status) {
            memtx__view_end(view);
        }
    }
    return status;
}

int stress_ask(struct stress_asker *asker)
{
    int status = glance(asker);
    if (!status) {
        status = stress_ask_begin(asker);
    }
    if (!status) {
        status = stress_ask_judge(asker);
    }
    if (!status && memtx__rng_below(&asker->rng, 2)) {
        const struct timespec wait = {0, 1000 * (long)memtx__rng_below(&asker->rng, MOST_WAIT_US)};
        (void)nanosleep(&wait, NULL);
        status = stress_ask_judge(asker);
    }
    stress_ask_end(asker);
    asker->counts.n_segments += !status;
    return status;
}
