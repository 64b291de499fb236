/* A store: opened, closed, asked for facts (store.h). Appending stands in append.c, documents in documents.c. */
#include "store/store.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/status.h"
#include "math/rows.h"
#include "store/run_file.h"

static const char *const row_type_names[] = {"f16", "bf16", "f32"};

const char *memtx_row_type_name(enum memtx_row_type type)
{
    return type >= MEMTX_ROWS_F16 && type <= MEMTX_ROWS_F32 ? row_type_names[type] : "unknown";
}

int memtx_row_type_parse(enum memtx_row_type *out, const char *name)
{
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, row_type_names[i]) == 0) {
            *out = (enum memtx_row_type)i;
            return MEMTX_OK;
        }
    }
    return memtx__fail(MEMTX_E_INVALID, "store type '%s' is none of f16, bf16, f32", name);
}

struct memtx_store_options memtx_store_options_default(void)
{
    return (struct memtx_store_options){.durability = MEMTX_DURABILITY_GROUP,
                                        .group_segments = 8,
                                        .group_milliseconds = 1000,
                                        .group_bytes = (size_t)32 << 20};
}

/* ---- who may do what -------------------------------------------------------------------------- */

int memtx__store_check_process(const memtx_store *store)
{
    return store->process == getpid()
               ? MEMTX_OK
               : memtx__fail(MEMTX_E_INVALID,
                             "the store was opened by process %ld, of which this one is a fork (open "
                             "it after the fork)",
                             (long)store->process);
}

int memtx__store_check_writable(const memtx_store *store)
{
    return store->options.read_only ? memtx__fail(MEMTX_E_INVALID, "the store is open for reading only")
                                    : memtx__store_check_process(store);
}

/* ---- opening ---------------------------------------------------------------------------------- */

/* How many rows a chunk has. */
static void measure_rows(memtx_store *store)
{
    store->row_bytes = (uint32_t)(store->spec.head_size * memtx__row_type_bytes(store->spec.row_type));
    store->chunk_rows = (MEMTX__CHUNK_BYTES - MEMTX__CHUNK_HEADER_BYTES) / store->row_bytes;
    store->tail.chunk_rows = store->chunk_rows;
}

/* Numbers the pairs that the spec keeps. */
static int list_pairs(memtx_store *store)
{
    const struct memtx_store_spec *spec = &store->spec;
    int status = memtx__alloc(&store->pairs, (size_t)spec->n_layers * spec->n_kv_heads, sizeof *store->pairs);
    if (status) {
        return status;
    }
    for (uint32_t layer = 0; layer < spec->n_layers; layer++) {
        store->first_pair[layer] = store->n_pairs;
        for (uint32_t head = 0; head < spec->n_kv_heads; head++) {
            if (memtx_store_keeps(spec, layer, head)) {
                store->pairs[store->n_pairs++] = (struct memtx__pair){layer, head};
            }
        }
    }
    store->tail.n_pairs = store->n_pairs;
    return MEMTX_OK;
}

ptrdiff_t memtx__store_pair(const memtx_store *store, uint32_t layer, uint32_t kv_head)
{
    if (layer >= store->spec.n_layers) {
        return -1;
    }
    for (size_t pair = store->first_pair[layer]; pair < store->n_pairs && store->pairs[pair].layer == layer; pair++) {
        if (store->pairs[pair].kv_head == kv_head) {
            return (ptrdiff_t)pair;
        }
    }
    return -1;
}

void memtx__store_all_written(memtx_store *store)
{
    for (size_t i = 0; i < store->now.n_documents; i++) {
        store->now.documents[i].is_dirty = false;
    }
    store->n_waiting_commits = 0;
    store->n_written_rows = store->now.state.n_rows;
    store->n_freed_chunks = store->now.state.first_row / store->chunk_rows;
    store->first_dirty_extent = store->now.n_extents;
}

static int open_existing(memtx_store *store, const char *path, const struct memtx_store_spec *wanted)
{
    uint32_t chunk_rows;
    int status = memtx__environment_load_spec(&store->spec, &store->version, &chunk_rows, &store->rope_factors,
                                              store->environment);
    if (!status && memtx__spec_check(&store->spec)) {
        status = memtx__fail(MEMTX_E_CORRUPT, "%s: its spec record makes no sense", path);
    }
    if (!status && wanted) {
        status = memtx__spec_compare(path, &store->spec, wanted, store->options.allow_stale);
    }
    if (status) {
        return status;
    }
    measure_rows(store);
    if (chunk_rows != store->chunk_rows) {
        return memtx__fail(MEMTX_E_CORRUPT, "%s: chunks of %u rows where %u fit", path, chunk_rows, store->chunk_rows);
    }
    status = list_pairs(store);
    if (!status) {
        status = memtx__environment_load(store);
    }
    if (status) {
        return status;
    }
    memtx__store_all_written(store);
    if (!store->options.read_only) {
        memtx__run_file_remove_strays(store);
    }
    store->n_chunks_at_open = store->now.state.n_rows / store->chunk_rows;
    return store->version < MEMTX__FORMAT_VERSION && !store->options.read_only ? memtx__environment_upgrade(store)
                                                                               : MEMTX_OK;
}

static int open_new(memtx_store *store, const char *path, const struct memtx_store_spec *spec)
{
    store->spec = *spec;
    if (spec->rope_factors) {
        int status = memtx__alloc(&store->rope_factors, spec->rope_dims / 2, sizeof *store->rope_factors);
        if (status) {
            return status;
        }
        memcpy(store->rope_factors, spec->rope_factors, spec->rope_dims / 2 * sizeof *store->rope_factors);
        store->spec.rope_factors = store->rope_factors;
    }
    store->version = MEMTX__FORMAT_VERSION;
    measure_rows(store);
    int status = list_pairs(store);
    return status || !path ? status : memtx__environment_create(store->environment, spec, store->chunk_rows);
}

/* On disk, whole or not at all, to be opened like any other. */
static int make_new(memtx_store *store, const char *path, const struct memtx_store_spec *spec)
{
    store->spec = *spec;
    measure_rows(store);
    return memtx__environment_make(memtx__directory_pinned(store->directory), path, spec, store->chunk_rows);
}

static int open_on_disk(memtx_store *store, const char *path, const struct memtx_store_spec *spec)
{
    const bool temporary = store->options.temporary, read_only = store->options.read_only;
    bool is_new = true;
    int status = MEMTX_OK;
    if (!temporary) {
        status = memtx__directory_open(&store->directory, path, spec && !read_only, !read_only);
        if (!status && !memtx__directory_has_database(store->directory)) {
            status = spec && !read_only
                         ? make_new(store, path, spec)
                         : memtx__fail(MEMTX_E_NOT_FOUND, "%s: there is no store (its database is empty)", path);
        }
    }
    if (!status) {
        status = memtx__environment_open(&store->environment, &is_new,
                                         temporary ? path : memtx__directory_pinned(store->directory), path,
                                         &store->options);
    }
    if (!status && is_new && (read_only || !spec)) {
        status = memtx__fail(MEMTX_E_NOT_FOUND, "%s: there is no store (it was begun and never written)", path);
    }
    if (!status) {
        status = is_new ? open_new(store, path, spec) : open_existing(store, path, spec);
    }
    return status;
}

static int check_open(const char *path, const struct memtx_store_spec *spec, const struct memtx_store_options *options)
{
    if (options->read_only && (!path || options->temporary)) {
        return memtx__fail(MEMTX_E_INVALID, "only a store in a directory can be opened for reading alone");
    }
    if (!spec && (!path || options->temporary)) {
        return memtx__fail(MEMTX_E_NOT_FOUND, "%s: there is no store", path ? path : "(heap)");
    }
    return spec ? memtx__spec_check(spec) : MEMTX_OK;
}

int memtx_store_open(memtx_store **out, const char *path, const struct memtx_store_spec *spec,
                     const struct memtx_store_options *options)
{
    const struct memtx_store_options chosen = options ? *options : memtx_store_options_default();
    memtx_store *store;
    *out = NULL;
    int status = check_open(path, spec, &chosen);
    if (!status) {
        status = memtx__alloc(&store, 1, sizeof *store);
    }
    if (status) {
        return status;
    }
    store->options = chosen;
    store->process = getpid();
    status = path ? open_on_disk(store, path, spec) : open_new(store, path, spec);
    if (status) {
        memtx__directory_discard(store->directory);
        (void)memtx_store_close(store);
        return status;
    }
    *out = store;
    return MEMTX_OK;
}

int memtx_store_close(memtx_store *store)
{
    if (!store) {
        return MEMTX_OK;
    }
    int status = store->options.read_only ? MEMTX_OK : memtx__store_flush(store);
    if (memtx__store_check_process(store) == MEMTX_OK) { /* a child leaves LMDB's locks and slots to its parent */
        memtx__environment_close(store->environment);
        memtx__directory_close(store->directory);
    }
    memtx__tail_release(&store->tail);
    memtx__catalogue_release(&store->now);
    memtx__free(store->rope_factors);
    memtx__free(store->pairs);
    memtx__free(store);
    return status;
}

void memtx_store_info(struct memtx_store_facts *out, const memtx_store *store)
{
    *out = (struct memtx_store_facts){
        .format_version = store->version,
        .spec = store->spec,
        .n_rows = store->now.state.n_rows,
        .first_row = store->now.state.first_row,
        .n_written_rows = store->n_written_rows,
        .n_visible_rows = memtx__catalogue_n_visible(&store->now),
        .n_documents = store->now.n_documents,
        .disk_bytes = store->environment ? memtx__environment_bytes(store->environment) : 0,
        .chunk_rows = store->chunk_rows,
    };
    for (size_t i = 0; i < store->now.n_runs; i++) {
        const struct memtx__run *run = &store->now.runs[i];
        out->n_runs++;
        out->run_rows += run->n_rows;
        out->run_bytes += run->n_bytes;
        (void)snprintf(out->index, sizeof out->index, "%s", run->spec);
    }
}
