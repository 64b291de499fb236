/* The runs of a memory (runs.h): which there are, whether their files are whole, when new ones are built. */
#include "search/runs.h"

#include <omp.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/status.h"

enum { USUAL_CHUNKS = 128 }; /* of a run: DESIGN 6 */

/* ---- opening ---------------------------------------------------------------------------------- */

int memtx__runs_open_files(struct memtx__runs *out, memtx_store *store, const char *spec, uint64_t run_rows,
                           bool is_writer, const char *without)
{
    const uint64_t n_chunks = run_rows ? (run_rows + store->chunk_rows - 1) / store->chunk_rows : USUAL_CHUNKS;
    *out = (struct memtx__runs){.store = store, .is_writer = is_writer, .without = without};
    out->choice.run_rows = n_chunks * store->chunk_rows;
    if (strlen(spec) >= MEMTX__RUN_SPEC_BYTES) {
        return memtx__fail(MEMTX_E_INVALID, "an index spec of %zu bytes (up to %d)", strlen(spec),
                           MEMTX__RUN_SPEC_BYTES - 1);
    }
    int status = memtx__copy_text(&out->choice.spec, spec);
    return status ? status : memtx__alloc(&out->sealing.blobs, store->n_pairs, sizeof *out->sealing.blobs);
}

int memtx__runs_open(struct memtx__runs *out, memtx_store *store, const char *spec, memtx_index_resolver resolver,
                     uint64_t run_rows, bool is_writer, bool in_background)
{
    int status = memtx__runs_open_files(out, store, spec, run_rows, is_writer, "are searched exactly");
    if (!status) {
        status = resolver
                     ? resolver(&out->choice.operations, spec)
                     : memtx__fail(MEMTX_E_UNSUPPORTED,
                                   "index '%s': no such kind (known: exact, exact:f32, exact:bf16, exact:i8, cluster)",
                                   spec);
    }
    if (!status) {
        status = out->choice.operations->check(spec, store->spec.head_size, out->choice.run_rows);
    }
    /* without a directory the thread's rows could not be read beside the writer's */
    out->in_background = in_background && store->directory;
    if (!status && out->in_background) {
        status = memtx__view_open(&out->building_view, store, true);
    }
    return status;
}

static void release(struct memtx__runs *runs, struct memtx__loaded_run *loaded)
{
    for (size_t pair = 0; runs->choice.operations && loaded->indexes && pair < runs->store->n_pairs; pair++) {
        runs->choice.operations->destroy(loaded->indexes[pair]);
    }
    if (loaded->file) {
        (void)fclose(loaded->file);
    }
    memtx__free(loaded->indexes);
    memtx__free(loaded->blobs);
}

static void *build(void *context)
{
    struct memtx__runs *runs = context;
    omp_set_num_threads(1); /* of this thread: the reading goes on meanwhile */
    runs->build_status = memtx__view_begin(&runs->building_view);
    if (!runs->build_status) {
        runs->build_status = memtx__run_build(&runs->sealing);
        memtx__view_end(&runs->building_view);
    }
    (void)snprintf(runs->build_error, sizeof runs->build_error, "%s", runs->build_status ? memtx_last_error() : "");
    atomic_store(&runs->is_done, true);
    return NULL;
}

void memtx__runs_close(struct memtx__runs *runs)
{
    if (runs->is_building) {
        atomic_store(&runs->stop, true);
        (void)pthread_join(runs->thread, NULL);
        if (!runs->build_status) { /* it was done already */
            (void)memtx__runs_enter(runs, &runs->sealing);
        }
    }
    for (size_t i = 0; i < runs->n_loaded; i++) {
        release(runs, &runs->loaded[i]);
    }
    if (runs->building_view.store) {
        memtx__view_close(&runs->building_view);
    }
    memtx__free(runs->loaded);
    memtx__free(runs->blocks);
    memtx__free(runs->ranges);
    memtx__free(runs->part_rows);
    memtx__free(runs->parts);
    memtx__free(runs->found);
    memtx__free(runs->found_scores);
    memtx__free(runs->sealing.blobs);
    memtx__free(runs->choice.spec);
    *runs = (struct memtx__runs){0};
}

void memtx__runs_take(struct memtx__runs *runs, struct memtx__arena *arena, size_t most_queries, size_t k, size_t dim)
{
    runs->ids = memtx__arena_take(arena, most_queries * k, sizeof *runs->ids);
    runs->scores = memtx__arena_take(arena, most_queries * k, sizeof *runs->scores);
    runs->short_queries = memtx__arena_take(arena, most_queries * dim, sizeof *runs->short_queries);
    runs->which = memtx__arena_take(arena, most_queries, sizeof *runs->which);
    runs->topk = memtx__arena_take(arena, most_queries, sizeof *runs->topk);
    runs->candidates = memtx__arena_take(arena, most_queries, memtx__topk_capacity(k) * sizeof *runs->candidates);
}

/* ---- which there are -------------------------------------------------------------------------- */

static void warn_bad(struct memtx__runs *runs, bool is_built_anew)
{
    (void)snprintf(runs->warning, sizeof runs->warning, "%s; %s%s", memtx_last_error(),
                   is_built_anew ? "it is built anew" : "its rows ", is_built_anew ? "" : runs->without);
}

void memtx__runs_set_bad(struct memtx__runs *runs, struct memtx__loaded_run *loaded)
{
    warn_bad(runs, false);
    loaded->is_good = false;
}

void memtx__runs_give_up(struct memtx__runs *runs)
{
    (void)snprintf(runs->warning, sizeof runs->warning, "%s; no index is built any more, these rows %s",
                   memtx_last_error(), runs->without);
    runs->has_failed = true;
}

int memtx__runs_add(struct memtx__runs *runs, const struct memtx__run *run, FILE *file,
                    const struct memtx__run_blob *blobs, bool is_nameless, bool is_checked)
{
    const size_t n_pairs = runs->store->n_pairs;
    struct memtx__loaded_run loaded = {
        .run = *run, .file = file, .is_good = file != NULL, .is_nameless = is_nameless, .is_checked = is_checked};
    size_t place = 0;
    int status = memtx__grow(&runs->loaded, &runs->n_loaded_held, runs->n_loaded + 1, sizeof *runs->loaded);
    if (!status) {
        status = memtx__alloc(&loaded.blobs, n_pairs, sizeof *loaded.blobs);
    }
    if (!status) {
        status = memtx__alloc(&loaded.indexes, n_pairs, sizeof *loaded.indexes);
    }
    if (status) {
        release(runs, &loaded);
        return status;
    }
    memcpy(loaded.blobs, blobs, n_pairs * sizeof *blobs);
    for (size_t i = 0; i < runs->n_loaded;) { /* what it takes the place of */
        const struct memtx__run *other = &runs->loaded[i].run;
        if (other->first_row < run->first_row + run->n_rows && run->first_row < other->first_row + other->n_rows) {
            release(runs, &runs->loaded[i]);
            runs->n_loaded--;
            memmove(&runs->loaded[i], &runs->loaded[i + 1], (runs->n_loaded - i) * sizeof *runs->loaded);
        } else {
            place += other->first_row < run->first_row;
            i++;
        }
    }
    memmove(&runs->loaded[place + 1], &runs->loaded[place], (runs->n_loaded - place) * sizeof *runs->loaded);
    runs->loaded[place] = loaded;
    runs->n_loaded++;
    return MEMTX_OK;
}

/* Looks at a run that the catalogue names. A writer reads all of its file. */
static int look(struct memtx__runs *runs, const struct memtx__run *run)
{
    struct memtx__run_blob *blobs;
    FILE *file = NULL;
    int status = memtx__alloc(&blobs, runs->store->n_pairs, sizeof *blobs);
    if (status) {
        return status;
    }
    int failed =
        memtx__runs_same_kind(run->spec, runs->choice.spec)
            ? memtx__run_file_open(&file, blobs, runs->store, run)
            : memtx__fail(MEMTX_E_MISMATCH, "the index of rows %llu to %llu is %s, not %s",
                          (unsigned long long)run->first_row, (unsigned long long)(run->first_row + run->n_rows - 1),
                          run->spec, runs->choice.spec);
    for (size_t pair = 0; pair < runs->store->n_pairs && !failed && runs->is_writer; pair++) {
        failed = memtx__run_file_check(file, &blobs[pair], run, &runs->store->pairs[pair]);
    }
    if (failed) {
        warn_bad(runs, runs->is_writer);
        if (file) {
            (void)fclose(file);
            file = NULL;
        }
    }
    status = memtx__runs_add(runs, run, file, blobs, false, runs->is_writer);
    memtx__free(blobs);
    return status;
}

static bool is_named(const struct memtx__catalogue *catalogue, uint64_t generation)
{
    bool found = false;
    for (size_t i = 0; i < catalogue->n_runs && !found; i++) {
        found = catalogue->runs[i].generation == generation;
    }
    return found;
}

static bool is_loaded(const struct memtx__runs *runs, uint64_t generation)
{
    bool found = false;
    for (size_t i = 0; i < runs->n_loaded && !found; i++) {
        found = runs->loaded[i].run.generation == generation;
    }
    return found;
}

int memtx__runs_refresh(struct memtx__runs *runs, const struct memtx__catalogue *catalogue)
{
    size_t n_kept = 0;
    int status = MEMTX_OK;
    for (size_t i = 0; i < runs->n_loaded; i++) {
        struct memtx__loaded_run *loaded = &runs->loaded[i];
        const bool stays = loaded->is_nameless ? memtx__catalogue_sees_run(catalogue, &loaded->run)
                                               : is_named(catalogue, loaded->run.generation);
        if (stays) {
            runs->loaded[n_kept++] = *loaded;
        } else {
            release(runs, loaded);
        }
    }
    runs->n_loaded = n_kept;
    for (size_t i = 0; i < catalogue->n_runs && !status; i++) {
        if (!is_loaded(runs, catalogue->runs[i].generation)) {
            status = look(runs, &catalogue->runs[i]);
        }
    }
    return status;
}

/* ---- building --------------------------------------------------------------------------------- */

/* What the thread has built, once it is done. */
static void collect(struct memtx__runs *runs)
{
    if (!runs->is_building || !atomic_load(&runs->is_done)) {
        return;
    }
    (void)pthread_join(runs->thread, NULL);
    runs->is_building = false;
    int status = runs->build_status ? memtx__fail(runs->build_status, "%s", runs->build_error)
                                    : memtx__runs_enter(runs, &runs->sealing);
    if (status) {
        memtx__runs_give_up(runs);
    }
}

static int build_now(struct memtx__runs *runs, struct memtx__view *view)
{
    runs->sealing.view = view;
    int status = memtx__view_begin(view);
    if (!status) {
        status = memtx__run_build(&runs->sealing);
        memtx__view_end(view);
    }
    if (!status) {
        status = memtx__runs_enter(runs, &runs->sealing);
    }
    if (status && status != MEMTX_E_INTERRUPTED) {
        memtx__runs_give_up(runs);
    }
    return status;
}

/* What is due next, in runs->sealing; false: nothing. */
static bool plan(struct memtx__runs *runs)
{
    struct memtx__run next;
    const bool is_due = !runs->has_failed && !runs->is_building && memtx__runs_next(&next, runs);
    if (is_due) {
        runs->sealing = (struct memtx__sealing){
            .store = runs->store, .choice = &runs->choice, .run = next, .blobs = runs->sealing.blobs};
    }
    return is_due;
}

static void start(struct memtx__runs *runs)
{
    runs->sealing.view = &runs->building_view;
    runs->sealing.stop = &runs->stop;
    atomic_store(&runs->is_done, false);
    runs->is_building = pthread_create(&runs->thread, NULL, build, runs) == 0;
    if (!runs->is_building) {
        (void)memtx__fail(MEMTX_E_NO_MEMORY, "no thread to build an index in");
        memtx__runs_give_up(runs);
    }
}

void memtx__runs_prepare(struct memtx__runs *runs, struct memtx__view *view)
{
    collect(runs);
    if (!runs->is_writer || memtx__runs_refresh(runs, &runs->store->now)) {
        return;
    }
    while (plan(runs)) {
        if (runs->in_background) {
            start(runs);
        } else {
            (void)build_now(runs, view);
        }
    }
}

uint64_t memtx__runs_n_due(const struct memtx__runs *runs)
{
    const memtx_store *store = runs->store;
    const uint64_t end = memtx__runs_end(runs);
    uint64_t n_rows = 0;
    for (size_t i = 0; i < runs->n_loaded; i++) {
        n_rows += memtx__runs_is_due(runs, i) ? runs->loaded[i].run.n_rows : 0;
    }
    n_rows +=
        store->n_written_rows > end ? (store->n_written_rows - end) / runs->choice.run_rows * runs->choice.run_rows : 0;
    return n_rows * store->n_pairs;
}

int memtx__runs_seal(struct memtx__runs *runs, struct memtx__view *view, int (*tell)(void *context, uint64_t n_rows),
                     void *tell_context)
{
    const struct timespec pause = {0, 50000000};
    int status = MEMTX_OK;
    while (runs->is_building && !status) {
        (void)nanosleep(&pause, NULL);
        collect(runs);
        if (tell && tell(tell_context, 0)) {
            status = memtx__fail(MEMTX_E_INTERRUPTED, "interrupted while an index was built");
        }
    }
    if (!status) {
        status = memtx__runs_refresh(runs, &runs->store->now);
    }
    while (!status && plan(runs)) {
        runs->sealing.tell = tell;
        runs->sealing.tell_context = tell_context;
        status = build_now(runs, view) == MEMTX_E_INTERRUPTED ? MEMTX_E_INTERRUPTED : MEMTX_OK;
    }
    return status;
}
