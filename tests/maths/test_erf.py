"""The error function against the C library's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from groundup.maths import Tensor


def erf(x: np.ndarray) -> np.ndarray:
    return Tensor(x, requires_grad=False).erf().data


def relative_error(x: np.ndarray) -> float:
    truth = np.array([math.erf(value) for value in x])
    return float(np.abs(erf(x) / truth - 1).max())


def test_error_is_in_the_last_place_on_a_dense_grid():
    grid = np.linspace(-7, 7, 200_000)  # without 0
    assert relative_error(grid) < 5e-16


@pytest.mark.parametrize("edge", [0.84375, 1.25, 1 / 0.35, 6.0])
def test_approximation_intervals_join_continuously(edge: float):
    around = edge * (1 + np.arange(-2000, 2000) * 2.0**-52)
    assert relative_error(around) < 5e-16 and relative_error(-around) < 5e-16
    assert np.abs(np.diff(erf(around))).max() < 3e-16


def test_error_against_torch_in_double_precision():
    """A different implementation from the C library's, accurate to a few units in the last
    place."""
    grid = np.concatenate([np.linspace(-6, 6, 20_001), 10.0 ** -np.arange(1.0, 300.0)])
    np.testing.assert_allclose(erf(grid), torch.erf(torch.tensor(grid)).numpy(), rtol=2e-15)


def test_small_numbers_are_accurate():
    scales = 10.0 ** -np.arange(1, 308)
    assert relative_error(scales) < 5e-16
    last = 5e-324
    assert erf(np.array([last, -last])).tolist() == [math.erf(last), math.erf(-last)]
    tiny = np.array([1e-310, 3e-320])
    assert erf(tiny) == pytest.approx([math.erf(x) for x in tiny], rel=0, abs=last)


def test_limits_and_signs():
    x = np.array([-np.inf, -1e308, -6.0, -0.0, 0.0, 30.0, np.inf, np.nan])
    found = erf(x)
    np.testing.assert_array_equal(found, [-1, -1, -1, 0, 0, 1, 1, np.nan])
    assert np.signbit(found[3]) and not np.signbit(found[4])


def test_shapes_and_dtypes():
    assert erf(np.array(0.5)).shape == ()
    assert erf(np.zeros((2, 0, 3))).shape == (2, 0, 3)
    for kind in (np.float16, np.float32, np.float64):
        assert erf(np.ones(3, kind)).dtype == kind
    assert erf(np.array([0, 1])).dtype == erf(np.array([True])).dtype == np.float64
    x = np.linspace(-4, 4, 1001, dtype=np.float32)
    np.testing.assert_allclose(erf(x), torch.erf(torch.tensor(x)).numpy(), rtol=3e-7)
    strided = np.linspace(-3, 3, 24).reshape(4, 6).T[::2]
    np.testing.assert_array_equal(erf(strided), erf(strided.copy()))
