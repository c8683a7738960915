/* Products of matrices that a core's cache holds. */

#include "vectors.h"

enum { MOST_VECS = SUMS / 6 };

/* a tile of the product, of `rows` rows and `vecs` vectors: both constants, so that its sums stay in registers */
INLINE void tile(const int rows, const int vecs, const int adds, long depth, matrix a, const float *b, long b_row,
                 float *out, long out_row) {
    vec sums[SUMS];
    UNROLLED for (int r = 0; r < rows; r++)
        UNROLLED for (int c = 0; c < vecs; c++) sums[r * vecs + c] = all(0);
    for (long k = 0; k < depth; k++) {
        vec right[MOST_VECS];
        UNROLLED for (int c = 0; c < vecs; c++) right[c] = load(b + k * b_row + c * LANES);
        UNROLLED for (int r = 0; r < rows; r++)
            UNROLLED for (int c = 0; c < vecs; c++) sums[r * vecs + c] += a.at[r * a.row + k * a.column] * right[c];
    }
    UNROLLED for (int r = 0; r < rows; r++)
        UNROLLED for (int c = 0; c < vecs; c++) {
            float *to = out + r * out_row + c * LANES;
            if (adds) sums[r * vecs + c] += load(to); /* not before, since it may be a long sum */
            store(to, sums[r * vecs + c]);
        }
}

INLINE void tiles(const int height, const int vecs, const int adds, long *done, long rows, long depth, matrix a,
                  const float *b, long b_row, float *out, long out_row) {
    for (; *done + height <= rows; *done += height) {
        matrix part = {a.at + *done * a.row, a.row, a.column};
        tile(height, vecs, adds, depth, part, b, b_row, out + *done * out_row, out_row);
    }
}

INLINE void stripes(const int vecs, const int adds, long *done, long rows, long depth, long columns, matrix a,
                    const float *b, long b_row, float *out, long out_row) {
    for (; *done + vecs * LANES <= columns; *done += vecs * LANES) {
        long row = 0;
        tiles(SUMS / vecs, vecs, adds, &row, rows, depth, a, b + *done, b_row, out + *done, out_row);
        tiles(4, vecs, adds, &row, rows, depth, a, b + *done, b_row, out + *done, out_row);
        tiles(1, vecs, adds, &row, rows, depth, a, b + *done, b_row, out + *done, out_row);
    }
}

INLINE void product(const int adds, long rows, long depth, long columns, matrix a, const float *b, long b_row,
                    float *out, long out_row) {
    long column = 0;
    stripes(MOST_VECS, adds, &column, rows, depth, columns, a, b, b_row, out, out_row);
    stripes(2, adds, &column, rows, depth, columns, a, b, b_row, out, out_row);
    stripes(1, adds, &column, rows, depth, columns, a, b, b_row, out, out_row);
}

void set_product(long rows, long depth, long columns, matrix a, const float *b, long b_row, float *out, long out_row) {
    product(0, rows, depth, columns, a, b, b_row, out, out_row);
}

void add_product(long rows, long depth, long columns, matrix a, const float *b, long b_row, float *out, long out_row) {
    product(1, rows, depth, columns, a, b, b_row, out, out_row);
}
