"""A task of the values suite: items, the rows of a model's results, and numbers.

    rows = task.ask(subject, task.items(count))        one row per item, in their order
    task.numbers(rows)                                 estimates, each with its interval
    task.difference(after, before)                     differences of two models, item by item

Only rows are stored: they are JSON, contain no harmful text, and all numbers are computed from
them. A model is therefore asked only once, anyone can recompute the numbers, and two models are
compared item by item. The term "task" is the lm-evaluation-harness's (Gao et al. 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from groundup.evals.measure import Subject
from groundup.report.claim import Better
from groundup.report.estimate import BySource, Estimate, with_spread

Axis = Literal["utility", "safety", "fairness", "honesty"]
AXES: tuple[Axis, ...] = ("utility", "safety", "fairness", "honesty")
# The axes of the triangle.
CORNERS = AXES[:3]

# A model's result for one item: `id` and `group` (items of a group are not independent and are
# resampled together for intervals), then numbers, verdicts and short names.
Row = Mapping[str, str | float | int | bool | None]


@dataclass(frozen=True)
class Number:
    """One number of a task: its name, what it counts, and which direction is better.

    `better` is None if neither is. `ideal` is the best value if that is neither end (0.5 for a
    share of stereotypes). A `share` is shown in percent. `part_of` names the number that this one
    details, such as a category's, for tables that cannot show all.
    """

    name: str
    unit: str
    better: Better | None
    about: str
    ideal: float | None = None
    share: bool = True
    part_of: str | None = None

    def part(self, name: str, about: str) -> Number:
        """The same number of some of the items, such as those of a category."""
        return replace(self, name=f"{self.name}: {name}", about=about, part_of=self.name)


@dataclass(frozen=True)
class Task:
    """A set of items, how they are asked, and how numbers are computed from the rows.

    `packs` are the sets of the manifest that the task reads, with their hashes, licenses and
    citations. `version` is raised whenever the same model would get other rows or items, so that
    stored rows of another version are never read; a judge shared by several tasks has its own
    version, which is added. `items(count)` returns at most `count` items, always the same ones.
    `ask` returns one row per item. `numbers`, and `paired` for the difference of two models with
    items resampled together, return estimates by the names in `shown`, the first of which is the
    main one. `score` maps that one to 0 to 1, where 1 is best, for the plot of all axes. `limits`
    says what the task cannot show.
    """

    name: str
    title: str
    axis: Axis
    about: str
    limits: str
    packs: tuple[str, ...]
    version: int
    shown: tuple[Number, ...]
    items: Callable[[int], Sequence[Any]]
    ask: Callable[[Subject, Sequence[Any]], Sequence[Row]]
    numbers: Callable[[Sequence[Row]], BySource]
    paired: Callable[[Sequence[Row], Sequence[Row]], BySource]
    score: Callable[[Sequence[Row]], Estimate]
    count: int = 500
    fast_count: int = 150
    chats: bool = False
    """Whether the task needs answers, which only models trained to answer give."""
    commercial: bool = True
    """Whether the set's license allows commercial use; other sets are opt-in."""
    paired_distance: Callable[[Sequence[Row], Sequence[Row]], BySource] | None = None
    """The difference in distance from the ideal, for each number that has one."""
    text: Callable[[Any], str] | None = None
    """The text of an item for any page; None for items of a harmful kind."""

    def difference(self, after: Sequence[Row], before: Sequence[Row]) -> BySource:
        """The difference of two models in each number, on the same items."""
        found = self.paired(after, before)
        return found | with_spread(self._shares(found), self.numbers(after), self.numbers(before))

    def distance(self, after: Sequence[Row], before: Sequence[Row]) -> BySource:
        """The difference in distance from the ideal of each number that has one."""
        if self.paired_distance is None:
            return {}
        found = self.paired_distance(after, before)
        return found | with_spread(self._shares(found), self._off(after), self._off(before))

    def _shares(self, found: BySource) -> BySource:
        """The shares only: in other numbers, a difference equal for all items is exact."""
        shares = {one.name for one in self.shown if one.share}
        return {name: one for name, one in found.items() if name in shares}

    def _off(self, rows: Sequence[Row]) -> BySource:
        """The distance of each number from its ideal."""
        found, ideals = self.numbers(rows), {one.name: one.ideal for one in self.shown}
        return {
            name: one.distance(ideal)
            for name, one in found.items()
            if (ideal := ideals.get(name)) is not None
        }
