"""The opening of a report: the same prompts answered by every model, and five numbers.

The page and the terminal show the same. A model's answers are untrusted text: the page escapes
them, and the terminal shows printable characters only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len

from groundup.evals.by_source import WORLD
from groundup.evals.measure import Evaluated, Measure, informative, parts_of
from groundup.evals.samples import FIRST, OF_WORLD, Sample
from groundup.evals.stages.claims import CHANCE
from groundup.evals.stages.measures import (
    CHOICE,
    DECLINED,
    MAJORITY,
    PREFERS,
    RIGHT,
    STOPS,
    TEXT,
    measure_named,
    sampled,
)
from groundup.report.claim import Claim, by_outcome
from groundup.report.estimate import POOLED, Estimate
from groundup.report.page import Answer, Dialogue, Headline
from groundup.report.terminal import one_line
from groundup.text.cleaning import word_spans

# Longer answers are folded behind their beginning, and so are answers with obvious defects.
_LONG = 360
# A text repeats itself if fewer than half of its sequences of three words are distinct.
_DISTINCT, _MIN_WORDS = 0.5, 12
_ONE_LETTER = re.compile(r"([^\s])\1{11}")
_HEADLINES = 5
Prompt = tuple[str, ...]


def dialogues(models: Sequence[Evaluated], *, drawn: bool = True) -> dict[Prompt, Dialogue]:
    """Every prompt with the answers of all models."""
    found = {}
    for number, sample in enumerate(models[0](sampled)):
        given = [(m, m(sampled)[number]) for m in models if number < len(m(sampled))]
        who = ("you", "assistant") if sample.chat else ("text to continue",)
        turns = [(who[place % len(who)], turn) for place, turn in enumerate(sample.prompt)]
        answers = [_answer(model, one, drawn=drawn) for model, one in given]
        found[sample.prompt] = Dialogue(turns, answers)
    return found


def first(prompts: Mapping[Prompt, Dialogue], *, with_world: bool) -> list[Dialogue]:
    """The prompts of the opening, the same ones whatever was answered."""
    wanted = [prompt for prompt in FIRST if with_world or prompt not in OF_WORLD]
    return [prompts[prompt] for prompt in wanted if prompt in prompts]


def _answer(model: Evaluated, sample: Sample, *, drawn: bool) -> Answer:
    def shown(text: str, other: Answer | None) -> Answer:
        text = text.strip() or "(nothing)"
        return Answer(model.name, text, why_folded(text, sample.chat, model.chats), other)

    return shown(sample.greedy, shown(sample.sampled, None) if drawn else None)


def why_folded(text: str, chat: bool, chats: bool) -> str | None:
    """Why an answer is folded, in a few words; None if it is not."""
    if repeats(text):
        return "repeats itself"
    if chat and not chats:
        return "babble: never taught to answer"
    if chat and text.endswith("…"):
        return "does not end"
    return "long" if len(text) > _LONG else None


def repeats(text: str) -> bool:
    """Whether fewer than half of the three-word sequences are distinct, or one letter repeats."""
    if _ONE_LETTER.search(text):
        return True
    words = [text[start:end] for start, end in word_spans(text)]
    if len(words) < _MIN_WORDS:
        return False
    runs = Counter(zip(words, words[1:], words[2:], strict=False))
    return len(runs) < _DISTINCT * runs.total()


# Numbers.


def headlines(models: Sequence[Evaluated], found: Sequence[Claim]) -> list[Headline]:
    """The first five of these measures that are informative for the last model."""
    shown = []
    for name in (
        TEXT,
        RIGHT,
        DECLINED.format("harmful"),
        DECLINED.format("benign"),
        CHOICE,
        PREFERS,
        STOPS,
    ):
        measure = measure_named(name)
        own, tells = measure.of(models[-1]), informative(measure, models)
        # Human text comes first; the small world's number is used for what only it measures.
        part = next((part for part in (POOLED, WORLD) if part in own and tells(part)), None)
        if part is not None:
            shown.append(_headline(measure, part, models, found))
    return shown[:_HEADLINES]


def _headline(
    measure: Measure[Any], part: str, models: Sequence[Evaluated], found: Sequence[Claim]
) -> Headline:
    last = models[-1]
    parts = parts_of(measure, models)
    test = _test(measure, measure.label(part, parts), last, found)
    course = [
        (model.name, in_words(one[part], measure.share))
        for model in models
        if part in (one := measure.of(model))
    ]
    return Headline(
        measure.label(part, parts),
        in_words(measure.of(last)[part], measure.share),
        "" if measure.share else measure.unit,
        "" if test is None else word(test),
        "not significant" if test is None else test.outcome,
        course,
    )


def _test(
    measure: Measure[Any], label: str, last: Evaluated, found: Sequence[Claim]
) -> Claim | None:
    """The test of the last model against a baseline, or else against its parent."""
    own = [one for one in found if one.model == last.name and one.what == label]
    untrained = [one for one in own if not one.stages]
    wanted = {CHOICE: CHANCE, PREFERS: CHANCE, RIGHT: MAJORITY}.get(measure.name)
    fitting = [one for one in untrained if one.other == wanted] or untrained[-1:] or own
    return fitting[0] if fitting else None


def word(test: Claim) -> str:
    """A test's verdict in a few words."""
    if test.outcome == "not significant":
        return f"not significantly different from {test.other}"
    return f"{test.outcome} than {test.other}"


def in_words(found: Estimate, share: bool) -> str:
    return f"{100 * found.estimate:.1f} %" if share else f"{found.estimate:.3f}"


# The terminal.

_LINES = 8
_HEADINGS = {"worse": "worse", "better": "better", "not significant": "no significant difference"}


def in_terminal(
    prompts: Sequence[Dialogue], numbers: Sequence[Headline], found: Sequence[Claim]
) -> Iterator[str]:
    """The lines of the opening, in the order of the page."""
    for one in prompts:
        yield ""
        who = "you" if one.turns[0][0] == "you" else "text"
        yield f"{who}: {one_line(' / '.join(turn for _, turn in one.turns))}"
        width = max((cell_len(answer.who) for answer in one.answers), default=0)
        for answer in one.answers:
            words = answer.text if answer.folded is None else f"{answer.beginning}"
            about = f"  ({answer.folded})" if answer.folded else ""
            who = answer.who + " " * (width - cell_len(answer.who))
            yield f"  {who}  {one_line(words)}{about}"
    yield ""
    for number in numbers:
        unit = f" {number.unit}" if number.unit else ""
        yield f"{number.title}: {number.value}{unit}{f', {number.word}' if number.word else ''}"
    for outcome, some in by_outcome(found).items():
        if some:
            yield ""
            yield f"{_HEADINGS[outcome]} ({len(some)})"
        if outcome == "not significant":
            continue
        for test in some[:_LINES]:
            yield f"  {test.what}: {test.model} against {test.other}, {test.change}"
        if len(some) > _LINES:
            yield f"  and {len(some) - _LINES} more on the page"
