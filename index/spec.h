/* What a spec of FAISS says, read and checked by hand before FAISS sees it: FAISS ends the process on some strings,
 * takes memory without bound for others, and calls things an index that are of no use here (L2 only, ids of their own,
 * hashes). So these are known, and no others:
 *
 *     faiss:CODE  faiss:IVFn,CODE  faiss:HNSWm  faiss:HNSWm,Flat  faiss:HNSWm,SQ..
 *     CODE: Flat SQ4 SQ6 SQ8 SQfp16 PQm PQmxb
 *     options behind an @, with commas between: nprobe mmap (IVF), efSearch efConstruction (HNSW)
 */
#ifndef MEMTX_INDEX_SPEC_H
#define MEMTX_INDEX_SPEC_H

#include <stdint.h>

enum index_code { INDEX_FLAT, INDEX_SQ4, INDEX_SQ6, INDEX_SQ8, INDEX_SQFP16, INDEX_PQ };

enum { INDEX_MAX_DIM = 4096, INDEX_MAX_ROWS = INT32_MAX }; /* HNSW counts rows in 32 bits */

struct index_spec {
    char factory[64]; /* for FAISS */
    uint32_t dim;
    uint32_t n_lists; /* IVF; 0: none */
    uint32_t n_links; /* HNSW's M; 0: none */
    enum index_code code;
    uint32_t n_parts, part_bits; /* PQ */

    /* Options; index/README.md has their defaults. */
    uint32_t nprobe, ef_search, ef_construction;
    uint32_t mmap; /* map the lists of a loaded index (1) or read them (0) */
};

/* MEMTX_E_INVALID, MEMTX_E_UNSUPPORTED as memtx/index.h's check. */
int index_spec_parse(struct index_spec *out, const char *text, uint32_t dim);

/* Whether n_rows rows are enough and not too many. MEMTX_E_INVALID. `text` is for the error. */
int index_spec_check_rows(const struct index_spec *spec, const char *text, uint64_t n_rows);

/* How many rows the type's k-means must have, and how many it wants, so that FAISS prints no warning. */
uint64_t index_spec_min_training_rows(const struct index_spec *spec);
uint64_t index_spec_good_training_rows(const struct index_spec *spec);

/* The largest size of a number in a query: sums of 4,096 squares of it are far below the end of float32. */
static const float index_most_number = 1e15F;

/* The same of a number in a row: index_most_number, or less where the code holds less. */
float index_spec_most_value(const struct index_spec *spec);

/* Bytes of a row's code, without list and links. */
uint64_t index_spec_code_bytes(const struct index_spec *spec);

/* Bytes of an index in RAM, from what the type stores: lists, and all else. */
uint64_t index_spec_list_bytes(const struct index_spec *spec, uint64_t n_rows);
uint64_t index_spec_other_bytes(const struct index_spec *spec, uint64_t n_rows);

#endif
