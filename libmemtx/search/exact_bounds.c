/* Exact search in int8 (exact.h, exact_i8.h): limits to compare bounds with, the rows above them, and whether anything
 * may have been lost.
 *
 * Which rows are looked at is a matter of time alone, since what is found is proved afterwards. A limit is the bound
 * that a few of a sample of the rows are above: as many as stand for the rows that are to be looked at.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "math/clones.h"
#include "math/rows.h"
#include "math/select.h"
#include "search/exact_call.h"

enum {
    CENTRE_ROWS = 256, /* of which the mean is taken */
    SAMPLE_ROWS = 4096,
    LEAST_STEP = 4,               /* between the sample's rows */
    N_HIGHEST = MEMTX__TILE_ROWS, /* parts of the sample, of each of which the highest bound is taken */
    LEAST_TOPS = 8,               /* of these are above the limit at least */
};

/* Of the mean (bench/bound_facts.py). */
static const float CENTRE_SHARE = 0.25F;

/* Rows whose sizes add up to more are left out of the mean. */
static const float MOST_CENTRE = 0x1p40F;

void memtx__exact_take_bounds(struct memtx__exact_bounds *bounds, struct memtx__arena *arena, size_t most_queries,
                              size_t n_states, size_t dim)
{
    bounds->centre = memtx__arena_take(arena, dim, sizeof *bounds->centre);
    bounds->numbers = memtx__arena_take(arena, most_queries, memtx__i8_query_bytes(dim));
    bounds->sides = memtx__arena_take(arena, most_queries, sizeof *bounds->sides);
    memtx__i8_rows_take(&bounds->sample, arena, SAMPLE_ROWS, dim);
    bounds->limits = memtx__arena_take(arena, n_states, sizeof *bounds->limits);
    bounds->is_sure = memtx__arena_take(arena, most_queries, sizeof *bounds->is_sure);
    bounds->again = memtx__arena_take(arena, most_queries, sizeof *bounds->again);
    bounds->queries = memtx__arena_take(arena, most_queries * dim, sizeof *bounds->queries);
}

/* ---- some of the rows ------------------------------------------------------------------------- */

/* Every step-th row, one after the other. */
struct walk {
    const struct memtx__row_set *rows;
    size_t block, row, step;
};

static const unsigned char *next_row(struct walk *walk)
{
    const struct memtx__row_block *blocks = walk->rows->blocks;
    while (walk->row >= blocks[walk->block].n_rows) {
        walk->row -= blocks[walk->block++].n_rows;
    }
    const unsigned char *row =
        blocks[walk->block].rows + walk->row * walk->rows->dim * memtx__row_type_bytes(walk->rows->type);
    walk->row += walk->step;
    return row;
}

/* A share of the mean of some rows that are numbers of the usual size. */
static void find_centre(float *centre, const struct memtx__exact_call *search, float *row)
{
    const struct memtx__row_set *rows = search->rows;
    const size_t n_taken = search->n_rows < CENTRE_ROWS ? search->n_rows : CENTRE_ROWS;
    struct walk walk = {.rows = rows, .step = search->n_rows / n_taken};
    size_t n = 0;
    memset(centre, 0, rows->dim * sizeof *centre);
    for (size_t taken = 0; taken < n_taken; taken++) {
        float size = 0;
        memtx__rows_read(row, rows->type, next_row(&walk), rows->dim);
        for (size_t i = 0; i < rows->dim; i++) {
            size += fabsf(row[i]);
        }
        for (size_t i = 0; i < rows->dim && size < MOST_CENTRE; i++) {
            centre[i] += row[i];
        }
        n += size < MOST_CENTRE;
    }
    for (size_t i = 0; i < rows->dim && n; i++) {
        centre[i] *= CENTRE_SHARE / (float)n;
    }
}

/* ---- before the pass -------------------------------------------------------------------------- */

static struct memtx__i8_query *queries_of(const struct memtx__exact_call *search)
{
    return (struct memtx__i8_query *)(void *)search->exact->low_queries;
}

static bool round_queries(const struct memtx__exact_call *search)
{
    struct memtx__exact_bounds *bounds = &search->exact->bounds;
    const size_t dim = search->rows->dim, n_bytes = memtx__i8_query_bytes(dim);
    bool has_bounds = true;
    float loss = 0;
#pragma omp parallel for schedule(static) num_threads((int)search->exact->n_threads) reduction(&& : has_bounds) \
    reduction(max : loss)
    for (size_t q = 0; q < search->n_queries; q++) {
        struct memtx__i8_side *side = &bounds->sides[q];
        float *spare = memtx__exact_tile(search->exact, MEMTX__PRECISION_F32).rows;
        has_bounds = memtx__i8_round_query(bounds->numbers + q * n_bytes, side, search->queries + q * dim,
                                           bounds->centre, spare, dim) &&
                     has_bounds;
        queries_of(search)[q] = memtx__i8_query_of(bounds->numbers + q * n_bytes, side, dim);
        loss = side->loss > loss ? side->loss : loss;
    }
    bounds->loss = loss;
    return has_bounds;
}

/* Whole I8_ROWS. */
static size_t n_sampled(const struct memtx__exact_call *search)
{
    const size_t n = search->n_rows / LEAST_STEP / MEMTX__I8_ROWS * MEMTX__I8_ROWS;
    return n < SAMPLE_ROWS ? n : SAMPLE_ROWS;
}

static void round_sample(const struct memtx__exact_call *search)
{
    struct memtx__exact_bounds *bounds = &search->exact->bounds;
    const struct memtx__row_set *rows = search->rows;
    const size_t n = n_sampled(search), step = search->n_rows / n, n_threads = search->exact->n_threads;
#pragma omp parallel for schedule(static) num_threads((int)n_threads)
    for (size_t thread = 0; thread < n_threads; thread++) {
        const struct memtx__share groups = memtx__share_of(n / MEMTX__I8_LANES, thread, n_threads);
        const struct memtx__tile tile = memtx__exact_tile(search->exact, MEMTX__PRECISION_I8);
        struct memtx__i8_rows sample = bounds->sample;
        struct walk walk = {.rows = rows, .row = groups.first * MEMTX__I8_LANES * step, .step = step};
        sample.columns = tile.i8.columns;
        for (size_t group = groups.first; group < groups.first + groups.n; group++) {
            for (size_t i = 0; i < MEMTX__I8_LANES; i++) {
                memtx__rows_read(tile.rows + i * rows->dim, rows->type, next_row(&walk), rows->dim);
            }
            memtx__i8_round_rows(&sample, group * MEMTX__I8_LANES, tile.rows, MEMTX__I8_LANES, bounds->centre,
                                 bounds->loss, rows->dim);
        }
    }
}

/* As many of the sample as stand for the rows that are to be looked at, and some more, for the sample is small. */
static size_t tops_of(const struct memtx__exact_call *search)
{
    const double wanted = (double)memtx__exact_n_candidates(search->exact, search->k);
    const double fair = wanted * (double)n_sampled(search) / (double)search->n_rows;
    const size_t n = (size_t)(fair + sqrt(fair)) + 1;
    return n > LEAST_TOPS ? n : LEAST_TOPS;
}

MEMTX__CLONES static void keep_highest(float *highest, const float *scores, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        highest[i] = scores[i] > highest[i] ? scores[i] : highest[i];
    }
}

/* highest[n_queries][N_HIGHEST]: of the bounds of the sample's rows i, i + N_HIGHEST .. */
static void find_highest(float *highest, const struct memtx__exact_call *search, float *scores,
                         struct memtx__share queries)
{
    const struct memtx__i8_rows *sample = &search->exact->bounds.sample;
    const size_t n_bytes = memtx__i8_query_bytes(search->rows->dim), n = n_sampled(search);
    for (size_t i = 0; i < queries.n * N_HIGHEST; i++) {
        highest[i] = -INFINITY;
    }
    for (size_t first = 0; first < n; first += N_HIGHEST) {
        const size_t n_rows = n - first < N_HIGHEST ? n - first : N_HIGHEST;
        const struct memtx__i8_block rows = {sample->numbers + first * n_bytes, sample->scales + first,
                                             sample->slacks + first, n_rows, n_bytes / MEMTX__I8_FOUR};
        memtx__lanes_i8_score(scores, &rows, queries_of(search) + queries.first, queries.n);
        for (size_t q = 0; q < queries.n; q++) {
            keep_highest(highest + q * N_HIGHEST, scores + q * n_rows, n_rows);
        }
    }
}

/* What n_tops of the highest reach; -inf where there are not as many. */
static float limit_of(float *highest, size_t n_tops)
{
    uint32_t places[N_HIGHEST];
    int32_t orders[N_HIGHEST];
    float limit = INFINITY;
    const size_t n = memtx__select_largest(places, orders, highest, N_HIGHEST, n_tops);
    for (size_t i = 0; i < n; i++) {
        limit = highest[places[i]] < limit ? highest[places[i]] : limit;
    }
    return n == n_tops ? limit : -INFINITY;
}

static void find_limits(const struct memtx__exact_call *search)
{
    enum { QUERIES = MEMTX__TILE_QUERIES_I8 };
    _Static_assert(2 * QUERIES * N_HIGHEST <= MEMTX__TILE_QUERIES * MEMTX__TILE_ROWS, "both fit into products");
    const size_t n_tops = tops_of(search), n_blocks = (search->n_queries + QUERIES - 1) / QUERIES;
#pragma omp parallel for schedule(dynamic) num_threads((int)search->exact->n_threads)
    for (size_t block = 0; block < n_blocks; block++) {
        const size_t first = block * QUERIES, n_left = search->n_queries - first;
        const struct memtx__share queries = {first, n_left < QUERIES ? n_left : QUERIES};
        struct memtx__tile tile = memtx__exact_tile(search->exact, MEMTX__PRECISION_I8);
        float *highest = tile.products + QUERIES * N_HIGHEST;
        find_highest(highest, search, tile.products, queries);
        for (size_t q = 0; q < queries.n; q++) {
            queries_of(search)[first + q].limit = limit_of(highest + q * N_HIGHEST, n_tops);
        }
    }
}

bool memtx__exact_bound_queries(const struct memtx__exact_call *search)
{
    find_centre(search->exact->bounds.centre, search, memtx__exact_tile(search->exact, MEMTX__PRECISION_F32).rows);
    if (!round_queries(search)) {
        return false;
    }
    round_sample(search);
    find_limits(search);
    return true;
}

float memtx__exact_limit(const struct memtx__exact_call *search, size_t q)
{
    return queries_of(search)[q].limit;
}

/* ---- the pass --------------------------------------------------------------------------------- */

/* Rows of the tile, 64 of them, that are above a query's limit. */
struct above {
    uint64_t bits;
    size_t query, first_row;
};

/* Those of n queries that have any. Found without a branch: which they are is hard to foresee. */
static size_t list_above(struct above *out, const struct memtx__tile *tile, size_t n)
{
    const size_t n_words = memtx__tile_whole_rows(tile) / MEMTX__I8_ROWS;
    size_t n_found = 0;
    for (size_t q = 0; q < n; q++) {
        for (size_t word = 0; word < n_words; word++) {
            const uint64_t bits = tile->above[q * n_words + word];
            out[n_found] = (struct above){bits, q, word * MEMTX__I8_ROWS};
            n_found += bits != 0;
        }
    }
    return n_found;
}

/* A query on a part of the rows. */
struct seeker {
    const float *query;
    const struct memtx__i8_side *side;
    struct memtx__topk *topk;
    float *limit;
};

/* Rows with bounds up to this one do not score more than `score`. */
static float bound_at(const struct memtx__i8_side *side, float score)
{
    return nextafterf((float)(((double)score - (double)side->shift) / (double)side->scale), -INFINITY);
}

/* Scores a stored row. What is no better than the k best that a part has, and comes later, need not be looked at. */
static void look_at(const struct seeker *seeker, float *row, enum memtx_row_type type, const unsigned char *stored,
                    int64_t place, size_t dim)
{
    struct memtx__topk *topk = seeker->topk;
    memtx__rows_read(row, type, stored, dim);
    const float score = memtx__dot(seeker->query, row, dim), threshold = topk->threshold;
    if (score > threshold && score <= FLT_MAX) {
        memtx__topk_push(topk, (struct memtx__candidate){score, place});
        if (topk->threshold > threshold) {
            *seeker->limit = fmaxf(*seeker->limit, bound_at(seeker->side, topk->threshold));
        }
    }
}

static void multiply(struct memtx__tile *tile, const struct memtx__i8_query *queries, const float *limits, size_t n)
{
    struct memtx__i8_query own[MEMTX__TILE_QUERIES_I8]; /* of this part: limits are its own */
    memcpy(own, queries, n * sizeof *own);
    for (size_t i = 0; i < n; i++) {
        own[i].limit = limits[i];
    }
    (void)memtx__tile_multiply(tile, own, n); /* cannot fail in int8 */
}

void memtx__exact_scan_bounds(const struct memtx__exact_call *search, struct memtx__tile *tile,
                              const unsigned char *stored, struct memtx__share queries, size_t first_state,
                              int64_t first_place)
{
    enum { QUERIES = MEMTX__TILE_QUERIES_I8 };
    struct above above[QUERIES * MEMTX__TILE_ROWS / MEMTX__I8_ROWS];
    const struct memtx__row_set *rows = search->rows;
    const struct memtx__exact_bounds *bounds = &search->exact->bounds;
    const size_t dim = rows->dim, row_bytes = dim * memtx__row_type_bytes(rows->type);
    for (size_t first = 0; first < queries.n; first += QUERIES) {
        const size_t n = queries.n - first < QUERIES ? queries.n - first : QUERIES;
        multiply(tile, queries_of(search) + queries.first + first, bounds->limits + first_state + first, n);
        const size_t n_above = list_above(above, tile, n);
        for (size_t i = 0; i < n_above; i++) {
            const size_t q = queries.first + first + above[i].query, state = first_state + first + above[i].query;
            const struct seeker seeker = {search->queries + q * dim, &bounds->sides[q], &search->exact->topk[state],
                                          &bounds->limits[state]};
            for (uint64_t bits = above[i].bits; bits; bits &= bits - 1) {
                const size_t row = above[i].first_row + (size_t)__builtin_ctzll(bits);
                if (row < tile->n_rows) {
                    look_at(&seeker, tile->rows, rows->type, stored + row * row_bytes, first_place + (int64_t)row, dim);
                }
            }
        }
    }
}

/* ---- after it --------------------------------------------------------------------------------- */

bool memtx__exact_is_sure(const struct memtx__exact_call *search, size_t q)
{
    const struct memtx__i8_side *side = &search->exact->bounds.sides[q];
    const struct memtx__topk *found = &search->exact->topk[q];
    const double limit = (double)memtx__exact_limit(search, q);
    return limit == (double)-INFINITY || (found->n == search->k && limit * (double)side->scale + (double)side->shift <
                                                                       (double)found->candidates[found->n - 1].score);
}

size_t memtx__exact_gather_unsure(const struct memtx__exact_call *search)
{
    struct memtx__exact_bounds *bounds = &search->exact->bounds;
    const size_t dim = search->rows->dim;
    bounds->n_again = 0;
    for (size_t q = 0; q < search->n_queries; q++) {
        if (search->is_out || !bounds->is_sure[q]) {
            memcpy(bounds->queries + bounds->n_again * dim, search->queries + q * dim, dim * sizeof *bounds->queries);
            bounds->again[bounds->n_again++] = q;
        }
    }
    return bounds->n_again;
}
