"""The training loop against one written in torch, and its records, evaluations and errors."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, repeat
from math import isnan, nan
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.maths.tensor import Tensor, is_grad_enabled
from groundup.nn.module import Module
from groundup.nn.optim import SGD, AdamW
from groundup.nn.schedule import cosine, linear_warmup
from groundup.nn.training import minibatches, train

X = np.random.default_rng(0).normal(size=(40, 3))
Y = np.tanh(X @ [1.0, -2.0, 0.5]) + 0.3


class Neuron(Module):
    """tanh(x · w + b)."""

    def __init__(self) -> None:
        self.weight, self.bias = Tensor([0.1, 0.2, 0.3]), Tensor(0.0)

    def forward(self, x: np.ndarray) -> Tensor:
        return (Tensor(x, requires_grad=False) @ self.weight + self.bias).tanh()


def squared_error(model: Module, batch: tuple[np.ndarray, ...]) -> Tensor:
    x, y = batch
    return ((model(x) - y) ** 2).mean()


def stream(seed: int = 0) -> Iterator[tuple[np.ndarray, ...]]:
    return minibatches((X, Y), 8, np.random.default_rng(seed))


def test_the_loop_equals_one_written_in_torch() -> None:
    schedule, limit = linear_warmup(5, then=cosine(20)), 0.4
    model = Neuron()
    optimizer = AdamW(model.parameters(), lr=0.05)
    history = train(
        model, stream(), squared_error, optimizer, steps=20, schedule=schedule, clip=limit
    )

    weight = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    theirs = torch.optim.AdamW([weight, bias], lr=0.05)
    losses, norms = [], []
    for step, (x, y) in zip(range(20), stream(), strict=False):
        loss = ((torch.tanh(torch.tensor(x) @ weight + bias) - torch.tensor(y)) ** 2).mean()
        theirs.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norms.append(torch.nn.utils.clip_grad_norm_([weight, bias], limit).item())
        theirs.param_groups[0]["lr"] = 0.05 * schedule(step)
        theirs.step()
        losses.append(loss.item())

    assert history.losses == pytest.approx(losses, rel=1e-9)
    assert history.gradient_norms == pytest.approx(norms, rel=1e-9)
    assert max(norms) > limit > min(norms)
    assert history.learning_rates == [0.05 * schedule(step) for step in range(20)]
    assert model.weight.tolist() == pytest.approx(weight.tolist(), rel=1e-9)
    assert len(history.seconds) == 20 and history.seconds == sorted(history.seconds)
    assert history.evaluations == {} and not history.diverged
    assert optimizer.lr == 0.05


def test_it_learns() -> None:
    model = Neuron()
    history = train(model, stream(), squared_error, SGD(model.parameters(), lr=0.3), steps=300)
    assert history.losses[-1] < 0.1 * history.losses[0]


def test_evaluations_use_evaluation_mode_and_no_grad() -> None:
    seen = []

    def evaluate(model: Module) -> float:
        seen.append((model.training, is_grad_enabled()))
        return float(len(seen))

    model = Neuron()
    model.eval()
    history = train(
        model,
        stream(),
        squared_error,
        SGD(model.parameters()),
        steps=7,
        evaluate=evaluate,
        evaluate_every=3,
    )
    assert history.evaluations == {3: 1.0, 6: 2.0, 7: 3.0}
    assert seen == [(False, False)] * 3
    assert model.training


def test_a_nan_loss_ends_the_training() -> None:
    model = Neuron()
    batches = [(X, Y), (X, Y), (X, nan * Y), (X, Y)]
    history = train(model, batches, squared_error, SGD(model.parameters()), steps=4)
    assert history.diverged
    assert isnan(history.losses[2]) and len(history.losses) == 3
    assert len(history.learning_rates) == len(history.gradient_norms) == len(history.seconds) == 2
    assert np.isfinite(model.weight.data).all()


def test_too_few_batches_raise() -> None:
    model = Neuron()
    with pytest.raises(ValueError, match="ended after 2 of 5 steps"):
        train(model, [(X, Y)] * 2, squared_error, SGD(model.parameters()), steps=5)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": 5, "evaluate_every": 0}])
def test_counts_are_at_least_one(wrong: dict[str, Any]) -> None:
    model = Neuron()
    with pytest.raises(ValueError, match="at least 1"):
        train(model, repeat((X, Y)), squared_error, SGD(model.parameters()), **wrong)


# Minibatches.


@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 9))
@settings(deadline=None)
def test_every_row_occurs_once_per_epoch(rows: int, size: int, seed: int) -> None:
    table, labels = np.arange(2 * rows).reshape(rows, 2), np.arange(rows) * 10
    epochs = 4
    count = -(-epochs * rows // size)
    batches = list(islice(minibatches((table, labels), size, np.random.default_rng(seed)), count))
    assert all(x.shape == (size, 2) and y.shape == (size,) for x, y in batches)
    assert all(np.array_equal(x[:, 0] * 5, y) for x, y in batches)  # rows stay together
    order = np.concatenate([y for _, y in batches])[: epochs * rows].reshape(epochs, rows)
    assert (np.sort(order, axis=1) == labels).all()


def test_the_order_is_new_in_each_epoch_and_reproducible() -> None:
    def epochs(seed: int) -> np.ndarray:
        drawn = minibatches([np.arange(50)], 50, np.random.default_rng(seed))
        return np.stack([x for (x,) in islice(drawn, 3)])

    first = epochs(0)
    assert len(np.unique(first, axis=0)) == 3
    assert np.array_equal(first, epochs(0))
    assert not np.array_equal(first, epochs(1))


@pytest.mark.parametrize(
    ("arrays", "size"),
    [([], 2), ([np.zeros(3), np.zeros(4)], 2), ([np.zeros((0, 2))], 2), ([np.zeros(3)], 0)],
)
def test_arrays_must_match_and_not_be_empty(arrays: list[np.ndarray], size: int) -> None:
    with pytest.raises(ValueError, match=f"size={size} from arrays of"):
        minibatches(arrays, size, np.random.default_rng(0))
