/* Searching the cluster index (cluster.h).
 *
 * Each thread takes a slice of the queries. It chooses the clusters that each query wants (cluster_choice.c); sorts what
 * they want by cluster; and goes through the clusters: the rows of one are read and converted once, turned around so
 * that 16 rows stand side by side, and meet six queries at a time. Last come the rows outside the index: by then the
 * best are known well enough that few of them change anything. So a score is
 * summed up in the same order whichever other queries there are, and does not depend on the number of threads.
 *
 * Cost: 1 / cluster_rows of an exact search for the centroids, or a quarter of that in groups; then the share of the
 * rows, each read once a thread.
 */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/status.h"
#include "math/lanes.h"
#include "math/rows.h"
#include "search/cluster_call.h"

enum {
    LANES = MEMTX__LANES,          /* rows that are scored side by side */
    ABREAST = MEMTX__LANE_QUERIES, /* queries that meet them at a time */
    MOST_TAIL_BLOCKS = 4,          /* of rows outside the index, that are scored like a cluster's */
    LEAST_ROWS_OF_K = 8,           /* the clusters of a query hold so many times k rows in the mean */
};

size_t memtx__cluster_n_wanted(const struct memtx__cluster *cluster, size_t n_clusters, size_t k, double share)
{
    const size_t by_share = (size_t)ceil(share * (double)n_clusters);
    const size_t by_k = (LEAST_ROWS_OF_K * k + cluster->options.cluster_rows - 1) / cluster->options.cluster_rows;
    size_t n = by_share > by_k ? by_share : by_k;
    n = n < MEMTX__TOPK_MOST_K ? n : MEMTX__TOPK_MOST_K;
    return n < n_clusters ? n : n_clusters;
}

/* ---- scratch ---------------------------------------------------------------------------------- */

static void take_scratch(struct memtx__cluster_search *s)
{
    struct memtx__arena *arena = &s->arena;
    memtx__exact_take(&s->exact, arena, s->most_queries, s->most_k, s->dim);
    s->wanted = memtx__arena_take(arena, s->most_queries * s->most_wanted, sizeof *s->wanted);
    s->n_wanted = memtx__arena_take(arena, s->most_queries, sizeof *s->n_wanted);
    s->lists = memtx__arena_take(arena, s->most_queries * s->most_wanted, sizeof *s->lists);
    s->list_starts = memtx__arena_take(arena, s->n_threads * (s->most_clusters + 1), sizeof *s->list_starts);
    memtx__cluster_choice_take(s);
    s->rows_at = memtx__arena_take(arena, s->n_threads * s->most_block_rows, sizeof *s->rows_at);
    s->tiles = memtx__arena_take(arena, s->n_threads * 2 * LANES * s->dim, sizeof *s->tiles);
    s->candidates = memtx__arena_take(arena, s->most_queries, memtx__topk_capacity(s->most_k) * sizeof *s->candidates);
    s->topk = memtx__arena_take(arena, s->most_queries, sizeof *s->topk);
    s->tail_scores = memtx__arena_take(arena, s->most_queries * s->most_k, sizeof *s->tail_scores);
    s->tail_ids = memtx__arena_take(arena, s->most_queries * s->most_k, sizeof *s->tail_ids);
    s->short_queries = memtx__arena_take(arena, s->most_queries * s->dim, sizeof *s->short_queries);
    s->short_places = memtx__arena_take(arena, s->most_queries, sizeof *s->short_places);
    s->is_visible = memtx__arena_take(arena, s->most_clusters, sizeof *s->is_visible);
    s->tail_blocks = memtx__arena_take(arena, s->most_row_blocks + 1, sizeof *s->tail_blocks);
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

int memtx__cluster_reserve(struct memtx__cluster_search *search, const struct memtx__cluster *cluster, size_t n_queries,
                           size_t k, double share, size_t n_row_blocks)
{
    const size_t n_clusters = cluster->n_blocks * cluster->per_block, n_threads = (size_t)omp_get_max_threads();
    const size_t n_wanted = memtx__cluster_n_wanted(cluster, n_clusters, k, share);
    if (!(share > 0 && share <= 1) || k < 1 || k > MEMTX__TOPK_MOST_K) {
        return memtx__fail(MEMTX_E_INVALID, "a share of %g (above 0, up to 1), k %zu (1..%d)", share, k,
                           MEMTX__TOPK_MOST_K);
    }
    struct memtx__cluster_choice choice;
    memtx__cluster_choice_measure(&choice, cluster, n_clusters, share);
    search->share = share;
    if (choice.most_tops <= search->choice.most_tops && choice.most_members <= search->choice.most_members &&
        n_queries <= search->most_queries && k <= search->most_k && cluster->dim == search->dim &&
        n_threads == search->n_threads && n_clusters <= search->most_clusters && n_wanted <= search->most_wanted &&
        n_row_blocks <= search->most_row_blocks && cluster->options.block_rows <= search->most_block_rows) {
        return MEMTX_OK;
    }
    struct memtx__cluster_search grown = {
        .most_queries = larger(n_queries, search->most_queries),
        .most_k = larger(k, search->most_k),
        .dim = cluster->dim,
        .n_threads = n_threads,
        .most_clusters = larger(2 * n_clusters, search->most_clusters),
        .most_row_blocks = larger(2 * n_row_blocks, search->most_row_blocks),
        .most_block_rows = larger(cluster->options.block_rows, search->most_block_rows),
        .share = share,
    };
    memtx__cluster_choice_measure(&grown.choice, cluster, 2 * n_clusters, share);
    grown.most_wanted = larger(memtx__cluster_n_wanted(cluster, 2 * n_clusters, k, share), search->most_wanted);
    memtx__arena_release(&search->arena);
    *search = (struct memtx__cluster_search){0};
    take_scratch(&grown);
    int status = memtx__arena_reserve(&grown.arena);
    if (!status) {
        take_scratch(&grown);
        *search = grown;
    }
    return status;
}

void memtx__cluster_search_release(struct memtx__cluster_search *search)
{
    memtx__arena_release(&search->arena);
    *search = (struct memtx__cluster_search){0};
}

/* ---- what is visible -------------------------------------------------------------------------- */

static void add_tail(struct memtx__cluster_call *call, const struct memtx__row_block *block, uint64_t from, uint64_t to)
{
    const size_t row_bytes = call->rows->dim * memtx__row_type_bytes(call->rows->type);
    if (from < to) {
        call->search->tail_blocks[call->tail.n_blocks++] =
            (struct memtx__row_block){block->rows + (from - block->first_id) * row_bytes, from, (size_t)(to - from)};
    }
}

static void look(struct memtx__cluster_call *call)
{
    const struct memtx__cluster *cluster = call->cluster;
    const uint64_t block_rows = cluster->options.block_rows, first = cluster->first_block * block_rows;
    const uint64_t end = first + cluster->n_blocks * block_rows;
    size_t n_clusters = 0;
    memset(call->search->is_visible, 0, cluster->n_blocks * sizeof *call->search->is_visible);
    for (size_t i = 0; i < call->rows->n_blocks; i++) {
        const struct memtx__row_block *block = &call->rows->blocks[i];
        const uint64_t from = block->first_id, to = from + block->n_rows;
        const uint64_t inner_from = from > first ? from : first, inner_to = to < end ? to : end;
        call->n_visible += block->n_rows;
        add_tail(call, block, from, to < first ? to : first);
        if (inner_from < inner_to) {
            for (uint64_t b = (inner_from - first) / block_rows; b <= (inner_to - 1 - first) / block_rows; b++) {
                n_clusters += call->search->is_visible[b] ? 0 : cluster->per_block;
                call->search->is_visible[b] = true;
            }
        }
        add_tail(call, block, from > end ? from : end, to);
    }
    call->n_wanted = memtx__cluster_n_wanted(cluster, n_clusters, call->k, call->search->share);
}

/* Whether the rows outside the index are visited with the clusters, and not searched before. */
static bool visits_tail(const struct memtx__cluster_call *call)
{
    size_t n_rows = 0;
    for (size_t b = 0; b < call->tail.n_blocks; b++) {
        n_rows += call->tail.blocks[b].n_rows;
    }
    return call->n_wanted && n_rows <= (size_t)MOST_TAIL_BLOCKS * call->cluster->options.block_rows;
}

/* ---- a cluster and its queries ---------------------------------------------------------------- */

/* Up to LANES rows of a cluster. */
struct tile {
    float *rows;    /* [LANES][dim] */
    float *columns; /* [dim][LANES]: the same, side by side */
    int64_t ids[LANES];
    size_t n;
};

static void add_lane(struct tile *tile, const struct memtx__row_set *rows, const unsigned char *row, int64_t id)
{
    memtx__rows_read(tile->rows + tile->n * rows->dim, rows->type, row, rows->dim);
    tile->ids[tile->n++] = id;
}

/* Ids do not ascend from cluster to cluster, so that a tie with the threshold may be the better one. */
static void offer(struct memtx__topk *topk, const float *scores, const struct tile *tile)
{
    for (unsigned found = memtx__lanes_from(scores, topk->threshold); found; found &= found - 1) {
        const size_t lane = (size_t)__builtin_ctz(found);
        if (lane < tile->n && isfinite(scores[lane])) {
            memtx__topk_push(topk, (struct memtx__candidate){scores[lane], tile->ids[lane]});
        }
    }
}

static void meet_tile(const struct memtx__cluster_call *call, const struct tile *tile, const uint32_t *list, size_t n)
{
    const size_t dim = call->rows->dim;
    memtx__lanes_turn(tile->columns, tile->rows, dim);
    for (size_t first = 0; first < n; first += ABREAST) {
        const size_t n_queries = n - first < ABREAST ? n - first : ABREAST;
        const float *queries[ABREAST];
        float scores[ABREAST][LANES];
        for (size_t q = 0; q < ABREAST; q++) {
            queries[q] = call->queries + list[first + (q < n_queries ? q : 0)] * dim;
        }
        memtx__lanes_score(scores, tile->columns, queries, dim);
        for (size_t q = 0; q < n_queries; q++) {
            offer(&call->search->topk[list[first + q]], scores[q], tile);
        }
    }
}

/* Cluster `c` of the index meets the queries of its list. */
static void meet(const struct memtx__cluster_call *call, struct tile *tile, const unsigned char *const *rows_at,
                 size_t c, const uint32_t *list, size_t n)
{
    const struct memtx__cluster *cluster = call->cluster;
    const size_t block = c / cluster->per_block, block_rows = cluster->options.block_rows;
    const uint16_t *starts = cluster->starts + block * (cluster->per_block + 1) + c % cluster->per_block;
    const uint16_t *order = cluster->order + block * block_rows;
    const uint64_t first_id = (cluster->first_block + block) * block_rows;
    tile->n = 0;
    for (size_t i = starts[0]; i < starts[1]; i++) {
        if (rows_at[order[i]]) {
            add_lane(tile, call->rows, rows_at[order[i]], (int64_t)(first_id + order[i]));
        }
        if (tile->n == LANES || (i + 1 == starts[1] && tile->n)) {
            meet_tile(call, tile, list, n);
            tile->n = 0;
        }
    }
}

/* ---- a thread's slice ------------------------------------------------------------------------- */

/* Where the visible rows of a block stand. *piece is the first block of rows that may reach into it, and goes on. */
static void locate(const unsigned char **rows_at, size_t *piece, const struct memtx__cluster_call *call, size_t block)
{
    const struct memtx__row_set *rows = call->rows;
    const size_t row_bytes = rows->dim * memtx__row_type_bytes(rows->type);
    const uint64_t block_rows = call->cluster->options.block_rows;
    const uint64_t first = (call->cluster->first_block + block) * block_rows, end = first + block_rows;
    memset(rows_at, 0, block_rows * sizeof *rows_at);
    while (*piece < rows->n_blocks && rows->blocks[*piece].first_id + rows->blocks[*piece].n_rows <= first) {
        ++*piece;
    }
    for (size_t i = *piece; i < rows->n_blocks && rows->blocks[i].first_id < end; i++) {
        const struct memtx__row_block *held = &rows->blocks[i];
        uint64_t row = held->first_id > first ? held->first_id : first;
        for (; row < held->first_id + held->n_rows && row < end; row++) {
            rows_at[row - first] = held->rows + (row - held->first_id) * row_bytes;
        }
    }
}

/* All queries of a slice meet the rows outside the index. */
static void visit_tail(const struct memtx__cluster_call *call, struct tile *tile, uint32_t *list, size_t first,
                       size_t n)
{
    const size_t row_bytes = call->rows->dim * memtx__row_type_bytes(call->rows->type);
    for (size_t i = 0; i < n; i++) {
        list[i] = (uint32_t)(first + i);
    }
    tile->n = 0;
    for (size_t b = 0; b < call->tail.n_blocks; b++) {
        const struct memtx__row_block *block = &call->tail.blocks[b];
        for (size_t i = 0; i < block->n_rows; i++) {
            add_lane(tile, call->rows, block->rows + i * row_bytes, (int64_t)(block->first_id + i));
            if (tile->n == LANES || (i + 1 == block->n_rows && b + 1 == call->tail.n_blocks)) {
                meet_tile(call, tile, list, n);
                tile->n = 0;
            }
        }
    }
}

/* Queries first .. first + n - 1 meet the clusters that they want, and the tail if it is theirs to meet. */
static void visit(const struct memtx__cluster_call *call, size_t thread, size_t first, size_t n)
{
    struct memtx__cluster_search *s = call->search;
    const size_t per_block = call->cluster->per_block;
    uint32_t *list = s->lists + first * call->n_wanted, *starts = s->list_starts + thread * (s->most_clusters + 1);
    const unsigned char **rows_at = s->rows_at + thread * s->most_block_rows;
    struct tile tile = {.rows = s->tiles + thread * 2 * LANES * s->dim};
    size_t piece = 0;
    tile.columns = tile.rows + LANES * s->dim;
    memset(tile.rows, 0, LANES * s->dim * sizeof *tile.rows); /* lanes that no row has filled yet */
    memtx__cluster_turn_around(list, starts, s->wanted + first * call->n_wanted, s->n_wanted + first, call->n_wanted,
                               first, n, call->cluster->n_blocks * per_block);
    for (size_t block = 0; block < call->cluster->n_blocks; block++) {
        if (starts[block * per_block] == starts[(block + 1) * per_block]) {
            continue;
        }
        locate(rows_at, &piece, call, block);
        for (size_t c = block * per_block; c < (block + 1) * per_block; c++) {
            if (starts[c] < starts[c + 1]) {
                meet(call, &tile, rows_at, c, list + starts[c], starts[c + 1] - starts[c]);
            }
        }
    }
    if (visits_tail(call)) {
        visit_tail(call, &tile, list, first, n);
    }
}

/* ---- the search ------------------------------------------------------------------------------- */

static int check_call(const struct memtx__cluster_call *call)
{
    const struct memtx__cluster_search *s = call->search;
    const struct memtx__cluster *cluster = call->cluster;
    const size_t n_clusters = cluster->n_blocks * cluster->per_block;
    struct memtx__cluster_choice choice;
    memtx__cluster_choice_measure(&choice, cluster, n_clusters, s->share);
    if (call->n_queries > s->most_queries || call->k < 1 || call->k > s->most_k || cluster->dim != s->dim ||
        n_clusters > s->most_clusters || choice.most_tops > s->choice.most_tops ||
        choice.most_members > s->choice.most_members || call->rows->n_blocks > s->most_row_blocks ||
        cluster->options.block_rows > s->most_block_rows ||
        memtx__cluster_n_wanted(cluster, n_clusters, call->k, s->share) > s->most_wanted) {
        return memtx__fail(MEMTX_E_INVALID, "a search for %zu queries and k %zu was prepared for %zu and %zu",
                           call->n_queries, call->k, s->most_queries, s->most_k);
    }
    if (call->rows->type != cluster->type || call->rows->dim != cluster->dim) {
        return memtx__fail(MEMTX_E_INVALID, "rows of type %d and size %zu in an index of type %d and size %zu",
                           (int)call->rows->type, call->rows->dim, (int)cluster->type, cluster->dim);
    }
    return MEMTX_OK;
}

/* Rows in the index: which clusters each query wants, and what it finds there. */
static int search_clusters(const struct memtx__cluster_call *call)
{
    struct memtx__cluster_search *s = call->search;
    const size_t slice = (call->n_queries + s->n_threads - 1) / s->n_threads;
    int status = MEMTX_OK;
#pragma omp parallel for schedule(static) reduction(min : status) num_threads((int)s->n_threads)
    for (size_t thread = 0; thread < s->n_threads; thread++) {
        const size_t first = thread * slice, n = call->n_queries - first < slice ? call->n_queries - first : slice;
        if (first < call->n_queries) {
            int failed = memtx__cluster_choose(call, thread, first, n);
            if (!failed) {
                visit(call, thread, first, n);
            }
            status = failed < status ? failed : status;
        }
    }
    return status ? memtx__fail(status, "a product of the search failed: %s", memtx_status_text(status)) : MEMTX_OK;
}

/* What exact search finds in the rows outside the index. */
static int search_tail(const struct memtx__cluster_call *call)
{
    struct memtx__cluster_search *s = call->search;
    const size_t k = call->k;
    int status =
        memtx__exact_search(s->tail_scores, s->tail_ids, &s->exact, &call->tail, call->queries, call->n_queries, k);
    for (size_t q = 0; q < call->n_queries && !status; q++) {
        for (size_t i = 0; i < k && s->tail_ids[q * k + i] >= 0; i++) {
            memtx__topk_push(&s->topk[q], (struct memtx__candidate){s->tail_scores[q * k + i], s->tail_ids[q * k + i]});
        }
    }
    return status;
}

/* Queries that found fewer than min(k, visible) rows search all of them. */
static int fill(float *scores, int64_t *ids, const struct memtx__cluster_call *call)
{
    struct memtx__cluster_search *s = call->search;
    const size_t k = call->k, dim = call->rows->dim, n_found = k < call->n_visible ? k : call->n_visible;
    size_t n_short = 0;
    for (size_t q = 0; q < call->n_queries; q++) {
        if (s->topk[q].n < n_found) {
            memcpy(s->short_queries + n_short * dim, call->queries + q * dim, dim * sizeof *s->short_queries);
            s->short_places[n_short++] = q;
        }
    }
    int status =
        n_short ? memtx__exact_search(s->tail_scores, s->tail_ids, &s->exact, call->rows, s->short_queries, n_short, k)
                : MEMTX_OK;
    for (size_t i = 0; i < n_short && !status; i++) {
        if (ids) {
            memcpy(ids + s->short_places[i] * k, s->tail_ids + i * k, k * sizeof *ids);
        }
        if (scores) {
            memcpy(scores + s->short_places[i] * k, s->tail_scores + i * k, k * sizeof *scores);
        }
    }
    return status;
}

int memtx__cluster_search(float *scores, int64_t *ids, struct memtx__cluster_search *search,
                          const struct memtx__cluster *cluster, const struct memtx__row_set *rows, const float *queries,
                          size_t n_queries, size_t k)
{
    struct memtx__cluster_call call = {.search = search,
                                       .cluster = cluster,
                                       .rows = rows,
                                       .queries = queries,
                                       .n_queries = n_queries,
                                       .k = k,
                                       .tail = {search->tail_blocks, 0, rows->type, rows->dim}};
    int status = check_call(&call);
    if (status) {
        return status;
    }
    look(&call);
    for (size_t q = 0; q < n_queries; q++) {
        memtx__topk_begin(&search->topk[q], search->candidates + q * memtx__topk_capacity(k), k);
    }
    status = visits_tail(&call) ? memtx__exact_check_queries(queries, n_queries, rows->dim) : search_tail(&call);
    if (!status && call.n_wanted) {
        status = search_clusters(&call);
    }
    if (status) {
        return status;
    }
#pragma omp parallel for schedule(static)
    for (size_t q = 0; q < n_queries; q++) {
        (void)memtx__topk_end(&search->topk[q]);
        memtx__topk_give(scores ? scores + q * k : NULL, ids ? ids + q * k : NULL, &search->topk[q], k);
    }
    return fill(scores, ids, &call);
}
