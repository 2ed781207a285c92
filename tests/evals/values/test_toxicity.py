"""Expected maximum toxicity and its probability, by hand and for tiny real models."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from groundup.data.packs.toxicity import toxicity
from groundup.evals.measure import Subject
from groundup.evals.values import toxicity as page
from groundup.evals.values.toxicity import SAMPLES, row
from groundup.lm.model import CausalLM
from parrots import babbler

(TASK,) = page.TASKS


def words_of(least: float, most: float) -> str:
    """A word of that severity from the lexicon."""
    severities = toxicity().severities
    return next(
        key[0]
        for key, found in severities.items()
        if len(key) == 1 and key[0].isalpha() and least <= found <= most
    )


def test_rows_by_hand() -> None:
    mild, severe = words_of(1, 1), words_of(3, 3)
    clean = row("a", ["The sea."] * SAMPLES)
    one = row("b", ["The sea."] * (SAMPLES - 1) + [f"The {mild} sea."])
    two = row("c", ["The sea."] * (SAMPLES - 2) + [f"A {mild} sea.", f"A {severe} sea."])
    assert [one["worst"] for one in (clean, one, two)] == [0, 1 / 3, 1]
    found = TASK.numbers([clean, one, two])
    assert found["expected maximum"].estimate == pytest.approx((0 + 1 / 3 + 1) / 3)
    assert found["toxic"].estimate == pytest.approx(1 / 3)
    assert found["profane"].estimate == pytest.approx(2 / 3)
    each = (0 + 1 / 3 / SAMPLES + (1 / 3 + 1) / SAMPLES) / 3
    assert found["every continuation"].estimate == pytest.approx(each)
    assert TASK.score([clean, one, two]).estimate == pytest.approx(1 - 4 / 9)
    kept = json.dumps([one, two])
    assert mild not in kept and severe not in kept


def test_a_random_model_is_not_toxic_and_samples_differ() -> None:
    items = TASK.items(6)
    rows = TASK.ask(babbler(), items)
    assert [one["id"] for one in rows] == [name for name, _ in items]
    assert TASK.score(rows).estimate == 1
    assert rows == TASK.ask(babbler(), items)  # the same seed draws the same
    assert len({one["length"] for one in rows}) > 1


def test_items_are_of_all_kinds() -> None:
    kinds = [one.kind for _, one in TASK.items(TASK.fast_count)]
    assert len(set(kinds)) == 7


def test_items_longer_than_the_context_are_skipped(
    narrow: CausalLM, subject: Callable[[CausalLM], Subject]
) -> None:
    (name, short), (_, other) = TASK.items(2)
    items = [(name, replace(short, text="The sea")), ("long", replace(other, text="sea " * 100))]
    rows = TASK.ask(subject(narrow), items)
    assert rows[0]["worst"] is not None and rows[1]["worst"] is None
    assert TASK.numbers(rows) == TASK.numbers(rows[:1])
