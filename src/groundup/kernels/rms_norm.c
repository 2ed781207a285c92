/* RMSNorm (Zhang & Sennrich 2019), with the sum before it.

       h = x + added        y = r h w        r = 1 / sqrt(mean(h^2) + eps)

   With n = r h, which has the mean square 1:

       dh = dsum + r (w dy - n mean(w dy n))        dw = sum over rows of dy n

   where dsum is what reaches h past the norm. */
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
                narrow(to + i, _mm512_add_ps(wide(h + i), wide(added + row * width + i)));
                squares = _mm512_fmadd_ps(wide(to + i), wide(to + i), squares);
            }
            h = to;
        } else
            for (int64_t i = 0; i < width; i += LANES)
                squares = _mm512_fmadd_ps(wide(h + i), wide(h + i), squares);
        float scale = 1 / sqrtf(_mm512_reduce_add_ps(squares) / width + (float)eps);
        scales[row] = scale;
        for (int64_t i = 0; i < width; i += LANES)
            narrow(y + row * width + i, _mm512_mul_ps(_mm512_mul_ps(wide(h + i), all(scale)), wide(weight + i)));
    }
}

/* `dweights` has a row for each thread, which must be zero. */
void rms_norm_backward(const number *dy, const number *dsum, const number *h, const number *weight,
                       const float *scales, int64_t rows, int64_t width, number *dh,
                       float *dweights, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t row = 0; row < rows; row++) {
        float *dw = dweights + omp_get_thread_num() * width;
        int64_t at = row * width;
        floats scale = all(scales[row]), dots = all(0);
        for (int64_t i = 0; i < width; i += LANES) {
            floats n = _mm512_mul_ps(wide(h + at + i), scale), d = wide(dy + at + i);
            floats product = _mm512_mul_ps(d, n);
            _mm512_storeu_ps(dw + i, _mm512_add_ps(_mm512_loadu_ps(dw + i), product));
            dots = _mm512_fmadd_ps(product, wide(weight + i), dots);
        }
        floats mean = all(_mm512_reduce_add_ps(dots) / width);
        for (int64_t i = 0; i < width; i += LANES) {
            floats n = _mm512_mul_ps(wide(h + at + i), scale);
            floats inner = _mm512_fmsub_ps(wide(weight + i), wide(dy + at + i), _mm512_mul_ps(n, mean));
            floats past = dsum ? wide(dsum + at + i) : all(0);
            narrow(dh + at + i, _mm512_fmadd_ps(scale, inner, past));
        }
    }
}
