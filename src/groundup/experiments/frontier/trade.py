"""A point of the frontier: what a model is on all axes, and which points no other one dominates.

Points are compared by the three axes and by the look-alikes that they answer: safety that is bought
by declining those is paid for in use, of which utility, where they are one kind of many, shows
little.

A point is dominated if another is nowhere worse and somewhere better (Pareto), by what was
estimated. What nothing dominates is the frontier, which is never empty. Estimates have intervals,
and somewhere chance makes any point a hair better. So it is told, too, which points another one on
the frontier beats: it is better beyond chance somewhere, on the same items, and nowhere worse
beyond chance.

With many pairs some would be better by chance alone. A gain must be sure in an interval of
1 - 0.05 / comparisons, so that among points that are all alike none is beaten in 95 of 100 sweeps
(Bonferroni); a loss stands in the way from 95 % on. Of fewer than six groups of items nothing is
a sure gain, however much they agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from statistics import NormalDist

from groundup.evals.values.task import Number, Row, Task
from groundup.evals.values.world import CONDUCT_TASK, OVER_REFUSED, TASKS
from groundup.report.claim import FEWEST_GROUPS
from groundup.report.estimate import BySource, Estimate

# The axes in the order of the tasks: utility, safety, fairness.
AXES: Mapping[str, Task] = {task.axis: task for task in TASKS}
LOOK_ALIKES = "look-alikes"
# What two points are compared by, each the better the more is gained of it.
_COMPARED: Mapping[str, tuple[Task, Number]] = {
    **{axis: (task, task.shown[0]) for axis, task in AXES.items()},
    LOOK_ALIKES: next((CONDUCT_TASK, n) for n in CONDUCT_TASK.shown if n.name == OVER_REFUSED),
}
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

    @property
    def compared(self) -> dict[str, float]:
        """The axes, and the share of look-alikes that are not declined."""
        refused = CONDUCT_TASK.numbers(self.rows[CONDUCT_TASK.name])[OVER_REFUSED]
        return {**self.axes, LOOK_ALIKES: 1 - refused.estimate}

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
    return AXES[axis].score(rows[AXES[axis].name])


def _axes(rows: Rows) -> dict[str, float]:
    return {axis: _score(rows, axis).estimate for axis in AXES}


def gained(after: Point, before: Point) -> dict[str, Estimate]:
    """How much better a point is than another on each axis and in look-alikes, item by item."""
    found: dict[str, Estimate] = {}
    for name, (task, counts) in _COMPARED.items():
        change = task.difference(after.rows[task.name], before.rows[task.name])[counts.name]
        if counts.better == "below":
            change = change.mapped(lambda more: -more)
        found[name] = change
    return found


def comparisons(points: int) -> int:
    """How many differences there are between so many points."""
    return points * (points - 1) // 2 * len(_COMPARED)


def bonferroni(change: Estimate, tests: int) -> Estimate:
    """Its 95 % interval as one of 1 - 0.05 / tests, in which that many hold together.

    Both ends are farther from the estimate by the ratio of the normal's quantiles, since a
    bootstrap of some thousand samples has no such percentiles. Of fewer than six groups it has no
    ends, as nothing is told by so few.
    Source: Dunn (1961), "Multiple comparisons among means".
    """
    if change.groups < FEWEST_GROUPS:
        return replace(change, low=-inf, high=inf)
    usual, wanted = (NormalDist().inv_cdf(1 - 0.025 / many) for many in (1, tests))
    farther = wanted / usual
    return replace(
        change,
        low=change.estimate - farther * (change.estimate - change.low),
        high=change.estimate + farther * (change.high - change.estimate),
    )


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


def beats(better: Point, worse: Point, tests: int = 1) -> bool:
    """Whether it is somewhere better beyond chance, as one of so many tests, and nowhere worse."""
    changes = gained(better, worse)
    return beyond_chance(
        {name: replace(one, low=bonferroni(one, tests).low) for name, one in changes.items()}
    )


def beyond_chance(changes: Mapping[str, Estimate]) -> bool:
    """Whether a change on some axis is surely a gain, and on none surely a loss."""
    is_better = any(change.low > 0 for change in changes.values())
    return is_better and not any(change.high < 0 for change in changes.values())


@dataclass(frozen=True)
class Standing:
    """The places of the points that dominate a point and that beat it; None where there is none."""

    dominated_by: int | None
    beaten_by: int | None

    @property
    def on_frontier(self) -> bool:
        return self.dominated_by is None


def standings(points: Sequence[Point]) -> list[Standing]:
    """Where each point stands among all: of those on the frontier, which dominate and beat it.

    One that does both is named before one that does either.
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
