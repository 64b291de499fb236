/* CRC-32C: the SSE4.2 instruction where the processor has it, else eight tables (Kounavis and Berry, 2005). The tables
 * are the specification of the instruction. */
#include "base/crc32c.h"

#include <pthread.h>
#include <string.h>

#include "base/bytes.h"

enum { N_TABLES = 8 };

static uint32_t tables[N_TABLES][256];
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static void make_tables(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78U : 0);
        }
        tables[0][byte] = crc;
    }
    for (int t = 1; t < N_TABLES; t++) {
        for (int byte = 0; byte < 256; byte++) {
            uint32_t before = tables[t - 1][byte];
            tables[t][byte] = before >> 8 ^ tables[0][before & 255];
        }
    }
}

static uint32_t crc_tables(uint32_t crc, const unsigned char *bytes, size_t n_bytes)
{
    (void)pthread_once(&tables_once, make_tables);
    for (; n_bytes >= 8; bytes += 8, n_bytes -= 8) {
        uint64_t word = memtx__get_u64(bytes) ^ crc;
        crc = 0;
        for (int i = 0; i < 8; i++) {
            crc ^= tables[7 - i][word >> (8 * i) & 255];
        }
    }
    for (; n_bytes; bytes++, n_bytes--) {
        crc = crc >> 8 ^ tables[0][(crc ^ *bytes) & 255];
    }
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc_sse42(uint32_t crc, const unsigned char *bytes, size_t n_bytes)
{
    uint64_t wide = crc;
    for (; n_bytes >= 8; bytes += 8, n_bytes -= 8) {
        wide = __builtin_ia32_crc32di(wide, memtx__get_u64(bytes));
    }
    crc = (uint32_t)wide;
    for (; n_bytes; bytes++, n_bytes--) {
        crc = __builtin_ia32_crc32qi(crc, *bytes);
    }
    return crc;
}
#endif

uint32_t memtx__crc32c(uint32_t crc, const void *bytes, size_t n_bytes)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) {
        return ~crc_sse42(~crc, bytes, n_bytes);
    }
#endif
    return ~crc_tables(~crc, bytes, n_bytes);
}
