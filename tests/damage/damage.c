/* The damage campaign: a small store (small_store.h) is damaged in one place after another, and each time opened, read,
 * verified, copied, appended to and read again. Whatever is returned must be what the undamaged store returns, bit for
 * bit, up to the call that refuses; what reading refuses, verification refuses too. A crash, a hang or a wrong answer
 * fails and names the damage.
 *
 *     damage [--long] [--bits N] [--seed S]
 *
 * One bit of every 997th byte is flipped; --long flips N random bits (20,000) instead, and one of every byte of metas,
 * branches and leaves. The file is cut at 20 lengths, and 200 pairs of its pages change places. TAP on stdout.
 *
 * The work is done by children: one that dies is a failure of the damage it was at, and the next goes on behind it.
 */
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/rng.h"
#include "small_store.h"

enum { PAGE = 4096, FLIP_EVERY = 997, N_CUTS = 20, N_SWAPS = 200, MOST_SECONDS = 60 };

enum kind { FLIP, CUT, SWAP };
struct damage {
    enum kind kind;
    size_t a, b; /* byte and bit; length; pages */
};

enum outcome { NOTHING, AT_OPEN, AT_READ, AT_VERIFY, BAD, N_OUTCOMES };
struct result {
    enum outcome outcome;
    bool was_appended; /* the next writer did its work all the same */
    char text[256];    /* of a bad one */
};

static char folder[64], path[80], file_name[96], copy[80];
static unsigned char *image; /* the undamaged file */
static size_t n_image;
static struct answers before, after; /* of the undamaged store, as it is and appended to */

/* ---- files ------------------------------------------------------------------------------------ */

static void give_up(const char *what)
{
    printf("Bail out! %s: %s\n", what, memtx_last_error());
    exit(1);
}

static void remove_store(const char *at)
{
    static const char *const names[] = {"data.mdb", "lock.mdb", "writer"};
    for (size_t i = 0; i < 3; i++) {
        char name[96];
        (void)snprintf(name, sizeof name, "%s/%s", at, names[i]);
        (void)unlink(name);
    }
    (void)rmdir(at);
}

static void write_file(const unsigned char *bytes, size_t n_bytes)
{
    int fd = open(file_name, O_WRONLY | O_TRUNC | O_CLOEXEC);
    if (fd < 0 || write(fd, bytes, n_bytes) != (ssize_t)n_bytes || close(fd)) {
        give_up("cannot write the store's file");
    }
}

static void load_image(void)
{
    struct stat facts;
    int fd = open(file_name, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &facts)) {
        give_up("there is no store's file");
    }
    n_image = (size_t)facts.st_size;
    image = malloc(n_image);
    if (!image || read(fd, image, n_image) != (ssize_t)n_image || close(fd)) {
        give_up("cannot read the store's file");
    }
}

/* ---- one damage ------------------------------------------------------------------------------- */

static void apply(const struct damage *damage)
{
    unsigned char *bytes = malloc(n_image);
    memcpy(bytes, image, n_image);
    if (damage->kind == FLIP) {
        bytes[damage->a] ^= (unsigned char)(1U << damage->b);
    } else if (damage->kind == SWAP) {
        memcpy(bytes + damage->a * PAGE, image + damage->b * PAGE, PAGE);
        memcpy(bytes + damage->b * PAGE, image + damage->a * PAGE, PAGE);
    }
    write_file(bytes, damage->kind == CUT ? damage->a : n_image);
    free(bytes);
}

/* Whether a refusal says what it ought to of a damaged file; in one that is empty there is no store. */
static bool is_of_damage(int status)
{
    struct stat facts;
    return status == MEMTX_E_CORRUPT || status == MEMTX_E_FORMAT || status == MEMTX_E_UNSUPPORTED ||
           (status == MEMTX_E_NOT_FOUND && stat(file_name, &facts) == 0 && facts.st_size == 0);
}

static enum outcome bad(struct result *result, const char *when, const char *what)
{
    (void)snprintf(result->text, sizeof result->text, "%s: %s: %.160s", when, what, memtx_last_error());
    return BAD;
}

/* Bytes from the first on that two have in common. */
static size_t n_equal(const struct answers *a, const struct answers *b)
{
    const size_t n = a->n_bytes < b->n_bytes ? a->n_bytes : b->n_bytes;
    size_t i = 0;
    if (memcmp(a->bytes, b->bytes, n) == 0) {
        return n;
    }
    while (a->bytes[i] == b->bytes[i]) {
        i++;
    }
    return i;
}

/* Opens the store as it is, reads and verifies it. */
static enum outcome judge_reading(struct result *result, const struct answers *truth, const char *when)
{
    static struct answers found;
    struct memtx_store_options options = memtx_store_options_default();
    memtx_store *store;
    options.read_only = true;
    int status = memtx_store_open(&store, path, NULL, &options);
    if (status) {
        return is_of_damage(status) ? AT_OPEN : bad(result, when, "refused with another status");
    }
    int read = small_store_read(&found, store);
    if (read && !is_of_damage(read)) {
        (void)memtx_store_close(store);
        return bad(result, when, "reading refused with another status");
    }
    status = memtx_store_verify(store, NULL);
    (void)memtx_store_close(store);
    const size_t n_same = n_equal(&found, truth);
    if (n_same < found.n_bytes || (!read && n_same < truth->n_bytes)) {
        (void)snprintf(result->text, sizeof result->text, "%s: a wrong answer from its byte %zu on", when, n_same);
        return BAD;
    }
    if (status && !is_of_damage(status)) {
        return bad(result, when, "verification refused with another status");
    }
    if (read) {
        return status ? AT_READ : bad(result, when, "verification passes what reading refuses");
    }
    return status ? AT_VERIFY : NOTHING;
}

/* What a copy holds, which was made without a complaint, is whole and the truth, but for its size. */
static enum outcome judge_copy(struct result *result)
{
    static struct answers found;
    struct memtx_store_options options = memtx_store_options_default();
    memtx_store *store;
    options.read_only = true;
    int status = memtx_store_open(&store, path, NULL, &options);
    remove_store(copy);
    status = status ? status : memtx_store_compact(store, copy, NULL);
    (void)memtx_store_close(store);
    if (status) {
        return is_of_damage(status) ? AT_READ : bad(result, "copied", "refused with another status");
    }
    status = memtx_store_open(&store, copy, NULL, &options);
    status = status ? status : small_store_read(&found, store);
    status = status ? status : memtx_store_verify(store, NULL);
    (void)memtx_store_close(store);
    if (status) {
        return bad(result, "copied", "the copy is damaged");
    }
    return n_equal(&found, &before) >= before.n_bytes - SIZES_BYTES ? NOTHING
                                                                    : bad(result, "copied", "the copy is another");
}

static void judge(struct result *result, const struct damage *damage)
{
    apply(damage);
    result->outcome = judge_reading(result, &before, "as it was");
    if (result->outcome == BAD || judge_copy(result) == BAD) {
        result->outcome = BAD;
        return;
    }
    int status = small_store_append(path);
    if (status && !is_of_damage(status)) {
        result->outcome = bad(result, "appending", "refused with another status");
        return;
    }
    result->was_appended = !status;
    if (judge_reading(result, status ? &before : &after, status ? "not appended" : "appended") == BAD) {
        result->outcome = BAD;
    }
}

/* ---- many ------------------------------------------------------------------------------------- */

/* What parent and children share. */
struct work {
    size_t next; /* the damage that is looked at */
    struct result results[];
};

static pid_t start_child(struct work *work, const struct damage *damages, size_t end)
{
    (void)fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        for (; work->next < end; work->next++) {
            (void)alarm(MOST_SECONDS);
            judge(&work->results[work->next], &damages[work->next]);
        }
        _exit(0);
    }
    return child;
}

/* Has children work until all is done: whoever dies leaves its damage to be named. */
static void work_off(struct work *work, const struct damage *damages, size_t n)
{
    while (work->next < n) {
        int ended = 0;
        pid_t child = start_child(work, damages, n);
        if (child < 0 || waitpid(child, &ended, 0) != child) {
            give_up("cannot start a child");
        }
        if (work->next < n) {
            struct result *result = &work->results[work->next++];
            result->outcome = BAD;
            (void)snprintf(result->text, sizeof result->text, "the process ended with %s %d",
                           WIFSIGNALED(ended) ? "signal" : "exit code",
                           WIFSIGNALED(ended) ? WTERMSIG(ended) : WEXITSTATUS(ended));
        }
    }
}

static void name_bad(const struct damage *damage, const struct result *result)
{
    if (damage->kind == FLIP) {
        printf("# bit %zu of byte %zu (page %zu + %zu)", damage->b, damage->a, damage->a / PAGE, damage->a % PAGE);
    } else if (damage->kind == CUT) {
        printf("# cut to %zu bytes of %zu", damage->a, n_image);
    } else {
        printf("# pages %zu and %zu in each other's place", damage->a, damage->b);
    }
    printf(": %s\n", result->text);
}

static bool run(unsigned number, const char *name, const struct damage *damages, size_t n)
{
    const size_t n_bytes = sizeof(struct work) + n * sizeof(struct result);
    struct work *work = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    size_t n_of[N_OUTCOMES] = {0}, n_appended = 0;
    if (work == MAP_FAILED) {
        give_up("cannot map the results");
    }
    work_off(work, damages, n);
    for (size_t i = 0; i < n; i++) {
        n_of[work->results[i].outcome]++;
        n_appended += work->results[i].was_appended;
        if (work->results[i].outcome == BAD) {
            name_bad(&damages[i], &work->results[i]);
        }
    }
    printf("# %zu damages: %zu refused by opening, %zu by reading, %zu by verification alone; %zu changed nothing; "
           "%zu bad. %zu were appended to\n",
           n, n_of[AT_OPEN], n_of[AT_READ], n_of[AT_VERIFY], n_of[NOTHING], n_of[BAD], n_appended);
    printf("%sok %u - %s\n", n_of[BAD] ? "not " : "", number, name);
    (void)munmap(work, n_bytes);
    return !n_of[BAD];
}

/* ---- which damages ---------------------------------------------------------------------------- */

static struct damage *list_of(size_t n)
{
    struct damage *list = calloc(n, sizeof *list);
    if (!list) {
        give_up("no memory for the list");
    }
    return list;
}

static bool run_spread_flips(unsigned number)
{
    const size_t n = (n_image + FLIP_EVERY - 1) / FLIP_EVERY;
    struct damage *list = list_of(n);
    for (size_t i = 0; i < n; i++) {
        list[i] = (struct damage){FLIP, i * FLIP_EVERY, i % 8};
    }
    bool passed = run(number, "a bit of every 997th byte", list, n);
    free(list);
    return passed;
}

static bool run_random_flips(unsigned number, size_t n, struct memtx__rng *rng)
{
    struct damage *list = list_of(n);
    for (size_t i = 0; i < n; i++) {
        list[i] = (struct damage){FLIP, (size_t)memtx__rng_below(rng, n_image), (size_t)memtx__rng_below(rng, 8)};
    }
    bool passed = run(number, "random bits", list, n);
    free(list);
    return passed;
}

/* Pages that say of themselves that they are metas, branches or leaves: where LMDB's structure and the records are. */
static bool run_header_flips(unsigned number, struct memtx__rng *rng)
{
    struct damage *list = list_of(n_image);
    size_t n = 0;
    for (size_t page = 0; page < n_image / PAGE; page++) {
        const unsigned kind = memtx__get_u16(image + page * PAGE + 10);
        const bool has_header = memtx__get_u64(image + page * PAGE) == page && (kind == 1 || kind == 2 || kind == 8);
        for (size_t i = 0; i < PAGE && has_header; i++) {
            list[n++] = (struct damage){FLIP, page * PAGE + i, (size_t)memtx__rng_below(rng, 8)};
        }
    }
    bool passed = run(number, "a bit of every byte of metas, branches and leaves", list, n);
    free(list);
    return passed;
}

static bool run_cuts(unsigned number)
{
    struct damage *list = list_of(N_CUTS);
    for (size_t i = 0; i < N_CUTS; i++) {
        list[i] = (struct damage){CUT, i * n_image / N_CUTS / PAGE * PAGE + (i % 2 ? 0 : i * 97), 0};
    }
    bool passed = run(number, "a file that is cut off", list, N_CUTS);
    free(list);
    return passed;
}

static bool run_swaps(unsigned number, struct memtx__rng *rng)
{
    struct damage *list = list_of(N_SWAPS);
    for (size_t i = 0; i < N_SWAPS; i++) {
        list[i] = (struct damage){SWAP, (size_t)memtx__rng_below(rng, n_image / PAGE),
                                  (size_t)memtx__rng_below(rng, n_image / PAGE)};
    }
    bool passed = run(number, "pages in each other's place", list, N_SWAPS);
    free(list);
    return passed;
}

/* ---- the whole -------------------------------------------------------------------------------- */

static void read_whole(struct answers *out)
{
    struct memtx_store_options options = memtx_store_options_default();
    memtx_store *store;
    options.read_only = true;
    if (memtx_store_open(&store, path, NULL, &options) || small_store_read(out, store) ||
        memtx_store_verify(store, NULL) || memtx_store_close(store)) {
        give_up("the undamaged store is refused");
    }
}

static void prepare(void)
{
    (void)snprintf(folder, sizeof folder, "%s/memtx-damage-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(folder)) {
        give_up("cannot make a directory");
    }
    (void)snprintf(path, sizeof path, "%s/store", folder);
    (void)snprintf(file_name, sizeof file_name, "%s/data.mdb", path);
    (void)snprintf(copy, sizeof copy, "%s/copy", folder);
    if (small_store_make(path)) {
        give_up("cannot make the store");
    }
    load_image();
    read_whole(&before);
    if (small_store_append(path)) {
        give_up("cannot append to the undamaged store");
    }
    read_whole(&after);
    printf("# a store of %zu pages; %zu bytes of answers, %zu when appended to\n", n_image / PAGE, before.n_bytes,
           after.n_bytes);
}

int main(int n_args, char **args)
{
    static const struct option table[] = {{"long", no_argument, NULL, 'l'},
                                          {"bits", required_argument, NULL, 'b'},
                                          {"seed", required_argument, NULL, 's'},
                                          {NULL, 0, NULL, 0}};
    size_t n_bits = 20000;
    uint64_t seed = 1;
    bool is_long = false;
    for (int option; (option = getopt_long(n_args, args, "", table, NULL)) != -1;) {
        if (option == 'l') {
            is_long = true;
        } else if (option == 'b') {
            n_bits = strtoull(optarg, NULL, 10);
        } else if (option == 's') {
            seed = strtoull(optarg, NULL, 10);
        } else {
            (void)fprintf(stderr, "usage: %s [--long] [--bits N] [--seed S]\n", args[0]);
            return 2;
        }
    }
    struct memtx__rng rng = memtx__rng_create(seed, 0);
    prepare();
    printf("1..%d\n", is_long ? 4 : 3);
    bool passed = is_long ? run_random_flips(1, n_bits, &rng) : run_spread_flips(1);
    passed &= run_cuts(2);
    passed &= run_swaps(3, &rng);
    if (is_long) {
        passed &= run_header_flips(4, &rng);
    }
    remove_store(path);
    remove_store(copy);
    (void)rmdir(folder);
    free(image);
    free(before.bytes);
    free(after.bytes);
    return passed ? 0 : 1;
}
