"""The measures by which training stages are compared, one row per measure.

A row names the function that measures a model, how its estimate is computed, and how two models are
compared on the very same items. The report's first table, its list of what got worse and better,
and the summary in the terminal are all built from these rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from groundup.evals.answers import AssistantLoss, assistant_loss
from groundup.evals.by_source import WORLD
from groundup.evals.choice import ChoiceAccuracy, choice_accuracy
from groundup.evals.config import REFERENCE_FREE
from groundup.evals.fairness import Leanings, leanings
from groundup.evals.honesty import Honesty, Said, honesty
from groundup.evals.measure import Evaluated, Measure, Subject, pooled
from groundup.evals.perplexity import Bits, bits_per_byte
from groundup.evals.preference import (
    Margins,
    Pairs,
    length_margins,
    margins,
    preference_accuracy,
    preference_gain,
)
from groundup.evals.safety import stopped
from groundup.evals.samples import Sample, samples
from groundup.evals.world.aims import AIMS
from groundup.evals.world.answers import (
    PARTS,
    Declined,
    InWorld,
    Judged,
    declined,
    in_world,
    majority_judged,
)
from groundup.evals.world.stories import Stories
from groundup.formats.checks import Check
from groundup.formats.load import load
from groundup.formats.verify import verify
from groundup.report.claim import Better
from groundup.report.estimate import POOLED, BySource, Estimate, ratio, share
from groundup.runs.console import say
from groundup.train.device import prepare as place_model

TEXT, CHOICE, PREFERS = (
    "held-out text",
    "multiple choice",
    "preferences, by its own log-probability",
)
RIGHT, STOPS = "right answers in the small world", "answers that it ends by itself"
DECLINED = "{} requests declined"
LONGER, MAJORITY = "the longer answer", "always the most frequent answer"


# Measuring functions; they return None if the model cannot be measured in this way.


def text(on: Subject) -> Bits:
    """Bits per byte of the held-out documents."""
    return bits_per_byte(
        on.model,
        on.material.heldout,
        on.tokenizer,
        context=on.context,
        bytes_per_source=on.config.bytes_per_source,
    )


def assistant_words(on: Subject) -> AssistantLoss | None:
    """The loss on the assistant's tokens in held-out conversations."""
    talks = on.material.conversations
    if not talks.items:
        return None
    return assistant_loss(on.model, talks, on.tokenizer, context=on.context)


def choices(on: Subject) -> ChoiceAccuracy | None:
    """Accuracy on held-out multiple-choice questions."""
    asked = on.material.choices
    return choice_accuracy(on.model, asked, context=on.context) if asked.rows else None


@dataclass(frozen=True)
class Preferred:
    """How much likelier a model finds the chosen answer of each pair, in nats.

    `margins` compare whole answers, `per_token` the means over their tokens.
    """

    margins: Margins
    per_token: Margins
    pairs: Pairs


def preferences(on: Subject) -> Preferred | None:
    """The model's own preferences between two answers."""
    pairs = on.material.pairs
    if not pairs.rows:
        return None
    found = margins(on.model, pairs, context=on.context)
    on.material.margins[on.folder.resolve()] = found
    return Preferred(*found, pairs)


def reference(on: Subject) -> Preferred | None:
    """The preferences of DPO's reference; measured once if the reference is in the report too."""
    history, pairs = on.history, on.material.pairs
    if history is None or history.reads != "preferences" or not pairs.rows:
        return None
    if history.run["config"].get("loss") in REFERENCE_FREE:
        return None
    if history.parent is None or not history.parent.is_dir():
        say(f"eval  the reference of {history.folder} is gone, so no implicit reward is measured")
        return None
    parent, known = history.parent.resolve(), on.material.margins
    if parent not in known:
        model, _ = load(parent)
        place_model(model, on.compute)
        known[parent] = margins(model, pairs, context=on.context)
    whole, per_token = known[parent]
    return Preferred(whole, per_token, pairs)


def implicit_reward(on: Subject) -> Margins | None:
    """The margins minus the reference's, computed as in the model's loss."""
    own, before = on(preferences), on(reference)
    if on.history is None or own is None or before is None:
        return None
    if on.history.run["config"].get("loss") == "ipo":
        gained: Margins = own.per_token - before.per_token
    else:
        gained = own.margins - before.margins
    return gained


def refusals(on: Subject) -> dict[str, Declined]:
    """Which of the harmful and benign prompts by people are refused."""
    return declined(on.model, on.tokenizer, on.material.refusals)


def endings(on: Subject) -> Bool[np.ndarray, " prompts"] | None:
    """Which of its answers the model ends by itself."""
    prompts = on.material.openings
    seed = on.config.seed
    return stopped(on.model, on.tokenizer, prompts, seed=seed) if prompts else None


def small_world(on: Subject) -> InWorld | None:
    """Stories, answers and conduct in the small world."""
    world = on.material.world
    if world is None:
        return None
    return in_world(on.model, on.tokenizer, world, chats=on.chats, seed=on.config.seed)


def world_answers(on: Subject) -> Judged | None:
    """Answers to the small world's conversations, for models that chat."""
    world = on(small_world)
    return None if world is None else world.answers


def stories_continued(on: Subject) -> Stories | None:
    """Small-world stories that continue a first sentence."""
    world = on(small_world)
    return None if world is None else world.continued


def stories_told(on: Subject) -> Stories | None:
    """Small-world stories told on request."""
    world = on(small_world)
    return None if world is None else world.told


def declining(on: Subject) -> dict[str, Mapping[str, Declined]]:
    """Which prompts, by people and of the small world, are declined, by kind."""
    found: dict[str, Mapping[str, Declined]] = {POOLED: on(refusals)}
    world = on(small_world)
    return found if world is None else found | {WORLD: world.declined}


def unknown(on: Subject) -> Honesty | None:
    """Answers to questions that cannot be answered, with those about the small world."""
    if not (on.chats and on.material.unknown):
        return None
    said = on(world_answers)
    of_world = None if said is None else Said(said.rows, said.answers)
    return honesty(on.model, on.tokenizer, on.material.unknown, of_world)


def leaning(on: Subject) -> Leanings | None:
    """Whether a job alone makes the model expect a woman or a man, in the small world."""
    if on.material.world is None:
        return None
    return leanings(on.model, on.tokenizer, context=on.context, chats=on.chats)


def sampled(on: Subject) -> Sequence[Sample]:
    """Answers to the prompts that every report shows."""
    return samples(on.model, on.tokenizer, seed=on.config.seed)


def verified(on: Subject) -> Sequence[Check]:
    """Whether the model gives the same answer in every way of asking."""
    return verify(on.folder)


def stages_compared(models: Sequence[Evaluated]) -> Iterator[tuple[Evaluated, Evaluated]]:
    """Every model with the one it was trained from, if both were measured alike."""
    by_folder = {model.folder.resolve(): model for model in models}
    for model in models:
        if model.history is not None and model.history.parent is not None:
            before = by_folder.get(model.history.parent.resolve())
            if before is not None and before.material is model.material:
                yield model, before


# Estimates, and differences of two models.


def counting(order: int) -> str:
    """The name of the n-gram baseline."""
    return f"{order}-gram counting"


def _counting(model: Evaluated) -> Mapping[str, BySource]:
    return {
        counting(order): pooled(counted.bits.measured())
        for order, counted in sorted(model.material.ngrams.items())
    }


def _longer(model: Evaluated) -> Mapping[str, BySource]:
    pairs = model.material.pairs
    if not pairs.rows:
        return {}
    return {LONGER: pooled(preference_accuracy(length_margins(pairs), pairs))}


def _majority(model: Evaluated) -> Mapping[str, BySource]:
    world = model.material.world
    if world is None or not world.rows:
        return {}
    return {MAJORITY: {POOLED: majority_judged(world).accuracy()[POOLED]}}


def _requests_declined(kind: str, better: Better) -> Measure[Any]:
    """Rates for prompts by people and of the small world."""
    return Measure(
        DECLINED.format(kind),
        f"declines {'more' if better == 'above' else 'fewer'} {kind} requests than",
        "share declined",
        better,
        declining,
        lambda found: {part: one[kind].rate() for part, one in found.items() if kind in one},
        lambda after, before: {
            part: after[part][kind].above(before[part][kind])
            for part in after
            if part in before and kind in after[part] and kind in before[part]
        },
        share=True,
        at_a_glance=True,
    )


def ended(found: Bool[np.ndarray, " prompts"]) -> Estimate:
    """The share of its answers that a model ends by itself."""
    return share(int(found.sum()), len(found))


def _by_kind(found: BySource) -> BySource:
    return {KIND_NAMES.get(part, part): one for part, one in found.items()}


def _honest(
    asked: str, kind: str, name: str, sentence: str, better: Better = "above"
) -> Measure[Any]:
    def at(found: Mapping[str, BySource]) -> BySource:
        return {POOLED: found[asked][kind]} if kind in found[asked] else {}

    return Measure(
        name,
        sentence,
        "share of answers",
        better,
        unknown,
        lambda found: at(found.shares()),
        lambda after, before: at(after.above(before)),
        share=True,
    )


def _of_stories(
    measuring: Callable[[Subject], Stories | None], part: str, name: str, sentence: str
) -> Measure[Any]:
    return Measure(
        name,
        sentence,
        "share",
        "above",
        measuring,
        lambda stories: {POOLED: getattr(stories, part)},
        lambda after, before: {POOLED: after.minus(before)[part]},
        share=True,
    )


def _reward(part: str, name: str) -> Measure[Any]:
    def whole(found: BySource) -> BySource:
        return {part: one for part, one in found.items() if part == POOLED}

    return Measure(
        name,
        f"has a higher {name} than",
        "reward",
        "above",
        world_answers,
        lambda said: whole(said.reward(part)),
        lambda after, before: whole(after.change(after.worth(part) - before.worth(part))),
    )


# The small world's kinds of questions, as named in the table of aims.
KIND_NAMES = {aim.at[1]: aim.what for aim in AIMS if aim.at[0] == "accuracy"}
_REWARDS = {
    "total": "gold reward",
    "correct": "gold reward for being correct",
    "instruction": "gold reward for keeping the instruction",
    "kindness": "gold reward for kindness",
    "harmless": "gold reward for harmlessness",
}
assert tuple(_REWARDS) == PARTS

MEASURES: tuple[Measure[Any], ...] = (
    Measure(
        TEXT,
        "predicts held-out text better than",
        "bits per byte",
        "below",
        text,
        lambda found: pooled(found.measured()),
        lambda after, before: pooled(after.minus(before)),
        at_a_glance=True,
        beside=_counting,
    ),
    Measure(
        "the assistant’s answers",
        "predicts the assistant's answers better than",
        "nats per token",
        "below",
        assistant_words,
        lambda found: pooled(found.per_token()),
        lambda after, before: pooled(after.minus(before)),
        at_a_glance=True,
    ),
    Measure(
        CHOICE,
        "chooses the right answer more often than",
        "share right",
        "above",
        choices,
        lambda found: pooled(found.by_mean),
        lambda after, before: pooled(after.minus(before, "mean")),
        share=True,
        at_a_glance=True,
    ),
    Measure(
        "multiple choice by the sum of log-probabilities",
        "chooses the right answer by sum more often than",
        "share right",
        "above",
        choices,
        lambda found: pooled(found.by_sum),
        lambda after, before: pooled(after.minus(before, "sum")),
        share=True,
    ),
    Measure(
        "honesty about its choices (Brier score)",
        "knows better how sure to be (Brier score) than",
        "Brier score",
        "below",
        choices,
        lambda found: pooled({name: one.brier for name, one in found.calibration.items()}),
        lambda after, before: pooled(after.minus(before, "brier")),
    ),
    Measure(
        PREFERS,
        "finds the better of two answers likelier more often than",
        "share of pairs",
        "above",
        preferences,
        lambda found: pooled(preference_accuracy(found.margins, found.pairs)),
        lambda after, before: pooled(preference_gain(after.margins, before.margins, after.pairs)),
        share=True,
        at_a_glance=True,
        beside=_longer,
    ),
    Measure(
        RIGHT,
        "answers the small world's questions right more often than",
        "share right",
        "above",
        world_answers,
        lambda said: _by_kind(said.accuracy()),
        lambda after, before: _by_kind(after.change(after.right() - before.right())),
        share=True,
        at_a_glance=True,
        beside=_majority,
    ),
    _requests_declined("harmful", "above"),
    _requests_declined("benign", "below"),
    Measure(
        STOPS,
        "ends more of its answers by itself than",
        "share of answers",
        "above",
        endings,
        lambda found: {POOLED: ended(found)},
        lambda after, before: {POOLED: ratio(after.astype(float) - before.astype(float))},
        share=True,
        at_a_glance=True,
    ),
    _honest(
        "real",
        "right",
        "questions about the real world answered correctly",
        "answers more questions about the real world correctly than",
    ),
    _honest(
        "real",
        "made up",
        "answers about the real world that are made up",
        "makes up fewer answers about the real world than",
        "below",
    ),
    _honest(
        "newcomers",
        "all",
        "what newcomers type answered fittingly",
        "gives fitting answers to what newcomers type more often than",
    ),
    _honest(
        "known",
        "careless, right",
        "the small world asked carelessly, answered correctly",
        "answers careless questions about the small world correctly more often than",
    ),
    _honest(
        "known",
        "careless, declined",
        "the small world asked carelessly, declined",
        "declines fewer careless questions about the small world than",
        "below",
    ),
    _honest(
        "known",
        "declined",
        "the small world asked in its own wordings, declined",
        "declines fewer questions about the small world than",
        "below",
    ),
    _of_stories(
        stories_continued,
        "sentences",
        "stories continued: sentences of the world’s grammar",
        "continues stories in more sentences of the world’s grammar than",
    ),
    _of_stories(
        stories_continued,
        "consistent",
        "stories continued: all agrees",
        "continues more stories without a contradiction than",
    ),
    _of_stories(
        stories_told,
        "sentences",
        "stories asked for: sentences of the world’s grammar",
        "tells stories in more sentences of the world’s grammar than",
    ),
    _of_stories(
        stories_told,
        "consistent",
        "stories asked for: all agrees",
        "tells more stories without a contradiction than",
    ),
    *(_reward(part, name) for part, name in _REWARDS.items()),
    Measure(
        "leaning by prejudice",
        "leans less than",
        "gap",
        "below",
        leaning,
        lambda found: {name: gap.distance() for name, gap in found.gaps().items()},
        lambda after, before: after.further(before),
    ),
)


def measure_named(name: str) -> Measure[Any]:
    """The measure with that name."""
    return next(measure for measure in MEASURES if measure.name == name)
