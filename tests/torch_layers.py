"""Torch's layers as the oracle: weights are copied, then outputs and gradients compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from groundup.maths import Tensor, grad
from groundup.nn import Module
from torch_oracle import same


def copy_to_torch(ours: Module, theirs: torch.nn.Module) -> torch.nn.Module:
    """Torch's layer with our weights, in float64; other names or shapes raise."""
    state = {name: torch.tensor(array) for name, array in ours.state_dict().items()}
    theirs.double().load_state_dict(state)
    return theirs


def agree(ours: Module, theirs: torch.nn.Module, *inputs: Any, second: bool = True) -> None:
    """Outputs, gradients by inputs and parameters, and `second` gradients, with equal weights.

    Inputs are arrays, or tuples of them for a state; those of integers have no gradients.
    """
    copy_to_torch(ours, theirs)
    here = _mapped(inputs, lambda a: Tensor(a) if a.dtype.kind == "f" else a)
    there = _mapped(inputs, lambda a: torch.tensor(a, requires_grad=bool(a.dtype.kind == "f")))
    found, truth = _flat(ours(*here)), _flat(theirs(*there))
    assert len(found) == len(truth)
    for i, (y, z) in enumerate(zip(found, truth, strict=True)):
        same(y, z, f"output {i}")

    rng = np.random.default_rng(0)
    seeds = [rng.normal(size=z.shape) for z in truth]
    total = sum((y * s).sum() for y, s in zip(found, seeds, strict=True))
    true_total = sum((z * torch.tensor(s)).sum() for z, s in zip(truth, seeds, strict=True))
    names = [name for name, _ in theirs.named_parameters()]
    by_name = dict(ours.named_parameters())
    assert set(names) == set(by_name)
    leaves = [*(x for x in _flat(here) if isinstance(x, Tensor)), *(by_name[n] for n in names)]
    true_leaves = [*(x for x in _flat(there) if x.requires_grad), *theirs.parameters()]
    labels = [*(f"input {i}" for i in range(len(leaves) - len(names))), *names]

    slopes = grad(total, leaves, create_graph=True)
    true_slopes = torch.autograd.grad(true_total, true_leaves, create_graph=True)
    for label, *pair in zip(labels, slopes, true_slopes, strict=True):
        same(*pair, f"gradient of {label}")
    if second:
        ways = [rng.normal(size=x.shape) for x in leaves]
        turn = sum((g * t).sum() for g, t in zip(slopes, ways, strict=True))
        true_turn = sum((g * torch.tensor(t)).sum() for g, t in zip(true_slopes, ways, strict=True))
        bends = grad(turn, leaves) if turn.requires_grad else [x.data * 0 for x in leaves]
        true_bends = torch.autograd.grad(true_turn, true_leaves, materialize_grads=True)
        for label, *pair in zip(labels, bends, true_bends, strict=True):
            same(*pair, f"second gradient of {label}")


def _mapped(values: Any, function: Any) -> Any:
    if isinstance(values, tuple):
        return tuple(_mapped(value, function) for value in values)
    return function(values)


def _flat(values: Any) -> list[Any]:
    if isinstance(values, tuple):
        return [leaf for value in values for leaf in _flat(value)]
    return [values]
