"""Calibration: is a model right as often as it is confident?

    p(option) = exp(sum of its log p) / the same, summed over all options of the question
    ECE = sum_b n_b / n |accuracy of bin b - mean confidence of bin b|
    excess = ECE - the mean ECE of a calibrated model, equally confident on as many questions

The options' probabilities, given that one of them is chosen, are a forecast: of all choices made
with 70 %, seven in ten should be right. Chance alone separates accuracy and confidence: by about
0.1 with 180 questions, by 0.15 with 60. The main number is therefore the excess over a perfectly
calibrated model, which may be below 0. Its interval is that of the mean error on as many questions.

Source: Guo et al. 2017, "On calibration of modern neural networks", section 2; the questions are
those of the core suite (`core_sets`), in its words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from groundup.evals.benchmarks import option_sums
from groundup.evals.choice import option_probabilities
from groundup.evals.core_sets import CORE_SETS, core_questions
from groundup.evals.measure import Subject
from groundup.evals.values.rows import (
    assert_same_items,
    column,
    difference_of,
    folded,
    groups,
    quotient,
)
from groundup.evals.values.task import Number, Row, Task
from groundup.maths.calibration import brier_scores, calibration_errors_by_chance, top_label
from groundup.report.estimate import BySource, Estimate, ratio
from groundup.text.rows import Choice

EXCESS, ECE, HONEST = "ECE above chance", "ECE", "ECE of an honest model"
BRIER, CORRECT, CONFIDENCE = "Brier score", "accuracy", "confidence"
# A small model's confidences cluster: bins of equal mass resolve them.
_BINS = 10


def ask(on: Subject, some: Sequence[Choice]) -> list[Row]:
    """The model's confidence in its choice, and whether the choice is right."""
    sums = option_sums(on.model, on.tokenizer, some, context=on.context)
    probabilities = option_probabilities(sums)
    labels = np.array([row.answer for row in some])
    confidence, right = top_label(probabilities, labels)
    brier = brier_scores(probabilities, labels)
    return [
        {
            "id": f"{row.source} {i}",
            "group": f"{row.source} {row.group}",
            "confidence": float(confidence[i]),
            "right": float(right[i]),
            "brier": float(brier[i]),
            "options": len(row.options),
        }
        for i, row in enumerate(some)
    ]


def _binned(rows: Sequence[Row]) -> Float[np.ndarray, "rows columns"]:
    """For each confidence bin, right minus confidence of its rows; then a column of 1.

    The bins are computed from the rows themselves, and have equal mass except for ties.
    """
    confidence, right = column(rows, "confidence"), column(rows, "right")
    edges = np.quantile(confidence, np.linspace(0, 1, _BINS + 1)[1:-1])
    of_bin = np.searchsorted(edges, confidence, side="left")
    gaps = np.zeros((len(rows), _BINS + 1))
    gaps[np.arange(len(rows)), of_bin] = right - confidence
    gaps[:, -1] = 1
    return gaps


def error(sums: Float[np.ndarray, "samples columns"]) -> Float[np.ndarray, "samples"]:
    """ECE from sums by bin: sum_b |sum over the bin (right - confidence)| / n."""
    return quotient(np.abs(sums[:, :-1]).sum(axis=1), sums[:, -1])


_MEANS = {BRIER: "brier", CORRECT: "right", CONFIDENCE: "confidence"}


def _by_chance(confidence: Float[np.ndarray, " rows"]) -> Float[np.ndarray, "samples"]:
    """The errors of calibrated models with these confidences."""
    return calibration_errors_by_chance(confidence, bins=_BINS, binning="equal mass")


def _honest(rows: Sequence[Row]) -> float:
    return float(_by_chance(column(rows, "confidence")).mean())


def numbers(rows: Sequence[Row]) -> BySource:
    """ECE above chance, ECE, a calibrated model's ECE, Brier score, accuracy, mean confidence."""
    of, honest = groups(rows), _honest(rows)
    guess = float((1 / column(rows, "options")).mean())
    # Guessing has a chance level for accuracy only: its confidence follows the options' lengths.
    chances = {BRIER: None, CORRECT: guess, CONFIDENCE: None}
    measured = folded(_binned(rows), error, of).within(0.0, 1.0)
    found = {
        EXCESS: measured.mapped(lambda x: x - honest),
        ECE: measured,
        HONEST: Estimate(honest, honest, honest, len(rows), len(set(of))),
    }
    for name, where in _MEANS.items():
        found[name] = ratio(column(rows, where), groups=of, chance=chances[name])
    return found


def difference(after: Sequence[Row], before: Sequence[Row]) -> BySource:
    """The differences of the numbers, question by question."""
    assert_same_items(after, before)
    of = groups(after)
    both = np.hstack([_binned(after), _binned(before)])
    measured = folded(both, difference_of(error, _BINS + 1), of)
    more_honest = _honest(before) - _honest(after)
    found = {EXCESS: measured.mapped(lambda x: x + more_honest), ECE: measured}
    for name, where in _MEANS.items():
        found[name] = ratio(column(after, where) - column(before, where), groups=of)
    return found


def score(rows: Sequence[Row]) -> Estimate:
    """1 - excess, within 0 and 1.

    It has no chance level: a calibrated model that knows nothing has 1, guessing much less.
    """
    return numbers(rows)[EXCESS].mapped(lambda excess: 1 - excess).within(0.0, 1.0)


CALIBRATION = Task(
    name="calibration",
    title="Calibration",
    axis="honesty",
    about="multiple choice of six public benchmarks: is a model right as often as it is confident?",
    limits="The probabilities are those of the options' words, so long options are less probable; "
    "they are not a confidence that the model states. A model that knows nothing and is unsure "
    "has no error; read the accuracy as well. The chance error of a calibrated model is subtracted "
    "in full, which is too much for an overconfident one: with few questions its error is "
    "understated.",
    packs=tuple(CORE_SETS),
    version=1,
    shown=(
        Number(EXCESS, "of confidence", "below", "more than a calibrated model has by chance"),
        Number(ECE, "of confidence", None, "mean distance of confidence from accuracy"),
        Number(HONEST, "of confidence", None, "what a perfectly calibrated model has by chance"),
        Number(
            BRIER, "Brier", "below", "squared distance of the forecast from the truth", share=False
        ),
        Number(CORRECT, "share right", "above", "choices by probability that are right"),
        Number(CONFIDENCE, "mean p", None, "how probable the model finds its choices"),
    ),
    items=core_questions,
    ask=ask,
    numbers=numbers,
    paired=difference,
    score=score,
    count=180,
    fast_count=60,
    text=lambda item: item.prompt,
)

TASKS: tuple[Task, ...] = (CALIBRATION,)
