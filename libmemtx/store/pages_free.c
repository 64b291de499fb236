/* The free pages (pages_tree.h): what LMDB writes on next. A page listed that is in use would be overwritten, so every
 * page that is listed is claimed like one in use, and nothing may claim it twice. */
#include <string.h>

#include "base/bytes.h"
#include "store/pages_tree.h"

enum { NUMBER_BYTES = 8 };

/* The numbers of a record one after the other. Data of more than a page are read page by page; a run's first page has a
 * header before them. */
struct cursor {
    const struct memtx__pages *pages;
    const unsigned char *data; /* in the leaf, or NULL: in `bytes` */
    uint64_t first_page;
    uint64_t next; /* byte of the data */
    unsigned char bytes[MEMTX__PAGE_BYTES];
};

static int next_number(uint64_t *out, struct cursor *cursor)
{
    int status = MEMTX_OK;
    if (cursor->data) {
        *out = memtx__get_u64(cursor->data + cursor->next);
    } else {
        const uint64_t at = MEMTX__PAGE_HEADER_BYTES + cursor->next;
        if (cursor->next == 0 || at % MEMTX__PAGE_BYTES == 0) {
            status = memtx__page_read(cursor->bytes, cursor->pages, cursor->first_page + at / MEMTX__PAGE_BYTES);
        }
        *out = status ? 0 : memtx__get_u64(cursor->bytes + at % MEMTX__PAGE_BYTES);
    }
    cursor->next += NUMBER_BYTES;
    return status;
}

/* How many numbers follow. The list may be empty before room that LMDB set aside and did not use. */
static int take_count(uint64_t *out, struct cursor *cursor, const struct memtx__node *node, uint64_t at)
{
    const uint64_t n_bytes = node->n_data_bytes, n_room = n_bytes / NUMBER_BYTES;
    if (n_bytes % NUMBER_BYTES || n_room < 1) {
        return memtx__page_damaged(cursor->pages, at, "a list of free pages of %llu bytes",
                                   (unsigned long long)n_bytes);
    }
    int status = next_number(out, cursor);
    if (!status && *out && *out != n_room - 1) {
        status = memtx__page_damaged(cursor->pages, at, "a list of %llu free pages in place of %llu",
                                     (unsigned long long)*out, (unsigned long long)n_room - 1);
    }
    return status;
}

int memtx__pages_take_free(struct memtx__pages *pages, void *context, const struct memtx__node *node, uint64_t at)
{
    const uint64_t transaction = memtx__get_u64(node->key.bytes), newest = *(const uint64_t *)context;
    const bool is_far = node->flags & MEMTX__NODE_OVERFLOW;
    struct cursor cursor = {
        .pages = pages, .data = is_far ? NULL : node->data, .first_page = is_far ? memtx__get_u64(node->data) : 0};
    uint64_t n = 0, page = 0, before = UINT64_MAX;
    if (transaction < 1 || transaction > newest) {
        return memtx__page_damaged(pages, at, "free pages of transaction %llu of %llu", (unsigned long long)transaction,
                                   (unsigned long long)newest);
    }
    int status = take_count(&n, &cursor, node, at);
    for (uint64_t i = 0; i < n && !status; i++) {
        status = next_number(&page, &cursor);
        if (!status && page >= before) {
            status = memtx__page_damaged(pages, at, "its free pages do not descend at %llu", (unsigned long long)page);
        }
        if (!status) {
            status = memtx__pages_claim(pages, page, 1, at);
        }
        before = page;
    }
    return status;
}
