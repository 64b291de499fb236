/* Criterion ends a test's process without running exit handlers, so the leak check that the address sanitizer makes
 * there never runs, and what happens in a .fini is not counted. A test that wants one asks at its own end. */
#ifndef MEMTX_LEAK_CHECK_H
#define MEMTX_LEAK_CHECK_H

#include <stdbool.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MEMTX_HAS_LEAK_CHECK 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define MEMTX_HAS_LEAK_CHECK 1
#endif

#ifdef MEMTX_HAS_LEAK_CHECK
#include <sanitizer/lsan_interface.h>
#endif

/* Whether blocks are there that nothing points to (stderr says which). Always false without the sanitizer. */
static inline bool memory_is_lost(void)
{
#ifdef MEMTX_HAS_LEAK_CHECK
    return __lsan_do_recoverable_leak_check();
#else
    return false;
#endif
}

/* Blocks allocated between ignore_leaks(true) and ignore_leaks(false) are not looked for: for foreign code that is known
 * to lose some. */
static inline void ignore_leaks(bool ignore)
{
#ifdef MEMTX_HAS_LEAK_CHECK
    if (ignore) {
        __lsan_disable();
    } else {
        __lsan_enable();
    }
#else
    (void)ignore;
#endif
}

#endif
