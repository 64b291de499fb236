/* Which clusters a query visits (cluster.h): those whose centroid and spread promise most.
 *
 * With few clusters all centroids are scored, some queries at a time. With LEAST_GROUPS groups and more each query first
 * chooses a share of the clusters of clusters, here called tops; these lists are turned around,
 * each top's centroids meet the queries that want it in one product, and so do the centroids of blocks that are in no
 * group; of what a query has met in this way the best are chosen. That costs a quarter of scoring all.
 */
#include <math.h>
#include <string.h>

#include "math/clones.h"
#include "math/linear.h"
#include "math/rows.h"
#include "math/select.h"
#include "search/cluster_call.h"

enum {
    TILE = 512,            /* centroids that are converted at a time */
    MOST_SCORES = 1 << 19, /* of a thread, where LEAST_ABREAST queries leave the choice: what a core's cache holds */
    LEAST_ABREAST = 16,
    MOST_ABREAST = 256,
    GROUPED_ABREAST = 128, /* queries that go through the tops together */
    LEAST_GROUPS = 4,
    SPREADS_ADDED = 3, /* to a centroid's score: see cluster.c */
};

/* bench/README.md has the figures by which these were chosen. */
#define LEAST_TOP_SHARE 0.1
#define TOPS_PER_CLUSTER 6 /* the share of tops to that of clusters */
#define MOST_SHARE 0.1     /* above it all centroids are scored */

static size_t n_clusters_of(const struct memtx__cluster *cluster)
{
    return cluster->n_blocks * cluster->per_block;
}

double memtx__cluster_top_share(const struct memtx__cluster *cluster, double share)
{
    const bool is_worth_it = cluster->groups && cluster->groups->n_blocks >= LEAST_GROUPS && share <= MOST_SHARE;
    return !is_worth_it ? 0 : share * TOPS_PER_CLUSTER > LEAST_TOP_SHARE ? share * TOPS_PER_CLUSTER : LEAST_TOP_SHARE;
}

/* Queries whose scores of all centroids stand side by side. */
static size_t queries_abreast(size_t n_clusters)
{
    const size_t n = n_clusters ? MOST_SCORES / n_clusters : MOST_ABREAST;
    return n < LEAST_ABREAST ? LEAST_ABREAST : n > MOST_ABREAST ? MOST_ABREAST : n;
}

/* The most scores that stand side by side, for up to n_clusters. */
static size_t scores_room(size_t n_clusters)
{
    return LEAST_ABREAST * n_clusters > MOST_SCORES ? LEAST_ABREAST * n_clusters : MOST_SCORES;
}

/* ---- scratch ---------------------------------------------------------------------------------- */

void memtx__cluster_choice_measure(struct memtx__cluster_choice *out, const struct memtx__cluster *cluster,
                                   size_t n_clusters, double share)
{
    const struct memtx__cluster *groups = cluster->groups;
    *out = (struct memtx__cluster_choice){0};
    const double top_share = memtx__cluster_top_share(cluster, share);
    if (top_share > 0) {
        const size_t of_group = cluster->options.group_blocks * cluster->per_block;
        out->most_tops = (n_clusters / of_group + 1) * groups->per_block;
        /* Twice what the share holds in the mean, and all of the blocks before and behind the groups. */
        out->most_members = (size_t)(2 * top_share * (double)n_clusters) + 2 * of_group;
    }
}

void memtx__cluster_choice_take(struct memtx__cluster_search *s)
{
    struct memtx__arena *arena = &s->arena;
    struct memtx__cluster_choice *c = &s->choice;
    const size_t n = s->n_threads * GROUPED_ABREAST;
    s->scores = memtx__arena_take(arena, s->n_threads, scores_room(s->most_clusters) * sizeof *s->scores);
    s->centroids = memtx__arena_take(arena, s->n_threads * TILE * s->dim, sizeof *s->centroids);
    s->orders = memtx__arena_take(arena, s->n_threads * s->most_clusters, sizeof *s->orders);
    s->places = memtx__arena_take(arena, s->n_threads * s->most_clusters, sizeof *s->places);
    if (c->most_tops) {
        c->wanted = memtx__arena_take(arena, n * c->most_tops, sizeof *c->wanted);
        c->n_wanted = memtx__arena_take(arena, n, sizeof *c->n_wanted);
        c->lists = memtx__arena_take(arena, n * c->most_tops, sizeof *c->lists);
        c->starts = memtx__arena_take(arena, s->n_threads * (c->most_tops + 1), sizeof *c->starts);
        c->queries = memtx__arena_take(arena, n * s->dim, sizeof *c->queries);
        c->scores = memtx__arena_take(arena, n * TILE, sizeof *c->scores);
        c->ids = memtx__arena_take(arena, s->n_threads * TILE, sizeof *c->ids);
        c->spreads = memtx__arena_take(arena, s->n_threads * TILE, sizeof *c->spreads);
        c->member_scores = memtx__arena_take(arena, n * c->most_members, sizeof *c->member_scores);
        c->members = memtx__arena_take(arena, n * c->most_members, sizeof *c->members);
        c->n_members = memtx__arena_take(arena, n, sizeof *c->n_members);
    }
}

/* ---- by all centroids ------------------------------------------------------------------------- */

MEMTX__CLONES static void add_spreads(float *scores, const float *spreads, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        scores[i] += SPREADS_ADDED * spreads[i];
    }
}

/* What clusters promise a query, and which they are. */
MEMTX__CLONES static void take_promises(float *promises, uint32_t *members, const float *scores, const float *spreads,
                                        const uint32_t *ids, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        promises[i] = scores[i] + SPREADS_ADDED * spreads[i];
        members[i] = ids[i];
    }
}

/* scores[n][n_clusters] of queries and all clusters. */
static int score_all(float *scores, float *tile, const struct memtx__cluster *cluster, const float *queries, size_t n)
{
    const size_t dim = cluster->dim, row_bytes = dim * memtx__row_type_bytes(cluster->type);
    const size_t n_clusters = n_clusters_of(cluster);
    int status = 0;
    for (size_t first = 0; first < n_clusters && !status; first += TILE) {
        const size_t n_tile = n_clusters - first < TILE ? n_clusters - first : TILE;
        memtx__rows_read(tile, cluster->type, cluster->centroids + first * row_bytes, n_tile * dim);
        status = memtx__product(scores + first, queries, tile, true, n, n_tile, dim, n_clusters, dim, dim);
    }
    for (size_t i = 0; i < n && !status; i++) {
        add_spreads(scores + i * n_clusters, cluster->spreads, n_clusters);
    }
    return status;
}

/* Those of blocks of which nothing is visible become NaN. */
static void hide_clusters(float *scores, const struct memtx__cluster_call *call, size_t n)
{
    const struct memtx__cluster *cluster = call->cluster;
    const size_t n_clusters = n_clusters_of(cluster);
    for (size_t b = 0; b < cluster->n_blocks; b++) {
        for (size_t i = 0; i < n && !call->search->is_visible[b]; i++) {
            for (size_t c = b * cluster->per_block; c < (b + 1) * cluster->per_block; c++) {
                scores[i * n_clusters + c] = NAN;
            }
        }
    }
}

static int choose_by_all(const struct memtx__cluster_call *call, size_t thread, size_t first, size_t n)
{
    struct memtx__cluster_search *s = call->search;
    const size_t n_clusters = n_clusters_of(call->cluster);
    const size_t n_abreast = queries_abreast(n_clusters), dim = call->rows->dim;
    float *scores = s->scores + thread * scores_room(s->most_clusters);
    float *tile = s->centroids + thread * TILE * s->dim;
    uint32_t *places = s->places + thread * s->most_clusters;
    int32_t *orders = s->orders + thread * s->most_clusters;
    int status = 0;
    for (size_t q = first; q < first + n && !status; q += n_abreast) {
        const size_t n_queries = first + n - q < n_abreast ? first + n - q : n_abreast;
        status = score_all(scores, tile, call->cluster, call->queries + q * dim, n_queries);
        hide_clusters(scores, call, n_queries);
        for (size_t i = 0; i < n_queries && !status; i++) {
            const size_t n_found =
                memtx__select_largest(places, orders, scores + i * n_clusters, n_clusters, call->n_wanted);
            memcpy(s->wanted + (q + i) * call->n_wanted, places, n_found * sizeof *places);
            s->n_wanted[q + i] = (uint32_t)n_found;
        }
    }
    return status;
}

/* ---- by groups -------------------------------------------------------------------------------- */

/* What one thread works with, for up to GROUPED_ABREAST queries. */
struct work {
    const struct memtx__cluster_call *call;
    struct memtx__cluster_choice at; /* this thread's parts */
    float *scores, *tile;
    uint32_t *places;
    int32_t *orders;
    const float *queries; /* [n][dim] */
    size_t n;
};

static struct work work_of(const struct memtx__cluster_call *call, size_t thread)
{
    const struct memtx__cluster_search *s = call->search;
    const struct memtx__cluster_choice *c = &s->choice;
    const size_t n = thread * GROUPED_ABREAST;
    return (struct work){
        .call = call,
        .at = {.most_tops = c->most_tops,
               .most_members = c->most_members,
               .wanted = c->wanted + n * c->most_tops,
               .n_wanted = c->n_wanted + n,
               .lists = c->lists + n * c->most_tops,
               .starts = c->starts + thread * (c->most_tops + 1),
               .queries = c->queries + n * s->dim,
               .scores = c->scores + n * TILE,
               .ids = c->ids + thread * TILE,
               .spreads = c->spreads + thread * TILE,
               .member_scores = c->member_scores + n * c->most_members,
               .members = c->members + n * c->most_members,
               .n_members = c->n_members + n},
        .scores = s->scores + thread * scores_room(s->most_clusters),
        .tile = s->centroids + thread * TILE * s->dim,
        .places = s->places + thread * s->most_clusters,
        .orders = s->orders + thread * s->most_clusters,
    };
}

static bool is_group_visible(const struct memtx__cluster_call *call, size_t group)
{
    const struct memtx__cluster *cluster = call->cluster;
    const uint64_t n = cluster->options.group_blocks;
    const size_t first = (size_t)((cluster->groups->first_block + group) * n - cluster->first_block);
    bool any = false;
    for (size_t b = first; b < first + n && !any; b++) {
        any = call->search->is_visible[b];
    }
    return any;
}

/* Tops of groups of which nothing is visible become NaN in scores[n][n_tops]. Gives the number of the others. */
static size_t hide_tops(float *scores, const struct memtx__cluster_call *call, size_t n)
{
    const struct memtx__cluster *groups = call->cluster->groups;
    const size_t n_tops = n_clusters_of(groups);
    size_t n_visible = 0;
    for (size_t g = 0; g < groups->n_blocks; g++) {
        const bool is_visible = is_group_visible(call, g);
        n_visible += is_visible ? groups->per_block : 0;
        for (size_t i = 0; i < n * groups->per_block && !is_visible; i++) {
            scores[i / groups->per_block * n_tops + g * groups->per_block + i % groups->per_block] = NAN;
        }
    }
    return n_visible;
}

/* The tops that each query wants, at.wanted[i][most_tops]. */
static int choose_tops(struct work *w)
{
    const struct memtx__cluster *groups = w->call->cluster->groups;
    const size_t n_tops = n_clusters_of(groups);
    const double top_share = memtx__cluster_top_share(w->call->cluster, w->call->search->share);
    int status = 0;
    for (size_t first = 0; first < w->n && !status; first += LEAST_ABREAST) {
        const size_t n = w->n - first < LEAST_ABREAST ? w->n - first : LEAST_ABREAST;
        status = score_all(w->scores, w->tile, groups, w->queries + first * groups->dim, n);
        const size_t n_visible = hide_tops(w->scores, w->call, n);
        const size_t n_wanted = (size_t)ceil(top_share * (double)n_visible);
        for (size_t i = 0; i < n && !status; i++) {
            uint32_t *wanted = w->at.wanted + (first + i) * w->at.most_tops;
            w->at.n_wanted[first + i] =
                n_wanted ? (uint32_t)memtx__select_largest(wanted, w->orders, w->scores + i * n_tops, n_tops, n_wanted)
                         : 0;
        }
    }
    return status;
}

/* The n clusters at.ids, of which tile holds the centroids, meet n_queries queries: those of `list`, or all where that
 * is NULL. */
static int meet(struct work *w, size_t n, const uint32_t *list, size_t n_queries)
{
    const struct memtx__cluster *cluster = w->call->cluster;
    const size_t dim = cluster->dim;
    const float *queries = w->queries;
    for (size_t i = 0; i < n_queries && list; i++) {
        memcpy(w->at.queries + i * dim, w->queries + list[i] * dim, dim * sizeof *queries);
        queries = w->at.queries;
    }
    int status = n ? memtx__product(w->at.scores, queries, w->tile, true, n_queries, n, dim, n, dim, dim) : 0;
    for (size_t i = 0; i < n_queries && !status; i++) {
        const size_t query = list ? list[i] : i, n_before = w->at.n_members[query];
        const size_t n_room = w->at.most_members - n_before, n_taken = n < n_room ? n : n_room;
        const size_t at = query * w->at.most_members + n_before;
        take_promises(w->at.member_scores + at, w->at.members + at, w->at.scores + i * n, w->at.spreads, w->at.ids,
                      n_taken);
        w->at.n_members[query] += (uint32_t)n_taken;
    }
    return status;
}

/* Cluster c into the tile, unless nothing of its block is visible. */
static void add_centroid(struct work *w, size_t *n, size_t c)
{
    const struct memtx__cluster *cluster = w->call->cluster;
    const size_t dim = cluster->dim, row_bytes = dim * memtx__row_type_bytes(cluster->type);
    if (w->call->search->is_visible[c / cluster->per_block]) {
        memtx__rows_read(w->tile + *n * dim, cluster->type, cluster->centroids + c * row_bytes, dim);
        w->at.spreads[*n] = cluster->spreads[c];
        w->at.ids[(*n)++] = (uint32_t)c;
    }
}

static int meet_top(struct work *w, size_t top, const uint32_t *list, size_t n_queries)
{
    const struct memtx__cluster *cluster = w->call->cluster, *groups = cluster->groups;
    const size_t group = top / groups->per_block, of_group = groups->options.block_rows;
    const uint16_t *starts = groups->starts + group * (groups->per_block + 1) + top % groups->per_block;
    const uint16_t *order = groups->order + group * of_group;
    const size_t first = (size_t)((groups->first_block + group) * of_group - cluster->first_block * cluster->per_block);
    int status = 0;
    for (size_t i = starts[0], n = 0; i < starts[1] && !status; i++) {
        add_centroid(w, &n, first + order[i]);
        if (n == TILE || i + 1 == starts[1]) {
            status = meet(w, n, list, n_queries);
            n = 0;
        }
    }
    return status;
}

/* Clusters first .. end - 1, which are in no group, meet all queries. */
static int meet_loose(struct work *w, size_t first, size_t end)
{
    int status = 0;
    for (size_t c = first, n = 0; c < end && !status; c++) {
        add_centroid(w, &n, c);
        if (n == TILE || c + 1 == end) {
            status = meet(w, n, NULL, w->n);
            n = 0;
        }
    }
    return status;
}

static int meet_all(struct work *w)
{
    const struct memtx__cluster *cluster = w->call->cluster, *groups = cluster->groups;
    const size_t n_tops = n_clusters_of(groups), of_group = groups->options.block_rows;
    const size_t begin = (size_t)(groups->first_block * of_group - cluster->first_block * cluster->per_block);
    int status = choose_tops(w);
    memset(w->at.n_members, 0, w->n * sizeof *w->at.n_members);
    if (!status) {
        memtx__cluster_turn_around(w->at.lists, w->at.starts, w->at.wanted, w->at.n_wanted, w->at.most_tops, 0, w->n,
                                   n_tops);
        status = meet_loose(w, 0, begin);
    }
    if (!status) {
        status = meet_loose(w, begin + groups->n_blocks * of_group, n_clusters_of(cluster));
    }
    for (size_t top = 0; top < n_tops && !status; top++) {
        const uint32_t from = w->at.starts[top], to = w->at.starts[top + 1];
        if (from < to) {
            status = meet_top(w, top, w->at.lists + from, to - from);
        }
    }
    return status;
}

static int choose_by_groups(const struct memtx__cluster_call *call, size_t thread, size_t first, size_t n)
{
    struct memtx__cluster_search *s = call->search;
    struct work w = work_of(call, thread);
    int status = 0;
    for (size_t q = first; q < first + n && !status; q += GROUPED_ABREAST) {
        w.queries = call->queries + q * s->dim;
        w.n = first + n - q < GROUPED_ABREAST ? first + n - q : GROUPED_ABREAST;
        status = meet_all(&w);
        for (size_t i = 0; i < w.n && !status; i++) {
            const uint32_t *members = w.at.members + i * w.at.most_members;
            uint32_t *wanted = s->wanted + (q + i) * call->n_wanted;
            const size_t n_found = memtx__select_largest(w.places, w.orders, w.at.member_scores + i * w.at.most_members,
                                                         w.at.n_members[i], call->n_wanted);
            for (size_t j = 0; j < n_found; j++) {
                wanted[j] = members[w.places[j]];
            }
            s->n_wanted[q + i] = (uint32_t)n_found;
        }
    }
    return status;
}

/* ---- either ----------------------------------------------------------------------------------- */

int memtx__cluster_choose(const struct memtx__cluster_call *call, size_t thread, size_t first, size_t n)
{
    return memtx__cluster_top_share(call->cluster, call->search->share) > 0 ? choose_by_groups(call, thread, first, n)
                                                                            : choose_by_all(call, thread, first, n);
}

void memtx__cluster_turn_around(uint32_t *list, uint32_t *starts, const uint32_t *wanted, const uint32_t *n_found,
                                size_t n_wanted, size_t first, size_t n, size_t n_clusters)
{
    memset(starts, 0, (n_clusters + 1) * sizeof *starts);
    for (size_t q = 0; q < n; q++) {
        for (size_t i = 0; i < n_found[q]; i++) {
            starts[wanted[q * n_wanted + i] + 1]++;
        }
    }
    for (size_t c = 0; c < n_clusters; c++) {
        starts[c + 1] += starts[c];
    }
    for (size_t q = 0; q < n; q++) {
        for (size_t i = 0; i < n_found[q]; i++) {
            list[starts[wanted[q * n_wanted + i]]++] = (uint32_t)(first + q);
        }
    }
    memmove(starts + 1, starts, n_clusters * sizeof *starts);
    starts[0] = 0;
}
