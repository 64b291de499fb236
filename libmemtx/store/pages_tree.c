/* LMDB's trees, page by page (pages_tree.h).
 *
 * A page is taken apart only after its layout was checked: offsets, sizes and bounds fit, and its nodes fill it from
 * `upper` to its end without a gap, as LMDB leaves them. A tree is walked with a stack of pages, one for each level, so
 * neither cycles nor depth cost more than the file has pages: each page can be claimed once.
 */
#include "store/pages_tree.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/status.h"

enum { KIND_AT = 10, LOWER_AT = 12, UPPER_AT = 14, RUN_AT = 12, NODE_HEADER_BYTES = 8 };

static const uint64_t no_page = UINT64_MAX;

typedef unsigned long long number; /* for printing */

int memtx__page_damaged(const struct memtx__pages *pages, uint64_t page, const char *format, ...)
{
    char what[160];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return memtx__fail(MEMTX_E_CORRUPT, "%s: page %llu: %s", pages->path, (number)page, what);
}

/* ---- pages ------------------------------------------------------------------------------------ */

static int read_bytes(unsigned char *out, size_t n_bytes, const struct memtx__pages *pages, uint64_t page)
{
    size_t n_read = 0;
    if (page >= pages->n_pages) {
        return memtx__page_damaged(pages, page, "is past the end of the file");
    }
    while (n_read < n_bytes) {
        ssize_t n = pread(pages->fd, out + n_read, n_bytes - n_read, (off_t)(page * MEMTX__PAGE_BYTES + n_read));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return memtx__fail(memtx__errno_status(errno), "%s: cannot read page %llu: %s", pages->path, (number)page,
                               strerror(errno));
        }
        if (n == 0) {
            return memtx__page_damaged(pages, page, "is past the end of the file");
        }
        n_read += (size_t)n;
    }
    return MEMTX_OK;
}

int memtx__page_read(unsigned char out[MEMTX__PAGE_BYTES], const struct memtx__pages *pages, uint64_t page)
{
    return read_bytes(out, MEMTX__PAGE_BYTES, pages, page);
}

int memtx__pages_claim(struct memtx__pages *pages, uint64_t first, uint64_t n, uint64_t at)
{
    if (first < 2 || n < 1 || first >= pages->n_claimable || n > pages->n_claimable - first) {
        return memtx__page_damaged(pages, at, "names page %llu and %llu after it, where 2 to %llu can be",
                                   (number)first, (number)n - 1, (number)pages->n_claimable - 1);
    }
    for (uint64_t page = first; page < first + n; page++) {
        uint64_t bit = (uint64_t)1 << page % 64;
        if (pages->claimed[page / 64] & bit) {
            return memtx__page_damaged(pages, at, "names page %llu, which is in use or free elsewhere", (number)page);
        }
        pages->claimed[page / 64] |= bit;
    }
    pages->n_claimed += n;
    return MEMTX_OK;
}

/* The header that a page of a tree or the first of a run must have. */
static int check_header(const struct memtx__pages *pages, const unsigned char *bytes, uint64_t page,
                        enum memtx__page_kind kind)
{
    if (memtx__get_u64(bytes) != page) {
        return memtx__page_damaged(pages, page, "says that it is page %llu", (number)memtx__get_u64(bytes));
    }
    if (memtx__get_u16(bytes + KIND_AT) != kind) {
        return memtx__page_damaged(pages, page, "is of kind %u in place of %d", memtx__get_u16(bytes + KIND_AT),
                                   (int)kind);
    }
    return MEMTX_OK;
}

/* ---- nodes ------------------------------------------------------------------------------------ */

/* What a node takes of its page, whose own header lies in it. */
static size_t node_bytes(const unsigned char *node, bool is_leaf)
{
    size_t n_bytes = (size_t)NODE_HEADER_BYTES + memtx__get_u16(node + 6);
    if (is_leaf) {
        n_bytes += memtx__get_u16(node + 4) & MEMTX__NODE_OVERFLOW ? sizeof(uint64_t) : memtx__get_u32(node);
    }
    return n_bytes + n_bytes % 2;
}

/* The nodes lie between `upper` and the page's end, none in another, and fill it. */
static int check_nodes(const struct memtx__pages *pages, const unsigned char *bytes, uint64_t page, size_t n)
{
    uint16_t sizes[MEMTX__PAGE_BYTES / 2] = {0}; /* of the node that begins there */
    const bool is_leaf = memtx__get_u16(bytes + KIND_AT) == MEMTX__PAGE_LEAF;
    const size_t upper = memtx__get_u16(bytes + UPPER_AT);
    for (size_t i = 0; i < n; i++) {
        const size_t at = memtx__get_u16(bytes + MEMTX__PAGE_HEADER_BYTES + 2 * i);
        if (at < upper || at % 2 || at > MEMTX__PAGE_BYTES - NODE_HEADER_BYTES || sizes[at / 2] ||
            node_bytes(bytes + at, is_leaf) > MEMTX__PAGE_BYTES - at) {
            return memtx__page_damaged(pages, page, "node %zu of %zu cannot be at %zu", i, n, at);
        }
        sizes[at / 2] = (uint16_t)node_bytes(bytes + at, is_leaf);
    }
    size_t end = upper, n_met = 0;
    while (end < MEMTX__PAGE_BYTES && sizes[end / 2]) {
        end += sizes[end / 2];
        n_met++;
    }
    return end == MEMTX__PAGE_BYTES && n_met == n
               ? MEMTX_OK
               : memtx__page_damaged(pages, page, "its nodes overlap or leave a gap at %zu", end);
}

/* The number of a page's nodes, after which each of them may be read. */
static int check_layout(size_t *n_nodes, const struct memtx__pages *pages, const unsigned char *bytes, uint64_t page)
{
    const bool is_leaf = memtx__get_u16(bytes + KIND_AT) == MEMTX__PAGE_LEAF;
    const size_t lower = memtx__get_u16(bytes + LOWER_AT), upper = memtx__get_u16(bytes + UPPER_AT);
    if (lower < MEMTX__PAGE_HEADER_BYTES || lower % 2 || upper % 2 || lower > upper || upper > MEMTX__PAGE_BYTES) {
        return memtx__page_damaged(pages, page, "its free space is from %zu to %zu", lower, upper);
    }
    *n_nodes = (lower - MEMTX__PAGE_HEADER_BYTES) / 2;
    if (*n_nodes < (is_leaf ? 1 : 2)) {
        return memtx__page_damaged(pages, page, "has %zu nodes", *n_nodes);
    }
    return check_nodes(pages, bytes, page, *n_nodes);
}

static struct memtx__node node_at(const unsigned char *bytes, size_t i)
{
    const unsigned char *node = bytes + memtx__get_u16(bytes + MEMTX__PAGE_HEADER_BYTES + 2 * i);
    struct memtx__node out = {.key = {node + NODE_HEADER_BYTES, memtx__get_u16(node + 6)}};
    if (memtx__get_u16(bytes + KIND_AT) == MEMTX__PAGE_LEAF) {
        out.flags = memtx__get_u16(node + 4);
        out.n_data_bytes = memtx__get_u32(node);
        out.data = out.key.bytes + out.key.n_bytes;
    } else {
        out.child = memtx__get_le(node, 6);
    }
    return out;
}

static int compare(struct memtx__key a, struct memtx__key b, enum memtx__tree_kind kind)
{
    if (kind == MEMTX__TREE_FREE) {
        uint64_t x = memtx__get_u64(a.bytes), y = memtx__get_u64(b.bytes);
        return (x > y) - (x < y);
    }
    int order = memcmp(a.bytes, b.bytes, a.n_bytes < b.n_bytes ? a.n_bytes : b.n_bytes);
    return order ? order : (a.n_bytes > b.n_bytes) - (a.n_bytes < b.n_bytes);
}

/* The keys ascend, and lie between the level's bounds. */
static int check_keys(const struct memtx__pages *pages, const struct memtx__level *level, uint64_t page,
                      enum memtx__tree_kind kind)
{
    const bool is_leaf = memtx__get_u16(level->bytes + KIND_AT) == MEMTX__PAGE_LEAF;
    struct memtx__key before = level->low;
    for (size_t i = 0; i < level->n_nodes; i++) {
        const struct memtx__key key = node_at(level->bytes, i).key;
        if (!is_leaf && i == 0) {
            if (key.n_bytes) {
                return memtx__page_damaged(pages, page, "its first key has %zu bytes", key.n_bytes);
            }
            continue;
        }
        if (kind == MEMTX__TREE_FREE ? key.n_bytes != 8 : key.n_bytes < 1 || key.n_bytes > MEMTX__MAX_KEY_BYTES) {
            return memtx__page_damaged(pages, page, "key %zu has %zu bytes", i, key.n_bytes);
        }
        /* The bound itself may be a leaf's first key; it is already in the branch above. */
        const int order = before.bytes ? compare(before, key, kind) : -1;
        if (order > 0 || (order == 0 && !(is_leaf && i == 0)) ||
            (level->high.bytes && compare(key, level->high, kind) >= 0)) {
            return memtx__page_damaged(pages, page, "key %zu is not in its place", i);
        }
        before = key;
    }
    return MEMTX_OK;
}

/* ---- trees ------------------------------------------------------------------------------------ */

void memtx__tree_decode(struct memtx__tree *out, const unsigned char bytes[MEMTX__TREE_BYTES],
                        enum memtx__tree_kind kind, struct memtx__key name)
{
    *out = (struct memtx__tree){.kind = kind,
                                .page_bytes = memtx__get_u32(bytes),
                                .flags = memtx__get_u16(bytes + 4),
                                .depth = memtx__get_u16(bytes + 6),
                                .n_branch_pages = memtx__get_u64(bytes + 8),
                                .n_leaf_pages = memtx__get_u64(bytes + 16),
                                .n_overflow_pages = memtx__get_u64(bytes + 24),
                                .n_entries = memtx__get_u64(bytes + 32),
                                .root = memtx__get_u64(bytes + 40)};
    for (size_t i = 0; i < name.n_bytes && i + 1 < sizeof out->name; i++) {
        out->name[i] = (char)(name.bytes[i] > ' ' && name.bytes[i] < 0x7f ? name.bytes[i] : '?');
    }
}

/* With which make.c opens a file that it makes: LMDB keeps it there, and does not go by it. */
#define NO_SUBDIRECTORY 0x4000U

/* What a tree's record says by itself. */
static int check_record(const struct memtx__pages *pages, const struct memtx__tree *tree, uint64_t at)
{
    const bool is_free = tree->kind == MEMTX__TREE_FREE;
    const unsigned flags = is_free ? tree->flags & ~NO_SUBDIRECTORY : tree->flags;
    if (flags != (is_free ? 8U : 0U) || tree->page_bytes != (is_free ? MEMTX__PAGE_BYTES : 0U)) {
        return memtx__page_damaged(pages, at, "table %s has flags %x, page size %u", tree->name, tree->flags,
                                   tree->page_bytes);
    }
    if (tree->depth > MEMTX__MAX_TREE_DEPTH || (tree->depth == 0) != (tree->root == no_page)) {
        return memtx__page_damaged(pages, at, "table %s has depth %u, root %llu", tree->name, tree->depth,
                                   (number)tree->root);
    }
    return MEMTX_OK;
}

/* Reads and checks page `page` into level `depth` of the way; low and high are there already. */
static int load_level(struct memtx__pages *pages, const struct memtx__tree *tree, size_t depth, uint64_t page)
{
    struct memtx__level *level = &pages->levels[depth];
    int status = memtx__page_read(level->bytes, pages, page);
    if (!status) {
        status =
            check_header(pages, level->bytes, page, depth + 1 == tree->depth ? MEMTX__PAGE_LEAF : MEMTX__PAGE_BRANCH);
    }
    if (!status) {
        status = check_layout(&level->n_nodes, pages, level->bytes, page);
    }
    if (!status) {
        status = check_keys(pages, level, page, tree->kind);
    }
    level->next = 0;
    return status;
}

/* The run of pages that a node's data are in. A run may be longer than the data need. */
static int check_run(struct memtx__pages *pages, const struct memtx__node *node, uint64_t at, uint64_t *n_pages)
{
    unsigned char header[MEMTX__PAGE_HEADER_BYTES];
    const uint64_t page = memtx__get_u64(node->data);
    int status = read_bytes(header, sizeof header, pages, page);
    if (!status) {
        status = check_header(pages, header, page, MEMTX__PAGE_OVERFLOW);
    }
    if (status) {
        return status;
    }
    *n_pages = memtx__get_u32(header + RUN_AT);
    if (*n_pages > pages->n_pages - page ||
        node->n_data_bytes + MEMTX__PAGE_HEADER_BYTES > *n_pages * MEMTX__PAGE_BYTES) {
        return memtx__page_damaged(pages, page, "%llu pages for %llu bytes of data", (number)*n_pages,
                                   (number)node->n_data_bytes);
    }
    return memtx__pages_claim(pages, page, *n_pages, at);
}

/* One walk: the tree as its record says, and as it was found. */
struct walk {
    struct memtx__pages *pages;
    const struct memtx__tree *tree;
    struct memtx__tree found;
    memtx__take_node *take;
    void *context;
};

static int visit_leaf(struct walk *walk, const struct memtx__level *level, uint64_t page)
{
    int status = MEMTX_OK;
    for (size_t i = 0; i < level->n_nodes && !status; i++) {
        const struct memtx__node node = node_at(level->bytes, i);
        if (node.flags == MEMTX__NODE_TREE
                ? walk->tree->kind != MEMTX__TREE_MAIN || node.n_data_bytes != MEMTX__TREE_BYTES
                : node.flags & ~(unsigned)MEMTX__NODE_OVERFLOW) {
            return memtx__page_damaged(walk->pages, page, "node %zu has flags %x", i, node.flags);
        }
        if (node.flags == MEMTX__NODE_OVERFLOW) {
            uint64_t n_pages = 0;
            status = check_run(walk->pages, &node, page, &n_pages);
            walk->found.n_overflow_pages += n_pages;
        }
        if (!status && walk->take) {
            status = walk->take(walk->pages, walk->context, &node, page);
        }
    }
    walk->found.n_entries += level->n_nodes;
    return status;
}

/* Goes down to a page that page `at` names, of which level `depth` has the bounds. */
static int enter(struct walk *walk, size_t depth, uint64_t page, uint64_t at)
{
    struct memtx__level *level = &walk->pages->levels[depth];
    int status = memtx__pages_claim(walk->pages, page, 1, at);
    if (!status) {
        status = load_level(walk->pages, walk->tree, depth, page);
    }
    if (status) {
        return status;
    }
    if (depth + 1 < walk->tree->depth) {
        walk->found.n_branch_pages++;
        return MEMTX_OK;
    }
    walk->found.n_leaf_pages++;
    level->next = level->n_nodes;
    return visit_leaf(walk, level, page);
}

/* The child that node i of a branch names, and its bounds into the level below. */
static uint64_t descend(struct memtx__level *branch, size_t i)
{
    struct memtx__level *below = branch + 1;
    const struct memtx__node node = node_at(branch->bytes, i);
    below->low = i ? node.key : branch->low;
    below->high = i + 1 < branch->n_nodes ? node_at(branch->bytes, i + 1).key : branch->high;
    return node.child;
}

static int compare_counts(const struct memtx__pages *pages, const struct memtx__tree *tree,
                          const struct memtx__tree *found, uint64_t at)
{
    if (tree->n_branch_pages != found->n_branch_pages || tree->n_leaf_pages != found->n_leaf_pages ||
        tree->n_overflow_pages != found->n_overflow_pages || tree->n_entries != found->n_entries) {
        return memtx__page_damaged(
            pages, at, "table %s has %llu + %llu + %llu pages, %llu entries; recorded %llu + %llu + %llu, %llu",
            tree->name, (number)found->n_branch_pages, (number)found->n_leaf_pages, (number)found->n_overflow_pages,
            (number)found->n_entries, (number)tree->n_branch_pages, (number)tree->n_leaf_pages,
            (number)tree->n_overflow_pages, (number)tree->n_entries);
    }
    return MEMTX_OK;
}

int memtx__tree_walk(struct memtx__pages *pages, const struct memtx__tree *tree, uint64_t at, memtx__take_node *take,
                     void *context)
{
    struct walk walk = {.pages = pages, .tree = tree, .take = take, .context = context};
    int status = check_record(pages, tree, at);
    if (!status && tree->depth) {
        pages->levels[0].low = pages->levels[0].high = (struct memtx__key){NULL, 0};
        status = enter(&walk, 0, tree->root, at);
    }
    for (size_t depth = 0; !status && tree->depth;) {
        struct memtx__level *level = &pages->levels[depth];
        if (level->next < level->n_nodes) {
            const uint64_t page = descend(level, level->next++);
            status = enter(&walk, ++depth, page, memtx__get_u64(level->bytes));
        } else if (depth-- == 0) {
            break;
        }
    }
    return status ? status : compare_counts(pages, tree, &walk.found, at);
}

/* The node of a page that leads to a key, or in a leaf is the key's: n_nodes when there is none. */
static size_t search(const struct memtx__level *level, struct memtx__key key, bool is_leaf)
{
    size_t found = is_leaf ? level->n_nodes : 0;
    for (size_t i = is_leaf ? 0 : 1; i < level->n_nodes; i++) {
        const int order = compare(node_at(level->bytes, i).key, key, MEMTX__TREE_TABLE);
        if (is_leaf ? order == 0 : order <= 0) {
            found = i;
        }
    }
    return found;
}

int memtx__tree_find(struct memtx__node *out, struct memtx__pages *pages, const struct memtx__tree *tree, uint64_t at,
                     const char *key)
{
    const struct memtx__key wanted = {(const unsigned char *)key, strlen(key)};
    uint64_t page = tree->root;
    int status = check_record(pages, tree, at);
    pages->levels[0].low = pages->levels[0].high = (struct memtx__key){NULL, 0};
    for (size_t depth = 0; depth < tree->depth && !status; depth++) {
        struct memtx__level *level = &pages->levels[depth];
        const bool is_leaf = depth + 1 == tree->depth;
        if (page < 2 || page > pages->last_page) {
            return memtx__page_damaged(pages, at, "names page %llu of %llu", (number)page, (number)pages->last_page);
        }
        status = load_level(pages, tree, depth, page);
        const size_t i = status ? 0 : search(level, wanted, is_leaf);
        if (!status && is_leaf && i < level->n_nodes) {
            *out = node_at(level->bytes, i);
            return MEMTX_OK;
        }
        if (!status && !is_leaf) {
            at = page;
            page = descend(level, i);
        }
    }
    return status ? status : MEMTX_E_NOT_FOUND;
}
