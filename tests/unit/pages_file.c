#include "pages_file.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { D = PAGES_HEAD_SIZE, CAPACITY = 93 };

char pages_folder[64], pages_name[96];
int pages_fd = -1;
unsigned char *pages_data;
size_t n_pages_bytes;

void pages_begin(void)
{
    (void)snprintf(pages_folder, sizeof pages_folder, "/tmp/memtx-pages-XXXXXX");
    cr_assert_not_null(mkdtemp(pages_folder));
    (void)snprintf(pages_name, sizeof pages_name, "%s/data.mdb", pages_folder);
}

void pages_close(void)
{
    if (pages_fd >= 0) {
        (void)close(pages_fd);
    }
    pages_fd = -1;
}

void pages_end(void)
{
    char name[512];
    DIR *entries = opendir(pages_folder);
    for (struct dirent *entry; entries && (entry = readdir(entries));) {
        (void)snprintf(name, sizeof name, "%s/%s", pages_folder, entry->d_name);
        (void)unlink(name);
    }
    if (entries) {
        (void)closedir(entries);
    }
    (void)rmdir(pages_folder);
    free(pages_data);
    pages_data = NULL;
    pages_close();
}

void pages_open(void)
{
    if (pages_fd < 0) {
        pages_fd = open(pages_name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    }
    cr_assert_geq(pages_fd, 0);
}

void pages_load(void)
{
    pages_open();
    n_pages_bytes = (size_t)lseek(pages_fd, 0, SEEK_END);
    free(pages_data);
    pages_data = malloc(n_pages_bytes ? n_pages_bytes : 1);
    cr_assert_eq(pread(pages_fd, pages_data, n_pages_bytes, 0), (ssize_t)n_pages_bytes);
}

void pages_put(size_t at, const void *bytes, size_t n)
{
    pages_open();
    cr_assert_eq(pwrite(pages_fd, bytes, n, (off_t)at), (ssize_t)n);
}

void pages_put_byte(size_t at, unsigned char byte)
{
    pages_put(at, &byte, 1);
}

int pages_check(enum memtx__pages_extent extent)
{
    pages_open();
    return memtx__pages_check(NULL, pages_fd, pages_name, extent, 0);
}

void pages_pass(void)
{
    cr_assert_eq(pages_check(MEMTX__PAGES_SMALL), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(pages_check(MEMTX__PAGES_ALL), MEMTX_OK, "%s", memtx_last_error());
}

void pages_refused(int status, const char *text)
{
    cr_expect_eq(pages_check(MEMTX__PAGES_ALL), status, "in place of '%s': %s", text, memtx_last_error());
    cr_expect_not_null(strstr(memtx_last_error(), text), "'%s' lacks '%s'", memtx_last_error(), text);
}

struct memtx_store_spec pages_spec(void)
{
    struct memtx_store_spec spec = {.fingerprint = "fingerprint",
                                    .n_layers = 1,
                                    .n_heads = 1,
                                    .n_kv_heads = 1,
                                    .head_size = D,
                                    .scale = 0.125F,
                                    .row_type = MEMTX_ROWS_F32};
    memtx_store_keep_layer(&spec, 0);
    return spec;
}

static int append_row(memtx_store *store, size_t document, uint64_t row)
{
    float key[D], value[D];
    const uint32_t id = (uint32_t)(7 * row);
    const uint64_t position = 2 * row; /* so that each row is an extent */
    for (size_t d = 0; d < D; d++) {
        key[d] = (float)(row + d);
        value[d] = -key[d];
    }
    int status = memtx__store_append(store, 0, 1, key, value);
    return status ? status : memtx__store_commit(store, document, 1, &id, &position);
}

void pages_make_store(size_t n_rows)
{
    struct memtx_store_spec spec = pages_spec();
    struct memtx_store_options options = memtx_store_options_default();
    memtx_store *store;
    size_t document = 0;
    options.durability = MEMTX_DURABILITY_FULL;
    options.capacity_rows = CAPACITY;
    cr_assert_eq(memtx_store_open(&store, pages_folder, &spec, &options), MEMTX_OK, "%s", memtx_last_error());
    for (size_t row = 0; row < n_rows; row++) {
        char name[32];
        (void)snprintf(name, sizeof name, "text %zu", row);
        if (row < PAGES_DOCUMENTS) {
            cr_assert_eq(memtx__store_add_document(&document, store, name), MEMTX_OK);
        }
        cr_assert_eq(append_row(store, document, row), MEMTX_OK, "%s", memtx_last_error());
        if (row % 64 == 0) {
            pages_pass();
        }
    }
    cr_assert_eq(memtx_store_close(store), MEMTX_OK);
}

MDB_env *pages_open_env(unsigned flags)
{
    MDB_env *env;
    cr_assert_eq(mdb_env_create(&env), 0);
    cr_assert_eq(mdb_env_set_maxdbs(env, 16), 0);
    cr_assert_eq(mdb_env_set_mapsize(env, (size_t)1 << 30), 0);
    int code = mdb_env_open(env, pages_folder, flags, 0600);
    if (code) {
        mdb_env_close(env);
        return NULL;
    }
    return env;
}
