"""The KL estimators: equal on arrays and torch tensors, and compared with exact sums."""

from __future__ import annotations

from math import inf, log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.maths.kl import (
    ESTIMATORS,
    estimator_bias_and_variance,
    kl_estimates,
    kl_k1,
    kl_k2,
    kl_k3,
)
from groundup.maths.probability import Categorical, Gaussian

logits = st.lists(st.floats(-3, 3), min_size=5, max_size=5).map(np.array)


def from_probs(*probs: float) -> Categorical:
    return Categorical.from_probs(np.array(probs))


def test_values_by_hand_on_torch():
    log_ratio = torch.tensor([0.0, log(2), -log(2)], dtype=torch.float64)
    assert kl_k1(log_ratio).tolist() == pytest.approx([0, -log(2), log(2)])
    assert kl_k2(log_ratio).tolist() == pytest.approx([0, log(2) ** 2 / 2, log(2) ** 2 / 2])
    assert kl_k3(log_ratio).tolist() == pytest.approx([0, 1 - log(2), -0.5 + log(2)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_k3_is_accurate_for_close_distributions(dtype):
    """Evaluating exp(x) - 1 - x directly gives 0 or less there."""
    log_ratio = torch.tensor([-3e-4, 1e-3, -1e-3, 2e-2], dtype=dtype)
    exact = log_ratio.double().expm1() - log_ratio.double()
    found = kl_k3(log_ratio.float()).double()
    assert found.tolist() == pytest.approx(exact.tolist(), rel=2e-3)


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=20), st.floats(-1, 1))
@settings(deadline=None)
def test_arrays_and_tensors_use_the_same_formulas(values, shift):
    logq = np.array(values)
    logp = logq * 0.5 + shift
    found = kl_estimates(logp, logq)
    for name, k in ESTIMATORS.items():
        oracle = k(torch.tensor(logp - logq))
        assert found[name].mean == pytest.approx(float(oracle.mean()), abs=1e-12)
        error = float(oracle.std()) / len(values) ** 0.5
        assert found[name].standard_error == pytest.approx(error, abs=1e-12)


@given(logits, logits)
@settings(deadline=None)
def test_k1_and_k3_are_unbiased_and_k3_is_never_negative(one, other):
    p, q = Categorical.from_logits(one), Categorical.from_logits(other)
    exact = estimator_bias_and_variance(p, q)
    assert exact["k1"].bias == pytest.approx(0, abs=1e-10)
    assert exact["k3"].bias == pytest.approx(0, abs=1e-10)
    log_ratio = torch.tensor(p.logprobs - q.logprobs)
    assert (kl_k3(log_ratio) >= -1e-12).all()
    assert (kl_k2(log_ratio) >= 0).all()


def test_bias_and_variance_by_hand():
    """q is fair, p is 1/4 and 3/4: log r is log(1/2) or log(3/2), each half of the time."""
    q, p = from_probs(0.5, 0.5), from_probs(0.25, 0.75)
    low, high = log(0.5), log(1.5)
    truth = -(low + high) / 2
    exact = estimator_bias_and_variance(p, q, n=10)
    assert exact["k1"].variance == pytest.approx(((high - low) / 2) ** 2 / 10)
    assert exact["k2"].bias == pytest.approx((low**2 + high**2) / 4 - truth)
    k3 = np.array([0.5 - 1 - low, 1.5 - 1 - high])
    assert exact["k3"].variance == pytest.approx(k3.var() / 10)


def test_near_the_reference_k2_is_almost_unbiased_and_both_beat_k1():
    """Schulman's observation: neighbors differ in third order, and k1 has first-order noise."""
    z = np.random.default_rng(0).normal(size=20)
    change = np.random.default_rng(1).normal(size=20)
    biases = []
    for size in (0.2, 0.1, 0.05):
        p, q = Categorical.from_logits(z), Categorical.from_logits(z + size * change)
        exact = estimator_bias_and_variance(p, q)
        assert exact["k2"].variance < exact["k1"].variance / 10
        assert exact["k3"].variance < exact["k1"].variance / 10
        biases.append(abs(exact["k2"].bias))
    # Halving the distance makes the bias eight times smaller, the divergence only four.
    assert biases[0] / biases[1] == pytest.approx(8, rel=0.2)
    assert biases[1] / biases[2] == pytest.approx(8, rel=0.2)


def test_k3_can_be_worst_far_from_the_reference():
    p, q = from_probs(0.99, 0.01), from_probs(0.001, 0.999)
    exact = estimator_bias_and_variance(p, q)
    assert exact["k3"].variance > 100 * exact["k1"].variance
    assert abs(exact["k2"].bias) > q.kl(p)


def test_k3_misses_the_mass_of_p_where_q_is_zero():
    p, q = from_probs(0.3, 0.3, 0.4), from_probs(0.5, 0.5, 0.0)
    exact = estimator_bias_and_variance(p, q)
    assert exact["k1"].bias == pytest.approx(0)
    assert exact["k3"].bias == pytest.approx(-0.4)


def test_sampling_agrees_with_exact_sums():
    """Over 4,000 experiments of 50 samples: mean and variance of each estimate, within 4 errors."""
    rng = np.random.default_rng(0)
    p, q = (Categorical.from_logits(rng.normal(size=6)) for _ in range(2))
    exact = estimator_bias_and_variance(p, q, n=50)
    trials = []
    for _ in range(4000):
        x = q.sample(50, rng)
        found = kl_estimates(p.log_prob(x), q.log_prob(x))
        trials.append([found[name].mean for name in exact])
    for name, means in zip(exact, np.array(trials).T, strict=True):
        error = (exact[name].variance / 4000) ** 0.5
        assert means.mean() - q.kl(p) == pytest.approx(exact[name].bias, abs=4 * error), name
        assert means.var() == pytest.approx(exact[name].variance, rel=0.15), name


def test_gaussians_by_sampling():
    rng = np.random.default_rng(0)
    p, q = Gaussian(0.0, 1.0), Gaussian(0.2, 1.1)
    x = q.sample(100_000, rng)
    found = kl_estimates(p.log_prob(x), q.log_prob(x))
    for name in ("k1", "k3"):
        assert found[name].mean == pytest.approx(q.kl(p), abs=4 * found[name].standard_error)
    assert found["k3"].standard_error < found["k1"].standard_error / 2


def test_an_impossible_sample_gives_infinity():
    found = kl_estimates(np.array([-inf, -1.0]), np.array([-1.0, -1.0]))
    assert all(one.mean == inf for one in found.values())


def test_rejects_bad_input():
    with pytest.raises(ValueError, match=r"KL\(q \|\| p\) is infinite"):
        estimator_bias_and_variance(from_probs(1.0, 0.0), from_probs(0.5, 0.5))
    with pytest.raises(ValueError, match="1 values of log p"):
        kl_estimates(np.zeros(1), np.zeros(1))
    with pytest.raises(ValueError, match="n=0"):
        estimator_bias_and_variance(from_probs(0.5, 0.5), from_probs(0.5, 0.5), n=0)
