"""SwiGLU with its output matrix, down(silu(gate) * up); `swiglu.c` has the equations."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

from groundup.kernels.gradients import accumulate_product, master_of
from groundup.kernels.library import call, in_use, once_differentiable
from groundup.kernels.linear import is_plain

Inner = Float[Tensor, "*rows inner"]


def swiglu_down(gate: Inner, up: Inner, down: nn.Module) -> Float[Tensor, "*rows width"]:
    """down(silu(gate) * up)."""
    if in_use(gate) and up.dtype == gate.dtype and gate.numel() % 16 == 0:
        if is_plain(down):
            y: Tensor = _SwiGLUDown.apply(gate, up, down.weight)  # type: ignore[no-untyped-call]
            return y
        mixed: Tensor = down(_SwiGLU.apply(gate, up))  # type: ignore[no-untyped-call]
        return mixed
    out: Tensor = down(silu(gate) * up)
    return out


def _forward(gate: Tensor, up: Tensor) -> Tensor:
    y = torch.empty_like(gate)
    call("swiglu", gate, up, y, y.numel())
    return y


def _backward(dy: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of gate and up, and y computed again, which overwrites dy."""
    dgate, dup = torch.empty_like(gate), torch.empty_like(up)
    call("swiglu_backward", dy, gate, up, dgate, dup, dy, dy.numel())
    return dgate, dup, dy


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        ctx.save_for_backward(gate, up)
        return _forward(gate, up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        return _backward(dy.clone(memory_format=torch.contiguous_format), *ctx.saved_tensors)[:2]


class _SwiGLUDown(torch.autograd.Function):
    """Recomputes the inner features in backward, which saves a third of the feed-forward memory."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, weight: Tensor) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        ctx.save_for_backward(gate, up, weight)
        ctx.master = master_of(weight)
        return _forward(gate, up) @ weight.T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        gate, up, weight = ctx.saved_tensors
        dy = dy.contiguous().view(-1, weight.shape[0])
        dgate, dup, inner = _backward(dy @ weight, gate, up)
        dweight = None
        if ctx.needs_input_grad[2]:
            dweight = accumulate_product(
                weight.dtype, ctx.master, dy, inner.view(-1, weight.shape[1])
            )
        return dgate, dup, dweight
