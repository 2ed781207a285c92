"""Muon's Newton-Schulz steps, one matrix per core; `newton_schulz.c` has the equations."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.kernels.library import call, in_use, scratch

Matrices = Float[Tensor, "n rows columns"]


def supports(x: Matrices) -> bool:
    """Whether the kernel supports these matrices and there is one for every core."""
    count, rows, columns = x.shape
    whole_tiles = rows % 32 == 0 and columns % 32 == 0
    return in_use(x) and whole_tiles and rows <= columns and count >= torch.get_num_threads()


def newton_schulz(x: Matrices, steps: int, coefficients: tuple[float, float, float]) -> Matrices:
    """X <- a X + (b G + c G^2) X with G = X X^T, `steps` times."""
    x = x.clone(memory_format=torch.contiguous_format)
    count, rows, columns = x.shape
    memory = scratch("newton_schulz", rows, columns)
    call("newton_schulz", x, count, rows, columns, steps, *coefficients, memory)
    return x
