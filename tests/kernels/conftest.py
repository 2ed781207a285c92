"""The kernels that this machine can run, one kind after the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from groundup.kernels import library
from groundup.kernels.library import Kernels


@pytest.fixture(params=["avx512_bf16", "amx"])
def kernels(request: pytest.FixtureRequest) -> Iterator[Kernels]:
    """These kernels in use; machines that lack them, or a compiler, skip the test."""
    kind: Kernels = request.param
    if not library.is_allowed(kind) or library.library(kind) is None:
        pytest.skip(f"this machine has no {kind} or no compiler")
    library.use_kernels(kind)
    yield kind
    library.use_kernels("none")


def normal(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    """Bfloat16 numbers of a normal distribution."""
    numbers = torch.randn(shape, generator=torch.manual_seed(seed)) * scale
    return numbers.to(torch.bfloat16)


def error(found: Tensor, true: Tensor) -> float:
    """Length of the error relative to that of the truth; bfloat16's rounding alone is 0.0017."""
    found, true = found.detach().double(), true.detach().double()
    return float((found - true).norm() / true.norm().clamp(min=1e-30))


def leaves(*tensors: Tensor, dtype: torch.dtype) -> list[Tensor]:
    return [tensor.detach().to(dtype).requires_grad_() for tensor in tensors]
