"""Trials of 1.6: against `maths.probability.log_softmax` and `nn.cross_entropy`."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from groundup.learn.exercise import Trial
from groundup.maths.probability import log_softmax
from groundup.maths.tensor import Tensor
from groundup.nn.losses import cross_entropy


def trials(seed: int) -> Iterator[Trial]:
    """One row, several, extreme ones; then losses."""
    rng = np.random.default_rng(seed)
    few = rng.integers(-2, 3, size=3).astype(float) + np.array([0.0, 0.5, 1.0])
    rows = rng.normal(size=(2, 4))
    yield _log_softmax("one row", few)
    yield _log_softmax("two rows", rows)
    yield _log_softmax("a batch of rows", rng.normal(size=(2, 3, 2)))
    yield _log_softmax("large logits", np.array([[1000.0, 999.0, 0.0]]))
    yield _log_softmax("very small logits", np.array([[-2000.0, -2001.0, 5.0]]))
    yield _log_softmax("rows far apart", np.array([[2000.0, 1999.0], [-2000.0, -1998.0]]))
    yield _loss("a loss over three rows", rng.normal(size=(3, 4)), rng.integers(4, size=3))
    yield _loss("a loss over eight rows", 3 * rng.normal(size=(8, 5)), rng.integers(5, size=8))
    sure = np.array([[1000.0, 999.0], [0.0, -1000.0]])
    yield _loss("very sure, and once wrong", sure, np.array([0, 1]))
    yield _loss("knowing nothing", np.zeros((2, 1000)), np.array([7, 999]))


def _log_softmax(about: str, logits: np.ndarray) -> Trial:
    def run(part: ModuleType) -> Any:
        return part.log_softmax(logits)

    return Trial(about, run, log_softmax(logits), {"logits": logits})


def _loss(about: str, logits: np.ndarray, targets: np.ndarray) -> Trial:
    def run(part: ModuleType) -> Any:
        return part.cross_entropy(logits, targets)

    expected = cross_entropy(Tensor(logits), targets).item()
    return Trial(about, run, expected, {"logits": logits, "targets": targets})
