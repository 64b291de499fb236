/* Stores as the unit tests of the store use them (store_fixture.h). */
#include "store_fixture.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "math/rows.h"
#include "store/view.h"

char folder[64], path[96];

void make_folder(void)
{
    (void)snprintf(folder, sizeof folder, "/tmp/memtx-store-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/store", folder);
}

void remove_all(const char *directory)
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

void remove_folder(void)
{
    remove_all(folder);
}

size_t n_entries(const char *directory)
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

struct memtx_store_spec spec_default(void)
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

memtx_store *open_with(const char *at, const struct memtx_store_spec *spec, const struct memtx_store_options *options)
{
    memtx_store *store;
    cr_assert_eq(memtx_store_open(&store, at, spec, options), MEMTX_OK, "%s", memtx_last_error());
    return store;
}

memtx_store *open_store(void)
{
    struct memtx_store_spec spec = spec_default();
    return open_with(path, &spec, NULL);
}

void close_store(memtx_store *store)
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
int append_rows(memtx_store *store, size_t document, size_t n, uint64_t position)
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

void append(memtx_store *store, size_t document, size_t n, uint64_t position)
{
    cr_assert_eq(append_rows(store, document, n, position), MEMTX_OK, "%s", memtx_last_error());
}

size_t add_document(memtx_store *store, const char *name)
{
    size_t document;
    cr_assert_eq(memtx__store_add_document(&document, store, name), MEMTX_OK, "%s", memtx_last_error());
    return document;
}

/* Reads every visible row: the first failure, or MEMTX_OK when all are what was appended. A wrong row fails the test.
 */
int read_rows(memtx_store *store)
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

void check_rows(memtx_store *store, uint64_t first, uint64_t end)
{
    struct memtx_store_facts facts;
    memtx_store_info(&facts, store);
    cr_assert_eq(facts.first_row, first);
    cr_assert_eq(facts.n_rows, end);
    cr_assert_eq(read_rows(store), MEMTX_OK, "%s", memtx_last_error());
}

const struct memtx__extent *extent_of(const memtx_store *store, uint64_t row)
{
    const struct memtx__extent *last = memtx__catalogue_last_before(&store->now, row + 1);
    return last && row - last->first_row < last->n_rows ? last : NULL;
}

void check_place(const memtx_store *store, uint64_t row, uint64_t document, uint64_t position)
{
    const struct memtx__extent *extent = extent_of(store, row);
    cr_assert_not_null(extent, "row %llu", (unsigned long long)row);
    cr_assert_eq(extent->document, document);
    cr_assert_eq(extent->first_position + (row - extent->first_row), position);
}

void fill(memtx_store *store)
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

void check_filled(memtx_store *store)
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

/* Opens and reads all: MEMTX_OK with every row right, or what was said. */
int open_and_read(void)
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
