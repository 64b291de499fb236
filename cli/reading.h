/* Options that the commands share which read texts with a model (memtx/reading.h): rows of their tables, and what the
 * rows set. */
#ifndef MEMTX_CLI_READING_H
#define MEMTX_CLI_READING_H

#include "command.h"
#include "memtx/memtx.h"

/* What the command line says, besides the library's own options. */
struct cli_reading {
    struct memtx_reading_options *options;
    const char *layers; /* parsed once the model is there */
    enum memtx_weights weights;
    uint64_t n_threads;
    bool bias_given;
};

/* clang-format off */
#define CLI_SPAN_OPTIONS                                                                                               \
    {"window", 'w', "N", "W: tokens that a layer's cache holds (default 512)"},                                        \
    {"segment", 't', "N", "T: tokens run through the model at once (default 512)"},                                    \
    {"sinks", 's', "N", "first tokens of a text that never leave the cache (default 4)"}

#define CLI_MEMORY_OPTIONS(usual_layers)                                                                               \
    {"layers", 'l', "LIST", "memory layers: 12,16,20 or 15-29 or upper or all (default: those of\nthe store, or "      \
                            usual_layers ")"},                                                                         \
    {"k", 'k', "N", "rows retrieved for each query and head (default 32)"},                                            \
    {"index", 0, "SPEC", "exact (exact:f32, exact:bf16, exact:i8), cluster, or FAISS such as\n"                      \
                         "faiss:IVF1024,Flat: index/README.md (default: that of the store's\n"                         \
                         "index files, or else " MEMTX_READING_INDEX "; above some 32,000 tokens\n"                    \
                         "cluster@from=32640 takes much less time and finds nearly the same)"},                        \
    {"run-rows", 0, "N", "rows that one index covers; newer ones are searched exactly\n(default 128 chunks: 65,280 "    \
                         "rows of f16)"},                                                                              \
    {"blend", 0, "MODE", "joint, bias, paper or off (default joint)"},                                                 \
    {"bias", 0, "B", "b_h of every head, for blend bias (default -1) and paper (-4)"},                                 \
    {"delta", 0, "N", "distance at which far rows stand (default 4 max(W, T))"},                                       \
    {"positions", 0, "HOW", "near: at min(distance, delta); fixed: all at delta (default near)"},                      \
    {"lambda", 0, "X", "weigh rows down by X for each thousand tokens of age (default 0)"},                            \
    {"scope", 0, "WHICH", "documents that a search sees beside the text being read: this\n(none, the default), all, "  \
                          "or names of documents: a,b"},                                                               \
    {"allow-seen", 0, NULL, "read a text although the scope holds it already"},                                        \
    {"allow-stale", 0, NULL, "take a store that another model of the same shape has filled"},                          \
    {"capacity", 0, "ROWS", "only the newest so many rows are visible (default: all)"},                                \
    {"store-type", 0, "TYPE", "of stored rows: f16, bf16 or f32 (default f16)"},                                       \
    {"durability", 0, "HOW", "group: written every few segments; full: every segment (default\ngroup)"},               \
    {"tokens", 'n', "N", "read only the first N tokens of each text"}

#define CLI_MODEL_OPTIONS                                                                                              \
    {"weights", 0, "TYPE", "multiply in f32 or bf16 (default f32)"},                                                   \
    {"threads", 'j', "N", "threads (default: one for each core)"}
/* clang-format on */

/* Whether a word of an option is this one. */
bool cli_is(const char *option, const char *name);

/* Values of options; false after one line on stderr. */
bool cli_set_u32(uint32_t *out, const char *option, const char *argument, uint64_t low, uint64_t high);
bool cli_set_word(int *out, const char *option, const char *argument, const char *zero, const char *one);
bool cli_check_parsed(const char *option, int status); /* of a parser of the library */

/* Begins with these options of the command's, defaults so far. */
void cli_begin_reading(struct cli_reading *reading, struct memtx_reading_options *options);

/* Takes an option of the rows above; another is left alone. false after one line on stderr. */
bool cli_take_reading_option(struct cli_reading *reading, const char *name, const char *argument);

/* What options must not do together; false after one line on stderr. */
bool cli_check_reading(const struct cli_reading *reading);

/* Sets the threads and loads the model; what --layers says is parsed for it. NULL after one line on stderr, with the exit
 * code in *exit_code. */
memtx_model *cli_load_model(int *exit_code, const char *command, struct cli_reading *reading, const char *path);

/* The texts of n paths, each under its base name; false after one line on stderr. Free them on failure too. */
struct cli_texts {
    struct memtx_reading_text *texts;
    struct cli_text *files;
    size_t n;
};
bool cli_read_texts(struct cli_texts *out, size_t n, char **paths);
void cli_free_texts(struct cli_texts *texts);

#endif
