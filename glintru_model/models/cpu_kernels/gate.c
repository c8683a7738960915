/*
 * A GELU gate of rows `begin` to `end`, each of dim elements: out = values * gelu(gate), with values = weights[0] first
 * + weights[1] second, or first alone if second is null. Rows of all but out and its gradient are `row` apart.
 */

#include "vectors.h"

/* the normal distribution's cumulative and density at x; erf to 1.5e-7 by Abramowitz and Stegun's 7.1.26 */
INLINE vec normal(vec x, vec *density) {
    vec size = where(x < 0.0f, -x, x) * 0.70710678f, t = 1.0f / (1.0f + 0.3275911f * size);
    vec bell = exponential(-size * size);
    vec series = t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
    vec tail = 0.5f * series * bell;
    *density = bell * 0.39894228f;
    return where(x < 0.0f, tail, 1.0f - tail);
}

static int gate_forward_part(long begin, long end, long dim, long row, const float *first, const float *second,
                             const float *weights, const float *gate, float *out) {
    for (long i = begin; i < end; i++)
        for (long d = 0; d < dim; d += LANES) {
            long at = i * row + d;
            vec density, x = load(gate + at), values = load(first + at);
            if (second) values = values * weights[0] + load(second + at) * weights[1];
            store(out + i * dim + d, values * x * normal(x, &density));
        }
    return 0;
}

SHARED(gate_forward, (long dim, long row, const float *first, const float *second, const float *weights,
        const float *gate, float *out),
       (dim, row, first, second, weights, gate, out))

/* grad_weights (rows, 2) are each row's part of the gradient by the weights */
static int gate_backward_part(long begin, long end, long dim, long row, const float *first, const float *second,
                              const float *weights, const float *gate, const float *grad, float *grad_first,
                              float *grad_second, float *grad_gate, float *grad_weights) {
    for (long i = begin; i < end; i++) {
        vec by_first = all(0), by_second = all(0);
        for (long d = 0; d < dim; d += LANES) {
            long at = i * row + d;
            vec density, x = load(gate + at), values = load(first + at), cumulative = normal(x, &density);
            vec outer = load(grad + i * dim + d), by_values = outer * x * cumulative;
            if (second) {
                by_first += by_values * values;
                by_second += by_values * load(second + at);
                values = values * weights[0] + load(second + at) * weights[1];
                store(grad_first + at, by_values * weights[0]);
                store(grad_second + at, by_values * weights[1]);
            } else
                store(grad_first + at, by_values);
            store(grad_gate + at, outer * values * (cumulative + x * density));
        }
        if (second) {
            grad_weights[2 * i] = sum_of(by_first);
            grad_weights[2 * i + 1] = sum_of(by_second);
        }
    }
    return 0;
}

SHARED(gate_backward, (long dim, long row, const float *first, const float *second, const float *weights,
        const float *gate, const float *grad, float *grad_first, float *grad_second, float *grad_gate,
        float *grad_weights),
       (dim, row, first, second, weights, gate, grad, grad_first, grad_second, grad_gate, grad_weights))
