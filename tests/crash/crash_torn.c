/* Images of a store's file that a power cut could leave, each opened and checked (inspect.h):
 *
 *     crash_torn LOG DIR --data FILE --durability full|group [--capacity C] [--images N] [--seed S]
 *
 * LOG is what the shim recorded of a writer (shim_log.h), FILE what that writer left: all of the log put together must
 * be FILE to the byte, or the record missed something. At each sync, durable write, renaming and acknowledgement of the
 * log the power is cut: on disk are the writes that a completed sync covers, and of the others any subset, in any order,
 * each whole, or cut at a boundary of a sector, or some of its sectors. A sector is atomic; LMDB's write of a meta page
 * (120 bytes) lies within one. Where N images suffice for all subsets of whole writes these come first; the rest are
 * drawn from the seed. A renaming that no sync of the directory covers has happened or not.
 *
 * The file is then opened without lock.mdb, as after a restart, and must be a prefix of the stream with all that was
 * acknowledged before the cut; every eighth store is also written to again.
 *
 * stdout: `N images at M cuts, F failed`, and what failed on stderr; exit 1 when one did.
 */
#include <fcntl.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/rng.h"
#include "inspect.h"
#include "shim_log.h"

/* Whether the file has its name on disk. */
enum name { NAME_NEW, NAME_EITHER, NAME_FINAL };

enum { SECTOR_BYTES = 512, MOST_PENDING = 4096, MOST_FAILURES = 10, CHECK_S = 60, GO_ON_EVERY = 8 };

struct event {
    struct shim_record record;
    const unsigned char *bytes;
};

struct file {
    unsigned char *bytes;
    size_t n_bytes, n_held;
};

struct campaign {
    const char *log, *data, *directory;
    enum memtx_durability durability;
    uint64_t capacity, n_images, seed;
    struct file disk;      /* what completed syncs cover */
    struct file image;     /* what a cut leaves */
    struct event *pending; /* [n_pending]: writes that no sync covers */
    size_t n_pending;
    enum name name;
    uint64_t n_rows, n_ended; /* acknowledged so far */
    uint64_t n_built, n_cuts, n_failed;
};

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* ---- files in memory -------------------------------------------------------------------------- */

static void reserve(struct file *file, size_t n_bytes)
{
    if (n_bytes > file->n_held) {
        file->n_held = 2 * n_bytes;
        file->bytes = realloc(file->bytes, file->n_held);
        if (!file->bytes) {
            die("memory");
        }
    }
    if (n_bytes > file->n_bytes) {
        memset(file->bytes + file->n_bytes, 0, n_bytes - file->n_bytes);
        file->n_bytes = n_bytes;
    }
}

/* Bytes [first, end) of a write. */
static void put(struct file *file, const struct event *event, size_t first, size_t end)
{
    if (first < end) {
        reserve(file, event->record.offset + end);
        memcpy(file->bytes + event->record.offset + first, event->bytes + first, end - first);
    }
}

static void load(struct file *file, const char *path)
{
    struct stat facts;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &facts)) {
        die(path);
    }
    reserve(file, (size_t)facts.st_size);
    for (size_t at = 0; at < file->n_bytes;) {
        ssize_t n = read(fd, file->bytes + at, file->n_bytes - at);
        if (n <= 0) {
            die(path);
        }
        at += (size_t)n;
    }
    (void)close(fd);
}

static void save(const struct file *file, const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    for (size_t at = 0; fd >= 0 && at < file->n_bytes;) {
        ssize_t n = write(fd, file->bytes + at, file->n_bytes - at);
        if (n <= 0) {
            die(path);
        }
        at += (size_t)n;
    }
    if (fd < 0 || close(fd)) {
        die(path);
    }
}

/* ---- an image --------------------------------------------------------------------------------- */

/* Some of a write reaches the disk. Sectors are those of the file, whose beginning is one. */
static void put_some(struct file *image, const struct event *event, struct memtx__rng *rng)
{
    const size_t n_bytes = event->record.n_bytes, lead = event->record.offset % SECTOR_BYTES;
    const size_t n_sectors = (lead + n_bytes + SECTOR_BYTES - 1) / SECTOR_BYTES;
    const uint64_t how = memtx__rng_below(rng, 4), n_whole = memtx__rng_below(rng, n_sectors + 1);
    if (how == 0) {
        return;
    }
    for (size_t i = 0; i < n_sectors; i++) {
        const size_t first = i ? i * SECTOR_BYTES - lead : 0, end = (i + 1) * SECTOR_BYTES - lead;
        if (how == 1 || (how == 2 && i < n_whole) || (how == 3 && memtx__rng_below(rng, 2))) {
            put(image, event, first, end < n_bytes ? end : n_bytes);
        }
    }
}

/* Image `number` of a cut: a subset of whole writes while there is one of that number, then chance. */
static void build(struct campaign *campaign, uint64_t number, struct memtx__rng *rng)
{
    const bool is_subset = campaign->n_pending < 64 && campaign->n_images >> campaign->n_pending;
    struct event *pending = campaign->pending;
    campaign->image.n_bytes = 0;
    reserve(&campaign->image, campaign->disk.n_bytes);
    if (campaign->disk.n_bytes) {
        memcpy(campaign->image.bytes, campaign->disk.bytes, campaign->disk.n_bytes);
    }
    for (size_t i = campaign->n_pending; i > 1 && !is_subset; i--) { /* any order */
        const size_t other = (size_t)memtx__rng_below(rng, i);
        const struct event event = pending[i - 1];
        pending[i - 1] = pending[other];
        pending[other] = event;
    }
    const bool is_long = memtx__rng_below(rng, 2); /* the size may be on disk before what makes it */
    for (size_t i = 0; i < campaign->n_pending; i++) {
        if (is_subset && number >> campaign->n_pending == 0) {
            put(&campaign->image, &pending[i], 0, number >> i & 1 ? pending[i].record.n_bytes : 0);
        } else {
            put_some(&campaign->image, &pending[i], rng);
        }
        if (is_long) {
            reserve(&campaign->image, pending[i].record.offset + pending[i].record.n_bytes);
        }
    }
}

/* ---- judged ----------------------------------------------------------------------------------- */

static int inspect(const struct campaign *campaign, const char *store, const struct memtx_store_spec *spec)
{
    struct crash_state state;
    int status = crash_inspect(&state, store, spec, campaign->capacity);
    return status ? status : crash_compare(&state, campaign->n_rows, campaign->n_ended);
}

/* As a reader finds it, as a writer finds it, and after a writer has gone on. */
static int judge(const struct campaign *campaign, const char *store)
{
    const struct memtx_store_spec spec = crash_spec();
    const struct crash_plan plan = {.path = store,
                                    .n_segments = 2,
                                    .durability = campaign->durability,
                                    .capacity = campaign->capacity,
                                    .seed = campaign->n_built};
    int status = inspect(campaign, store, NULL);
    if (!status) {
        status = inspect(campaign, store, &spec);
    }
    if (!status && campaign->n_built % GO_ON_EVERY == 0) {
        (void)dup2(open("/dev/null", O_WRONLY), STDOUT_FILENO);
        status = crash_write(&plan);
        if (!status) {
            status = inspect(campaign, store, NULL);
        }
    }
    return status;
}

/* In a process of its own: whatever an image does to it, the next is judged. */
static bool is_good(const struct campaign *campaign, const char *store)
{
    int how = 0;
    (void)fflush(NULL);
    pid_t child = fork();
    if (child < 0) {
        die("fork");
    }
    if (child == 0) {
        (void)alarm(CHECK_S);
        int status = judge(campaign, store);
        if (status) {
            (void)fprintf(stderr, "%s: %s\n", memtx_status_text(status), memtx_last_error());
        }
        _exit(status ? 1 : 0);
    }
    if (waitpid(child, &how, 0) != child) {
        die("waitpid");
    }
    if (WIFSIGNALED(how)) {
        (void)fprintf(stderr, "the check ended with signal %d\n", WTERMSIG(how));
    }
    return how == 0;
}

static void try_image(struct campaign *campaign, size_t event, bool is_final)
{
    static const char *const files[] = {"data.mdb", "new.mdb", "lock.mdb", "writer"};
    char path[4096];
    (void)mkdir(campaign->directory, 0700);
    (void)snprintf(path, sizeof path, "%s/writer", campaign->directory); /* made before any other */
    save(&(struct file){0}, path);
    (void)snprintf(path, sizeof path, "%s/%s", campaign->directory, is_final ? "data.mdb" : "new.mdb");
    save(&campaign->image, path);
    if (!is_good(campaign, campaign->directory)) {
        campaign->n_failed++;
        (void)fprintf(stderr, "image %llu, cut at event %zu: %zu writes not synced, %llu rows acknowledged\n",
                      (unsigned long long)campaign->n_built, event, campaign->n_pending,
                      (unsigned long long)campaign->n_rows);
    }
    campaign->n_built++;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", campaign->directory, files[i]);
        (void)unlink(path);
    }
    (void)rmdir(campaign->directory);
}

static void cut(struct campaign *campaign, size_t event)
{
    const uint64_t n_subsets = campaign->n_pending < 63 ? UINT64_C(1) << campaign->n_pending : UINT64_MAX;
    const bool is_atomic =
        campaign->n_pending == 0 || (campaign->n_pending == 1 && campaign->pending[0].record.n_bytes < SECTOR_BYTES);
    const uint64_t n_images = is_atomic ? n_subsets : campaign->n_images;
    campaign->n_cuts++;
    for (uint64_t number = 0; number < n_images && campaign->n_failed < MOST_FAILURES; number++) {
        struct memtx__rng rng = memtx__rng_create(campaign->seed, campaign->n_built);
        build(campaign, number, &rng);
        if (campaign->name != NAME_FINAL) {
            try_image(campaign, event, false);
        }
        if (campaign->name != NAME_NEW) {
            try_image(campaign, event, true);
        }
    }
}

/* ---- the log ---------------------------------------------------------------------------------- */

static uint64_t next_number(const char **at)
{
    char *end;
    uint64_t number = strtoull(*at + strcspn(*at, "0123456789"), &end, 10);
    *at = end;
    return number;
}

/* The line of crash_write. */
static void acknowledge(struct campaign *campaign, const struct event *event)
{
    char line[128] = {0};
    const char *at = line;
    memcpy(line, event->bytes, event->record.n_bytes < sizeof line ? event->record.n_bytes : sizeof line - 1);
    const uint64_t n_rows = next_number(&at), n_ended = next_number(&at), n_written = next_number(&at);
    campaign->n_rows = campaign->durability == MEMTX_DURABILITY_FULL ? n_rows : n_written;
    campaign->n_ended = n_ended;
}

static void push(struct campaign *campaign, const struct event *event)
{
    if (campaign->n_pending == MOST_PENDING) {
        (void)fprintf(stderr, "more than %d writes without a sync\n", MOST_PENDING);
        exit(1);
    }
    campaign->pending[campaign->n_pending++] = *event;
}

static void sync_all(struct campaign *campaign)
{
    for (size_t i = 0; i < campaign->n_pending; i++) {
        put(&campaign->disk, &campaign->pending[i], 0, campaign->pending[i].record.n_bytes);
    }
    campaign->n_pending = 0;
}

static void take(struct campaign *campaign, const struct event *event, size_t number)
{
    static struct event in_order[MOST_PENDING]; /* build() shuffles */
    switch ((enum shim_event)event->record.event) {
    case SHIM_WRITE:
        push(campaign, event);
        return;
    case SHIM_DURABLE_WRITE:
        push(campaign, event);
        break;
    case SHIM_STDOUT:
        acknowledge(campaign, event);
        break;
    case SHIM_RENAME:
        campaign->name = NAME_EITHER;
        break;
    case SHIM_SYNC_NAME:
        campaign->name = NAME_FINAL;
        break;
    case SHIM_SYNC:
        break;
    }
    memcpy(in_order, campaign->pending, campaign->n_pending * sizeof *in_order);
    cut(campaign, number);
    memcpy(campaign->pending, in_order, campaign->n_pending * sizeof *in_order);
    if (event->record.event == SHIM_DURABLE_WRITE) {
        put(&campaign->disk, event, 0, event->record.n_bytes);
        campaign->n_pending--;
    } else if (event->record.event == SHIM_SYNC) {
        sync_all(campaign);
    }
}

static int take_all(struct campaign *campaign, const struct file *log)
{
    size_t number = 0;
    for (size_t at = 0; at < log->n_bytes; number++) {
        struct event event;
        if (log->n_bytes - at < sizeof event.record) {
            break;
        }
        memcpy(&event.record, log->bytes + at, sizeof event.record);
        event.bytes = log->bytes + at + sizeof event.record;
        if (log->n_bytes - at - sizeof event.record < event.record.n_bytes) {
            break;
        }
        at += sizeof event.record + event.record.n_bytes;
        take(campaign, &event, number);
        if (at == log->n_bytes) {
            return 0;
        }
    }
    (void)fprintf(stderr, "%s: is empty or cut off\n", campaign->log);
    return 1;
}

static int run(struct campaign *campaign)
{
    struct file log = {0}, data = {0};
    load(&log, campaign->log);
    load(&data, campaign->data);
    int failed = take_all(campaign, &log);
    sync_all(campaign);
    printf("%llu images at %llu cuts, %llu failed\n", (unsigned long long)campaign->n_built,
           (unsigned long long)campaign->n_cuts, (unsigned long long)campaign->n_failed);
    if (!data.n_bytes || data.n_bytes != campaign->disk.n_bytes ||
        memcmp(data.bytes, campaign->disk.bytes, data.n_bytes) != 0) {
        (void)fprintf(stderr, "%s: is not what the log's writes make\n", campaign->data);
        failed = 1;
    }
    free(log.bytes);
    free(data.bytes);
    free(campaign->disk.bytes);
    free(campaign->image.bytes);
    return failed || campaign->n_failed || !campaign->n_built;
}

int main(int n_args, char **args)
{
    static const struct option table[] = {
        {"data", required_argument, NULL, 'f'},     {"durability", required_argument, NULL, 'd'},
        {"capacity", required_argument, NULL, 'c'}, {"images", required_argument, NULL, 'n'},
        {"seed", required_argument, NULL, 's'},     {NULL, 0, NULL, 0}};
    static struct event pending[MOST_PENDING];
    struct campaign campaign = {.pending = pending, .durability = MEMTX_DURABILITY_GROUP, .n_images = 16};
    for (int option; (option = getopt_long(n_args, args, "", table, NULL)) != -1;) {
        if (option == 'f') {
            campaign.data = optarg;
        } else if (option == 'd') {
            campaign.durability = strcmp(optarg, "full") == 0 ? MEMTX_DURABILITY_FULL : MEMTX_DURABILITY_GROUP;
        } else if (option == 'c') {
            campaign.capacity = strtoull(optarg, NULL, 10);
        } else if (option == 'n') {
            campaign.n_images = strtoull(optarg, NULL, 10);
        } else if (option == 's') {
            campaign.seed = strtoull(optarg, NULL, 10);
        }
    }
    if (optind + 2 != n_args || !campaign.data) {
        (void)fprintf(stderr,
                      "usage: %s LOG DIR --data FILE --durability full|group [--capacity C] [--images N] [--seed S]\n",
                      args[0]);
        return 2;
    }
    campaign.log = args[optind];
    campaign.directory = args[optind + 1];
    return run(&campaign);
}
