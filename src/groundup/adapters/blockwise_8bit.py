"""Numbers of 8 bits that are as exact near zero as far from it (Dettmers 2015, 8-Bit Approximations
for Parallelism in Deep Learning, section 3; signed, as in bitsandbytes).

A byte has a sign, an exponent of as many bits as it needs and a fraction of those that are left:
sizes around 1 have 64 steps between 0.1 and 1, sizes around 0.1 have 32 between 0.01 and 0.1, and
so on down to a single one around 0.000001. QLoRA keeps the scales of its blocks in it.
"""

from __future__ import annotations

from functools import cache

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import pad

# Numbers that share one scale (QLoRA, section 3, double quantization).
BLOCK = 256

# bitsandbytes finds the nearest value for a number on a CPU by a table of so many points in [-1, 1]
# (on a GPU by comparing). Numbers near the middle between two values, one in a thousand, fall to
# the other side, and zero, between two points, beside itself. So must they here, to give its bytes.
_POINTS = 65_536


@cache
def dynamic_code(device: torch.device) -> Float[Tensor, "256"]:
    """The 256 values in ascending order: for each of seven decades its steps' middles, 0 and 1."""
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

    A block's scale is its largest magnitude; divided by it, numbers lie in [-1, 1].
    """
    count = len(values)
    blocks = pad(values, (0, -count % BLOCK)).view(-1, BLOCK)
    absmax = blocks.abs().amax(1)
    scaled = blocks * (1 / absmax)[:, None]
    point = ((scaled + 1) * ((_POINTS - 1) / 2) + 0.5).int()
    code = dynamic_code(values.device)
    codes = torch.bucketize(point / (_POINTS - 1) * 2 - 1, (code[:-1] + code[1:]) / 2)
    # Zeros alone have no scale to be divided by; any code gives zero again.
    codes = torch.where(absmax[:, None] > 0, codes, 0)
    return codes.to(torch.uint8).view(-1)[:count], absmax


def dequantize_8bit(
    codes: UInt8[Tensor, " n"], absmax: Float[Tensor, " blocks"]
) -> Float[Tensor, " n"]:
    """The numbers again: value in the code times scale of the block."""
    values = dynamic_code(codes.device).index_select(0, codes.int())
    return scale_blocks_(values, absmax, BLOCK)


def scale_blocks_(
    numbers: Float[Tensor, " n"], absmax: Float[Tensor, " blocks"], size: int
) -> Float[Tensor, " n"]:
    """Multiply each block of so many numbers by its scale, in place; the last may be shorter."""
    whole = len(numbers) // size
    numbers[: whole * size].view(-1, size).mul_(absmax[:whole, None])
    numbers[whole * size :].mul_(absmax[-1])
    return numbers
