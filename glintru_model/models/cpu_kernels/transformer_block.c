/*
 * A pre-LayerNorm block of SASRec without dropout, of histories `begin` to `end` of a batch. Every array of a history is
 * in the core's cache from its first use to its last.
 */

#include <math.h>

#include "softmax_attention.h"

/* one after the other in memory; matrices are (inputs, outputs) */
typedef struct {
    const float *query_key_value, *output, *network_in, *network_out, *bias, *output_bias, *in_bias, *out_bias;
    const float *attention_norm, *network_norm; /* (2, D): scale, shift */
} block_weights;

typedef struct {
    float *qkv, *normed, *attended, *scores, *log_sums;
} scratch;

static block_weights unpacked(const float *at, long dim) {
    long square = dim * dim;
    const float *bias = at + 6 * square, *norms = bias + 6 * dim;
    return (block_weights){at,   at + 3 * square, at + 4 * square, at + 5 * square, bias, bias + 3 * dim,
                           bias + 4 * dim, bias + 5 * dim, norms, norms + 2 * dim};
}

/* out (rows, D) = layer norm of x; by (2, D) are scale and shift */
static void layer_norm(long rows, long dim, float epsilon, const float *by, const float *x, float *out) {
    for (long row = 0; row < rows; row++, x += dim, out += dim) {
        vec sum = all(0), squares = all(0);
        for (long d = 0; d < dim; d += LANES) sum += load(x + d);
        float mean = sum_of(sum) / dim;
        for (long d = 0; d < dim; d += LANES) squares += (load(x + d) - mean) * (load(x + d) - mean);
        float inverse = 1.0f / sqrtf(sum_of(squares) / dim + epsilon);
        for (long d = 0; d < dim; d += LANES)
            store(out + d, (load(x + d) - mean) * inverse * load(by + d) + load(by + dim + d));
    }
}

/* out (rows, columns) = added + bias + a weight; `added`, if any, has rows of out */
static void linear(long rows, long dim, long columns, const float *a, const float *weight, long weight_row,
                   const float *bias, const float *added, float *out, long out_row) {
    for (long row = 0; row < rows; row++)
        for (long d = 0; d < columns; d += LANES) {
            vec start = load(bias + d);
            if (added) start += load(added + row * out_row + d);
            store(out + row * out_row + d, start);
        }
    add_product(rows, dim, columns, (matrix){a, dim, 1}, weight, weight_row, out, out_row);
}

/* out gets the block's rows of steps `from` and later of one history */
static void block(long from, long length, long heads, long dim, float epsilon, block_weights w, scratch s,
                  const float *x, float *out) {
    long rows = length - from, wide = 3 * dim, skipped = from * dim;
    layer_norm(length, dim, epsilon, w.attention_norm, x, s.normed);
    linear(length, dim, 2 * dim, s.normed, w.query_key_value + dim, wide, w.bias + dim, NULL, s.qkv + dim, wide);
    linear(rows, dim, dim, s.normed + skipped, w.query_key_value, wide, w.bias, NULL, s.qkv + from * wide, wide);
    attend(from, length, heads, dim / heads, s.qkv, s.attended, s.log_sums, s.scores);
    linear(rows, dim, dim, s.attended + skipped, w.output, dim, w.output_bias, x + skipped, out, dim);
    layer_norm(rows, dim, epsilon, w.network_norm, out, s.normed);
    linear(rows, dim, dim, s.normed, w.network_in, dim, w.in_bias, NULL, s.attended, dim);
    for (long i = 0; i < rows * dim; i += LANES) store(s.attended + i, larger(all(0), load(s.attended + i)));
    linear(rows, dim, dim, s.attended, w.network_out, dim, w.out_bias, out, out, dim);
}

/* x is (B, L, D), as is out; where `lengths` (B) are given, out (B, D) gets each history's newest step alone */
static int transformer_block_part(long begin, long end, long length, long heads, long dim, float epsilon,
                                  const float *packed, const int64_t *lengths, const float *x, float *out) {
    block_weights weights = unpacked(packed, dim);
    long scores = attention_room(length, dim / heads);
    float *memory = room(length * (5 * dim + heads) + scores);
    if (!memory) return 1;
    float *normed = memory + 3 * length * dim, *attended = normed + length * dim, *rest = attended + length * dim;
    scratch s = {memory, normed, attended, rest, rest + scores};
    for (long b = begin; b < end; b++) {
        long steps = lengths ? lengths[b] : length;
        if (steps < 1 || steps > length) steps = length; /* there is no such history */
        long from = lengths ? steps - 1 : 0;
        float *to = out + b * (lengths ? dim : length * dim);
        block(from, steps, heads, dim, epsilon, weights, s, x + b * length * dim, to);
    }
    free(memory);
    return 0;
}

SHARED(transformer_block, (long length, long heads, long dim, float epsilon, const float *packed,
        const int64_t *lengths, const float *x, float *out),
       (length, heads, dim, epsilon, packed, lengths, x, out))
