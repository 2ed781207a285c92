/* Newton-Schulz steps for Muon (Jordan et al. 2024), each matrix by one thread, in place:

       G = X X^T        H = b G + c G G        X <- a X + H X

   X is rows x columns with rows <= columns, both multiples of 32. G and H are symmetric, so half of
   their 32 x 32 blocks are computed and the others copied. Results between products are rounded to the
   number type, as with PyTorch's products. */
#include "tiles.h"

/* Write a float32 block (32 x 32) and its mirror image into a symmetric matrix of `size` rows. */
INLINE void write_both(number *to, int64_t size, int64_t row, int64_t column, const float *part) {
    for (int i = 0; i < 32; i++)
        for (int j = 0; j < 32; j += LANES)
            narrow(to + (row + i) * size + column + j, load(part + 32 * i + j));
    if (row == column) return;
    for (int i = 0; i < 32; i += LANES)
        for (int j = 0; j < 32; j += LANES) {
            floats tile[LANES];
            for (int k = 0; k < LANES; k++) tile[k] = load(part + 32 * (i + k) + j);
            transpose(tile);
            for (int k = 0; k < LANES; k++) narrow(to + (column + j + k) * size + row + i, tile[k]);
        }
}

/* part = alpha A B + beta C for the 32 x 32 block at (row, column). */
INLINE void part_of(float *part, const number *a, int64_t sum, int64_t row, const number *tiles,
                    int64_t column, float alpha, float beta, const number *c, int64_t width) {
    int64_t steps = sum / 32;
    product(part, 32, (Left){a + row * sum, sum, 16 * sum, 32},
            (Right){tiles + column / 16 * steps * TILE, steps * TILE, TILE}, steps, 0);
    if (!c) return;
    for (int i = 0; i < 32; i++)
        for (int j = 0; j < 32; j += LANES) {
            floats added = mul(all(beta), wide(c + (row + i) * width + column + j));
            float *at = part + 32 * i + j;
            store(at, fmadd(all(alpha), load(at), added));
        }
}

/* Bytes of scratch for each thread. */
int64_t newton_schulz_scratch(int64_t rows, int64_t columns) {
    return sizeof(number) * (2 * rows * rows + rows * columns) + 4 * 1024;
}

void newton_schulz(number *matrices, int64_t count, int64_t rows, int64_t columns, int64_t times,
                   double a, double b, double c, uint8_t *scratch, int threads) {
#pragma omp parallel num_threads(threads)
    {
        TileConfig before = begin_tiles();
        uint8_t *own = scratch + omp_get_thread_num() * newton_schulz_scratch(rows, columns);
        float *part = (float *)own;
        number *gram = (number *)(part + 1024), *mixed = gram + rows * rows, *tiles = mixed + rows * rows;
#pragma omp for schedule(dynamic)
        for (int64_t n = 0; n < count; n++)
            for (int64_t time = 0; time < times; time++) {
                number *x = matrices + n * rows * columns, *to = tiles;
                Rows xs = {x, columns, rows}, grams = {gram, rows, rows};
                for (int64_t i = 0; i < rows; i += 16)
                    for (int64_t s = 0; s < columns; s += 32, to += TILE) right_by_columns(to, xs, i, s);
                for (int64_t i = 0; i < rows; i += 32)
                    for (int64_t j = i; j < rows; j += 32) {
                        part_of(part, x, columns, i, tiles, j, 1, 0, NULL, 0);
                        write_both(gram, rows, i, j, part);
                    }
                to = tiles;
                for (int64_t i = 0; i < rows; i += 16) /* G is its own transpose */
                    for (int64_t s = 0; s < rows; s += 32, to += TILE) right_by_columns(to, grams, i, s);
                for (int64_t i = 0; i < rows; i += 32)
                    for (int64_t j = i; j < rows; j += 32) {
                        part_of(part, gram, rows, i, tiles, j, c, b, gram, rows);
                        write_both(mixed, rows, i, j, part);
                    }
                int64_t panel = rows / 32 * TILE;
                for (int64_t j = 0; j < columns; j += 32)
                    for (int64_t s = 0; s < rows / 32; s++) {
                        number *at = tiles + j / 16 * panel + s * TILE;
                        right_by_rows(at, at + panel, xs, 32 * s, j);
                    }
                for (int64_t j = 0; j < columns; j += 32)
                    for (int64_t i = 0; i < rows; i += 32) {
                        part_of(part, mixed, rows, i, tiles, j, 1, a, x, columns);
                        for (int64_t k = 0; k < 32; k++)
                            for (int64_t l = 0; l < 32; l += LANES)
                                narrow(x + (i + k) * columns + j + l, load(part + 32 * k + l));
                    }
            }
        end_tiles(before);
    }
}
