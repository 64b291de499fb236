/* Keys, values and queries of one (layer, kv head) to measure indexes with: drawn at random, or out of a file that
 * bench/harvest wrote (its opening comment is the format). */
#ifndef MEMTX_BENCH_ROWS_FILE_H
#define MEMTX_BENCH_ROWS_FILE_H

#include <stddef.h>
#include <stdint.h>

struct bench_rows {
    size_t n_rows, n_queries, n_sample, dim;
    float scale;
    float *keys, *values; /* [n_rows][dim]; NULL once they have been dropped */
    float *queries;       /* [n_queries][dim], turned by delta */
    float *sample;        /* [n_sample][dim]: queries of the same kind, asked before those and no part of them */
};

/* Unit vectors, keys as well as queries and a sample of as many; values too. */
void bench_rows_draw(struct bench_rows *out, size_t n_rows, size_t n_queries, size_t dim, uint64_t seed);

/* n_queries queries of the last segments of the file `queries`, the segment before those as the sample, and the last
 * n_rows rows of the file `keys` (which may be the same) that the sample's segment sees: the rows that a memory of that
 * capacity holds when it is asked, whatever the file's own size. Reads no more of the files than that. Everything that
 * they say is bounded before it is used. Ends the process with a message when they do not serve. */
void bench_rows_read(struct bench_rows *out, const char *keys, const char *queries, size_t n_rows, size_t n_queries);

/* Frees keys and values, for whoever has stored them elsewhere. */
void bench_rows_drop(struct bench_rows *rows);

void bench_rows_release(struct bench_rows *rows);

#endif
