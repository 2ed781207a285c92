"""Trials of 2.3: gradients against those of `nn` and its tape."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from groundup.learn.exercise import Trial
from groundup.maths import Tensor, grad
from groundup.maths.tensor import Operation, observers
from groundup.nn.layers import linear
from groundup.nn.losses import cross_entropy


def trials(seed: int) -> Iterator[Trial]:
    """A tiny network, a square one, a larger one; the tape; and which function used the tape."""
    rng = np.random.default_rng(seed)
    yield _network("two rows", "gradients", rng, 2, 2, 3, 2)
    yield _network("all widths alike", "gradients", rng, 4, 3, 3, 3)
    yield _network("sixteen rows", "gradients", rng, 16, 5, 7, 4)
    yield _network("by tape, two rows", "by_tape", rng, 2, 2, 3, 2)
    yield _network("by tape, sixteen rows", "by_tape", rng, 16, 5, 7, 4)
    yield _taped("gradients", False)
    yield _taped("by_tape", True)


def _network(
    about: str, name: str, rng: np.random.Generator, n: int, width: int, hidden: int, kinds: int
) -> Trial:
    x, classes = rng.normal(size=(n, width)), rng.integers(kinds, size=n)
    w1, b1 = rng.normal(size=(hidden, width)), rng.normal(size=hidden)
    w2, b2 = rng.normal(size=(kinds, hidden)), rng.normal(size=kinds)
    parameters = [Tensor(array) for array in (w1, b1, w2, b2)]
    t1, c1, t2, c2 = parameters
    inputs = Tensor(x, requires_grad=False)
    loss = cross_entropy(linear(linear(inputs, t1, c1).tanh(), t2, c2), classes)
    found = [gradient.data for gradient in grad(loss, parameters)]

    def run(part: ModuleType) -> Any:
        return getattr(part, name)(x, classes, w1, b1, w2, b2)

    shown = {"x": x, "classes": classes, "w1": w1, "b1": b1, "w2": w2, "b2": b2}
    expected = dict(zip(("w1", "b1", "w2", "b2"), found, strict=True))
    return Trial(about, run, expected, shown, rtol=1e-7, atol=1e-12)


def _taped(name: str, expected: bool) -> Trial:
    """Whether an operation of the part was recorded on the tape."""
    given = (np.ones((2, 2)), np.array([0, 1]), np.eye(2), np.ones(2), np.eye(2), np.zeros(2))

    def run(part: ModuleType) -> Any:
        taped = False

        def observe(operation: Operation, out: Tensor) -> None:
            nonlocal taped
            taped = taped or out.requires_grad

        before = observers.set((*observers.get(), observe))
        try:
            getattr(part, name)(*given)
        finally:
            observers.reset(before)
        return {"on the tape": taped}

    shown = dict(zip(("x", "classes", "w1", "b1", "w2", "b2"), given, strict=True))
    return Trial(f"whether {name} uses the tape", run, {"on the tape": expected}, shown)
