/* Specs of FAISS (spec.h). */
#include "spec.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "memtx/index.h"

/* HNSW with one link would take the logarithm of one as a divisor. */
enum { MAX_LISTS = 1 << 20, MIN_LINKS = 2, MAX_LINKS = 256, MIN_PART_BITS = 4, MAX_PART_BITS = 8, MAX_EF = 1 << 16 };

/* FAISS warns on stderr when k-means has fewer points for each centroid. */
enum { GOOD_POINTS_PER_CENTROID = 39 };

/* Without nprobe, a sixteenth of the lists is looked into: chosen on fs/ext4 and Northanger Abbey (bench/README.md). */
enum { LISTS_OF_PROBE = 16, EF_SEARCH = 256, EF_CONSTRUCTION = 40 };

/* Half precision ends at 65,504. What is stored of a row is its difference to the mean row, in a list also to a centroid
 * of length one: at most twice its own numbers, and one. */
static const float most_half = 32500.0F;

#define KNOWN                                                                                                          \
    "known: Flat, SQ4, SQ6, SQ8, SQfp16, PQm, PQmxb, IVFn with a comma and one of these, HNSWm, HNSWm,Flat, "          \
    "HNSWm,SQ.."

static const struct code_name {
    const char *name;
    enum index_code code;
} code_names[] = {
    {"Flat", INDEX_FLAT}, {"SQ4", INDEX_SQ4},       {"SQ6", INDEX_SQ6},
    {"SQ8", INDEX_SQ8},   {"SQfp16", INDEX_SQFP16}, {"PQ", INDEX_PQ},
};

static bool take(const char **at, const char *word)
{
    const size_t length = strlen(word);
    if (strncmp(*at, word, length) != 0) {
        return false;
    }
    *at += length;
    return true;
}

/* A number without sign or leading zero, of up to nine digits. */
static bool take_number(uint32_t *out, const char **at)
{
    const char *c = *at;
    uint32_t value = 0;
    if (*c < '1' || *c > '9') {
        return false;
    }
    for (; *c >= '0' && *c <= '9'; c++) {
        if (c - *at == 9) {
            return false;
        }
        value = value * 10 + (uint32_t)(*c - '0');
    }
    *out = value;
    *at = c;
    return true;
}

static bool parse_code(struct index_spec *spec, const char **at)
{
    for (size_t i = 0; i < sizeof code_names / sizeof code_names[0]; i++) {
        if (take(at, code_names[i].name)) {
            spec->code = code_names[i].code;
            if (spec->code != INDEX_PQ) {
                return true;
            }
            spec->part_bits = 8;
            return take_number(&spec->n_parts, at) && (!take(at, "x") || take_number(&spec->part_bits, at));
        }
    }
    return false;
}

static bool parse_factory(struct index_spec *spec, const char **at)
{
    if (take(at, "HNSW")) {
        spec->code = INDEX_FLAT;
        return take_number(&spec->n_links, at) && (!take(at, ",") || parse_code(spec, at));
    }
    if (take(at, "IVF")) {
        return take_number(&spec->n_lists, at) && take(at, ",") && parse_code(spec, at);
    }
    return parse_code(spec, at);
}

static int check_factory(const struct index_spec *spec, const char *text)
{
    if (spec->n_lists > MAX_LISTS) {
        return memtx_fail(MEMTX_E_INVALID, "index '%s': %u lists, 1 to %d are allowed", text, spec->n_lists, MAX_LISTS);
    }
    if (spec->n_links && (spec->n_links < MIN_LINKS || spec->n_links > MAX_LINKS)) {
        return memtx_fail(MEMTX_E_INVALID, "index '%s': %u links, %d to %d are allowed", text, spec->n_links, MIN_LINKS,
                          MAX_LINKS);
    }
    if (spec->n_links && spec->code == INDEX_PQ) {
        return memtx_fail(MEMTX_E_UNSUPPORTED, "index '%s': FAISS's HNSW over PQ has no inner product (" KNOWN ")",
                          text);
    }
    if (spec->code != INDEX_PQ) {
        return MEMTX_OK;
    }
    if (spec->n_parts < 1 || spec->n_parts > spec->dim || spec->dim % spec->n_parts != 0) {
        return memtx_fail(MEMTX_E_INVALID, "index '%s': keys of %u numbers cannot be cut into %u equal parts", text,
                          spec->dim, spec->n_parts);
    }
    if (spec->part_bits < MIN_PART_BITS || spec->part_bits > MAX_PART_BITS) {
        return memtx_fail(MEMTX_E_INVALID, "index '%s': %u bits a part, %d to %d are allowed", text, spec->part_bits,
                          MIN_PART_BITS, MAX_PART_BITS);
    }
    return MEMTX_OK;
}

struct option {
    const char *name;
    const char *type; /* that has it */
    uint32_t *value;  /* NULL: not an option of this type */
    uint32_t low, high;
    bool is_set;
};

static int parse_option(struct option *options, size_t n, const char *text, const char **at)
{
    const size_t length = strcspn(*at, "=,");
    size_t i = 0;
    while (i < n && (strlen(options[i].name) != length || memcmp(options[i].name, *at, length) != 0)) {
        i++;
    }
    if (i == n) {
        return memtx_fail(MEMTX_E_UNSUPPORTED,
                          "index '%s': option '%.*s' (known: nprobe, mmap, efSearch, efConstruction)", text,
                          (int)length, *at);
    }
    struct option *option = &options[i];
    if (!option->value) {
        return memtx_fail(MEMTX_E_INVALID, "index '%s': %s is an option of %s", text, option->name, option->type);
    }
    if (option->is_set) {
        return memtx_fail(MEMTX_E_INVALID, "index '%s': %s is there twice", text, option->name);
    }
    *at += length;
    uint32_t value = 0;
    const bool is_number = take(at, "=") && (take_number(&value, at) || take(at, "0")) && (!**at || **at == ',');
    if (!is_number || value < option->low || value > option->high) {
        return memtx_fail(MEMTX_E_INVALID, "index '%s': %s must be a number from %u to %u", text, option->name,
                          option->low, option->high);
    }
    *option->value = value;
    option->is_set = true;
    return MEMTX_OK;
}

static int parse_options(struct index_spec *spec, const char *text, const char *at)
{
    const bool is_ivf = spec->n_lists != 0, is_hnsw = spec->n_links != 0;
    struct option options[] = {
        {"nprobe", "IVF", is_ivf ? &spec->nprobe : NULL, 1, spec->n_lists, false},
        {"mmap", "IVF", is_ivf ? &spec->mmap : NULL, 0, 1, false},
        {"efSearch", "HNSW", is_hnsw ? &spec->ef_search : NULL, 1, MAX_EF, false},
        {"efConstruction", "HNSW", is_hnsw ? &spec->ef_construction : NULL, 1, MAX_EF, false},
    };
    do {
        const int status = parse_option(options, sizeof options / sizeof options[0], text, &at);
        if (status) {
            return status;
        }
    } while (take(&at, ","));
    return MEMTX_OK;
}

/* PQ goes with "np": otherwise FAISS reorders its centroids for a search that is not used here, and prints. */
static void write_factory(struct index_spec *spec)
{
    char front[32] = "", code[32] = "";
    if (spec->n_lists) {
        (void)snprintf(front, sizeof front, "IVF%u,", spec->n_lists);
    } else if (spec->n_links) {
        (void)snprintf(front, sizeof front, "HNSW%u,", spec->n_links);
    }
    if (spec->code == INDEX_PQ) {
        (void)snprintf(code, sizeof code, "%ux%unp", spec->n_parts, spec->part_bits);
    }
    (void)snprintf(spec->factory, sizeof spec->factory, "%s%s%s", front, code_names[spec->code].name, code);
}

int index_spec_parse(struct index_spec *out, const char *text, uint32_t dim)
{
    const char *at = text;
    *out = (struct index_spec){.dim = dim, .ef_search = EF_SEARCH, .ef_construction = EF_CONSTRUCTION, .mmap = 1};
    if (dim < 1 || dim > INDEX_MAX_DIM) {
        return memtx_fail(MEMTX_E_INVALID, "index '%s': keys of %u numbers, 1 to %d are allowed", text, dim,
                          INDEX_MAX_DIM);
    }
    if (!take(&at, "faiss:") || !parse_factory(out, &at) || (*at && *at != '@')) {
        return memtx_fail(MEMTX_E_UNSUPPORTED, "index '%s': FAISS type not understood at '%s' (" KNOWN ")", text, at);
    }
    int status = check_factory(out, text);
    out->nprobe = out->n_lists / LISTS_OF_PROBE + (out->n_lists % LISTS_OF_PROBE != 0);
    if (!status && take(&at, "@")) {
        status = parse_options(out, text, at);
    }
    if (!status) {
        write_factory(out);
    }
    return status;
}

uint64_t index_spec_min_training_rows(const struct index_spec *spec)
{
    const uint64_t n_centroids = spec->code == INDEX_PQ ? UINT64_C(1) << spec->part_bits : 1;
    return spec->n_lists > n_centroids ? spec->n_lists : n_centroids;
}

uint64_t index_spec_good_training_rows(const struct index_spec *spec)
{
    return spec->n_lists || spec->code == INDEX_PQ ? GOOD_POINTS_PER_CENTROID * index_spec_min_training_rows(spec) : 1;
}

int index_spec_check_rows(const struct index_spec *spec, const char *text, uint64_t n_rows)
{
    const uint64_t low = index_spec_min_training_rows(spec);
    if (n_rows < low || n_rows > INDEX_MAX_ROWS) {
        return memtx_fail(MEMTX_E_INVALID, "index '%s': %llu rows, it takes %llu to %d", text,
                          (unsigned long long)n_rows, (unsigned long long)low, INDEX_MAX_ROWS);
    }
    return MEMTX_OK;
}

float index_spec_most_value(const struct index_spec *spec)
{
    return spec->code == INDEX_SQFP16 ? most_half : index_most_number;
}

uint64_t index_spec_code_bytes(const struct index_spec *spec)
{
    const uint64_t dim = spec->dim;
    switch (spec->code) {
    case INDEX_FLAT:
        return 4 * dim;
    case INDEX_SQ4:
        return (4 * dim + 7) / 8;
    case INDEX_SQ6:
        return (6 * dim + 7) / 8;
    case INDEX_SQ8:
        return dim;
    case INDEX_SQFP16:
        return 2 * dim;
    case INDEX_PQ:
        return ((uint64_t)spec->n_parts * spec->part_bits + 7) / 8;
    }
    return 0;
}

uint64_t index_spec_list_bytes(const struct index_spec *spec, uint64_t n_rows)
{
    const uint64_t id_bytes = 8;
    return spec->n_lists ? n_rows * (index_spec_code_bytes(spec) + id_bytes) : 0;
}

uint64_t index_spec_other_bytes(const struct index_spec *spec, uint64_t n_rows)
{
    const uint64_t dim_bytes = 4 * (uint64_t)spec->dim, m = spec->n_links;
    uint64_t bytes =
        dim_bytes + spec->n_lists * (2 * dim_bytes + 4 + 8); /* mean; of lists centre, mean, radius, length */
    if (!spec->n_lists) {
        bytes += n_rows * index_spec_code_bytes(spec);
    }
    if (spec->code == INDEX_PQ) {
        bytes += (UINT64_C(1) << spec->part_bits) * dim_bytes;
    }
    if (spec->code == INDEX_SQ4 || spec->code == INDEX_SQ6 || spec->code == INDEX_SQ8) {
        bytes += 2 * dim_bytes; /* the range of each number */
    }
    if (m) {
        /* 2 m links below, m on each level above, which one row in m reaches; a level and an offset for each row */
        bytes += n_rows * (4 * (2 * m) + 4 + 8) + n_rows / (m - 1) * 4 * m;
    }
    return bytes;
}
