/* What a store is for (memtx/store.h): bounds of every number, and what differs from what is asked of it. */
#include <math.h>
#include <string.h>

#include "base/status.h"
#include "math/shapes.h"
#include "store/store.h"

int memtx__spec_check(const struct memtx_store_spec *spec)
{
    size_t n_kept = 0;
    if (spec->n_layers < 1 || spec->n_layers > MEMTX_MAX_LAYERS) {
        return memtx__fail(MEMTX_E_INVALID, "a store for %u layers (1 to %d can be)", spec->n_layers, MEMTX_MAX_LAYERS);
    }
    if (spec->n_kv_heads < 1 || spec->n_kv_heads > MEMTX_MAX_KV_HEADS || spec->n_heads % spec->n_kv_heads != 0 ||
        spec->n_heads < spec->n_kv_heads) {
        return memtx__fail(MEMTX_E_INVALID, "a store for %u heads over %u kv heads", spec->n_heads, spec->n_kv_heads);
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
    for (uint32_t layer = 0; layer < MEMTX_MAX_LAYERS; layer++) {
        if (spec->layers_kept[layer] && layer >= spec->n_layers) {
            return memtx__fail(MEMTX_E_INVALID, "layer %u of a model of %u", layer, spec->n_layers);
        }
        n_kept += spec->layers_kept[layer];
    }
    return n_kept ? MEMTX_OK : memtx__fail(MEMTX_E_INVALID, "a store that keeps no layer");
}

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
    for (uint32_t layer = 0; layer < has->n_layers; layer++) {
        if (has->layers_kept[layer] != wanted->layers_kept[layer]) {
            return memtx__fail(MEMTX_E_MISMATCH, "%s: %s layer %u, which is %s for (use the layers it was made with)",
                               path, has->layers_kept[layer] ? "keeps" : "does not keep", layer,
                               has->layers_kept[layer] ? "not asked" : "asked");
        }
    }
    return MEMTX_OK;
}
