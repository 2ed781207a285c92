"""Activations against torch.nn, including second gradients and kinks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from groundup import nn
from groundup.maths import Tensor, grad
from groundup.nn.activations import softplus
from torch_layers import agree

PAIRS = [
    (nn.ReLU(), torch.nn.ReLU()),
    (nn.LeakyReLU(), torch.nn.LeakyReLU()),
    (nn.LeakyReLU(0.2), torch.nn.LeakyReLU(0.2)),
    (nn.ELU(), torch.nn.ELU()),
    (nn.ELU(0.5), torch.nn.ELU(0.5)),
    (nn.Sigmoid(), torch.nn.Sigmoid()),
    (nn.Tanh(), torch.nn.Tanh()),
    (nn.SiLU(), torch.nn.SiLU()),
    (nn.GELU(), torch.nn.GELU()),
    (nn.GELU("tanh"), torch.nn.GELU("tanh")),
    (nn.Softmax(-1), torch.nn.Softmax(-1)),
    (nn.Softmax(0), torch.nn.Softmax(0)),
    # Torch cuts its formula off at 20, which is 2e-9 wrong there.
    (nn.Softplus(), torch.nn.Softplus(threshold=500)),
    (nn.Softplus(beta=2.0), torch.nn.Softplus(2.0, threshold=500)),
]


def _names(value: Any) -> str:
    return repr(value)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=_names)
def test_activation(ours: nn.Module, theirs: torch.nn.Module) -> None:
    x = np.random.default_rng(0).normal(size=(3, 5)) * 3
    agree(ours, theirs, x)
    agree(ours, theirs, x[:0])


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=_names)
def test_activation_at_zero_and_at_large_values(ours: nn.Module, theirs: torch.nn.Module) -> None:
    agree(ours, theirs, np.array([[0.0, 1e3, -1e3, 710.0, -710.0]]), second=False)


def test_softplus_derivatives_at_zero() -> None:
    x = Tensor(0.0)
    (slope,) = grad(softplus(x), x, create_graph=True)
    (bend,) = grad(slope, x)
    assert softplus(x).item() == pytest.approx(np.log(2), abs=1e-15)
    assert slope.item() == 0.5
    assert bend.item() == 0.25


def test_activations_have_torchs_repr() -> None:
    for ours, theirs in PAIRS:
        if not isinstance(ours, nn.Softplus):
            assert repr(ours) == repr(theirs)


def test_softplus_at_infinity():
    x = Tensor([np.inf, -np.inf, 800.0, -800.0])
    np.testing.assert_array_equal(softplus(x).data, [np.inf, 0.0, 800.0, 0.0])


def test_softplus_is_exact_at_large_values() -> None:
    for dtype in (np.float32, np.float64):
        x = np.array([-30, -20, -15, 15, 20], dtype)
        found = softplus(Tensor(x)).data
        assert found.dtype == dtype
        np.testing.assert_allclose(found, torch.nn.functional.softplus(torch.tensor(x)), rtol=1e-6)
    loss = nn.binary_cross_entropy_with_logits(
        Tensor(np.array([20.0], np.float32)), Tensor(np.array([1.0], np.float32))
    )
    assert loss.item() == pytest.approx(2.06e-9, rel=1e-3)
