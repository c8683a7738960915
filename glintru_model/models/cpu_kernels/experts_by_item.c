/*
 * What both experts of GLINT-RU carry through histories `begin` to `end` of a batch, from what each item brings: their
 * steps are rows of tables. Lengths go from the longest to the shortest, in (B); no step is an item beyond them.
 */

#include "gru.h"

enum { TOGETHER = 48, CHUNK = 256 }; /* histories: rows of the products of a step; steps that are summed at once */

typedef struct {
    long length, taps, rows, dim, kept;
    const float *conv;                                     /* (T, U, D): an item's share as the window's oldest, ..., newest */
    const float *to_reset_update, *input_to_new, *state_to_new; /* (2 D, 2 D) from [conv, state]; (D, D) each */
} recurrent_expert;

/* rows (., 2 D) get the convolution in front of their states */
static void convolve(recurrent_expert e, const int64_t *steps, long t, long there, float *inputs) {
    for (long b = 0; b < there; b++)
        for (long d = 0; d < e.dim; d += LANES) {
            vec sum = all(0);
            for (long tap = 0, back = e.taps - 1; back >= 0; tap++, back--)
                if (back <= t) sum += load(e.conv + (tap * e.rows + steps[b * e.length + t - back]) * e.dim + d);
            store(inputs + b * 2 * e.dim + d, sum);
        }
}

/* states (kept, B, D) get those after a history's last steps; scratch has (TOGETHER, 6 D) */
static void recur(recurrent_expert e, long count, long batch, const int64_t *steps, const int64_t *lengths,
                  float *scratch, float *states) {
    long dim = e.dim, wide = 2 * dim, there = count;
    float *inputs = scratch, *gates = inputs + TOGETHER * wide, *by_input = gates + TOGETHER * wide;
    float *by_state = by_input + TOGETHER * dim;
    memset(inputs, 0, TOGETHER * wide * sizeof(float));
    for (long t = 0; t < lengths[0]; t++) {
        while (lengths[there - 1] <= t) there--;
        convolve(e, steps, t, there, inputs);
        set_product(there, wide, wide, (matrix){inputs, wide, 1}, e.to_reset_update, wide, gates, wide);
        set_product(there, dim, dim, (matrix){inputs, wide, 1}, e.input_to_new, dim, by_input, dim);
        set_product(there, dim, dim, (matrix){inputs + dim, wide, 1}, e.state_to_new, dim, by_state, dim);
        for (long b = 0; b < there; b++) {
            long place = t - lengths[b] + e.kept;
            for (long d = 0; d < dim; d += LANES) {
                const float *gate = gates + b * wide + d;
                float *state = inputs + b * wide + dim + d;
                vec after = advanced(load(gate), load(gate + dim), load(by_input + b * dim + d),
                                     load(by_state + b * dim + d), load(state)).state;
                store(state, after);
                if (place >= 0) store(states + (place * batch + b) * dim + d, after);
            }
        }
    }
}

/* sums (H, K, K) get a history's sum of key and value, rows of tables (U, D); scratch has (CHUNK, 2 D) */
static void sum_keys_and_values(long length, long heads, long dim, const float *keys, const float *values,
                                const int64_t *steps, float *scratch, float *sums) {
    long width = dim / heads;
    memset(sums, 0, dim * width * sizeof(float));
    for (long begin = 0; begin < length; begin += CHUNK) {
        long count = least(CHUNK, length - begin);
        for (long t = 0; t < count; t++) {
            memcpy(scratch + t * 2 * dim, keys + steps[begin + t] * dim, dim * sizeof(float));
            memcpy(scratch + t * 2 * dim + dim, values + steps[begin + t] * dim, dim * sizeof(float));
        }
        for (long head = 0; head < heads; head++)
            add_product(width, count, width, (matrix){scratch + head * width, 1, 2 * dim},
                        scratch + dim + head * width, 2 * dim, sums + head * width * width, width);
    }
}

/* steps (B, L) are rows of the tables; states (kept, B, D) are zero before */
static int experts_by_item_part(long begin, long end, long batch, long length, long taps, long rows, long dim,
                                long heads, long kept, const float *conv, const float *keys, const float *values,
                                const float *weights, const int64_t *steps, const int64_t *lengths, float *states,
                                float *sums) {
    const float *to_new = weights + 4 * dim * dim;
    recurrent_expert e = {length, taps, rows, dim, kept, conv, weights, to_new, to_new + dim * dim};
    float *scratch = room(2 * CHUNK * dim); /* more than 6 * TOGETHER */
    if (!scratch) return 1;
    for (long b = begin; b < end; b += TOGETHER)
        recur(e, least(TOGETHER, end - b), batch, steps + b * length, lengths + b, scratch, states + b * dim);
    for (long b = begin; b < end; b++)
        sum_keys_and_values(lengths[b], heads, dim, keys, values, steps + b * length, scratch,
                            sums + b * dim * (dim / heads));
    free(scratch);
    return 0;
}

SHARED(experts_by_item, (long length, long taps, long rows, long dim, long heads, long kept, const float *conv,
        const float *keys, const float *values, const float *weights, const int64_t *steps, const int64_t *lengths,
        float *states, float *sums),
       (count, length, taps, rows, dim, heads, kept, conv, keys, values, weights, steps, lengths, states, sums))
