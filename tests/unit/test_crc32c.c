/* CRC-32C against its definition, a bit at a time. */
#include <criterion/criterion.h>

#include "base/crc32c.h"
#include "base/rng.h"

enum { N_BYTES = 70000 }; /* longer than a chunk */

static unsigned char bytes[N_BYTES + 16];

static void fill(uint64_t seed)
{
    struct memtx__rng rng = memtx__rng_create(seed, 0);
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (unsigned char)memtx__rng_below(&rng, 256);
    }
}

static uint32_t by_bits(const unsigned char *from, size_t n_bytes)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < n_bytes; i++) {
        crc ^= from[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78U : 0);
        }
    }
    return ~crc;
}

/* The check value of the catalogues, and the vectors of RFC 3720, B.4. */
Test(crc32c, known_values)
{
    unsigned char block[32];
    cr_assert_eq(memtx__crc32c(0, "", 0), 0);
    cr_assert_eq(memtx__crc32c(0, "123456789", 9), 0xE3069283U);
    memset(block, 0, sizeof block);
    cr_assert_eq(memtx__crc32c(0, block, sizeof block), 0x8A9136AAU);
    memset(block, 0xFF, sizeof block);
    cr_assert_eq(memtx__crc32c(0, block, sizeof block), 0x62A8AB43U);
    for (size_t i = 0; i < sizeof block; i++) {
        block[i] = (unsigned char)i;
    }
    cr_assert_eq(memtx__crc32c(0, block, sizeof block), 0x46DD794EU);
}

Test(crc32c, every_length_and_alignment)
{
    fill(1);
    for (size_t n = 0; n < 10000; n += n < 64 ? 1 : 37) {
        cr_assert_eq(memtx__crc32c(0, bytes + n % 16, n), by_bits(bytes + n % 16, n), "%zu bytes", n);
    }
    for (size_t n = 3060; n < 3100; n++) { /* about the length from which there are three streams */
        cr_assert_eq(memtx__crc32c(0, bytes + n % 16, n), by_bits(bytes + n % 16, n), "%zu bytes", n);
    }
    cr_assert_eq(memtx__crc32c(0, bytes, N_BYTES), by_bits(bytes, N_BYTES));
}

Test(crc32c, pieces_go_on)
{
    struct memtx__rng rng = memtx__rng_create(2, 0);
    fill(2);
    const uint32_t whole = by_bits(bytes, N_BYTES);
    for (int step = 0; step < 200; step++) {
        const size_t middle = (size_t)memtx__rng_below(&rng, N_BYTES + 1);
        const uint32_t first = memtx__crc32c(0, bytes, middle);
        cr_assert_eq(memtx__crc32c(first, bytes + middle, N_BYTES - middle), whole, "parted at %zu", middle);
    }
}

Test(crc32c, every_bit_counts)
{
    struct memtx__rng rng = memtx__rng_create(3, 0);
    fill(3);
    const uint32_t before = memtx__crc32c(0, bytes, N_BYTES);
    for (int step = 0; step < 1000; step++) {
        const size_t at = (size_t)memtx__rng_below(&rng, N_BYTES);
        const unsigned char bit = (unsigned char)(1U << memtx__rng_below(&rng, 8));
        bytes[at] ^= bit;
        cr_assert_neq(memtx__crc32c(0, bytes, N_BYTES), before, "byte %zu", at);
        bytes[at] ^= bit;
    }
}
