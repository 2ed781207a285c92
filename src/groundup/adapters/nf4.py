"""NF4: weights in 4 bits, as in QLoRA (Dettmers et al. 2023, sections 2 and 3).

LoRA fine-tuning needs gradients *through* a model's large matrices, never *of* them. So they can be
stored in very few bits and dequantized only for the moment of a multiplication:

    y = x W^T + s x A^T B^T        W: 4 bits a number;  A and B: trained, in full (equation 5)

Four bits encode sixteen values. Which values, and how does a number become one of them?

1. Blocks. 64 neighbors are divided by the largest magnitude among them, their scale. They then lie
   in [-1, 1], and an outlier costs 63 others some accuracy, not a whole matrix.
2. NormalFloat. Trained weights have a bell-shaped distribution around zero, so the sixteen values
   are quantiles of the normal distribution: dense where many numbers lie. They are not used equally
   often (on normal weights each by 1.7 to 9.2 % of the numbers), because the largest number differs
   from block to block (Yoshida 2023). A number becomes the index of the nearest value, and two
   indices form a byte.
3. Double quantization. One float32 per 64 numbers costs half a bit a number. But the scales can be
   quantized, too: their mean is subtracted, and the rest takes 8 bits in blocks of 256.

    4 + 8/64 + 32/(64 * 256) = 4.127 bits a number, where bfloat16 has 16

Bytes, scales and values equal those of the bitsandbytes library (0.50, on a CPU), bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from math import prod
from typing import Literal, Self

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn.functional import pad

from groundup.adapters.blockwise_8bit import dequantize_8bit, quantize_8bit, scale_blocks_
from groundup.adapters.frozen import FrozenLinear
from groundup.deprecated import renamed_keywords

FourBitKind = Literal["nf4", "fp4"]

# The sixteen values as the paper prints them (appendix E); all published files use them.
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip

# For comparison: 4-bit floating point with one sign bit, two exponent bits and one fraction bit.
# The order is bitsandbytes', whose zero has no sign.
_FP4_SIZES = (0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0)
_FP4 = (*_FP4_SIZES, *(0.0 - size for size in _FP4_SIZES))

CODES: dict[FourBitKind, Float[Tensor, "16"]] = {
    "nf4": torch.tensor(NF4, dtype=torch.float32),
    "fp4": torch.tensor(_FP4, dtype=torch.float32) / 12.0,
}
BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)

# Numbers dequantized at a time on a CPU. Intermediate results then stay in a core's cache, and
# torch uses a single thread, which needs no synchronization.
_CHUNK = 2**15

# The scale of a block of zeros, as in bitsandbytes.
_TINY = 1e-38


def derived_nf4() -> Float[Tensor, "16"]:
    """The sixteen values from their definition (section 3): within 3e-7 of the paper's table.

    Eight quantiles of the normal distribution from the median down and nine from the median up,
    evenly spaced in probability, share the median, so that zero is exact; all are divided by the
    largest. Quantiles 0 and 1 are infinite, so half an interval is left out at the ends: the mean
    of half a fifteenth and half a sixteenth (Yoshida 2023, NF4 Isn't Information Theoretically
    Optimal).
    """
    outermost = 1 - (1 / 30 + 1 / 32) / 2
    below, above = (
        torch.special.ndtri(torch.linspace(0.5, outermost, count, dtype=torch.float64))
        for count in (8, 9)
    )
    values: Tensor = torch.cat([-below.flip(0), above[1:]]) / above[-1]
    return values.float()


def quantize_4bit(
    weight: Float[Tensor, "..."], kind: FourBitKind = "nf4", block_size: int = 64
) -> tuple[UInt8[Tensor, " bytes"], Float[Tensor, " blocks"]]:
    """Two indices per byte, the first in the high bits, and each block's scale, in float32.

    Blocks run through the rows; the last one may be shorter.
    """
    flat = weight.reshape(-1).float()
    count, rest = flat.numel(), flat.numel() % block_size
    blocks = pad(flat, (0, -count % block_size)).view(-1, block_size)
    absmax = blocks.abs().amax(1)
    scaled = blocks * (1 / absmax.clamp(min=_TINY))[:, None]
    if rest:  # bitsandbytes divides the shorter block, which rounds differently
        absmax[-1:].clamp_(min=_TINY)
        scaled[-1] = blocks[-1] / absmax[-1]
    values, order = CODES[kind].to(weight.device).sort(stable=True)
    # The nearest value's rank is the number of midpoints below the number.
    rank = torch.bucketize(scaled, (values[:-1] + values[1:]) / 2, out_int32=True)
    indices = order.to(torch.uint8).index_select(0, rank.view(-1)[: count + count % 2])
    return indices[0::2] << 4 | indices[1::2], absmax


def dequantize_4bit(
    packed: UInt8[Tensor, " bytes"],
    absmax: Float[Tensor, " blocks"],
    kind: FourBitKind,
    block_size: int,
    shape: Sequence[int],
    dtype: torch.dtype,
) -> Float[Tensor, "..."]:
    """The numbers: value times scale in float32, then rounded to `dtype`."""
    pairs = _byte_values(kind, packed.device)
    out = packed.new_empty(2 * len(packed), dtype=dtype)
    piece = _CHUNK if packed.device.type == "cpu" else len(absmax) * block_size
    pieces = zip(
        torch.split(out, piece),
        torch.split(packed, piece // 2),
        torch.split(absmax, piece // block_size),
        strict=True,
    )
    for part, some, scales in pieces:
        numbers = pairs.index_select(0, some.int()).view(torch.float32)
        part.copy_(scale_blocks_(numbers, scales, block_size))
    return out[: prod(shape)].view(tuple(shape))


@dataclass(frozen=True)
class QuantizedNF4:
    """A tensor in NF4, in bitsandbytes' layout.

    `packed` holds two indices per byte. With double quantization `absmax` is uint8, with the scales
    `nested_absmax` and the mean `offset`; without it `absmax` is float32 and the other two are
    None.
    """

    packed: UInt8[Tensor, " bytes"]
    absmax: Float[Tensor, " blocks"] | UInt8[Tensor, " blocks"]
    nested_absmax: Float[Tensor, " nested"] | None
    offset: Float[Tensor, ""] | None
    block_size: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bits(self) -> float:
        """Bits per number, scales included: 4.127 for a large tensor with double quantization."""
        parts = (self.packed, self.absmax, self.nested_absmax, self.offset)
        return 8 * sum(part.nbytes for part in parts if part is not None) / prod(self.shape)


@renamed_keywords(double_quantization="double_quant")
def quantize_nf4(
    tensor: Float[Tensor, "..."], block_size: int = 64, double_quant: bool = True
) -> QuantizedNF4:
    """Quantize a tensor of any shape to NF4, and its scales to 8 bits (QLoRA, section 3).

    Bytes and scales are those of `bitsandbytes.functional.quantize_4bit` with `quant_type="nf4"`
    and `compress_statistics=double_quant`. Raises ValueError for a block size that
    bitsandbytes does not have, and for a tensor without numbers.
    """
    if block_size not in BLOCK_SIZES:
        raise ValueError(
            f"block_size={block_size} must be one of {', '.join(map(str, BLOCK_SIZES))}"
        )
    if not tensor.numel():
        raise ValueError(f"a tensor of shape {tuple(tensor.shape)} has no numbers to quantize")
    packed, absmax = quantize_4bit(tensor.detach(), "nf4", block_size)
    shape, nested, offset = tuple(tensor.shape), None, None
    if double_quant:
        absmax, nested, offset = _quantize_scales(absmax)
    return QuantizedNF4(packed, absmax, nested, offset, block_size, shape, tensor.dtype)


def dequantize_nf4(
    quantized: QuantizedNF4, dtype: torch.dtype | None = None
) -> Float[Tensor, "..."]:
    """The numbers, in the tensor's shape, in its dtype or in `dtype`."""
    absmax = quantized.absmax
    if quantized.nested_absmax is not None and quantized.offset is not None:
        absmax = dequantize_8bit(absmax, quantized.nested_absmax) + quantized.offset
    dtype = quantized.dtype if dtype is None else dtype
    return dequantize_4bit(
        quantized.packed, absmax, "nf4", quantized.block_size, quantized.shape, dtype
    )


def _quantize_scales(
    absmax: Float[Tensor, " blocks"],
) -> tuple[UInt8[Tensor, " blocks"], Float[Tensor, " nested"], Float[Tensor, ""]]:
    """Double quantization: the scales without their mean in 8 bits, their scales, and the mean."""
    offset = absmax.mean()
    return (*quantize_8bit(absmax - offset), offset)


@cache
def _byte_values(kind: FourBitKind, device: torch.device) -> Int64[Tensor, "256"]:
    """The two values of each byte, packed into the 64 bits of one number.

    One look-up finds both values of a byte, which takes a seventh of the time of two look-ups.
    """
    code = CODES[kind]
    pairs = torch.stack([code.repeat_interleave(16), code.repeat(16)], dim=1)
    return pairs.view(torch.int64).view(-1).to(device)


class NF4Linear(FrozenLinear):
    """A linear layer with 4 bits per weight.

    `packed` and `absmax` are as from `quantize_4bit`. With double quantization `absmax` is uint8,
    and `nested_absmax` and `offset` decode it.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        packed: UInt8[Tensor, " bytes"],
        absmax: Float[Tensor, " blocks"] | UInt8[Tensor, " blocks"],
        nested_absmax: Float[Tensor, " nested"] | None = None,
        offset: Float[Tensor, ""] | None = None,
        *,
        kind: FourBitKind = "nf4",
        block_size: int = 64,
        bias: nn.Parameter | None = None,
    ) -> None:
        super().__init__(*shape, bias)
        self.kind, self.block_size = kind, block_size
        self.register_packed(
            packed=packed, absmax=absmax, nested_absmax=nested_absmax, offset=offset
        )

    @classmethod
    def of(
        cls,
        layer: nn.Linear,
        kind: FourBitKind = "nf4",
        block_size: int = 64,
        double_quant: bool = True,
    ) -> Self:
        """The layer with its weight quantized; shares its bias."""
        packed, absmax = quantize_4bit(layer.weight.detach(), kind, block_size)
        scales: tuple[Tensor, ...] = (absmax,)
        if double_quant:
            scales = _quantize_scales(absmax)
        shape = (layer.out_features, layer.in_features)
        return cls(shape, packed, *scales, kind=kind, block_size=block_size, bias=layer.bias)

    @property
    def double_quant(self) -> bool:
        return "offset" in self._names

    @property
    def dequantize_fn(self) -> Callable[..., Tensor]:
        shape = [self.out_features, self.in_features]
        return partial(_weight, kind=self.kind, block_size=self.block_size, shape=shape)


# One opaque operation for the compiler. If the compiler could see inside, it would notice that
# forward and backward compute the same and keep all W in between. `like` is x in the forward call
# and a gradient in the backward call, so the two calls differ and are not merged.
@torch.library.custom_op(
    "groundup::weight_of_4bit",
    mutates_args=(),
    schema="(Tensor like, Tensor packed, Tensor absmax, Tensor? nested_absmax=None, "
    "Tensor? offset=None, *, str kind, int block_size, int[] shape) -> Tensor",
)
def _weight(
    like: Tensor,
    packed: Tensor,
    absmax: Tensor,
    nested_absmax: Tensor | None = None,
    offset: Tensor | None = None,
    *,
    kind: str,
    block_size: int,
    shape: Sequence[int],
) -> Tensor:
    if nested_absmax is not None and offset is not None:
        absmax = dequantize_8bit(absmax, nested_absmax) + offset
    return dequantize_4bit(packed, absmax, kind, block_size, shape, like.dtype)  # type: ignore[arg-type]


@_weight.register_fake
def _(like: Tensor, packed: Tensor, *_: Tensor, shape: Sequence[int], **__: object) -> Tensor:
    return packed.new_empty(shape, dtype=like.dtype)
