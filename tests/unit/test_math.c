/* Kernels against their specifications: the plain C kernel where there is one, double arithmetic elsewhere. */
#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "math/activation.h"
#include "math/attention.h"
#include "math/exp.h"
#include "math/half.h"
#include "math/lanes.h"
#include "math/linear.h"
#include "math/loss.h"
#include "math/norm.h"
#include "math/rope.h"
#include "memtx/status.h"

static float *random_values(size_t n, float size, uint64_t seed)
{
    struct memtx__rng rng = memtx__rng_create(seed, 0);
    float *values = aligned_alloc(64, (n * sizeof *values + 64) / 64 * 64);
    for (size_t i = 0; i < n; i++) {
        values[i] = size * memtx__rng_signed(&rng);
    }
    return values;
}

/* ---- linear ----------------------------------------------------------------------------------- */

/* Sums of n products in another order: float32 rounds each sum by up to 2^-24 of its size, and errors add up as a walk.
 */
static double sum_tolerance(size_t n)
{
    return 4 * (double)FLT_EPSILON * sqrt((double)n);
}

static void linear_against_plain(size_t n_rows, size_t n_in, size_t n_out, enum memtx__weight_type type,
                                 double tolerance)
{
    struct memtx__linear_plans *plans;
    struct memtx__linear linear = {.shape = {n_in, n_out, type}};
    float *x = random_values(n_rows * n_in, 1, 1), *w = random_values(n_out * n_in, 1, 2);
    float *y = random_values(n_rows * n_out, 1, 3), *plain = random_values(n_rows * n_out, 1, 4);
    size_t packed_bytes;
    void *packed;
    cr_assert_eq(memtx__linear_plans_create(&plans), MEMTX_OK);
    cr_assert_eq(memtx__linear_packed_bytes(&packed_bytes, linear.shape), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(memtx__alloc(&packed, packed_bytes, 1), MEMTX_OK);
    cr_assert_eq(memtx__linear_pack(packed, linear.shape, w), MEMTX_OK);
    linear.packed = packed;
    for (int again = 0; again < 2; again++) { /* with the plan made, and with the plan found */
        memset(y, 0xFF, n_rows * n_out * sizeof *y);
        cr_assert_eq(memtx__linear_fwd(y, plans, x, &linear, n_rows), MEMTX_OK, "%s", memtx_last_error());
        memtx__linear_fwd_plain(plain, x, w, n_rows, n_in, n_out);
        for (size_t i = 0; i < n_rows * n_out; i++) {
            /* terms of products of two numbers in [-1, 1) add up to about sqrt(n) / 3 */
            cr_assert(fabs((double)y[i] - (double)plain[i]) <= tolerance * sqrt((double)n_in),
                      "%zu x %zu x %zu: %g, not %g", n_rows, n_in, n_out, (double)y[i], (double)plain[i]);
        }
    }
    memtx__linear_plans_destroy(plans);
    memtx__free(packed);
    free(x);
    free(w);
    free(y);
    free(plain);
}

static const size_t linear_shapes[][3] = {{1, 1, 1},     {1, 32, 80},   {7, 48, 32},    {64, 64, 64},
                                          {33, 576, 97}, {512, 96, 32}, {5, 1536, 300}, {200, 31, 17}};

Test(linear, f32_against_plain)
{
    for (size_t i = 0; i < sizeof linear_shapes / sizeof linear_shapes[0]; i++) {
        const size_t *shape = linear_shapes[i];
        linear_against_plain(shape[0], shape[1], shape[2], MEMTX__WEIGHT_F32, sum_tolerance(shape[1]));
    }
}

Test(linear, bf16_against_plain)
{
    if (!memtx__weight_type_is_fast(MEMTX__WEIGHT_BF16)) {
        cr_skip_test("this processor has no bf16 products");
    }
    for (size_t i = 0; i < sizeof linear_shapes / sizeof linear_shapes[0]; i++) {
        const size_t *shape = linear_shapes[i];
        /* Both factors rounded to 8 bits: 2^-9 of each term, of which n add up as a walk; five standard deviations. */
        linear_against_plain(shape[0], shape[1], shape[2], MEMTX__WEIGHT_BF16, 5 * 0x1p-9);
    }
}

/* One stream of segments meets several lengths with the same weights. */
Test(linear, several_numbers_of_rows_with_one_set_of_weights)
{
    enum { N_IN = 96, N_OUT = 130, MOST = 65 };
    struct memtx__linear_plans *plans;
    struct memtx__linear linear = {.shape = {N_IN, N_OUT, MEMTX__WEIGHT_F32}};
    float *x = random_values(MOST * N_IN, 1, 1), *w = random_values(N_OUT * N_IN, 1, 2);
    static float y[MOST * N_OUT], all[MOST * N_OUT];
    size_t packed_bytes;
    void *packed;
    cr_assert_eq(memtx__linear_plans_create(&plans), MEMTX_OK);
    cr_assert_eq(memtx__linear_packed_bytes(&packed_bytes, linear.shape), MEMTX_OK);
    cr_assert_eq(memtx__alloc(&packed, packed_bytes, 1), MEMTX_OK);
    cr_assert_eq(memtx__linear_pack(packed, linear.shape, w), MEMTX_OK);
    linear.packed = packed;
    cr_assert_eq(memtx__linear_fwd(all, plans, x, &linear, MOST), MEMTX_OK);
    for (size_t n = 1; n < MOST; n = 3 * n + 1) {
        cr_assert_eq(memtx__linear_fwd(y, plans, x, &linear, n), MEMTX_OK);
        for (size_t i = 0; i < n * N_OUT; i++) {
            cr_assert_float_eq(y[i], all[i], 1e-4);
        }
    }
    memtx__linear_plans_destroy(plans);
    memtx__free(packed);
    free(x);
    free(w);
}

Test(linear, bare_products)
{
    enum { M = 19, N = 33, K = 70, LDC = 40, LDA = 77, LDB = 81 };
    float *a = random_values(M * LDA, 1, 1), *b = random_values(K * LDB + N * LDB, 1, 2);
    static float c[M * LDC];
    for (int transposed = 0; transposed < 2; transposed++) {
        memset(c, 0xFF, sizeof c);
        cr_assert_eq(memtx__product(c, a, b, transposed, M, N, K, LDC, LDA, LDB), MEMTX_OK);
        for (size_t i = 0; i < M; i++) {
            for (size_t j = 0; j < N; j++) {
                double sum = 0;
                for (size_t k = 0; k < K; k++) {
                    sum += (double)a[i * LDA + k] * (double)(transposed ? b[j * LDB + k] : b[k * LDB + j]);
                }
                cr_assert_float_eq((double)c[i * LDC + j], sum, 1e-4);
            }
            cr_assert(isnan(c[i * LDC + N]), "what stands behind a row is left alone");
        }
    }
    free(a);
    free(b);
}

static const size_t low_shapes[][3] = {{1, 1, 1},     {1, 32, 80},  {7, 48, 32},     {64, 512, 64},
                                       {33, 97, 256}, {3, 510, 96}, {256, 510, 128}, {16, 1, 80}};

/* Each thread multiplies matrices of its own at the same time. */
Test(linear, bf16_products_of_threads)
{
    enum { N_THREADS = 4 };
    if (!memtx__precision_is_fast(MEMTX__PRECISION_BF16)) {
        cr_skip_test("this processor has no bf16 products");
    }
    for (size_t i = 0; i < sizeof low_shapes / sizeof low_shapes[0]; i++) {
        const size_t m = low_shapes[i][0], n = low_shapes[i][1], k = low_shapes[i][2];
        struct memtx__bf16_product *product;
        double worst = 0;
        cr_assert_eq(memtx__bf16_product_create(&product, N_THREADS, m, n, k), MEMTX_OK, "%s", memtx_last_error());
#pragma omp parallel num_threads(N_THREADS) reduction(max : worst)
        for (int repeat = 0; repeat < 3; repeat++) {
            const size_t thread = (size_t)omp_get_thread_num();
            float *x = random_values((m + n) * k, 1, 10 * i + thread), *c = random_values(m * n, 1, 1);
            uint16_t *halves = malloc((m + n) * k * sizeof *halves);
            memtx__f32_to_bf16_n(halves, x, (m + n) * k);
            memtx__bf16_to_f32_n(x, halves, (m + n) * k);
#pragma omp barrier
            for (int run = 0; run < 20; run++) {
                if (memtx__bf16_product_run(c, product, thread, halves, halves + m * k)) {
                    worst = INFINITY;
                }
            }
            for (size_t j = 0; j < m * n; j++) {
                double sum = 0;
                for (size_t in = 0; in < k; in++) {
                    sum += (double)x[j / n * k + in] * (double)x[(m + j % n) * k + in];
                }
                worst = fmax(worst, fabs((double)c[j] - sum) / sqrt((double)k));
            }
            free(x);
            free(c);
            free(halves);
        }
        cr_assert_leq(worst, sum_tolerance(k), "%zu x %zu x %zu: off by %g", m, n, k, worst);
        memtx__bf16_product_destroy(product);
    }
}

/* ---- rows side by side ------------------------------------------------------------------------ */

Test(lanes, against_double)
{
    static const size_t dims[] = {1, 2, 7, 32, 64, 80, 256};
    for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++) {
        const size_t dim = dims[i];
        float *rows = random_values(MEMTX__LANES * dim, 1, 50 + i), *x = random_values(7 * dim, 1, 60 + i);
        float *columns = malloc(dim * MEMTX__LANES * sizeof *columns);
        float scores[MEMTX__LANE_QUERIES][MEMTX__LANES];
        const float *queries[MEMTX__LANE_QUERIES];
        for (size_t q = 0; q < MEMTX__LANE_QUERIES; q++) {
            queries[q] = x + (q + 1) % 5 * dim; /* in no order, and one twice */
        }
        memtx__lanes_turn(columns, rows, dim);
        memtx__lanes_score(scores, columns, queries, dim);
        for (size_t q = 0; q < MEMTX__LANE_QUERIES; q++) {
            for (size_t lane = 0; lane < MEMTX__LANES; lane++) {
                double sum = 0;
                for (size_t j = 0; j < dim; j++) {
                    sum += (double)queries[q][j] * (double)rows[lane * dim + j];
                }
                cr_assert(fabs((double)scores[q][lane] - sum) <= sum_tolerance(dim) * sqrt((double)dim),
                          "%zu numbers, query %zu, row %zu: %g, not %g", dim, q, lane, (double)scores[q][lane], sum);
            }
        }
        free(columns);
        free(rows);
        free(x);
    }
}

/* What is no number is no less than nothing, and stays in its lane. */
Test(lanes, of_extreme_numbers)
{
    static float columns[2 * MEMTX__LANES];
    static const float x[2] = {1, 1}, huge[2] = {3e38F, 3e38F};
    float scores[MEMTX__LANE_QUERIES][MEMTX__LANES];
    const float *queries[MEMTX__LANE_QUERIES] = {x, huge, x, x, x, x};
    columns[0] = NAN;
    columns[1] = INFINITY;
    columns[2] = -INFINITY;
    columns[3] = 1;
    columns[MEMTX__LANES + 3] = 1;
    memtx__lanes_score(scores, columns, queries, 2);
    cr_assert(isnan(scores[0][0]) && isinf(scores[0][1]) && scores[0][2] < 0 && isinf(scores[0][2]));
    cr_assert(scores[0][3] == 2.0F && isinf(scores[1][3]) && scores[0][4] == 0.0F && scores[1][4] == 0.0F);
    cr_assert_eq(memtx__lanes_from(scores[0], 0), 0xFFFAU); /* but for the NaN and the infinity below 0 */
    cr_assert_eq(memtx__lanes_from(scores[0], -INFINITY), 0xFFFEU);
    cr_assert_eq(memtx__lanes_from(scores[0], 2), 0x000AU);
}

/* ---- attention -------------------------------------------------------------------------------- */

static void attention_against_plain(struct memtx__attention_sizes sizes, float size)
{
    sizes.n_threads = (size_t)omp_get_max_threads();
    /* Weights are exponentials of logits that are rounded relative to their own size. */
    const double tolerance = 2e-5 * (1 + (double)(size * size) * (double)sizes.head_size * (double)sizes.scale);
    const size_t n_out = sizes.n_tokens * sizes.n_heads * sizes.head_size, n_lse = sizes.n_tokens * sizes.n_heads;
    const size_t n_cache = sizes.n_kv_heads * sizes.cache_rows * sizes.head_size;
    const size_t n_scratch = (size_t)omp_get_max_threads() * memtx__attention_scratch(&sizes);
    float *q = random_values(n_out, size, 1), *k = random_values(n_cache, size, 2), *v = random_values(n_cache, 1, 3);
    float *out = random_values(n_out, 1, 4), *plain = random_values(n_out, 1, 5);
    float *lse = random_values(n_lse, 1, 6), *plain_lse = random_values(n_lse, 1, 7);
    float *scratch = random_values(n_scratch, 1, 8); /* of exactly this size, for the sanitizer */
    for (size_t g = 0; g < sizes.n_kv_heads; g++) {  /* rows that no query may see */
        for (size_t row = sizes.n_past + sizes.n_tokens; row < sizes.cache_rows; row++) {
            for (size_t d = 0; d < sizes.head_size; d++) {
                k[(g * sizes.cache_rows + row) * sizes.head_size + d] = NAN;
                v[(g * sizes.cache_rows + row) * sizes.head_size + d] = NAN;
            }
        }
    }
    cr_assert_eq(memtx__attention_fwd(out, lse, q, k, v, scratch, &sizes), MEMTX_OK, "%s", memtx_last_error());
    memtx__attention_fwd_plain(plain, plain_lse, q, k, v, &sizes);
    for (size_t i = 0; i < n_out; i++) {
        cr_assert(fabs((double)out[i] - (double)plain[i]) <= tolerance,
                  "T %zu, past %zu, band %zu, H %zu, G %zu, D %zu: %g, not %g", sizes.n_tokens, sizes.n_past,
                  sizes.band, sizes.n_heads, sizes.n_kv_heads, sizes.head_size, (double)out[i], (double)plain[i]);
    }
    for (size_t i = 0; i < n_lse; i++) {
        cr_assert(fabs((double)lse[i] - (double)plain_lse[i]) <= tolerance * 4, "log-sum-exp %g, not %g",
                  (double)lse[i], (double)plain_lse[i]);
    }
    float *buffers[] = {q, k, v, out, plain, lse, plain_lse, scratch};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
        free(buffers[i]);
    }
}

Test(attention, against_plain)
{
    static const size_t spans[][3] = {/* T, past, band */
                                      {1, 0, 0},     {1, 300, 0},   {7, 0, 0},      {64, 0, 0},
                                      {65, 1, 0},    {200, 130, 0}, {1, 9, 1},      {50, 0, 1},
                                      {130, 49, 50}, {64, 63, 64},  {100, 20, 500}, {70, 300, 8}};
    static const size_t heads[][3] = {/* H, G, D */
                                      {1, 1, 8}, {4, 1, 32}, {6, 2, 8}, {9, 3, 64}, {4, 4, 80}, {2, 1, 128}, {3, 3, 1}};
    for (size_t i = 0; i < sizeof spans / sizeof spans[0]; i++) {
        for (size_t j = 0; j < sizeof heads / sizeof heads[0]; j++) {
            struct memtx__attention_sizes sizes = {.n_tokens = spans[i][0],
                                                   .n_past = spans[i][1],
                                                   .band = spans[i][2],
                                                   .n_heads = heads[j][0],
                                                   .n_kv_heads = heads[j][1],
                                                   .head_size = heads[j][2],
                                                   .cache_rows = spans[i][0] + spans[i][1] + j % 3,
                                                   .scale = 1.0F / sqrtf((float)heads[j][2])};
            attention_against_plain(sizes, 2);
        }
    }
}

Test(attention, of_a_long_past)
{
    struct memtx__attention_sizes sizes = {.n_tokens = 40,
                                           .n_past = 6000,
                                           .n_heads = 9,
                                           .n_kv_heads = 1,
                                           .head_size = 16,
                                           .cache_rows = 6100,
                                           .scale = 0.25F};
    attention_against_plain(sizes, 1);
}

/* Logits of several hundred: one weight is all but 1 and the rest vanish, without overflow. */
Test(attention, of_extreme_logits)
{
    struct memtx__attention_sizes sizes = {.n_tokens = 70,
                                           .n_past = 30,
                                           .n_heads = 4,
                                           .n_kv_heads = 2,
                                           .head_size = 32,
                                           .cache_rows = 100,
                                           .scale = 1.0F / sqrtf(32)};
    attention_against_plain(sizes, 20);
    attention_against_plain(sizes, 1e-10F);
    attention_against_plain(sizes, 0);
}

/* ---- norm, activation ------------------------------------------------------------------------- */

Test(norm, against_double)
{
    static const size_t channels[] = {1, 7, 32, 576, 2048};
    for (size_t i = 0; i < sizeof channels / sizeof channels[0]; i++) {
        enum { T = 5 };
        const size_t c = channels[i];
        const float epsilon = 1e-5F;
        float *x = random_values(T * c, 3, 1), *weight = random_values(c, 1, 2), *y = random_values(T * c, 1, 3);
        memset(x + c, 0, c * sizeof *x); /* a token of zeros stays one */
        memtx__norm_fwd(y, x, weight, epsilon, T, c);
        for (size_t t = 0; t < T; t++) {
            double sum = 0;
            for (size_t j = 0; j < c; j++) {
                sum += (double)x[t * c + j] * (double)x[t * c + j];
            }
            for (size_t j = 0; j < c; j++) {
                double expected = (double)x[t * c + j] / sqrt(sum / (double)c + (double)epsilon) * (double)weight[j];
                cr_assert_float_eq((double)y[t * c + j], expected, 1e-5); /* numbers below four, a float32 sum */
            }
        }
        memtx__norm_fwd(x, x, weight, epsilon, T, c); /* in place */
        cr_assert_eq(memcmp(x, y, T * c * sizeof *x), 0);
        free(x);
        free(weight);
        free(y);
    }
}

Test(activation, exp_over_its_range)
{
    const double relative_tolerance = 3e-7; /* exp.h says 2e-7 for the polynomial; the scaling rounds once more */
    for (int i = -87 * 4096; i <= 88 * 4096; i++) {
        float x = (float)i / 4096.0F;
        double expected = exp((double)x);
        cr_assert(fabs((double)memtx__exp(x) - expected) <= relative_tolerance * expected, "exp(%g)", (double)x);
    }
    cr_assert_eq(memtx__exp(0.0F), 1.0F);
    cr_assert_eq(memtx__exp(-0.0F), 1.0F);
    cr_assert_eq(memtx__exp(-87.5F), 0.0F);
    cr_assert_eq(memtx__exp(-FLT_MAX), 0.0F);
    cr_assert_eq(memtx__exp(-INFINITY), 0.0F);
    cr_assert_eq(memtx__exp(INFINITY), memtx__exp(88.0F));
    cr_assert(isfinite(memtx__exp(88.0F)));
}

Test(activation, swiglu_against_double)
{
    enum { T = 3, F = 37 };
    float *x = random_values(T * 2 * F, 12, 1);
    static float y[T * F];
    x[0] = 200.0F; /* far into both ends */
    x[1] = -200.0F;
    x[2] = 0.0F;
    memtx__swiglu_fwd(y, x, T, F);
    for (size_t t = 0; t < T; t++) {
        for (size_t j = 0; j < F; j++) {
            double gate = (double)x[t * 2 * F + j], up = (double)x[t * 2 * F + F + j];
            double expected = gate / (1.0 + exp(-gate)) * up;
            cr_assert_float_eq((double)y[t * F + j], expected, 1e-6 * (1 + fabs(expected)), "silu(%g) * %g", gate, up);
        }
    }
    free(x);
}

Test(activation, add)
{
    enum { N = 1003 };
    float *x = random_values(N, 1, 1), *y = random_values(N, 1, 2), *before = random_values(N, 1, 1);
    memtx__add_fwd(x, y, N);
    for (size_t i = 0; i < N; i++) {
        cr_assert_eq(x[i], before[i] + y[i]);
    }
    free(x);
    free(y);
    free(before);
}

/* ---- rope ------------------------------------------------------------------------------------- */

enum { D = 16 };

static double dot(const float *a, const float *b)
{
    double sum = 0;
    for (size_t d = 0; d < D; d++) {
        sum += (double)a[d] * (double)b[d];
    }
    return sum;
}

Test(rope, angles_in_double_at_far_positions)
{
    enum { N_POSITIONS = 200001 };
    static const float factors[D / 2] = {1, 1, 1, 2, 4, 8, 8, 32};
    static const size_t positions[] = {0, 1, 2, 77, 4095, 65537, 200000};
    float *x = random_values(D, 1, 1), y[D];
    for (int with = 0; with < 2; with++) {
        struct memtx__rope rope;
        cr_assert_eq(memtx__rope_create(&rope, D, 100000.0, with ? factors : NULL, N_POSITIONS), MEMTX_OK);
        for (size_t i = 0; i < sizeof positions / sizeof positions[0]; i++) {
            memtx__rope_turn(y, &rope, x, positions[i], D);
            for (size_t pair = 0; pair < D / 2; pair++) {
                double angle = (double)positions[i] * pow(100000.0, -2.0 * (double)pair / D) /
                               (with ? (double)factors[pair] : 1.0);
                double a = (double)x[2 * pair], b = (double)x[2 * pair + 1];
                /* float32 sines of exact angles; an angle in float32 would be off by 0.01 here */
                cr_assert_float_eq((double)y[2 * pair], a * cos(angle) - b * sin(angle), 3e-7);
                cr_assert_float_eq((double)y[2 * pair + 1], a * sin(angle) + b * cos(angle), 3e-7);
            }
        }
        memtx__rope_release(&rope);
    }
    free(x);
}

/* R(a) R(b) = R(a + b), and a score depends on the distance alone. */
Test(rope, turns_add_up_and_scores_know_distances_only)
{
    struct memtx__rope rope;
    float *q = random_values(D, 1, 1), *k = random_values(D, 1, 2), one[D], two[D], turned_k[D];
    cr_assert_eq(memtx__rope_create(&rope, D, 10000.0, NULL, 5000), MEMTX_OK);
    for (size_t a = 0; a < 5000; a += 313) {
        for (size_t b = 0; a + b < 5000; b += 617) {
            memtx__rope_turn(one, &rope, q, a, D);
            memtx__rope_turn(one, &rope, one, b, D); /* in place */
            memtx__rope_turn(two, &rope, q, a + b, D);
            cr_assert_float_eq(dot(one, k), dot(two, k), 2e-6);
            memtx__rope_turn(turned_k, &rope, k, b, D);
            memtx__rope_turn(one, &rope, q, a, D); /* distance a from an unturned key */
            cr_assert_float_eq(dot(two, turned_k), dot(one, k), 2e-6);
        }
    }
    memtx__rope_release(&rope);
    free(q);
    free(k);
}

Test(rope, dimensions_that_do_not_turn)
{
    struct memtx__rope rope;
    float *x = random_values(D, 1, 1), y[D];
    cr_assert_eq(memtx__rope_create(&rope, 6, 10000.0, NULL, 100), MEMTX_OK);
    memtx__rope_turn(y, &rope, x, 50, D);
    cr_assert_eq(memcmp(y + 6, x + 6, (D - 6) * sizeof *x), 0);
    cr_assert_neq(memcmp(y, x, 6 * sizeof *x), 0);
    memtx__rope_release(&rope);
    cr_assert_eq(memtx__rope_create(&rope, 0, 10000.0, NULL, 100), MEMTX_OK, "positions are off");
    memtx__rope_turn(y, &rope, x, 50, D);
    cr_assert_eq(memcmp(y, x, sizeof y), 0);
    memtx__rope_release(&rope);
    free(x);
}

/* ---- loss ------------------------------------------------------------------------------------- */

static void loss_against_double(size_t n_rows, size_t n_vocabulary, size_t tile, float size)
{
    float *logits = random_values(n_rows * n_vocabulary, size, 1), *part = random_values(n_rows * tile, 1, 2);
    struct memtx__loss_row *rows = calloc(n_rows, sizeof *rows);
    uint32_t *targets = malloc(n_rows * sizeof *targets);
    float *nll = malloc(n_rows * sizeof *nll);
    for (size_t row = 0; row < n_rows; row++) { /* the first, the last and others */
        targets[row] = (uint32_t)(row == 0 ? 0 : row == 1 ? n_vocabulary - 1 : row * 997 % n_vocabulary);
    }
    memtx__loss_begin(rows, n_rows);
    for (size_t first = 0; first < n_vocabulary; first += tile) {
        size_t n = n_vocabulary - first < tile ? n_vocabulary - first : tile;
        for (size_t row = 0; row < n_rows; row++) {
            memcpy(part + row * n, logits + row * n_vocabulary + first, n * sizeof *part);
        }
        memtx__loss_add_tile(rows, part, targets, n_rows, first, n);
    }
    memtx__loss_end(nll, rows, n_rows);
    for (size_t row = 0; row < n_rows; row++) {
        double highest = -INFINITY, sum = 0;
        for (size_t i = 0; i < n_vocabulary; i++) {
            highest = fmax(highest, (double)logits[row * n_vocabulary + i]);
        }
        for (size_t i = 0; i < n_vocabulary; i++) {
            sum += exp((double)logits[row * n_vocabulary + i] - highest);
        }
        double expected = log(sum) + highest - (double)logits[row * n_vocabulary + targets[row]];
        /* A tile's sum is float32: 1e-6 of it, which is as much in its logarithm; then the result is rounded. */
        cr_assert_float_eq((double)nll[row], expected, 3e-6 + 1e-6 * fabs(expected), "%zu entries in tiles of %zu",
                           n_vocabulary, tile);
    }
    free(logits);
    free(part);
    free(rows);
    free(targets);
    free(nll);
}

Test(loss, against_double)
{
    static const size_t tiles[] = {1, 3, 64, 300, 1000};
    for (size_t i = 0; i < sizeof tiles / sizeof tiles[0]; i++) {
        loss_against_double(9, 300, tiles[i], 5);
        loss_against_double(9, 300, tiles[i], 200); /* far apart: the largest logit comes in any tile */
        loss_against_double(9, 300, tiles[i], 0);
    }
    loss_against_double(3, 50000, 4096, 10);
    loss_against_double(1, 1, 4096, 1);
}

/* One likely entry and many unlikely ones: what rounding loses of the many must not add up. */
Test(loss, many_small_terms_are_not_lost)
{
    enum { V = 49152, TILE = 4096 };
    const double tolerance = 1e-6; /* float32 rounds the result, about 8, by 2e-7 */
    struct memtx__rng rng = memtx__rng_create(9, 0);
    const uint32_t target = 7;
    float *logits = malloc(V * sizeof *logits), nll;
    struct memtx__loss_row row;
    double sum = 0;
    for (size_t i = 0; i < V; i++) {
        logits[i] = -10.0F + 6.0F * memtx__rng_signed(&rng);
    }
    logits[5] = 4.0F;
    logits[target] = -4.0F;
    memtx__loss_begin(&row, 1);
    for (size_t first = 0; first < V; first += TILE) {
        memtx__loss_add_tile(&row, logits + first, &target, 1, first, TILE);
    }
    memtx__loss_end(&nll, &row, 1);
    for (size_t i = 0; i < V; i++) {
        sum += exp((double)logits[i]);
    }
    cr_assert_float_eq((double)nll, log(sum) - (double)logits[target], tolerance);
    free(logits);
}
