"""Dominated points by hand, and points of rows whose axes are known."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from groundup.evals.values.task import Row
from groundup.experiments.frontier.picture import dial_plot, trade_plot
from groundup.experiments.frontier.trade import (
    AXES,
    Point,
    Rows,
    beaten_by,
    beats,
    dominated_by,
    dominates,
    gained,
)
from groundup.report.figure import image
from groundup.world.lives import probes


def axes(utility: float, safety: float, fairness: float) -> dict[str, float]:
    return {"utility": utility, "safety": safety, "fairness": fairness}


def test_a_point_dominates_that_is_nowhere_worse_and_somewhere_better() -> None:
    one = axes(0.5, 0.5, 0.5)
    assert dominates(axes(0.6, 0.5, 0.5), one)
    assert dominates(axes(0.6, 0.6, 0.6), one)
    assert not dominates(one, one)
    assert not dominates(axes(0.9, 0.9, 0.4), one)
    assert not dominates(one, axes(0.6, 0.5, 0.5))


def test_dominated_points_by_hand() -> None:
    points = [
        axes(0.5, 0.5, 0.5),  # by the second; by the fourth as well, which is the second's twin
        axes(0.6, 0.5, 0.5),
        axes(0.4, 0.9, 0.5),
        axes(0.6, 0.5, 0.5),
        axes(0.3, 0.3, 0.3),  # by all, of which the first is beaten itself
        axes(0.3, 0.3, 0.9),
    ]
    assert dominated_by(points) == [1, None, None, None, 1, None]


def rows(right: float, declined: float, gap: float, items: int = 60, refused: float = 0.0) -> Rows:
    """A model that answers and declines these shares, and leans by so much."""
    answers: list[Row] = [
        {
            "id": str(i),
            "group": str(i),
            "source": "world-facts",
            "right": float(i < right * items),
            "gold": float(i < right * items),
        }
        for i in range(items)
    ]
    conduct: list[Row] = [
        {"id": str(i), "group": str(i), "kind": kind, "declined": i < share * items}
        for kind, share in (("harmful", declined), ("benign", refused))
        for i in range(items)
    ]
    conduct = [{**row, "id": f"{row['kind']} {row['id']}"} for row in conduct]
    bias: list[Row] = [
        {
            "id": str(i),
            "group": one.subject if one.kind == "job" else str(i),
            "kind": one.kind,
            "subject": one.subject,
            "lean": one.lean,
            "text": 0.5 + 0.5 * gap * one.lean,
            "answer": 0.5 + 0.5 * gap * one.lean,
        }
        for i, one in enumerate(probes())
    ]
    return {"world-answers": answers, "world-conduct": conduct, "world-bias": bias}


def point(name: str, kind: str, value: float | None, *seeds: Rows) -> Point:
    return Point.of(name, kind, value, seeds, 1.0)


def test_axes_are_those_of_the_rows_and_of_all_seeds_together() -> None:
    one = point("one", "dial", 0.0, rows(0.5, 0.25, 0.4))
    assert one.axes == pytest.approx(axes(0.5, 0.25, 0.6))
    both = point("both", "dial", 0.0, rows(0.5, 0.25, 0.4), rows(0.75, 0.75, 0.2))
    assert both.axes == pytest.approx(axes(0.625, 0.5, 0.7))
    assert [one["utility"] for one in both.by_seed] == [0.5, 0.75]
    # The same items twice are no more items.
    assert both.axis("utility").groups == one.axis("utility").groups
    assert both.axis("utility").items == 2 * one.axis("utility").items


def test_seeds_that_lean_opposite_ways_do_not_make_up_for_each_other() -> None:
    one, other = rows(0.5, 0.5, 0.4), rows(0.5, 0.5, -0.4)
    both = point("both", "dial", 0.0, one, other)
    assert [found["fairness"] for found in both.by_seed] == pytest.approx([0.6, 0.6])
    score = both.axis("fairness")
    assert score.estimate == pytest.approx(0.6) and score.high < 0.7
    # As fair as one that leans to the same side by as much, whatever the seeds.
    same = gained(both, point("same", "dial", 1.0, one, one))
    assert same["fairness"].estimate == pytest.approx(0)
    fairer = gained(point("fairer", "dial", 1.0, rows(0.5, 0.5, 0.1), other), both)
    assert fairer["fairness"].estimate == pytest.approx(0.15)


def test_what_is_gained_has_the_sign_of_better() -> None:
    worse = point("worse", "start", None, rows(0.5, 0.5, 0.4))
    better = point("better", "dial", 1.0, rows(0.75, 0.5, 0.1))
    found = gained(better, worse)
    assert {axis: one.estimate for axis, one in found.items()} == pytest.approx(axes(0.25, 0, 0.3))
    assert found["utility"].low > 0 and found["fairness"].low > 0
    assert beats(better, worse) and not beats(worse, better)
    assert not beats(point("a hair better", "dial", 1.0, rows(0.52, 0.5, 0.4)), worse)


def test_safety_that_is_bought_by_over_refusal_beats_nothing() -> None:
    one = point("one", "dial", 0.0, rows(0.5, 0.5, 0.4))
    assert beats(point("safer", "dial", 1.0, rows(0.5, 0.9, 0.4)), one)
    assert not beats(point("says no", "dial", 1.0, rows(0.5, 0.9, 0.4, refused=0.5)), one)


def test_a_hair_more_of_one_axis_does_not_save_what_is_far_worse_on_another() -> None:
    points = [
        point("good", "dial", 0.0, rows(0.5, 0.9, 0.3)),
        point("a hair more", "dial", 0.5, rows(0.52, 0.4, 0.3)),
        point("a trade", "dial", 1.0, rows(0.9, 0.4, 0.3)),
        point("worse on all", "dial", 1.5, rows(0.4, 0.3, 0.4)),
    ]
    assert dominated_by([one.axes for one in points])[1] == 2
    assert beaten_by(points) == [None, 2, None, 0]
    without = [points[0], points[1], points[3]]
    assert dominated_by([one.axes for one in without])[1] is None
    assert beaten_by(without)[:2] == [None, 0]


@pytest.mark.parametrize("dial", ["mix", "kl"])
def test_pictures_are_drawn_of_every_kind_of_point(dial: str) -> None:
    kinds: Sequence[tuple[str, float | None]] = [
        *(("start", None), ("dial", 0.1), ("dial", 1.0), ("balanced", None)),
        *(("constraint", None), ("soups", 0.5), ("system-prompt", None), ("guard", None)),
    ]
    points = [
        point(f"point {i}", kind, value, rows(0.1 * i, 1 - 0.1 * i, 0.05 * i))
        for i, (kind, value) in enumerate(kinds)
    ]
    beaten = dominated_by([one.axes for one in points])
    for plot in (trade_plot(points, beaten, dial), dial_plot(points, dial)):
        assert len(image(plot.figure, "png")) > 10_000
    assert list(AXES) == ["utility", "safety", "fairness"]
