/* What the benchmarks share: a clock, medians, and oneDNN's own rate, measured apart from the library. */
#ifndef MEMTX_BENCH_BENCH_H
#define MEMTX_BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>

double bench_now(void); /* seconds */

/* The median of n values, which it sorts. */
double bench_median(double *values, size_t n);

/* A bare product of oneDNN: y[n_rows][n_out] = x[n_rows][n_in] w, in f32 or bf16 with f32 sums, weights in the layout
 * that oneDNN chooses. Seconds of one execution; ends the process with a message when oneDNN fails. */
struct bench_product;
struct bench_product *bench_product_create(size_t n_rows, size_t n_in, size_t n_out, bool bf16);
double bench_product_run(struct bench_product *product);
void bench_product_destroy(struct bench_product *product);

/* Ends the process with a message. */
void bench_die(const char *what, const char *why);

#endif
