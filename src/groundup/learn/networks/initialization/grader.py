"""Trials of 2.2: against the tape, `nn.init` and `activation_statistics`."""

from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from groundup.learn.exercise import Trial
from groundup.maths import Tensor, grad
from groundup.nn import Linear, ReLU, Sequential
from groundup.nn.init import activation_statistics, calculate_gain


def trials(seed: int) -> Iterator[Trial]:
    """The gate, the rule, and signals through three networks."""
    rng = np.random.default_rng(seed)
    yield _relu("three numbers", np.array([2.0, -3.0, 5.0]), np.array([1.5, 2.0, -1.0]))
    yield _relu("exactly 0", np.array([4.0, -1.0]), np.array([0.0, 0.5]))
    yield _relu("a matrix", rng.normal(size=(3, 4)), rng.normal(size=(3, 4)))
    for fan_in in (8, 256):
        yield _std(fan_in)
    one = [rng.normal(size=(5, 3))]
    yield _spreads("one layer", rng.normal(size=(4, 3)), one)
    yield _spreads("three square layers", rng.normal(size=(6, 8)), list(rng.normal(size=(3, 8, 8))))
    sizes = [(16, 10), (12, 16), (7, 12)]
    layers = [rng.normal(size=size) / 3 for size in sizes]
    yield _spreads("three layers of different widths", rng.normal(size=(20, 10)), layers)


def _relu(about: str, g: np.ndarray, z: np.ndarray) -> Trial:
    at = Tensor(z)
    expected = grad(at.relu(), at, g)[0].data

    def run(part: ModuleType) -> Any:
        return part.relu_backward(g, z)

    return Trial(f"relu_backward, {about}", run, expected, {"g": g, "z": z})


def _std(fan_in: int) -> Trial:
    def run(part: ModuleType) -> Any:
        return part.he_std(fan_in)

    expected = calculate_gain("relu") / fan_in**0.5
    return Trial(f"he_std, {fan_in} inputs", run, expected, {"fan_in": fan_in}, rtol=1e-9)


def _spreads(about: str, x: np.ndarray, weights: Sequence[np.ndarray]) -> Trial:
    layers: list[Linear | ReLU] = []
    for w in weights:
        layer = Linear(w.shape[1], w.shape[0], bias=False, dtype=np.float64)
        layer.weight.data[...] = w
        layers += [layer, ReLU()]
    network = Sequential(*layers)
    found = activation_statistics(network, Tensor(x))
    expected = [layer.std for layer in found if layer.kind == "ReLU"]

    def run(part: ModuleType) -> Any:
        return part.spreads(x, weights)

    shown = {"x": x, **{f"W{n}": w for n, w in enumerate(weights, start=1)}}
    return Trial(f"spreads, {about}", run, expected, shown, rtol=1e-7)
