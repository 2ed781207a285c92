"""Intervals against closed forms, exact binomial sums and coverage in simulated experiments."""

from __future__ import annotations

import tracemalloc
from math import comb, sqrt
from statistics import NormalDist

import numpy as np
import pytest

from groundup.maths.intervals import (
    Interval,
    bootstrap_difference,
    bootstrap_interval,
    bootstrap_ratio,
    bootstrap_sums,
    independent_trials,
    mean_interval,
    student_interval,
    student_quantile,
    wilson_interval,
)

Z = NormalDist().inv_cdf(0.975)


def covers(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


@pytest.mark.parametrize(("successes", "n"), [(1, 10), (5, 10), (9, 10), (300, 1000), (7, 8)])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_wilson_bounds_solve_the_defining_equation(successes, n, confidence):
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    interval = wilson_interval(successes, n, confidence)
    assert interval.low < interval.estimate == successes / n < interval.high
    for p in (interval.low, interval.high):
        assert abs(successes / n - p) == pytest.approx(z * sqrt(p * (1 - p) / n), rel=1e-9)


def test_wilson_between_two_counts():
    """A tie that counts half lies between the two neighboring whole counts."""
    less, tied, more = (wilson_interval(s, 20) for s in (7, 7.5, 8))
    assert less.low < tied.low < more.low
    assert less.high < tied.high < more.high
    assert tied.estimate == 7.5 / 20


def test_wilson_for_no_and_all_successes():
    none, every = wilson_interval(0, 20), wilson_interval(20, 20)
    assert (none.estimate, none.low) == (0, 0)
    assert none.high == pytest.approx(Z**2 / (20 + Z**2))
    assert (every.low, every.high) == pytest.approx((1 - none.high, 1))
    assert every.high <= 1


def test_wilson_coverage_summed_exactly():
    """Over the true rate p, Wilson's coverage swings around 95 % (Brown, Cai, DasGupta 2001)."""
    n = 50
    intervals = [wilson_interval(s, n) for s in range(n + 1)]
    coverage = [
        sum(
            comb(n, s) * p**s * (1 - p) ** (n - s)
            for s, interval in enumerate(intervals)
            if covers(interval, p)
        )
        for p in np.linspace(0.1, 0.9, 81)
    ]
    assert np.mean(coverage) == pytest.approx(0.95, abs=0.01)
    assert min(coverage) > 0.91


def test_bootstrap_of_a_mean_equals_the_normal_interval_for_many_values():
    values = np.random.default_rng(0).exponential(size=4000)
    interval = bootstrap_interval(values, samples=4000)
    error = values.std() / sqrt(len(values))
    assert interval.estimate == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - Z * error, abs=0.15 * error)
    assert interval.high == pytest.approx(values.mean() + Z * error, abs=0.15 * error)
    half = bootstrap_interval(values, samples=4000, confidence=0.5)
    width = 2 * NormalDist().inv_cdf(0.75) * error
    assert half.high - half.low == pytest.approx(width, rel=0.1)


def test_bootstrap_coverage():
    rng = np.random.default_rng(1)
    hits = [
        covers(bootstrap_interval(rng.normal(3, 1, size=80), samples=400), 3) for _ in range(600)
    ]
    assert 0.91 < np.mean(hits) < 0.975


def test_few_values_get_intervals_as_wide_as_students_t() -> None:
    """This also holds for statistics other than means: without it, 6 values would cover the truth
    86 times in 100."""
    rng = np.random.default_rng(1)
    for n in (6, 20):
        means, medians, sums = [], [], []
        for _ in range(200):
            values = rng.normal(3, 1, size=n)
            means.append(covers(bootstrap_interval(values), 3))
            medians.append(covers(bootstrap_interval(values, np.median, samples=100), 3))
            squared = bootstrap_sums(values[:, None], lambda of: of[:, 0] ** 2)
            sums.append(covers(squared, (3 * n) ** 2))
        assert all(0.91 < np.mean(held) < 0.99 for held in (means, medians, sums))


def test_grouped_trials_count_less_than_independent_ones() -> None:
    alike = np.repeat([1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0], 8)
    groups = np.repeat(np.arange(10), 8)
    # Copies of 10 count somewhat less than 10, because few groups show their agreement.
    assert 6 < independent_trials(alike, groups) < 10
    assert independent_trials(np.ones(80), groups) == pytest.approx(10)
    assert independent_trials(alike, np.tile(np.arange(10), 8)) == pytest.approx(80, rel=0.5)
    with pytest.raises(ValueError, match="groups=1 shows no spread"):
        independent_trials(np.ones(3), [0, 0, 0])


def test_only_clusters_cover_when_answers_share_a_prompt():
    """20 answers on each of 30 prompts; nearly all variance lies between the prompts."""
    rng = np.random.default_rng(2)
    clusters = np.repeat(np.arange(30), 20)
    clustered, naive = [], []
    for _ in range(300):
        values = rng.normal(size=30)[clusters] + 0.3 * rng.normal(size=600)
        clustered.append(covers(bootstrap_interval(values, clusters=clusters, samples=300), 0))
        naive.append(covers(bootstrap_interval(values, samples=300), 0))
    assert 0.88 < np.mean(clustered) < 0.98
    assert np.mean(naive) < 0.5


@pytest.mark.parametrize("statistic", [None, np.mean, np.median])
def test_copies_in_one_cluster_do_not_narrow_the_interval(statistic):
    values = np.random.default_rng(3).normal(size=40)
    names = [f"prompt {i}" for i in range(40)]
    once = bootstrap_interval(values, statistic, samples=200)
    copied = bootstrap_interval(np.tile(values, 5), statistic, clusters=names * 5, samples=200)
    for one, other in zip(vars(once).values(), vars(copied).values(), strict=True):
        assert one == pytest.approx(other)


def test_another_statistic_agrees_with_the_fast_mean():
    values = np.random.default_rng(4).normal(size=50)
    fast, slow = bootstrap_interval(values), bootstrap_interval(values, lambda v: float(v.mean()))
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high))


def test_median_of_skewed_values():
    values = np.random.default_rng(5).exponential(size=2000)
    interval = bootstrap_interval(values, np.median, samples=1000)
    error = 1 / (2 * 0.5 * sqrt(2000))  # 1 / (2 f(median) sqrt n), and the density there is 1/2
    assert interval.high - interval.low == pytest.approx(2 * Z * error, rel=0.2)
    assert covers(interval, np.log(2))


def test_ratio_of_sums_matches_the_delta_method():
    rng = np.random.default_rng(6)
    size = rng.integers(100, 3000, size=3000).astype(float)
    nats = size * rng.normal(1.5, 0.4, size=3000)
    interval = bootstrap_ratio(nats, size)
    ratio = nats.sum() / size.sum()
    error = sqrt(((nats - ratio * size) ** 2).sum()) / size.sum()
    assert interval.estimate == pytest.approx(ratio)
    assert interval.high - interval.low == pytest.approx(2 * Z * error, rel=0.1)


def test_weights_are_repetitions():
    values = np.array([1.0, 2.0, 5.0])
    weighted = bootstrap_interval(values, weights=np.array([1, 3, 2]), samples=100)
    repeated = bootstrap_interval(
        np.repeat(values, [1, 3, 2]), clusters=np.repeat([7, 8, 9], [1, 3, 2]), samples=100
    )
    assert (weighted.estimate, weighted.low, weighted.high) == pytest.approx(
        (repeated.estimate, repeated.low, repeated.high)
    )


def test_groups_with_zero_weight_change_only_the_random_draws():
    interval = bootstrap_ratio(np.array([1.0, 0, 0]), np.array([2.0, 0, 0]))
    assert interval == Interval(0.5, 0.5, 0.5)


def test_pairing_shows_a_difference_that_single_intervals_hide():
    rng = np.random.default_rng(7)
    hardness = rng.normal(size=200)
    first, second = (hardness + shift + 0.1 * rng.normal(size=200) for shift in (0.05, 0.0))
    assert covers(bootstrap_interval(first), second.mean())
    assert bootstrap_difference(first, second).low > 0
    constant = bootstrap_difference(hardness + 2, hardness)
    assert (constant.low, constant.high) == pytest.approx((2, 2))


def test_booleans_are_accepted_as_values():
    right = np.random.default_rng(10).random(400) < 0.7
    measured, closed_form = bootstrap_interval(right), wilson_interval(int(right.sum()), 400)
    assert measured.estimate == closed_form.estimate
    assert measured.low == pytest.approx(closed_form.low, abs=0.01)
    assert measured.high == pytest.approx(closed_form.high, abs=0.01)


def test_the_seed_determines_the_interval():
    values = np.random.default_rng(8).normal(size=30)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_large_data_is_resampled_in_chunks():
    values = np.random.default_rng(9).normal(size=1_500_000)
    interval = bootstrap_interval(values, samples=20)
    assert interval.low < interval.estimate < interval.high
    assert interval.high - interval.low < 6 / sqrt(len(values))


def test_resampling_in_chunks_equals_resampling_at_once() -> None:
    n, samples = 20_000, 400
    at_once = 8 * n * samples  # bytes
    # Integers, whose sums are exact in any order.
    values = np.random.default_rng(10).integers(1, 9, size=(n, 2)).astype(float)

    def ratio(sums: np.ndarray) -> np.ndarray:
        return sums[:, 0] / sums[:, 1]

    tracemalloc.start()
    sums = bootstrap_sums(values, ratio, samples=samples, seed=1)
    means = bootstrap_interval(values[:, 0], np.mean, samples=samples, seed=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.8 * at_once

    counts = np.random.default_rng(1).multinomial(n, np.full(n, 1 / n), size=samples)
    low, high = np.quantile(ratio(counts @ values), [0.025, 0.975])
    assert (sums.low, sums.high) == (low, high)
    drawn = np.random.default_rng(1).integers(n, size=(samples, n))
    low, high = np.quantile([values[row, 0].mean() for row in drawn], [0.025, 0.975])
    assert (means.low, means.high) == (low, high)


def test_rejects_bad_input():
    values = np.ones(3)
    with pytest.raises(ValueError, match="0 successes in 0 trials"):
        wilson_interval(0, 0)
    with pytest.raises(ValueError, match="6 successes in 5 trials"):
        wilson_interval(6, 5)
    with pytest.raises(ValueError, match="confidence=95"):
        wilson_interval(1, 5, confidence=95.0)
    with pytest.raises(ValueError, match="samples=0 has no percentiles"):
        bootstrap_interval(np.array([1.0, 2.0]), samples=0)
    with pytest.raises(ValueError, match="no values"):
        bootstrap_interval(np.array([]))
    with pytest.raises(ValueError, match="3 values with 2 cluster names"):
        bootstrap_interval(values, clusters=["a", "b"])
    # Where the shapes in signatures are checked, they fail first, with a TypeError.
    with pytest.raises((ValueError, TypeError)):
        bootstrap_interval(values, weights=np.ones(1))
    with pytest.raises((ValueError, TypeError)):
        bootstrap_difference(values, np.ones(1))
    with pytest.raises(ValueError, match="denominators sum to 0"):
        bootstrap_ratio(values, np.zeros(3))
    with pytest.raises(ValueError, match="mean only"):
        bootstrap_interval(values, np.median, weights=values)


def test_sums_give_the_interval_of_a_ratio():
    random = np.random.default_rng(3)
    values = np.stack([random.normal(2, 1, 300), random.uniform(1, 2, 300)], axis=1)
    clusters = [i // 3 for i in range(300)]
    found = bootstrap_sums(values, lambda sums: sums[:, 0] / sums[:, 1], clusters=clusters)
    same = bootstrap_ratio(values[:, 0], values[:, 1], clusters=clusters)
    assert found.estimate == pytest.approx(same.estimate)
    width = same.high - same.low
    assert found.low == pytest.approx(same.low, abs=0.1 * width)
    assert found.high == pytest.approx(same.high, abs=0.1 * width)


def test_sums_take_any_function_of_several_columns():
    """A product of two ratios against a bootstrap that resamples rows and recomputes it."""
    random = np.random.default_rng(4)
    right, biased = random.random(400) < 0.4, random.random(400) < 0.7
    values = np.stack([right, biased, np.ones(400)], axis=1).astype(float)

    def product(sums: np.ndarray) -> np.ndarray:
        return (1 - sums[:, 0] / sums[:, 2]) * (2 * sums[:, 1] / sums[:, 2] - 1)

    found = bootstrap_sums(values, product)
    assert found.estimate == pytest.approx((1 - right.mean()) * (2 * biased.mean() - 1))
    drawn = random.integers(400, size=(3000, 400))
    slow = [(1 - right[i].mean()) * (2 * biased[i].mean() - 1) for i in drawn]
    low, high = np.quantile(slow, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.01)
    assert found.high == pytest.approx(high, abs=0.01)


def test_samples_with_undefined_statistics_are_left_out():
    def share(sums: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return sums[:, 0] / sums[:, 1]

    # Two of three clusters have weight 0: a sample of only those has no share.
    values = np.array([[1.0, 2.0], [0.0, 0.0], [0.0, 0.0]])
    found = bootstrap_sums(values, share)
    assert (found.estimate, found.low, found.high) == (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="not a number"):
        bootstrap_sums(values[1:], share)
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_sums(values[:0], share)


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (10, 2.228), (30, 2.042)],
)
def test_students_quantiles_equal_published_tables(freedom: int, quantile: float) -> None:
    assert student_quantile(0.95, freedom) == pytest.approx(quantile, abs=5e-4)


def test_students_interval_has_its_stated_coverage_for_three_values() -> None:
    rng = np.random.default_rng(0)
    found = [student_interval(rng.normal(5.0, 2.0, 3).tolist()) for _ in range(2_000)]
    covered = np.mean([one.low <= 5.0 <= one.high for one in found])
    assert covered == pytest.approx(0.95, abs=0.015)
    assert student_interval([1.0]).high == np.inf
    with pytest.raises(ValueError, match="no values"):
        student_interval([])


def test_students_interval_of_any_numbers() -> None:
    floats = student_interval([1.0, 2.0, 4.0])
    assert student_interval(np.array([1, 2, 4]).astype(object)) == floats
    assert student_interval([np.int64(1), np.int64(2), np.int64(4)]) == floats
    assert student_interval(np.array([1.0, 2.0, 4.0])) == floats
    for values, mean in (
        ([1.0, np.nan], np.nan),
        ([1.0, np.inf], np.inf),
        ([-np.inf, np.inf], np.nan),
    ):
        found = student_interval(values)
        np.testing.assert_array_equal(
            [found.estimate, found.low, found.high], [mean, np.nan, np.nan]
        )


def test_students_interval_of_one_value_checks_its_confidence() -> None:
    with pytest.raises(ValueError, match="confidence=95 is not a probability"):
        student_interval([3.0], 95)


def test_the_mean_of_estimates_by_their_correlations() -> None:
    parts = [Interval(0.4, 0.3, 0.6), Interval(0.6, 0.4, 0.7)]
    alone = mean_interval(parts)
    assert alone.estimate == pytest.approx(0.5)
    assert 0.5 - alone.low == pytest.approx(sqrt(0.1**2 + 0.2**2) / 2)
    assert alone.high - 0.5 == pytest.approx(sqrt(0.2**2 + 0.1**2) / 2)
    # Positively correlated errors add up; negatively correlated ones cancel.
    as_one = mean_interval(parts, np.ones((2, 2)))
    assert 0.5 - as_one.low == pytest.approx((0.1 + 0.2) / 2)
    against = mean_interval(parts, np.array([[1.0, -1.0], [-1.0, 1.0]]))
    assert 0.5 - against.low == pytest.approx((0.2 - 0.1) / 2)
    with pytest.raises(ValueError, match="at least one"):
        mean_interval([])


def test_the_mean_of_estimates_on_the_same_items_covers_the_truth() -> None:
    """Two shares with 40 of 100 items in common, answered identically: r = 40 / 100."""
    dice = np.random.default_rng(0)
    held = dict.fromkeys((0.0, 0.4), 0)
    for _ in range(2000):
        items = dice.random(160) < 0.3
        parts = [wilson_interval(int(some.sum()), 100) for some in (items[:100], items[60:])]
        for r in held:
            held[r] += covers(mean_interval(parts, np.array([[1, r], [r, 1]])), 0.3)
    assert 0.94 <= held[0.4] / 2000 <= 0.965 and held[0.0] / 2000 < 0.925


def test_an_absolute_value_is_bounded_below_by_zero() -> None:
    """Items around 0, for which every resample increases |mean|."""
    dice = np.random.default_rng(0)
    truth = sqrt(2 / np.pi / 50)  # what |mean| of 50 standard normal values is on average
    held = outside = 0
    for _ in range(500):
        values = dice.normal(size=(50, 4))

        def size(sums: np.ndarray) -> np.ndarray:
            return np.abs(sums).sum(axis=1) / 50 / 4

        found = bootstrap_sums(values, size, samples=400, centered=True)
        plain = bootstrap_sums(values, size, samples=400)
        held += covers(found, truth)
        outside += not plain.low <= plain.estimate <= plain.high
        assert covers(found, found.estimate)
    assert held / 500 > 0.93 and outside > 10


def test_rounding_error_does_not_put_the_estimate_outside() -> None:
    """Sums of tenths or thirds have different last bits in different orders and lengths."""
    groups = np.repeat(np.arange(30), np.arange(1, 31))
    for value in (0.1, 1 / 3, 0.7):
        values = np.full(len(groups), value)
        for found in (
            bootstrap_ratio(values, np.ones(len(values)), clusters=groups),
            bootstrap_sums(
                np.stack([values, np.ones(len(values))], axis=1),
                lambda sums: 3 * sums[:, 0] / sums[:, 1] - 0.2,
                clusters=groups,
            ),
        ):
            assert found.low == found.estimate == found.high
    tiny = 1 + 1e-9 * np.arange(50)
    found = bootstrap_ratio(tiny, np.ones(50))
    assert found.low < found.estimate < found.high  # small, and yet a spread


def test_wilsons_bounds_enclose_the_share() -> None:
    for n in range(1, 301):
        for successes in (0, n):
            found = wilson_interval(successes, n)
            assert 0 <= found.low <= found.estimate <= found.high <= 1


def test_a_part_without_bounds_gives_a_mean_without_bounds() -> None:
    found = mean_interval([Interval(0.5, -np.inf, np.inf), Interval(0.5, 0.4, 0.6)])
    assert (found.estimate, found.low, found.high) == (0.5, -np.inf, np.inf)
    assert student_interval(np.array([1.0, 2.0, 3.0])).estimate == 2.0
