/* How the library's own files report an error. */
#ifndef MEMTX_BASE_STATUS_H
#define MEMTX_BASE_STATUS_H

#include "memtx/status.h"

/* Sets the thread's error text and returns `status`, so that a caller writes `return memtx__fail(...)`. */
int memtx__fail(int status, const char *format, ...) MEMTX_PRINTF(2, 3);

#endif
