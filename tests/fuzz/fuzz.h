/* What a fuzz target and the program that runs its stored corpus agree on: libFuzzer's entry point. */
#ifndef MEMTX_FUZZ_H
#define MEMTX_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* Must neither crash nor leak nor take long, whatever the bytes. Returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

#endif
