/* FAISS as an index of memtx (memtx/index.h). */
#ifndef MEMTX_INDEX_FAISS_H
#define MEMTX_INDEX_FAISS_H

#include "memtx/index.h"

extern const struct memtx_index_operations index_faiss_operations;

#endif
