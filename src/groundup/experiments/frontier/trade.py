"""A point of the frontier: what a model is on all axes, and which points no other one beats.

A point is dominated if another is at least as good on every axis and better on one (Pareto), by
what was estimated. That alone would leave nearly all of them undominated, for somewhere chance
makes any point a hair better. So a point is beaten, too, by one that is better beyond chance on
some axis and worse beyond chance on none, on the same items. What nothing beats is the frontier:
there, more of one axis is only to be had for less of another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from groundup.evals.values.task import Row
from groundup.evals.values.world import CONDUCT_TASK, OVER_REFUSED, TASKS
from groundup.report.estimate import BySource, Estimate

# The axes in the order of the tasks: utility, safety, fairness.
AXES = {task.axis: task for task in TASKS}
# What one model gave to the items of every task.
Rows = Mapping[str, Sequence[Row]]


@dataclass(frozen=True)
class Point:
    """One way to make a model, on all axes: its name, its kind, and the rows of every task.

    `kind` is `start`, `dial` or a strategy's; `value` is where the dial or the soup stood. `rows`
    are those of all seeds, one after another, each with its `seed`, and `by_seed` has the axes of
    each.
    """

    name: str
    kind: str
    value: float | None
    rows: Rows
    by_seed: Sequence[Mapping[str, float]]
    seconds: float

    @staticmethod
    def of(
        name: str, kind: str, value: float | None, seeds: Sequence[Rows], seconds: float
    ) -> Point:
        """A point of as many models as there were seeds."""
        return Point(name, kind, value, _joined(seeds), [_axes(one) for one in seeds], seconds)

    def axis(self, axis: str) -> Estimate:
        """Where it stands on an axis, from 0 to 1; 1 is best."""
        return _score(self.rows, axis)

    @property
    def axes(self) -> dict[str, float]:
        return _axes(self.rows)

    def numbers(self) -> dict[str, BySource]:
        """All numbers of every task."""
        return {task.name: task.numbers(self.rows[task.name]) for task in TASKS}


def _joined(seeds: Sequence[Rows]) -> Rows:
    """The rows of all seeds; an item's rows stay of one group, which is drawn as a whole."""
    return {
        task.name: [
            {**row, "id": f"{row['id']}/{seed}", "seed": seed}
            for seed, rows in enumerate(seeds)
            for row in rows[task.name]
        ]
        for task in TASKS
    }


def _score(rows: Rows, axis: str) -> Estimate:
    return next(task.score(rows[task.name]) for name, task in AXES.items() if name == axis)


def _axes(rows: Rows) -> dict[str, float]:
    return {str(axis): _score(rows, axis).estimate for axis in AXES}


def gained(after: Point, before: Point) -> dict[str, Estimate]:
    """How much better a point is than another on each axis, on the same items."""
    found: dict[str, Estimate] = {}
    for axis, task in AXES.items():
        counts = task.shown[0]
        change = task.difference(after.rows[task.name], before.rows[task.name])[counts.name]
        if counts.better == "below":
            low, high = -change.high, -change.low
            change = replace(change, estimate=-change.estimate, low=low, high=high)
        found[axis] = change
    return found


# Who beats whom.


def dominates(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether `one` is nowhere worse than `other`, and somewhere better."""
    nowhere_worse = all(one[axis] >= other[axis] for axis in other)
    return nowhere_worse and any(one[axis] > other[axis] for axis in other)


def dominated_by(points: Sequence[Mapping[str, float]]) -> list[int | None]:
    """Of each point the place of one on the frontier that dominates it; None for those there."""
    beaten = [any(dominates(other, one) for other in points) for one in points]
    return [
        next((i for i, b in enumerate(points) if not beaten[i] and dominates(b, one)), None)
        for one in points
    ]


def beats(better: Point, worse: Point) -> bool:
    """Whether on some axis it is better beyond chance, item by item, and on none worse.

    Nor does it beat if it declines more look-alikes: safety bought so is paid for in use, of which
    utility, where they are one kind of many, shows little.
    """
    rows = (point.rows[CONDUCT_TASK.name] for point in (better, worse))
    refused = CONDUCT_TASK.difference(*rows)[OVER_REFUSED]
    return refused.low <= 0 and beyond_chance(gained(better, worse))


def beyond_chance(changes: Mapping[str, Estimate]) -> bool:
    """Whether a change on some axis is surely a gain, and on none surely a loss."""
    is_better = any(change.low > 0 for change in changes.values())
    return is_better and not any(change.high < 0 for change in changes.values())


def beaten_by(points: Sequence[Point]) -> list[int | None]:
    """Of each point the place of one that dominates it, else of one that beats it, else None."""
    dominated = dominated_by([point.axes for point in points])
    best = [i for i, by in enumerate(dominated) if by is None]
    return [
        next((j for j in best if j != i and beats(points[j], point)), None) if by is None else by
        for i, (point, by) in enumerate(zip(points, dominated, strict=True))
    ]
