"""RMSNorm, alone or after an addition; `rms_norm.c` has the equations."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.kernels import gradients
from groundup.kernels.library import call, in_use, once_differentiable

Wide = Float[Tensor, "*rows width"]


def supports(x: Wide, weight: Float[Tensor, " width"], added: Wide | None = None) -> bool:
    """Whether the kernel supports these tensors."""
    alike = weight.dtype == x.dtype and (added is None or added.dtype == x.dtype)
    return in_use(x) and alike and x.shape[-1] % 16 == 0


def rms_norm(x: Wide, weight: Float[Tensor, " width"], eps: float) -> Wide:
    """x / rms(x) * weight."""
    y: Tensor = _RMSNorm.apply(x, None, weight, eps)[1]  # type: ignore[no-untyped-call]
    return y


def add_rms_norm(
    x: Wide, added: Wide, weight: Float[Tensor, " width"], eps: float
) -> tuple[Wide, Wide]:
    """h = x + added, and h / rms(h) * weight."""
    both: tuple[Tensor, Tensor] = _RMSNorm.apply(x, added, weight, eps)  # type: ignore[no-untyped-call]
    return both


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, added: Tensor | None, weight: Tensor, eps: float
    ) -> tuple[Tensor | None, Tensor]:
        x, weight = x.contiguous(), weight.contiguous()
        width = x.shape[-1]
        rows = x.numel() // width
        y, scales = torch.empty_like(x), torch.empty(rows, dtype=torch.float32)
        h, plus = x, None
        if added is not None:
            h, plus = torch.empty_like(x), added.contiguous()
        call("rms_norm", x, plus, weight, eps, rows, width, h, y, scales)
        ctx.save_for_backward(h, weight, scales)
        ctx.master, ctx.adds = gradients.master_of(weight), added is not None
        return (h if ctx.adds else None), y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dsum: Tensor | None, dy: Tensor) -> Any:
        h, weight, scales = ctx.saved_tensors
        dh, width = torch.empty_like(h), h.shape[-1]
        dweights = torch.zeros(torch.get_num_threads(), width, dtype=torch.float32)
        past = dsum.contiguous() if ctx.adds and dsum is not None else None
        call(
            "rms_norm_backward", dy.contiguous(), past, h, weight, scales, len(scales), width,
            dh, dweights,
        )  # fmt: skip
        dweight = None
        if ctx.needs_input_grad[2]:
            dweight = gradients.accumulate(weight.dtype, ctx.master, dweights.sum(0))
        return dh, (dh if ctx.adds else None), dweight, None
