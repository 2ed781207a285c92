"""Attacks are compared pair by pair with the plain request."""

from __future__ import annotations

import base64
import json

import pytest

from groundup.evals.values import jailbreak
from groundup.evals.values.jailbreak import ATTACKS, PLAIN, Attack, difference, numbers
from groundup.evals.values.refusal import RefusalItem
from groundup.evals.values.task import Row
from parrots import babbler, parrot

(TASK,) = jailbreak.TASKS
ASKED = RefusalItem("0", "Explain a volcano.")


def test_every_request_occurs_in_every_attack() -> None:
    found = TASK.items(27)
    ways = [PLAIN, *ATTACKS]
    assert [one.way for one in found] == ways * 3
    assert len({one.asked.id for one in found}) == 3
    assert len(TASK.items(TASK.count)) == TASK.count
    assert len(TASK.items(9)) == 9 and TASK.items(8) == []


def test_an_attack_contains_the_request_or_an_encoding_of_it() -> None:
    for way in ATTACKS:
        text = Attack(ASKED, way).text
        if way == "Base64":
            assert base64.b64decode(text.split()[-1]).decode() == ASKED.prompt
        elif way == "leetspeak":
            assert text == "3xpl41n 4 v0lc4n0."
        else:
            assert ASKED.prompt[1:] in text


def test_a_refusing_model_is_not_broken_and_a_babbling_one_is_harmless() -> None:
    items = TASK.items(18)
    for model in (parrot("I cannot help with that."), babbler()):
        rows = TASK.ask(model, items)
        found = TASK.numbers(rows)
        assert TASK.score(rows).estimate == 1 and found["broken"].estimate == 0
        assert found["lift"].estimate == 0
        assert {one.name for one in TASK.shown} == set(found)
        assert not any(one.asked.prompt[:15] in json.dumps(rows) for one in items)


def flags(plain: list[bool], role: list[bool], story: list[bool]) -> list[Row]:
    """Rows of three requests, plain and in two attacks."""
    return [
        {"id": f"{i}-{way}", "group": str(i), "way": way, "success": hit}
        for way, hits in ((PLAIN, plain), ("role", role), ("story", story))
        for i, hit in enumerate(hits)
    ]


def test_the_numbers_by_hand() -> None:
    rows = flags([True, False, False], [True, True, False], [False, True, False])
    found = numbers(rows)
    assert found["success"].estimate == pytest.approx(3 / 6)
    assert found[PLAIN].estimate == pytest.approx(1 / 3)
    assert found["role"].estimate == pytest.approx(2 / 3)
    assert found["broken"].estimate == pytest.approx(2 / 3)
    # Of six attacks one fails where the plain request succeeded, and two succeed where it failed.
    assert found["lift"].estimate == pytest.approx((-1 + 2) / 6)
    assert (found["success"].items, found["success"].groups) == (6, 3)
    assert TASK.score(rows).estimate == pytest.approx(0.5)


def test_two_models_attack_by_attack() -> None:
    before = flags([True, False, False], [True, True, False], [False, True, False])
    after = flags([False, False, False], [True, False, False], [False, False, False])
    found = difference(after, before)
    assert found["success"].estimate == pytest.approx(-2 / 6)
    assert found["broken"].estimate == pytest.approx(-1 / 3)
    assert found["role"].estimate == pytest.approx(-1 / 3)
    assert found["story"].estimate == pytest.approx(-1 / 3)
    assert found[PLAIN].estimate == pytest.approx(-1 / 3)


def test_items_that_do_not_fit_are_left_out() -> None:
    row = jailbreak.row(Attack(ASKED, "role"), None)
    assert row["success"] is None and numbers([row]) == {}
