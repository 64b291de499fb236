/* What the command says on stderr: one line for an error, one that is written over for progress (command.h). */
#include "command.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "memtx/status.h"

static bool progress_shown;

int cli_fail(int exit_code, const char *format, ...)
{
    va_list args;
    cli_progress_clear();
    (void)fputs("memtx: ", stderr);
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fputc('\n', stderr);
    return exit_code;
}

int cli_fail_status(const char *what, int status)
{
    const char *why = memtx_last_error();
    return cli_fail(memtx_status_exit_code(status), "%s: %s", what, *why ? why : memtx_status_text(status));
}

int cli_finish(int exit_code)
{
    const bool lost = fflush(stdout) != 0 || ferror(stdout);
    if (lost && exit_code == EXIT_DONE) {
        return cli_fail(EXIT_FAILED, "cannot write to standard output: %s", strerror(errno));
    }
    return exit_code;
}

void cli_progress(const char *format, ...)
{
    va_list args;
    if (!isatty(STDERR_FILENO)) {
        return;
    }
    (void)fputs("\r\033[K", stderr);
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fflush(stderr);
    progress_shown = true;
}

void cli_progress_clear(void)
{
    if (progress_shown) {
        (void)fputs("\r\033[K", stderr);
        (void)fflush(stderr);
        progress_shown = false;
    }
}
