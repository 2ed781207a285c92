"""Recurrent networks: a state that is updated at each step of a sequence.

    RNN    h' = tanh(W x + U h)                            Elman (1990)
    LSTM   c' = f c + i g,  h' = o tanh(c')                Hochreiter and Schmidhuber (1997)
    GRU    h' = z h + (1 - z) n                            Cho et al. (2014)

In the plain network each step multiplies a gradient by Uᵀ and the slope of tanh, so over many steps
it vanishes or explodes. The other two update a state by addition: with a gate f or z near 1 it
passes almost unchanged, and so does its gradient.

Names, gate order and initial values are torch's: U(-b, b) with b = 1 / √hidden_size. `rnn_step`,
`lstm_step` and `gru_step` are formulas for tensors of both engines, ours and torch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TypeAlias, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from groundup.maths.arrays import ShapeError
from groundup.maths.ops import stack
from groundup.maths.tensor import Tensor
from groundup.nn import init
from groundup.nn.init import Rng
from groundup.nn.layers import linear
from groundup.nn.module import Module

T = TypeVar("T", bound=Any)
"""A tensor of either engine, ours or torch's."""


def rnn_step(x: T, h: T, w_ih: T, w_hh: T, b_ih: Any = None, b_hh: Any = None) -> T:
    """Compute h' = tanh(W x + b + U h + b') for x (…, input_size) and h (…, hidden_size)."""
    return _rnn(linear(x, w_ih, b_ih), (h,), w_hh, b_hh)[0]


def lstm_step(
    x: T, h: T, c: T, w_ih: T, w_hh: T, b_ih: Any = None, b_hh: Any = None
) -> tuple[T, T]:
    """Compute h' and c' of an LSTM, from x (…, input_size) and h, c (…, hidden_size).

    i, f, g, o = W x + b + U h + b' in four parts    (input, forget, candidate, output)
    c' = sigmoid(f) c + sigmoid(i) tanh(g),  h' = sigmoid(o) tanh(c')

    With the forget gate of Gers, Schmidhuber and Cummins (2000), "Learning to forget".
    """
    new_h, new_c = _lstm(linear(x, w_ih, b_ih), (h, c), w_hh, b_hh)
    return new_h, new_c


def gru_step(x: T, h: T, w_ih: T, w_hh: T, b_ih: Any = None, b_hh: Any = None) -> T:
    """Compute h' of a GRU, from x (…, input_size) and h (…, hidden_size).

    r, z, n = W x + b and r', z', n' = U h + b' in three parts    (reset, update, candidate)
    h' = ζ h + (1 - ζ) tanh(n + sigmoid(r + r') n'),  ζ = sigmoid(z + z')

    This is the form of torch and cuDNN, where the reset gate is applied after the product with U.
    """
    return _gru(linear(x, w_ih, b_ih), (h,), w_hh, b_hh)[0]


# The updates, given the input's part a = W x + b, which one product computes for a whole sequence

State: TypeAlias = tuple[T, ...]


def _rnn(a: T, state: State[T], w_hh: T, b_hh: Any) -> State[T]:
    (h,) = state
    return ((a + linear(h, w_hh, b_hh)).tanh(),)


def _lstm(a: T, state: State[T], w_hh: T, b_hh: Any) -> State[T]:
    h, c = state
    i, f, g, o = _parts(a + linear(h, w_hh, b_hh), 4)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def _gru(a: T, state: State[T], w_hh: T, b_hh: Any) -> State[T]:
    (h,) = state
    r, z, n = _parts(a, 3)
    r_h, z_h, n_h = _parts(linear(h, w_hh, b_hh), 3)
    candidate = (n + (r + r_h).sigmoid() * n_h).tanh()
    return (candidate + (z + z_h).sigmoid() * (h - candidate),)


def _parts(gates: T, count: int) -> list[T]:
    width = gates.shape[-1] // count
    return [gates[..., k * width : (k + 1) * width] for k in range(count)]


def _initial(
    gates: int, input_size: int, hidden_size: int, bias: bool, rng: Rng, dtype: DTypeLike
) -> dict[str, Tensor | None]:
    """Return the weights of one layer by name, from U(-b, b) with b = 1 / √hidden_size."""
    for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
        if size < 1:
            raise ValueError(f"{name}={size} must be at least 1")
    rng, bound, rows = init.generator(rng), 1 / math.sqrt(hidden_size), gates * hidden_size
    shapes: dict[str, tuple[int, ...]] = {
        "weight_ih": (rows, input_size),
        "weight_hh": (rows, hidden_size),
        "bias_ih": (rows,),
        "bias_hh": (rows,),
    }
    return {
        name: init.uniform_parameter(shape, bound, rng, dtype)
        if bias or name.startswith("weight")
        else None
        for name, shape in shapes.items()
    }


# One step


class Cell(Module):
    """One step of a recurrent network, with its weights.

    The weights are weight_ih (gates · hidden_size, input_size), weight_hh (gates · hidden_size,
    hidden_size), bias_ih and bias_hh (gates · hidden_size). Inputs are (n, input_size) or
    (input_size); the default state is 0.
    """

    gates: ClassVar[int]
    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        rng: Rng = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        weights = _initial(self.gates, input_size, hidden_size, bias, rng, dtype)
        for name, weight in weights.items():
            setattr(self, name, weight)

    @property
    def weights(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """The weights in the order of the step functions' arguments."""
        return self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh

    def zeros(self, x: Tensor) -> Tensor:
        """Return the state before the first input."""
        return x.new_zeros(*x.shape[:-1], self.hidden_size)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class RNNCell(Cell):
    """`rnn_step` with its weights: (x, h) gives h'."""

    gates = 1

    def forward(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        return rnn_step(x, self.zeros(x) if h is None else h, *self.weights)


class LSTMCell(Cell):
    """`lstm_step` with its weights: (x, (h, c)) gives (h', c')."""

    gates = 4

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        h, c = (self.zeros(x), self.zeros(x)) if state is None else state
        return lstm_step(x, h, c, *self.weights)


class GRUCell(Cell):
    """`gru_step` with its weights: (x, h) gives h'."""

    gates = 3

    def forward(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        return gru_step(x, self.zeros(x) if h is None else h, *self.weights)


# A sequence


class Recurrent(Module):
    """A recurrent network over a sequence; each layer reads the states of the layer below.

    Inputs are (time, n, input_size), or with `batch_first` (n, time, input_size); outputs are the
    last layer's states h in the same order. Initial and final states are (num_layers, n,
    hidden_size); the default is 0. Layer k has the weights of a cell, as weight_ih_lk ….
    """

    gates: ClassVar[int]
    update: ClassVar[Callable[..., tuple[Tensor, ...]]]
    states: ClassVar[int] = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        rng: Rng = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        if num_layers < 1:
            raise ValueError(f"num_layers={num_layers} must be at least 1")
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        rng = init.generator(rng)
        for layer in range(num_layers):
            size = hidden_size if layer else input_size
            weights = _initial(self.gates, size, hidden_size, bias, rng, dtype)
            for name, weight in weights.items():
                setattr(self, f"{name}_l{layer}", weight)

    def run(self, x: Tensor, given: tuple[Tensor, ...] | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the outputs and the states after the last step; `ShapeError` for bad shapes."""
        if x.ndim != 3 or x.shape[2] != self.input_size or not x.numel():
            order = "n, time" if self.batch_first else "time, n"
            raise ShapeError(
                f"an input of shape {x.shape} does not fit ({order}, {self.input_size}) with at "
                "least one step"
            )
        below = x.transpose(0, 1) if self.batch_first else x
        shape = (self.num_layers, below.shape[1], self.hidden_size)
        for h in given or ():
            if h.shape != shape:
                raise ShapeError(f"a state of shape {h.shape} does not fit {shape}")
        first = (x.new_zeros(*shape),) * self.states if given is None else given
        last = []
        for layer in range(self.num_layers):
            below, state = self._layer(layer, below, tuple(h[layer] for h in first))
            last.append(state)
        outputs = below.transpose(0, 1) if self.batch_first else below
        return outputs, tuple(stack(layers) for layers in zip(*last, strict=True))

    def _layer(
        self, layer: int, x: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run one layer over time; return its h at each step and its last state."""
        w_ih, w_hh, b_ih, b_hh = (
            getattr(self, f"{name}_l{layer}")
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        outputs = []
        for a in _unbound(linear(x, w_ih, b_ih)):
            state = self.update(a, state, w_hh, b_hh)
            outputs.append(state[0])
        return stack(outputs), state

    def extra_repr(self) -> str:
        return (
            f"{self.input_size}, {self.hidden_size}"
            + (f", num_layers={self.num_layers}" if self.num_layers > 1 else "")
            + ("" if self.bias else ", bias=False")
            + (", batch_first=True" if self.batch_first else "")
        )


class RNN(Recurrent):
    """`rnn_step` over time: (x, h) gives (outputs, h')."""

    gates = 1
    update = staticmethod(_rnn)

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, (last,) = self.run(x, None if h is None else (h,))
        return outputs, last


class LSTM(Recurrent):
    """`lstm_step` over time: (x, (h, c)) gives (outputs, (h', c'))."""

    gates = 4
    update = staticmethod(_lstm)
    states = 2

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        outputs, (h, c) = self.run(x, state)
        return outputs, (h, c)


class GRU(Recurrent):
    """`gru_step` over time: (x, h) gives (outputs, h')."""

    gates = 3
    update = staticmethod(_gru)

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs, (last,) = self.run(x, None if h is None else (h,))
        return outputs, last


def _unbound(x: Tensor) -> Iterator[Tensor]:
    """Yield x[0], x[1], …, by recursive halving.

    The gradient of a slice is as large as the tensor it was taken from. Slicing the whole tensor n
    times would cost n² in the backward pass; halving costs n log n.
    """
    if len(x) == 1:
        yield x[0]
    else:
        half = len(x) // 2
        yield from _unbound(x[:half])
        yield from _unbound(x[half:])
