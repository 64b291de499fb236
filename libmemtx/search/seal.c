/* Sealing (runs.h): an index of each pair over a span of rows, into one file. */
#include <string.h>

#include "base/alloc.h"
#include "base/status.h"
#include "math/rows.h"
#include "search/runs.h"

/* rows[n_rows][D] of one pair; rows of chunks that are gone, in which no row is visible, are zero. */
static int read_rows(float *rows, const struct memtx__sealing *sealing, const struct memtx__pair *pair)
{
    const memtx_store *store = sealing->store;
    const struct memtx__run *run = &sealing->run;
    const size_t dim = store->spec.head_size, n_chunk = (size_t)store->chunk_rows * dim;
    for (uint64_t row = run->first_row; row < run->first_row + run->n_rows; row += store->chunk_rows) {
        float *out = rows + (row - run->first_row) * dim;
        const unsigned char *bytes;
        if (!memtx__catalogue_sees(sealing->view->catalogue, row / store->chunk_rows, store->chunk_rows)) {
            memset(out, 0, n_chunk * sizeof *out);
            continue;
        }
        int status =
            memtx__view_chunk(&bytes, sealing->view, MEMTX__KEYS, pair->layer, pair->kv_head, row / store->chunk_rows);
        if (status) {
            return status;
        }
        memtx__rows_read(out, store->spec.row_type, bytes, n_chunk);
    }
    return MEMTX_OK;
}

/* context: room for the rows of a pair. */
static int build_pair(void *context, struct memtx__sealing *sealing, size_t pair)
{
    const struct memtx_index_operations *operations = sealing->choice->operations;
    const size_t dim = sealing->store->spec.head_size, n_rows = (size_t)sealing->run.n_rows;
    float *rows = context;
    void *index = NULL;
    int status = read_rows(rows, sealing, &sealing->store->pairs[pair]);
    if (!status) {
        status = operations->create(&index, sealing->choice->spec, (uint32_t)dim);
    }
    if (!status) {
        status = operations->train(index, n_rows, rows);
    }
    if (!status) {
        status = operations->add(index, n_rows, rows);
    }
    const long offset = status ? 0 : ftell(sealing->file);
    if (!status) {
        status = operations->save(index, sealing->file);
    }
    if (!status) {
        status = memtx__run_file_end_blob(&sealing->blobs[pair], sealing->file, (uint64_t)offset);
    }
    operations->destroy(index);
    return status;
}

static bool is_stopped(const struct memtx__sealing *sealing)
{
    return (sealing->stop && atomic_load(sealing->stop)) ||
           (sealing->tell && sealing->tell(sealing->tell_context, sealing->run.n_rows));
}

int memtx__run_write(struct memtx__sealing *sealing, memtx__write_pair *write_pair, void *context)
{
    const memtx_store *store = sealing->store;
    int status = memtx__run_file_create(&sealing->file, store);
    for (size_t pair = 0; pair < store->n_pairs && !status; pair++) {
        status = write_pair(context, sealing, pair);
        if (!status && is_stopped(sealing)) {
            status = memtx__fail(MEMTX_E_INTERRUPTED, "interrupted while an index was built");
        }
    }
    (void)snprintf(sealing->run.spec, sizeof sealing->run.spec, "%s", sealing->choice->spec);
    if (!status) {
        status = memtx__run_file_finish(sealing->file, store, &sealing->run, sealing->blobs);
    }
    if (status) {
        memtx__run_file_discard(sealing->file, store);
        sealing->file = NULL;
    }
    return status;
}

int memtx__run_build(struct memtx__sealing *sealing)
{
    float *rows = NULL;
    sealing->file = NULL;
    int status =
        memtx__alloc_raw(&rows, (size_t)sealing->run.n_rows, (size_t)sealing->store->spec.head_size * sizeof *rows);
    if (!status) {
        status = memtx__run_write(sealing, build_pair, rows);
    }
    memtx__free(rows);
    return status;
}

int memtx__runs_enter(struct memtx__runs *runs, struct memtx__sealing *sealing)
{
    const bool is_nameless = !runs->store->directory;
    int status = is_nameless ? MEMTX_OK : memtx__store_enter_run(runs->store, &sealing->run);
    if (status) {
        (void)fclose(sealing->file);
    } else {
        status = memtx__runs_add(runs, &sealing->run, sealing->file, sealing->blobs, is_nameless, true);
    }
    if (is_nameless) {
        runs->store->now.state.next_run++;
    }
    sealing->file = NULL;
    return status;
}

bool memtx__runs_same_kind(const char *spec, const char *other)
{
    const size_t n = strcspn(spec, "@");
    return n == strcspn(other, "@") && strncmp(spec, other, n) == 0;
}

static bool is_own(const struct memtx__runs *runs, size_t i)
{
    return memtx__runs_same_kind(runs->loaded[i].run.spec, runs->choice.spec);
}

bool memtx__runs_is_due(const struct memtx__runs *runs, size_t i)
{
    bool is_among = is_own(runs, i);
    for (size_t next = i + 1; next < runs->n_loaded && !is_among; next++) {
        is_among = is_own(runs, next);
    }
    return is_among && !runs->loaded[i].is_good && memtx__catalogue_sees_run(&runs->store->now, &runs->loaded[i].run);
}

uint64_t memtx__runs_end(const struct memtx__runs *runs)
{
    const memtx_store *store = runs->store;
    uint64_t end = store->now.state.first_row / store->chunk_rows * store->chunk_rows;
    for (size_t i = 0; i < runs->n_loaded; i++) {
        const uint64_t run_end = runs->loaded[i].run.first_row + runs->loaded[i].run.n_rows;
        end = is_own(runs, i) && run_end > end ? run_end : end;
    }
    return end;
}

bool memtx__runs_next(struct memtx__run *out, const struct memtx__runs *runs)
{
    const memtx_store *store = runs->store;
    const uint64_t n_full =
        (store->environment ? store->n_written_rows : store->now.state.n_rows) / store->chunk_rows * store->chunk_rows;
    for (size_t i = 0; i < runs->n_loaded; i++) {
        if (memtx__runs_is_due(runs, i)) {
            *out = runs->loaded[i].run;
            out->generation = store->now.state.next_run;
            return true;
        }
    }
    *out = (struct memtx__run){
        .generation = store->now.state.next_run, .first_row = memtx__runs_end(runs), .n_rows = runs->choice.run_rows};
    return out->first_row + out->n_rows <= n_full;
}
