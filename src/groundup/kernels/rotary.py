"""RoPE of queries or keys, after the norm of each head; `rotary.c` has the equations."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.kernels import gradients
from groundup.kernels.library import call, in_use, once_differentiable

# The most features of a head that the kernel supports.
_LARGEST = 512

Tokens = Float[Tensor, "rows time heads size"]
Turns = Float[Tensor, "rows time size"]


def supports(x: Tokens, weight: Float[Tensor, " size"] | None, cos: Turns, sin: Turns) -> bool:
    """Whether the kernel supports these tensors."""
    fits = x.shape[-1] % 32 == 0 and x.shape[-1] <= _LARGEST
    alike = cos.dtype == sin.dtype == x.dtype and (weight is None or weight.dtype == x.dtype)
    return in_use(x) and fits and alike


def normed_and_rotated(
    x: Tokens, weight: Float[Tensor, " size"] | None, eps: float, cos: Turns, sin: Turns
) -> Tokens:
    """Normalize each head, if there is a weight, and rotate it by its token's position."""
    y: Tensor = _Rotary.apply(x, weight, eps, cos, sin)  # type: ignore[no-untyped-call]
    return y


class _Rotary(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, eps: float, cos: Tensor, sin: Tensor
    ) -> Tensor:
        x = x.contiguous()
        cos, sin = (turns.expand(*x.shape[:2], -1).contiguous() for turns in (cos, sin))
        rows, time, heads, size = x.shape
        y = torch.empty_like(x)
        call("rotate_heads", x, weight, eps, cos, sin, rows * time, heads, size, y)
        ctx.save_for_backward(None if weight is None else x, weight, cos, sin)
        ctx.eps = eps
        ctx.master = None if weight is None else gradients.master_of(weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, weight, cos, sin = ctx.saved_tensors
        dy = dy.contiguous()
        rows, time, heads, size = dy.shape
        dx = torch.empty_like(dy)
        dweights = torch.zeros(torch.get_num_threads(), size, dtype=torch.float32)
        call(
            "rotate_heads_backward", dy, x, weight, ctx.eps, cos, sin, rows * time, heads, size,
            dx, dweights,
        )  # fmt: skip
        dweight = None
        if ctx.needs_input_grad[1]:
            dweight = gradients.accumulate(weight.dtype, ctx.master, dweights.sum(0))
        return dx, dweight, None, None, None
