/* The indexes that this build has: what a program gives to libmemtx as its memtx_index_resolver. */
#ifndef MEMTX_INDEX_INDEXES_H
#define MEMTX_INDEX_INDEXES_H

#include <stddef.h>

#include "memtx/index.h"

/* "faiss:..." gives FAISS, where it was built in. See memtx_index_resolver. */
int memtx_index_resolve(const struct memtx_index_operations **out, const char *spec);

/* "1.7.3 (GENERIC)": the version of the FAISS that is linked and the vector instructions that it was built for, as
 * FAISS calls them (GENERIC: the least that the architecture has, on x86-64 SSE2). "" without FAISS. Any thread. */
void memtx_index_faiss_version(char *out, size_t size);

#endif
