/* Causal softmax attention of one history: qkv (L, 3, H, K), out (L, H, K), norms (H, 2, L). */

#include "vectors.h"

/* floats that `attend` needs as its scores */
long attention_room(long length, long dim);

/* norms become each query's greatest product with a key, and the logarithm to base 2 of its softmax's sum */
void attend(long length, long heads, long dim, const float *qkv, float *out, float *norms, float *scores);
