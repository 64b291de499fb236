/* What the process takes, as Linux tells it in /proc/self (eval.h). */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "eval/eval.h"

/* The number of a line "Name:   123 kB", in bytes. */
static uint64_t find_bytes(const char *text, const char *name)
{
    const char *line = strstr(text, name);
    return line ? strtoull(line + strlen(name), NULL, 10) * 1024 : 0;
}

void memtx__usage_begin(void)
{
    int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) { /* "5" sets the peak back; where that is not allowed the peak is the process's */
        ssize_t n = write(fd, "5", 1);
        (void)n;
        close(fd);
    }
}

void memtx__usage_read(struct memtx__usage *out)
{
    char text[4096];
    *out = (struct memtx__usage){0};
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return;
    }
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n > 0) {
        text[n] = '\0';
        out->peak_rss_bytes = find_bytes(text, "VmHWM:");
        out->anon_bytes = find_bytes(text, "RssAnon:");
    }
}
