/* How texts are read: the options that evaluating (memtx/eval.h) and ingesting (memtx/ingest.h) share, so that a memory
 * filled by the one is what the other expects.
 */
#ifndef MEMTX_READING_H
#define MEMTX_READING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memtx/index.h"
#include "memtx/memory.h"
#include "memtx/status.h"
#include "memtx/store.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MEMTX_DELTA_DEFAULT UINT32_MAX
#define MEMTX_READING_INDEX "exact" /* why: bench/README.md, "What lost recall costs" */

struct memtx_reading_options {
    uint32_t window, segment, sinks;       /* W, T, s: 512, 512, 4 */
    const char *memory_path;               /* of the store of mode memory; NULL: a temporary one */
    const char *temporary_path;            /* directory for temporary stores; NULL: $TMPDIR, /var/tmp or /tmp */
    uint64_t heads_kept[MEMTX_MAX_LAYERS]; /* kv heads of each layer that have a memory, a bit each; none set: those of
                                            * the store that is there, or else all of the upper half of the layers (of
                                            * all layers, when ingesting) */
    uint32_t k;                            /* 32 */
    enum memtx_blend_mode blend;           /* joint */
    float bias;                            /* b_h of every head; NaN: -1 for blend bias, -4 for paper */
    uint32_t delta;                        /* MEMTX_DELTA_DEFAULT: 4 max(W, T), at most the model's context */
    enum memtx_positions positions;        /* near */
    float lambda;                          /* 0 */
    uint64_t capacity_rows;                /* 0: no limit */
    enum memtx_row_type row_type;          /* f16 */
    enum memtx_durability durability;      /* group */
    const char *index;                     /* how rows are found (memtx/memory.h). NULL: as the index files of the store
                                            * that is there say, or else MEMTX_READING_INDEX */
    memtx_index_resolver resolve_index;    /* finds one of others; NULL: none is known */
    uint64_t run_rows;                     /* rows that one index covers; 0: 128 chunks */
    const char *scope; /* documents that a search sees beside the one being read: NULL or "this": none; "all"; or
                        * their names, separated by commas (or one name, which may have commas) */
    bool allow_seen;   /* read a text although what a search sees holds it already */
    bool allow_stale;  /* take a store that another model of the same shape has made */
    uint64_t n_tokens; /* of each text, the first so many; 0: all */
};

/* A text to read. Both are borrowed for the call that reads it. */
struct memtx_reading_text {
    const char *name; /* of the document */
    const char *bytes;
    size_t n_bytes;
};

MEMTX_API struct memtx_reading_options memtx_reading_options_default(void);

/* Parses "12,16,20", "15-29", "upper", "all" into heads_kept[MEMTX_MAX_LAYERS], all kv heads of a layer, for a model of
 * n_layers and n_kv_heads. MEMTX_E_INVALID. */
MEMTX_API int memtx_reading_parse_layers(uint64_t *heads_kept, const char *text, uint32_t n_layers,
                                         uint32_t n_kv_heads);

#ifdef __cplusplus
}
#endif
#endif
