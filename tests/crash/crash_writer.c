/* Appends segments of the known stream (stream.h) to a store, until it is done or something ends it:
 *
 *     crash_writer DIR --segments N --durability full|group [--capacity C] [--seed S] [--again] [--times]
 *
 * stdout has what was acknowledged. Exit 0, or 1 with one line on stderr. A preloaded shim (shim.c) begins to count
 * with main, so that what the libraries do before is not its business.
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

static int usage(const char *name)
{
    (void)fprintf(stderr,
                  "usage: %s DIR --segments N --durability full|group [--capacity C] [--seed S] [--again] [--times]\n",
                  name);
    return 2;
}

int main(int n_args, char **args)
{
    static const struct option table[] = {{"segments", required_argument, NULL, 'n'},
                                          {"durability", required_argument, NULL, 'd'},
                                          {"capacity", required_argument, NULL, 'c'},
                                          {"seed", required_argument, NULL, 's'},
                                          {"again", no_argument, NULL, 'a'},
                                          {"times", no_argument, NULL, 't'},
                                          {NULL, 0, NULL, 0}};
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
        } else {
            return usage(args[0]);
        }
    }
    if (optind + 1 != n_args || plan.n_segments == 0) {
        return usage(args[0]);
    }
    plan.path = args[optind];
    arm_shim();
    if (crash_write(&plan)) {
        (void)fprintf(stderr, "memtx: %s\n", memtx_last_error());
        return 1;
    }
    return 0;
}
