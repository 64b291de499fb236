/* Command lines, clock and medians (bench.h). */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench.h"

enum { MOST_OPTIONS = 12, SHARED_OPTIONS = 4 }; /* of a program's own; and those below */

/* Every option by the name it has: the program's own, then the shared ones. */
static void list_options(struct option *out, const struct bench_option *own)
{
    static const struct option shared[SHARED_OPTIONS + 1] = {{"repeats", required_argument, NULL, 'r'},
                                                             {"threads", required_argument, NULL, 'j'},
                                                             {"only", required_argument, NULL, 'o'},
                                                             {"help", no_argument, NULL, 'h'},
                                                             {NULL, 0, NULL, 0}};
    size_t n = 0;
    for (; own[n].name && n < MOST_OPTIONS; n++) {
        out[n] = (struct option){own[n].name, required_argument, NULL, 0};
    }
    memcpy(out + n, shared, sizeof shared);
}

static bool is_known(const char *const *names, const char *name)
{
    while (*names && strcmp(*names, name) != 0) {
        names++;
    }
    return *names;
}

static void show_usage(const struct bench_program *program, int exit_code)
{
    (void)fputs(program->usage, exit_code ? stderr : stdout);
    exit(exit_code);
}

void bench_read_command_line(struct bench_setting *setting, const struct bench_program *program, int argc, char **argv)
{
    struct option options[MOST_OPTIONS + SHARED_OPTIONS + 1];
    list_options(options, program->options);
    int value, i;
    while ((value = getopt_long(argc, argv, "h", options, &i)) != -1) {
        switch (value) {
        case 0:
            *program->options[i].argument = optarg;
            break;
        case 'r':
            setting->n_repeats = (size_t)bench_count("--repeats", optarg, 1, BENCH_MOST_REPEATS);
            break;
        case 'j':
            omp_set_num_threads((int)bench_count("--threads", optarg, 1, 1024));
            break;
        case 'o':
            setting->only = optarg;
            break;
        default:
            show_usage(program, value == 'h' ? 0 : 2);
        }
    }
    if (optind < argc || (setting->only && !is_known(program->names, setting->only))) {
        show_usage(program, 2);
    }
}

bool bench_wants(const struct bench_setting *setting, const char *name)
{
    return !setting->only || strcmp(setting->only, name) == 0;
}

uint64_t bench_count(const char *option, const char *text, uint64_t low, uint64_t high)
{
    char *end, why[80];
    errno = 0;
    const unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || value < low || value > high) {
        (void)snprintf(why, sizeof why, "not in %" PRIu64 "..%" PRIu64, low, high);
        bench_die(option, why);
    }
    return value;
}

double bench_now(void)
{
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

double bench_median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, ascending);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

void bench_die(const char *what, const char *why)
{
    (void)fprintf(stderr, "bench: %s: %s\n", what, why);
    exit(1);
}
