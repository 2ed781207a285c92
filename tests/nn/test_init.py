"""Initial values: their variance against theory and torch, and the effect of bad ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup import nn
from groundup.maths import Tensor, no_grad
from groundup.nn import init
from groundup.nn.init import LayerStatistics, activation_statistics

shapes = st.one_of(
    st.tuples(st.integers(20, 80), st.integers(20, 80)),
    st.tuples(st.integers(8, 30), st.integers(8, 30), st.integers(3, 9)),
)
gains = st.floats(0.1, 3)


def empty(*shape: int) -> Tensor:
    return Tensor(np.full(shape, np.nan))


def check(values: np.ndarray, std: float, uniform: bool) -> None:
    """Within six standard errors of the mean and deviation, and within a uniform one's bounds."""
    n = values.size
    assert abs(values.mean()) < 6 * std / math.sqrt(n)
    assert values.std() == pytest.approx(std, rel=6 / math.sqrt(2 * n))
    bound = math.sqrt(3) * std
    if uniform:
        assert (1 - 20 / n) * bound < np.abs(values).max() <= bound
    else:
        assert np.abs(values).max() > bound


@settings(deadline=None, max_examples=40)
@given(shapes, gains, st.booleans(), st.integers(0, 99))
def test_xavier(shape: tuple[int, ...], gain: float, uniform: bool, seed: int) -> None:
    fill = init.xavier_uniform_ if uniform else init.xavier_normal_
    kernel = math.prod(shape[2:])
    std = gain * math.sqrt(2 / (kernel * (shape[0] + shape[1])))
    check(fill(empty(*shape), gain, seed).data, std, uniform)


@settings(deadline=None, max_examples=40)
@given(
    shapes,
    st.sampled_from(["fan_in", "fan_out"]),
    st.sampled_from(["linear", "sigmoid", "tanh", "relu", "leaky_relu"]),
    st.floats(0, 2),
    st.booleans(),
    st.integers(0, 99),
)
def test_kaiming(
    shape: tuple[int, ...], mode: Any, nonlinearity: Any, a: float, uniform: bool, seed: int
) -> None:
    fill = init.kaiming_uniform_ if uniform else init.kaiming_normal_
    fan = math.prod(shape[2:]) * shape[1 if mode == "fan_in" else 0]
    std = torch.nn.init.calculate_gain(nonlinearity, a) / math.sqrt(fan)
    check(fill(empty(*shape), a, mode, nonlinearity, seed).data, std, uniform)


@pytest.mark.parametrize("fill", [init.kaiming_uniform_, init.kaiming_normal_])
def test_kaiming_has_two_modes(fill: Any, unchecked_types: None) -> None:
    with pytest.raises(ValueError, match="mode='fan_avg' must be 'fan_in' or 'fan_out'"):
        fill(empty(3, 4), mode="fan_avg")


@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (3, 7), (4, 3, 5)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    matrix = init.orthogonal_(empty(*shape), gain=2.0, rng=0).data.reshape(shape[0], -1)
    small = min(matrix.shape)
    product = matrix @ matrix.T if matrix.shape[0] == small else matrix.T @ matrix
    np.testing.assert_allclose(product, 4 * np.eye(small), atol=1e-12)


def test_every_orthogonal_matrix_is_equally_likely() -> None:
    """Under the uniform distribution, entries have mean 0 and variance 1/n (Mezzadri 2007)."""
    rng = np.random.default_rng(0)
    draws = np.stack([init.orthogonal_(empty(3, 3), rng=rng).data for _ in range(2000)])
    assert np.abs(draws.mean(axis=0)).max() < 5 / math.sqrt(3 * 2000)
    np.testing.assert_allclose((draws**2).mean(axis=0), np.full((3, 3), 1 / 3), atol=0.04)
    assert np.linalg.det(draws[:50]).round().astype(int).tolist().count(-1) > 10  # mirrors too


def test_gains_equal_torchs() -> None:
    for name in ("linear", "sigmoid", "tanh", "relu", "leaky_relu"):
        assert init.calculate_gain(name) == torch.nn.init.calculate_gain(name)
    assert init.calculate_gain("leaky_relu", 0.5) == torch.nn.init.calculate_gain("leaky_relu", 0.5)


def test_filling_is_in_place_and_keeps_the_dtype() -> None:
    weight = nn.Linear(30, 20).weight
    for filled in (
        init.normal_(weight, 1.0, 0.5, rng=0),
        init.uniform_(weight, -1.0, 1.0, rng=0),
        init.xavier_uniform_(weight),
        init.orthogonal_(weight),
        init.zeros_(weight),
    ):
        assert filled is weight and weight.dtype == np.float32 and weight.requires_grad
    assert (weight.data == 0).all()


def test_missing_fans_and_gains_are_named(unchecked_types: None) -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\) has no fan-in and fan-out"):
        init.kaiming_normal_(Tensor(np.zeros(3)))
    with pytest.raises(ValueError, match="no gain is known for 'swish'; use one of linear, "):
        init.calculate_gain("swish")  # type: ignore[arg-type]


DEPTH, WIDTH = 12, 128


def deep(activation: type[nn.Module], std: float | None = None) -> nn.Sequential:
    """Twelve layers with weights of this standard deviation, or properly initialized."""
    rng = np.random.default_rng(0)
    net = nn.Sequential()
    for _ in range(DEPTH):
        layer = nn.Linear(WIDTH, WIDTH, bias=False, rng=rng)
        if std is not None:
            init.normal_(layer.weight, std=std, rng=rng)
        elif activation is nn.ReLU:
            init.kaiming_normal_(layer.weight, nonlinearity="relu", rng=rng)
        else:
            init.xavier_normal_(layer.weight, init.calculate_gain("tanh"), rng)
        net.append(layer).append(activation())
    return net


def measure(net: nn.Sequential) -> list[LayerStatistics]:
    """Statistics of the activations only."""
    x = Tensor(np.random.default_rng(1).normal(size=(256, WIDTH)).astype(np.float32))
    return [row for row in activation_statistics(net, x) if row.kind != "Linear"]


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_good_initial_values_keep_signal_and_gradient(activation: type[nn.Module]) -> None:
    rows = measure(deep(activation))
    assert len(rows) == DEPTH
    assert 0.5 < rows[-1].std / rows[0].std < 2
    assert 0.3 < rows[0].gradient_std / rows[-1].gradient_std < 3
    assert rows[-1].gradient_std == pytest.approx(1, rel=0.05)


def test_small_weights_make_signal_and_gradient_vanish() -> None:
    rows = measure(deep(nn.Tanh, std=0.01))
    stds = [row.std for row in rows]
    # A layer multiplies by √128 · 0.01 = 0.11 where tanh is as good as linear.
    ratios = np.array(stds[1:]) / stds[:-1]
    np.testing.assert_allclose(ratios, math.sqrt(WIDTH) * 0.01, rtol=0.2)
    assert rows[0].gradient_std < 1e-9


def test_large_weights_explode_in_relu_and_saturate_tanh() -> None:
    rows = measure(deep(nn.ReLU, std=1.0))
    assert rows[-1].std > 1e9 * rows[0].std
    assert rows[0].gradient_std > 1e9
    rows = measure(deep(nn.Tanh, std=1.0))
    assert all(row.saturated is not None and row.saturated > 0.6 for row in rows)


def test_saturated_and_dead_units_are_counted() -> None:
    x = Tensor(np.array([[-1.0, 1.0, 9.0, 0.0], [-2.0, -1.0, 9.0, 0.0]]))
    (relu,) = activation_statistics(nn.ReLU(), x.requires_grad_())
    assert (relu.saturated, relu.dead) == (5 / 8, 0.5)  # at 0 the slope of ReLU is 0 too
    (sigmoid,) = activation_statistics(nn.Sigmoid(), x)
    assert (sigmoid.saturated, sigmoid.dead) == (0.25, 0.25)
    assert sigmoid.name == "" and sigmoid.kind == "Sigmoid"


def test_statistics_have_gradients_within_no_grad() -> None:
    net, x = nn.Sequential(nn.Linear(2, 4), nn.Tanh()), Tensor(np.ones((3, 2), np.float32))
    with no_grad():
        inside = activation_statistics(net, x)
    assert inside == activation_statistics(net, x)


def test_layers_are_named_and_no_state_remains() -> None:
    net = nn.Sequential(nn.Linear(2, 4), nn.Sequential(nn.Tanh(), nn.Linear(4, 1)))
    rows = activation_statistics(net, Tensor(np.ones((3, 2), np.float32)))
    assert [row.name for row in rows] == ["0", "1.0", "1.1"]
    assert [row.saturated is None for row in rows] == [True, False, True]
    assert all(parameter.grad is None for parameter in net.parameters())
    again = activation_statistics(net, Tensor(np.ones((3, 2), np.float32)))
    assert again == rows
