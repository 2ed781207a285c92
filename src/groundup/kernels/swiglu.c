/* SwiGLU (Shazeer 2020): y = silu(g) u with silu(g) = g s and s = 1 / (1 + e^-g).

       dg = dy u s (1 + g (1 - s))        du = dy g s

   The three results of backward share one exponential. */
#include "vectors.h"

void swiglu(const number *gate, const number *up, number *y, int64_t count, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < count; i += LANES) {
        floats g = wide(gate + i);
        narrow(y + i, mul(mul(g, sigmoid(g)), wide(up + i)));
    }
}

/* `y` is recomputed, which is faster than keeping it; it may overwrite `dy`. */
void swiglu_backward(const number *dy, const number *gate, const number *up, number *dgate,
                     number *dup, number *y, int64_t count, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < count; i += LANES) {
        floats g = wide(gate + i), u = wide(up + i), d = wide(dy + i), s = sigmoid(g);
        floats silu = mul(g, s);
        /* s (1 + g (1 - s)) = s + silu - silu s */
        floats slope = add(s, fnmadd(silu, s, silu));
        narrow(dgate + i, mul(mul(d, u), slope));
        narrow(dup + i, mul(d, silu));
        narrow(y + i, mul(silu, u));
    }
}
