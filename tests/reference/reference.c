/* The real model (reference.h). MEMTX_SOURCE_ROOT is set by the build. */
#include "reference.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#include "base/file.h"

/* XXH3-64 of the file whose sha256 the reference files name (b179c952...). */
static const XXH64_hash_t model_hash = UINT64_C(0xB8951AA641E75AA1);

char *reference_load(const char *name)
{
    char path[1024];
    (void)snprintf(path, sizeof path, "%s/tests/reference/%s", MEMTX_SOURCE_ROOT, name);
    char *text = json_load(path);
    cr_assert_not_null(text, "%s", path);
    return text;
}

memtx_model *reference_model(void)
{
    static const char path[] = MEMTX_SOURCE_ROOT "/data/cache/model.gguf";
    struct memtx__map map;
    memtx_model *model = NULL;
    if (memtx__map_open(&map, path)) {
        cr_skip_test("there is no data/cache/model.gguf (data/get model)");
    }
    XXH64_hash_t hash = XXH3_64bits(map.bytes, map.n_bytes);
    memtx__map_close(&map);
    if (hash != model_hash) {
        cr_skip_test("data/cache/model.gguf is another model than the references'");
    }
    cr_assert_eq(memtx_model_load(&model, path, MEMTX_WEIGHTS_F32), MEMTX_OK, "%s", memtx_last_error());
    return model;
}

uint32_t *reference_ids(size_t *n_out, const char *file)
{
    double *numbers = json_numbers(n_out, file, "ids");
    uint32_t *ids = malloc(*n_out * sizeof *ids);
    for (size_t i = 0; i < *n_out; i++) {
        ids[i] = (uint32_t)numbers[i];
    }
    free(numbers);
    return ids;
}
