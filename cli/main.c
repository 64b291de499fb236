/* The memtx command: a table of commands, one cmd_*.c for each. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../index/indexes.h"
#include "command.h"
#include "memtx/memtx.h"

static const struct cli_command *const commands[] = {&cmd_eval, &cmd_ingest, &cmd_store, &cmd_gguf};

enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static void print_help(void)
{
    (void)printf("memtx gives a transformer a memory on disk.\n\nUsage: memtx COMMAND [OPTION]...\n\nCommands:\n");
    for (size_t i = 0; i < N_COMMANDS; i++) {
        (void)printf("  %-10s%s\n", commands[i]->name, commands[i]->summary);
    }
    (void)printf("\nmemtx COMMAND --help tells more; memtx --version says what this program is made of.\n");
}

static bool is_any(const char *word, const char *a, const char *b)
{
    return strcmp(word, a) == 0 || strcmp(word, b) == 0;
}

/* OpenMP threads that spin while they wait cost other programs, and memtx itself beside them, most of their speed (ten
 * times, measured with another program on two cores), and gain nothing measurable on a quiet machine. libgomp reads
 * this before main, so the program starts itself once more. */
static void wait_passively(char **argv)
{
    if (!getenv("OMP_WAIT_POLICY") && !getenv("GOMP_SPINCOUNT") && !setenv("OMP_WAIT_POLICY", "passive", 0)) {
        (void)execv("/proc/self/exe", argv); /* where that fails the program goes on as it is */
    }
}

int main(int argc, char **argv)
{
    wait_passively(argv);
    if (argc < 2) {
        return cli_fail(EXIT_USAGE, "name a command (see memtx --help)");
    }
    if (is_any(argv[1], "--help", "-h") || strcmp(argv[1], "help") == 0) {
        print_help();
        return cli_finish(EXIT_DONE);
    }
    if (is_any(argv[1], "--version", "-V")) {
        char faiss[64];
        memtx_index_faiss_version(faiss, sizeof faiss);
        (void)printf("memtx %s%s%s\n", memtx_version(), *faiss ? ", FAISS " : "", faiss);
        return cli_finish(EXIT_DONE);
    }
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(argv[1], commands[i]->name) == 0) {
            return cli_finish(commands[i]->run(commands[i], argc - 1, argv + 1));
        }
    }
    return cli_fail(EXIT_USAGE, "unknown command '%s' (see memtx --help)", argv[1]);
}
