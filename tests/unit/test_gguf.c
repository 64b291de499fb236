/* GGUF files made by hand: what a reader takes; what is malformed is refused with a status and one line. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "gguf_made.h"

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
        made_put_header(0, 1);
        made_put_number("k", rows[i].type, rows[i].bits, rows[i].n_bytes);
        memtx_gguf *gguf = made_open();
        int status = memtx_gguf_get_u64(&got, gguf, "k", 0, UINT64_MAX);
        cr_assert_eq(status, rows[i].negative ? MEMTX_E_FORMAT : MEMTX_OK, "%zu", i);
        cr_assert_eq(got, rows[i].negative ? 0 : rows[i].bits, "%zu", i);
        memtx_gguf_close(gguf);
    }
    made_put_header(0, 1);
    made_put_number("k", MEMTX_GGUF_I16, 0x8000, 2);
    memtx_gguf *gguf = made_open();
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
    made_put_header(0, 6);
    made_put_number("int", MEMTX_GGUF_U16, 65, 2);
    made_put_number("double", MEMTX_GGUF_F64, UINT64_C(0x3FF8000000000000), 8); /* 1.5 */
    made_put_number("nan", MEMTX_GGUF_F32, 0x7FC00000, 4);
    made_put_number("bool", MEMTX_GGUF_BOOL, 2, 1);
    made_put_key("text", MEMTX_GGUF_STRING);
    made_put_text("hello");
    made_put_key("array", MEMTX_GGUF_ARRAY);
    made_put(MEMTX_GGUF_U8, 4);
    made_put(0, 8);
    memtx_gguf *gguf = made_open();
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
    made_put_header(0, N);
    for (int i = 0; i < N; i++) {
        (void)snprintf(key, sizeof key, "k%d", i * 7 % N);
        made_put_number(key, MEMTX_GGUF_U32, (uint64_t)(i * 7 % N), 4);
    }
    memtx_gguf *gguf = made_open();
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
    made.n_bytes = 0;
    made_refused(MEMTX_E_FORMAT, "the file is empty");
    made.n_bytes = 1;
    made.bytes[0] = 'G';
    made_refused(MEMTX_E_FORMAT, "it begins with the bytes 47; 47 47 55 46 must stand there");
    made_put_header(0, 0);
    made.n_bytes = 23;
    made_refused(MEMTX_E_FORMAT, "it has 23 bytes, a GGUF header alone takes 24");
    memcpy(made.bytes, "The Project", 11);
    made.n_bytes = 11;
    made_refused(MEMTX_E_FORMAT, "not a GGUF file: it begins with the bytes 54 68 65 20;");
}

Test(gguf, no_tensors_and_no_values)
{
    made_put_header(0, 0);
    memtx_gguf *gguf = made_open();
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
        made_put_header(0, 0);
        memtx__put_u32(made.bytes + 4, versions[i]);
        if (versions[i] == 2 || versions[i] == 3) {
            gguf = made_open();
            cr_assert_eq(memtx_gguf_version(gguf), versions[i]);
            memtx_gguf_close(gguf);
        } else {
            made_refused(MEMTX_E_UNSUPPORTED, "versions 2 and 3 are read");
        }
    }
}

Test(gguf, big_endian)
{
    made_put_header(0, 0);
    memtx__put_be(made.bytes + 4, 3, 4);
    made_refused(MEMTX_E_FORMAT, "big-endian file");
    memcpy(made.bytes, "FUGG", 4);
    made_refused(MEMTX_E_FORMAT, "big-endian file");
}

/* ---- refused: counts and values --------------------------------------------------------------- */

Test(gguf, absurd_counts)
{
    static const uint64_t counts[] = {UINT64_C(1) << 60, UINT64_MAX, UINT64_C(1) << 32, 4};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        char piece[64];
        made_put_header(counts[i], 0);
        made_put_data(40);
        (void)snprintf(piece, sizeof piece, "the number of tensors is %llu; the ", (unsigned long long)counts[i]);
        made_refused(MEMTX_E_FORMAT, piece);
        made_put_header(0, counts[i]);
        made_put_data(40);
        (void)snprintf(piece, sizeof piece, "the number of keys is %llu; the ", (unsigned long long)counts[i]);
        made_refused(MEMTX_E_FORMAT, piece);
    }
    made_put_header(0, 4);
    made_put_data(40);
    made_refused(MEMTX_E_FORMAT, "the 48 bytes that are left hold at most 3");
}

Test(gguf, strings_that_are_too_long)
{
    static const uint64_t lengths[] = {UINT64_C(1) << 60, UINT64_MAX, UINT64_MAX - 7, 1000};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        made_put_header(0, 1);
        made_put(lengths[i], 8);
        made_put_data(64);
        made_refused(MEMTX_E_FORMAT, "cut off or damaged: a key takes ");
        made_put_header(0, 1);
        made_put_key("k", MEMTX_GGUF_STRING);
        made_put(lengths[i], 8);
        made_put_data(64);
        made_refused(MEMTX_E_FORMAT, "cut off or damaged: a string takes ");
        made_put_header(1, 0);
        made_put(lengths[i], 8);
        made_put_data(64);
        made_refused(MEMTX_E_FORMAT, "cut off or damaged: a tensor's name takes ");
    }
    made_put_header(0, 1);
    made_put(0, 8);
    made_put_data(64);
    made_refused(MEMTX_E_FORMAT, "a key at offset 32 has 0 bytes; 1 .. 65535 are allowed");
    made_put_header(0, 1);
    made_put(65536, 8);
    made_put_data(70000);
    made_refused(MEMTX_E_FORMAT, "has 65536 bytes; 1 .. 65535 are allowed");
}

Test(gguf, arrays_that_are_too_long)
{
    static const uint64_t lengths[] = {UINT64_C(1) << 60, UINT64_MAX, UINT64_C(1) << 61, UINT64_C(1) << 63, 1000};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        for (uint32_t type = 0; type <= MEMTX_GGUF_F64; type++) {
            made_put_header(0, 1);
            made_put_key("k", MEMTX_GGUF_ARRAY);
            made_put(type, 4);
            made_put(lengths[i], 8);
            made_put_data(64);
            if (type == MEMTX_GGUF_ARRAY) {
                made_refused(MEMTX_E_UNSUPPORTED, "key \"k\": an array of arrays is not read");
            } else {
                made_refused(MEMTX_E_FORMAT, "an array's length is ");
            }
        }
    }
    made_put_header(0, 1);
    made_put_key("k", MEMTX_GGUF_ARRAY);
    made_put(MEMTX_GGUF_STRING, 4);
    made_put(2, 8);
    made_put_text("ok");
    made_put(1 << 20, 8);
    made_put_data(64);
    made_refused(MEMTX_E_FORMAT, "a string of an array takes 1048576 bytes");
}

Test(gguf, wrong_types)
{
    static const uint32_t types[] = {13, 255, 0x80000000, 0xFFFFFFFF};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        made_put_header(0, 1);
        made_put_number("k", types[i], 0, 8);
        made_refused(MEMTX_E_FORMAT, "key \"k\": a value's type must lie in 0 .. 12, it is ");
        made_put_header(0, 1);
        made_put_key("k", MEMTX_GGUF_ARRAY);
        made_put(types[i], 4);
        made_put(0, 8);
        made_refused(MEMTX_E_FORMAT, "key \"k\": an array's item type must lie in 0 .. 12, it is ");
    }
}

Test(gguf, alignment)
{
    static const uint64_t bad[] = {0, 1, 4, 24, 33, 131072, 0xFFFFFFFF};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        made_put_header(0, 1);
        made_put_number("general.alignment", MEMTX_GGUF_U32, bad[i], 4);
        made_refused(MEMTX_E_FORMAT, "key \"general.alignment\" is ");
    }
    made_put_header(0, 1);
    made_put_number("general.alignment", MEMTX_GGUF_F32, 0, 4);
    made_refused(MEMTX_E_FORMAT, "must be an integer");
    made_put_header(2, 1);
    made_put_number("general.alignment", MEMTX_GGUF_U32, 8, 4);
    made_put_tensor("a", MEMTX_TENSOR_F32, 1, (uint64_t[]){1}, 0);
    made_put_tensor("b", MEMTX_TENSOR_F32, 1, (uint64_t[]){1}, 8);
    size_t data_at = (made.n_bytes + 7) & ~(size_t)7;
    made_put(0, (int)(data_at - made.n_bytes));
    made_put(1, 8);
    made_put(2, 8);
    memtx_gguf *gguf = made_open();
    cr_assert_eq(memtx_gguf_find_tensor(gguf, "b")->offset, data_at + 8);
    cr_assert_eq(memtx_gguf_find_tensor(gguf, "b")->bytes[0], 2);
    memtx_gguf_close(gguf);
}

Test(gguf, names_that_are_there_twice)
{
    made_put_header(0, 3);
    made_put_number("k", MEMTX_GGUF_U32, 1, 4);
    made_put_number("j", MEMTX_GGUF_U32, 1, 4);
    made_put_number("k", MEMTX_GGUF_U8, 1, 1);
    made_refused(MEMTX_E_FORMAT, "key \"k\" is there twice");
    made_put_header(3, 0);
    made_put_tensor("w", MEMTX_TENSOR_F32, 1, (uint64_t[]){8}, 0);
    made_put_tensor("v", MEMTX_TENSOR_F32, 1, (uint64_t[]){8}, 32);
    made_put_tensor("w", MEMTX_TENSOR_F32, 1, (uint64_t[]){8}, 64);
    made_put_data(96);
    made_refused(MEMTX_E_FORMAT, "tensor \"w\" is there twice");
}

/* ---- refused: tensors ------------------------------------------------------------------------- */

Test(gguf, dimensions)
{
    static const uint64_t huge = UINT64_C(1) << 32;
    made_one_tensor(MEMTX_TENSOR_F32, 0, NULL, 0, 64);
    made_refused(MEMTX_E_FORMAT, "tensor \"w\": the number of dimensions is 0; 1 .. 4 are allowed");
    made_one_tensor(MEMTX_TENSOR_F32, 5, (uint64_t[]){1, 1, 1, 1, 1}, 0, 64);
    made_refused(MEMTX_E_FORMAT, "the number of dimensions is 5; 1 .. 4 are allowed");
    made_one_tensor(MEMTX_TENSOR_F32, 2, (uint64_t[]){4, 0}, 0, 64);
    made_refused(MEMTX_E_FORMAT, "tensor \"w\": a dimension is 0; at least 1 is needed");
    made_one_tensor(MEMTX_TENSOR_F32, 2, (uint64_t[]){huge, huge}, 0, 64);
    made_refused(MEMTX_E_FORMAT, "the product of the dimensions up to 4294967296 passes 2^64 - 1");
    made_one_tensor(MEMTX_TENSOR_F32, 4, (uint64_t[]){huge / 2, huge / 2, 2, 2}, 0, 64);
    made_refused(MEMTX_E_FORMAT, "passes 2^64 - 1");
    made_one_tensor(99, 4, (uint64_t[]){huge, huge, huge, huge}, 0, 64); /* of an unknown type too */
    made_refused(MEMTX_E_FORMAT, "passes 2^64 - 1");
    /* The product of values fits, that of bytes would wrap round to 0. */
    made_one_tensor(MEMTX_TENSOR_F32, 1, (uint64_t[]){UINT64_C(1) << 62}, 0, 64);
    made_refused(MEMTX_E_FORMAT, "4611686018427387904 values of type F32 do not fit in a file of 128 bytes");
    made_one_tensor(MEMTX_TENSOR_Q4_0, 1, (uint64_t[]){33}, 0, 64);
    made_refused(MEMTX_E_FORMAT, "its first dimension is 33; Q4_0 needs a multiple of 32");
    made_one_tensor(MEMTX_TENSOR_Q6_K, 2, (uint64_t[]){32, 8}, 0, 640);
    made_refused(MEMTX_E_FORMAT, "its first dimension is 32; Q6_K needs a multiple of 256");
    made_one_tensor(0xFFFFFFFF, 1, (uint64_t[]){4}, 0, 64);
    made_refused(MEMTX_E_FORMAT, "tensor \"w\": its type is 4294967295");
}

Test(gguf, offsets)
{
    made_one_tensor(MEMTX_TENSOR_F32, 1, (uint64_t[]){8}, 33, 128);
    made_refused(MEMTX_E_FORMAT, "tensor \"w\": offset 33 is not a multiple of the alignment 32");
    made_one_tensor(MEMTX_TENSOR_F32, 1, (uint64_t[]){8}, 128, 128);
    made_refused(MEMTX_E_FORMAT, "tensor \"w\": offset 64 + 128 + 32 bytes lies outside the file of 192 bytes");
    made_one_tensor(MEMTX_TENSOR_F32, 1, (uint64_t[]){9}, 96, 128);
    made_refused(MEMTX_E_FORMAT, "lies outside the file of 192 bytes");
    made_one_tensor(MEMTX_TENSOR_F32, 1, (uint64_t[]){8}, UINT64_MAX - 31, 128);
    made_refused(MEMTX_E_FORMAT, "lies outside the file of 192 bytes");
    made_one_tensor(MEMTX_TENSOR_F32, 1, (uint64_t[]){1}, 0, 0);
    made.n_bytes = 57; /* where the names end: the data would begin after the file */
    made_refused(MEMTX_E_FORMAT, "offset 64 + 0 + 4 bytes lies outside the file of 57 bytes");
    made_one_tensor(99, 1, (uint64_t[]){8}, 1 << 20, 128); /* of an unknown type too */
    made_refused(MEMTX_E_FORMAT, "lies outside the file of 192 bytes");
    made_one_tensor(MEMTX_TENSOR_F32, 1, (uint64_t[]){8}, 96, 128);
    memtx_gguf_close(made_open());
}

Test(gguf, overlapping_tensors)
{
    static const uint64_t dims[] = {8}; /* 32 bytes */
    made_put_header(3, 0);
    made_put_tensor("a", MEMTX_TENSOR_F32, 1, dims, 64);
    made_put_tensor("b", MEMTX_TENSOR_F32, 1, (uint64_t[]){9}, 0); /* 36 bytes */
    made_put_tensor("c", MEMTX_TENSOR_F32, 1, dims, 32);
    made_put_data(128);
    made_refused(MEMTX_E_FORMAT, "tensors \"b\" (offset 128 + 36 bytes) and \"c\" (offset 160) overlap");
    made_put_header(2, 0);
    made_put_tensor("a", MEMTX_TENSOR_F32, 1, dims, 32);
    made_put_tensor("b", MEMTX_TENSOR_F32, 1, dims, 32);
    made_put_data(128);
    made_refused(MEMTX_E_FORMAT, " overlap");
    made_put_header(3, 0); /* one around two others */
    made_put_tensor("a", MEMTX_TENSOR_F32, 1, (uint64_t[]){32}, 0);
    made_put_tensor("b", MEMTX_TENSOR_F32, 1, dims, 96);
    made_put_tensor("c", MEMTX_TENSOR_F32, 1, dims, 128);
    made_put_data(160);
    made_refused(MEMTX_E_FORMAT, "tensors \"a\" (offset 128 + 128 bytes) and \"b\" (offset 224) overlap");
}

Test(gguf, a_tensor_of_an_unknown_type_is_listed)
{
    made_one_tensor(4, 2, (uint64_t[]){31, 3}, 32, 128);
    memtx_gguf *gguf = made_open();
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
    made_put_header(1, 0);
    made_put_tensor(name, MEMTX_TENSOR_F32, 1, (uint64_t[]){8}, 1 << 20);
    made_put_data(64);
    made_refused(MEMTX_E_FORMAT, "tensor \"a b xxx");
    made_refused(MEMTX_E_FORMAT, "lies outside the file");
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

/* ---- refused: what is cut off ----------------------------------------------------------------- */

/* Every beginning of a file that ends with its values, each kind being the last in turn, is refused. */
Test(gguf, values_cut_at_every_length)
{
    for (int last = 0; last < 3; last++) {
        made_put_header(0, 1);
        made_put_key("k", last == 0 ? MEMTX_GGUF_U32 : last == 1 ? MEMTX_GGUF_STRING : MEMTX_GGUF_ARRAY);
        if (last == 2) {
            made_put(MEMTX_GGUF_STRING, 4);
            made_put(1, 8);
        }
        if (last) {
            made_put_text("last");
        } else {
            made_put(7, 4);
        }
        memtx_gguf_close(made_open());
        while (made.n_bytes--) {
            made_refused(MEMTX_E_FORMAT, "");
        }
    }
}
