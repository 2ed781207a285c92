"""The results in sentences, each with the interval that it rests on.

Every measure that two stages share is put to the same test, item by item, whatever the result: a
difference counts only if its whole interval lies on one side, in either direction. What got worse
comes first, then what got better, then what is undecided.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from groundup.evals.measure import Evaluated, informative, part_name, parts_of, pooled
from groundup.evals.preference import length_margins, preference_accuracy, preference_gain
from groundup.evals.stages.measures import (
    CHOICE,
    KIND_NAMES,
    LONGER,
    MAJORITY,
    MEASURES,
    PREFERS,
    RIGHT,
    TEXT,
    counting,
    implicit_reward,
    measure_named,
    preferences,
    reference,
    stages_compared,
    text,
    world_answers,
)
from groundup.evals.world.answers import majority_judged
from groundup.report.claim import Claim
from groundup.report.estimate import POOLED, with_spread


def claims(models: Sequence[Evaluated]) -> list[Claim]:
    """Every possible comparison: between stages, and with baselines that need no training."""
    found = [*_between_stages(models)]
    for model in models:
        last = model is models[-1]
        if not model.chats or last:
            found += _against_counting(model)
        found += _against_chance(model, models)
        if model.reads == "preferences" or last:
            found += _preferences(model, models)
        found += _in_the_world(model, models)
    return found


def _between_stages(models: Sequence[Evaluated]) -> Iterator[Claim]:
    for measure in MEASURES:
        tells, parts = informative(measure, models), parts_of(measure, models)
        for after, before in stages_compared(models):
            changes = measure.minus(after, before)
            own, others = measure.of(after), measure.of(before)
            for part, change in changes.items():
                if not tells(part):
                    continue
                where = part_name(part, parts)
                yield Claim(
                    f"{after.name} {measure.sentence} {before.name}{_where(where)}",
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


def _against_counting(model: Evaluated) -> Iterator[Claim]:
    own = model(text).measured()
    for order, counted in sorted(model.material.ngrams.items()):
        theirs, changes = counted.bits.measured(), pooled(model(text).minus(counted.bits))
        for part, change in changes.items():
            where = part_name(part, list(changes))
            yield Claim(
                f"{model.name} predicts held-out text better than {order}-gram counting"
                f"{_where(where)}",
                change,
                "bits per byte",
                "below",
                what=measure_named(TEXT).label(part, list(changes)),
                model=model.name,
                other=counting(order),
                values=(theirs[part].estimate, own[part].estimate),
            )


def _against_chance(model: Evaluated, models: Sequence[Evaluated]) -> Iterator[Claim]:
    measure = measure_named(CHOICE)
    tells, own = informative(measure, models), measure.of(model)
    for part, accuracy in own.items():
        if tells(part) and accuracy.chance is not None:
            yield Claim(
                f"{model.name} chooses the right answer more often than chance"
                f"{_where(part_name(part, list(own)))}",
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


def _preferences(model: Evaluated, models: Sequence[Evaluated]) -> Iterator[Claim]:
    """Preferences by own log-probability and by the trained reward, against baselines.

    Its own preference against its reference's is a comparison of stages and listed with those.
    """
    own_way, its_reference, implicit = model(preferences), model(reference), model(implicit_reward)
    if own_way is None:
        return
    pairs, length = model.material.pairs, length_margins(model.material.pairs)
    tells = informative(measure_named(PREFERS), models)
    ways = {"own log-probability": own_way.margins}
    baselines = {CHANCE: np.zeros(len(length)), f"'{LONGER}'": length}
    if implicit is not None:
        ways["implicit reward"] = implicit
    for way, margins in ways.items():
        against = dict(baselines)
        if way == "implicit reward" and its_reference is not None:
            against[f"{_parent(model)}'s log-probability"] = its_reference.margins
        own = pooled(preference_accuracy(margins, pairs))
        for other, theirs in against.items():
            # Chance is a constant: its claim is about the accuracy itself, not a difference.
            level = 0.5 if other == CHANCE else 0.0
            before = preference_accuracy(theirs, pairs)
            gain = preference_gain(margins, theirs, pairs)
            change = own if level else with_spread(gain, own, before)
            for part in filter(tells, own):
                where = part_name(part, list(own))
                yield Claim(
                    f"{model.name}'s {way} prefers better than {other}{_where(where)}",
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


def _in_the_world(model: Evaluated, models: Sequence[Evaluated]) -> Iterator[Claim]:
    """Whether it answers better than the most frequent answer of each kind of question."""
    said = model(world_answers)
    if said is None:
        return
    measure = measure_named(RIGHT)
    tells = informative(measure, models)
    baseline = majority_judged(model.material.world)
    own, theirs = said.accuracy(), baseline.accuracy()
    changes = with_spread(said.change(said.right() - baseline.right()), own, theirs)
    for source, what in _ASKED.items():
        part = KIND_NAMES.get(source, source)
        if source in changes and tells(part):
            yield Claim(
                f"{model.name} answers questions {what} better than the most frequent answer",
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


_SOURCES = {"real sources": ", on real sources", "small world": ", in the small world"}


def _where(where: str) -> str:
    if not where:
        return ""
    return _SOURCES.get(where, f" ({where})")


def passing(
    models: Sequence[Evaluated], found: Sequence[Claim]
) -> Mapping[str, Mapping[int, dict[str, float] | None]]:
    """For each pre-training run and n-gram order, when the run passed the n-grams for good.

    It is set only if the claim of the same name holds, to the first evaluation from which on every
    one is below the n-grams' number by more than half the claim's interval. Both compare the same
    kind of bytes, so that they cannot contradict each other.
    """
    when: dict[str, dict[int, dict[str, float] | None]] = {}
    for model in models:
        if model.history is None or model.chats:
            continue
        own = when.setdefault(model.name, {})
        for order, counted in sorted(model.material.ngrams.items()):
            test = against_counting(found, model.name, order)
            own[order] = None
            if test is not None and test.outcome == "better":
                margin = test.measured.high - test.measured.estimate
                own[order] = model.history.passed(counted.on_the_way - margin)
    return when


def against_counting(found: Sequence[Claim], model: str, order: int) -> Claim | None:
    """The claim about a model's real text, or about all its text, against n-grams."""
    tests = [one for one in found if one.model == model and one.other == counting(order)]
    return tests[0] if tests else None
