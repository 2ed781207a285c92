"""8-bit numbers with similar relative precision at every magnitude (Dettmers 2015, 8-Bit
Approximations for Parallelism in Deep Learning, section 3; signed, as in bitsandbytes).

A byte has a sign, an exponent of variable length, and a fraction of the remaining bits: there are
64 steps for magnitudes between 0.1 and 1, 32 between 0.01 and 0.1, and so on down to a single one
around 0.000001. QLoRA stores the scales of its blocks in this format.
"""

from __future__ import annotations

from functools import cache

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import pad

# Numbers that share one scale (QLoRA, section 3, double quantization).
BLOCK = 256

# On a CPU bitsandbytes finds the nearest value with a table of this many points in [-1, 1] (on a
# GPU by comparison). One number in a thousand, near the middle between two values, gets the other
# neighbor, and zero, between two points, gets a value next to it. This module matches those bytes.
_TABLE_SIZE = 65_536


@cache
def dynamic_code(device: torch.device) -> Float[Tensor, "256"]:
    """The 256 values in ascending order: the midpoints of the steps of seven decades, 0 and 1."""
    sizes = []
    for exponent in range(7):
        edges = torch.linspace(0.1, 1, 2**exponent + 1, dtype=torch.float32, device="cpu")
        sizes.append((edges[:-1] + edges[1:]) / 2 * 10 ** (exponent - 6))
    positive = torch.cat(sizes)
    code = torch.cat([-positive, positive.new_tensor([0.0]), positive, positive.new_tensor([1.0])])
    return code.sort().values.to(device)


def quantize_8bit(
    values: Float[Tensor, " n"],
) -> tuple[UInt8[Tensor, " n"], Float[Tensor, " blocks"]]:
    """For each number the index of its value in the code, and for each block of 256 its scale.

    A block's scale is its largest magnitude; numbers divided by it lie in [-1, 1].
    """
    count = len(values)
    blocks = pad(values, (0, -count % BLOCK)).view(-1, BLOCK)
    absmax = blocks.abs().amax(1)
    scaled = blocks * (1 / absmax)[:, None]
    point = ((scaled + 1) * ((_TABLE_SIZE - 1) / 2) + 0.5).int()
    code = dynamic_code(values.device)
    codes = torch.bucketize(point / (_TABLE_SIZE - 1) * 2 - 1, (code[:-1] + code[1:]) / 2)
    # A block of zeros has no scale to divide by; any code dequantizes to zero.
    codes = torch.where(absmax[:, None] > 0, codes, 0)
    return codes.to(torch.uint8).view(-1)[:count], absmax


def dequantize_8bit(
    codes: UInt8[Tensor, " n"], absmax: Float[Tensor, " blocks"]
) -> Float[Tensor, " n"]:
    """The numbers: value in the code times scale of the block."""
    values = dynamic_code(codes.device).index_select(0, codes.int())
    return scale_blocks_(values, absmax, BLOCK)


def scale_blocks_(
    numbers: Float[Tensor, " n"], absmax: Float[Tensor, " blocks"], size: int
) -> Float[Tensor, " n"]:
    """Multiply each block of `size` numbers by its scale, in place; the last may be shorter."""
    whole = len(numbers) // size
    numbers[: whole * size].view(-1, size).mul_(absmax[:whole, None])
    numbers[whole * size :].mul_(absmax[-1])
    return numbers
