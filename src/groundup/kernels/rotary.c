/* RoPE (Su et al. 2021) of queries or keys, and before it the norm of each head (Qwen3's QK-norm).

       n = r x w                       r = 1 / sqrt(mean(x^2) + eps), over the features of a head
       (a, b) of n -> (a cos - b sin, b cos + a sin)

   a is the first half of a head's features and b the second. Backward turns by the opposite angle,
   and goes through the norm as in rms_norm.c. Without a weight there is no norm. */
#include "vectors.h"

INLINE floats inverse_rms(const number *x, int64_t size, double eps) {
    floats squares = all(0);
    for (int64_t i = 0; i < size; i += LANES) squares = _mm512_fmadd_ps(wide(x + i), wide(x + i), squares);
    return all(1 / sqrtf(_mm512_reduce_add_ps(squares) / size + (float)eps));
}

/* x, y: (tokens, heads, size). cos, sin: (tokens, size), alike in both halves. */
void rotate_heads(const number *x, const number *weight, double eps, const number *cos,
                  const number *sin, int64_t tokens, int64_t heads, int64_t size, number *y, int threads) {
    int64_t half = size / 2;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t token = 0; token < tokens; token++)
        for (int64_t head = 0; head < heads; head++) {
            int64_t at = (token * heads + head) * size;
            floats scale = weight ? inverse_rms(x + at, size, eps) : all(1);
            for (int64_t i = 0; i < half; i += LANES) {
                floats c = wide(cos + token * size + i), s = wide(sin + token * size + i);
                floats a = wide(x + at + i), b = wide(x + at + half + i);
                if (weight) {
                    a = _mm512_mul_ps(_mm512_mul_ps(a, scale), wide(weight + i));
                    b = _mm512_mul_ps(_mm512_mul_ps(b, scale), wide(weight + half + i));
                }
                narrow(y + at + i, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)));
                narrow(y + at + half + i, _mm512_fmadd_ps(b, c, _mm512_mul_ps(a, s)));
            }
        }
}

enum { LARGEST = 512 }; /* features of a head */

/* `dweights` has a row for each thread, which must be zero. */
void rotate_heads_backward(const number *dy, const number *x, const number *weight, double eps,
                           const number *cos, const number *sin, int64_t tokens, int64_t heads,
                           int64_t size, number *dx, float *dweights, int threads) {
    int64_t half = size / 2;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t token = 0; token < tokens; token++)
        for (int64_t head = 0; head < heads; head++) {
            int64_t at = (token * heads + head) * size;
            float turned[LARGEST]; /* w dn, before the norm's backward */
            float *dw = dweights + omp_get_thread_num() * size;
            floats scale = weight ? inverse_rms(x + at, size, eps) : all(1), dots = all(0);
            for (int64_t i = 0; i < half; i += LANES) {
                floats c = wide(cos + token * size + i), s = wide(sin + token * size + i);
                floats a = wide(dy + at + i), b = wide(dy + at + half + i);
                floats both[2] = {_mm512_fmadd_ps(a, c, _mm512_mul_ps(b, s)),
                                  _mm512_fmsub_ps(b, c, _mm512_mul_ps(a, s))};
                for (int part = 0; part < 2; part++) {
                    int64_t j = part * half + i;
                    floats d = both[part];
                    if (weight) {
                        floats n = _mm512_mul_ps(wide(x + at + j), scale);
                        floats product = _mm512_mul_ps(d, n);
                        _mm512_storeu_ps(dw + j, _mm512_add_ps(_mm512_loadu_ps(dw + j), product));
                        dots = _mm512_fmadd_ps(product, wide(weight + j), dots);
                        d = _mm512_mul_ps(d, wide(weight + j));
                    }
                    _mm512_storeu_ps(turned + j, d);
                }
            }
            floats mean = weight ? all(_mm512_reduce_add_ps(dots) / size) : all(0);
            for (int64_t i = 0; i < size; i += LANES) {
                floats d = _mm512_loadu_ps(turned + i);
                if (weight) {
                    floats n = _mm512_mul_ps(wide(x + at + i), scale);
                    d = _mm512_mul_ps(scale, _mm512_fnmadd_ps(n, mean, d));
                }
                narrow(dx + at + i, d);
            }
        }
}
