/* A store against the known stream (inspect.h). */
#include "inspect.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/status.h"
#include "math/rows.h"
#include "store/tables.h"
#include "store/view.h"

typedef unsigned long long number; /* as %llu wants it */

/* ---- documents and extents -------------------------------------------------------------------- */

static int check_document(const struct memtx_document *document, uint64_t i, uint64_t n_rows)
{
    uint8_t hash[MEMTX_HASH_BYTES] = {0};
    char name[MEMTX_NAME_BYTES];
    crash_name(name, i);
    if (document->ended) {
        crash_hash(hash, i, n_rows);
    }
    if (document->id != i || strcmp(document->name, name) != 0) {
        return memtx__fail(MEMTX_E_CORRUPT, "document %llu is '%s', id %llu", (number)i, document->name,
                           (number)document->id);
    }
    if (document->n_tokens != n_rows || memcmp(document->hash, hash, sizeof hash) != 0) {
        return memtx__fail(MEMTX_E_CORRUPT,
                           "document %llu, %s, says %llu tokens and has %llu rows, or its hash is wrong", (number)i,
                           document->ended ? "ended" : "open", (number)document->n_tokens, (number)n_rows);
    }
    return MEMTX_OK;
}

static int check_state(const struct memtx__state *state, uint64_t capacity)
{
    const uint64_t n_rows = state->n_rows, first = capacity && n_rows > capacity ? n_rows - capacity : 0;
    return state->first_row == first ? MEMTX_OK
                                     : memtx__fail(MEMTX_E_CORRUPT, "the first visible row is %llu of %llu",
                                                   (number)state->first_row, (number)n_rows);
}

int crash_check_catalogue(const struct memtx__catalogue *catalogue, uint64_t capacity)
{
    uint64_t row = 0;
    size_t at = 0;
    int status = check_state(&catalogue->state, capacity);
    for (size_t i = 0; i < catalogue->n_documents && !status; i++) {
        uint64_t n_rows = 0;
        for (; at < catalogue->n_extents && catalogue->extents[at].document == i && !status; at++) {
            const struct memtx__extent *extent = &catalogue->extents[at];
            if (extent->first_row != row) {
                return memtx__fail(MEMTX_E_CORRUPT, "extent %zu begins at row %llu, not %llu", at,
                                   (number)extent->first_row, (number)row);
            }
            for (uint64_t k = 0; k < extent->n_rows; k++) {
                if (extent->first_position + k != crash_position(n_rows + k)) {
                    return memtx__fail(MEMTX_E_CORRUPT, "row %llu stands at position %llu", (number)(row + k),
                                       (number)(extent->first_position + k));
                }
            }
            row += extent->n_rows;
            n_rows += extent->n_rows;
        }
        status = check_document(&catalogue->documents[i].facts, i, n_rows);
    }
    if (!status && (at != catalogue->n_extents || row != catalogue->state.n_rows)) {
        status = memtx__fail(MEMTX_E_CORRUPT, "%zu of %zu extents belong to documents, which have %llu of %llu rows",
                             at, catalogue->n_extents, (number)row, (number)catalogue->state.n_rows);
    }
    return status;
}

struct crash_row crash_row_of(const struct memtx__catalogue *catalogue, uint64_t id)
{
    const struct memtx__extent *extent =
        memtx__catalogue_last_before(catalogue, id + 1); /* crash_check_catalogue found one for each row */
    return (struct crash_row){id, extent->document, extent->first_position + (id - extent->first_row)};
}

/* ---- rows ------------------------------------------------------------------------------------- */

static int check_row(const memtx_store *store, struct memtx__view *view, uint64_t id)
{
    const struct crash_row row = crash_row_of(&store->now, id);
    unsigned char wanted[2 * CRASH_HEAD_SIZE];
    float numbers[CRASH_HEAD_SIZE];
    for (uint32_t i = 0; i < 2 * CRASH_LAYERS * CRASH_KV_HEADS; i++) {
        const enum memtx__chunk_kind kind = i % 2 ? MEMTX__VALUES : MEMTX__KEYS;
        const uint32_t head = i / 2 % CRASH_KV_HEADS, layer = i / 2 / CRASH_KV_HEADS;
        const unsigned char *rows;
        if (!memtx_store_keeps(&store->spec, layer, head)) {
            continue;
        }
        int status = memtx__view_chunk(&rows, view, kind, layer, head, id / store->chunk_rows);
        if (status) {
            return status;
        }
        crash_numbers(numbers, &row, kind == MEMTX__VALUES, layer, head);
        memtx__rows_write(wanted, MEMTX_ROWS_F16, numbers, CRASH_HEAD_SIZE);
        if (memcmp(rows + id % store->chunk_rows * store->row_bytes, wanted, sizeof wanted) != 0) {
            return memtx__fail(MEMTX_E_CORRUPT, "row %llu, layer %u, kv head %u: another %s", (number)id, layer, head,
                               kind == MEMTX__VALUES ? "value" : "key");
        }
    }
    return MEMTX_OK;
}

static int check_rows(memtx_store *store)
{
    struct memtx__view view;
    int status = memtx__view_open(&view, store, false);
    if (status) {
        return status;
    }
    status = memtx__view_begin(&view);
    if (!status) {
        for (uint64_t id = store->now.state.first_row; id < store->now.state.n_rows && !status; id++) {
            status = check_row(store, &view, id);
        }
        memtx__view_end(&view);
    }
    memtx__view_close(&view);
    return status;
}

/* ---- token ids -------------------------------------------------------------------------------- */

/* The token ids of a chunk as they stand on disk; chunks below the first visible row are gone. */
static int check_chunk_tokens(const memtx_store *store, MDB_txn *txn, uint64_t chunk)
{
    const uint64_t first = chunk * store->chunk_rows, left = store->now.state.n_rows - first;
    const size_t n_rows = left < store->chunk_rows ? (size_t)left : store->chunk_rows;
    unsigned char name[8];
    MDB_val key = memtx__number_key(name, chunk), value;
    int code = mdb_get(txn, store->environment->databases[MEMTX__DB_TOKENS], &key, &value);
    if (first + n_rows <= store->now.state.first_row) {
        return code == MDB_NOTFOUND ? MEMTX_OK : memtx__fail(MEMTX_E_CORRUPT, "chunk %llu is left over", (number)chunk);
    }
    if (code || value.mv_size != 4 * n_rows + 4 ||
        memtx__crc32c(0, value.mv_data, 4 * n_rows) != memtx__get_u32((unsigned char *)value.mv_data + 4 * n_rows)) {
        return memtx__fail(MEMTX_E_CORRUPT, "the token ids of chunk %llu are missing or damaged", (number)chunk);
    }
    for (size_t i = 0; i < n_rows; i++) {
        const struct crash_row row = crash_row_of(&store->now, first + i);
        if (memtx__get_u32((unsigned char *)value.mv_data + 4 * i) != crash_token(&row)) {
            return memtx__fail(MEMTX_E_CORRUPT, "row %llu has another token id", (number)row.id);
        }
    }
    return MEMTX_OK;
}

static int check_tokens(const memtx_store *store)
{
    MDB_txn *txn;
    int status = memtx__lmdb_status(mdb_txn_begin(store->environment->env, NULL, MDB_RDONLY, &txn), "inspect", "read");
    if (status) {
        return status;
    }
    for (uint64_t chunk = 0; chunk * store->chunk_rows < store->now.state.n_rows && !status; chunk++) {
        status = check_chunk_tokens(store, txn, chunk);
    }
    mdb_txn_abort(txn);
    return status;
}

/* ---- all of it -------------------------------------------------------------------------------- */

static int check_store(struct crash_state *out, memtx_store *store, uint64_t capacity)
{
    out->n_rows = store->now.state.n_rows;
    out->n_documents = store->now.n_documents;
    for (size_t i = 0; i < store->now.n_documents; i++) {
        out->n_ended += store->now.documents[i].facts.ended;
    }
    int status = crash_check_catalogue(&store->now, capacity);
    if (!status) {
        status = check_rows(store);
    }
    return status ? status : check_tokens(store);
}

int crash_inspect(struct crash_state *out, const char *path, const struct memtx_store_spec *spec, uint64_t capacity)
{
    memtx_store *store;
    *out = (struct crash_state){0};
    int status = memtx_store_open(&store, path, spec, NULL);
    if (status) {
        return status == MEMTX_E_NOT_FOUND ? MEMTX_OK : status;
    }
    status = check_store(out, store, capacity);
    int closed = memtx_store_close(store);
    return status ? status : closed;
}

/* ---- index files ------------------------------------------------------------------------------ */

static bool belongs(const memtx_store *store, const char *name)
{
    static const char *const others[] = {".", "..", "data.mdb", "lock.mdb", "writer"};
    bool found = false;
    for (size_t i = 0; i < sizeof others / sizeof others[0] && !found; i++) {
        found = strcmp(name, others[i]) == 0;
    }
    for (size_t i = 0; i < store->now.n_runs && !found; i++) {
        char run[32];
        (void)snprintf(run, sizeof run, "run-%016llx.idx", (number)store->now.runs[i].generation);
        found = strcmp(name, run) == 0;
    }
    return found;
}

static int check_names(const memtx_store *store, const char *path)
{
    DIR *list = opendir(path);
    const struct dirent *entry;
    int status = list ? MEMTX_OK : memtx__fail(MEMTX_E_IO, "%s: cannot be listed", path);
    while (!status && (entry = readdir(list))) {
        if (!belongs(store, entry->d_name)) {
            status = memtx__fail(MEMTX_E_CORRUPT, "%s is left over", entry->d_name);
        }
    }
    if (list) {
        (void)closedir(list);
    }
    return status;
}

/* Runs of which half the rows are in sight are asked in any case. */
static int check_answers(memtx_store *store)
{
    size_t n_asked, n_due = 0;
    int status = crash_ask_all(&n_asked, store);
    for (size_t i = 0; i < store->now.n_runs; i++) {
        n_due += store->now.runs[i].first_row + store->now.runs[i].n_rows / 2 >= store->now.state.first_row;
    }
    return status || n_asked >= n_due
               ? status
               : memtx__fail(MEMTX_E_CORRUPT, "indexes were asked %zu times, of %zu", n_asked, n_due);
}

int crash_inspect_index(const char *path)
{
    memtx_store *store;
    int status = memtx_store_open(&store, path, NULL, NULL);
    if (status) {
        return status == MEMTX_E_NOT_FOUND ? MEMTX_OK : status;
    }
    status = check_names(store, path);
    if (!status) {
        status = memtx_store_verify(store, NULL);
    }
    if (!status) {
        status = check_answers(store);
    }
    int closed = memtx_store_close(store);
    return status ? status : closed;
}

int crash_compare(const struct crash_state *state, uint64_t n_rows, uint64_t n_ended)
{
    return state->n_rows >= n_rows && state->n_ended >= n_ended
               ? MEMTX_OK
               : memtx__fail(MEMTX_E_CORRUPT,
                             "%llu rows and %llu ended documents are there, %llu and %llu were acknowledged",
                             (number)state->n_rows, (number)state->n_ended, (number)n_rows, (number)n_ended);
}
