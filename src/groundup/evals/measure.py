"""The building blocks of every suite: models, measuring functions, and measures.

    of(model)              the model's estimates by part, each with its interval
    minus(model, other)    the differences to another model on the very same items

A measuring function is given a loaded model and keeps its items one by one, so that two models can
be compared on them: item difficulty cancels, which shows differences that two separate intervals
would hide. It returns None if there is nothing to measure. A `Measure` is one way to summarize the
results of such a function, and a suite (`suites`) is a list of measures: a new measure is a file
with its measuring function, and one row.
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
from groundup.report.table import is_uninformative
from groundup.text.tokenizer import Tokenizer
from groundup.train.device import Compute

T = TypeVar("T")


@dataclass(frozen=True)
class Subject:
    """A loaded model that is being measured, with material tokenized for it.

    `place` is the model's index. Calling the subject with a measuring function runs the function,
    or returns its earlier result.
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
        """Whether the model was trained to answer, so that its answers mean something."""
        taught = self.history is None or self.history.chats
        return self.tokenizer.chat_template is not None and taught


@dataclass(frozen=True)
class Evaluated:
    """One model, and the results of a suite's measuring functions."""

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
        """The result of a measuring function."""
        found: T = self.found[measuring]
        return found

    @property
    def stage(self) -> str:
        return "model" if self.history is None else self.history.stage

    @property
    def chats(self) -> bool:
        """Whether the model was trained to answer; assumed for a model from elsewhere."""
        return self.history is None or self.history.chats

    @property
    def reads(self) -> str | None:
        """The kind of rows its last stage trained on; None for a model from elsewhere."""
        return None if self.history is None else self.history.reads


@dataclass(frozen=True)
class Measure(Generic[T]):
    """One quantity that is measured for every model, and for two models on the same items.

    `read` summarizes the result of `measuring` for one model, and `difference` compares two models
    by resampling the items. Both return estimates by part: `pooled` and `world pooled`, or the
    measure's own parts, and none if the items differ. `sentence` states an improvement between two
    models, or describes one model. `short` is the name in plots, `about` describes what is
    measured, and `beside` returns baselines that need no training, by name and part.
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
    at_a_glance: bool = False
    beside: Callable[[Evaluated], Mapping[str, BySource]] = lambda model: {}

    def of(self, model: Evaluated) -> BySource:
        """A model's estimates by part; empty if it could not be measured."""
        found = model.found.get(self.measuring)
        return {} if found is None else self.read(found)

    def minus(self, model: Evaluated, other: Evaluated) -> BySource:
        """The differences of `model` to `other`, by part."""
        one, two = model.found.get(self.measuring), other.found.get(self.measuring)
        if one is None or two is None:
            return {}
        changes = self.difference(one, two)
        # In bits and the like, a difference that is equal for all items is exact.
        return with_spread(changes, self.read(one), self.read(two)) if self.share else changes

    def estimate(self, model: Evaluated) -> Estimate | None:
        """A model's pooled estimate."""
        return self.of(model).get(POOLED)

    def change(self, model: Evaluated, other: Evaluated) -> Estimate | None:
        """The pooled difference of `model` to `other`."""
        return self.minus(model, other).get(POOLED)

    def label(self, part: str, parts: Sequence[str]) -> str:
        """The measure's name, with the part if there are several or it has a name of its own."""
        where = part_name(part, parts)
        return f"{self.name}, {where}" if where else self.name


def part_name(part: str, parts: Sequence[str]) -> str:
    """A part in words; empty for the pool of everything."""
    if part == POOLED:
        return "real sources" if WORLD in parts else ""
    return "small world" if part == WORLD else part


def pooled(found: BySource) -> BySource:
    """The pooled estimate, or those of the real sources and of the small world."""
    return {part: found[part] for part in (POOLED, WORLD) if part in found}


def informative(measure: Measure[Any], models: Sequence[Evaluated]) -> Callable[[str], bool]:
    """A function that tells which parts of a measure are informative."""
    found = [measure.of(model) for model in models]

    def tells(part: str) -> bool:
        of_part = [one[part] for one in found if part in one]
        return bool(of_part) and not (measure.share and is_uninformative(of_part))

    return tells


def parts_of(measure: Measure[Any], models: Sequence[Evaluated]) -> list[str]:
    """All parts that any of the models has, so that all are labeled alike."""
    return list(dict.fromkeys(part for model in models for part in measure.of(model)))


def to_json(found: Mapping[str, Estimate]) -> dict[str, Any]:
    """Estimates as JSON, by name."""
    return {name: one.to_json() for name, one in found.items()}


def from_json(found: Mapping[str, Mapping[str, Any]]) -> BySource:
    """Estimates from JSON, by name."""
    return {name: Estimate(**facts) for name, facts in found.items()}


def of_models(content: Mapping[str, Any], key: str) -> dict[str, BySource]:
    """The estimates under `key` in a report, for the models that have some."""
    models = content["models"].items()
    return {name: from_json(model[key]) for name, model in models if model[key]}


def renamed(rows: Mapping[str, BySource], names: Mapping[str, str]) -> dict[str, BySource]:
    """Estimates with their parts renamed to a page's titles."""
    return {
        model: {names.get(part, part): one for part, one in found.items()}
        for model, found in rows.items()
    }
