/* Attention over retrieved rows (memtx/memory.h; Memorizing Transformers, section 3.2; DESIGN 3 and 4).
 *
 * One key space per kv head, so the whole group of query heads searches at once: the queries are turned by delta, the
 * search ranks by R(delta) q . k, and each of the k rows found gets its logit from the stored row, at its own distance
 * min(distance, delta). The softmax over these k gives V_mem and LSE_mem; the blend with local attention is the
 * caller's. Departure from the paper: its keys carry a position (or none); here they are stored before RoPE.
 *
 * Cost: the search; then k rows of values, and of those keys that stand nearer than delta, read at random for each query
 * and head, which is memory traffic.
 */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/status.h"
#include "math/attention.h"
#include "math/clones.h"
#include "math/rows.h"
#include "memory/memory.h"

enum { TOKENS_PER_AGE = 1000 };

/* ---- attending -------------------------------------------------------------------------------- */

MEMTX__CLONES static void add_scaled(float *out, const float *x, float factor, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        out[i] += factor * x[i];
    }
}

/* A row's age, in tokens before the query, and the distance at which its key stands. Rows of other documents have no
 * place before the query: they stand at delta, and are as old as the rows that came after them. */
static void measure(uint64_t *distance, uint64_t *age, const struct memtx_memory *memory, uint64_t row,
                    uint64_t position)
{
    const struct memtx__range *range = memtx__memory_range_of(memory, row);
    const uint64_t place = range->first_position + (row - range->first_row), delta = memory->options.delta;
    if (!range->is_own) {
        *age = memory->view.catalogue->state.n_rows - row;
        *distance = delta;
        return;
    }
    *age = position > place ? position - place : 0;
    *distance = memory->options.positions == MEMTX_POSITIONS_NEAR && *age < delta ? *age : delta;
}

/* Where query i of the search stands in [n_q][H]. */
static size_t place_of(const struct memtx__pair_search *search, size_t i)
{
    return i / search->group * search->memory->store->spec.n_heads + search->kv_head * search->group +
           i % search->group;
}

/* Of one query and head: nothing was found. */
static void answer_nothing(float *V_mem, float *LSE_mem, struct memtx_hit *hits, const struct memtx_memory *memory,
                           size_t out)
{
    const size_t head_size = memory->store->spec.head_size, k = memory->options.k;
    memset(V_mem + out * head_size, 0, head_size * sizeof *V_mem);
    LSE_mem[out] = -INFINITY;
    for (size_t j = 0; hits && j < k; j++) {
        hits[out * k + j] = (struct memtx_hit){-1, -INFINITY};
    }
}

/* A stored row of chunks. */
static const unsigned char *row_at(const struct memtx_memory *memory, const unsigned char *const *chunks, int64_t id)
{
    const memtx_store *store = memory->store;
    return chunks[(uint64_t)id / store->chunk_rows] + (uint64_t)id % store->chunk_rows * store->row_bytes;
}

/* A query as it stands at a distance from the keys, in a thread's scratch. */
struct turned {
    const float *plain; /* [D] */
    float *query;       /* [D] */
    uint64_t by;        /* UINT64_MAX: not turned yet */
};

/* Hit `at` of [n_q * group][k], q . k at this distance. What the search ranked by was turned by delta. */
static float product_of(struct turned *turned, float *row, const struct memtx_memory *memory, size_t at,
                        uint64_t distance)
{
    const size_t head_size = memory->store->spec.head_size;
    if (memory->has_scores && distance == memory->options.delta) {
        return memory->scores[at];
    }
    if (distance != turned->by) {
        memtx__rope_turn(turned->query, &memory->rope, turned->plain, distance, head_size);
        turned->by = distance;
    }
    memtx__rows_read(row, memory->store->spec.row_type, row_at(memory, memory->keys, memory->ids[at]), head_size);
    return memtx__dot(turned->query, row, head_size);
}

/* Query i of the search: logits of the rows found, their softmax, the sum of their values. */
static void attend_query(float *V_mem, float *LSE_mem, struct memtx_hit *hits, const struct memtx__pair_search *search,
                         size_t i)
{
    const struct memtx_memory *memory = search->memory;
    const memtx_store *store = memory->store;
    const size_t head_size = store->spec.head_size, k = memory->options.k;
    const size_t head = search->kv_head * search->group + i % search->group;
    const size_t out = place_of(search, i), thread = (size_t)omp_get_thread_num();
    const int64_t *ids = memory->ids + i * k;
    const float scale = memory->tau[search->layer * store->spec.n_heads + head] * store->spec.scale;
    float *row = memory->rows + thread * 2 * head_size, *logits = memory->logits + thread * k, total;
    struct turned turned = {search->queries + out * head_size, row + head_size, UINT64_MAX};
    const uint64_t n_rows = memory->view.catalogue->state.n_rows, delta = memory->options.delta;
    size_t n = 0;

    for (size_t j = 0; j < k && ids[j] >= 0; j++) {
        if (!memory->has_scores || (uint64_t)ids[j] + delta >= n_rows) { /* older rows all stand at delta */
            memtx__row_fetch(row_at(memory, memory->keys, ids[j]), store->row_bytes);
        }
        memtx__row_fetch(row_at(memory, memory->values, ids[j]), store->row_bytes);
    }
    for (; n < k && ids[n] >= 0; n++) {
        uint64_t distance, age;
        measure(&distance, &age, memory, (uint64_t)ids[n], search->positions[i / search->group]);
        const float product = product_of(&turned, row, memory, i * k + n, distance);
        logits[n] = scale * product - memory->options.lambda * (float)age / (float)TOKENS_PER_AGE;
    }
    answer_nothing(V_mem, LSE_mem, hits, memory, out);
    if (n == 0) {
        return;
    }
    for (size_t j = 0; hits && j < n; j++) {
        hits[out * k + j] = (struct memtx_hit){ids[j], logits[j]};
    }
    memtx__softmax_row(&total, &LSE_mem[out], logits, 1.0F, n);
    for (size_t j = 0; j < n; j++) {
        memtx__rows_read(row, store->spec.row_type, row_at(memory, memory->values, ids[j]), head_size);
        add_scaled(V_mem + out * head_size, row, logits[j] / total, head_size);
    }
}

static int ask_pair(float *V_mem, float *LSE_mem, struct memtx_hit *hits, memtx_memory *memory,
                    const struct memtx__pair_search *search)
{
    int status = memtx__memory_find(memory, search);
    if (status) {
        return status;
    }
#pragma omp parallel for schedule(static) num_threads((int)memory->n_threads)
    for (size_t i = 0; i < search->n_q * search->group; i++) {
        attend_query(V_mem, LSE_mem, hits, search, i);
    }
    return MEMTX_OK;
}

static int check_call(const memtx_memory *memory, uint32_t layer, size_t n_q, const float *queries)
{
    const size_t n_head = memory->store->spec.head_size, n_query = memory->store->spec.n_heads * n_head;
    if (!memory->in_segment) {
        return memtx__fail(MEMTX_E_INVALID, "no segment has begun");
    }
    if (layer >= memory->store->spec.n_layers || !memory->store->spec.heads_kept[layer]) {
        return memtx__fail(MEMTX_E_INVALID, "layer %u is not kept by this store", layer);
    }
    if (n_q > memory->options.most_tokens) {
        return memtx__fail(MEMTX_E_INVALID, "%zu queries at once; the memory was opened for %u", n_q,
                           memory->options.most_tokens);
    }
    for (size_t i = 0; i < n_q * n_query; i++) {
        if (!isfinite(queries[i])) {
            return memtx__fail(MEMTX_E_INVALID, "layer %u, head %zu: query %zu is not finite", layer,
                               i % n_query / n_head, i / n_query);
        }
    }
    return MEMTX_OK;
}

int memtx_memory_attend(float *V_mem, float *LSE_mem, struct memtx_hit *hits, memtx_memory *memory, uint32_t layer,
                        size_t n_q, const float *queries, const uint64_t *positions)
{
    int status = check_call(memory, layer, n_q, queries);
    if (status) {
        return status;
    }
    if (memory->options.asked) {
        memory->options.asked(memory->options.asked_context, layer, n_q, queries, positions);
    }
    const struct memtx_store_spec *spec = &memory->store->spec;
    struct memtx__pair_search search = {.memory = memory,
                                        .layer = layer,
                                        .group = spec->n_heads / spec->n_kv_heads,
                                        .n_q = n_q,
                                        .queries = queries,
                                        .positions = positions};
    for (search.kv_head = 0; search.kv_head < spec->n_kv_heads && !status; search.kv_head++) {
        if (memtx_store_keeps(spec, layer, search.kv_head)) {
            status = ask_pair(V_mem, LSE_mem, hits, memory, &search);
        } else {
            for (size_t i = 0; i < n_q * search.group; i++) {
                answer_nothing(V_mem, LSE_mem, hits, memory, place_of(&search, i));
            }
        }
    }
    return status;
}
