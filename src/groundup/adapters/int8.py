"""int8: 8-bit weights with one scale per row, a comparison for NF4.

    W[i, j] = q[i, j] * absmax[i] / 127,        q from -127 to 127

The 255 values are evenly spaced (Dettmers et al. 2022, LLM.int8(), section 2.1, "absmax"). This
simple scheme takes twice the memory of NF4 and has less than a tenth of its error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn

from groundup.adapters.frozen import FrozenLinear

LARGEST = 127


def quantize_int8(
    weight: Float[Tensor, "out in"],
) -> tuple[Int8[Tensor, "out in"], Float[Tensor, " out"]]:
    """Integers from -127 to 127, and each row's largest magnitude, in float32."""
    weight = weight.float()
    absmax = weight.abs().amax(1)
    scaled = weight * (LARGEST / absmax.clamp(min=torch.finfo().tiny))[:, None]
    return scaled.round().to(torch.int8), absmax


def dequantize_int8(
    whole: Int8[Tensor, "out in"], absmax: Float[Tensor, " out"], dtype: torch.dtype
) -> Float[Tensor, "out in"]:
    """The numbers, computed in float32 and rounded to `dtype`."""
    return (whole * absmax[:, None] * (1 / LARGEST)).to(dtype)


class Int8Linear(FrozenLinear):
    """A linear layer with 8 bits per weight."""

    def __init__(
        self,
        whole: Int8[Tensor, "out in"],
        absmax: Float[Tensor, " out"],
        bias: nn.Parameter | None = None,
    ) -> None:
        super().__init__(whole.shape[0], whole.shape[1], bias)
        self.register_packed(whole=whole, absmax=absmax)

    @classmethod
    def of(cls, layer: nn.Linear) -> Self:
        """The layer with its weight quantized; shares its bias."""
        return cls(*quantize_int8(layer.weight.detach()), layer.bias)

    @property
    def dequantize_fn(self) -> Callable[..., Tensor]:
        return _weight


# One operation for the compiler; `nf4` gives the reason.
@torch.library.custom_op(
    "groundup::weight_of_int8",
    mutates_args=(),
    schema="(Tensor like, Tensor whole, Tensor absmax) -> Tensor",
)
def _weight(like: Tensor, whole: Tensor, absmax: Tensor) -> Tensor:
    return dequantize_int8(whole, absmax, like.dtype)


@_weight.register_fake
def _(like: Tensor, whole: Tensor, absmax: Tensor) -> Tensor:
    return whole.new_empty(whole.shape, dtype=like.dtype)
