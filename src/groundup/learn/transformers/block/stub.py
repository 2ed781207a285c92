"""3.4 The block

The lesson: groundup learn 3.4        Check it: groundup learn check 3.4
"""

from collections.abc import Callable

import torch
from torch import Tensor

Layer = Callable[[Tensor], Tensor]


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight. x: (..., width); weight: (width,)."""
    raise NotImplementedError


def swiglu(x: Tensor, gate: Layer, up: Layer, down: Layer) -> Tensor:
    """down(silu(gate(x)) * up(x))."""
    raise NotImplementedError


def block(x: Tensor, norm1: Layer, attend: Layer, norm2: Layer, feed: Layer) -> Tensor:
    """The stream after one block: each of its two parts reads a normed copy and adds its result."""
    raise NotImplementedError
