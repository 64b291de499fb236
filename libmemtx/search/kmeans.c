/* k-means (kmeans.h). A row's nearest centroid is the one of largest x . c - |c|^2 / 2: one product for a tile of rows.
 * The sums of a round are added up in the order of the rows. A centroid that has lost all its rows takes the row that
 * lies farthest from its own. */
#include "search/kmeans.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/arena.h"
#include "base/rng.h"
#include "base/status.h"
#include "math/clones.h"
#include "math/linear.h"

enum { TILE_ROWS = 256 };

/* Scratch of one run. */
struct work {
    float *centroids; /* [n_clusters][dim]; NaN where a cluster has no rows */
    float *scores;    /* [n_rows][n_clusters] */
    float *half;      /* [n_clusters]: |c|^2 / 2 */
    float *distances; /* [n_rows]: squared, to the row's own centroid */
    uint32_t *counts; /* [n_clusters] */
    uint16_t *drawn;  /* [n_rows] */
};

static void take_work(struct work *work, struct memtx__arena *arena, const struct memtx__kmeans *sizes)
{
    work->centroids = memtx__arena_take(arena, sizes->n_clusters * sizes->dim, sizeof *work->centroids);
    work->scores = memtx__arena_take(arena, sizes->n_rows * sizes->n_clusters, sizeof *work->scores);
    work->half = memtx__arena_take(arena, sizes->n_clusters, sizeof *work->half);
    work->distances = memtx__arena_take(arena, sizes->n_rows, sizeof *work->distances);
    work->counts = memtx__arena_take(arena, sizes->n_clusters, sizeof *work->counts);
    work->drawn = memtx__arena_take(arena, sizes->n_rows, sizeof *work->drawn);
}

static bool is_finite(const float *row, size_t dim)
{
    for (size_t i = 0; i < dim; i++) {
        if (!isfinite(row[i])) {
            return false;
        }
    }
    return true;
}

MEMTX__CLONES static float squared_distance(const float *a, const float *b, size_t dim)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < dim; i++) {
        sum += (a[i] - b[i]) * (a[i] - b[i]);
    }
    return sum;
}

MEMTX__CLONES static void add_row(float *sum, const float *row, size_t dim)
{
#pragma omp simd
    for (size_t i = 0; i < dim; i++) {
        sum[i] += row[i];
    }
}

/* The place of the largest scores[i] - half[i], the first of equals; NaN is never the largest. */
MEMTX__CLONES static size_t nearest(float *scores, const float *half, size_t n)
{
    float largest = -INFINITY;
#pragma omp simd reduction(max : largest)
    for (size_t i = 0; i < n; i++) {
        scores[i] -= half[i];
        largest = scores[i] > largest ? scores[i] : largest;
    }
    for (size_t i = 0; i < n; i++) {
        if (scores[i] == largest) {
            return i;
        }
    }
    return 0;
}

static void begin(float *centroids, uint16_t *cluster_of, struct work *work, const float *rows,
                  const struct memtx__kmeans *sizes)
{
    struct memtx__rng rng = memtx__rng_create(sizes->seed, sizes->stream);
    const size_t dim = sizes->dim;
    size_t n_finite = 0;
    for (size_t row = 0; row < sizes->n_rows; row++) {
        cluster_of[row] = MEMTX__NO_CLUSTER;
        if (is_finite(rows + row * dim, dim)) {
            cluster_of[row] = 0;
            work->drawn[n_finite++] = (uint16_t)row;
        }
    }
    for (size_t c = 0; c < sizes->n_clusters; c++) {
        if (c >= n_finite) {
            for (size_t i = 0; i < dim; i++) {
                centroids[c * dim + i] = NAN;
            }
            continue;
        }
        const size_t other = c + (size_t)memtx__rng_below(&rng, n_finite - c);
        const uint16_t row = work->drawn[other];
        work->drawn[other] = work->drawn[c];
        work->drawn[c] = row;
        memcpy(centroids + c * dim, rows + row * dim, dim * sizeof *rows);
    }
}

static int assign(uint16_t *cluster_of, struct work *work, const float *centroids, const float *rows,
                  const struct memtx__kmeans *sizes)
{
    const size_t dim = sizes->dim, n_clusters = sizes->n_clusters;
    int status = MEMTX_OK;
    for (size_t c = 0; c < n_clusters; c++) {
        work->half[c] = 0;
        for (size_t i = 0; i < dim; i++) {
            work->half[c] += centroids[c * dim + i] * centroids[c * dim + i] / 2;
        }
    }
#pragma omp parallel for schedule(static) reduction(min : status)
    for (size_t first = 0; first < sizes->n_rows; first += TILE_ROWS) {
        const size_t n = sizes->n_rows - first < TILE_ROWS ? sizes->n_rows - first : TILE_ROWS;
        int failed = memtx__product(work->scores + first * n_clusters, rows + first * dim, centroids, true, n,
                                    n_clusters, dim, n_clusters, dim, dim);
        status = failed < status ? failed : status;
        for (size_t row = first; row < first + n && !failed; row++) {
            if (cluster_of[row] != MEMTX__NO_CLUSTER) {
                const size_t c = nearest(work->scores + row * n_clusters, work->half, n_clusters);
                cluster_of[row] = (uint16_t)c;
                work->distances[row] = squared_distance(rows + row * dim, centroids + c * dim, dim);
            }
        }
    }
    return status ? memtx__fail(status, "a product of k-means failed: %s", memtx_status_text(status)) : MEMTX_OK;
}

static void count(uint16_t *cluster_of, struct work *work, const struct memtx__kmeans *sizes)
{
    memset(work->counts, 0, sizes->n_clusters * sizeof *work->counts);
    for (size_t row = 0; row < sizes->n_rows; row++) {
        if (cluster_of[row] != MEMTX__NO_CLUSTER) {
            work->counts[cluster_of[row]]++;
        }
    }
    for (size_t c = 0; c < sizes->n_clusters; c++) {
        size_t farthest = sizes->n_rows;
        float distance = 0;
        for (size_t row = 0; row < sizes->n_rows && work->counts[c] == 0; row++) {
            if (cluster_of[row] != MEMTX__NO_CLUSTER && work->counts[cluster_of[row]] > 1 &&
                work->distances[row] > distance) {
                farthest = row;
                distance = work->distances[row];
            }
        }
        if (farthest < sizes->n_rows) {
            work->counts[cluster_of[farthest]]--;
            work->counts[c]++;
            cluster_of[farthest] = (uint16_t)c;
            work->distances[farthest] = 0;
        }
    }
}

static void move(float *centroids, const uint16_t *cluster_of, const struct work *work, const float *rows,
                 const struct memtx__kmeans *sizes)
{
    const size_t dim = sizes->dim;
    memset(centroids, 0, sizes->n_clusters * dim * sizeof *centroids);
    for (size_t row = 0; row < sizes->n_rows; row++) {
        if (cluster_of[row] != MEMTX__NO_CLUSTER) {
            add_row(centroids + cluster_of[row] * dim, rows + row * dim, dim);
        }
    }
    for (size_t i = 0; i < sizes->n_clusters * dim; i++) { /* 0 / 0: no rows, no number */
        centroids[i] = work->counts[i / dim] ? centroids[i] / (float)work->counts[i / dim] : NAN;
    }
}

int memtx__kmeans(uint16_t *cluster_of, const float *rows, const struct memtx__kmeans *sizes)
{
    struct memtx__arena arena = {0};
    struct work work;
    take_work(&work, &arena, sizes);
    int status = memtx__arena_reserve(&arena);
    if (status) {
        return status;
    }
    take_work(&work, &arena, sizes);
    begin(work.centroids, cluster_of, &work, rows, sizes);
    for (size_t round = 0; round < sizes->n_rounds && !status; round++) {
        status = assign(cluster_of, &work, work.centroids, rows, sizes);
        if (!status) {
            count(cluster_of, &work, sizes);
            move(work.centroids, cluster_of, &work, rows, sizes);
        }
    }
    memtx__arena_release(&arena);
    return status;
}
