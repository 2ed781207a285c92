"""Bayes' rule against enumeration, conjugate updates against integrals, intervals against sums."""

from __future__ import annotations

from math import comb, inf, log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.maths.bayes import Beta, Dirichlet, GaussianMean, log_evidence, posterior
from groundup.maths.probability import Bernoulli, Categorical, Gaussian


def test_a_worked_diagnosis():
    """One in a hundred is ill; the test finds 90 % of these and 5 % of the others: 18 / 117."""
    prior = Categorical.from_probs(np.array([0.01, 0.99]))
    found = np.log([0.9, 0.05])
    assert posterior(prior, found).probs[0] == pytest.approx(18 / 117)
    assert log_evidence(prior, found) == pytest.approx(log(0.009 + 0.0495))


def test_updating_with_all_data_equals_updating_one_by_one():
    rng = np.random.default_rng(0)
    coins = [Bernoulli(p) for p in (0.2, 0.5, 0.9)]
    data = Bernoulli(0.5).sample(30, rng)
    step = prior = Categorical.from_probs(np.array([0.5, 0.3, 0.2]))
    evidence = 0.0
    for outcome in data:
        likelihoods = np.array([coin.log_prob(np.array([outcome]))[0] for coin in coins])
        evidence += log_evidence(step, likelihoods)
        step = posterior(step, likelihoods)
    together = np.array([coin.log_prob(data).sum() for coin in coins])
    np.testing.assert_allclose(step.probs, posterior(prior, together).probs)
    assert evidence == pytest.approx(log_evidence(prior, together))


def test_long_data_does_not_underflow():
    prior = Categorical.from_probs(np.array([0.5, 0.5]))
    found = posterior(prior, np.array([-100_000.0, -100_001.0]))
    assert found.probs[0] == pytest.approx(1 / (1 + np.exp(-1)))
    assert log_evidence(prior, np.array([-inf, -inf])) == -inf


def test_a_prior_of_zero_stays_zero():
    prior = Categorical.from_probs(np.array([1.0, 0.0]))
    assert posterior(prior, np.array([-50.0, 0.0])).probs.tolist() == [1, 0]


# Conjugate updates.


def test_beta_equals_bayes_rule_on_a_fine_grid():
    data = np.array([1, 1, 0, 1, 0, 1, 1])
    grid = (np.arange(20_000) + 0.5) / 20_000
    prior = Categorical.from_logits(np.log(grid) + 2 * np.log(1 - grid))  # Beta(2, 3)
    likelihoods = 5 * np.log(grid) + 2 * np.log(1 - grid)
    after = posterior(prior, likelihoods)
    exact = Beta(2.0, 3.0).update(data)
    assert exact == Beta(7.0, 5.0)
    assert after.expectation(grid) == pytest.approx(exact.mean, abs=1e-7)
    assert exact.predictive().p == pytest.approx(7 / 12)
    ends = np.interp([0.025, 0.975], np.cumsum(after.probs), grid + 0.5 / 20_000)
    interval = exact.credible_interval()
    assert (interval.low, interval.high) == pytest.approx(tuple(ends), abs=1e-6)


def test_laplaces_rule_of_succession():
    assert Beta(1.0, 1.0).update(np.ones(9, bool)).predictive().p == pytest.approx(10 / 11)
    assert Beta(1.0, 1.0).update(np.array([], bool)) == Beta(1.0, 1.0)


@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from([0.5, 0.9, 0.99]))
@settings(deadline=None, max_examples=40)
def test_credible_bounds_equal_binomial_sums(a, b, confidence):
    """P(Beta(a, b) <= x) = P(Binomial(a + b - 1, x) >= a) for whole a, b."""
    interval = Beta(float(a), float(b)).credible_interval(confidence)
    n = a + b - 1
    for x, below in (
        (interval.low, (1 - confidence) / 2),
        (interval.high, (1 + confidence) / 2),
    ):
        total = sum(comb(n, i) * x**i * (1 - x) ** (n - i) for i in range(a, n + 1))
        assert total == pytest.approx(below, abs=1e-6)


@pytest.mark.parametrize("a", [0.1, 0.5, 1.0, 30.0, 1e4, 1e6])
def test_credible_bounds_of_a_power_law(a):
    """Beta(a, 1) has P(p <= x) = x^a, and Beta(1, b) is its mirror image."""
    interval, mirror = Beta(a, 1.0).credible_interval(), Beta(1.0, a).credible_interval()
    assert interval.low == pytest.approx(0.025 ** (1 / a), rel=1e-5)
    assert interval.high == pytest.approx(0.975 ** (1 / a), rel=1e-5)
    assert mirror.low == pytest.approx(1 - interval.high, abs=1e-6)
    assert mirror.high == pytest.approx(1 - interval.low, abs=1e-6)


def test_the_arcsine_law():
    """Beta(1/2, 1/2), infinite at both ends: P(p <= x) = 2 / pi asin sqrt x."""
    interval = Beta(0.5, 0.5).credible_interval(0.9)
    assert interval.low == pytest.approx(np.sin(np.pi * 0.05 / 2) ** 2, abs=1e-7)
    assert interval.high == pytest.approx(np.sin(np.pi * 0.95 / 2) ** 2, abs=1e-7)


def test_dirichlet_marginals_are_betas():
    prior = Dirichlet(np.array([2.0, 1.0, 0.5]))
    after = prior.update(np.array([0, 2, 2, 0, 0]))
    assert after.a.tolist() == [5, 1, 2.5]
    assert after.predictive().probs == pytest.approx(np.array([5, 1, 2.5]) / 8.5)
    first = after.sample(40_000, np.random.default_rng(0))[:, 0]
    wanted = Beta(5.0, 3.5).credible_interval()
    assert np.quantile(first, [0.025, 0.975]) == pytest.approx([wanted.low, wanted.high], abs=0.01)
    assert prior.update(np.array([], int)).a.tolist() == [2, 1, 0.5]


def test_gaussian_mean_equals_bayes_rule_on_a_fine_grid():
    values = np.array([1.2, 0.7, 2.9])
    exact = GaussianMean(Gaussian(-1.0, 2.0), noise=0.8).update(values)
    grid = np.linspace(-10, 10, 40_001)
    prior = Categorical.from_logits(Gaussian(-1.0, 2.0).log_prob(grid))
    likelihoods = sum(Gaussian(0.0, 0.8).log_prob(x - grid) for x in values)
    after = posterior(prior, likelihoods)
    mean = after.expectation(grid)
    assert exact.belief.mean == pytest.approx(mean)
    assert exact.belief.std == pytest.approx(sqrt(after.expectation((grid - mean) ** 2)))
    assert exact.predictive().std == pytest.approx(sqrt(exact.belief.std**2 + 0.64))
    one_by_one = GaussianMean(Gaussian(-1.0, 2.0), noise=0.8)
    for x in values:
        one_by_one = one_by_one.update(np.array([x]))
    assert one_by_one.belief.mean == pytest.approx(exact.belief.mean)
    assert one_by_one.belief.std == pytest.approx(exact.belief.std)


def test_credible_intervals_have_their_stated_coverage():
    """Truths drawn from the prior, data from the truths: coverage is then exactly 90 %."""
    rng = np.random.default_rng(0)
    hits = 0
    for p in rng.beta(2, 5, size=400):
        interval = Beta(2.0, 5.0).update(rng.random(12) < p).credible_interval(0.9)
        hits += interval.low <= p <= interval.high
    assert hits / 400 == pytest.approx(0.9, abs=4 * sqrt(0.09 / 400))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Beta(0.0, 1.0), r"Beta\(0.0, 1.0\)"),
        (lambda: Beta(1.0, 1.0).credible_interval(95.0), "confidence=95"),
        (lambda: Beta(1.0, 1.0).update(np.array([2])), "outcome 2"),
        (lambda: Dirichlet(np.array([1.0, -1.0])), "above 0"),
        (lambda: Dirichlet(np.ones(2)).update(np.array([2])), "outcome 2"),
        (lambda: GaussianMean(Gaussian(0.0, 1.0), 0.0), "noise=0.0"),
        (
            lambda: posterior(Categorical.from_probs(np.ones(1)), np.array([-inf])),
            "impossible under every hypothesis",
        ),
    ],
)
def test_rejects_bad_input(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


@pytest.mark.parametrize("of", [posterior, log_evidence])
def test_each_hypothesis_needs_a_likelihood(of, unchecked_types):
    with pytest.raises(ValueError, match=r"of shape \(1,\) do not fit 2 hypotheses"):
        of(Categorical.from_probs(np.array([0.5, 0.5])), np.array([-1.0]))
