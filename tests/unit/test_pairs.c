/* Stores that keep some (layer, kv head) pairs: attention to those is what it is over a store of all pairs, to the bit,
 * and every other head finds nothing, so that a model reads on with local attention; only they are on disk; what differs
 * from what is asked for, or is damaged, is named. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/rng.h"
#include "memory/memory.h"
#include "store/records.h"
#include "store/tables.h"
#include "tiny_model.h"

enum { L = 4, H = 6, G = 3, D = 16, GROUP = H / G, SEGMENT = 500, N_SEGMENTS = 9, CHUNK_ROWS = 2040 };
enum { N_ROWS = SEGMENT * N_SEGMENTS, N_CHUNKS = (N_ROWS + CHUNK_ROWS - 1) / CHUNK_ROWS, N_Q = 8, K = 12 };

/* Of layers 0 to 3. */
static const uint64_t some_heads[L] = {2, 0, 5, 7};
enum { N_PAIRS = 1 + 2 + 3 };

static char folder[64], path[96], other[96];

static void make_folder(void)
{
    (void)snprintf(folder, sizeof folder, "/tmp/memtx-pairs-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/store", folder);
    (void)snprintf(other, sizeof other, "%s/copy", folder);
}

static void remove_folder(void)
{
    char command[96];
    (void)snprintf(command, sizeof command, "rm -r %s", folder);
    cr_assert_eq(system(command), 0);
}

static struct memtx_store_spec spec_of(bool all)
{
    struct memtx_store_spec spec = {.fingerprint = "fingerprint",
                                    .n_layers = L,
                                    .n_heads = H,
                                    .n_kv_heads = G,
                                    .head_size = D,
                                    .rope_dims = D,
                                    .rope_base = 10000.0,
                                    .scale = 0.25F,
                                    .row_type = MEMTX_ROWS_F16};
    for (uint32_t layer = 0; layer < L; layer++) {
        if (all) {
            memtx_store_keep_layer(&spec, layer);
        } else {
            spec.heads_kept[layer] = some_heads[layer];
        }
    }
    return spec;
}

static void done(int status)
{
    cr_assert_eq(status, MEMTX_OK, "%d: %s", status, memtx_last_error());
}

static void refused(int status, int wanted, const char *piece)
{
    cr_assert_eq(status, wanted, "%d: %s", status, memtx_last_error());
    cr_assert(strstr(memtx_last_error(), piece), "\"%s\" does not hold \"%s\"", memtx_last_error(), piece);
}

static memtx_store *open_store(const char *at, bool all)
{
    const struct memtx_store_spec spec = spec_of(all);
    memtx_store *store;
    done(memtx_store_open(&store, at, &spec, NULL));
    return store;
}

static memtx_memory *open_memory(memtx_store *store, bool reader, enum memtx_retrieval retrieval)
{
    struct memtx_memory_options options = memtx_memory_options_default();
    memtx_memory *memory;
    options.k = K;
    options.delta = 300;
    options.most_tokens = SEGMENT;
    options.reader = reader;
    options.scope = reader ? MEMTX_SCOPE_ALL : MEMTX_SCOPE_DOCUMENT;
    options.retrieval = retrieval;
    done(memtx_memory_open(&memory, store, &options));
    return memory;
}

static void append_segment(memtx_memory *memory, const struct memtx_store_spec *spec, uint64_t segment)
{
    static float rows[2][SEGMENT * G * D];
    uint32_t tokens[SEGMENT];
    uint64_t positions[SEGMENT];
    for (size_t t = 0; t < SEGMENT; t++) {
        tokens[t] = (uint32_t)t;
        positions[t] = segment * SEGMENT + t;
    }
    for (uint32_t layer = 0; layer < L; layer++) {
        struct memtx__rng rng = memtx__rng_create(layer, segment);
        for (size_t i = 0; i < 2 * SEGMENT * G * D; i++) {
            rows[i & 1][i / 2] = memtx__rng_signed(&rng);
        }
        if (spec->heads_kept[layer]) {
            done(memtx_memory_append(memory, layer, SEGMENT, rows[0], rows[1], tokens, positions));
        }
    }
    done(memtx_memory_commit(memory));
}

/* One document, "text", of two chunks and a bit. */
static void fill(memtx_store *store)
{
    struct memtx_store_facts facts;
    memtx_memory *memory = open_memory(store, false, MEMTX_RETRIEVAL_EXACT);
    memtx_store_info(&facts, store);
    cr_assert_eq(facts.chunk_rows, CHUNK_ROWS);
    done(memtx_memory_begin_document(memory, "text"));
    for (uint64_t segment = 0; segment < N_SEGMENTS; segment++) {
        append_segment(memory, &facts.spec, segment);
    }
    done(memtx_memory_end_document(memory, NULL));
    memtx_memory_close(memory);
}

/* ---- attending -------------------------------------------------------------------------------- */

struct answer {
    float V[N_Q][H][D], LSE[N_Q][H];
    struct memtx_hit hits[N_Q][H][K];
};

static int ask(struct answer *out, memtx_memory *memory, uint32_t layer)
{
    static float queries[N_Q * H * D];
    uint64_t positions[N_Q];
    struct memtx__rng rng = memtx__rng_create(99, layer);
    for (size_t i = 0; i < N_Q * H * D; i++) {
        queries[i] = 2.0F * memtx__rng_signed(&rng);
        positions[i / H / D] = N_ROWS + i / H / D;
    }
    memset(out, 0x55, sizeof *out);
    return memtx_memory_attend(out->V[0][0], out->LSE[0], out->hits[0][0], memory, layer, N_Q, queries, positions);
}

static void check_head(const struct answer *found, const struct answer *all, size_t q, size_t head, bool kept)
{
    static const float zero[D];
    if (kept) {
        cr_assert_eq(memcmp(found->V[q][head], all->V[q][head], sizeof zero), 0);
        cr_assert_eq(found->LSE[q][head], all->LSE[q][head]);
        cr_assert(isfinite(found->LSE[q][head]));
    } else {
        cr_assert_eq(memcmp(found->V[q][head], zero, sizeof zero), 0);
        cr_assert_eq(found->LSE[q][head], -INFINITY);
    }
    for (size_t j = 0; j < K; j++) {
        const struct memtx_hit *hit = &found->hits[q][head][j];
        cr_assert_eq(hit->row, kept ? all->hits[q][head][j].row : -1);
        cr_assert_eq(hit->logit, kept ? all->hits[q][head][j].logit : -INFINITY);
    }
}

/* The blend leaves local attention where nothing was found, and there alone. */
static void check_blend(const struct answer *found, uint32_t layer)
{
    static float local[N_Q][H][D], local_lse[N_Q][H], out[N_Q][H][D];
    const struct memtx_gate gate = {.mode = MEMTX_BLEND_JOINT};
    for (size_t i = 0; i < N_Q * H * D; i++) {
        local[i / D / H][i / D % H][i % D] = (float)i;
    }
    memtx_blend(out[0][0], local[0][0], local_lse[0], found->V[0][0], found->LSE[0], &gate, N_Q, H, D);
    for (size_t i = 0; i < N_Q * H; i++) {
        const bool same = memcmp(out[i / H][i % H], local[i / H][i % H], sizeof local[0][0]) == 0;
        cr_assert_eq(same, !(some_heads[layer] >> i % H / GROUP & 1));
    }
}

/* Every layer of a store of some pairs against one of all, asked in the same way. */
static void check_answers(memtx_store *some, memtx_store *all)
{
    static struct answer found, wanted;
    for (int retrieval = MEMTX_RETRIEVAL_EXACT; retrieval <= MEMTX_RETRIEVAL_RANDOM; retrieval++) {
        memtx_memory *of_some = open_memory(some, true, (enum memtx_retrieval)retrieval);
        memtx_memory *of_all = open_memory(all, true, (enum memtx_retrieval)retrieval);
        done(memtx_memory_begin_segment(of_some));
        done(memtx_memory_begin_segment(of_all));
        cr_assert_eq(memtx_memory_n_visible(of_some), N_ROWS);
        for (uint32_t layer = 0; layer < L; layer++) {
            if (!some_heads[layer]) {
                refused(ask(&found, of_some, layer), MEMTX_E_INVALID, "layer 1 is not kept");
                continue;
            }
            done(ask(&found, of_some, layer));
            done(ask(&wanted, of_all, layer));
            for (size_t i = 0; i < N_Q * H; i++) {
                check_head(&found, &wanted, i / H, i % H, some_heads[layer] >> i % H / GROUP & 1);
            }
            check_blend(&found, layer);
        }
        memtx_memory_close(of_some);
        memtx_memory_close(of_all);
    }
}

Test(pairs, heads_that_are_kept_answer_as_if_all_were, .init = make_folder, .fini = remove_folder)
{
    memtx_store *all = open_store(NULL, true), *some = open_store(NULL, false);
    fill(all);
    fill(some);
    check_answers(some, all);
    done(memtx_store_close(some));
    some = open_store(path, false);
    fill(some);
    check_answers(some, all);
    done(memtx_store_close(some));
    for (int turn = 0; turn < 2; turn++) { /* opened again, by its spec and as it is; then its copy */
        const struct memtx_store_spec spec = spec_of(false);
        done(memtx_store_open(&some, turn ? other : path, turn ? NULL : &spec, NULL));
        check_answers(some, all);
        done(memtx_store_verify(some, NULL));
        if (!turn) {
            done(memtx_store_compact(some, other, NULL));
        }
        done(memtx_store_close(some));
    }
    done(memtx_store_close(all));
}

/* The chunk that is not full goes on where it was, in each pair. */
Test(pairs, appending_goes_on_after_opening_again, .init = make_folder, .fini = remove_folder)
{
    const struct memtx_store_spec spec = spec_of(false);
    memtx_store *all = open_store(NULL, true), *some;
    fill(all);
    for (uint64_t segment = 0; segment < N_SEGMENTS; segment++) {
        some = open_store(path, false);
        memtx_memory *memory = open_memory(some, false, MEMTX_RETRIEVAL_EXACT);
        done(segment ? memtx_memory_reopen_document(memory, "text") : memtx_memory_begin_document(memory, "text"));
        done(memtx_memory_set_state(memory, "state", 5, (segment + 1) * SEGMENT, (const uint8_t[16]){0}));
        append_segment(memory, &spec, segment);
        memtx_memory_close(memory);
        done(memtx_store_close(some));
    }
    some = open_store(path, false);
    check_answers(some, all);
    done(memtx_store_close(some));
    done(memtx_store_close(all));
}

Test(pairs, rows_of_a_pair_that_is_not_kept_are_not_to_be_had)
{
    static float found[2][D], wanted[2][D];
    const int64_t id = 2041;
    const unsigned char *rows;
    memtx_store *all = open_store(NULL, true), *some = open_store(NULL, false);
    memtx_memory *of_none = open_memory(some, true, MEMTX_RETRIEVAL_EXACT);
    done(memtx_memory_begin_segment(of_none));
    refused(memtx_memory_gather(found[0], NULL, of_none, 2, 1, 0, NULL), MEMTX_E_INVALID, "layer 2, kv head 1");
    memtx_memory_close(of_none);
    fill(all);
    fill(some);
    memtx_memory *of_some = open_memory(some, true, MEMTX_RETRIEVAL_EXACT);
    memtx_memory *of_all = open_memory(all, true, MEMTX_RETRIEVAL_EXACT);
    done(memtx_memory_begin_segment(of_some));
    done(memtx_memory_begin_segment(of_all));
    for (uint32_t i = 0; i < L * G; i++) {
        const uint32_t layer = i / G, head = i % G;
        char piece[64];
        int status = memtx_memory_gather(found[0], found[1], of_some, layer, head, 1, &id);
        if (some_heads[layer] >> head & 1) {
            done(status);
            done(memtx_memory_gather(wanted[0], wanted[1], of_all, layer, head, 1, &id));
            cr_assert_eq(memcmp(found, wanted, sizeof found), 0);
        } else {
            (void)snprintf(piece, sizeof piece, some_heads[layer] ? "layer %u, kv head %u is not kept" : "layer %u is",
                           layer, head);
            refused(status, MEMTX_E_INVALID, piece);
        }
    }
    refused(memtx__view_chunk(&rows, &of_some->view, MEMTX__KEYS, 2, 1, 0), MEMTX_E_INVALID, "layer 2, kv head 1");
    memtx_memory_close(of_some);
    memtx_memory_close(of_all);
    done(memtx_store_close(some));
    done(memtx_store_close(all));
}

/* What is not stored need not fit. */
Test(pairs, numbers_of_a_pair_that_is_not_kept_may_be_any)
{
    static float keys[G * D], values[G * D];
    const uint32_t token = 1;
    const uint64_t position = 0;
    memtx_store *store = open_store(NULL, false);
    memtx_memory *memory = open_memory(store, false, MEMTX_RETRIEVAL_EXACT);
    done(memtx_memory_begin_document(memory, "text"));
    values[1 * D + 3] = NAN; /* layer 2 keeps kv heads 0 and 2 */
    done(memtx_memory_append(memory, 2, 1, keys, values, &token, &position));
    keys[2 * D + 3] = 1e6F;
    refused(memtx_memory_append(memory, 2, 1, keys, values, &token, &position), MEMTX_E_INVALID, "layer 2, kv head 2");
    memtx_memory_close(memory);
    done(memtx_store_close(store));
}

/* ---- a model that reads with them ------------------------------------------------------------- */

enum { N_TOKENS = 600 };

static uint32_t tokens[N_TOKENS];

/* NLL with a memory at layers 1 and 2 that keeps these kv heads there. */
static void read_text(float nll[N_TOKENS], const memtx_model *model, uint64_t heads, const float *bias)
{
    struct memtx_store_spec spec;
    struct memtx_memory_options chosen = memtx_memory_options_default();
    struct memtx_stream_options options = memtx_stream_options_default();
    memtx_store *store;
    memtx_memory *memory;
    memtx_model_store_spec(&spec, model);
    spec.heads_kept[1] = spec.heads_kept[2] = heads;
    chosen.k = 8;
    done(memtx_store_open(&store, NULL, &spec, NULL));
    done(memtx_memory_open(&memory, store, &chosen));
    options.mode = MEMTX_MODE_MEMORY;
    options.memory = memory;
    options.window = 48;
    options.segment = 16;
    options.sinks = 2;
    options.gate = (struct memtx_gate){.mode = MEMTX_BLEND_BIAS, .bias = bias};
    tiny_nll(nll, model, &options, tokens, N_TOKENS);
    memtx_memory_close(memory);
    done(memtx_store_close(store));
}

/* A kv head that is not kept does what gates do that are closed for its query heads. */
Test(pairs, a_model_reads_as_with_closed_gates)
{
    static const float closed[2][6] = {{0, 0, 0, -1e30F, -1e30F, -1e30F}, {-1e30F, -1e30F, -1e30F, 0, 0, 0}};
    static float found[N_TOKENS], wanted[N_TOKENS], all[N_TOKENS];
    const struct tiny_options tiny = tiny_options_default();
    memtx_model *model = tiny_model_load(&tiny);
    tiny_tokens(tokens, N_TOKENS, 23);
    read_text(all, model, 3, NULL);
    for (unsigned head = 0; head < 2; head++) {
        read_text(found, model, (uint64_t)1 << head, NULL);
        read_text(wanted, model, 3, closed[head]);
        cr_assert_eq(memcmp(found, wanted, (N_TOKENS - 1) * sizeof *found), 0, "kv head %u: %g", head,
                     largest_difference(found, wanted, N_TOKENS - 1));
        cr_assert_gt(mean_difference(found, all, N_TOKENS - 1), 1e-3);
    }
    memtx_model_close(model);
}

/* ---- on disk ---------------------------------------------------------------------------------- */

static void change(MDB_txn **txn, MDB_env **env)
{
    cr_assert_eq(mdb_env_create(env), 0);
    cr_assert_eq(mdb_env_set_maxdbs(*env, MEMTX__N_DATABASES), 0);
    cr_assert_eq(mdb_env_set_mapsize(*env, (size_t)1 << 28), 0);
    cr_assert_eq(mdb_env_open(*env, path, 0, 0600), 0);
    cr_assert_eq(mdb_txn_begin(*env, NULL, 0, txn), 0);
}

/* With the state record that every transaction writes. */
static void end_change(MDB_txn *txn, MDB_env *env)
{
    MDB_dbi meta;
    MDB_val key = memtx__text_key("state"), value;
    struct memtx__state state;
    unsigned char record[MEMTX__STATE_BYTES];
    cr_assert_eq(mdb_dbi_open(txn, "meta", 0, &meta), 0);
    cr_assert_eq(mdb_get(txn, meta, &key, &value), 0);
    done(memtx__state_decode(&state, value.mv_data, value.mv_size));
    state.transaction = mdb_txn_id(txn);
    memtx__state_encode(record, &state);
    value = (MDB_val){sizeof record, record};
    cr_assert_eq(mdb_put(txn, meta, &key, &value, 0), 0);
    cr_assert_eq(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

static size_t n_records(MDB_txn *txn, const char *table)
{
    MDB_dbi dbi;
    MDB_stat facts;
    cr_assert_eq(mdb_dbi_open(txn, table, 0, &dbi), 0);
    cr_assert_eq(mdb_stat(txn, dbi, &facts), 0);
    return facts.ms_entries;
}

Test(pairs, only_they_are_on_disk, .init = make_folder, .fini = remove_folder)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi keys;
    MDB_val key, value;
    unsigned char name[MEMTX__CHUNK_KEY_BYTES], *chunk = malloc(MEMTX__CHUNK_BYTES);
    memtx_store *store = open_store(path, false);
    fill(store);
    done(memtx_store_close(store));
    change(&txn, &env);
    cr_assert_eq(n_records(txn, "keys"), N_CHUNKS * N_PAIRS);
    cr_assert_eq(n_records(txn, "values"), N_CHUNKS * N_PAIRS);
    /* Then a whole chunk of one more. */
    const struct memtx__chunk_facts facts = {MEMTX__KEYS, 0, CHUNK_ROWS, 2 * D, 2, 1};
    memset(chunk, 0, MEMTX__CHUNK_BYTES);
    memtx__chunk_cover(chunk, 0, facts.n_rows, facts.row_bytes);
    memtx__chunk_encode(chunk, &facts);
    key = memtx__chunk_key(name, 0, 2, 1);
    value = (MDB_val){MEMTX__CHUNK_BYTES, chunk};
    cr_assert_eq(mdb_dbi_open(txn, "keys", 0, &keys), 0);
    cr_assert_eq(mdb_put(txn, keys, &key, &value, 0), 0);
    end_change(txn, env);
    free(chunk);
    store = open_store(path, false);
    refused(memtx_store_verify(store, NULL), MEMTX_E_CORRUPT, "table keys has a record that nobody wrote");
    refused(memtx_store_compact(store, other, NULL), MEMTX_E_CORRUPT, "layer 2, kv head 1");
    done(memtx_store_close(store));
}

Test(pairs, a_removed_document_takes_their_chunks, .init = make_folder, .fini = remove_folder)
{
    MDB_env *env;
    MDB_txn *txn;
    memtx_store *store = open_store(path, false);
    fill(store);
    done(memtx_store_remove_document(store, "text"));
    done(memtx_store_verify(store, NULL));
    done(memtx_store_close(store));
    change(&txn, &env);
    cr_assert_eq(n_records(txn, "keys"), N_PAIRS, "the chunk that is being filled stays");
    cr_assert_eq(n_records(txn, "values"), N_PAIRS);
    mdb_txn_abort(txn);
    mdb_env_close(env);
}

/* ---- what the store is for -------------------------------------------------------------------- */

Test(pairs, the_difference_is_named, .init = make_folder, .fini = remove_folder)
{
    static const struct {
        uint32_t layer;
        uint64_t heads;
        const char *piece;
    } asked[] = {
        {0, 0, "keeps layer 0, which is not asked for"},
        {1, 4, "does not keep layer 1, which is asked for"},
        {2, 4, "keeps kv head 0 of layer 2, which is not asked for"},
        {2, 7, "does not keep kv head 1 of layer 2, which is asked for"},
        {3, 3, "keeps kv head 2 of layer 3, which is not asked for"},
    };
    memtx_store *store = open_store(path, false);
    done(memtx_store_close(store));
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++) {
        struct memtx_store_spec spec = spec_of(false);
        spec.heads_kept[asked[i].layer] = asked[i].heads;
        refused(memtx_store_open(&store, path, &spec, NULL), MEMTX_E_MISMATCH, asked[i].piece);
    }
    done(memtx_store_close(open_store(path, false)));
}

Test(pairs, out_of_range)
{
    memtx_store *store;
    struct memtx_store_spec spec = spec_of(false);
    spec.heads_kept[2] |= 8;
    refused(memtx_store_open(&store, NULL, &spec, NULL), MEMTX_E_INVALID, "layer 2: kv heads d");
    spec = spec_of(false);
    spec.heads_kept[L] = 1;
    refused(memtx_store_open(&store, NULL, &spec, NULL), MEMTX_E_INVALID, "layer 4 of a model of 4");
    spec = spec_of(false);
    spec.n_heads = spec.n_kv_heads = MEMTX_MAX_KV_HEADS - 1;
    spec.heads_kept[2] = (uint64_t)1 << 63;
    refused(memtx_store_open(&store, NULL, &spec, NULL), MEMTX_E_INVALID, "layer 2: kv heads 8000");
    spec.n_heads = spec.n_kv_heads = MEMTX_MAX_KV_HEADS + 1;
    refused(memtx_store_open(&store, NULL, &spec, NULL), MEMTX_E_INVALID, "65 kv heads (1 to 64 can be)");
}

/* As many layers and kv heads as can be: the record is longer than LMDB's pages. */
Test(pairs, the_last_ones_there_can_be, .init = make_folder, .fini = remove_folder)
{
    struct memtx_store_spec spec = spec_of(false);
    struct memtx_store_facts facts;
    memtx_store *store;
    spec.n_layers = MEMTX_MAX_LAYERS;
    spec.n_heads = spec.n_kv_heads = MEMTX_MAX_KV_HEADS;
    memtx_store_keep_layer(&spec, 0);
    spec.heads_kept[MEMTX_MAX_LAYERS - 1] = (uint64_t)1 << 63;
    for (int turn = 0; turn < 2; turn++) {
        done(memtx_store_open(&store, path, &spec, NULL));
        memtx_store_info(&facts, store);
        cr_assert_eq(memcmp(facts.spec.heads_kept, spec.heads_kept, sizeof spec.heads_kept), 0);
        cr_assert(memtx_store_keeps(&facts.spec, MEMTX_MAX_LAYERS - 1, 63));
        cr_assert(!memtx_store_keeps(&facts.spec, MEMTX_MAX_LAYERS - 1, 62));
        cr_assert(!memtx_store_keeps(&facts.spec, 0, 64));
        cr_assert(!memtx_store_keeps(&facts.spec, MEMTX_MAX_LAYERS, 0));
        done(memtx_store_verify(store, NULL));
        done(memtx_store_close(store));
    }
}

/* A record with a right checksum, put in the place of the store's. */
static void replace_spec(const unsigned char *record, size_t n_bytes)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi meta;
    MDB_val key = memtx__text_key("spec"), value = {n_bytes, (void *)(uintptr_t)record};
    change(&txn, &env);
    cr_assert_eq(mdb_dbi_open(txn, "meta", 0, &meta), 0);
    cr_assert_eq(mdb_put(txn, meta, &key, &value, 0), 0);
    end_change(txn, env);
}

static void seal(unsigned char *record, size_t n_bytes)
{
    memtx__put_u32(record + 12, 0);
    memtx__put_u32(record + 12, memtx__crc32c(0, record, n_bytes));
}

Test(pairs, records_that_make_no_sense, .init = make_folder, .fini = remove_folder)
{
    static unsigned char record[MEMTX__MOST_SPEC_BYTES];
    memtx_store *store = open_store(path, false);
    done(memtx_store_close(store));
    for (int i = 0; i < 7; i++) {
        struct memtx_store_spec spec = spec_of(false);
        const char *piece = "makes no sense";
        spec.heads_kept[2] |= i == 0 ? 8 : 0;
        spec.heads_kept[3] |= i == 1 ? (uint64_t)1 << 63 : 0;
        memset(spec.heads_kept, 0, i == 2 ? sizeof spec.heads_kept : 0);
        size_t n_bytes = memtx__spec_encode(record, &spec, CHUNK_ROWS);
        cr_assert_eq(n_bytes, MEMTX__SPEC_BYTES + 8 * L);
        if (i == 3) { /* says more layers than it has room for */
            memtx__put_u32(record + 32, L + 1);
            piece = "864 bytes in place of 872";
        } else if (i == 4) { /* has no pairs, as version 1 */
            n_bytes = MEMTX__SPEC_BYTES;
            piece = "832 bytes in place of 864";
        } else if (i == 5) { /* more layers than any model */
            n_bytes = sizeof record;
            memtx__put_u32(record + 32, MEMTX_MAX_LAYERS + 1);
            piece = "4928 bytes in place of 4936";
        } else if (i == 6) {
            n_bytes = MEMTX__SPEC_BYTES - 1;
            piece = "831 bytes in place of 832";
        }
        seal(record, n_bytes);
        replace_spec(record, n_bytes);
        refused(memtx_store_open(&store, path, NULL, NULL), MEMTX_E_CORRUPT, piece);
    }
    const struct memtx_store_spec spec = spec_of(false);
    replace_spec(record, memtx__spec_encode(record, &spec, CHUNK_ROWS));
    done(memtx_store_close(open_store(path, false)));
}

/* More layers than any model, and room for them. */
Test(pairs, a_record_longer_than_any)
{
    enum { N_BYTES = MEMTX__SPEC_BYTES + 8 * (MEMTX_MAX_LAYERS + 1) };
    static unsigned char record[N_BYTES];
    struct memtx_store_spec spec = spec_of(false);
    uint32_t version, chunk_rows;
    (void)memtx__spec_encode(record, &spec, CHUNK_ROWS);
    memtx__put_u32(record + 32, MEMTX_MAX_LAYERS + 1);
    seal(record, N_BYTES);
    refused(memtx__spec_decode(&spec, &version, &chunk_rows, record, N_BYTES), MEMTX_E_CORRUPT, "513 layers");
}

/* Version 1 kept whole layers, of up to 256 kv heads. */
Test(pairs, a_record_of_version_1)
{
    static unsigned char record[MEMTX__MOST_SPEC_BYTES];
    struct memtx_store_spec spec = spec_of(false);
    uint32_t version, chunk_rows;
    (void)memtx__spec_encode(record, &spec, CHUNK_ROWS);
    memtx__put_u32(record + 8, 1);
    record[72] = 1 << 0 | 1 << 2;
    seal(record, MEMTX__SPEC_BYTES);
    done(memtx__spec_decode(&spec, &version, &chunk_rows, record, MEMTX__SPEC_BYTES));
    cr_assert_eq(version, 1);
    for (uint32_t layer = 0; layer < MEMTX_MAX_LAYERS; layer++) {
        cr_assert_eq(spec.heads_kept[layer], layer == 0 || layer == 2 ? 7 : 0);
    }
    memtx__put_u32(record + 36, 65);
    memtx__put_u32(record + 40, 65);
    seal(record, MEMTX__SPEC_BYTES);
    refused(memtx__spec_decode(&spec, &version, &chunk_rows, record, MEMTX__SPEC_BYTES), MEMTX_E_UNSUPPORTED,
            "65 kv heads");
}

static void check_text(const struct memtx_store_spec *spec, const char *wanted)
{
    char text[256] = "";
    FILE *file = fmemopen(text, sizeof text, "w");
    cr_assert_not_null(file);
    memtx_store_print_pairs(file, spec);
    (void)fclose(file);
    cr_assert_str_eq(text, wanted);
}

Test(pairs, as_text)
{
    struct memtx_store_spec spec = {.n_layers = 30, .n_heads = 8, .n_kv_heads = 8};
    for (uint32_t layer = 15; layer < 30; layer++) {
        memtx_store_keep_layer(&spec, layer);
    }
    check_text(&spec, "15-29, all heads");
    memtx_store_keep_layer(&spec, 12);
    check_text(&spec, "12,15-29, all heads");
    spec.heads_kept[0] = spec.heads_kept[1] = spec.heads_kept[3] = 0x8B;
    spec.heads_kept[4] = 2;
    check_text(&spec, "0-1,3, kv heads 0-1,3,7; 4, kv heads 1; 12,15-29, all heads");
    spec.heads_kept[29] = 0xF0;
    check_text(&spec, "0-1,3, kv heads 0-1,3,7; 4, kv heads 1; 12,15-28, all heads; 29, kv heads 4-7");
    spec = (struct memtx_store_spec){.n_layers = 1, .n_heads = 64, .n_kv_heads = 64};
    memtx_store_keep_layer(&spec, 0);
    check_text(&spec, "0, all heads");
    spec.heads_kept[0] = (uint64_t)3 << 62;
    check_text(&spec, "0, kv heads 62-63");
}
