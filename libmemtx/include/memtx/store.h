/* The store: rows of keys and values, and the documents they came from, on disk (a directory) or on the heap.
 *
 * A store belongs to one model: it keeps the model's fingerprint, which (layer, kv head) pairs it holds, head size,
 * type of the rows, RoPE facts and tokenizer, and refuses another. The truth is in LMDB; what a reader or a restart
 * sees is a prefix of the stream that was appended. See store/store_format.h in the source for every byte.
 *
 * Life: open -> (memories read and append through memtx/memory.h) -> close. One process writes a store, any number read
 * it meanwhile (`read_only`) and see a prefix of what was appended, as it stood at the beginning of each segment. A
 * process has a store open once at a time, and a forked child must not touch it: open it anew there.
 */
#ifndef MEMTX_STORE_H
#define MEMTX_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "memtx/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    MEMTX_FINGERPRINT_BYTES = 16,
    MEMTX_HASH_BYTES = 16,
    MEMTX_MAX_LAYERS = 512,
    MEMTX_MAX_KV_HEADS = 64,
    MEMTX_NAME_BYTES = 256
};

/* Type of the stored keys and values, little-endian. */
enum memtx_row_type { MEMTX_ROWS_F16 = 0, MEMTX_ROWS_BF16 = 1, MEMTX_ROWS_F32 = 2 };

/* When an append is on disk (DESIGN 5). */
enum memtx_durability {
    MEMTX_DURABILITY_GROUP = 0, /* with every few segments, or a second: what is not yet written is searched from RAM */
    MEMTX_DURABILITY_FULL = 1   /* when memtx_memory_commit returns */
};

/* What a store is for. Everything but `settings` must fit when an existing store is opened. */
struct memtx_store_spec {
    uint8_t fingerprint[MEMTX_FINGERPRINT_BYTES]; /* of the model */
    uint32_t n_layers;                            /* of the model, 1..512 */
    uint32_t n_heads;                             /* H */
    uint32_t n_kv_heads;                          /* G, 1..64 */
    uint32_t head_size;                           /* D, 1..512 */
    uint32_t rope_dims;                           /* turning dimensions of a head; 0: positions are off */
    double rope_base;                             /* frequency base */
    const float *rope_factors;                    /* [rope_dims / 2] or NULL for ones; copied */
    float scale;                                  /* of attention logits */
    enum memtx_row_type row_type;
    uint64_t heads_kept[MEMTX_MAX_LAYERS]; /* bit g: kv head g of the layer is kept; 0: the layer is no memory layer */
    char tokenizer[64];                    /* name of the pre-tokenizer, for information */
    char settings[512];                    /* with which it is written: for information, and to warn by */
};

struct memtx_store_options {
    bool temporary;                   /* make a new store under directory `path`, gone with the close or the process */
    enum memtx_durability durability; /* default group */
    uint32_t group_segments;          /* group: written after this many commits (default 8), */
    uint32_t group_milliseconds;      /* or this long after the first of them (default 1,000), */
    size_t group_bytes;               /* or when this much waits (default 32 MiB) */
    uint64_t capacity_rows;           /* the newest so many rows are visible; 0: all (default) */
    bool allow_stale;                 /* take a store of another model of the same shape */
    bool read_only;                   /* an existing store, for reading: never creates (but lock.mdb, where it is
                                       * missing), changes or locks out anything */
};

/* What a document is. */
struct memtx_document {
    uint64_t id;                    /* never reused */
    uint64_t n_tokens;              /* appended so far: its rows */
    bool ended;                     /* its window and sinks are appended too */
    uint8_t hash[MEMTX_HASH_BYTES]; /* memtx_tokens_hash of the n_read tokens; zero without a running state */
    uint64_t n_read;      /* tokens that were read when its running state was taken: where a reading goes on */
    uint64_t state_row;   /* its rows from this id on came after the running state */
    uint64_t state_bytes; /* of the running state; 0: there is none */
    char name[MEMTX_NAME_BYTES];
};

struct memtx_store_facts {
    uint32_t format_version;
    struct memtx_store_spec spec; /* rope_factors is borrowed from the store */
    uint64_t n_rows;              /* ids given out so far */
    uint64_t first_row;           /* the oldest that is visible */
    uint64_t n_written_rows;      /* of n_rows, those on disk */
    uint64_t n_visible_rows;      /* of documents, within the capacity: without the dead ones between */
    uint64_t n_documents;
    uint64_t disk_bytes; /* of the LMDB file; 0 on the heap */
    uint64_t n_runs;     /* index files beside it (memtx/index.h), */
    uint64_t run_rows;   /* the rows that they cover, */
    uint64_t run_bytes;  /* and what they take on disk */
    char index[192];     /* spec of the newest of them; "" */
    uint64_t chunk_rows;
};

typedef struct memtx_store memtx_store;

MEMTX_API struct memtx_store_options memtx_store_options_default(void);

/* All kv heads of a layer, below MEMTX_MAX_LAYERS, are kept. spec->n_kv_heads is set before. */
MEMTX_API void memtx_store_keep_layer(struct memtx_store_spec *spec, uint32_t layer);

/* Whether a pair is kept; no pair past the bounds is. */
MEMTX_API bool memtx_store_keeps(const struct memtx_store_spec *spec, uint32_t layer, uint32_t kv_head);

/* The pairs that are kept, layers with the same kv heads together: "15-29, all heads", or "1,3-5, all heads; 7, kv
 * heads 0-1,3". Without an end of line. */
MEMTX_API void memtx_store_print_pairs(FILE *file, const struct memtx_store_spec *spec);

/* Opens the store that `spec` describes in directory `path`, for reading and appending, creating it (0700) where it
 * does not exist; path NULL makes one on the heap. `spec` NULL takes an existing store as it is, and makes none. *out is
 * the caller's; NULL on failure. Symbolic links in the place of its files are refused, and so are a directory that other
 * users can write into, and files in it that are theirs. MEMTX_E_NOT_FOUND; MEMTX_E_MISMATCH (another model or other
 * settings of the rows: the text says which); MEMTX_E_UNSUPPORTED (a newer format); MEMTX_E_CORRUPT; MEMTX_E_BUSY (another
 * process writes it, and the text says which; or this process has it open already); MEMTX_E_FORMAT (a directory that is
 * something else); MEMTX_E_INVALID; MEMTX_E_IO; MEMTX_E_NO_SPACE; MEMTX_E_NO_MEMORY. The cost does not depend on the number
 * of rows. */
MEMTX_API int memtx_store_open(memtx_store **out, const char *path, const struct memtx_store_spec *spec,
                               const struct memtx_store_options *options);

/* Writes what waits, and closes. NULL is fine. The store is released whatever is returned: what the last write said.
 * All memories over it must be closed before. */
MEMTX_API int memtx_store_close(memtx_store *store);

/* Facts as of now. From the thread that owns the store. */
MEMTX_API void memtx_store_info(struct memtx_store_facts *out, const memtx_store *store);

/* Document `i` in order of creation; MEMTX_E_NOT_FOUND past the end. As of the opening, in a store that is read-only. */
MEMTX_API int memtx_store_document_at(struct memtx_document *out, const memtx_store *store, uint64_t i);

/* The document of a name; MEMTX_E_NOT_FOUND. */
MEMTX_API int memtx_store_document_named(struct memtx_document *out, const memtx_store *store, const char *name);

/* Removes a document: its rows are dead from now on, and chunks that hold no others go. Their ids are never used again.
 * MEMTX_E_NOT_FOUND, MEMTX_E_BUSY (a memory is open over the store), MEMTX_E_INVALID (read-only), MEMTX_E_NO_SPACE,
 * MEMTX_E_IO. */
MEMTX_API int memtx_store_remove_document(memtx_store *store, const char *name);

/* The running state of a document (memtx/memory.h: memtx_memory_set_state), the newest on disk: bytes[n_bytes], the caller's, released with
 * memtx_store_state_free. MEMTX_E_NOT_FOUND (no such document, or it has none), MEMTX_E_CORRUPT, MEMTX_E_NO_MEMORY. */
MEMTX_API int memtx_store_state(unsigned char **bytes, size_t *n_bytes, memtx_store *store, const char *name);
MEMTX_API void memtx_store_state_free(unsigned char *bytes); /* NULL is fine */

/* ---- looking after a store -------------------------------------------------------------------- */

/* What a progress callback is told. */
struct memtx_store_progress {
    uint64_t n_bytes, n_all_bytes; /* of rows, token ids and running states: done, all */
    double seconds;                /* spent on them */
};

struct memtx_store_upkeep_options {
    /* Called after every chunk, in the calling thread; anything but 0 ends the work cleanly. NULL: none. */
    int (*progress)(void *context, const struct memtx_store_progress *progress);
    void *progress_context;
};

MEMTX_API struct memtx_store_upkeep_options memtx_store_upkeep_options_default(void);

/* Bytes of the LMDB file that hold nothing: they are used again by what is appended. MEMTX_E_CORRUPT, MEMTX_E_IO. */
MEMTX_API int memtx_store_free_bytes(uint64_t *out, memtx_store *store);

/* Reads all of a store on disk and checks it: the database's own structure, checksums, counts, that every visible row
 * is there. options NULL: nobody is told how far it is. MEMTX_E_CORRUPT: the text is the first damage;
 * MEMTX_E_INTERRUPTED; MEMTX_E_INVALID (a store on the heap); MEMTX_E_IO; MEMTX_E_NO_MEMORY. Costs reading every byte;
 * the database's structure comes first, and is not counted. */
MEMTX_API int memtx_store_verify(memtx_store *store, const struct memtx_store_upkeep_options *options);

/* Writes a copy of a store on disk without holes into a new directory, which is there whole or not at all and can be
 * moved; everything is checked on the way, row ids stay as they are. It grows beside it as NEW_PATH.XXXXXX, which only
 * a process that is killed leaves behind. MEMTX_E_EXISTS, MEMTX_E_CORRUPT, MEMTX_E_INTERRUPTED, MEMTX_E_INVALID (a store
 * on the heap), MEMTX_E_NO_SPACE, MEMTX_E_IO, MEMTX_E_NO_MEMORY. */
MEMTX_API int memtx_store_compact(memtx_store *store, const char *new_path,
                                  const struct memtx_store_upkeep_options *options);

/* "f16", "bf16", "f32", and back: MEMTX_E_INVALID for another name. */
MEMTX_API const char *memtx_row_type_name(enum memtx_row_type type);
MEMTX_API int memtx_row_type_parse(enum memtx_row_type *out, const char *name);

#ifdef __cplusplus
}
#endif
#endif
