/* GGUF files: what the writer writes the reader reads; what is malformed is refused with a status and one line; memory
 * that runs out at any point leaks nothing. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define HAVE_LSAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAVE_LSAN 1
#endif
#endif
#if defined(HAVE_LSAN)
#include <sanitizer/lsan_interface.h>
#else
#include <malloc.h>
#endif

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/file.h"
#include "memtx/gguf.h"

/* ---- files made by hand ----------------------------------------------------------------------- */

enum { FILE_BYTES = 1 << 18 };

static unsigned char file[FILE_BYTES];
static size_t n_file;

static void put(uint64_t value, int n_bytes)
{
    memtx__put_le(file + n_file, value, n_bytes);
    n_file += (size_t)n_bytes;
}

static void put_text(const char *text)
{
    size_t n = strlen(text);
    put(n, 8);
    memcpy(file + n_file, text, n);
    n_file += n;
}

static void put_header(uint64_t n_tensors, uint64_t n_values)
{
    n_file = 0;
    memcpy(file, "GGUF", 4);
    n_file = 4;
    put(3, 4);
    put(n_tensors, 8);
    put(n_values, 8);
}

static void put_key(const char *key, uint32_t type)
{
    put_text(key);
    put(type, 4);
}

static void put_number(const char *key, uint32_t type, uint64_t bits, int n_bytes)
{
    put_key(key, type);
    put(bits, n_bytes);
}

static void put_tensor(const char *name, uint32_t type, uint32_t n_dims, const uint64_t *dims, uint64_t offset)
{
    put_text(name);
    put(n_dims, 4);
    for (uint32_t i = 0; i < n_dims; i++) {
        put(dims[i], 8);
    }
    put(type, 4);
    put(offset, 8);
}

/* Zeros up to the data, then n_bytes of them. */
static void put_data(size_t n_bytes)
{
    while (n_file % 32) {
        put(0, 1);
    }
    memset(file + n_file, 0, n_bytes);
    n_file += n_bytes;
}

/* A file of one tensor. */
static void make_tensor(uint32_t type, uint32_t n_dims, const uint64_t *dims, uint64_t offset, size_t n_data_bytes)
{
    put_header(1, 0);
    put_tensor("w", type, n_dims, dims, offset);
    put_data(n_data_bytes);
}

/* Opens n_bytes bytes of `file` in a block of exactly that size, so that a sanitizer sees one byte too far. The block
 * lives until the next call. */
static int open_part(memtx_gguf **out, size_t n_bytes)
{
    static unsigned char *block;
    free(block);
    block = malloc(n_bytes ? n_bytes : 1);
    memcpy(block, file, n_bytes);
    return memtx_gguf_open_bytes(out, block, n_bytes, "made.gguf");
}

static memtx_gguf *open_made(void)
{
    memtx_gguf *gguf;
    cr_assert_eq(open_part(&gguf, n_file), MEMTX_OK, "%s", memtx_last_error());
    return gguf;
}

/* The file is refused with this status, a text that names it and holds `piece`, in one line. */
static void refused(int status, const char *piece)
{
    memtx_gguf *gguf = (memtx_gguf *)file;
    int got = open_part(&gguf, n_file);
    cr_assert_eq(got, status, "%d: %s (wanted: %s)", got, memtx_last_error(), piece);
    cr_assert_null(gguf);
    cr_assert(strstr(memtx_last_error(), piece), "\"%s\" does not hold \"%s\"", memtx_last_error(), piece);
    cr_assert(!strncmp(memtx_last_error(), "made.gguf: ", 11), "%s", memtx_last_error());
    cr_assert_null(strchr(memtx_last_error(), '\n'));
}

/* ---- files made by the writer ----------------------------------------------------------------- */

static char path[64];

static void make_path(void)
{
    char folder[] = "/tmp/memtx-gguf-XXXXXX";
    cr_assert_not_null(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/sample.gguf", folder);
}

static void remove_path(void)
{
    (void)unlink(path);
    *strrchr(path, '/') = '\0';
    cr_assert_eq(rmdir(path), 0, "something else was left in %s", path);
}

static const struct memtx_text words[] = {{"a", 1}, {NULL, 0}, {"b\0c", 3}, {"\xC4\x8D\xFF", 3}};
static const uint64_t sample_dims[MEMTX_GGUF_MAX_DIMS] = {256, 2, 3, 1};

static void fill_sample(unsigned char *bytes, size_t n_bytes, int type)
{
    for (size_t i = 0; i < n_bytes; i++) {
        bytes[i] = (unsigned char)(i * 31 + (size_t)type);
    }
}

struct type_row {
    const char *name;
    int type;
    size_t block_values, block_bytes;
};

static const struct type_row tensor_types[] = {
#define TYPE_ROW(name, value, values, bytes) {#name, value, values, bytes},
    MEMTX_TENSOR_TYPE_TABLE(TYPE_ROW)
#undef TYPE_ROW
};

enum { N_TYPES = sizeof tensor_types / sizeof tensor_types[0] };

/* Values of each kind the writer has and tensors of each type, with 1 to 4 dimensions. Stops at the first error. */
static int write_sample(void)
{
    static unsigned char bytes[256 * 2 * 3 * 4];
    memtx_gguf_writer *writer;
    int status = memtx_gguf_writer_create(&writer);
    if (!status) {
        status = memtx_gguf_writer_add_text(writer, "general.architecture", "llama");
    }
    if (!status) {
        status = memtx_gguf_writer_add_u32(writer, "u32", 4000000000U);
    }
    if (!status) {
        status = memtx_gguf_writer_add_u64(writer, "u64", UINT64_MAX - 1);
    }
    if (!status) {
        status = memtx_gguf_writer_add_f32(writer, "f32", -0.1F);
    }
    if (!status) {
        status = memtx_gguf_writer_add_bool(writer, "bool", true);
    }
    if (!status) {
        status = memtx_gguf_writer_add_texts(writer, "words", words, 4);
    }
    if (!status) {
        status = memtx_gguf_writer_add_texts(writer, "no words", NULL, 0);
    }
    for (int t = 0; t < N_TYPES && !status; t++) {
        int n_dims = 1 + t % 4;
        size_t n_values = n_dims == 1 ? 256 : n_dims == 2 ? 512 : 1536;
        size_t n_bytes = n_values / tensor_types[t].block_values * tensor_types[t].block_bytes;
        fill_sample(bytes, n_bytes, tensor_types[t].type);
        status =
            memtx_gguf_writer_add_tensor(writer, tensor_types[t].name, (enum memtx_tensor_type)tensor_types[t].type,
                                         n_dims, sample_dims, bytes, n_bytes);
    }
    if (!status) {
        status = memtx_gguf_writer_write(writer, path);
    }
    memtx_gguf_writer_destroy(writer);
    return status;
}

TestSuite(sample, .init = make_path, .fini = remove_path);

Test(sample, values_come_back)
{
    memtx_gguf *gguf;
    struct memtx_text text;
    uint64_t u64;
    double f64;
    bool truth;
    cr_assert_eq(write_sample(), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(memtx_gguf_open(&gguf, path), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(memtx_gguf_version(gguf), 3);
    cr_assert_str_eq(memtx_gguf_path(gguf), path);
    cr_assert_eq(memtx_gguf_n_values(gguf), 7);
    cr_assert_null(memtx_gguf_value_at(gguf, 7));
    cr_assert_eq(memtx_gguf_get_text(&text, gguf, "general.architecture"), MEMTX_OK);
    cr_assert(text.n_bytes == 5 && !memcmp(text.bytes, "llama", 5));
    cr_assert_eq(memtx_gguf_get_u64(&u64, gguf, "u32", 0, UINT64_MAX), MEMTX_OK);
    cr_assert_eq(u64, 4000000000U);
    cr_assert_eq(memtx_gguf_get_u64(&u64, gguf, "u64", 0, UINT64_MAX), MEMTX_OK);
    cr_assert_eq(u64, UINT64_MAX - 1);
    cr_assert_eq(memtx_gguf_get_f64(&f64, gguf, "f32", -1, 1), MEMTX_OK);
    cr_assert_eq(f64, (double)-0.1F);
    cr_assert_eq(memtx_gguf_get_bool(&truth, gguf, "bool"), MEMTX_OK);
    cr_assert(truth);
    memtx_gguf_close(gguf);
}

Test(sample, strings_come_back)
{
    memtx_gguf *gguf;
    struct memtx_text text;
    size_t cursor = 0;
    cr_assert_eq(write_sample(), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(memtx_gguf_open(&gguf, path), MEMTX_OK, "%s", memtx_last_error());
    const struct memtx_gguf_value *value = memtx_gguf_find_value(gguf, "words");
    cr_assert_eq(value->type, MEMTX_GGUF_ARRAY);
    cr_assert_eq(value->item_type, MEMTX_GGUF_STRING);
    cr_assert_eq(value->n_items, 4);
    for (size_t i = 0; i < 4; i++) {
        cr_assert(memtx_gguf_next_string(&text, value, &cursor));
        cr_assert_eq(text.n_bytes, words[i].n_bytes);
        cr_assert(!text.n_bytes || !memcmp(text.bytes, words[i].bytes, text.n_bytes));
    }
    cr_assert_not(memtx_gguf_next_string(&text, value, &cursor));
    cursor = 0;
    cr_assert_eq(memtx_gguf_find_value(gguf, "no words")->n_items, 0);
    cr_assert_not(memtx_gguf_next_string(&text, memtx_gguf_find_value(gguf, "no words"), &cursor));
    cr_assert_not(memtx_gguf_next_string(&text, memtx_gguf_find_value(gguf, "u32"), &cursor));
    memtx_gguf_close(gguf);
}

Test(sample, tensors_come_back)
{
    static unsigned char bytes[256 * 2 * 3 * 4];
    memtx_gguf *gguf;
    cr_assert_eq(write_sample(), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(memtx_gguf_open(&gguf, path), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(memtx_gguf_n_tensors(gguf), N_TYPES);
    cr_assert_null(memtx_gguf_tensor_at(gguf, N_TYPES));
    for (size_t t = 0; t < N_TYPES; t++) {
        const struct memtx_tensor *tensor = memtx_gguf_tensor_at(gguf, t);
        cr_assert_eq(memtx_gguf_find_tensor(gguf, tensor_types[t].name), tensor);
        cr_assert_eq(tensor->type, tensor_types[t].type);
        cr_assert_str_eq(memtx_tensor_type_name(tensor->type), tensor_types[t].name);
        cr_assert_eq(tensor->n_dims, 1 + (int)t % 4);
        for (int i = 0; i < MEMTX_GGUF_MAX_DIMS; i++) {
            cr_assert_eq(tensor->dims[i], i < tensor->n_dims ? sample_dims[i] : 1);
        }
        cr_assert_eq(tensor->n_values, tensor->dims[0] * tensor->dims[1] * tensor->dims[2] * tensor->dims[3]);
        cr_assert_eq(tensor->n_bytes, tensor->n_values / tensor_types[t].block_values * tensor_types[t].block_bytes);
        cr_assert_eq(tensor->offset % 32, 0);
        cr_assert(tensor->offset + tensor->n_bytes <= memtx_gguf_file_bytes(gguf));
        fill_sample(bytes, tensor->n_bytes, tensor->type);
        cr_assert(!memcmp(tensor->bytes, bytes, tensor->n_bytes), "%s", tensor_types[t].name);
    }
    cr_assert_null(memtx_gguf_find_tensor(gguf, "Q4_"));
    cr_assert_null(memtx_gguf_find_tensor(gguf, ""));
    cr_assert_null(memtx_gguf_find_tensor(gguf, "Q4_00"));
    memtx_gguf_close(gguf);
}

/* The file's map is given back by the close. */
Test(sample, nothing_stays_mapped)
{
    char line[512];
    int n_maps[2] = {0, 0};
    memtx_gguf *gguf;
    cr_assert_eq(write_sample(), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(memtx_gguf_open(&gguf, path), MEMTX_OK, "%s", memtx_last_error());
    for (int closed = 0; closed < 2; closed++) {
        FILE *maps = fopen("/proc/self/maps", "r");
        cr_assert_not_null(maps);
        while (fgets(line, sizeof line, maps)) {
            n_maps[closed] += strstr(line, path) != NULL;
        }
        (void)fclose(maps);
        memtx_gguf_close(gguf);
        gguf = NULL;
    }
    cr_assert_eq(n_maps[0], 1);
    cr_assert_eq(n_maps[1], 0);
}

static const int number_types[] = {MEMTX_GGUF_U8,  MEMTX_GGUF_I8,  MEMTX_GGUF_U16, MEMTX_GGUF_I16,
                                   MEMTX_GGUF_U32, MEMTX_GGUF_I32, MEMTX_GGUF_F32, MEMTX_GGUF_BOOL,
                                   MEMTX_GGUF_U64, MEMTX_GGUF_I64, MEMTX_GGUF_F64};
static const size_t number_bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 8, 8};

enum { N_NUMBER_TYPES = sizeof number_types / sizeof number_types[0] };

Test(sample, arrays_of_every_number_type_come_back)
{
    static const unsigned char items[24] = {0, 1, 1, 0, 1, 0, 1,   1,   9,   8,   7,   6,
                                            5, 4, 3, 2, 1, 0, 255, 254, 253, 252, 251, 250};
    memtx_gguf_writer *writer;
    memtx_gguf *gguf;
    cr_assert_eq(memtx_gguf_writer_create(&writer), MEMTX_OK);
    for (size_t i = 0; i < N_NUMBER_TYPES; i++) {
        const char *key = memtx_gguf_type_name(number_types[i]);
        cr_assert_eq(memtx_gguf_writer_add_numbers(writer, key, (enum memtx_gguf_type)number_types[i], items,
                                                   sizeof items / number_bytes[i]),
                     MEMTX_OK);
    }
    cr_assert_eq(memtx_gguf_writer_write(writer, path), MEMTX_OK, "%s", memtx_last_error());
    memtx_gguf_writer_destroy(writer);
    cr_assert_eq(memtx_gguf_open(&gguf, path), MEMTX_OK, "%s", memtx_last_error());
    for (size_t i = 0; i < N_NUMBER_TYPES; i++) {
        const struct memtx_gguf_value *value = memtx_gguf_find_value(gguf, memtx_gguf_type_name(number_types[i]));
        cr_assert_eq(value->type, MEMTX_GGUF_ARRAY);
        cr_assert_eq((int)value->item_type, number_types[i]);
        cr_assert_eq(value->n_items, sizeof items / number_bytes[i]);
        cr_assert_eq(value->n_bytes, sizeof items);
        cr_assert(!memcmp(value->bytes, items, sizeof items)); /* this test's machine is little-endian */
    }
    memtx_gguf_close(gguf);
}

/* Every beginning of the file but the whole is refused: the sample ends with its last tensor's last byte. */
Test(sample, cut_at_every_length)
{
    struct memtx__map map;
    memtx_gguf *gguf;
    cr_assert_eq(write_sample(), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(memtx__map_open(&map, path), MEMTX_OK);
    cr_assert(map.n_bytes <= FILE_BYTES);
    memcpy(file, map.bytes, map.n_bytes);
    for (n_file = 0; n_file < map.n_bytes; n_file++) {
        refused(MEMTX_E_FORMAT, "");
    }
    cr_assert_eq(open_part(&gguf, n_file), MEMTX_OK, "%s", memtx_last_error());
    memtx_gguf_close(gguf);
    memtx__map_close(&map);
}

/* The same of a file that ends with its values, each kind being the last in turn. */
Test(gguf, values_cut_at_every_length)
{
    for (int last = 0; last < 3; last++) {
        put_header(0, 1);
        put_key("k", last == 0 ? MEMTX_GGUF_U32 : last == 1 ? MEMTX_GGUF_STRING : MEMTX_GGUF_ARRAY);
        if (last == 2) {
            put(MEMTX_GGUF_STRING, 4);
            put(1, 8);
        }
        if (last) {
            put_text("last");
        } else {
            put(7, 4);
        }
        memtx_gguf_close(open_made());
        while (n_file--) {
            refused(MEMTX_E_FORMAT, "");
        }
    }
}

/* Any one bit turned: opened or refused, never a crash. */
Test(sample, every_bit_turned)
{
    struct memtx__map map;
    memtx_gguf *gguf;
    int n_refused = 0;
    cr_assert_eq(write_sample(), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(memtx__map_open(&map, path), MEMTX_OK);
    memcpy(file, map.bytes, map.n_bytes);
    for (size_t bit = 0; bit < 8 * 1024; bit++) { /* what is beyond is tensors' bytes */
        file[bit / 8] ^= (unsigned char)(1 << bit % 8);
        n_refused += !!memtx_gguf_open_bytes(&gguf, file, map.n_bytes, "made.gguf");
        memtx_gguf_close(gguf);
        file[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    cr_assert(n_refused > 1000);
    memtx__map_close(&map);
}

/* ---- memory runs out -------------------------------------------------------------------------- */

/* Without a sanitizer leaks are seen in the bytes in use, which the C library's cache of freed blocks blurs until it is
 * full: so the first sweeps are not measured, and a leak of one block (64 bytes or more) in each of the others is more
 * than the slack. */
enum { N_WARM_UP = 10, N_SWEEPS = 20, SLACK_BYTES = 640 };

static size_t bytes_in_use(void)
{
#if defined(HAVE_LSAN)
    return __lsan_do_recoverable_leak_check() ? SIZE_MAX : 0;
#else
    return mallinfo2().uordblks;
#endif
}

static int read_sample(void)
{
    memtx_gguf *gguf = (memtx_gguf *)file;
    int status = memtx_gguf_open(&gguf, path);
    cr_assert(!status == !!gguf);
    memtx_gguf_close(gguf);
    return status;
}

/* Lets the first, the second .. allocation of `act` fail until it has no more; returns how many it has. */
static long sweep(int (*act)(void))
{
    long n = 0;
    for (int status = MEMTX_E_NO_MEMORY; status; n++) {
        memtx__alloc_fail_at(n + 1);
        status = act();
        memtx__alloc_fail_at(0);
        cr_assert(!status || status == MEMTX_E_NO_MEMORY, "%ld: %d", n, status);
    }
    return n - 1;
}

static void leaks_nothing(int (*act)(void), long n_at_least)
{
    size_t before = 0;
    for (int i = 0; i < N_WARM_UP + N_SWEEPS; i++) {
        if (i == N_WARM_UP) {
            before = bytes_in_use();
        }
        long n = sweep(act);
        cr_assert(n >= n_at_least, "%ld allocations", n);
    }
    size_t after = bytes_in_use();
    cr_assert(after <= before + SLACK_BYTES, "%zu, then %zu bytes in use", before, after);
}

Test(sample, memory_runs_out_while_reading)
{
    cr_assert_eq(write_sample(), MEMTX_OK, "%s", memtx_last_error());
    leaks_nothing(read_sample, 6);
}

Test(sample, memory_runs_out_while_writing)
{
    leaks_nothing(write_sample, 40);
}

/* ---- single values ---------------------------------------------------------------------------- */

Test(gguf, every_integer_type_is_converted)
{
    static const struct {
        uint32_t type;
        int n_bytes;
        uint64_t bits;
        int negative;
    } rows[] = {
        {MEMTX_GGUF_U8, 1, 200, 0},          {MEMTX_GGUF_I8, 1, 100, 0},    {MEMTX_GGUF_I8, 1, 0xFF, 1},
        {MEMTX_GGUF_U16, 2, 60000, 0},       {MEMTX_GGUF_I16, 2, 30000, 0}, {MEMTX_GGUF_I16, 2, 0x8000, 1},
        {MEMTX_GGUF_U32, 4, 4000000000U, 0}, {MEMTX_GGUF_I32, 4, 7, 0},     {MEMTX_GGUF_I32, 4, 0xFFFFFFFE, 1},
        {MEMTX_GGUF_U64, 8, UINT64_MAX, 0},  {MEMTX_GGUF_I64, 8, 9, 0},     {MEMTX_GGUF_I64, 8, UINT64_MAX, 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint64_t got = 0;
        put_header(0, 1);
        put_number("k", rows[i].type, rows[i].bits, rows[i].n_bytes);
        memtx_gguf *gguf = open_made();
        int status = memtx_gguf_get_u64(&got, gguf, "k", 0, UINT64_MAX);
        cr_assert_eq(status, rows[i].negative ? MEMTX_E_FORMAT : MEMTX_OK, "%zu", i);
        cr_assert_eq(got, rows[i].negative ? 0 : rows[i].bits, "%zu", i);
        memtx_gguf_close(gguf);
    }
    put_header(0, 1);
    put_number("k", MEMTX_GGUF_I16, 0x8000, 2);
    memtx_gguf *gguf = open_made();
    uint64_t got;
    cr_assert_eq(memtx_gguf_get_u64(&got, gguf, "k", 1, 64), MEMTX_E_FORMAT);
    cr_assert(strstr(memtx_last_error(), "key \"k\" is -32768; it must lie in 1 .. 64"), "%s", memtx_last_error());
    memtx_gguf_close(gguf);
}

Test(gguf, ranges_and_types_of_values_are_checked)
{
    uint64_t u64;
    double f64;
    bool truth;
    struct memtx_text text;
    put_header(0, 6);
    put_number("int", MEMTX_GGUF_U16, 65, 2);
    put_number("double", MEMTX_GGUF_F64, UINT64_C(0x3FF8000000000000), 8); /* 1.5 */
    put_number("nan", MEMTX_GGUF_F32, 0x7FC00000, 4);
    put_number("bool", MEMTX_GGUF_BOOL, 2, 1);
    put_key("text", MEMTX_GGUF_STRING);
    put_text("hello");
    put_key("array", MEMTX_GGUF_ARRAY);
    put(MEMTX_GGUF_U8, 4);
    put(0, 8);
    memtx_gguf *gguf = open_made();
    cr_assert_eq(memtx_gguf_get_u64(&u64, gguf, "int", 65, 65), MEMTX_OK);
    cr_assert_eq(memtx_gguf_get_u64(&u64, gguf, "int", 1, 64), MEMTX_E_FORMAT);
    cr_assert(strstr(memtx_last_error(), "made.gguf: key \"int\" is 65; it must lie in 1 .. 64"));
    cr_assert_eq(memtx_gguf_get_u64(&u64, gguf, "int", 66, 99), MEMTX_E_FORMAT);
    cr_assert_eq(memtx_gguf_get_u64(&u64, gguf, "inte", 1, 64), MEMTX_E_NOT_FOUND);
    cr_assert(strstr(memtx_last_error(), "there is no key \"inte\""));
    cr_assert_eq(memtx_gguf_get_u64(&u64, gguf, "bool", 0, 9), MEMTX_E_FORMAT);
    cr_assert_eq(memtx_gguf_get_u64(&u64, gguf, "array", 0, 9), MEMTX_E_FORMAT);
    cr_assert(strstr(memtx_last_error(), "holds a value of type array; it must be an integer"));
    cr_assert_eq(memtx_gguf_get_f64(&f64, gguf, "double", 1.5, 1.5), MEMTX_OK);
    cr_assert_eq(f64, 1.5);
    cr_assert_eq(memtx_gguf_get_f64(&f64, gguf, "double", 2, 3), MEMTX_E_FORMAT);
    cr_assert(strstr(memtx_last_error(), "is 1.5; it must lie in 2 .. 3"));
    cr_assert_eq(memtx_gguf_get_f64(&f64, gguf, "nan", -1e300, 1e300), MEMTX_E_FORMAT);
    cr_assert_eq(memtx_gguf_get_f64(&f64, gguf, "int", 0, 100), MEMTX_E_FORMAT);
    cr_assert_eq(memtx_gguf_get_bool(&truth, gguf, "bool"), MEMTX_E_FORMAT);
    cr_assert_eq(memtx_gguf_get_bool(&truth, gguf, "int"), MEMTX_E_FORMAT);
    cr_assert_eq(memtx_gguf_get_text(&text, gguf, "int"), MEMTX_E_FORMAT);
    cr_assert_eq(memtx_gguf_get_text(&text, gguf, "text"), MEMTX_OK);
    cr_assert(text.n_bytes == 5 && !memcmp(text.bytes, "hello", 5));
    cr_assert_eq(memtx_gguf_get_text(&text, gguf, "none"), MEMTX_E_NOT_FOUND);
    memtx_gguf_close(gguf);
}

Test(gguf, many_names_are_found)
{
    enum { N = 500 };
    char key[16];
    uint64_t got;
    put_header(0, N);
    for (int i = 0; i < N; i++) {
        (void)snprintf(key, sizeof key, "k%d", i * 7 % N);
        put_number(key, MEMTX_GGUF_U32, (uint64_t)(i * 7 % N), 4);
    }
    memtx_gguf *gguf = open_made();
    for (int i = 0; i < N; i++) {
        (void)snprintf(key, sizeof key, "k%d", i);
        cr_assert_eq(memtx_gguf_get_u64(&got, gguf, key, (uint64_t)i, (uint64_t)i), MEMTX_OK, "%s", memtx_last_error());
    }
    memtx_gguf_close(gguf);
}

/* ---- refused: the file as a whole ------------------------------------------------------------- */

Test(gguf, not_there_or_not_a_file)
{
    memtx_gguf *gguf;
    cr_assert_eq(memtx_gguf_open(&gguf, "/nowhere/x.gguf"), MEMTX_E_NOT_FOUND);
    cr_assert_null(gguf);
    cr_assert(strstr(memtx_last_error(), "/nowhere/x.gguf: "));
    cr_assert_eq(memtx_gguf_open(&gguf, "/"), MEMTX_E_IO);
    cr_assert(strstr(memtx_last_error(), "not a regular file"));
    cr_assert_eq(memtx_gguf_open(&gguf, NULL), MEMTX_E_INVALID);
    cr_assert_eq(memtx_gguf_open_bytes(&gguf, NULL, 3, "x"), MEMTX_E_INVALID);
    cr_assert_eq(memtx_gguf_open_bytes(&gguf, "GGUF", 4, NULL), MEMTX_E_INVALID);
    memtx_gguf_close(NULL);
}

Test(gguf, empty_short_and_text)
{
    n_file = 0;
    refused(MEMTX_E_FORMAT, "the file is empty");
    n_file = 1;
    file[0] = 'G';
    refused(MEMTX_E_FORMAT, "it begins with the bytes 47; 47 47 55 46 must stand there");
    put_header(0, 0);
    n_file = 23;
    refused(MEMTX_E_FORMAT, "it has 23 bytes, a GGUF header alone takes 24");
    memcpy(file, "The Project", 11);
    n_file = 11;
    refused(MEMTX_E_FORMAT, "not a GGUF file: it begins with the bytes 54 68 65 20;");
}

Test(gguf, no_tensors_and_no_values)
{
    put_header(0, 0);
    memtx_gguf *gguf = open_made();
    cr_assert_eq(memtx_gguf_n_values(gguf), 0);
    cr_assert_eq(memtx_gguf_n_tensors(gguf), 0);
    cr_assert_null(memtx_gguf_find_value(gguf, "k"));
    memtx_gguf_close(gguf);
}

Test(gguf, versions)
{
    static const uint32_t versions[] = {0, 1, 2, 3, 4, 255, 0xFFFFFFFF};
    memtx_gguf *gguf;
    for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++) {
        put_header(0, 0);
        memtx__put_u32(file + 4, versions[i]);
        if (versions[i] == 2 || versions[i] == 3) {
            gguf = open_made();
            cr_assert_eq(memtx_gguf_version(gguf), versions[i]);
            memtx_gguf_close(gguf);
        } else {
            refused(MEMTX_E_UNSUPPORTED, "versions 2 and 3 are read");
        }
    }
}

Test(gguf, big_endian)
{
    put_header(0, 0);
    memtx__put_be(file + 4, 3, 4);
    refused(MEMTX_E_FORMAT, "big-endian file");
    memcpy(file, "FUGG", 4);
    refused(MEMTX_E_FORMAT, "big-endian file");
}

/* ---- refused: counts and values --------------------------------------------------------------- */

Test(gguf, absurd_counts)
{
    static const uint64_t counts[] = {UINT64_C(1) << 60, UINT64_MAX, UINT64_C(1) << 32, 4};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        char piece[64];
        put_header(counts[i], 0);
        put_data(40);
        (void)snprintf(piece, sizeof piece, "the number of tensors is %llu; the ", (unsigned long long)counts[i]);
        refused(MEMTX_E_FORMAT, piece);
        put_header(0, counts[i]);
        put_data(40);
        (void)snprintf(piece, sizeof piece, "the number of keys is %llu; the ", (unsigned long long)counts[i]);
        refused(MEMTX_E_FORMAT, piece);
    }
    put_header(0, 4);
    put_data(40);
    refused(MEMTX_E_FORMAT, "the 48 bytes that are left hold at most 3");
}

Test(gguf, strings_that_are_too_long)
{
    static const uint64_t lengths[] = {UINT64_C(1) << 60, UINT64_MAX, UINT64_MAX - 7, 1000};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        put_header(0, 1);
        put(lengths[i], 8);
        put_data(64);
        refused(MEMTX_E_FORMAT, "cut off or damaged: a key takes ");
        put_header(0, 1);
        put_key("k", MEMTX_GGUF_STRING);
        put(lengths[i], 8);
        put_data(64);
        refused(MEMTX_E_FORMAT, "cut off or damaged: a string takes ");
        put_header(1, 0);
        put(lengths[i], 8);
        put_data(64);
        refused(MEMTX_E_FORMAT, "cut off or damaged: a tensor's name takes ");
    }
    put_header(0, 1);
    put(0, 8);
    put_data(64);
    refused(MEMTX_E_FORMAT, "a key at offset 32 has 0 bytes; 1 .. 65535 are allowed");
    put_header(0, 1);
    put(65536, 8);
    put_data(70000);
    refused(MEMTX_E_FORMAT, "has 65536 bytes; 1 .. 65535 are allowed");
}

Test(gguf, arrays_that_are_too_long)
{
    static const uint64_t lengths[] = {UINT64_C(1) << 60, UINT64_MAX, UINT64_C(1) << 61, UINT64_C(1) << 63, 1000};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        for (uint32_t type = 0; type <= MEMTX_GGUF_F64; type++) {
            put_header(0, 1);
            put_key("k", MEMTX_GGUF_ARRAY);
            put(type, 4);
            put(lengths[i], 8);
            put_data(64);
            if (type == MEMTX_GGUF_ARRAY) {
                refused(MEMTX_E_UNSUPPORTED, "key \"k\": an array of arrays is not read");
            } else {
                refused(MEMTX_E_FORMAT, "an array's length is ");
            }
        }
    }
    put_header(0, 1);
    put_key("k", MEMTX_GGUF_ARRAY);
    put(MEMTX_GGUF_STRING, 4);
    put(2, 8);
    put_text("ok");
    put(1 << 20, 8);
    put_data(64);
    refused(MEMTX_E_FORMAT, "a string of an array takes 1048576 bytes");
}

Test(gguf, wrong_types)
{
    static const uint32_t types[] = {13, 255, 0x80000000, 0xFFFFFFFF};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        put_header(0, 1);
        put_number("k", types[i], 0, 8);
        refused(MEMTX_E_FORMAT, "key \"k\": a value's type must lie in 0 .. 12, it is ");
        put_header(0, 1);
        put_key("k", MEMTX_GGUF_ARRAY);
        put(types[i], 4);
        put(0, 8);
        refused(MEMTX_E_FORMAT, "key \"k\": an array's item type must lie in 0 .. 12, it is ");
    }
}

Test(gguf, alignment)
{
    static const uint64_t bad[] = {0, 1, 4, 24, 33, 131072, 0xFFFFFFFF};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        put_header(0, 1);
        put_number("general.alignment", MEMTX_GGUF_U32, bad[i], 4);
        refused(MEMTX_E_FORMAT, "key \"general.alignment\" is ");
    }
    put_header(0, 1);
    put_number("general.alignment", MEMTX_GGUF_F32, 0, 4);
    refused(MEMTX_E_FORMAT, "must be an integer");
    put_header(2, 1);
    put_number("general.alignment", MEMTX_GGUF_U32, 8, 4);
    put_tensor("a", MEMTX_TENSOR_F32, 1, (uint64_t[]){1}, 0);
    put_tensor("b", MEMTX_TENSOR_F32, 1, (uint64_t[]){1}, 8);
    size_t data_at = (n_file + 7) & ~(size_t)7;
    put(0, (int)(data_at - n_file));
    put(1, 8);
    put(2, 8);
    memtx_gguf *gguf = open_made();
    cr_assert_eq(memtx_gguf_find_tensor(gguf, "b")->offset, data_at + 8);
    cr_assert_eq(memtx_gguf_find_tensor(gguf, "b")->bytes[0], 2);
    memtx_gguf_close(gguf);
}

Test(gguf, names_that_are_there_twice)
{
    put_header(0, 3);
    put_number("k", MEMTX_GGUF_U32, 1, 4);
    put_number("j", MEMTX_GGUF_U32, 1, 4);
    put_number("k", MEMTX_GGUF_U8, 1, 1);
    refused(MEMTX_E_FORMAT, "key \"k\" is there twice");
    put_header(3, 0);
    put_tensor("w", MEMTX_TENSOR_F32, 1, (uint64_t[]){8}, 0);
    put_tensor("v", MEMTX_TENSOR_F32, 1, (uint64_t[]){8}, 32);
    put_tensor("w", MEMTX_TENSOR_F32, 1, (uint64_t[]){8}, 64);
    put_data(96);
    refused(MEMTX_E_FORMAT, "tensor \"w\" is there twice");
}

/* ---- refused: tensors ------------------------------------------------------------------------- */

Test(gguf, dimensions)
{
    static const uint64_t huge = UINT64_C(1) << 32;
    make_tensor(MEMTX_TENSOR_F32, 0, NULL, 0, 64);
    refused(MEMTX_E_FORMAT, "tensor \"w\": the number of dimensions is 0; 1 .. 4 are allowed");
    make_tensor(MEMTX_TENSOR_F32, 5, (uint64_t[]){1, 1, 1, 1, 1}, 0, 64);
    refused(MEMTX_E_FORMAT, "the number of dimensions is 5; 1 .. 4 are allowed");
    make_tensor(MEMTX_TENSOR_F32, 2, (uint64_t[]){4, 0}, 0, 64);
    refused(MEMTX_E_FORMAT, "tensor \"w\": a dimension is 0; at least 1 is needed");
    make_tensor(MEMTX_TENSOR_F32, 2, (uint64_t[]){huge, huge}, 0, 64);
    refused(MEMTX_E_FORMAT, "the product of the dimensions up to 4294967296 passes 2^64 - 1");
    make_tensor(MEMTX_TENSOR_F32, 4, (uint64_t[]){huge / 2, huge / 2, 2, 2}, 0, 64);
    refused(MEMTX_E_FORMAT, "passes 2^64 - 1");
    make_tensor(99, 4, (uint64_t[]){huge, huge, huge, huge}, 0, 64); /* of an unknown type too */
    refused(MEMTX_E_FORMAT, "passes 2^64 - 1");
    /* The product of values fits, that of bytes would wrap round to 0. */
    make_tensor(MEMTX_TENSOR_F32, 1, (uint64_t[]){UINT64_C(1) << 62}, 0, 64);
    refused(MEMTX_E_FORMAT, "4611686018427387904 values of type F32 do not fit in a file of 128 bytes");
    make_tensor(MEMTX_TENSOR_Q4_0, 1, (uint64_t[]){33}, 0, 64);
    refused(MEMTX_E_FORMAT, "its first dimension is 33; Q4_0 needs a multiple of 32");
    make_tensor(MEMTX_TENSOR_Q6_K, 2, (uint64_t[]){32, 8}, 0, 640);
    refused(MEMTX_E_FORMAT, "its first dimension is 32; Q6_K needs a multiple of 256");
    make_tensor(0xFFFFFFFF, 1, (uint64_t[]){4}, 0, 64);
    refused(MEMTX_E_FORMAT, "tensor \"w\": its type is 4294967295");
}

Test(gguf, offsets)
{
    make_tensor(MEMTX_TENSOR_F32, 1, (uint64_t[]){8}, 33, 128);
    refused(MEMTX_E_FORMAT, "tensor \"w\": offset 33 is not a multiple of the alignment 32");
    make_tensor(MEMTX_TENSOR_F32, 1, (uint64_t[]){8}, 128, 128);
    refused(MEMTX_E_FORMAT, "tensor \"w\": offset 64 + 128 + 32 bytes lies outside the file of 192 bytes");
    make_tensor(MEMTX_TENSOR_F32, 1, (uint64_t[]){9}, 96, 128);
    refused(MEMTX_E_FORMAT, "lies outside the file of 192 bytes");
    make_tensor(MEMTX_TENSOR_F32, 1, (uint64_t[]){8}, UINT64_MAX - 31, 128);
    refused(MEMTX_E_FORMAT, "lies outside the file of 192 bytes");
    make_tensor(MEMTX_TENSOR_F32, 1, (uint64_t[]){1}, 0, 0);
    n_file = 57; /* where the names end: the data would begin after the file */
    refused(MEMTX_E_FORMAT, "offset 64 + 0 + 4 bytes lies outside the file of 57 bytes");
    make_tensor(99, 1, (uint64_t[]){8}, 1 << 20, 128); /* of an unknown type too */
    refused(MEMTX_E_FORMAT, "lies outside the file of 192 bytes");
    make_tensor(MEMTX_TENSOR_F32, 1, (uint64_t[]){8}, 96, 128);
    memtx_gguf_close(open_made());
}

Test(gguf, overlapping_tensors)
{
    static const uint64_t dims[] = {8}; /* 32 bytes */
    put_header(3, 0);
    put_tensor("a", MEMTX_TENSOR_F32, 1, dims, 64);
    put_tensor("b", MEMTX_TENSOR_F32, 1, (uint64_t[]){9}, 0); /* 36 bytes */
    put_tensor("c", MEMTX_TENSOR_F32, 1, dims, 32);
    put_data(128);
    refused(MEMTX_E_FORMAT, "tensors \"b\" (offset 128 + 36 bytes) and \"c\" (offset 160) overlap");
    put_header(2, 0);
    put_tensor("a", MEMTX_TENSOR_F32, 1, dims, 32);
    put_tensor("b", MEMTX_TENSOR_F32, 1, dims, 32);
    put_data(128);
    refused(MEMTX_E_FORMAT, " overlap");
    put_header(3, 0); /* one around two others */
    put_tensor("a", MEMTX_TENSOR_F32, 1, (uint64_t[]){32}, 0);
    put_tensor("b", MEMTX_TENSOR_F32, 1, dims, 96);
    put_tensor("c", MEMTX_TENSOR_F32, 1, dims, 128);
    put_data(160);
    refused(MEMTX_E_FORMAT, "tensors \"a\" (offset 128 + 128 bytes) and \"b\" (offset 224) overlap");
}

Test(gguf, a_tensor_of_an_unknown_type_is_listed)
{
    make_tensor(4, 2, (uint64_t[]){31, 3}, 32, 128);
    memtx_gguf *gguf = open_made();
    const struct memtx_tensor *tensor = memtx_gguf_find_tensor(gguf, "w");
    cr_assert_eq(tensor->type, 4);
    cr_assert_null(memtx_tensor_type_name(tensor->type));
    cr_assert_null(tensor->bytes);
    cr_assert_eq(tensor->n_bytes, 0);
    cr_assert_eq(tensor->n_values, 93);
    memtx_gguf_close(gguf);
}

/* A name out of the file cannot break the line, nor fill the whole text. */
Test(gguf, names_in_error_texts)
{
    char name[300];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    memcpy(name, "a\nb\033", 4);
    put_header(1, 0);
    put_tensor(name, MEMTX_TENSOR_F32, 1, (uint64_t[]){8}, 1 << 20);
    put_data(64);
    refused(MEMTX_E_FORMAT, "tensor \"a b xxx");
    refused(MEMTX_E_FORMAT, "lies outside the file");
}

Test(gguf, type_names)
{
    cr_assert_str_eq(memtx_gguf_type_name(MEMTX_GGUF_U8), "u8");
    cr_assert_str_eq(memtx_gguf_type_name(MEMTX_GGUF_F64), "f64");
    cr_assert_null(memtx_gguf_type_name(13));
    cr_assert_null(memtx_gguf_type_name(-1));
    cr_assert_str_eq(memtx_tensor_type_name(30), "BF16");
    cr_assert_null(memtx_tensor_type_name(-1));
}

/* ---- the writer's own refusals ---------------------------------------------------------------- */

Test(sample, the_writer_refuses)
{
    static const float numbers[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    memtx_gguf_writer *writer;
    memtx_gguf *gguf;
    cr_assert_eq(memtx_gguf_writer_create(&writer), MEMTX_OK);
    cr_assert_eq(memtx_gguf_writer_add_u32(writer, "k", 1), MEMTX_OK);
    cr_assert_eq(memtx_gguf_writer_add_bool(writer, "k", true), MEMTX_E_EXISTS);
    cr_assert_eq(memtx_gguf_writer_add_u32(writer, "", 1), MEMTX_E_INVALID);
    cr_assert_eq(memtx_gguf_writer_add_u32(writer, NULL, 1), MEMTX_E_INVALID);
    cr_assert_eq(memtx_gguf_writer_add_text(writer, "t", NULL), MEMTX_E_INVALID);
    cr_assert_eq(memtx_gguf_writer_add_u32(writer, "general.alignment", 64), MEMTX_E_INVALID);
    cr_assert_eq(memtx_gguf_writer_add_numbers(writer, "n", MEMTX_GGUF_STRING, numbers, 8), MEMTX_E_INVALID);
    cr_assert_eq(memtx_gguf_writer_add_numbers(writer, "n", MEMTX_GGUF_F32, numbers, SIZE_MAX / 2), MEMTX_E_NO_MEMORY);
    cr_assert_eq(memtx_gguf_writer_add_texts(writer, "n", words, SIZE_MAX / 2), MEMTX_E_NO_MEMORY);
    cr_assert_eq(memtx_gguf_writer_add_tensor(writer, "w", MEMTX_TENSOR_F32, 1, (uint64_t[]){8}, numbers, 32),
                 MEMTX_OK);
    cr_assert_eq(memtx_gguf_writer_add_tensor(writer, "w", MEMTX_TENSOR_F32, 1, (uint64_t[]){8}, numbers, 32),
                 MEMTX_E_EXISTS);
    cr_assert_eq(memtx_gguf_writer_add_tensor(writer, "v", MEMTX_TENSOR_F32, 1, (uint64_t[]){8}, numbers, 31),
                 MEMTX_E_INVALID);
    cr_assert_eq(memtx_gguf_writer_add_tensor(writer, "v", MEMTX_TENSOR_F32, 1, (uint64_t[]){0}, numbers, 0),
                 MEMTX_E_INVALID);
    cr_assert_eq(
        memtx_gguf_writer_add_tensor(writer, "v", MEMTX_TENSOR_F32, 5, (uint64_t[]){1, 1, 1, 1, 1}, numbers, 4),
        MEMTX_E_INVALID);
    cr_assert_eq(memtx_gguf_writer_add_tensor(writer, "v", MEMTX_TENSOR_F32, 0, NULL, numbers, 4), MEMTX_E_INVALID);
    cr_assert_eq(memtx_gguf_writer_add_tensor(writer, "v", MEMTX_TENSOR_Q8_0, 2, (uint64_t[]){16, 2}, numbers, 34),
                 MEMTX_E_INVALID);
    cr_assert_eq(memtx_gguf_writer_add_tensor(writer, "v", MEMTX_TENSOR_F16, 2,
                                              (uint64_t[]){UINT64_C(1) << 32, UINT64_C(1) << 32}, numbers, 0),
                 MEMTX_E_INVALID);
    cr_assert_eq(memtx_gguf_writer_add_tensor(writer, "v", (enum memtx_tensor_type)99, 1, (uint64_t[]){8}, numbers, 32),
                 MEMTX_E_INVALID);
    cr_assert_neq(memtx_gguf_writer_write(writer, "/nowhere/x.gguf"), MEMTX_OK);
    cr_assert_eq(memtx_gguf_writer_write(writer, NULL), MEMTX_E_INVALID);
    /* After all that it holds what was accepted. */
    cr_assert_eq(memtx_gguf_writer_write(writer, path), MEMTX_OK);
    memtx_gguf_writer_destroy(writer);
    memtx_gguf_writer_destroy(NULL);
    cr_assert_eq(memtx_gguf_open(&gguf, path), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(memtx_gguf_n_values(gguf), 1);
    cr_assert_eq(memtx_gguf_n_tensors(gguf), 1);
    cr_assert(!memcmp(memtx_gguf_find_tensor(gguf, "w")->bytes, numbers, sizeof numbers));
    memtx_gguf_close(gguf);
}
