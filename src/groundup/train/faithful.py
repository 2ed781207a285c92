"""Checks that the fast version of a model computes the same gradients, before a run is planned.

Blocks are computed by kernels in C or by C++ code from `torch.compile`, and the system's compiler
builds both for this processor. Compilers have bugs: GCC 12 with `-march=native` on a processor
newer than itself (Emerald Rapids) tunes for none and turns the gradient of a rotated key into NaN.
For `torch.compile` the tuning is set explicitly (`device.tuning`), for kernels it is not. So the
first micro-batch runs through the plain model and the fast one. If their gradients differ by more
than rounding (in doubt, bfloat16 is compared with float32), the run is planned with the plain one.
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

# Allowed relative distance of a gradient from the plain one: bfloat16 keeps eight bits and float32
# twenty-four, and a fused kernel rounds at other places. Real errors are far larger.
_TOLERANCE = {"bfloat16": 0.15, "float32": 0.01}
# A larger distance is allowed if the error against float32 is at most this factor of the plain one.
_ERROR_RATIO = 2.0
# Gradients below this share of the largest are only rounding.
_NEGLIGIBLE = 1e-3

_results: dict[object, bool] = {}


@runtime_checkable
class Routed(Protocol):
    """A module that routes each token to a few of its experts."""

    def send_to_all(self) -> None: ...


def in_pytorch(compute: Compute) -> Compute:
    """Return these settings with plain PyTorch: no kernels, no compiling."""
    return replace(compute, compile=False, kernels="none")


def agrees_with_plain(
    model: nn.Module,
    batch: B,
    loss: LossFunction[B],
    compute: Compute,
    *,
    gradient_checkpointing: bool = False,
) -> bool:
    """Whether `model` computed with `compute` has the gradients of the plain model on `batch`.

    A copy is tested. Its zero matrices get random numbers, because gradients behind them would be
    zero. Each of its experts gets every token, because rounding can change the routing. The result
    is cached per process for a model's shapes and config.
    """
    shapes = tuple(tuple(one.shape) for one in model.parameters())
    configs = tuple(dict.fromkeys(getattr(one, "config", None) for one in model.modules()))
    data = (type(batch), batch.tokens, getattr(loss, "__qualname__", type(loss)))
    key = (compute, gradient_checkpointing, shapes, configs, *data)
    if key not in _results:
        copied = copy.deepcopy(model)
        _results[key] = _gradients_agree(copied, batch, loss, compute, gradient_checkpointing)
        if not _results[key]:
            say(
                "the code that this machine's compiler built for the model has other gradients "
                "than the model itself, so plain PyTorch trains it; another compiler may do better "
                "(CC, CXX)"
            )
    return _results[key]


def _gradients_agree(
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
    # A second copy, as compiling cannot be undone; made now, as a used model may hold a graph.
    other = copy.deepcopy(model)
    plain = _gradients(model, batch, loss, in_pytorch(compute), checkpointing)
    fast = _gradients(other, batch, loss, compute, checkpointing)
    if plain.keys() != fast.keys():
        return False
    largest = max((float(g.norm()) for g in plain.values()), default=0.0)
    tolerance = _TOLERANCE[compute.dtype]
    # `not ... <=` rather than `>`, so that NaN does not pass.
    doubtful = [
        name
        for name, g in plain.items()
        if not float((fast[name] - g).norm()) <= tolerance * float(g.norm()) + _NEGLIGIBLE * largest
    ]
    if not doubtful:
        return True
    # Deep models amplify rounding errors.
    exactly = replace(in_pytorch(compute), dtype="float32")
    exact = _gradients(model, batch, loss, exactly, checkpointing)
    return all(
        float((fast[name] - exact[name]).norm())
        <= _ERROR_RATIO * float((plain[name] - exact[name]).norm()) + _NEGLIGIBLE * largest
        for name in doubtful
    )


def _gradients(
    model: nn.Module, batch: B, loss: LossFunction[B], compute: Compute, checkpointing: bool
) -> dict[str, Tensor]:
    prepare(model, compute, gradient_checkpointing=checkpointing)
    # Dropout would make the gradients differ.
    drops = any(isinstance(one, nn.Dropout) and one.p > 0 for one in model.modules())
    model.train(not drops)
    model.zero_grad(set_to_none=True)
    loss(model, batch).total.backward()  # type: ignore[no-untyped-call]
    return {n: p.grad.float() for n, p in model.named_parameters() if p.grad is not None}
