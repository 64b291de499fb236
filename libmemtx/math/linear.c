/* Matrix products through oneDNN (linear.h).
 *
 * The packed layout of a shape is the one oneDNN chooses when it may choose freely for LAYOUT_ROWS rows; it depends on
 * the shape and the processor alone, so weights packed at load fit every plan made later. Everything that differs
 * between oneDNN 2 (descriptions are values) and 3 (descriptions are handles) stands in the first third of this file.
 */
#include "math/linear.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>

#include "base/alloc.h"
#include "base/status.h"
#include "math/half.h"

enum { LAYOUT_ROWS = 512 };

static int translate(dnnl_status_t dnnl, const char *what)
{
    switch (dnnl) {
    case dnnl_success:
        return MEMTX_OK;
    case dnnl_out_of_memory:
        return memtx__fail(MEMTX_E_NO_MEMORY, "no memory to %s", what);
    case dnnl_unimplemented:
        return memtx__fail(MEMTX_E_UNSUPPORTED, "this processor's oneDNN cannot %s", what);
    default:
        return memtx__fail(MEMTX_E_UNSUPPORTED, "oneDNN failed to %s (code %d)", what, (int)dnnl);
    }
}

/* ---- oneDNN 2 and 3 -------------------------------------------------------------------------------------------- */

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t desc_owned;
typedef const_dnnl_memory_desc_t desc_borrowed;
#define DESC(owned) (owned)

static dnnl_status_t desc_create(desc_owned *out, const dnnl_dims_t dims, dnnl_data_type_t type, dnnl_format_tag_t tag)
{
    return dnnl_memory_desc_create_with_tag(out, 2, dims, type, tag);
}

static void desc_destroy(desc_owned *desc)
{
    (void)dnnl_memory_desc_destroy(*desc);
}

static dnnl_status_t matmul_create(dnnl_primitive_desc_t *out, dnnl_engine_t engine, desc_borrowed x, desc_borrowed w,
                                   desc_borrowed y, const_dnnl_primitive_attr_t attributes)
{
    return dnnl_matmul_primitive_desc_create(out, engine, x, w, NULL, y, attributes);
}
#else
typedef dnnl_memory_desc_t desc_owned;
typedef const dnnl_memory_desc_t *desc_borrowed;
#define DESC(owned) (&(owned))

static dnnl_status_t desc_create(desc_owned *out, const dnnl_dims_t dims, dnnl_data_type_t type, dnnl_format_tag_t tag)
{
    return dnnl_memory_desc_init_by_tag(out, 2, dims, type, tag);
}

static void desc_destroy(desc_owned *desc)
{
    (void)desc;
}

static dnnl_status_t matmul_create(dnnl_primitive_desc_t *out, dnnl_engine_t engine, desc_borrowed x, desc_borrowed w,
                                   desc_borrowed y, const_dnnl_primitive_attr_t attributes)
{
    dnnl_matmul_desc_t matmul;
    dnnl_status_t status = dnnl_matmul_desc_init(&matmul, x, w, NULL, y);
    return status ? status : dnnl_primitive_desc_create(out, &matmul, attributes, engine, NULL);
}
#endif

static dnnl_data_type_t data_type(enum memtx__weight_type type)
{
    return type == MEMTX__WEIGHT_BF16 ? dnnl_bf16 : dnnl_f32;
}

/* The description of the product of n_rows rows. `weights` NULL lets oneDNN choose the layout; `attributes` NULL are
 * the usual ones. */
static int describe_product(dnnl_primitive_desc_t *out, dnnl_engine_t engine, struct memtx__linear_shape shape,
                            size_t n_rows, desc_borrowed weights, const_dnnl_primitive_attr_t attributes)
{
    const dnnl_dims_t x_dims = {(int64_t)n_rows, (int64_t)shape.n_in};
    const dnnl_dims_t w_dims = {(int64_t)shape.n_in, (int64_t)shape.n_out};
    const dnnl_dims_t y_dims = {(int64_t)n_rows, (int64_t)shape.n_out};
    desc_owned x, w, y;
    dnnl_status_t status = desc_create(&x, x_dims, data_type(shape.type), dnnl_ab);
    if (status) {
        return translate(status, "describe a matrix");
    }
    status = desc_create(&w, w_dims, data_type(shape.type), dnnl_format_tag_any);
    if (status) {
        goto no_w;
    }
    status = desc_create(&y, y_dims, dnnl_f32, dnnl_ab);
    if (status) {
        goto no_y;
    }
    status = matmul_create(out, engine, DESC(x), weights ? weights : DESC(w), DESC(y), attributes);
    desc_destroy(&y);
no_y:
    desc_destroy(&w);
no_w:
    desc_destroy(&x);
    return translate(status, shape.type == MEMTX__WEIGHT_BF16 ? "multiply bf16 matrices" : "multiply f32 matrices");
}

void memtx__linear_version(char *out, size_t size)
{
    const dnnl_version_t *version = dnnl_version();
    (void)snprintf(out, size, "%d.%d.%d", version->major, version->minor, version->patch);
}

/* ---- packing ---------------------------------------------------------------------------------- */

/* The free choice of oneDNN for a shape; the caller destroys *out, which holds the layout of the weights. */
static int choose_layout(dnnl_primitive_desc_t *out, dnnl_engine_t *engine, struct memtx__linear_shape shape)
{
    int status = translate(dnnl_engine_create(engine, dnnl_cpu, 0), "start");
    if (status) {
        return status;
    }
    status = describe_product(out, *engine, shape, LAYOUT_ROWS, NULL, NULL);
    if (status) {
        (void)dnnl_engine_destroy(*engine);
    }
    return status;
}

static desc_borrowed weights_of(dnnl_primitive_desc_t product)
{
    return dnnl_primitive_desc_query_md(product, dnnl_query_weights_md, 0);
}

bool memtx__weight_type_is_fast(enum memtx__weight_type type)
{
    return memtx__precision_is_fast(type == MEMTX__WEIGHT_BF16 ? MEMTX__PRECISION_BF16 : MEMTX__PRECISION_F32);
}

int memtx__linear_packed_bytes(size_t *out, struct memtx__linear_shape shape)
{
    dnnl_engine_t engine;
    dnnl_primitive_desc_t product;
    int status = choose_layout(&product, &engine, shape);
    if (!status) {
        *out = dnnl_memory_desc_get_size(weights_of(product));
        (void)dnnl_primitive_desc_destroy(product);
        (void)dnnl_engine_destroy(engine);
    }
    return status;
}

static dnnl_status_t reorder(dnnl_engine_t engine, dnnl_memory_t to, desc_borrowed to_desc, dnnl_memory_t from,
                             desc_borrowed from_desc)
{
    dnnl_primitive_desc_t desc = NULL;
    dnnl_primitive_t primitive = NULL;
    dnnl_stream_t stream = NULL;
    dnnl_status_t status = dnnl_reorder_primitive_desc_create(&desc, from_desc, engine, to_desc, engine, NULL);
    if (!status) {
        status = dnnl_primitive_create(&primitive, desc);
    }
    if (!status) {
        status = dnnl_stream_create(&stream, engine, dnnl_stream_default_flags);
    }
    if (!status) {
        const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
        status = dnnl_primitive_execute(primitive, stream, 2, args);
    }
    if (!status) {
        status = dnnl_stream_wait(stream);
    }
    (void)(stream && dnnl_stream_destroy(stream));
    (void)(primitive && dnnl_primitive_destroy(primitive));
    (void)(desc && dnnl_primitive_desc_destroy(desc));
    return status;
}

int memtx__linear_pack(void *packed, struct memtx__linear_shape shape, const float *weights)
{
    dnnl_engine_t engine;
    dnnl_primitive_desc_t product;
    int status = choose_layout(&product, &engine, shape);
    if (status) {
        return status;
    }
    const dnnl_dims_t dims = {(int64_t)shape.n_in, (int64_t)shape.n_out};
    dnnl_memory_t from = NULL, to = NULL;
    desc_owned plain;
    dnnl_status_t dnnl = desc_create(&plain, dims, dnnl_f32, dnnl_ba);
    if (!dnnl) {
        dnnl = dnnl_memory_create(&from, DESC(plain), engine, (void *)(uintptr_t)weights);
        if (!dnnl) {
            dnnl = dnnl_memory_create(&to, weights_of(product), engine, packed);
        }
        if (!dnnl) {
            dnnl = reorder(engine, to, weights_of(product), from, DESC(plain));
        }
        (void)(to && dnnl_memory_destroy(to));
        (void)(from && dnnl_memory_destroy(from));
        desc_destroy(&plain);
    }
    (void)dnnl_primitive_desc_destroy(product);
    (void)dnnl_engine_destroy(engine);
    return translate(dnnl, "pack weights");
}

/* ---- plans ------------------------------------------------------------------------------------ */

struct plan {
    struct memtx__linear_shape shape;
    size_t n_rows;
    dnnl_primitive_t product;
    dnnl_memory_t x, w, y;
};

struct memtx__linear_plans {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    struct plan *plans;
    size_t n_plans;
    size_t n_plans_held;
    uint16_t *halves; /* x in bf16 */
    size_t n_halves_held;
};

int memtx__linear_plans_create(struct memtx__linear_plans **out)
{
    struct memtx__linear_plans *plans;
    *out = NULL;
    int status = memtx__alloc(&plans, 1, sizeof *plans);
    if (status) {
        return status;
    }
    status = translate(dnnl_engine_create(&plans->engine, dnnl_cpu, 0), "start");
    if (!status) {
        status = translate(dnnl_stream_create(&plans->stream, plans->engine, dnnl_stream_default_flags), "start");
    }
    if (status) {
        memtx__linear_plans_destroy(plans);
        return status;
    }
    *out = plans;
    return MEMTX_OK;
}

static void release_plan(struct plan *plan)
{
    (void)(plan->x && dnnl_memory_destroy(plan->x));
    (void)(plan->w && dnnl_memory_destroy(plan->w));
    (void)(plan->y && dnnl_memory_destroy(plan->y));
    (void)(plan->product && dnnl_primitive_destroy(plan->product));
}

void memtx__linear_plans_destroy(struct memtx__linear_plans *plans)
{
    if (!plans) {
        return;
    }
    for (size_t i = 0; i < plans->n_plans; i++) {
        release_plan(&plans->plans[i]);
    }
    (void)(plans->stream && dnnl_stream_destroy(plans->stream));
    (void)(plans->engine && dnnl_engine_destroy(plans->engine));
    memtx__free(plans->plans);
    memtx__free(plans->halves);
    memtx__free(plans);
}

static struct plan *find_plan(struct memtx__linear_plans *plans, struct memtx__linear_shape shape, size_t n_rows)
{
    for (size_t i = 0; i < plans->n_plans; i++) {
        struct plan *plan = &plans->plans[i];
        if (plan->n_rows == n_rows && plan->shape.n_in == shape.n_in && plan->shape.n_out == shape.n_out &&
            plan->shape.type == shape.type) {
            return plan;
        }
    }
    return NULL;
}

static int make_plan(struct plan *plan, struct memtx__linear_plans *plans)
{
    dnnl_primitive_desc_t layout = NULL, product = NULL;
    int status = describe_product(&layout, plans->engine, plan->shape, LAYOUT_ROWS, NULL, NULL);
    if (status) {
        return status;
    }
    status = describe_product(&product, plans->engine, plan->shape, plan->n_rows, weights_of(layout), NULL);
    if (!status) {
        dnnl_status_t dnnl = dnnl_primitive_create(&plan->product, product);
        if (!dnnl) {
            dnnl = dnnl_memory_create(&plan->x, dnnl_primitive_desc_query_md(product, dnnl_query_src_md, 0),
                                      plans->engine, DNNL_MEMORY_NONE);
        }
        if (!dnnl) {
            dnnl = dnnl_memory_create(&plan->w, weights_of(product), plans->engine, DNNL_MEMORY_NONE);
        }
        if (!dnnl) {
            dnnl = dnnl_memory_create(&plan->y, dnnl_primitive_desc_query_md(product, dnnl_query_dst_md, 0),
                                      plans->engine, DNNL_MEMORY_NONE);
        }
        status = translate(dnnl, "prepare a product");
        (void)dnnl_primitive_desc_destroy(product);
    }
    (void)dnnl_primitive_desc_destroy(layout);
    return status;
}

int memtx__linear_plan(struct memtx__linear_plans *plans, struct memtx__linear_shape shape, size_t n_rows)
{
    if (find_plan(plans, shape, n_rows)) {
        return MEMTX_OK;
    }
    int status = memtx__grow(&plans->plans, &plans->n_plans_held, plans->n_plans + 1, sizeof *plans->plans);
    if (!status && shape.type == MEMTX__WEIGHT_BF16) {
        status = memtx__grow(&plans->halves, &plans->n_halves_held, n_rows * shape.n_in, sizeof *plans->halves);
    }
    if (status) {
        return status;
    }
    struct plan plan = {.shape = shape, .n_rows = n_rows};
    status = make_plan(&plan, plans);
    if (status) {
        release_plan(&plan);
        return status;
    }
    plans->plans[plans->n_plans++] = plan;
    return MEMTX_OK;
}

static void round_rows(uint16_t *halves, const float *x, size_t n_rows, size_t n_in)
{
#pragma omp parallel for schedule(static)
    for (size_t row = 0; row < n_rows; row++) {
        memtx__f32_to_bf16_n(halves + row * n_in, x + row * n_in, n_in);
    }
}

int memtx__linear_fwd(float *y, struct memtx__linear_plans *plans, const float *x, const struct memtx__linear *linear,
                      size_t n_rows)
{
    int status = memtx__linear_plan(plans, linear->shape, n_rows);
    if (status) {
        return status;
    }
    struct plan *plan = find_plan(plans, linear->shape, n_rows);
    const void *source = x;
    if (linear->shape.type == MEMTX__WEIGHT_BF16) {
        round_rows(plans->halves, x, n_rows, linear->shape.n_in);
        source = plans->halves;
    }
    (void)dnnl_memory_set_data_handle(plan->x, (void *)(uintptr_t)source);
    (void)dnnl_memory_set_data_handle(plan->w, (void *)(uintptr_t)linear->packed);
    (void)dnnl_memory_set_data_handle(plan->y, y);
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, plan->x}, {DNNL_ARG_WEIGHTS, plan->w}, {DNNL_ARG_DST, plan->y}};
    return translate(dnnl_primitive_execute(plan->product, plans->stream, 3, args), "multiply");
}

/* ---- plain ------------------------------------------------------------------------------------ */

void memtx__linear_fwd_plain(float *y, const float *x, const float *weights, size_t n_rows, size_t n_in, size_t n_out)
{
    for (size_t row = 0; row < n_rows; row++) {
        for (size_t out = 0; out < n_out; out++) {
            float sum = 0;
            for (size_t in = 0; in < n_in; in++) {
                sum += x[row * n_in + in] * weights[out * n_in + in];
            }
            y[row * n_out + out] = sum;
        }
    }
}

int memtx__product(float *c, const float *a, const float *b, bool b_transposed, size_t m, size_t n, size_t k,
                   size_t ldc, size_t lda, size_t ldb)
{
    dnnl_status_t status = dnnl_sgemm('N', b_transposed ? 'T' : 'N', (dnnl_dim_t)m, (dnnl_dim_t)n, (dnnl_dim_t)k, 1.0F,
                                      a, (dnnl_dim_t)lda, b, (dnnl_dim_t)ldb, 0.0F, c, (dnnl_dim_t)ldc);
    return translate(status, "multiply");
}

/* ---- bare products in low precision ----------------------------------------------------------- */

bool memtx__precision_is_fast(enum memtx__precision precision)
{
#if defined(__x86_64__)
    if (precision == MEMTX__PRECISION_BF16) {
        return __builtin_cpu_supports("avx512bf16");
    }
    if (precision == MEMTX__PRECISION_I8) { /* without VNNI sums of two products saturate at 16 bits */
        return __builtin_cpu_supports("avx512vnni");
    }
#endif
    return precision == MEMTX__PRECISION_F32;
}

/* A thread's arguments: oneDNN's memories hold the addresses of one execution. */
struct operands {
    dnnl_memory_t x, w, y, scratchpad;
};

struct memtx__bf16_product {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t primitive;
    struct operands *threads; /* [n_threads] */
    size_t n_threads;
};

static dnnl_status_t make_operands(struct operands *operands, dnnl_engine_t engine, dnnl_primitive_desc_t product)
{
    const struct {
        dnnl_memory_t *memory;
        dnnl_query_t query;
        void *handle;
    } all[] = {{&operands->x, dnnl_query_src_md, DNNL_MEMORY_NONE},
               {&operands->w, dnnl_query_weights_md, DNNL_MEMORY_NONE},
               {&operands->y, dnnl_query_dst_md, DNNL_MEMORY_NONE},
               {&operands->scratchpad, dnnl_query_scratchpad_md, DNNL_MEMORY_ALLOCATE}};
    dnnl_status_t status = dnnl_success;
    for (size_t i = 0; i < sizeof all / sizeof all[0] && !status; i++) {
        status = dnnl_memory_create(all[i].memory, dnnl_primitive_desc_query_md(product, all[i].query, 0), engine,
                                    all[i].handle);
    }
    return status;
}

/* Rows of b as they stand, not packed: a tile is multiplied a few times only. The scratchpad is ours, since oneDNN's own
 * belongs to the thread that makes the primitive. */
static int describe_bf16(dnnl_primitive_desc_t *out, dnnl_engine_t engine, size_t m, size_t n, size_t k)
{
    const dnnl_dims_t dims = {(int64_t)k, (int64_t)n};
    dnnl_primitive_attr_t attributes;
    desc_owned rows;
    int status = translate(dnnl_primitive_attr_create(&attributes), "describe a product");
    if (status) {
        return status;
    }
    status = translate(dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user), "take scratch");
    if (!status) {
        status = translate(desc_create(&rows, dims, dnnl_bf16, dnnl_ba), "describe a matrix");
    }
    if (!status) {
        status = describe_product(out, engine, (struct memtx__linear_shape){k, n, MEMTX__WEIGHT_BF16}, m, DESC(rows),
                                  attributes);
        desc_destroy(&rows);
    }
    (void)dnnl_primitive_attr_destroy(attributes);
    return status;
}

static int make_bf16(struct memtx__bf16_product *product, size_t m, size_t n, size_t k)
{
    dnnl_primitive_desc_t desc;
    int status = translate(dnnl_engine_create(&product->engine, dnnl_cpu, 0), "start");
    if (!status) {
        status = translate(dnnl_stream_create(&product->stream, product->engine, dnnl_stream_default_flags), "start");
    }
    if (!status) {
        status = describe_bf16(&desc, product->engine, m, n, k);
    }
    if (status) {
        return status;
    }
    dnnl_status_t dnnl = dnnl_primitive_create(&product->primitive, desc);
    for (size_t i = 0; i < product->n_threads && !dnnl; i++) {
        dnnl = make_operands(&product->threads[i], product->engine, desc);
    }
    (void)dnnl_primitive_desc_destroy(desc);
    return translate(dnnl, "prepare a product");
}

int memtx__bf16_product_create(struct memtx__bf16_product **out, size_t n_threads, size_t m, size_t n, size_t k)
{
    struct memtx__bf16_product *product;
    *out = NULL;
    int status = memtx__alloc(&product, 1, sizeof *product);
    if (status) {
        return status;
    }
    product->n_threads = n_threads;
    status = memtx__alloc(&product->threads, n_threads, sizeof *product->threads);
    if (!status) {
        /* A primitive may divide its work among the threads there are when it is made. */
        const int n_now = omp_get_max_threads();
        omp_set_num_threads(1);
        status = make_bf16(product, m, n, k);
        omp_set_num_threads(n_now);
    }
    if (status) {
        memtx__bf16_product_destroy(product);
        return status;
    }
    *out = product;
    return MEMTX_OK;
}

void memtx__bf16_product_destroy(struct memtx__bf16_product *product)
{
    if (!product) {
        return;
    }
    for (size_t i = 0; product->threads && i < product->n_threads; i++) {
        struct operands *operands = &product->threads[i];
        (void)(operands->x && dnnl_memory_destroy(operands->x));
        (void)(operands->w && dnnl_memory_destroy(operands->w));
        (void)(operands->y && dnnl_memory_destroy(operands->y));
        (void)(operands->scratchpad && dnnl_memory_destroy(operands->scratchpad));
    }
    (void)(product->primitive && dnnl_primitive_destroy(product->primitive));
    (void)(product->stream && dnnl_stream_destroy(product->stream));
    (void)(product->engine && dnnl_engine_destroy(product->engine));
    memtx__free(product->threads);
    memtx__free(product);
}

int memtx__bf16_product_run(float *c, struct memtx__bf16_product *product, size_t thread, const uint16_t *a,
                            const uint16_t *b)
{
    const struct operands *operands = &product->threads[thread];
    (void)dnnl_memory_set_data_handle(operands->x, (void *)(uintptr_t)a);
    (void)dnnl_memory_set_data_handle(operands->w, (void *)(uintptr_t)b);
    (void)dnnl_memory_set_data_handle(operands->y, c);
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, operands->x},
                                    {DNNL_ARG_WEIGHTS, operands->w},
                                    {DNNL_ARG_DST, operands->y},
                                    {DNNL_ARG_SCRATCHPAD, operands->scratchpad}};
    return translate(dnnl_primitive_execute(product->primitive, product->stream, 4, args), "multiply bf16 matrices");
}
