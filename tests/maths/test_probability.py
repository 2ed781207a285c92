"""Distributions against closed forms, torch.distributions, numerical integrals and samples."""

from __future__ import annotations

from math import e, inf, log, nan, pi, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.maths import probability
from groundup.maths.probability import (
    Bernoulli,
    Categorical,
    Gaussian,
    counts,
    log_softmax,
    sigmoid,
)

weights = st.lists(st.floats(0, 1), min_size=1, max_size=8).filter(lambda w: sum(w) > 0.01)
logits = st.lists(st.floats(-30, 30), min_size=1, max_size=8).map(np.array)
gaussians = st.builds(Gaussian, st.floats(-5, 5), st.floats(0.1, 5))
chances = st.floats(1e-6, 1 - 1e-6)


def categorical(w: list[float]) -> Categorical:
    return Categorical.from_probs(np.array(w) / sum(w))


# The categorical distribution.


@given(logits, st.floats(0.01, 100))
@settings(deadline=None)
def test_log_softmax_equals_torchs(z, temperature):
    wanted = torch.log_softmax(torch.tensor(z) / temperature, -1).numpy()
    np.testing.assert_allclose(log_softmax(z, temperature), wanted, rtol=1e-12, atol=1e-12)


def test_log_softmax_of_rows_and_of_huge_logits():
    z = np.array([[0.0, 1e4, -1e4], [-inf, 2.0, 2.0]])
    wanted = [[-1e4, 0, -2e4], [-inf, -log(2), -log(2)]]
    np.testing.assert_allclose(log_softmax(z), wanted)


def test_sigmoid_equals_torchs_for_tiny_values():
    z = np.array([-700.0, -50.0, -1.0, 0.0, 2.0, 1000.0])
    np.testing.assert_allclose(sigmoid(z), torch.tensor(z).sigmoid().numpy(), rtol=1e-12)


def test_temperature_limits():
    z = np.array([3.0, 1.0, 3.0, -inf])
    assert np.exp(log_softmax(z, 0.0)) == pytest.approx([0.5, 0, 0.5, 0])
    assert np.exp(log_softmax(z, inf)) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    for temperature, limit in ((1e-3, 0.0), (1e5, inf), (1e-320, 0.0)):
        near, at = log_softmax(z, temperature), log_softmax(z, limit)
        assert np.exp(near) == pytest.approx(np.exp(at), abs=1e-4)


@given(logits, st.floats(0.1, 5), st.floats(1.01, 3))
@settings(deadline=None)
def test_entropy_rises_with_temperature(z, temperature, factor):
    cold = Categorical.from_logits(z, temperature).entropy()
    warm = Categorical.from_logits(z, temperature * factor).entropy()
    assert warm >= cold - 1e-12
    assert warm <= log(len(z)) + 1e-12


@given(logits, logits)
@settings(deadline=None)
def test_categorical_measures_equal_torchs(one, other):
    size = min(len(one), len(other))
    p, q = (Categorical.from_logits(z[:size]) for z in (one, other))
    tp, tq = (torch.distributions.Categorical(logits=torch.tensor(z[:size])) for z in (one, other))
    assert p.entropy() == pytest.approx(float(tp.entropy()), abs=1e-12)
    kl = float(torch.distributions.kl_divergence(tp, tq))
    assert p.kl(q) == pytest.approx(kl, rel=1e-10, abs=1e-12)
    x = np.arange(size)
    np.testing.assert_allclose(p.log_prob(x), tp.log_prob(torch.tensor(x)).numpy(), atol=1e-12)


@given(weights, weights)
@settings(deadline=None)
def test_cross_entropy_is_entropy_plus_divergence(one, other):
    size = min(len(one), len(other))
    if not (sum(one[:size]) > 0 and sum(other[:size]) > 0):
        return
    p, q = categorical(one[:size]), categorical(other[:size])
    assert p.cross_entropy(q) == pytest.approx(p.entropy() + p.kl(q))
    assert p.kl(q) >= -1e-12
    assert p.kl(p) == 0


def test_divergence_is_infinite_only_where_support_is_missing():
    half, certain = (
        Categorical.from_probs(np.array([0.5, 0.5])),
        Categorical.from_probs(np.array([1.0, 0.0])),
    )
    assert half.kl(certain) == inf
    assert half.cross_entropy(certain) == inf
    assert certain.kl(half) == pytest.approx(log(2))
    assert certain.entropy() == 0


def test_tiny_probabilities_have_accurate_logarithms():
    p = Categorical.from_logits(np.array([0.0, -2000.0]))
    assert p.probs[1] == 0
    assert p.log_prob(np.array([1]))[0] == -2000


@pytest.mark.parametrize("sampler", [Categorical.sample, Categorical.sample_gumbel])
def test_both_samplers_follow_the_distribution(sampler):
    """Pearson's chi-square: below its 99.9 % point, 22.46 at 6 degrees of freedom."""
    probs = np.array([0.3, 0.0, 0.05, 0.2, 0.01, 0.4, 0.03, 0.01, 0.0])
    n = 40_000
    drawn = counts(sampler(Categorical.from_probs(probs), n, np.random.default_rng(0)), 9)
    possible = probs > 0
    assert drawn[~possible].sum() == 0
    wanted = n * probs[possible]
    assert ((drawn[possible] - wanted) ** 2 / wanted).sum() < 22.46


def test_the_inverse_cdf_covers_both_ends():
    class Ends(np.random.Generator):
        def random(self, n: int) -> np.ndarray:
            return np.array([0.0, 0.25, np.nextafter(0.25, 0), np.nextafter(1, 0)])

    p = Categorical.from_probs(np.array([0.0, 0.25, 0.75, 0.0]))
    assert p.sample(4, Ends(np.random.PCG64(0))).tolist() == [1, 2, 1, 2]


# Maximum likelihood: the closed form, gradient descent, and no better neighbor.


@given(st.lists(st.integers(0, 3), max_size=60))
@settings(deadline=None, max_examples=40)
def test_categorical_fits_agree(extra):
    outcomes = np.array([0, 1, 2, 3, *extra])
    exact, climbed = Categorical.fit(outcomes, 4), Categorical.fit_by_gradient(outcomes, 4)
    np.testing.assert_allclose(climbed.probs, exact.probs, atol=1e-10)
    best = exact.log_prob(outcomes).sum()
    for other in np.random.default_rng(0).dirichlet(np.ones(4), size=20):
        assert Categorical.from_probs(other).log_prob(outcomes).sum() <= best + 1e-9


@given(st.lists(st.booleans(), max_size=60))
@settings(deadline=None, max_examples=40)
def test_bernoulli_fits_agree(extra):
    outcomes = np.array([False, True, *extra])
    exact, climbed = Bernoulli.fit(outcomes), Bernoulli.fit_by_gradient(outcomes)
    assert exact.p == pytest.approx(outcomes.mean())
    assert climbed.p == pytest.approx(exact.p, abs=1e-10)


@given(
    st.lists(st.floats(-3, 3), min_size=2, max_size=50),
    st.floats(-1e6, 1e6),
    st.sampled_from([1e-4, 1.0, 1e5]),
)
@settings(deadline=None, max_examples=60)
def test_gaussian_fits_agree_at_every_scale(shape, place, unit):
    values = place + unit * np.array([*shape, -4.0, 4.0])
    exact, climbed = Gaussian.fit(values), Gaussian.fit_by_gradient(values)
    assert climbed.mean == pytest.approx(exact.mean, abs=1e-9 * exact.std, rel=1e-12)
    assert climbed.std == pytest.approx(exact.std, rel=1e-9)
    best = exact.log_prob(values).sum()
    for shift, scale in ((0.01, 1), (-0.01, 1), (0, 1.01), (0, 0.99)):
        near = Gaussian(exact.mean + shift * exact.std, exact.std * scale)
        assert near.log_prob(values).sum() < best


def test_a_fit_of_float32_is_computed_in_float64():
    values = (1000 + np.random.default_rng(0).normal(size=5000)).astype(np.float32)
    wanted = values.astype(float)
    assert Gaussian.fit(values) == Gaussian(wanted.mean(), wanted.std())


# Bernoulli and Gaussian.


@given(chances, chances)
@settings(deadline=None)
def test_bernoulli_measures_equal_torchs(one, other):
    p, q = Bernoulli(one), Bernoulli(other)
    tp, tq = (torch.distributions.Bernoulli(torch.tensor(x, dtype=float)) for x in (one, other))
    assert p.entropy() == pytest.approx(float(tp.entropy()), rel=1e-9)
    assert p.kl(q) == pytest.approx(
        float(torch.distributions.kl_divergence(tp, tq)), rel=1e-7, abs=1e-9
    )
    assert p.cross_entropy(q) == pytest.approx(p.entropy() + p.kl(q))
    x = np.array([True, False])
    assert p.log_prob(x) == pytest.approx(
        tp.log_prob(torch.tensor([1.0, 0.0], dtype=float)).numpy()
    )


def test_certain_bernoullis():
    assert Bernoulli(1.0).entropy() == Bernoulli(0.0).entropy() == 0
    assert Bernoulli(0.0).log_prob(np.array([0, 1])).tolist() == [0, -inf]
    assert Bernoulli(0.5).kl(Bernoulli(0.0)) == inf


def test_the_kl_of_nearly_equal_gaussians_is_not_negative():
    for std in (1e-8, 3e-3, 1.0, 1e8):
        for ratio in (1 - 1e-7, 1 + 1e-7, 1 - 3e-8, 1 + 3e-8):
            assert Gaussian(0.0, std).kl(Gaussian(0.0, std * ratio)) >= -2e-16


@given(gaussians, gaussians)
@settings(deadline=None)
def test_gaussian_measures_equal_torchs(p, q):
    tp, tq = (torch.distributions.Normal(torch.tensor(g.mean, dtype=float), g.std) for g in (p, q))
    assert p.entropy() == pytest.approx(float(tp.entropy()))
    kl = float(torch.distributions.kl_divergence(tp, tq))
    assert p.kl(q) == pytest.approx(kl, rel=1e-9, abs=1e-9)
    x = np.linspace(-8, 8, 9)
    np.testing.assert_allclose(p.log_prob(x), tp.log_prob(torch.tensor(x)).numpy(), rtol=1e-9)


def test_the_divergence_of_gaussians_of_very_different_scales():
    assert Gaussian(0.0, 1.0).kl(Gaussian(0.0, 1e-160)) == inf
    assert Gaussian(1e200, 1.0).kl(Gaussian(-1e200, 1e-200)) == inf
    # log(1e400) - 1/2, where the ratio of the scales is below all numbers.
    narrow, wide = Gaussian(0.0, 1e-200), Gaussian(0.0, 1e200)
    assert narrow.kl(wide) == pytest.approx(400 * log(10) - 0.5)
    assert narrow.kl(narrow) == 0


def test_gaussian_measures_equal_their_integrals():
    p, q = Gaussian(1.0, 0.7), Gaussian(-0.5, 1.3)
    x, step = np.linspace(-20, 20, 100_001, retstep=True)
    density = np.exp(p.log_prob(x)) * step
    assert density.sum() == pytest.approx(1)
    assert -(density @ p.log_prob(x)) == pytest.approx(p.entropy())
    assert -(density @ q.log_prob(x)) == pytest.approx(p.cross_entropy(q))
    assert Gaussian(3.0, 1 / sqrt(2 * pi * e)).entropy() == pytest.approx(0)


def test_samples_have_the_moments():
    rng = np.random.default_rng(0)
    n = 100_000
    x = Gaussian(2.0, 3.0).sample(n, rng)
    assert x.mean() == pytest.approx(2, abs=4 * 3 / sqrt(n))
    assert x.std() == pytest.approx(3, abs=4 * 3 / sqrt(2 * n))
    y = Bernoulli(0.3).sample(n, rng)
    assert y.mean() == pytest.approx(0.3, abs=4 * sqrt(0.21 / n))


# Rejected input.


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Categorical(np.array([0.2, 0.8])), "use Categorical.from_probs"),
        (lambda: Categorical.from_probs(np.array([0.2, 0.9])), "sum to 1.1"),
        (lambda: Categorical.from_probs(np.array([-0.5, 1.5])), "none below 0"),
        (lambda: Categorical.from_logits(np.array([-inf, -inf])), "no finite largest"),
        (lambda: Categorical.from_logits(np.array([nan, 0.0])), "no finite largest"),
        (lambda: Categorical.from_logits(np.array([])), "no finite largest"),
        (lambda: log_softmax(np.zeros(2), -1.0), "temperature=-1.0"),
        (lambda: categorical([1, 1]).log_prob(np.array([-1])), r"outcome -1 is outside 0 \.\.\. 1"),
        (lambda: categorical([1, 1]).kl(categorical([1, 1, 1])), "over 2 and 3 outcomes"),
        (lambda: Categorical.fit(np.array([], int), 3), "no data"),
        (lambda: Categorical.fit(np.array([3]), 3), "outcome 3"),
        (lambda: Categorical.fit_by_gradient(np.array([0, 2]), 3), "outcome 1 was never seen"),
        (lambda: Bernoulli(1.5), "p=1.5"),
        (lambda: Bernoulli.fit(np.array([0, 2])), "outcome 2"),
        (lambda: Bernoulli.fit_by_gradient(np.array([1, 1])), "all outcomes are 1"),
        (lambda: Gaussian(0.0, 0.0), "std=0.0"),
        (lambda: Gaussian(nan, 1.0), "mean=nan"),
        (lambda: Gaussian.fit(np.array([3.0, 3.0])), "at least two different"),
        (lambda: Gaussian.fit_by_gradient(np.array([3.0])), "at least two different"),
    ],
)
def test_rejects_bad_input(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_rejects_gradient_ascent_for_rare_outcomes(monkeypatch):
    monkeypatch.setattr(probability, "_MAX_STEPS", 1000)
    outcomes = np.zeros(10**6, int)
    outcomes[0] = 1
    with pytest.raises(ValueError, match="has not converged"):
        Bernoulli.fit_by_gradient(outcomes)
    assert Bernoulli.fit(outcomes).p == 1e-6


def test_rejects_float_outcomes(unchecked_types):
    with pytest.raises(ValueError, match="type float64"):
        Bernoulli.fit(np.array([0.5, 1.0]))
