/* Vector operations on numbers: loaded as float32, computed in float32, stored in their own type.

   By default numbers are bfloat16 in vectors of sixteen, rounded once when stored, for processors with
   AVX512-BF16. With FLOAT32 they are float32 in vectors of eight, for processors that have only AVX2.
   The kernels' sources are the same for both. */
#pragma once
#include <immintrin.h>
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

#ifdef FLOAT32

typedef float number;
typedef __m256 floats;
typedef __m256 numbers; /* as stored */
typedef __m256 mask;    /* a lane is all ones or all zeros */
enum { LANES = 8 };

INLINE floats all(float x) { return _mm256_set1_ps(x); }
INLINE floats load(const float *at) { return _mm256_loadu_ps(at); }
INLINE void store(float *to, floats x) { _mm256_storeu_ps(to, x); }
INLINE float wide_one(number x) { return x; }
INLINE floats wide(const number *at) { return load(at); }
INLINE numbers narrowed(floats x) { return x; }
INLINE void write(number *to, numbers x) { store(to, x); }
INLINE numbers no_numbers(void) { return _mm256_setzero_ps(); }

INLINE floats add(floats a, floats b) { return _mm256_add_ps(a, b); }
INLINE floats sub(floats a, floats b) { return _mm256_sub_ps(a, b); }
INLINE floats mul(floats a, floats b) { return _mm256_mul_ps(a, b); }
INLINE floats larger(floats a, floats b) { return _mm256_max_ps(a, b); } /* b, if either is NaN */
INLINE floats smaller(floats a, floats b) { return _mm256_min_ps(a, b); }
INLINE floats fmadd(floats a, floats b, floats c) { return _mm256_fmadd_ps(a, b, c); }   /* ab + c */
INLINE floats fmsub(floats a, floats b, floats c) { return _mm256_fmsub_ps(a, b, c); }   /* ab - c */
INLINE floats fnmadd(floats a, floats b, floats c) { return _mm256_fnmadd_ps(a, b, c); } /* c - ab */
INLINE floats nearest(floats x) { return _mm256_round_ps(x, 8); }
INLINE float sum_of(floats x) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
INLINE float largest_of(floats x) {
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

/* Lanes above a bound, and NaN lanes. */
INLINE mask not_below(floats x, float bound) { return _mm256_cmp_ps(x, all(bound), _CMP_NLE_UQ); }
INLINE floats choose(mask m, floats x, floats other) { return _mm256_blendv_ps(other, x, m); }
INLINE floats keep(mask m, floats x) { return _mm256_and_ps(m, x); }
/* The lanes whose index, counted from `start`, is between `first` and `last`, inclusive. */
INLINE mask between(int32_t start, int32_t first, int32_t last) {
    if (first <= start && start + LANES - 1 <= last) return _mm256_castsi256_ps(_mm256_set1_epi32(-1));
    __m256i places = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(start));
    __m256i before = _mm256_cmpgt_epi32(_mm256_set1_epi32(first), places);
    __m256i after = _mm256_cmpgt_epi32(places, _mm256_set1_epi32(last));
    return _mm256_castsi256_ps(_mm256_andnot_si256(_mm256_or_si256(before, after), _mm256_set1_epi32(-1)));
}

/* 2^n x, for integers n from -126 to 127. */
INLINE floats scaled(floats x, floats n) {
    __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return mul(x, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}

/* x / ln 2 - n, exact to the last bits of float32: 1 / ln 2 is the sum of these two constants. */
INLINE floats fraction(floats x, floats n) {
    return fmadd(x, all(1.92596303e-8f), fmsub(x, all(1.44269504f), n));
}

INLINE floats inverse(floats x) { return _mm256_div_ps(all(1), x); }

#else

typedef uint16_t number; /* a bfloat16: the upper half of a float32 */
typedef __m512 floats;
typedef __m256i numbers; /* as stored */
typedef __mmask16 mask;
enum { LANES = 16 };

INLINE floats all(float x) { return _mm512_set1_ps(x); }
INLINE floats load(const float *at) { return _mm512_loadu_ps(at); }
INLINE void store(float *to, floats x) { _mm512_storeu_ps(to, x); }
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
INLINE numbers narrowed(floats x) { return (__m256i)_mm512_cvtneps_pbh(x); } /* ties to even */
INLINE void write(number *to, numbers x) { _mm256_storeu_si256((void *)to, x); }
INLINE numbers no_numbers(void) { return _mm256_setzero_si256(); }

INLINE floats add(floats a, floats b) { return _mm512_add_ps(a, b); }
INLINE floats sub(floats a, floats b) { return _mm512_sub_ps(a, b); }
INLINE floats mul(floats a, floats b) { return _mm512_mul_ps(a, b); }
INLINE floats larger(floats a, floats b) { return _mm512_max_ps(a, b); } /* b, if either is NaN */
INLINE floats smaller(floats a, floats b) { return _mm512_min_ps(a, b); }
INLINE floats fmadd(floats a, floats b, floats c) { return _mm512_fmadd_ps(a, b, c); }   /* ab + c */
INLINE floats fmsub(floats a, floats b, floats c) { return _mm512_fmsub_ps(a, b, c); }   /* ab - c */
INLINE floats fnmadd(floats a, floats b, floats c) { return _mm512_fnmadd_ps(a, b, c); } /* c - ab */
INLINE floats nearest(floats x) { return _mm512_roundscale_ps(x, 8); }
INLINE float sum_of(floats x) { return _mm512_reduce_add_ps(x); }
INLINE float largest_of(floats x) { return _mm512_reduce_max_ps(x); }

/* Lanes above a bound, and NaN lanes. */
INLINE mask not_below(floats x, float bound) { return _mm512_cmp_ps_mask(x, all(bound), _CMP_NLE_UQ); }
INLINE floats choose(mask m, floats x, floats other) { return _mm512_mask_mov_ps(other, m, x); }
INLINE floats keep(mask m, floats x) { return _mm512_maskz_mov_ps(m, x); }
/* The lanes whose index, counted from `start`, is between `first` and `last`, inclusive. */
INLINE mask between(int32_t start, int32_t first, int32_t last) {
    if (first <= start && start + LANES - 1 <= last) return 0xffff;
    __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i places = _mm512_add_epi32(lane, _mm512_set1_epi32(start));
    return _mm512_cmpge_epi32_mask(places, _mm512_set1_epi32(first)) &
           _mm512_cmple_epi32_mask(places, _mm512_set1_epi32(last));
}

/* 2^n x, for integers n. */
INLINE floats scaled(floats x, floats n) { return _mm512_scalef_ps(x, n); }

/* x / ln 2 - n. */
INLINE floats fraction(floats x, floats n) { return sub(mul(x, all(1.44269504f)), n); }

/* 1 / x, right to the last bit but one: a 14-bit estimate and a Newton step, faster than a division. */
INLINE floats inverse(floats x) {
    floats guess = _mm512_rcp14_ps(x);
    return mul(guess, fnmadd(x, guess, all(2.f)));
}

#endif

INLINE void narrow(number *to, floats x) { write(to, narrowed(x)); }

/* e^x = 2^n 2^f with |f| <= 1/2, and 2^f by the best polynomial of degree 5, with an error below 1e-7.
   Below -87, and for minus infinity, it is zero; NaN stays NaN. */
INLINE floats exponential(floats x) {
    mask seen = not_below(x, -87.f);
    x = smaller(all(88.f), x);
    floats n = nearest(mul(x, all(1.44269504f))), f = fraction(x, n), series = all(1.32764715e-3f);
    series = fmadd(series, f, all(9.67554133e-3f));
    series = fmadd(series, f, all(5.55071327e-2f));
    series = fmadd(series, f, all(2.40221197e-1f));
    series = fmadd(series, f, all(6.93146967e-1f));
    series = fmadd(series, f, all(1.00000007f));
    return keep(seen, scaled(series, n));
}

INLINE floats sigmoid(floats x) {
    floats power = exponential(sub(all(0), x));
    return inverse(add(all(1), power));
}
