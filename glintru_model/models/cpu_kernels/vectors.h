/*
 * Vectors of floats, for the kernels beside this file. Widths that they are given (D, K) are multiples of 16, so that a
 * row is made of whole vectors whatever the processor's are.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
enum { LANES = 16, SUMS = 24 };
#define PLACES 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
#elif defined(__AVX__)
enum { LANES = 8, SUMS = 12 };
#define PLACES 0, 1, 2, 3, 4, 5, 6, 7
#else
enum { LANES = 4, SUMS = 12 };
#define PLACES 0, 1, 2, 3
#endif
/* SUMS vectors, and what is multiplied to make them, fit the registers of a core */

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef unsigned uvec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define UNROLLED _Pragma("GCC unroll 32")
#endif

INLINE vec load(const float *from) { return *(const vec *)from; }
INLINE void store(float *to, vec x) { *(vec *)to = x; }
INLINE vec all(float x) { return x - (vec){0}; }
INLINE vec where(ivec mask, vec yes, vec no) { return (vec)((mask & (ivec)yes) | (~mask & (ivec)no)); }
/* lanes from `place` on are x's */
INLINE vec from_place(long place, vec x, float before) {
    return where((ivec){PLACES} >= (int)place, x, all(before));
}

/* y where either is NaN */
INLINE vec larger(vec x, vec y) {
#if defined(__AVX512F__) /* of a comparison and a choice, compilers make two instructions */
    return (vec)_mm512_max_ps((__m512)x, (__m512)y);
#elif defined(__AVX__)
    return (vec)_mm256_max_ps((__m256)x, (__m256)y);
#elif defined(__SSE2__)
    return (vec)_mm_max_ps((__m128)x, (__m128)y);
#else
    return where(x > y, x, y);
#endif
}

/* memory whose vectors cross no cache line, to be freed; NULL if there is none */
INLINE float *room(long floats) { return aligned_alloc(64, (floats * sizeof(float) + 63) / 64 * 64); }

INLINE float sum_of(vec x) {
#ifdef __clang__ /* has no such shuffle, nor needs it */
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
#else
    UNROLLED for (int distance = LANES / 2; distance; distance /= 2)
        x += __builtin_shuffle(x, (ivec){PLACES} ^ distance);
    return x[0];
#endif
}

/* or is NaN */
INLINE int any_above(vec x, float bound) {
#if defined(__AVX512F__)
    return _mm512_cmp_ps_mask((__m512)x, (__m512)all(bound), _CMP_NLE_UQ) != 0;
#elif defined(__AVX__)
    return _mm256_movemask_ps((__m256)~(x <= bound)) != 0;
#elif defined(__SSE2__)
    return _mm_movemask_ps((__m128)~(x <= bound)) != 0;
#else
    int above = 0;
    for (int i = 0; i < LANES; i++) above |= !(x[i] <= bound);
    return above;
#endif
}

#define LOG2_E 1.44269504f
/* added to a number up to 2^22, leaves its whole part, and that with an exponent's bias of 127 in the lowest bits */
#define ROUNDING (12582912.0f + 127.0f)

/* exp(x) = scale + scale * less_one for |x| up to 88, after Cephes' expf: 2^n, and a polynomial of what is left */
INLINE void exponential_parts(vec x, vec *scale, vec *less_one) {
    vec shifted = x * LOG2_E + ROUNDING, whole = shifted - ROUNDING;
    vec rest = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    vec y = all(1.9875691500e-4f);
    y = y * rest + 1.3981999507e-3f;
    y = y * rest + 8.3334519073e-3f;
    y = y * rest + 4.1665795894e-2f;
    y = y * rest + 1.6666665459e-1f;
    y = y * rest + 5.0000001201e-1f;
    *less_one = y * rest * rest + rest;
    *scale = (vec)((uvec)shifted << 23);
}

/* exp(x) to 2e-7 of itself for |x| up to 88; NaN of NaN */
INLINE vec exponential_within(vec x) {
    vec scale, less_one;
    exponential_parts(x, &scale, &less_one);
    return scale * less_one + scale;
}

/* the same of any x: at most exp(88), and 0 below exp(-87), since subnormal numbers are slow */
INLINE vec exponential(vec x) {
    return where(x < -87.0f, all(0), exponential_within(where(x > 88.0f, all(88.0f), x)));
}

/* exp(x) - 1, near 0 too */
INLINE vec exponential_less_one(vec x) {
    vec scale, less_one;
    exponential_parts(where(x > 88.0f, all(88.0f), x), &scale, &less_one);
    return where(x < -87.0f, all(-1), scale * less_one + (scale - 1.0f));
}

/* 2^x to 2e-7 of itself for x up to 127, at least 2^-125; NaN of NaN */
INLINE vec power_of_2(vec x) {
    x = larger(all(-125), x);
    vec shifted = x + ROUNDING, rest = x - (shifted - ROUNDING);
    vec y = all(1.3264727e-3f); /* of the polynomial of this degree, exact at 0, whose greatest relative error is least */
    y = y * rest + 9.6715128e-3f;
    y = y * rest + 5.5507337e-2f;
    y = y * rest + 2.4022242e-1f;
    y = y * rest + 6.9314698e-1f;
    y = y * rest + 1.0f;
    return y * (vec)((uvec)shifted << 23);
}

INLINE long least(long i, long j) { return i < j ? i : j; }

/*
 * Defines `name`, which lets threads share `count` histories or rows of which name_part does `begin` to `end`. Both
 * return whether memory was short. parameters and arguments, in parentheses, are what follows those two.
 */
#define SHARED(name, parameters, arguments)                                                                      \
    int name(long threads, long count, UNPACKED parameters) {                                                    \
        int is_short = 0;                                                                                        \
        _Pragma("omp parallel for if(threads > 1) num_threads(threads) reduction(| : is_short)")                 \
        for (long part = 0; part < threads; part++) {                                                            \
            long begin = count * part / threads, end = count * (part + 1) / threads;                             \
            if (begin < end) is_short |= name##_part(begin, end, UNPACKED arguments);                            \
        }                                                                                                        \
        return is_short;                                                                                         \
    }
#define UNPACKED(...) __VA_ARGS__

/* rows (count, dim), `row` apart, become columns (dim, width), zero beyond count */
INLINE void turn(float *columns, long width, const float *rows, long row, long count, long dim) {
    memset(columns, 0, dim * width * sizeof(float));
    for (long i = 0; i < count; i++)
        for (long d = 0; d < dim; d++) columns[d * width + i] = rows[i * row + d];
}

/* A matrix: its element (i, j) is at[i * row + j * column]. */
typedef struct {
    const float *at;
    long row, column;
} matrix;

/* out (rows, columns) = or += a (rows, depth) b (depth, columns); rows of b and out are contiguous */
void set_product(long rows, long depth, long columns, matrix a, const float *b, long b_row, float *out, long out_row);
void add_product(long rows, long depth, long columns, matrix a, const float *b, long b_row, float *out, long out_row);
