/* Status codes and the text of the last error.
 *
 * Every function of the library that can fail returns an int: 0 (MEMTX_OK) or one of the negative codes below. The
 * library never prints, exits or aborts on bad input; what went wrong in words (the offending value, the range that is
 * allowed, the path) is kept as a text for the calling thread.
 */
#ifndef MEMTX_STATUS_H
#define MEMTX_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define MEMTX_API __attribute__((visibility("default")))
#define MEMTX_PRINTF(text_at, args_at) __attribute__((format(printf, text_at, args_at)))
#else
#define MEMTX_API
#define MEMTX_PRINTF(text_at, args_at)
#endif

/* X(name, value, message, exit code of the memtx command) */
#define MEMTX_STATUS_TABLE(X)                                                                                          \
    X(OK, 0, "done", 0)                                                                                                \
    X(E_INVALID, -1, "invalid argument", 2)                                                                            \
    X(E_NO_MEMORY, -2, "out of memory", 1)                                                                             \
    X(E_IO, -3, "input/output error", 1)                                                                               \
    X(E_NO_SPACE, -4, "no space left on the disk", 1)                                                                  \
    X(E_FORMAT, -5, "the file is not what its format demands", 1)                                                      \
    X(E_UNSUPPORTED, -6, "not supported", 1)                                                                           \
    X(E_NOT_FOUND, -7, "not found", 1)                                                                                 \
    X(E_EXISTS, -8, "exists already", 1)                                                                               \
    X(E_MISMATCH, -9, "made for another model or with other settings", 1)                                              \
    X(E_BUSY, -10, "in use", 1)                                                                                        \
    X(E_CORRUPT, -11, "damaged", 1)                                                                                    \
    X(E_CONTEXT, -12, "longer than the model's context", 1)                                                            \
    X(E_INTERRUPTED, -13, "interrupted", 130)

enum memtx_status {
#define MEMTX_STATUS_ENUM(name, value, message, exit_code) MEMTX_##name = value,
    MEMTX_STATUS_TABLE(MEMTX_STATUS_ENUM)
#undef MEMTX_STATUS_ENUM
};

/* The general meaning of a code, a static text; never NULL, for unknown codes too. Any thread. */
MEMTX_API const char *memtx_status_text(int status);

/* The exit code with which a command answers `status`: 0 done, 1 failed, 2 wrong usage, 130 interrupted. Any thread. */
MEMTX_API int memtx_status_exit_code(int status);

/* What the last failing call of this thread said, one line without a line break; "" when none has failed. The text
 * is the thread's own and stays until its next failing call. */
MEMTX_API const char *memtx_last_error(void);

/* Sets the thread's error text (printf's format; cut to 1,023 bytes, control characters become blanks) and returns
 * `status`, so that one writes `return memtx_fail(...)`: for code outside of the library that the library calls, such
 * as an index (memtx/index.h). */
MEMTX_API int memtx_fail(int status, const char *format, ...) MEMTX_PRINTF(2, 3);

#ifdef __cplusplus
}
#endif
#endif
