"""Correlation between two measurements of the same items.

    r = cov(x, y) / (sd(x) sd(y))      Pearson's, of the values: how well a straight line fits
    rho = r of the ranks               Spearman's: how well any increasing curve fits

Equal values share the mean of their ranks (Kendall and Gibbons 1990, "Rank correlation methods",
chapter 3). Source: Spearman (1904), "The proof and measurement of association between two things".
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float, Shaped

from groundup.maths.intervals import Interval, bootstrap_interval


def ranks(values: Shaped[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Gives each value's rank, 1 for the least; equal values share their mean rank."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: Float[np.ndarray, "n"] = (last - (counts - 1) / 2)[place]
    return mean


def correlation(one: Shaped[np.ndarray, "n"], other: Shaped[np.ndarray, "n"]) -> float:
    """Gives Pearson's r, from -1 to 1.

    Errors: `ValueError` for different lengths, and if either is constant.
    """
    if len(one) != len(other):
        raise ValueError(f"lengths {len(one)} and {len(other)} differ")
    if not (_varies(one) and _varies(other)):
        raise ValueError("constant values have no correlation; give values that differ")
    # Scaling by powers of 2 changes no digit, and prevents overflow and underflow of products.
    scaled = [np.ldexp(x, -np.frexp(np.abs(x).max())[1]) for x in np.array([one, other], float)]
    return float(np.clip(np.corrcoef(scaled)[0, 1], -1, 1))


def rank_correlation(one: Shaped[np.ndarray, "n"], other: Shaped[np.ndarray, "n"]) -> float:
    """Gives Spearman's rho, from -1 to 1. Errors: as `correlation`."""
    return correlation(ranks(one), ranks(other))


def rank_correlation_interval(
    one: Shaped[np.ndarray, "n"],
    other: Shaped[np.ndarray, "n"],
    *,
    clusters: Sequence[Hashable] | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Gives Spearman's rho with its 95 % bootstrap interval, drawing whole clusters.

    Each sample is ranked again; a sample with constant values counts as 0. Errors: as
    `correlation`.
    """

    def of(drawn: Float[np.ndarray, "m"]) -> float:
        some = drawn.astype(int)
        x, y = one[some], other[some]
        return rank_correlation(x, y) if _varies(x) and _varies(y) else 0.0

    estimate = rank_correlation(one, other)
    places = np.arange(len(one))
    found = bootstrap_interval(places, of, clusters=clusters, samples=samples, seed=seed)
    return Interval(estimate, found.low, found.high)


def _varies(values: Shaped[np.ndarray, "n"]) -> bool:
    return len(values) > 0 and bool((values != values[0]).any())
