/* The gradient of W (out x in) in y = x W^T, summed directly into float32:

       dW += dy^T x        dy: (tokens, out), x: (tokens, in), both bfloat16

   For a chunk of tokens, both factors are copied into tiles, then each 32 x 32 block of dW is computed
   by one thread. No sum depends on the number of threads. float32 gradients use PyTorch's products. */
#include "tiles.h"

/* Tokens per chunk: the tiles of both factors stay in the L2 cache, and those of 32 columns in L1. */
enum { CHUNK = 256 };

/* `tiles` holds CHUNK (out + in) numbers; `add` 0 overwrites dW. */
void weight_gradient(float *dw, const number *dy, const number *x, int64_t tokens, int64_t out,
                     int64_t in, int add, number *tiles, int threads) {
    int64_t panel = CHUNK / 32 * TILE; /* of 16 columns */
    number *left = tiles, *right = left + CHUNK * out;
#pragma omp parallel num_threads(threads)
    {
        TileConfig before = begin_tiles();
        for (int64_t first = 0; first < tokens; first += CHUNK) {
            int64_t count = tokens - first < CHUNK ? tokens - first : CHUNK, used = (count + 31) / 32;
            Rows dys = {dy + first * out, out, count}, xs = {x + first * in, in, count};
#pragma omp for schedule(static)
            for (int64_t s = 0; s < used; s++) {
                number *to = left + s * TILE, *other = right + s * TILE;
                for (int64_t n = 0; n < out; n += 32, to += 2 * panel)
                    left_by_rows(to, to + panel, dys, 32 * s, n);
                for (int64_t n = 0; n < in; n += 32, other += 2 * panel)
                    right_by_rows(other, other + panel, xs, 32 * s, n);
            }
#pragma omp for schedule(static)
            for (int64_t o = 0; o < out / 32; o++)
                for (int64_t i = 0; i < in / 32; i++)
                    product(dw + 32 * o * in + 32 * i, in,
                            (Left){left + 2 * o * panel, 32, panel, TILE},
                            (Right){right + 2 * i * panel, panel, TILE}, used, add || first);
        }
        end_tiles(before);
    }
}
