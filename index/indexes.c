/* Finding an index by the name of its scheme (indexes.h). */
#include "indexes.h"

#include <stdio.h>
#include <string.h>

#ifdef MEMTX_FAISS_VERSION
#include "faiss.h"
#else
#define MEMTX_FAISS_VERSION ""
#endif

static const struct scheme {
    const char *prefix;
    const struct memtx_index_operations *operations; /* NULL: not in this build */
} schemes[] = {
#ifdef MEMTX_INDEX_FAISS_H
    {"faiss:", &index_faiss_operations},
#else
    {"faiss:", NULL},
#endif
};

int memtx_index_resolve(const struct memtx_index_operations **out, const char *spec)
{
    *out = NULL;
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        if (strncmp(spec, schemes[i].prefix, strlen(schemes[i].prefix)) == 0) {
            *out = schemes[i].operations;
            return *out ? MEMTX_OK
                        : memtx_fail(MEMTX_E_UNSUPPORTED, "index '%s': this program was built without FAISS", spec);
        }
    }
    return memtx_fail(MEMTX_E_UNSUPPORTED,
                      "index '%s': no such kind (known: exact, exact:f32, exact:bf16, exact:i8, cluster, faiss:..)",
                      spec);
}

void memtx_index_faiss_version(char *out, size_t size)
{
    (void)snprintf(out, size, "%s", MEMTX_FAISS_VERSION);
}
