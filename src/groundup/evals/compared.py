"""What two models are compared by: one row a measure, item by item, in both directions alike.

A row says how a model's number is made and how the difference of two models is measured on the very
same items. The report's first table, its list of what got worse and better, and the summary at the
terminal are all made of these rows: a new measure is one more row here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float

from groundup.evals.preference import length_margins, preference_accuracy, preference_gain
from groundup.evals.run import Evaluated
from groundup.evals.world.aims import AIMS
from groundup.evals.world.answers import PARTS, Judged, majority_judged
from groundup.report.estimate import POOLED, WORLD, BySource, Estimate, ratio

Better = Literal["below", "above"]
# With fewer groups that all agree, chance alone does so too often: 2 * 2^-5 is more than 5 %.
FEWEST_GROUPS = 6
TEXT, CHOICE, PREFERS = (
    "held-out text",
    "multiple choice",
    "preferences, by its own log-probability",
)
RIGHT, STOPS = "right answers in the small world", "answers that it ends by itself"
DECLINED = "{} requests declined"
LONGER, MAJORITY = "the longer answer", "always the commonest answer"


@dataclass(frozen=True)
class Measure:
    """One thing that is measured of every model, and of two models on the same items.

    `of` gives a model's own numbers and `change` what `after` has more than `before`, both by
    parts: `pooled` and `world pooled`, or whatever a measure is told apart by; a part that was not
    measured is absent. `claim` is the sentence that a change for the better would prove, and
    `beside` has what needs no training, by its name and by the same parts.
    """

    name: str
    claim: str
    unit: str
    better: Better
    of: Callable[[Evaluated], BySource]
    change: Callable[[Evaluated, Evaluated], BySource]
    share: bool = True
    in_one_look: bool = False
    beside: Callable[[Evaluated], Mapping[str, BySource]] = lambda model: {}

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


def says_nothing(found: Sequence[Estimate]) -> bool:
    """Whether a share tells nothing: 0 for every model, or 1 for every one of several."""
    shares = {one.estimate for one in found}
    return shares == {0.0} or (shares == {1.0} and len(found) > 1)


def informative(measure: Measure, models: Sequence[Evaluated]) -> Callable[[str], bool]:
    """Which of a measure's parts tell the models, or anything, apart."""
    found = [measure.of(model) for model in models]

    def tells(part: str) -> bool:
        of_part = [one[part] for one in found if part in one]
        return bool(of_part) and not (measure.share and says_nothing(of_part))

    return tells


def parts_of(measure: Measure, models: Sequence[Evaluated]) -> list[str]:
    """The parts that any of the models was measured by, so that all are labelled alike."""
    return list(dict.fromkeys(part for model in models for part in measure.of(model)))


def stages_compared(models: Sequence[Evaluated]) -> Iterator[tuple[Evaluated, Evaluated]]:
    """Every model with the one that it was trained from, where both were measured alike."""
    by_folder = {model.folder.resolve(): model for model in models}
    for model in models:
        if model.history is not None and model.history.parent is not None:
            before = by_folder.get(model.history.parent.resolve())
            if before is not None and before.material is model.material:
                yield model, before


# How numbers are made, and how they are compared.


def _bits(model: Evaluated) -> BySource:
    return pooled(model.bits.measured())


def _more_bits(after: Evaluated, before: Evaluated) -> BySource:
    return pooled(after.bits.minus(before.bits))


def _counting(model: Evaluated) -> Mapping[str, BySource]:
    return {
        counting(order): pooled(counted.bits.measured())
        for order, counted in sorted(model.material.ngrams.items())
    }


def counting(order: int) -> str:
    """What the baseline of n-grams is called."""
    return f"{order}-gram counting"


def _loss(model: Evaluated) -> BySource:
    return {} if model.loss is None else pooled(model.loss.per_token())


def _more_loss(after: Evaluated, before: Evaluated) -> BySource:
    if after.loss is None or before.loss is None:
        return {}
    return pooled(after.loss.minus(before.loss))


def _choice(way: str) -> tuple[Callable[[Evaluated], BySource], _Change]:
    def of(model: Evaluated) -> BySource:
        if model.choice is None:
            return {}
        found = {
            "mean": model.choice.by_mean,
            "sum": model.choice.by_sum,
            "brier": {name: one.brier for name, one in model.choice.calibration.items()},
        }
        return pooled(found[way])

    def change(after: Evaluated, before: Evaluated) -> BySource:
        if after.choice is None or before.choice is None:
            return {}
        return pooled(after.choice.minus(before.choice, way))

    return of, change


def _preference(model: Evaluated) -> BySource:
    if model.margins is None:
        return {}
    return pooled(preference_accuracy(model.margins, model.material.pairs))


def _longer(model: Evaluated) -> Mapping[str, BySource]:
    pairs = model.material.pairs
    if not pairs.rows:
        return {}
    return {LONGER: pooled(preference_accuracy(length_margins(pairs), pairs))}


def _more_preference(after: Evaluated, before: Evaluated) -> BySource:
    if after.margins is None or before.margins is None:
        return {}
    return pooled(preference_gain(after.margins, before.margins, after.material.pairs))


def _declined(kind: str) -> tuple[Callable[[Evaluated], BySource], _Change]:
    """By people's prompts and by the small world's; both were answered one by one."""

    def of(model: Evaluated) -> BySource:
        real = {POOLED: model.refused[kind].rate()} if kind in model.refused else {}
        if model.world is None or kind not in model.world.declined:
            return real
        return real | {WORLD: model.world.declined[kind].rate()}

    def change(after: Evaluated, before: Evaluated) -> BySource:
        found = {}
        if kind in after.refused and kind in before.refused:
            found[POOLED] = after.refused[kind].above(before.refused[kind])
        if after.world is None or before.world is None:
            return found
        one, other = after.world.declined, before.world.declined
        if kind in one and kind in other:
            found[WORLD] = one[kind].above(other[kind])
        return found

    return of, change


def _stops(model: Evaluated) -> BySource:
    return {} if model.stops is None else {POOLED: model.stops}


def _more_stops(after: Evaluated, before: Evaluated) -> BySource:
    if after.stopped is None or before.stopped is None:
        return {}
    return {POOLED: ratio(after.stopped.astype(float) - before.stopped.astype(float))}


def _answers(model: Evaluated) -> Judged | None:
    return None if model.world is None else model.world.answers


def _right(model: Evaluated) -> BySource:
    said = _answers(model)
    if said is None:
        return {}
    return {KIND_NAMES.get(part, part): one for part, one in said.accuracy().items()}


def _commonest(model: Evaluated) -> Mapping[str, BySource]:
    world = model.material.world
    if world is None or not world.rows:
        return {}
    return {MAJORITY: {POOLED: majority_judged(world).accuracy()[POOLED]}}


def _more_right(after: Evaluated, before: Evaluated) -> BySource:
    one, other = _answers(after), _answers(before)
    if one is None or other is None:
        return {}
    found = judged_change(one, one.right(), other.right())
    return {KIND_NAMES.get(part, part): change for part, change in found.items()}


def _reward(name: str) -> tuple[Callable[[Evaluated], BySource], _Change]:
    def of(model: Evaluated) -> BySource:
        said = _answers(model)
        return {} if said is None else {p: m for p, m in said.reward(name).items() if p == POOLED}

    def change(after: Evaluated, before: Evaluated) -> BySource:
        one, other = _answers(after), _answers(before)
        if one is None or other is None:
            return {}
        found = judged_change(one, _rewards(one, name), _rewards(other, name))
        return {part: change for part, change in found.items() if part == POOLED}

    return of, change


def _rewards(said: Judged, name: str) -> Float[np.ndarray, " items"]:
    values = [getattr(reward, name) for reward in said.rewards]
    return np.array([np.nan if value is None else value for value in values], float)


def judged_change(
    said: Judged, after: Float[np.ndarray, " items"], before: Float[np.ndarray, " items"]
) -> BySource:
    """How much more the answers get, pooled and by source, of those that both were judged on."""
    difference, found = after - before, {}
    for part in (POOLED, *sorted({row.source for row in said.rows})):
        at = [
            i
            for i, row in enumerate(said.rows)
            if part in (POOLED, row.source) and not np.isnan(difference[i])
        ]
        if at:
            found[part] = ratio(difference[at], groups=[said.rows[i].group for i in at])
    return found


def _stories(way: str, what: str) -> tuple[Callable[[Evaluated], BySource], _Change]:
    def of(model: Evaluated) -> BySource:
        stories = None if model.world is None else getattr(model.world, way)
        return {} if stories is None else {POOLED: getattr(stories, what)}

    def change(after: Evaluated, before: Evaluated) -> BySource:
        one = None if after.world is None else getattr(after.world, way)
        other = None if before.world is None else getattr(before.world, way)
        return {} if one is None or other is None else {POOLED: one.minus(other)[what]}

    return of, change


def _leaning(model: Evaluated) -> BySource:
    if model.leanings is None:
        return {}
    return {name: _size(gap) for name, gap in model.leanings.gaps().items()}


def _more_leaning(after: Evaluated, before: Evaluated) -> BySource:
    if after.leanings is None or before.leanings is None:
        return {}
    return after.leanings.further(before.leanings)


def _size(gap: Estimate) -> Estimate:
    """How far a gap is from fair, whichever way."""
    if gap.estimate >= 0:
        return gap
    return replace(gap, estimate=-gap.estimate, low=-gap.high, high=-gap.low)


_Change = Callable[[Evaluated, Evaluated], BySource]
# The small world's kinds of questions, in the words of the table of aims.
KIND_NAMES = {aim.at[1]: aim.what for aim in AIMS if aim.at[0] == "accuracy"}
_WANTED: Mapping[str, Better] = {"harmful": "above", "benign": "below"}
_STORIES = {
    ("continued", "sentences"): "stories gone on with: sentences of the world’s grammar",
    ("continued", "consistent"): "stories gone on with: all agrees",
    ("told", "sentences"): "stories asked for: sentences of the world’s grammar",
    ("told", "consistent"): "stories asked for: all agrees",
}
_REWARDS = {
    "total": "gold reward",
    "correct": "gold reward for being correct",
    "instruction": "gold reward for keeping the instruction",
    "kindness": "gold reward for kindness",
    "harmless": "gold reward for harmlessness",
}
assert tuple(_REWARDS) == PARTS

MEASURES: tuple[Measure, ...] = (
    Measure(
        TEXT,
        "predicts held-out text better than",
        "bits per byte",
        "below",
        _bits,
        _more_bits,
        share=False,
        in_one_look=True,
        beside=_counting,
    ),
    Measure(
        "the assistant’s answers",
        "predicts the assistant's answers better than",
        "nats per token",
        "below",
        _loss,
        _more_loss,
        share=False,
        in_one_look=True,
    ),
    Measure(
        CHOICE,
        "chooses the right answer more often than",
        "share right",
        "above",
        *_choice("mean"),
        in_one_look=True,
    ),
    Measure(
        "multiple choice by the sum of log-probabilities",
        "chooses the right answer by sum more often than",
        "share right",
        "above",
        *_choice("sum"),
    ),
    Measure(
        "honesty about its choices (Brier score)",
        "knows better than how sure to be (Brier score) beside",
        "Brier score",
        "below",
        *_choice("brier"),
        share=False,
    ),
    Measure(
        PREFERS,
        "finds the better of two answers likelier more often than",
        "share of pairs",
        "above",
        _preference,
        _more_preference,
        in_one_look=True,
        beside=_longer,
    ),
    Measure(
        RIGHT,
        "answers the small world's questions right more often than",
        "share right",
        "above",
        _right,
        _more_right,
        in_one_look=True,
        beside=_commonest,
    ),
    *(
        Measure(
            DECLINED.format(kind),
            f"declines {'more' if better == 'above' else 'fewer'} {kind} requests than",
            "share declined",
            better,
            *_declined(kind),
            in_one_look=True,
        )
        for kind, better in _WANTED.items()
    ),
    Measure(
        STOPS,
        "ends more of its answers by itself than",
        "share of answers",
        "above",
        _stops,
        _more_stops,
        in_one_look=True,
    ),
    *(
        Measure(name, f"does better than ({name}) beside", "share", "above", *_stories(*at))
        for at, name in _STORIES.items()
    ),
    *(
        Measure(name, f"has a higher {name} than", "reward", "above", *_reward(part), share=False)
        for part, name in _REWARDS.items()
    ),
    Measure(
        "leaning by prejudice",
        "leans less than",
        "gap",
        "below",
        _leaning,
        _more_leaning,
        share=False,
    ),
)


def measure_named(name: str) -> Measure:
    """The row of that name."""
    return next(measure for measure in MEASURES if measure.name == name)
