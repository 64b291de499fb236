/* Paired differences with standard errors (eval.h, DESIGN 10).
 *
 * Neighbouring tokens are correlated, so the error of a mean is taken over blocks of tokens: of 512, and of 4,096
 * beside it, since a difference between modes can last longer than 512. Blocks are of one document; the last may be
 * short, hence the ratio estimator: mean = sum s_b / sum n_b, variance = B / (B - 1) sum (s_b - mean n_b)^2 / (sum
 * n_b)^2.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "eval/eval.h"

enum { SHORT_BLOCK = 512, LONG_BLOCK = 4096 };

void memtx__paired_mean(double *mean, double *standard_error, const double *x, size_t n, const size_t *starts,
                        size_t n_starts, size_t block_tokens)
{
    double total = 0, squares = 0;
    size_t n_blocks = 0;
    for (size_t i = 0; i < n; i++) {
        total += x[i];
    }
    *mean = n ? total / (double)n : (double)NAN;
    for (size_t s = 0; s < n_starts; s++) {
        size_t end = s + 1 < n_starts && starts[s + 1] < n ? starts[s + 1] : n;
        for (size_t first = starts[s]; first < end; first += block_tokens) {
            double sum = 0;
            size_t n_block = end - first < block_tokens ? end - first : block_tokens;
            for (size_t i = 0; i < n_block; i++) {
                sum += x[first + i];
            }
            double off = sum - *mean * (double)n_block;
            squares += off * off;
            n_blocks++;
        }
    }
    *standard_error =
        n_blocks < 2 ? (double)NAN : sqrt((double)n_blocks / (double)(n_blocks - 1) * squares) / (double)n;
}

static size_t find_result(const memtx_eval *eval, const char *mode)
{
    size_t i = 0;
    while (i < eval->n_results && strcmp(eval->results[i].mode, mode) != 0) {
        i++;
    }
    return i;
}

static bool has_pair(const memtx_eval *eval, const char *a, const char *b)
{
    for (size_t i = 0; i < eval->n_pairs; i++) {
        if (strcmp(eval->pairs[i].a, a) == 0 && strcmp(eval->pairs[i].b, b) == 0) {
            return true;
        }
    }
    return false;
}

/* Adds the pair of results a and b. x has room for all scores. */
static void add_pair(memtx_eval *eval, double *x, const size_t *starts, size_t a, size_t b)
{
    if (a >= eval->n_results || b >= eval->n_results || a == b ||
        has_pair(eval, eval->results[a].mode, eval->results[b].mode)) {
        return;
    }
    struct memtx_eval_pair *pair = &eval->pairs[eval->n_pairs++];
    const uint64_t n_a = eval->results[a].n_tokens, n_b = eval->results[b].n_tokens;
    const size_t n = (size_t)(n_a < n_b ? n_a : n_b);
    for (size_t i = 0; i < n; i++) {
        x[i] = (double)eval->nll[a][i] - (double)eval->nll[b][i];
    }
    *pair = (struct memtx_eval_pair){.n_tokens = n};
    memcpy(pair->a, eval->results[a].mode, sizeof pair->a);
    memcpy(pair->b, eval->results[b].mode, sizeof pair->b);
    memtx__paired_mean(&pair->delta_nll, &pair->stderr_512, x, n, starts, eval->n_documents, SHORT_BLOCK);
    memtx__paired_mean(&pair->delta_nll, &pair->stderr_4096, x, n, starts, eval->n_documents, LONG_BLOCK);
}

int memtx__paired_all(memtx_eval *eval)
{
    double *x = NULL, mean;
    size_t *starts = NULL;
    int status = memtx__alloc(&x, eval->n_scored, sizeof *x);
    if (!status) {
        status = memtx__alloc(&starts, eval->n_documents, sizeof *starts);
    }
    if (status) {
        goto done;
    }
    for (size_t i = 0; i < eval->n_documents; i++) {
        starts[i] = eval->documents[i].first_nll;
    }
    for (size_t r = 0; r < eval->n_results; r++) {
        for (size_t i = 0; i < eval->results[r].n_tokens; i++) {
            x[i] = (double)eval->nll[r][i];
        }
        memtx__paired_mean(&mean, &eval->results[r].nll_stderr, x, (size_t)eval->results[r].n_tokens, starts,
                           eval->n_documents, SHORT_BLOCK);
    }
    eval->n_pairs = 0;
    for (size_t r = 1; r < eval->n_results; r++) {
        add_pair(eval, x, starts, r, 0);
    }
    add_pair(eval, x, starts, find_result(eval, "memory"), find_result(eval, "sinks"));
    add_pair(eval, x, starts, find_result(eval, "memory"), find_result(eval, "memory-random"));
done:
    memtx__free(x);
    memtx__free(starts);
    return status;
}
