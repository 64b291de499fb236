/* The checker of LMDB's file (pages.h): the metas and what they lead to.
 *
 * LMDB takes the meta with the larger transaction. Were that number damaged to a smaller one, it would silently go on
 * from the transaction before; so each meta must lead to a state record that was written by the meta's own transaction.
 * The snapshot before the newest is whole too: LMDB writes only on pages that were free in both. When the last write of
 * a commit fails, LMDB puts the older meta's transaction and last page back, but not its trees. That meta then leads to
 * a transaction that was never committed, or to pages that were since written over; nothing is read through it. Where it
 * leads, within its last page, to all of the transaction after the newest, that commit lacks nothing but its number, or
 * the number was damaged: byte for byte the same. Who only reads is told so; a writer gives the meta its number, after
 * which the store holds all that was acknowledged, and in the first case a commit that was not.
 */
#include "store/pages.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/file.h"
#include "base/status.h"
#include "store/pages_tree.h"
#include "store/records.h"

enum {
    KIND_AT = 10,
    MAGIC_AT = 16,
    VERSION_AT = 20,
    FREE_TREE_AT = 40,
    MAIN_TREE_AT = 88,
    LAST_PAGE_AT = 136,
    TRANSACTION_AT = 144,
    META_END = 152,
    LMDB_VERSION = 1,
    STATE_TRANSACTION_AT = 32,
    PAGES_LISTED_BY_ONE = MEMTX__PAGE_BYTES / 8, /* more than a page of the list of free pages can hold */
};

static const uint32_t lmdb_magic = 0xBEEFC0DE;

typedef unsigned long long number; /* for printing */

struct meta {
    uint64_t transaction, last_page;
    struct memtx__tree free, main;
};

/* ---- metas ------------------------------------------------------------------------------------ */

static bool is_lmdb(const unsigned char *page)
{
    return memtx__get_u32(page + MAGIC_AT) == lmdb_magic && memtx__get_u32(page + VERSION_AT) == LMDB_VERSION &&
           memtx__get_u32(page + FREE_TREE_AT) == MEMTX__PAGE_BYTES;
}

static int read_meta(struct meta *out, const struct memtx__pages *pages, const unsigned char *bytes, uint64_t page)
{
    if (!is_lmdb(bytes) || memtx__get_u64(bytes) != page || memtx__get_u16(bytes + KIND_AT) != MEMTX__PAGE_META) {
        return memtx__page_damaged(pages, page, "is no meta page (it should be one)");
    }
    out->transaction = memtx__get_u64(bytes + TRANSACTION_AT);
    out->last_page = memtx__get_u64(bytes + LAST_PAGE_AT);
    memtx__tree_decode(&out->free, bytes + FREE_TREE_AT, MEMTX__TREE_FREE,
                       (struct memtx__key){(const unsigned char *)"(free)", 6});
    memtx__tree_decode(&out->main, bytes + MAIN_TREE_AT, MEMTX__TREE_MAIN,
                       (struct memtx__key){(const unsigned char *)"(main)", 6});
    /* Pages that the file does not reach are free and never written, so they stand in a list that it holds. */
    if (out->last_page < 1 || out->last_page / (1 + PAGES_LISTED_BY_ONE) >= pages->n_pages) {
        return memtx__page_damaged(pages, page, "the last page is %llu, in a file of %llu", (number)out->last_page,
                                   (number)pages->n_pages);
    }
    if (out->transaction == 0 && out->last_page != 1) {
        return memtx__page_damaged(pages, page, "says that nothing was ever written, and %llu pages",
                                   (number)out->last_page + 1);
    }
    return MEMTX_OK;
}

static int measure(struct memtx__pages *pages, bool *is_empty)
{
    struct stat facts;
    if (fstat(pages->fd, &facts)) {
        return memtx__fail(memtx__errno_status(errno), "%s: cannot read the size of the database: %s", pages->path,
                           strerror(errno));
    }
    if (!S_ISREG(facts.st_mode)) {
        return memtx__fail(MEMTX_E_IO, "%s: the database is not a regular file", pages->path);
    }
    *is_empty = facts.st_size == 0;
    pages->n_pages = (uint64_t)facts.st_size / MEMTX__PAGE_BYTES;
    return MEMTX_OK;
}

/* Both metas, whose transactions follow each other. The file is measured once they are read: a writer makes it as large
 * as a meta needs before it writes that. */
static int read_metas(struct meta metas[2], struct memtx__pages *pages)
{
    unsigned char bytes[2][MEMTX__PAGE_BYTES];
    bool is_empty;
    int status =
        pages->n_pages < 2 ? memtx__fail(MEMTX_E_FORMAT, "%s: not an LMDB file: too short", pages->path) : MEMTX_OK;
    for (uint64_t page = 0; page < 2 && !status; page++) {
        status = memtx__page_read(bytes[page], pages, page);
    }
    if (!status) {
        status = measure(pages, &is_empty);
    }
    if (!status && !is_lmdb(bytes[0]) && !is_lmdb(bytes[1])) {
        status = memtx__fail(MEMTX_E_FORMAT, "%s: not an LMDB file of version %d with pages of %d bytes", pages->path,
                             LMDB_VERSION, MEMTX__PAGE_BYTES);
    }
    for (uint64_t page = 0; page < 2 && !status; page++) {
        status = read_meta(&metas[page], pages, bytes[page], page);
    }
    if (status) {
        return status;
    }
    const uint64_t even = metas[0].transaction, odd = metas[1].transaction;
    if ((even || odd) && (even % 2 || odd % 2 == 0 || (even + 1 != odd && odd + 1 != even))) {
        return memtx__page_damaged(pages, 0, "transactions %llu and, in page 1, %llu do not follow each other",
                                   (number)even, (number)odd);
    }
    return MEMTX_OK;
}

/* ---- tables ----------------------------------------------------------------------------------- */

struct tables {
    enum memtx__pages_extent extent;
    struct memtx__tree *trees;
    size_t n_trees, n_held;
};

/* A named table, to be walked when the main table has been. */
static int take_table(struct memtx__pages *pages, void *context, const struct memtx__node *node, uint64_t at)
{
    static const char *const large[] = {"keys", "values", "tokens"};
    struct tables *tables = context;
    (void)pages;
    (void)at;
    for (size_t i = 0; i < 3 && tables->extent == MEMTX__PAGES_SMALL; i++) {
        if (node->key.n_bytes == strlen(large[i]) && memcmp(node->key.bytes, large[i], node->key.n_bytes) == 0) {
            return MEMTX_OK;
        }
    }
    if (node->flags != MEMTX__NODE_TREE) {
        return MEMTX_OK; /* none of ours; whoever opens the tables will say so */
    }
    int status = memtx__grow(&tables->trees, &tables->n_held, tables->n_trees + 1, sizeof *tables->trees);
    if (!status) {
        memtx__tree_decode(&tables->trees[tables->n_trees++], node->data, MEMTX__TREE_TABLE, node->key);
    }
    return status;
}

/* Every page up to the last is in use or free. */
static int check_all_claimed(const struct memtx__pages *pages)
{
    uint64_t page = 2;
    if (pages->n_claimed == pages->last_page - 1) {
        return MEMTX_OK;
    }
    while (pages->claimed[page / 64] >> page % 64 & 1) {
        page++;
    }
    return memtx__page_damaged(pages, page, "is neither in use nor free");
}

static int check_tables(struct memtx__pages *pages, const struct meta *meta, uint64_t at,
                        enum memtx__pages_extent extent)
{
    struct tables tables = {.extent = extent};
    uint64_t transaction = meta->transaction;
    pages->last_page = meta->last_page;
    pages->n_claimable = meta->last_page + 1;
    pages->n_claimed = 0;
    if (extent == MEMTX__PAGES_SMALL && pages->n_claimable > pages->n_pages) {
        pages->n_claimable = pages->n_pages;
    }
    int status = memtx__alloc(&pages->claimed, (size_t)(pages->n_claimable / 64 + 1), sizeof *pages->claimed);
    if (!status) {
        status = memtx__tree_walk(pages, &meta->main, at, take_table, &tables);
    }
    for (size_t i = 0; i < tables.n_trees && !status; i++) {
        status = memtx__tree_walk(pages, &tables.trees[i], at, NULL, NULL);
    }
    if (!status && extent == MEMTX__PAGES_ALL) {
        status = memtx__tree_walk(pages, &meta->free, at, memtx__pages_take_free, &transaction);
    }
    if (!status && extent == MEMTX__PAGES_ALL) {
        status = check_all_claimed(pages);
    }
    memtx__free(tables.trees);
    memtx__free(pages->claimed);
    return status;
}

/* ---- the transaction that wrote the state ----------------------------------------------------- */

/* The transaction in the state record that a meta leads to; 0 when there is none, or none in it. */
static int state_transaction(uint64_t *out, struct memtx__pages *pages, const struct meta *meta, uint64_t at)
{
    struct memtx__node node;
    struct memtx__tree table;
    struct memtx__state state;
    *out = 0;
    pages->last_page = meta->last_page;
    int status = memtx__tree_find(&node, pages, &meta->main, at, "meta");
    if (!status && node.flags == MEMTX__NODE_TREE && node.n_data_bytes == MEMTX__TREE_BYTES) {
        memtx__tree_decode(&table, node.data, MEMTX__TREE_TABLE, node.key);
        status = memtx__tree_find(&node, pages, &table, at, "state");
    } else if (!status) {
        status = MEMTX_E_NOT_FOUND;
    }
    if (!status && node.flags == 0) {
        status = memtx__state_decode(&state, node.data, (size_t)node.n_data_bytes);
        *out = status ? 0 : memtx__get_u64(node.data + STATE_TRANSACTION_AT);
    }
    return status == MEMTX_E_NOT_FOUND ? MEMTX_OK : status; /* whoever looks for it will say so */
}

static int is_anothers(const struct memtx__pages *pages, const struct meta metas[2], uint64_t page, uint64_t found,
                       const char *advice)
{
    return memtx__page_damaged(pages, page, "transaction %llu leads to what %llu wrote%s",
                               (number)metas[page].transaction, (number)found, advice);
}

static uint64_t newest_of(const struct meta metas[2])
{
    return metas[0].transaction < metas[1].transaction;
}

/* What the older meta leads to, if it is more than it says: *found is then the transaction after the newest, whole, or
 * another whose state record stands there; else 0. */
static int find_beyond(uint64_t *found, bool *is_whole, struct memtx__pages *pages, const struct meta metas[2])
{
    const uint64_t newest = newest_of(metas), older = 1 - newest;
    *is_whole = false;
    int status = state_transaction(found, pages, &metas[older], older);
    if (!status && *found == metas[older].transaction) {
        *found = 0;
    }
    if (!status && *found == metas[newest].transaction + 1) {
        struct meta its = metas[older];
        its.transaction = *found;
        status = check_tables(pages, &its, older, MEMTX__PAGES_ALL);
        *is_whole = !status;
    }
    if (status == MEMTX_E_CORRUPT) {
        *found = 0; /* a commit that failed: nothing is read through it */
        status = MEMTX_OK;
    }
    return status;
}

/* Both metas lead to what their own transactions wrote. */
static int check_state_transactions(struct memtx__pages *pages, const struct meta metas[2])
{
    const uint64_t newest = newest_of(metas);
    uint64_t found;
    bool is_whole;
    int status = state_transaction(&found, pages, &metas[newest], newest);
    if (!status && found && found != metas[newest].transaction) {
        return is_anothers(pages, metas, newest, found, "");
    }
    if (!status) {
        status = find_beyond(&found, &is_whole, pages, metas);
    }
    if (!status && found) {
        return is_anothers(pages, metas, 1 - newest, found,
                           is_whole ? ", which is whole (opening the store to write puts that right)" : "");
    }
    return status;
}

/* ---- the file --------------------------------------------------------------------------------- */

static int check_file(uint64_t *newest, struct meta metas[2], struct memtx__pages *pages,
                      enum memtx__pages_extent extent, uint64_t txn_id)
{
    int status = read_metas(metas, pages);
    if (status) {
        return status;
    }
    *newest = metas[newest_of(metas)].transaction;
    const uint64_t at = (txn_id ? txn_id : *newest) & 1;
    if (txn_id && metas[at].transaction != txn_id) {
        return memtx__fail(MEMTX_E_BUSY, "%s: transaction %llu is no longer in the file, whose newest is %llu",
                           pages->path, (number)txn_id, (number)*newest);
    }
    status = check_state_transactions(pages, metas);
    return status ? status : check_tables(pages, &metas[at], at, extent);
}

/* Whether a writer committed since the metas were read: then a page may have been seen half in one state. */
static bool has_moved(struct memtx__pages *pages, const struct meta metas[2])
{
    struct meta now[2] = {0};
    return !read_metas(now, pages) &&
           (now[0].transaction != metas[0].transaction || now[1].transaction != metas[1].transaction);
}

static int begin(struct memtx__pages **out, bool *is_empty, int fd, const char *path)
{
    int status = memtx__alloc(out, 1, sizeof **out);
    if (!status) {
        (*out)->fd = fd;
        (*out)->path = path;
        status = measure(*out, is_empty);
    }
    return status;
}

int memtx__pages_check(uint64_t *out_txn_id, int fd, const char *path, enum memtx__pages_extent extent, uint64_t txn_id)
{
    struct memtx__pages *pages = NULL;
    struct meta metas[2] = {0};
    uint64_t newest = 0;
    bool is_empty = false;
    int status = begin(&pages, &is_empty, fd, path);
    if (!status && !is_empty) {
        status = check_file(&newest, metas, pages, extent, txn_id);
    }
    if (status == MEMTX_E_CORRUPT && has_moved(pages, metas)) {
        status = memtx__fail(MEMTX_E_BUSY, "%s: was written while it was checked (try again)", path);
    }
    if (out_txn_id) {
        *out_txn_id = newest;
    }
    memtx__free(pages);
    return status;
}

/* The whole meta, in one write within a sector: what it has besides the number may not have reached the disk either. */
static int write_transaction(struct memtx__pages *pages, uint64_t page, uint64_t transaction)
{
    unsigned char bytes[MEMTX__PAGE_BYTES];
    int status = memtx__page_read(bytes, pages, page);
    if (status) {
        return status;
    }
    memtx__put_u64(bytes + TRANSACTION_AT, transaction);
    const size_t n_bytes = META_END - MAGIC_AT;
    errno = EIO; /* of a write that is cut short */
    if (pwrite(pages->fd, bytes + MAGIC_AT, n_bytes, (off_t)(page * MEMTX__PAGE_BYTES + MAGIC_AT)) !=
            (ssize_t)n_bytes ||
        fsync(pages->fd)) {
        return memtx__fail(memtx__errno_status(errno), "%s: cannot write the number of transaction %llu: %s",
                           pages->path, (number)transaction, strerror(errno));
    }
    return MEMTX_OK;
}

int memtx__pages_roll_forward(int fd, const char *path)
{
    struct memtx__pages *pages = NULL;
    struct meta metas[2] = {0};
    uint64_t found = 0;
    bool is_empty = false, is_whole = false;
    int status = begin(&pages, &is_empty, fd, path);
    if (!status && !is_empty) {
        status = read_metas(metas, pages);
    }
    if (!status && !is_empty) {
        status = find_beyond(&found, &is_whole, pages, metas);
    }
    if (!status && is_whole) {
        status = write_transaction(pages, 1 - newest_of(metas), found);
    }
    memtx__free(pages);
    return status;
}
