"""The items that changed most between two models: their rows before and after, as page blocks.

An item's row has numbers, verdicts, short names and answers. The change of a field is measured
relative to the largest change of this field in any item; a different verdict or text counts as a
full change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from groundup.report.page import Block, Fold
from groundup.report.table import DASH, Cell, Column, Row, Table
from groundup.report.terminal import one_line

# Items shown for each task, and characters of a text.
_SHOWN, _ROOM = 5, 160
_FACTS = ("id", "group")


@dataclass(frozen=True)
class Changed:
    """An item whose row changed: its id, its text unless it is harmful, and the changed fields."""

    task: str
    id: str
    text: str | None
    fields: Mapping[str, tuple[Any, Any]]

    def to_json(self) -> dict[str, Any]:
        fields = {name: list(both) for name, both in self.fields.items()}
        return {"task": self.task, "id": self.id, "text": self.text, "fields": fields}


def largest_changes(
    task: str,
    after: Sequence[Mapping[str, Any]],
    before: Sequence[Mapping[str, Any]],
    words: Mapping[str, str],
) -> list[Changed]:
    """Return the items of a task whose rows changed most; `words` has texts by `id`."""
    old = {row["id"]: row for row in before}
    moved = {
        str(row["id"]): fields
        for row in after
        if row["id"] in old and (fields := _changed_fields(row, old[row["id"]]))
    }
    farthest: dict[str, float] = {}
    for fields in moved.values():
        for name, both in fields.items():
            farthest[name] = max(farthest.get(name, 0.0), _distance(*both))

    def how_far(id: str) -> float:
        return sum(_distance(*both) / farthest[name] for name, both in moved[id].items())

    # The same text may be asked more than once and answered equally.
    alike: dict[tuple[str, str], Changed] = {}
    for id in sorted(moved, key=how_far, reverse=True):
        one = Changed(task, id, words.get(id), moved[id])
        alike.setdefault((words.get(id, id), repr(one.fields)), one)
    return list(alike.values())[:_SHOWN]


def _changed_fields(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the fields that differ, as (before, after)."""
    return {
        name: (old[name], value)
        for name, value in new.items()
        if name not in _FACTS and name in old and old[name] != value
    }


def _distance(one: Any, other: Any) -> float:
    """Return the distance of two values of a field; 1 if they are not numbers."""
    if isinstance(one, int | float) and isinstance(other, int | float):
        return abs(float(one) - float(other))
    return 1.0


# On a page.


def changed_blocks(changes: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> list[Block]:
    """Return a fold of the most changed items, for each pair of models and each task."""
    blocks: list[Block] = []
    columns = [Column("its words", words=True), Column("what changed", words=True)]
    for change in changes:
        by_task: dict[str, list[Row]] = {}
        for one in change["items"]:
            fields = [
                f"{name}: {_value(a)} → {_value(b)}" for name, (a, b) in one["fields"].items()
            ]
            words = "" if one["text"] is None else one_line(one["text"], _ROOM)
            cells = [Cell(words or DASH), Cell("; ".join(fields))]
            by_task.setdefault(one["task"], []).append(Row(one["id"], cells))
        for name, rows in by_task.items():
            title = f"{change['model']} against {change['other']}: {titles[name]}"
            blocks.append(Fold(title, [Table(columns, rows, corner="item")]))
    return blocks


def _value(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: DASH}[value]
    if isinstance(value, float):
        large, small = abs(value) >= 1000, abs(value) < 1e-6
        return f"{value:,.0f}" if large or small else f"{value:.3g}"
    shown = one_line(str(value), _ROOM)
    return f"“{shown}”" if " " in shown else shown
