/* LMDB's pages and trees, as much of its format as checking them needs (pages.h). Version 1 of the format, 4,096-byte
 * pages, 64 bits; numbers are little-endian and stand at any even place.
 *
 *   page: a header, then what its kind has
 *     0   8  its own number             8   2  not used
 *    10   2  kind: 1 branch, 2 leaf, 4 overflow, 8 meta
 *    12   2  lower                     14   2  upper: the nodes' offsets stand from 16 to lower, 2 bytes each, in the
 *                                              order of the keys; the nodes from upper to the end, without gaps
 *    12   4  of an overflow page: the number of pages of its run, of which only the first has a header
 *
 *   meta page, 0 and 1; transaction n writes the one that is n % 2
 *    16   4  0xBEEFC0DE                20   4  version, 1
 *    24   8  address of the map        32   8  size of the map: neither is used here
 *    40  48  the tree of free pages    88  48  the main tree, of the named tables
 *   136   8  last page                144   8  transaction; 0 in both while nothing was ever written
 *
 *   tree
 *     0   4  of the free pages' tree: the page size; else 0
 *     4   2  flags: 8 the keys are numbers (the free pages' tree); else 0 here
 *     6   2  depth                      8   8  branch pages
 *    16   8  leaf pages                24   8  overflow pages
 *    32   8  entries                   40   8  root; all ones when the tree is empty
 *
 *   node, as long as it must be to be even
 *     0   4  leaf: bytes of its data; branch: the low bytes of the child's page number
 *     4   2  leaf: 1 the data is the number of an overflow page, 2 the data is a tree; branch: the child's high bytes
 *     6   2  bytes of its key; 0 in the first node of a branch, which stands for all keys below the second's
 *     8      key, data
 *
 *   free pages: key u64 transaction -> u64 n, u64[n] page numbers, descending; 0 may stand before room that is not used
 */
#ifndef MEMTX_STORE_PAGES_TREE_H
#define MEMTX_STORE_PAGES_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memtx/status.h"
#include "store/store_format.h"

enum {
    MEMTX__PAGE_HEADER_BYTES = MEMTX__LMDB_PAGE_HEADER_BYTES,
    MEMTX__TREE_BYTES = 48,
    MEMTX__MAX_TREE_DEPTH = 32,
    MEMTX__MAX_KEY_BYTES = 511,
};

enum memtx__page_kind { MEMTX__PAGE_BRANCH = 1, MEMTX__PAGE_LEAF = 2, MEMTX__PAGE_OVERFLOW = 4, MEMTX__PAGE_META = 8 };
enum memtx__node_flags { MEMTX__NODE_OVERFLOW = 1, MEMTX__NODE_TREE = 2 };
enum memtx__tree_kind { MEMTX__TREE_FREE, MEMTX__TREE_MAIN, MEMTX__TREE_TABLE };

struct memtx__key {
    const unsigned char *bytes;
    size_t n_bytes;
};

struct memtx__node {
    struct memtx__key key;
    uint64_t child;            /* of a branch */
    unsigned flags;            /* of a leaf: enum memtx__node_flags */
    uint64_t n_data_bytes;     /* of a leaf */
    const unsigned char *data; /* of a leaf: the data, or the number of the overflow page that it begins in */
};

struct memtx__tree {
    enum memtx__tree_kind kind;
    char name[24]; /* for messages */
    uint32_t page_bytes;
    unsigned flags, depth;
    uint64_t n_branch_pages, n_leaf_pages, n_overflow_pages, n_entries;
    uint64_t root;
};

/* A page on the way from the root, and the keys that it may have: from `low` on and below `high`; NULL: no bound. */
struct memtx__level {
    unsigned char bytes[MEMTX__PAGE_BYTES];
    size_t n_nodes, next;
    struct memtx__key low, high;
};

/* The file that is checked. */
struct memtx__pages {
    int fd;
    const char *path;
    uint64_t n_pages;   /* whole ones in the file */
    uint64_t last_page; /* of the transaction that is looked at */
    uint64_t *claimed;  /* a bit for each page that something uses, or that is free */
    uint64_t n_claimable, n_claimed;
    struct memtx__level levels[MEMTX__MAX_TREE_DEPTH];
};

/* Called with each node of a leaf; `at` is the leaf's page. What it points to is gone with the next call. */
typedef int memtx__take_node(struct memtx__pages *pages, void *context, const struct memtx__node *node, uint64_t at);

/* MEMTX_E_CORRUPT: "PATH: page N: ..". */
int memtx__page_damaged(const struct memtx__pages *pages, uint64_t page, const char *format, ...) MEMTX_PRINTF(3, 4);

/* A whole page as it stands in the file; MEMTX_E_CORRUPT past its end, MEMTX_E_IO. */
int memtx__page_read(unsigned char out[MEMTX__PAGE_BYTES], const struct memtx__pages *pages, uint64_t page);

/* Takes n pages that page `at` names: each lies in what can be claimed, and nothing took it before. */
int memtx__pages_claim(struct memtx__pages *pages, uint64_t first, uint64_t n, uint64_t at);

void memtx__tree_decode(struct memtx__tree *out, const unsigned char bytes[MEMTX__TREE_BYTES],
                        enum memtx__tree_kind kind, struct memtx__key name);

/* Checks a tree whose record stands on page `at` from its root to its last leaf, claims its pages and compares their
 * numbers with the record's. `take` may be NULL. */
int memtx__tree_walk(struct memtx__pages *pages, const struct memtx__tree *tree, uint64_t at, memtx__take_node *take,
                     void *context);

/* The node of a key, by the one way from the root to it, whose pages are checked and not claimed; *out is borrowed from
 * `pages` until the next call. MEMTX_E_NOT_FOUND. */
int memtx__tree_find(struct memtx__node *out, struct memtx__pages *pages, const struct memtx__tree *tree, uint64_t at,
                     const char *key);

/* pages_free.c: a record of the free pages' tree, as a memtx__take_node; *context is the u64 transaction that is looked
 * at. Claims the pages that it lists. */
memtx__take_node memtx__pages_take_free;

#endif
