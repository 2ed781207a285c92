"""A measured number is never alone: it comes with its interval, its size and its chance level."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Shaped

from groundup.maths.intervals import bootstrap_ratio, wilson_interval

POOLED = "pooled"


@dataclass(frozen=True)
class Measured:
    """An estimate with the ends of its 95 % interval.

    `items` were measured, in `groups` that share a prompt or an article and were drawn whole for
    the interval; `chance` is what guessing reaches, where that means something.
    """

    estimate: float
    low: float
    high: float
    items: int
    groups: int
    chance: float | None = None

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


BySource = dict[str, Measured]


def ratio(
    numerators: Shaped[np.ndarray, "items"],
    denominators: Shaped[np.ndarray, "items"] | None = None,
    *,
    groups: Sequence[Hashable] | None = None,
    chance: float | None = None,
) -> Measured:
    """sum(numerators) / sum(denominators) with its interval, by default the mean.

    `groups` names what each item belongs to; without it every item stands for itself.
    """
    if denominators is None:
        denominators = np.ones(len(numerators))
    found = bootstrap_ratio(numerators, denominators, clusters=groups)
    count = len(numerators) if groups is None else len(set(groups))
    return Measured(found.estimate, found.low, found.high, len(numerators), count, chance)


def share(hits: int, items: int) -> Measured:
    """The share of independent items that hit, with Wilson's interval."""
    found = wilson_interval(hits, items)
    return Measured(found.estimate, found.low, found.high, items, items)


def by_source(
    numerators: Shaped[np.ndarray, "items"],
    sources: Sequence[str],
    denominators: Shaped[np.ndarray, "items"] | None = None,
    *,
    groups: Sequence[Hashable] | None = None,
    chances: Shaped[np.ndarray, "items"] | None = None,
) -> BySource:
    """The ratio over all items, named `pooled`, and over those of each source.

    `chances` is what guessing reaches on each item: a source's chance is their mean.
    """
    names = np.asarray(sources)
    found = {}
    for name in (POOLED, *sorted(set(sources))):
        at = np.flatnonzero(names == name) if name != POOLED else np.arange(len(names))
        found[name] = ratio(
            numerators[at],
            None if denominators is None else denominators[at],
            groups=None if groups is None else [groups[int(i)] for i in at],
            chance=None if chances is None else float(chances[at].mean()),
        )
    return found
