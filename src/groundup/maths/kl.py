"""KL divergence from samples: three estimators with different bias and variance.

KL(q || p) = E_q[log q(x) - log p(x)] is a sum over all possible texts. A language model can only
sample some x ~ q and use the ratio r = p(x) / q(x) of each:

    k1 = -log r             unbiased, but of both signs, which cancel: high variance
    k2 = (log r)^2 / 2      never negative and of low variance, but biased, though little if p and q
                            are close: then KL is half the mean square of log r
    k3 = (r - 1) - log r    unbiased and never negative: k1 plus r - 1, whose mean is 0 and which
                            is low where k1 is high (a control variate)

"Low variance" holds while q is near p, as a policy in RLHF is kept near its reference; far away a
rare large r makes k3 the worst. E_q[r] = 1 requires that p is 0 wherever q is 0: k3 is too small by
the probability that p has there.

Source: Schulman (2020), "Approximating KL divergence", http://joschu.net/blog/kl-approx.html.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Protocol, Self, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float

from groundup.maths.probability import Categorical


@runtime_checkable
class Exponentiable(Protocol):
    """The operations that the estimators use: arithmetic and `.expm1()`, as tensors have."""

    def expm1(self) -> Self: ...
    def __neg__(self) -> Self: ...
    def __sub__(self, other: Self | float, /) -> Self: ...
    def __mul__(self, other: Self | float, /) -> Self: ...


T = TypeVar("T", bound=Exponentiable)


def kl_k1(log_ratio: T) -> T:
    """Gives -log r, elementwise, for log_ratio = log r = log p(x) - log q(x) with x ~ q."""
    return -log_ratio


def kl_k2(log_ratio: T) -> T:
    """Gives (log r)^2 / 2, elementwise, for log_ratio = log r = log p(x) - log q(x) with x ~ q."""
    return log_ratio * log_ratio * 0.5


def kl_k3(log_ratio: T) -> T:
    """Gives (r - 1) - log r, elementwise, for log_ratio = log r = log p(x) - log q(x), x ~ q."""
    return log_ratio.expm1() - log_ratio


ESTIMATORS = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3}


@dataclass(frozen=True)
class Estimate:
    """A mean over samples, in nats, and its standard error."""

    mean: float
    standard_error: float


def kl_estimates(logp: Float[np.ndarray, "n"], logq: Float[np.ndarray, "n"]) -> dict[str, Estimate]:
    """Estimates KL(q || p) from n samples x ~ q by all three estimators, named k1, k2, k3.

    `logp` and `logq` are log p(x) and log q(x) of the same samples. A sample with p(x) = 0 makes
    every estimate and its standard error infinite.
    Errors: `ValueError` for fewer than 2 samples or lengths that differ.
    """
    if len(logp) != len(logq) or len(logp) < 2:
        raise ValueError(f"{len(logp)} values of log p and {len(logq)} of log q: give 2 of each")
    log_ratio = (logp - logq).view(_Array)
    return {name: _estimate(np.asarray(k(log_ratio))) for name, k in ESTIMATORS.items()}


@dataclass(frozen=True)
class BiasAndVariance:
    """The difference of an estimator's expectation from KL(q || p), and its variance."""

    bias: float
    variance: float


def estimator_bias_and_variance(
    p: Categorical, q: Categorical, n: int = 1
) -> dict[str, BiasAndVariance]:
    """Computes the exact bias and variance of the mean of k1, k2 or k3 over n samples of q.

    bias = E_q[k] - KL(q || p)      variance = (E_q[k^2] - E_q[k]^2) / n

    No sample is drawn: expectations over a `Categorical` are sums over its outcomes. More samples
    reduce the variance but not the bias.
    Errors: `ValueError` if KL(q || p) is infinite, or for n below 1.
    """
    if n < 1:
        raise ValueError(f"n={n} samples have no mean; give 1 or more")
    truth = q.kl(p)
    if not np.isfinite(truth):
        raise ValueError("KL(q || p) is infinite: p is 0 for an outcome that q samples")
    log_ratio = (-q.log_ratio(p)).view(_Array)
    found = {}
    for name, k in ESTIMATORS.items():
        values = np.asarray(k(log_ratio))
        mean = q.expectation(values)
        found[name] = BiasAndVariance(mean - truth, q.expectation((values - mean) ** 2) / n)
    return found


class _Array(np.ndarray):
    """A NumPy array with the method `expm1`, which tensors have."""

    def expm1(self) -> _Array:
        return np.expm1(self).view(_Array)


def _estimate(values: Float[np.ndarray, "n"]) -> Estimate:
    if np.isinf(values).any():
        return Estimate(float("inf"), float("inf"))
    return Estimate(float(values.mean()), float(values.std(ddof=1)) / sqrt(len(values)))
