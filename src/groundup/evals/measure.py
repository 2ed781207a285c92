"""What every suite is made of: models, the measuring functions that run on them, and measures.

    of(model)              what one model has, by parts, each with its interval
    minus(model, other)    what it has more than another one on the very same items

A measuring function is given a loaded model and keeps its items one by one, so that two models can
be compared on them: what makes an item hard for both cancels, and differences are seen that two
intervals side by side would hide. It gives None where there is nothing to measure. A `Measure` is
one way to read what such a function found, and a suite (`suites`) is a list of them: a new measure
is a file with its measuring function, and one row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from groundup.evals.by_source import WORLD
from groundup.lm.model import CausalLM
from groundup.report.claim import Better
from groundup.report.estimate import POOLED, BySource, Estimate, with_spread
from groundup.report.history import History
from groundup.report.table import says_nothing
from groundup.text.tokenizer import Tokenizer
from groundup.train.device import Compute

T = TypeVar("T")


@dataclass(frozen=True)
class Subject:
    """A loaded model that is being measured, on material that its tokenizer has read.

    `place` counts the models from 0. Calling it with a measuring function measures, once however
    often it is called.
    """

    place: int
    folder: Path
    history: History | None
    model: CausalLM
    tokenizer: Tokenizer
    context: int
    material: Any
    config: Any
    compute: Compute
    found: dict[Callable[[Subject], Any], Any] = field(default_factory=dict)

    def __call__(self, measuring: Callable[[Subject], T]) -> T:
        if measuring not in self.found:
            self.found[measuring] = measuring(self)
        found: T = self.found[measuring]
        return found

    @property
    def chats(self) -> bool:
        """Whether it was taught to answer, so that what it answers means something."""
        taught = self.history is None or self.history.chats
        return self.tokenizer.chat_template is not None and taught


@dataclass(frozen=True)
class Evaluated:
    """One model, and what the measuring functions of a suite found of it."""

    name: str
    source: str
    folder: Path
    history: History | None
    parameters: int
    context: int
    material: Any
    found: Mapping[Callable[[Subject], Any], Any]
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def __call__(self, measuring: Callable[[Subject], T]) -> T:
        """What a measuring function found."""
        found: T = self.found[measuring]
        return found

    @property
    def stage(self) -> str:
        return "model" if self.history is None else self.history.stage

    @property
    def chats(self) -> bool:
        """Whether it was taught to answer; of a model from elsewhere that is assumed."""
        return self.history is None or self.history.chats

    @property
    def reads(self) -> str | None:
        """The kind of rows that its last stage learned from; None of a model from elsewhere."""
        return None if self.history is None else self.history.reads


@dataclass(frozen=True)
class Measure(Generic[T]):
    """One thing that is measured of every model, and of two models on the same items.

    `read` takes what `measuring` found of one model, `difference` of two, as drawing the items
    shows it; both give parts: `pooled` and `world pooled`, or whatever a measure is told apart by,
    and none where the items are not the same. `sentence` is what a change for the better would
    prove of two models, or what is said of one. `short` names it in a plot, `about` says of what it
    is, and `beside` has what needs no training, by its name and by the same parts.
    """

    name: str
    sentence: str
    unit: str
    better: Better
    measuring: Callable[[Subject], T | None]
    read: Callable[[T], BySource]
    difference: Callable[[T, T], BySource]
    title: str = ""
    short: str = ""
    about: str = ""
    share: bool = False
    in_one_look: bool = False
    beside: Callable[[Evaluated], Mapping[str, BySource]] = lambda model: {}

    def of(self, model: Evaluated) -> BySource:
        """What a model has, by parts; none where it could not be measured."""
        found = model.found.get(self.measuring)
        return {} if found is None else self.read(found)

    def minus(self, model: Evaluated, other: Evaluated) -> BySource:
        """What `model` has more than `other`, by parts."""
        one, two = model.found.get(self.measuring), other.found.get(self.measuring)
        if one is None or two is None:
            return {}
        changes = self.difference(one, two)
        # Where every item costs as much more, of bits say, that is what it costs.
        return with_spread(changes, self.read(one), self.read(two)) if self.share else changes

    def estimate(self, model: Evaluated) -> Estimate | None:
        """What a model has of it as a whole."""
        return self.of(model).get(POOLED)

    def change(self, model: Evaluated, other: Evaluated) -> Estimate | None:
        """What `model` has more than `other` as a whole."""
        return self.minus(model, other).get(POOLED)

    def label(self, part: str, parts: Sequence[str]) -> str:
        """What is measured, with the part where there are several or one of its own name."""
        where = part_name(part, parts)
        return f"{self.name}, {where}" if where else self.name


def part_name(part: str, parts: Sequence[str]) -> str:
    """A part in words; nothing for the pool of all there is."""
    if part == POOLED:
        return "real sources" if WORLD in parts else ""
    return "small world" if part == WORLD else part


def pooled(found: BySource) -> BySource:
    """The pooled number alone, or those of the real sources and of the small world apart."""
    return {part: found[part] for part in (POOLED, WORLD) if part in found}


def informative(measure: Measure[Any], models: Sequence[Evaluated]) -> Callable[[str], bool]:
    """Which of a measure's parts tell the models, or anything, apart."""
    found = [measure.of(model) for model in models]

    def tells(part: str) -> bool:
        of_part = [one[part] for one in found if part in one]
        return bool(of_part) and not (measure.share and says_nothing(of_part))

    return tells


def parts_of(measure: Measure[Any], models: Sequence[Evaluated]) -> list[str]:
    """The parts that any of the models was measured by, so that all are labeled alike."""
    return list(dict.fromkeys(part for model in models for part in measure.of(model)))


def to_json(found: Mapping[str, Estimate]) -> dict[str, Any]:
    """Estimates as JSON, by their names."""
    return {name: one.to_json() for name, one in found.items()}


def from_json(found: Mapping[str, Mapping[str, Any]]) -> BySource:
    """Estimates from JSON, by their names."""
    return {name: Estimate(**facts) for name, facts in found.items()}


def of_models(content: Mapping[str, Any], key: str) -> dict[str, BySource]:
    """The estimates of that key in a report, of the models that have some."""
    models = content["models"].items()
    return {name: from_json(model[key]) for name, model in models if model[key]}


def renamed(rows: Mapping[str, BySource], names: Mapping[str, str]) -> dict[str, BySource]:
    """Estimates with their parts called by the names that a page has for them."""
    return {
        model: {names.get(part, part): one for part, one in found.items()}
        for model, found in rows.items()
    }
