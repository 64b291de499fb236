/* The store, on the heap and on disk: what is appended is what is found, by this process and by the next; what does not
 * fit, is in use or is damaged is refused; nothing is left behind. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <lmdb.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/lsan_interface.h>
#else
#include <malloc.h>
#endif

#include "base/alloc.h"
#include "base/bytes.h"
#include "math/rows.h"
#include "store/view.h"

enum { L = 4, LAYER_A = 1, LAYER_B = 3, H = 4, G = 2, D = 64, MOST_ROWS = 2048 };

static char folder[64], path[96];

static void make_folder(void)
{
    (void)snprintf(folder, sizeof folder, "/tmp/memtx-store-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/store", folder);
}

static void remove_all(const char *directory)
{
    char name[512];
    DIR *entries = opendir(directory);
    for (struct dirent *entry; entries && (entry = readdir(entries));) {
        (void)snprintf(name, sizeof name, "%s/%s", directory, entry->d_name);
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 && unlink(name)) {
            remove_all(name);
        }
    }
    if (entries) {
        (void)closedir(entries);
    }
    (void)rmdir(directory);
}

static void remove_folder(void)
{
    remove_all(folder);
}

static size_t n_entries(const char *directory)
{
    size_t n = 0;
    DIR *entries = opendir(directory);
    cr_assert_not_null(entries);
    while (readdir(entries)) {
        n++;
    }
    (void)closedir(entries);
    return n - 2; /* itself and its parent */
}

static struct memtx_store_spec spec_default(void)
{
    struct memtx_store_spec spec = {.fingerprint = "fingerprint",
                                    .n_layers = L,
                                    .n_heads = H,
                                    .n_kv_heads = G,
                                    .head_size = D,
                                    .rope_dims = D,
                                    .rope_base = 10000.0,
                                    .scale = 0.125F,
                                    .row_type = MEMTX_ROWS_F16,
                                    .tokenizer = "smollm",
                                    .settings = "W=512"};
    memtx_store_keep_layer(&spec, LAYER_A);
    memtx_store_keep_layer(&spec, LAYER_B);
    return spec;
}

static memtx_store *open_with(const char *at, const struct memtx_store_spec *spec,
                              const struct memtx_store_options *options)
{
    memtx_store *store;
    cr_assert_eq(memtx_store_open(&store, at, spec, options), MEMTX_OK, "%s", memtx_last_error());
    return store;
}

static memtx_store *open_store(void)
{
    struct memtx_store_spec spec = spec_default();
    return open_with(path, &spec, NULL);
}

static void close_store(memtx_store *store)
{
    cr_assert_eq(memtx_store_close(store), MEMTX_OK, "%s", memtx_last_error());
}

/* Small integers that every type keeps, another for each place. */
static float number(enum memtx__chunk_kind kind, uint32_t layer, size_t head, uint64_t row, size_t d)
{
    return (float)((row * 37 + row / 100 + layer * 11 + head * 5 + (kind == MEMTX__VALUES ? 59U : 0U) + d * d) % 255) -
           127.0F;
}

/* Appends n rows whose places in the text begin at `position`; their token ids are 7 times the row's id. */
static int append_rows(memtx_store *store, size_t document, size_t n, uint64_t position)
{
    static float keys[MOST_ROWS * G * D], values[MOST_ROWS * G * D];
    static uint32_t ids[MOST_ROWS];
    static uint64_t positions[MOST_ROWS];
    const uint64_t first = store->now.state.n_rows;
    int status = MEMTX_OK;
    for (size_t i = 0; i < n; i++) {
        ids[i] = (uint32_t)(7 * (first + i));
        positions[i] = position + i;
    }
    for (uint32_t layer = 0; layer < L && !status; layer++) {
        if (!store->spec.heads_kept[layer]) {
            continue;
        }
        for (size_t i = 0; i < n * G * D; i++) {
            keys[i] = number(MEMTX__KEYS, layer, i / D % G, first + i / D / G, i % D);
            values[i] = number(MEMTX__VALUES, layer, i / D % G, first + i / D / G, i % D);
        }
        status = memtx__store_append(store, layer, n, keys, values);
    }
    return status ? status : memtx__store_commit(store, document, n, ids, positions);
}

static void append(memtx_store *store, size_t document, size_t n, uint64_t position)
{
    cr_assert_eq(append_rows(store, document, n, position), MEMTX_OK, "%s", memtx_last_error());
}

static size_t add_document(memtx_store *store, const char *name)
{
    size_t document;
    cr_assert_eq(memtx__store_add_document(&document, store, name), MEMTX_OK, "%s", memtx_last_error());
    return document;
}

/* Reads every visible row: the first failure, or MEMTX_OK when all are what was appended. A wrong row fails the test.
 */
static int read_rows(memtx_store *store)
{
    struct memtx__view view;
    int status = memtx__view_open(&view, store, store->options.read_only);
    if (!status) {
        status = memtx__view_begin(&view);
    }
    for (uint64_t row = store->now.state.first_row; row < store->now.state.n_rows && !status; row++) {
        for (size_t i = 0; i < 2 * 2 * G && !status; i++) {
            const enum memtx__chunk_kind kind = i & 1 ? MEMTX__VALUES : MEMTX__KEYS;
            const uint32_t layer = i & 2 ? LAYER_A : LAYER_B, head = (uint32_t)(i / 4);
            const unsigned char *rows;
            float found[D];
            status = memtx__view_chunk(&rows, &view, kind, layer, head, row / store->chunk_rows);
            if (status) {
                break;
            }
            cr_assert_eq((uintptr_t)rows % 64, 0, "rows are aligned");
            memtx__rows_read(found, store->spec.row_type, rows + row % store->chunk_rows * store->row_bytes, D);
            for (size_t d = 0; d < D; d++) {
                cr_assert_eq(found[d], number(kind, layer, head, row, d), "row %llu is another",
                             (unsigned long long)row);
            }
        }
    }
    memtx__view_end(&view);
    memtx__view_close(&view);
    return status;
}

static void check_rows(memtx_store *store, uint64_t first, uint64_t end)
{
    struct memtx_store_facts facts;
    memtx_store_info(&facts, store);
    cr_assert_eq(facts.first_row, first);
    cr_assert_eq(facts.n_rows, end);
    cr_assert_eq(read_rows(store), MEMTX_OK, "%s", memtx_last_error());
}

static const struct memtx__extent *extent_of(const memtx_store *store, uint64_t row)
{
    const struct memtx__extent *last = memtx__catalogue_last_before(&store->now, row + 1);
    return last && row - last->first_row < last->n_rows ? last : NULL;
}

static void check_place(const memtx_store *store, uint64_t row, uint64_t document, uint64_t position)
{
    const struct memtx__extent *extent = extent_of(store, row);
    cr_assert_not_null(extent, "row %llu", (unsigned long long)row);
    cr_assert_eq(extent->document, document);
    cr_assert_eq(extent->first_position + (row - extent->first_row), position);
}

/* ---- what is appended is what is found -------------------------------------------------------- */

static void fill(memtx_store *store)
{
    size_t first = add_document(store, "first");
    append(store, first, 300, 4);
    append(store, first, 7, 304);
    append(store, first, 4, 0); /* the sinks */
    size_t second = add_document(store, "second");
    append(store, second, 900, 0);
    append(store, second, 1, 900);
    append(store, second, 88, 901);
}

static void check_filled(memtx_store *store)
{
    struct memtx_document document;
    check_rows(store, 0, 1300);
    check_place(store, 0, 0, 4);
    check_place(store, 306, 0, 310);
    check_place(store, 307, 0, 0);
    check_place(store, 310, 0, 3);
    check_place(store, 311, 1, 0);
    check_place(store, 1299, 1, 988);
    cr_assert_null(extent_of(store, 1300));
    cr_assert_eq(store->now.n_extents, 3);
    cr_assert_eq(memtx_store_document_at(&document, store, 0), MEMTX_OK);
    cr_assert_str_eq(document.name, "first");
    cr_assert_eq(document.n_tokens, 311);
    cr_assert_eq(memtx_store_document_at(&document, store, 1), MEMTX_OK);
    cr_assert_str_eq(document.name, "second");
    cr_assert_eq(document.n_tokens, 989);
    cr_assert_eq(document.id, 1);
    cr_assert_eq(memtx_store_document_at(&document, store, 2), MEMTX_E_NOT_FOUND);
}

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
    for (unsigned i = 1; i <= 8; i++) {
        append(store, document, 10, 10 * (i - 1));
        memtx_store_info(&facts, store);
        cr_assert_eq(facts.n_written_rows, i / 4 * 40, "written with every fourth commit");
        check_rows(store, 0, 10 * i); /* what waits is found all the same */
    }
    append(store, document, 10, 80);
    cr_assert_eq(memtx__store_flush(store), MEMTX_OK);
    memtx_store_info(&facts, store);
    cr_assert_eq(facts.n_written_rows, 90);
    close_store(store);

    options.group_bytes = 20 * 2 * 2 * 2 * D * 2; /* of twenty rows */
    store = open_with(path, &spec, &options);
    append(store, 0, 19, 90);
    cr_assert_eq(store->n_written_rows, 90);
    append(store, 0, 1, 109);
    cr_assert_eq(store->n_written_rows, 110);
    close_store(store);

    options.durability = MEMTX_DURABILITY_FULL;
    store = open_with(path, &spec, &options);
    for (unsigned i = 1; i <= 3; i++) {
        append(store, 0, 10, 100 + 10 * i);
        cr_assert_eq(store->n_written_rows, 110 + 10 * i);
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

/* ---- what does not fit ------------------------------------------------------------------------ */

/* Opening is refused with this status and one line that holds `piece`. */
static void refused(const char *at, const struct memtx_store_spec *spec, int status, const char *piece)
{
    memtx_store *store = (memtx_store *)folder;
    int got = memtx_store_open(&store, at, spec, NULL);
    cr_assert_eq(got, status, "%d: %s (wanted: %s)", got, memtx_last_error(), piece);
    cr_assert_null(store);
    cr_assert(strstr(memtx_last_error(), piece), "\"%s\" does not hold \"%s\"", memtx_last_error(), piece);
    cr_assert_null(strchr(memtx_last_error(), '\n'));
}

Test(mismatch, the_difference_is_named, .init = make_folder, .fini = remove_folder)
{
    float factors[D / 2];
    memtx_store *store = open_store();
    fill(store);
    close_store(store);
    for (int i = 0; i < 12; i++) {
        struct memtx_store_spec spec = spec_default();
        const char *piece = "model of 4 layers, 4 heads over 2 of size 64";
        switch (i) {
        case 0:
            spec.n_layers = 5;
            break;
        case 1:
            spec.n_heads = 8;
            break;
        case 2:
            spec.n_kv_heads = 4;
            break;
        case 3:
            spec.head_size = 80;
            break;
        case 4:
            spec.fingerprint[15] ^= 1;
            piece = "another model";
            break;
        case 5:
            spec.row_type = MEMTX_ROWS_BF16;
            piece = "keeps f16 rows, not bf16";
            break;
        case 6:
            spec.heads_kept[LAYER_A] = 0;
            piece = "keeps layer 1";
            break;
        case 7:
            memtx_store_keep_layer(&spec, 0);
            piece = "does not keep layer 0";
            break;
        case 8:
            spec.rope_dims = 32;
            piece = "not 32, 10000";
            break;
        case 9:
            spec.rope_base = 100000.0;
            piece = "not 64, 100000";
            break;
        case 10:
            spec.scale = 0.25F;
            piece = "0.25";
            break;
        default:
            for (size_t pair = 0; pair < D / 2; pair++) {
                factors[pair] = 1.0F + (float)(pair == 31);
            }
            spec.rope_factors = factors;
            piece = "factors";
            break;
        }
        refused(path, &spec, MEMTX_E_MISMATCH, piece);
        cr_assert(strstr(memtx_last_error(), path), "the path is named");
    }
    struct memtx_store_spec spec = spec_default();
    (void)snprintf(spec.settings, sizeof spec.settings, "W=2048"); /* may differ */
    for (size_t pair = 0; pair < D / 2; pair++) {
        factors[pair] = 1.0F; /* is what none means */
    }
    spec.rope_factors = factors;
    store = open_with(path, &spec, NULL);
    check_filled(store); /* none of the refusals has done harm */
    close_store(store);
}

Test(mismatch, rope_factors_are_kept, .init = make_folder, .fini = remove_folder)
{
    float factors[D / 2];
    struct memtx_store_spec spec = spec_default();
    for (size_t pair = 0; pair < D / 2; pair++) {
        factors[pair] = 1.0F + (float)pair / 4.0F;
    }
    spec.rope_factors = factors;
    close_store(open_with(path, &spec, NULL));
    memtx_store *store = open_with(path, NULL, NULL);
    cr_assert_not_null(store->spec.rope_factors);
    cr_assert_eq(memcmp(store->spec.rope_factors, factors, sizeof factors), 0);
    close_store(store);
    close_store(open_with(path, &spec, NULL));
    factors[3] = 9.0F;
    refused(path, &spec, MEMTX_E_MISMATCH, "factors");
}

Test(refused, specs_out_of_range)
{
    for (int i = 0; i < 11; i++) {
        struct memtx_store_spec spec = spec_default();
        switch (i) {
        case 0:
            spec.n_layers = 0;
            break;
        case 1:
            spec.n_layers = 513;
            break;
        case 2:
            spec.n_heads = 3;
            break;
        case 3:
            spec.n_heads = 0;
            break;
        case 4:
            spec.n_kv_heads = 0;
            break;
        case 5:
            spec.head_size = 0;
            break;
        case 6:
            spec.head_size = 513;
            break;
        case 7:
            spec.rope_dims = 65;
            break;
        case 8:
            spec.rope_dims = 63;
            break;
        case 9:
            memtx_store_keep_layer(&spec, 4);
            break;
        default:
            spec.heads_kept[LAYER_A] = spec.heads_kept[LAYER_B] = 0;
            break;
        }
        refused(NULL, &spec, MEMTX_E_INVALID, "");
    }
}

/* ---- where it cannot be ----------------------------------------------------------------------- */

static void write_file(const char *name, const char *bytes)
{
    FILE *file = fopen(name, "w");
    cr_assert_not_null(file);
    (void)fputs(bytes, file);
    (void)fclose(file);
}

Test(places, that_are_no_store, .init = make_folder, .fini = remove_folder)
{
    struct memtx_store_spec spec = spec_default();
    char name[128];
    refused("/nonexistent/folder/store", &spec, MEMTX_E_NOT_FOUND, "/nonexistent/folder/store");
    write_file(path, "a file");
    refused(path, &spec, MEMTX_E_FORMAT, "is not a directory");
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(mkdir(path, 0755), 0);
    (void)snprintf(name, sizeof name, "%s/thesis.txt", path);
    write_file(name, "other work");
    refused(path, &spec, MEMTX_E_FORMAT, "holds files but no store");
    cr_assert_eq(n_entries(path), 1, "nothing was put beside it");
    cr_assert_eq(unlink(name), 0);
    close_store(open_with(path, &spec, NULL)); /* empty by now */
}

Test(places, an_lmdb_file_of_something_else, .init = make_folder, .fini = remove_folder)
{
    struct memtx_store_spec spec = spec_default();
    char name[128];
    cr_assert_eq(mkdir(path, 0700), 0);
    (void)snprintf(name, sizeof name, "%s/data.mdb", path);
    write_file(name, "no LMDB file at all, but long enough to be looked at by whoever opens it");
    memtx_store *store;
    int status = memtx_store_open(&store, path, &spec, NULL);
    cr_assert(status == MEMTX_E_FORMAT || status == MEMTX_E_CORRUPT || status == MEMTX_E_IO, "%d: %s", status,
              memtx_last_error());
    cr_assert_null(store);
}

Test(places, no_store_and_none_wanted, .init = make_folder, .fini = remove_folder)
{
    refused(path, NULL, MEMTX_E_NOT_FOUND, path);
}

/* What is left when a writer ends between LMDB's beginning of the file and the first transaction. */
Test(places, a_database_in_which_nothing_was_written, .init = make_folder, .fini = remove_folder)
{
    MDB_env *env;
    struct memtx_store_spec spec = spec_default();
    cr_assert_eq(mkdir(path, 0700), 0);
    cr_assert_eq(mdb_env_create(&env), 0);
    cr_assert_eq(mdb_env_open(env, path, 0, 0600), 0);
    mdb_env_close(env);
    refused(path, NULL, MEMTX_E_NOT_FOUND, "there is no store");
    close_store(open_with(path, &spec, NULL));
}

Test(places, an_empty_database, .init = make_folder, .fini = remove_folder)
{
    struct memtx_store_options options = memtx_store_options_default();
    memtx_store *store;
    char name[128];
    options.read_only = true;
    cr_assert_eq(mkdir(path, 0700), 0);
    (void)snprintf(name, sizeof name, "%s/data.mdb", path);
    write_file(name, "");
    cr_assert_eq(memtx_store_open(&store, path, NULL, &options), MEMTX_E_NOT_FOUND, "%s", memtx_last_error());
    cr_assert_not_null(strstr(memtx_last_error(), "there is no store"), "%s", memtx_last_error());
    refused(path, NULL, MEMTX_E_NOT_FOUND, "there is no store");
    close_store(open_store());
}

/* What is left when a writer or the machine ends before a new database is complete. */
Test(places, a_store_that_was_only_begun, .init = make_folder, .fini = remove_folder)
{
    static const char *const names[] = {"writer", "new.mdb"};
    char name[128];
    cr_assert_eq(mkdir(path, 0700), 0);
    for (size_t i = 0; i < 2; i++) {
        (void)snprintf(name, sizeof name, "%s/%s", path, names[i]);
        int fd = open(name, O_WRONLY | O_CREAT, 0600);
        cr_assert(fd >= 0 && (i == 0 || write(fd, "half", 4) == 4) && close(fd) == 0);
    }
    refused(path, NULL, MEMTX_E_NOT_FOUND, "there is no store");
    close_store(open_store());
    cr_assert_neq(access(name, F_OK), 0, "the half is gone");
    close_store(open_store());
}

Test(places, that_may_not_be_written, .init = make_folder, .fini = remove_folder)
{
    struct memtx_store_spec spec = spec_default();
    if (geteuid() == 0) {
        cr_skip_test("root may write anywhere");
    }
    cr_assert_eq(chmod(folder, 0500), 0);
    refused(path, &spec, MEMTX_E_IO, path);
    cr_assert_eq(chmod(folder, 0700), 0);
}

Test(places, files_are_the_owners_alone, .init = make_folder, .fini = remove_folder)
{
    static const char *const names[] = {"data.mdb", "lock.mdb", "writer"};
    char name[128];
    struct stat facts;
    (void)umask(0);
    close_store(open_store());
    cr_assert_eq(stat(path, &facts), 0);
    cr_assert_eq(facts.st_mode & 0777, 0700);
    for (size_t i = 0; i < 3; i++) {
        (void)snprintf(name, sizeof name, "%s/%s", path, names[i]);
        cr_assert_eq(stat(name, &facts), 0, "%s", name);
        cr_assert_eq(facts.st_mode & 0777, 0600, "%s", name);
    }
}

Test(places, a_temporary_store_leaves_nothing, .init = make_folder, .fini = remove_folder)
{
    struct memtx_store_spec spec = spec_default();
    struct memtx_store_options options = memtx_store_options_default();
    options.temporary = true;
    memtx_store *store = open_with(folder, &spec, &options);
    memtx_store *other = open_with(folder, &spec, &options);
    cr_assert_eq(n_entries(folder), 0, "its names go at once, so that a kill leaves nothing either");
    fill(store);
    fill(other);
    check_filled(store);
    close_store(store);
    check_filled(other);
    close_store(other);
    cr_assert_eq(n_entries(folder), 0);
}

/* ---- one writer ------------------------------------------------------------------------------- */

Test(writers, this_process_opens_a_store_once, .init = make_folder, .fini = remove_folder)
{
    struct memtx_store_spec spec = spec_default();
    char other_name[128];
    memtx_store *store = open_store();
    refused(path, &spec, MEMTX_E_BUSY, "this process");
    (void)snprintf(other_name, sizeof other_name, "%s/link", folder);
    cr_assert_eq(symlink(path, other_name), 0);
    refused(other_name, &spec, MEMTX_E_BUSY, "this process");
    fill(store);
    refused(path, &spec, MEMTX_E_BUSY, "this process");
    check_filled(store);
    close_store(store);
    store = open_store();
    check_filled(store);
    close_store(store);
}

/* The refused opening must not have dropped the locks that LMDB holds for this process: it loses them when any other
 * descriptor of lock.mdb is closed. */
static int n_posix_locks(const char *directory)
{
    char name[128];
    int pipes[2], n = 0;
    (void)snprintf(name, sizeof name, "%s/lock.mdb", directory);
    cr_assert_eq(pipe(pipes), 0);
    pid_t child = fork(); /* a process sees the locks of others only; this one opens no store */
    if (child == 0) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        int fd = open(name, O_RDWR);
        char found = fd >= 0 && fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
        (void)!write(pipes[1], &found, 1);
        _exit(0);
    }
    char found = 0;
    cr_assert_eq(read(pipes[0], &found, 1), 1);
    (void)waitpid(child, NULL, 0);
    (void)close(pipes[0]);
    (void)close(pipes[1]);
    n += found;
    return n;
}

Test(writers, a_refused_opening_keeps_the_locks, .init = make_folder, .fini = remove_folder)
{
    struct memtx_store_spec spec = spec_default();
    memtx_store *store = open_store();
    cr_assert_eq(n_posix_locks(path), 1);
    refused(path, &spec, MEMTX_E_BUSY, "this process");
    cr_assert_eq(n_posix_locks(path), 1);
    close_store(store);
}

Test(writers, another_process, .init = make_folder, .fini = remove_folder)
{
    int ready[2];
    char byte = 0;
    struct memtx_store_spec spec = spec_default();
    cr_assert_eq(pipe(ready), 0);
    pid_t child = fork(); /* before anything is opened here */
    if (child == 0) {
        memtx_store *store;
        size_t document;
        byte = memtx_store_open(&store, path, &spec, NULL) == MEMTX_OK &&
               memtx__store_add_document(&document, store, "text") == MEMTX_OK &&
               append_rows(store, document, 100, 0) == MEMTX_OK && memtx__store_flush(store) == MEMTX_OK;
        (void)!write(ready[1], &byte, 1);
        (void)pause();
        _exit(0);
    }
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    cr_assert_eq(byte, 1, "the other process could not write");
    refused(path, &spec, MEMTX_E_BUSY, "is writing to this store");
    cr_assert_eq(kill(child, SIGKILL), 0);
    (void)waitpid(child, NULL, 0);
    memtx_store *store = open_store(); /* a killed writer leaves no lock behind */
    check_rows(store, 0, 100);
    close_store(store);
}

/* ---- damage ----------------------------------------------------------------------------------- */

static unsigned char *data;
static size_t n_data;

static void load_data(void)
{
    char name[128];
    (void)snprintf(name, sizeof name, "%s/data.mdb", path);
    FILE *file = fopen(name, "rb");
    cr_assert_not_null(file);
    (void)fseek(file, 0, SEEK_END);
    n_data = (size_t)ftell(file);
    rewind(file);
    data = malloc(n_data);
    cr_assert_eq(fread(data, 1, n_data, file), n_data);
    (void)fclose(file);
}

static void save_data(void)
{
    char name[128];
    (void)snprintf(name, sizeof name, "%s/data.mdb", path);
    FILE *file = fopen(name, "r+b");
    cr_assert_not_null(file);
    cr_assert_eq(fwrite(data, 1, n_data, file), n_data);
    (void)fclose(file);
}

/* Flips a bit of the byte at `offset` behind every place where `magic` stands at `align` in a page; the number of them.
 */
static size_t flip(const char *magic, size_t n_magic, size_t offset)
{
    size_t n = 0;
    for (size_t i = MEMTX__LMDB_PAGE_HEADER_BYTES; i + 65536 <= n_data; i += MEMTX__PAGE_BYTES) {
        if (memcmp(data + i, magic, n_magic) == 0) {
            data[i + offset] ^= 0x10;
            n++;
            i += 15 * MEMTX__PAGE_BYTES; /* a chunk's pages */
        }
    }
    return n;
}

/* Opens and reads all: MEMTX_OK with every row right, or what was said. */
static int open_and_read(void)
{
    struct memtx_store_spec spec = spec_default();
    memtx_store *store;
    int status = memtx_store_open(&store, path, &spec, NULL);
    if (!status) {
        status = read_rows(store);
        (void)memtx_store_close(store);
    }
    return status;
}

static void damage_is_seen(size_t n_rows)
{
    static const size_t offsets[] = {0, 4, 7, 8, 16, 17, 20, 24, 28, 32, 35, 36, 239, 240, 241, 5000, 240 + 128 * 100};
    static const char *const magics[] = {"mtxK", "mtxV"};
    memtx_store *store = open_store();
    append(store, add_document(store, "text"), n_rows, 0);
    close_store(store);
    cr_assert_eq(open_and_read(), MEMTX_OK);
    load_data();
    for (size_t kind = 0; kind < 2; kind++) {
        for (size_t i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
            cr_assert_geq(flip(magics[kind], 4, offsets[i]), 4);
            save_data();
            int status = open_and_read();
            cr_assert_eq(status, MEMTX_E_CORRUPT, "byte %zu of a chunk %s: %d: %s", offsets[i], magics[kind], status,
                         memtx_last_error());
            /* Back again; a magic that was flipped is found no more by itself. */
            free(data);
            load_data();
            if (offsets[i] == 0) {
                char other[4] = {(char)(magics[kind][0] ^ 0x10), 't', 'x', magics[kind][3]};
                cr_assert_geq(flip(other, 4, 0), 4);
            } else {
                cr_assert_geq(flip(magics[kind], 4, offsets[i]), 4);
            }
            save_data();
            cr_assert_eq(open_and_read(), MEMTX_OK, "%s", memtx_last_error());
        }
    }
    free(data);
}

Test(damage, a_full_chunk, .init = make_folder, .fini = remove_folder)
{
    damage_is_seen(1020);
}

Test(damage, the_chunk_that_is_not_full, .init = make_folder, .fini = remove_folder)
{
    damage_is_seen(505); /* takes as many pages as a full one */
}

/* The state record carries the transaction it is written by: any other would be found out by that alone. */
static void stamp(MDB_txn *txn)
{
    MDB_dbi meta;
    struct memtx__state state;
    unsigned char record[MEMTX__STATE_BYTES];
    MDB_val key = {5, "state"}, value;
    cr_assert_eq(mdb_dbi_open(txn, "meta", 0, &meta), 0);
    cr_assert_eq(mdb_get(txn, meta, &key, &value), 0);
    memcpy(record, value.mv_data, sizeof record);
    if (memtx__state_decode(&state, record, sizeof record) == MEMTX_OK) {
        state.transaction = mdb_txn_id(txn);
        memtx__state_encode(record, &state);
        value = (MDB_val){sizeof record, record};
        cr_assert_eq(mdb_put(txn, meta, &key, &value, 0), 0);
    }
}

/* A record by its table and key, with one bit turned at a time, through LMDB. */
static void damage_record(const char *table, const void *key_bytes, size_t n_key, int unsupported_at)
{
    for (size_t at = 0; at < 1000; at += at < 64 ? 1 : 37) {
        MDB_env *env;
        MDB_txn *txn;
        MDB_dbi dbi;
        static unsigned char record[1000];
        int status = MEMTX_OK;
        size_t n_record = 0;
        for (int turn = 0; turn < 2; turn++) { /* and back */
            MDB_val key = {n_key, (void *)(uintptr_t)key_bytes}, value;
            cr_assert_eq(mdb_env_create(&env), 0);
            cr_assert_eq(mdb_env_set_maxdbs(env, 8), 0);
            cr_assert_eq(mdb_env_open(env, path, 0, 0600), 0);
            cr_assert_eq(mdb_txn_begin(env, NULL, 0, &txn), 0);
            cr_assert_eq(mdb_dbi_open(txn, table, 0, &dbi), 0);
            cr_assert_eq(mdb_get(txn, dbi, &key, &value), 0);
            n_record = value.mv_size;
            if (at < n_record) {
                memcpy(record, value.mv_data, n_record);
                record[at] ^= 0x04;
                value = (MDB_val){n_record, record};
                cr_assert_eq(mdb_put(txn, dbi, &key, &value, 0), 0);
                stamp(txn);
            }
            cr_assert_eq(mdb_txn_commit(txn), 0);
            mdb_env_close(env);
            status = turn ? status : open_and_read();
        }
        if (at >= n_record) {
            break;
        }
        bool wrong_kind = status == MEMTX_E_FORMAT && at < 8, newer = status == MEMTX_E_UNSUPPORTED;
        cr_assert(status == MEMTX_E_CORRUPT || (unsupported_at && (wrong_kind || (newer && at >= 8 && at < 12))),
                  "%s, byte %zu: %d: %s", table, at, status, memtx_last_error());
    }
    cr_assert_eq(open_and_read(), MEMTX_OK, "%s", memtx_last_error());
}

Test(damage, records, .init = make_folder, .fini = remove_folder)
{
    static const unsigned char zero[8];
    memtx_store *store = open_store();
    append(store, add_document(store, "text"), 100, 0);
    close_store(store);
    damage_record("meta", "spec", 4, 1);
    damage_record("meta", "state", 5, 0);
    damage_record("docs", zero, 8, 0);
    damage_record("extents", zero, 8, 0);
}

static void rope_is_missed(const char *what)
{
    memtx_store *store;
    save_data();
    cr_expect_eq(memtx_store_open(&store, path, NULL, NULL), MEMTX_E_CORRUPT, "%s", what);
    cr_expect_not_null(strstr(memtx_last_error(), "the rope record"), "%s: %s", what, memtx_last_error());
    (void)memtx_store_close(store);
}

/* RoPE factors that are not those the store was made with would place every row it gives differently. */
Test(damage, rope_factors, .init = make_folder, .fini = remove_folder)
{
    float factors[D / 2];
    struct memtx_store_spec spec = spec_default();
    for (size_t pair = 0; pair < D / 2; pair++) {
        factors[pair] = 1.0F + (float)pair / 4.0F;
    }
    spec.rope_factors = factors;
    close_store(open_with(path, &spec, NULL));
    load_data();
    unsigned char *rope = memmem(data, n_data, factors, sizeof factors);
    cr_assert_not_null(rope);
    rope[9] ^= 1;
    rope_is_missed("another factor");
    rope[9] ^= 1;
    rope[-1] ^= 2; /* its key, still between those of the others */
    rope_is_missed("another key");
    rope[-1] ^= 2;
    save_data();
    close_store(open_with(path, &spec, NULL));
    free(data);
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
