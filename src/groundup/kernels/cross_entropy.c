/* Next-token cross-entropy of rows of logits, which are overwritten by its gradient.

       loss = w (log sum_j e^(x_j - m) + m - x_t)        m = max x, t the target, w its weight
       dx   = w (softmax(x) - onehot(t)) */
#include "vectors.h"

/* `scratch` holds `vocabulary` numbers for each thread. */
void cross_entropy(number *logits, const int64_t *targets, const float *weights, int64_t rows,
                   int64_t vocabulary, float *losses, float *scratch, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t row = 0; row < rows; row++) {
        number *x = logits + row * vocabulary, *target = x + targets[row];
        float *powers = scratch + omp_get_thread_num() * vocabulary, chosen = wide_one(*target);
        floats most = all(-INFINITY), sums = all(0);
        for (int64_t i = 0; i < vocabulary; i += LANES) most = larger(most, wide(x + i));
        float m = largest_of(most);
        for (int64_t i = 0; i < vocabulary; i += LANES) {
            floats power = exponential(sub(wide(x + i), all(m)));
            store(powers + i, power);
            sums = add(sums, power);
        }
        float sum = sum_of(sums), weight = weights[row], share = weight / sum;
        losses[row] = weight * (logf(sum) + m - chosen);
        for (int64_t i = 0; i < vocabulary; i += LANES)
            narrow(x + i, mul(load(powers + i), all(share)));
        floats at_target = all(powers[targets[row]] * share - weight);
        number rounded[LANES];
        narrow(rounded, at_target);
        *target = rounded[0];
    }
}
