"""Torch as the truth: a formula written once, run on both engines, compared in all derivatives.

A formula is a function of an engine and tensors. What both have as a method it calls as one; the
rest it takes from the engine, under torch's names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
import torch

from groundup import maths
from groundup.maths import Tensor, grad
from groundup.maths.forward import jvp

Formula: TypeAlias = Callable[..., Any]

OURS = SimpleNamespace(
    **{name: getattr(maths, name) for name in maths.__all__},
    constant=np.array,
    power=lambda a, p: a**p,
)
THEIRS = SimpleNamespace(
    **{name: getattr(torch, name) for name in ("cat", "stack", "einsum", "where")},
    maximum=lambda a, b: torch.maximum(a, torch.as_tensor(b, dtype=a.dtype)),
    minimum=lambda a, b: torch.minimum(a, torch.as_tensor(b, dtype=a.dtype)),
    gelu=lambda x, approximate="none": torch.nn.functional.gelu(x, approximate=approximate),
    silu=torch.nn.functional.silu,
    constant=torch.tensor,
    # For a positive base. Torch's a**p has mixed second derivatives of 0 and 1/a at p = 0.
    power=lambda a, p: (p * a.log()).exp(),
)


def same(ours: Any, theirs: Any, what: str, tolerance: float = 1e-10) -> None:
    """Equal in dtype, shape and, up to rounding of the largest number, in every element."""
    found, truth = np.asarray(ours), theirs.detach().numpy(force=True)  # also of lazy zeros
    assert found.dtype == truth.dtype, f"{what}: {found.dtype}, torch has {truth.dtype}"
    assert found.shape == truth.shape, f"{what}: {found.shape}, torch has {truth.shape}"
    finite = np.abs(truth[np.isfinite(truth)])
    scale = max(1.0, finite.max()) if finite.size else 1.0
    np.testing.assert_allclose(
        found, truth, rtol=tolerance, atol=tolerance * scale, err_msg=f"{what} against torch"
    )


def agree(
    formula: Formula, arrays: Sequence[np.ndarray], *, tolerance: float = 1e-10, second: bool = True
) -> None:
    """Value, gradients, `second` gradients and forward mode, all against torch.

    With random directions g of the output and t of the inputs: the gradients g J, then those of
    the number (g J) . t by the inputs and by g itself, and J t.
    """
    rng = np.random.default_rng(0)
    ours = [Tensor(a) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, z = formula(OURS, *ours), formula(THEIRS, *theirs)
    same(y, z, "value", tolerance)

    seed = rng.normal(size=z.shape).astype(y.dtype)
    g, h = Tensor(seed), torch.tensor(seed, requires_grad=True)
    directions = [rng.normal(size=a.shape).astype(a.dtype) for a in arrays]
    found = grad(y, ours, g, create_graph=True)
    truth = torch.autograd.grad(z, theirs, h, create_graph=True, materialize_grads=True)
    for i, pair in enumerate(zip(found, truth, strict=True)):
        same(*pair, f"gradient {i}", tolerance)

    moved = jvp(lambda *xs: formula(OURS, *xs), ours, directions)[1]
    their_directions = tuple(torch.tensor(t) for t in directions)
    true_move = torch.func.jvp(lambda *xs: formula(THEIRS, *xs), tuple(theirs), their_directions)
    # Torch's tangents of float32 are float64 now and then.
    same(moved, true_move[1].to(z.dtype), "tangent", tolerance)

    if second:
        slope = sum((a * t).sum() for a, t in zip(found, directions, strict=True))
        true_slope = sum((a * t).sum() for a, t in zip(truth, their_directions, strict=True))
        found = grad(slope, [*ours, g])
        truth = [torch.zeros_like(x) for x in (*theirs, h)]
        if true_slope.requires_grad:
            truth = torch.autograd.grad(true_slope, [*theirs, h], materialize_grads=True)
        for i, pair in enumerate(zip(found, truth, strict=True)):
            same(*pair, f"second gradient {i}", tolerance)
