/* What this library is made of (memtx/memtx.h). */
#include <pthread.h>
#include <stdio.h>

#include "math/linear.h"
#include "memtx/memtx.h"
#include "store/store.h"
#include "text/pretokenize.h"

static char version_text[256];
static pthread_once_t version_once = PTHREAD_ONCE_INIT;

static void make_version(void)
{
    char dnnl[32], lmdb[32], pcre[64];
    memtx__linear_version(dnnl, sizeof dnnl);
    memtx__environment_version(lmdb, sizeof lmdb);
    memtx__pretokenizer_version(pcre, sizeof pcre);
    (void)snprintf(version_text, sizeof version_text, "%s (LMDB %s, oneDNN %s, PCRE2 %s)", MEMTX_VERSION, lmdb, dnnl,
                   pcre);
}

const char *memtx_version(void)
{
    (void)pthread_once(&version_once, make_version);
    return version_text;
}
