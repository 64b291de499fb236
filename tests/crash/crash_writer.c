/* Appends segments of the known stream (stream.h) to a store, until it is done or something ends it:
 *
 *     crash_writer DIR --segments N --durability full|group [--capacity C] [--seed S] [--again] [--times] [--index]
 *
 * stdout has what was acknowledged. Exit 0, with a warning of the index on stderr, or 1 with one line. A preloaded shim
 * (shim.c) begins to count with main, so that what the libraries do before is not its business.
 */
#include <dlfcn.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stream.h"

static void arm_shim(void)
{
    void *symbol = dlsym(RTLD_DEFAULT, "crash_shim_arm");
    void (*arm)(void);
    memcpy(&arm, &symbol, sizeof arm); /* C has no cast from an object's pointer to a function's */
    if (arm) {
        arm();
    }
}

/* The first product of matrices makes thousands of calls of memory within oneDNN, which are not what is tested: one is
 * made over a store on the heap, before anything is counted. */
static int warm_up(void)
{
    static struct crash_writer writer;
    const struct memtx_store_spec spec = crash_spec();
    memtx_store *store;
    size_t n_asked;
    int status = memtx_store_open(&store, NULL, &spec, NULL);
    if (status) {
        return status;
    }
    status = crash_writer_open(&writer, store, NULL, 0);
    if (!status) {
        status = crash_writer_append(&writer);
    }
    crash_writer_close(&writer);
    if (!status) {
        status = crash_ask_all(&n_asked, store);
    }
    (void)memtx_store_close(store);
    return status;
}

static int usage(const char *name)
{
    (void)fprintf(stderr,
                  "usage: %s DIR --segments N --durability full|group [--capacity C] [--seed S] [--again] [--times] "
                  "[--index]\n",
                  name);
    return 2;
}

int main(int n_args, char **args)
{
    static const struct option table[] = {
        {"segments", required_argument, NULL, 'n'}, {"durability", required_argument, NULL, 'd'},
        {"capacity", required_argument, NULL, 'c'}, {"seed", required_argument, NULL, 's'},
        {"again", no_argument, NULL, 'a'},          {"times", no_argument, NULL, 't'},
        {"index", no_argument, NULL, 'i'},          {NULL, 0, NULL, 0}};
    struct crash_plan plan = {.durability = MEMTX_DURABILITY_GROUP};
    for (int option; (option = getopt_long(n_args, args, "", table, NULL)) != -1;) {
        if (option == 'n') {
            plan.n_segments = strtoull(optarg, NULL, 10);
        } else if (option == 'd') {
            plan.durability = strcmp(optarg, "full") == 0 ? MEMTX_DURABILITY_FULL : MEMTX_DURABILITY_GROUP;
        } else if (option == 'c') {
            plan.capacity = strtoull(optarg, NULL, 10);
        } else if (option == 's') {
            plan.seed = strtoull(optarg, NULL, 10);
        } else if (option == 'a') {
            plan.again = true;
        } else if (option == 't') {
            plan.times = true;
        } else if (option == 'i') {
            plan.has_index = true;
        } else {
            return usage(args[0]);
        }
    }
    if (optind + 1 != n_args || plan.n_segments == 0) {
        return usage(args[0]);
    }
    plan.path = args[optind];
    int status = plan.has_index ? warm_up() : MEMTX_OK;
    arm_shim();
    if (!status) {
        status = crash_write(&plan);
    }
    if (status) {
        (void)fprintf(stderr, "memtx: %s\n", memtx_last_error());
        return 1;
    }
    return 0;
}
