/* What indexes through FAISS refuse, each with a code and a text that says why; FAISS itself would end the process on
 * much of it. That nothing is printed. Rows that have no shape. */
#include <unistd.h>

#include "index_rows.h"
#include "leak_check.h"
#include "spec.h"

enum { DIM = 32, N_ROWS = 300 };

static const char *const specs[] = {
    "faiss:Flat",
    "faiss:SQ8",
    "faiss:SQfp16",
    "faiss:PQ4x4",
    "faiss:IVF16,Flat@nprobe=4",
    "faiss:IVF16,Flat@nprobe=4,mmap=0",
    "faiss:IVF16,SQ8@nprobe=4",
    "faiss:IVF16,SQfp16@nprobe=4",
    "faiss:IVF16,PQ4x4@nprobe=4",
    "faiss:HNSW16",
    "faiss:HNSW16,SQ8",
};
enum { N_SPECS = sizeof specs / sizeof specs[0] };

static void expect_refused(int status, int wanted, const char *text, const char *spec)
{
    cr_expect_eq(status, wanted, "%s: %d, %s", spec, status, memtx_last_error());
    cr_expect(strstr(memtx_last_error(), text), "%s: no '%s' in '%s'", spec, text, memtx_last_error());
}

/* ---- specs ------------------------------------------------------------------------------------ */

static const struct bad_spec {
    const char *spec;
    uint32_t dim;
    uint64_t n_rows;
    int status;
    const char *text;
} bad_specs[] = {
    {"faiss:", DIM, 1000, MEMTX_E_UNSUPPORTED, "known: Flat"},
    {"faiss:flat", DIM, 1000, MEMTX_E_UNSUPPORTED, "at 'flat'"},
    {"faiss:Flat ", DIM, 1000, MEMTX_E_UNSUPPORTED, "at ' '"},
    {"faiss:Flat,Flat", DIM, 1000, MEMTX_E_UNSUPPORTED, "at ',Flat'"},
    {"faiss:Flat@", DIM, 1000, MEMTX_E_UNSUPPORTED, "option ''"},
    {"faiss:SQ", DIM, 1000, MEMTX_E_UNSUPPORTED, "known"},
    {"faiss:SQ5", DIM, 1000, MEMTX_E_UNSUPPORTED, "known"},
    {"faiss:IVF64", DIM, 1000, MEMTX_E_UNSUPPORTED, "known"},
    {"faiss:IVF64,", DIM, 1000, MEMTX_E_UNSUPPORTED, "known"},
    {"faiss:IVF,Flat", DIM, 1000, MEMTX_E_UNSUPPORTED, "known"},
    {"faiss:IVF0,Flat", DIM, 1000, MEMTX_E_UNSUPPORTED, "known"},
    {"faiss:IVF-1,Flat", DIM, 1000, MEMTX_E_UNSUPPORTED, "known"},
    {"faiss:IVF064,Flat", DIM, 1000, MEMTX_E_UNSUPPORTED, "known"},
    {"faiss:IVF64,HNSW32", DIM, 1000, MEMTX_E_UNSUPPORTED, "known"},
    {"faiss:IVF99999999999999999999,Flat", DIM, 1000, MEMTX_E_UNSUPPORTED, "known"},
    {"faiss:IVF999999999,Flat", DIM, INT32_MAX, MEMTX_E_INVALID, "999999999 lists"},
    {"faiss:IVF1001,Flat", DIM, 1000, MEMTX_E_INVALID, "1000 rows, it takes 1001"},
    {"faiss:HNSW", DIM, 1000, MEMTX_E_UNSUPPORTED, "known"},
    {"faiss:HNSW1", DIM, 1000, MEMTX_E_INVALID, "1 links"},
    {"faiss:HNSW257", DIM, 1000, MEMTX_E_INVALID, "257 links"},
    {"faiss:HNSW16,PQ8", DIM, 1000, MEMTX_E_UNSUPPORTED, "no inner product"},
    {"faiss:HNSW16_SQ8", DIM, 1000, MEMTX_E_UNSUPPORTED, "known"},
    {"faiss:PQ", DIM, 1000, MEMTX_E_UNSUPPORTED, "known"},
    {"faiss:PQ8x", DIM, 1000, MEMTX_E_UNSUPPORTED, "known"},
    {"faiss:PQ8+16", DIM, 1000, MEMTX_E_UNSUPPORTED, "known"},
    {"faiss:PQ7", DIM, 1000, MEMTX_E_INVALID, "into 7 equal parts"},
    {"faiss:PQ64", DIM, 1000, MEMTX_E_INVALID, "into 64 equal parts"},
    {"faiss:IVF16,PQ5", DIM, 1000, MEMTX_E_INVALID, "into 5 equal parts"},
    {"faiss:PQ8x3", DIM, 1000, MEMTX_E_INVALID, "3 bits"},
    {"faiss:PQ8x40", DIM, 1000, MEMTX_E_INVALID, "40 bits"},
    {"faiss:PQ8", DIM, 255, MEMTX_E_INVALID, "255 rows, it takes 256"},
    {"faiss:IVF16,PQ8", DIM, 255, MEMTX_E_INVALID, "255 rows, it takes 256"},
    {"faiss:IMI2x8,Flat", DIM, 1000, MEMTX_E_UNSUPPORTED, "known"},
    {"faiss:IDMap,Flat", DIM, 1000, MEMTX_E_UNSUPPORTED, "known"},
    {"faiss:LSH", DIM, 1000, MEMTX_E_UNSUPPORTED, "known"},
    {"faiss:OPQ8,PQ8", DIM, 1000, MEMTX_E_UNSUPPORTED, "known"},
    {"faiss:Flat,RFlat", DIM, 1000, MEMTX_E_UNSUPPORTED, "known"},
    {"faiss:IVF16(Flat),Flat", DIM, 1000, MEMTX_E_UNSUPPORTED, "known"},
    {"faiss:Flat", 0, 1000, MEMTX_E_INVALID, "keys of 0 numbers"},
    {"faiss:Flat", 4097, 1000, MEMTX_E_INVALID, "keys of 4097 numbers"},
    {"faiss:Flat", DIM, 0, MEMTX_E_INVALID, "0 rows"},
    {"faiss:Flat", DIM, UINT64_C(1) << 31, MEMTX_E_INVALID, "2147483648 rows"},
    {"faiss:Flat@nprobe=1", DIM, 1000, MEMTX_E_INVALID, "nprobe is an option of IVF"},
    {"faiss:Flat@efSearch=1", DIM, 1000, MEMTX_E_INVALID, "efSearch is an option of HNSW"},
    {"faiss:IVF16,Flat@efSearch=1", DIM, 1000, MEMTX_E_INVALID, "efSearch is an option of HNSW"},
    {"faiss:IVF16,Flat@nprobes=1", DIM, 1000, MEMTX_E_UNSUPPORTED, "'nprobes' (known: nprobe"},
    {"faiss:IVF16,Flat@nprobe=17", DIM, 1000, MEMTX_E_INVALID, "nprobe must be a number from 1 to 16"},
    {"faiss:IVF16,Flat@nprobe=0", DIM, 1000, MEMTX_E_INVALID, "nprobe must be"},
    {"faiss:IVF16,Flat@nprobe", DIM, 1000, MEMTX_E_INVALID, "nprobe must be"},
    {"faiss:IVF16,Flat@nprobe=", DIM, 1000, MEMTX_E_INVALID, "nprobe must be"},
    {"faiss:IVF16,Flat@nprobe=4x", DIM, 1000, MEMTX_E_INVALID, "nprobe must be"},
    {"faiss:IVF16,Flat@nprobe=4,", DIM, 1000, MEMTX_E_UNSUPPORTED, "option ''"},
    {"faiss:IVF16,Flat@nprobe=4,nprobe=5", DIM, 1000, MEMTX_E_INVALID, "nprobe is there twice"},
    {"faiss:IVF16,Flat@mmap=2", DIM, 1000, MEMTX_E_INVALID, "mmap must be a number from 0 to 1"},
    {"faiss:HNSW16@efSearch=70000", DIM, 1000, MEMTX_E_INVALID, "efSearch must be a number from 1 to 65536"},
    {"faiss:HNSW16@efConstruction=99999999999", DIM, 1000, MEMTX_E_INVALID, "efConstruction must be"},
};

Test(specs, each_bad_one_says_why)
{
    for (size_t i = 0; i < sizeof bad_specs / sizeof bad_specs[0]; i++) {
        const struct bad_spec *bad = &bad_specs[i];
        expect_refused(resolved(bad->spec)->check(bad->spec, bad->dim, bad->n_rows), bad->status, bad->text, bad->spec);
        if (!strstr(bad->text, " rows")) { /* create and load see the same, but for the rows */
            int nothing = 0;
            void *index = &nothing;
            FILE *file = tmpfile();
            expect_refused(resolved(bad->spec)->create(&index, bad->spec, bad->dim), bad->status, bad->text, bad->spec);
            cr_expect_null(index);
            index = &nothing;
            expect_refused(resolved(bad->spec)->load(&index, bad->spec, bad->dim, file, 100), bad->status, bad->text,
                           bad->spec);
            cr_expect_null(index);
            (void)fclose(file);
        }
    }
}

Test(specs, what_faiss_is_given)
{
    static const char *const pairs[][2] = {
        {"faiss:Flat", "Flat"},
        {"faiss:PQ8", "PQ8x8np"},
        {"faiss:IVF7,PQ4x5@nprobe=3", "IVF7,PQ4x5np"},
        {"faiss:IVF1024,SQfp16@mmap=0,nprobe=32", "IVF1024,SQfp16"},
        {"faiss:HNSW32@efSearch=64", "HNSW32,Flat"},
        {"faiss:HNSW32,SQ6", "HNSW32,SQ6"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        struct index_spec spec;
        cr_expect_eq(index_spec_parse(&spec, pairs[i][0], DIM), 0, "%s", memtx_last_error());
        cr_expect_str_eq(spec.factory, pairs[i][1]);
    }
}

/* Whatever stands behind the scheme: an answer, and a text where it is no. */
Test(specs, any_text)
{
    static const char *const pieces[] = {"IVF", "HNSW",  "PQ",      "SQ", "Flat", "8",     "fp16", "16",
                                         ",",   "@",     "nprobe=", "x4", "_",    "(",     ")",    "efSearch=",
                                         "0",   "99999", "%n%s",    "\n", "-",    "mmap=1"};
    struct memtx__rng rng = memtx__rng_create(1, 0);
    size_t n_good = 0;
    for (int i = 0; i < 20000; i++) {
        char spec[128] = "faiss:";
        for (uint64_t n = 1 + memtx__rng_below(&rng, 7); n > 0; n--) {
            (void)strcat(spec, pieces[memtx__rng_below(&rng, sizeof pieces / sizeof pieces[0])]);
        }
        (void)memtx_fail(MEMTX_E_IO, "untouched");
        void *index = NULL;
        const int status = resolved(spec)->check(spec, DIM, N_ROWS);
        n_good += status == 0;
        cr_assert(status == 0 || strcmp(memtx_last_error(), "untouched") != 0, "%s", spec);
        if (status == 0) {
            cr_assert_eq(resolved(spec)->create(&index, spec, DIM), 0, "%s", memtx_last_error());
            resolved(spec)->destroy(index);
        }
    }
    cr_assert_gt(n_good, 20);
}

/* ---- numbers ---------------------------------------------------------------------------------- */

Test(numbers, that_are_not_finite_or_too_large_are_refused)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY, 1e16F};
    float *rows = clustered(N_ROWS, DIM, 1, 0);
    const size_t at = 7 * DIM + 5;
    const float good = rows[at];
    for (size_t s = 0; s < N_SPECS; s++) {
        const struct memtx_index_operations *operations = resolved(specs[s]);
        const struct memtx_index_range all = {0, N_ROWS};
        void *index = built(specs[s], N_ROWS, rows, DIM), *empty = NULL;
        const struct memtx_index_part part = {index, &all, 1};
        struct hits hits = hits_make(N_ROWS, 3);
        cr_assert_eq(operations->create(&empty, specs[s], DIM), 0);
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
            rows[at] = bad[i];
            expect_refused(operations->train(empty, N_ROWS, rows), MEMTX_E_INVALID, "row 7 holds", specs[s]);
            expect_refused(operations->add(index, N_ROWS, rows), MEMTX_E_INVALID, "at 5: finite", specs[s]);
            expect_refused(operations->search(hits.scores, hits.ids, &part, 1, N_ROWS, rows, 3), MEMTX_E_INVALID,
                           "query 7 holds", specs[s]);
        }
        rows[at] = good;
        struct memtx_index_facts facts;
        operations->info(&facts, index);
        cr_expect_eq(facts.n_rows, N_ROWS, "%s", specs[s]);
        hits_free(&hits);
        operations->destroy(empty);
        operations->destroy(index);
    }
    free(rows);
}

Test(numbers, that_half_precision_cannot_hold_are_refused)
{
    float *rows = clustered(N_ROWS, DIM, 2, 0);
    void *index = built("faiss:SQfp16", N_ROWS, rows, DIM);
    rows[3] = -32600.0F;
    expect_refused(resolved("faiss:SQfp16")->add(index, 1, rows), MEMTX_E_INVALID, "up to 32500", "SQfp16");
    rows[3] = -32500.0F;
    cr_expect_eq(resolved("faiss:SQfp16")->add(index, 1, rows), 0);
    resolved("faiss:SQfp16")->destroy(index);
    free(rows);
}

/* Rows that give k-means nothing to hold on to: all equal, all zero, as large as is allowed, tiny. */
static void check_shapeless(const char *spec, const float *rows, const float *query)
{
    enum { K = 20 };
    void *index = built(spec, N_ROWS, rows, DIM);
    struct hits hits = searched_all(spec, index, 1, query, K);
    for (size_t i = 0; i < K; i++) {
        cr_expect(hits.ids[i] >= -1 && hits.ids[i] < N_ROWS, "%s", spec);
        cr_expect(hits.ids[i] < 0 || isfinite(hits.scores[i]), "%s: %g", spec, (double)hits.scores[i]);
    }
    cr_expect_geq(hits.ids[0], 0, "%s", spec);
    hits_free(&hits);
    resolved(spec)->destroy(index);
}

Test(numbers, rows_without_shape)
{
    float *rows = malloc(N_ROWS * DIM * sizeof *rows);
    for (size_t s = 0; s < N_SPECS; s++) {
        const float sizes[] = {0, 1e-30F, strstr(specs[s], "fp16") ? 32500.0F : 1e15F};
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            for (size_t j = 0; j < N_ROWS * DIM; j++) {
                rows[j] = j % 3 ? sizes[i] : -sizes[i];
            }
            check_shapeless(specs[s], rows, rows);
        }
    }
    free(rows);
}

/* ---- order and counts ------------------------------------------------------------------------- */

Test(order, of_calls)
{
    float *rows = clustered(N_ROWS, DIM, 3, 0);
    for (size_t s = 0; s < N_SPECS; s++) {
        const struct memtx_index_operations *operations = resolved(specs[s]);
        void *index = NULL;
        cr_assert_eq(operations->create(&index, specs[s], DIM), 0);
        if (strstr(specs[s], "IVF") || strstr(specs[s], "PQ") || strstr(specs[s], "SQ8")) {
            expect_refused(operations->add(index, 1, rows), MEMTX_E_INVALID, "not trained", specs[s]);
        }
        if (strstr(specs[s], "IVF16") || strstr(specs[s], "PQ4x4")) {
            expect_refused(operations->train(index, 15, rows), MEMTX_E_INVALID, "15 rows to train with, it takes 16",
                           specs[s]);
        }
        cr_assert_eq(operations->train(index, 16, rows), 0, "%s", memtx_last_error());
        cr_assert_eq(operations->add(index, 0, NULL), 0);
        cr_assert_eq(operations->add(index, 1, rows), 0);
        expect_refused(operations->train(index, N_ROWS, rows), MEMTX_E_INVALID, "before the rows", specs[s]);
        operations->destroy(index);
        operations->destroy(NULL);
    }
    free(rows);
}

Test(order, of_ranges)
{
    static const struct memtx_index_range bad[][2] = {
        {{10, 5}, {14, 1}},        {{10, 5}, {0, 2}},         {{0, 1}, {N_ROWS, 1}},
        {{0, 1}, {N_ROWS + 1, 0}}, {{0, 1}, {5, UINT64_MAX}},
    };
    float *rows = clustered(N_ROWS, DIM, 4, 0);
    void *index = built("faiss:Flat", N_ROWS, rows, DIM);
    struct hits hits = hits_make(1, 2);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const struct memtx_index_part part = {index, bad[i], 2};
        expect_refused(resolved("faiss:Flat")->search(hits.scores, hits.ids, &part, 1, 1, rows, 2), MEMTX_E_INVALID,
                       "range 1 holds", "ranges");
    }
    hits_free(&hits);
    resolved("faiss:Flat")->destroy(index);
    free(rows);
}

/* ---- files ------------------------------------------------------------------------------------ */

static FILE *file_of(const unsigned char *bytes, size_t n_bytes)
{
    FILE *file = tmpfile();
    cr_assert_eq(fwrite(bytes, 1, n_bytes, file), n_bytes);
    rewind(file);
    return file;
}

static int load_once(void **index, const char *spec, uint32_t dim, const unsigned char *bytes, size_t n_bytes,
                     uint64_t n_said)
{
    FILE *file = file_of(bytes, n_bytes);
    const int status = resolved(spec)->load(index, spec, dim, file, n_said);
    (void)fclose(file);
    return status;
}

/* A file that ends early, where its owner believes the length that it has, and where not. */
Test(files, cut_anywhere)
{
    float *rows = clustered(N_ROWS, DIM, 5, 0);
    for (size_t s = 0; s < N_SPECS; s++) {
        void *index = built(specs[s], N_ROWS, rows, DIM);
        size_t n_bytes = 0;
        unsigned char *bytes = saved(&n_bytes, specs[s], index);
        resolved(specs[s])->destroy(index);
        for (size_t cut = 0; cut < n_bytes; cut += cut < 300 ? 1 : 997) {
            ignore_leaks(true); /* FAISS loses what it had read when it comes to the end */
            expect_refused(load_once(&index, specs[s], DIM, bytes, cut, cut), MEMTX_E_CORRUPT, "loading an index",
                           specs[s]);
            ignore_leaks(false);
            cr_expect_null(index);
            expect_refused(load_once(&index, specs[s], DIM, bytes, cut, n_bytes), MEMTX_E_CORRUPT, "in a file of",
                           specs[s]);
        }
        expect_refused(load_once(&index, specs[s], DIM, bytes, n_bytes, n_bytes - 1), MEMTX_E_CORRUPT, "belong to it",
                       specs[s]);
        cr_expect_eq(load_once(&index, specs[s], DIM, bytes, n_bytes, n_bytes), 0, "%s", memtx_last_error());
        resolved(specs[s])->destroy(index);
        free(bytes);
    }
    free(rows);
}

Test(files, of_another_type_or_dim)
{
    static const char *const others[] = {"faiss:Flat",      "faiss:SQ8",    "faiss:IVF16,Flat", "faiss:IVF8,Flat",
                                         "faiss:IVF16,SQ8", "faiss:HNSW16", "faiss:HNSW8",      "faiss:HNSW16,SQ8"};
    enum { N_OTHERS = sizeof others / sizeof others[0] };
    float *rows = clustered(2 * N_ROWS, DIM, 6, 0);
    for (size_t s = 0; s < N_OTHERS; s++) {
        void *index = built(others[s], 2 * N_ROWS, rows, DIM);
        size_t n_bytes = 0;
        unsigned char *bytes = saved(&n_bytes, others[s], index);
        resolved(others[s])->destroy(index);
        for (size_t o = 0; o < N_OTHERS; o++) {
            const int status = load_once(&index, others[o], DIM, bytes, n_bytes, n_bytes);
            cr_expect_eq(status, o == s ? 0 : MEMTX_E_MISMATCH, "%s as %s: %d %s", others[s], others[o], status,
                         memtx_last_error());
            resolved(others[s])->destroy(index);
        }
        expect_refused(load_once(&index, others[s], DIM / 2, bytes, n_bytes, n_bytes), MEMTX_E_MISMATCH, "of dim 16",
                       others[s]);
        free(bytes);
    }
    free(rows);
}

/* Our own part, in front of FAISS's: magic, version, dim, lists, then numbers. */
Test(files, with_another_head)
{
    static const struct {
        size_t at;
        unsigned char value[4];
        int status;
    } cases[] = {{0, {'M', 't', 'x', 'f'}, MEMTX_E_CORRUPT},
                 {8, {2, 0, 0, 0}, MEMTX_E_CORRUPT},
                 {12, {16, 0, 0, 0}, MEMTX_E_MISMATCH},
                 {16, {15, 0, 0, 0}, MEMTX_E_MISMATCH},
                 {20, {1, 0, 0, 0}, MEMTX_E_MISMATCH},
                 {24, {0, 0, 0xC0, 0x7F}, MEMTX_E_CORRUPT},
                 {24 + 4 * DIM, {0, 0, 0x80, 0xFF}, MEMTX_E_CORRUPT},
                 {24 + 4 * DIM * 17, {0xFF, 0xFF, 0x7F, 0x7F}, MEMTX_E_CORRUPT}}; /* the first radius */
    float *rows = clustered(N_ROWS, DIM, 12, 0);
    void *index = built("faiss:IVF16,Flat", N_ROWS, rows, DIM);
    size_t n_bytes = 0;
    unsigned char *bytes = saved(&n_bytes, "faiss:IVF16,Flat", index), kept[4];
    resolved("faiss:IVF16,Flat")->destroy(index);
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        memcpy(kept, bytes + cases[c].at, sizeof kept);
        memcpy(bytes + cases[c].at, cases[c].value, sizeof kept);
        cr_expect_eq(load_once(&index, "faiss:IVF16,Flat", DIM, bytes, n_bytes, n_bytes), cases[c].status,
                     "case %zu: %s", c, memtx_last_error());
        cr_expect_null(index);
        memcpy(bytes + cases[c].at, kept, sizeof kept);
    }
    cr_expect_eq(load_once(&index, "faiss:IVF16,Flat", DIM, bytes, n_bytes, n_bytes), 0, "%s", memtx_last_error());
    resolved("faiss:IVF16,Flat")->destroy(index);
    free(bytes);
    free(rows);
}

/* Where the size does not tell. */
Test(files, of_another_dim_and_nearly_the_same_size)
{
    float *rows = scattered(16, 8, 11);
    void *index = built("faiss:PQ1x4", 16, rows, 8);
    size_t n_bytes = 0;
    unsigned char *bytes = saved(&n_bytes, "faiss:PQ1x4", index);
    resolved("faiss:PQ1x4")->destroy(index);
    expect_refused(load_once(&index, "faiss:PQ1x4", 7, bytes, n_bytes, n_bytes), MEMTX_E_MISMATCH, "of dim 7", "PQ1x4");
    cr_expect_null(index);
    free(bytes);
    free(rows);
}

/* What is saved can be loaded, however few and short the rows are: the size that a file must have is an estimate. */
Test(files, of_few_and_short_rows)
{
    static const struct {
        const char *spec;
        size_t n;
        uint32_t dim;
    } cases[] = {
        {"faiss:Flat", 1, 1},       {"faiss:SQ4", 1, 1},
        {"faiss:SQ6", 3, 3},        {"faiss:SQ8", 1, 4096},
        {"faiss:SQfp16", 1, 1},     {"faiss:PQ1x4", 16, 1},
        {"faiss:PQ3x5", 32, 3},     {"faiss:PQ16x4", 16, 16},
        {"faiss:IVF1,Flat", 1, 1},  {"faiss:IVF9,SQ6", 9, 2},
        {"faiss:IVF60,SQ4", 60, 1}, {"faiss:IVF60,PQ1x4", 60, 2},
        {"faiss:HNSW2", 1, 1},      {"faiss:HNSW256", 2, 1},
        {"faiss:HNSW2", 300, 1},    {"faiss:HNSW2,SQ4", 50, 1},
        {"faiss:HNSW16", 20, 1},    {"faiss:HNSW256", 300, 1},
        {"faiss:HNSW3", 7, 2},      {"faiss:HNSW64,SQfp16", 30, 5},
    };
    float *rows = scattered(4096, 1, 10);
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        const char *spec = cases[c].spec;
        void *index = built(spec, cases[c].n, rows, cases[c].dim), *loaded = NULL;
        size_t n_bytes = 0;
        unsigned char *bytes = saved(&n_bytes, spec, index);
        cr_expect_eq(load_once(&loaded, spec, cases[c].dim, bytes, n_bytes, n_bytes), 0, "%s: %s", spec,
                     memtx_last_error());
        struct hits want = searched_all(spec, index, 1, rows, 3);
        if (loaded) {
            struct hits got = searched_all(spec, loaded, 1, rows, 3);
            cr_expect_eq(memcmp(got.ids, want.ids, 3 * sizeof *got.ids), 0, "%s", spec);
            hits_free(&got);
        }
        cr_expect_geq(want.ids[0], 0, "%s", spec);
        hits_free(&want);
        resolved(spec)->destroy(loaded);
        resolved(spec)->destroy(index);
        free(bytes);
    }
    free(rows);
}

Test(files, what_was_loaded_is_neither_added_to_nor_trained_nor_saved)
{
    float *rows = clustered(N_ROWS, DIM, 7, 0);
    for (size_t s = 0; s < N_SPECS; s++) {
        const struct memtx_index_operations *operations = resolved(specs[s]);
        void *index = built(specs[s], N_ROWS, rows, DIM), *loaded = NULL;
        size_t n_bytes = 0;
        unsigned char *bytes = saved(&n_bytes, specs[s], index);
        FILE *file = tmpfile();
        cr_assert_eq(load_once(&loaded, specs[s], DIM, bytes, n_bytes, n_bytes), 0, "%s", memtx_last_error());
        expect_refused(operations->add(loaded, 1, rows), MEMTX_E_INVALID, "takes no rows", specs[s]);
        expect_refused(operations->train(loaded, N_ROWS, rows), MEMTX_E_INVALID, "before the rows", specs[s]);
        expect_refused(operations->save(loaded, file), MEMTX_E_INVALID, "not saved", specs[s]);
        (void)fclose(file);
        free(bytes);
        operations->destroy(loaded);
        operations->destroy(index);
    }
    free(rows);
}

Test(files, that_cannot_be_written_or_mapped)
{
    float *rows = clustered(N_ROWS, DIM, 8, 0);
    void *index = built("faiss:Flat", N_ROWS, rows, DIM), *loaded = &rows;
    void *small = built("faiss:Flat", 1, rows, 1); /* stays in the file's buffer until that is flushed */
    FILE *full = fopen("/dev/full", "wb"), *closed = fopen("/dev/null", "rb");
    cr_assert(full && closed);
    expect_refused(resolved("faiss:Flat")->save(index, full), MEMTX_E_NO_SPACE, "saving an index", "full");
    rewind(full);
    expect_refused(resolved("faiss:Flat")->save(small, full), MEMTX_E_NO_SPACE, "saving an index", "full");
    expect_refused(resolved("faiss:Flat")->save(index, closed), MEMTX_E_IO, "saving an index", "read only");
    expect_refused(resolved("faiss:Flat")->load(&loaded, "faiss:Flat", DIM, closed, 10), MEMTX_E_INVALID,
                   "not a regular file", "device");
    cr_expect_null(loaded);
    (void)fclose(full);
    (void)fclose(closed);
    resolved("faiss:Flat")->destroy(small);
    resolved("faiss:Flat")->destroy(index);
    free(rows);
}

/* ---- silence ---------------------------------------------------------------------------------- */

/* The fewest rows that each type takes: FAISS's k-means would say on stderr that they are few. */
Test(silence, nothing_is_printed)
{
    FILE *said = tmpfile();
    float *rows = clustered(N_ROWS, DIM, 9, 0);
    const int out = dup(1), err = dup(2);
    (void)fflush(NULL);
    cr_assert(dup2(fileno(said), 1) == 1 && dup2(fileno(said), 2) == 2);
    for (size_t s = 0; s < N_SPECS; s++) {
        void *index = NULL;
        if (resolved(specs[s])->create(&index, specs[s], DIM) == 0 && resolved(specs[s])->train(index, 16, rows) == 0 &&
            resolved(specs[s])->add(index, N_ROWS, rows) == 0) {
            struct hits hits = searched_all(specs[s], index, 30, rows, 5);
            hits_free(&hits);
        }
        resolved(specs[s])->destroy(index);
        (void)load_once(&index, specs[s], DIM, (const unsigned char *)rows, 500, 500);
    }
    (void)fflush(NULL);
    cr_assert(dup2(out, 1) == 1 && dup2(err, 2) == 2);
    const long n_bytes = lseek(fileno(said), 0, SEEK_END);
    cr_expect_eq(n_bytes, 0, "%ld bytes were printed", n_bytes);
    (void)fclose(said);
    free(rows);
}
