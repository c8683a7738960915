/*
 * SASRec without dropout, of histories `begin` to `end` of a batch. Every array of a history is in the core's cache from
 * its first use to its last.
 */

#include <math.h>

#include "softmax_attention.h"

/* one after the other in memory; matrices are (inputs, outputs) */
typedef struct {
    const float *query_key_value, *output, *network_in, *network_out, *bias, *output_bias, *in_bias, *out_bias;
    const float *attention_norm, *network_norm; /* (2, D): scale, shift */
} block_weights;

typedef struct {
    float *x, *qkv, *normed, *attended, *scores, *norms;
} scratch;

static block_weights unpacked(const float *at, long dim) {
    long square = dim * dim;
    const float *bias = at + 6 * square, *norms = bias + 6 * dim;
    return (block_weights){at,   at + 3 * square, at + 4 * square, at + 5 * square, bias, bias + 3 * dim,
                           bias + 4 * dim, bias + 5 * dim, norms, norms + 2 * dim};
}

static long packed_size(long dim) { return (6 * dim + 6 + 4) * dim; }

/* a row's mean, and the inverse of its standard deviation */
INLINE void moments(long dim, float epsilon, const float *x, float *mean, float *scale) {
    vec sum = all(0), squares = all(0);
    for (long d = 0; d < dim; d += LANES) sum += load(x + d);
    *mean = sum_of(sum) / dim;
    for (long d = 0; d < dim; d += LANES) squares += (load(x + d) - *mean) * (load(x + d) - *mean);
    *scale = 1.0f / sqrtf(sum_of(squares) / dim + epsilon);
}

/* out (rows, D) = layer norm of x; by (2, D) are scale and shift */
static void layer_norm(long rows, long dim, float epsilon, const float *by, const float *x, float *out) {
    for (long row = 0; row < rows; row++, x += dim, out += dim) {
        float mean, scale;
        moments(dim, epsilon, x, &mean, &scale);
        for (long d = 0; d < dim; d += LANES)
            store(out + d, (load(x + d) - mean) * scale * load(by + d) + load(by + dim + d));
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

/* adds to x (rows, D) what the block does with s.attended */
static void finish(long rows, long dim, float epsilon, block_weights w, scratch s, float *x) {
    linear(rows, dim, dim, s.attended, w.output, dim, w.output_bias, x, x, dim);
    layer_norm(rows, dim, epsilon, w.network_norm, x, s.normed);
    linear(rows, dim, dim, s.normed, w.network_in, dim, w.in_bias, NULL, s.attended, dim);
    for (long i = 0; i < rows * dim; i += LANES) store(s.attended + i, larger(all(0), load(s.attended + i)));
    linear(rows, dim, dim, s.attended, w.network_out, dim, w.out_bias, x, x, dim);
}

/* s.qkv of the first block, whose input is a sum of two rows: each has gone through the norm's scale and the weight */
static void project_by_item(long steps, long length, long dim, float epsilon, const float *projected,
                            const int64_t *ids, scratch s) {
    long wide = 3 * dim;
    const float *bias = projected, *positions = bias + wide, *items = positions + length * wide;
    for (long t = 0; t < steps; t++) {
        float mean, scale, *to = s.qkv + t * wide;
        const float *position = positions + t * wide, *item = items + ids[t] * wide;
        moments(dim, epsilon, s.x + t * dim, &mean, &scale);
        for (long d = 0; d < wide; d += LANES)
            store(to + d, (load(position + d) + load(item + d)) * scale + load(bias + d));
    }
}

/*
 * s.attended gets the newest step's row. Its query, taken through the weight of the keys, meets the steps themselves, and
 * the values' weight their sum: neither keys nor values are formed. The keys' bias adds the same to every score.
 */
static void attend_from_newest(long length, long heads, long dim, float epsilon, block_weights w, scratch s) {
    long wide = 3 * dim, width = dim / heads;
    float scale = LOG2_E / sqrtf(width), *query = s.qkv, *key_side = query + dim, *sums = key_side + dim;
    const float *weight = w.query_key_value;
    layer_norm(length, dim, epsilon, w.attention_norm, s.x, s.normed);
    linear(1, dim, dim, s.normed + (length - 1) * dim, weight, wide, w.bias, NULL, query, dim);
    for (long head = 0; head < heads; head++) {
        long from = head * width;
        for (long d = 0; d < dim; d++) {
            vec sum = all(0);
            for (long j = from; j < from + width; j += LANES)
                sum += load(query + j) * load(weight + d * wide + dim + j);
            key_side[d] = sum_of(sum) * scale;
        }
        float most = -INFINITY, total = 0;
        for (long t = 0; t < length; t++) {
            vec sum = all(0);
            for (long d = 0; d < dim; d += LANES) sum += load(key_side + d) * load(s.normed + t * dim + d);
            s.scores[t] = sum_of(sum);
            if (s.scores[t] > most) most = s.scores[t];
        }
        for (long t = 0; t < length; t++) total += s.scores[t] = exp2f(s.scores[t] - most);
        set_product(1, length, dim, (matrix){s.scores, length, 1}, s.normed, dim, sums, dim);
        for (long d = 0; d < dim; d += LANES) store(sums + d, load(sums + d) / total);
        linear(1, dim, width, sums, weight + 2 * dim + from, wide, w.bias + 2 * dim + from, NULL, s.attended + from, dim);
    }
}

/* s.x gets the block's rows of every step */
static void block(long length, long heads, long dim, float epsilon, block_weights w, scratch s, int has_qkv) {
    long wide = 3 * dim;
    if (!has_qkv) {
        layer_norm(length, dim, epsilon, w.attention_norm, s.x, s.normed);
        linear(length, dim, wide, s.normed, w.query_key_value, wide, w.bias, NULL, s.qkv, wide);
    }
    attend(length, heads, dim / heads, s.qkv, s.attended, s.norms, s.scores);
    finish(length, dim, epsilon, w, s, s.x);
}

static void embed(long length, long dim, float scale, const float *table, const float *positions, const int64_t *ids,
                  float *x) {
    for (long t = 0; t < length; t++, x += dim, positions += dim)
        for (long d = 0; d < dim; d += LANES)
            store(x + d, load(table + ids[t] * dim + d) * scale + load(positions + d));
}

/*
 * ids (B, L) are rows of table (V + 1, D), to which positions (L, D) are added. packed holds the blocks' weights and the
 * last norm. out is (B, L, D); where lengths (B) are given, out (B, D) gets each history's newest step alone. projected,
 * if not NULL, (1 + L + V + 1, 3 D) are the first block's bias, and what positions and items bring to it.
 */
static int transformer_part(long begin, long end, long length, long heads, long dim, long blocks, float epsilon,
                            float scale, const float *packed, const float *table, const float *positions,
                            const float *projected, const int64_t *ids, const int64_t *lengths, float *out) {
    long each = packed_size(dim), space = attention_room(length, dim / heads);
    float *memory = room(length * (6 * dim + 2 * heads) + space);
    if (!memory) return 1;
    float *qkv = memory + length * dim, *normed = qkv + 3 * length * dim, *attended = normed + length * dim;
    float *scores = attended + length * dim;
    scratch s = {memory, qkv, normed, attended, scores, scores + space};
    for (long b = begin; b < end; b++) {
        long steps = lengths ? lengths[b] : length, lower = lengths ? blocks - 1 : blocks;
        if (steps < 1 || steps > length) steps = length; /* there is no such history */
        embed(steps, dim, scale, table, positions, ids + b * length, s.x);
        if (projected) project_by_item(steps, length, dim, epsilon, projected, ids + b * length, s);
        for (long i = 0; i < lower; i++)
            block(steps, heads, dim, epsilon, unpacked(packed + i * each, dim), s, projected && i == 0);
        float *newest = s.x + (steps - 1) * dim;
        if (lengths) {
            block_weights last = unpacked(packed + lower * each, dim);
            attend_from_newest(steps, heads, dim, epsilon, last, s);
            finish(1, dim, epsilon, last, s, newest);
        }
        const float *norm = packed + blocks * each;
        if (lengths)
            layer_norm(1, dim, epsilon, norm, newest, out + b * dim);
        else
            layer_norm(length, dim, epsilon, norm, s.x, out + b * length * dim);
    }
    free(memory);
    return 0;
}

SHARED(transformer, (long length, long heads, long dim, long blocks, float epsilon, float scale, const float *packed,
        const float *table, const float *positions, const float *projected, const int64_t *ids, const int64_t *lengths,
        float *out),
       (length, heads, dim, blocks, epsilon, scale, packed, table, positions, projected, ids, lengths, out))
