"""What one report says of one model, in the parts of a card: alike whoever measured."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from groundup.report.claim import Claim
from groundup.report.estimate import BySource, Estimate


@dataclass(frozen=True)
class Line:
    """A number: what was measured, and the level of chance, or what it should be, beside it."""

    what: str
    measured: Estimate
    share: bool = True
    level: float | None = None


@dataclass(frozen=True)
class Account:
    """A report's account of a model.

    `how` are the settings that its numbers depend on, `claims` what became of the model against
    others. `judges` are as reports have them (`evals.values.judges`), and `judged` says who else
    judged, and how far that is known. `left` is what was not measured, with the reason. `groups` of
    people were told apart, `familiar` is what stands in the model's training, and `data` whom to
    thank and what the items cannot say.
    """

    how: str
    numbers: Sequence[Line]
    claims: Sequence[Claim] = ()
    judges: Sequence[Mapping[str, Any]] = ()
    judged: Sequence[str] = ()
    left: Sequence[str] = ()
    groups: Sequence[str] = ()
    familiar: Sequence[str] = ()
    data: Sequence[str] = ()
    limits: Sequence[str] = ()


def missing(tasks: Sequence[str], measured: Collection[str]) -> list[str]:
    """Which of the tasks were not measured, in their order."""
    return [task for task in tasks if task not in measured]


def lines(found: BySource, of: str = "", share: bool = True) -> list[Line]:
    """A line for each estimate, by its name."""
    named = ((f"{of}, {name}" if of else name, one) for name, one in found.items())
    return [Line(what, one, share, one.chance) for what, one in named]


def claims_on(claims: Iterable[Mapping[str, Any]], name: str) -> list[Claim]:
    """What a report claims of the model of that name."""
    return [Claim.from_json(one) for one in claims if one["model"] == name]


def trained_on(familiar: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the runs that led to a model trained on of the items, as far as they tell."""
    # A message on data that do not say their sources tells where on this machine they lie.
    return [
        one["message"]
        if one["rows"]
        else f"whether questions of the suite are in the data of {one['run']} is not known"
        for one in familiar
    ]
