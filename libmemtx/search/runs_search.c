/* A search over runs and tail (runs.h): the runs' indexes are asked, together, for the k best of the rows in sight, and
 * what they find is scored anew from the stored rows; the rows that no run covers are searched exactly; and all is
 * merged. A run of which little is in sight is searched exactly instead; so are all runs, for a query for which they
 * found too few.
 *
 * Cost: what the indexes take; exact search of the tail; k rows read at random for each run and query.
 */
#include <string.h>

#include "base/alloc.h"
#include "base/status.h"
#include "math/rows.h"
#include "math/shapes.h"
#include "search/runs.h"

enum {
    LEAST_SHARE = 10,    /* a run with less than a tenth of its rows in sight is scanned */
    HELD_HITS = 1 << 20, /* of all runs for a block of queries: 12 MB */
};

/* A search on its way. */
struct search {
    struct memtx__runs *runs;
    struct memtx__exact *exact;
    const struct memtx__runs_query *query;
    size_t pair;
    size_t n_blocks; /* of rows to be searched exactly */
};

static int look_up(const struct memtx__runs_query *query, uint64_t chunk)
{
    return query->keys[chunk]
               ? MEMTX_OK
               : memtx__view_chunk(&query->keys[chunk], query->view, MEMTX__KEYS, query->layer, query->kv_head, chunk);
}

/* Rows first .. end - 1, chunk by chunk, to those that are searched exactly. */
static int add_blocks(struct search *search, uint64_t first, uint64_t end)
{
    struct memtx__runs *runs = search->runs;
    const memtx_store *store = runs->store;
    int status = MEMTX_OK;
    while (first < end && !status) {
        const uint64_t chunk = first / store->chunk_rows, offset = first % store->chunk_rows;
        const uint64_t n_left = store->chunk_rows - offset, n = end - first < n_left ? end - first : n_left;
        status = look_up(search->query, chunk);
        if (!status) {
            status = memtx__grow(&runs->blocks, &runs->n_blocks_held, search->n_blocks + 1, sizeof *runs->blocks);
        }
        if (!status) {
            runs->blocks[search->n_blocks++] =
                (struct memtx__row_block){search->query->keys[chunk] + offset * store->row_bytes, first, (size_t)n};
        }
        first += n;
    }
    return status;
}

/* The visible rows within first .. end - 1, each range given to `take`; their number in *n_rows. */
typedef int take_range(struct search *search, uint64_t first, uint64_t end);

static int visible_within(uint64_t *n_rows, struct search *search, uint64_t first, uint64_t end, take_range *take)
{
    int status = MEMTX_OK;
    *n_rows = 0;
    for (size_t i = 0; i < search->query->n_visible && !status; i++) {
        const struct memtx_index_range *range = &search->query->visible[i];
        const uint64_t from = range->first > first ? range->first : first;
        const uint64_t to = range->first + range->n_rows < end ? range->first + range->n_rows : end;
        if (from < to) {
            *n_rows += to - from;
            status = take ? take(search, from, to) : MEMTX_OK;
        }
    }
    return status;
}

/* ---- merging ---------------------------------------------------------------------------------- */

static const unsigned char *row_at(const struct search *search, uint64_t id)
{
    const memtx_store *store = search->runs->store;
    return search->query->keys[id / store->chunk_rows] + id % store->chunk_rows * store->row_bytes;
}

/* What a run's index has found, ids[n][k] counted from first_row, for n queries from `first` on, scored from the stored
 * rows. */
static int merge(struct search *search, const int64_t *ids, uint64_t first_row, size_t first, size_t n)
{
    const struct memtx__runs_query *query = search->query;
    const memtx_store *store = search->runs->store;
    const size_t dim = store->spec.head_size, k = query->k;
    int status = MEMTX_OK;
    for (size_t i = 0; i < n * k && !status; i++) {
        status = ids[i] < 0 ? MEMTX_OK : look_up(query, (first_row + (uint64_t)ids[i]) / store->chunk_rows);
    }
    if (status) {
        return status;
    }
#pragma omp parallel for schedule(static) if (n > 1)
    for (size_t i = 0; i < n; i++) {
        const size_t q = first + i;
        float row[MEMTX__MAX_HEAD_SIZE];
        for (size_t j = 0; j < k && ids[i * k + j] >= 0; j++) {
            memtx__row_fetch(row_at(search, first_row + (uint64_t)ids[i * k + j]), store->row_bytes);
        }
        for (size_t j = 0; j < k && ids[i * k + j] >= 0; j++) {
            const uint64_t id = first_row + (uint64_t)ids[i * k + j];
            memtx__rows_read(row, store->spec.row_type, row_at(search, id), dim);
            memtx__topk_push(&search->runs->topk[q],
                             (struct memtx__candidate){memtx__dot(query->queries + q * dim, row, dim), (int64_t)id});
        }
    }
    return MEMTX_OK;
}

/* Exact search of the blocks gathered, for some queries (`which` NULL: all, which stand in query->queries). */
static int search_blocks(struct search *search, const size_t *which, size_t n)
{
    struct memtx__runs *runs = search->runs;
    const struct memtx__runs_query *query = search->query;
    const size_t dim = runs->store->spec.head_size;
    const struct memtx__row_set rows = {runs->blocks, search->n_blocks, runs->store->spec.row_type, dim};
    const float *queries = query->queries;
    for (size_t i = 0; which && i < n; i++) {
        memcpy(runs->short_queries + i * dim, query->queries + which[i] * dim, dim * sizeof *queries);
        queries = runs->short_queries;
    }
    int status = memtx__exact_search(runs->scores, runs->ids, search->exact, &rows, queries, n, query->k);
    for (size_t i = 0; i < n * query->k && !status; i++) {
        if (runs->ids[i] >= 0) {
            memtx__topk_push(&runs->topk[which ? which[i / query->k] : i / query->k],
                             (struct memtx__candidate){runs->scores[i], runs->ids[i]});
        }
    }
    return status;
}

/* ---- the runs --------------------------------------------------------------------------------- */

static bool load(struct search *search, struct memtx__loaded_run *loaded)
{
    struct memtx__runs *runs = search->runs;
    const struct memtx__run_blob *blob = &loaded->blobs[search->pair];
    void **index = &loaded->indexes[search->pair];
    int status = MEMTX_OK;
    if (!loaded->is_good || *index) {
        return loaded->is_good;
    }
    if (!loaded->is_checked) {
        status = memtx__run_file_check(loaded->file, blob, &loaded->run, &runs->store->pairs[search->pair]);
    } else if (fseek(loaded->file, (long)blob->offset, SEEK_SET)) {
        status = memtx__fail(MEMTX_E_IO, "cannot read an index file");
    }
    if (!status) {
        status = runs->choice.operations->load(index, runs->choice.spec, runs->store->spec.head_size, loaded->file,
                                               blob->n_bytes);
    }
    if (status) {
        memtx__runs_set_bad(runs, loaded);
    }
    return !status;
}

/* A range of the run that was added last, in its own count of rows. */
static int take_range_of_part(struct search *search, uint64_t first, uint64_t end)
{
    struct memtx__runs *runs = search->runs;
    const uint64_t first_row = runs->part_rows[runs->n_parts - 1];
    runs->ranges[runs->n_ranges++] = (struct memtx_index_range){first - first_row, end - first};
    return MEMTX_OK;
}

/* Chooses the runs that are asked. */
static int gather_parts(struct search *search)
{
    struct memtx__runs *runs = search->runs;
    uint64_t n_rows;
    runs->n_parts = runs->n_ranges = 0;
    int status = memtx__grow(&runs->parts, &runs->n_parts_held, runs->n_loaded, sizeof *runs->parts);
    if (!status) {
        status = memtx__grow(&runs->part_rows, &runs->n_part_rows_held, runs->n_loaded, sizeof *runs->part_rows);
    }
    if (!status) { /* a run cuts a range in two at most where it begins and where it ends */
        status = memtx__grow(&runs->ranges, &runs->n_ranges_held, search->query->n_visible + 2 * runs->n_loaded,
                             sizeof *runs->ranges);
    }
    for (size_t i = 0; i < runs->n_loaded && !status; i++) {
        struct memtx__loaded_run *loaded = &runs->loaded[i];
        const uint64_t first = loaded->run.first_row, end = first + loaded->run.n_rows;
        const size_t first_range = runs->n_ranges;
        (void)visible_within(&n_rows, search, first, end, NULL);
        loaded->is_asked = n_rows * LEAST_SHARE >= loaded->run.n_rows && load(search, loaded);
        if (loaded->is_asked) {
            runs->part_rows[runs->n_parts++] = first;
            (void)visible_within(&n_rows, search, first, end, take_range_of_part);
            runs->parts[runs->n_parts - 1] = (struct memtx_index_part){
                loaded->indexes[search->pair], runs->ranges + first_range, runs->n_ranges - first_range};
        }
    }
    return status;
}

static int search_parts(struct search *search)
{
    struct memtx__runs *runs = search->runs;
    const struct memtx__runs_query *query = search->query;
    const size_t k = query->k, dim = runs->store->spec.head_size, n_most = HELD_HITS / (runs->n_parts * k + 1) + 1;
    const size_t block = query->n < n_most ? query->n : n_most, n_held = runs->n_parts * block * k;
    int status = memtx__grow(&runs->found, &runs->n_found_held, n_held, sizeof *runs->found);
    if (!status) {
        status = memtx__grow(&runs->found_scores, &runs->n_scores_held, n_held, sizeof *runs->found_scores);
    }
    for (size_t first = 0; first < query->n && !status; first += block) {
        const size_t n = query->n - first < block ? query->n - first : block;
        status = runs->choice.operations->search(runs->found_scores, runs->found, runs->parts, runs->n_parts, n,
                                                 query->queries + first * dim, k);
        for (size_t p = 0; p < runs->n_parts && !status; p++) {
            status = merge(search, runs->found + p * n * k, runs->part_rows[p], first, n);
        }
    }
    return status;
}

static void begin(struct search *search, size_t query)
{
    struct memtx__runs *runs = search->runs;
    const size_t k = search->query->k;
    memtx__topk_begin(&runs->topk[query], runs->candidates + query * memtx__topk_capacity(k), k);
}

/* The runs' rows exactly, for queries for which their indexes found fewer than there are. */
static int fill_up(struct search *search)
{
    struct memtx__runs *runs = search->runs;
    const struct memtx__runs_query *query = search->query;
    uint64_t n_rows, n_visible = 0;
    size_t n_short = 0;
    int status = MEMTX_OK;
    for (size_t i = 0; i < runs->n_ranges; i++) {
        n_visible += runs->ranges[i].n_rows;
    }
    for (size_t q = 0; q < query->n; q++) {
        if (runs->topk[q].n < (n_visible < query->k ? n_visible : query->k)) {
            runs->which[n_short++] = q;
            begin(search, q); /* its few are found again */
        }
    }
    search->n_blocks = 0;
    for (size_t i = 0; i < runs->n_loaded && n_short && !status; i++) {
        const struct memtx__run *run = &runs->loaded[i].run;
        if (runs->loaded[i].is_asked) {
            status = visible_within(&n_rows, search, run->first_row, run->first_row + run->n_rows, add_blocks);
        }
    }
    return status || n_short == 0 ? status : search_blocks(search, runs->which, n_short);
}

/* ---- all of it -------------------------------------------------------------------------------- */

/* What no run covers that was asked. */
static int search_rest(struct search *search)
{
    struct memtx__runs *runs = search->runs;
    uint64_t n_rows, next = 0;
    int status = MEMTX_OK;
    search->n_blocks = 0;
    for (size_t i = 0; i < runs->n_loaded && !status; i++) {
        const struct memtx__run *run = &runs->loaded[i].run;
        if (runs->loaded[i].is_asked) {
            status = visible_within(&n_rows, search, next, run->first_row, add_blocks);
            next = run->first_row + run->n_rows;
        }
    }
    if (!status) {
        status = visible_within(&n_rows, search, next, UINT64_MAX, add_blocks);
    }
    return status ? status : search_blocks(search, NULL, search->query->n);
}

int memtx__runs_search(float *scores, int64_t *ids, struct memtx__runs *runs, struct memtx__exact *exact,
                       const struct memtx__runs_query *query)
{
    struct search search = {.runs = runs,
                            .exact = exact,
                            .query = query,
                            .pair = (size_t)memtx__store_pair(runs->store, query->layer, query->kv_head)};
    const size_t k = query->k;
    for (size_t q = 0; q < query->n; q++) {
        begin(&search, q);
    }
    int status = gather_parts(&search);
    if (!status && runs->n_parts) {
        status = search_parts(&search);
    }
    if (!status && runs->n_parts) {
        status = fill_up(&search);
    }
    if (!status) {
        status = search_rest(&search);
    }
    for (size_t q = 0; q < query->n && !status; q++) {
        (void)memtx__topk_end(&runs->topk[q]);
        memtx__topk_give(scores + q * k, ids + q * k, &runs->topk[q], k);
    }
    return status;
}
