"""Norms, rotations, SwiGLU and cross-entropy against their equations in float64."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from tests.kernels.conftest import error, leaves, normal, number, within
from torch import Tensor, nn
from torch.nn import functional

from groundup.kernels import rms_norm as norms
from groundup.kernels import rotary
from groundup.kernels.cross_entropy import cross_entropy_, supports
from groundup.kernels.library import Kernels
from groundup.kernels.rms_norm import add_rms_norm, rms_norm
from groundup.kernels.rotary import normed_and_rotated
from groundup.kernels.swiglu import swiglu_down
from groundup.lm.positions import rotate

# A value rounded once is within 0.0017, one rounded twice within 0.0025.
TOLERANCE = 0.003


def check(own: Sequence[Tensor], true: Sequence[Tensor]) -> None:
    for mine, theirs in zip(own, true, strict=True):
        assert error(mine, theirs) < within(TOLERANCE)


def true_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


@pytest.mark.parametrize("shape", [(1, 16), (3, 5, 48), (70, 384)])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 300.0])
def test_the_norm_after_a_sum(kernels: Kernels, shape: tuple[int, ...], scale: float) -> None:
    width, eps = shape[-1], 1e-6
    x, added = normal(0, *shape, scale=scale), normal(1, *shape, scale=scale)
    weight, dsum, dy = normal(2, width), normal(3, *shape, scale=1 / scale), normal(4, *shape)
    own = leaves(x, added, weight, dtype=number())
    both = add_rms_norm(own[0], own[1], own[2], eps)
    true = leaves(x, added, weight, dtype=torch.float64)
    # The sum is rounded, and the norm is of what it became.
    whole = true[0] + true[1]
    rounded = whole + (both[0].double() - whole).detach()
    expected = (rounded, true_norm(rounded, true[2], eps))
    check(both, expected)
    gradients = torch.autograd.grad(expected, true, (dsum.double(), dy.double()))
    check(torch.autograd.grad(both, own, (dsum, dy)), gradients)


def test_the_norm_alone(kernels: Kernels) -> None:
    x, weight, dy = normal(0, 7, 9, 64), normal(1, 64), normal(2, 7, 9, 64)
    own, true = (leaves(x, weight, dtype=dtype) for dtype in (number(), torch.float64))
    y, expected = rms_norm(own[0], own[1], 1e-5), true_norm(true[0], true[1], 1e-5)
    check([y], [expected])
    check(torch.autograd.grad(y, own, dy), torch.autograd.grad(expected, true, dy.double()))


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("normed", [True, False])
def test_heads_are_normalized_and_rotated(kernels: Kernels, size: int, normed: bool) -> None:
    x, dy = normal(0, 2, 11, 3, size), normal(1, 2, 11, 3, size)
    angles = torch.rand(2, 11, size // 2, generator=torch.manual_seed(2)) * 6
    turns = tuple(torch.cat((a, a), -1).to(number()) for a in (angles.cos(), angles.sin()))
    tensors = (x, normal(3, size)) if normed else (x,)
    own, true = (leaves(*tensors, dtype=dtype) for dtype in (number(), torch.float64))
    y = normed_and_rotated(own[0], own[1] if normed else None, 1e-6, turns[0], turns[1])
    inner = true_norm(true[0], true[1], 1e-6) if normed else true[0]
    exact = turns[0].double(), turns[1].double()
    expected = rotate(inner.transpose(1, 2), exact).transpose(1, 2)
    check([y], [expected])
    check(torch.autograd.grad(y, own, dy), torch.autograd.grad(expected, true, dy.double()))


@pytest.mark.parametrize("scale", [0.1, 3.0, 60.0])
@pytest.mark.parametrize("bias", [False, True])
def test_swiglu_and_the_next_matrix(kernels: Kernels, scale: float, bias: bool) -> None:
    gate, up, dy = normal(0, 2, 25, 96, scale=scale), normal(1, 2, 25, 96), normal(2, 2, 25, 64)
    down = nn.Linear(96, 64, bias=bias).to(number())
    own = leaves(gate, up, dtype=number())
    y = swiglu_down(own[0], own[1], down)
    true = leaves(gate, up, *down.parameters(), dtype=torch.float64)
    inner = true[0] * torch.sigmoid(true[0]) * true[1]
    expected = functional.linear(inner, true[2], true[3] if bias else None)
    check([y], [expected])
    found = torch.autograd.grad(y, [*own, *down.parameters()], dy)
    check(found, torch.autograd.grad(expected, true, dy.double()))


@pytest.mark.parametrize("scale", [0.01, 4.0, 200.0])
@pytest.mark.parametrize("vocabulary", [16, 320, 4096])
def test_cross_entropy_and_its_gradient(kernels: Kernels, vocabulary: int, scale: float) -> None:
    logits = normal(0, 30, vocabulary, scale=scale)
    generator = torch.manual_seed(1)
    targets = torch.randint(vocabulary, (30,), generator=generator)
    weights = torch.rand(30, generator=generator)
    [true] = leaves(logits, dtype=torch.float64)
    losses = functional.cross_entropy(true, targets, reduction="none")
    expected = losses @ weights.double()
    loss = cross_entropy_(logits, targets, weights)
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-5)
    check([logits], torch.autograd.grad(expected, true))


def test_noncontiguous_logits_use_the_plain_path(kernels: Kernels) -> None:
    wide = normal(0, 30, 128)
    assert supports(wide) and not supports(wide[:, ::2])


def test_targets_and_weights_may_have_any_strides(kernels: Kernels) -> None:
    generator = torch.manual_seed(1)
    targets = torch.randint(64, (30, 2), generator=generator)
    weights = torch.rand(30, 2, generator=generator)
    expected = cross_entropy_(
        normal(0, 30, 64), targets[:, 0].contiguous(), weights[:, 0].contiguous()
    )
    assert cross_entropy_(normal(0, 30, 64), targets[:, 0], weights[:, 0]) == expected
    assert (
        cross_entropy_(normal(0, 30, 64), targets[:, 0].int(), weights[:, 0].double()) == expected
    )
    x, gain = normal(0, 5, 64), normal(1, 64, 2).float()[:, 0]
    assert torch.equal(rms_norm(x, gain, 1e-6), rms_norm(x, gain.contiguous(), 1e-6))


def test_losses_of_nan_are_nan(kernels: Kernels) -> None:
    logits = normal(0, 2, 64)
    logits[1, 5] = torch.nan
    assert bool(cross_entropy_(logits, torch.tensor([3, 3]), torch.ones(2)).isnan())


@pytest.mark.parametrize("wrong", [-1, 37])
def test_targets_outside_the_vocabulary_are_rejected(kernels: Kernels, wrong: int) -> None:
    memory = normal(0, 4, 32)
    logits, before = memory[1:3], memory.clone()
    with pytest.raises(IndexError, match=f"target {wrong} is outside the vocabulary of 32"):
        cross_entropy_(logits, torch.tensor([5, wrong]), torch.ones(2))
    assert torch.equal(memory, before)


def test_tensors_of_another_dtype_are_not_misread(kernels: Kernels) -> None:
    """Such as a float32 vector that is added to a bfloat16 layer's output."""
    other = torch.float32 if number() == torch.bfloat16 else torch.bfloat16
    wide, weight = normal(0, 2, 3, 64), normal(1, 64)
    assert norms.supports(wide, weight, wide)
    assert not norms.supports(wide, weight, wide.to(other))
    heads, turns = normal(2, 2, 3, 4, 64), normal(3, 2, 3, 64)
    assert rotary.supports(heads, weight, turns, turns)
    assert not rotary.supports(heads, weight, turns.to(other), turns)
    assert not rotary.supports(heads, None, turns, turns.to(other))
    gate, up = normal(4, 3, 64), normal(5, 3, 64)
    found = swiglu_down(gate, up.to(other), nn.Identity())
    assert error(found, functional.silu(gate.double()) * up.double()) < 0.01
