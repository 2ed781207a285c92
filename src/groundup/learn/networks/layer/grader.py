"""Trials of 2.1: values and gradients against those of `nn.layers.linear`."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from groundup.learn.exercise import Trial
from groundup.maths import Tensor, grad
from groundup.nn.layers import linear


def trials(seed: int) -> Iterator[Trial]:
    """Neurons, then layers: small, without bias, square, of any dimensions; then gradients."""
    rng = np.random.default_rng(seed)
    yield _neuron("two inputs", Tensor(rng.normal(size=2)), Tensor(rng.normal(size=2)), 0.5)
    yield _neuron("five inputs", Tensor(rng.normal(size=5)), Tensor(rng.normal(size=5)), -1.0)
    yield _gradients_of_a_neuron(*(Tensor(rng.normal(size=size)) for size in (3, 3, ())))
    x, weight = Tensor(rng.normal(size=(2, 3))), Tensor(rng.normal(size=(4, 3)))
    bias = Tensor(rng.normal(size=4))
    yield _layer("two inputs, four neurons", x, weight, bias)
    yield _layer("no bias", x, weight, None)
    square = Tensor(rng.normal(size=(3, 3)))
    yield _layer("as many neurons as inputs", x, square, Tensor(rng.normal(size=3)))
    yield _layer("sequences", Tensor(rng.normal(size=(2, 5, 3))), weight, bias)
    yield _layer("a single vector", Tensor(rng.normal(size=3)), weight, bias)
    yield _gradients("the gradients", x, weight, bias)


def _neuron(about: str, x: Tensor, w: Tensor, b: float) -> Trial:
    bias = Tensor(b)
    expected = linear(x.reshape(1, -1), w.reshape(1, -1), bias.reshape(1)).sigmoid().reshape(())

    def run(part: ModuleType) -> Any:
        return part.neuron(x, w, bias)

    return Trial(f"a neuron, {about}", run, expected, {"x": x, "w": w, "b": bias}, rtol=1e-9)


def _gradients_of_a_neuron(x: Tensor, w: Tensor, b: Tensor) -> Trial:
    inputs = {"x": x, "w": w, "b": b}

    def gradients(y: Tensor) -> dict[str, Any]:
        found = grad(y, list(inputs.values()))
        return {f"gradient by {name}": g.data for name, g in zip(inputs, found, strict=True)}

    def run(part: ModuleType) -> Any:
        return gradients(part.neuron(x, w, b))

    expected = gradients(
        linear(x.reshape(1, -1), w.reshape(1, -1), b.reshape(1)).sigmoid().reshape(())
    )
    return Trial("a neuron, its gradients", run, expected, inputs, rtol=1e-9)


def _layer(about: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> Trial:
    def run(part: ModuleType) -> Any:
        return part.layer(x, weight, bias)

    shown = {"x": x, "weight": weight, "bias": bias}
    return Trial(f"a layer, {about}", run, linear(x, weight, bias), shown, rtol=1e-9)


def _gradients(about: str, x: Tensor, weight: Tensor, bias: Tensor) -> Trial:
    inputs = {"x": x, "weight": weight, "bias": bias}

    def gradients(y: Tensor) -> dict[str, Any]:
        found = grad((y * y).sum(), list(inputs.values()))
        return {f"gradient by {name}": g.data for name, g in zip(inputs, found, strict=True)}

    def run(part: ModuleType) -> Any:
        return gradients(part.layer(x, weight, bias))

    expected = gradients(linear(x, weight, bias))
    return Trial(f"a layer, {about} of Σ y²", run, expected, inputs, rtol=1e-9)
