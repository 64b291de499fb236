/* memtx eval: perplexity of texts in several modes, with paired differences. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "reading.h"

static const struct cli_option options[] = {
    {"modes", 'm', "LIST", "of segment, window, xl, sinks, full, memory, memory-random\n(default xl,sinks,memory)"},
    CLI_SPAN_OPTIONS,
    {"memory", 0, "DIR", "keep the memory in this directory (default: a temporary store)"},
    {"continue", 'c', "NAME",
     "go on with this document of the store where it stops; TEXT is all\nof its text, from the beginning; modes "
     "sinks,memory"},
    CLI_MEMORY_OPTIONS("upper"),
    {"skip", 0, "N", "do not score the first N tokens of each text; they stay context"},
    CLI_MODEL_OPTIONS,
    {"seed", 0, "N", "of random retrieval (default 0)"},
    {"json", 0, "FILE",
     "write all figures and options as JSON; -: to standard output,\nand the table to standard error"},
    {NULL, 0, NULL, NULL},
};

static const char details[] = "TEXT is a file, or - for standard input; each is a document of its own.\n"
                              "\n"
                              "The modes, for a query at offset t of a segment:\n"
                              "  segment  the t+1 tokens of its segment\n"
                              "  window   exactly the last W tokens\n"
                              "  xl       the W tokens before the segment, and its segment (Transformer-XL)\n"
                              "  sinks    the first s tokens, then as xl (StreamingLLM)\n"
                              "  full     everything, up to the model's context\n"
                              "  memory   as sinks, and at memory layers the k best rows of what left the window\n"
                              "           (Memorizing Transformers)\n"
                              "  memory-random  the same with k random rows: the control\n"
                              "\n"
                              "Memory's gain is memory minus sinks: both see the same window.\n"
                              "\n"
                              "With --memory, what is read stays in the store: --continue and memtx ingest go on\n"
                              "with it, --scope lets another text find it. With --continue all modes begin with the\n"
                              "state that the store holds, which was read with the memory.\n"
                              "\n"
                              "Example:\n"
                              "  memtx eval data/cache/model.gguf data/cache/books/persuasion.txt --tokens 16384\n";

struct request {
    struct memtx_eval_options options;
    struct cli_reading reading;
    const char *json;
    bool modes_given;
};

static bool take_option(struct request *request, const char *name, const char *argument)
{
    struct memtx_eval_options *o = &request->options;
    bool good = true;
    if (cli_is(name, "modes")) {
        good = cli_check_parsed(name, memtx_eval_parse_modes(o, argument));
        request->modes_given = true;
    } else if (cli_is(name, "continue")) {
        o->continued = argument;
    } else if (cli_is(name, "skip")) {
        good = cli_parse_count(&o->n_skipped, name, argument, 0, UINT64_C(1) << 48);
    } else if (cli_is(name, "seed")) {
        good = cli_parse_count(&o->seed, name, argument, 0, UINT64_MAX);
    } else if (cli_is(name, "json")) {
        request->json = argument;
    } else {
        good = cli_take_reading_option(&request->reading, name, argument);
    }
    return good;
}

/* false after one line on stderr. */
static bool read_request(struct request *request, const struct cli_command *command, int argc, char **argv)
{
    const struct cli_option *option;
    const char *argument;
    bool failed = false;
    *request = (struct request){.options = memtx_eval_options_default()};
    cli_begin_reading(&request->reading, &request->options.reading);
    while ((option = cli_next_option(&argument, &failed, command, argc, argv))) {
        if (!take_option(request, option->name, argument)) {
            return false;
        }
    }
    if (failed) {
        return false;
    }
    if (argc - optind < 2) {
        (void)cli_fail(EXIT_USAGE, "eval: name a model and at least one text (see memtx eval --help)");
        return false;
    }
    if (request->options.continued && !request->options.reading.memory_path) {
        (void)cli_fail(EXIT_USAGE, "--continue %s: name the store too (--memory DIR)", request->options.continued);
        return false;
    }
    if (request->options.continued && !request->modes_given) {
        (void)memtx_eval_parse_modes(&request->options, "sinks,memory");
    }
    return cli_check_reading(&request->reading);
}

static int show_progress(void *context, const struct memtx_eval_progress *p)
{
    (void)context;
    const double rate = p->seconds > 0 ? (double)p->n_tokens / p->seconds : 0;
    const double seconds_left = rate > 0 ? (double)(p->n_all_tokens - p->n_tokens) / rate : 0;
    cli_progress("%s (%zu of %zu)  %zu/%zu tokens  nll %.4f  %.0f tokens/s  %.0f s left in this mode", p->mode,
                 p->mode_index + 1, p->n_modes, p->n_tokens, p->n_all_tokens, p->nll, rate, seconds_left);
    return cli_interrupted;
}

static int write_results(const struct request *request, const memtx_eval *eval)
{
    const bool json_only = request->json && cli_is(request->json, "-");
    int status = MEMTX_OK;
    if (*memtx_eval_warning(eval)) {
        (void)fprintf(stderr, "memtx: note: %s\n", memtx_eval_warning(eval));
    }
    memtx_eval_print(json_only ? stderr : stdout, eval);
    if (request->json) {
        status = json_only ? memtx_eval_print_json(stdout, eval) : memtx_eval_write_json(request->json, eval);
    }
    return status ? cli_fail_status("eval", status) : EXIT_DONE;
}

static int evaluate(const struct request *request, const memtx_model *model, size_t n, char **paths)
{
    struct cli_texts texts;
    memtx_eval *eval = NULL;
    int exit_code = EXIT_FAILED;
    if (cli_read_texts(&texts, n, paths)) {
        cli_catch_interrupt();
        int status = memtx_eval_run(&eval, model, &request->options, texts.texts, n);
        cli_progress_clear();
        exit_code = status ? cli_fail_status("eval", status) : EXIT_DONE;
    }
    if (eval) {
        int written = write_results(request, eval);
        exit_code = exit_code ? exit_code : written;
    }
    memtx_eval_destroy(eval);
    cli_free_texts(&texts);
    return exit_code;
}

/* That the JSON can be written is seen before the work, not after it. */
static bool check_json(const char *path)
{
    if (!path || cli_is(path, "-")) {
        return true;
    }
    const char *base = cli_base_name(path);
    char directory[4096];
    struct stat facts;
    if (!*path || (stat(path, &facts) == 0 && S_ISDIR(facts.st_mode))) {
        (void)cli_fail(EXIT_FAILED, "--json %s: %s (name a file, or - for standard output)", path,
                       *path ? "is a directory" : "the name is empty");
        return false;
    }
    (void)snprintf(directory, sizeof directory, "%.*s", (int)(base - path), path);
    if (access(*directory ? directory : ".", W_OK) != 0) {
        (void)cli_fail(EXIT_FAILED, "--json %s: cannot write there: %s", path, strerror(errno));
        return false;
    }
    return true;
}

static int run(const struct cli_command *command, int argc, char **argv)
{
    struct request request;
    int exit_code;
    if (!read_request(&request, command, argc, argv)) {
        return EXIT_USAGE;
    }
    if (!check_json(request.json)) {
        return EXIT_FAILED;
    }
    request.options.progress = show_progress;
    memtx_model *model = cli_load_model(&exit_code, "eval", &request.reading, argv[optind]);
    if (model) {
        exit_code = evaluate(&request, model, (size_t)(argc - optind - 1), argv + optind + 1);
    }
    memtx_model_close(model);
    return exit_code;
}

const struct cli_command cmd_eval = {
    .name = "eval",
    .usage = "MODEL TEXT...",
    .summary = "Perplexity of texts under a model, in several modes over the same tokens.",
    .details = details,
    .options = options,
    .run = run,
};
