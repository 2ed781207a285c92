"""Chunked cross-entropy against torch's over all logits at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.train.batch import Batch
from groundup.train.loss import CHUNK, chunk_rows, linear_cross_entropy, next_token_loss

VOCAB, WIDTH = 96, 16


def problem(tokens: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """Hidden states, a head, targets, and weights of which a third is zero."""
    generator = torch.Generator().manual_seed(tokens)
    hidden = torch.randn(tokens, WIDTH, generator=generator).to(dtype).requires_grad_()
    head = torch.randn(VOCAB, WIDTH, generator=generator).to(dtype).requires_grad_()
    targets = torch.randint(VOCAB, (tokens,), generator=generator)
    weights = torch.rand(tokens, generator=generator) * 2
    weights[::3] = 0
    return hidden, head, targets, weights


def plain(hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The equation over all logits at once, in float64."""
    logits = hidden.double() @ head.double().T
    return cross_entropy(logits, targets, reduction="none") @ weights.double()


@pytest.mark.parametrize("every", [True, False], ids=["all trained", "some trained"])
@pytest.mark.parametrize("tokens", [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 77])
def test_value_and_gradients_equal_torchs(tokens: int, every: bool) -> None:
    hidden, head, targets, weights = problem(tokens)
    weights = weights + 0.5 if every else weights
    ours = linear_cross_entropy(hidden, head, targets, weights)
    oracle = plain(hidden, head, targets, weights)
    assert_close(ours.double(), oracle, rtol=1e-5, atol=1e-5)
    # An external scale must reach both gradients, exactly once.
    got = torch.autograd.grad(ours * 0.37, (hidden, head))
    expected = torch.autograd.grad(oracle * 0.37, (hidden, head))
    for one, other in zip(got, expected, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_float64_is_accepted() -> None:
    hidden, head, targets, weights = problem(40)
    double = [one.detach().double().requires_grad_() for one in (hidden, head)]
    found = linear_cross_entropy(*double, targets, weights.double())
    assert_close(found.double(), plain(hidden, head, targets, weights), rtol=1e-5, atol=1e-5)
    gradients = torch.autograd.grad(found, double)
    assert {one.dtype for one in gradients} == {torch.float64}


def test_a_second_backward_gives_the_same_gradients() -> None:
    hidden, head, targets, weights = problem(40)
    total = linear_cross_entropy(hidden, head, targets, weights)
    first = torch.autograd.grad(total / 7, (hidden, head), retain_graph=True)
    again = torch.autograd.grad(total / 7, (hidden, head))
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one, other)


def test_under_autocast_the_loss_is_that_of_the_rounded_states() -> None:
    hidden, head, targets, weights = problem(40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states = hidden @ torch.eye(WIDTH)  # of bfloat16, as a model's are
        ours = linear_cross_entropy(states, head, targets, weights)
        got = torch.autograd.grad(ours, (hidden, head), retain_graph=True)
    oracle = plain(states, head, targets, weights)
    assert_close(ours.double(), oracle, rtol=1e-5, atol=1e-5)
    expected = torch.autograd.grad(oracle, (hidden, head))
    assert_close(got[0], expected[0], rtol=1e-2, atol=1e-2)
    assert_close(got[1], expected[1], rtol=1e-4, atol=1e-5)


def test_second_derivatives_are_rejected() -> None:
    """Some would be silently left out."""
    total = linear_cross_entropy(*problem(9))
    with pytest.raises(RuntimeError, match=r"only first derivatives.*logits\(batch\)"):
        total.backward(create_graph=True)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("frozen", ["head", "hidden"])
def test_frozen_parts_get_no_gradient_and_change_nothing_else(frozen: str) -> None:
    hidden, head, targets, weights = problem(CHUNK + 9)
    both = torch.autograd.grad(linear_cross_entropy(hidden, head, targets, weights), (hidden, head))
    if frozen == "head":
        head.requires_grad_(False)
    else:
        hidden.requires_grad_(False)
    linear_cross_entropy(hidden, head, targets, weights).backward()
    got = (hidden.grad, head.grad)
    for one, other, name in zip(got, both, ("hidden", "head"), strict=True):
        assert one is None if name == frozen else torch.equal(one, other)


def test_bf16_loses_only_the_inevitable_precision() -> None:
    hidden, head, targets, weights = problem(CHUNK + 300, torch.bfloat16)
    ours = linear_cross_entropy(hidden, head, targets, weights)
    oracle = plain(hidden, head, targets, weights)
    assert ours.dtype == torch.float32
    assert_close(ours.double(), oracle, rtol=5e-3, atol=0)
    got = torch.autograd.grad(ours, (hidden, head))
    expected = torch.autograd.grad(oracle, (hidden, head))
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == torch.bfloat16
        assert (one - other).float().norm() < 1e-2 * other.float().norm()


def test_the_weight_of_a_step_scales_bf16_gradients_exactly() -> None:
    """1 / 1537 rounded to bf16 would be 0.26 % too large, in every gradient below the head."""
    hidden, head, targets, weights = problem(40, torch.bfloat16)
    total = linear_cross_entropy(hidden, head, targets, weights)
    whole = torch.autograd.grad(total, (hidden, head), retain_graph=True)
    shares = torch.autograd.grad(total / 1537, (hidden, head))
    for one, share in zip(whole, shares, strict=True):
        assert torch.equal(share, (one.float() / 1537).bfloat16())


def test_huge_logits_do_not_overflow() -> None:
    hidden, head, targets, weights = problem(20)
    scaled = (hidden * 1e4).detach().requires_grad_()
    ours = linear_cross_entropy(scaled, head, targets, weights)
    assert_close(ours.double(), plain(scaled, head, targets, weights), rtol=1e-4, atol=1e-2)
    assert torch.autograd.grad(ours, scaled)[0].isfinite().all()


def test_nothing_kept_for_backward_is_as_large_as_the_logits() -> None:
    hidden, head, targets, weights = problem(4 * CHUNK)
    kept: list[int] = []
    hooks = torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor
    )
    with hooks:
        linear_cross_entropy(hidden, head, targets, weights)
    assert kept and max(kept) <= hidden.numel() < hidden.shape[0] * VOCAB


def test_without_weights_the_loss_is_a_trainable_zero() -> None:
    hidden, head, targets, weights = problem(12)
    total = linear_cross_entropy(hidden, head, targets, weights * 0)
    assert not total.any()
    for gradient in torch.autograd.grad(total, (hidden, head)):
        assert not gradient.any()


def test_a_frozen_head_and_no_gradients_at_all() -> None:
    hidden, head, targets, weights = problem(12)
    frozen = linear_cross_entropy(hidden, head.detach(), targets, weights)
    [gradient] = torch.autograd.grad(frozen, (hidden,))
    [expected] = torch.autograd.grad(plain(hidden, head, targets, weights), (hidden,))
    assert_close(gradient, expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert_close(linear_cross_entropy(hidden, head, targets, weights), frozen)


def test_the_next_token_loss_of_a_model_is_a_weighted_sum() -> None:
    model = CausalLM(ModelConfig.of(width=64, depth=1, vocab_size=320, context=32))
    ids = torch.randint(320, (3, 21))
    plain_rows = Batch.of(ids[:, :-1])
    weights = torch.rand(3, 20).round(decimals=1)
    batch = Batch(
        plain_rows.input_ids,
        ids[:, 1:],
        weights,
        plain_rows.position_ids,
        plain_rows.segment_ids,
    )
    found = next_token_loss(model, batch)
    every = cross_entropy(model.logits(batch).transpose(1, 2), batch.targets, reduction="none")
    assert_close(found.total, (every * weights).sum(), rtol=1e-5, atol=1e-4)
    assert found.weight == pytest.approx(float(weights.sum()))
    assert found.metrics["loss"] == (pytest.approx(found.total.item()), found.weight)


def test_chunks_of_large_vocabularies_have_fewer_tokens() -> None:
    assert [chunk_rows(v) for v in (2_048, 8_192, 16_384, 49_152, 151_936)] == [
        512, 512, 256, 128, 128,
    ]  # fmt: skip


def test_a_batch_is_counted_before_it_is_moved() -> None:
    """On the meta device, which has no values: on a GPU this would synchronize."""
    there = torch.device("meta")
    rows = Batch.of(torch.arange(8).view(2, 4), [4, 3])
    batch = replace(rows, weights=torch.tensor([[0.0, 0.5, 0, 1], [1, 0, 0, 0]]))
    moved = batch.to(there)
    assert (moved.weight, moved.tokens) == (2.5, 7) == (batch.weight, batch.tokens)
    assert batch.trained.tolist() == [1, 3, 4] and moved.trained.device == there
    assert not rows.to(torch.device("cpu")).counted


def test_known_positions_are_not_searched() -> None:
    hidden, head, targets, weights = problem(9)
    first = torch.tensor([1, 2])
    known = linear_cross_entropy(hidden, head, targets, weights, first)
    assert torch.equal(known, linear_cross_entropy(hidden[:3], head, targets[:3], weights[:3]))
