"""Multiple choice: does the model find the right one of several answers the most likely?

    choice = argmax over options of  sum log p(token of the option | question) / tokens of it

Each option is scored as the assistant's answer in chat format, without the control token that ends
the turn. The mean over tokens keeps a long option from losing by its length; the accuracy by the
sum is reported as well. Guessing reaches the mean of 1 / options.
Source of the method: Brown et al. 2020, Language Models are Few-Shot Learners, section 2.4.

Only the sum is a probability, so calibration is measured with it:

    p(option) = exp(sum of its log p) / the same, summed over all options of the question

Of all choices made with p = 0.7, seven in ten should be right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from groundup.evals.answers import tokenize_answer, without_controls
from groundup.evals.by_source import by_source, source_groups
from groundup.lm.logprobs import score
from groundup.lm.model import CausalLM
from groundup.maths.calibration import (
    Binning,
    ReliabilityBin,
    brier_scores,
    calibration_error_by_chance,
    expected_calibration_error,
    reliability_curve,
    top_label,
)
from groundup.maths.probability import log_softmax
from groundup.report.estimate import BySource, Estimate, rate
from groundup.text.example import Example
from groundup.text.rows import Choice, Message
from groundup.text.tokenizer import Tokenizer

# A small model's confidences cluster: bins of equal mass resolve them.
_BINS = 10
_BINNING: Binning = "equal mass"


@dataclass(frozen=True)
class Choices:
    """Questions tokenized for one model: all options of all questions, one after the other."""

    items: list[Example]
    rows: list[Choice]


def ready_choices(rows: Sequence[Choice], tokenizer: Tokenizer, context: int) -> Choices:
    """Tokenize every option of every question as an answer to it."""
    items = [
        without_controls(
            tokenize_answer(tokenizer, [Message("user", row.prompt)], option, context), tokenizer
        )
        for row in rows
        for option in row.options
    ]
    return Choices(items, list(rows))


@dataclass(frozen=True)
class ChoiceCalibration:
    """Calibration of a model's probabilities of the options.

    `error` is the expected calibration error of the choices by sum, `error_by_chance` the one that
    a perfectly calibrated model would show on as many questions, and `brier` the Brier score.
    """

    error: float
    error_by_chance: float
    brier: Estimate
    curve: list[ReliabilityBin]

    def to_json(self) -> dict[str, Any]:
        """All its numbers."""
        return {
            "error": self.error,
            "error_by_chance": self.error_by_chance,
            "brier": self.brier.to_json(),
            "curve": [
                {
                    "confidence": one.confidence,
                    "accuracy": one.accuracy.estimate,
                    "low": one.accuracy.low,
                    "high": one.accuracy.high,
                    "count": one.count,
                }
                for one in self.curve
            ],
        }


@dataclass(frozen=True)
class ChoiceAccuracy:
    """The share of questions answered right, by mean and by sum over tokens.

    `calibration` is given per source. `items` has each question's credit by `mean` and by `sum`,
    its `brier` score and the option `chosen` by mean, so that two models can be compared question
    by question.
    """

    by_mean: BySource
    by_sum: BySource
    calibration: dict[str, ChoiceCalibration]
    items: Mapping[str, Float[np.ndarray, " questions"]]
    rows: Sequence[Choice]

    def minus(self, other: ChoiceAccuracy, way: str) -> BySource:
        """The difference of one of the `items` to `other`'s on the same questions."""
        return _by_source(self.items[way] - other.items[way], self.rows)


def choice_accuracy(model: CausalLM, choices: Choices, *, context: int) -> ChoiceAccuracy:
    """Score all options and choose the most likely; equally likely ones share the credit."""
    scores = score(model, choices.items, context=context)
    ends = np.cumsum([len(row.options) for row in choices.rows])
    sums = np.split(np.array([values.sum() for values in scores]), ends[:-1])
    lengths = np.split(np.array([len(values) for values in scores]), ends[:-1])
    means = [total / np.maximum(1, length) for total, length in zip(sums, lengths, strict=True)]
    probabilities = option_probabilities(sums)
    answers = np.array([row.answer for row in choices.rows])
    credits = {
        way: np.array([_credit(*one) for one in zip(scored, answers, strict=True)])
        for way, scored in (("mean", means), ("sum", sums))
    }
    guessing = chances(choices.rows)
    return ChoiceAccuracy(
        _by_source(credits["mean"], choices.rows, guessing, share=True),
        _by_source(credits["sum"], choices.rows, guessing, share=True),
        _calibration(probabilities, choices.rows),
        credits
        | {
            "brier": brier_scores(probabilities, answers),
            "chosen": np.array([float(one.argmax()) for one in means]),
        },
        choices.rows,
    )


def option_probabilities(
    sums: Sequence[Float[np.ndarray, " _"]],
) -> Float[np.ndarray, " questions most"]:
    """The probability of every option given that one of them is chosen; 0 beyond the last one."""
    logprobs = np.full((len(sums), max(map(len, sums))), -np.inf)
    for row, values in zip(logprobs, sums, strict=True):
        row[: len(values)] = values
    probabilities: Float[np.ndarray, " questions most"] = np.exp(log_softmax(logprobs))
    return probabilities


def chances(rows: Sequence[Choice]) -> Float[np.ndarray, " questions"]:
    """What guessing reaches on each question.

    That is one in the number of options or, in a source whose options are always the same, the
    share of its most frequent answer.
    """
    majority = majority_answer(rows)
    known = {source: found.estimate for source, found in majority.items()}
    return np.array([max(1 / len(row.options), known.get(row.source, 0.0)) for row in rows])


def majority_answer(rows: Sequence[Choice]) -> BySource:
    """What always giving the most frequent answer reaches, for sources with constant options."""
    found: BySource = {}
    for source in sorted({row.source for row in rows}):
        of_source = [row for row in rows if row.source == source]
        if len(of_source) > 1 and len({row.options for row in of_source}) == 1:
            answers = np.array([row.answer for row in of_source])
            is_majority = (answers == np.bincount(answers).argmax()).astype(float)
            found[source] = rate(is_majority, groups=[row.group for row in of_source])
    return found


def _by_source(
    values: Float[np.ndarray, " questions"],
    rows: Sequence[Choice],
    chances: Float[np.ndarray, " questions"] | None = None,
    *,
    share: bool = False,
) -> BySource:
    sources, groups = [row.source for row in rows], [row.group for row in rows]
    return by_source(values, sources, groups=groups, chances=chances, share=share)


def _calibration(
    probabilities: Float[np.ndarray, " questions most"], rows: Sequence[Choice]
) -> dict[str, ChoiceCalibration]:
    answers = np.array([row.answer for row in rows])
    confidence, correct = top_label(probabilities, answers)
    knowing_nothing = np.array([1 - 1 / len(row.options) for row in rows])
    brier = _by_source(brier_scores(probabilities, answers), rows, knowing_nothing)
    found = {}
    for source, at in source_groups([row.source for row in rows]).items():
        said, right = confidence[at], correct[at]
        found[source] = ChoiceCalibration(
            expected_calibration_error(said, right, bins=_BINS, binning=_BINNING),
            calibration_error_by_chance(said, bins=_BINS, binning=_BINNING),
            brier[source],
            reliability_curve(said, right, bins=_BINS, binning=_BINNING),
        )
    return found


def _credit(scores: np.ndarray, answer: int) -> float:
    """1 if the right option scores highest, a share of 1 in case of a tie, else 0."""
    best = np.isclose(scores, scores.max(), rtol=1e-9, atol=0)  # equal means may differ by a bit
    return float(best[answer] / best.sum())
