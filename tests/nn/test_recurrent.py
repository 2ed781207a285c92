"""Recurrent cells and sequences against torch.nn with copied weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from groundup import nn
from groundup.maths import Tensor
from torch_layers import agree

RNG = np.random.default_rng(0)
DOUBLE = {"dtype": np.float64}
KINDS = ["RNN", "GRU", "LSTM"]


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


def states(kind: str, *shape: int) -> Any:
    """A state in the network's form: one array, or two for an LSTM."""
    return (normal(*shape), normal(*shape)) if kind == "LSTM" else normal(*shape)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [True, False])
def test_cell(kind: str, bias: bool) -> None:
    ours = getattr(nn, f"{kind}Cell")(4, 3, bias, **DOUBLE)
    theirs = getattr(torch.nn, f"{kind}Cell")(4, 3, bias)
    agree(ours, theirs, normal(5, 4), states(kind, 5, 3))
    agree(ours, theirs, normal(5, 4))
    agree(ours, theirs, normal(4), states(kind, 3))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("batch_first", [True, False])
def test_sequence(kind: str, layers: int, batch_first: bool) -> None:
    options = {"num_layers": layers, "batch_first": batch_first, "bias": layers == 1}
    ours = getattr(nn, kind)(4, 3, **options, **DOUBLE)
    theirs = getattr(torch.nn, kind)(4, 3, **options)
    agree(ours, theirs, normal(5, 6, 4), states(kind, layers, 5 if batch_first else 6, 3))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("time", [1, 2, 7])
def test_a_sequence_equals_the_cell_step_by_step(kind: str, time: int) -> None:
    sequence = getattr(nn, kind)(4, 3, **DOUBLE)
    cell = getattr(nn, f"{kind}Cell")(4, 3, **DOUBLE)
    state = sequence.state_dict()
    cell.load_state_dict({name.removesuffix("_l0"): array for name, array in state.items()})
    x = Tensor(normal(time, 2, 4))
    outputs, last = sequence(x)
    h = None
    for t in range(time):
        h = cell(x[t], h)
        shown = h[0] if kind == "LSTM" else h
        np.testing.assert_allclose(outputs.data[t], shown.data, rtol=1e-12)
    for ours, cells in zip(last, h, strict=True) if kind == "LSTM" else [(last, h)]:
        np.testing.assert_allclose(ours.data[0], cells.data, rtol=1e-12)


def test_an_lstm_keeps_a_gradient_that_the_plain_network_loses() -> None:
    """The cell state passes an open forget gate unchanged; tanh and U shrink gradients."""

    def first_gradient(net: nn.Module) -> float:
        x = Tensor(normal(60, 4, 8))
        outputs, _ = net(x)
        outputs[-1].sum().backward()
        assert x.grad is not None
        return float(np.abs(x.grad.data[0]).max())

    lstm = nn.LSTM(8, 16, rng=1, **DOUBLE)
    lstm.bias_ih_l0.data[16:32] = 10.0  # the forget gates
    assert first_gradient(lstm) > 1e5 * first_gradient(nn.RNN(8, 16, rng=1, **DOUBLE))


def test_backward_takes_linear_time_in_the_length() -> None:
    from groundup.maths import tensor

    moved = 0

    def count(operation: Any, out: Any) -> None:
        nonlocal moved
        moved += out.numel()

    def numbers(time: int) -> int:
        nonlocal moved
        outputs, _ = nn.RNN(2, 2)(Tensor(normal(time, 1, 2).astype(np.float32)))
        moved = 0
        token = tensor.observers.set((count,))
        outputs.sum().backward()
        tensor.observers.reset(token)
        return moved

    assert numbers(256) < 5 * numbers(64)  # 4 for n, 16 for n²


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.LSTMCell(0, 3), "input_size=0 must be at least 1"),
        (lambda: nn.GRU(2, 3, num_layers=0), "num_layers=0 must be at least 1"),
        (lambda: nn.RNN(4, 3)(Tensor(normal(2, 4))), r"\(2, 4\) does not fit \(time, n, 4\)"),
        (
            lambda: nn.LSTM(4, 3, batch_first=True)(Tensor(normal(2, 5, 3))),
            r"\(2, 5, 3\) does not fit \(n, time, 4\)",
        ),
        (lambda: nn.GRU(4, 3)(Tensor(normal(0, 5, 4))), "at least one step"),
        (
            lambda: nn.GRU(4, 3)(Tensor(normal(2, 5, 4)), Tensor(normal(1, 2, 3))),
            r"a state of shape \(1, 2, 3\) does not fit \(1, 5, 3\)",
        ),
    ],
)
def test_wrong_input_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_networks_have_torchs_repr() -> None:
    for make in (
        lambda n: n.RNNCell(2, 3, bias=False),
        lambda n: n.LSTM(2, 3),
        lambda n: n.GRU(2, 3, num_layers=2, batch_first=True, bias=False),
    ):
        assert repr(make(nn)) == repr(make(torch.nn))
