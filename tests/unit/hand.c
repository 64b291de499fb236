/* A memory that a test fills and asks by hand (hand.h). */
#include "hand.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "base/rng.h"

struct hand hand_default(void)
{
    struct hand hand = {.store_options = memtx_store_options_default(), .options = memtx_memory_options_default()};
    hand.spec = (struct memtx_store_spec){.n_layers = 3,
                                          .n_heads = H,
                                          .n_kv_heads = G,
                                          .head_size = D,
                                          .rope_dims = D,
                                          .rope_base = 10000.0,
                                          .scale = 0.5F,
                                          .row_type = MEMTX_ROWS_F32};
    memtx_store_keep_layer(&hand.spec, LAYER);
    hand.options.k = 5;
    hand.options.delta = 100;
    return hand;
}

void hand_open(struct hand *hand)
{
    hand->store_options.temporary = hand->path && !hand->is_kept;
    hand->store_options.read_only = hand->options.reader;
    cr_assert_eq(memtx_store_open(&hand->store, hand->path, &hand->spec, &hand->store_options), MEMTX_OK, "%s",
                 memtx_last_error());
    cr_assert_eq(memtx_memory_open(&hand->memory, hand->store, &hand->options), MEMTX_OK, "%s", memtx_last_error());
    if (!hand->options.reader) {
        cr_assert_eq(memtx_memory_begin_document(hand->memory, "first"), MEMTX_OK);
    }
}

void hand_leave(struct hand *hand)
{
    memtx_memory_close(hand->memory);
    cr_assert_eq(memtx_store_close(hand->store), MEMTX_OK);
}

void hand_close(struct hand *hand)
{
    hand_leave(hand);
    free(hand->keys);
    free(hand->values);
    free(hand->positions);
}

/* Numbers that f32 rows keep; the first value of a row's head is 1,000 * head + id, so that a row can say which it is.
 */
void hand_append(struct hand *hand, size_t n, uint64_t first_position)
{
    static uint32_t ids[4096];
    struct memtx__rng rng = memtx__rng_create(17, hand->n_rows);
    const size_t end = hand->n_rows + n;
    hand->keys = realloc(hand->keys, end * G * D * sizeof *hand->keys);
    hand->values = realloc(hand->values, end * G * D * sizeof *hand->values);
    hand->positions = realloc(hand->positions, end * sizeof *hand->positions);
    for (size_t i = hand->n_rows * G * D; i < end * G * D; i++) {
        hand->keys[i] = memtx__rng_signed(&rng);
        hand->values[i] = i % D ? memtx__rng_signed(&rng) : 1000.0F * (float)(i / D % G) + (float)(i / D / G);
    }
    for (size_t i = 0; i < n; i++) {
        hand->positions[hand->n_rows + i] = first_position + i;
        ids[i] = (uint32_t)(7 * (hand->n_rows + i));
    }
    cr_assert_eq(memtx_memory_append(hand->memory, LAYER, n, hand->keys + hand->n_rows * G * D,
                                     hand->values + hand->n_rows * G * D, ids, hand->positions + hand->n_rows),
                 MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(memtx_memory_commit(hand->memory), MEMTX_OK, "%s", memtx_last_error());
    hand->n_rows = end;
}

float V_mem[MOST_Q][H][D], LSE_mem[MOST_Q][H];
struct memtx_hit hits[MOST_Q * H * MOST_K];
float queries[MOST_Q][H][D];
uint64_t query_positions[MOST_Q];

const struct memtx_hit *hits_of(const struct hand *hand, size_t q, size_t head)
{
    return hits + (q * H + head) * hand->options.k;
}

/* Asks n_q random queries that stand at `position` and behind; ends the segment. */
void hand_attend(struct hand *hand, size_t n_q, uint64_t position, uint64_t seed)
{
    struct memtx__rng rng = memtx__rng_create(seed, 5);
    for (size_t q = 0; q < n_q; q++) {
        query_positions[q] = position + q;
        for (size_t i = 0; i < H * D; i++) {
            queries[q][i / D][i % D] = 2.0F * memtx__rng_signed(&rng);
        }
    }
    cr_assert_eq(memtx_memory_begin_segment(hand->memory), MEMTX_OK, "%s", memtx_last_error());
    cr_assert_eq(
        memtx_memory_attend(V_mem[0][0], LSE_mem[0], hits, hand->memory, LAYER, n_q, queries[0][0], query_positions),
        MEMTX_OK, "%s", memtx_last_error());
    if (hand->options.reader) {
        memtx_memory_end_segment(hand->memory);
    } else {
        cr_assert_eq(memtx_memory_commit(hand->memory), MEMTX_OK, "%s", memtx_last_error());
    }
}

/* R(distance) q . k in double. */
static double turned_dot(const struct memtx_store_spec *spec, const float *q, const float *k, double distance)
{
    double sum = 0;
    for (size_t i = 0; i < D; i += 2) {
        double angle = i < spec->rope_dims ? distance * pow(spec->rope_base, -(double)i / (double)spec->rope_dims) : 0;
        if (i < spec->rope_dims && spec->rope_factors) {
            angle /= (double)spec->rope_factors[i / 2];
        }
        sum += ((double)q[i] * cos(angle) - (double)q[i + 1] * sin(angle)) * (double)k[i];
        sum += ((double)q[i] * sin(angle) + (double)q[i + 1] * cos(angle)) * (double)k[i + 1];
    }
    return sum;
}

/* Two scores as near as this may change places. */
static const double tie_tolerance = 1e-5;

/* Everything one attend answered, against the rows that were appended: first_row .. end are those to be seen. */
void check_answer(const struct hand *hand, size_t n_q, size_t first_row, size_t end)
{
    const struct memtx_memory_options *o = &hand->options;
    const size_t n_seen = end - first_row, n = n_seen < o->k ? n_seen : o->k;
    for (size_t q = 0; q < n_q; q++) {
        for (size_t head = 0; head < H; head++) {
            const struct memtx_hit *found = hits_of(hand, q, head);
            const float *query = queries[q][head];
            double worst = INFINITY, highest = -INFINITY, total = 0, sums[D] = {0};
            for (size_t j = 0; j < n; j++) {
                cr_assert(found[j].row >= (int64_t)first_row && found[j].row < (int64_t)end, "row %lld",
                          (long long)found[j].row);
                for (size_t other = 0; other < j; other++) {
                    cr_assert_neq(found[j].row, found[other].row, "row %lld twice", (long long)found[j].row);
                }
                const size_t row = (size_t)found[j].row;
                const float *key = hand->keys + (row * G + head / GROUP) * D;
                const uint64_t age = query_positions[q] - hand->positions[row];
                const double distance =
                    (double)(o->positions == MEMTX_POSITIONS_NEAR && age < o->delta ? age : o->delta);
                const double score = turned_dot(&hand->spec, query, key, (double)o->delta);
                const double logit = (double)hand->spec.scale * turned_dot(&hand->spec, query, key, distance) -
                                     (double)o->lambda * (double)age / 1000.0;
                cr_assert_leq(score, worst + tie_tolerance, "best first");
                worst = score;
                cr_assert_float_eq((double)found[j].logit, logit, logit_tolerance, "row %zu at distance %g", row,
                                   distance);
                highest = logit > highest ? logit : highest;
            }
            for (size_t j = n; j < o->k; j++) {
                cr_assert(found[j].row == -1 && found[j].logit == -INFINITY);
            }
            for (size_t row = first_row; row < end && n == o->k; row++) { /* nothing better was left out */
                bool is_found = false;
                for (size_t j = 0; j < n; j++) {
                    is_found |= found[j].row == (int64_t)row;
                }
                const float *key = hand->keys + (row * G + head / GROUP) * D;
                cr_assert(is_found || turned_dot(&hand->spec, query, key, (double)o->delta) <= worst + tie_tolerance);
            }
            for (size_t j = 0; j < n; j++) {
                const float *value = hand->values + ((size_t)found[j].row * G + head / GROUP) * D;
                cr_assert_eq(value[0], 1000.0F * (float)(head / GROUP) + (float)found[j].row);
                double weight = exp((double)found[j].logit - highest);
                total += weight;
                for (size_t d = 0; d < D; d++) {
                    sums[d] += weight * (double)value[d];
                }
            }
            if (n == 0) {
                cr_assert(LSE_mem[q][head] == -INFINITY && V_mem[q][head][0] == 0.0F);
                continue;
            }
            cr_assert_float_eq((double)LSE_mem[q][head], highest + log(total), logit_tolerance);
            for (size_t d = 0; d < D; d++) {
                cr_assert_float_eq((double)V_mem[q][head][d], sums[d] / total, d ? 1e-5 : 5e-3); /* ids reach 6,000 */
            }
        }
    }
}
