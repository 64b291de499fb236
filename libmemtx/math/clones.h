/* MEMTX__CLONES: a kernel compiled for AVX-512, AVX2 and the baseline, chosen when the program is loaded. Only for
 * serial inner loops: what OpenMP outlines from a cloned function is not cloned; and only for static functions of a
 * name that no other file has so compiled, since clang's symbols of a choice are seen by all files, and are not the
 * function's own. The sanitizers cannot instrument the resolver, which runs before they are set up, and get the
 * baseline. */
#ifndef MEMTX_MATH_CLONES_H
#define MEMTX_MATH_CLONES_H

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define MEMTX__SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MEMTX__SANITIZED 1
#endif

#if defined(__x86_64__) && defined(__linux__) && !defined(MEMTX__SANITIZED)
#if defined(__clang__) /* knows no arch=x86-64-vN here */
#define MEMTX__CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else /* by features: arch=haswell would ask for that very processor */
#define MEMTX__CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif
#else
#define MEMTX__CLONES
#endif

#endif
