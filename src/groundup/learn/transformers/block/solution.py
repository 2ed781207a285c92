"""One block of a transformer."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import silu

Layer = Callable[[Tensor], Tensor]


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight. x: (..., width); weight: (width,)."""
    mean_square = x.square().mean(-1, keepdim=True)
    return weight * (x * torch.rsqrt(mean_square + eps))


def swiglu(x: Tensor, gate: Layer, up: Layer, down: Layer) -> Tensor:
    """down(silu(gate(x)) * up(x))."""
    return down(silu(gate(x)) * up(x))


def block(x: Tensor, norm1: Layer, attend: Layer, norm2: Layer, feed: Layer) -> Tensor:
    """The stream after one block: each of its two parts reads a normed copy and adds its result."""
    h = x + attend(norm1(x))
    # The second part reads the result of the first.
    return h + feed(norm2(h))
