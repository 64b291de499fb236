/* A seeded generator of random numbers: SplitMix64 (Steele, Lea, Flood 2014), one 64-bit word of state. */
#ifndef MEMTX_BASE_RNG_H
#define MEMTX_BASE_RNG_H

#include <stdint.h>

struct memtx__rng {
    uint64_t state;
};

static inline uint64_t memtx__rng_u64(struct memtx__rng *rng)
{
    uint64_t z = rng->state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* A generator for one (seed, stream): different streams are independent whatever order they are used in. */
static inline struct memtx__rng memtx__rng_create(uint64_t seed, uint64_t stream)
{
    struct memtx__rng rng = {stream};
    rng.state = seed ^ memtx__rng_u64(&rng);
    return rng;
}

/* A number in [0, n), n > 0: the high half of a product, whose bias is below n / 2^64. */
static inline uint64_t memtx__rng_below(struct memtx__rng *rng, uint64_t n)
{
    return (uint64_t)(((unsigned __int128)memtx__rng_u64(rng) * n) >> 64);
}

/* A number in [-1, 1). */
static inline float memtx__rng_signed(struct memtx__rng *rng)
{
    return (float)(int64_t)memtx__rng_u64(rng) * 0x1p-63f;
}

#endif
