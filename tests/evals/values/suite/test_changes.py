"""What became of a model: which two are compared, which way is better, which items changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundup.evals.measure import Evaluated
from groundup.evals.values.suite.asking import Asked, Valued
from groundup.evals.values.suite.changes import claims, most_changed, pairs, wanted_of
from groundup.evals.values.task import Number, Task
from groundup.report.estimate import BySource, ratio
from groundup.report.history import History

RIGHT = Number("right", "share", "above", "")
LEAN = Number("lean", "share", None, "", ideal=0.5)


def _mean(rows: Any, name: str) -> BySource:
    return {name: ratio(np.array([row[name] for row in rows], float))}


def _both(rows: Any) -> BySource:
    return _mean(rows, "right") | _mean(rows, "lean")


TASK = Task(
    "toy",
    "A toy",
    "utility",
    "",
    "",
    (),
    1,
    (RIGHT, LEAN),
    items=lambda count: ["one", "two", "three"],
    ask=lambda subject, items: [],
    numbers=_both,
    difference=lambda after, before: {
        name: ratio(
            np.array([a[name] - b[name] for a, b in zip(after, before, strict=True)], float)
        )
        for name in ("right", "lean")
    },
    score=lambda rows: _mean(rows, "right")["right"],
)


def history(folder: Path, parent: Path | None) -> History:
    parents = {} if parent is None else {"model": {"path": str(parent)}}
    return History(folder, {"stage": "sft", "parents": parents}, {}, [], [])


def valued(
    folder: Path, parent: Path | None = None, rows: list[dict[str, Any]] | None = None
) -> Valued:
    folder.mkdir(exist_ok=True)
    model = Evaluated(folder.name, "", folder, history(folder, parent), 1, 1, None, {})
    asked = {} if rows is None else {"toy": Asked(rows, 0.0, False)}
    numbers = {} if rows is None else {"toy": TASK.numbers(rows)}
    return Valued(model, asked, numbers, {})


def test_a_model_is_compared_with_the_one_it_was_trained_from(tmp_path: Path) -> None:
    base, sft = valued(tmp_path / "base"), valued(tmp_path / "sft", tmp_path / "base")
    ppo, dpo = (valued(tmp_path / name, tmp_path / "sft") for name in ("ppo", "dpo"))
    other = valued(tmp_path / "other", tmp_path / "gone")
    found = [(a.name, b.name) for a, b in pairs([base, sft, ppo, dpo, other])]
    assert found == [("sft", "base"), ("ppo", "sft"), ("dpo", "sft"), ("other", "dpo")]
    # In another order too, and the first of all has none before it.
    assert [(a.name, b.name) for a, b in pairs([dpo, base, sft])] == [
        ("dpo", "sft"),
        ("base", "dpo"),
        ("sft", "base"),
    ]
    assert pairs([sft]) == []


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        (0.8, 0.6, "below"),
        (0.6, 0.8, "below"),
        (0.2, 0.4, "above"),
        (0.5, 0.4, "above"),
        (0.8, 0.3, None),
    ],
)
def test_nearer_to_the_ideal_is_better(before: float, after: float, wanted: str | None) -> None:
    assert wanted_of(LEAN, before, after) == wanted
    assert wanted_of(RIGHT, before, after) == "above"
    assert wanted_of(replace(RIGHT, better=None), before, after) is None


def rows(*values: tuple[float, float]) -> list[dict[str, Any]]:
    return [
        {"id": f"{i}", "group": f"{i}", "right": right, "lean": lean}
        for i, (right, lean) in enumerate(values)
    ]


def test_every_number_that_both_have_is_a_claim(tmp_path: Path) -> None:
    before = valued(tmp_path / "before", None, rows(*[(0.0, 0.9)] * 8))
    after = valued(tmp_path / "after", tmp_path / "before", rows(*[(1.0, 0.6)] * 8))
    first, second = claims([TASK], [before, after])
    assert (first.what, first.outcome, first.values) == ("A toy", "better", (0.0, 1.0))
    assert (second.what, second.outcome) == ("A toy (lean)", "better")
    assert claims([TASK], [before, valued(tmp_path / "nothing")]) == []


def test_items_that_changed_most_come_first_and_harmful_words_never(tmp_path: Path) -> None:
    before = valued(tmp_path / "b", None, rows((0, 0.5), (1, 0.5), (1, 0.5)))
    after = valued(tmp_path / "a", tmp_path / "b", rows((0, 0.5), (1, 0.6), (0, 0.6)))
    found = most_changed(TASK, ["one", "two", "three"], after, before)
    assert [(one.id, one.text) for one in found] == [("2", None), ("1", None)]
    assert found[0].fields == {"right": (1, 0), "lean": (0.5, 0.6)}
    shown = replace(TASK, text=lambda item: item.upper())
    assert most_changed(shown, ["one", "two", "three"], after, before)[0].text == "THREE"
    assert most_changed(TASK, [], valued(tmp_path / "c"), before) == []
