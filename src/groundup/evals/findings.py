"""What the numbers say in words, each sentence with the interval that it rests on.

Every measure that two stages share is put to the same test, item by item, whatever came of it: a
difference holds only if its whole interval lies on one side, and it holds in either direction. What
got worse is said first, then what got better, then what cannot be told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from groundup.evals.compared import (
    CHOICE,
    FEWEST_GROUPS,
    KIND_NAMES,
    LONGER,
    MAJORITY,
    MEASURES,
    PREFERS,
    RIGHT,
    TEXT,
    Better,
    counting,
    informative,
    judged_change,
    measure_named,
    part_name,
    parts_of,
    pooled,
    stages_compared,
)
from groundup.evals.preference import length_margins, preference_accuracy, preference_gain
from groundup.evals.run import Evaluated
from groundup.evals.world.answers import majority_judged
from groundup.report.estimate import POOLED, Estimate

Verdict = Literal["yes", "no", "cannot be told"]
Outcome = Literal["worse", "better", "cannot be told"]
OUTCOMES: tuple[Outcome, ...] = ("worse", "better", "cannot be told")


@dataclass(frozen=True)
class Finding:
    """A claim, and the measured difference that must lie below or above `level` for it.

    `what` was measured of `model` and of `other`, an earlier stage or something that needs no
    training; `values` are the two numbers, the other's first.
    """

    claim: str
    measured: Estimate
    unit: str
    wanted: Better
    level: float = 0.0
    what: str = ""
    model: str = ""
    other: str = ""
    values: tuple[float, float] | None = None
    share: bool = False
    stages: bool = False

    @property
    def verdict(self) -> Verdict:
        """Whether the claim holds, its contrary does, or the interval allows both.

        Of a handful of groups nothing can be told, however much they agree.
        """
        lower, higher = self.measured.high < self.level, self.measured.low > self.level
        if (lower or higher) and self.measured.groups >= FEWEST_GROUPS:
            return "yes" if lower == (self.wanted == "below") else "no"
        return "cannot be told"

    @property
    def outcome(self) -> Outcome:
        """Whether the model is worse or better than what it is compared with."""
        return {"yes": "better", "no": "worse"}.get(self.verdict, "cannot be told")  # type: ignore[return-value]

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "claim": self.claim,
            "verdict": self.verdict,
            "outcome": self.outcome,
            "wanted": self.wanted,
            "level": self.level,
            "unit": self.unit,
            "what": self.what,
            "model": self.model,
            "other": self.other,
            "between_stages": self.stages,
            **self.measured.to_json(),
        }
        return found if self.values is None else found | {"values": list(self.values)}


def findings(models: Sequence[Evaluated]) -> list[Finding]:
    """Every comparison that can be made: between stages, and with what needs no training."""
    found = [*_between_stages(models)]
    for model in models:
        last = model is models[-1]
        if model.stage == "pretrain" or last:
            found += _against_counting(model)
        found += _against_chance(model, models)
        if model.stage == "dpo" or last:
            found += _preferences(model, models)
        found += _in_the_world(model, models)
    return found


def by_outcome(found: Sequence[Finding]) -> dict[Outcome, list[Finding]]:
    """What got worse first, then what got better, then what cannot be told."""
    return {outcome: [one for one in found if one.outcome == outcome] for outcome in OUTCOMES}


def _between_stages(models: Sequence[Evaluated]) -> Iterator[Finding]:
    for measure in MEASURES:
        tells, parts = informative(measure, models), parts_of(measure, models)
        for after, before in stages_compared(models):
            changes = measure.change(after, before)
            own, others = measure.of(after), measure.of(before)
            for part, change in changes.items():
                if not tells(part):
                    continue
                where = part_name(part, parts)
                yield Finding(
                    f"{after.name} {measure.claim} {before.name}{_comma(where)}",
                    change,
                    measure.unit,
                    measure.better,
                    what=measure.label(part, parts),
                    model=after.name,
                    other=before.name,
                    values=(others[part].estimate, own[part].estimate),
                    share=measure.share,
                    stages=True,
                )


def _against_counting(model: Evaluated) -> Iterator[Finding]:
    own = model.bits.measured()
    for order, counted in sorted(model.material.ngrams.items()):
        theirs, changes = counted.bits.measured(), pooled(model.bits.minus(counted.bits))
        for part, change in changes.items():
            where = part_name(part, list(changes))
            yield Finding(
                f"{model.name} predicts held-out text better than {order}-gram counting"
                f"{_comma(where)}",
                change,
                "bits per byte",
                "below",
                what=measure_named(TEXT).label(part, list(changes)),
                model=model.name,
                other=counting(order),
                values=(theirs[part].estimate, own[part].estimate),
            )


def _against_chance(model: Evaluated, models: Sequence[Evaluated]) -> Iterator[Finding]:
    measure = measure_named(CHOICE)
    tells, own = informative(measure, models), measure.of(model)
    for part, accuracy in own.items():
        if tells(part) and accuracy.chance is not None:
            yield Finding(
                f"{model.name} chooses the right answer more often than chance"
                f"{_comma(part_name(part, list(own)))}",
                accuracy,
                "share right",
                "above",
                accuracy.chance,
                what=measure.label(part, list(own)),
                model=model.name,
                other=CHANCE,
                values=(accuracy.chance, accuracy.estimate),
                share=True,
            )


def _preferences(model: Evaluated, models: Sequence[Evaluated]) -> Iterator[Finding]:
    """Both preferences, its own log-probability and the reward it was trained by, and baselines.

    Its own against its reference's is a comparison between stages and stands with those.
    """
    if model.margins is None:
        return
    pairs, length = model.material.pairs, length_margins(model.material.pairs)
    tells = informative(measure_named(PREFERS), models)
    ways = {"own log-probability": model.margins}
    baselines = {CHANCE: np.zeros(len(length)), f"'{LONGER}'": length}
    if model.reference_margins is not None:
        ways["implicit reward"] = model.margins - model.reference_margins
    for way, margins in ways.items():
        against = dict(baselines)
        if way == "implicit reward" and model.reference_margins is not None:
            against[f"{_parent(model)}'s log-probability"] = model.reference_margins
        own = pooled(preference_accuracy(margins, pairs))
        for other, theirs in against.items():
            # Chance is a number and no model: what is measured is the accuracy itself.
            level = 0.5 if other == CHANCE else 0.0
            change = own if level else preference_gain(margins, theirs, pairs)
            before = preference_accuracy(theirs, pairs)
            for part in filter(tells, own):
                where = part_name(part, list(own))
                yield Finding(
                    f"{model.name}'s {way} prefers better than {other}{_comma(where)}",
                    change[part],
                    "accuracy",
                    "above",
                    level,
                    what=f"preferences, by its {way}{f', {where}' if where else ''}",
                    model=model.name,
                    other=other,
                    values=(before[part].estimate, own[part].estimate),
                    share=True,
                )


def _parent(model: Evaluated) -> str:
    parent = None if model.history is None else model.history.parent
    return "its reference" if parent is None else parent.name


def _in_the_world(model: Evaluated, models: Sequence[Evaluated]) -> Iterator[Finding]:
    """That it knows and reads, instead of saying what is most often said."""
    if model.world is None or model.world.answers is None or model.material.world is None:
        return
    measure = measure_named(RIGHT)
    tells = informative(measure, models)
    baseline = majority_judged(model.material.world)
    said = model.world.answers
    own, theirs = said.accuracy(), baseline.accuracy()
    changes = judged_change(said, said.right(), baseline.right())
    for source, what in _ASKED.items():
        part = KIND_NAMES.get(source, source)
        if source in changes and tells(part):
            yield Finding(
                f"{model.name} answers questions {what} better than the commonest answer",
                changes[source],
                "share right",
                "above",
                what=measure.label(part, []),
                model=model.name,
                other=MAJORITY,
                values=(theirs[source].estimate, own[source].estimate),
                share=True,
            )


_ASKED = {
    POOLED: "of all kinds in the small world",
    "world-facts": "on facts",
    "world-reading": "on stories just told",
}
CHANCE = "chance"


def _comma(where: str) -> str:
    if not where:
        return ""
    return f", on {where}" if where == "real sources" else f", in the {where}"


def passing(
    models: Sequence[Evaluated], found: Sequence[Finding]
) -> Mapping[str, Mapping[int, dict[str, float] | None]]:
    """For each pre-training run and n-gram order, when the run came below counting for good.

    That is said only where the finding of the same name holds, and of the first evaluation from
    which on every one is below counting by more than that finding's interval is wide: both compare
    the very same kind of bytes, and so one cannot hold without the other.
    """
    when: dict[str, dict[int, dict[str, float] | None]] = {}
    for model in models:
        if model.history is None or model.stage != "pretrain":
            continue
        own = when.setdefault(model.name, {})
        for order, counted in sorted(model.material.ngrams.items()):
            test = against_counting(found, model.name, order)
            own[order] = None
            if test is not None and test.outcome == "better":
                margin = test.measured.high - test.measured.estimate
                own[order] = model.history.passed(counted.on_the_way - margin)
    return when


def against_counting(found: Sequence[Finding], model: str, order: int) -> Finding | None:
    """The test of a model's real text, or of all its text, against n-grams."""
    tests = [one for one in found if one.model == model and one.other == counting(order)]
    return tests[0] if tests else None
