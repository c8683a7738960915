/*
 * The steps of a GRU, of histories `begin` to `end` of a batch. Gates are (L, B, 3, D): reset, update, new. States are
 * (L + 1, B, D), before each step and after the last. Each function returns whether memory was short.
 */

#include "gru.h"

/*
 * gates hold what the input brings and become the gates; hidden_parts (L, B, D), if not NULL, become what the state
 * brings to the new gate before the reset. weight is (D, 3 D).
 */
static int recurrence_forward_part(long begin, long end, long length, long batch, long dim, const float *weight,
                                   float *gates, float *states, float *hidden_parts) {
    long rows = end - begin, wide = 3 * dim;
    float *brought = room(rows * wide);
    if (!brought) return 1;
    for (long t = 0; t < length; t++) {
        const float *before = states + (t * batch + begin) * dim;
        set_product(rows, dim, wide, (matrix){before, dim, 1}, weight, wide, brought, wide);
        for (long b = 0; b < rows; b++) {
            long at = t * batch + begin + b;
            for (long d = 0; d < dim; d += LANES) {
                float *gate = gates + at * wide + d;
                const float *part = brought + b * wide + d;
                vec new_state = load(part + 2 * dim);
                gru_step step = advanced(load(gate) + load(part), load(gate + dim) + load(part + dim),
                                         load(gate + 2 * dim), new_state, load(before + b * dim + d));
                store(gate, step.reset);
                store(gate + dim, step.update);
                store(gate + 2 * dim, step.new);
                if (hidden_parts) store(hidden_parts + at * dim + d, new_state);
                store(states + (at + batch) * dim + d, step.state);
            }
        }
    }
    free(brought);
    return 0;
}

SHARED(recurrence_forward, (long length, long batch, long dim, const float *weight, float *gates, float *states,
        float *hidden_parts),
       (length, batch, dim, weight, gates, states, hidden_parts))

/*
 * grad is by the states after each step. grad_gates (L, B, 3, D) become the gradient before the nonlinearities, of the
 * new gate before the reset; grad_new (L, B, D) that of the new gate after it. weight is (3 D, D).
 */
static int recurrence_backward_part(long begin, long end, long length, long batch, long dim, const float *weight,
                                    const float *gates, const float *states, const float *hidden_parts,
                                    const float *grad, float *grad_gates, float *grad_new) {
    long rows = end - begin, wide = 3 * dim;
    float *carried = room(2 * rows * dim), *through = carried + rows * dim; /* by what follows */
    if (!carried) return 1;
    memset(carried, 0, 2 * rows * dim * sizeof(float));
    for (long t = length - 1; t >= 0; t--) {
        for (long b = 0; b < rows; b++) {
            long at = t * batch + begin + b;
            for (long d = 0; d < dim; d += LANES) {
                const float *gate = gates + at * wide + d;
                float *grad_gate = grad_gates + at * wide + d, *later = carried + b * dim + d;
                vec reset = load(gate), update = load(gate + dim), new = load(gate + 2 * dim);
                vec state = load(grad + at * dim + d) + load(later) + load(through + b * dim + d);
                vec to_new = state * (1.0f - update) * (1.0f - new * new);
                store(grad_new + at * dim + d, to_new);
                store(grad_gate + 2 * dim, to_new * reset);
                store(grad_gate, to_new * load(hidden_parts + at * dim + d) * reset * (1.0f - reset));
                store(grad_gate + dim, state * (load(states + at * dim + d) - new) * update * (1.0f - update));
                store(later, state * update);
            }
        }
        matrix now = {grad_gates + (t * batch + begin) * wide, wide, 1};
        set_product(rows, wide, dim, now, weight, dim, through, dim);
    }
    free(carried);
    return 0;
}

SHARED(recurrence_backward, (long length, long batch, long dim, const float *weight, const float *gates,
        const float *states, const float *hidden_parts, const float *grad, float *grad_gates, float *grad_new),
       (length, batch, dim, weight, gates, states, hidden_parts, grad, grad_gates, grad_new))
