/* One token of one or a few rows through a whole transformer, and a product with a matrix.

   A step of decoding reads every weight once and computes next to nothing with it. Here all of it is
   one call, in which threads part the outputs of every matrix among themselves; `decode.py` has the
   same step in the words of PyTorch. Weights and cache are of one type, float32 or bfloat16; all
   that is computed is float32. */

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>

#ifdef BFLOAT16
typedef uint16_t number; /* the upper half of a float32 */

static inline float wide(number x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static inline number narrow(float value) { /* to the nearest, ties to even */
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (value != value) return 0x7fc0;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
#else
typedef float number;
static inline float wide(number x) { return x; }
static inline number narrow(float x) { return x; }
#endif

/* e^x = 2^n 2^f with |f| <= 1/2, within 1e-7 of it: a loop over many runs in vectors, which one of
   the library's does not. */
static inline float exponential(float x) {
    x = x < -87 ? -87 : x > 88 ? 88 : x;
    float y = x * 1.44269504f, n = floorf(y + 0.5f), f = (y - n) * 0.693147181f;
    float series = 1 + f * (1 + f * (1 / 2.f + f * (1 / 6.f + f * (1 / 24.f + f * (1 / 120.f + f / 720)))));
    int32_t bits = ((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return power * series;
}

typedef struct { /* y = W x + b; W: (out, in); b may be missing */
    const number *weight;
    const float *bias;
    int64_t out, in;
} Matrix;

typedef struct { /* norms of heads may be missing; a window of 0 is none */
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

/* The part of `count` outputs that is this thread's. */
typedef struct { int64_t first, last; } Part;

static Part part(int64_t count) {
    int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
    return (Part){count * thread / threads, count * (thread + 1) / threads};
}

/* Four rows of W at once, so that sums do not wait for each other, nor x for memory. */
static void dot4(const number *w, int64_t in, const float *x, float *sums) {
    float a = 0, b = 0, c = 0, d = 0;
#pragma omp simd reduction(+ : a, b, c, d)
    for (int64_t i = 0; i < in; i++) {
        a += wide(w[i]) * x[i];
        b += wide(w[i + in]) * x[i];
        c += wide(w[i + 2 * in]) * x[i];
        d += wide(w[i + 3 * in]) * x[i];
    }
    sums[0] = a, sums[1] = b, sums[2] = c, sums[3] = d;
}

static float dot(const number *w, int64_t in, const float *x) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < in; i++) sum += wide(w[i]) * x[i];
    return sum;
}

/* y = W x + b for this thread's outputs, or y += W x + b; a row of y begins every `step` numbers. */
static Part product(const Matrix *m, int64_t rows, const float *x, float *y, int64_t step, int add) {
    Part mine = part(m->out);
    for (int64_t o = mine.first; o < mine.last; o += 4) {
        int64_t few = mine.last - o < 4 ? mine.last - o : 4;
        for (int64_t row = 0; row < rows; row++) {
            const number *w = m->weight + o * m->in;
            float sums[4], *to = y + row * step + o;
            if (few == 4) dot4(w, m->in, x + row * m->in, sums);
            else for (int64_t i = 0; i < few; i++) sums[i] = dot(w + i * m->in, m->in, x + row * m->in);
            for (int64_t i = 0; i < few; i++)
                to[i] = sums[i] + (m->bias ? m->bias[o + i] : 0) + (add ? to[i] : 0);
        }
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

/* Turn the pairs (i, i + d/2) of a head: (a, b) -> (a, b) cos + (-b, a) sin. */
static void rotate(float *x, int64_t head_dim, const float *turns) {
    int64_t half = head_dim / 2;
    const float *cos = turns, *sin = turns + head_dim;
    for (int64_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = a * cos[i] - b * sin[i];
        x[i + half] = b * cos[i + half] + a * sin[i + half];
    }
}

/* softmax(q K^T / sqrt(d)) V over the slots from `first` to `last`, the last one included. */
static void attend(const float *q, const number *keys, const number *values, int64_t first,
                   int64_t last, int64_t head_dim, float *weights, float *y) {
    float most = -INFINITY, total = 0, scale = 1 / sqrtf(head_dim);
    int64_t t = first;
    for (; t + 3 <= last; t += 4) dot4(keys + t * head_dim, head_dim, q, weights + t);
    for (; t <= last; t++) weights[t] = dot(keys + t * head_dim, head_dim, q);
    for (t = first; t <= last; t++) {
        weights[t] *= scale;
        most = weights[t] > most ? weights[t] : most;
    }
#pragma omp simd reduction(+ : total)
    for (t = first; t <= last; t++) total += weights[t] = exponential(weights[t] - most);
    memset(y, 0, head_dim * sizeof(float));
    for (t = first; t <= last; t++) {
        float weight = weights[t] / total;
#pragma omp simd
        for (int64_t i = 0; i < head_dim; i++) y[i] += weight * wide(values[t * head_dim + i]);
    }
}

/* Queries, keys and values of every row, (rows, heads + 2 kv_heads, head_dim): norm and rotate them,
   store the new keys and values, and attend. All threads come here; `weights` is each one's own. */
static void attention(const Model *m, const Layer *layer, int64_t rows, const int64_t *positions,
                      float *heads, float *mixed, float *weights) {
    int64_t d = m->head_dim, queries = m->heads, all = queries + 2 * m->kv_heads;
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
    for (int64_t unit = 0; unit < rows * queries; unit++) {
        int64_t row = unit / queries, head = unit % queries, last = positions[row];
        int64_t line = row * m->kv_heads + head / (queries / m->kv_heads);
        int64_t first = layer->window && last >= layer->window ? last - layer->window + 1 : 0;
        attend(heads + (row * all + head) * d, layer->keys + line * m->slots * d,
               layer->values + line * m->slots * d, first, last, d, weights, mixed + unit * d);
    }
}

/* One layer's attention by itself, for many rows; `scratch` holds `slots` numbers for each thread. */
void attention_step(const Model *m, const Layer *layers, int64_t layer, int64_t rows,
                    const int64_t *positions, float *heads, float *mixed, float *scratch, int threads) {
#pragma omp parallel num_threads(threads)
    attention(m, layers + layer, rows, positions, heads, mixed, scratch + omp_get_thread_num() * m->slots);
}

/* h (rows, width): embeddings, and afterwards the states that the head reads. `scratch` holds
   rows * (2 (heads + kv_heads) * head_dim + 2 inner) numbers, and for each thread
   rows * width + slots. */
void decode(const Model *m, const Layer *layers, int64_t rows, const int64_t *positions, float *h,
            float *scratch, int threads) {
    int64_t d = m->head_dim, queries = m->heads, all = queries + 2 * m->kv_heads;
    float *heads = scratch, *mixed = heads + rows * all * d;
    float *gate = mixed + rows * queries * d, *up = gate + rows * m->inner, *own = up + rows * m->inner;
#pragma omp parallel num_threads(threads)
    {
        float *x = own + omp_get_thread_num() * (rows * m->width + m->slots), *weights = x + rows * m->width;
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
