/* What the commands of memtx share: the table that main.c holds, options with their help, texts of files, Ctrl-C. */
#ifndef MEMTX_CLI_COMMAND_H
#define MEMTX_CLI_COMMAND_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* An option of a command, as help shows it and as getopt_long takes it. */
struct cli_option {
    const char *name;     /* without the dashes */
    char letter;          /* 0: no short form */
    const char *argument; /* "N", "FILE" ..; NULL: takes none */
    const char *help;     /* one line; a "\n" goes on in the next */
};

struct cli_command {
    const char *name;
    const char *usage;                /* behind the name: "MODEL TEXT..." */
    const char *summary;              /* one line */
    const char *details;              /* paragraphs behind the options, or NULL */
    const struct cli_option *options; /* ended by a NULL name */
    int (*run)(const struct cli_command *command, int argc, char **argv);
};

extern const struct cli_command cmd_eval;
extern const struct cli_command cmd_gguf;
extern const struct cli_command cmd_ingest;
extern const struct cli_command cmd_store;

/* ---- options.c -------------------------------------------------------------------------------- */

/* Walks the arguments of a command: called until it returns NULL, which leaves the number of options read in *n_read
 * and everything else moved behind them (getopt's way). On a wrong option *failed is set after one line on stderr.
 * --help prints the help and exits the process with 0. */
const struct cli_option *cli_next_option(const char **argument, bool *failed, const struct cli_command *command,
                                         int argc, char **argv);

void cli_print_help(const struct cli_command *command);

/* Numbers of options, with one clear line on stderr when they are none or out of range. */
bool cli_parse_count(uint64_t *out, const char *option, const char *text, uint64_t low, uint64_t high);
bool cli_parse_number(double *out, const char *option, const char *text, double low, double high);

/* ---- report.c --------------------------------------------------------------------------------- */

/* "memtx: what: why" on stderr, after clearing a progress line. Returns `exit_code`. */
int cli_fail(int exit_code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same from a status of the library and its last error. */
int cli_fail_status(const char *what, int status);

/* A line that is written over itself, on a terminal; nothing in a pipe. */
void cli_progress(const char *format, ...) __attribute__((format(printf, 1, 2)));
void cli_progress_clear(void);

/* At the end: what was printed has arrived, or else one line on stderr and EXIT_FAILED. Otherwise `exit_code`. */
int cli_finish(int exit_code);

/* ---- interrupt.c ------------------------------------------------------------------------------ */

extern volatile sig_atomic_t cli_interrupted;

/* From now on the first Ctrl-C (or SIGTERM) sets cli_interrupted; a second one ends the process. */
void cli_catch_interrupt(void);

/* ---- text.c ----------------------------------------------------------------------------------- */

struct cli_text {
    char *bytes;
    size_t n_bytes;
};

/* A file's bytes, or standard input's for "-". One line on stderr and false when it cannot be read. */
bool cli_read_text(struct cli_text *out, const char *path);
void cli_free_text(struct cli_text *text);

/* The part of a path behind the last slash. */
const char *cli_base_name(const char *path);

#endif
