"""Calibration: ECE and its companions against maths.calibration, and of honest and bold models."""

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


def test_the_error_is_that_of_the_mathematics() -> None:
    random = np.random.default_rng(0)
    confidence = random.uniform(0.25, 1, 400)
    right = (random.random(400) < confidence**2).astype(float)
    found = task.numbers(rows_of(confidence, right))[task.ECE]
    expected = expected_calibration_error(confidence, right, bins=10, binning="equal mass")
    assert found.estimate == pytest.approx(expected)
    assert found.low < expected < found.high


def test_an_honest_model_has_what_chance_makes_of_it() -> None:
    random = np.random.default_rng(1)
    confidence = random.uniform(0.25, 1, 2_000)
    rows = rows_of(confidence, (random.random(2_000) < confidence).astype(float))
    found = task.numbers(rows)
    assert found[task.ECE].estimate == pytest.approx(found[task.HONEST].estimate, abs=0.02)
    bold = rows_of(np.full(2_000, 0.99), (random.random(2_000) < 0.25).astype(float))
    assert task.numbers(bold)[task.ECE].estimate == pytest.approx(0.74, abs=0.03)
    assert task.score(bold).estimate == pytest.approx(0.26, abs=0.03)
    change = task.difference(rows, bold)
    assert change[task.ECE].high < -0.6 and change[task.CORRECT].low > 0.3


def test_a_constant_model_knows_that_it_knows_nothing(
    constant: CausalLM, subject: Callable[[CausalLM], Subject]
) -> None:
    asked = task.CALIBRATION.items(30)
    rows = task.ask(subject(constant), asked)
    found = task.numbers(rows)
    assert set(found) == {one.name for one in task.CALIBRATION.shown}
    assert found[task.CORRECT].low <= (found[task.CORRECT].chance or 0) <= found[task.CORRECT].high
    # Long options are less likely even where all tokens are alike, so it is surer than 1 in 4.
    assert found[task.CONFIDENCE].estimate > 0.4
    assert len({row["id"] for row in rows}) == 30
