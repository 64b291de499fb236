/* memtx eval: perplexity of texts in several modes, with paired differences. */
#include <errno.h>
#include <getopt.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command.h"
#include "memtx/memtx.h"

static const struct cli_option options[] = {
    {"modes", 'm', "LIST", "of segment, window, xl, sinks, full, memory, memory-random\n(default xl,sinks,memory)"},
    {"window", 'w', "N", "W: tokens that a layer's cache holds (default 512)"},
    {"segment", 't', "N", "T: tokens run through the model at once (default 512)"},
    {"sinks", 's', "N", "first tokens of a text that never leave the cache (default 4)"},
    {"memory", 0, "DIR", "keep the memory in this directory (default: a temporary store)"},
    {"layers", 'l', "LIST", "memory layers: 12,16,20 or 15-29 or upper or all (default upper)"},
    {"k", 'k', "N", "rows retrieved for each query and head (default 32)"},
    {"blend", 0, "MODE", "joint, bias, paper or off (default joint)"},
    {"bias", 0, "B", "b_h of every head, for blend bias (default -1) and paper (-4)"},
    {"delta", 0, "N", "distance at which far rows stand (default 4 max(W, T))"},
    {"positions", 0, "HOW", "near: at min(distance, delta); fixed: all at delta (default near)"},
    {"lambda", 0, "X", "weigh rows down by X for each thousand tokens of age (default 0)"},
    {"capacity", 0, "ROWS", "only the newest so many rows are visible (default: all)"},
    {"store-type", 0, "TYPE", "of stored rows: f16, bf16 or f32 (default f16)"},
    {"durability", 0, "HOW", "group: written every few segments; full: every segment (default\ngroup)"},
    {"tokens", 'n', "N", "read only the first N tokens of each text"},
    {"skip", 0, "N", "do not score the first N tokens of each text; they stay context"},
    {"weights", 0, "TYPE", "multiply in f32 or bf16 (default f32)"},
    {"threads", 'j', "N", "threads (default: one for each core)"},
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
                              "Example:\n"
                              "  memtx eval data/cache/model.gguf data/cache/books/persuasion.txt --tokens 16384\n";

/* What the command line says, besides the library's own options. */
struct request {
    struct memtx_eval_options options;
    const char *layers;
    const char *json;
    enum memtx_weights weights;
    uint64_t n_threads;
    bool bias_given;
};

static bool set_u32(uint32_t *out, const char *option, const char *argument, uint64_t low, uint64_t high)
{
    uint64_t value;
    if (!cli_parse_count(&value, option, argument, low, high)) {
        return false;
    }
    *out = (uint32_t)value;
    return true;
}

static bool set_float(float *out, const char *option, const char *argument, double low, double high)
{
    double value;
    if (!cli_parse_number(&value, option, argument, low, high)) {
        return false;
    }
    *out = (float)value;
    return true;
}

/* One of two words. */
static bool set_word(int *out, const char *option, const char *argument, const char *zero, const char *one)
{
    if (strcmp(argument, zero) != 0 && strcmp(argument, one) != 0) {
        (void)cli_fail(EXIT_USAGE, "--%s %s: not %s or %s", option, argument, zero, one);
        return false;
    }
    *out = strcmp(argument, one) == 0;
    return true;
}

static bool is(const char *option, const char *name)
{
    return strcmp(option, name) == 0;
}

static bool check_parsed(const char *option, int status)
{
    if (status) {
        (void)cli_fail(EXIT_USAGE, "--%s: %s", option, memtx_last_error());
    }
    return !status;
}

/* Options of the memory: the part of the table from --layers to --durability. */
static bool take_memory_option(struct request *request, const char *name, const char *argument)
{
    struct memtx_eval_options *o = &request->options;
    int word = 0;
    bool good = true;
    if (is(name, "layers")) {
        request->layers = argument;
    } else if (is(name, "k")) {
        good = set_u32(&o->k, name, argument, 1, 4096);
    } else if (is(name, "blend")) {
        good = check_parsed(name, memtx_blend_parse(&o->blend, argument));
    } else if (is(name, "bias")) {
        request->bias_given = good = set_float(&o->bias, name, argument, -1000, 1000);
    } else if (is(name, "delta")) {
        good = set_u32(&o->delta, name, argument, 0, 1 << 20);
    } else if (is(name, "positions")) {
        good = set_word(&word, name, argument, "near", "fixed");
        o->positions = word ? MEMTX_POSITIONS_FIXED : MEMTX_POSITIONS_NEAR;
    } else if (is(name, "lambda")) {
        good = set_float(&o->lambda, name, argument, 0, 1e6);
    } else if (is(name, "capacity")) {
        good = cli_parse_count(&o->capacity_rows, name, argument, 1, UINT64_C(1) << 48);
    } else if (is(name, "store-type")) {
        good = check_parsed(name, memtx_row_type_parse(&o->row_type, argument));
    } else if (is(name, "durability")) {
        good = set_word(&word, name, argument, "group", "full");
        o->durability = word ? MEMTX_DURABILITY_FULL : MEMTX_DURABILITY_GROUP;
    }
    return good;
}

static bool take_option(struct request *request, const char *name, const char *argument)
{
    struct memtx_eval_options *o = &request->options;
    const uint64_t most = UINT64_C(1) << 48;
    int word = 0;
    bool good = true;
    if (is(name, "modes")) {
        good = check_parsed(name, memtx_eval_parse_modes(o, argument));
    } else if (is(name, "window")) {
        good = set_u32(&o->window, name, argument, 0, 1 << 20);
    } else if (is(name, "segment")) {
        good = set_u32(&o->segment, name, argument, 1, 1 << 16);
    } else if (is(name, "sinks")) {
        good = set_u32(&o->sinks, name, argument, 0, 1 << 16);
    } else if (is(name, "memory")) {
        o->memory_path = argument;
    } else if (is(name, "tokens")) {
        good = cli_parse_count(&o->n_tokens, name, argument, 1, most);
    } else if (is(name, "skip")) {
        good = cli_parse_count(&o->n_skipped, name, argument, 0, most);
    } else if (is(name, "weights")) {
        good = set_word(&word, name, argument, "f32", "bf16");
        request->weights = word ? MEMTX_WEIGHTS_BF16 : MEMTX_WEIGHTS_F32;
    } else if (is(name, "threads")) {
        good = cli_parse_count(&request->n_threads, name, argument, 1, 1024);
    } else if (is(name, "seed")) {
        good = cli_parse_count(&o->seed, name, argument, 0, UINT64_MAX);
    } else if (is(name, "json")) {
        request->json = argument;
    } else {
        good = take_memory_option(request, name, argument);
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
    enum memtx_blend_mode blend = request->options.blend;
    if (request->bias_given && (blend == MEMTX_BLEND_JOINT || blend == MEMTX_BLEND_OFF)) {
        (void)cli_fail(EXIT_USAGE, "--bias has no effect with --blend %s (use --blend bias)", memtx_blend_name(blend));
        return false;
    }
    return true;
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

/* Reads the texts; their number is argc. */
static bool read_texts(struct memtx_eval_text *texts, struct cli_text *files, int n, char **paths)
{
    for (int i = 0; i < n; i++) {
        if (!cli_read_text(&files[i], paths[i])) {
            return false;
        }
        texts[i] = (struct memtx_eval_text){cli_base_name(paths[i]), files[i].bytes, files[i].n_bytes};
    }
    return true;
}

static int write_results(const struct request *request, const memtx_eval *eval)
{
    const bool json_only = request->json && is(request->json, "-");
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

static int evaluate(struct request *request, const memtx_model *model, int n, char **paths)
{
    int exit_code = EXIT_FAILED;
    memtx_eval *eval = NULL;
    struct memtx_model_facts facts;
    struct memtx_eval_text *texts = calloc((size_t)n, sizeof *texts);
    struct cli_text *files = calloc((size_t)n, sizeof *files);
    memtx_model_info(&facts, model);
    if (!texts || !files) {
        exit_code = cli_fail(EXIT_FAILED, "eval: out of memory");
        goto done;
    }
    if (request->layers &&
        !check_parsed("layers", memtx_eval_parse_layers(request->options.layers, request->layers, facts.n_layers))) {
        exit_code = EXIT_USAGE;
        goto done;
    }
    if (!read_texts(texts, files, n, paths)) {
        goto done;
    }
    cli_catch_interrupt();
    int status = memtx_eval_run(&eval, model, &request->options, texts, (size_t)n);
    cli_progress_clear();
    exit_code = status ? cli_fail_status("eval", status) : EXIT_DONE;
    if (eval) {
        int written = write_results(request, eval);
        exit_code = exit_code ? exit_code : written;
    }
done:
    for (int i = 0; files && i < n; i++) {
        cli_free_text(&files[i]);
    }
    free(files);
    free(texts);
    memtx_eval_destroy(eval);
    return exit_code;
}

/* That the JSON can be written is seen before the work, not after it. */
static bool check_json(const char *path)
{
    if (!path || is(path, "-")) {
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
    memtx_model *model = NULL;
    if (!read_request(&request, command, argc, argv)) {
        return EXIT_USAGE;
    }
    if (!check_json(request.json)) {
        return EXIT_FAILED;
    }
    if (request.n_threads) {
        omp_set_num_threads((int)request.n_threads);
    }
    request.options.progress = show_progress;
    cli_progress("loading %s", argv[optind]);
    int status = memtx_model_load(&model, argv[optind], request.weights);
    cli_progress_clear();
    if (status) {
        return cli_fail_status("eval", status);
    }
    int exit_code = evaluate(&request, model, argc - optind - 1, argv + optind + 1);
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
