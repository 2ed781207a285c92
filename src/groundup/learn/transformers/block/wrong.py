"""What goes wrong in a block."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import silu

Layer = Callable[[Tensor], Tensor]

REPLACES = {
    "mean_taken_away": "rms_norm",
    "eps_outside": "rms_norm",
    "sum_of_squares": "rms_norm",
    "weight_forgotten": "rms_norm",
    "activation_on_up": "swiglu",
    "sigmoid_gate": "swiglu",
    "gate_added": "swiglu",
    "no_residual": "block",
    "norms_after": "block",
    "both_read_x": "block",
    "normed_stream": "block",
}


def mean_taken_away(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """That is LayerNorm: it takes the mean away. RMSNorm divides by the root of the mean square,
    and takes nothing away."""
    apart = x - x.mean(-1, keepdim=True)
    return weight * apart * torch.rsqrt(apart.square().mean(-1, keepdim=True) + eps)


def eps_outside(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """eps is added after the root. It belongs under it, to the mean square."""
    return weight * x / (x.square().mean(-1, keepdim=True).sqrt() + eps)


def sum_of_squares(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The vector is divided by its length, the root of the *sum* of squares. Take their mean, or
    every result is sqrt(width) too small."""
    return weight * x * torch.rsqrt(x.square().sum(-1, keepdim=True) + eps)


def weight_forgotten(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The weight is not used: multiply each feature with its gain at last."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


def activation_on_up(x: Tensor, gate: Layer, up: Layer, down: Layer) -> Tensor:
    """silu is applied to up. It belongs to the gate: silu(gate(x)) * up(x)."""
    return down(gate(x) * silu(up(x)))


def sigmoid_gate(x: Tensor, gate: Layer, up: Layer, down: Layer) -> Tensor:
    """The gate goes through a sigmoid, which is GLU. silu(z) is z * sigmoid(z)."""
    return down(gate(x).sigmoid() * up(x))


def gate_added(x: Tensor, gate: Layer, up: Layer, down: Layer) -> Tensor:
    """Gate and up are added. A gate multiplies: it says how much of each feature passes."""
    return down(silu(gate(x)) + up(x))


def no_residual(x: Tensor, norm1: Layer, attend: Layer, norm2: Layer, feed: Layer) -> Tensor:
    """The parts replace the stream. They are to be added to it: x + attend(norm1(x))."""
    return feed(norm2(attend(norm1(x))))


def norms_after(x: Tensor, norm1: Layer, attend: Layer, norm2: Layer, feed: Layer) -> Tensor:
    """The norms come after the sums, as in the first Transformer. Here each part reads a normed
    copy and the stream itself is never normed."""
    h = norm1(x + attend(x))
    return norm2(h + feed(h))


def both_read_x(x: Tensor, norm1: Layer, attend: Layer, norm2: Layer, feed: Layer) -> Tensor:
    """Both parts read x. The second one reads what the first has left: norm2(h), with h = x +
    attend(norm1(x))."""
    return x + attend(norm1(x)) + feed(norm2(x))


def normed_stream(x: Tensor, norm1: Layer, attend: Layer, norm2: Layer, feed: Layer) -> Tensor:
    """What is added to is the normed copy. Add to the stream as it was: x + attend(norm1(x))."""
    a = norm1(x)
    h = a + attend(a)
    b = norm2(h)
    return b + feed(b)
