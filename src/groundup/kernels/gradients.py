"""Kernels add the gradients of weights directly to the optimizer's float32 sums.

Autograd gives a bfloat16 weight a bfloat16 gradient, which is rounded, written, read again and
added to the sum. A kernel has the gradient in float32 and adds it to the sum itself.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.kernels.library import call, in_use

# Tokens that a thread of the kernel processes at a time.
_CHUNK = 256


def sum_into(parameter: Tensor, master: Tensor | None) -> None:
    """Make kernels add the gradient of `parameter` to `master.grad`; None turns this off.

    Gradients must then be computed by `backward`: `torch.autograd.grad` returns None for such a
    parameter and still adds to the sum.
    """
    parameter.__dict__["master"] = master


def master_of(parameter: Tensor) -> Tensor | None:
    """Return the master whose gradient kernels add to; None without kernels.

    It is also None if the parameter has a hook other than the optimizer's, which must see its
    gradient.
    """
    others = len(parameter._post_accumulate_grad_hooks or ()) > 1
    if not in_use(parameter) or parameter._backward_hooks or others:
        return None
    found: Tensor | None = parameter.__dict__.get("master")
    return found


def accumulate(dtype: torch.dtype, master: Tensor | None, gradient: Tensor) -> Tensor | None:
    """Add a float32 gradient to the sum, or return it for autograd in the weight's dtype."""
    if master is None:
        return gradient.to(dtype)
    if master.grad is None:
        master.grad = gradient
    else:
        master.grad += gradient
    return None


def accumulate_product(
    dtype: torch.dtype,
    master: Tensor | None,
    dy: Float[Tensor, "tokens out"],
    x: Float[Tensor, "tokens in"],
) -> Float[Tensor, "out in"] | None:
    """Add the gradient dy^T x of a matrix to the sum, or return it for autograd."""
    total = None if master is None else master.grad
    if total is not None:
        add_product(total, dy, x)
        return None
    new = torch.empty if len(x) else torch.zeros  # without tokens the kernel writes nothing
    total = new(dy.shape[1], x.shape[1], dtype=torch.float32)
    _add_product(total, dy, x, adds=False)
    if master is None:
        return total.to(dtype)
    master.grad = total
    return None


def add_product(
    total: Float[Tensor, "out in"], dy: Float[Tensor, "tokens out"], x: Float[Tensor, "tokens in"]
) -> None:
    """total += dy^T x."""
    whole_tiles = total.shape[0] % 32 == 0 and total.shape[1] % 32 == 0
    if in_use(dy) and in_use(x) and whole_tiles and dy.is_contiguous() and x.is_contiguous():
        _add_product(total, dy, x, adds=True)
    else:
        total += dy.T @ x


def _add_product(total: Tensor, dy: Tensor, x: Tensor, *, adds: bool) -> None:
    if dy.dtype == total.dtype:  # PyTorch's product needs no rounding
        total.addmm_(dy.T, x, beta=int(adds))
        return
    out, width = total.shape
    each = _CHUNK * (32 + min(out, width))
    tiles = torch.empty(torch.get_num_threads() * each, dtype=torch.bfloat16)
    call("weight_gradient", total, dy, x, len(x), out, width, int(adds), tiles)
