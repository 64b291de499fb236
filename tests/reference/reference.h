/* The real model under the reference tests: data/cache/model.gguf of the source tree. Where it is absent or another
 * file than the references were made from, the test says skipped. */
#ifndef MEMTX_TESTS_REFERENCE_H
#define MEMTX_TESTS_REFERENCE_H

#include "json.h"
#include "memtx/model.h"

/* tests/reference/NAME, for free(). Fails the test when it cannot be read. */
char *reference_load(const char *name);

/* The model; skips the test where it is not there. */
memtx_model *reference_model(void);

/* The token ids of a reference file, for free(). */
uint32_t *reference_ids(size_t *n_out, const char *file);

#endif
