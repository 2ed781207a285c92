"""What one report says about one model, in the parts of a card: the same for every command."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from groundup.report.claim import Claim
from groundup.report.estimate import BySource, Estimate


@dataclass(frozen=True)
class Line:
    """A number: what was measured, the estimate, and its chance level or ideal."""

    what: str
    measured: Estimate
    share: bool = True
    level: float | None = None


@dataclass(frozen=True)
class Account:
    """What a report says about a model.

    `how` are the settings that its numbers depend on, `claims` the comparisons with other models.
    `judges` have the form of reports (`evals.values.judges`), and `judged` names other judges and
    how far they can be trusted. `left` is what was not measured, with the reason. `groups` are the
    groups of people that were compared, `familiar` lists items in the model's training data, `data`
    has the sources, and `limits` what the items cannot show.
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
    """The tasks that were not measured, in their order."""
    return [task for task in tasks if task not in measured]


def lines(found: BySource, of: str = "", share: bool = True) -> list[Line]:
    """A line for each estimate, by name."""
    named = ((f"{of}, {name}" if of else name, one) for name, one in found.items())
    return [Line(what, one, share, one.chance) for what, one in named]


def claims_on(claims: Iterable[Mapping[str, Any]], name: str) -> list[Claim]:
    """The claims of a report about the model with that name."""
    return [Claim.from_json(one) for one in claims if one["model"] == name]


def trained_on(familiar: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the runs that led to a model trained on of the items, as far as is known."""
    # Messages about data without sources contain paths of this machine, so they are not used.
    return [
        one["message"]
        if one["rows"]
        else f"whether questions of the suite are in the data of {one['run']} is not known"
        for one in familiar
    ]
