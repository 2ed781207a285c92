"""Confidence intervals for proportions, means and ratios.

A measurement on a few hundred test questions is one sample of many possible ones. An interval
contains the true values under which the measured one is not surprising. For a proportion there is a
closed form (Wilson 1927). For anything else the bootstrap (Efron 1979) draws new data sets from the
data, with replacement, and measures how the statistic varies. Answers that share a prompt or an
article are correlated, so whole groups are drawn (Field and Welsh 2007); otherwise the interval
would be too narrow. With few groups it would still be too narrow, so it is widened in the same way
as by Student's t (Hesterberg 2015).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from math import atan, cos, inf, nan, pi, sin, sqrt
from statistics import NormalDist, fmean, stdev

import numpy as np
from jaxtyping import Float, Integer, Shaped

# With fewer groups the percentiles of a bootstrap are widened by Student's t; with more, the
# difference is smaller than the bootstrap's own error.
FEW_GROUPS = 30
# Indices drawn at once, 16 MiB; with more groups, at least one sample or block of them is drawn.
DRAWS_AT_ONCE = 1 << 21
# Rows that matrix products compute together: parts made of whole blocks give the same last bits.
BLOCK = 16
# Numbers this close are equal up to the rounding of sums.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Interval:
    """A measured value and the ends of its confidence interval."""

    estimate: float
    low: float
    high: float


def wilson_interval(successes: float, n: float, confidence: float = 0.95) -> Interval:
    """Bounds a success rate from `successes` in `n` independent trials; both may be fractional.

    Ties can count as part of a success, and correlated trials as fewer (`independent_trials`).

    The p with |s/n - p| <= z sqrt(p (1 - p) / n) are those from c - r to c + r:
    c = (s + z^2/2) / (n + z^2),  r = z / (n + z^2) sqrt(s (n - s) / n + z^2/4)

    Unlike p +- z sigma it stays within 0 ... 1 and has positive width at 0 and n successes.
    Errors: `ValueError` without trials, for impossible counts or confidence.
    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} successes in {n} trials are impossible")
    z = NormalDist().inv_cdf((1 + _checked(confidence)) / 2)
    center = (successes + z**2 / 2) / (n + z**2)
    radius = z / (n + z**2) * sqrt(successes * (n - successes) / n + z**2 / 4)
    # Rounding must not put the ends on the wrong side of the estimate.
    share, low, high = successes / n, center - radius, center + radius
    return Interval(share, max(0.0, min(low, share)), min(1.0, max(high, share)))


def independent_trials(
    values: Shaped[np.ndarray, "n"], clusters: Iterable[Hashable], confidence: float = 0.95
) -> float:
    """Gives the effective number of independent trials of n values that are correlated in groups.

        (n p (1 - p) + 1) / (n (t / z)^2 v + 1 / G),  at most n

    v = G / (G - 1) sum_g (s_g - p n_g)^2 / n^2 is the variance of the rate p between G groups, and
    t, with G - 1 degrees of freedom, accounts for few groups. With p (1 - p) / v trials alone, a
    single failure would turn few groups into many trials. So one more failure, shared by its whole
    group, is added to the counts; groups that all agree then count as G trials.
    Errors: `ValueError` for fewer than two groups.
    Sources: Korn and Graubard (1998), "Confidence intervals for proportions with small expected
    number of positive counts estimated from survey data"; Cameron and Miller (2015), "A
    practitioner's guide to cluster-robust inference", section VI.
    """
    group = group_numbers(len(values), clusters)
    sizes, successes = np.bincount(group), np.bincount(group, weights=values)
    groups, n = len(sizes), len(values)
    if groups < 2:
        raise ValueError(f"groups={groups} shows no spread; give two or more")
    p = float(successes.sum()) / n
    spread = groups / (groups - 1) * float(((successes - p * sizes) ** 2).sum()) / n
    z = NormalDist().inv_cdf((1 + _checked(confidence)) / 2)
    widening = (student_quantile(confidence, groups - 1) / z) ** 2
    return min(float(n), (n * p * (1 - p) + 1) / (widening * spread + 1 / groups))


def mean_interval(
    parts: Sequence[Interval], correlations: Float[np.ndarray, "k k"] | None = None
) -> Interval:
    """Bounds the unweighted mean of several estimates from their intervals.

        low = mean - sqrt(sum_ij r_ij d_i d_j) / k,  d_i = estimate_i - low_i;  high likewise

    `correlations` are those of the estimates' errors; by default they are independent and their
    squares add up. The lower and upper ends are computed separately, since intervals of proportions
    are asymmetric: the method of variance estimates recovery. For two Wilson intervals it is
    Newcombe's method 10.
    Errors: `ValueError` without parts.
    Sources: Newcombe (1998), "Interval estimation for the difference between independent
    proportions"; Zou and Donner (2008), "Construction of confidence intervals about effect
    measures", section 2.
    """
    if not parts:
        raise ValueError("no estimates to bound the mean of; give at least one")
    k = len(parts)
    r = np.eye(k) if correlations is None else correlations
    below, above = (
        np.array([abs(one.estimate - getattr(one, end)) for one in parts])
        for end in ("low", "high")
    )
    mean = sum(one.estimate for one in parts) / k
    down, up = (
        sqrt(max(0.0, float(d @ r @ d))) / k if np.isfinite(d).all() else inf
        for d in (below, above)
    )
    return Interval(mean, mean - down, mean + up)


def student_interval(
    values: Sequence[float] | Float[np.ndarray, " n"], confidence: float = 0.95
) -> Interval:
    """Bounds a mean from a few independent values, such as the results of several seeds.

    mean +- t s / sqrt(n), where t with n - 1 degrees of freedom accounts for estimating the
    deviation s from few values: for three, t is 4.3, for a large sample 2.0. It is exact for normal
    values. For a single value both ends are infinite; with a NaN or an infinity among the values
    both ends are NaN.
    Errors: `ValueError` without values, or for impossible confidence.
    Source: Student (1908), "The probable error of a mean".
    """
    _checked(confidence)
    sample, n = [float(value) for value in values], len(values)  # `stdev` rounds whole numbers
    if n == 0:
        raise ValueError("no values to bound the mean of; give at least one")
    if not np.isfinite(sample).all():
        return Interval(sum(sample) / n, nan, nan)
    mean = fmean(sample)
    if n == 1:
        return Interval(mean, -inf, inf)
    radius = student_quantile(confidence, n - 1) * stdev(sample) / sqrt(n)
    return Interval(mean, mean - radius, mean + radius)


def student_quantile(confidence: float, freedom: int) -> float:
    """The t with P(|T| <= t) = `confidence` for Student's T with `freedom` degrees of freedom."""
    low, high = 0.0, 1.0
    while _student_within(high, freedom) < confidence:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        within = _student_within(middle, freedom) < confidence
        low, high = (middle, high) if within else (low, middle)
    return high


def _student_within(t: float, freedom: int) -> float:
    """P(|T| <= t), in sines and cosines of arctan(t / sqrt(freedom)).

    Source: Abramowitz and Stegun (1964), formulas 26.7.3 and 26.7.4.
    """
    angle = atan(t / sqrt(freedom))
    odd = freedom % 2
    term, total = (cos(angle) if odd else 1.0), 0.0
    for power in range(1 + odd, freedom, 2):
        total += term
        term *= cos(angle) ** 2 * power / (power + 1)
    within = sin(angle) * total
    return 2 / pi * (angle + within) if odd else within


def bootstrap_interval(
    values: Shaped[np.ndarray, "n"],
    statistic: Callable[[np.ndarray], float] | None = None,
    *,
    clusters: Iterable[Hashable] | None = None,
    weights: Shaped[np.ndarray, "n"] | None = None,
    samples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Bounds a statistic of some values, by default their (weighted) mean sum w v / sum w.

    `clusters` names the group of each value; groups are drawn whole. Another `statistic`, such
    as `np.median`, is called once per sample on the drawn values and takes no weights. The ends
    are the percentiles of the samples' statistics (`percentile_interval`). A single group shows no
    variation between groups, so both ends are the estimate.
    Errors: `ValueError` for no values, different lengths, or weights with a `statistic`.
    Sources: Efron (1979), "Bootstrap methods: another look at the jackknife"; Field and Welsh
    (2007), "Bootstrapping clustered data", section 2.
    """
    values = np.asarray(values, dtype=float)
    if statistic is None:
        weights = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=float)
        return bootstrap_ratio(
            values * _paired(weights, values),
            weights,
            clusters=clusters,
            samples=samples,
            seed=seed,
            confidence=confidence,
        )
    if weights is not None:
        raise ValueError("weights apply to the mean only; leave out weights or statistic")
    group = group_numbers(len(values), clusters)
    ordered, sizes = values[np.argsort(group, kind="stable")], np.bincount(group)
    by_group = np.split(ordered, np.cumsum(sizes)[:-1]) if sizes.max() > 1 else None
    random = np.random.default_rng(seed)
    replicates = [
        # Groups of one value each are drawn as values, which takes a fiftieth of the time.
        float(
            statistic(np.concatenate([by_group[g] for g in drawn]) if by_group else ordered[drawn])
        )
        for rows in _pieces(samples, len(sizes))
        for drawn in random.integers(len(sizes), size=(rows, len(sizes)))
    ]
    return percentile_interval(
        float(statistic(values)), np.array(replicates), confidence, len(sizes)
    )


def bootstrap_ratio(
    numerators: Shaped[np.ndarray, "n"],
    denominators: Shaped[np.ndarray, "n"],
    *,
    clusters: Iterable[Hashable] | None = None,
    samples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Bounds a ratio of sums, sum a / sum b, such as bits per byte over blocks of text.

    Numerator and denominator are drawn together, block by block or cluster by cluster, and then the
    sums are divided: the mean of the blocks' ratios would be another quantity. The difference of
    two models on the same blocks is the ratio with numerators a1 - a2.
    Errors: `ValueError` for no values, different lengths, or denominators negative or all zero.
    """
    a, b = np.asarray(numerators, dtype=float), np.asarray(denominators, dtype=float)
    group = group_numbers(len(_paired(a, b)), clusters)
    if b.min() < 0 or b.sum() == 0:
        raise ValueError(f"denominators sum to {b.sum()}, least {b.min()}: none may be below 0")
    a, b = np.bincount(group, weights=a), np.bincount(group, weights=b)
    random = np.random.default_rng(seed)
    replicates = []
    for rows in _pieces(samples, len(a)):
        drawn = random.integers(len(a), size=(rows, len(a)))
        top, bottom = a[drawn].sum(axis=1), b[drawn].sum(axis=1)
        # A sample whose denominators sum to zero has no ratio and is left out.
        replicates.append(top[bottom > 0] / bottom[bottom > 0])
    estimate = float(a.sum() / b.sum())
    return percentile_interval(estimate, np.concatenate(replicates), confidence, len(a))


def bootstrap_sums(
    values: Float[np.ndarray, "n columns"],
    statistic: Callable[[Float[np.ndarray, "samples columns"]], Float[np.ndarray, "samples"]],
    *,
    clusters: Iterable[Hashable] | None = None,
    samples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    centered: bool = False,
) -> Interval:
    """Bounds any function of sums over all items, such as a product of two ratios.

    `statistic` gets sums of the columns, a row for each sample, and returns a number for each. A
    sample for which it returns NaN (0 / 0 with few groups) is left out. Clusters are summed once
    before drawing, so it costs no more than a ratio. To compare two models on the same items, put
    their columns side by side; the statistic is the difference of the two models' statistics.

    A folded statistic, such as |x|, is larger on average in samples drawn from the data, so its
    percentiles may exclude the estimate. `centered` bounds the mean of the statistic over data of
    this size: estimate - (replicate - mean of the replicates), at both ends, extended to include
    the estimate.
    Source: Davison and Hinkley (1997), "Bootstrap methods and their application", section 5.2, the
    basic limits, minus the bias of the samples.
    Errors: `ValueError` for no values, different lengths, or a statistic that is NaN on all items.
    """
    group = group_numbers(len(values), clusters)
    sums = np.zeros((int(group.max()) + 1, values.shape[1]))
    np.add.at(sums, group, np.asarray(values, dtype=float))
    estimate = float(statistic(sums.sum(axis=0, keepdims=True))[0])
    if np.isnan(estimate):
        raise ValueError("the statistic of all items together is not a number")
    random = np.random.default_rng(seed)
    # Counts of how often each cluster is drawn; a sample's sums are the counts times the sums.
    evenly = np.full(len(sums), 1 / len(sums))
    drawn = [
        random.multinomial(len(sums), evenly, size=rows) @ sums
        for rows in _pieces(samples, len(sums), BLOCK)
    ]
    replicates = statistic(np.concatenate(drawn))
    replicates = replicates[~np.isnan(replicates)]
    if not centered:
        return percentile_interval(estimate, replicates, confidence, len(sums))
    replicates = estimate + replicates.mean() - replicates
    found = percentile_interval(estimate, replicates, confidence, len(sums))
    return Interval(estimate, min(found.low, estimate), max(found.high, estimate))


def bootstrap_difference(
    first: Shaped[np.ndarray, "n"],
    second: Shaped[np.ndarray, "n"],
    *,
    clusters: Iterable[Hashable] | None = None,
    weights: Shaped[np.ndarray, "n"] | None = None,
    samples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Bounds the mean of first - second, two measurements of the same n items, item by item.

    The difficulty that an item has for both cancels, so this detects differences that two separate
    intervals would hide. The difference is significant if 0 is outside the interval.
    Errors: `ValueError` for no values, or different lengths.
    """
    difference = np.asarray(_paired(first, second), dtype=float) - np.asarray(second, dtype=float)
    return bootstrap_interval(
        difference,
        clusters=clusters,
        weights=weights,
        samples=samples,
        seed=seed,
        confidence=confidence,
    )


def _paired(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns the first of two arrays of the same items; refuses different lengths."""
    if len(one) != len(other):
        raise ValueError(f"lengths {len(one)} and {len(other)} differ")
    return one


def group_numbers(n: int, clusters: Iterable[Hashable] | None) -> Integer[np.ndarray, "n"]:
    """Numbers the groups 0, 1, ... in order of appearance; by default each item is a group."""
    if n == 0:
        raise ValueError("no values to bootstrap; give at least one")
    if clusters is None:
        return np.arange(n)
    numbers: dict[Hashable, int] = {}
    result = np.array([numbers.setdefault(name, len(numbers)) for name in clusters], dtype=int)
    if len(result) != n:
        raise ValueError(f"{n} values with {len(result)} cluster names; give one for each")
    return result


def _pieces(samples: int, groups: int, block: int = 1) -> list[int]:
    """Splits samples of `groups` groups into parts of whole blocks; the last takes the rest."""
    size = max(1, DRAWS_AT_ONCE // (groups * block)) * block
    whole, rest = divmod(samples, size)
    return [size] * (whole - 1) + [size + rest] if whole else [rest]


def percentile_interval(
    estimate: float, replicates: Float[np.ndarray, "samples"], confidence: float, groups: int
) -> Interval:
    """Bounds an estimate by percentiles of its values in samples drawn from `groups` groups.

    Samples from G groups vary less than the groups, by sqrt((G - 1) / G), and do not account for
    the spread being estimated from few groups. So with few groups the percentiles are those of a
    normal value at sqrt(G / (G - 1)) t, with t of G - 1 degrees of freedom.
    Source: Hesterberg (2015), "What teachers should know about the bootstrap", which calls it the
    expanded percentile interval.
    """
    tail = (1 - _checked(confidence)) / 2
    if not len(replicates):
        raise ValueError("samples=0 has no percentiles; give 1 or more, better 2000")
    if 1 < groups < FEW_GROUPS:
        distance = sqrt(groups / (groups - 1)) * student_quantile(confidence, groups - 1)
        tail = NormalDist().cdf(-distance)
    low, high = (float(end) for end in np.quantile(replicates, [tail, 1 - tail]))
    # Sums in another order differ in the last bits: this is not spread, and must not exclude the
    # estimate.
    if max(low, high, estimate) - min(low, high, estimate) < ROUNDING * max(1.0, abs(estimate)):
        return Interval(estimate, estimate, estimate)
    return Interval(estimate, low, high)


def _checked(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence} is not a probability; give one such as 0.95")
    return confidence
