"""A measured number is never alone: it comes with its interval, its size and its chance level."""

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

# All sources together.
POOLED = "pooled"


@dataclass(frozen=True)
class Estimate(Interval):
    """An estimate with the ends of its 95 % interval.

    `items` were measured, in `groups` that share a prompt or an article and were drawn whole for
    the interval; `chance` is what guessing reaches, where that means something.
    """

    items: int
    groups: int
    chance: float | None = None

    def distance(self, ideal: float = 0.0) -> Estimate:
        """How far from the ideal, whichever way; an interval with it inside begins at 0."""
        ends = sorted((abs(self.low - ideal), abs(self.high - ideal)))
        low = 0.0 if self.low <= ideal <= self.high else ends[0]
        return replace(self, estimate=abs(self.estimate - ideal), low=low, high=ends[1])

    def mapped(self, to: Callable[[float], float]) -> Estimate:
        """The same on another scale, by a monotonic function; its chance is left out."""
        low, high = sorted((to(self.low), to(self.high)))
        return replace(self, estimate=to(self.estimate), low=low, high=high, chance=None)

    def within(self, least: float = -inf, most: float = inf) -> Estimate:
        """The estimate and its ends, no further out than what is possible."""
        ends = {
            name: min(max(getattr(self, name), least), most) for name in ("estimate", "low", "high")
        }
        return replace(self, **ends)

    def to_json(self) -> dict[str, Any]:
        """Its fields; without `chance` where there is none."""
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
    """sum(numerators) / sum(denominators) with its interval, by default the mean.

    `groups` names what each item belongs to; without it every item stands for itself. Where all are
    of one group the items are drawn, as of it alone nothing could be, and it counts as one.
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
    """A function of the columns' sums with its interval, such as a product of two ratios."""
    found = bootstrap_sums(values, statistic, clusters=_several(groups))
    count = _count(values, groups)
    return Estimate(found.estimate, found.low, found.high, len(values), count, chance)


def apart(after: Estimate, before: Estimate) -> Estimate:
    """after - before by the intervals that the two have (Newcombe 1998, method 10, of shares).

    For items of which none differs in another way than all others: drawing them shows no spread.
    """
    half = mean_interval([after, before.mapped(lambda x: -x)])
    ends = {name: 2 * getattr(half, name) for name in ("estimate", "low", "high")}
    return replace(after, **ends, chance=None)


def with_spread(changes: BySource, after: BySource, before: BySource) -> BySource:
    """Differences of numbers, by their names, that drawing the items gave: each with an interval.

    Where no draw shows a spread, as where no item changed or all of them did, the intervals of the
    two numbers say what may be there unseen.
    """
    found = dict(changes)
    for name, change in changes.items():
        if change.low == change.high and name in after and name in before:
            unseen = apart(after[name], before[name])
            low, high = (
                change.estimate + end - unseen.estimate for end in (unseen.low, unseen.high)
            )
            found[name] = replace(change, low=low, high=high)
    return found


def gained(
    after: Float[np.ndarray, " items"],
    before: Float[np.ndarray, " items"],
    *,
    groups: Sequence[Hashable] | None = None,
) -> Estimate:
    """The mean of after - before, both from 0 to 1, on the same items, with its interval."""
    change = ratio(after - before, groups=groups)
    new, old = ({POOLED: rate(one, groups=groups)} for one in (after, before))
    return with_spread({POOLED: change}, new, old)[POOLED]


def _count(values: Shaped[np.ndarray, "items *columns"], groups: Sequence[Hashable] | None) -> int:
    return len(values) if groups is None else len(set(groups))


def _several(groups: Sequence[Hashable] | None) -> Sequence[Hashable] | None:
    return None if groups is None or len(set(groups)) == 1 else groups


def share(hits: int, items: int) -> Estimate:
    """The share of independent items that hit, with Wilson's interval."""
    found = wilson_interval(hits, items)
    return Estimate(found.estimate, found.low, found.high, items, items)


_VOTES = {0.0, 0.5, 1.0}


def rate(
    values: Shaped[np.ndarray, "items"],
    *,
    groups: Sequence[Hashable] | None = None,
    chance: float | None = None,
) -> Estimate:
    """The mean of values from 0 to 1, such as the share of right answers.

    Of yes, no and ties by Wilson's interval: of as many trials as items where each stands for
    itself, else of the trials that groups are worth (`independent_trials`), and of one group alone
    one. Other values are drawn, in whole groups; where that shows no spread, Wilson's interval of
    as many groups does it.
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
