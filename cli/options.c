/* Options: one table for getopt_long and for the help (command.h). */
#include "command.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_OPTIONS = 64, FIRST_LONG = 256, LONG_HELP = FIRST_LONG + MOST_OPTIONS, HELP_COLUMN = 26 };

static void print_option(const struct cli_option *option)
{
    char left[64], letter[8] = "    ";
    if (option->letter) {
        (void)snprintf(letter, sizeof letter, "-%c, ", option->letter);
    }
    (void)snprintf(left, sizeof left, "  %s--%s%s%s", letter, option->name, option->argument ? " " : "",
                   option->argument ? option->argument : "");
    (void)printf("%-*s", HELP_COLUMN, left);
    if (strlen(left) >= HELP_COLUMN) {
        (void)printf("\n%*s", HELP_COLUMN, "");
    }
    for (const char *c = option->help; *c; c++) {
        (void)putchar(*c);
        if (*c == '\n') {
            (void)printf("%*s", HELP_COLUMN, "");
        }
    }
    (void)putchar('\n');
}

void cli_print_help(const struct cli_command *command)
{
    static const struct cli_option help = {"help", 'h', NULL, "show this"};
    (void)printf("Usage: memtx %s [OPTION]... %s\n%s\n\nOptions:\n", command->name, command->usage, command->summary);
    for (const struct cli_option *option = command->options; option->name; option++) {
        print_option(option);
    }
    print_option(&help);
    if (command->details) {
        (void)printf("\n%s", command->details);
    }
}

/* getopt's two tables; an option's value is FIRST_LONG + its index, or its letter. */
static void fill_tables(struct option *longs, char *shorts, const struct cli_command *command)
{
    size_t n_shorts = 0, n = 0;
    shorts[n_shorts++] = ':'; /* a missing argument is told apart */
    for (const struct cli_option *o = command->options; o->name && n < MOST_OPTIONS; o++, n++) {
        longs[n] = (struct option){o->name, o->argument ? required_argument : no_argument, NULL, FIRST_LONG + (int)n};
        if (o->letter) {
            shorts[n_shorts++] = o->letter;
            if (o->argument) {
                shorts[n_shorts++] = ':';
            }
        }
    }
    longs[n] = (struct option){"help", no_argument, NULL, LONG_HELP};
    longs[n + 1] = (struct option){NULL, 0, NULL, 0};
    shorts[n_shorts++] = 'h';
    shorts[n_shorts] = '\0';
}

/* getopt's verdict in words. Of a letter it tells the letter (optopt); of a name whether it knows it (optopt is then
 * the option's value), else the word is one that no name or several begin with. */
static void fail_option(const struct cli_command *command, int verdict, const char *word)
{
    const char *why = verdict == ':'         ? "needs an argument"
                      : optopt >= FIRST_LONG ? "takes no argument"
                      : optopt               ? "is unknown"
                                             : "is unknown or ambiguous";
    if (optopt && optopt < FIRST_LONG) {
        (void)cli_fail(EXIT_USAGE, "%s: option '-%c' %s (see memtx %s --help)", command->name, optopt, why,
                       command->name);
    } else {
        (void)cli_fail(EXIT_USAGE, "%s: option '%s' %s (see memtx %s --help)", command->name, word, why, command->name);
    }
}

const struct cli_option *cli_next_option(const char **argument, bool *failed, const struct cli_command *command,
                                         int argc, char **argv)
{
    struct option longs[MOST_OPTIONS + 2];
    char shorts[2 * MOST_OPTIONS + 4];
    fill_tables(longs, shorts, command);
    opterr = 0;
    int value = getopt_long(argc, argv, shorts, longs, NULL);
    *argument = optarg;
    if (value == -1) {
        return NULL;
    }
    if (value == 'h' || value == LONG_HELP) {
        cli_print_help(command);
        exit(cli_finish(EXIT_DONE));
    }
    if (value == '?' || value == ':') {
        *failed = true;
        fail_option(command, value, argv[optind - 1]);
        return NULL;
    }
    for (size_t i = 0; command->options[i].name; i++) {
        if (value == FIRST_LONG + (int)i || value == command->options[i].letter) {
            return &command->options[i];
        }
    }
    return NULL;
}

bool cli_parse_count(uint64_t *out, const char *option, const char *text, uint64_t low, uint64_t high)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || value < low || value > high) {
        (void)cli_fail(EXIT_USAGE, "--%s %s: not a whole number from %llu to %llu", option, text,
                       (unsigned long long)low, (unsigned long long)high);
        return false;
    }
    *out = value;
    return true;
}

bool cli_parse_number(double *out, const char *option, const char *text, double low, double high)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= low && value <= high)) {
        (void)cli_fail(EXIT_USAGE, "--%s %s: not a number from %g to %g", option, text, low, high);
        return false;
    }
    *out = value;
    return true;
}
