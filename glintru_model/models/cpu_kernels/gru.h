/* A step of a GRU. */

#include "vectors.h"

typedef struct {
    vec reset, update, new, state;
} gru_step;

INLINE vec sigmoid(vec x) { return 1.0f / (1.0f + power_of_2(-larger(all(-126), x * LOG2_E))); }

INLINE vec hyperbolic_tangent(vec x) {
    vec twice = exponential_less_one(2.0f * x);
    return twice / (twice + 2.0f);
}

/* of what input and state bring to the gates before their nonlinearities; new_state before it is reset */
INLINE gru_step advanced(vec reset, vec update, vec new_input, vec new_state, vec before) {
    gru_step s;
    s.reset = sigmoid(reset);
    s.update = sigmoid(update);
    s.new = hyperbolic_tangent(new_input + s.reset * new_state);
    s.state = s.new + s.update * (before - s.new);
    return s;
}
