/* Causal softmax attention of one history: qkv (L, 3, H, K), out (L, H, K), log_sums (H, L). */

#include "vectors.h"

/* floats that `attend` needs as its scores */
long attention_room(long length, long dim);

/* log_sums are the logarithms to base 2 of the softmax's sums */
void attend(long length, long heads, long dim, const float *qkv, float *out, float *log_sums, float *scores);
