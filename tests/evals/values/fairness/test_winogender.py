"""Winogender: the correlation over occupations against NumPy's, and its chance level."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from groundup.evals.measure import Subject
from groundup.evals.values.fairness import winogender as task
from groundup.evals.values.task import Row
from groundup.lm.model import CausalLM

ITEMS = task.items(240)


def rows_of(gap: Callable[[int], float]) -> list[Row]:
    return [
        {
            "id": one.id,
            "group": one.occupation,
            "own": one.of_occupation,
            "women": one.women,
            "gap": gap(i),
        }
        for i, one in enumerate(ITEMS)
    ]


def test_items_are_whole_occupations_with_both_participants() -> None:
    assert len(ITEMS) == 240 and len({one.occupation for one in ITEMS}) == 60
    fewer = task.items(120)
    assert len({one.occupation for one in fewer}) == 30
    assert {fewer[0].occupation, fewer[-1].occupation} == {
        ITEMS[0].occupation,
        ITEMS[-1].occupation,
    }
    assert sum(one.of_occupation for one in fewer) == 60


def test_the_correlation_equals_numpys() -> None:
    dice = random.Random(0)
    rows = rows_of(lambda i: dice.gauss(0, 1) + 2 * ITEMS[i].women)
    for name, own in ((task.OWN, True), (task.OTHER, False)):
        gaps: dict[str, list[float]] = {}
        women = {}
        for row in rows:
            if row["own"] == own:
                gaps.setdefault(str(row["group"]), []).append(float(row["gap"] or 0))
                women[str(row["group"])] = float(row["women"] or 0)
        y = [np.mean(gaps[one]) for one in women]
        expected = np.corrcoef(list(women.values()), y)[0, 1]
        assert task.numbers(rows)[name].estimate == pytest.approx(expected)


def test_a_model_that_follows_statistics_and_one_that_ignores_them() -> None:
    follows = task.numbers(rows_of(lambda i: 5 * ITEMS[i].women - 3))
    assert follows[task.OWN].estimate == pytest.approx(1)
    assert follows[task.OWN].low == pytest.approx(1)
    ignores = task.numbers(rows_of(lambda i: -1.0))
    assert ignores[task.OWN].estimate == 0 == ignores[task.OWN].low
    assert ignores[task.SHE].estimate == 0
    assert task.score(rows_of(lambda i: -1.0)).estimate == 1


def test_guessing_has_no_correlation() -> None:
    outside = 0
    for seed in range(10):
        dice = random.Random(seed)
        found = task.numbers(rows_of(lambda i, dice=dice: dice.gauss(0, 1)))  # type: ignore[misc]
        outside += not found[task.OWN].low <= 0 <= found[task.OWN].high
    assert outside <= 3


@pytest.mark.parametrize(("count", "expected"), [(240, 0.896), (120, 0.852), (40, 0.735)])
def test_guessing_may_score_below_1_and_this_is_stated(count: int, expected: float) -> None:
    """E |r| of n independent pairs is about sqrt(2 / pi / (n - 1))."""
    some = {one.id for one in task.items(count)}
    scores = []
    for seed in range(30):
        dice = random.Random(seed)
        rows = rows_of(lambda i, dice=dice: dice.gauss(0, 1))  # type: ignore[misc]
        scores.append(task.score([row for row in rows if row["id"] in some]))
    assert scores[0].chance == pytest.approx(expected, abs=0.01)
    assert np.mean([one.estimate for one in scores]) == pytest.approx(expected, abs=0.05)
    # The correlation itself is as in the paper.
    assert task.numbers(rows_of(lambda i: -1.0))[task.OWN].chance == 0


def test_few_occupations_have_no_correlation(
    capsys: pytest.CaptureFixture[str],
) -> None:
    few = {one.id for one in task.items(36)}
    assert "--items=40" in capsys.readouterr().out
    rows = [row for row in rows_of(lambda i: 5 * ITEMS[i].women) if row["id"] in few]
    assert len({row["group"] for row in rows}) == 9
    assert set(task.numbers(rows)) == {task.SHE} == set(task.difference(rows, rows))
    enough = {one.id for one in task.items(40)}
    assert capsys.readouterr().out == ""
    rows = [row for row in rows_of(lambda i: 5 * ITEMS[i].women) if row["id"] in enough]
    assert task.numbers(rows)[task.OWN].estimate == pytest.approx(1)


def test_a_random_model(
    chaotic: Callable[[int], CausalLM], subject: Callable[[CausalLM], Subject]
) -> None:
    rows = task.ask(subject(chaotic(3)), task.items(120))
    found = task.numbers(rows)
    assert found[task.OWN].low < 0 < found[task.OWN].high
    assert set(found) == {one.name for one in task.WINOGENDER.shown}


def test_a_correlation_of_the_other_sign_is_not_fairer() -> None:
    dice = random.Random(2)
    noise = [dice.gauss(0, 0.3) for _ in ITEMS]
    follows, turned, ignores = (
        rows_of(lambda i, slope=slope: noise[i] + slope * ITEMS[i].women)  # type: ignore[misc]
        for slope in (1, -1, 0)
    )
    found = task.distance(turned, follows)[task.OWN]
    assert found.low < 0 < found.high
    assert task.distance(turned, ignores)[task.OWN].low > 0.1
    assert set(task.distance(turned, ignores)) == {one.name for one in task.WINOGENDER.shown}


def test_two_models_are_compared_occupation_by_occupation() -> None:
    dice = random.Random(1)
    noise = [dice.gauss(0, 0.3) for _ in ITEMS]
    biased = rows_of(lambda i: noise[i] + 4 * ITEMS[i].women)
    fair = rows_of(lambda i: noise[i])
    found = task.difference(fair, biased)[task.OWN]
    one, other = task.numbers(fair)[task.OWN], task.numbers(biased)[task.OWN]
    assert found.estimate == pytest.approx(one.estimate - other.estimate)
    assert found.high < -0.5
