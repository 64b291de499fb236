/* Byte-pair encoding (bpe.h).
 *
 * Sennrich et al. 2016 (arXiv 1508.07909) with bytes as the first symbols. The order is that of Hugging Face's
 * `tokenizers`: again and again the pair of the lowest rank is merged, the leftmost of equal ones. Symbols are a linked
 * list, candidate pairs a binary heap of rank << 32 | position, whose order as numbers is the order wanted. A candidate
 * whose pair is gone is recognised when it comes up. A piece of n bytes has n - 1 candidates at first and gains at most
 * two for each of at most n - 1 merges, one having left: the heap never holds more than 2n.
 */
#include "text/bpe.h"

#include <stdbool.h>
#include <string.h>

#include "base/alloc.h"
#include "base/status.h"
#include "memtx/tokenizer.h"

enum { NO_RANK = 0xFFFFFFFF, NO_SYMBOL = 0xFFFFFFFF };

struct memtx__bpe_symbol {
    uint32_t id; /* MEMTX_NO_TOKEN once merged into the one before */
    uint32_t previous;
    uint32_t next;
};

/* ---- the table of merges ---------------------------------------------------------------------- */

/* The slot that holds the pair, or the free one where it would go. */
static size_t find_slot(const struct memtx__bpe *bpe, uint32_t left, uint32_t right)
{
    uint64_t key = ((uint64_t)left << 32 | right) * UINT64_C(0x9E3779B97F4A7C15);
    size_t slot = (size_t)(key ^ (key >> 32)) & (bpe->n_slots - 1);
    while (bpe->slots[slot] != NO_RANK) {
        const struct memtx__merge *merge = &bpe->merges[bpe->slots[slot]];
        if (merge->left == left && merge->right == right) {
            break;
        }
        slot = (slot + 1) & (bpe->n_slots - 1);
    }
    return slot;
}

static int fail_merge(const memtx_gguf *gguf, size_t rank, struct memtx_text text, const char *why)
{
    return memtx__fail(MEMTX_E_FORMAT, "%s: merge %zu, \"%.*s\", %s", memtx_gguf_path(gguf), rank,
                       memtx__vocabulary_shown(text), text.bytes, why);
}

/* Finds the three tokens of a merge "left right"; `joined` has room for its bytes. */
static int read_merge(struct memtx__merge *out, char *joined, const memtx_gguf *gguf,
                      const struct memtx__spellings *spellings, struct memtx_text text, size_t rank)
{
    const char *space = memchr(text.bytes, ' ', text.n_bytes);
    size_t n_left = space ? (size_t)(space - text.bytes) : 0;
    size_t n_right = space ? text.n_bytes - n_left - 1 : 0;
    if (!n_left || !n_right || memchr(space + 1, ' ', n_right)) {
        return fail_merge(gguf, rank, text, "is not two texts and one space between them");
    }
    memcpy(joined, text.bytes, n_left);
    memcpy(joined + n_left, space + 1, n_right);
    out->left = memtx__text_table_find(&spellings->table, (struct memtx_text){text.bytes, n_left});
    out->right = memtx__text_table_find(&spellings->table, (struct memtx_text){space + 1, n_right});
    out->merged = memtx__text_table_find(&spellings->table, (struct memtx_text){joined, n_left + n_right});
    if (out->left == MEMTX_NO_TOKEN || out->right == MEMTX_NO_TOKEN || out->merged == MEMTX_NO_TOKEN) {
        return fail_merge(gguf, rank, text,
                          out->left == MEMTX_NO_TOKEN    ? "has a first part that is no token"
                          : out->right == MEMTX_NO_TOKEN ? "has a second part that is no token"
                                                         : "makes a text that is no token");
    }
    return MEMTX_OK;
}

/* Parts and result must mean what they say: a control token is spelled as it is, an ordinary one in the alphabet. */
static int read_merges(struct memtx__bpe *out, const memtx_gguf *gguf, const struct memtx__spellings *spellings,
                       const struct memtx_text *tokens, const struct memtx_gguf_value *array)
{
    char *joined = NULL;
    size_t cursor = 0;
    int status = memtx__alloc_raw(&joined, array->n_bytes, 1); /* no item is longer than the array */
    for (size_t rank = 0; rank < out->n_merges && !status; rank++) {
        struct memtx_text text;
        if (!memtx_gguf_next_string(&text, array, &cursor)) {
            status =
                memtx__fail(MEMTX_E_FORMAT, "%s: only %zu of %zu merges", memtx_gguf_path(gguf), rank, out->n_merges);
            goto done;
        }
        struct memtx__merge *merge = &out->merges[rank];
        status = read_merge(merge, joined, gguf, spellings, text, rank);
        if (status) {
            goto done;
        }
        if (tokens[merge->left].n_bytes + tokens[merge->right].n_bytes != tokens[merge->merged].n_bytes) {
            status = fail_merge(gguf, rank, text, "makes a token that is spelled alike and means other bytes");
            goto done;
        }
        size_t slot = find_slot(out, merge->left, merge->right);
        if (out->slots[slot] != NO_RANK) {
            status = fail_merge(gguf, rank, text, "is there twice");
            goto done;
        }
        out->slots[slot] = (uint32_t)rank;
    }
done:
    memtx__free(joined);
    return status;
}

int memtx__bpe_create(struct memtx__bpe *out, const memtx_gguf *gguf, const struct memtx__spellings *spellings,
                      const struct memtx__vocabulary *vocabulary)
{
    const struct memtx_gguf_value *array;
    *out = (struct memtx__bpe){0};
    int status = memtx__vocabulary_find_texts(&array, gguf, "tokenizer.ggml.merges");
    if (status) {
        return status;
    }
    if (array->n_items >= NO_RANK / 2) {
        return memtx__fail(MEMTX_E_FORMAT, "%s: %llu merges; at most %u are read", memtx_gguf_path(gguf),
                           (unsigned long long)array->n_items, NO_RANK / 2 - 1);
    }
    out->n_merges = (size_t)array->n_items;
    out->n_slots = 2;
    while (out->n_slots < 2 * out->n_merges) {
        out->n_slots *= 2;
    }
    for (int byte = 0; byte < 256; byte++) {
        char text = (char)byte;
        out->byte_ids[byte] = memtx__text_table_find(&vocabulary->ordinary, (struct memtx_text){&text, 1});
    }
    status = memtx__alloc_raw(&out->merges, out->n_merges, sizeof *out->merges);
    if (!status) {
        status = memtx__alloc_raw(&out->slots, out->n_slots, sizeof *out->slots);
    }
    if (!status) {
        memset(out->slots, 0xFF, out->n_slots * sizeof *out->slots); /* NO_RANK in each */
        status = read_merges(out, gguf, spellings, vocabulary->tokens, array);
    }
    if (status) {
        memtx__bpe_destroy(out);
    }
    return status;
}

void memtx__bpe_destroy(struct memtx__bpe *bpe)
{
    memtx__free(bpe->slots);
    memtx__free(bpe->merges);
    *bpe = (struct memtx__bpe){0};
}

/* ---- candidates: a binary heap, least first --------------------------------------------------- */

static void push(struct memtx__bpe_scratch *scratch, uint64_t value)
{
    uint64_t *heap = scratch->heap;
    size_t at = scratch->n_heap++;
    while (at && heap[(at - 1) / 2] > value) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = value;
}

static uint64_t pop(struct memtx__bpe_scratch *scratch)
{
    uint64_t *heap = scratch->heap;
    uint64_t least = heap[0];
    size_t n = --scratch->n_heap;
    uint64_t last = heap[n];
    size_t at = 0;
    for (size_t child = 1; child < n; child = 2 * at + 1) {
        child += child + 1 < n && heap[child + 1] < heap[child];
        if (heap[child] >= last) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = last;
    return least;
}

/* ---- merging ---------------------------------------------------------------------------------- */

/* Makes the symbol at `at` and the one after it a candidate, if they merge at all. */
static void push_pair(struct memtx__bpe_scratch *scratch, const struct memtx__bpe *bpe, uint32_t at)
{
    const struct memtx__bpe_symbol *symbols = scratch->symbols;
    if (at == NO_SYMBOL || symbols[at].next == NO_SYMBOL) {
        return;
    }
    uint32_t rank = bpe->slots[find_slot(bpe, symbols[at].id, symbols[symbols[at].next].id)];
    if (rank != NO_RANK) {
        push(scratch, (uint64_t)rank << 32 | at);
    }
}

static void merge_all(struct memtx__bpe_scratch *scratch, const struct memtx__bpe *bpe)
{
    struct memtx__bpe_symbol *symbols = scratch->symbols;
    while (scratch->n_heap) {
        uint64_t least = pop(scratch);
        const struct memtx__merge *merge = &bpe->merges[least >> 32];
        uint32_t at = (uint32_t)least;
        uint32_t next = symbols[at].next;
        if (symbols[at].id != merge->left || next == NO_SYMBOL || symbols[next].id != merge->right) {
            continue;
        }
        symbols[at].id = merge->merged;
        symbols[at].next = symbols[next].next;
        symbols[next].id = MEMTX_NO_TOKEN;
        if (symbols[at].next != NO_SYMBOL) {
            symbols[symbols[at].next].previous = at;
        }
        push_pair(scratch, bpe, symbols[at].previous);
        push_pair(scratch, bpe, at);
    }
}

static int begin_symbols(struct memtx__bpe_scratch *scratch, const struct memtx__bpe *bpe, struct memtx_text piece)
{
    if (piece.n_bytes >= NO_SYMBOL) {
        return memtx__fail(MEMTX_E_NO_MEMORY, "a word of %zu bytes; %u is the longest", piece.n_bytes, NO_SYMBOL - 1);
    }
    int status = memtx__grow(&scratch->symbols, &scratch->n_symbols_held, piece.n_bytes, sizeof *scratch->symbols);
    if (!status) {
        status = memtx__grow(&scratch->heap, &scratch->n_heap_held, 2 * piece.n_bytes, sizeof *scratch->heap);
    }
    if (status) {
        return status;
    }
    uint32_t n = (uint32_t)piece.n_bytes;
    for (uint32_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)piece.bytes[i];
        if (bpe->byte_ids[byte] == MEMTX_NO_TOKEN) {
            return memtx__fail(MEMTX_E_FORMAT, "the vocabulary has no token for the byte 0x%02X", byte);
        }
        scratch->symbols[i] =
            (struct memtx__bpe_symbol){bpe->byte_ids[byte], i ? i - 1 : NO_SYMBOL, i + 1 < n ? i + 1 : NO_SYMBOL};
    }
    return MEMTX_OK;
}

int memtx__bpe_encode(uint32_t *ids, size_t *n_ids, struct memtx__bpe_scratch *scratch, const struct memtx__bpe *bpe,
                      struct memtx_text piece)
{
    *n_ids = 0;
    int status = begin_symbols(scratch, bpe, piece);
    if (status) {
        return status;
    }
    scratch->n_heap = 0;
    for (uint32_t i = 0; i < piece.n_bytes; i++) {
        push_pair(scratch, bpe, i);
    }
    merge_all(scratch, bpe);
    for (uint32_t i = piece.n_bytes ? 0 : NO_SYMBOL; i != NO_SYMBOL; i = scratch->symbols[i].next) {
        ids[(*n_ids)++] = scratch->symbols[i].id;
    }
    return MEMTX_OK;
}

void memtx__bpe_scratch_release(struct memtx__bpe_scratch *scratch)
{
    memtx__free(scratch->heap);
    memtx__free(scratch->symbols);
    *scratch = (struct memtx__bpe_scratch){0};
}
