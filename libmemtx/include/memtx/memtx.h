/* libmemtx: a memory on disk for transformers.
 *
 *     text --tokenizer--> tokens --model, a segment at a time--> block 0 .. block L-1 --> logits --> loss
 *                                                                  |        ^
 *                               K,V that leave the window (evicted)|        | (V_mem, LSE_mem) per query and head
 *                                                                  v        |
 *                                                         memory.append   memory.attend
 *                                                                  |        |  search: top-k row ids
 *                                                                  v        v
 *                                                    store (LMDB: the truth)
 *
 * Life cycle of a memory, in any runtime:
 *   1. memtx_store_open          a directory (or the heap), made for one model
 *   2. memtx_memory_open         one stream of rows over it
 *   3. memtx_memory_begin_document
 *   4. for each segment: memtx_memory_begin_segment; at each memory layer memtx_memory_attend and memtx_blend; for what
 *      leaves the window memtx_memory_append at each layer; memtx_memory_commit
 *   5. memtx_memory_end_document, memtx_memory_close, memtx_store_close
 *
 * With the bundled runtime (memtx/model.h) a program is:
 *
 *     memtx_model *model = NULL;
 *     memtx_eval *eval = NULL;
 *     struct memtx_eval_options options = memtx_eval_options_default();
 *     struct memtx_reading_text text = {"text", bytes, n_bytes};
 *     if (memtx_model_load(&model, "model.gguf", MEMTX_WEIGHTS_F32) == MEMTX_OK &&
 *         memtx_eval_run(&eval, model, &options, &text, 1) == MEMTX_OK) {
 *         memtx_eval_print(stdout, eval);
 *     } else {
 *         fprintf(stderr, "%s\n", memtx_last_error());
 *     }
 *     memtx_eval_destroy(eval);
 *     memtx_model_close(model);
 *
 * Every function that can fail returns 0 or a negative MEMTX_E_ code (memtx/status.h). Pointers that come back through
 * an argument named out are the caller's, and NULL on failure; other pointers are borrowed.
 */
#ifndef MEMTX_MEMTX_H
#define MEMTX_MEMTX_H

#include "memtx/eval.h"
#include "memtx/gguf.h"
#include "memtx/index.h"
#include "memtx/ingest.h"
#include "memtx/memory.h"
#include "memtx/model.h"
#include "memtx/reading.h"
#include "memtx/status.h"
#include "memtx/store.h"
#include "memtx/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* "0.1.0 (LMDB 0.9.24, oneDNN 2.6.3, PCRE2 10.42)": this library and what it stands on. Any thread. */
MEMTX_API const char *memtx_version(void);

#ifdef __cplusplus
}
#endif
#endif
