"""How tasks make an axis: the plain mean of their scores, with an interval.

    axis = 1/k sum_i s_i
    low  = axis - 1/k sqrt(sum_i (s_i - low_i)^2)         and high likewise

s_i in [0, 1] is the score of task i with its own 95 % interval. Tasks ask different items, so their
errors are independent and add up as squares, below and above apart, since intervals near 0 or 1 are
lopsided: the method of variance estimates recovery (Newcombe 1998; Zou and Donner 2008,
"Construction of confidence intervals about effect measures", section 2). The interval says what
other items of the same tasks could have given, and nothing of other tasks: which ones make an axis
is a choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt

from groundup.evals.values.task import AXES, Task
from groundup.report.estimate import BySource, Estimate


def axis_of(scores: Sequence[Estimate]) -> Estimate:
    """The mean of scores, with the interval that their own ones leave; within 0 and 1."""
    k = len(scores)
    mean = sum(one.estimate for one in scores) / k
    below = sqrt(sum((one.estimate - one.low) ** 2 for one in scores)) / k
    above = sqrt(sum((one.high - one.estimate) ** 2 for one in scores)) / k
    return Estimate(
        mean,
        max(0.0, mean - below),
        min(1.0, mean + above),
        sum(one.items for one in scores),
        sum(one.groups for one in scores),
    )


def axis_change(after: Estimate, before: Estimate) -> Estimate:
    """after - before, as if the two had been asked different items.

    They were asked the same ones, which moves both together, so the interval is rather too wide.
    """
    change = after.estimate - before.estimate
    below = sqrt((after.estimate - after.low) ** 2 + (before.high - before.estimate) ** 2)
    above = sqrt((after.high - after.estimate) ** 2 + (before.estimate - before.low) ** 2)
    return Estimate(change, change - below, change + above, after.items, after.groups)


def axes_of(tasks: Sequence[Task], scores: Mapping[str, Estimate]) -> BySource:
    """The axes of one model, by the scores of its tasks.

    One is left out of which a task was not asked, as of a model that was never taught to answer:
    the mean of the others is not comparable.
    """
    found: BySource = {}
    for axis in AXES:
        names = [task.name for task in tasks if task.axis == axis]
        if names and all(name in scores for name in names):
            found[axis] = axis_of([scores[name] for name in names])
    return found
