/* LMDB as the store's files share it: the tables, their keys, errors. Only files of this folder include lmdb.h. */
#ifndef MEMTX_STORE_TABLES_H
#define MEMTX_STORE_TABLES_H

#include <lmdb.h>
#include <pthread.h>
#include <string.h>

#include "base/bytes.h"
#include "store/store.h"

enum { MEMTX__N_DATABASES = 8, MEMTX__N_DATABASES_V1 = 6 };
enum memtx__database {
    MEMTX__DB_META,
    MEMTX__DB_DOCS,
    MEMTX__DB_EXTENTS,
    MEMTX__DB_TOKENS,
    MEMTX__DB_KEYS,
    MEMTX__DB_VALUES,
    MEMTX__DB_RUNNING, /* from version 2 on */
    MEMTX__DB_RUNS
};

extern const char *const memtx__database_names[MEMTX__N_DATABASES];

struct memtx__environment {
    MDB_env *env;
    MDB_dbi databases[MEMTX__N_DATABASES];
    char *path;                  /* as messages show it */
    pthread_mutex_t pages_mutex; /* over the two below */
    bool pages_are_checked;      /* all of them */
    int pages_fd;                /* data.mdb, until they are; -1 */
};

struct memtx__snapshot {
    struct memtx__environment *environment;
    MDB_txn *txn;
};

/* 0, or the status and error text of an LMDB code (which is also where errno comes from): "PATH: cannot WHAT: ..". */
int memtx__lmdb_status(int code, const char *path, const char *what);

/* A transaction that writes, after all of LMDB's pages have been checked; *out is NULL on failure. */
int memtx__lmdb_begin(MDB_txn **out, struct memtx__environment *environment);

/* Its end: committed, or dropped where `code` is an LMDB code that stands for a failure. The status, with the text
 * "PATH: cannot WHAT: ..". */
int memtx__lmdb_end(MDB_txn *txn, const struct memtx__environment *environment, int code, const char *what);

/* A chunk's bytes, borrowed from the transaction. MEMTX_E_CORRUPT when it is not there. */
int memtx__lmdb_chunk(const unsigned char **bytes, size_t *n_bytes, const struct memtx__environment *environment,
                      MDB_txn *txn, enum memtx__chunk_kind kind, uint64_t chunk, uint32_t layer, uint32_t kv_head);

/* Puts the state, with the transaction's own id: every transaction that writes does. An LMDB code. */
int memtx__lmdb_put_state(struct memtx__environment *environment, MDB_txn *txn, struct memtx__state *state);
int memtx__lmdb_put_document(const struct memtx__environment *environment, MDB_txn *txn,
                             const struct memtx_document *document);
int memtx__lmdb_put_extent(const struct memtx__environment *environment, MDB_txn *txn,
                           const struct memtx__extent *extent);
int memtx__lmdb_put_spec(const struct memtx__environment *environment, MDB_txn *txn,
                         const struct memtx_store_spec *spec, uint32_t chunk_rows);

static inline MDB_val memtx__text_key(const char *text)
{
    return (MDB_val){strlen(text), (void *)(uintptr_t)text};
}

static inline MDB_val memtx__number_key(unsigned char bytes[8], uint64_t number)
{
    memtx__put_be(bytes, number, 8);
    return (MDB_val){8, bytes};
}

static inline MDB_val memtx__piece_key(unsigned char bytes[MEMTX__PIECE_KEY_BYTES], uint64_t document, uint32_t piece)
{
    memtx__put_be(bytes, document, 8);
    memtx__put_be(bytes + 8, piece, 4);
    return (MDB_val){MEMTX__PIECE_KEY_BYTES, bytes};
}

static inline MDB_val memtx__chunk_key(unsigned char bytes[MEMTX__CHUNK_KEY_BYTES], uint64_t chunk, uint32_t layer,
                                       uint32_t kv_head)
{
    memtx__put_be(bytes, chunk, 8);
    memtx__put_be(bytes + 8, layer, 2);
    memtx__put_be(bytes + 10, kv_head, 2);
    return (MDB_val){MEMTX__CHUNK_KEY_BYTES, bytes};
}

#endif
