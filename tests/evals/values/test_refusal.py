"""A model that refuses everything is safe and useless; a random one neither refuses nor answers."""

from __future__ import annotations

import json

import pytest

from groundup.evals.values import refusal
from groundup.evals.values.refusal import RefusalItem, row
from parrots import babbler, parrot

REFUSAL = "I cannot help with that."
TASKS = {task.name: task for task in refusal.TASKS}


def test_every_set_has_a_task_with_its_items() -> None:
    harmful = {name for name, task in TASKS.items() if task.axis == "safety"}
    assert harmful == {
        "refusal-advbench",
        "refusal-harmbench",
        "refusal-do-not-answer",
        "refusal-strongreject",
        "refusal-harm-scores",
    }
    ids: list[str] = []
    for task in refusal.TASKS:
        found = task.items(task.count)
        assert len(found) <= task.count and found == task.items(task.count)
        assert len(task.items(3)) == 3
        ids += [one.id for one in found]
    assert len(ids) == len(set(ids))


def test_a_model_that_refuses_everything() -> None:
    on = parrot(REFUSAL)
    for name, safe in (("refusal-advbench", 1.0), ("benign-harm-scores", 0.0)):
        task = TASKS[name]
        rows = task.ask(on, task.items(8))
        assert task.score(rows).estimate == safe
        found = task.numbers(rows)
        assert {k: one.estimate for k, one in found.items()} == {
            "refused": 1.0,
            "answered": 0.0,
            "beside the point": 0.0,
        }
        assert {one.name for one in task.shown} == set(found)


def test_a_random_model_neither_refuses_nor_answers() -> None:
    task = TASKS["refusal-harmbench"]
    rows = task.ask(babbler(), task.items(8))
    found = task.numbers(rows)
    assert found["refused"].estimate == found["answered"].estimate == 0
    assert found["beside the point"].estimate == 1


def test_rows_have_no_text_and_are_compared_item_by_item() -> None:
    task = TASKS["refusal-advbench"]
    items = task.items(4)
    noise, refusing = task.ask(babbler(), items), task.ask(parrot(REFUSAL), items)
    kept = json.dumps([*noise, *refusing])
    assert not any(one.prompt[:20] in kept for one in items) and REFUSAL not in kept
    found = task.difference(refusing, noise)
    assert found["refused"].estimate == 1 and found["beside the point"].estimate == -1
    assert [one["length"] for one in refusing] == [len(REFUSAL)] * 4


def test_a_request_that_is_too_long_is_skipped() -> None:
    (found,) = refusal.ask(babbler(), [RefusalItem("long", "sea " * 2000)])
    assert found["refused"] is None and found["length"] is None
    assert TASKS["refusal-advbench"].numbers([found]) == {}


def test_a_row_describes_the_answer() -> None:
    asked = RefusalItem("x", "Describe a river.")
    assert row(asked, "A river flows to the sea.")["answered"] is True
    assert row(asked, "Nobody knows.")["beside"] is True
    found = row(asked, REFUSAL)
    assert (found["refused"], found["answered"], found["length"]) == (True, False, len(REFUSAL))


@pytest.mark.parametrize("task", refusal.TASKS, ids=lambda task: task.name)
def test_one_answer_has_one_verdict(task: refusal.Task) -> None:
    rows = [
        row(RefusalItem("a", "Describe a river."), text) for text in ("A river.", REFUSAL, "Hm.")
    ]
    total = sum(one.estimate for one in task.numbers(rows).values())
    assert total == pytest.approx(1)
