/* Matrix products in blocks of 32 x 32 results, summed in float32.

       C (32 x 32) (+)= A (32 x 32 steps) B (32 steps x 32)

   In bfloat16, AMX holds a tile of 16 rows of 64 bytes in a register and multiplies two tiles in one
   instruction: 16 x 32 numbers of A, and 32 x 16 of B with its rows interleaved in pairs, so that two
   factors which are summed together are adjacent. Without AMX, AVX512-BF16 multiplies a pair of A with
   sixteen pairs of B; the memory layout of tiles is the same.

   In float32, one number of A multiplies eight of B, and a tile of B has 32 rows of sixteen numbers. */
#pragma once
#include "vectors.h"

enum { TILE = 512 }; /* numbers in a tile */

typedef struct { /* row i of A at step s: at + i / 16 * half + i % 16 * row + s * step */
    const number *at;
    int64_t row, half, step;
} Left;

typedef struct { /* the tiles of B for its columns 0-15 and 16-31 at step s: at + s * step (+ half) */
    const number *at;
    int64_t half, step;
} Right;

typedef struct { /* a matrix of numbers whose rows from `count` on are zero */
    const number *at;
    int64_t row, count;
} Rows;

static const number ZEROS[32] = {0};

INLINE const number *row_of(Rows x, int64_t i, int64_t column) {
    return i < x.count ? x.at + i * x.row + column : ZEROS;
}

#if defined(__AMX_BF16__) && !defined(WITHOUT_AMX) && !defined(FLOAT32)

typedef struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} TileConfig;

/* Configure eight full-size tiles for this thread and return its previous configuration, which
   `end_tiles` restores because PyTorch's products use tiles too. */
INLINE TileConfig begin_tiles(void) {
    TileConfig before, full = {.palette = 1};
    for (int i = 0; i < 8; i++) full.bytes[i] = 64, full.rows[i] = 16;
    _tile_storeconfig(&before);
    _tile_loadconfig(&full);
    return before;
}

INLINE void end_tiles(TileConfig before) {
    if (before.palette) _tile_loadconfig(&before);
    else _tile_release();
}

INLINE void product(float *c, int64_t row, Left a, Right b, int64_t steps, int add) {
    int64_t bytes = 2 * a.row;
    if (add) {
        _tile_loadd(0, c, 4 * row);
        _tile_loadd(1, c + 16, 4 * row);
        _tile_loadd(2, c + 16 * row, 4 * row);
        _tile_loadd(3, c + 16 * row + 16, 4 * row);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int64_t s = 0; s < steps; s++, a.at += a.step, b.at += b.step) {
        _tile_loadd(4, a.at, bytes);
        _tile_loadd(6, b.at, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, b.at + b.half, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, a.at + a.half, bytes);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, 4 * row);
    _tile_stored(1, c + 16, 4 * row);
    _tile_stored(2, c + 16 * row, 4 * row);
    _tile_stored(3, c + 16 * row + 16, 4 * row);
}

#else

typedef struct { char nothing; } TileConfig;
INLINE TileConfig begin_tiles(void) { return (TileConfig){0}; }
INLINE void end_tiles(TileConfig before) { (void)before; }

#ifdef FLOAT32

/* Four rows and sixteen columns at a time, so that their eight vectors of sums stay in registers. */
INLINE void product(float *c, int64_t row, Left a, Right b, int64_t steps, int add) {
    for (int i = 0; i < 32; i += 4, c += 4 * row) {
        const number *from = a.at + i / 16 * a.half + i % 16 * a.row;
        for (int n = 0; n < 2; n++) {
            floats sums[4][2];
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++)
                for (int m = 0; m < 2; m++)
                    sums[r][m] = add ? load(c + r * row + 16 * n + 8 * m) : all(0);
            for (int64_t s = 0; s < steps; s++) {
                const number *left = from + s * a.step, *right = b.at + s * b.step + n * b.half;
                for (int k = 0; k < 32; k++) {
                    floats low = load(right + 16 * k), high = load(right + 16 * k + 8);
                    /* Keep both in registers: loaded once for four rows, not once for each. */
                    __asm__("" : "+x"(low), "+x"(high));
#pragma GCC unroll 4
                    for (int r = 0; r < 4; r++) {
                        floats one = all(left[r * a.row + k]);
                        sums[r][0] = fmadd(one, low, sums[r][0]);
                        sums[r][1] = fmadd(one, high, sums[r][1]);
                    }
                }
            }
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++)
                for (int m = 0; m < 2; m++) store(c + r * row + 16 * n + 8 * m, sums[r][m]);
        }
    }
}

#else

/* Eight rows at a time, so that their sixteen sums of sixteen numbers stay in registers. */
INLINE void product(float *c, int64_t row, Left a, Right b, int64_t steps, int add) {
    for (int i = 0; i < 32; i += 8, c += 8 * row) {
        const number *from = a.at + i / 16 * a.half + i % 16 * a.row;
        floats sums[8][2];
#pragma GCC unroll 8
        for (int r = 0; r < 8; r++)
            for (int n = 0; n < 2; n++)
                sums[r][n] = add ? load(c + r * row + 16 * n) : all(0);
        for (int64_t s = 0; s < steps; s++)
            for (int pair = 0; pair < 16; pair++) {
                const number *right = b.at + s * b.step + 32 * pair;
                __m512bh low = (__m512bh)_mm512_loadu_si512(right);
                __m512bh high = (__m512bh)_mm512_loadu_si512(right + b.half);
#pragma GCC unroll 8
                for (int r = 0; r < 8; r++) {
                    int32_t two;
                    memcpy(&two, from + r * a.row + s * a.step + 2 * pair, 4);
                    __m512bh left = (__m512bh)_mm512_set1_epi32(two);
                    sums[r][0] = _mm512_dpbf16_ps(sums[r][0], left, low);
                    sums[r][1] = _mm512_dpbf16_ps(sums[r][1], left, high);
                }
            }
#pragma GCC unroll 8
        for (int r = 0; r < 8; r++)
            for (int n = 0; n < 2; n++) store(c + r * row + 16 * n, sums[r][n]);
    }
}

#endif
#endif

#ifdef FLOAT32

/* Transpose eight rows of eight numbers. */
INLINE void transpose(floats *r) {
    floats t[8], u[8];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(u[i], u[4 + i], 0x20);
        r[4 + i] = _mm256_permute2f128_ps(u[i], u[4 + i], 0x31);
    }
}

/* Write LANES columns of a pair of rows of a right factor, into two tiles of sixteen columns each. */
INLINE void write_pair(number *tiles, int pair, int column, numbers even, numbers odd) {
    number *to = tiles + column / 16 * TILE + 32 * pair + column % 16;
    write(to, even);
    write(to + 16, odd);
}

/* Write 8 columns of 32 rows of x as rows of 32 numbers. */
INLINE void columns_as_rows(number *to, Rows x, int64_t first, int64_t column) {
    for (int i = 0; i < 32; i += 8) {
        floats part[8];
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) part[j] = load(row_of(x, first + i + j, column));
        transpose(part);
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) store(to + 32 * j + i, part[j]);
    }
}

/* A tile of x^T as the right factor of a sum over columns: 16 rows of x, 32 columns. */
INLINE void right_by_columns(number *to, Rows x, int64_t first, int64_t column) {
    for (int i = 0; i < 16; i += 8)
        for (int j = 0; j < 32; j += 8) {
            floats part[8];
#pragma GCC unroll 8
            for (int k = 0; k < 8; k++) part[k] = load(row_of(x, first + i + k, column + j));
            transpose(part);
#pragma GCC unroll 8
            for (int k = 0; k < 8; k++) store(to + 16 * (j + k) + i, part[k]);
        }
}

/* Two tiles of x as right factors of a sum over its rows: 32 rows of x, twice 16 columns. */
INLINE void right_by_rows(number *to, number *next, Rows x, int64_t first, int64_t column) {
    for (int i = 0; i < 32; i++) {
        const number *from = row_of(x, first + i, column);
        memcpy(to + 16 * i, from, 64);
        memcpy(next + 16 * i, from + 16, 64);
    }
}

/* Two tiles of x^T as left factors of a sum over the rows of x: 32 rows of x, twice 16 columns. */
INLINE void left_by_rows(number *to, number *next, Rows x, int64_t first, int64_t column) {
    for (int i = 0; i < 16; i += 8) {
        columns_as_rows(to + 32 * i, x, first, column + i);
        columns_as_rows(next + 32 * i, x, first, column + 16 + i);
    }
}

#else

/* Transpose sixteen rows of sixteen 32-bit words. */
INLINE void transpose(floats *rows) {
    __m512i *r = (__m512i *)rows, t[16], u[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        u[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        u[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        u[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        u[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(u[i], u[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_i32x4(u[i], u[4 + i], 0xdd);
        t[8 + i] = _mm512_shuffle_i32x4(u[8 + i], u[12 + i], 0x88);
        t[12 + i] = _mm512_shuffle_i32x4(u[8 + i], u[12 + i], 0xdd);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
        r[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
        r[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
        r[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xdd);
    }
}

INLINE __m512i paired(__m256i low, __m256i high) {
    __m512i upper = _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16);
    return _mm512_or_si512(_mm512_cvtepu16_epi32(low), upper);
}

/* Write LANES columns of a pair of rows of a right factor, into two tiles of sixteen columns each. */
INLINE void write_pair(number *tiles, int pair, int column, numbers even, numbers odd) {
    _mm512_storeu_si512(tiles + column / 16 * TILE + 32 * pair, paired(even, odd));
}

/* Read 32 rows and 32 columns as two tiles whose words are pairs of rows. It reads whole cache lines,
   because rows that are a power of two apart evict each other. */
INLINE void read_pairs(Rows x, int64_t first, int64_t column, __m512i *low, __m512i *high) {
    const __m512i count = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i begins = _mm512_or_si512(count, _mm512_slli_epi32(_mm512_add_epi32(count, _mm512_set1_epi32(32)), 16));
    const __m512i ends = _mm512_add_epi16(begins, _mm512_set1_epi16(16));
#pragma GCC unroll 16
    for (int p = 0; p < 16; p++) {
        __m512i even = _mm512_loadu_si512(row_of(x, first + 2 * p, column));
        __m512i odd = _mm512_loadu_si512(row_of(x, first + 2 * p + 1, column));
        low[p] = _mm512_permutex2var_epi16(even, begins, odd);
        high[p] = _mm512_permutex2var_epi16(even, ends, odd);
    }
}

INLINE void write_tile(number *to, const __m512i *tile) {
#pragma GCC unroll 16
    for (int p = 0; p < 16; p++) _mm512_storeu_si512(to + 32 * p, tile[p]);
}

/* A tile of x^T as the right factor of a sum over columns: 16 rows of x, 32 columns. */
INLINE void right_by_columns(number *to, Rows x, int64_t first, int64_t column) {
    __m512i tile[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) tile[i] = _mm512_loadu_si512(row_of(x, first + i, column));
    transpose((floats *)tile);
    write_tile(to, tile);
}

/* Two tiles of x as right factors of a sum over its rows: 32 rows of x, twice 16 columns. */
INLINE void right_by_rows(number *to, number *next, Rows x, int64_t first, int64_t column) {
    __m512i low[16], high[16];
    read_pairs(x, first, column, low, high);
    write_tile(to, low);
    write_tile(next, high);
}

/* Two tiles of x^T as left factors of a sum over the rows of x: 32 rows of x, twice 16 columns. */
INLINE void left_by_rows(number *to, number *next, Rows x, int64_t first, int64_t column) {
    __m512i low[16], high[16];
    read_pairs(x, first, column, low, high);
    transpose((floats *)low);
    write_tile(to, low);
    transpose((floats *)high);
    write_tile(next, high);
}

#endif
