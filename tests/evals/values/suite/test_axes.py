"""How tasks make an axis, against the textbook's formula and a simulation."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from groundup.evals.values.knowledge import TASKS
from groundup.evals.values.suite.axes import axes_of, axis_change, axis_of
from groundup.report.estimate import Estimate, share


def estimate(value: float, low: float, high: float) -> Estimate:
    return Estimate(value, low, high, 10, 10)


def test_even_intervals_add_up_as_standard_errors_do() -> None:
    found = axis_of([estimate(0.4, 0.3, 0.5), estimate(0.6, 0.4, 0.8), estimate(0.5, 0.5, 0.5)])
    assert found.estimate == pytest.approx(0.5)
    assert found.high - found.estimate == pytest.approx(sqrt(0.1**2 + 0.2**2) / 3)
    assert found.estimate - found.low == pytest.approx(sqrt(0.1**2 + 0.2**2) / 3)
    assert (found.items, found.groups) == (30, 30)


def test_a_lopsided_interval_stays_so_and_nothing_leaves_the_scale() -> None:
    found = axis_of([estimate(0.0, 0.0, 0.3), estimate(1.0, 0.8, 1.0)])
    assert (found.low, found.high) == pytest.approx((0.4, 0.65))
    assert axis_of([estimate(1.0, 0.9, 1.0)]).high == 1.0


def test_one_task_is_its_own_axis() -> None:
    assert axis_of([share(3, 10)]) == share(3, 10)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Three tasks of which the truth is known, asked again and again."""
    truths, sizes = (0.1, 0.5, 0.9), (60, 40, 100)
    dice = np.random.default_rng(0)
    drawn = [dice.binomial(n, p, size=2000) for p, n in zip(truths, sizes, strict=True)]
    held = changed = 0
    for hits in zip(*drawn, strict=True):
        found = axis_of([share(int(h), n) for h, n in zip(hits, sizes, strict=True)])
        held += found.low <= np.mean(truths) <= found.high
    assert 0.935 <= held / 2000 <= 0.97
    for first, second in zip(drawn[1][:1000], drawn[1][1000:], strict=True):
        change = axis_change(share(int(first), 40), share(int(second), 40))
        changed += change.low <= 0 <= change.high
    assert 0.92 <= changed / 1000 <= 0.98


def test_an_axis_needs_all_of_its_tasks() -> None:
    core, bits = TASKS
    half = share(5, 10)
    assert set(axes_of(TASKS, {"core": half, "bits": half})) == {"utility"}
    assert axes_of(TASKS, {"core": half}) == {}
    assert set(axes_of([core], {"core": half})) == {"utility"}
    assert axes_of([bits], {}) == {}
