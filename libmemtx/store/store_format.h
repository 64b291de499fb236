/* The store's format, byte by byte. Version 2. All numbers are little-endian but those in LMDB keys, which are
 * big-endian so that their order as bytes is their order as numbers.
 *
 * A store is a directory (0700):
 *
 *   data.mdb   LMDB: the truth                  lock.mdb   LMDB: readers and the write lock
 *   writer     locked (flock) by the one process that writes; holds a line that tells who that is or was
 *   new.mdb    data.mdb while it is made; one that is left has broken off and counts for nothing
 *   run-GGGGGGGGGGGGGGGG.idx   index files, by their number in hexadecimal; derived: all can be deleted. run.tmp is one
 *              that is being made
 *
 * The LMDB environment has these named databases:
 *
 *   "meta"     "spec"   -> spec record          what the store is for; written once
 *              "rope"   -> f32[rope_dims / 2]   frequency factors; absent when all are one
 *              "state"  -> state record         written by every transaction that appends
 *   "docs"     be64 document id   -> document record
 *   "extents"  be64 first row id  -> extent record: rows of one document whose positions ascend by one
 *   "tokens"   be64 chunk         -> u32[n] token ids of the chunk's rows, then u32 CRC-32C of them
 *   "keys"     be64 chunk, be16 layer, be16 kv head -> chunk
 *   "values"   the same
 *   "running"  be64 document id, be32 piece -> piece of the document's running state, from which a reading goes on
 *   "runs"     be64 first row id     -> run record: an index file beside the database
 *
 * A row that lies in no extent is dead: its document was removed, or a reading was resumed before it. Chunk c holds the
 * rows c * chunk_rows .. ; a chunk none of whose rows is visible is absent.
 *
 *   spec record, 256 + 64 + 512 bytes, then 8 for each layer
 *     0   8  "memtx\0st"           magic
 *     8   4  format version, 2
 *    12   4  CRC-32C of the record with these four bytes zero
 *    16  16  fingerprint of the model
 *    32   4  n_layers              36  4  n_heads
 *    40   4  n_kv_heads            44  4  head_size
 *    48   4  rope_dims             52  4  row type: 0 f16, 1 bf16, 2 f32
 *    56   8  rope_base (f64)       64  4  scale (f32)
 *    68   4  chunk_rows
 *    72   4  CRC-32C of what "rope" holds, 0 where it is absent
 *    76 180  zero
 *   256  64  name of the pre-tokenizer, zero-padded
 *   320 512  settings, zero-padded text
 *   832   8 each layer: the kv heads kept, bit g for kv head g. A bit at or past n_kv_heads is damage; one bit at least
 *            is set
 *
 *   state record, 48 bytes
 *     0   8  n_rows: ids given out      8   8  first visible row
 *    16   8  next document id          24   8  number of transactions that appended
 *    32   8  LMDB's id of the transaction that wrote this: every one does, so it is that of the snapshot. LMDB, which
 *            trusts its own two meta pages, is found out when one of them brings back an older snapshot
 *    40   4  next number of an index   44   4  CRC-32C of the record with these four bytes zero
 *            file
 *
 *   document record, 64 + 256 bytes
 *     0   8  n_tokens: rows of the document
 *     8   4  state: 0 open, 1 ended
 *    12  16  XXH3-128 of the token ids (u32 each) that were read when the running state was taken; zero without one
 *    28   8  document id
 *    36   8  n_read: tokens read when the running state was taken
 *    44   8  state_row: rows of the document from this id on came after it
 *    52   8  bytes of the running state; 0: there is none
 *    60   4  CRC-32C of the record with these four bytes zero
 *    64 256  name, zero-padded
 *
 *   extent record, 32 bytes
 *     0   8  n_rows                     8   8  document id
 *    16   8  position of the first row 24   4  first row id, its low 32 bits
 *    28   4  CRC-32C of the record with these four bytes zero
 *
 *   chunk: 240 bytes of header, then n_rows * row_bytes bytes of rows, then zeros up to whole pages
 *     0   4  "mtxK" or "mtxV"           4   4  CRC-32C of the header with these four bytes zero
 *     8   8  first row id              16   4  n_rows
 *    20   4  bytes of a row            24   4  layer
 *    28   4  kv head                   32   4  CRC-32C of the rows
 *    36 204  zero
 *
 *   piece of a running state: 16 bytes of header, then up to 65,504 bytes of the state (model/state.c)
 *     0   4  "mtxS"                     4   4  CRC-32C of all that follows
 *     8   4  piece                     12   4  low 32 bits of state_row
 *
 *   run record, 256 bytes
 *     0   8  number of the file: never used again for other contents
 *     8   8  first row id              16   8  n_rows
 *    24   8  bytes of the file         32  16  XXH3-128 of the file's head
 *    48   4  CRC-32C of the record with these four bytes zero
 *    52  12  zero                      64 192  spec of the index (memtx/index.h), zero-padded text
 *
 *   index file: 64 bytes, then 48 for each pair kept, in the order of layer and kv head; then the blobs, each at a
 *   multiple of 64
 *     0   8  "memtx\0ix"                8   4  version of index files, 1
 *    12   4  number of pairs           16   8  first row id
 *    24   8  n_rows                    32   8  number of the file
 *    40   4  head size                 44   4  zero
 *    48  16  fingerprint of the model
 *   each pair:
 *     0   4  layer                      4   4  kv head
 *     8   8  where its blob begins     16   8  bytes of the blob
 *    24  16  XXH3-128 of the blob      40   8  zero
 *   each blob: what the index of the run's spec has saved. Of the spec "cluster", with or without what follows an @: blocks
 *   of clustered rows, as search/cluster_bytes.c tells; the run is whole blocks, of any length
 *
 * LMDB puts a 16-byte header before a value of its own pages, so the header's size makes the first row stand at 256:
 * 64-byte aligned, and a full chunk's 65,520 bytes fill 16 pages exactly.
 *
 * History
 *   1  the first. No tables "running" and "runs"; the spec record ends with the settings, and its bytes 72 to 135
 *      are the layers kept with all their kv heads, bit l % 8 of byte l / 8; in the state record bytes 32 to 39, in
 *      document records 28 to 59, in extent records 24 to 27 are zero, and a document's hash is that of its text. Read
 *      as it is, up to 64 kv heads; the first process that opens it for writing makes it version 2, in one transaction.
 *   2  index files; running states; pairs kept in place of layers; records carry the number they stand under, the state record its
 *      transaction, the spec record the checksum of the RoPE factors.
 */
#ifndef MEMTX_STORE_FORMAT_H
#define MEMTX_STORE_FORMAT_H

enum {
    MEMTX__FORMAT_VERSION = 2,
    MEMTX__SPEC_BYTES = 832,       /* and 8 for each layer */
    MEMTX__MOST_SPEC_BYTES = 4928, /* of MEMTX_MAX_LAYERS */
    MEMTX__STATE_BYTES = 48,
    MEMTX__DOCUMENT_BYTES = 320,
    MEMTX__EXTENT_BYTES = 32,
    MEMTX__CHUNK_HEADER_BYTES = 240,
    MEMTX__CHUNK_BYTES = 65520,
    MEMTX__PAGE_BYTES = 4096,
    MEMTX__LMDB_PAGE_HEADER_BYTES = 16,
    MEMTX__CHUNK_KEY_BYTES = 12,
    MEMTX__PIECE_HEADER_BYTES = 16,
    MEMTX__PIECE_KEY_BYTES = 12,
    MEMTX__RUN_BYTES = 256,
    MEMTX__RUN_SPEC_BYTES = 192,
    MEMTX__RUN_HEAD_BYTES = 64, /* and 48 for each pair */
    MEMTX__RUN_BLOB_BYTES = 48,
    MEMTX__RUN_VERSION = 1,
};

#define MEMTX__SPEC_MAGIC "memtx\0st"
#define MEMTX__RUN_MAGIC "memtx\0ix"

#endif
