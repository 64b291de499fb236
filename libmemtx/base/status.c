/* Status codes and the thread's last error text (memtx/status.h). */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { ERROR_TEXT_BYTES = 1024 };

static _Thread_local char error_text[ERROR_TEXT_BYTES];

struct status_row {
    int value;
    int exit_code;
    const char *message;
};

static const struct status_row status_rows[] = {
#define STATUS_ROW(name, value, message, exit_code) {value, exit_code, message},
    MEMTX_STATUS_TABLE(STATUS_ROW)
#undef STATUS_ROW
};

static const struct status_row *find_row(int status)
{
    for (size_t i = 0; i < sizeof status_rows / sizeof status_rows[0]; i++) {
        if (status_rows[i].value == status) {
            return &status_rows[i];
        }
    }
    return NULL;
}

const char *memtx_status_text(int status)
{
    const struct status_row *row = find_row(status);
    return row ? row->message : "unknown status";
}

int memtx_status_exit_code(int status)
{
    const struct status_row *row = find_row(status);
    return row ? row->exit_code : 1;
}

const char *memtx_last_error(void)
{
    return error_text;
}

static void MEMTX_PRINTF(1, 0) set_text(const char *format, va_list args)
{
    char text[ERROR_TEXT_BYTES]; /* the arguments may point into the text that is replaced */
    (void)vsnprintf(text, sizeof text, format, args);
    for (char *c = text; *c; c++) {
        if ((unsigned char)*c < 0x20) {
            *c = ' '; /* one line, whatever a file's own strings held */
        }
    }
    memcpy(error_text, text, sizeof error_text);
}

int memtx__fail(int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    set_text(format, args);
    va_end(args);
    return status;
}

int memtx_fail(int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    set_text(format, args);
    va_end(args);
    return status;
}
