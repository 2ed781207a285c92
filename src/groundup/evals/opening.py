"""What a report opens with: the same prompts answered by every model, and five numbers.

The page and the terminal show the same. Whatever a model says is text of a stranger's: the page
escapes it, and at the terminal what is no printable letter is not shown.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from groundup.evals.compared import (
    CHOICE,
    DECLINED,
    MAJORITY,
    PREFERS,
    RIGHT,
    STOPS,
    TEXT,
    Measure,
    informative,
    measure_named,
    parts_of,
)
from groundup.evals.findings import CHANCE, Finding, Outcome, by_outcome
from groundup.evals.run import Evaluated
from groundup.evals.samples import FIRST, OF_WORLD, Sample
from groundup.report.estimate import POOLED, WORLD, Estimate

# An answer longer than this is folded behind its beginning, and so is one that goes wrong in a way
# that anybody can see.
_LONG, _BEGINNING = 360, 70
# Where fewer than half of the runs of three words are new, a text goes in circles.
_FRESH, _FEWEST_WORDS = 0.5, 12
_ONE_LETTER = re.compile(r"([^\s])\1{11}")
_HEADLINES = 5


@dataclass(frozen=True)
class Answer:
    """What one model says to a prompt; with a reason to fold it away behind its beginning."""

    model: str
    text: str
    folded: str | None

    @property
    def beginning(self) -> str:
        """The first words, for the line that unfolds."""
        if len(self.text) <= _BEGINNING:
            return self.text
        return self.text[:_BEGINNING].rsplit(" ", 1)[0] + " …"


@dataclass(frozen=True)
class Answered:
    """One prompt and the answers of all models to it."""

    prompt: Sequence[str]
    chat: bool
    answers: Sequence[Answer]
    drawn: Sequence[Answer]


def answered(models: Sequence[Evaluated]) -> list[Answered]:
    """Every prompt that the first model was given, with what each of the models made of it."""
    found = []
    for number, sample in enumerate(models[0].samples):
        given = [(m, m.samples[number]) for m in models if number < len(m.samples)]
        found.append(
            Answered(
                sample.prompt,
                sample.chat,
                [_answer(model, one, one.greedy) for model, one in given],
                [_answer(model, one, one.sampled) for model, one in given],
            )
        )
    return found


def first(prompts: Sequence[Answered], *, with_world: bool) -> list[Answered]:
    """The prompts that a report opens with, the same ones whatever was answered."""
    wanted = [prompt for prompt in FIRST if with_world or prompt not in OF_WORLD]
    by_prompt = {tuple(one.prompt): one for one in prompts}
    return [by_prompt[prompt] for prompt in wanted if prompt in by_prompt]


def _answer(model: Evaluated, sample: Sample, text: str) -> Answer:
    text = text.strip() or "(nothing)"
    return Answer(model.name, text, why_folded(text, sample.chat, model.chats))


def why_folded(text: str, chat: bool, chats: bool) -> str | None:
    """Why an answer is not worth the room it takes, in a word or two; None if it is."""
    if repeats(text):
        return "goes in circles"
    if chat and not chats:
        return "babble: never taught to answer"
    if chat and text.endswith("…"):
        return "does not come to an end"
    return "long" if len(text) > _LONG else None


def repeats(text: str) -> bool:
    """Whether fewer than half of the runs of three words are new, or one letter goes on and on."""
    if _ONE_LETTER.search(text):
        return True
    words = text.split()
    if len(words) < _FEWEST_WORDS:
        return False
    runs = Counter(zip(words, words[1:], words[2:], strict=False))
    return len(runs) < _FRESH * runs.total()


# Numbers.


@dataclass(frozen=True)
class Headline:
    """One number of the last model, a word on it that a test stands behind, and its course."""

    title: str
    value: str
    unit: str
    word: str
    outcome: Outcome
    course: Sequence[tuple[str, str]]

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "value": self.value,
            "unit": self.unit,
            "word": self.word,
            "outcome": self.outcome,
            "course": dict(self.course),
        }


def headlines(models: Sequence[Evaluated], found: Sequence[Finding]) -> list[Headline]:
    """The first five of these that tell something of the last model."""
    shown = []
    for name in (
        TEXT,
        RIGHT,
        DECLINED.format("harmful"),
        CHOICE,
        PREFERS,
        STOPS,
        DECLINED.format("benign"),
    ):
        measure = measure_named(name)
        own, tells = measure.of(models[-1]), informative(measure, models)
        # Of what people wrote first: the small world's own numbers stand for what only it has.
        order = (WORLD, POOLED) if name.startswith(DECLINED.format("harmful")) else (POOLED, WORLD)
        part = next((part for part in order if part in own and tells(part)), None)
        if part is not None:
            shown.append(_headline(measure, part, models, found))
    return shown[:_HEADLINES]


def _headline(
    measure: Measure, part: str, models: Sequence[Evaluated], found: Sequence[Finding]
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
        "cannot be told" if test is None else test.outcome,
        course,
    )


def _test(
    measure: Measure, label: str, last: Evaluated, found: Sequence[Finding]
) -> Finding | None:
    """The last model against what needs no training, or else against where it came from."""
    own = [one for one in found if one.model == last.name and one.what == label]
    untrained = [one for one in own if not one.stages]
    wanted = {CHOICE: CHANCE, PREFERS: CHANCE, RIGHT: MAJORITY}.get(measure.name)
    fitting = [one for one in untrained if one.other == wanted] or untrained[-1:] or own
    return fitting[0] if fitting else None


def word(test: Finding) -> str:
    """What a test says, in a few words."""
    if test.outcome == "cannot be told":
        return f"not told apart from {test.other}"
    return f"{test.outcome} than {test.other}"


def in_words(found: Estimate, share: bool) -> str:
    return f"{100 * found.estimate:.1f} %" if share else f"{found.estimate:.3f}"


def change_in_words(one: Finding) -> str:
    """From which number to which, and by how much with the interval."""
    digits, scale, unit = (1, 100, " points") if one.share else (3, 1, f" {one.unit}")
    low, high, change = (
        f"{scale * (value - one.level):+.{digits}f}"
        for value in (one.measured.low, one.measured.high, one.measured.estimate)
    )
    between = f"{change}{unit}, interval {low} to {high}"
    if one.values is None:
        return between
    before, after = (f"{scale * v:.{digits}f}{' %' if one.share else ''}" for v in one.values)
    return f"{before} → {after} ({between})"


# The terminal.

_ROOM, _LINES = 64, 8
_HEADINGS = {"worse": "worse", "better": "better", "cannot be told": "cannot be told apart"}


def in_terminal(
    prompts: Sequence[Answered], numbers: Sequence[Headline], found: Sequence[Finding]
) -> Iterator[str]:
    """The lines of the opening, in the order of the page."""
    for one in prompts:
        yield ""
        yield f"{'you' if one.chat else 'text'}: {_line(' / '.join(one.prompt))}"
        width = max((len(answer.model) for answer in one.answers), default=0)
        for answer in one.answers:
            words = answer.text if answer.folded is None else f"{answer.beginning}"
            about = f"  ({answer.folded})" if answer.folded else ""
            yield f"  {answer.model:<{width}}  {_line(words)}{about}"
    yield ""
    for number in numbers:
        unit = f" {number.unit}" if number.unit else ""
        yield f"{number.title}: {number.value}{unit}{f', {number.word}' if number.word else ''}"
    for outcome, some in by_outcome(found).items():
        if some:
            yield ""
            yield f"{_HEADINGS[outcome]} ({len(some)})"
        if outcome == "cannot be told":
            continue
        for test in some[:_LINES]:
            yield f"  {test.what}: {test.model} against {test.other}, {change_in_words(test)}"
        if len(some) > _LINES:
            yield f"  and {len(some) - _LINES} more on the page"


def _line(text: str) -> str:
    """Text of a stranger's in one short line without anything that a terminal would obey."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    shown = " ".join(shown.split())
    return shown if len(shown) <= _ROOM else shown[: _ROOM - 2].rsplit(" ", 1)[0] + " …"
