/* What the shim (shim.c) records of a program that writes a store: one record for each event on its database, a header
 * and its bytes, in the machine's own order of bytes. The database is new.mdb until it is complete, then data.mdb. */
#ifndef MEMTX_TESTS_CRASH_SHIM_LOG_H
#define MEMTX_TESTS_CRASH_SHIM_LOG_H

#include <stdint.h>

enum shim_event {
    SHIM_WRITE = 1,         /* of n_bytes bytes, which follow, to the file at `offset` */
    SHIM_DURABLE_WRITE = 2, /* the same through a descriptor that was opened O_DSYNC: on disk when it returned */
    SHIM_SYNC = 3,          /* fsync or fdatasync returned 0 */
    SHIM_STDOUT = 4,        /* n_bytes bytes of stdout follow: an acknowledgement */
    SHIM_RENAME = 5,        /* the file got the name data.mdb */
    SHIM_SYNC_NAME = 6      /* fsync of the directory in which it did */
};

struct shim_record {
    uint32_t event;
    uint32_t zero;
    uint64_t offset;
    uint64_t n_bytes;
};

#endif
