/* Damaged stores: every byte of a chunk's header, rows at random and the records are found out. */
#include <criterion/criterion.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store_fixture.h"

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
    const struct memtx__run run = {.n_rows = 100, .n_bytes = 1000, .spec = "a file that nobody looks for here"};
    append(store, add_document(store, "text"), 100, 0);
    cr_assert_eq(memtx__store_enter_run(store, &run), MEMTX_OK, "%s", memtx_last_error());
    close_store(store);
    damage_record("runs", zero, 8, 0);
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
