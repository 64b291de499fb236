/* Tail and runs: how an approximate index (memtx/index.h) grows by appending (DESIGN 6).
 *
 * The newest rows are searched exactly. Once run_rows of them are on disk in whole chunks they are sealed: an index of each
 * pair is built over them, saved into one file, and entered in the database. A search asks every run and, exactly, whatever no
 * run covers, scores all that was found anew from the stored rows, and merges. A run that is missing, damaged or of
 * another kind covers nothing until it has been built anew; so what comes back is what the rows say, whatever happens
 * to the files.
 *
 *     writer   prepare -> (view begins) refresh -> search .. -> (view ends)      prepare builds, or lets build
 *     reader   (view begins) refresh -> search .. -> (view ends)
 *
 * The files alone, which runs there are and whether they are whole, also serve clusters (memory/clusters.h).
 */
#ifndef MEMTX_SEARCH_RUNS_H
#define MEMTX_SEARCH_RUNS_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/arena.h"
#include "memtx/index.h"
#include "search/exact.h"
#include "store/run_file.h"
#include "store/view.h"

struct memtx__index_choice {
    char *spec;
    const struct memtx_index_operations *operations; /* NULL: files alone */
    uint64_t run_rows;                               /* a multiple of the chunk's rows */
};

/* A run of the catalogue that has been looked at. */
struct memtx__loaded_run {
    struct memtx__run run;
    FILE *file;
    struct memtx__run_blob *blobs; /* [n_pairs] */
    void **indexes;                /* [n_pairs]; NULL: not loaded yet; never, where files alone are opened */
    bool is_good;
    bool is_checked;  /* its blobs have been read and are what they were: the writer's, who builds anew what is not;
                      * a reader checks each before it is loaded */
    bool is_asked;    /* in this search */
    bool is_nameless; /* of a store without a directory: it is in no catalogue */
};

/* A run on its way. Rows are read through `view`, which has begun. */
struct memtx__sealing {
    memtx_store *store;
    struct memtx__view *view;
    const struct memtx__index_choice *choice;
    struct memtx__run run; /* generation, first_row, n_rows are given */
    struct memtx__run_blob *blobs;
    FILE *file;                                  /* finished; NULL after a failure */
    const atomic_bool *stop;                     /* or NULL: looked at between two pairs; MEMTX_E_INTERRUPTED */
    int (*tell)(void *context, uint64_t n_rows); /* or NULL: after each pair; anything but 0 is MEMTX_E_INTERRUPTED */
    void *tell_context;
};

struct memtx__runs {
    memtx_store *store;
    struct memtx__index_choice choice;
    bool is_writer;
    bool has_failed;     /* building failed: not tried again */
    const char *without; /* what is done with rows that no run covers, for warnings */
    struct memtx__loaded_run *loaded;
    size_t n_loaded, n_loaded_held;
    char warning[512]; /* what a user ought to know, one line; "" */

    bool in_background;
    bool is_building; /* the thread was started and not joined */
    pthread_t thread;
    atomic_bool stop, is_done;
    struct memtx__sealing sealing;
    struct memtx__view building_view;
    int build_status;
    char build_error[256];

    float *found_scores; /* [runs asked][block of queries][k] */
    int64_t *found;
    size_t n_scores_held, n_found_held;
    int64_t *ids;         /* [most_queries][k] of exact search */
    float *scores;        /* of these */
    float *short_queries; /* [most_queries][dim] */
    size_t *which;        /* [most_queries]: those for which too few were found */
    struct memtx__topk *topk;
    struct memtx__candidate *candidates;
    struct memtx__row_block *blocks; /* rows that are searched exactly */
    size_t n_blocks_held;
    struct memtx_index_part *parts;   /* the runs that are asked */
    uint64_t *part_rows;              /* the first row of each */
    struct memtx_index_range *ranges; /* of all parts */
    size_t n_parts, n_ranges, n_parts_held, n_part_rows_held, n_ranges_held;
};

/* What a search is for. */
struct memtx__runs_query {
    struct memtx__view *view;
    uint32_t layer, kv_head;
    const struct memtx_index_range *visible; /* [n_visible] row ids, ascending */
    size_t n_visible;
    const float *queries; /* [n][D] */
    size_t n, k;
    const unsigned char **keys; /* [chunk]: first key rows; what the search needs is looked up */
};

/* Chooses an index. run_rows 0: 128 chunks. What the resolver or its check says. */
int memtx__runs_open(struct memtx__runs *out, memtx_store *store, const char *spec, memtx_index_resolver resolver,
                     uint64_t run_rows, bool is_writer, bool in_background);
void memtx__runs_close(struct memtx__runs *runs); /* a run that is being built is given up */

/* The files of a kind without its operations: to be refreshed, looked at and entered, not to be searched or built.
 * `without`, a constant, says what is done with the rows of a run that is bad. MEMTX_E_INVALID, MEMTX_E_NO_MEMORY. */
int memtx__runs_open_files(struct memtx__runs *out, memtx_store *store, const char *spec, uint64_t run_rows,
                           bool is_writer, const char *without);

/* The run is bad, as the thread's error text says: a warning. */
void memtx__runs_set_bad(struct memtx__runs *runs, struct memtx__loaded_run *loaded);

/* Building has failed, as the thread's error text says: a warning, and it is not tried again. */
void memtx__runs_give_up(struct memtx__runs *runs);

void memtx__runs_take(struct memtx__runs *runs, struct memtx__arena *arena, size_t most_queries, size_t k, size_t dim);

/* The writer's, while its view is not held: runs that are bad are built anew, spans that are full are sealed; at once, or
 * one after the other in a thread. What fails there is a warning, and the rows are searched exactly. */
void memtx__runs_prepare(struct memtx__runs *runs, struct memtx__view *view);

/* Builds all that is due, at once. `tell`, or NULL, is called after each pair with the rows that were read, now and then
 * with 0 while a thread is waited for; anything but 0 ends it: MEMTX_E_INTERRUPTED. */
int memtx__runs_seal(struct memtx__runs *runs, struct memtx__view *view, int (*tell)(void *context, uint64_t n_rows),
                     void *tell_context);

/* Rows of keys, of all pairs together, that are still to be read for what is due. */
uint64_t memtx__runs_n_due(const struct memtx__runs *runs);

/* The runs that a catalogue names: looks at those that are new. MEMTX_E_NO_MEMORY. */
int memtx__runs_refresh(struct memtx__runs *runs, const struct memtx__catalogue *catalogue);

/* ids[n][k] of the best visible rows, best first, and scores[n][k], memtx__dot's of the query and the stored row; -1 and
 * -inf where there are fewer; min(k, visible rows) are found. Uses all threads. */
int memtx__runs_search(float *scores, int64_t *ids, struct memtx__runs *runs, struct memtx__exact *exact,
                       const struct memtx__runs_query *query);

/* ---- seal.c ----------------------------------------------------------------------------------- */

/* Builds the run: index by index, one pair at a time, with the caller's threads. */
int memtx__run_build(struct memtx__sealing *sealing);

/* Writes one blob for each pair with write_pair, which ends it (memtx__run_file_end_blob), into a file that is finished
 * then; on failure nothing is left of it. */
typedef int memtx__write_pair(void *context, struct memtx__sealing *sealing, size_t pair);
int memtx__run_write(struct memtx__sealing *sealing, memtx__write_pair *write_pair, void *context);

/* Enters a run that was built, and loads it; without a directory it is only loaded. */
int memtx__runs_enter(struct memtx__runs *runs, struct memtx__sealing *sealing);

/* The span that is to be built next: a run that is bad, or rows that no run covers. false: none. */
bool memtx__runs_next(struct memtx__run *out, const struct memtx__runs *runs);

/* Whether loaded run i is to be built anew over the same rows. Of another kind only where runs of this kind lie behind
 * it: else its length need not suit this kind, and it stays until runs of this kind take its place. */
bool memtx__runs_is_due(const struct memtx__runs *runs, size_t i);

/* The first row behind all runs of this kind. */
uint64_t memtx__runs_end(const struct memtx__runs *runs);

/* Whether a run's index is of the kind that was chosen: specs may differ in what follows the @. */
bool memtx__runs_same_kind(const char *spec, const char *other);

/* Makes room for one more and loads it. The file becomes the list's, on failure too. */
int memtx__runs_add(struct memtx__runs *runs, const struct memtx__run *run, FILE *file,
                    const struct memtx__run_blob *blobs, bool is_nameless, bool is_checked);

#endif
