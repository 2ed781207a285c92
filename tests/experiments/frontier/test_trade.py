"""Dominated points by hand, and points of rows with known axes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundup.evals.cards.card import write_card
from groundup.evals.values.task import Row
from groundup.experiments.frontier.config import FrontierConfig
from groundup.experiments.frontier.picture import dial_plot, text_box, trade_plot
from groundup.experiments.frontier.report import NAME, remarks, write_report
from groundup.experiments.frontier.trade import (
    AXES,
    Point,
    Rows,
    Standing,
    beats,
    dominated_by,
    dominates,
    gains,
    standings,
)
from groundup.report.estimate import Estimate
from groundup.report.figure import image
from groundup.report.plots import error_bars
from groundup.runs.folder import Run
from groundup.world.lives import probes


def axes(utility: float, safety: float, fairness: float) -> dict[str, float]:
    return {"utility": utility, "safety": safety, "fairness": fairness}


def test_a_dominating_point_is_nowhere_worse_and_somewhere_better() -> None:
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
    """A model with these shares of answers and refusals, and this bias."""
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
        {"id": str(i), "group": str(i), "kind": kind, "declined": i < share * items, "unknown": 0}
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


def test_axes_equal_those_of_the_rows_over_all_seeds() -> None:
    one = point("one", "dial", 0.0, rows(0.5, 0.25, 0.4))
    assert one.axes == pytest.approx(axes(0.5, 0.25, 0.6))
    both = point("both", "dial", 0.0, rows(0.5, 0.25, 0.4), rows(0.75, 0.75, 0.2))
    assert both.axes == pytest.approx(axes(0.625, 0.5, 0.7))
    assert [one["utility"] for one in both.by_seed] == [0.5, 0.75]
    # The same items twice are no more items.
    assert both.axis("utility").groups == one.axis("utility").groups
    assert both.axis("utility").items == 2 * one.axis("utility").items


def test_opposite_biases_of_seeds_do_not_cancel() -> None:
    one, other = rows(0.5, 0.5, 0.4), rows(0.5, 0.5, -0.4)
    both = point("both", "dial", 0.0, one, other)
    assert [found["fairness"] for found in both.by_seed] == pytest.approx([0.6, 0.6])
    score = both.axis("fairness")
    assert score.estimate == pytest.approx(0.6) and score.high < 0.7
    # As fair as one that leans to the same side by as much, whatever the seeds.
    same = gains(both, point("same", "dial", 1.0, one, one))
    assert same["fairness"].estimate == pytest.approx(0)
    fairer = gains(point("fairer", "dial", 1.0, rows(0.5, 0.5, 0.1), other), both)
    assert fairer["fairness"].estimate == pytest.approx(0.15)


def test_gains_have_the_sign_of_better() -> None:
    worse = point("worse", "start", None, rows(0.5, 0.5, 0.4))
    better = point("better", "dial", 1.0, rows(0.75, 0.5, 0.1))
    found = gains(better, worse)
    wanted = axes(0.25, 0, 0.3) | {"look-alikes": 0}
    assert {name: one.estimate for name, one in found.items()} == pytest.approx(wanted)
    assert found["utility"].low > 0 and found["fairness"].low > 0
    assert beats(better, worse) and not beats(worse, better)
    assert not beats(point("a hair better", "dial", 1.0, rows(0.52, 0.5, 0.4)), worse)


def test_safety_by_over_refusal_beats_nothing() -> None:
    one = point("one", "dial", 0.0, rows(0.5, 0.5, 0.4))
    assert beats(point("safer", "dial", 1.0, rows(0.5, 0.9, 0.4)), one)
    says_no = point("says no", "dial", 1.0, rows(0.5, 0.9, 0.4, refused=0.5))
    assert not beats(says_no, one)
    # Nor does it dominate, however little more it declines.
    assert standings([one, says_no]) == [Standing(None, None), Standing(None, None)]
    a_hair = point("a hair", "dial", 1.0, rows(0.5, 0.9, 0.4, refused=1 / 60))
    assert standings([one, a_hair])[0] == Standing(None, 1)


def test_a_tiny_gain_on_one_axis_does_not_outweigh_a_large_loss() -> None:
    points = [
        point("good", "dial", 0.0, rows(0.5, 0.9, 0.3)),
        point("a hair more", "dial", 0.5, rows(0.52, 0.4, 0.3)),
        point("a trade", "dial", 1.0, rows(0.9, 0.4, 0.3)),
        point("worse on all", "dial", 1.5, rows(0.4, 0.3, 0.4)),
    ]
    nothing = Standing(None, None)
    assert standings(points) == [nothing, Standing(2, 2), nothing, Standing(0, 0)]
    # On the frontier by a hair, and beaten there.
    without = [points[0], points[1], points[3]]
    assert standings(without)[:2] == [nothing, Standing(None, 0)]


def test_a_point_that_dominates_and_beats_is_named_first() -> None:
    points = [
        point("a hair more", "dial", 0.0, rows(0.51, 0.505, 0.5, items=200)),
        point("far more", "dial", 0.5, rows(0.505, 0.9, 0.5, items=200)),
        point("worse", "dial", 1.0, rows(0.5, 0.5, 0.5, items=200)),
    ]
    assert dominated_by([one.compared for one in points])[2] == 0
    assert standings(points) == [Standing(None, 1), Standing(None, None), Standing(1, 1)]


def shuffled(right: float, declined: float, refused: float, seed: int, items: int = 120) -> Rows:
    """Exactly these shares, of items sampled anew for every model."""
    found, dice = rows(right, declined, 0.4, items, refused), np.random.default_rng(seed)

    def drawn(kept: Sequence[Row], name: str) -> list[Row]:
        values = [row[name] for row in kept]
        order = dice.permutation(len(values))
        return [{**row, name: values[i]} for row, i in zip(kept, order, strict=True)]

    by_kind = [
        [row for row in found["world-conduct"] if row["kind"] == k] for k in ("harmful", "benign")
    ]
    conduct = [row for some in by_kind for row in drawn(some, "declined")]
    return {
        **found,
        "world-answers": drawn(found["world-answers"], "right"),
        "world-conduct": conduct,
    }


def test_points_that_beat_each_other_in_a_circle_are_all_on_the_frontier() -> None:
    """Much better somewhere and, within chance, a little worse elsewhere."""
    circle = ((0.6, 0.5, 0.6), (0.4, 0.6, 0.5), (0.5, 0.4, 0.4))
    points = [
        point(str(i), "dial", i, shuffled(*shares, seed=i)) for i, shares in enumerate(circle)
    ]
    assert [one.beaten_by for one in standings(points)] == [2, 0, 1]
    assert all(one.on_frontier for one in standings(points))


def test_equal_points_do_not_beat_each_other() -> None:
    """Trained alike and measured with noise: a single comparison would err far more often."""
    families = [
        [point(str(i), "dial", i, noisy(np.random.default_rng((family, i)))) for i in range(5)]
        for family in range(8)
    ]
    one_test = [any(beats(a, b) for a in some for b in some if a is not b) for some in families]
    assert sum(one_test) >= 3
    assert not any(one.beaten_by is not None for some in families for one in standings(some))


def noisy(dice: np.random.Generator) -> Rows:
    """Every answer by a fair coin, biased only by noise."""
    found = rows(0.5, 0.5, 0.0, items=100, refused=0.5)
    answers = [{**row, "right": float(dice.random() < 0.5)} for row in found["world-answers"]]
    conduct = [{**row, "declined": bool(dice.random() < 0.5)} for row in found["world-conduct"]]
    bias = [{**row, "answer": 0.5 + 0.1 * dice.normal()} for row in found["world-bias"]]
    return {"world-answers": answers, "world-conduct": conduct, "world-bias": bias}


def said(seeds: int, *points: Point) -> list[str]:
    config = FrontierConfig(out=Path("o"), model=Path("m"), seeds=seeds)
    return remarks(config, points, standings(points))


def test_remarks_on_one_seed_exclude_training_variance() -> None:
    seeds = (rows(0.5, 0.2, 0.3), rows(0.5, 0.2, 0.3))
    after = (rows(0.5, 0.9, 0.3), rows(0.5, 0.9, 0.3))

    def all_of(count: int) -> list[str]:
        return said(
            count,
            point("before", "start", None, *seeds[:count]),
            point("mix 0", "dial", 0.0, *seeds[:count]),
            point("mix 1", "dial", 1.0, *after[:count]),
        )

    one = all_of(1)
    assert "safety is higher, 90% against 20%" in one[0]
    assert "no significant difference in utility and fairness" in one[0]
    assert "1 of 3 points are on the frontier: mix 1." in one[1]
    assert "not training: each point is one model of one seed" in one[-1]
    assert "12 comparisons" in one[-1]
    assert "one seed" not in all_of(2)[-1]


def test_a_difference_must_hold_among_multiple_comparisons() -> None:
    """A gain of 7 in 60 items is significant alone, but not as one of a sweep's comparisons."""
    points = [
        point("before", "start", None, rows(0.5, 0.5, 0.3)),
        point("mix 0", "dial", 0.0, rows(0.5, 0.5, 0.3)),
        point("mix 1", "dial", 1.0, rows(0.5, 0.5 + 7 / 60, 0.3)),
        *(point(f"soup {i}", "soups", i / 4, rows(0.5, 0.5, 0.3)) for i in range(12)),
    ]
    assert gains(points[2], points[1])["safety"].low > 0
    assert "no significant difference in utility, safety and fairness" in said(1, *points)[0]
    assert "higher" not in said(1, *points)[0]


@pytest.mark.parametrize(("items", "told"), [(2, False), (5, False), (6, True)])
def test_few_items_show_no_gain(items: int, told: bool) -> None:
    start = rows(0.5, 0.0, 0.3, items)
    before, same = point("before", "start", None, start), point("mix 0", "dial", 0.0, start)
    after = point("after", "dial", 1.0, rows(0.5, 1.0, 0.3, items))
    assert beats(after, before, 28) is told
    assert ("safety is higher" in said(1, before, same, after)[0]) is told


def test_an_interval_next_to_its_estimate_by_rounding_is_drawn() -> None:
    found = error_bars([Estimate(0.5, 0.5 + 1e-12, 0.75, 9, 9)])
    assert found.tolist() == [[0.0], [0.25]]


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
    trade = trade_plot(points, standings(points), dial)
    for plot in (trade, dial_plot(points, dial)):
        assert len(image(plot.figure, "png")) > 10_000
    # No name covers another or leaves the picture.
    axes = trade.figure.axes[0]
    boxes = [name.get_window_extent() for name in axes.texts]
    assert len(boxes) == len(points)
    for i, box in enumerate(boxes):
        assert box.count_overlaps(boxes[:i] + boxes[i + 1 :]) == 0
        assert trade.figure.bbox.y1 >= box.y1 and box.x1 <= axes.bbox.x1, "in the color bar"
    assert list(AXES) == ["utility", "safety", "fairness"]


def test_a_card_includes_the_frontier_of_its_base(tmp_path: Path, workshop: Any) -> None:
    model, out = tmp_path / "model", tmp_path / "out"
    shutil.copytree(workshop.finished("sft"), model)
    config = FrontierConfig(out=out, model=model, strategies=("soup",))
    start, better = rows(0.5, 0.5, 0.5), rows(0.9, 0.9, 0.0)
    points = [
        Point.of("before", "start", None, [start], 1.0),
        Point.of("mix 0", "dial", 0.0, [better], 1.0),
        Point.of("mix 1", "dial", 1.0, [start], 1.0),
    ]
    with Run.open(out, NAME, config, {"model": model}) as run:
        write_report(config, points, 1.0)
        run.finish()
    card = write_card(model, [out]).read_text()
    for axis in AXES:
        one = points[0].axis(axis)
        ends = f"{100 * one.low:.1f} % to {100 * one.high:.1f} %"
        assert f"| {axis} | {100 * one.estimate:.1f} % | {ends} |" in card
    assert (
        "next to 2 other models made from it; mix 0 is nowhere worse and somewhere better" in card
    )
    assert "mix 0 beats it beyond chance" in card
    assert "- The strategy balanced: it was not asked for" in card
    assert "The strategy soup" not in card
    assert "jobs and groups of the small world" in card.partition("## What was measured")[0]


def test_coinciding_points_share_one_name_and_labels_do_not_overlap() -> None:
    same = rows(0.5, 0.5, 0.1)
    points = [point(f"dial {i}", "dial", 0.1 * i, same) for i in range(1, 6)]
    points += [point("guard", "guard", None, same), point("start", "start", None, same)]
    near = [(0.5, 0.56), (0.56, 0.5), (0.44, 0.5), (0.5, 0.44), (0.56, 0.56), (0.44, 0.44)]
    points += [
        point(f"a neighbor {i}", "system-prompt", None, rows(*place, 0.1))
        for i, place in enumerate(near)
    ]
    plot = trade_plot(points, standings(points), "mix")
    names = plot.figure.axes[0].texts
    apart = {(point.axes["utility"], point.axes["safety"]) for point in points}
    assert len(names) == len(apart) < len(points)
    said = " ".join(name.get_text() for name in names)
    assert all(f"{0.1 * i:.2g}" in said for i in range(1, 6)) and "guard" in said
    boxes = [text_box(name) for name in names]
    for i, box in enumerate(boxes):
        assert box.count_overlaps(boxes[:i] + boxes[i + 1 :]) == 0
