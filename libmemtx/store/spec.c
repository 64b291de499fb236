/* What a store is for (memtx/store.h): the pairs that it keeps, bounds of every number, and what differs from what is
 * asked of it. */
#include <math.h>
#include <string.h>

#include "base/status.h"
#include "math/shapes.h"
#include "store/store.h"

/* ---- pairs ------------------------------------------------------------------------------------ */

static uint64_t all_heads(uint32_t n_kv_heads)
{
    return n_kv_heads < 64 ? ((uint64_t)1 << n_kv_heads) - 1 : UINT64_MAX;
}

void memtx_store_keep_layer(struct memtx_store_spec *spec, uint32_t layer)
{
    spec->heads_kept[layer] = all_heads(spec->n_kv_heads);
}

bool memtx_store_keeps(const struct memtx_store_spec *spec, uint32_t layer, uint32_t kv_head)
{
    return layer < MEMTX_MAX_LAYERS && kv_head < MEMTX_MAX_KV_HEADS && spec->heads_kept[layer] >> kv_head & 1;
}

/* That the pairs are those of the model, and one at least. */
static int check_pairs(const struct memtx_store_spec *spec)
{
    bool any = false;
    for (uint32_t layer = 0; layer < MEMTX_MAX_LAYERS; layer++) {
        if (spec->heads_kept[layer] && layer >= spec->n_layers) {
            return memtx__fail(MEMTX_E_INVALID, "layer %u of a model of %u", layer, spec->n_layers);
        }
        if (spec->heads_kept[layer] & ~all_heads(spec->n_kv_heads)) {
            return memtx__fail(MEMTX_E_INVALID, "layer %u: kv heads %llx (a bit for each) of a model of %u", layer,
                               (unsigned long long)spec->heads_kept[layer], spec->n_kv_heads);
        }
        any |= spec->heads_kept[layer] != 0;
    }
    return any ? MEMTX_OK : memtx__fail(MEMTX_E_INVALID, "a store that keeps no layer");
}

static void print_range(FILE *file, uint32_t first, uint32_t last)
{
    (void)fprintf(file, last > first ? "%u-%u" : "%u", first, last);
}

static void print_heads(FILE *file, uint64_t heads, uint32_t n_kv_heads)
{
    const char *before = ", kv heads ";
    if (heads == all_heads(n_kv_heads)) {
        (void)fputs(", all heads", file);
        return;
    }
    for (uint32_t head = 0, last; head < n_kv_heads; head = last + 1) {
        for (last = head; last + 1 < n_kv_heads && heads >> head & heads >> (last + 1) & 1;) {
            last++;
        }
        if (heads >> head & 1) {
            (void)fputs(before, file);
            print_range(file, head, last);
            before = ",";
        }
    }
}

void memtx_store_print_pairs(FILE *file, const struct memtx_store_spec *spec)
{
    uint64_t heads = 0; /* of the layers printed last */
    for (uint32_t layer = 0, last; layer < spec->n_layers; layer = last + 1) {
        const uint64_t kept = spec->heads_kept[layer];
        for (last = layer; last + 1 < spec->n_layers && spec->heads_kept[last + 1] == kept;) {
            last++;
        }
        if (!kept) {
            continue;
        }
        if (heads && kept != heads) {
            print_heads(file, heads, spec->n_kv_heads);
        }
        (void)fputs(!heads ? "" : kept == heads ? "," : "; ", file);
        print_range(file, layer, last);
        heads = kept;
    }
    print_heads(file, heads, spec->n_kv_heads);
}

/* ---- every number ----------------------------------------------------------------------------- */

int memtx__spec_check(const struct memtx_store_spec *spec)
{
    if (spec->n_layers < 1 || spec->n_layers > MEMTX_MAX_LAYERS) {
        return memtx__fail(MEMTX_E_INVALID, "a store for %u layers (1 to %d can be)", spec->n_layers, MEMTX_MAX_LAYERS);
    }
    if (spec->n_kv_heads < 1 || spec->n_kv_heads > MEMTX_MAX_KV_HEADS || spec->n_heads % spec->n_kv_heads != 0 ||
        spec->n_heads < spec->n_kv_heads) {
        return memtx__fail(MEMTX_E_INVALID, "a store for %u heads over %u kv heads (1 to %d can be)", spec->n_heads,
                           spec->n_kv_heads, MEMTX_MAX_KV_HEADS);
    }
    if (spec->head_size < 1 || spec->head_size > MEMTX__MAX_HEAD_SIZE || spec->rope_dims > spec->head_size ||
        spec->rope_dims % 2 != 0 || spec->row_type > MEMTX_ROWS_F32 || spec->row_type < MEMTX_ROWS_F16) {
        return memtx__fail(MEMTX_E_INVALID, "a store for heads of %u with %u turning dimensions, row type %d",
                           spec->head_size, spec->rope_dims, (int)spec->row_type);
    }
    if (!isfinite(spec->scale) || (spec->rope_dims && !(isfinite(spec->rope_base) && spec->rope_base > 0))) {
        return memtx__fail(MEMTX_E_INVALID, "a store with a RoPE base of %g and logits scaled by %g", spec->rope_base,
                           (double)spec->scale);
    }
    return check_pairs(spec);
}

/* ---- what differs ----------------------------------------------------------------------------- */

static float factor_of(const struct memtx_store_spec *spec, uint32_t pair)
{
    return spec->rope_factors ? spec->rope_factors[pair] : 1.0F;
}

static bool same_rope(const struct memtx_store_spec *a, const struct memtx_store_spec *b)
{
    bool same = a->rope_dims == b->rope_dims && (a->rope_base == b->rope_base || a->rope_dims == 0);
    for (uint32_t pair = 0; same && pair < a->rope_dims / 2; pair++) {
        same = factor_of(a, pair) == factor_of(b, pair);
    }
    return same;
}

/* The first layer that one keeps and the other does not; then the first kv head of a layer that both keep. */
static int compare_pairs(const char *path, const struct memtx_store_spec *has, const struct memtx_store_spec *wanted)
{
    for (uint32_t layer = 0; layer < has->n_layers; layer++) {
        if (!has->heads_kept[layer] != !wanted->heads_kept[layer]) {
            return memtx__fail(MEMTX_E_MISMATCH, "%s: %s layer %u, which is %s for (use the layers it was made with)",
                               path, has->heads_kept[layer] ? "keeps" : "does not keep", layer,
                               has->heads_kept[layer] ? "not asked" : "asked");
        }
    }
    for (uint32_t layer = 0; layer < has->n_layers; layer++) {
        for (uint32_t head = 0; head < has->n_kv_heads; head++) {
            const bool kept = memtx_store_keeps(has, layer, head);
            if (kept != memtx_store_keeps(wanted, layer, head)) {
                return memtx__fail(MEMTX_E_MISMATCH,
                                   "%s: %s kv head %u of layer %u, which is %s for (use the heads it was made with)",
                                   path, kept ? "keeps" : "does not keep", head, layer, kept ? "not asked" : "asked");
            }
        }
    }
    return MEMTX_OK;
}

int memtx__spec_compare(const char *path, const struct memtx_store_spec *has, const struct memtx_store_spec *wanted,
                        bool allow_stale)
{
    if (has->n_layers != wanted->n_layers || has->n_heads != wanted->n_heads || has->n_kv_heads != wanted->n_kv_heads ||
        has->head_size != wanted->head_size) {
        return memtx__fail(MEMTX_E_MISMATCH,
                           "%s: was made for a model of %u layers, %u heads over %u of size %u, not %u, %u over %u of "
                           "size %u (use another directory)",
                           path, has->n_layers, has->n_heads, has->n_kv_heads, has->head_size, wanted->n_layers,
                           wanted->n_heads, wanted->n_kv_heads, wanted->head_size);
    }
    if (!allow_stale && memcmp(has->fingerprint, wanted->fingerprint, MEMTX_FINGERPRINT_BYTES) != 0) {
        return memtx__fail(
            MEMTX_E_MISMATCH,
            "%s: was made with another model of the same shape (use another directory, or --allow-stale)", path);
    }
    if (!same_rope(has, wanted) || has->scale != wanted->scale) {
        return memtx__fail(
            MEMTX_E_MISMATCH,
            "%s: was made for RoPE of %u dimensions, base %g and logits scaled by %g, not %u, %g, %g%s (use "
            "another directory)",
            path, has->rope_dims, has->rope_base, (double)has->scale, wanted->rope_dims, wanted->rope_base,
            (double)wanted->scale, has->rope_factors || wanted->rope_factors ? ", with its own factors" : "");
    }
    if (has->row_type != wanted->row_type) {
        return memtx__fail(MEMTX_E_MISMATCH, "%s: keeps %s rows, not %s (use --store-type %s or another directory)",
                           path, memtx_row_type_name(has->row_type), memtx_row_type_name(wanted->row_type),
                           memtx_row_type_name(has->row_type));
    }
    return compare_pairs(path, has, wanted);
}
