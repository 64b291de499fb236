/* oneDNN's own rate (bench.h): the primitive alone, so that the library's use of it can be set beside it. */
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

struct bench_product {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t primitive;
    dnnl_memory_t x, w, y;
    void *blocks[3];
};

static void check(dnnl_status_t status, const char *what)
{
    if (status) {
        char code[32];
        (void)snprintf(code, sizeof code, "oneDNN code %d", (int)status);
        bench_die(what, code);
    }
}

static void *block(size_t n_bytes)
{
    void *bytes = aligned_alloc(64, (n_bytes + 64) / 64 * 64);
    if (!bytes) {
        bench_die("memory", "none left");
    }
    memset(bytes, 0, n_bytes); /* zeros: no denormals, the same work */
    return bytes;
}

#if DNNL_VERSION_MAJOR >= 3
static dnnl_primitive_desc_t describe(dnnl_engine_t engine, const dnnl_dims_t dims[3], dnnl_data_type_t type)
{
    dnnl_memory_desc_t x, w, y;
    dnnl_primitive_desc_t desc;
    check(dnnl_memory_desc_create_with_tag(&x, 2, dims[0], type, dnnl_ab), "x");
    check(dnnl_memory_desc_create_with_tag(&w, 2, dims[1], type, dnnl_format_tag_any), "w");
    check(dnnl_memory_desc_create_with_tag(&y, 2, dims[2], dnnl_f32, dnnl_ab), "y");
    check(dnnl_matmul_primitive_desc_create(&desc, engine, x, w, NULL, y, NULL), "matmul");
    (void)dnnl_memory_desc_destroy(x);
    (void)dnnl_memory_desc_destroy(w);
    (void)dnnl_memory_desc_destroy(y);
    return desc;
}
#else
static dnnl_primitive_desc_t describe(dnnl_engine_t engine, const dnnl_dims_t dims[3], dnnl_data_type_t type)
{
    dnnl_memory_desc_t x, w, y;
    dnnl_matmul_desc_t matmul;
    dnnl_primitive_desc_t desc;
    check(dnnl_memory_desc_init_by_tag(&x, 2, dims[0], type, dnnl_ab), "x");
    check(dnnl_memory_desc_init_by_tag(&w, 2, dims[1], type, dnnl_format_tag_any), "w");
    check(dnnl_memory_desc_init_by_tag(&y, 2, dims[2], dnnl_f32, dnnl_ab), "y");
    check(dnnl_matmul_desc_init(&matmul, &x, &w, NULL, &y), "matmul");
    check(dnnl_primitive_desc_create(&desc, &matmul, NULL, engine, NULL), "matmul");
    return desc;
}
#endif

struct bench_product *bench_product_create(size_t n_rows, size_t n_in, size_t n_out, bool bf16)
{
    struct bench_product *p = calloc(1, sizeof *p);
    if (!p) {
        bench_die("memory", "none left");
    }
    const dnnl_dims_t dims[3] = {
        {(int64_t)n_rows, (int64_t)n_in}, {(int64_t)n_in, (int64_t)n_out}, {(int64_t)n_rows, (int64_t)n_out}};
    check(dnnl_engine_create(&p->engine, dnnl_cpu, 0), "engine");
    check(dnnl_stream_create(&p->stream, p->engine, dnnl_stream_default_flags), "stream");
    dnnl_primitive_desc_t desc = describe(p->engine, dims, bf16 ? dnnl_bf16 : dnnl_f32);
    check(dnnl_primitive_create(&p->primitive, desc), "primitive");
    const dnnl_query_t queries[3] = {dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_dst_md};
    dnnl_memory_t *memories[3] = {&p->x, &p->w, &p->y};
    for (int i = 0; i < 3; i++) {
        p->blocks[i] = block(dnnl_memory_desc_get_size(dnnl_primitive_desc_query_md(desc, queries[i], 0)));
        check(
            dnnl_memory_create(memories[i], dnnl_primitive_desc_query_md(desc, queries[i], 0), p->engine, p->blocks[i]),
            "memory");
    }
    (void)dnnl_primitive_desc_destroy(desc);
    return p;
}

double bench_product_run(struct bench_product *p)
{
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, p->x}, {DNNL_ARG_WEIGHTS, p->w}, {DNNL_ARG_DST, p->y}};
    double start = bench_now();
    check(dnnl_primitive_execute(p->primitive, p->stream, 3, args), "execute");
    check(dnnl_stream_wait(p->stream), "wait");
    return bench_now() - start;
}

void bench_product_i8(int32_t *c, const int8_t *a, const int8_t *b, size_t m, size_t n, size_t k)
{
    const int32_t no_offset = 0;
    check(dnnl_gemm_s8s8s32('N', 'T', 'F', (dnnl_dim_t)m, (dnnl_dim_t)n, (dnnl_dim_t)k, 1.0F, a, (dnnl_dim_t)k, 0, b,
                            (dnnl_dim_t)k, 0, 0.0F, c, (dnnl_dim_t)n, &no_offset),
          "int8 product");
}

void bench_product_destroy(struct bench_product *p)
{
    (void)dnnl_memory_destroy(p->x);
    (void)dnnl_memory_destroy(p->w);
    (void)dnnl_memory_destroy(p->y);
    (void)dnnl_primitive_destroy(p->primitive);
    (void)dnnl_stream_destroy(p->stream);
    (void)dnnl_engine_destroy(p->engine);
    for (int i = 0; i < 3; i++) {
        free(p->blocks[i]);
    }
    free(p);
}
