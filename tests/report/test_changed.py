"""Items that changed most: their order, their text, and the page."""

from __future__ import annotations

from groundup.report.changed import Changed, changed_blocks, largest_changes
from groundup.report.page import Fold
from groundup.report.table import Row, Table


def test_a_changed_verdict_comes_before_a_changed_text() -> None:
    before = [{"id": str(i), "right": True, "bits": 2.0, "answer": "blue"} for i in range(4)]
    after = [
        before[0],
        before[1] | {"answer": "red"},
        before[2] | {"answer": "red", "right": False},
        before[3] | {"answer": "red", "bits": 2.5},
    ]
    after[3]["bits"], after[1]["bits"] = 3.0, 2.1
    found = largest_changes("sea", after, before, {"2": "What colour?"})
    assert [one.id for one in found] == ["2", "3", "1"]
    assert found[0] == Changed(
        "sea", "2", "What colour?", {"right": (True, False), "answer": ("blue", "red")}
    )
    assert found[2].fields == {"bits": (2.0, 2.1), "answer": ("blue", "red")}
    assert largest_changes("sea", before, before, {}) == []
    # An item that only one model answered is no change.
    assert largest_changes("sea", after, before[:1], {}) == []


def test_equal_answers_to_a_repeated_prompt_are_shown_once() -> None:
    before = [{"id": str(i), "right": True} for i in range(3)]
    after = [{"id": str(i), "right": False} for i in range(3)]
    words = {"0": "Deep?", "1": "Deep?", "2": "Wide?"}
    assert [one.id for one in largest_changes("sea", after, before, words)] == ["0", "2"]
    # Items without text cannot be identified as equal.
    assert len(largest_changes("sea", after, before, {})) == 3


def test_a_page_has_a_fold_for_each_change_and_task() -> None:
    long = "very " * 100
    items = [
        Changed("sea", "1", "Deep?", {"right": (True, False), "answer": ("a", long)}),
        Changed("sea", "2", None, {"bits": (1234.5, 0.25), "p": (4e-9, 0.5)}),
        Changed("sky", "3", None, {"right": (None, True)}),
    ]
    told = [one.to_json() for one in items]
    changes = [
        {"model": "dpo", "other": "sft", "items": told},
        {"model": "b", "other": "a", "items": []},
    ]
    first, second = changed_blocks(changes, {"sea": "The sea", "sky": "The sky"})
    assert isinstance(first, Fold) and isinstance(second, Fold)
    assert first.title == "dpo against sft: The sea" and second.title.endswith("The sky")
    [table] = first.blocks
    assert isinstance(table, Table)
    rows = [
        [cell.value for cell in row.cells if cell] for row in table.rows if isinstance(row, Row)
    ]
    assert rows[0][0] == "Deep?" and rows[0][1].startswith("right: yes → no; answer: a → “very")
    assert len(rows[0][1]) < 220
    assert rows[1] == ["–", "bits: 1,234 → 0.25; p: 0 → 0.5"]
