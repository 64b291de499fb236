/* Documents of a store (memtx/store.h): made, found, removed, opened again where their running state was taken. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/status.h"
#include "store/store.h"

int memtx_store_document_at(struct memtx_document *out, const memtx_store *store, uint64_t i)
{
    if (i >= store->now.n_documents) {
        return memtx__fail(MEMTX_E_NOT_FOUND, "document %llu of %zu", (unsigned long long)i, store->now.n_documents);
    }
    *out = store->now.documents[i].facts;
    return MEMTX_OK;
}

static int find(size_t *out, const memtx_store *store, const char *name)
{
    *out = memtx__catalogue_named(&store->now, name);
    return *out != MEMTX__NOWHERE ? MEMTX_OK : memtx__fail(MEMTX_E_NOT_FOUND, "the store has no document '%s'", name);
}

int memtx_store_document_named(struct memtx_document *out, const memtx_store *store, const char *name)
{
    size_t place;
    int status = find(&place, store, name);
    if (!status) {
        *out = store->now.documents[place].facts;
    }
    return status;
}

int memtx__store_add_document(size_t *out, memtx_store *store, const char *name)
{
    struct memtx__catalogue *now = &store->now;
    struct memtx__document document = {.facts.id = now->state.next_document, .is_dirty = true};
    int status = memtx__store_check_writable(store);
    if (!status) {
        status = memtx__grow(&now->documents, &now->n_documents_held, now->n_documents + 1, sizeof *now->documents);
    }
    if (status) {
        return status;
    }
    (void)snprintf(document.facts.name, sizeof document.facts.name, "%s", name);
    for (unsigned n = 2; memtx__catalogue_named(now, document.facts.name) != MEMTX__NOWHERE; n++) {
        (void)snprintf(document.facts.name, sizeof document.facts.name, "%.200s#%u", name, n);
    }
    now->state.next_document++;
    now->documents[now->n_documents] = document;
    *out = now->n_documents++;
    return MEMTX_OK;
}

/* ---- taking away ------------------------------------------------------------------------------ */

/* Documents and extents as they will be; what documents keep on the heap stays where it is. */
static int copy_catalogue(struct memtx__catalogue *out, const struct memtx__catalogue *in)
{
    *out = (struct memtx__catalogue){.state = in->state};
    int status = memtx__grow(&out->documents, &out->n_documents_held, in->n_documents + 1, sizeof *in->documents);
    if (!status) {
        status = memtx__grow(&out->extents, &out->n_extents_held, in->n_extents + 1, sizeof *in->extents);
    }
    if (!status) {
        status = memtx__grow(&out->runs, &out->n_runs_held, in->n_runs + 1, sizeof *in->runs);
    }
    if (status) {
        memtx__catalogue_release(out);
        return status;
    }
    for (size_t i = 0; i < in->n_documents; i++) {
        out->documents[i] = in->documents[i];
    }
    for (size_t i = 0; i < in->n_extents; i++) {
        out->extents[i] = in->extents[i];
    }
    for (size_t i = 0; i < in->n_runs; i++) {
        out->runs[i] = in->runs[i];
    }
    out->n_documents = in->n_documents;
    out->n_extents = in->n_extents;
    out->n_runs = in->n_runs;
    return MEMTX_OK;
}

/* Writes what `after` leaves out, and puts it in the place of the store's catalogue; on failure it is released. */
static int become(memtx_store *store, struct memtx__catalogue *after, uint64_t document, uint64_t from)
{
    int status = store->environment ? memtx__environment_erase(store, after, document, from) : MEMTX_OK;
    struct memtx__catalogue *released = status ? after : &store->now;
    after->state = store->now.state; /* the transaction has put its number there */
    released->n_documents = 0;       /* what they keep is kept by the other */
    memtx__catalogue_release(released);
    if (!status) {
        store->now = *after;
        store->first_dirty_extent = after->n_extents;
    }
    return status;
}

static int check_quiet(memtx_store *store)
{
    int status = memtx__store_check_writable(store);
    if (!status && atomic_load(&store->n_memories) > 0) {
        status = memtx__fail(MEMTX_E_BUSY, "a memory is open over the store (close it first)");
    }
    return status ? status : memtx__store_flush(store);
}

int memtx_store_remove_document(memtx_store *store, const char *name)
{
    struct memtx__catalogue after;
    size_t place;
    int status = check_quiet(store);
    if (!status) {
        status = find(&place, store, name);
    }
    if (!status) {
        status = copy_catalogue(&after, &store->now);
    }
    if (status) {
        return status;
    }
    const uint64_t document = after.documents[place].facts.id;
    unsigned char *kept = after.documents[place].kept;
    (void)memtx__catalogue_cut(&after, document, 0);
    after.n_documents--;
    memmove(&after.documents[place], &after.documents[place + 1],
            (after.n_documents - place) * sizeof *after.documents);
    status = become(store, &after, document, 0);
    if (!status) {
        memtx__free(kept);
        (void)memtx__store_drop_runs(store, false); /* or else the next writer does */
    }
    return status;
}

int memtx__store_reopen_document(size_t *out, memtx_store *store, const char *name)
{
    struct memtx__catalogue after;
    int status = memtx__store_check_writable(store);
    if (!status) {
        status = find(out, store, name);
    }
    if (!status) {
        status = memtx__store_flush(store);
    }
    if (!status) {
        status = copy_catalogue(&after, &store->now);
    }
    if (status) {
        return status;
    }
    struct memtx_document *facts = &after.documents[*out].facts;
    const uint64_t from = facts->state_bytes ? facts->state_row : 0;
    facts->n_tokens -= memtx__catalogue_cut(&after, facts->id, from);
    facts->ended = false;
    return become(store, &after, facts->id, from);
}

/* ---- running states --------------------------------------------------------------------------- */

int memtx_store_state(unsigned char **bytes, size_t *n_bytes, memtx_store *store, const char *name)
{
    size_t place;
    *bytes = NULL;
    *n_bytes = 0;
    int status = memtx__store_check_process(store);
    if (!status && store->environment) { /* as it is on disk now, which is what a reader beside a writer can have */
        return memtx__environment_load_state(bytes, n_bytes, store->environment, store->version, name);
    }
    if (!status) {
        status = find(&place, store, name);
    }
    if (status) {
        return status;
    }
    const struct memtx__document *document = &store->now.documents[place];
    if (!document->facts.state_bytes) {
        return memtx__fail(MEMTX_E_NOT_FOUND, "document '%s' has no running state to go on from", name);
    }
    status = memtx__alloc_raw(bytes, (size_t)document->facts.state_bytes, 1);
    if (!status) {
        memcpy(*bytes, document->kept, (size_t)document->facts.state_bytes);
        *n_bytes = (size_t)document->facts.state_bytes;
    }
    return status;
}

void memtx_store_state_free(unsigned char *bytes)
{
    memtx__free(bytes);
}
