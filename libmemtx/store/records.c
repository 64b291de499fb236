/* Records (records.h, store_format.h). */
#include "store/records.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/status.h"
#include "math/rows.h"
#include "math/shapes.h"

static void put_f64(unsigned char *bytes, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    memtx__put_u64(bytes, bits);
}

static double get_f64(const unsigned char *bytes)
{
    uint64_t bits = memtx__get_u64(bytes);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The checksum of a record whose own field at `at` counts as zero. */
static uint32_t checksum(const unsigned char *bytes, size_t n_bytes, size_t at)
{
    static const unsigned char zero[4];
    uint32_t crc = memtx__crc32c(0, bytes, at);
    crc = memtx__crc32c(crc, zero, sizeof zero);
    return memtx__crc32c(crc, bytes + at + 4, n_bytes - at - 4);
}

static int check_record(const char *what, const unsigned char *bytes, size_t n_bytes, size_t expected_bytes, size_t at)
{
    if (n_bytes != expected_bytes) {
        return memtx__fail(MEMTX_E_CORRUPT, "%s has %zu bytes in place of %zu", what, n_bytes, expected_bytes);
    }
    uint32_t found = checksum(bytes, n_bytes, at), recorded = memtx__get_u32(bytes + at);
    if (found != recorded) {
        return memtx__fail(MEMTX_E_CORRUPT, "%s: checksum %08x, recorded %08x", what, found, recorded);
    }
    return MEMTX_OK;
}

/* ---- spec ------------------------------------------------------------------------------------- */

enum {
    SPEC_CRC_AT = 12,
    STATE_CRC_AT = 44,
    DOCUMENT_CRC_AT = 60,
    EXTENT_CRC_AT = 28,
    CHUNK_CRC_AT = 4,
    CHUNK_N_ROWS_AT = 16,
    CHUNK_ROWS_CRC_AT = 32,
    RUN_CRC_AT = 48
};
enum { FACTORS_CRC_AT = 72 };

static uint32_t factors_checksum(const struct memtx_store_spec *spec)
{
    unsigned char factors[MEMTX__MAX_HEAD_SIZE / 2 * sizeof(float)];
    const size_t n = spec->rope_factors ? spec->rope_dims / 2 : 0;
    memtx__rows_write(factors, MEMTX_ROWS_F32, spec->rope_factors, n);
    return memtx__crc32c(0, factors, n * sizeof(float));
}

size_t memtx__spec_encode(unsigned char out[MEMTX__MOST_SPEC_BYTES], const struct memtx_store_spec *spec,
                          uint32_t chunk_rows)
{
    const size_t n_bytes = MEMTX__SPEC_BYTES + 8 * (size_t)spec->n_layers;
    memset(out, 0, n_bytes);
    memcpy(out, MEMTX__SPEC_MAGIC, 8);
    memtx__put_u32(out + 8, MEMTX__FORMAT_VERSION);
    memcpy(out + 16, spec->fingerprint, MEMTX_FINGERPRINT_BYTES);
    memtx__put_u32(out + 32, spec->n_layers);
    memtx__put_u32(out + 36, spec->n_heads);
    memtx__put_u32(out + 40, spec->n_kv_heads);
    memtx__put_u32(out + 44, spec->head_size);
    memtx__put_u32(out + 48, spec->rope_dims);
    memtx__put_u32(out + 52, (uint32_t)spec->row_type);
    put_f64(out + 56, spec->rope_base);
    uint32_t scale;
    memcpy(&scale, &spec->scale, sizeof scale);
    memtx__put_u32(out + 64, scale);
    memtx__put_u32(out + 68, chunk_rows);
    memtx__put_u32(out + FACTORS_CRC_AT, factors_checksum(spec));
    memcpy(out + 256, spec->tokenizer, sizeof spec->tokenizer);
    memcpy(out + 320, spec->settings, sizeof spec->settings);
    for (size_t layer = 0; layer < spec->n_layers; layer++) {
        memtx__put_u64(out + MEMTX__SPEC_BYTES + 8 * layer, spec->heads_kept[layer]);
    }
    memtx__put_u32(out + SPEC_CRC_AT, checksum(out, n_bytes, SPEC_CRC_AT));
    return n_bytes;
}

/* Version 1 kept whole layers, and its models could have more kv heads than are known today. */
static int decode_layers(struct memtx_store_spec *out, const unsigned char *bytes)
{
    if (out->n_kv_heads > MEMTX_MAX_KV_HEADS) {
        return memtx__fail(MEMTX_E_UNSUPPORTED, "the store keeps %u kv heads of a layer, this memtx knows up to %d",
                           out->n_kv_heads, MEMTX_MAX_KV_HEADS);
    }
    for (uint32_t layer = 0; layer < MEMTX_MAX_LAYERS; layer++) {
        if (bytes[72 + layer / 8] >> layer % 8 & 1) {
            memtx_store_keep_layer(out, layer);
        }
    }
    return MEMTX_OK;
}

static int decode_pairs(struct memtx_store_spec *out, const unsigned char *bytes)
{
    if (out->n_layers > MEMTX_MAX_LAYERS) {
        return memtx__fail(MEMTX_E_CORRUPT, "the spec record is of a model of %u layers (up to %d can be)",
                           out->n_layers, MEMTX_MAX_LAYERS);
    }
    for (size_t layer = 0; layer < out->n_layers; layer++) {
        out->heads_kept[layer] = memtx__get_u64(bytes + MEMTX__SPEC_BYTES + 8 * layer);
    }
    return MEMTX_OK;
}

/* The size that a spec record must have, by what it says itself. */
static size_t spec_bytes(const unsigned char *bytes, size_t n_bytes)
{
    const bool has_pairs = n_bytes >= MEMTX__SPEC_BYTES && memtx__get_u32(bytes + 8) >= 2;
    return MEMTX__SPEC_BYTES + (has_pairs ? 8 * (size_t)memtx__get_u32(bytes + 32) : 0);
}

int memtx__spec_decode(struct memtx_store_spec *out, uint32_t *version, uint32_t *chunk_rows,
                       const unsigned char *bytes, size_t n_bytes)
{
    if (n_bytes < 16 || memcmp(bytes, MEMTX__SPEC_MAGIC, 8) != 0) {
        return memtx__fail(MEMTX_E_FORMAT, "the database is not a memtx store");
    }
    if (memtx__get_u32(bytes + 8) > MEMTX__FORMAT_VERSION || memtx__get_u32(bytes + 8) == 0) {
        return memtx__fail(MEMTX_E_UNSUPPORTED, "the store has format version %u, this memtx knows 1 to %d",
                           memtx__get_u32(bytes + 8), MEMTX__FORMAT_VERSION);
    }
    int status = check_record("the spec record", bytes, n_bytes, spec_bytes(bytes, n_bytes), SPEC_CRC_AT);
    if (status) {
        return status;
    }
    *out = (struct memtx_store_spec){
        .n_layers = memtx__get_u32(bytes + 32),
        .n_heads = memtx__get_u32(bytes + 36),
        .n_kv_heads = memtx__get_u32(bytes + 40),
        .head_size = memtx__get_u32(bytes + 44),
        .rope_dims = memtx__get_u32(bytes + 48),
        .row_type = (enum memtx_row_type)memtx__get_u32(bytes + 52),
        .rope_base = get_f64(bytes + 56),
        .scale = memtx__get_f32(bytes + 64),
    };
    *version = memtx__get_u32(bytes + 8);
    *chunk_rows = memtx__get_u32(bytes + 68);
    memcpy(out->fingerprint, bytes + 16, MEMTX_FINGERPRINT_BYTES);
    memcpy(out->tokenizer, bytes + 256, sizeof out->tokenizer);
    memcpy(out->settings, bytes + 320, sizeof out->settings);
    out->tokenizer[sizeof out->tokenizer - 1] = out->settings[sizeof out->settings - 1] = '\0';
    return *version < 2 ? decode_layers(out, bytes) : decode_pairs(out, bytes);
}

int memtx__spec_check_factors(const unsigned char *spec_record, const unsigned char *factors, size_t n_bytes)
{
    if (memtx__get_u32(spec_record + 8) < 2) {
        return MEMTX_OK;
    }
    uint32_t found = memtx__crc32c(0, factors, n_bytes), recorded = memtx__get_u32(spec_record + FACTORS_CRC_AT);
    return found == recorded ? MEMTX_OK
                             : memtx__fail(MEMTX_E_CORRUPT, "the rope record, %zu bytes: checksum %08x, recorded %08x",
                                           n_bytes, found, recorded);
}

/* ---- state, documents, extents ---------------------------------------------------------------- */

void memtx__state_encode(unsigned char out[MEMTX__STATE_BYTES], const struct memtx__state *state)
{
    memset(out, 0, MEMTX__STATE_BYTES);
    memtx__put_u64(out, state->n_rows);
    memtx__put_u64(out + 8, state->first_row);
    memtx__put_u64(out + 16, state->next_document);
    memtx__put_u64(out + 24, state->n_commits);
    memtx__put_u64(out + 32, state->transaction);
    memtx__put_u32(out + 40, state->next_run);
    memtx__put_u32(out + STATE_CRC_AT, checksum(out, MEMTX__STATE_BYTES, STATE_CRC_AT));
}

int memtx__state_decode(struct memtx__state *out, const unsigned char *bytes, size_t n_bytes)
{
    int status = check_record("the state record", bytes, n_bytes, MEMTX__STATE_BYTES, STATE_CRC_AT);
    if (status) {
        return status;
    }
    *out = (struct memtx__state){memtx__get_u64(bytes),      memtx__get_u64(bytes + 8),  memtx__get_u64(bytes + 16),
                                 memtx__get_u64(bytes + 24), memtx__get_u64(bytes + 32), memtx__get_u32(bytes + 40)};
    if (out->first_row > out->n_rows || out->n_rows > INT64_MAX) {
        return memtx__fail(MEMTX_E_CORRUPT, "the state record: first row %llu of %llu",
                           (unsigned long long)out->first_row, (unsigned long long)out->n_rows);
    }
    return MEMTX_OK;
}

void memtx__document_encode(unsigned char out[MEMTX__DOCUMENT_BYTES], const struct memtx_document *document)
{
    memset(out, 0, MEMTX__DOCUMENT_BYTES);
    memtx__put_u64(out, document->n_tokens);
    memtx__put_u32(out + 8, document->ended);
    memcpy(out + 12, document->hash, MEMTX_HASH_BYTES);
    memtx__put_u64(out + 28, document->id);
    memtx__put_u64(out + 36, document->n_read);
    memtx__put_u64(out + 44, document->state_row);
    memtx__put_u64(out + 52, document->state_bytes);
    memcpy(out + 64, document->name, MEMTX_NAME_BYTES);
    memtx__put_u32(out + DOCUMENT_CRC_AT, checksum(out, MEMTX__DOCUMENT_BYTES, DOCUMENT_CRC_AT));
}

int memtx__document_decode(struct memtx_document *out, uint32_t version, uint64_t id, const unsigned char *bytes,
                           size_t n_bytes)
{
    int status = check_record("a document record", bytes, n_bytes, MEMTX__DOCUMENT_BYTES, DOCUMENT_CRC_AT);
    if (status) {
        return status;
    }
    if (version >= 2 && memtx__get_u64(bytes + 28) != id) {
        return memtx__fail(MEMTX_E_CORRUPT, "document %llu stands in the place of document %llu",
                           (unsigned long long)memtx__get_u64(bytes + 28), (unsigned long long)id);
    }
    *out = (struct memtx_document){.id = id,
                                   .n_tokens = memtx__get_u64(bytes),
                                   .ended = memtx__get_u32(bytes + 8) == 1,
                                   .n_read = memtx__get_u64(bytes + 36),
                                   .state_row = memtx__get_u64(bytes + 44),
                                   .state_bytes = memtx__get_u64(bytes + 52)};
    if (version >= 2) { /* before, it was a hash of something else */
        memcpy(out->hash, bytes + 12, MEMTX_HASH_BYTES);
    }
    memcpy(out->name, bytes + 64, MEMTX_NAME_BYTES);
    out->name[MEMTX_NAME_BYTES - 1] = '\0';
    return MEMTX_OK;
}

void memtx__extent_encode(unsigned char out[MEMTX__EXTENT_BYTES], const struct memtx__extent *extent)
{
    memset(out, 0, MEMTX__EXTENT_BYTES);
    memtx__put_u64(out, extent->n_rows);
    memtx__put_u64(out + 8, extent->document);
    memtx__put_u64(out + 16, extent->first_position);
    memtx__put_u32(out + 24, (uint32_t)extent->first_row);
    memtx__put_u32(out + EXTENT_CRC_AT, checksum(out, MEMTX__EXTENT_BYTES, EXTENT_CRC_AT));
}

int memtx__extent_decode(struct memtx__extent *out, uint32_t version, uint64_t first_row, const unsigned char *bytes,
                         size_t n_bytes)
{
    int status = check_record("an extent record", bytes, n_bytes, MEMTX__EXTENT_BYTES, EXTENT_CRC_AT);
    if (status) {
        return status;
    }
    if (version >= 2 && memtx__get_u32(bytes + 24) != (uint32_t)first_row) {
        return memtx__fail(MEMTX_E_CORRUPT, "another extent stands in the place of that at row %llu",
                           (unsigned long long)first_row);
    }
    *out =
        (struct memtx__extent){first_row, memtx__get_u64(bytes), memtx__get_u64(bytes + 8), memtx__get_u64(bytes + 16)};
    return MEMTX_OK;
}

/* ---- runs ------------------------------------------------------------------------------------- */

void memtx__run_encode(unsigned char out[MEMTX__RUN_BYTES], const struct memtx__run *run)
{
    memset(out, 0, MEMTX__RUN_BYTES);
    memtx__put_u64(out, run->generation);
    memtx__put_u64(out + 8, run->first_row);
    memtx__put_u64(out + 16, run->n_rows);
    memtx__put_u64(out + 24, run->n_bytes);
    memcpy(out + 32, run->hash, MEMTX_HASH_BYTES);
    memcpy(out + 64, run->spec, MEMTX__RUN_SPEC_BYTES);
    memtx__put_u32(out + RUN_CRC_AT, checksum(out, MEMTX__RUN_BYTES, RUN_CRC_AT));
}

int memtx__run_decode(struct memtx__run *out, uint64_t first_row, const unsigned char *bytes, size_t n_bytes)
{
    int status = check_record("a run record", bytes, n_bytes, MEMTX__RUN_BYTES, RUN_CRC_AT);
    if (status) {
        return status;
    }
    *out = (struct memtx__run){memtx__get_u64(bytes),
                               memtx__get_u64(bytes + 8),
                               memtx__get_u64(bytes + 16),
                               memtx__get_u64(bytes + 24),
                               {0},
                               {0}};
    memcpy(out->hash, bytes + 32, MEMTX_HASH_BYTES);
    memcpy(out->spec, bytes + 64, MEMTX__RUN_SPEC_BYTES);
    out->spec[MEMTX__RUN_SPEC_BYTES - 1] = '\0';
    return out->first_row == first_row
               ? MEMTX_OK
               : memtx__fail(MEMTX_E_CORRUPT, "the run of row %llu stands in the place of that of row %llu",
                             (unsigned long long)out->first_row, (unsigned long long)first_row);
}

/* ---- running states --------------------------------------------------------------------------- */

void memtx__piece_encode(unsigned char *piece, uint32_t number, uint64_t state_row, size_t n_bytes)
{
    memcpy(piece, "mtxS", 4);
    memtx__put_u32(piece + 8, number);
    memtx__put_u32(piece + 12, (uint32_t)state_row);
    memtx__put_u32(piece + 4, memtx__crc32c(0, piece + 8, MEMTX__PIECE_HEADER_BYTES - 8 + n_bytes));
}

int memtx__piece_decode(const unsigned char **data, uint32_t number, uint64_t state_row, size_t n_bytes,
                        const unsigned char *piece, size_t n_piece_bytes)
{
    if (n_piece_bytes != MEMTX__PIECE_HEADER_BYTES + n_bytes || memcmp(piece, "mtxS", 4) != 0 ||
        memtx__crc32c(0, piece + 8, n_piece_bytes - 8) != memtx__get_u32(piece + 4) ||
        memtx__get_u32(piece + 8) != number || memtx__get_u32(piece + 12) != (uint32_t)state_row) {
        return memtx__fail(MEMTX_E_CORRUPT, "piece %u of a running state is damaged", number);
    }
    *data = piece + MEMTX__PIECE_HEADER_BYTES;
    return MEMTX_OK;
}

/* ---- chunks ----------------------------------------------------------------------------------- */

size_t memtx__chunk_bytes(uint32_t n_rows, uint32_t row_bytes)
{
    size_t bytes = MEMTX__LMDB_PAGE_HEADER_BYTES + MEMTX__CHUNK_HEADER_BYTES + (size_t)n_rows * row_bytes;
    size_t pages = (bytes + MEMTX__PAGE_BYTES - 1) / MEMTX__PAGE_BYTES;
    return pages * MEMTX__PAGE_BYTES - MEMTX__LMDB_PAGE_HEADER_BYTES;
}

void memtx__chunk_cover(unsigned char *chunk, uint32_t first, uint32_t n_rows, uint32_t row_bytes)
{
    const unsigned char *rows = chunk + MEMTX__CHUNK_HEADER_BYTES;
    uint32_t sum = memtx__get_u32(chunk + CHUNK_ROWS_CRC_AT);
    if (first == 0 || memtx__get_u32(chunk + CHUNK_N_ROWS_AT) != first) {
        sum = memtx__crc32c(0, rows, (size_t)first * row_bytes);
    }
    sum = memtx__crc32c(sum, rows + (size_t)first * row_bytes, (size_t)n_rows * row_bytes);
    memtx__put_u32(chunk + CHUNK_N_ROWS_AT, first + n_rows);
    memtx__put_u32(chunk + CHUNK_ROWS_CRC_AT, sum);
}

void memtx__chunk_encode(unsigned char *chunk, const struct memtx__chunk_facts *facts)
{
    if (memtx__get_u32(chunk + CHUNK_N_ROWS_AT) != facts->n_rows) {
        memtx__chunk_cover(chunk, 0, facts->n_rows, facts->row_bytes);
    }
    const uint32_t sum = memtx__get_u32(chunk + CHUNK_ROWS_CRC_AT);
    memset(chunk, 0, MEMTX__CHUNK_HEADER_BYTES);
    memcpy(chunk, facts->kind == MEMTX__KEYS ? "mtxK" : "mtxV", 4);
    memtx__put_u64(chunk + 8, facts->first_row);
    memtx__put_u32(chunk + CHUNK_N_ROWS_AT, facts->n_rows);
    memtx__put_u32(chunk + 20, facts->row_bytes);
    memtx__put_u32(chunk + 24, facts->layer);
    memtx__put_u32(chunk + 28, facts->kv_head);
    memtx__put_u32(chunk + CHUNK_ROWS_CRC_AT, sum);
    memtx__put_u32(chunk + CHUNK_CRC_AT, checksum(chunk, MEMTX__CHUNK_HEADER_BYTES, CHUNK_CRC_AT));
}

static int chunk_damaged(const struct memtx__chunk_facts *facts, const char *why)
{
    return memtx__fail(MEMTX_E_CORRUPT, "the %s chunk of layer %u, kv head %u that begins at row %llu %s",
                       facts->kind == MEMTX__KEYS ? "key" : "value", facts->layer, facts->kv_head,
                       (unsigned long long)facts->first_row, why);
}

int memtx__chunk_decode(const unsigned char **rows, const unsigned char *bytes, size_t n_bytes,
                        const struct memtx__chunk_facts *facts, bool check_rows)
{
    if (n_bytes < MEMTX__CHUNK_HEADER_BYTES || n_bytes > MEMTX__CHUNK_BYTES) {
        return chunk_damaged(facts, "has an impossible size");
    }
    if (checksum(bytes, MEMTX__CHUNK_HEADER_BYTES, CHUNK_CRC_AT) != memtx__get_u32(bytes + CHUNK_CRC_AT)) {
        return chunk_damaged(facts, "has a damaged header");
    }
    uint32_t n_rows = memtx__get_u32(bytes + CHUNK_N_ROWS_AT);
    if (memcmp(bytes, facts->kind == MEMTX__KEYS ? "mtxK" : "mtxV", 4) != 0 ||
        memtx__get_u64(bytes + 8) != facts->first_row || memtx__get_u32(bytes + 20) != facts->row_bytes ||
        memtx__get_u32(bytes + 24) != facts->layer || memtx__get_u32(bytes + 28) != facts->kv_head) {
        return chunk_damaged(facts, "is another one");
    }
    if (n_rows < facts->n_rows || n_bytes != memtx__chunk_bytes(n_rows, facts->row_bytes)) {
        return chunk_damaged(facts, "is cut off");
    }
    *rows = bytes + MEMTX__CHUNK_HEADER_BYTES;
    if (check_rows &&
        memtx__crc32c(0, *rows, (size_t)n_rows * facts->row_bytes) != memtx__get_u32(bytes + CHUNK_ROWS_CRC_AT)) {
        return chunk_damaged(facts, "has damaged rows");
    }
    return MEMTX_OK;
}
