"""The measures of fine-tuning: how each is read off one model, and off two on equal items.

This table is all that the page, report.json and the terminal know of a measure. A difference is
only taken where both models met the very same items: the tokens of another tokenizer are other
items, the bytes of a text are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from groundup.evals.answers import AssistantLoss
from groundup.evals.core import ALL, Answers, guessing
from groundup.evals.perplexity import Bits
from groundup.evals.tuning import Tuned
from groundup.evals.tuning_material import Domain
from groundup.report.estimate import Estimate, rate, ratio

About = Literal["domain", "general"]
Unit = Literal["nats", "bits", "share"]


@dataclass(frozen=True)
class Measure:
    """One measure: what it is of, how it is called, and how one or two models are measured.

    `short` names what is measured in a plot and `what` in a sentence. Shares are better when
    greater, nats and bits when less.
    """

    key: str
    about: About
    title: str
    short: str
    what: str
    unit: Unit
    of: Callable[[Tuned], Estimate | None]
    minus: Callable[[Tuned, Tuned], Estimate | None]

    @property
    def more_is_better(self) -> bool:
        return self.unit == "share"


def perplexity(loss: Estimate) -> Estimate:
    """exp(nats per token): among how many equally likely tokens it hesitates."""
    estimate, low, high = (math.exp(x) for x in (loss.estimate, loss.low, loss.high))
    return Estimate(estimate, low, high, loss.items, loss.groups)


# Answers of the domain's conversations.


def _loss(model: Tuned) -> Estimate | None:
    one = model.loss
    return None if one is None else ratio(one.nats, one.tokens, groups=one.of.groups)


def _loss_minus(model: Tuned, other: Tuned) -> Estimate | None:
    one, two = model.loss, other.loss
    if one is None or two is None or not _equal(one, two, one.tokens, two.tokens):
        return None
    return ratio(one.nats - two.nats, one.tokens, groups=one.of.groups)


def _bits(model: Tuned) -> Estimate | None:
    one = model.loss
    return None if one is None else ratio(one.bits, one.bytes, groups=one.of.groups)


def _bits_minus(model: Tuned, other: Tuned) -> Estimate | None:
    one, two = model.loss, other.loss
    if one is None or two is None or not _equal(one, two, one.bytes, two.bytes):
        return None
    return ratio(one.bits - two.bits, one.bytes, groups=one.of.groups)


def _equal(one: AssistantLoss, two: AssistantLoss, a: np.ndarray, b: np.ndarray) -> bool:
    """Whether both are of the same conversations and as much of each."""
    return one.of.groups == two.of.groups and np.array_equal(a, b)


# Which of four replies.


def _replies(model: Tuned) -> Estimate | None:
    if model.replies is None:
        return None
    rows = model.replies.rows
    chance = float(np.mean([1 / len(row.options) for row in rows]))
    credit = model.replies.credit("acc_norm")
    return rate(credit, groups=[row.group for row in rows], chance=chance)


def _replies_minus(model: Tuned, other: Tuned) -> Estimate | None:
    if model.replies is None or other.replies is None:
        return None
    difference = model.replies.credit("acc_norm") - other.replies.credit("acc_norm")
    return ratio(difference, groups=[row.group for row in model.replies.rows])


# Text, and the core suite's questions.


def _blocks(bits: Bits | None) -> Estimate | None:
    return None if bits is None else ratio(bits.bits, bits.bytes)


def _blocks_minus(one: Bits | None, two: Bits | None) -> Estimate | None:
    # Blocks end where tokens do: another tokenizer cuts the same text at other places.
    if one is None or two is None or not np.array_equal(one.bytes, two.bytes):
        return None
    return ratio(one.bits - two.bits, one.bytes)


def _questions(answers: Answers) -> Estimate:
    groups = [row.group for row in answers.rows]
    return rate(answers.main(), groups=groups, chance=guessing(answers.rows)[ALL])


MEASURES: tuple[Measure, ...] = (
    Measure(
        "loss",
        "domain",
        "held-out answers, nats per token",
        "answers",
        "a token of the domain's answers costs",
        "nats",
        _loss,
        _loss_minus,
    ),
    Measure(
        "bits_per_byte",
        "domain",
        "held-out answers, bits per byte",
        "answers",
        "a byte of the domain's answers costs",
        "bits",
        _bits,
        _bits_minus,
    ),
    Measure(
        "reply_accuracy",
        "domain",
        "true reply found among four",
        "true reply",
        "the true reply is found in",
        "share",
        _replies,
        _replies_minus,
    ),
    Measure(
        "document_bits_per_byte",
        "domain",
        "held-out texts, bits per byte",
        "texts",
        "a byte of the domain's texts costs",
        "bits",
        lambda model: _blocks(model.documents),
        lambda model, other: _blocks_minus(model.documents, other.documents),
    ),
    Measure(
        "text_bits_per_byte",
        "general",
        "general text, bits per byte",
        "texts",
        "a byte of general text costs",
        "bits",
        lambda model: _blocks(model.texts),
        lambda model, other: _blocks_minus(model.texts, other.texts),
    ),
    Measure(
        "question_accuracy",
        "general",
        "general questions answered right",
        "questions",
        "general questions are answered right in",
        "share",
        lambda model: _questions(model.answers),
        lambda model, other: model.answers.minus(other.answers)[ALL],
    ),
)


# Fewer held-out rows than this prove nothing, however sure the interval of so few looks.
LEAST_ROWS = 20


def says_nothing(found: Sequence[Estimate | None]) -> bool:
    """Whether shares are all 0 or all 1: no model can be told from another by them."""
    shares = {one.estimate for one in found if one is not None}
    return shares in ({0.0}, {1.0})


def told(models: Sequence[Tuned]) -> list[Measure]:
    """The measures that say something of these models."""
    return [
        measure
        for measure in MEASURES
        if measure.unit != "share" or not says_nothing([measure.of(model) for model in models])
    ]


def too_few(measure: Measure, change: Estimate, domain: Domain | None) -> int | None:
    """The number of held-out rows behind a change on the domain where it proves nothing, be it
    that there are few or (0) that none was held out."""
    if measure.about != "domain":
        return None
    rows = change.groups
    if domain is not None:
        documents = domain.rows - domain.talks
        rows = min(rows, documents if measure.key == "document_bits_per_byte" else domain.talks)
        rows = 0 if domain.trained else rows
    return rows if rows < LEAST_ROWS else None


def main_domain(parent: Tuned) -> Measure:
    """What the gain is judged by: the bits of answers or, where there are none, of texts."""
    key = "bits_per_byte" if parent.loss is not None else "document_bits_per_byte"
    return next(measure for measure in MEASURES if measure.key == key)


GENERAL_TEXT = next(one for one in MEASURES if one.key == "text_bits_per_byte")
