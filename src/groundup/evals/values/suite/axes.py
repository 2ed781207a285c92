"""How tasks make an axis: the plain mean of their scores, with an interval.

    axis = 1/k sum_i s_i
    low  = axis - 1/k sqrt(sum_ij r_ij (s_i - low_i) (s_j - low_j))         and high likewise
    r_ij = shared / sqrt(n_i n_j)                                           r_ii = 1

s_i in [0, 1] is the score of task i with its own 95 % interval. Errors of tasks that ask different
items are independent and add up as squares (`maths.intervals.mean_interval`). Some tasks ask about
the same things in two ways, such as a request plain and attacked. Of n_i and n_j groups, `shared`
in both, r_ij is the most that two means can be correlated, so the interval is rather too wide. It
says what other items of the same tasks could have given, and nothing of other tasks: which ones
make an axis is a choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt

import numpy as np
from jaxtyping import Float

from groundup.evals.values.rows import groups
from groundup.evals.values.task import AXES, Row, Task
from groundup.maths.intervals import mean_interval
from groundup.report.estimate import BySource, Estimate


def axis_of(
    scores: Sequence[Estimate], correlations: Float[np.ndarray, "k k"] | None = None
) -> Estimate:
    """The mean of scores, with the interval that their own ones leave; within 0 and 1.

    Its chance is the mean of theirs, where all have one.
    """
    mean = mean_interval(scores, correlations)
    chances = [one.chance for one in scores if one.chance is not None]
    return Estimate(
        mean.estimate,
        max(0.0, mean.low),
        min(1.0, mean.high),
        sum(one.items for one in scores),
        sum(one.groups for one in scores),
        sum(chances) / len(chances) if len(chances) == len(scores) else None,
    )


def shared_groups(asked: Sequence[Sequence[Row]]) -> Float[np.ndarray, "tasks tasks"]:
    """r_ij of the rows of tasks: by which share each two ask of the same groups."""
    sets = [set(groups(rows)) for rows in asked]
    return np.array([[len(a & b) / sqrt(len(a) * len(b)) for b in sets] for a in sets])


def axis_change(after: Estimate, before: Estimate) -> Estimate:
    """after - before, as if the two had been asked different items.

    They were asked the same ones, which moves both together, so the interval is rather too wide.
    """
    change = after.estimate - before.estimate
    below = sqrt((after.estimate - after.low) ** 2 + (before.high - before.estimate) ** 2)
    above = sqrt((after.high - after.estimate) ** 2 + (before.estimate - before.low) ** 2)
    return Estimate(change, change - below, change + above, after.items, after.groups)


def axes_of(
    tasks: Sequence[Task], scores: Mapping[str, Estimate], rows: Mapping[str, Sequence[Row]]
) -> BySource:
    """The axes of one model, by the scores of its tasks and the rows behind them.

    One is left out of which a task was not asked, as of a model that was never taught to answer:
    the mean of the others is not comparable.
    """
    found: BySource = {}
    for axis in AXES:
        names = [task.name for task in tasks if task.axis == axis]
        if names and all(name in scores for name in names):
            shared = shared_groups([rows[name] for name in names])
            found[axis] = axis_of([scores[name] for name in names], shared)
    return found
