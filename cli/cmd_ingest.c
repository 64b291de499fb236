/* memtx ingest: reads texts into a store, to be found there tomorrow. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "reading.h"

static const struct cli_option options[] = {
    {"memory", 0, "DIR", "the store; made where there is none (needed)"},
    {"name", 0, "NAME", "of the document, for one text (default: the file's name)"},
    CLI_SPAN_OPTIONS,
    CLI_MEMORY_OPTIONS("all"),
    CLI_MODEL_OPTIONS,
    {NULL, 0, NULL, NULL},
};

static const char details[] =
    "TEXT is a file, or - for standard input; each becomes a document. A reading that was\n"
    "broken off, by Ctrl-C or with its process, goes on when the same command is run again; so\n"
    "does one that was ended by --tokens, with a larger one or without. A text that the store\n"
    "holds already is not read again.\n"
    "\n"
    "Examples:\n"
    "  memtx ingest data/cache/model.gguf data/cache/books/emma.txt --memory emma.memory\n"
    "  memtx store ls emma.memory\n"
    "  memtx eval data/cache/model.gguf TEXT --memory emma.memory --scope emma.txt\n";

struct request {
    struct memtx_ingest_options options;
    struct cli_reading reading;
};

/* false after one line on stderr. */
static bool read_request(struct request *request, const struct cli_command *command, int argc, char **argv)
{
    const struct cli_option *option;
    const char *argument;
    bool failed = false, good = true;
    *request = (struct request){.options = memtx_ingest_options_default()};
    cli_begin_reading(&request->reading, &request->options.reading);
    while (good && (option = cli_next_option(&argument, &failed, command, argc, argv))) {
        if (cli_is(option->name, "name")) {
            request->options.name = argument;
        } else {
            good = cli_take_reading_option(&request->reading, option->name, argument);
        }
    }
    if (failed || !good) {
        return false;
    }
    const int n_texts = argc - optind - 1;
    if (n_texts < 1) {
        (void)cli_fail(EXIT_USAGE, "ingest: name a model and at least one text (see memtx ingest --help)");
        return false;
    }
    if (!request->options.reading.memory_path) {
        (void)cli_fail(EXIT_USAGE, "ingest: name the store to read into (--memory DIR)");
        return false;
    }
    if (request->options.name && (n_texts > 1 || !*request->options.name)) {
        (void)cli_fail(EXIT_USAGE, "--name '%s': %s", request->options.name,
                       n_texts > 1 ? "names one document, and several texts are given" : "an empty name");
        return false;
    }
    return cli_check_reading(&request->reading);
}

static int show_progress(void *context, const struct memtx_ingest_progress *p)
{
    (void)context;
    if (p->n_all_index_bytes) {
        const double mib = 1048576, done = (double)p->n_index_bytes, left = (double)p->n_all_index_bytes - done;
        cli_progress("building indexes  %.1f/%.1f MiB  %.0f s left", done / mib, (double)p->n_all_index_bytes / mib,
                     done > 0 ? left * p->seconds / done : 0);
        return cli_interrupted;
    }
    const double rate = p->seconds > 0 ? (double)p->n_tokens / p->seconds : 0;
    const double seconds_left = rate > 0 ? (double)(p->n_all_tokens - p->n_tokens) / rate : 0;
    cli_progress("%s (%zu of %zu)  %llu/%llu tokens  %.0f tokens/s  %.0f s left", p->name, p->text + 1, p->n_texts,
                 (unsigned long long)p->n_tokens, (unsigned long long)p->n_all_tokens, rate, seconds_left);
    return cli_interrupted;
}

static void print_result(const struct memtx_ingest_result *result)
{
    const unsigned long long n = result->n_tokens, n_before = result->n_tokens_before;
    const double rate = result->seconds > 0 ? (double)(n - n_before) / result->seconds : 0;
    switch (result->outcome) {
    case MEMTX_INGEST_READ:
    case MEMTX_INGEST_STOPPED:
        (void)printf("%s: %s token %llu", result->name,
                     result->outcome == MEMTX_INGEST_READ ? "read up to" : "stopped at", n);
        if (n_before) {
            (void)printf(", from %llu on", n_before);
        }
        (void)printf(" (%.1f s, %.0f tokens/s)\n", result->seconds, rate);
        break;
    case MEMTX_INGEST_HELD:
        (void)printf("%s: %llu tokens, in the store already\n", result->name, n);
        break;
    case MEMTX_INGEST_UNREAD:
    case MEMTX_INGEST_FAILED:
        break;
    }
}

static void print_report(const struct memtx_ingest_report *report, size_t n, const char *path)
{
    if (*report->warning) {
        (void)fprintf(stderr, "memtx: note: %s\n", report->warning);
    }
    for (size_t i = 0; i < n; i++) {
        print_result(&report->results[i]);
    }
    if (report->store.n_documents) {
        (void)printf("%s: %llu documents, %llu rows, %.1f MiB\n", path, (unsigned long long)report->store.n_documents,
                     (unsigned long long)report->store.n_visible_rows, (double)report->store.disk_bytes / 0x1p20);
    }
}

static int ingest(struct request *request, const memtx_model *model, size_t n, char **paths)
{
    struct memtx_ingest_report report = {.results = calloc(n, sizeof *report.results)};
    struct cli_texts texts = {0};
    int exit_code = EXIT_FAILED;
    if (!report.results) {
        exit_code = cli_fail(EXIT_FAILED, "ingest: out of memory");
    } else if (cli_read_texts(&texts, n, paths)) {
        cli_catch_interrupt();
        int status = memtx_ingest_run(&report, model, &request->options, texts.texts, n);
        cli_progress_clear();
        exit_code = status ? cli_fail_status("ingest", status) : EXIT_DONE;
        if (!status || status == MEMTX_E_INTERRUPTED) {
            print_report(&report, n, request->options.reading.memory_path);
        }
    }
    cli_free_texts(&texts);
    free(report.results);
    return exit_code;
}

static int run(const struct cli_command *command, int argc, char **argv)
{
    struct request request;
    int exit_code;
    if (!read_request(&request, command, argc, argv)) {
        return EXIT_USAGE;
    }
    request.options.progress = show_progress;
    memtx_model *model = cli_load_model(&exit_code, "ingest", &request.reading, argv[optind]);
    if (model) {
        exit_code = ingest(&request, model, (size_t)(argc - optind - 1), argv + optind + 1);
    }
    memtx_model_close(model);
    return exit_code;
}

const struct cli_command cmd_ingest = {
    .name = "ingest",
    .usage = "MODEL TEXT... --memory DIR",
    .summary = "Reads texts into a store, a document each; goes on where it was broken off.",
    .details = details,
    .options = options,
    .run = run,
};
