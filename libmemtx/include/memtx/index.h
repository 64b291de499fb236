/* Approximate indexes: what one is to libmemtx, which has none of its own.
 *
 * An index holds the keys of one key space, the rows of one (layer, kv head) of one run: row 0 .. n_rows - 1 in the
 * order in which they were added. It finds for each query the k rows of largest inner product, or most of them.
 * libmemtx never includes an implementation: whoever opens a memory hands it a resolver that turns a name into a table
 * of operations.
 *
 *     to seal a run   check -> create -> train -> add .. -> save -> destroy
 *     to use it       load -> search .. -> destroy
 *
 * A spec is a text, SCHEME:WHAT[@OPTION=VALUE[,OPTION=VALUE]..], such as "faiss:IVF1024,Flat@nprobe=32". SCHEME picks
 * the implementation, the rest is its own.
 *
 * Rows and queries are float32; an index that finds more without the mean of its rows takes it off by itself. An index is
 * derived data: a caller whose index cannot be loaded makes it anew from the store. Its scores are for choosing rows,
 * not for the softmax: some types compute them from rounded rows, and the last bits may depend on n_q.
 *
 * Threads: a table is constant. An index is built (train, add, save) by one thread at a time; once it is built, any
 * number of threads may search it and read its facts at once. Different indexes have nothing in common. An operation
 * uses as many OpenMP threads as the caller has (omp_get_max_threads), and inside a parallel region the calling one
 * alone: many indexes at once are built best so, one for each thread. With equal input, spec, libraries and number of
 * threads the bytes that save writes and the answers are equal.
 *
 * Each int is 0 or a negative MEMTX_E_ code, with the thread's error text set (memtx_fail), the implementation's own
 * text in it. MEMTX_E_NO_MEMORY can come from each.
 */
#ifndef MEMTX_INDEX_H
#define MEMTX_INDEX_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "memtx/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows first .. first + n_rows - 1 of an index. */
struct memtx_index_range {
    uint64_t first;
    uint64_t n_rows;
};

/* One of the indexes that are searched together. */
struct memtx_index_part {
    const void *index;
    const struct memtx_index_range *ranges; /* [n_ranges] of rows that may be returned: ascending, disjoint, within the
                                             * index; NULL with n_ranges = 0: none */
    size_t n_ranges;
};

struct memtx_index_facts {
    uint64_t n_rows;
    uint32_t dim;
    uint64_t n_bytes;        /* of RAM that the index holds, without what is mapped; may be an estimate */
    uint64_t n_mapped_bytes; /* of the file it was loaded from that it reads by memory mapping */
};

struct memtx_index_operations {
    /* Whether `spec` is good for n_rows rows of dim numbers. Everything that a spec can have wrong is found here,
     * before anything is built. MEMTX_E_INVALID (a number out of range, or that does not go with dim or n_rows),
     * MEMTX_E_UNSUPPORTED (a type or option that is unknown: the text names the known ones). */
    int (*check)(const char *spec, uint32_t dim, uint64_t n_rows);

    /* An empty index in *index, the caller's, to be given to destroy; NULL on failure. As check says, without rows. */
    int (*create)(void **index, const char *spec, uint32_t dim);

    /* Learns from a sample rows[n][dim], once, before the first add: all rows that will be added, or a fair part of
     * them. Every type is trained, though some learn nothing. The sample is borrowed. MEMTX_E_INVALID (a number that is
     * not finite or too large for the type, fewer rows than the type needs, rows were added before or the index was
     * loaded). After a failure the index can only be destroyed. Costs a good part of a minute for some types. */
    int (*train)(void *index, size_t n, const float *rows);

    /* Appends rows[n][dim], which are copied: the first row ever added is row 0. MEMTX_E_INVALID (not trained, a number
     * that is not finite or too large for the type, too many rows, the index was loaded). After MEMTX_E_NO_MEMORY or
     * another failure of the implementation the index can only be destroyed. */
    int (*add)(void *index, size_t n, const float *rows);

    /* For each part and query the k best rows that lie in one of the part's ranges, best first.
     *   scores[n_parts][n_q][k]   inner products as the index computes them; -inf where ids is -1
     *   ids[n_parts][n_q][k]      rows of the part's index, each at most once; -1 at the end where fewer were found; of
     *                             equal scores that were found the lower row comes first
     *   parts[n_parts]            of one spec and dim, rows of one key space
     *   queries[n_q][dim]
     * What is wanted are the k best of all parts: where a query's best rows are likely to be in some of them, an index
     * may look deeper there and find less in the others. Fewer than k may be found although more lie in the ranges: an
     * approximate index overlooks some, and one that cannot filter fetches more than k and drops what lies outside.
     * The caller fills up with an exact scan, and scans at once where the ranges are a small part of the rows. n_parts,
     * n_q and k may be 0, k may exceed the rows. After a failure scores and ids hold nothing. MEMTX_E_INVALID (a number
     * that is not finite or too large, ranges that are not as memtx_index_part says), MEMTX_E_CORRUPT (the
     * implementation failed: the indexes are to be made anew). */
    int (*search)(float *scores, int64_t *ids, const struct memtx_index_part *parts, size_t n_parts, size_t n_q,
                  const float *queries, size_t k);

    /* Writes the index to `file` from its position on, and leaves the position behind it; the file is flushed, not
     * synced. What was written is a blob for load, as long as the position went on. MEMTX_E_INVALID (the index was
     * loaded: its blob is there already), MEMTX_E_IO, MEMTX_E_NO_SPACE. */
    int (*save)(const void *index, FILE *file);

    /* The index that is n_bytes long from the position of `file` on, a regular file that is open for reading, in
     * *index, the caller's; NULL on failure. It can be searched, and takes no more rows. The caller has proved by a
     * checksum that these are the bytes that save wrote: implementations are not made for others, and may end the
     * process on some. spec is the one that it was created with, but for options that say how to search. The file may
     * be closed and removed afterwards; where n_mapped_bytes is not 0, its bytes must not change while the index lives,
     * and cutting it off would end the process (SIGBUS).
     * MEMTX_E_CORRUPT (fewer bytes are there, or not an index), MEMTX_E_MISMATCH (another dim or type), MEMTX_E_IO, and
     * as create. */
    int (*load)(void **index, const char *spec, uint32_t dim, FILE *file, uint64_t n_bytes);

    void (*info)(struct memtx_index_facts *out, const void *index);

    void (*destroy)(void *index); /* NULL is fine */
};

/* Finds the operations for a spec by its scheme, a constant table in *out (NULL on failure); the rest of the spec is
 * for check. MEMTX_E_UNSUPPORTED names the schemes that are known. Any thread. */
typedef int (*memtx_index_resolver)(const struct memtx_index_operations **out, const char *spec);

#ifdef __cplusplus
}
#endif
#endif
