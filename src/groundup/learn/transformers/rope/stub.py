"""3.2 Embeddings and positions

The lesson: groundup learn 3.2        Check it: groundup learn check 3.2
"""

import torch
from torch import Tensor


def embed(ids: Tensor, table: Tensor) -> Tensor:
    """For each id its row. ids: (...); table: (vocabulary, width); result: (..., width)."""
    raise NotImplementedError


def frequencies(head_dim: int, theta: float) -> Tensor:
    """theta^(-2i/d) for i = 0 ... d/2 - 1, in float32. Result: (d/2,), radians a position."""
    raise NotImplementedError


def angles(positions: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of all angles, the d/2 values twice in a row.

    positions: (..., time); frequencies: (d/2,); results: (..., time, d).
    """
    raise NotImplementedError


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x with each pair (feature i, feature i + d/2) turned. All: (..., time, d)."""
    raise NotImplementedError
