/* CRC-32C: the SSE4.2 instruction where the processor has it, else eight tables (Kounavis and Berry, 2005). The tables
 * are the specification of the instruction.
 *
 * The instruction takes three cycles and one can begin in each, so long inputs go through it as three streams of equal
 * length (Gopal et al., 2011). A checksum is linear: that of two pieces is that of the first, carried on over as many
 * zeros as the second has bytes, plus (exclusive or) that of the second begun at zero. The carrying on is four tables.
 */
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
#define SSE42 __attribute__((target("sse4.2")))

enum { STREAM_BYTES = 1024 };

static uint32_t carry_tables[4][256]; /* for each byte of a checksum: that over STREAM_BYTES zeros more */
static pthread_once_t carry_once = PTHREAD_ONCE_INIT;

SSE42 static uint32_t crc_one_stream(uint32_t crc, const unsigned char *bytes, size_t n_bytes)
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

static void make_carry_tables(void)
{
    static const unsigned char zeros[STREAM_BYTES];
    for (int bit = 0; bit < 32; bit++) {
        const uint32_t carried = crc_one_stream(1U << bit, zeros, STREAM_BYTES);
        for (int byte = 0; byte < 256; byte++) {
            carry_tables[bit / 8][byte] ^= byte >> bit % 8 & 1 ? carried : 0;
        }
    }
}

static uint32_t carry(uint32_t crc)
{
    return carry_tables[0][crc & 255] ^ carry_tables[1][crc >> 8 & 255] ^ carry_tables[2][crc >> 16 & 255] ^
           carry_tables[3][crc >> 24];
}

/* Eight bytes as they stand; of memtx__get_u64 gcc 12 makes eight loads among three streams. */
static uint64_t word_at(const unsigned char *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

SSE42 static uint32_t crc_three_streams(uint32_t crc, const unsigned char *bytes)
{
    uint64_t a = crc, b = 0, c = 0;
    for (size_t i = 0; i < STREAM_BYTES; i += 8) {
        a = __builtin_ia32_crc32di(a, word_at(bytes + i));
        b = __builtin_ia32_crc32di(b, word_at(bytes + STREAM_BYTES + i));
        c = __builtin_ia32_crc32di(c, word_at(bytes + 2 * STREAM_BYTES + i));
    }
    return carry(carry((uint32_t)a) ^ (uint32_t)b) ^ (uint32_t)c;
}

static uint32_t crc_sse42(uint32_t crc, const unsigned char *bytes, size_t n_bytes)
{
    (void)pthread_once(&carry_once, make_carry_tables);
    for (; n_bytes >= 3 * STREAM_BYTES; bytes += 3 * STREAM_BYTES, n_bytes -= 3 * STREAM_BYTES) {
        crc = crc_three_streams(crc, bytes);
    }
    return crc_one_stream(crc, bytes, n_bytes);
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
