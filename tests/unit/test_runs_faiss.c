/* Every kind of index that FAISS gives, in runs: whatever scope, capacity and removals leave visible, each query gets
 * min(k, visible) rows, all of them visible, none twice, each with the logit that its stored key has. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "hand.h"
#include "indexes.h"

enum { RUN = 2040, N_DOCUMENTS = 5 };

static const char *const specs[] = {
    "faiss:Flat",  "faiss:IVF64,Flat@nprobe=1", "faiss:IVF16,SQ8@nprobe=1", "faiss:SQ8",
    "faiss:PQ4x4", "faiss:IVF8,PQ4x4@nprobe=2", "faiss:HNSW8,SQfp16",       "faiss:HNSW16@efSearch=32"};

static char folder[64], path[128];

static void make_folder(void)
{
    (void)snprintf(folder, sizeof folder, "/tmp/memtx-faiss-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/store", folder);
}

static void remove_folder(void)
{
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf %s", folder);
    cr_assert_eq(system(command), 0); /* NOLINT(cert-env33-c): a test's own folder */
}

/* Whether a row lies in a document of the scope that the capacity has left in sight. */
struct scope {
    bool sees[N_DOCUMENTS];
    uint64_t first[N_DOCUMENTS], n_rows[N_DOCUMENTS];
    uint64_t first_row;
};

static bool is_visible(const struct scope *scope, uint64_t row)
{
    for (size_t d = 0; d < N_DOCUMENTS; d++) {
        if (row >= scope->first[d] && row < scope->first[d] + scope->n_rows[d]) {
            return scope->sees[d] && row >= scope->first_row;
        }
    }
    return false;
}

static uint64_t n_visible(const struct scope *scope)
{
    uint64_t n = 0;
    for (size_t d = 0; d < N_DOCUMENTS; d++) {
        for (uint64_t row = scope->first[d]; row < scope->first[d] + scope->n_rows[d]; row++) {
            n += is_visible(scope, row);
        }
    }
    return n;
}

/* Positions are off in these stores: the logit is the scaled product. */
static void check_hits(const struct hand *hand, const struct scope *scope, const char *spec)
{
    const size_t k = hand->options.k, n = n_visible(scope) < k ? (size_t)n_visible(scope) : k;
    for (size_t q = 0; q < MOST_Q; q++) {
        for (size_t head = 0; head < H; head++) {
            const struct memtx_hit *found = hits_of(hand, q, head);
            for (size_t i = 0; i < k; i++) {
                cr_assert_eq(found[i].row >= 0, i < n, "%s: hit %zu of %zu", spec, i, n);
                if (i >= n) {
                    continue;
                }
                cr_assert(is_visible(scope, (uint64_t)found[i].row), "%s: row %lld", spec, (long long)found[i].row);
                double logit = 0;
                for (size_t d = 0; d < D; d++) {
                    logit += (double)queries[q][head][d] *
                             (double)hand->keys[((size_t)found[i].row * G + head / GROUP) * D + d];
                }
                cr_assert_float_eq((double)found[i].logit, logit * (double)hand->spec.scale, logit_tolerance);
                for (size_t j = 0; j < i; j++) {
                    cr_assert_neq(found[i].row, found[j].row, "%s", spec);
                }
            }
        }
    }
}

static struct hand open_hand(const char *spec, uint64_t capacity)
{
    struct hand hand = hand_default();
    hand.path = path;
    hand.is_kept = true;
    hand.spec.rope_dims = 0;
    hand.store_options.capacity_rows = capacity;
    hand.options.k = 60; /* more than a list of the IVF64 holds: the caller has to fill up */
    hand.options.index = spec;
    hand.options.resolve_index = memtx_index_resolve;
    hand.options.run_rows = RUN;
    hand.options.scope = MEMTX_SCOPE_ALL;
    hand_open(&hand);
    memtx_memory_abandon_document(hand.memory);
    return hand;
}

/* Documents of all sizes: some within a run, one over several. */
static void fill(struct hand *hand, struct scope *scope)
{
    static const size_t sizes[N_DOCUMENTS] = {30, 2 * RUN, 7, 1500, 1200};
    static const char *const names[N_DOCUMENTS] = {"a", "b", "c", "d", "e"};
    for (size_t d = 0; d < N_DOCUMENTS; d++) {
        scope->first[d] = hand->n_rows;
        scope->n_rows[d] = sizes[d];
        cr_assert_eq(memtx_memory_begin_document(hand->memory, names[d]), MEMTX_OK);
        for (size_t done = 0; done < sizes[d]; done += 500) {
            hand_append(hand, sizes[d] - done < 500 ? sizes[d] - done : 500, done);
        }
        cr_assert_eq(memtx_memory_end_document(hand->memory, NULL), MEMTX_OK);
    }
    cr_assert_eq(memtx_memory_seal(hand->memory, NULL), MEMTX_OK, "%s", memtx_last_error());
}

/* Asks with the documents of a mask in scope. */
static void ask(struct hand *hand, struct scope *scope, unsigned mask, const char *spec)
{
    static const char *const names[N_DOCUMENTS] = {"a", "b", "c", "d", "e"};
    const char *chosen[N_DOCUMENTS];
    size_t n = 0;
    for (size_t d = 0; d < N_DOCUMENTS; d++) {
        scope->sees[d] = mask >> d & 1;
        if (scope->sees[d]) {
            chosen[n++] = names[d];
        }
    }
    memtx_memory_close(hand->memory);
    hand->options.scope = n ? MEMTX_SCOPE_NAMED : MEMTX_SCOPE_DOCUMENT;
    hand->options.scope_names = chosen;
    hand->options.n_scope_names = n;
    cr_assert_eq(memtx_memory_open(&hand->memory, hand->store, &hand->options), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(memtx_memory_begin_document(hand->memory, "asks"), MEMTX_OK);
    hand_attend(hand, MOST_Q, 100000, mask);
    check_hits(hand, scope, spec);
    cr_assert_eq(*memtx_memory_warning(hand->memory), '\0', "%s", memtx_memory_warning(hand->memory));
}

/* Every other kind with a capacity. */
Test(runs_faiss, what_is_visible_comes_back, .init = make_folder, .fini = remove_folder)
{
    static const unsigned masks[] = {0x1F, 0x01, 0x02, 0x04, 0x18, 0x1A, 0x00};
    for (size_t s = 0; s < sizeof specs / sizeof specs[0]; s++) {
        const uint64_t capacity = s % 2 ? 2 * RUN + 555 : 0;
        struct scope scope = {0};
        struct hand hand = open_hand(specs[s], capacity);
        fill(&hand, &scope);
        scope.first_row = capacity ? hand.n_rows - capacity : 0;
        for (size_t i = 0; i < sizeof masks / sizeof masks[0]; i++) {
            ask(&hand, &scope, masks[i], specs[s]);
        }
        memtx_memory_close(hand.memory);
        cr_assert_eq(memtx_store_remove_document(hand.store, "b"), MEMTX_OK);
        scope.n_rows[1] = 0;
        hand.options.scope = MEMTX_SCOPE_ALL;
        cr_assert_eq(memtx_memory_open(&hand.memory, hand.store, &hand.options), MEMTX_OK);
        ask(&hand, &scope, 0x1D, specs[s]);
        hand_close(&hand);
        remove_folder();
        make_folder();
    }
}
