/* GGUF files that the writer writes: the reader reads the same; cut off or with a bit turned they are refused, or read,
 * and no more; memory that runs out at any point leaks nothing. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
#include "base/file.h"
#include "gguf_made.h"

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
    cr_assert(map.n_bytes <= MADE_MOST_BYTES);
    memcpy(made.bytes, map.bytes, map.n_bytes);
    for (made.n_bytes = 0; made.n_bytes < map.n_bytes; made.n_bytes++) {
        made_refused(MEMTX_E_FORMAT, "");
    }
    cr_assert_eq(made_open_part(&gguf, made.n_bytes), MEMTX_OK, "%s", memtx_last_error());
    memtx_gguf_close(gguf);
    memtx__map_close(&map);
}

/* Any one bit turned: opened or refused, never a crash. */
Test(sample, every_bit_turned)
{
    struct memtx__map map;
    memtx_gguf *gguf;
    int n_refused = 0;
    cr_assert_eq(write_sample(), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(memtx__map_open(&map, path), MEMTX_OK);
    memcpy(made.bytes, map.bytes, map.n_bytes);
    for (size_t bit = 0; bit < 8 * 1024; bit++) { /* what is beyond is tensors' bytes */
        made.bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        n_refused += !!memtx_gguf_open_bytes(&gguf, made.bytes, map.n_bytes, "made.gguf");
        memtx_gguf_close(gguf);
        made.bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
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
    memtx_gguf *gguf = (memtx_gguf *)made.bytes;
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
