"""A linear layer with a frozen weight, which can therefore be stored in few bits.

    y = x W^T + b,    dL/dx = dL/dy W,    dL/dW is not needed

W is dequantized twice per step, once for each of the two products, and freed in between. Training
therefore needs memory for one layer's W at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear


class FrozenLinear(nn.Module):
    """The base class of quantized layers; only the bias is a parameter.

    A subclass registers the tensors that store its weight with `register_packed`, and its
    `dequantize_fn` computes the weight from them.
    """

    def __init__(self, out_features: int, in_features: int, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.bias = bias
        self._names: list[str] = []

    def register_packed(self, **tensors: Tensor | None) -> None:
        """Register the tensors that store the weight, in the argument order of `dequantize_fn`."""
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)
        self._names += [name for name, tensor in tensors.items() if tensor is not None]

    @property
    def packed_tensors(self) -> tuple[Tensor, ...]:
        """The tensors that store the weight: indices and scales."""
        return tuple(getattr(self, name) for name in self._names)

    @property
    def dequantize_fn(self) -> Callable[..., Tensor]:
        """(x, *packed_tensors) -> W (out, in) in the dtype of x."""
        raise NotImplementedError

    @property
    def bits_per_weight(self) -> float:
        """Bits of memory per weight, scales included."""
        held = sum(tensor.nbytes for tensor in self.packed_tensors)
        return 8 * held / (self.in_features * self.out_features)

    def dequantized(self, dtype: torch.dtype | None = None) -> Float[Tensor, "out in"]:
        """The weight as a matrix, by default in float32."""
        like = torch.empty((), dtype=dtype or torch.float32)
        return self.dequantize_fn(like, *self.packed_tensors)

    def forward(self, x: Float[Tensor, "*rows in"]) -> Float[Tensor, "*rows out"]:
        y: Tensor = _Product.apply(x, self.bias, self.dequantize_fn, self.packed_tensors)  # type: ignore[no-untyped-call]
        return y

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FrozenLinear:
        """Move the packed tensors between devices, but never change their dtype.

        `model.to(torch.bfloat16)` sets the dtype of the computation; rounded scales would change
        the weight.
        """
        before = dict(zip(self._names, self.packed_tensors, strict=True))
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, tensor in before.items():
            moved = getattr(self, name)
            if moved.dtype != tensor.dtype:
                setattr(self, name, tensor.to(moved.device))
        return self

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, bits_per_weight={self.bits_per_weight:.3f}"
        )


class _Product(torch.autograd.Function):
    """x W^T + b; backward dequantizes W again."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        bias: Tensor | None,
        dequantize_fn: Callable[..., Tensor],
        packed: tuple[Tensor, ...],  # not *packed: torch.compile counts arguments to find ctx
    ) -> Tensor:
        ctx.dequantize_fn = dequantize_fn
        ctx.save_for_backward(*packed)
        return linear(x, dequantize_fn(x, *packed), bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        # W has the gradient's dtype and does not depend on it otherwise.
        weight = ctx.dequantize_fn(gradient.detach(), *ctx.saved_tensors)
        rows = gradient.reshape(-1, gradient.shape[-1])
        of_bias = rows.sum(0) if ctx.needs_input_grad[1] else None
        return gradient @ weight, of_bias, None, None
