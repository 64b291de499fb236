/* The checker of LMDB's file: what LMDB writes passes, however it grew; what is damaged is refused, or LMDB still finds
 * every key and value as they were. */
#include <criterion/criterion.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/rng.h"
#include "store/pages.h"
#include "store/records.h"
#include "store/store.h"
#include "pages_file.h"

enum { D = PAGES_HEAD_SIZE, CHUNK_ROWS = 31, MOST_PAIRS = 2000 };

Test(pages, a_store_passes_at_every_stage, .init = pages_begin, .fini = pages_end)
{
    uint64_t newest = 0;
    pages_put(0, "", 0);
    pages_pass(); /* an empty file */
    cr_assert_eq(unlink(pages_name), 0);
    pages_close();
    pages_make_store(200);
    pages_pass();
    cr_assert_eq(memtx__pages_check(&newest, pages_fd, pages_name, MEMTX__PAGES_ALL, 0), MEMTX_OK);
    cr_assert_geq(newest, 200);
    for (uint64_t back = 0; back < 2; back++) { /* as a reader of the one before sees it */
        cr_assert_eq(memtx__pages_check(NULL, pages_fd, pages_name, MEMTX__PAGES_ALL, newest - back), MEMTX_OK, "%s",
                     memtx_last_error());
    }
    cr_assert_eq(memtx__pages_check(NULL, pages_fd, pages_name, MEMTX__PAGES_ALL, newest - 2), MEMTX_E_BUSY);
    cr_assert_eq(memtx__pages_check(NULL, pages_fd, pages_name, MEMTX__PAGES_ALL, newest + 1), MEMTX_E_BUSY);
}

/* ---- LMDB by itself --------------------------------------------------------------------------- */

/* One transaction of puts and deletes in a few tables, with keys and data of many sizes. */
static void change_at_random(MDB_env *env, struct memtx__rng *rng, unsigned n_keys, unsigned largest)
{
    static unsigned char bytes[1 << 17];
    static const char *const names[] = {"docs", "keys", "another"};
    MDB_txn *txn;
    MDB_dbi dbi = 0;
    cr_assert_eq(mdb_txn_begin(env, NULL, 0, &txn), 0);
    for (unsigned n = 1 + (unsigned)memtx__rng_below(rng, 600); n; n--) {
        unsigned char name[256] = {0};
        memtx__put_be(name, (unsigned)memtx__rng_below(rng, n_keys), 8);
        MDB_val key = {8 + (name[7] % 3 ? 0U : (name[6] * 16U + name[7]) % 240), name};
        MDB_val value = {(unsigned)memtx__rng_below(rng, 8) ? (unsigned)memtx__rng_below(rng, 200)
                                                            : (unsigned)memtx__rng_below(rng, largest),
                         bytes};
        cr_assert_eq(mdb_dbi_open(txn, names[(unsigned)memtx__rng_below(rng, 3)], MDB_CREATE, &dbi), 0);
        if ((unsigned)memtx__rng_below(rng, 5) < 2) {
            int code = mdb_del(txn, dbi, &key, NULL);
            cr_assert(code == 0 || code == MDB_NOTFOUND);
        } else {
            cr_assert_eq(mdb_put(txn, dbi, &key, &value, 0), 0);
        }
    }
    if ((unsigned)memtx__rng_below(rng, 8) == 0) {
        cr_assert_eq(mdb_drop(txn, dbi, (int)(unsigned)memtx__rng_below(rng, 2)), 0);
    }
    if ((unsigned)memtx__rng_below(rng, 6) == 0) {
        mdb_txn_abort(txn);
    } else {
        cr_assert_eq(mdb_txn_commit(txn), 0);
    }
}

/* Trees that grow, shrink, split and merge, free lists of many pages, with and without readers that hold pages back. */
Test(pages, whatever_lmdb_writes_passes, .init = pages_begin, .fini = pages_end)
{
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct memtx__rng rng = memtx__rng_create(seed, 0);
        MDB_txn *reader = NULL;
        MDB_env *env = pages_open_env(MDB_NOSYNC | MDB_NOTLS);
        cr_assert_not_null(env);
        for (unsigned i = 0; i < 150; i++) {
            if (i % 20 == 5 * seed % 20) {
                mdb_txn_abort(reader);
                cr_assert_eq(mdb_txn_begin(env, NULL, MDB_RDONLY, &reader), 0);
            } else if (i % 20 == 17) {
                mdb_txn_abort(reader);
                reader = NULL;
            }
            change_at_random(env, &rng, i / 50 % 2 ? 40 : 4000, seed % 2 ? 3000 : 100000);
            pages_pass();
        }
        mdb_txn_abort(reader);
        mdb_env_close(env);
        pages_end();
        pages_begin();
    }
}

/* ---- damage ----------------------------------------------------------------------------------- */

struct pair {
    char table[16];
    size_t n_key, n_value;
    unsigned char *bytes; /* key, value */
};

struct dump {
    struct pair pairs[MOST_PAIRS];
    size_t n_pairs;
    bool failed;
};

static struct dump truth, found;

static void dump_release(struct dump *dump)
{
    for (size_t i = 0; i < dump->n_pairs; i++) {
        free(dump->pairs[i].bytes);
    }
    dump->n_pairs = 0;
    dump->failed = false;
}

static void dump_table(struct dump *out, MDB_txn *txn, const char *table)
{
    MDB_dbi dbi;
    MDB_cursor *cursor;
    MDB_val key, value;
    if (mdb_dbi_open(txn, table, 0, &dbi) || mdb_cursor_open(txn, dbi, &cursor)) {
        out->failed = true;
        return;
    }
    int code;
    while ((code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == MDB_SUCCESS) {
        struct pair *pair = &out->pairs[out->n_pairs++];
        cr_assert_lt(out->n_pairs, MOST_PAIRS);
        *pair = (struct pair){.n_key = key.mv_size, .n_value = value.mv_size};
        (void)snprintf(pair->table, sizeof pair->table, "%s", table);
        pair->bytes = malloc(key.mv_size + value.mv_size + 1);
        memcpy(pair->bytes, key.mv_data, key.mv_size);
        memcpy(pair->bytes + key.mv_size, value.mv_data, value.mv_size);
        /* What was found by walking is found by its key. */
        MDB_val again;
        cr_assert(mdb_get(txn, dbi, &key, &again) == 0 && again.mv_data == value.mv_data);
    }
    out->failed |= code != MDB_NOTFOUND;
    mdb_cursor_close(cursor);
}

/* All keys and values as LMDB finds them. */
static void dump_all(struct dump *out)
{
    static const char *const tables[] = {"meta", "docs", "extents", "tokens", "keys", "values"};
    MDB_txn *txn;
    dump_release(out);
    MDB_env *env = pages_open_env(MDB_RDONLY | MDB_NOLOCK);
    if (!env || mdb_txn_begin(env, NULL, MDB_RDONLY, &txn)) {
        out->failed = true;
        mdb_env_close(env);
        return;
    }
    for (size_t i = 0; i < sizeof tables / sizeof tables[0] && !out->failed; i++) {
        dump_table(out, txn, tables[i]);
    }
    mdb_txn_abort(txn);
    mdb_env_close(env);
}

/* Token ids end with their checksum. */
static bool tokens_are_whole(const struct pair *pair)
{
    const unsigned char *value = pair->bytes + pair->n_key;
    return pair->n_value >= 4 &&
           memtx__crc32c(0, value, pair->n_value - 4) == memtx__get_u32(value + pair->n_value - 4);
}

/* How many bytes of the keys and values, or sizes of values, differ from the truth, all else the same; *in_key whether
 * of a key. Within its run of pages, a large value's size is the records' concern: chunks have one size, tokens a
 * checksum. */
static size_t n_differences(bool *in_key)
{
    size_t n = 0;
    *in_key = false;
    cr_assert_eq(found.n_pairs, truth.n_pairs);
    for (size_t i = 0; i < truth.n_pairs; i++) {
        const struct pair *a = &truth.pairs[i], *b = &found.pairs[i];
        cr_assert_str_eq(a->table, b->table);
        cr_assert_eq(a->n_key, b->n_key);
        const size_t n_both = a->n_key + (a->n_value < b->n_value ? a->n_value : b->n_value);
        if (a->n_value == b->n_value && memcmp(a->bytes, b->bytes, n_both) == 0) {
            continue;
        }
        for (size_t j = 0; j < n_both; j++) {
            n += a->bytes[j] != b->bytes[j];
        }
        n += a->n_value != b->n_value;
        *in_key |= memcmp(a->bytes, b->bytes, a->n_key) != 0;
        cr_assert(*in_key || strcmp(a->table, "tokens") != 0 || !tokens_are_whole(b), "changed token ids look whole");
    }
    return n;
}

static int read_rows(memtx_store *store, size_t n_rows)
{
    struct memtx__snapshot *snapshot;
    struct memtx_store_facts facts;
    memtx_store_info(&facts, store);
    cr_assert_eq(facts.n_rows, n_rows);
    int status = memtx__snapshot_open(&snapshot, store->environment);
    if (!status) {
        status = memtx__snapshot_renew(snapshot);
    }
    for (uint64_t row = facts.first_row; row < facts.n_rows && !status; row++) {
        for (int kind = MEMTX__KEYS; kind <= MEMTX__VALUES && !status; kind++) {
            const unsigned char *bytes, *rows = NULL;
            size_t n_bytes;
            const uint64_t chunk = row / CHUNK_ROWS;
            struct memtx__chunk_facts wanted = {
                (enum memtx__chunk_kind)kind, chunk * CHUNK_ROWS, (uint32_t)(row % CHUNK_ROWS + 1), D * 4, 0, 0};
            status = memtx__snapshot_chunk(&bytes, &n_bytes, snapshot, wanted.kind, chunk, 0, 0);
            if (!status) {
                status = memtx__chunk_decode(&rows, bytes, n_bytes, &wanted, true);
            }
            for (size_t d = 0; d < D && !status; d++) {
                const float value = memtx__get_f32(rows + 4 * (row % CHUNK_ROWS * D + d));
                cr_assert_eq(value, (float)(row + d) * (kind == MEMTX__KEYS ? 1.0F : -1.0F));
            }
        }
    }
    memtx__snapshot_close(snapshot);
    return status;
}

/* Opens the store: what it says is right, or it says what is wrong. */
static int open_and_read(size_t n_rows, bool keys_are_right)
{
    memtx_store *store;
    int status = memtx_store_open(&store, pages_folder, NULL, NULL);
    for (uint64_t i = 0; i < PAGES_DOCUMENTS && !status; i++) {
        struct memtx_document document;
        char name[32];
        (void)snprintf(name, sizeof name, "text %llu", (unsigned long long)i);
        cr_assert_eq(memtx_store_document_at(&document, store, i), MEMTX_OK);
        cr_assert_str_eq(document.name, name);
        cr_assert_eq(document.n_tokens, i + 1 < PAGES_DOCUMENTS ? 1 : n_rows - i);
        cr_assert(document.id == i || !keys_are_right);
    }
    if (!status) {
        status = read_rows(store, n_rows);
    }
    (void)memtx_store_close(store);
    return status;
}

struct tally {
    size_t n_flips, n_refused, n_unused, n_data, n_opened, n_noticed;
};

/* One flip, of which the checker, or a checksum, or nobody has to say something. */
static void flip(struct tally *tally, size_t at, unsigned char mask, size_t n_rows)
{
    /* Records of the first version do not say which number they stand under. */
    const bool records_have_numbers = MEMTX__FORMAT_VERSION > 1;
    bool in_key = false;
    pages_put_byte(at, pages_data[at] ^ mask);
    int status = pages_check(MEMTX__PAGES_ALL);
    tally->n_flips++;
    cr_assert(!status || status == MEMTX_E_CORRUPT, "byte %zu: %d: %s", at, status, memtx_last_error());
    if (status) {
        tally->n_refused++;
    } else {
        dump_all(&found);
        size_t n = found.failed ? 1 : n_differences(&in_key);
        cr_assert_leq(n, 1, "byte %zu of page %zu, mask %x: %zu other bytes", at % PAGE, at / PAGE, mask, n);
        tally->n_unused += n == 0;
        tally->n_data += n;
        if (n) {
            tally->n_noticed += open_and_read(n_rows, records_have_numbers || !in_key) != MEMTX_OK;
            tally->n_opened++;
        }
    }
    pages_put_byte(at, pages_data[at]);
}

/* A page that is free, or an overflow page that is not the first of its run, may be of any kind. */
static bool is_in_use(size_t page)
{
    pages_put_byte(page * PAGE + 10, pages_data[page * PAGE + 10] ^ 0x40);
    int status = pages_check(MEMTX__PAGES_ALL);
    pages_put_byte(page * PAGE + 10, pages_data[page * PAGE + 10]);
    return status != MEMTX_OK;
}

/* Marks what LMDB goes by of a page: headers, offsets, nodes, keys, and of the data trees, page numbers and free lists.
 */
static void mark_page(unsigned char *marks, const unsigned char *page)
{
    const unsigned kind = memtx__get_u16(page + 10);
    const size_t lower = kind == 8 ? 152 : kind == 4 ? 16 : memtx__get_u16(page + 12);
    memset(marks, 1, lower);
    for (size_t at = 16; at < lower && (kind == 1 || kind == 2); at += 2) {
        const size_t node = memtx__get_u16(page + at), n_key = memtx__get_u16(page + node + 6);
        const size_t n_data = kind == 1 || page[node + 4] ? 8 : memtx__get_u32(page + node);
        const bool is_list = kind == 2 && n_data % 8 == 0 &&
                             n_data / 8 == 1 + memtx__get_u64(page + node + 8 + n_key) && !page[node + 4];
        const size_t n_shown = page[node + 4] == 2 && kind == 2 ? 48 : is_list ? n_data : n_data < 8 ? n_data : 8;
        memset(marks + node, 1, 8 + n_key + (kind == 2 ? n_shown : 0));
    }
}

Test(damage, one_byte, .init = pages_begin, .fini = pages_end, .timeout = 280)
{
    enum { N_ROWS = 280 };
    struct tally tally = {0};
    size_t n_used = 0;
    pages_make_store(N_ROWS);
    pages_load();
    dump_all(&truth);
    cr_assert(!truth.failed);
    cr_assert_eq(open_and_read(N_ROWS, true), MEMTX_OK, "%s", memtx_last_error());
    unsigned char *marks = calloc(n_pages_bytes, 1);
    for (size_t page = 0; page < n_pages_bytes / PAGE; page++) {
        if (page < 2 || is_in_use(page)) {
            mark_page(marks + page * PAGE, pages_data + page * PAGE);
            n_used++;
        }
    }
    for (size_t at = 0; at < n_pages_bytes; at++) {
        if (marks[at] || at % 997 == 0) {
            flip(&tally, at, (unsigned char)(1U << at % 8), N_ROWS);
        }
        if (marks[at]) {
            flip(&tally, at, 0xff, N_ROWS);
        }
    }
    printf("# %zu pages with a header: %zu flips, %zu refused, %zu of data, %zu unused; %zu opened, %zu noticed\n",
           n_used, tally.n_flips, tally.n_refused, tally.n_data, tally.n_unused, tally.n_opened, tally.n_noticed);
    cr_assert_gt(tally.n_refused, 5000);
    cr_assert_gt(tally.n_noticed, 50);
    dump_release(&truth);
    dump_release(&found);
    free(marks);
    pages_pass();
}

/* Writes a number, demands what the checker says of it, and puts back what was there. */
static void refused_with(size_t at, uint64_t value, size_t n_bytes, const char *text)
{
    unsigned char bytes[8];
    memtx__put_u64(bytes, value);
    pages_put(at, bytes, n_bytes);
    pages_refused(MEMTX_E_CORRUPT, text);
    pages_put(at, pages_data + at, n_bytes);
}

static size_t newest_meta(void)
{
    return memtx__get_u64(pages_data + 144) > memtx__get_u64(pages_data + PAGE + 144) ? 0 : PAGE;
}

/* Where node i of a page begins in the file. */
static size_t node_of(size_t page, size_t i)
{
    return page + memtx__get_u16(pages_data + page + 16 + 2 * i);
}

/* The root of a named table, by the one page that the main table is. */
static size_t root_of(const char *table)
{
    const size_t main_page = (size_t)memtx__get_u64(pages_data + newest_meta() + 88 + 40) * PAGE, n = strlen(table);
    for (size_t i = 0;; i++) {
        const size_t node = node_of(main_page, i);
        if (memtx__get_u16(pages_data + node + 6) == n && memcmp(pages_data + node + 8, table, n) == 0) {
            return (size_t)memtx__get_u64(pages_data + node + 8 + n + 40) * PAGE;
        }
    }
}

Test(damage, of_each_kind_in_words, .init = pages_begin, .fini = pages_end)
{
    pages_make_store(130);
    pages_load();
    const size_t meta = newest_meta(), main_page = (size_t)memtx__get_u64(pages_data + meta + 88 + 40) * PAGE;
    const uint64_t last = memtx__get_u64(pages_data + meta + 136);
    refused_with(meta + 16, 0, 4, "is no meta page");
    refused_with(meta + 40, 8192, 4, "is no meta page");
    refused_with(meta + 44, 0, 2, "table (free) has flags 0");
    refused_with(meta + 92, 4, 2, "table (main) has flags 4");
    refused_with(meta + 94, 33, 2, "table (main) has depth 33");
    refused_with(meta + 94, 2, 2, "is of kind 2 in place of 1");
    refused_with(meta + 120, 7, 8, "recorded 0 + 1 + 0, 7");
    refused_with(meta + 128, UINT64_MAX, 8, "root 18446744073709551615");
    refused_with(meta + 128, 1, 8, "page 1");
    refused_with(meta + 136, last + 1, 8, "is neither in use nor free");
    refused_with(meta + 136, last - 1, 8, "names page");
    refused_with(meta + 136, UINT64_MAX, 8, "the last page is");
    refused_with(meta + 144, 0, 8, "says that nothing was ever written");
    refused_with(meta + 144, 5, 8, "follow");
    refused_with(main_page, 3, 8, "says that it is page 3");
    refused_with(main_page + 10, 1, 2, "is of kind 1 in place of 2");
    refused_with(main_page + 12, 17, 2, "its free space is from 17");
    refused_with(main_page + 12, 16, 2, "has 0 nodes");
    refused_with(main_page + 12, 26, 2, "its nodes overlap or leave a gap");
    refused_with(main_page + 14, 4098, 2, "its free space is from");
    refused_with(main_page + 16, 14, 2, "cannot be at 14");
    refused_with(main_page + 16, 4090, 2, "cannot be at 4090");
    refused_with(main_page + 16, memtx__get_u16(pages_data + main_page + 18), 2, "cannot be at");
    refused_with(main_page + 16,
                 memtx__get_u32(pages_data + main_page + 16) >> 16 | memtx__get_u32(pages_data + main_page + 16) << 16,
                 4, "key 1 is not in its place");
    const size_t node = node_of(main_page, 0);
    refused_with(node, 50, 4, "leave a gap");
    refused_with(node + 4, 6, 2, "node 0 has flags 6");
    refused_with(node + 6, 600, 2, "cannot be at");
    const size_t docs = root_of("docs"), keys = root_of("keys");
    refused_with(docs + 12, 18, 2, "has 1 nodes");
    refused_with(docs + 16, memtx__get_u32(pages_data + docs + 16) >> 16 | memtx__get_u32(pages_data + docs + 16) << 16,
                 4, "its first key has 8 bytes");
    refused_with(node_of(root_of("meta"), 1) + 4, 2, 2, "node 1 has flags 2"); /* a table in the state record's place */
    refused_with(node_of(docs, 0) + 6, 2, 2, "cannot be at 4088");
    refused_with(node_of(docs, 1), memtx__get_u64(pages_data + node_of(docs, 0)), 6,
                 "which is in use or free elsewhere");
    refused_with(node_of(docs, 1) + 15, 1, 1, "is not in its place"); /* a key that is in the leaf before */
    const size_t run = (size_t)memtx__get_u64(pages_data + node_of(keys, 0) + 20) * PAGE;
    refused_with(node_of(keys, 0), 65521, 4, "16 pages for 65521 bytes");
    refused_with(run + 12, 17, 4, "table keys has 0 + 1 + ");
    refused_with(run + 12, 1U << 31, 4, "2147483648 pages for");
    refused_with(run + 10, 2, 2, "is of kind 2 in place of 4");
    const size_t list = node_of((size_t)memtx__get_u64(pages_data + meta + 80) * PAGE, 0);
    refused_with(list + 8, 0, 8, "free pages of transaction 0");
    refused_with(list + 16, 1, 8, "a list of 1 free pages in place of");
    refused_with(list + 16 + 8 * memtx__get_u64(pages_data + list + 16), 2, 8,
                 "names page 2, which is in use or free elsewhere");
    refused_with(list + 32, last, 8, "do not descend");
    pages_pass();
}

Test(damage, of_nothing_but_memory, .init = pages_begin, .fini = pages_end)
{
    long n = 1;
    pages_make_store(10);
    for (int status = MEMTX_E_NO_MEMORY; status; n++) {
        memtx__alloc_fail_at(n);
        status = pages_check(MEMTX__PAGES_ALL);
        memtx__alloc_fail_at(0);
        cr_assert(!status || status == MEMTX_E_NO_MEMORY, "%d: %s", status, memtx_last_error());
    }
    cr_assert_gt(n, 4);
}

/* No damage at all may crash; where the checker says nothing, LMDB and the store are let near it. */
static void harmless(const char *what, uint64_t which)
{
    int status = pages_check(MEMTX__PAGES_ALL);
    cr_assert(!status || status == MEMTX_E_CORRUPT || status == MEMTX_E_FORMAT, "%s %llu: %d: %s", what,
              (unsigned long long)which, status, memtx_last_error());
    cr_assert(!status || pages_check(MEMTX__PAGES_SMALL) <= 0);
    if (!status) {
        memtx_store *store;
        dump_all(&found);
        if (memtx_store_open(&store, pages_folder, NULL, NULL) == MEMTX_OK) {
            cr_assert_eq(memtx_store_close(store), MEMTX_OK);
        }
    }
}

Test(damage, many_bytes, .init = pages_begin, .fini = pages_end)
{
    pages_make_store(70);
    pages_load();
    for (uint64_t seed = 0; seed < 1500; seed++) {
        struct memtx__rng rng = memtx__rng_create(seed, 1);
        const size_t n = 1 + (size_t)memtx__rng_below(&rng, 5);
        for (size_t i = 0; i < n; i++) {
            /* Mostly numbers of a page's header and first offsets, or whole pages in other places. */
            size_t page = (size_t)memtx__rng_below(&rng, n_pages_bytes / PAGE), at = page * PAGE;
            at += (size_t)(seed % 3 ? 2 * memtx__rng_below(&rng, 40) : memtx__rng_below(&rng, PAGE - 8));
            const uint64_t value = memtx__rng_u64(&rng) >> memtx__rng_below(&rng, 64);
            if (seed % 5) {
                pages_put(at, &value, 1 + (size_t)memtx__rng_below(&rng, 8));
            } else {
                pages_put(page * PAGE, pages_data + (size_t)PAGE * memtx__rng_below(&rng, n_pages_bytes / PAGE), PAGE);
            }
        }
        harmless("seed", seed);
        pages_put(0, pages_data, n_pages_bytes);
    }
    pages_pass();
    dump_release(&found);
}

Test(damage, a_file_that_is_cut, .init = pages_begin, .fini = pages_end)
{
    size_t n_passed = 0;
    pages_make_store(70);
    pages_load();
    for (size_t n = 1; n < n_pages_bytes; n += n < 3 * PAGE ? 509 : 1021) {
        cr_assert_eq(ftruncate(pages_fd, (off_t)n), 0);
        harmless("bytes", n);
        n_passed += pages_check(MEMTX__PAGES_ALL) == MEMTX_OK;
        pages_put(0, pages_data, n_pages_bytes);
    }
    cr_assert_lt(n_passed, 20, "only free pages at the end may be missing");
    pages_pass();
    dump_release(&found);
}

Test(damage, arbitrary_bytes, .init = pages_begin, .fini = pages_end)
{
    static unsigned char bytes[8 * PAGE];
    for (uint64_t seed = 0; seed < 300; seed++) {
        struct memtx__rng rng = memtx__rng_create(seed, 2);
        const size_t n = 1 + (size_t)memtx__rng_below(&rng, sizeof bytes);
        for (size_t i = 0; i < n; i++) {
            bytes[i] = (unsigned char)memtx__rng_u64(&rng);
        }
        pages_open();
        cr_assert_eq(ftruncate(pages_fd, 0), 0);
        pages_put(0, bytes, n);
        cr_assert_eq(pages_check(MEMTX__PAGES_ALL), MEMTX_E_FORMAT, "%s", memtx_last_error());
    }
}
