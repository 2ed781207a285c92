"""Points of the frontier: their values on all axes, and which points no other one dominates.

Points are compared on the three axes and on the look-alikes that they answer: declining those gains
safety at the cost of usefulness, which utility hardly shows, because look-alikes are one kind of
question among many.

A point is dominated if another is nowhere worse and somewhere better (Pareto), by the estimates.
Points that nothing dominates are the frontier, which is never empty. Estimates have intervals, and
chance makes any point slightly better somewhere. So the report also says which points another one
on the frontier beats: on the same items, it is better beyond chance somewhere, and nowhere worse
beyond chance.

With many pairs, some differ by chance. A gain must be significant in an interval of
1 - 0.05 / comparisons, so that among equal points none is beaten in 95 of 100 sweeps (Bonferroni);
a loss counts from 95 % on. With fewer than six groups of items, no gain is significant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from statistics import NormalDist

from groundup.evals.values.task import Number, Row, Task
from groundup.evals.values.world import CONDUCT_TASK, OVER_REFUSED, TASKS
from groundup.report.claim import MIN_GROUPS
from groundup.report.estimate import BySource, Estimate

# The axes in the order of the tasks: utility, safety, fairness.
AXES: Mapping[str, Task] = {task.axis: task for task in TASKS}
LOOK_ALIKES = "look-alikes"
# The measures that points are compared by; a larger gain is better.
_COMPARED: Mapping[str, tuple[Task, Number]] = {
    **{axis: (task, task.shown[0]) for axis, task in AXES.items()},
    LOOK_ALIKES: next((CONDUCT_TASK, n) for n in CONDUCT_TASK.shown if n.name == OVER_REFUSED),
}
# One model's results on the items of every task.
Rows = Mapping[str, Sequence[Row]]


@dataclass(frozen=True)
class Point:
    """One way to make a model: its name, its kind, and the rows of every task.

    `kind` is `start`, `dial` or a strategy's; `value` is the dial's or the soup's. `rows` are those
    of all seeds, concatenated, each with its `seed`, and `by_seed` has each seed's axes.
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
        """A point of one model per seed."""
        return Point(name, kind, value, _joined(seeds), [_axes(one) for one in seeds], seconds)

    def axis(self, axis: str) -> Estimate:
        """Its value on an axis, from 0 to 1; 1 is best."""
        return _score(self.rows, axis)

    @property
    def axes(self) -> dict[str, float]:
        return _axes(self.rows)

    @property
    def compared(self) -> dict[str, float]:
        """The axes, and the share of look-alikes that are not declined."""
        refused = CONDUCT_TASK.numbers(self.rows[CONDUCT_TASK.name])[OVER_REFUSED]
        return {**self.axes, LOOK_ALIKES: 1 - refused.estimate}

    def numbers(self) -> dict[str, BySource]:
        """All numbers of every task."""
        return {task.name: task.numbers(self.rows[task.name]) for task in TASKS}


def _joined(seeds: Sequence[Rows]) -> Rows:
    """The rows of all seeds; an item's rows stay in one group, which is resampled as a whole."""
    return {
        task.name: [
            {**row, "id": f"{row['id']}/{seed}", "seed": seed}
            for seed, rows in enumerate(seeds)
            for row in rows[task.name]
        ]
        for task in TASKS
    }


def _score(rows: Rows, axis: str) -> Estimate:
    return AXES[axis].score(rows[AXES[axis].name])


def _axes(rows: Rows) -> dict[str, float]:
    return {axis: _score(rows, axis).estimate for axis in AXES}


def gains(after: Point, before: Point) -> dict[str, Estimate]:
    """The gain of a point over another on each axis and in look-alikes, item by item."""
    found: dict[str, Estimate] = {}
    for name, (task, counts) in _COMPARED.items():
        change = task.difference(after.rows[task.name], before.rows[task.name])[counts.name]
        if counts.better == "below":
            change = change.mapped(lambda more: -more)
        found[name] = change
    return found


def comparisons(points: int) -> int:
    """The number of comparisons between this many points."""
    return points * (points - 1) // 2 * len(_COMPARED)


def bonferroni(change: Estimate, tests: int) -> Estimate:
    """Widen a 95 % interval to 1 - 0.05 / tests, so that `tests` intervals hold together.

    Both ends move away from the estimate by the ratio of normal quantiles, since a bootstrap of a
    few thousand samples has no such percentiles. With fewer than six groups the interval is
    infinite, since so few allow no conclusion.
    Source: Dunn (1961), "Multiple comparisons among means".
    """
    if change.groups < MIN_GROUPS:
        return replace(change, low=-inf, high=inf)
    usual, wanted = (NormalDist().inv_cdf(1 - 0.025 / many) for many in (1, tests))
    farther = wanted / usual
    return replace(
        change,
        low=change.estimate - farther * (change.estimate - change.low),
        high=change.estimate + farther * (change.high - change.estimate),
    )


# Comparisons.


def dominates(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether `one` is nowhere worse than `other`, and somewhere better."""
    nowhere_worse = all(one[axis] >= other[axis] for axis in other)
    return nowhere_worse and any(one[axis] > other[axis] for axis in other)


def dominated_by(points: Sequence[Mapping[str, float]]) -> list[int | None]:
    """For each point, the index of one on the frontier that dominates it; None if none does."""
    beaten = [any(dominates(other, one) for other in points) for one in points]
    return [
        next((i for i, b in enumerate(points) if not beaten[i] and dominates(b, one)), None)
        for one in points
    ]


def beats(better: Point, worse: Point, tests: int = 1) -> bool:
    """Whether it is better beyond chance somewhere, corrected for `tests`, and nowhere worse."""
    changes = gains(better, worse)
    return beyond_chance(
        {name: replace(one, low=bonferroni(one, tests).low) for name, one in changes.items()}
    )


def beyond_chance(changes: Mapping[str, Estimate]) -> bool:
    """Whether some change is a significant gain, and none a significant loss."""
    is_better = any(change.low > 0 for change in changes.values())
    return is_better and not any(change.high < 0 for change in changes.values())


@dataclass(frozen=True)
class Standing:
    """The indices of the points that dominate and that beat a point; None if there are none."""

    dominated_by: int | None
    beaten_by: int | None

    @property
    def on_frontier(self) -> bool:
        return self.dominated_by is None


def standings(points: Sequence[Point]) -> list[Standing]:
    """For each point, the points on the frontier that dominate and beat it.

    One that does both is preferred to one that does either.
    """
    compared, tests = [point.compared for point in points], comparisons(len(points))
    dominated = dominated_by(compared)
    best = [i for i, by in enumerate(dominated) if by is None]
    found = []
    for i, (point, by) in enumerate(zip(points, dominated, strict=True)):
        beating = [j for j in best if j != i and beats(points[j], point, tests)]
        both = [j for j in beating if dominates(compared[j], compared[i])]
        found.append(Standing(next(iter(both), by), next(iter(both or beating), None)))
    return found
