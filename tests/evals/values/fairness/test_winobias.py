"""WinoBias: shares balanced over he and she, by hand, by chance, and for a preferred pronoun."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from math import pi, sqrt
from statistics import fmean

import pytest

from groundup.evals.measure import Subject
from groundup.evals.values.fairness import winobias as task
from groundup.evals.values.task import Row
from groundup.lm.model import CausalLM

ITEMS = task.items(1_584)


def row(number: int, gap: float, *, she: bool, type: int = 1, group: str = "") -> Row:
    return {"id": str(number), "group": group or str(number), "type": type, "she": she, "gap": gap}


def test_by_hand() -> None:
    rows = [
        row(0, 2.0, she=True),
        row(1, -1.0, she=True),
        row(2, 1.0, she=False),
        row(3, 3.0, she=False),
        row(4, 2.0, she=False, type=2),
        row(5, -4.0, she=True, type=2),
    ]
    found = task.numbers(rows)
    assert found["stereotype likelier: type 1"].estimate == (1 / 2 + 1) / 2
    assert found["delta: type 1"].estimate == pytest.approx((0.5 + 2.0) / 2)
    assert found["delta: type 2"].estimate == pytest.approx((2.0 - 4.0) / 2)
    assert found[task.SHARE].estimate == pytest.approx((1 / 3 + 1) / 2)
    assert found[task.DELTA].estimate == pytest.approx((-1.0 + 2.0) / 2)


def test_items_have_as_many_of_each_gender_and_type() -> None:
    counts = Counter((one.type, one.she) for one in ITEMS)
    assert len(counts) == 4 and len(set(counts.values())) == 1 and len(ITEMS) > 1_500
    assert len(task.items(400)) == 400


def test_preferring_he_everywhere_is_no_bias() -> None:
    rows = [
        row(i, -1.5 if one.she else 1.5, she=one.she, type=one.type) for i, one in enumerate(ITEMS)
    ]
    found = task.numbers(rows)
    assert found[task.SHARE].estimate == 0.5 and found[task.DELTA].estimate == pytest.approx(0)
    assert task.score(rows).estimate == 1


def test_guessing_scores_one_half() -> None:
    outside = Counter[str]()
    for seed in range(5):
        dice = random.Random(seed)
        rows = [
            row(
                i,
                dice.gauss(0, 1),
                she=one.she,
                type=one.type,
                group=", ".join(one.occupations),
            )
            for i, one in enumerate(ITEMS)
        ]
        for name, one in task.numbers(rows).items():
            assert one.chance is not None
            outside[name] += not one.low <= one.chance <= one.high
    assert all(count <= 2 for count in outside.values()), outside


def test_guessing_may_score_below_1_and_this_is_stated() -> None:
    scores = []
    for seed in range(40):
        dice = random.Random(seed)
        # Far more of one pronoun, so that the balanced share is less sure.
        scores.append(task.score([row(i, dice.gauss(0, 1), she=i % 10 == 0) for i in range(100)]))
    deviation = sqrt(1 / 10 + 1 / 90) / 4
    assert scores[0].chance == pytest.approx(1 - 2 * sqrt(2 / pi) * deviation, abs=0.01)
    assert fmean(one.estimate for one in scores) == pytest.approx(scores[0].chance, abs=0.05)


def test_a_random_and_a_constant_model(
    chaotic: Callable[[int], CausalLM], constant: CausalLM, subject: Callable[[CausalLM], Subject]
) -> None:
    asked = task.items(160)
    found = task.numbers(task.ask(subject(chaotic(2)), asked))
    assert found[task.SHARE].low < 0.5 < found[task.SHARE].high
    assert found[task.DELTA].low < 0 < found[task.DELTA].high
    rows = task.ask(subject(constant), asked)
    # A sentence whose pronoun takes more tokens is less likely, which balance makes up for.
    assert task.numbers(rows)[task.SHARE].estimate == pytest.approx(0.5, abs=0.05)
    assert set(task.numbers(rows)) == {one.name for one in task.WINOBIAS.shown}


def test_an_equal_bias_in_the_other_direction_is_no_change() -> None:
    dice = random.Random(0)
    gaps = [dice.gauss(1, 1) for _ in range(100)]
    one, other = (
        [row(i, sign * gap, she=i % 2 == 0) for i, gap in enumerate(gaps)] for sign in (1, -1)
    )
    fair = [row(i, (-1) ** (i // 2) * gap, she=i % 2 == 0) for i, gap in enumerate(gaps)]
    for name in (task.SHARE, task.DELTA):
        assert task.distance(one, other)[name].estimate == pytest.approx(0)
        assert task.distance(fair, other)[name].high < 0 < task.distance(one, fair)[name].low


def test_two_models_are_compared_pair_by_pair() -> None:
    after = [row(i, 0.0, she=i % 2 == 0) for i in range(5)]
    before = [row(i, 1.0, she=i % 2 == 0) for i in range(5)]
    found = task.difference(after, before)
    assert found[task.DELTA].estimate == -1 and found[task.SHARE].estimate == -0.5
