/* Little-endian numbers read from and written to bytes of any alignment. Files and stores are little-endian on every
 * machine; compilers turn these into single moves where the machine is too. */
#ifndef MEMTX_BASE_BYTES_H
#define MEMTX_BASE_BYTES_H

#include <stdint.h>
#include <string.h>

static inline uint64_t memtx__get_le(const void *bytes, int n_bytes)
{
    const unsigned char *b = bytes;
    uint64_t value = 0;
    for (int i = 0; i < n_bytes; i++) {
        value |= (uint64_t)b[i] << (8 * i);
    }
    return value;
}

static inline void memtx__put_le(void *bytes, uint64_t value, int n_bytes)
{
    unsigned char *b = bytes;
    for (int i = 0; i < n_bytes; i++) {
        b[i] = (unsigned char)(value >> (8 * i));
    }
}

static inline uint16_t memtx__get_u16(const void *bytes)
{
    return (uint16_t)memtx__get_le(bytes, 2);
}

static inline uint32_t memtx__get_u32(const void *bytes)
{
    return (uint32_t)memtx__get_le(bytes, 4);
}

static inline uint64_t memtx__get_u64(const void *bytes)
{
    return memtx__get_le(bytes, 8);
}

static inline float memtx__get_f32(const void *bytes)
{
    uint32_t bits = memtx__get_u32(bytes);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline void memtx__put_u16(void *bytes, uint16_t value)
{
    memtx__put_le(bytes, value, 2);
}

static inline void memtx__put_u32(void *bytes, uint32_t value)
{
    memtx__put_le(bytes, value, 4);
}

static inline void memtx__put_u64(void *bytes, uint64_t value)
{
    memtx__put_le(bytes, value, 8);
}

/* Big-endian, for database keys whose order as bytes is to be their order as numbers. */
static inline void memtx__put_be(void *bytes, uint64_t value, int n_bytes)
{
    unsigned char *b = bytes;
    for (int i = 0; i < n_bytes; i++) {
        b[n_bytes - 1 - i] = (unsigned char)(value >> (8 * i));
    }
}

static inline uint64_t memtx__get_be(const void *bytes, int n_bytes)
{
    const unsigned char *b = bytes;
    uint64_t value = 0;
    for (int i = 0; i < n_bytes; i++) {
        value = value << 8 | b[i];
    }
    return value;
}

#endif
