/*
 * What cross-entropy over a catalogue needs all logits for. Rows of a batch are in `parts` parts of like size, of which
 * this works at `begin` to `end`; each has its own gradient of the items. Returns whether memory was short.
 */

#include "vectors.h"

/* Rows share a pass over the items; of these so many are at work that their exponentials stay in the nearest cache. */
enum { ROWS = 64, ITEMS = 96, PIECE = 32 * ITEMS };

typedef struct {
    float *exponentials; /* (V, ROWS) */
    float *columns;      /* the rows turned, (D, ROWS) */
    float *piece, *sums; /* of exponentials times items (D, ROWS), and of exponentials (ROWS): of PIECE items, of all */
    float *weighed;      /* rows times their weight over their sum, (ROWS, D) */
} scratch;

INLINE long block(long item, long num_items) { return num_items - item < ITEMS ? num_items - item : ITEMS; }

/* logits (n, ROWS) become their exponentials, which are added to sums (ROWS) */
static void exponentiate(float *logits, long n, float *sums) {
    for (long i = 0; i < ROWS; i += LANES) {
        vec sum = all(0);
        for (long v = 0; v < n; v++) {
            vec x = exponential_within(load(logits + v * ROWS + i));
            store(logits + v * ROWS + i, x);
            sum += x;
        }
        store(sums + i, load(sums + i) + sum);
    }
}

/* in pieces, since what is added to a long sum loses its last bits */
static void sum_over_items(scratch s, long num_items, long dim, const float *items) {
    long floats = (dim + 1) * ROWS;
    memset(s.sums, 0, floats * sizeof(float));
    for (long v = 0; v < num_items; v += ITEMS) {
        long n = block(v, num_items);
        float *at = s.exponentials + v * ROWS;
        if (v % PIECE == 0) memset(s.piece, 0, floats * sizeof(float));
        set_product(n, dim, ROWS, (matrix){items + v * dim, dim, 1}, s.columns, ROWS, at, ROWS);
        exponentiate(at, n, s.piece + dim * ROWS);
        add_product(dim, n, ROWS, (matrix){items + v * dim, 1, dim}, at, ROWS, s.piece, ROWS);
        if ((v + ITEMS) % PIECE == 0 || v + ITEMS >= num_items)
            for (long i = 0; i < floats; i++) s.sums[i] += s.piece[i];
    }
}

/*
 * hidden is (N, D), items (V, D), weights and sums (N). No logit may exceed 88, nor be below -88. sums become those of a
 * row's exponentials; grad_hidden and grad_items (parts, V, D), which are zero before, the gradients of
 * sum_n weights[n] log(sums[n]).
 */
static int cross_entropy_part(long begin, long end, long parts, long num_rows, long num_items, long dim,
                              const float *hidden, const float *items, const float *weights, float *sums,
                              float *grad_hidden, float *grad_items) {
    float *memory = room((num_items + 4 * dim + 2) * ROWS), *columns = memory + num_items * ROWS;
    if (!memory) return 1;
    float *piece = columns + dim * ROWS, *all_sums = piece + (dim + 1) * ROWS, *weighed = all_sums + (dim + 1) * ROWS;
    scratch s = {memory, columns, piece, all_sums, weighed};
    for (long part = begin; part < end; part++)
        for (long first = num_rows * part / parts; first < num_rows * (part + 1) / parts; first += ROWS) {
            long left = num_rows * (part + 1) / parts - first, count = left < ROWS ? left : ROWS;
            turn(s.columns, ROWS, hidden + first * dim, dim, count, dim);
            sum_over_items(s, num_items, dim, items);
            for (long i = 0; i < count; i++) {
                float sum = s.sums[dim * ROWS + i], quotient = weights[first + i] / sum;
                sums[first + i] = sum;
                for (long d = 0; d < dim; d++) {
                    grad_hidden[(first + i) * dim + d] = s.sums[d * ROWS + i] * quotient;
                    s.weighed[i * dim + d] = hidden[(first + i) * dim + d] * quotient;
                }
            }
            for (long v = (num_items - 1) / ITEMS * ITEMS; v >= 0; v -= ITEMS) { /* the last are in a cache */
                matrix exponentials = {s.exponentials + v * ROWS, ROWS, 1};
                float *to = grad_items + (part * num_items + v) * dim;
                add_product(block(v, num_items), count, dim, exponentials, s.weighed, dim, to, dim);
            }
        }
    free(memory);
    return 0;
}

SHARED(cross_entropy, (long parts, long num_rows, long num_items, long dim, const float *hidden,
        const float *items, const float *weights, float *sums, float *grad_hidden, float *grad_items),
       (parts, num_rows, num_items, dim, hidden, items, weights, sums, grad_hidden, grad_items))
