"""Embeddings and rotary positions."""

import torch
from torch import Tensor


def embed(ids: Tensor, table: Tensor) -> Tensor:
    """The row of each id. ids: (...); table: (vocabulary, width); result: (..., width)."""
    return table[ids]


def frequencies(head_dim: int, theta: float) -> Tensor:
    """theta^(-2i/d) for i = 0 ... d/2 - 1, in float32. Result: (d/2,), in radians per position."""
    exponents = torch.arange(0, head_dim, 2).float() / head_dim
    return 1.0 / theta**exponents


def angles(positions: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of all angles, with the d/2 values repeated once.

    positions: (..., time); frequencies: (d/2,); results: (..., time, d).
    """
    half = positions[..., None].float() * frequencies
    # Both features of a pair are rotated by the same angle; they are half a head apart.
    whole = torch.cat((half, half), dim=-1)
    return whole.cos(), whole.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x with each pair (feature i, feature i + d/2) rotated. All: (..., time, d)."""
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin
