"""Estimates: measured numbers with their interval, sample size and chance level."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from groundup.maths.intervals import (
    Interval,
    bootstrap_ratio,
    bootstrap_sums,
    independent_trials,
    mean_interval,
    wilson_interval,
)

# The name of all sources together.
POOLED = "pooled"


@dataclass(frozen=True)
class Estimate(Interval):
    """An estimate with the ends of its 95 % interval.

    `items` is the number of measured items, in `groups` groups that share a prompt or an article
    and were drawn whole for the interval. `chance` is the result of guessing, if defined.
    """

    items: int
    groups: int
    chance: float | None = None

    def distance(self, ideal: float = 0.0) -> Estimate:
        """Return the distance from the ideal; an interval that contains it starts at 0."""
        ends = sorted((abs(self.low - ideal), abs(self.high - ideal)))
        low = 0.0 if self.low <= ideal <= self.high else ends[0]
        return replace(self, estimate=abs(self.estimate - ideal), low=low, high=ends[1])

    def mapped(self, to: Callable[[float], float]) -> Estimate:
        """Return the estimate on another scale, by a monotonic function, without `chance`."""
        low, high = sorted((to(self.low), to(self.high)))
        return replace(self, estimate=to(self.estimate), low=low, high=high, chance=None)

    def within(self, least: float = -inf, most: float = inf) -> Estimate:
        """Return the estimate with all values limited to the possible range."""
        ends = {
            name: min(max(getattr(self, name), least), most) for name in ("estimate", "low", "high")
        }
        return replace(self, **ends)

    def to_json(self) -> dict[str, Any]:
        """Return its fields, without `chance` if there is none."""
        facts: dict[str, Any] = {
            "estimate": self.estimate,
            "low": self.low,
            "high": self.high,
            "items": self.items,
            "groups": self.groups,
        }
        return facts if self.chance is None else facts | {"chance": self.chance}


BySource = dict[str, Estimate]


def ratio(
    numerators: Shaped[np.ndarray, "items"],
    denominators: Shaped[np.ndarray, "items"] | None = None,
    *,
    groups: Sequence[Hashable] | None = None,
    chance: float | None = None,
) -> Estimate:
    """Return sum(numerators) / sum(denominators) with its interval, by default the mean.

    `groups` names the group of each item; by default each item is its own group. If there is only
    one group, the interval is from drawing items, and the group counts as one.
    """
    if denominators is None:
        denominators = np.ones(len(numerators))
    found = bootstrap_ratio(numerators, denominators, clusters=_several(groups))
    count = _count(numerators, groups)
    return Estimate(found.estimate, found.low, found.high, len(numerators), count, chance)


def of_sums(
    values: Float[np.ndarray, "items columns"],
    statistic: Callable[[Float[np.ndarray, "samples columns"]], Float[np.ndarray, "samples"]],
    *,
    groups: Sequence[Hashable] | None = None,
    chance: float | None = None,
) -> Estimate:
    """Return a function of the columns' sums with its interval, such as a product of ratios."""
    found = bootstrap_sums(values, statistic, clusters=_several(groups))
    count = _count(values, groups)
    return Estimate(found.estimate, found.low, found.high, len(values), count, chance)


def unpaired_change(after: Estimate, before: Estimate) -> Estimate:
    """Return after - before from their two intervals (Newcombe 1998, method 10, for shares).

    For items that all changed in the same way, where drawing them would show no spread.
    """
    half = mean_interval([after, before.mapped(lambda x: -x)])
    ends = {name: 2 * getattr(half, name) for name in ("estimate", "low", "high")}
    return replace(after, **ends, chance=None)


def with_spread(changes: BySource, after: BySource, before: BySource) -> BySource:
    """Return named differences from drawing items, with intervals also where draws did not vary.

    If no draw shows a spread, as when no item changed or all of them did, the interval is derived
    from those of the two numbers (`unpaired_change`).
    """
    found = dict(changes)
    for name, change in changes.items():
        if change.low == change.high and name in after and name in before:
            unseen = unpaired_change(after[name], before[name])
            low, high = (
                change.estimate + end - unseen.estimate for end in (unseen.low, unseen.high)
            )
            found[name] = replace(change, low=low, high=high)
    return found


def mean_change(
    after: Float[np.ndarray, " items"],
    before: Float[np.ndarray, " items"],
    *,
    groups: Sequence[Hashable] | None = None,
) -> Estimate:
    """Return the mean of after - before on the same items, both from 0 to 1, with its interval."""
    change = ratio(after - before, groups=groups)
    new, old = ({POOLED: rate(one, groups=groups)} for one in (after, before))
    return with_spread({POOLED: change}, new, old)[POOLED]


def _count(values: Shaped[np.ndarray, "items *columns"], groups: Sequence[Hashable] | None) -> int:
    return len(values) if groups is None else len(set(groups))


def _several(groups: Sequence[Hashable] | None) -> Sequence[Hashable] | None:
    return None if groups is None or len(set(groups)) == 1 else groups


def share(hits: int, items: int) -> Estimate:
    """Return the share of hits among independent items, with Wilson's interval."""
    found = wilson_interval(hits, items)
    return Estimate(found.estimate, found.low, found.high, items, items)


_VOTES = {0.0, 0.5, 1.0}


def rate(
    values: Shaped[np.ndarray, "items"],
    *,
    groups: Sequence[Hashable] | None = None,
    chance: float | None = None,
) -> Estimate:
    """Return the mean of values from 0 to 1, such as the share of right answers.

    For values 0, 1/2 and 1 it has Wilson's interval, with as many trials as items if they are
    independent, else the groups' effective number of trials (`independent_trials`), which is one
    for a single group. Other values have a bootstrap interval over whole groups, or, if that shows
    no spread, Wilson's interval with as many trials as groups.
    """
    estimate, count = float(np.mean(values)), _count(values, groups)
    found = set(np.asarray(values, dtype=float).tolist())
    differ, trials = len(found) > 1, float(count)
    if differ and count > 1 and not found <= _VOTES:
        drawn = ratio(values, groups=groups, chance=chance)
        if drawn.low < drawn.high:
            return drawn
    elif groups is not None and 1 < count < len(values):
        trials = independent_trials(values, groups)
    wilson = wilson_interval(estimate * trials, trials)
    return Estimate(estimate, wilson.low, wilson.high, len(values), count, chance)
