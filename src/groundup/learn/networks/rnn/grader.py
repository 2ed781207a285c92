"""Trials of 2.8: states and gradients against those of `nn.RNN`."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from groundup.learn.exercise import Trial
from groundup.maths import Tensor, grad
from groundup.nn.recurrent import RNN, rnn_step

NAMES = ("w_ih", "w_hh", "b_ih", "b_hh")


def trials(seed: int) -> Iterator[Trial]:
    """One step with and without biases, then sequences; then gradients through time."""
    rng = np.random.default_rng(seed)
    weights = _weights(rng, 3, 2)
    yield _step("one sequence", rng, weights, 1, 3)
    yield _step("four sequences", rng, _weights(rng, 3, 4), 4, 3)
    yield _step("as wide as the input", rng, _weights(rng, 3, 3), 2, 3)
    yield _step("no biases", rng, [*weights[:2], None, None], 2, 3)
    yield _step("b_ih alone", rng, [*weights[:3], None], 2, 3)
    yield _step("b_hh alone", rng, [*weights[:2], None, weights[3]], 2, 3)
    yield _rnn("three steps", rng, 3, 2, gradients=False)
    yield _rnn("as many steps as sequences", rng, 4, 4, gradients=False)
    yield _rnn("one step", rng, 1, 2, gradients=False)
    yield _rnn("the gradients of Σ h²", rng, 4, 2, gradients=True)


def _weights(rng: np.random.Generator, width: int, hidden: int) -> list[Tensor | None]:
    shapes = ((hidden, width), (hidden, hidden), (hidden,), (hidden,))
    return [Tensor(rng.normal(size=shape)) for shape in shapes]


def _step(
    about: str, rng: np.random.Generator, weights: list[Tensor | None], n: int, width: int
) -> Trial:
    w_ih = weights[0]
    assert w_ih is not None
    x, h = Tensor(rng.normal(size=(n, width))), Tensor(rng.normal(size=(n, w_ih.shape[0])))

    def run(part: ModuleType) -> Any:
        return part.step(x, h, *weights)

    shown = {"x": x, "h": h, **dict(zip(NAMES, weights, strict=True))}
    expected = rnn_step(x, h, *weights)
    return Trial(f"step, {about}", run, expected, shown, rtol=1e-9)


def _rnn(about: str, rng: np.random.Generator, time: int, n: int, *, gradients: bool) -> Trial:
    width, hidden = 3, 2
    network = RNN(width, hidden, rng=rng, dtype=np.float64)
    weights = list(network.parameters())
    x, h = Tensor(rng.normal(size=(time, n, width))), Tensor(rng.normal(size=(n, hidden)))

    def result(states: Tensor) -> Any:
        if not gradients:
            return states
        names = ("x", "h", *NAMES)
        found = grad((states * states).sum(), [x, h, *weights])
        return {f"by {name}": g.data for name, g in zip(names, found, strict=True)}

    expected = result(network(x, h.reshape(1, n, hidden))[0])

    def run(part: ModuleType) -> Any:
        return result(part.rnn(x, h, *weights))

    shown = {"x": x, "h": h, **dict(zip(NAMES, weights, strict=True))}
    return Trial(f"rnn, {about}", run, expected, shown, rtol=1e-8)
