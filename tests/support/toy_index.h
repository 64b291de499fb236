/* An index that keeps all rows and scans them, for tests of what stands around indexes: it counts what is asked of it, and
 * can be told by its spec to find little.
 *
 *     toy:all    everything that there is
 *     toy:half   k / 2 for each query, of the first part alone, so that the caller has to fill up
 *     toy:slow   as toy:all; each add takes 20 ms
 */
#ifndef MEMTX_TESTS_TOY_INDEX_H
#define MEMTX_TESTS_TOY_INDEX_H

#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "memtx/index.h"

static atomic_int toy_built, toy_loaded, toy_asked; /* indexes and searches */

struct toy {
    uint32_t dim;
    bool is_half, is_slow;
    size_t n_rows;
    float *rows;
};

static int toy_check(const char *spec, uint32_t dim, uint64_t n_rows)
{
    (void)dim;
    return strncmp(spec, "toy:all", 7) == 0 || strncmp(spec, "toy:half", 8) == 0 || strncmp(spec, "toy:slow", 8) == 0
               ? MEMTX_OK
               : memtx_fail(MEMTX_E_INVALID, "index '%s' over %llu rows: none of toy:all, toy:half, toy:slow", spec,
                            (unsigned long long)n_rows);
}

static int toy_create(void **index, const char *spec, uint32_t dim)
{
    struct toy *toy = calloc(1, sizeof *toy);
    *index = toy;
    if (!toy) {
        return memtx_fail(MEMTX_E_NO_MEMORY, "no memory for a toy");
    }
    toy->dim = dim;
    toy->is_half = strncmp(spec, "toy:half", 8) == 0;
    toy->is_slow = strncmp(spec, "toy:slow", 8) == 0;
    return MEMTX_OK;
}

static int toy_train(void *index, size_t n, const float *rows)
{
    (void)index;
    (void)n;
    (void)rows;
    return MEMTX_OK;
}

static int toy_add(void *index, size_t n, const float *rows)
{
    struct toy *toy = index;
    if (toy->is_slow) {
        (void)nanosleep(&(struct timespec){0, 20000000}, NULL);
    }
    float *grown = realloc(toy->rows, (toy->n_rows + n) * toy->dim * sizeof *rows);
    if (!grown) {
        return memtx_fail(MEMTX_E_NO_MEMORY, "no memory for %zu rows of a toy", n);
    }
    toy->rows = grown;
    memcpy(toy->rows + toy->n_rows * toy->dim, rows, n * toy->dim * sizeof *rows);
    toy->n_rows += n;
    return MEMTX_OK;
}

static bool toy_sees(uint64_t row, const struct memtx_index_range *ranges, size_t n_ranges)
{
    bool sees = false;
    for (size_t i = 0; i < n_ranges && !sees; i++) {
        sees = row >= ranges[i].first && row - ranges[i].first < ranges[i].n_rows;
    }
    return sees;
}

static void toy_search_part(float *scores, int64_t *ids, const struct memtx_index_part *part, size_t n_q,
                            const float *asked, size_t k)
{
    const struct toy *toy = part->index;
    atomic_fetch_add(&toy_asked, 1);
    for (size_t q = 0; q < n_q; q++) {
        size_t n = 0;
        for (size_t i = 0; i < k; i++) {
            scores[q * k + i] = -INFINITY;
            ids[q * k + i] = -1;
        }
        for (size_t row = 0; row < toy->n_rows; row++) {
            float score = 0;
            if (!toy_sees(row, part->ranges, part->n_ranges)) {
                continue;
            }
            for (size_t i = 0; i < toy->dim; i++) {
                score += asked[q * toy->dim + i] * toy->rows[row * toy->dim + i];
            }
            size_t place = n < k ? n : k;
            while (place > 0 && scores[q * k + place - 1] < score) {
                place--;
            }
            if (place < k) {
                const size_t n_moved = (n < k ? n : k - 1) - place;
                memmove(scores + q * k + place + 1, scores + q * k + place, n_moved * sizeof *scores);
                memmove(ids + q * k + place + 1, ids + q * k + place, n_moved * sizeof *ids);
                scores[q * k + place] = score;
                ids[q * k + place] = (int64_t)row;
                n += n < k;
            }
        }
    }
}

static int toy_search(float *scores, int64_t *ids, const struct memtx_index_part *parts, size_t n_parts, size_t n_q,
                      const float *asked, size_t k)
{
    for (size_t p = 0; p < n_parts; p++) {
        const struct toy *toy = parts[p].index;
        toy_search_part(scores + p * n_q * k, ids + p * n_q * k, &parts[p], n_q, asked, k);
        for (size_t i = 0; i < n_q * k && toy->is_half; i++) {
            ids[p * n_q * k + i] = p == 0 && i % k < k / 2 ? ids[i] : -1;
        }
    }
    return MEMTX_OK;
}

static int toy_save(const void *index, FILE *file)
{
    const struct toy *toy = index;
    const uint64_t n_rows = toy->n_rows;
    atomic_fetch_add(&toy_built, 1);
    return fwrite(&n_rows, sizeof n_rows, 1, file) == 1 &&
                   fwrite(toy->rows, toy->dim * sizeof *toy->rows, n_rows, file) == n_rows && fflush(file) == 0
               ? MEMTX_OK
               : memtx_fail(MEMTX_E_IO, "cannot write a toy");
}

static void toy_destroy(void *index)
{
    struct toy *toy = index;
    if (toy) {
        free(toy->rows);
    }
    free(toy);
}

static int toy_load(void **index, const char *spec, uint32_t dim, FILE *file, uint64_t n_bytes)
{
    uint64_t n_rows;
    int status = toy_create(index, spec, dim);
    if (status) {
        return status;
    }
    struct toy *toy = *index;
    atomic_fetch_add(&toy_loaded, 1);
    if (fread(&n_rows, sizeof n_rows, 1, file) != 1 || n_bytes != sizeof n_rows + n_rows * dim * sizeof(float)) {
        status = memtx_fail(MEMTX_E_CORRUPT, "no toy");
    }
    if (!status) {
        toy->rows = malloc(n_rows * dim * sizeof *toy->rows);
        toy->n_rows = n_rows;
        status = toy->rows ? MEMTX_OK : memtx_fail(MEMTX_E_NO_MEMORY, "no memory for a toy");
    }
    if (!status && fread(toy->rows, dim * sizeof *toy->rows, n_rows, file) != n_rows) {
        status = memtx_fail(MEMTX_E_CORRUPT, "no toy");
    }
    if (status) {
        toy_destroy(toy);
        *index = NULL;
    }
    return status;
}

static void toy_info(struct memtx_index_facts *out, const void *index)
{
    const struct toy *toy = index;
    *out = (struct memtx_index_facts){.n_rows = toy->n_rows, .dim = toy->dim};
}

static const struct memtx_index_operations toy_operations = {toy_check, toy_create, toy_train, toy_add,    toy_search,
                                                             toy_save,  toy_load,   toy_info,  toy_destroy};

static int toy_resolve(const struct memtx_index_operations **out, const char *spec)
{
    *out = strncmp(spec, "toy:", 4) == 0 ? &toy_operations : NULL;
    return *out ? MEMTX_OK : memtx_fail(MEMTX_E_UNSUPPORTED, "index '%s': no such kind (known: toy:..)", spec);
}

#endif
