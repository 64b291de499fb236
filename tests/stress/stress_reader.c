/* A process that reads a store of the known stream while others write it, until SIGTERM (ask.h):
 *
 *     stress_reader DIR --capacity C [--seed S] [--hold | --glances N]
 *
 * It opens the store for reading, judges some segments, closes it, and begins again. With --glances it
 * takes so many snapshots before each segment. With --hold it begins one
 * segment, says `holding` and waits; at SIGTERM it judges what it then still must see. stdout at the end:
 * `O openings, N segments, R rows, L last`, where L rows is the store's number in the newest segment. Exit 0, or 1 with
 * one line on stderr.
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "ask.h"

enum { MOST_SEGMENTS = 20 }; /* of one opening */

static volatile sig_atomic_t stopped;

static void stop(int signal)
{
    (void)signal;
    stopped = 1;
}

static int usage(const char *name)
{
    (void)fprintf(stderr, "usage: %s DIR --capacity C [--seed S] [--hold | --glances N]\n", name);
    return 2;
}

/* SIGTERM is blocked but while it waits, so that none is lost. */
static int hold(struct stress_asker *asker)
{
    sigset_t none;
    (void)sigemptyset(&none);
    int status = stress_ask_begin(asker);
    if (!status) {
        (void)puts("holding");
        (void)fflush(stdout);
        while (!stopped) {
            (void)sigsuspend(&none);
        }
        status = stress_ask_judge(asker);
    }
    stress_ask_end(asker);
    return status;
}

/* One opening of the store, and what is asked of it. */
static int read_store(struct stress_asker *asker, const char *path, uint64_t capacity, uint64_t seed, bool holds)
{
    struct memtx_store_options options = memtx_store_options_default();
    memtx_store *store;
    options.read_only = true;
    int status = memtx_store_open(&store, path, NULL, &options);
    if (status) {
        return status;
    }
    status = stress_asker_open(asker, store, capacity, seed);
    if (!status && holds) {
        status = hold(asker);
    }
    for (uint64_t left = 1 + memtx__rng_below(&asker->rng, MOST_SEGMENTS); left && !status && !stopped; left--) {
        status = stress_ask(asker);
    }
    stress_asker_close(asker);
    int closed = memtx_store_close(store);
    return status ? status : closed;
}

/* SIGTERM sets a flag; a reader that holds waits for it and has it blocked until then. */
static void listen_for_term(bool holds)
{
    const struct sigaction action = {.sa_handler = stop};
    sigset_t term;
    (void)sigemptyset(&term);
    (void)sigaddset(&term, SIGTERM);
    (void)sigaction(SIGTERM, &action, NULL);
    if (holds) {
        (void)sigprocmask(SIG_BLOCK, &term, NULL);
    }
}

int main(int n_args, char **args)
{
    static const struct option table[] = {{"capacity", required_argument, NULL, 'c'},
                                          {"seed", required_argument, NULL, 's'},
                                          {"glances", required_argument, NULL, 'g'},
                                          {"hold", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    static struct stress_asker asker;
    uint64_t capacity = 0, seed = 0, n_openings = 0;
    bool holds = false;
    int status = MEMTX_OK;
    for (int option; (option = getopt_long(n_args, args, "", table, NULL)) != -1;) {
        if (option == 'c') {
            capacity = strtoull(optarg, NULL, 10);
        } else if (option == 's') {
            seed = strtoull(optarg, NULL, 10);
        } else if (option == 'g') {
            asker.n_glances = strtoull(optarg, NULL, 10);
        } else if (option == 'h') {
            holds = true;
        } else {
            return usage(args[0]);
        }
    }
    if (optind + 1 != n_args || capacity < 1 || capacity > STRESS_MOST_ROWS) {
        return usage(args[0]);
    }
    listen_for_term(holds);
    while (!stopped && !status) {
        status = read_store(&asker, args[optind], capacity, seed, holds);
        n_openings++;
    }
    printf("%llu openings, %llu segments, %llu rows, %llu last\n", (unsigned long long)n_openings,
           (unsigned long long)asker.counts.n_segments, (unsigned long long)asker.counts.n_rows,
           (unsigned long long)asker.n_store_rows);
    if (status) {
        (void)fprintf(stderr, "memtx: %s\n", memtx_last_error());
    }
    return status ? 1 : 0;
}
