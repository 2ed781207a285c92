/* Attention, forward and backward; scores never leave the processor's cache (Dao et al. 2022).

       S = Q K^T / sqrt(d)    P = softmax(S)    O = P V    L_i = log sum_j e^S_ij

   With an upstream gradient dO and D_i = sum over features of dO_i O_i:

       dV = P^T dO    dP = dO V^T    dS = P (dP - D)    dQ = dS K / sqrt(d)    dK = dS^T Q / sqrt(d)

   and P = e^(S - L) is recomputed. Query i sees the keys from first[i] to i, which are those of its
   document and window. Blocks have 32 queries and 32 keys, and fully masked blocks are skipped. A unit
   of work is a row and a key head with the query heads that share it; no sum depends on the number of
   threads. */
#include "tiles.h"

enum { BLOCK = 32 };

typedef struct {
    int64_t rows, heads, kv_heads, time, size; /* size: features of a head, a multiple of 32 */
    const int32_t *first;                      /* (rows, time), nondecreasing within a row */
} Shape;

typedef struct { /* (rows, heads, time, size) with contiguous features */
    number *at;
    int64_t row, head, time;
} Heads;

INLINE Rows of_head(Heads x, int64_t row, int64_t head, int64_t time) {
    return (Rows){x.at + row * x.row + head * x.head, x.time, time};
}

/* The tiles of K^T for products over features, in shape (blocks of 16 keys, size / 32). */
static void keys_by_features(number *to, Rows x, int64_t blocks, int64_t size) {
    for (int64_t b = 0; b < 2 * blocks; b++)
        for (int64_t s = 0; s < size; s += 32, to += TILE) right_by_columns(to, x, 16 * b, s);
}

/* The tiles for products over keys or queries, in shape (blocks of 32, size / 16). */
static void by_tokens(number *to, Rows x, int64_t blocks, int64_t size, int left) {
    for (int64_t b = 0; b < blocks; b++)
        for (int64_t n = 0; n < size; n += 32, to += 2 * TILE)
            if (left) left_by_rows(to, to + TILE, x, 32 * b, n);
            else right_by_rows(to, to + TILE, x, 32 * b, n);
}

static void copy_rows(number *to, Rows x, int64_t count, int64_t size) {
    for (int64_t i = 0; i < count; i++)
        for (int64_t j = 0; j < size; j += 32)
            memcpy(to + i * size + j, row_of(x, i, j), 32 * sizeof(number));
}

/* Q K^T of 32 queries and 32 keys, from rows of Q and tiles of K^T. */
INLINE void scores(float *to, int64_t row, const number *q, const number *keys, int64_t size) {
    int64_t steps = size / 32;
    product(to, row, (Left){q, size, 16 * size, 32}, (Right){keys, steps * TILE, TILE}, steps, 0);
}

/* The unnormalized softmax of a query's scores over keys from `from` to `to`, and its sum; returns the
   largest score. */
INLINE float softmax(float *scores, number *weights, int64_t from, int64_t to, int64_t first,
                     int64_t last, float scale, float *sum) {
    floats most = all(-INFINITY), sums = all(0);
    for (int64_t j = from; j < to; j += LANES) {
        floats s = mul(load(scores + j), all(scale));
        s = choose(between(j, first, last), s, all(-INFINITY));
        store(scores + j, s);
        most = larger(most, s);
    }
    float m = largest_of(most);
    for (int64_t j = from; j < to; j += LANES) {
        floats power = exponential(sub(load(scores + j), all(m)));
        sums = add(sums, power);
        narrow(weights + j, power);
    }
    *sum = sum_of(sums);
    return m;
}

/* Bytes of scratch for each thread. */
int64_t attention_scratch(int64_t time, int64_t size, int backward) {
    int64_t padded = (time + 31) / 32 * 32, each = sizeof(number);
    if (!backward)
        return each * (2 * padded * size + BLOCK * size + BLOCK * padded) + 4 * BLOCK * (padded + size);
    return each * (7 * padded * size + padded * padded + 2 * BLOCK * padded) +
           4 * (2 * padded * size + 2 * BLOCK * BLOCK + BLOCK * size + padded);
}

void attention(Heads q, Heads k, Heads v, Shape shape, Heads out, float *log_sums, uint8_t *scratch,
               int threads) {
    int64_t time = shape.time, size = shape.size, blocks = (time + 31) / 32, padded = 32 * blocks;
    int64_t group = shape.heads / shape.kv_heads, of_keys = 2 * (size / 32) * TILE, of_values = size / 16 * TILE;
    float scale = 1 / sqrtf(size);
#pragma omp parallel num_threads(threads)
    {
        TileConfig before = begin_tiles();
        float *s = (float *)(scratch + omp_get_thread_num() * attention_scratch(time, size, 0));
        float *o = s + BLOCK * padded, sums[BLOCK], most[BLOCK];
        number *keys = (number *)(o + BLOCK * size), *values = keys + padded * size;
        number *queries = values + padded * size, *weights = queries + BLOCK * size;
#pragma omp for schedule(dynamic)
        for (int64_t unit = 0; unit < shape.rows * shape.kv_heads; unit++) {
            int64_t row = unit / shape.kv_heads, kv_head = unit % shape.kv_heads;
            const int32_t *first = shape.first + row * time;
            keys_by_features(keys, of_head(k, row, kv_head, time), blocks, size);
            by_tokens(values, of_head(v, row, kv_head, time), blocks, size, 0);
            for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++) {
                Rows all_queries = of_head(q, row, head, time), to = of_head(out, row, head, time);
                for (int64_t block = 0; block < blocks; block++) {
                    int64_t start = 32 * block, end = start + 32 < time ? start + 32 : time;
                    int64_t oldest = first[start] / 32;
                    Rows some = {all_queries.at + start * all_queries.row, all_queries.row, end - start};
                    copy_rows(queries, some, BLOCK, size);
                    for (int64_t b = oldest; b <= block; b++)
                        scores(s + 32 * b, padded, queries, keys + b * of_keys, size);
                    for (int64_t i = start; i < end; i++)
                        most[i - start] = softmax(
                            s + (i - start) * padded, weights + (i - start) * padded, 32 * oldest,
                            start + 32, first[i], i, scale, sums + i - start);
                    for (int64_t i = end; i < start + 32; i++)
                        memset(weights + (i - start) * padded + 32 * oldest, 0, sizeof(number) * (start + 32 - 32 * oldest));
                    for (int64_t n = 0; n < size; n += 32)
                        product(o + n, size, (Left){weights + 32 * oldest, padded, 16 * padded, 32},
                                (Right){values + oldest * of_values + n / 16 * TILE, TILE, of_values},
                                block - oldest + 1, 0);
                    for (int64_t i = start; i < end; i++) {
                        floats share = all(1 / sums[i - start]);
                        for (int64_t j = 0; j < size; j += LANES) {
                            floats mixed = load(o + (i - start) * size + j);
                            narrow((number *)to.at + i * to.row + j, mul(mixed, share));
                        }
                    }
                    float *logs = log_sums + (row * shape.heads + head) * time;
                    for (int64_t i = start; i < end; i++) logs[i] = most[i - start] + logf(sums[i - start]);
                }
            }
        }
        end_tiles(before);
    }
}

/* P and dS of 32 queries and 32 keys, as right factors of sums over queries, and dS also in rows. With
   `whole`, every query sees all of the keys and no mask is applied. */
INLINE void probabilities(int whole, const float *s, const float *dp, const float *log_sums, const float *dots,
                          const int32_t *first, int64_t query, int64_t key, int64_t count,
                          float scale, number *p_tiles, number *ds_tiles, number *ds_rows, int64_t row) {
    for (int pair = 0; pair < 16; pair++)
        for (int n = 0; n < 32; n += LANES) {
            numbers ps[2], dss[2];
            for (int e = 0; e < 2; e++) {
                int i = 2 * pair + e;
                ps[e] = dss[e] = no_numbers();
                if (whole || i < count) {
                    floats score = load(s + 32 * i + n), slope = load(dp + 32 * i + n);
                    floats p = exponential(fmsub(score, all(scale), all(log_sums[i])));
                    if (!whole) p = keep(between(key + n, first[i], query + i), p);
                    floats ds = mul(mul(p, all(scale)), sub(slope, all(dots[i])));
                    ps[e] = narrowed(p);
                    dss[e] = narrowed(ds);
                }
                write(ds_rows + i * row + n, dss[e]);
            }
            write_pair(p_tiles, pair, n, ps[0], ps[1]);
            write_pair(ds_tiles, pair, n, dss[0], dss[1]);
        }
}

/* Write a float32 array (size, padded) as rows of tokens. */
static void write_transposed(Rows to, const float *from, int64_t padded, int64_t size) {
    for (int64_t token = 0; token < to.count; token += LANES)
        for (int64_t n = 0; n < size; n += LANES) {
            floats tile[LANES];
            for (int i = 0; i < LANES; i++) tile[i] = load(from + (n + i) * padded + token);
            transpose(tile);
            for (int i = 0; i < LANES && token + i < to.count; i++)
                narrow((number *)to.at + (token + i) * to.row + n, tile[i]);
        }
}

void attention_backward(Heads dout, Heads out, const float *log_sums, Heads q, Heads k, Heads v,
                        Shape shape, Heads dq, Heads dk, Heads dv, uint8_t *scratch, int threads) {
    int64_t time = shape.time, size = shape.size, blocks = (time + 31) / 32, padded = 32 * blocks;
    int64_t group = shape.heads / shape.kv_heads, of_keys = 2 * (size / 32) * TILE, of_tokens = size / 16 * TILE;
    int64_t whole = padded * size;
    float scale = 1 / sqrtf(size);
#pragma omp parallel num_threads(threads)
    {
        TileConfig before = begin_tiles();
        float *dkeys = (float *)(scratch + omp_get_thread_num() * attention_scratch(time, size, 1));
        float *dvalues = dkeys + whole, *s = dvalues + whole, *dp = s + BLOCK * BLOCK;
        float *dquery = dp + BLOCK * BLOCK, *dots = dquery + BLOCK * size;
        number *keys = (number *)(dots + padded), *values = keys + whole, *keys_of_sum = values + whole;
        number *queries = keys_of_sum + whole, *douts = queries + whole;
        number *queries_of_sum = douts + whole, *douts_of_sum = queries_of_sum + whole;
        number *ds_rows = douts_of_sum + whole, *p_tiles = ds_rows + padded * padded;
        number *ds_tiles = p_tiles + BLOCK * padded;
#pragma omp for schedule(dynamic)
        for (int64_t unit = 0; unit < shape.rows * shape.kv_heads; unit++) {
            int64_t row = unit / shape.kv_heads, kv_head = unit % shape.kv_heads;
            const int32_t *first = shape.first + row * time;
            Rows key_rows = of_head(k, row, kv_head, time), value_rows = of_head(v, row, kv_head, time);
            keys_by_features(keys, key_rows, blocks, size);
            keys_by_features(values, value_rows, blocks, size);
            by_tokens(keys_of_sum, key_rows, blocks, size, 0);
            for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++) {
                int adds = head > kv_head * group;
                Rows query_rows = of_head(q, row, head, time), dout_rows = of_head(dout, row, head, time);
                Rows out_rows = of_head(out, row, head, time), dquery_rows = of_head(dq, row, head, time);
                const float *logs = log_sums + (row * shape.heads + head) * time;
                for (int64_t i = 0; i < time; i++) {
                    floats sums = all(0);
                    for (int64_t j = 0; j < size; j += LANES)
                        sums = fmadd(wide(dout_rows.at + i * dout_rows.row + j),
                                     wide(out_rows.at + i * out_rows.row + j), sums);
                    dots[i] = sum_of(sums);
                }
                copy_rows(queries, query_rows, padded, size);
                copy_rows(douts, dout_rows, padded, size);
                by_tokens(queries_of_sum, query_rows, blocks, size, 1);
                by_tokens(douts_of_sum, dout_rows, blocks, size, 1);
                for (int64_t b = 0; b < blocks; b++) {
                    int64_t end = b;
                    for (; end < blocks && first[32 * end] / 32 <= b; end++) {
                        int64_t start = 32 * end, count = time - start < 32 ? time - start : 32;
                        scores(s, BLOCK, queries + start * size, keys + b * of_keys, size);
                        scores(dp, BLOCK, douts + start * size, values + b * of_keys, size);
                        number *ps = p_tiles + end * 2 * TILE, *dss = ds_tiles + end * 2 * TILE;
                        number *to = ds_rows + start * padded + 32 * b;
                        if (end > b && count == 32 && first[start + 31] <= 32 * b)
                            probabilities(1, s, dp, logs + start, dots + start, first + start, start, 32 * b,
                                          32, scale, ps, dss, to, padded);
                        else
                            probabilities(0, s, dp, logs + start, dots + start, first + start, start, 32 * b,
                                          count, scale, ps, dss, to, padded);
                    }
                    Right p = {p_tiles + b * 2 * TILE, TILE, 2 * TILE}, ds = {ds_tiles + b * 2 * TILE, TILE, 2 * TILE};
                    for (int64_t n = 0; n < size; n += 32) {
                        int64_t at = b * of_tokens + n / 16 * TILE, to = n * padded + 32 * b;
                        product(dvalues + to, padded, (Left){douts_of_sum + at, 32, TILE, of_tokens}, p, end - b, adds);
                        product(dkeys + to, padded, (Left){queries_of_sum + at, 32, TILE, of_tokens}, ds, end - b, adds);
                    }
                }
                for (int64_t block = 0; block < blocks; block++) {
                    int64_t start = 32 * block, oldest = first[start] / 32;
                    for (int64_t n = 0; n < size; n += 32)
                        product(dquery + n, size, (Left){ds_rows + start * padded + 32 * oldest, padded, 16 * padded, 32},
                                (Right){keys_of_sum + oldest * of_tokens + n / 16 * TILE, TILE, of_tokens},
                                block - oldest + 1, 0);
                    for (int64_t i = start; i < time && i < start + 32; i++)
                        for (int64_t j = 0; j < size; j += LANES)
                            narrow((number *)dquery_rows.at + i * dquery_rows.row + j,
                                   load(dquery + (i - start) * size + j));
                }
            }
            write_transposed(of_head(dk, row, kv_head, time), dkeys, padded, size);
            write_transposed(of_head(dv, row, kv_head, time), dvalues, padded, size);
        }
        end_tiles(before);
    }
}
