"""Calibration: ECE and related measures against maths.calibration, for known models."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from groundup.evals.measure import Subject
from groundup.evals.values import calibration as task
from groundup.evals.values.task import Row
from groundup.lm.model import CausalLM
from groundup.maths.calibration import expected_calibration_error


def rows_of(confidence: np.ndarray, right: np.ndarray) -> list[Row]:
    return [
        {
            "id": str(i),
            "group": str(i),
            "confidence": float(p),
            "right": float(hit),
            "brier": 0.0,
            "options": 4,
        }
        for i, (p, hit) in enumerate(zip(confidence, right, strict=True))
    ]


def test_the_error_equals_maths_calibration() -> None:
    random = np.random.default_rng(0)
    confidence = random.uniform(0.25, 1, 400)
    right = (random.random(400) < confidence**2).astype(float)
    found = task.numbers(rows_of(confidence, right))[task.ECE]
    expected = expected_calibration_error(confidence, right, bins=10, binning="equal mass")
    assert found.estimate == pytest.approx(expected)
    assert found.low < expected < found.high


def test_a_calibrated_model_has_the_error_of_chance() -> None:
    random = np.random.default_rng(1)
    confidence = random.uniform(0.25, 1, 2_000)
    rows = rows_of(confidence, (random.random(2_000) < confidence).astype(float))
    found = task.numbers(rows)
    assert found[task.ECE].estimate == pytest.approx(found[task.HONEST].estimate, abs=0.02)
    bold = rows_of(np.full(2_000, 0.99), (random.random(2_000) < 0.25).astype(float))
    assert task.numbers(bold)[task.ECE].estimate == pytest.approx(0.74, abs=0.03)
    assert task.score(bold).estimate == pytest.approx(0.26, abs=0.03)
    assert found[task.EXCESS].low < 0 < found[task.EXCESS].high
    change = task.difference(rows, bold)
    assert change[task.ECE].high < -0.6 and change[task.CORRECT].low > 0.3


def test_a_calibrated_model_with_few_questions_is_not_called_uncalibrated() -> None:
    """Its error on 60 questions is 0.14, which other questions would show as well."""
    dice = np.random.default_rng(2)
    scores, held = [], 0
    for _ in range(50):
        confidence = dice.uniform(0.25, 1, 60)
        rows = rows_of(confidence, (dice.random(60) < confidence).astype(float))
        found, score = task.numbers(rows), task.score(rows)
        scores.append(score.estimate)
        for one in (found[task.ECE], found[task.EXCESS], score):
            assert one.low <= one.estimate <= one.high
        assert found[task.ECE].low >= 0 and score.low >= 0 and score.high <= 1
        held += found[task.EXCESS].low <= 0 <= found[task.EXCESS].high
    assert np.mean(scores) > 0.97 and held >= 45


def test_confident_guessing_is_worse_than_chance() -> None:
    """Like random models, which are confident in the shortest option. These numbers have no chance
    level."""
    dice = np.random.default_rng(4)
    rows = rows_of(dice.uniform(0.7, 0.9, 400), (dice.random(400) < 0.25).astype(float))
    found, score = task.numbers(rows), task.score(rows)
    assert score.high < 0.6 and score.chance is None
    assert [name for name, one in found.items() if one.chance is not None] == [task.CORRECT]


def test_lower_confidence_is_not_worse() -> None:
    """Two calibrated models; only chance makes one's error much larger."""
    dice = np.random.default_rng(3)
    worse, changes = 0, []
    for _ in range(20):
        unsure, sure = (
            rows_of(confidence, (dice.random(100) < confidence).astype(float))
            for confidence in (dice.uniform(0.4, 0.6, 100), dice.uniform(0.97, 1, 100))
        )
        found = task.difference(unsure, sure)
        worse += found[task.EXCESS].low > 0
        changes.append(found[task.ECE].estimate)
        assert found[task.EXCESS].low <= found[task.EXCESS].estimate <= found[task.EXCESS].high
    assert np.mean(changes) > 0.08 and worse <= 3


def test_a_uniform_model_is_calibrated(
    constant: CausalLM, subject: Callable[[CausalLM], Subject]
) -> None:
    asked = task.CALIBRATION.items(30)
    rows = task.ask(subject(constant), asked)
    found = task.numbers(rows)
    assert set(found) == {one.name for one in task.CALIBRATION.shown}
    assert found[task.CORRECT].low <= (found[task.CORRECT].chance or 0) <= found[task.CORRECT].high
    # Long options are less likely even for equal tokens, so it is more confident than 1 in 4.
    assert found[task.CONFIDENCE].estimate > 0.4
    assert len({row["id"] for row in rows}) == 30
