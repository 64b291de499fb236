/* CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), the checksum of store chunks and of index runs. */
#ifndef MEMTX_BASE_CRC32C_H
#define MEMTX_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The checksum of n_bytes bytes that go on after those whose checksum is `crc` (0 at the beginning). Any thread. */
uint32_t memtx__crc32c(uint32_t crc, const void *bytes, size_t n_bytes);

#endif
