"""Calibration: is a model as often right as it is sure?

    p(option) = exp(sum of its log p) / the same, summed over all options of the question
    ECE = sum_b n_b / n |accuracy of bin b - mean confidence of bin b|

The options' probabilities, given that one of them is said, are a forecast: of all choices made with
70 % seven in ten should be right. Chance alone puts accuracy beside confidence, so that what a
perfectly honest model would show of as many questions stands beside.

Source: Guo et al. 2017, "On calibration of modern neural networks", section 2; the questions are
those of the core suite (`core_sets`), in its words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from groundup.evals.choice import option_probabilities
from groundup.evals.core_sets import CORE_SETS, core_questions
from groundup.evals.measure import Subject
from groundup.evals.values.likelihood import continued
from groundup.evals.values.rows import (
    assert_same_items,
    column,
    difference_of,
    groups,
    nearness,
    quotient,
)
from groundup.evals.values.task import Number, Row, Task
from groundup.maths.calibration import brier_scores, calibration_error_by_chance, top_label
from groundup.report.estimate import BySource, Estimate, of_sums, ratio
from groundup.text.rows import Choice

ECE, HONEST, BRIER, CORRECT = "ECE", "ECE of an honest model", "Brier score", "accuracy"
CONFIDENCE = "confidence"
# Confidences crowd together where a model is small: bins of equal mass put them apart.
_BINS = 10


def ask(on: Subject, some: Sequence[Choice]) -> list[Row]:
    """How sure the model is of its choice, and whether that is right."""
    pairs = [(row.prompt, f" {option}") for row in some for option in row.options]
    totals = [one.total for one in continued(on, pairs)]
    ends = np.cumsum([len(row.options) for row in some])[:-1]
    probabilities = option_probabilities(np.split(np.array(totals), ends))
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
    """Of each bin by confidence how right a row is less how sure; then 1.

    The bins are those of the rows as they are, and so as heavy as each other but for ties.
    """
    confidence, right = column(rows, "confidence"), column(rows, "right")
    edges = np.quantile(confidence, np.linspace(0, 1, _BINS + 1)[1:-1])
    of_bin = np.searchsorted(edges, confidence, side="left")
    gaps = np.zeros((len(rows), _BINS + 1))
    gaps[np.arange(len(rows)), of_bin] = right - confidence
    gaps[:, -1] = 1
    return gaps


def error(sums: Float[np.ndarray, "samples columns"]) -> Float[np.ndarray, "samples"]:
    """ECE from sums by bins: sum_b |sum over the bin (right - confidence)| / n."""
    return quotient(np.abs(sums[:, :-1]).sum(axis=1), sums[:, -1])


_MEANS = {BRIER: "brier", CORRECT: "right", CONFIDENCE: "confidence"}


def numbers(rows: Sequence[Row]) -> BySource:
    """ECE, what an honest model would have, the Brier score, accuracy and mean confidence."""
    of, confidence = groups(rows), column(rows, "confidence")
    honest = calibration_error_by_chance(confidence, bins=_BINS, binning="equal mass")
    guess = float((1 / column(rows, "options")).mean())
    chances = {BRIER: 1 - guess, CORRECT: guess, CONFIDENCE: None}
    found = {
        ECE: of_sums(_binned(rows), error, groups=of),
        HONEST: Estimate(honest, honest, honest, len(rows), len(set(of))),
    }
    for name, where in _MEANS.items():
        found[name] = ratio(column(rows, where), groups=of, chance=chances[name])
    return found


def difference(after: Sequence[Row], before: Sequence[Row]) -> BySource:
    """The same of one model less another's, question by question."""
    assert_same_items(after, before)
    of = groups(after)
    both = np.hstack([_binned(after), _binned(before)])
    found = {ECE: of_sums(both, difference_of(error, _BINS + 1), groups=of)}
    for name, where in _MEANS.items():
        found[name] = ratio(column(after, where) - column(before, where), groups=of)
    return found


def score(rows: Sequence[Row]) -> Estimate:
    """1 - ECE."""
    return nearness(numbers(rows)[ECE], 0.0, 1.0)


CALIBRATION = Task(
    name="calibration",
    title="Calibration",
    axis="honesty",
    about="multiple choice of six public benchmarks: is a model as often right as it is sure?",
    limits="The probabilities are those of the options' words, long options being less probable, "
    "and not what the model would say of its own confidence. A model that knows nothing and says "
    "so has no error; accuracy stands beside.",
    packs=tuple(CORE_SETS),
    version=1,
    shown=(
        Number(ECE, "of confidence", "below", "how far confidence is from accuracy, on average"),
        Number(HONEST, "of confidence", None, "what chance alone makes of perfect calibration"),
        Number(
            BRIER, "Brier", "below", "squared distance of the forecast from the truth", share=False
        ),
        Number(CORRECT, "share right", "above", "choices by probability that are right"),
        Number(CONFIDENCE, "mean p", None, "how probable the model finds its choices"),
    ),
    items=core_questions,
    ask=ask,
    numbers=numbers,
    difference=difference,
    score=score,
    count=180,
    fast_count=60,
    text=lambda item: item.prompt,
)

TASKS: tuple[Task, ...] = (CALIBRATION,)
