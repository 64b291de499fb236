/* The model against an independent implementation in NumPy: full attention over the first 1,024 tokens of Persuasion.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "reference.h"
#include "unit/tiny_model.h"

/* README.md's table: float32 in NumPy is 1e-7, 2.3e-5 and 9.5e-5 away. */
static const double mean_tolerance = 1e-5; /* relative; 1e-3 is what is demanded */
static const double nll_tolerance = 1e-3;
static const double logit_tolerance = 2e-3;
static const double least_margin = 0.01; /* below it the top token is chance */

static memtx_stream *open_full(const memtx_model *model, uint32_t segment, uint32_t n_tokens)
{
    memtx_stream *stream;
    struct memtx_stream_options options = memtx_stream_options_default();
    options.mode = MEMTX_MODE_FULL;
    options.segment = segment;
    options.most_tokens = n_tokens;
    cr_assert_eq(memtx_stream_open(&stream, model, &options), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(memtx_model_begin_document(stream, "text"), MEMTX_OK);
    return stream;
}

Test(model_reference, nll_of_every_token)
{
    memtx_model *model = reference_model();
    char *file = reference_load("model_reference.json");
    size_t n, n_nll;
    uint32_t *ids = reference_ids(&n, file);
    double *expected = json_numbers(&n_nll, file, "nll"), sum = 0;
    float *nll = malloc(n * sizeof *nll);
    cr_assert(n == 1024 && n_nll == n - 1);
    memtx_stream *stream = open_full(model, 512, (uint32_t)n);
    tiny_run(nll, stream, ids, n, 512);
    for (size_t i = 0; i < n - 1; i++) {
        cr_assert_float_eq((double)nll[i], expected[i], nll_tolerance, "token %zu: %g, not %g", i + 1, (double)nll[i],
                           expected[i]);
        sum += (double)nll[i];
    }
    double mean = sum / (double)n_nll, expected_mean = json_number(file, "mean_nll");
    cr_assert_float_eq(mean, expected_mean, mean_tolerance * expected_mean, "%.8f, not %.8f", mean, expected_mean);
    memtx_stream_close(stream);
    memtx_model_close(model);
    free(nll);
    free(expected);
    free(ids);
    free(file);
}

static void check_position(const float *logits, size_t n_vocabulary, const char *file, const char *position)
{
    size_t n_top, n_fixed;
    double *top_ids = json_numbers(&n_top, position, "top_ids"), *top = json_numbers(&n_top, position, "top_logits");
    double *fixed_ids = json_numbers(&n_fixed, file, "fixed_ids"),
           *fixed = json_numbers(&n_fixed, position, "fixed_logits"), highest = -INFINITY, total = 0;
    cr_assert(n_top == 10 && n_fixed == 64);
    for (size_t i = 0; i < n_top; i++) {
        cr_assert_float_eq((double)logits[(size_t)top_ids[i]], top[i], logit_tolerance);
    }
    for (size_t i = 0; i < n_fixed; i++) {
        cr_assert_float_eq((double)logits[(size_t)fixed_ids[i]], fixed[i], logit_tolerance);
    }
    for (size_t i = 0; i < n_vocabulary; i++) {
        highest = fmax(highest, (double)logits[i]);
    }
    for (size_t i = 0; i < n_vocabulary; i++) {
        total += exp((double)logits[i] - highest);
    }
    cr_assert_float_eq(highest + log(total), json_number(position, "logsumexp"), logit_tolerance);
    free(top_ids);
    free(top);
    free(fixed_ids);
    free(fixed);
}

Test(model_reference, top_tokens_and_logits)
{
    enum { SEGMENT = 256 };
    memtx_model *model = reference_model();
    char *file = reference_load("model_reference.json");
    const char *positions = json_find(file, "positions");
    struct memtx_model_facts facts;
    size_t n, n_top, n_margin, n_compared = 0, n_positions = 0;
    uint32_t *ids = reference_ids(&n, file);
    double *top = json_numbers(&n_top, file, "top1"), *margin = json_numbers(&n_margin, file, "margin");
    memtx_model_info(&facts, model);
    float *logits = malloc((size_t)SEGMENT * facts.n_vocabulary * sizeof *logits);
    memtx_stream *stream = open_full(model, SEGMENT, (uint32_t)n);
    cr_assert(n_top == n && n_margin == n);
    for (size_t first = 0; first < n; first += SEGMENT) {
        const float *hidden;
        cr_assert_eq(memtx_model_forward_segment(&hidden, stream, ids + first, SEGMENT), MEMTX_OK);
        cr_assert_eq(memtx_model_logits(logits, stream, 0, SEGMENT), MEMTX_OK);
        for (size_t row = 0; row < SEGMENT; row++) {
            const float *of_row = logits + row * facts.n_vocabulary;
            size_t best = 0;
            for (size_t i = 1; i < facts.n_vocabulary; i++) {
                best = of_row[i] > of_row[best] ? i : best;
            }
            if (margin[first + row] > least_margin) {
                cr_assert_eq(best, (size_t)top[first + row], "position %zu", first + row);
                n_compared++;
            }
            for (size_t i = 0; i < json_count(positions); i++) {
                const char *position = json_item(positions, i);
                if ((size_t)json_number(position, "position") == first + row) {
                    check_position(of_row, facts.n_vocabulary, file, position);
                    n_positions++;
                }
            }
        }
    }
    cr_assert_gt(n_compared, 1000);
    cr_assert_eq(n_positions, 8);
    memtx_stream_close(stream);
    memtx_model_close(model);
    free(logits);
    free(top);
    free(margin);
    free(ids);
    free(file);
}
