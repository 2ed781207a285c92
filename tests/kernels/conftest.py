"""The kernels that this machine can run, one kind after the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from groundup.kernels import library
from groundup.kernels.library import Kernels

HOOKS = ("forward", "forward_pre", "full_backward", "full_backward_pre")


@pytest.fixture(params=["avx2", "avx512_bf16", "amx"])
def kernels(request: pytest.FixtureRequest) -> Iterator[Kernels]:
    """These kernels in use; machines that lack them, or a compiler, skip the test."""
    kind: Kernels = request.param
    if not library.is_allowed(kind) or library.library(kind) is None:
        pytest.skip(f"this machine has no {kind} or no compiler")
    library.use_kernels(kind)
    yield kind
    library.use_kernels("none")


def number() -> torch.dtype:
    """The dtype of the kernels in use."""
    both = (torch.float32, torch.bfloat16)
    [dtype] = (one for one in both if library.in_use(torch.empty(0, dtype=one)))
    return dtype


def within(bfloat16: float) -> float:
    """The error allowed for bfloat16; of float32's additional sixteen bits, sums lose some."""
    return bfloat16 if number() == torch.bfloat16 else bfloat16 / 2**8


def normal(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    """Normally distributed numbers of the kernels' dtype."""
    numbers = torch.randn(shape, generator=torch.manual_seed(seed)) * scale
    return numbers.to(number())


def error(found: Tensor, true: Tensor) -> float:
    """Relative error; bfloat16's rounding alone is 0.0017."""
    found, true = found.detach().double(), true.detach().double()
    return float((found - true).norm() / true.norm().clamp(min=1e-30))


def leaves(*tensors: Tensor, dtype: torch.dtype) -> list[Tensor]:
    return [tensor.detach().to(dtype).requires_grad_() for tensor in tensors]
