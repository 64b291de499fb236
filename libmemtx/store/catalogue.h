/* What a store holds, as one consistent state: numbers, documents, extents. The process that writes has the newest in
 * RAM, with what it has not written yet; whoever reads loads the one of the snapshot it holds. */
#ifndef MEMTX_STORE_CATALOGUE_H
#define MEMTX_STORE_CATALOGUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/records.h"

struct memtx__document {
    struct memtx_document facts;
    bool is_dirty;       /* differs from the disk's */
    unsigned char *kept; /* heap stores: the running state */
};

struct memtx__catalogue {
    struct memtx__state state;
    struct memtx__document *documents; /* ascending by id */
    size_t n_documents, n_documents_held;
    struct memtx__extent *extents; /* ascending by row id */
    size_t n_extents, n_extents_held;
};

void memtx__catalogue_release(struct memtx__catalogue *catalogue);

/* Places of a document of this name, and of this id; MEMTX__NOWHERE where there is none. */
#define MEMTX__NOWHERE SIZE_MAX
size_t memtx__catalogue_named(const struct memtx__catalogue *catalogue, const char *name);
size_t memtx__catalogue_document(const struct memtx__catalogue *catalogue, uint64_t id);

/* Takes what a database record says into the catalogue: documents in the order of their ids, then extents in that of
 * their rows, each checked against its neighbours and the state, which comes first. MEMTX_E_CORRUPT. */
int memtx__catalogue_take_document(struct memtx__catalogue *catalogue, uint32_t version, uint64_t id,
                                   const unsigned char *bytes, size_t n_bytes);
int memtx__catalogue_take_extent(struct memtx__catalogue *catalogue, uint32_t version, uint64_t first_row,
                                 const unsigned char *bytes, size_t n_bytes);

/* Puts rows first .. at positions[n_rows] into extents of a document, going on with the last one where they follow it;
 * *first_changed is the first extent that differs. All or nothing. MEMTX_E_NO_MEMORY. */
int memtx__catalogue_extend(size_t *first_changed, struct memtx__catalogue *catalogue, uint64_t document,
                            uint64_t first, size_t n_rows, const uint64_t *positions);

/* Takes the rows of a document from row id `from` on out of the extents; their number. */
uint64_t memtx__catalogue_cut(struct memtx__catalogue *catalogue, uint64_t document, uint64_t from);

/* Rows of documents that the capacity leaves in sight. O(extents). */
uint64_t memtx__catalogue_n_visible(const struct memtx__catalogue *catalogue);

/* The last extent that begins before a row; NULL where none does. O(log n). */
const struct memtx__extent *memtx__catalogue_last_before(const struct memtx__catalogue *catalogue, uint64_t end_row);

/* Whether some extent has a row in first_row .. end_row - 1; whether a chunk holds a row that is visible. O(log n). */
bool memtx__catalogue_has_rows(const struct memtx__catalogue *catalogue, uint64_t first_row, uint64_t end_row);
bool memtx__catalogue_sees(const struct memtx__catalogue *catalogue, uint64_t chunk, uint32_t chunk_rows);

/* Rows that a chunk must hold: up to the last that was given out. */
uint32_t memtx__catalogue_chunk_rows(const struct memtx__catalogue *catalogue, uint64_t chunk, uint32_t chunk_rows);

#endif
