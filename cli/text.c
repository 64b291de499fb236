/* Texts to read: files and standard input (command.h). */
#include "command.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE_BYTES = 1 << 16 };

const char *cli_base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static bool read_all(struct cli_text *out, FILE *file)
{
    size_t n_held = 0;
    for (;;) {
        if (out->n_bytes + PIECE_BYTES > n_held) {
            n_held = 2 * n_held + PIECE_BYTES;
            char *grown = realloc(out->bytes, n_held);
            if (!grown) {
                errno = ENOMEM;
                return false;
            }
            out->bytes = grown;
        }
        size_t n = fread(out->bytes + out->n_bytes, 1, PIECE_BYTES, file);
        out->n_bytes += n;
        if (n == 0) {
            return !ferror(file);
        }
    }
}

bool cli_read_text(struct cli_text *out, const char *path)
{
    bool is_stdin = strcmp(path, "-") == 0;
    *out = (struct cli_text){0};
    FILE *file = is_stdin ? stdin : fopen(path, "rb");
    bool done = file && read_all(out, file);
    if (!done) {
        (void)cli_fail(EXIT_FAILED, "%s: cannot read: %s", path, strerror(errno));
        cli_free_text(out);
    }
    if (file && !is_stdin) {
        (void)fclose(file);
    }
    return done;
}

void cli_free_text(struct cli_text *text)
{
    free(text->bytes);
    *text = (struct cli_text){0};
}
