"""Trials of 1.7: against `Categorical.kl` and the estimators of `maths.kl`."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from groundup.learn.exercise import Trial
from groundup.maths.kl import kl_k1, kl_k3
from groundup.maths.probability import Categorical
from groundup.maths.tensor import Tensor


def trials(seed: int) -> Iterator[Trial]:
    """Distributions with and without impossible outcomes, then log-ratios."""
    rng = np.random.default_rng(seed)
    p = float(rng.uniform(0.6, 0.9))
    yield _kl("a coin", np.array([0.5, 0.5]), np.array([p, 1 - p]))
    yield _kl("five outcomes", rng.dirichlet(np.ones(5)), rng.dirichlet(np.ones(5)))
    yield _kl("equal ones", np.array([0.25, 0.75]), np.array([0.25, 0.75]))
    yield _kl("an outcome that q never gives", np.array([1.0, 0.0]), np.array([0.5, 0.5]))
    yield _kl("an outcome that neither gives", np.array([0.3, 0.7, 0.0]), np.array([0.6, 0.4, 0.0]))
    yield _kl("an outcome that p finds impossible", np.array([0.5, 0.5]), np.array([1.0, 0.0]))
    for name, oracle in (("k1", kl_k1), ("k3", kl_k3)):
        ratios = rng.normal(size=3) / 2
        yield _estimator("three samples", name, oracle, ratios)
        yield _estimator("p and q agree, and nearly", name, oracle, np.array([0.0, 0.01, -0.01]))


def _kl(about: str, q: np.ndarray, p: np.ndarray) -> Trial:
    def run(part: ModuleType) -> Any:
        return part.kl(q, p)

    expected = Categorical.from_probs(q).kl(Categorical.from_probs(p))
    return Trial(f"kl, {about}", run, expected, {"q": q, "p": p}, rtol=1e-7, atol=1e-12)


def _estimator(about: str, name: str, oracle: Any, ratios: np.ndarray) -> Trial:
    log_ratio = Tensor(ratios, requires_grad=False)
    expected = oracle(log_ratio)

    def run(part: ModuleType) -> Any:
        return getattr(part, name)(log_ratio)

    return Trial(f"{name}, {about}", run, expected, {"log_ratio": log_ratio}, rtol=1e-9)
