/*
 * Causal softmax attention, of histories `begin` to `end` of a batch: qkv and its gradient are (B, L, 3, H, K), out and
 * its gradient (B, L, H, K), norms (B, H, 2, L). Each function returns whether memory was short.
 */

#include <math.h>

#include "softmax_attention.h"

enum { QUERIES = 32 }; /* of a row of scores, which are (keys, QUERIES): sums over keys need no shuffles */
static const float HIDDEN = -1e30f;

typedef struct {
    long first, count, seen; /* queries first to first + count = seen see keys 0 to seen at most */
} span;

/* of the queries that are left; the shortest span comes first, where it sees the fewest keys */
INLINE span span_from(long first, long left) {
    long count = (left - 1) % QUERIES + 1;
    return (span){first, count, first + count};
}

/* keys `begin` to `end` of a span: those after its first query are hidden from the queries before them */
INLINE void find_most(const int hides, long begin, long end, long first, const float *scores, vec *most) {
    for (long t = begin; t < end; t++) {
        vec score = load(scores + t * QUERIES);
        *most = larger(hides ? from_place(t - first, score, HIDDEN) : score, *most);
    }
}

INLINE void to_weights(const int hides, long begin, long end, long first, float *scores, float scale, vec most,
                       vec *sum) {
    for (long t = begin; t < end; t++) {
        vec weight = power_of_2((load(scores + t * QUERIES) - most) * scale); /* at most 1, whatever is rounded */
        if (hides) weight = from_place(t - first, weight, 0);
        store(scores + t * QUERIES, weight);
        *sum += weight;
    }
}

/* scores become 2^(scale * (score - greatest)); beside them the greatest, and their sums' logarithms and inverses */
static void softmax(float *scores, span s, float scale, float *inverses, float *greatest, float *log_sums) {
    float all_most[QUERIES], sums[QUERIES];
    for (long i = 0; i < QUERIES; i += LANES) {
        float *at = scores + i;
        long first = s.first + i, plain = least(first + 1, s.seen), end = least(first + LANES, s.seen);
        vec most = all(HIDDEN), sum = all(0);
        find_most(0, 0, plain, first, at, &most);
        find_most(1, plain, end, first, at, &most);
        to_weights(0, 0, plain, first, at, scale, most, &sum);
        to_weights(1, plain, end, first, at, scale, most, &sum);
        for (long t = end; t < s.seen; t++) store(at + t * QUERIES, all(0));
        store(all_most + i, most);
        store(sums + i, sum);
        store(inverses + i, 1.0f / sum);
    }
    for (long i = 0; i < s.count; i++) greatest[i] = all_most[i], log_sums[i] = log2f(sums[i]);
}

long attention_room(long length, long dim) { return (length + dim) * QUERIES; }

void attend(long length, long heads, long dim, const float *qkv, float *out, float *norms, float *scores) {
    long width = heads * dim, row = 3 * width;
    float scale = LOG2_E / sqrtf(dim), inverses[QUERIES], *queries = scores + length * QUERIES;
    for (long head = 0; head < heads; head++) {
        const float *q = qkv + head * dim, *k = q + width, *v = k + width;
        float *greatest = norms + head * 2 * length, *log_sums = greatest + length;
        for (span s = span_from(0, length); s.first < length; s = span_from(s.seen, QUERIES)) {
            float *to = out + s.first * width + head * dim;
            turn(queries, QUERIES, q + s.first * row, row, s.count, dim);
            set_product(s.seen, dim, QUERIES, (matrix){k, row, 1}, queries, QUERIES, scores, QUERIES);
            softmax(scores, s, scale, inverses, greatest + s.first, log_sums + s.first);
            set_product(s.count, s.seen, dim, (matrix){scores, 1, QUERIES}, v, row, to, width);
            for (long i = 0; i < s.count; i++)
                for (long d = 0; d < dim; d += LANES)
                    store(to + i * width + d, load(to + i * width + d) * inverses[i]);
        }
    }
}

static int softmax_attention_forward_part(long begin, long end, long length, long heads, long dim, const float *qkv,
                                          float *out, float *norms) {
    long width = heads * dim;
    float *scores = room(attention_room(length, dim));
    if (!scores) return 1;
    for (long b = begin; b < end; b++)
        attend(length, heads, dim, qkv + b * length * 3 * width, out + b * length * width,
               norms + b * heads * 2 * length, scores);
    free(scores);
    return 0;
}

SHARED(softmax_attention_forward, (long length, long heads, long dim, const float *qkv, float *out, float *norms),
       (length, heads, dim, qkv, out, norms))

/* scores become weights 2^(scale * (score - greatest) - log_sum), products of gradient and value the scores' gradient */
static void weigh(float *scores, float *products, span s, const float *greatest, const float *log_sums,
                  const float *grad, const float *out, long width, long dim) {
    float scale = 1.0f / sqrtf(dim), by_score = LOG2_E / sqrtf(dim); /* the latter just as forward: scores may be large */
    float all_most[QUERIES] = {0}, shifts[QUERIES] = {0}, along[QUERIES] = {0};
    for (long i = 0; i < s.count; i++) {
        vec sum = all(0);
        for (long d = 0; d < dim; d += LANES) sum += load(grad + i * width + d) * load(out + i * width + d);
        along[i] = sum_of(sum);
        all_most[i] = greatest[i];
        shifts[i] = log_sums[i];
    }
    for (long t = 0; t < s.seen; t++)
        for (long i = 0; i < QUERIES; i += LANES) {
            float *score = scores + t * QUERIES + i, *product = products + t * QUERIES + i;
            vec weight = power_of_2((load(score) - load(all_most + i)) * by_score - load(shifts + i));
            if (t > s.first) weight = from_place(t - s.first - i, weight, 0);
            store(score, weight);
            store(product, weight * (load(product) - load(along + i)) * scale);
        }
}

static int softmax_attention_backward_part(long begin, long end, long length, long heads, long dim, const float *qkv,
                                           const float *out, const float *norms, const float *grad,
                                           float *grad_qkv) {
    long width = heads * dim, row = 3 * width;
    float *scores = room(2 * (length + dim) * QUERIES);
    if (!scores) return 1;
    float *deltas = scores + length * QUERIES, *queries = deltas + length * QUERIES, *grads = queries + dim * QUERIES;
    memset(grad_qkv + begin * length * row, 0, (end - begin) * length * row * sizeof(float));
    for (long head = begin * heads; head < end * heads; head++) {
        long first_step = head / heads * length, column = head % heads * dim;
        const float *q = qkv + first_step * row + column, *k = q + width, *v = k + width;
        float *grad_q = grad_qkv + first_step * row + column, *grad_k = grad_q + width, *grad_v = grad_k + width;
        const float *greatest = norms + head * 2 * length, *log_sums = greatest + length;
        for (span s = span_from(0, length); s.first < length; s = span_from(s.seen, QUERIES)) {
            long first = s.first;
            const float *g = grad + (first_step + first) * width + column, *o = out + (g - grad);
            turn(queries, QUERIES, q + first * row, row, s.count, dim);
            turn(grads, QUERIES, g, width, s.count, dim);
            set_product(s.seen, dim, QUERIES, (matrix){k, row, 1}, queries, QUERIES, scores, QUERIES);
            set_product(s.seen, dim, QUERIES, (matrix){v, row, 1}, grads, QUERIES, deltas, QUERIES);
            weigh(scores, deltas, s, greatest + first, log_sums + first, g, o, width, dim);
            add_product(s.seen, s.count, dim, (matrix){scores, QUERIES, 1}, g, width, grad_v, row);
            add_product(s.seen, s.count, dim, (matrix){deltas, QUERIES, 1}, q + first * row, row, grad_k, row);
            set_product(s.count, s.seen, dim, (matrix){deltas, 1, QUERIES}, k, row, grad_q + first * row, row);
        }
    }
    free(scores);
    return 0;
}

SHARED(softmax_attention_backward, (long length, long heads, long dim, const float *qkv, const float *out,
        const float *norms, const float *grad, float *grad_qkv),
       (length, heads, dim, qkv, out, norms, grad, grad_qkv))
