"""A low-rank adapter for a frozen matrix."""

import math

import torch
from torch import Tensor


def lora(x: Tensor, base: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """W x + s B A x, where base is W x.

    x: (..., in); base: (..., out); down: A, (r, in); up: B, (out, r). Result: (..., out).
    """
    # Scaled where the rows are shortest.
    return base + (x @ down.T * scale) @ up.T


def start(rank: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
    """A and B of an adapter that changes nothing yet."""
    bound = 1 / math.sqrt(inputs)
    # One is zero, so the model starts unchanged; not both, or neither would learn.
    return torch.empty(rank, inputs).uniform_(-bound, bound), torch.zeros(outputs, rank)


def merged(weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """W + s B A. Result: (out, in)."""
    return weight + scale * (up @ down)
