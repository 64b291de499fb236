/* memtx store: looks after a store: info, ls, verify, rebuild, compact, rm. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../index/indexes.h"
#include "command.h"
#include "memtx/memtx.h"

static const struct cli_option options[] = {
    {"index", 0, "SPEC", "rebuild: of this kind (default: the kind that the files have)"},
    {"run-rows", 0, "N", "rebuild: rows that one index covers (default: as the files have it, or 128\nchunks)"},
    {NULL, 0, NULL, NULL},
};

static const char details[] = "Actions:\n"
                              "  info DIR           what the store is for and what it holds\n"
                              "  ls DIR             its documents: rows, tokens read, name\n"
                              "  verify DIR         reads everything; names the first damage\n"
                              "  rebuild DIR        makes the index files anew; of clusters, it takes away\n"
                              "                     the damaged ones\n"
                              "  compact DIR NEW    writes a copy without holes, which can be moved\n"
                              "  rm DIR NAME        removes a document\n"
                              "\n"
                              "All but rm and rebuild only read, and work beside a process that writes. Ctrl-C ends\n"
                              "verify, rebuild and compact; of a copy that broke off nothing is left.\n"
                              "\n"
                              "Example:\n"
                              "  memtx store verify emma.memory\n";

/* Long work on its way. */
struct work {
    const char *name;
    double show_at; /* in seconds of the work */
};

/* How far it is, ten times a second, and Ctrl-C. */
static int show_progress(void *context, const struct memtx_store_progress *p)
{
    const double pause = 0.1, mib = 1048576;
    struct work *work = context;
    if (p->seconds >= work->show_at) {
        const double rate = p->seconds > 0 ? (double)p->n_bytes / p->seconds : 0;
        cli_progress("%s  %.1f/%.1f MiB  %.0f %%  %.0f MiB/s  %.0f s left", work->name, (double)p->n_bytes / mib,
                     (double)p->n_all_bytes / mib, 100.0 * (double)p->n_bytes / (double)p->n_all_bytes, rate / mib,
                     rate > 0 ? (double)(p->n_all_bytes - p->n_bytes) / rate : 0);
        work->show_at = p->seconds + pause;
    }
    return cli_interrupted;
}

static struct memtx_store_upkeep_options begin_work(struct work *work, const char *name)
{
    struct memtx_store_upkeep_options told = memtx_store_upkeep_options_default();
    *work = (struct work){.name = name};
    told.progress = show_progress;
    told.progress_context = work;
    cli_progress("%s  the database's pages", name); /* the first part, which is not counted */
    return told;
}

/* What the command line says behind the action and the store. */
struct request {
    char **names;
    struct memtx_memory_options options; /* of rebuild */
};

static int info(memtx_store *store, const struct request *request)
{
    struct memtx_store_facts facts;
    uint64_t free_bytes;
    (void)request;
    memtx_store_info(&facts, store);
    int status = memtx_store_free_bytes(&free_bytes, store);
    if (status) {
        return status;
    }
    const struct memtx_store_spec *spec = &facts.spec;
    (void)printf("format       version %u\nmodel        ", facts.format_version);
    for (size_t i = 0; i < MEMTX_FINGERPRINT_BYTES; i++) {
        (void)printf("%02x", spec->fingerprint[i]);
    }
    (void)printf(", %u layers, %u heads over %u of size %u\ntokenizer    %s\nlayers       ", spec->n_layers,
                 spec->n_heads, spec->n_kv_heads, spec->head_size, spec->tokenizer);
    memtx_store_print_pairs(stdout, spec);
    (void)printf("\nwritten with %s\n", spec->settings);
    (void)printf(
        "documents    %llu\nrows         %llu in documents, %s; %llu ids given out, those from %llu on visible\n",
        (unsigned long long)facts.n_documents, (unsigned long long)facts.n_visible_rows,
        memtx_row_type_name(spec->row_type), (unsigned long long)facts.n_rows, (unsigned long long)facts.first_row);
    (void)printf("bytes        %llu, of which %llu (%.1f %%) are free\n", (unsigned long long)facts.disk_bytes,
                 (unsigned long long)free_bytes,
                 facts.disk_bytes ? 100.0 * (double)free_bytes / (double)facts.disk_bytes : 0.0);
    (void)printf("index files  %llu", (unsigned long long)facts.n_runs);
    if (facts.n_runs) {
        (void)printf(" of %s, over %llu rows, %llu bytes", facts.index, (unsigned long long)facts.run_rows,
                     (unsigned long long)facts.run_bytes);
    }
    (void)printf("\n");
    return MEMTX_OK;
}

static int list(memtx_store *store, const struct request *request)
{
    struct memtx_document document;
    (void)request;
    (void)printf("%12s %12s  %-9s  name\n", "rows", "read", "state");
    for (uint64_t i = 0; memtx_store_document_at(&document, store, i) == MEMTX_OK; i++) {
        (void)printf("%12llu %12llu  %-9s  %s\n", (unsigned long long)document.n_tokens,
                     (unsigned long long)document.n_read,
                     document.ended         ? "complete"
                     : document.state_bytes ? "suspended"
                                            : "open",
                     document.name);
    }
    return MEMTX_OK;
}

static int verify(memtx_store *store, const struct request *request)
{
    struct memtx_store_facts facts;
    struct work work;
    const struct memtx_store_upkeep_options told = begin_work(&work, "verifying");
    (void)request;
    int status = memtx_store_verify(store, &told);
    memtx_store_info(&facts, store);
    if (!status) {
        cli_progress_clear();
        (void)printf("%llu documents, %llu rows: no damage\n", (unsigned long long)facts.n_documents,
                     (unsigned long long)facts.n_visible_rows);
    }
    return status;
}

static int compact(memtx_store *store, const struct request *request)
{
    struct work work;
    const struct memtx_store_upkeep_options told = begin_work(&work, "copying");
    int status = memtx_store_compact(store, request->names[0], &told);
    cli_progress_clear();
    return status;
}

/* Whether a rebuild keeps what is whole: none of clusters is made there. */
static bool is_of_clusters(const struct memtx_store_facts *before, const struct request *request)
{
    const char *index = request->options.index ? request->options.index : before->index;
    return strncmp(index, "cluster", strlen("cluster")) == 0;
}

static int rebuild(memtx_store *store, const struct request *request)
{
    struct memtx_store_facts before, facts;
    struct work work;
    const struct memtx_store_upkeep_options told = begin_work(&work, "building");
    memtx_store_info(&before, store);
    int status = memtx_memory_rebuild(store, &request->options, &told);
    cli_progress_clear();
    memtx_store_info(&facts, store);
    if (!status) {
        (void)printf("%llu index files over %llu of %llu rows", (unsigned long long)facts.n_runs,
                     (unsigned long long)facts.run_rows, (unsigned long long)facts.n_visible_rows);
        if (is_of_clusters(&before, request) && facts.n_runs < before.n_runs) {
            (void)printf("; %llu were damaged, and are made anew by what reads on with this index",
                         (unsigned long long)(before.n_runs - facts.n_runs));
        }
        (void)printf("\n");
    }
    return status;
}

static int remove_document(memtx_store *store, const struct request *request)
{
    return memtx_store_remove_document(store, request->names[0]);
}

struct action {
    const char *name;
    int n_names; /* behind DIR */
    bool writes;
    int (*run)(memtx_store *store, const struct request *request);
};

static const struct action actions[] = {{"info", 0, false, info},       {"ls", 0, false, list},
                                        {"verify", 0, false, verify},   {"rebuild", 0, true, rebuild},
                                        {"compact", 1, false, compact}, {"rm", 1, true, remove_document}};

static const struct action *action_named(const char *name)
{
    for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++) {
        if (strcmp(actions[i].name, name) == 0) {
            return &actions[i];
        }
    }
    return NULL;
}

static int act(const struct action *action, const char *path, const struct request *request)
{
    struct memtx_store_options store_options = memtx_store_options_default();
    memtx_store *store;
    store_options.read_only = !action->writes;
    int status = memtx_store_open(&store, path, NULL, &store_options);
    if (status) {
        return cli_fail_status("store", status);
    }
    cli_catch_interrupt();
    status = action->run(store, request);
    if (status) { /* before closing can say something else */
        cli_progress_clear();
        (void)cli_fail_status("store", status);
    }
    int closed = memtx_store_close(store);
    return status ? memtx_status_exit_code(status) : closed ? cli_fail_status("store", closed) : EXIT_DONE;
}

static int run(const struct cli_command *command, int argc, char **argv)
{
    struct request request = {.options = memtx_memory_options_default()};
    const struct cli_option *option;
    const char *argument;
    bool failed = false;
    request.options.resolve_index = memtx_index_resolve;
    while ((option = cli_next_option(&argument, &failed, command, argc, argv))) {
        if (strcmp(option->name, "index") == 0) {
            request.options.index = argument;
        } else if (!cli_parse_count(&request.options.run_rows, option->name, argument, 1, UINT64_C(1) << 32)) {
            return EXIT_USAGE;
        }
    }
    if (failed) {
        return EXIT_USAGE;
    }
    const int n = argc - optind;
    const struct action *action = n > 0 ? action_named(argv[optind]) : NULL;
    if (!action || n != 2 + action->n_names) {
        return cli_fail(EXIT_USAGE,
                        "store: name an action, a store and what the action needs (see memtx store --help)");
    }
    request.names = argv + optind + 2;
    return act(action, argv[optind + 1], &request);
}

const struct cli_command cmd_store = {
    .name = "store",
    .usage = "info|ls|verify|rebuild|compact|rm DIR [NEW|NAME]",
    .summary = "Looks after a store: what is in it, whether it is whole, copies, removals.",
    .details = details,
    .options = options,
    .run = run,
};
