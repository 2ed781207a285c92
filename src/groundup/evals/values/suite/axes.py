"""From tasks to an axis: the plain mean of their scores, with an interval.

    axis = 1/k sum_i s_i
    low  = axis - 1/k sqrt(sum_ij r_ij (s_i - low_i) (s_j - low_j))         and high likewise
    r_ij = shared / sqrt(n_i n_j)                                           r_ii = 1

s_i in [0, 1] is the score of task i with its own 95 % interval. Errors of tasks with different
items are independent and add up as squares (`maths.intervals.mean_interval`). Some tasks ask about
the same things in two ways, such as a request plain and attacked. If n_i and n_j groups have
`shared` ones in common, r_ij is the largest possible correlation of the two means, so the interval
is rather too wide. It covers what other items of the same tasks could have given, but not other
tasks: which ones form an axis is a choice.
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
    """The mean of scores within 0 and 1, with an interval computed from theirs.

    Its chance level is the mean of theirs, if all have one.
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
    """r_ij of the tasks' rows: the share of groups that two tasks have in common."""
    sets = [set(groups(rows)) for rows in asked]
    return np.array([[len(a & b) / sqrt(len(a) * len(b)) for b in sets] for a in sets])


def axis_change(after: Estimate, before: Estimate) -> Estimate:
    """after - before, as if the two had been asked different items.

    They were asked the same items, which correlates them, so the interval is rather too wide.
    """
    change = after.estimate - before.estimate
    below = sqrt((after.estimate - after.low) ** 2 + (before.high - before.estimate) ** 2)
    above = sqrt((after.high - after.estimate) ** 2 + (before.estimate - before.low) ** 2)
    return Estimate(change, change - below, change + above, after.items, after.groups)


def axes_of(
    tasks: Sequence[Task], scores: Mapping[str, Estimate], rows: Mapping[str, Sequence[Row]]
) -> BySource:
    """The axes of one model, from its tasks' scores and rows.

    An axis is left out if one of its tasks was not asked, as for a model not trained to answer,
    because the mean of the others is not comparable.
    """
    found: BySource = {}
    for axis in AXES:
        names = [task.name for task in tasks if task.axis == axis]
        if names and all(name in scores for name in names):
            shared = shared_groups([rows[name] for name in names])
            found[axis] = axis_of([scores[name] for name in names], shared)
    return found
