"""3.2 Embeddings and positions

The lesson: groundup learn 3.2        Check it: groundup learn check 3.2
"""

import torch
from torch import Tensor


def embed(ids: Tensor, table: Tensor) -> Tensor:
    """The row of each id. ids: (...); table: (vocabulary, width); result: (..., width)."""
    raise NotImplementedError


def frequencies(head_dim: int, theta: float) -> Tensor:
    """theta^(-2i/d) for i = 0 ... d/2 - 1, in float32. Result: (d/2,), in radians per position."""
    raise NotImplementedError


def angles(positions: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of all angles, with the d/2 values repeated once.

    positions: (..., time); frequencies: (d/2,); results: (..., time, d).
    """
    raise NotImplementedError


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x with each pair (feature i, feature i + d/2) rotated. All: (..., time, d)."""
    raise NotImplementedError
