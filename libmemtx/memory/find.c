/* Finding the k best rows of a pair (memory.h): by exact search, at random, in runs of an index, or by clusters.
 *
 * Exact search and clusters (clusters.h) look at all of the pair's keys where they stand; runs look up what they find.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "base/status.h"
#include "math/rows.h"
#include "memory/memory.h"

/* ---- where the pair's rows stand -------------------------------------------------------------- */

static int add_block(struct memtx_memory *memory, const unsigned char *rows, uint64_t first_id, size_t n_rows)
{
    int status = memtx__grow(&memory->blocks, &memory->n_blocks_held, memory->n_blocks + 1, sizeof *memory->blocks);
    if (!status) {
        memory->blocks[memory->n_blocks++] = (struct memtx__row_block){rows, first_id, n_rows};
    }
    return status;
}

int memtx__memory_clear_addresses(struct memtx_memory *memory)
{
    const size_t n_chunks = (size_t)(memory->view.catalogue->state.n_rows / memory->store->chunk_rows) + 1;
    size_t n_values_held = memory->n_chunks_held;
    int status = memtx__grow(&memory->values, &n_values_held, n_chunks, sizeof *memory->values);
    if (!status) {
        status = memtx__grow(&memory->keys, &memory->n_chunks_held, n_chunks, sizeof *memory->keys);
    }
    for (size_t chunk = 0; chunk < n_chunks && !status; chunk++) {
        memory->keys[chunk] = memory->values[chunk] = NULL;
    }
    return status;
}

int memtx__memory_locate(struct memtx_memory *memory, uint32_t layer, uint32_t kv_head)
{
    const memtx_store *store = memory->store;
    int status = memtx__memory_clear_addresses(memory);
    memory->n_blocks = 0;
    for (size_t r = 0; r < memory->n_ranges && !status; r++) {
        const struct memtx__range *range = &memory->ranges[r];
        uint64_t row = range->first_row, end = range->first_row + range->n_rows;
        while (row < end && !status) {
            const uint64_t chunk = row / store->chunk_rows, offset = row % store->chunk_rows;
            const uint64_t n_left = store->chunk_rows - offset, n_rows = end - row < n_left ? end - row : n_left;
            status = memtx__view_chunk(&memory->keys[chunk], &memory->view, MEMTX__KEYS, layer, kv_head, chunk);
            if (!status) {
                status = memtx__view_chunk(&memory->values[chunk], &memory->view, MEMTX__VALUES, layer, kv_head, chunk);
            }
            if (!status) {
                status = add_block(memory, memory->keys[chunk] + offset * store->row_bytes, row, (size_t)n_rows);
            }
            row += n_rows;
        }
    }
    return status;
}

/* ---- finding ---------------------------------------------------------------------------------- */

/* Row i of the search is query i / group, head i % group of the kv head, turned by delta. */
static void turn_queries(struct memtx_memory *memory, const struct memtx__pair_search *search)
{
    const size_t head_size = memory->store->spec.head_size, n_heads = memory->store->spec.n_heads;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < search->n_q * search->group; i++) {
        size_t head = search->kv_head * search->group + i % search->group;
        memtx__rope_turn(memory->queries + i * head_size, &memory->rope,
                         search->queries + (i / search->group * n_heads + head) * head_size, memory->options.delta,
                         head_size);
    }
}

/* The row with this many visible rows before it. */
static uint64_t visible_row(const struct memtx_memory *memory, uint64_t n_before)
{
    const struct memtx__range *range = memory->ranges;
    while (n_before >= range->n_rows) {
        n_before -= range->n_rows;
        range++;
    }
    return range->first_row + n_before;
}

/* k of n_visible rows without replacement (Floyd's sampling), the same for the same seed, layer, head and position. */
static void draw_rows(int64_t *ids, const struct memtx__pair_search *search, size_t i)
{
    const struct memtx_memory *memory = search->memory;
    const uint64_t n = memory->n_visible, k = memory->options.k < n ? memory->options.k : n;
    const uint64_t stream =
        (search->positions[i / search->group] * MEMTX_MAX_LAYERS + search->layer) * memory->store->spec.n_heads +
        search->kv_head * search->group + i % search->group;
    struct memtx__rng rng = memtx__rng_create(memory->options.seed, stream);
    for (uint64_t drawn = 0; drawn < memory->options.k; drawn++) {
        ids[drawn] = -1;
    }
    for (uint64_t drawn = 0; drawn < k; drawn++) {
        uint64_t last = n - k + drawn;
        int64_t id = (int64_t)visible_row(memory, memtx__rng_below(&rng, last + 1));
        for (uint64_t j = 0; j < drawn; j++) {
            if (ids[j] == id) {
                id = (int64_t)visible_row(memory, last);
                break;
            }
        }
        ids[drawn] = id;
    }
}

/* ---- through an index ------------------------------------------------------------------------- */

/* Values of the chunks in which rows were found; the search has looked up the keys. */
static int locate_values(struct memtx_memory *memory, const struct memtx__pair_search *search)
{
    const size_t n = search->n_q * search->group * memory->options.k;
    int status = MEMTX_OK;
    for (size_t i = 0; i < n && !status; i++) {
        const uint64_t chunk = memory->ids[i] < 0 ? 0 : (uint64_t)memory->ids[i] / memory->store->chunk_rows;
        if (memory->ids[i] >= 0 && !memory->values[chunk]) {
            status = memtx__view_chunk(&memory->values[chunk], &memory->view, MEMTX__VALUES, search->layer,
                                       search->kv_head, chunk);
        }
    }
    return status;
}

/* Runs: only what is found is looked up. */
static int find_in_runs(struct memtx_memory *memory, const struct memtx__pair_search *search)
{
    int status = memtx__memory_clear_addresses(memory);
    if (status) {
        return status;
    }
    const struct memtx__runs_query query = {.view = &memory->view,
                                            .layer = search->layer,
                                            .kv_head = search->kv_head,
                                            .visible = memory->visible,
                                            .n_visible = memory->n_visible_ranges,
                                            .queries = memory->queries,
                                            .n = search->n_q * search->group,
                                            .k = memory->options.k,
                                            .keys = memory->keys};
    turn_queries(memory, search);
    status = memtx__runs_search(memory->scores, memory->ids, &memory->runs, &memory->exact, &query);
    return status ? status : locate_values(memory, search);
}

static int find_in_clusters(struct memtx_memory *memory, const struct memtx__pair_search *search,
                            const struct memtx__row_set *rows)
{
    const size_t n_queries = search->n_q * search->group, k = memory->options.k;
    const struct memtx__clusters_query query = {
        .view = &memory->view,
        .pair = (size_t)memtx__store_pair(memory->store, search->layer, search->kv_head),
        .visible = rows,
        .queries = memory->queries,
        .n = n_queries};
    struct memtx__cluster *cluster;
    int status = memtx__clusters_grow(&cluster, &memory->clusters, &query);
    if (!status) {
        status = memtx__cluster_reserve(&memory->cluster_search, cluster, n_queries, k, memory->choice.share,
                                        rows->n_blocks);
    }
    return status ? status
                  : memtx__cluster_search(memory->scores, memory->ids, &memory->cluster_search, cluster, rows,
                                          memory->queries, n_queries, k);
}

/* ---- which way -------------------------------------------------------------------------------- */

/* Int8 finds the same as f32 (search/exact.h), and is made in f32 by itself where the processor is not fast in it. */
static int choose_exact(struct memtx__choice *out, const char *spec)
{
    const char *type = spec + strlen("exact");
    out->pass.precision = strcmp(type, ":f32") == 0    ? MEMTX__PRECISION_F32
                          : strcmp(type, ":bf16") == 0 ? MEMTX__PRECISION_BF16
                                                       : MEMTX__PRECISION_I8;
    return *type && strcmp(type, ":f32") != 0 && strcmp(type, ":bf16") != 0 && strcmp(type, ":i8") != 0
               ? memtx__fail(MEMTX_E_INVALID, "index '%s': exact search is exact, or exact:f32, exact:bf16, exact:i8",
                             spec)
               : MEMTX_OK;
}

/* An option of "cluster", NAME=VALUE up to a comma or the end, where it ends; NULL: it is none, or its value is bad. */
static const char *take_cluster_option(struct memtx__choice *out, const char *text)
{
    static const char share[] = "share=", from[] = "from=";
    char *end = NULL;
    if (strncmp(text, share, strlen(share)) == 0) {
        out->share = strtod(text + strlen(share), &end);
    } else if (strncmp(text, from, strlen(from)) == 0 && isdigit((unsigned char)text[strlen(from)])) {
        out->least_rows = strtoull(text + strlen(from), &end, 10);
    }
    return end && out->share > 0 && out->share <= 1 ? end : NULL;
}

/* "cluster", and behind an @, with commas between, share=X and from=N. */
static int choose_cluster(struct memtx__choice *out, const char *spec)
{
    const char *at = spec + strlen("cluster");
    bool is_good = *at == '\0' || *at == '@';
    out->share = MEMTX__CLUSTER_SHARE_DEFAULT;
    while (is_good && *at) {
        at = take_cluster_option(out, at + 1);
        is_good = at && (*at == '\0' || *at == ',');
    }
    return is_good ? MEMTX_OK
                   : memtx__fail(MEMTX_E_INVALID,
                                 "index '%s': cluster takes @share=X (above 0 and up to 1) and @from=N (rows)", spec);
}

static bool is_kind(const char *spec, const char *kind)
{
    const size_t n = strlen(kind);
    return strncmp(spec, kind, n) == 0 && (spec[n] == '\0' || spec[n] == ':' || spec[n] == '@');
}

int memtx__memory_choose(struct memtx__choice *out, const struct memtx_memory_options *options)
{
    const char *spec = options->index ? options->index : "exact";
    *out = (struct memtx__choice){.finder = MEMTX__FIND_RUNS};
    if (options->retrieval == MEMTX_RETRIEVAL_RANDOM) {
        out->finder = MEMTX__FIND_RANDOM;
    } else if (is_kind(spec, "exact")) {
        out->finder = MEMTX__FIND_EXACT;
        return choose_exact(out, spec);
    } else if (is_kind(spec, "cluster")) {
        out->finder = MEMTX__FIND_CLUSTER;
        return choose_cluster(out, spec);
    }
    return MEMTX_OK;
}

int memtx__memory_find(struct memtx_memory *memory, const struct memtx__pair_search *search)
{
    const size_t n_queries = search->n_q * search->group;
    memory->has_scores = memory->choice.finder != MEMTX__FIND_RANDOM;
    if (memory->choice.finder == MEMTX__FIND_RUNS) {
        return find_in_runs(memory, search);
    }
    int status = memtx__memory_locate(memory, search->layer, search->kv_head);
    if (status) {
        return status;
    }
    if (memory->choice.finder == MEMTX__FIND_RANDOM) {
#pragma omp parallel for schedule(static)
        for (size_t i = 0; i < n_queries; i++) {
            draw_rows(memory->ids + i * memory->options.k, search, i);
        }
        return MEMTX_OK;
    }
    turn_queries(memory, search);
    const struct memtx__row_set rows = {memory->blocks, memory->n_blocks, memory->store->spec.row_type,
                                        memory->store->spec.head_size};
    return memory->choice.finder == MEMTX__FIND_CLUSTER && memory->n_visible >= memory->choice.least_rows
               ? find_in_clusters(memory, search, &rows)
               : memtx__exact_search(memory->scores, memory->ids, &memory->exact, &rows, memory->queries, n_queries,
                                     memory->options.k);
}
