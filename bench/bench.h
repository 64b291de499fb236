/* What the benchmarks share: their command line, a clock, medians, and oneDNN's own rate, measured apart from the
 * library. */
#ifndef MEMTX_BENCH_BENCH_H
#define MEMTX_BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- the command line ------------------------------------------------------------------------- */

enum { BENCH_MOST_REPEATS = 64 };

/* What every program of benchmarks can be told. */
struct bench_setting {
    size_t n_repeats; /* --repeats, 1..64: what was there when it is not given */
    const char *only; /* --only: one of the benchmarks' names; NULL: all that run by themselves */
};

/* "--NAME ARGUMENT" of one program alone; *argument stays as it is when it is not given. */
struct bench_option {
    const char *name;
    const char **argument;
};

/* A program: its help, and the NULL-terminated names and own options, of which there are at most 12. */
struct bench_program {
    const char *usage;
    const char *const *names;
    const struct bench_option *options;
};

/* Reads the command line: the program's own options, --repeats, --threads, which is set, and --only. --help, and what
 * is wrong, end the process with 0 and 2 after the help. */
void bench_read_command_line(struct bench_setting *setting, const struct bench_program *program, int argc, char **argv);

/* Whether a benchmark is to run: --only names it, or names none. */
bool bench_wants(const struct bench_setting *setting, const char *name);

/* A count, or the end of the process with a message. */
uint64_t bench_count(const char *option, const char *text, uint64_t low, uint64_t high);

/* ---- measuring -------------------------------------------------------------------------------- */

double bench_now(void); /* seconds */

/* The median of n values, which it sorts. */
double bench_median(double *values, size_t n);

/* A bare product of oneDNN: y[n_rows][n_out] = x[n_rows][n_in] w, in f32 or bf16 with f32 sums, weights in the layout
 * that oneDNN chooses. Seconds of one execution; ends the process with a message when oneDNN fails. */
struct bench_product;
struct bench_product *bench_product_create(size_t n_rows, size_t n_in, size_t n_out, bool bf16);
double bench_product_run(struct bench_product *product);
void bench_product_destroy(struct bench_product *product);

/* c[m][n] = a[m][k] b[n][k]^T of int8, by oneDNN. */
void bench_product_i8(int32_t *c, const int8_t *a, const int8_t *b, size_t m, size_t n, size_t k);

/* Ends the process with a message. */
void bench_die(const char *what, const char *why);

#endif
