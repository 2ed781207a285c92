"""The commonest mistakes in a block."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import gelu, silu

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
    "gelu_for_silu": "swiglu",
    "relu_for_silu": "swiglu",
    "down_forgotten": "swiglu",
    "up_forgotten": "swiglu",
    "both_bent": "swiglu",
    "norms_of_what_is_found": "block",
    "feed_forward_first": "block",
    "norms_exchanged": "block",
    "first_part_replaces": "block",
    "second_norm_forgotten": "block",
    "gain_beside_one": "rms_norm",
    "multiplied_by_the_root": "rms_norm",
}


def mean_taken_away(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """That is LayerNorm: it subtracts the mean. RMSNorm only divides by the root of the mean
    square."""
    apart = x - x.mean(-1, keepdim=True)
    return weight * apart * torch.rsqrt(apart.square().mean(-1, keepdim=True) + eps)


def eps_outside(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """eps is added after the root. Add it under the root, to the mean square."""
    return weight * x / (x.square().mean(-1, keepdim=True).sqrt() + eps)


def sum_of_squares(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The vector is divided by its length, the root of the *sum* of squares. Take their mean, or
    every result is sqrt(width) too small."""
    return weight * x * torch.rsqrt(x.square().sum(-1, keepdim=True) + eps)


def weight_forgotten(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The weight is not used: multiply each feature by its gain at the end."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


def activation_on_up(x: Tensor, gate: Layer, up: Layer, down: Layer) -> Tensor:
    """silu is applied to up. Apply it to the gate: silu(gate(x)) * up(x)."""
    return down(gate(x) * silu(up(x)))


def sigmoid_gate(x: Tensor, gate: Layer, up: Layer, down: Layer) -> Tensor:
    """The gate uses a sigmoid, which is GLU. silu(z) is z * sigmoid(z)."""
    return down(gate(x).sigmoid() * up(x))


def gate_added(x: Tensor, gate: Layer, up: Layer, down: Layer) -> Tensor:
    """Gate and up are added. A gate multiplies: it says how much of each feature passes."""
    return down(silu(gate(x)) + up(x))


def no_residual(x: Tensor, norm1: Layer, attend: Layer, norm2: Layer, feed: Layer) -> Tensor:
    """The parts replace the stream. Add them to it: x + attend(norm1(x))."""
    return feed(norm2(attend(norm1(x))))


def norms_after(x: Tensor, norm1: Layer, attend: Layer, norm2: Layer, feed: Layer) -> Tensor:
    """The norms come after the sums, as in the first Transformer. Here each part reads a normed
    copy, and the stream itself is never normed."""
    h = norm1(x + attend(x))
    return norm2(h + feed(h))


def both_read_x(x: Tensor, norm1: Layer, attend: Layer, norm2: Layer, feed: Layer) -> Tensor:
    """Both parts read x. The second one reads the result of the first: norm2(h), with h = x +
    attend(norm1(x))."""
    return x + attend(norm1(x)) + feed(norm2(x))


def normed_stream(x: Tensor, norm1: Layer, attend: Layer, norm2: Layer, feed: Layer) -> Tensor:
    """The part's result is added to the normed copy. Add it to the stream itself: x +
    attend(norm1(x))."""
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
    """The variance was taken, which subtracts the mean first. Use the mean of the squares:
    x.square().mean(-1, keepdim=True)."""
    return weight * x * torch.rsqrt(x.var(-1, keepdim=True) + eps)


def over_everything(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The mean is over the whole tensor. Each vector has its own mean square: mean(-1,
    keepdim=True)."""
    return weight * x * torch.rsqrt(x.square().mean() + eps)


def own_eps(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """1e-6 is fixed in the function. Use the given eps: models have other values."""
    return weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def nothing_bent(x: Tensor, gate: Layer, up: Layer, down: Layer) -> Tensor:
    """silu is missing: apply it to the gate before multiplying."""
    return down(gate(x) * up(x))


def product_bent(x: Tensor, gate: Layer, up: Layer, down: Layer) -> Tensor:
    """silu is applied to the product. Apply it only to the gate: silu(gate(x)) * up(x)."""
    return down(silu(gate(x) * up(x)))


def added_to_x(x: Tensor, norm1: Layer, attend: Layer, norm2: Layer, feed: Layer) -> Tensor:
    """The second part is added to x, so the result of the first is lost. Add it to h: h +
    feed(norm2(h))."""
    return x + feed(norm2(x + attend(norm1(x))))


def second_part_replaces(
    x: Tensor, norm1: Layer, attend: Layer, norm2: Layer, feed: Layer
) -> Tensor:
    """The second part replaces the stream. Add it to the stream: h + feed(norm2(h))."""
    return feed(norm2(x + attend(norm1(x))))


def norms_forgotten(x: Tensor, norm1: Layer, attend: Layer, norm2: Layer, feed: Layer) -> Tensor:
    """The norms are missing: each part reads a normed copy, attend(norm1(x)) and feed(norm2(h))."""
    h = x + attend(x)
    return h + feed(h)


def first_norm_twice(x: Tensor, norm1: Layer, attend: Layer, norm2: Layer, feed: Layer) -> Tensor:
    """Both parts read a copy that norm1 made. The second one has its own, norm2."""
    h = x + attend(norm1(x))
    return h + feed(norm1(h))


def gelu_for_silu(x: Tensor, gate: Layer, up: Layer, down: Layer) -> Tensor:
    """The gate uses GELU, which is GEGLU. Use silu: z * sigmoid(z)."""
    return down(gelu(gate(x)) * up(x))


def relu_for_silu(x: Tensor, gate: Layer, up: Layer, down: Layer) -> Tensor:
    """The gate uses ReLU, which is ReGLU. Use silu: z * sigmoid(z)."""
    return down(gate(x).relu() * up(x))


def down_forgotten(x: Tensor, gate: Layer, up: Layer, down: Layer) -> Tensor:
    """The third matrix is missing: down projects back to the width of x."""
    return silu(gate(x)) * up(x)


def up_forgotten(x: Tensor, gate: Layer, up: Layer, down: Layer) -> Tensor:
    """up is not used: the gate says how much of each feature passes, and up(x) gives the
    features."""
    return down(silu(gate(x)))


def both_bent(x: Tensor, gate: Layer, up: Layer, down: Layer) -> Tensor:
    """silu is applied to both. Apply it only to the gate: silu(gate(x)) * up(x)."""
    return down(silu(gate(x)) * silu(up(x)))


def norms_of_what_is_found(
    x: Tensor, norm1: Layer, attend: Layer, norm2: Layer, feed: Layer
) -> Tensor:
    """The norms are applied to the results of the parts. Each part *reads* a normed copy,
    attend(norm1(x)), and its result is added without a norm."""
    h = x + norm1(attend(x))
    return h + norm2(feed(h))


def feed_forward_first(x: Tensor, norm1: Layer, attend: Layer, norm2: Layer, feed: Layer) -> Tensor:
    """The feed-forward part comes first here. It comes second and works on the result of
    attention."""
    h = x + feed(norm2(x))
    return h + attend(norm1(h))


def norms_exchanged(x: Tensor, norm1: Layer, attend: Layer, norm2: Layer, feed: Layer) -> Tensor:
    """The norms are exchanged: attention reads norm1(x), the feed-forward part norm2(h)."""
    h = x + attend(norm2(x))
    return h + feed(norm1(h))


def first_part_replaces(
    x: Tensor, norm1: Layer, attend: Layer, norm2: Layer, feed: Layer
) -> Tensor:
    """The first part replaces the stream. Add it to the stream: x + attend(norm1(x))."""
    h = attend(norm1(x))
    return h + feed(norm2(h))


def second_norm_forgotten(
    x: Tensor, norm1: Layer, attend: Layer, norm2: Layer, feed: Layer
) -> Tensor:
    """The second norm is missing: the feed-forward part reads norm2(h)."""
    h = x + attend(norm1(x))
    return h + feed(h)


def gain_beside_one(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """1 was added to the weight, as in Gemma. Here the weight is the gain itself."""
    return (1 + weight) * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


def multiplied_by_the_root(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The vector was multiplied by the root of its mean square. Divide by it."""
    return weight * x * torch.sqrt(x.square().mean(-1, keepdim=True) + eps)
