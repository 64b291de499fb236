/* The records of store_format.h to and from the structs that the library works with. Decoding checks size, checksum and
 * every bound, and answers MEMTX_E_CORRUPT, MEMTX_E_FORMAT or MEMTX_E_UNSUPPORTED with a text that names the record.
 * Encoding writes the newest version; decoding is told the store's. */
#ifndef MEMTX_STORE_RECORDS_H
#define MEMTX_STORE_RECORDS_H

#include <stddef.h>
#include <stdint.h>

#include "memtx/store.h"
#include "store/store_format.h"

struct memtx__state {
    uint64_t n_rows;    /* ids given out */
    uint64_t first_row; /* the oldest visible */
    uint64_t next_document;
    uint64_t n_commits;   /* transactions that appended */
    uint64_t transaction; /* LMDB's id of the one that wrote this; 0 in version 1 */
    uint32_t next_run;    /* number of the next index file */
};

/* Rows of one document whose positions ascend by one. */
struct memtx__extent {
    uint64_t first_row;
    uint64_t n_rows;
    uint64_t document;
    uint64_t first_position;
};

/* An index file, and the rows that it covers. */
struct memtx__run {
    uint64_t generation; /* number of the file */
    uint64_t first_row;
    uint64_t n_rows;
    uint64_t n_bytes;
    uint8_t hash[MEMTX_HASH_BYTES]; /* of its head */
    char spec[MEMTX__RUN_SPEC_BYTES];
};

enum memtx__chunk_kind { MEMTX__KEYS, MEMTX__VALUES };

struct memtx__chunk_facts {
    enum memtx__chunk_kind kind;
    uint64_t first_row;
    uint32_t n_rows;
    uint32_t row_bytes;
    uint32_t layer;
    uint32_t kv_head;
};

/* Returns the record's size. */
size_t memtx__spec_encode(unsigned char out[MEMTX__MOST_SPEC_BYTES], const struct memtx_store_spec *spec,
                          uint32_t chunk_rows);
int memtx__spec_decode(struct memtx_store_spec *out, uint32_t *version, uint32_t *chunk_rows,
                       const unsigned char *bytes, size_t n_bytes);
/* Whether these are the bytes of the RoPE factors that a decoded spec record was written with; n_bytes 0: there are
 * none. Version 1 does not say. MEMTX_E_CORRUPT. */
int memtx__spec_check_factors(const unsigned char *spec_record, const unsigned char *factors, size_t n_bytes);

void memtx__state_encode(unsigned char out[MEMTX__STATE_BYTES], const struct memtx__state *state);
int memtx__state_decode(struct memtx__state *out, const unsigned char *bytes, size_t n_bytes);

void memtx__document_encode(unsigned char out[MEMTX__DOCUMENT_BYTES], const struct memtx_document *document);
int memtx__document_decode(struct memtx_document *out, uint32_t version, uint64_t id, const unsigned char *bytes,
                           size_t n_bytes);

void memtx__extent_encode(unsigned char out[MEMTX__EXTENT_BYTES], const struct memtx__extent *extent);
int memtx__extent_decode(struct memtx__extent *out, uint32_t version, uint64_t first_row, const unsigned char *bytes,
                         size_t n_bytes);

void memtx__run_encode(unsigned char out[MEMTX__RUN_BYTES], const struct memtx__run *run);
int memtx__run_decode(struct memtx__run *out, uint64_t first_row, const unsigned char *bytes, size_t n_bytes);

/* A chunk in the making is a header and rows behind it. Its rows first .. first + n_rows - 1 have been written: the
 * header's count and checksum of rows now cover all up to there. Those before are looked at again only if the header
 * covers another number, as when rows were taken back. */
void memtx__chunk_cover(unsigned char *chunk, uint32_t first, uint32_t n_rows, uint32_t row_bytes);

/* Completes the header of a chunk whose rows were covered. */
void memtx__chunk_encode(unsigned char *chunk, const struct memtx__chunk_facts *facts);

/* Checks a whole chunk against what it must be. *rows is set to its first row, borrowed. facts->n_rows is the number
 * that must at least be there. The rows' own checksum is compared when check_rows is set. */
int memtx__chunk_decode(const unsigned char **rows, const unsigned char *bytes, size_t n_bytes,
                        const struct memtx__chunk_facts *facts, bool check_rows);

/* A piece of a running state: the header in front of data[n_bytes], at most MEMTX__CHUNK_BYTES together. Decoding gives
 * the place of the data. */
void memtx__piece_encode(unsigned char *piece, uint32_t number, uint64_t state_row, size_t n_bytes);
int memtx__piece_decode(const unsigned char **data, uint32_t number, uint64_t state_row, size_t n_bytes,
                        const unsigned char *piece, size_t n_piece_bytes);

/* Bytes of a chunk of n_rows rows: header and rows up to whole pages, less LMDB's own header. */
size_t memtx__chunk_bytes(uint32_t n_rows, uint32_t row_bytes);

#endif
