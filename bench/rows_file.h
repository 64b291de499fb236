/* Keys, values and queries of one (layer, kv head) to measure indexes with: drawn at random, or out of a file that
 * bench/harvest wrote (its opening comment is the format). */
#ifndef MEMTX_BENCH_ROWS_FILE_H
#define MEMTX_BENCH_ROWS_FILE_H

#include <stddef.h>
#include <stdint.h>

struct bench_rows {
    size_t n_rows, n_queries, dim;
    float scale;
    float *keys, *values; /* [n_rows][dim] */
    float *queries;       /* [n_queries][dim], turned by delta */
};

/* Unit vectors, keys as well as queries; values too. */
void bench_rows_draw(struct bench_rows *out, size_t n_rows, size_t n_queries, size_t dim, uint64_t seed);

/* The first n_rows rows of the file `keys`, and up to n_queries queries of the last segment of `queries` (which may be
 * the same) that saw all of them. Everything that the files say is bounded before it is used. Ends the process with a
 * message when they do not serve. */
void bench_rows_read(struct bench_rows *out, const char *keys, const char *queries, size_t n_rows, size_t n_queries);

void bench_rows_release(struct bench_rows *rows);

#endif
