"""Trials of 1.8: against `maths.bayes` and `maths.intervals`."""

from collections.abc import Iterator
from statistics import NormalDist
from types import ModuleType
from typing import Any

import numpy as np

from groundup.learn.exercise import Trial
from groundup.maths import bayes
from groundup.maths.intervals import bootstrap_difference, wilson_interval
from groundup.maths.probability import Categorical


def trials(seed: int) -> Iterator[Trial]:
    """Beliefs, then shares (the extremes among them), then differences."""
    rng = np.random.default_rng(seed)
    yield _posterior("the coin of the lesson", np.array([0.9, 0.1]), np.array([0.125, 1.0]))
    yield _posterior("four explanations", rng.dirichlet(np.ones(4)), rng.uniform(size=4))
    shares = ((int(rng.integers(30, 45)), 50), (50, 50), (0, 7), (13, 21), (14.5, 20))
    for successes, n in shares:
        yield _wilson(successes, n)
    yield _wilson(13, 21, z=2.576)
    # For fewer than 30 questions the product uses other percentiles.
    yield _difference("right or wrong, 40 questions", rng, 40, binary=True)
    yield _difference("marks, 40 questions", rng, 40, binary=False)


def _posterior(about: str, prior: np.ndarray, likelihoods: np.ndarray) -> Trial:
    believed = bayes.posterior(Categorical.from_probs(prior), np.log(likelihoods))

    def run(part: ModuleType) -> Any:
        return part.posterior(prior, likelihoods)

    shown = {"prior": prior, "likelihoods": likelihoods}
    return Trial(f"posterior, {about}", run, believed.probs, shown, rtol=1e-9)


def _wilson(successes: float, n: int, z: float = 1.96) -> Trial:
    found = wilson_interval(successes, n, confidence=2 * NormalDist().cdf(z) - 1)

    def run(part: ModuleType) -> Any:
        low, high = part.wilson(successes, n, z)
        return {"low": low, "high": high, "within 0 and 1": bool(0 <= low <= high <= 1)}

    expected = {"low": found.low, "high": found.high, "within 0 and 1": True}
    shown = {"successes": successes, "n": n, "z": z}
    return Trial(f"wilson, {successes} of {n}, z = {z}", run, expected, shown, atol=1e-12)


def _difference(about: str, rng: np.random.Generator, n: int, *, binary: bool) -> Trial:
    hardness = rng.normal(size=n)
    first, second = hardness + 0.4 + rng.normal(size=n) / 3, hardness + rng.normal(size=n) / 3
    if binary:
        first, second = (first > 0).astype(float), (second > -0.2).astype(float)
    samples, seed = 400, 5
    found = bootstrap_difference(first, second, samples=samples, seed=seed)
    # The same samples that the product draws from this seed.
    draws = np.random.default_rng(seed).integers(n, size=(samples, n))

    def run(part: ModuleType) -> Any:
        low, high = part.paired_difference(first, second, draws)
        return {"low": low, "high": high}

    shown = {"first": first, "second": second, "draws": draws}
    expected = {"low": found.low, "high": found.high}
    return Trial(f"paired_difference, {about}", run, expected, shown, atol=1e-12)
