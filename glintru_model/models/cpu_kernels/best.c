/* The greatest of each row. */

#include <math.h>

#include "vectors.h"

enum { BLOCK = 4 * LANES }; /* of a row, passed over at once if its greatest is not among them */

/* or holds a NaN in its last vector: one in another is not taken for the larger */
INLINE int has_greater(const float *x, float bound) {
    vec most = load(x + 3 * LANES);
    for (int i = 2; i >= 0; i--) most = larger(load(x + i * LANES), most);
    return any_above(most, bound);
}

static void insert(long count, float *values, int64_t *indices, float value, int64_t index) {
    long place = count - 1;
    for (; place > 0 && values[place - 1] < value; place--) {
        values[place] = values[place - 1];
        indices[place] = indices[place - 1];
    }
    values[place] = value;
    indices[place] = index;
}

/*
 * values and indices (N, count) of rows (N, columns) get the greatest, from the greatest on; of equals those before the
 * others. What is not finite is passed over; where fewer are left, the rest is minus infinity, of index 0.
 */
static int best_part(long begin, long end, long columns, long count, const float *rows, float *values,
                     int64_t *indices) {
    for (long n = begin; n < end; n++) {
        const float *row = rows + n * columns;
        float *best = values + n * count;
        int64_t *places = indices + n * count;
        for (long i = 0; i < count; i++) best[i] = -INFINITY, places[i] = 0;
        for (long at = 0; at < columns; at += BLOCK) {
            long stop = least(at + BLOCK, columns);
            if (stop - at == BLOCK && !has_greater(row + at, best[count - 1])) continue;
            for (long i = at; i < stop; i++)
                if (row[i] > best[count - 1] && row[i] < INFINITY) insert(count, best, places, row[i], i);
        }
    }
    return 0;
}

SHARED(best, (long columns, long most, const float *rows, float *values, int64_t *indices),
       (columns, most, rows, values, indices))
