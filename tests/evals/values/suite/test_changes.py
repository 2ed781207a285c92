"""Changes of a model: the compared pairs, the better direction, and the changed items."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundup.evals.measure import Evaluated, Subject
from groundup.evals.values.rows import further
from groundup.evals.values.suite.asking import Asked, Valued, finite
from groundup.evals.values.suite.changes import claims, most_changed, pairs
from groundup.evals.values.suite.tasks import TASKS, judge_of
from groundup.evals.values.task import Number, Task
from groundup.lm.model import CausalLM
from groundup.report.estimate import BySource, ratio
from groundup.report.history import History

RIGHT = Number("right", "share", "above", "")
LEAN = Number("lean", "share", None, "", ideal=0.5)


def _mean(rows: Any, name: str) -> BySource:
    return {name: ratio(np.array([row[name] for row in rows], float))}


def _both(rows: Any) -> BySource:
    return _mean(rows, "right") | _mean(rows, "lean")


def _counted(values: Any) -> Any:
    return np.hstack([values, np.ones_like(values)]).astype(float)


def _share(sums: Any) -> Any:
    return sums[:, 0] / sums[:, 1]


def _further(after: Any, before: Any) -> BySource:
    one, other = (_counted(np.array([[row["lean"]] for row in rows])) for rows in (after, before))
    return {"lean": further(one, other, _share, 0.5, [row["group"] for row in after])}


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
    paired=lambda after, before: {
        name: ratio(
            np.array([a[name] - b[name] for a, b in zip(after, before, strict=True)], float)
        )
        for name in ("right", "lean")
    },
    score=lambda rows: _mean(rows, "right")["right"],
    paired_distance=_further,
)


def history(folder: Path, parent: Path | None) -> History:
    parents = {} if parent is None else {"model": {"path": str(parent)}}
    return History(folder, {"stage": "sft", "parents": parents}, {})


def valued(
    folder: Path, parent: Path | None = None, rows: list[dict[str, Any]] | None = None
) -> Valued:
    folder.mkdir(exist_ok=True)
    model = Evaluated(folder.name, "", folder, history(folder, parent), 1, 1, None, {})
    asked = {} if rows is None else {"toy": Asked(rows, 0.0, False)}
    numbers = {} if rows is None else {"toy": TASK.numbers(rows)}
    return Valued(model, asked, numbers, {})


def test_a_model_is_compared_with_its_parent(tmp_path: Path) -> None:
    base, sft = valued(tmp_path / "base"), valued(tmp_path / "sft", tmp_path / "base")
    ppo, dpo = (valued(tmp_path / name, tmp_path / "sft") for name in ("ppo", "dpo"))
    other = valued(tmp_path / "other", tmp_path / "gone")
    found = [(a.name, b.name) for a, b in pairs([base, sft, ppo, dpo, other])]
    assert found == [("sft", "base"), ("ppo", "sft"), ("dpo", "sft"), ("other", "dpo")]
    # In another order too; the first of all has no parent.
    assert [(a.name, b.name) for a, b in pairs([dpo, base, sft])] == [
        ("dpo", "sft"),
        ("base", "dpo"),
        ("sft", "base"),
    ]
    assert pairs([sft]) == []


def rows(*values: tuple[float, float]) -> list[dict[str, Any]]:
    return [
        {"id": f"{i}", "group": f"{i}", "right": right, "lean": lean}
        for i, (right, lean) in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [
        (0.8, 0.6, "better"),
        (0.6, 0.8, "worse"),
        (0.2, 0.4, "better"),
        (0.4, 0.2, "worse"),
        # From one side of the ideal to the other.
        (0.49, 0.8, "worse"),
        (0.51, 0.8, "worse"),
        (0.51, 0.2, "worse"),
        (0.8, 0.49, "better"),
        (0.2, 0.51, "better"),
        (0.3, 0.7, "not significant"),
        (0.7, 0.7, "not significant"),
    ],
)
def test_closer_to_the_ideal_is_better(
    before: float, after: float, outcome: str, tmp_path: Path
) -> None:
    dice = np.random.default_rng(0)
    some = [
        valued(tmp_path / name, None, rows(*[(0.0, lean) for lean in drawn]))
        for name, at in (("before", before), ("after", after))
        for drawn in [dice.permutation(np.arange(200) < 200 * at).astype(float)]
    ]
    _, one = claims([TASK], some)
    assert one.outcome == outcome and one.wanted == "below"
    assert one.values == pytest.approx((abs(before - 0.5), abs(after - 0.5)))
    assert one.measured.estimate == pytest.approx(one.values[1] - one.values[0])
    assert one.what == "A toy (lean), distance from 50 %"
    # A number without a direction gives no claim.
    aimless = replace(TASK, shown=(RIGHT, replace(LEAN, ideal=None)))
    assert len(claims([aimless], some)) == 1


def test_equal_distances_from_the_ideal_are_not_significant() -> None:
    dice, groups = np.random.default_rng(1), [str(i) for i in range(120)]
    for shares in ((0.5, 0.5), (0.55, 0.45), (0.2, 0.8)):
        told = 0
        for _ in range(80):
            one, other = (_counted(dice.random((120, 1)) < share) for share in shares)
            found = further(one, other, _share, 0.5, groups)
            assert found.low <= found.estimate <= found.high
            told += not found.low <= 0 <= found.high
        assert told <= 9, shares


def test_every_shared_number_is_a_claim(tmp_path: Path) -> None:
    before = valued(tmp_path / "before", None, rows(*[(0.0, 0.9)] * 8))
    after = valued(tmp_path / "after", tmp_path / "before", rows(*[(1.0, 0.6)] * 8))
    first, second = claims([TASK], [before, after])
    assert (first.what, first.outcome, first.values) == ("A toy", "better", (0.0, 1.0))
    assert (second.what, second.outcome) == ("A toy (lean), distance from 50 %", "better")
    assert claims([TASK], [before, valued(tmp_path / "nothing")]) == []


def test_items_that_changed_most_come_first_without_harmful_words(tmp_path: Path) -> None:
    before = valued(tmp_path / "b", None, rows((0, 0.5), (1, 0.5), (1, 0.5)))
    after = valued(tmp_path / "a", tmp_path / "b", rows((0, 0.5), (1, 0.6), (0, 0.6)))
    found = most_changed(TASK, ["one", "two", "three"], after, before)
    assert [(one.id, one.text) for one in found] == [("2", None), ("1", None)]
    assert found[0].fields == {"right": (1, 0), "lean": (0.5, 0.6)}
    shown = replace(TASK, text=lambda item: item.upper())
    assert most_changed(shown, ["one", "two", "three"], after, before)[0].text == "THREE"
    assert most_changed(TASK, [], valued(tmp_path / "c"), before) == []


@pytest.mark.every(4)
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_two_models_are_compared_by_every_number_with_a_direction(
    task: Task,
    subject: Callable[[CausalLM], Subject],
    chaotic: Callable[[int], CausalLM],
    constant: CausalLM,
) -> None:
    items = task.items(12)
    after, before = (task.ask(subject(model), items) for model in (chaotic(0), constant))
    own, others = (finite(task.numbers(rows)) for rows in (after, before))
    numbers = own.keys() & others.keys()
    found = finite(task.difference(after, before))
    apart = finite(task.distance(after, before))
    for number in task.shown:
        if number.name not in numbers or number.part_of is not None:
            continue
        if number.better is not None or number.ideal is not None:
            assert number.name in found, number
            change = own[number.name].estimate - others[number.name].estimate
            assert found[number.name].estimate == pytest.approx(change, abs=1e-9), number
            assert number.better is not None or number.name in apart, number
    assert {number.name for number in task.shown} & numbers
    # No item differs, of few: that is no certainty.
    for same in (task.difference(after, after), task.distance(after, after)):
        for number in task.shown:
            if number.share and number.name in same:
                one = same[number.name]
                assert one.estimate == 0 and one.low < 0 < one.high, number


@pytest.mark.parametrize("is_share", [True, False])
def test_only_a_share_may_hide_unobserved_changes(is_share: bool) -> None:
    """If each item costs a quarter of a nat more, that is the difference; changes of some answers
    only are uncertain."""

    def apart(after: Any, before: Any) -> BySource:
        changes = [a["lean"] - b["lean"] for a, b in zip(after, before, strict=True)]
        return {"lean": ratio(np.array(changes, float))}

    number = replace(LEAN, share=is_share)
    task = replace(
        TASK,
        shown=(number,),
        numbers=lambda rows: _mean(rows, "lean"),
        paired=apart,
        paired_distance=apart,
    )
    before = [{"group": str(i), "lean": 0.5 + i / 8} for i in range(3)]
    after = [row | {"lean": row["lean"] + 0.25} for row in before]
    for found in (task.difference(after, before), task.distance(after, before)):
        one = found["lean"]
        assert one.estimate == 0.25
        assert (one.low < 0.25 < one.high) if is_share else (one.low == 0.25 == one.high)


def test_every_task_that_counts_refusals_names_its_judge() -> None:
    refusing = {task.name for task in TASKS if judge_of(task) == "refusal"}
    assert {"swaps-answers", "instructions", "unknown", "jailbreak"} < refusing
    assert "swaps" not in refusing
