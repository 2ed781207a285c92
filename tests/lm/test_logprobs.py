from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from groundup.errors import UserError
from groundup.lm import logprobs as module
from groundup.lm.logprobs import entropy, logprobs, sequence_logprobs, target_logprobs
from groundup.train.batch import Batch


def weighted_batch() -> Batch:
    """Three rows: two packed sequences, a single one, and one with weight 0."""
    ids = torch.randint(320, (3, 21))
    weights = torch.rand(3, 20) * (torch.rand(3, 20) < 0.6)
    weights[2] = 0
    positions = torch.arange(20).repeat(3, 1)
    positions[0, 8:] -= 8
    segments = torch.tensor([[0] * 8 + [1] * 12, [2] * 20, [3] * 17 + [-1] * 3])
    return Batch(ids[:, :-1], ids[:, 1:], weights, positions, segments)


def plain(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    everything = model.logits(batch).log_softmax(-1)  # type: ignore[operator]
    return everything.gather(-1, batch.targets[..., None])[..., 0]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks that do not divide the number of tokens, so that the last one is smaller."""
    monkeypatch.setattr(module, "chunk_rows", lambda vocabulary: 7)


@pytest.mark.usefixtures("small_chunks")
def test_logprobs_equal_log_softmax_of_all_logits(tiny_model) -> None:  # type: ignore[no-untyped-def]
    model, batch = tiny_model(), weighted_batch()
    out = logprobs(model, batch)
    assert out.shape == batch.targets.shape and not out.requires_grad
    assert_close(out, plain(model, batch), rtol=1e-5, atol=1e-5)


def test_missing_targets_are_not_scored(tiny_model) -> None:  # type: ignore[no-untyped-def]
    model, ids = tiny_model(), torch.randint(1, 320, (2, 6))
    with pytest.raises(UserError, match="the batch has no targets"):
        logprobs(model, Batch.of(ids))
    batch = replace(Batch.of(ids[:, :-1]), targets=ids[:, 1:])
    assert_close(logprobs(model, batch), plain(model, batch), rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("tied", [True, False])
def test_sequence_logprobs_and_their_gradients_equal_plain_torch(tiny_model, tied: bool) -> None:  # type: ignore[no-untyped-def]
    model, batch = tiny_model(tie_word_embeddings=tied), weighted_batch()
    parameters = list(model.parameters())
    upstream = torch.tensor([1.0, -2.0, 3.0, 4.0])
    ours = sequence_logprobs(model, batch)
    weighted = plain(model, batch) * batch.weights
    oracle = torch.stack([weighted[batch.segment_ids == number].sum() for number in range(4)])
    assert_close(ours, oracle, rtol=1e-5, atol=1e-5)
    assert ours[3] == 0
    gradients = torch.autograd.grad((ours * upstream).sum(), parameters)
    expected = torch.autograd.grad((oracle * upstream).sum(), parameters)
    for one, other in zip(gradients, expected, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("small_chunks")
def test_gradients_equal_finite_differences() -> None:
    hidden = torch.randn(10, 4, dtype=torch.float64, requires_grad=True)
    head = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(6, (10,))
    assert torch.autograd.gradcheck(lambda h, w: target_logprobs(h, w, targets), (hidden, head))


def test_second_derivatives_are_rejected() -> None:
    hidden, head = torch.randn(9, 8, requires_grad=True), torch.randn(32, 8, requires_grad=True)
    total = target_logprobs(hidden, head, torch.randint(32, (9,))).sum()
    with pytest.raises(RuntimeError, match=r"only first derivatives.*logits\(batch\)"):
        torch.autograd.grad(total, hidden, create_graph=True)


def test_a_frozen_head_gets_no_gradient_but_hidden_states_do() -> None:
    hidden = torch.randn(5, 4, requires_grad=True)
    target_logprobs(hidden, torch.randn(6, 4), torch.randint(6, (5,))).sum().backward()
    assert hidden.grad is not None and hidden.grad.abs().sum() > 0


def test_a_batch_without_weights_gives_trainable_zeros(tiny_model) -> None:  # type: ignore[no-untyped-def]
    model = tiny_model()
    out = sequence_logprobs(model, Batch.of(torch.randint(320, (2, 5))))
    assert out.tolist() == [0, 0]
    out.sum().backward()


def test_bf16_models_give_float32_logprobs(tiny_model) -> None:  # type: ignore[no-untyped-def]
    model, batch = tiny_model().to(torch.bfloat16), weighted_batch()
    out = sequence_logprobs(model, batch)
    assert out.dtype == torch.float32
    out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4, 11), (4, 1)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1e4])
def test_entropy_and_its_gradient_equal_torchs(shape: tuple[int, ...], scale: float) -> None:
    logits = (torch.randn(*shape, dtype=torch.float64) * scale).requires_grad_()
    ours = entropy(logits)
    theirs = torch.distributions.Categorical(logits=logits).entropy()
    assert ours.shape == shape[:-1]
    assert_close(ours, theirs)
    upstream = torch.randn(shape[:-1], dtype=torch.float64)
    gradients = (torch.autograd.grad((h * upstream).sum(), logits)[0] for h in (ours, theirs))
    assert_close(*gradients)


def test_entropy_of_logits_of_any_size() -> None:
    big = torch.tensor([[1e30, 0.0, -1e30], [5e4, 5e4, -torch.inf], [-1e5] * 3])
    wanted = torch.tensor([0.0, math.log(2), math.log(3)])
    assert_close(entropy(big), wanted)
    shifted = entropy(big[1:] + 1e4)
    assert_close(shifted, wanted[1:])
    logits = torch.tensor([1.0, 2.0, -torch.inf], requires_grad=True)
    (gradient,) = torch.autograd.grad(entropy(logits), logits)
    assert gradient.isfinite().all()
    assert entropy(torch.randn(9, 300).bfloat16()).dtype == torch.float32
