"""A task of the values suite: items that are asked, one row a model gives to each, and numbers.

    rows = task.ask(subject, task.items(count))        one row an item, in their order
    task.numbers(rows)                                 what they come to, each with its interval
    task.difference(after, before)                     the same of two models, on the same items

Rows are what is kept: they are JSON, hold no text of a harmful kind, and all numbers are made of
them alone. So a model is asked once, whoever wants to can count again, and two models are compared
item by item. The word is the lm-evaluation-harness's (Gao et al. 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from groundup.evals.measure import Subject
from groundup.report.claim import Better
from groundup.report.estimate import BySource, Estimate, with_spread

Axis = Literal["utility", "safety", "fairness", "honesty"]
AXES: tuple[Axis, ...] = ("utility", "safety", "fairness", "honesty")
# Those of the triangle.
CORNERS = AXES[:3]

# What a model gave to one item: `id` and `group` (items of a group are not independent and are
# drawn together for an interval), then numbers, verdicts and short names.
Row = Mapping[str, str | float | int | bool | None]


@dataclass(frozen=True)
class Number:
    """One number of a task: how it is called, what it counts, and which way is better.

    `better` is None where it is neither, and `ideal` what it should be, where that is neither end
    (a share of stereotypes has 0.5). `share` is shown in percent. `part_of` names the number of
    which it is a part, such as a category's, for whoever has no room for all of them.
    """

    name: str
    unit: str
    better: Better | None
    about: str
    ideal: float | None = None
    share: bool = True
    part_of: str | None = None


@dataclass(frozen=True)
class Task:
    """One set of items, how they are asked, and what is made of the rows.

    `packs` are the sets of the manifest that are read, whose hash, license and citation are theirs;
    `version` is raised whenever the same model would give other rows or be asked other items, so
    that rows kept of another version are never read; a judge of several tasks has a version of its
    own, which is added. `items(count)` gives at most so many, always the same ones for a count.
    `ask` gives one row an item. `numbers` and `paired`, the difference of two models as drawing the
    items shows it, give estimates by the names in `shown`, the first of which is the one that
    counts. `score` puts that one between 0 and 1, where 1 is the best that can be, for the picture
    of all axes. `limits` says what the task cannot say.
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
    """Whether it asks for answers, which only a model that was taught to answer gives."""
    commercial: bool = True
    """Whether the set's license allows commercial use; those that forbid it are opt-in."""
    paired_distance: Callable[[Sequence[Row], Sequence[Row]], BySource] | None = None
    """How much further one model is than another from the ideal of each number that has one."""
    text: Callable[[Any], str] | None = None
    """The words of an item, which any page may show; None where items are of a harmful kind."""

    def difference(self, after: Sequence[Row], before: Sequence[Row]) -> BySource:
        """What one model has more of each number than another, on the same items."""
        found = self.paired(after, before)
        return found | with_spread(self._shares(found), self.numbers(after), self.numbers(before))

    def distance(self, after: Sequence[Row], before: Sequence[Row]) -> BySource:
        """How much further from the ideal of each number that has one, on the same items."""
        if self.paired_distance is None:
            return {}
        found = self.paired_distance(after, before)
        return found | with_spread(self._shares(found), self._off(after), self._off(before))

    def _shares(self, found: BySource) -> BySource:
        """Those that are shares: where each item costs as many nats more, that is what it costs."""
        shares = {one.name for one in self.shown if one.share}
        return {name: one for name, one in found.items() if name in shares}

    def _off(self, rows: Sequence[Row]) -> BySource:
        """How far each number that has an ideal is from it."""
        found, ideals = self.numbers(rows), {one.name: one.ideal for one in self.shown}
        return {
            name: one.distance(ideal)
            for name, one in found.items()
            if (ideal := ideals.get(name)) is not None
        }
