/* The store, on the heap and on disk: what is appended is what is found, by this process and by the next, also where memory
 * runs out. test_store_places.c has where a store can be and who may use it, test_store_damage.c what is damaged. */
#include <criterion/criterion.h>
#include <lmdb.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/lsan_interface.h>
#else
#include <malloc.h>
#endif

#include "base/alloc.h"
#include "base/bytes.h"
#include "store_fixture.h"

/* ---- what is appended is what is found -------------------------------------------------------- */

Test(heap, rows_places_documents)
{
    for (int type = MEMTX_ROWS_F16; type <= MEMTX_ROWS_F32; type++) {
        struct memtx_store_spec spec = spec_default();
        spec.row_type = (enum memtx_row_type)type;
        memtx_store *store = open_with(NULL, &spec, NULL);
        fill(store);
        check_filled(store);
        close_store(store);
    }
}

Test(disk, the_next_process_finds_the_same, .init = make_folder, .fini = remove_folder)
{
    for (int type = MEMTX_ROWS_F16; type <= MEMTX_ROWS_F32; type++) {
        for (int durability = MEMTX_DURABILITY_GROUP; durability <= MEMTX_DURABILITY_FULL; durability++) {
            struct memtx_store_spec spec = spec_default();
            struct memtx_store_options options = memtx_store_options_default();
            spec.row_type = (enum memtx_row_type)type;
            options.durability = (enum memtx_durability)durability;
            (void)snprintf(path, sizeof path, "%s/store%d%d", folder, type, durability);
            memtx_store *store = open_with(path, &spec, &options);
            fill(store);
            check_filled(store);
            close_store(store);
            store = open_with(path, &spec, &options);
            check_filled(store);
            close_store(store);
            store = open_with(path, NULL, NULL); /* the store says itself what it is for */
            check_filled(store);
            cr_assert_eq((int)store->spec.row_type, type);
            cr_assert_str_eq(store->spec.tokenizer, "smollm");
            cr_assert_str_eq(store->spec.settings, "W=512");
            close_store(store);
        }
    }
}

/* The chunk that is not full goes on where it was. */
Test(disk, appending_goes_on_after_opening_again, .init = make_folder, .fini = remove_folder)
{
    uint64_t n = 0;
    for (size_t step = 0; step < 12; step++) {
        memtx_store *store = open_store();
        check_rows(store, 0, n);
        size_t document = step ? 0 : add_document(store, "text");
        size_t n_more = step == 3 ? 510 - n % 510 : step % 2 ? 130 : 171; /* once a chunk exactly full */
        append(store, document, n_more, n);
        n += n_more;
        check_rows(store, 0, n);
        check_place(store, n - 1, 0, n - 1);
        cr_assert_eq(store->now.n_extents, 1);
        close_store(store);
    }
    cr_assert_gt(n, 3 * 510);
}

/* Bytes that this process has asked to read so far, from files of any kind. */
static unsigned long long n_bytes_read(void)
{
    unsigned long long n = 0;
    FILE *file = fopen("/proc/self/io", "r");
    cr_assert_not_null(file);
    cr_assert_eq(fscanf(file, "rchar: %llu", &n), 1);
    (void)fclose(file);
    return n;
}

static unsigned long long n_bytes_of_opening(void)
{
    const unsigned long long before = n_bytes_read();
    memtx_store *store = open_store();
    const unsigned long long n = n_bytes_read() - before;
    close_store(store);
    return n;
}

/* Opening a store to write costs the same however much it holds, its last chunk being full or not. */
Test(disk, opening_reads_no_rows, .init = make_folder, .fini = remove_folder)
{
    memtx_store *store = open_store();
    fill(store);
    close_store(store);
    const unsigned long long few = n_bytes_of_opening();
    store = open_store();
    const size_t document = add_document(store, "long");
    for (uint64_t position = 0; position < 40000; position += 1000) {
        append(store, document, 1000, position);
    }
    close_store(store);
    const unsigned long long many = n_bytes_of_opening();
    cr_assert_leq(many, few + 8 * 4096ULL, "%llu bytes, and %llu before", many, few);
    store = open_store();
    cr_assert_eq(read_rows(store), MEMTX_OK, "%s", memtx_last_error());
    close_store(store);
}

Test(disk, token_ids_are_kept, .init = make_folder, .fini = remove_folder)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi tokens;
    memtx_store *store = open_store();
    fill(store);
    close_store(store);
    cr_assert_eq(mdb_env_create(&env), 0);
    cr_assert_eq(mdb_env_set_maxdbs(env, 8), 0);
    cr_assert_eq(mdb_env_open(env, path, MDB_RDONLY, 0600), 0);
    cr_assert_eq(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn), 0);
    cr_assert_eq(mdb_dbi_open(txn, "tokens", 0, &tokens), 0);
    for (uint64_t row = 0; row < 1300; row++) {
        unsigned char name[8];
        MDB_val key = {8, name}, value;
        memtx__put_be(name, row / 510, 8);
        cr_assert_eq(mdb_get(txn, tokens, &key, &value), 0);
        cr_assert_eq(value.mv_size, row / 510 < 2 ? 4 * 510 + 4 : 4 * 280 + 4);
        cr_assert_eq(memtx__get_u32((unsigned char *)value.mv_data + 4 * (row % 510)), 7 * row);
    }
    mdb_txn_abort(txn);
    mdb_env_close(env);
}

Test(disk, group_waits_and_full_does_not, .init = make_folder, .fini = remove_folder)
{
    struct memtx_store_spec spec = spec_default();
    struct memtx_store_options options = memtx_store_options_default();
    struct memtx_store_facts facts;
    options.group_milliseconds = 3600000;
    memtx_store *store = open_with(path, &spec, &options);
    size_t document = add_document(store, "text");
    for (unsigned i = 1; i <= 16; i++) {
        append(store, document, 10, 10 * (i - 1));
        memtx_store_info(&facts, store);
        cr_assert_eq(facts.n_written_rows, i / 8 * 80, "written with every eighth commit");
        check_rows(store, 0, 10 * i); /* what waits is found all the same */
    }
    append(store, document, 10, 160);
    cr_assert_eq(memtx__store_flush(store), MEMTX_OK);
    memtx_store_info(&facts, store);
    cr_assert_eq(facts.n_written_rows, 170);
    close_store(store);

    options.group_bytes = 20 * 2 * 2 * 2 * D * 2; /* of twenty rows */
    store = open_with(path, &spec, &options);
    append(store, 0, 19, 170);
    cr_assert_eq(store->n_written_rows, 170);
    append(store, 0, 1, 189);
    cr_assert_eq(store->n_written_rows, 190);
    close_store(store);

    options.durability = MEMTX_DURABILITY_FULL;
    store = open_with(path, &spec, &options);
    for (unsigned i = 1; i <= 3; i++) {
        append(store, 0, 10, 180 + 10 * i);
        cr_assert_eq(store->n_written_rows, 190 + 10 * i);
    }
    close_store(store);
}

static void capacity_frees_chunks(const char *at)
{
    struct memtx_store_spec spec = spec_default();
    struct memtx_store_options options = memtx_store_options_default();
    options.capacity_rows = 600;
    memtx_store *store = open_with(at, &spec, &options);
    size_t document = add_document(store, "text");
    uint64_t settled_bytes = 0, n = 0;
    for (unsigned step = 0; step < 60; step++) {
        append(store, document, 170, n);
        n += 170;
        check_rows(store, n > 600 ? n - 600 : 0, n);
        if (at && step == 29) {
            settled_bytes = memtx__environment_bytes(store->environment);
        }
    }
    if (at) {
        uint64_t bytes = memtx__environment_bytes(store->environment);
        cr_assert_leq(bytes, settled_bytes + settled_bytes / 4, "%llu, then %llu bytes",
                      (unsigned long long)settled_bytes, (unsigned long long)bytes);
    } else {
        cr_assert_leq(store->tail.n_slots_held, 8);
    }
    close_store(store);
    if (at) {
        store = open_with(at, &spec, &options);
        check_rows(store, n - 600, n);
        check_place(store, n - 600, 0, n - 600);
        close_store(store);
    }
}

Test(heap, capacity_frees_chunks)
{
    capacity_frees_chunks(NULL);
}

Test(disk, capacity_frees_chunks, .init = make_folder, .fini = remove_folder)
{
    capacity_frees_chunks(path);
}

Test(heap, a_name_that_is_taken)
{
    struct memtx_store_spec spec = spec_default();
    struct memtx_document document;
    char name[600];
    memtx_store *store = open_with(NULL, &spec, NULL);
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = '\0';
    for (int i = 0; i < 3; i++) {
        (void)add_document(store, "book");
        (void)add_document(store, name);
    }
    cr_assert_eq(memtx_store_document_at(&document, store, 4), MEMTX_OK);
    cr_assert_str_eq(document.name, "book#3");
    for (uint64_t i = 0; i < 6; i++) {
        struct memtx_document other;
        cr_assert_eq(memtx_store_document_at(&document, store, i), MEMTX_OK);
        cr_assert_lt(strlen(document.name), MEMTX_NAME_BYTES);
        for (uint64_t j = 0; j < i; j++) {
            cr_assert_eq(memtx_store_document_at(&other, store, j), MEMTX_OK);
            cr_assert_str_neq(other.name, document.name);
        }
    }
    close_store(store);
}

/* ---- memory that runs out --------------------------------------------------------------------- */

#if !defined(__SANITIZE_ADDRESS__)
static size_t bytes_in_use(void)
{
    return mallinfo2().uordblks;
}
#endif

/* Opens, appends over a chunk's end, in two documents and in places that jump, and closes. */
static int use_store(const char *at)
{
    struct memtx_store_spec spec = spec_default();
    struct memtx_store_options options = memtx_store_options_default();
    memtx_store *store;
    size_t document;
    options.group_segments = 2;
    int status = memtx_store_open(&store, at, &spec, &options);
    for (int i = 0; i < 6 && !status; i++) {
        status = memtx__store_add_document(&document, store, "text");
        for (int j = 0; j < 2 && !status; j++) {
            status = append_rows(store, document, 150, (uint64_t)(j ? 0 : 150));
        }
    }
    int closed = store ? memtx_store_close(store) : MEMTX_OK;
    return status ? status : closed;
}

static void every_allocation_fails_in_turn(const char *at, long n_at_least)
{
    long n = 0;
    size_t before = 0;
    for (int sweep = 0; sweep < 3; sweep++) {
#if !defined(__SANITIZE_ADDRESS__)
        before = sweep == 1 ? bytes_in_use() : before; /* the first sweep warms what stays for ever */
#endif
        int status = MEMTX_E_NO_MEMORY;
        for (n = 0; status; n++) {
            if (at) {
                remove_all(path);
            }
            memtx__alloc_fail_at(n + 1);
            status = use_store(at);
            memtx__alloc_fail_at(0);
            cr_assert(!status || status == MEMTX_E_NO_MEMORY, "allocation %ld: %d: %s", n, status, memtx_last_error());
            if (at && status && access(path, F_OK) == 0) { /* what is there is a store, and a prefix of the stream */
                int after = open_and_read();
                cr_assert_eq(after, MEMTX_OK, "after allocation %ld failed: %d: %s", n, after, memtx_last_error());
            }
        }
        cr_assert_geq(n - 1, n_at_least, "%ld allocations", n - 1);
    }
#if defined(__SANITIZE_ADDRESS__)
    (void)before;
    cr_assert_eq(__lsan_do_recoverable_leak_check(), 0);
#else
    enum { SLACK_BYTES = 8192 }; /* of the C library's own: freed blocks that it keeps at hand count as in use */
    size_t after = bytes_in_use();
    cr_assert_leq(after, before + SLACK_BYTES, "%zu, then %zu bytes in use", before, after);
#endif
}

Test(heap, memory_runs_out)
{
    every_allocation_fails_in_turn(NULL, 10);
}

Test(disk, memory_runs_out, .init = make_folder, .fini = remove_folder)
{
    every_allocation_fails_in_turn(path, 12);
}

/* A commit that found no memory for a new extent takes nothing back and adds nothing. */
Test(disk, a_commit_that_failed_leaves_the_store_whole, .init = make_folder, .fini = remove_folder)
{
    memtx_store *store = open_store();
    static const uint64_t jump[] = {5, 6, 0, 1};
    static const uint32_t ids[] = {70, 77, 84, 91};
    float rows[4 * G * D];
    size_t document = add_document(store, "text");
    append(store, document, 5, 0);
    store->now.n_extents_held = store->now.n_extents; /* the next extent needs memory */
    for (uint32_t layer = LAYER_A; layer <= LAYER_B; layer += LAYER_B - LAYER_A) {
        memset(rows, 0, sizeof rows);
        cr_assert_eq(memtx__store_append(store, layer, 4, rows, rows), MEMTX_OK);
    }
    memtx__alloc_fail_at(1);
    cr_assert_eq(memtx__store_commit(store, document, 4, ids, jump), MEMTX_E_NO_MEMORY);
    memtx__alloc_fail_at(0);
    check_rows(store, 0, 5);
    append(store, document, 3, 5);
    check_rows(store, 0, 8);
    close_store(store);
    store = open_store();
    check_rows(store, 0, 8);
    check_place(store, 7, 0, 7);
    close_store(store);
}
