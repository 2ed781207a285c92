"""Correlations against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from groundup.maths.correlation import (
    correlation,
    rank_correlation,
    rank_correlation_interval,
    ranks,
)

VALUES = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=3, max_size=30)


@given(VALUES)
def test_both_equal_scipys_with_ties(pairs: list[tuple[int, int]]) -> None:
    one, other = np.array(pairs, float).T
    np.testing.assert_allclose(ranks(one), stats.rankdata(one))
    if len(set(one)) == 1 or len(set(other)) == 1:
        with pytest.raises(ValueError, match="constant values"):
            rank_correlation(one, other)
        return
    assert correlation(one, other) == pytest.approx(stats.pearsonr(one, other)[0], abs=1e-9)
    assert rank_correlation(one, other) == pytest.approx(stats.spearmanr(one, other)[0], abs=1e-9)


@pytest.mark.parametrize("size", [1e-310, 1e-165, 1e155, 1e307])
def test_rank_correlation_ignores_the_scale_of_values(size: float) -> None:
    one, other = np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0])
    truth = stats.pearsonr(one, other)[0]
    assert correlation(one * size, other) == pytest.approx(truth)
    assert correlation(other, one * size) == pytest.approx(truth)
    assert correlation(one * size, other * size) == pytest.approx(truth)


def test_the_interval_is_as_wide_as_fishers_for_independent_items() -> None:
    random = np.random.default_rng(0)
    one = random.normal(size=400)
    other = 0.5 * one + random.normal(size=400)
    found = rank_correlation_interval(one, other)
    rho = stats.spearmanr(one, other)[0]
    assert found.estimate == pytest.approx(rho)
    # Fisher's z, whose deviation for ranks is about sqrt((1 + rho^2 / 2) / (n - 3)).
    apart = 1.96 * np.sqrt((1 + rho**2 / 2) / 397)
    low, high = np.tanh(np.arctanh(rho) - apart), np.tanh(np.arctanh(rho) + apart)
    assert found.low == pytest.approx(low, abs=0.02)
    assert found.high == pytest.approx(high, abs=0.02)


def test_clusters_are_resampled_whole() -> None:
    random = np.random.default_rng(1)
    one, other = random.normal(size=(2, 30))
    alone = rank_correlation_interval(one, other)
    copied = rank_correlation_interval(
        np.repeat(one, 5), np.repeat(other, 5), clusters=np.repeat(np.arange(30), 5).tolist()
    )
    assert copied.estimate == pytest.approx(alone.estimate, abs=0.01)
    # Five copies of an item are no more evidence than one.
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=0.1)


def test_rejects_different_lengths(unchecked_types: None) -> None:
    with pytest.raises(ValueError, match="differ"):
        correlation(np.arange(3.0), np.arange(4.0))
