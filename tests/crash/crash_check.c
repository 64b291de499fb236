/* Says whether a store is a prefix of the known stream (inspect.h) that holds what was acknowledged:
 *
 *     crash_check DIR --acknowledged R [--ended E] [--capacity C] [--create] [--index]
 *
 * stdout: `R rows, D documents, E ended`. Exit 0, or 1 with one line on stderr. With --create the store is opened as a
 * writer opens it, which makes one where there is none; with --index its index files are looked at too.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "inspect.h"

static int usage(const char *name)
{
    (void)fprintf(stderr, "usage: %s DIR --acknowledged R [--ended E] [--capacity C] [--create] [--index]\n", name);
    return 2;
}

int main(int n_args, char **args)
{
    static const struct option table[] = {{"acknowledged", required_argument, NULL, 'r'},
                                          {"ended", required_argument, NULL, 'e'},
                                          {"capacity", required_argument, NULL, 'c'},
                                          {"create", no_argument, NULL, 'm'},
                                          {"index", no_argument, NULL, 'i'},
                                          {NULL, 0, NULL, 0}};
    const struct memtx_store_spec spec = crash_spec();
    uint64_t n_rows = 0, n_ended = 0, capacity = 0;
    struct crash_state state;
    bool create = false, has_index = false;
    for (int option; (option = getopt_long(n_args, args, "", table, NULL)) != -1;) {
        if (option == 'r') {
            n_rows = strtoull(optarg, NULL, 10);
        } else if (option == 'e') {
            n_ended = strtoull(optarg, NULL, 10);
        } else if (option == 'c') {
            capacity = strtoull(optarg, NULL, 10);
        } else if (option == 'm') {
            create = true;
        } else if (option == 'i') {
            has_index = true;
        } else {
            return usage(args[0]);
        }
    }
    if (optind + 1 != n_args) {
        return usage(args[0]);
    }
    int status = crash_inspect(&state, args[optind], create ? &spec : NULL, capacity);
    if (!status) {
        printf("%llu rows, %llu documents, %llu ended\n", (unsigned long long)state.n_rows,
               (unsigned long long)state.n_documents, (unsigned long long)state.n_ended);
        status = crash_compare(&state, n_rows, n_ended);
    }
    if (!status && has_index) {
        status = crash_inspect_index(args[optind]);
    }
    if (status) {
        (void)fprintf(stderr, "memtx: %s\n", memtx_last_error());
    }
    return status ? 1 : 0;
}
