"""Linear layers with the same input, y_i = x W_i^T, with float32 weight gradients (`linear.c`).

dx = sum_i dy_i W_i        dW_i = dy_i^T x
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules import module as every_module

from groundup.kernels.gradients import accumulate_product, master_of
from groundup.kernels.library import in_use, once_differentiable

M = TypeVar("M", bound=nn.Module)

# Hooks on all modules.
_HOOKS = (
    every_module._global_forward_hooks,
    every_module._global_forward_pre_hooks,
    every_module._global_backward_hooks,
    every_module._global_backward_pre_hooks,
)
# The original `forward` of each class whose modules are computed without being called.
_FORWARD: dict[type[nn.Module], Callable[..., Any]] = {
    kind: kind.forward for kind in (nn.Linear, nn.LayerNorm, nn.Identity)
}


def record_forward(kind: type[M]) -> type[M]:
    """Class decorator that records the class's `forward`, so that `is_changed` sees a new one."""
    _FORWARD[kind] = kind.forward
    return kind


def is_changed(module: nn.Module) -> bool:
    """Whether a module must be called, because calling it may do more than its original `forward`.

    This is so if it or all modules have a hook, or if it or its class has another `forward`.
    """
    kind = type(module)
    if "forward" in module.__dict__ or kind.forward is not _FORWARD.get(kind, kind.forward):
        return True
    forward = module._forward_hooks or module._forward_pre_hooks
    return bool(forward or module._backward_hooks or module._backward_pre_hooks or any(_HOOKS))


def is_plain(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a layer is a trained matrix without a bias, with dimensions in multiples of 32."""
    return (
        type(layer) is nn.Linear
        and layer.bias is None
        and layer.weight.requires_grad
        and layer.weight.is_contiguous()
        and in_use(layer.weight)
        and layer.in_features % 32 == 0
        and layer.out_features % 32 == 0
        and not is_changed(layer)
    )


def linears(x: Float[Tensor, "*rows in"], *layers: nn.Module) -> tuple[Tensor, ...]:
    """layer(x) of each layer."""
    if in_use(x) and all(is_plain(layer) for layer in layers):
        found = _Linears.apply(x, *(layer.weight for layer in layers))  # type: ignore[no-untyped-call]
        ys: tuple[Tensor, ...] = found
        return ys
    return tuple(layer(x) for layer in layers)


class _Linears(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        x = x.contiguous()
        ctx.save_for_backward(x, *weights)
        ctx.masters = [master_of(weight) for weight in weights]
        return tuple(x @ weight.T for weight in weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *dys: Tensor) -> Any:
        x, *weights = ctx.saved_tensors
        rows = [dy.contiguous().view(-1, dy.shape[-1]) for dy in dys]
        needs_x, *needs = ctx.needs_input_grad
        dx = None
        if needs_x:
            dx = rows[0] @ weights[0]
            for dy, weight in zip(rows[1:], weights[1:], strict=True):
                dx.addmm_(dy, weight)
            dx = dx.view(x.shape)
        flat = x.view(-1, x.shape[-1])
        dweights = (
            accumulate_product(weight.dtype, master, dy, flat) if needed else None
            for weight, master, dy, needed in zip(weights, ctx.masters, rows, needs, strict=True)
        )
        return dx, *dweights
