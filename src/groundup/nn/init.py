"""Initialization of parameters, and statistics that show the effects of a bad one.

A layer y = W x sums fan_in products, so with independent entries of variance v

    Var(y) = fan_in · v · E[x²],    and backward    Var(dx) = fan_out · v · Var(dy).

These factors multiply from layer to layer. Unless they are near 1, a signal through twenty layers
vanishes or explodes, and so does its gradient. Glorot and Bengio (2010) balance the two directions,
v = gain² · 2 / (fan_in + fan_out). He et al. (2015) preserve one of them and account for the
activation, v = gain² / fan_in with gain² = 2 for ReLU, which zeroes half of the values.
`activation_statistics` shows this on a real network, layer by layer.

The functions ending in "_" fill a tensor in place and return it, under torch's names. `rng` is a
generator or a seed; the default is a shared generator that `manual_seed` sets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from groundup.maths.arrays import Array, Shape
from groundup.maths.tensor import Tensor, grad, no_grad, set_grad_enabled
from groundup.nn.activations import Activation
from groundup.nn.module import Module, observers

Rng: TypeAlias = np.random.Generator | int | None
"""A generator, a seed for a new one, or None for the shared one."""
Mode: TypeAlias = Literal["fan_in", "fan_out"]
Nonlinearity: TypeAlias = Literal["linear", "sigmoid", "tanh", "relu", "leaky_relu"]

_shared = np.random.default_rng(0)


def manual_seed(seed: int) -> None:
    """Reset the shared generator from a seed."""
    global _shared
    _shared = np.random.default_rng(seed)


def generator(rng: Rng) -> np.random.Generator:
    """Return the generator for `rng`."""
    return _shared if rng is None else np.random.default_rng(rng)


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, rng: Rng = None) -> Tensor:
    """Fill with U(a, b)."""
    return _filled(tensor, generator(rng).uniform(a, b, tensor.shape))


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, rng: Rng = None) -> Tensor:
    """Fill with N(mean, std²)."""
    return _filled(tensor, generator(rng).normal(mean, std, tensor.shape))


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with zeros, for biases; weights that start equal would stay equal forever."""
    return _filled(tensor, np.zeros(tensor.shape))


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, rng: Rng = None) -> Tensor:
    """Fill with U(-b, b), b = gain √(6 / (fan_in + fan_out)) (Glorot and Bengio 2010, eq. 16)."""
    bound = gain * math.sqrt(6 / sum(_fans(tensor)))
    return uniform_(tensor, -bound, bound, rng)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, rng: Rng = None) -> Tensor:
    """Fill with N(0, σ²), σ = gain √(2 / (fan_in + fan_out)) (Glorot and Bengio 2010, eq. 12)."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(_fans(tensor))), rng)


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0.0,
    mode: Mode = "fan_in",
    nonlinearity: Nonlinearity = "leaky_relu",
    rng: Rng = None,
) -> Tensor:
    """Fill with U(-b, b), b = gain √(3 / fan) (He et al. 2015, section 2.2).

    `a` is the negative slope of a leaky ReLU; `mode` selects the direction in which variances are
    preserved. Raises `ValueError` for another mode or nonlinearity.
    """
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, rng)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0.0,
    mode: Mode = "fan_in",
    nonlinearity: Nonlinearity = "leaky_relu",
    rng: Rng = None,
) -> Tensor:
    """Fill with N(0, σ²), σ = gain / √fan; the arguments are those of `kaiming_uniform_`."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), rng)


def orthogonal_(tensor: Tensor, gain: float = 1.0, rng: Rng = None) -> Tensor:
    """Fill with a random orthogonal matrix, times gain (Saxe, McClelland and Ganguli 2013).

    Its rows or its columns, whichever are fewer, are orthonormal, so lengths are preserved exactly
    and not only on average. Further dimensions count as columns.
    """
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    _fans(tensor)
    normal = generator(rng).normal(size=(max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(normal)
    # The signs of the diagonal make every orthogonal matrix equally likely (Mezzadri 2007).
    q *= np.sign(np.diag(r))
    return _filled(tensor, gain * (q if rows >= columns else q.T).reshape(tensor.shape))


def calculate_gain(nonlinearity: Nonlinearity, param: float | None = None) -> float:
    """Return the factor by which this activation requires larger weights than no activation.

    1 for "linear" and "sigmoid", 5/3 for "tanh", √2 for "relu", √(2 / (1 + param²)) for
    "leaky_relu" of negative slope `param` (by default 0.01). Raises `ValueError` for other names.
    """
    slope = 0.01 if param is None else param
    gains = {
        "linear": 1.0,
        "sigmoid": 1.0,
        "tanh": 5 / 3,
        "relu": math.sqrt(2),
        "leaky_relu": math.sqrt(2 / (1 + slope**2)),
    }
    if nonlinearity not in gains:
        raise ValueError(f"no gain is known for {nonlinearity!r}; use one of {', '.join(gains)}")
    return gains[nonlinearity]


def uniform_parameter(shape: Shape, bound: float, rng: Rng, dtype: DTypeLike) -> Tensor:
    """Return a new parameter from U(-bound, bound), torch's default for most layers."""
    return uniform_(Tensor(np.empty(shape, dtype)), -bound, bound, rng)


def _filled(tensor: Tensor, values: Array) -> Tensor:
    with no_grad():
        return tensor.copy_(values)


def _fans(tensor: Tensor) -> tuple[int, int]:
    """Return the inputs of each output, and the outputs of each input."""
    if tensor.ndim < 2:
        raise ValueError(f"a tensor of shape {tensor.shape} has no fan-in and fan-out")
    out, into, *kernel = tensor.shape
    return into * math.prod(kernel), out * math.prod(kernel)


def _kaiming_std(tensor: Tensor, a: float, mode: Mode, nonlinearity: Nonlinearity) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode={mode!r} must be 'fan_in' or 'fan_out'")
    fan_in, fan_out = _fans(tensor)
    return calculate_gain(nonlinearity, a) / math.sqrt(fan_in if mode == "fan_in" else fan_out)


# Statistics, layer by layer

FLAT = 0.01
"""A slope below this passes less than a hundredth of a gradient: a sigmoid beyond 0.01, 0.99."""


@dataclass(frozen=True)
class LayerStatistics:
    """Statistics of one layer's outputs and their gradients on a batch."""

    name: str
    kind: str
    mean: float
    std: float
    gradient_std: float
    saturated: float | None
    """Share of outputs on a flat part of the activation; about half is normal for ReLU."""
    dead: float | None
    """Share of units that are flat for every example, so that no gradient passes."""


@set_grad_enabled(True)  # also within no_grad()
def activation_statistics(model: Module, x: Tensor, rng: Rng = 0) -> list[LayerStatistics]:
    """Measure each layer's outputs on a batch x, and the gradients with respect to them.

    The model must have one input and one output tensor. The backward pass starts from standard
    normal numbers at its output, so `gradient_std` is 1 there, and elsewhere the factor by which
    the layers above scale a gradient. Layers are in the order of their calls; containers are left
    out. No `.grad` changes. `saturated` and `dead` are None except for activations.
    """
    names = {id(layer): name for name, layer in model.named_modules()}
    calls: list[_Call] = []

    def observe(layer: Module, x: Any, output: Any) -> None:
        lowest = not any(layer.named_children())
        if id(layer) in names and lowest and isinstance(output, Tensor):
            calls.append(_Call(names[id(layer)], layer, x, output))

    before = observers.set((*observers.get(), observe))
    try:
        output = model(x)
    finally:
        observers.reset(before)
    seed = generator(rng).standard_normal(output.shape).astype(output.dtype)
    gradients = grad(output, [call.output for call in calls], seed)
    return [_statistics(call, g.data) for call, g in zip(calls, gradients, strict=True)]


@dataclass(frozen=True)
class _Call:
    name: str
    layer: Module
    input: Any
    output: Tensor


def _statistics(call: _Call, gradient: Array) -> LayerStatistics:
    saturated = dead = None
    if isinstance(call.layer, Activation):
        at = call.input.detach().requires_grad_()
        (slope,) = grad(call.layer.forward(at).sum(), at)
        flat = np.abs(slope.data) < FLAT
        saturated = float(flat.mean())
        dead = float(flat.reshape(-1, flat.shape[-1]).all(axis=0).mean())
    return LayerStatistics(
        name=call.name,
        kind=type(call.layer).__name__,
        mean=float(call.output.data.mean()),
        std=float(call.output.data.std()),
        gradient_std=float(gradient.std()),
        saturated=saturated,
        dead=dead,
    )
