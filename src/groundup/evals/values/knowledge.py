"""General utility: questions of six public benchmarks, and bits per byte of real text.

    core    share right                          score  (share - guessing) / (1 - guessing)
    bits    - sum log2 p(token) / sum bytes      score  1 - bits / bits of counting letters

Both are asked in plain text, so that base and chat models are comparable, and both are scored from
0 for a baseline that learns nothing to 1 for the best possible. The baselines are guessing, and the
frequencies of a text's bytes. `evals.benchmarks` has the questions, `evals.perplexity` the bits.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from groundup.data.split import evenly_spaced
from groundup.evals.benchmarks import answered, guessing, heldout_texts
from groundup.evals.continuations import opening_of
from groundup.evals.core_sets import CORE_SETS, core_questions
from groundup.evals.measure import Subject
from groundup.evals.perplexity import BLOCK_BYTES, windows
from groundup.evals.values.rows import column, groups, item_name
from groundup.evals.values.task import Number, Row, Task
from groundup.lm.logprobs import score
from groundup.report.estimate import BySource, Estimate, rate, ratio
from groundup.text.example import Example
from groundup.text.rows import Choice

# Questions.

_questions = functools.cache(core_questions)
RIGHT = "right answers"
_SETS = {name: one.title for name, one in CORE_SETS.items()}


def _answer(on: Subject, items: Sequence[Choice]) -> list[Row]:
    found = answered(on.model, on.tokenizer, items, context=on.context)
    chances = guessing(items)
    return [
        {
            "id": item_name(row.prompt, *row.options),
            "group": row.group,
            "set": row.source,
            "right": float(credit),
            "guessing": chances[row.source],
        }
        for row, credit in zip(items, found.main(), strict=True)
    ]


def _places(rows: Sequence[Row], whole: str, titles: Mapping[str, str]) -> dict[str, list[int]]:
    """The indices of the rows of each number: of all rows, and of each set."""
    found = {whole: list(range(len(rows)))}
    for name, title in titles.items():
        if at := [i for i, row in enumerate(rows) if row["set"] == name]:
            found[title] = at
    return found


def _accuracy(rows: Sequence[Row]) -> BySource:
    right, chance = column(rows, "right"), column(rows, "guessing")
    return {
        name: rate(right[at], groups=groups(rows, at), chance=float(chance[at].mean()))
        for name, at in _places(rows, RIGHT, _SETS).items()
    }


def _more_right(after: Sequence[Row], before: Sequence[Row]) -> BySource:
    change = column(after, "right") - column(before, "right")
    return {
        name: ratio(change[at], groups=groups(after, at))
        for name, at in _places(after, RIGHT, _SETS).items()
    }


def _above_guessing(rows: Sequence[Row]) -> Estimate:
    found = _accuracy(rows)[RIGHT]
    chance = found.chance
    assert chance is not None
    above = found.mapped(lambda share: (share - chance) / (1 - chance))
    return replace(above.within(0.0, 1.0), chance=0.0)


CORE = Task(
    "core",
    "Questions of six public benchmarks",
    "utility",
    "CommonsenseQA, OpenBookQA, PIQA, SIQA, BoolQ and MMLU, as many of each, in the words of the "
    "lm-evaluation-harness; the most likely option is the choice.",
    "Four sets are halves, so published numbers of the whole sets are for other questions. With "
    "few questions per set, the numbers of single sets are rough.",
    tuple(CORE_SETS),
    1,
    (
        Number(RIGHT, "share right", "above", "of all six together"),
        *(
            Number(one.title, "share right", "above", f"by {one.measure}")
            for one in CORE_SETS.values()
        ),
    ),
    items=_questions,
    ask=_answer,
    numbers=_accuracy,
    paired=_more_right,
    score=_above_guessing,
    count=600,
    fast_count=240,
    text=lambda item: item.prompt,
)


# Text.

BITS = "bits per byte"
_TEXTS = {"wiki": "Wikipedia", "boolq": "passages", "sotu": "speeches"}


@dataclass(frozen=True)
class Passage:
    """At most two kilobytes of a text that no data folder trains on; `text` is its id."""

    words: str
    source: str
    text: str


def passages(count: int) -> list[Passage]:
    """At most `count` passages, as many of each source, spread over all of its texts."""
    found: dict[str, list[Passage]] = {source: [] for source in _TEXTS}
    for one in heldout_texts():
        found[one.source] += [Passage(cut, one.source, one.id) for cut in _cut(one.text)]
    each = max(1, count // len(found))
    return [one for of_source in found.values() for one in evenly_spaced(of_source, each)][:count]


def _cut(text: str) -> Iterator[str]:
    """The text in pieces of whole sentences, at most a block if sentences allow."""
    piece = ""
    for sentence in re.findall(r".+?(?:[.!?]\s+|\n+|$)", text, flags=re.DOTALL):
        if piece and len((piece + sentence).encode()) > BLOCK_BYTES:
            yield piece
            piece = ""
        piece += sentence
    if piece:
        yield piece


def _read(on: Subject, items: Sequence[Passage]) -> list[Row]:
    opening = opening_of(on.model, on.tokenizer)
    examples: list[Example] = []
    ends: list[int] = []
    for one in items:
        examples += windows([opening, *on.tokenizer.encode(one.words)], on.context)
        ends.append(len(examples))
    scored = score(on.model, examples, context=on.context)
    costs = np.cumsum([0.0, *(-values.sum() / np.log(2) for values in scored)])
    return [
        {
            "id": item_name(one.words),
            "group": one.text,
            "set": one.source,
            "bits": float(costs[end] - costs[begin]),
            "bytes": len(one.words.encode()),
            "letters": _letter_bits(one.words.encode()),
        }
        for one, begin, end in zip(items, [0, *ends[:-1]], ends, strict=True)
    ]


def _letter_bits(text: bytes) -> float:
    """The cost of coding the text by its own byte frequencies: its entropy in bits."""
    counts = np.array(list(Counter(text).values()), float)
    return float(-(counts * np.log2(counts / len(text))).sum())


def _bits(rows: Sequence[Row]) -> BySource:
    bits, sizes, letters = (column(rows, name) for name in ("bits", "bytes", "letters"))
    return {
        name: ratio(
            bits[at],
            sizes[at],
            groups=groups(rows, at),
            chance=float(letters[at].sum() / sizes[at].sum()),
        )
        for name, at in _places(rows, BITS, _TEXTS).items()
    }


def _more_bits(after: Sequence[Row], before: Sequence[Row]) -> BySource:
    change, sizes = column(after, "bits") - column(before, "bits"), column(after, "bytes")
    return {
        name: ratio(change[at], sizes[at], groups=groups(after, at))
        for name, at in _places(after, BITS, _TEXTS).items()
    }


def _below_letters(rows: Sequence[Row]) -> Estimate:
    found = _bits(rows)[BITS]
    letters = found.chance
    assert letters is not None
    return replace(found.mapped(lambda bits: 1 - bits / letters).within(0.0, 1.0), chance=0.0)


TEXT = Task(
    "bits",
    "Held-out text",
    "utility",
    "Bits for each byte of passages of Wikipedia, of BoolQ and of speeches, which no data folder "
    "of groundup trains on; each passage is read by itself. A model that knows nothing needs 8.",
    "A model from elsewhere may have been trained on these very texts. Passages begin without what "
    "precedes them, so the number is a little higher than for whole texts in eval core.",
    tuple(_TEXTS),
    1,
    (
        Number(
            BITS,
            "bits per byte",
            "below",
            "of all texts together; chance is the text's byte frequencies",
            share=False,
        ),
        *(
            Number(title, "bits per byte", "below", "of these alone", share=False)
            for title in _TEXTS.values()
        ),
    ),
    items=passages,
    ask=_read,
    numbers=_bits,
    paired=_more_bits,
    score=_below_letters,
    count=90,
    fast_count=45,
    text=lambda item: item.words,
)

TASKS: tuple[Task, ...] = (CORE, TEXT)
