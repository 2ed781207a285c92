/* RoPE (Su et al. 2021) of queries or keys, after the norm of each head (Qwen3's QK-norm).

       n = r x w                       r = 1 / sqrt(mean(x^2) + eps), over the features of a head
       (a, b) of n -> (a cos - b sin, b cos + a sin)

   a is the first half of a head's features and b the second. Backward rotates by the opposite angle
   and then applies the backward pass of rms_norm.c. Without a weight there is no norm. */
#include "vectors.h"

INLINE floats inverse_rms(const number *x, int64_t size, double eps) {
    floats squares = all(0);
    for (int64_t i = 0; i < size; i += LANES) squares = fmadd(wide(x + i), wide(x + i), squares);
    return all(1 / sqrtf(sum_of(squares) / size + (float)eps));
}

/* x, y: (tokens, heads, size). cos, sin: (tokens, size), equal in both halves. */
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
                    a = mul(mul(a, scale), wide(weight + i));
                    b = mul(mul(b, scale), wide(weight + half + i));
                }
                narrow(y + at + i, fmsub(a, c, mul(b, s)));
                narrow(y + at + half + i, fmadd(b, c, mul(a, s)));
            }
        }
}

enum { LARGEST = 512 }; /* features of a head */

/* `dweights` has a row for each thread and must be zero. */
void rotate_heads_backward(const number *dy, const number *x, const number *weight, double eps,
                           const number *cos, const number *sin, int64_t tokens, int64_t heads,
                           int64_t size, number *dx, float *dweights, int threads) {
    int64_t half = size / 2;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t token = 0; token < tokens; token++)
        for (int64_t head = 0; head < heads; head++) {
            int64_t at = (token * heads + head) * size;
            float rotated[LARGEST]; /* w dn, before the norm's backward */
            float *dw = dweights + omp_get_thread_num() * size;
            floats scale = weight ? inverse_rms(x + at, size, eps) : all(1), dots = all(0);
            for (int64_t i = 0; i < half; i += LANES) {
                floats c = wide(cos + token * size + i), s = wide(sin + token * size + i);
                floats a = wide(dy + at + i), b = wide(dy + at + half + i);
                floats both[2] = {fmadd(a, c, mul(b, s)),
                                  fmsub(b, c, mul(a, s))};
                for (int part = 0; part < 2; part++) {
                    int64_t j = part * half + i;
                    floats d = both[part];
                    if (weight) {
                        floats n = mul(wide(x + at + j), scale);
                        floats product = mul(d, n);
                        store(dw + j, add(load(dw + j), product));
                        dots = fmadd(product, wide(weight + j), dots);
                        d = mul(d, wide(weight + j));
                    }
                    store(rotated + j, d);
                }
            }
            floats mean = weight ? all(sum_of(dots) / size) : all(0);
            for (int64_t i = 0; i < size; i += LANES) {
                floats d = load(rotated + i);
                if (weight) {
                    floats n = mul(wide(x + at + i), scale);
                    d = mul(scale, fnmadd(n, mean, d));
                }
                narrow(dx + at + i, d);
            }
        }
}
