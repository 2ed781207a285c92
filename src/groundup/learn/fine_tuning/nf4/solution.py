"""Weights in four bits."""

import torch
from torch import Tensor


def quantize(flat: Tensor, code: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """The index of the nearest value for each number, and each block's largest magnitude.

    flat: (n,); code: (16,), ascending. Results: (n,), integers, and (n / block_size,).
    """
    blocks = flat.view(-1, block_size)
    absmax = blocks.abs().amax(1)
    # A block of zeros is divided by something tiny and stays zero.
    scaled = blocks * (1 / absmax.clamp(min=1e-38))[:, None]
    # The number of midpoints below a number gives its nearest value, without a table of all
    # distances.
    indices = torch.bucketize(scaled, (code[:-1] + code[1:]) / 2)
    return indices.flatten(), absmax


def pack(indices: Tensor) -> Tensor:
    """Two indices per byte, the first in the high bits. indices: (n,); result: (n / 2,), uint8."""
    halves = indices.to(torch.uint8)
    return halves[0::2] << 4 | halves[1::2]


def dequantize(packed: Tensor, absmax: Tensor, code: Tensor, block_size: int) -> Tensor:
    """The numbers again. packed: (n / 2,); absmax: (n / block_size,). Result: (n,)."""
    indices = torch.stack((packed >> 4, packed & 15), dim=1).flatten()
    blocks = code[indices.long()].view(-1, block_size)
    return (blocks * absmax[:, None]).flatten()
