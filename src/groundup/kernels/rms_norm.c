/* RMSNorm (Zhang & Sennrich 2019) after an addition.

       h = x + added        y = r h w        r = 1 / sqrt(mean(h^2) + eps)

   With n = r h, whose mean square is 1:

       dh = dsum + r (w dy - n mean(w dy n))        dw = sum over rows of dy n

   where dsum is the gradient that reaches h directly. */
#include "vectors.h"

/* Without `added`, h is x and `sum` is not written. */
void rms_norm(const number *x, const number *added, const number *weight, double eps, int64_t rows,
              int64_t width, number *sum, number *y, float *scales, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t row = 0; row < rows; row++) {
        const number *h = x + row * width;
        floats squares = all(0);
        if (added) {
            number *to = sum + row * width;
            for (int64_t i = 0; i < width; i += LANES) {
                narrow(to + i, add(wide(h + i), wide(added + row * width + i)));
                squares = fmadd(wide(to + i), wide(to + i), squares);
            }
            h = to;
        } else
            for (int64_t i = 0; i < width; i += LANES)
                squares = fmadd(wide(h + i), wide(h + i), squares);
        float scale = 1 / sqrtf(sum_of(squares) / width + (float)eps);
        scales[row] = scale;
        for (int64_t i = 0; i < width; i += LANES)
            narrow(y + row * width + i, mul(mul(wide(h + i), all(scale)), wide(weight + i)));
    }
}

/* `dweights` has a row for each thread and must be zero. */
void rms_norm_backward(const number *dy, const number *dsum, const number *h, const number *weight,
                       const float *scales, int64_t rows, int64_t width, number *dh,
                       float *dweights, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t row = 0; row < rows; row++) {
        float *dw = dweights + omp_get_thread_num() * width;
        int64_t at = row * width;
        floats scale = all(scales[row]), dots = all(0);
        for (int64_t i = 0; i < width; i += LANES) {
            floats n = mul(wide(h + at + i), scale), d = wide(dy + at + i);
            floats product = mul(d, n);
            store(dw + i, add(load(dw + i), product));
            dots = fmadd(product, wide(weight + i), dots);
        }
        floats mean = all(sum_of(dots) / width);
        for (int64_t i = 0; i < width; i += LANES) {
            floats n = mul(wide(h + at + i), scale);
            floats inner = fmsub(wide(weight + i), wide(dy + at + i), mul(n, mean));
            floats past = dsum ? wide(dsum + at + i) : all(0);
            narrow(dh + at + i, fmadd(scale, inner, past));
        }
    }
}
