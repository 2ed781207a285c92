"""Formulas written once give the same results on `maths` tensors and on torch tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from groundup.maths import Tensor
from groundup.maths.kl import kl_k1, kl_k2, kl_k3
from groundup.nn.attention import attention
from groundup.nn.gpt import GPT, GPTConfig, gpt_logits
from groundup.nn.layers import layer_norm, linear, rms_norm
from groundup.nn.losses import cross_entropy
from groundup.nn.recurrent import gru_step, lstm_step

RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape)


H = 5
RECURRENT = [normal(3, 4), normal(3, H), normal(3, H)]
CLASSES = RANDOM.integers(7, size=6)
FORMULAS: dict[str, tuple[Callable[..., Any], list[np.ndarray]]] = {
    "softmax": (lambda x: x.softmax(-1), [normal(4, 7) * 5]),
    "cross-entropy": (lambda x: cross_entropy(x, CLASSES), [normal(6, 7)]),
    "k1": (kl_k1, [normal(9)]),
    "k2": (kl_k2, [normal(9)]),
    "k3": (kl_k3, [normal(9)]),
    "linear": (linear, [normal(2, 3, 4), normal(5, 4), normal(5)]),
    "RMSNorm": (lambda x, w: rms_norm(x, w, 1e-6), [normal(2, 3, 8), normal(8)]),
    "LayerNorm": (
        lambda x, w, b: layer_norm(x, w, b, 1e-5),
        [normal(2, 3, 8), normal(8), normal(8)],
    ),
    "attention": (attention, [normal(2, 3, 6, 4), normal(2, 3, 6, 4), normal(2, 3, 6, 4)]),
    "LSTM, hidden": (
        lambda *t: lstm_step(*t)[0],
        [*RECURRENT, normal(4 * H, 4), normal(4 * H, H), normal(4 * H), normal(4 * H)],
    ),
    "LSTM, cell": (
        lambda *t: lstm_step(*t)[1],
        [*RECURRENT, normal(4 * H, 4), normal(4 * H, H), normal(4 * H), normal(4 * H)],
    ),
    "GRU": (
        gru_step,
        [*RECURRENT[:2], normal(3 * H, 4), normal(3 * H, H), normal(3 * H), normal(3 * H)],
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_formula_gives_the_same_on_both_engines(name: str) -> None:
    formula, arrays = FORMULAS[name]
    here = [Tensor(array) for array in arrays]
    there = [torch.tensor(array, requires_grad=True) for array in arrays]
    value, oracle = formula(*here), formula(*there)
    np.testing.assert_allclose(value.data, oracle.detach().numpy(), rtol=0, atol=1e-10)
    direction = np.random.default_rng(1).normal(size=value.shape)
    (value * direction).sum().backward()
    (oracle * torch.tensor(direction)).sum().backward()
    for ours, theirs in zip(here, there, strict=True):
        if theirs.grad is None:  # an input that this result does not depend on
            assert ours.grad is None
        else:
            np.testing.assert_allclose(ours.grad.data, theirs.grad.numpy(), rtol=0, atol=1e-8)


CONFIG = GPTConfig(
    vocab_size=50,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    intermediate_size=64,
    max_position_embeddings=24,
)


def with_random_weights() -> GPT:
    """Output projections start at zero, which would hide errors."""
    model = GPT(CONFIG, dtype=np.float64)
    random = np.random.default_rng(3)
    for weight in model.weights.values():
        weight.data = weight.data + random.normal(0, 0.1, weight.shape)
    return model


def on_torch(model: GPT) -> dict[str, torch.Tensor]:
    return {
        name: torch.tensor(weight.data, requires_grad=True)
        for name, weight in model.weights.items()
    }


def test_the_gpt_has_equal_logits_and_gradients_on_both_engines() -> None:
    model = with_random_weights()
    weights = on_torch(model)
    tokens = np.random.default_rng(4).integers(50, size=(3, 25))
    ids, targets = tokens[:, :-1], tokens[:, 1:]
    logits = gpt_logits(weights, CONFIG, ids)
    np.testing.assert_allclose(model(ids).data, logits.detach().numpy(), rtol=0, atol=1e-10)
    model.loss(ids, targets).backward()
    cross_entropy(logits.flatten(0, 1), targets.reshape(-1)).backward()
    assert weights.keys() == model.weights.keys()
    for name, weight in model.weights.items():
        assert weight.grad is not None and weights[name].grad is not None
        theirs = weights[name].grad.numpy()
        np.testing.assert_allclose(weight.grad.data, theirs, rtol=0, atol=1e-8, err_msg=name)
        assert np.abs(theirs).max() > 1e-4, name


def test_ten_training_steps_are_equal_on_both_engines() -> None:
    from groundup.nn.optim import AdamW

    model = with_random_weights()
    weights = on_torch(model)
    optimizer = AdamW(model.parameters(), lr=0.01)
    theirs = torch.optim.AdamW(weights.values(), lr=0.01)
    random = np.random.default_rng(6)
    losses = []
    for _ in range(10):
        tokens = random.integers(50, size=(4, 17))
        ids, targets = tokens[:, :-1], tokens[:, 1:]
        loss = model.loss(ids, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        oracle = cross_entropy(gpt_logits(weights, CONFIG, ids).flatten(0, 1), targets.reshape(-1))
        theirs.zero_grad()
        oracle.backward()
        theirs.step()
        losses.append((float(loss), oracle.item()))
    np.testing.assert_allclose(*zip(*losses, strict=True), rtol=0, atol=1e-8)
