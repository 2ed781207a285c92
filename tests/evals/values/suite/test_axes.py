"""Axes from tasks, against the textbook formula and a simulation."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from groundup.evals.values import jailbreak, refusal
from groundup.evals.values.knowledge import TASKS
from groundup.evals.values.suite.axes import axes_of, axis_change, axis_of, shared_groups
from groundup.evals.values.task import Row
from groundup.report.estimate import Estimate, share


def estimate(value: float, low: float, high: float) -> Estimate:
    return Estimate(value, low, high, 10, 10)


def test_symmetric_intervals_add_up_like_standard_errors() -> None:
    found = axis_of([estimate(0.4, 0.3, 0.5), estimate(0.6, 0.4, 0.8), estimate(0.5, 0.5, 0.5)])
    assert found.estimate == pytest.approx(0.5)
    assert found.high - found.estimate == pytest.approx(sqrt(0.1**2 + 0.2**2) / 3)
    assert found.estimate - found.low == pytest.approx(sqrt(0.1**2 + 0.2**2) / 3)
    assert (found.items, found.groups) == (30, 30)


def test_an_asymmetric_interval_stays_asymmetric_and_within_the_scale() -> None:
    found = axis_of([estimate(0.0, 0.0, 0.3), estimate(1.0, 0.8, 1.0)])
    assert (found.low, found.high) == pytest.approx((0.4, 0.65))
    assert axis_of([estimate(1.0, 0.9, 1.0)]).high == 1.0


def test_one_task_is_its_own_axis() -> None:
    assert axis_of([share(3, 10)]) == share(3, 10)


def test_the_interval_has_its_stated_coverage() -> None:
    """Three tasks with known truth, sampled repeatedly."""
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


def rows(*of: str) -> list[Row]:
    return [{"id": f"{i}", "group": group} for i, group in enumerate(of)]


def test_an_axis_requires_all_of_its_tasks() -> None:
    core, bits = TASKS
    half, asked = share(5, 10), {"core": rows("a"), "bits": rows("b")}
    assert set(axes_of(TASKS, {"core": half, "bits": half}, asked)) == {"utility"}
    assert axes_of(TASKS, {"core": half}, asked) == {}
    assert set(axes_of([core], {"core": half}, asked)) == {"utility"}
    assert axes_of([bits], {}, asked) == {}


def test_tasks_with_shared_items_are_not_independent() -> None:
    scores = {"core": share(5, 10), "bits": share(5, 10)}
    apart, same = (
        axes_of(TASKS, scores, {"core": rows("a", "b"), "bits": rows(*other)})["utility"]
        for other in (("c", "d"), ("b", "a", "a"))
    )
    # The same groups behind both: nothing averages out.
    assert same.low == pytest.approx(share(5, 10).low)
    assert same.estimate - same.low == pytest.approx(sqrt(2) * (apart.estimate - apart.low))


def test_plain_and_attacked_requests_are_shared() -> None:
    plain = next(task for task in refusal.TASKS if task.name == "refusal-advbench")
    (attacks,) = jailbreak.TASKS
    asked = [
        [refusal.row(one, "No.") for one in plain.items(498)],
        [jailbreak.row(one, "No.") for one in attacks.items(270)],
    ]
    found = shared_groups(asked)
    assert found[0, 1] == found[1, 0] == pytest.approx(30 / sqrt(498 * 30))
    assert found[0, 0] == found[1, 1] == 1


def test_the_interval_covers_the_truth_of_shared_items() -> None:
    """Each of 100 requests gets the same answer, plain and attacked."""
    dice = np.random.default_rng(0)
    names = [f"{i}" for i in range(100)]
    shared = shared_groups([rows(*names), rows(*names)])
    held = as_if_independent = 0
    for hits in dice.binomial(100, 0.3, size=1000):
        scores = [share(int(hits), 100)] * 2
        found, narrow = axis_of(scores, shared), axis_of(scores)
        held += found.low <= 0.3 <= found.high
        as_if_independent += narrow.low <= 0.3 <= narrow.high
    assert 0.93 <= held / 1000 <= 0.98 and as_if_independent / 1000 < 0.9


def test_chance_of_an_axis_is_that_of_its_tasks() -> None:
    some = [Estimate(0.5, 0.4, 0.6, 10, 10, chance) for chance in (0.0, 0.5, None)]
    assert axis_of(some[:2]).chance == 0.25 and axis_of(some).chance is None
