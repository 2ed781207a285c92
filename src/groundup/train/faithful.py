"""Is what was made for speed still the model? Asked before a run is planned with it.

Blocks are computed by kernels in C or by C++ that `torch.compile` writes, and both are made by the
system's compiler for this very processor. Compilers err: GCC 12, asked for `-march=native` on a
processor newer than itself (Emerald Rapids), tunes for none at all and makes NaN of the gradient of
a rotated key. For `torch.compile` it is told what to tune for (`device.tuning`), for kernels it is
not. So the first micro-batch goes through the plain model and through the fast one: where their
gradients differ by more than rounding, which for bfloat16 float32 decides in doubt, the run is
planned with the plain one.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from groundup.runs.console import say
from groundup.train.batch import B, LossFunction
from groundup.train.device import Compute, prepare

# A gradient's distance from the plain one, as a share of its own length: bfloat16 keeps eight bits
# and float32 twenty-four, and a fused kernel rounds at other places. What is wrong is far more so.
_FAR = {"bfloat16": 0.15, "float32": 0.01}
# Where it is farther, it may be this much farther from float32's than the plain one is.
_TWICE = 2.0
# Gradients that are this share of the largest, or less, are all rounding.
_NOTHING = 1e-3

_found: dict[object, bool] = {}


@runtime_checkable
class Routed(Protocol):
    """A part that sends each token to some experts of many."""

    def send_to_all(self) -> None: ...


def in_pytorch(compute: Compute) -> Compute:
    """Return the same in PyTorch's own words."""
    return replace(compute, compile=False, kernels="none")


def agrees_with_plain(
    model: nn.Module,
    batch: B,
    loss: LossFunction[B],
    compute: Compute,
    *,
    gradient_checkpointing: bool = False,
) -> bool:
    """Whether `model`, computed as `compute` says, has the gradients of the plain one on `batch`.

    A copy is asked, in which matrices of zeros have random numbers, for behind them every gradient
    would be zero, and in which each expert gets every token, for rounding decides which few. Told
    once a process for a model's shapes and config.
    """
    shapes = tuple(tuple(one.shape) for one in model.parameters())
    configs = tuple(dict.fromkeys(getattr(one, "config", None) for one in model.modules()))
    asked = (type(batch), batch.tokens, getattr(loss, "__qualname__", type(loss)))
    key = (compute, gradient_checkpointing, shapes, configs, *asked)
    if key not in _found:
        copied = copy.deepcopy(model)
        _found[key] = _compared(copied, batch, loss, compute, gradient_checkpointing)
        if not _found[key]:
            say(
                "what this machine's compiler made of the model has other gradients than the model "
                "itself, so PyTorch trains it as it is; another compiler may do better (CC, CXX)"
            )
    return _found[key]


def _compared(
    model: nn.Module, batch: B, loss: LossFunction[B], compute: Compute, checkpointing: bool
) -> bool:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2 and parameter.is_floating_point() and not parameter.any():
                parameter.normal_(0.0, 1 / math.sqrt(parameter.shape[1]), generator=generator)
    for part in model.modules():
        if isinstance(part, Routed):
            part.send_to_all()
    batch = batch.to(torch.device(compute.device))
    # Another copy, for what is compiled stays so; at once, for what has run may hold a graph.
    other = copy.deepcopy(model)
    plain = _gradients(model, batch, loss, in_pytorch(compute), checkpointing)
    fast = _gradients(other, batch, loss, compute, checkpointing)
    if plain.keys() != fast.keys():
        return False
    far, largest = _FAR[compute.dtype], max((float(g.norm()) for g in plain.values()), default=0.0)
    # Not comparisons with "greater": NaN must not pass.
    doubtful = [
        name
        for name, one in plain.items()
        if not float((fast[name] - one).norm()) <= far * float(one.norm()) + _NOTHING * largest
    ]
    if not doubtful:
        return True
    # Deep models turn rounding into more.
    exactly = replace(in_pytorch(compute), dtype="float32")
    exact = _gradients(model, batch, loss, exactly, checkpointing)
    return all(
        float((fast[name] - exact[name]).norm())
        <= _TWICE * float((plain[name] - exact[name]).norm()) + _NOTHING * largest
        for name in doubtful
    )


def _gradients(
    model: nn.Module, batch: B, loss: LossFunction[B], compute: Compute, checkpointing: bool
) -> dict[str, Tensor]:
    prepare(model, compute, gradient_checkpointing=checkpointing)
    # What is dropped by chance is no error.
    drops = any(isinstance(one, nn.Dropout) and one.p > 0 for one in model.modules())
    model.train(not drops)
    model.zero_grad(set_to_none=True)
    loss(model, batch).total.backward()  # type: ignore[no-untyped-call]
    return {n: p.grad.float() for n, p in model.named_parameters() if p.grad is not None}
