/* LMDB's file checked by ourselves, before LMDB is let near it.
 *
 * LMDB trusts its file: a damaged page can crash the process, and a damaged meta page can silently bring back an older
 * state. So what LMDB goes by is read here first, page by page, with every number bounded before it is used: metas,
 * trees and the list of free pages (pages_tree.h has the format). The data themselves, records and rows, have checksums
 * of their own (records.h) and are not read here.
 *
 * What is not seen changes nothing that is ever returned: bytes that nothing uses (behind the metas, between the
 * offsets and the nodes of a page, behind a node of an odd size, free pages), the address and the size of the map in
 * the metas, the two bytes of a header that have no use, what the older meta says of its trees, a branch's key that
 * still parts the keys on either side of it. And what the records notice: a byte of a key that stays in its order, of a
 * record or row, and the size of a large value within its pages.
 */
#ifndef MEMTX_STORE_PAGES_H
#define MEMTX_STORE_PAGES_H

#include <stdint.h>

/* Which tables are walked: SMALL the metas, the main table, and the named tables whose name is not keys, values or
 * tokens (so that opening costs no scan); ALL every table and the free pages. */
enum memtx__pages_extent { MEMTX__PAGES_SMALL, MEMTX__PAGES_ALL };

/* Checks data.mdb, open for reading as fd, as the transaction txn_id left it, which a reader holds (0: the newest).
 * *out_txn_id (may be NULL) is the newest transaction found. `path` is for messages only. An empty file, and one in
 * which nothing was ever written, are fine. MEMTX_E_CORRUPT: the text names the first damage and its page;
 * MEMTX_E_FORMAT: not LMDB's, or with another page size or version; MEMTX_E_BUSY: a writer went on meanwhile, or txn_id
 * is not there any more (try again with the newest); MEMTX_E_IO; MEMTX_E_NO_MEMORY. Reads one page after the other, and
 * of a large value only its first page's header; takes 132 KiB and a bit for each page. */
int memtx__pages_check(uint64_t *out_txn_id, int fd, const char *path, enum memtx__pages_extent extent,
                       uint64_t txn_id);

/* For a writer, before LMDB opens the file, when the check said MEMTX_E_CORRUPT: where the newest commit is whole but
 * for its number in the meta page (pages.c), writes that and syncs. Anything else is left as it is, MEMTX_OK too; so
 * check again. fd is open for reading and writing. MEMTX_E_CORRUPT (no metas to go by), MEMTX_E_FORMAT, MEMTX_E_IO,
 * MEMTX_E_NO_SPACE, MEMTX_E_NO_MEMORY. */
int memtx__pages_roll_forward(int fd, const char *path);

#endif
