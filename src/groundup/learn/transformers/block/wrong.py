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
    "root_forgotten": "rms_norm",
    "square_of_the_mean": "rms_norm",
    "deviation": "rms_norm",
    "over_everything": "rms_norm",
    "own_eps": "rms_norm",
    "nothing_bent": "swiglu",
    "product_bent": "swiglu",
    "added_to_x": "block",
    "second_part_replaces": "block",
    "norms_forgotten": "block",
    "first_norm_twice": "block",
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


def root_forgotten(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The root is missing: divide by the root of the mean square."""
    return weight * x / (x.square().mean(-1, keepdim=True) + eps)


def square_of_the_mean(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """This takes the mean first and squares it. Square each feature first, then take the mean."""
    return weight * x * torch.rsqrt(x.mean(-1, keepdim=True).square() + eps)


def deviation(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The variance was taken, which takes the mean away first. The mean of the squares is asked
    for: x.square().mean(-1, keepdim=True)."""
    return weight * x * torch.rsqrt(x.var(-1, keepdim=True) + eps)


def over_everything(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The mean runs over the whole tensor. Each vector has a mean square of its own: mean(-1,
    keepdim=True)."""
    return weight * x * torch.rsqrt(x.square().mean() + eps)


def own_eps(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """1e-6 is written into the function. Take eps as it comes: models have others."""
    return weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def nothing_bent(x: Tensor, gate: Layer, up: Layer, down: Layer) -> Tensor:
    """silu is missing: the gate goes through it before it multiplies."""
    return down(gate(x) * up(x))


def product_bent(x: Tensor, gate: Layer, up: Layer, down: Layer) -> Tensor:
    """silu is applied to the product. It belongs to the gate alone: silu(gate(x)) * up(x)."""
    return down(silu(gate(x) * up(x)))


def added_to_x(x: Tensor, norm1: Layer, attend: Layer, norm2: Layer, feed: Layer) -> Tensor:
    """The second part is added to x, and what the first one found is lost. Add it to h: h +
    feed(norm2(h))."""
    return x + feed(norm2(x + attend(norm1(x))))


def second_part_replaces(
    x: Tensor, norm1: Layer, attend: Layer, norm2: Layer, feed: Layer
) -> Tensor:
    """The second part replaces the stream. It is to be added to it: h + feed(norm2(h))."""
    return feed(norm2(x + attend(norm1(x))))


def norms_forgotten(x: Tensor, norm1: Layer, attend: Layer, norm2: Layer, feed: Layer) -> Tensor:
    """The norms are missing: each part reads a normed copy, attend(norm1(x)) and feed(norm2(h))."""
    h = x + attend(x)
    return h + feed(h)


def first_norm_twice(x: Tensor, norm1: Layer, attend: Layer, norm2: Layer, feed: Layer) -> Tensor:
    """Both parts read a copy that norm1 made. The second one has its own, norm2."""
    h = x + attend(norm1(x))
    return h + feed(norm1(h))
