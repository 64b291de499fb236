/* A memory under a runtime of one's own, from the store to the blend: to start from, and to copy. README.md beside it
 * explains the steps. Public headers only; C11, and C++ too.
 *
 *     example read DIR NAME < TEXT     reads a text as document NAME into the memory in DIR
 *     example ask DIR WORD             what followed WORD, in all documents: another run, which only reads
 *
 * The model is a toy of one layer that needs no training: an induction head. A token's key says which token came before
 * it, its value which token it is, and its query asks with the token itself. So attention finds what followed this token
 * earlier, and what it blends together is a guess at the next one. Window and segment are short, so that most of a text
 * is soon in the memory alone. Tokens are words; an id is four letters of one, so that there is no vocabulary.
 */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "memtx/memtx.h"

/* The alphabet of shapes is the library's: T tokens of a segment, W of the window, H heads, G kv heads, D head size. */
enum { LAYERS = 2, LAYER = 1, H = 4, G = 2, D = 64, T = 16, W = 32, K = 8, MOST_TOKENS = 1 << 20 };

static const float scale = 0.25F; /* of the logits */

/* What the layer holds of a text: rows of the window, and behind them those of the segment. */
static struct {
    float keys[W + T][G][D], values[W + T][G][D];
    uint32_t tokens[W + T];
    uint64_t positions[W + T];
    size_t n_rows;
} cache;

/* Of one segment. */
static float queries[T][H][D], V_loc[T][H][D], LSE_loc[T][H], V_mem[T][H][D], LSE_mem[T][H], out[T][H][D];

static uint32_t text[MOST_TOKENS + 1]; /* and a 0 behind the last */

/* ---- the toy ---------------------------------------------------------------------------------- */

/* D signs that stand for a token, others for each kv head. */
static void embed(float *vector, uint32_t token, uint32_t kv_head)
{
    uint64_t state = ((uint64_t)token << 8 | kv_head) * UINT64_C(0x9E3779B97F4A7C15);
    for (size_t d = 0; d < D; d++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        vector[d] = state >> 63 ? 1.0F : -1.0F;
    }
}

static float dot(const float *a, const float *b)
{
    float sum = 0;
    for (size_t d = 0; d < D; d++) {
        sum += a[d] * b[d];
    }
    return sum;
}

/* Queries, keys and values of tokens first .. first + n - 1; the keys and values go into the cache. */
static void project(size_t first, size_t n)
{
    for (size_t t = 0; t < n; t++) {
        const size_t row = cache.n_rows++;
        cache.tokens[row] = text[first + t];
        cache.positions[row] = first + t;
        for (uint32_t g = 0; g < G; g++) {
            embed(cache.keys[row][g], first + t ? text[first + t - 1] : 0, g);
            embed(cache.values[row][g], text[first + t], g);
        }
        for (uint32_t h = 0; h < H; h++) {
            embed(queries[t][h], text[first + t], h / (H / G));
        }
    }
}

/* V_loc and LSE_loc: causal attention of the segment's n tokens over the cache, whose last n rows are their own. */
static void attend_window(size_t n)
{
    for (size_t t = 0; t < n; t++) {
        const size_t n_seen = cache.n_rows - n + t + 1;
        for (size_t h = 0; h < H; h++) {
            float logits[W + T], highest = -INFINITY, sum = 0;
            for (size_t row = 0; row < n_seen; row++) {
                logits[row] = scale * dot(queries[t][h], cache.keys[row][h / (H / G)]);
                highest = logits[row] > highest ? logits[row] : highest;
            }
            memset(V_loc[t][h], 0, sizeof V_loc[t][h]);
            for (size_t row = 0; row < n_seen; row++) {
                const float weight = expf(logits[row] - highest);
                sum += weight;
                for (size_t d = 0; d < D; d++) {
                    V_loc[t][h][d] += weight * cache.values[row][h / (H / G)][d];
                }
            }
            for (size_t d = 0; d < D; d++) {
                V_loc[t][h][d] /= sum;
            }
            LSE_loc[t][h] = highest + logf(sum);
        }
    }
}

/* How many of n tokens' outputs say which token comes next. */
static size_t n_right(float outputs[T][H][D], size_t first, size_t n)
{
    size_t n_found = 0;
    for (size_t t = 0; t < n; t++) {
        float next[D];
        embed(next, text[first + t + 1], 0);
        n_found += dot(outputs[t][0], next) > D / 2;
    }
    return n_found;
}

/* ---- reading into the memory ------------------------------------------------------------------ */

/* What the store is for. All of it but `settings` must fit when the store is opened again. */
static struct memtx_store_spec describe(void)
{
    struct memtx_store_spec spec;
    memset(&spec, 0, sizeof spec);
    memcpy(spec.fingerprint, "toy induction 1", sizeof spec.fingerprint); /* of a model: a hash of its weights */
    spec.n_layers = LAYERS;
    spec.n_heads = H;
    spec.n_kv_heads = G;
    spec.head_size = D;
    spec.rope_dims = 0; /* this toy has no positions; a model says which dimensions turn, and rope_base */
    spec.scale = scale;
    spec.row_type = MEMTX_ROWS_F16;
    memtx_store_keep_layer(&spec, LAYER);
    (void)snprintf(spec.tokenizer, sizeof spec.tokenizer, "four letters");
    (void)snprintf(spec.settings, sizeof spec.settings, "window=%d segment=%d", W, T);
    return spec;
}

/* All rows but the newest n_kept leave the cache for the memory. With several memory layers: this for each of them. */
static int evict(memtx_memory *memory, size_t n_kept)
{
    const size_t n_leaving = cache.n_rows > n_kept ? cache.n_rows - n_kept : 0;
    int status = n_leaving ? memtx_memory_append(memory, LAYER, n_leaving, &cache.keys[0][0][0], &cache.values[0][0][0],
                                                 cache.tokens, cache.positions)
                           : MEMTX_OK;
    cache.n_rows -= n_leaving;
    memmove(cache.keys, cache.keys + n_leaving, cache.n_rows * sizeof cache.keys[0]);
    memmove(cache.values, cache.values + n_leaving, cache.n_rows * sizeof cache.values[0]);
    memmove(cache.tokens, cache.tokens + n_leaving, cache.n_rows * sizeof cache.tokens[0]);
    memmove(cache.positions, cache.positions + n_leaving, cache.n_rows * sizeof cache.positions[0]);
    return status;
}

/* One segment: search and blend first, append then, so that no token finds its own segment. */
static int read_segment(size_t found[2], memtx_memory *memory, size_t first, size_t n)
{
    const struct memtx_gate gate = {MEMTX_BLEND_JOINT, NULL};
    int status = memtx_memory_begin_segment(memory);
    if (status) {
        return status;
    }
    project(first, n);
    attend_window(n);
    status = memtx_memory_attend(&V_mem[0][0][0], &LSE_mem[0][0], NULL, memory, LAYER, n, &queries[0][0][0],
                                 cache.positions + cache.n_rows - n);
    if (status) {
        return status;
    }
    memtx_blend(&out[0][0][0], &V_loc[0][0][0], &LSE_loc[0][0], &V_mem[0][0][0], &LSE_mem[0][0], &gate, n, H, D);
    found[0] += n_right(V_loc, first, n);
    found[1] += n_right(out, first, n);
    status = evict(memory, W);
    return status ? status : memtx_memory_commit(memory);
}

static int read_document(memtx_memory *memory, const char *name, size_t n_tokens)
{
    size_t found[2] = {0, 0};
    int status = memtx_memory_begin_document(memory, name);
    for (size_t first = 0; first < n_tokens && !status; first += T) {
        const size_t n_left = n_tokens - first;
        status = read_segment(found, memory, first, n_left > T ? (size_t)T : n_left);
    }
    if (!status) {
        status = evict(memory, 0); /* the window too: tomorrow all of the text can be found */
    }
    if (!status) {
        status = memtx_memory_commit(memory);
    }
    if (!status) {
        status = memtx_memory_end_document(memory, NULL);
    }
    if (!status) {
        (void)printf("%zu tokens; next one guessed: %zu from the window alone, %zu with the memory\n", n_tokens,
                     found[0], found[1]);
    }
    return status;
}

/* The first four letters of the word at *at, lower case, and *at behind it; 0 where no word is left. */
static uint32_t next_token(const char **at)
{
    uint32_t token = 0;
    while (**at && !isalpha((unsigned char)**at)) {
        (*at)++;
    }
    for (unsigned shift = 0; isalpha((unsigned char)**at); (*at)++, shift += 8) {
        token |= shift < 32 ? (uint32_t)tolower((unsigned char)**at) << shift : 0;
    }
    return token;
}

static size_t read_input(void)
{
    static char line[1 << 16];
    size_t n_tokens = 0;
    while (fgets(line, sizeof line, stdin)) {
        const char *at = line;
        for (uint32_t token; n_tokens < MOST_TOKENS && (token = next_token(&at)) != 0;) {
            text[n_tokens++] = token;
        }
    }
    return n_tokens;
}

static int read_text(const char *path, const char *name)
{
    const struct memtx_store_spec spec = describe();
    struct memtx_memory_options options = memtx_memory_options_default();
    memtx_store *store = NULL;
    memtx_memory *memory = NULL;
    options.k = K;
    options.most_tokens = W + T; /* of a segment, and of an append */
    int status = memtx_store_open(&store, path, &spec, NULL);
    if (!status) {
        status = memtx_memory_open(&memory, store, &options);
    }
    if (!status) {
        status = read_document(memory, name, read_input());
    }
    memtx_memory_close(memory);
    const int closed = memtx_store_close(store); /* which writes what waits, and may fail in doing so */
    return status ? status : closed;
}

/* ---- asking another day ----------------------------------------------------------------------- */

/* The name of a document, by its id. */
static void find_name(char name[MEMTX_NAME_BYTES], const memtx_store *store, uint64_t id)
{
    struct memtx_document document;
    (void)snprintf(name, MEMTX_NAME_BYTES, "?");
    for (uint64_t i = 0; memtx_store_document_at(&document, store, i) == MEMTX_OK; i++) {
        if (document.id == id) {
            memcpy(name, document.name, MEMTX_NAME_BYTES);
        }
    }
}

static int print_hit(memtx_memory *memory, const struct memtx_hit *hit)
{
    char name[MEMTX_NAME_BYTES];
    struct memtx_row_facts row;
    uint32_t token;
    int status = memtx_memory_row(&row, memory, (uint64_t)hit->row);
    if (!status) {
        status = memtx_memory_tokens(&token, memory, 1, &hit->row);
    }
    if (!status) {
        find_name(name, memtx_memory_store(memory), row.document);
        (void)printf("%7.2f  %8llu  ", (double)hit->logit, (unsigned long long)row.position);
        for (; token; token >>= 8) {
            (void)putchar((int)(token & 0xFF));
        }
        (void)printf("\t%s\n", name);
    }
    return status;
}

/* One query at position 0 of a text of its own, over all documents; what its first head found, best first. */
static int ask_memory(memtx_memory *memory, const char *word)
{
    const uint64_t position = 0;
    static struct memtx_hit hits[H][K];
    int status = memtx_memory_begin_segment(memory);
    if (status) {
        return status;
    }
    for (uint32_t h = 0; h < H; h++) {
        const char *at = word;
        embed(queries[0][h], next_token(&at), h / (H / G));
    }
    status = memtx_memory_attend(&V_mem[0][0][0], &LSE_mem[0][0], &hits[0][0], memory, LAYER, 1, &queries[0][0][0],
                                 &position);
    for (size_t i = 0; i < K && !status && hits[0][i].row >= 0; i++) { /* -1: fewer rows were visible */
        status = print_hit(memory, &hits[0][i]);
    }
    memtx_memory_end_segment(memory);
    return status;
}

static int ask(const char *path, const char *word)
{
    const struct memtx_store_spec spec = describe();
    struct memtx_store_options store_options = memtx_store_options_default();
    struct memtx_memory_options options = memtx_memory_options_default();
    memtx_store *store = NULL;
    memtx_memory *memory = NULL;
    store_options.read_only = true; /* beside a process that writes, if there is one */
    options.reader = true;
    options.scope = MEMTX_SCOPE_ALL;
    options.k = K;
    int status = memtx_store_open(&store, path, &spec, &store_options);
    if (!status) {
        status = memtx_memory_open(&memory, store, &options);
    }
    if (!status) {
        status = ask_memory(memory, word);
    }
    memtx_memory_close(memory);
    const int closed = memtx_store_close(store);
    return status ? status : closed;
}

int main(int argc, char **argv)
{
    int status;
    if (argc == 4 && strcmp(argv[1], "read") == 0) {
        status = read_text(argv[2], argv[3]);
    } else if (argc == 4 && strcmp(argv[1], "ask") == 0) {
        status = ask(argv[2], argv[3]);
    } else {
        (void)fprintf(stderr, "Usage: example read DIR NAME < TEXT, or example ask DIR WORD\n");
        return 2;
    }
    if (status) {
        (void)fprintf(stderr, "example: %s\n", memtx_last_error());
    }
    return memtx_status_exit_code(status);
}
