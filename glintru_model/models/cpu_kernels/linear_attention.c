/*
 * Causal linear attention, of histories `begin` to `end` of a batch: projected and its gradient are (L, B, 3, H, K),
 * out and its gradient (L, B, H, K). Query and key go through ELU and are divided by their norms. Each function returns
 * whether memory was short.
 */

#include <math.h>

#include "vectors.h"

/* A sum over time (H, K, K) is kept in two: of the current piece, and of those before, since what is added to a long
 * sum loses its last bits. */
enum { PIECE = 64, AHEAD = 3 };

/* floats from one sum to the next: no multiple of 4096 bytes, at which a load waits for a store of the other */
INLINE long apart(long heads, long dim) { return heads * dim * dim + 2 * LANES; }

/* a history's steps lie far apart, where the hardware does not look ahead */
INLINE void fetch(const float *row, long floats) {
    for (long i = 0; i < floats; i += 16) __builtin_prefetch(row + i);
}

/* to becomes elu(x) / |elu(x)|; returns 1 / |elu(x)| */
INLINE float normed(float *to, const float *x, long dim, float epsilon) {
    vec squares = all(0);
    for (long d = 0; d < dim; d += LANES) {
        vec elu = where(load(x + d) > 0.0f, load(x + d), exponential_less_one(load(x + d)));
        squares += elu * elu;
        store(to + d, elu);
    }
    float inverse = 1.0f / sqrtf(sum_of(squares) + epsilon);
    for (long d = 0; d < dim; d += LANES) store(to + d, load(to + d) * inverse);
    return inverse;
}

/* to becomes the gradient by x, from that by the unit vector of it */
INLINE void normed_backward(float *to, const float *grad, const float *unit, const float *x, float inverse, long dim) {
    vec products = all(0);
    for (long d = 0; d < dim; d += LANES) products += load(grad + d) * load(unit + d);
    float along = sum_of(products);
    for (long d = 0; d < dim; d += LANES) {
        vec by_elu = (load(grad + d) - load(unit + d) * along) * inverse;
        store(to + d, by_elu * where(load(x + d) > 0.0f, all(1), exponential(load(x + d))));
    }
}

/* piece += left right^T; out = by (earlier + piece) */
INLINE void step(float *piece, const float *earlier, const float *left, const float *right, const float *by, float *out,
                 long dim) {
    for (long d = 0; d < dim; d += LANES) {
        vec totals[4] = {all(0), all(0), all(0), all(0)}, r = load(right + d); /* four, to wait for none */
        float *now = piece + d;
        const float *before = earlier + d;
        for (long i = 0; i < dim; i += 4)
            UNROLLED for (int n = 0; n < 4; n++, now += dim, before += dim) {
                vec sum = load(now) + left[i + n] * r;
                store(now, sum);
                totals[n] += by[i + n] * (load(before) + sum);
            }
        store(out + d, totals[0] + totals[1] + (totals[2] + totals[3]));
    }
}

static void close_piece(float *piece, float *earlier, long floats) {
    for (long i = 0; i < floats; i++) earlier[i] += piece[i];
    memset(piece, 0, floats * sizeof(float));
}

static int linear_attention_forward_part(long begin, long end, long length, long batch, long heads, long dim,
                                         float epsilon, const float *projected, float *out) {
    long width = heads * dim, square = apart(heads, dim), far = AHEAD * batch;
    float scale = 1.0f / sqrtf(dim), *sums = room(2 * square + 2 * width);
    if (!sums) return 1;
    float *earlier = sums + square, *q = earlier + square, *k = q + width;
    for (long b = begin; b < end; b++) {
        memset(sums, 0, 2 * square * sizeof(float));
        for (long t = 0; t < length; t++) {
            const float *x = projected + (t * batch + b) * 3 * width, *v = x + 2 * width;
            float *to = out + (t * batch + b) * width;
            if (t + AHEAD < length) fetch(x + far * 3 * width, 3 * width);
            if (t % PIECE == 0) close_piece(sums, earlier, square);
            for (long at = 0; at < 2 * width; at += dim) normed(q + at, x + at, dim, epsilon);
            for (long at = 0; at < width; at += LANES) store(q + at, load(q + at) * scale);
            for (long at = 0; at < width; at += dim)
                step(sums + at * dim, earlier + at * dim, k + at, v + at, q + at, to + at, dim);
        }
    }
    free(sums);
    return 0;
}

SHARED(linear_attention_forward, (long length, long batch, long heads, long dim, float epsilon,
        const float *projected, float *out),
       (length, batch, heads, dim, epsilon, projected, out))

/* where one step of a history is, and what is at hand of it */
typedef struct {
    const float *x, *v, *grad;
    float *to, *unit, *inverses, *scaled, *by_unit;
} position;

INLINE void prepare(position p, long heads, long dim, float scale, float epsilon) {
    for (long h = 0; h < 2 * heads; h++) p.inverses[h] = normed(p.unit + h * dim, p.x + h * dim, dim, epsilon);
    for (long at = 0; at < heads * dim; at += LANES) store(p.scaled + at, load(p.grad + at) * scale);
}

/* gradient by the queries: the sum of v k^T up to a step, times the output's gradient */
INLINE void queries_backward(position p, float *sums, long heads, long dim) {
    long width = heads * dim, square = apart(heads, dim);
    for (long at = 0; at < width; at += dim)
        step(sums + at * dim, sums + square + at * dim, p.v + at, p.unit + width + at, p.scaled + at, p.by_unit + at,
             dim);
    for (long h = 0; h < heads; h++)
        normed_backward(p.to + h * dim, p.by_unit + h * dim, p.unit + h * dim, p.x + h * dim, p.inverses[h], dim);
}

/* gradients by keys and values: the sum of gradient and query from a step on, times value or key */
INLINE void keys_values_backward(position p, float *sums, long heads, long dim) {
    long width = heads * dim, square = apart(heads, dim);
    for (long at = 0; at < width; at += dim) {
        const float *q = p.unit + at, *k = p.unit + width + at, *g = p.scaled + at;
        float *first = sums + at * dim, *second = first + 2 * square;
        step(first, first + square, g, q, p.v + at, p.by_unit + at, dim);
        step(second, second + square, q, g, k, p.to + 2 * width + at, dim);
    }
    for (long h = 0; h < heads; h++)
        normed_backward(p.to + width + h * dim, p.by_unit + h * dim, p.unit + width + h * dim, p.x + width + h * dim,
                        p.inverses[heads + h], dim);
}

static int linear_attention_backward_part(long begin, long end, long length, long batch, long heads, long dim,
                                          float epsilon, const float *projected, const float *grad,
                                          float *grad_projected) {
    long width = heads * dim, square = apart(heads, dim), far = AHEAD * batch;
    float scale = 1.0f / sqrtf(dim), *sums = room(4 * square + 4 * width + 2 * heads);
    if (!sums) return 1;
    float *unit = sums + 4 * square, *scaled = unit + 2 * width, *by_unit = scaled + width, *inverses = by_unit + width;
    for (long b = begin; b < end; b++)
        for (int goes_back = 0; goes_back < 2; goes_back++) {
            memset(sums, 0, 4 * square * sizeof(float));
            for (long i = 0; i < length; i++) {
                long t = goes_back ? length - 1 - i : i, row = t * batch + b, next = goes_back ? row - far : row + far;
                const float *x = projected + row * 3 * width;
                position p = {x, x + 2 * width, grad + row * width, grad_projected + row * 3 * width,
                              unit, inverses, scaled, by_unit};
                if (i + AHEAD < length) {
                    fetch(projected + next * 3 * width, 3 * width);
                    fetch(grad + next * width, width);
                }
                if (i % PIECE == 0) {
                    close_piece(sums, sums + square, square);
                    close_piece(sums + 2 * square, sums + 3 * square, square);
                }
                prepare(p, heads, dim, scale, epsilon);
                if (goes_back)
                    keys_values_backward(p, sums, heads, dim);
                else
                    queries_backward(p, sums, heads, dim);
            }
        }
    free(sums);
    return 0;
}

SHARED(linear_attention_backward, (long length, long batch, long heads, long dim, float epsilon,
        const float *projected, const float *grad, float *grad_projected),
       (length, batch, heads, dim, epsilon, projected, grad, grad_projected))
