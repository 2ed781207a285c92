/* Bfloat16 in vectors of sixteen: read as float32, computed with, rounded once when it is written. */
#pragma once
#include <immintrin.h>
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>

typedef uint16_t number; /* a bfloat16: the upper half of a float32 */
typedef __m512 floats;
enum { LANES = 16 };

#define INLINE static inline __attribute__((always_inline))

INLINE floats all(float x) { return _mm512_set1_ps(x); }
INLINE float wide_one(number x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
INLINE floats wide(const number *at) {
    __m256i halves = _mm256_loadu_si256((const void *)at);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}
INLINE __m256i narrowed(floats x) { return (__m256i)_mm512_cvtneps_pbh(x); } /* ties to even */
INLINE void narrow(number *to, floats x) { _mm256_storeu_si256((void *)to, narrowed(x)); }

/* e^x = 2^n 2^f with |f| <= 1/2, and for 2^f the polynomial of degree 5 that is nearest to it: within
   1e-7 of it. Below -87 it is zero, which is what becomes of minus infinity too; what is no number
   stays none. */
INLINE floats exponential(floats x) {
    __mmask16 seen = _mm512_cmp_ps_mask(x, all(-87.f), _CMP_NLE_UQ);
    floats y = _mm512_mul_ps(_mm512_min_ps(all(88.f), x), all(1.44269504f));
    floats n = _mm512_roundscale_ps(y, 8), f = _mm512_sub_ps(y, n), series = all(1.32764715e-3f);
    series = _mm512_fmadd_ps(series, f, all(9.67554133e-3f));
    series = _mm512_fmadd_ps(series, f, all(5.55071327e-2f));
    series = _mm512_fmadd_ps(series, f, all(2.40221197e-1f));
    series = _mm512_fmadd_ps(series, f, all(6.93146967e-1f));
    series = _mm512_fmadd_ps(series, f, all(1.00000007f));
    return _mm512_maskz_scalef_ps(seen, series, n);
}

/* 1 / x to the last bit but one: a guess of 14 bits and a step of Newton's. A division takes longer. */
INLINE floats inverse(floats x) {
    floats guess = _mm512_rcp14_ps(x);
    return _mm512_mul_ps(guess, _mm512_fnmadd_ps(x, guess, all(2.f)));
}

INLINE floats sigmoid(floats x) {
    floats power = exponential(_mm512_sub_ps(all(0), x));
    return inverse(_mm512_add_ps(all(1), power));
}
