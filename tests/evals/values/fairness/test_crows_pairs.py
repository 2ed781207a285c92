"""CrowS-Pairs: which sentence is likelier, by hand, by chance, and by the definition."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from math import pi, sqrt
from statistics import fmean

import pytest

from groundup.data.packs.fairness.crows_pairs import SentencePair, pairs
from groundup.evals.measure import Subject
from groundup.evals.values.fairness import crows_pairs as task
from groundup.evals.values.task import Row
from groundup.lm.model import CausalLM


def row(number: int, more: float, less: float, **changes: str | bool) -> Row:
    return {
        "id": str(number),
        "group": str(number),
        "type": "age",
        "stereo": True,
        "shared_more": more,
        "shared_less": less,
        "whole_more": more - 1,
        "whole_less": less,
    } | changes


def test_by_hand() -> None:
    rows = [
        row(0, -1.0, -2.0),  # the stereotype is likelier, and as likely by whole sentences
        row(1, -3.0, -2.0, type="race"),
        row(2, -2.0, -2.0, stereo=False),  # nothing is shared: half
        row(3, -1.0, -4.0),
    ]
    found = task.numbers(rows)
    assert found[task.SHARED].estimate == (1 + 0 + 0.5 + 1) / 4
    assert found[task.WHOLE].estimate == (0.5 + 0 + 0 + 1) / 4
    assert found[task.DISTANCE].estimate == pytest.approx((0 + 2 + 1 + 2) / 4)
    assert found["shared tokens: race"].estimate == 0
    assert found["shared tokens: age"].estimate == pytest.approx(2.5 / 3)
    assert found["shared tokens: violations"].estimate == 0.5
    assert task.score(rows).estimate == pytest.approx(1 - 2 * (0.625 - 0.5))


def test_items_are_spread_over_kinds_and_all_are_available() -> None:
    assert len(task.items(10_000)) == 1508
    counts = Counter(one.bias_type for one in task.items(450))
    assert set(counts.values()) == {50}


def test_pairs_that_swap_the_same_words_are_one_group() -> None:
    def of(more: str, less: str) -> str:
        return task.swapped(SentencePair("0", more, less, True, "age"))

    same = of("The old man is slow.", "The young man is slow.")
    assert same == of("She is old.", "She is young.") == of("Old people", "young people")
    assert same != of("The young man is slow.", "The old man is slow.")
    groups = Counter(task.swapped(one) for one in pairs())
    assert 600 < len(groups) < 1000 and max(groups.values()) > 100


def test_guessing_scores_one_half() -> None:
    outside = 0
    for seed in range(10):
        dice = random.Random(seed)
        rows = [
            row(i, dice.random(), dice.random(), group=task.swapped(one))
            for i, one in enumerate(pairs())
        ]
        one = task.numbers(rows)[task.SHARED]
        assert one.chance == 0.5 and one.high - one.low < 0.08
        outside += not one.low <= 0.5 <= one.high
    assert outside <= 3


def test_guessing_may_score_below_1_and_this_is_stated() -> None:
    scores = []
    for seed in range(40):
        dice = random.Random(seed)
        scores.append(task.score([row(i, dice.random(), dice.random()) for i in range(100)]))
    # 1 - 2 E |share - 1/2| of a hundred coins.
    assert scores[0].chance == pytest.approx(1 - sqrt(2 / pi) / 10, abs=0.005)
    assert fmean(one.estimate for one in scores) == pytest.approx(scores[0].chance, abs=0.03)
    assert task.numbers([row(0, -1.0, -2.0)])[task.SHARED].chance == 0.5


def test_a_random_and_a_constant_model(
    chaotic: Callable[[int], CausalLM], constant: CausalLM, subject: Callable[[CausalLM], Subject]
) -> None:
    asked = task.items(120)
    found = task.numbers(task.ask(subject(chaotic(0)), asked))
    assert found[task.SHARED].low < 0.5 < found[task.SHARED].high
    assert found[task.WHOLE].low < 0.6 and found[task.WHOLE].high > 0.4
    rows = task.ask(subject(constant), asked)
    assert task.numbers(rows)[task.SHARED].estimate == 0.5
    # A uniform model prefers the shorter sentence, and only by whole sentences.
    assert task.numbers(rows)[task.WHOLE].estimate != 0.5
    assert set(task.numbers(rows)) <= {one.name for one in task.CROWS_PAIRS.shown}


def test_moving_away_from_one_half_is_worse_in_both_directions() -> None:
    near, far = (
        [row(i, float(i % 100 < stereotypes), 0.5) for i in range(200)] for stereotypes in (49, 80)
    )
    found = task.distance(far, near)
    assert found[task.SHARED].estimate == pytest.approx(0.3 - 0.01)
    assert found[task.SHARED].low > 0.1 and set(found) == {task.SHARED, task.WHOLE}
    assert task.distance(near, far)[task.SHARED].high < -0.1


def test_two_models_are_compared_pair_by_pair() -> None:
    one = [row(i, 1.0, 0.0) for i in range(10)]
    other = [row(i, float(i % 2), 0.5) for i in range(10)]
    found = task.difference(one, other)
    assert found[task.SHARED].estimate == pytest.approx(1 - 0.5)
    assert found[task.SHARED].low > 0
    assert found["shared tokens: age"].estimate == pytest.approx(0.5)
