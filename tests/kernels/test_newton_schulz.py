"""Muon's direction by the kernel is as accurate as PyTorch's, compared with float64."""

from __future__ import annotations

import pytest
import torch
from tests.kernels.conftest import error, number, within

from groundup.kernels.library import Kernels, plain
from groundup.kernels.newton_schulz import supports
from groundup.train.optim import orthogonalize

A, B, C = 3.4445, -4.7750, 2.0315


def true_steps(x: torch.Tensor) -> torch.Tensor:
    """Jordan et al. 2024, in float64."""
    x = x.double() / x.double().norm(dim=(-2, -1), keepdim=True)
    for _ in range(5):
        gram = x @ x.mT
        x = A * x + (B * gram + C * gram @ gram) @ x
    return x


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 64, 160), (2, 160, 96), (5, 128, 128)])
def test_it_equals_the_iteration(kernels: Kernels, shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.manual_seed(0))
    found = orthogonalize(matrices)
    with plain():
        rounded = orthogonalize(matrices)
    expected = true_steps(matrices)
    assert found.shape == matrices.shape
    assert error(found, expected) < 1.3 * error(rounded, expected) + within(0.002)


def test_the_input_is_unchanged_and_unsupported_shapes_are_rejected(kernels: Kernels) -> None:
    x = torch.randn(2, 32, 64, generator=torch.manual_seed(0)).to(number())
    before = x.clone()
    assert (
        supports(x) and not supports(x.mT) and not supports(x[:, :30]) and not supports(x.double())
    )
    orthogonalize(x)
    assert torch.equal(x, before)
