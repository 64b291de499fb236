/* The clusters of a memory: grown, loaded, saved (clusters.h). */
#include "memory/clusters.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/status.h"
#include "search/kmeans.h"

/* ---- opening ---------------------------------------------------------------------------------- */

uint32_t memtx__clusters_block_rows(uint32_t chunk_rows)
{
    const uint32_t usual = memtx__cluster_options_default().block_rows;
    const uint32_t n_chunks = (usual + chunk_rows / 2) / chunk_rows;
    uint32_t block_rows = (n_chunks ? n_chunks : 1) * chunk_rows;
    while (block_rows > MEMTX__KMEANS_MOST_ROWS) { /* rows of two bytes: 32,640 in a chunk */
        block_rows /= 2;
    }
    return block_rows;
}

int memtx__clusters_open(struct memtx__clusters *out, memtx_store *store, const char *spec, uint64_t run_rows,
                         bool is_writer)
{
    *out = (struct memtx__clusters){.store = store, .options = memtx__cluster_options_default()};
    out->options.block_rows = memtx__clusters_block_rows(store->chunk_rows);
    int status = memtx__runs_open_files(&out->files, store, spec, run_rows, is_writer, "are clustered anew");
    return status ? status : memtx__alloc(&out->of_pair, store->n_pairs, sizeof(struct memtx__cluster *));
}

void memtx__clusters_close(struct memtx__clusters *clusters)
{
    for (size_t pair = 0; clusters->of_pair && pair < clusters->store->n_pairs; pair++) {
        memtx__cluster_destroy(clusters->of_pair[pair]);
    }
    memtx__runs_close(&clusters->files);
    memtx__free(clusters->of_pair);
    memtx__free(clusters->blocks);
    *clusters = (struct memtx__clusters){0};
}

int memtx__clusters_refresh(struct memtx__clusters *clusters, const struct memtx__catalogue *catalogue)
{
    return memtx__runs_refresh(&clusters->files, catalogue);
}

/* ---- growing ---------------------------------------------------------------------------------- */

/* The oldest row that a search may ever see: who only reads keeps its scope, who appends may open any document. */
static uint64_t first_row(const struct memtx__clusters *clusters, const struct memtx__clusters_query *query)
{
    const struct memtx__catalogue *catalogue = query->view->catalogue;
    uint64_t first = catalogue->state.n_rows;
    if (!clusters->files.is_writer) {
        return query->visible->n_blocks ? query->visible->blocks[0].first_id : first;
    }
    for (size_t i = 0; i < catalogue->n_extents; i++) {
        const struct memtx__extent *extent = &catalogue->extents[i];
        if (extent->first_row + extent->n_rows > catalogue->state.first_row) {
            first = extent->first_row;
            break;
        }
    }
    return first > catalogue->state.first_row ? first : catalogue->state.first_row;
}

/* Rows first .. end - 1 of the pair, which are visible, to those of the block that is being clustered. */
static int gather_rows(struct memtx__clusters *clusters, const struct memtx__clusters_query *query, uint64_t first,
                       uint64_t end)
{
    const memtx_store *store = clusters->store;
    const struct memtx__pair *pair = &store->pairs[query->pair];
    int status = MEMTX_OK;
    while (first < end && !status) {
        const uint64_t chunk = first / store->chunk_rows, offset = first % store->chunk_rows;
        const uint64_t n_left = store->chunk_rows - offset, n = end - first < n_left ? end - first : n_left;
        const unsigned char *rows;
        status = memtx__view_chunk(&rows, query->view, MEMTX__KEYS, pair->layer, pair->kv_head, chunk);
        if (!status) {
            status = memtx__grow(&clusters->blocks, &clusters->n_blocks_held, clusters->n_blocks + 1,
                                 sizeof *clusters->blocks);
        }
        if (!status) {
            clusters->blocks[clusters->n_blocks++] =
                (struct memtx__row_block){rows + offset * store->row_bytes, first, (size_t)n};
        }
        first += n;
    }
    return status;
}

/* All rows of the block that begins with row `first` and are visible, of whatever document. */
static int gather_block(struct memtx__clusters *clusters, const struct memtx__clusters_query *query, uint64_t first)
{
    const struct memtx__catalogue *catalogue = query->view->catalogue;
    const uint64_t end = first + clusters->options.block_rows, first_visible = catalogue->state.first_row;
    int status = MEMTX_OK;
    clusters->n_blocks = 0;
    first = first > first_visible ? first : first_visible;
    for (size_t i = 0; i < catalogue->n_extents && !status; i++) {
        const struct memtx__extent *extent = &catalogue->extents[i];
        const uint64_t extent_end = extent->first_row + extent->n_rows;
        status = gather_rows(clusters, query, extent->first_row > first ? extent->first_row : first,
                             extent_end < end ? extent_end : end);
    }
    return status;
}

static int add_block(struct memtx__cluster *cluster, struct memtx__clusters *clusters,
                     const struct memtx__clusters_query *query)
{
    struct memtx__row_set rows = *query->visible;
    if (clusters->files.is_writer) {
        int status =
            gather_block(clusters, query, (cluster->first_block + cluster->n_blocks) * clusters->options.block_rows);
        if (status) {
            return status;
        }
        rows.blocks = clusters->blocks;
        rows.n_blocks = clusters->n_blocks;
    }
    return memtx__cluster_add(cluster, &rows, query->queries, query->n);
}

/* The good run that holds a row; NULL: none does. */
static struct memtx__loaded_run *run_of(struct memtx__clusters *clusters, uint64_t row)
{
    struct memtx__loaded_run *found = NULL;
    for (size_t i = 0; i < clusters->files.n_loaded && !found; i++) {
        struct memtx__loaded_run *loaded = &clusters->files.loaded[i];
        const bool holds = row >= loaded->run.first_row && row - loaded->run.first_row < loaded->run.n_rows;
        found = holds && loaded->is_good ? loaded : NULL;
    }
    return found;
}

static int read_blob(unsigned char *bytes, struct memtx__loaded_run *loaded, const struct memtx__run_blob *blob,
                     const struct memtx__pair *pair)
{
    int status = loaded->is_checked ? MEMTX_OK : memtx__run_file_check(loaded->file, blob, &loaded->run, pair);
    if (!status && (fseeko(loaded->file, (off_t)blob->offset, SEEK_SET) ||
                    fread(bytes, 1, (size_t)blob->n_bytes, loaded->file) != blob->n_bytes)) {
        status = memtx__fail(MEMTX_E_IO, "cannot read an index file");
    }
    return status;
}

/* The pair's next blocks, as the run has them. */
static int load_run(struct memtx__cluster *cluster, const struct memtx__clusters *clusters,
                    struct memtx__loaded_run *loaded, size_t pair)
{
    const uint64_t block_rows = clusters->options.block_rows;
    const uint64_t end = (loaded->run.first_row + loaded->run.n_rows) / block_rows;
    const size_t n_before = cluster->n_blocks, n_groups_before = cluster->groups->n_blocks;
    const struct memtx__run_blob *blob = &loaded->blobs[pair];
    unsigned char *bytes;
    int status = memtx__alloc_raw(&bytes, (size_t)blob->n_bytes, 1); /* bounded by the file's size */
    if (status) {
        return status;
    }
    status = read_blob(bytes, loaded, blob, &clusters->store->pairs[pair]);
    if (!status) {
        status = memtx__cluster_load(cluster, bytes, (size_t)blob->n_bytes);
    }
    memtx__free(bytes);
    if (!status && (cluster->n_blocks == n_before || cluster->first_block + cluster->n_blocks != end)) {
        cluster->n_blocks = n_before;
        cluster->groups->n_blocks = n_groups_before;
        status = memtx__fail(MEMTX_E_MISMATCH, "the clusters of rows %llu to %llu are of other blocks",
                             (unsigned long long)loaded->run.first_row,
                             (unsigned long long)(loaded->run.first_row + loaded->run.n_rows - 1));
    }
    return status;
}

/* From a file, or else from the queries. */
static int add_next(struct memtx__cluster *cluster, struct memtx__clusters *clusters,
                    const struct memtx__clusters_query *query)
{
    const uint64_t next = (cluster->first_block + cluster->n_blocks) * clusters->options.block_rows;
    struct memtx__loaded_run *loaded = run_of(clusters, next);
    int status = loaded ? load_run(cluster, clusters, loaded, query->pair) : MEMTX_OK;
    if (status && status != MEMTX_E_NO_MEMORY) {
        memtx__runs_set_bad(&clusters->files, loaded);
        loaded = NULL;
    }
    return loaded ? status : add_block(cluster, clusters, query);
}

int memtx__clusters_grow(struct memtx__cluster **out, struct memtx__clusters *clusters,
                         const struct memtx__clusters_query *query)
{
    const uint64_t block_rows = clusters->options.block_rows, n_rows = query->view->catalogue->state.n_rows;
    struct memtx__cluster **cluster = &clusters->of_pair[query->pair];
    int status = MEMTX_OK;
    if (!*cluster) {
        status = memtx__cluster_create(cluster, query->visible->type, query->visible->dim,
                                       first_row(clusters, query) / block_rows, &clusters->options);
    }
    while (!status && ((*cluster)->first_block + (*cluster)->n_blocks + 1) * block_rows <= n_rows) {
        status = add_next(*cluster, clusters, query);
    }
    *out = *cluster;
    return status;
}

/* ---- saving ----------------------------------------------------------------------------------- */

/* Blocks by their numbers: first .. end - 1. */
struct span {
    uint64_t first, end;
};

/* What every pair has, of rows that are on disk: others may get other ids after a crash. */
static struct span common_blocks(const struct memtx__clusters *clusters)
{
    struct span common = {0, clusters->store->n_written_rows / clusters->options.block_rows};
    for (size_t pair = 0; pair < clusters->store->n_pairs; pair++) {
        const struct memtx__cluster *cluster = clusters->of_pair[pair];
        const struct span own = cluster ? (struct span){cluster->first_block, cluster->first_block + cluster->n_blocks}
                                        : (struct span){0, 0};
        common.first = own.first > common.first ? own.first : common.first;
        common.end = own.end < common.end ? own.end : common.end;
    }
    return common;
}

/* The first block from `block` on, before `end`, of which anything is visible: a file of others would go at once. */
static uint64_t pass_over_dead(const struct memtx__clusters *clusters, uint64_t block, uint64_t end)
{
    const struct memtx__run one = {.n_rows = clusters->options.block_rows};
    struct memtx__run at = one;
    for (; block < end; block++) {
        at.first_row = block * one.n_rows;
        if (memtx__catalogue_sees_run(&clusters->store->now, &at)) {
            break;
        }
    }
    return block;
}

/* The first blocks that every pair has and no good run. *before, or empty: the run that ends where they begin;
 * *is_hole: a good run begins where they end. */
static struct span first_uncovered(struct span *before, bool *is_hole, const struct memtx__clusters *clusters)
{
    const uint64_t block_rows = clusters->options.block_rows;
    struct span free = common_blocks(clusters);
    *before = (struct span){0, 0};
    *is_hole = false;
    free.first = pass_over_dead(clusters, free.first, free.end);
    for (size_t i = 0; i < clusters->files.n_loaded && !*is_hole; i++) {
        const struct memtx__run *run = &clusters->files.loaded[i].run;
        const struct span held = {(run->first_row + block_rows - 1) / block_rows,
                                  (run->first_row + run->n_rows) / block_rows};
        if (!clusters->files.loaded[i].is_good || held.end <= free.first) {
            continue;
        }
        if (held.first > free.first) {
            *is_hole = held.first < free.end;
            free.end = *is_hole ? held.first : free.end;
        } else {
            free.first = pass_over_dead(clusters, held.end, free.end);
            *before = free.first == held.end ? held : (struct span){0, 0};
        }
    }
    return free;
}

/* The run that is to be saved next; false: none. A last run that is short, since its writer closed, is made longer: it
 * is saved anew with what follows it. */
static bool next_run(struct memtx__run *out, const struct memtx__clusters *clusters, bool any)
{
    const uint64_t block_rows = clusters->options.block_rows, of_run = clusters->files.choice.run_rows / block_rows;
    const uint64_t run_blocks = of_run ? of_run : 1, first_common = common_blocks(clusters).first;
    struct span before;
    bool is_hole;
    struct span free = first_uncovered(&before, &is_hole, clusters);
    if (free.first >= free.end) {
        return false;
    }
    before.first = before.first > first_common ? before.first : first_common;
    if (!is_hole && before.end == free.first && before.end - before.first < run_blocks) {
        free.first = before.first;
    }
    const uint64_t n_free = free.end - free.first, n_blocks = n_free < run_blocks ? n_free : run_blocks;
    *out = (struct memtx__run){.generation = clusters->store->now.state.next_run,
                               .first_row = free.first * block_rows,
                               .n_rows = n_blocks * block_rows};
    return any || is_hole || n_blocks == run_blocks;
}

static int write_pair(void *context, struct memtx__sealing *sealing, size_t pair)
{
    const struct memtx__clusters *clusters = context;
    const struct memtx__cluster *cluster = clusters->of_pair[pair];
    const uint64_t block_rows = clusters->options.block_rows;
    const size_t n_blocks = (size_t)(sealing->run.n_rows / block_rows);
    const size_t n_bytes = memtx__cluster_bytes(cluster, sealing->run.first_row / block_rows, n_blocks);
    const off_t offset = ftello(sealing->file);
    unsigned char *bytes;
    int status = memtx__alloc_raw(&bytes, n_bytes, 1);
    if (status) {
        return status;
    }
    memtx__cluster_save(bytes, cluster, sealing->run.first_row / block_rows, n_blocks);
    status = fwrite(bytes, 1, n_bytes, sealing->file) == n_bytes ? MEMTX_OK : memtx__run_file_failed("write");
    if (!status) {
        status = memtx__run_file_end_blob(&sealing->blobs[pair], sealing->file, (uint64_t)offset);
    }
    memtx__free(bytes);
    return status;
}

static void save_due(struct memtx__clusters *clusters, bool any)
{
    struct memtx__runs *files = &clusters->files;
    struct memtx__run next;
    while (!files->has_failed && next_run(&next, clusters, any)) {
        files->sealing = (struct memtx__sealing){
            .store = clusters->store, .choice = &files->choice, .run = next, .blobs = files->sealing.blobs};
        int status = memtx__run_write(&files->sealing, write_pair, clusters);
        if (!status) {
            status = memtx__runs_enter(files, &files->sealing);
        }
        if (status) {
            memtx__runs_give_up(files);
        }
    }
}

static bool has_files(const struct memtx__clusters *clusters)
{
    return clusters->of_pair && clusters->files.is_writer && clusters->store->directory;
}

void memtx__clusters_prepare(struct memtx__clusters *clusters)
{
    if (has_files(clusters) && !memtx__runs_refresh(&clusters->files, &clusters->store->now)) {
        save_due(clusters, false);
    }
}

void memtx__clusters_seal(struct memtx__clusters *clusters)
{
    if (has_files(clusters) && !memtx__store_check_writable(clusters->store) && !memtx__store_flush(clusters->store) &&
        !memtx__runs_refresh(&clusters->files, &clusters->store->now)) {
        save_due(clusters, true);
    }
}

/* ---- mending ---------------------------------------------------------------------------------- */

static int check_run(memtx_store *store, const struct memtx__run *run, struct memtx__run_blob *blobs)
{
    FILE *file;
    int status = memtx__run_file_open(&file, blobs, store, run);
    for (size_t pair = 0; pair < store->n_pairs && !status; pair++) {
        status = memtx__run_file_check(file, &blobs[pair], run, &store->pairs[pair]);
    }
    if (file) {
        (void)fclose(file);
    }
    return status;
}

int memtx__clusters_mend(memtx_store *store)
{
    struct memtx__run_blob *blobs;
    bool are_clusters = store->now.n_runs > 0;
    for (size_t i = 0; i < store->now.n_runs && are_clusters; i++) {
        are_clusters = memtx__runs_same_kind(store->now.runs[i].spec, "cluster");
    }
    if (!are_clusters) {
        return memtx__fail(MEMTX_E_UNSUPPORTED,
                           "index 'cluster': clusters are made from the queries of a reading, and a "
                           "rebuild has none (read on with this index)");
    }
    int status = memtx__alloc(&blobs, store->n_pairs, sizeof *blobs);
    for (size_t i = store->now.n_runs; i-- > 0 && !status;) {
        const struct memtx__run run = store->now.runs[i];
        status = check_run(store, &run, blobs);
        if (status == MEMTX_E_CORRUPT) {
            status = memtx__store_drop_run(store, &run);
        }
    }
    memtx__free(blobs);
    return status;
}
