/* Documents and extents of a store (catalogue.h). Both are few, a handful for each document, and stand in RAM as plain
 * sorted arrays. */
#include "store/catalogue.h"

#include <string.h>

#include "base/alloc.h"
#include "base/status.h"

void memtx__catalogue_release(struct memtx__catalogue *catalogue)
{
    for (size_t i = 0; i < catalogue->n_documents; i++) {
        memtx__free(catalogue->documents[i].kept);
    }
    memtx__free(catalogue->documents);
    memtx__free(catalogue->extents);
    *catalogue = (struct memtx__catalogue){0};
}

size_t memtx__catalogue_named(const struct memtx__catalogue *catalogue, const char *name)
{
    for (size_t i = 0; i < catalogue->n_documents; i++) {
        if (strcmp(catalogue->documents[i].facts.name, name) == 0) {
            return i;
        }
    }
    return MEMTX__NOWHERE;
}

size_t memtx__catalogue_document(const struct memtx__catalogue *catalogue, uint64_t id)
{
    size_t low = 0, high = catalogue->n_documents;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (catalogue->documents[middle].facts.id < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < catalogue->n_documents && catalogue->documents[low].facts.id == id ? low : MEMTX__NOWHERE;
}

int memtx__catalogue_take_document(struct memtx__catalogue *catalogue, uint32_t version, uint64_t id,
                                   const unsigned char *bytes, size_t n_bytes)
{
    int status = memtx__grow(&catalogue->documents, &catalogue->n_documents_held, catalogue->n_documents + 1,
                             sizeof *catalogue->documents);
    if (status) {
        return status;
    }
    struct memtx__document *document = &catalogue->documents[catalogue->n_documents];
    *document = (struct memtx__document){0};
    status = memtx__document_decode(&document->facts, version, id, bytes, n_bytes);
    if (!status && (id >= catalogue->state.next_document || document->facts.state_row > catalogue->state.n_rows)) {
        return memtx__fail(MEMTX_E_CORRUPT, "document %llu does not belong to a store of %llu documents and %llu rows",
                           (unsigned long long)id, (unsigned long long)catalogue->state.next_document,
                           (unsigned long long)catalogue->state.n_rows);
    }
    catalogue->n_documents += !status;
    return status;
}

int memtx__catalogue_take_extent(struct memtx__catalogue *catalogue, uint32_t version, uint64_t first_row,
                                 const unsigned char *bytes, size_t n_bytes)
{
    int status = memtx__grow(&catalogue->extents, &catalogue->n_extents_held, catalogue->n_extents + 1,
                             sizeof *catalogue->extents);
    if (status) {
        return status;
    }
    struct memtx__extent *extent = &catalogue->extents[catalogue->n_extents];
    const struct memtx__extent *before = catalogue->n_extents ? extent - 1 : NULL;
    status = memtx__extent_decode(extent, version, first_row, bytes, n_bytes);
    if (status) {
        return status;
    }
    if (first_row > catalogue->state.n_rows || extent->n_rows > catalogue->state.n_rows - first_row ||
        extent->n_rows == 0 || extent->first_position > UINT64_MAX - extent->n_rows ||
        (before && before->first_row + before->n_rows > first_row)) {
        return memtx__fail(MEMTX_E_CORRUPT, "the extent at row %llu does not fit between its neighbours",
                           (unsigned long long)first_row);
    }
    if (memtx__catalogue_document(catalogue, extent->document) == MEMTX__NOWHERE) {
        return memtx__fail(MEMTX_E_CORRUPT, "the extent at row %llu is of document %llu, which is not there",
                           (unsigned long long)first_row, (unsigned long long)extent->document);
    }
    catalogue->n_extents++;
    return MEMTX_OK;
}

/* Whether row `id` at `position` follows the last row of an extent. */
static bool goes_on(const struct memtx__extent *extent, uint64_t document, uint64_t id, uint64_t position)
{
    return extent && extent->document == document && extent->first_row + extent->n_rows == id &&
           extent->first_position + extent->n_rows == position;
}

int memtx__catalogue_extend(size_t *first_changed, struct memtx__catalogue *catalogue, uint64_t document,
                            uint64_t first, size_t n_rows, const uint64_t *positions)
{
    size_t n_new = 0;
    for (size_t i = 0; i < n_rows; i++) {
        n_new += i == 0 || positions[i] != positions[i - 1] + 1;
    }
    *first_changed = catalogue->n_extents;
    int status = memtx__grow(&catalogue->extents, &catalogue->n_extents_held, catalogue->n_extents + n_new,
                             sizeof *catalogue->extents);
    for (size_t i = 0; i < n_rows && !status; i++) {
        struct memtx__extent *last = catalogue->n_extents ? &catalogue->extents[catalogue->n_extents - 1] : NULL;
        if (!goes_on(last, document, first + i, positions[i])) {
            last = &catalogue->extents[catalogue->n_extents++];
            *last = (struct memtx__extent){first + i, 0, document, positions[i]};
        }
        last->n_rows++;
        size_t changed = (size_t)(last - catalogue->extents);
        *first_changed = changed < *first_changed ? changed : *first_changed;
    }
    return status;
}

uint64_t memtx__catalogue_cut(struct memtx__catalogue *catalogue, uint64_t document, uint64_t from)
{
    uint64_t n_cut = 0;
    size_t n_kept = 0;
    for (size_t i = 0; i < catalogue->n_extents; i++) {
        struct memtx__extent extent = catalogue->extents[i];
        if (extent.document == document && extent.first_row + extent.n_rows > from) {
            const uint64_t n_left = extent.first_row < from ? from - extent.first_row : 0;
            n_cut += extent.n_rows - n_left;
            extent.n_rows = n_left;
        }
        if (extent.n_rows) {
            catalogue->extents[n_kept++] = extent;
        }
    }
    catalogue->n_extents = n_kept;
    return n_cut;
}

uint64_t memtx__catalogue_n_visible(const struct memtx__catalogue *catalogue)
{
    const uint64_t first_row = catalogue->state.first_row;
    uint64_t n = 0;
    for (size_t i = 0; i < catalogue->n_extents; i++) {
        const struct memtx__extent *extent = &catalogue->extents[i];
        const uint64_t end = extent->first_row + extent->n_rows;
        n += end > first_row ? end - (extent->first_row > first_row ? extent->first_row : first_row) : 0;
    }
    return n;
}

const struct memtx__extent *memtx__catalogue_last_before(const struct memtx__catalogue *catalogue, uint64_t end_row)
{
    size_t low = 0, high = catalogue->n_extents;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (catalogue->extents[middle].first_row < end_row) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low ? &catalogue->extents[low - 1] : NULL;
}

bool memtx__catalogue_has_rows(const struct memtx__catalogue *catalogue, uint64_t first_row, uint64_t end_row)
{
    const struct memtx__extent *last = memtx__catalogue_last_before(catalogue, end_row);
    return last && last->first_row + last->n_rows > first_row;
}

bool memtx__catalogue_sees(const struct memtx__catalogue *catalogue, uint64_t chunk, uint32_t chunk_rows)
{
    const uint64_t first_row = chunk * chunk_rows, first_visible = catalogue->state.first_row;
    return memtx__catalogue_has_rows(catalogue, first_row > first_visible ? first_row : first_visible,
                                     first_row + chunk_rows);
}

uint32_t memtx__catalogue_chunk_rows(const struct memtx__catalogue *catalogue, uint64_t chunk, uint32_t chunk_rows)
{
    const uint64_t n_left = catalogue->state.n_rows - chunk * chunk_rows;
    return n_left < chunk_rows ? (uint32_t)n_left : chunk_rows;
}
