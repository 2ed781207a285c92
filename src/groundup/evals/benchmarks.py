"""The core suite: six public benchmarks and bits per byte, for models from anywhere.

    choice = argmax over options of  log p(option | question) / characters of the option

Every model, base or chat, ours or not, gets the same plain text, so that all stages and models can
be compared in one table (`core_sets.py` has the wording, `continuations.py` the probabilities).
`acc_norm` is the accuracy of that choice, `acc` that of the choice by log p alone, as in the
lm-evaluation-harness. Equally likely options share the credit. The chance level is one in the
number of options or, if the two answers are always the same, the share of the more frequent one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from groundup.data.config import DataConfig
from groundup.data.packs.rows import Rejected, gather
from groundup.evals.choice import chances
from groundup.evals.config import CoreConfig
from groundup.evals.contamination import Contamination, contamination
from groundup.evals.continuations import Pair, continuation_logprobs, encode_pair, opening_of
from groundup.evals.core_sets import CORE_SETS, core_questions
from groundup.evals.measure import Measure, Subject
from groundup.evals.perplexity import Bits, bits_per_byte
from groundup.evals.suites import Prepared
from groundup.lm.model import CausalLM
from groundup.report.estimate import Estimate, mean_change, rate
from groundup.runs.console import say
from groundup.text.rows import Choice, Document
from groundup.text.shards import Shard, encode
from groundup.text.tokenizer import Tokenizer
from groundup.train.device import Compute

# Texts of which about a tenth is held out, alike in every data folder of ours.
_TEXTS = ("wiki", "boolq", "sotu")
# Models from elsewhere may allow a hundred thousand tokens. Hardly any question is as long as the
# first limit, and text read through windows of the second tells as much as through longer ones.
LONGEST_CONTEXT, _TEXT_CONTEXT = 2048, 1024
# All questions together, each counted once.
ALL = "all"


@dataclass(frozen=True)
class Answers:
    """The log-probability of each option of each question, in nats."""

    rows: Sequence[Choice]
    sums: Sequence[Float[np.ndarray, " _"]]

    def credit(self, measure: str) -> Float[np.ndarray, " questions"]:
        """1 for each question answered right, a share of 1 in case of a tie, else 0."""
        credits = []
        for row, sums in zip(self.rows, self.sums, strict=True):
            lengths = [len(option) if measure == "acc_norm" else 1 for option in row.options]
            scores = sums / np.array(lengths)
            best = scores == scores.max()
            credits.append(best[row.answer] / best.sum())
        return np.array(credits)

    def main(self) -> Float[np.ndarray, " questions"]:
        """The credit of each question by its set's own measure."""
        by = {measure: self.credit(measure) for measure in ("acc_norm", "acc")}
        return np.array([by[CORE_SETS[row.source].measure][i] for i, row in enumerate(self.rows)])

    def accuracy(self, credits: Float[np.ndarray, " questions"]) -> dict[str, Estimate]:
        """The mean credit of each set and of all questions, with intervals and chance levels."""
        guesses = guessing(self.rows)
        return {
            name: rate(
                credits[at],
                groups=[self.rows[i].group for i in at],
                chance=guesses[name],
            )
            for name, at in _by_set(self.rows).items()
        }

    def minus(self, other: Answers) -> dict[str, Estimate]:
        """The difference to `other` in the share of the same questions answered right."""
        return self.difference(self.main(), other.main())

    def difference(
        self, own: Float[np.ndarray, " questions"], others: Float[np.ndarray, " questions"]
    ) -> dict[str, Estimate]:
        """The mean difference of the credits, for each set and for all questions."""
        return {
            name: mean_change(own[at], others[at], groups=[self.rows[i].group for i in at])
            for name, at in _by_set(self.rows).items()
        }


def _by_set(rows: Sequence[Choice]) -> dict[str, list[int]]:
    names = [row.source for row in rows]
    found = {name: [i for i, one in enumerate(names) if one == name] for name in CORE_SETS}
    return {name: at for name, at in found.items() if at} | {ALL: list(range(len(rows)))}


def guessing(rows: Sequence[Choice]) -> dict[str, float]:
    """The accuracy of guessing without reading the questions, for each set and for all."""
    best = chances(rows)
    return {name: float(best[at].mean()) for name, at in _by_set(rows).items()}


@cache
def heldout_texts() -> Sequence[Document]:
    """The held-out texts that every data folder holds out alike, whatever its settings."""
    say("core  reading the held-out texts")
    data = gather(DataConfig(out=Path(), packs=_TEXTS), Rejected(), say)
    return data.documents_heldout


def answered(
    model: CausalLM, tokenizer: Tokenizer, rows: Sequence[Choice], *, context: int
) -> Answers:
    """Score every option of every question, set by set, reporting progress."""
    sums: list[Float[np.ndarray, " _"]] = []
    for name, of_set in groupby(rows, key=attrgetter("source")):
        begun, asked = time.monotonic(), list(of_set)
        sums += option_sums(model, tokenizer, asked, context=context)
        say(f"core  {name}: {len(asked)} questions in {time.monotonic() - begun:.1f} s")
    return Answers(rows, sums)


def option_sums(
    model: CausalLM, tokenizer: Tokenizer, rows: Sequence[Choice], *, context: int
) -> list[Float[np.ndarray, " _"]]:
    """log p of each option of each question, in nats."""
    opening = opening_of(model, tokenizer)
    pairs = [
        encode_pair(tokenizer, row.prompt, f" {option}", opening)
        for row in rows
        for option in row.options
    ]
    return sums_of(model, pairs, rows, context=context)


def sums_of(
    model: CausalLM, pairs: Sequence[Pair], rows: Sequence[Choice], *, context: int
) -> list[Float[np.ndarray, " _"]]:
    """log p of the continuations of `pairs`, which are the options of `rows` in their order."""
    scored = continuation_logprobs(model, pairs, context=context)
    ends = np.cumsum([len(row.options) for row in rows])[:-1]
    return np.split(np.array([one.total for one in scored]), ends)


# Measuring.


@dataclass(frozen=True)
class CoreMaterial:
    """The questions, and the texts tokenized for one model."""

    rows: Sequence[Choice]
    heldout: Shard


def questions(on: Subject) -> Answers:
    """The log-probability of each option of each question."""
    return answered(on.model, on.tokenizer, on.material.rows, context=on.context)


def text(on: Subject) -> Bits:
    """Bits per byte of the held-out texts."""
    return bits_per_byte(
        on.model,
        on.material.heldout,
        on.tokenizer,
        context=min(on.context, _TEXT_CONTEXT),
        bytes_per_source=on.config.bytes_per_source,
    )


def seen_before(on: Subject) -> list[Contamination]:
    """What the model's lineage trained on of the suite's own questions."""
    return contamination(on.folder)


def _accuracy(name: str, credits: Callable[[Answers], Float[np.ndarray, " _"]]) -> Measure[Answers]:
    """The share of questions answered right, by one of the measures."""
    return Measure(
        name=name,
        sentence="answers more questions right than",
        unit="share right",
        better="above",
        measuring=questions,
        read=lambda found: found.accuracy(credits(found)),
        difference=lambda one, other: one.difference(credits(one), credits(other)),
        share=True,
    )


MEASURES: tuple[Measure[Any], ...] = (
    _accuracy("accuracy", Answers.main),
    _accuracy("acc", lambda found: found.credit("acc")),
    _accuracy("acc_norm", lambda found: found.credit("acc_norm")),
    Measure(
        name="bits_per_byte",
        sentence="predicts held-out text better than",
        unit="bits per byte",
        better="below",
        measuring=text,
        read=Bits.measured,
        difference=Bits.minus,
    ),
)


def prepare(config: CoreConfig, models: Sequence[Path], compute: Compute) -> Prepared:
    """Read the questions and the texts; the texts are encoded once per tokenizer."""
    rows, texts = core_questions(config.questions), heldout_texts()

    def material(folder: Path, tokenizer: Tokenizer, context: int) -> CoreMaterial:
        at = config.out / "tokens" / tokenizer.hash[:12] / "heldout"
        return CoreMaterial(rows, encode(texts, tokenizer, at, split="heldout"))

    return Prepared({}, material)
