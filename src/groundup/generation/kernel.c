/* One decoding step of a whole transformer for one or a few rows, and products with a matrix.

   A decoding step reads every weight once and computes very little with it. Here a step is a single
   call, in which threads divide the outputs of every matrix; `decode.py` has the same step in
   PyTorch. The cache is float32 or bfloat16; matrices may also be in quantized blocks, as in a GGUF
   file. All arithmetic is in float32. */

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

static inline float wide_bfloat16(uint16_t x) { /* bfloat16 is the upper half of a float32 */
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

enum { FLOAT32_KIND, BFLOAT16_KIND, Q8_0_KIND, Q4_0_KIND, Q4_1_KIND };

#ifdef BFLOAT16
typedef uint16_t number;
#define NUMBER_KIND BFLOAT16_KIND
static inline float wide(number x) { return wide_bfloat16(x); }

static inline number narrow(float value) { /* to the nearest, ties to even */
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (value != value) return 0x7fc0;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
#else
typedef float number;
#define NUMBER_KIND FLOAT32_KIND
static inline float wide(number x) { return x; }
static inline number narrow(float x) { return x; }
#endif

/* Vectors of the processor's width. The compiler vectorizes their arithmetic, but converts small
   numbers one by one, so the conversions are written out. */
#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif
typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));

#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)
INLINE words words_of_halves(const uint8_t *at) { return (words)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)at)); }
INLINE words words_of_bytes(const uint8_t *at) { return (words)_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)at)); }
INLINE ints ints_of_bytes(const uint8_t *at) { return (ints)_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)at)); }
INLINE __m128 folded(__m512 x) {
    __m256 two = _mm256_add_ps(_mm512_castps512_ps256(x), (__m256)_mm512_extractf64x4_pd((__m512d)x, 1));
    return _mm_add_ps(_mm256_castps256_ps128(two), _mm256_extractf128_ps(two, 1));
}
INLINE float sum(floats x) {
    __m512 pairs = _mm512_add_ps((__m512)x, _mm512_permute_ps((__m512)x, 0x4e));
    return _mm_cvtss_f32(folded(_mm512_add_ps(pairs, _mm512_permute_ps(pairs, 0xb1))));
}
INLINE void sums_of_four(const floats *x, float *to) { /* each in the order of `sum` */
    __m512d pairs[2];
    for (int i = 0; i < 2; i++) {
        __m512 a = (__m512)x[2 * i], b = (__m512)x[2 * i + 1];
        pairs[i] = (__m512d)_mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    }
    __m512d low = _mm512_unpacklo_pd(pairs[0], pairs[1]), high = _mm512_unpackhi_pd(pairs[0], pairs[1]);
    _mm_storeu_ps(to, folded(_mm512_add_ps((__m512)low, (__m512)high)));
}
#elif defined(__AVX2__)
INLINE words words_of_halves(const uint8_t *at) { return (words)_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)at)); }
INLINE words words_of_bytes(const uint8_t *at) { return (words)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)at)); }
INLINE ints ints_of_bytes(const uint8_t *at) { return (ints)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)at)); }
INLINE __m128 folded(__m256 x) { return _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1)); }
INLINE float sum(floats x) {
    __m256 pairs = _mm256_add_ps((__m256)x, _mm256_permute_ps((__m256)x, 0xb1));
    return _mm_cvtss_f32(folded(_mm256_add_ps(pairs, _mm256_permute_ps(pairs, 0x4e))));
}
INLINE void sums_of_four(const floats *x, float *to) { /* each in the order of `sum` */
    __m256 pairs = _mm256_hadd_ps((__m256)x[0], (__m256)x[1]), others = _mm256_hadd_ps((__m256)x[2], (__m256)x[3]);
    _mm_storeu_ps(to, folded(_mm256_hadd_ps(pairs, others)));
}
#else
INLINE words words_of_halves(const uint8_t *at) {
    uint16_t x[LANES];
    memcpy(x, at, sizeof(x));
    return (words){x[0], x[1], x[2], x[3]};
}
INLINE words words_of_bytes(const uint8_t *at) { return (words){at[0], at[1], at[2], at[3]}; }
INLINE ints ints_of_bytes(const uint8_t *at) { return ((ints)words_of_bytes(at) ^ 128) - 128; }
INLINE float sum(floats x) { return (x[0] + x[2]) + (x[1] + x[3]); }
INLINE void sums_of_four(const floats *x, float *to) {
    for (int i = 0; i < 4; i++) to[i] = sum(x[i]);
}
#endif

/* e^x = 2^n 2^f with |f| <= 1/2, within 1e-7 of it. Unlike the library's, it vectorizes in a loop. */
static inline float exponential(float x) {
    x = x < -87 ? -87 : x > 88 ? 88 : x;
    float y = x * 1.44269504f, n = floorf(y + 0.5f), f = (y - n) * 0.693147181f;
    float series = 1 + f * (1 + f * (1 / 2.f + f * (1 / 6.f + f * (1 / 24.f + f * (1 / 120.f + f / 720)))));
    int32_t bits = ((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return power * series;
}

/* y = W x + b, W: (out, in), of a kind from above; b may be NULL. With an adapter:
   y = W x + b + B (A x), where A is `down` and B is `up`, both of the cache's type. */
typedef struct Matrix {
    const void *weight;
    const float *bias;
    int64_t out, in, kind;
    const struct Matrix *down, *up;
} Matrix;

typedef struct { /* norms of heads may be NULL; a window of 0 is none */
    Matrix q, k, v, o, gate, up, down;
    const float *norm1, *norm2, *q_norm, *k_norm;
    number *keys, *values; /* (rows, kv_heads, slots, head_dim) */
    int64_t window;
} Layer;

typedef struct {
    int64_t width, inner, heads, kv_heads, head_dim, slots, layers;
    double eps;
    const float *norm, *turns; /* turns: (slots, 2, head_dim), cosines and sines */
} Model;

/* This thread's part of `count` outputs. It begins at a multiple of four, because four outputs are
   summed in another order than one: thus no sum depends on the number of threads. */
typedef struct { int64_t first, last; } Part;

static Part part(int64_t count) {
    int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads(), fours = (count + 3) / 4;
    int64_t first = 4 * (fours * thread / threads), last = 4 * (fours * (thread + 1) / threads);
    return (Part){first < count ? first : count, last < count ? last : count};
}

/* A row of W is read in chunks of this many numbers: a block of GGUF, or as many plain numbers.

   Q8_0 is a float16 scale d and 32 numbers q, Q4_0 d and 32 nibbles, Q4_1 d, a float16 minimum m
   and the nibbles; byte i holds numbers i and i + 16. The values are d q, d (q - 8) and d q + m. */
#define CHUNK 32
#define STEPS (CHUNK / LANES)
static const int64_t CHUNK_BYTES[] = {128, 64, 34, 18, 20};

INLINE float half(const uint8_t *at) { /* float16 */
    uint16_t x;
    memcpy(&x, at, 2);
#ifdef __F16C__
    return _cvtsh_ss(x);
#else
    uint32_t exponent = x >> 10 & 31, fraction = x & 1023, bits;
    float value = fraction * 0x1p-24f;
    if (exponent) {
        bits = (exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13;
        memcpy(&value, &bits, 4);
    }
    return x >> 15 ? -value : value;
#endif
}

INLINE void read_chunk(int kind, const uint8_t *w, floats *numbers) {
    float scale = kind >= Q8_0_KIND ? half(w) : 1;
    float least = kind == Q4_1_KIND ? half(w + 2) : kind == Q4_0_KIND ? -8 * scale : 0;
    const uint8_t *quants = w + (kind == Q4_1_KIND ? 4 : 2);
#pragma GCC unroll 8
    for (int s = 0; s < STEPS; s++) {
        if (kind == FLOAT32_KIND)
            memcpy(numbers + s, w + s * sizeof(floats), sizeof(floats));
        else if (kind == BFLOAT16_KIND)
            numbers[s] = (floats)(words_of_halves(w + 2 * s * LANES) << 16);
        else if (kind == Q8_0_KIND)
            numbers[s] = __builtin_convertvector(ints_of_bytes(quants + s * LANES), floats) * scale;
        else {
            words nibbles = words_of_bytes(quants + s % (STEPS / 2) * LANES);
            nibbles = s < STEPS / 2 ? nibbles & 15 : nibbles >> 4;
            numbers[s] = __builtin_convertvector((ints)nibbles, floats) * scale + least;
        }
    }
}

typedef struct { /* the bytes of rows of W; `stride` is the number of bytes per row */
    const uint8_t *at;
    int64_t in, stride;
} Rows;

/* With one row of x the product waits for memory only, and the processor prefetches too little of
   bfloat16: a chunk, which is a cache line, is prefetched this many bytes ahead (SmolLM2: 1.4 times
   as fast; half the distance 1.3 times, four times the distance the same). */
#define AHEAD 2048
#define LINE 64

/* Dot products of some rows of W with up to four rows of x, which share the reads of W. The result
   of an output for a row of x is in sums[4 output + row]. */
INLINE void dots(int kind, Rows w, int outputs, const float *x, int rows, float *sums) {
    /* A single output has two accumulators for each row, which do not wait for each other. */
    int parts = outputs == 1 ? 2 : 1;
    floats partial[4][4][2] = {0};
    int64_t i = 0, in = w.in, at = 0;
    for (; i + CHUNK <= in; i += CHUNK, at += CHUNK_BYTES[kind]) {
        floats numbers[4][STEPS], some;
        if (rows == 1 && kind == BFLOAT16_KIND) __builtin_prefetch(w.at + at + AHEAD);
#pragma GCC unroll 4
        for (int o = 0; o < outputs; o++) read_chunk(kind, w.at + o * w.stride + at, numbers[o]);
#pragma GCC unroll 8
        for (int s = 0; s < STEPS; s++)
#pragma GCC unroll 4
            for (int row = 0; row < rows; row++) {
                memcpy(&some, x + row * in + i + s * LANES, sizeof(some));
#pragma GCC unroll 4
                for (int o = 0; o < outputs; o++) partial[o][row][s % parts] += numbers[o][s] * some;
            }
    }
#pragma GCC unroll 4
    for (int o = 0; o < outputs; o++) {
        const uint8_t *rest = w.at + o * w.stride + at;
        floats totals[4] = {0};
#pragma GCC unroll 4
        for (int row = 0; row < rows; row++) totals[row] = partial[o][row][0] + partial[o][row][1];
        if (rows > 2) sums_of_four(totals, sums + 4 * o);
        else for (int row = 0; row < rows; row++) sums[4 * o + row] = sum(totals[row]);
        for (int64_t j = i; j < in && kind < Q8_0_KIND; j++) { /* blocks are always whole */
            float one = kind == FLOAT32_KIND ? ((const float *)rest)[j - i]
                                             : wide_bfloat16(((const uint16_t *)rest)[j - i]);
            for (int row = 0; row < rows; row++) sums[4 * o + row] += one * x[row * in + j];
        }
    }
}

/* With few rows of x the limit is memory, and the processor prefetches best when rows are read one
   after the other. With more the limit is arithmetic, and what is read of x serves four outputs. */
INLINE void product_of(int kind, const Matrix *m, Part mine, int64_t rows, const float *x, float *y,
                       int64_t step, int add) {
    int64_t in = m->in, stride = in / CHUNK * CHUNK_BYTES[kind] + in % CHUNK * CHUNK_BYTES[kind] / CHUNK;
    int64_t outputs = 1;
    for (int64_t o = mine.first; o < mine.last; o += outputs) {
        Rows w = {(const uint8_t *)m->weight + o * stride, in, stride};
        outputs = rows >= 4 && o + 4 <= mine.last ? 4 : 1;
        for (int64_t row = 0; row < rows; row += 4) {
            const float *some = x + row * in;
            float sums[16];
            int64_t few = rows - row < 4 ? rows - row : 4;
            if (outputs == 4 && few == 4) dots(kind, w, 4, some, 4, sums);
            else for (int64_t i = 0; i < outputs; i++) {
                Rows one = {w.at + i * stride, in, stride};
                if (few == 4) dots(kind, one, 1, some, 4, sums + 4 * i);
                else if (few == 3) dots(kind, one, 1, some, 3, sums + 4 * i);
                else if (few == 2) dots(kind, one, 1, some, 2, sums + 4 * i);
                else dots(kind, one, 1, some, 1, sums + 4 * i);
            }
            for (int64_t r = 0; r < few; r++)
                for (int64_t i = 0; i < outputs; i++) {
                    float *to = y + (row + r) * step + o + i;
                    *to = sums[4 * i + r] + (m->bias ? m->bias[o + i] : 0) + (add ? *to : 0);
                }
        }
    }
}

/* y = W x + b for this thread's outputs, or y += W x + b; a row of y begins every `step` numbers. */
static Part product(const Matrix *m, int64_t rows, const float *x, float *y, int64_t step, int add) {
    Part mine = part(m->out);
    switch (m->kind) {
    case FLOAT32_KIND: product_of(FLOAT32_KIND, m, mine, rows, x, y, step, add); break;
    case BFLOAT16_KIND: product_of(BFLOAT16_KIND, m, mine, rows, x, y, step, add); break;
    case Q8_0_KIND: product_of(Q8_0_KIND, m, mine, rows, x, y, step, add); break;
    case Q4_0_KIND: product_of(Q4_0_KIND, m, mine, rows, x, y, step, add); break;
    case Q4_1_KIND: product_of(Q4_1_KIND, m, mine, rows, x, y, step, add); break;
    }
    if (m->down) { /* A x is so small that every thread computes it itself */
        int64_t rank = m->up->in;
        float thin[rows * rank];
        memset(thin, 0, sizeof(thin)); /* B has whole chunks of inputs; A may have fewer outputs */
        product_of(NUMBER_KIND, m->down, (Part){0, m->down->out}, rows, x, thin, rank, 0);
        product_of(NUMBER_KIND, m->up, mine, rows, thin, y, step, 1);
    }
    return mine;
}

/* y = x / rms(x) * weight, for each of `rows`. */
static void rms_norm(const float *x, int64_t rows, int64_t width, const float *weight, double eps, float *y) {
    for (int64_t row = 0; row < rows; row++, x += width, y += width) {
        float squares = 0;
#pragma omp simd reduction(+ : squares)
        for (int64_t i = 0; i < width; i++) squares += x[i] * x[i];
        float scale = 1 / sqrtf(squares / width + (float)eps);
        for (int64_t i = 0; i < width; i++) y[i] = x[i] * scale * weight[i];
    }
}

/* Rotate the pairs (i, i + d/2) of a head: (a, b) -> (a, b) cos + (-b, a) sin. */
static void rotate(float *x, int64_t head_dim, const float *turns) {
    int64_t half = head_dim / 2;
    const float *cos = turns, *sin = turns + head_dim;
    for (int64_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = a * cos[i] - b * sin[i];
        x[i + half] = b * cos[i + half] + a * sin[i + half];
    }
}

/* softmax(q K^T / sqrt(d)) V over the slots from `first` to `last`, inclusive, for up to four
   queries, which share the reads of keys and values. Each query has `slots` weights. The cache of
   many rows does not fit the processor's caches: keys are prefetched, and values in the meantime (64
   rows of 10 M parameters: two thirds of the time). */
INLINE void attend(int queries, const float *q, const number *keys, const number *values, int64_t first,
                   int64_t last, int64_t head_dim, int64_t slots, float *weights, float *y) {
    float sums[4], inverse[4], scale = 1 / sqrtf(head_dim);
    int64_t t, i = 0;
    for (t = first; t <= last; t++) {
        Rows key = {(const uint8_t *)(keys + t * head_dim), head_dim, 0};
        for (int64_t at = 0; at < (int64_t)sizeof(number) * head_dim; at += LINE) {
            __builtin_prefetch(key.at + at + AHEAD);
            __builtin_prefetch((const uint8_t *)(values + t * head_dim) + at);
        }
        dots(NUMBER_KIND, key, 1, q, queries, sums);
#pragma GCC unroll 4
        for (int one = 0; one < queries; one++) weights[one * slots + t] = sums[one] * scale;
    }
    for (int one = 0; one < queries; one++) {
        float *mine = weights + one * slots, most = -INFINITY, total = 0;
#pragma omp simd reduction(max : most)
        for (t = first; t <= last; t++) most = mine[t] > most ? mine[t] : most;
#pragma omp simd reduction(+ : total)
        for (t = first; t <= last; t++) total += mine[t] = exponential(mine[t] - most);
        inverse[one] = 1 / total;
    }
    for (; i + CHUNK <= head_dim; i += CHUNK) {
        floats partial[4][STEPS] = {0}, numbers[STEPS];
        for (t = first; t <= last; t++) {
            read_chunk(NUMBER_KIND, (const uint8_t *)(values + t * head_dim + i), numbers);
#pragma GCC unroll 4
            for (int one = 0; one < queries; one++)
#pragma GCC unroll 8
                for (int s = 0; s < STEPS; s++) partial[one][s] += weights[one * slots + t] * numbers[s];
        }
#pragma GCC unroll 4
        for (int one = 0; one < queries; one++)
#pragma GCC unroll 8
            for (int s = 0; s < STEPS; s++) {
                floats some = partial[one][s] * inverse[one];
                memcpy(y + one * head_dim + i + s * LANES, &some, sizeof(some));
            }
    }
    for (; i < head_dim; i++)
        for (int one = 0; one < queries; one++) {
            float total = 0;
            for (t = first; t <= last; t++) total += weights[one * slots + t] * wide(values[t * head_dim + i]);
            y[one * head_dim + i] = total * inverse[one];
        }
}

/* Queries, keys and values of every row, (rows, heads + 2 kv_heads, head_dim): normalize and rotate
   them, store the new keys and values, and attend. All threads call this; each has its own
   `weights`, for four queries. */
static void attention(const Model *m, const Layer *layer, int64_t rows, const int64_t *positions,
                      float *heads, float *mixed, float *weights) {
    int64_t d = m->head_dim, queries = m->heads, all = queries + 2 * m->kv_heads, group = queries / m->kv_heads;
#pragma omp for
    for (int64_t unit = 0; unit < rows * all; unit++) {
        int64_t row = unit / all, head = unit % all - queries, position = positions[row];
        float *x = heads + unit * d;
        const float *norm = head < 0 ? layer->q_norm : layer->k_norm;
        if (head < m->kv_heads) {
            if (norm) rms_norm(x, 1, d, norm, m->eps, x);
            rotate(x, d, m->turns + 2 * d * position);
        }
        if (head < 0) continue;
        int64_t line = row * m->kv_heads + head % m->kv_heads;
        number *to = (head < m->kv_heads ? layer->keys : layer->values) + (line * m->slots + position) * d;
        for (int64_t i = 0; i < d; i++) to[i] = narrow(x[i]);
    }
#pragma omp for
    for (int64_t line = 0; line < rows * m->kv_heads; line++) {
        int64_t row = line / m->kv_heads, head = line % m->kv_heads * group, last = positions[row];
        int64_t first = layer->window && last >= layer->window ? last - layer->window + 1 : 0;
        const number *keys = layer->keys + line * m->slots * d, *values = layer->values + line * m->slots * d;
        for (int64_t i = head; i < head + group; i += 4) {
            const float *q = heads + (row * all + i) * d;
            float *y = mixed + (row * queries + i) * d;
            switch (head + group - i) {
            case 1: attend(1, q, keys, values, first, last, d, m->slots, weights, y); break;
            case 2: attend(2, q, keys, values, first, last, d, m->slots, weights, y); break;
            case 3: attend(3, q, keys, values, first, last, d, m->slots, weights, y); break;
            default: attend(4, q, keys, values, first, last, d, m->slots, weights, y);
            }
        }
    }
}

/* In a step of many rows PyTorch computes the products; this is what lies between them. */

/* One layer's attention: x (rows, heads + 2 kv_heads, head_dim) to y (rows, heads, head_dim).
   `scratch` holds as many numbers as both, and 4 `slots` for each thread. */
void attention_step(const Model *m, const Layer *layers, int64_t layer, int64_t rows,
                    const int64_t *positions, const number *x, number *y, float *scratch, int threads) {
    int64_t inputs = rows * (m->heads + 2 * m->kv_heads) * m->head_dim, outputs = rows * m->heads * m->head_dim;
    float *mixed = scratch + inputs, *weights = mixed + outputs;
#pragma omp parallel num_threads(threads)
    {
#pragma omp for simd
        for (int64_t i = 0; i < inputs; i++) scratch[i] = wide(x[i]);
        attention(m, layers + layer, rows, positions, scratch, mixed, weights + omp_get_thread_num() * 4 * m->slots);
#pragma omp for simd
        for (int64_t i = 0; i < outputs; i++) y[i] = narrow(mixed[i]);
    }
}

/* h += added, and y = h / rms(h) * weight; `added` may be NULL. */
void add_norm(float *h, const number *added, int64_t rows, int64_t width, const float *weight,
              double eps, number *y, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t row = 0; row < rows; row++) {
        float *x = h + row * width, normed[width];
        if (added)
#pragma omp simd
            for (int64_t i = 0; i < width; i++) x[i] += wide(added[row * width + i]);
        rms_norm(x, 1, width, weight, eps, normed);
#pragma omp simd
        for (int64_t i = 0; i < width; i++) y[row * width + i] = narrow(normed[i]);
    }
}

/* y = silu(gate) up, which are concatenated in x: (rows, 2 inner). */
void gated(const number *x, int64_t rows, int64_t inner, number *y, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t row = 0; row < rows; row++) {
        const number *gate = x + 2 * row * inner, *up = gate + inner;
        number *to = y + row * inner;
#pragma omp simd
        for (int64_t i = 0; i < inner; i++) {
            float g = wide(gate[i]);
            to[i] = narrow(g * wide(up[i]) / (1 + exponential(-g)));
        }
    }
}

/* h (rows, width): on entry the embeddings, on exit the states that the head reads. `scratch` holds
   rows * (2 (heads + kv_heads) * head_dim + 2 inner) numbers, and for each thread
   rows * width + 4 slots. */
void decode(const Model *m, const Layer *layers, int64_t rows, const int64_t *positions, float *h,
            float *scratch, int threads) {
    int64_t d = m->head_dim, queries = m->heads, all = queries + 2 * m->kv_heads;
    float *heads = scratch, *mixed = heads + rows * all * d;
    float *gate = mixed + rows * queries * d, *up = gate + rows * m->inner, *own = up + rows * m->inner;
#pragma omp parallel num_threads(threads)
    {
        float *x = own + omp_get_thread_num() * (rows * m->width + 4 * m->slots), *weights = x + rows * m->width;
        for (const Layer *layer = layers; layer < layers + m->layers; layer++) {
            rms_norm(h, rows, m->width, layer->norm1, m->eps, x);
            product(&layer->q, rows, x, heads, all * d, 0);
            product(&layer->k, rows, x, heads + queries * d, all * d, 0);
            product(&layer->v, rows, x, heads + (queries + m->kv_heads) * d, all * d, 0);
#pragma omp barrier
            attention(m, layer, rows, positions, heads, mixed, weights);
            product(&layer->o, rows, mixed, h, m->width, 1);
#pragma omp barrier
            rms_norm(h, rows, m->width, layer->norm2, m->eps, x);
            product(&layer->gate, rows, x, gate, m->inner, 0);
            Part mine = product(&layer->up, rows, x, up, m->inner, 0);
            for (int64_t row = 0; row < rows; row++)
#pragma omp simd
                for (int64_t i = row * m->inner + mine.first; i < row * m->inner + mine.last; i++)
                    gate[i] *= up[i] / (1 + exponential(-gate[i]));
#pragma omp barrier
            product(&layer->down, rows, gate, h, m->width, 1);
#pragma omp barrier
        }
#pragma omp single
        rms_norm(h, rows, m->width, m->norm, m->eps, h);
    }
}

/* y (rows, out) = W x + b. */
void linear(const Matrix *m, int64_t rows, const float *x, float *y, int threads) {
#pragma omp parallel num_threads(threads)
    product(m, rows, x, y, m->out, 0);
}

/* W dequantized, for products with many rows. */
INLINE void numbers_of(int kind, const Matrix *m, Part mine, number *to) {
    int64_t chunks = m->in / CHUNK;
    for (int64_t i = mine.first * chunks; i < mine.last * chunks; i++) {
        floats some[STEPS];
        float plain[CHUNK];
        read_chunk(kind, (const uint8_t *)m->weight + i * CHUNK_BYTES[kind], some);
        memcpy(plain, some, sizeof(some));
#pragma omp simd
        for (int j = 0; j < CHUNK; j++) to[i * CHUNK + j] = narrow(plain[j]);
    }
}

void dequantize(const Matrix *m, number *to, int threads) {
#pragma omp parallel num_threads(threads)
    {
        Part mine = part(m->out);
        if (m->kind == Q8_0_KIND) numbers_of(Q8_0_KIND, m, mine, to);
        else if (m->kind == Q4_0_KIND) numbers_of(Q4_0_KIND, m, mine, to);
        else numbers_of(Q4_1_KIND, m, mine, to);
    }
}
