"""4.3 NF4 and QLoRA

The lesson: groundup learn 4.3        Check it: groundup learn check 4.3
"""

import torch
from torch import Tensor


def quantize(flat: Tensor, code: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """The index of the nearest value for each number, and each block's largest magnitude.

    flat: (n,); code: (16,), ascending. Results: (n,), integers, and (n / block_size,).
    """
    raise NotImplementedError


def pack(indices: Tensor) -> Tensor:
    """Two indices per byte, the first in the high bits. indices: (n,); result: (n / 2,), uint8."""
    raise NotImplementedError


def dequantize(packed: Tensor, absmax: Tensor, code: Tensor, block_size: int) -> Tensor:
    """The numbers again. packed: (n / 2,), uint8; absmax: (n / block_size,). Result: (n,)."""
    raise NotImplementedError
