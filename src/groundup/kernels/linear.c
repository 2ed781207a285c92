/* The gradient of W (out x in) in y = x W^T, summed directly into float32:

       dW += dy^T x        dy: (tokens, out), x: (tokens, in), both bfloat16

   Each thread computes a part of the longer side of dW in 32 x 32 blocks, for a chunk of tokens after
   the other. It copies both factors into its own tiles: waiting for tiles of another thread, and reading
   them from its cache, would take longer. No sum depends on the number of threads. float32 gradients
   use PyTorch's products. */
#include "tiles.h"

/* Tokens per chunk: the tiles of the shorter side stay in the L2 cache, and those of 32 columns in L1. */
enum { CHUNK = 256, PANEL = CHUNK / 32 * TILE /* of 16 columns */ };

INLINE void left_panels(number *to, Rows dy, int64_t column) {
    for (int64_t s = 0; s < dy.count; s += 32, to += TILE)
        left_by_rows(to, to + PANEL, dy, s, column);
}

INLINE void right_panels(number *to, Rows x, int64_t column) {
    for (int64_t s = 0; s < x.count; s += 32, to += TILE)
        right_by_rows(to, to + PANEL, x, s, column);
}

/* `tiles` holds CHUNK (32 + the shorter side) numbers for each thread; `add` 0 overwrites dW. */
void weight_gradient(float *dw, const number *dy, const number *x, int64_t tokens, int64_t out,
                     int64_t in, int add, number *tiles, int threads) {
    int64_t longer = (out < in ? in : out) / 32, shorter = (out < in ? out : in) / 32;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t part = 0; part < threads; part++) {
        TileConfig before = begin_tiles();
        int64_t from = longer * part / threads, to = longer * (part + 1) / threads;
        number *one = tiles + 2 * PANEL * part * (1 + shorter), *others = one + 2 * PANEL;
        for (int64_t first = 0; first < tokens; first += CHUNK) {
            int64_t count = tokens - first < CHUNK ? tokens - first : CHUNK, steps = (count + 31) / 32;
            Rows dys = {dy + first * out, out, count}, xs = {x + first * in, in, count};
            for (int64_t n = 0; n < shorter; n++)
                if (out < in) left_panels(others + 2 * PANEL * n, dys, 32 * n);
                else right_panels(others + 2 * PANEL * n, xs, 32 * n);
            for (int64_t m = from; m < to; m++) {
                if (out < in) right_panels(one, xs, 32 * m);
                else left_panels(one, dys, 32 * m);
                for (int64_t n = 0; n < shorter; n++) {
                    number *other = others + 2 * PANEL * n;
                    int64_t o = out < in ? n : m, i = out < in ? m : n;
                    product(dw + 32 * o * in + 32 * i, in,
                            (Left){out < in ? other : one, 32, PANEL, TILE},
                            (Right){out < in ? one : other, PANEL, TILE}, steps, add || first);
                }
            }
        }
        end_tiles(before);
    }
}
