/* Dropout of rows `begin` to `end`, each of `row` elements. */

#include "vectors.h"

/* a hash whose every bit depends on every bit of x: lowbias32, by Chris Wellons */
INLINE uvec mixed(uvec x) {
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    return x ^ (x >> 16);
}

/*
 * out = x where kept, scaled up, plus residual unless that is null. An element's fate follows from the seed and its
 * place alone: the gradient, whose x is the output's, needs no mask. Dropped is what hashes below `dropped` of 2^32.
 */
static int dropout_part(long begin, long end, long row, long seed, long dropped, float scale, const float *x,
                        const float *residual, float *out) {
    uvec places = (uvec){PLACES} + (unsigned)seed;
    int least = (int)(dropped - (1L << 31)); /* of a hash taken for a signed number */
    for (long at = begin * row; at < end * row; at += LANES) {
        ivec hash = (ivec)mixed(mixed(places + (unsigned)at) ^ (unsigned)(seed >> 32));
        vec kept = load(x + at) * where(hash >= least, all(scale), all(0)); /* NaN stays NaN */
        if (residual) kept += load(residual + at);
        store(out + at, kept);
    }
    return 0;
}

SHARED(dropout, (long row, long seed, long dropped, float scale, const float *x, const float *residual, float *out),
       (row, seed, dropped, scale, x, residual, out))
