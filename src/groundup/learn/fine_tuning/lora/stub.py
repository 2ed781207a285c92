"""4.2 LoRA

The lesson: groundup learn 4.2        Check it: groundup learn check 4.2
"""

import math

import torch
from torch import Tensor


def lora(x: Tensor, base: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """W x + s B A x, where base is W x.

    x: (..., in); base: (..., out); down: A, (r, in); up: B, (out, r). Result: (..., out).
    """
    raise NotImplementedError


def start(rank: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
    """A and B of an adapter that changes nothing yet."""
    raise NotImplementedError


def merged(weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """W + s B A. Result: (out, in)."""
    raise NotImplementedError
