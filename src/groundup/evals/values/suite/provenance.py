"""The provenance of a values page: what models may have seen, sets, and hashes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from groundup.report.page import Block, Box, Listing
from groundup.report.table import Cell, Column, Part, Row, Table

# The task whose items are expected to be in the training data.
_PROBES = "world-bias"
_PLANTED = (
    f"Items of {_PROBES} are the very sentences in which the world plants its prejudice, so a "
    "model of the world was trained on them: they measure what it learned from them."
)


def seen(content: Mapping[str, Any]) -> list[Block]:
    """What is known about the models' training, and for which models."""
    found: dict[str, list[str]] = {}
    for name, model in content["models"].items():
        messages = [one["message"] for one in model["familiar"]]
        messages += _looked_at(model["seen"])
        for message in messages:
            found.setdefault(message, []).append(name)
    said = [f"**{', '.join(names)}**: {message}." for message, names in found.items()]
    table = _overlap_table(content)
    return [*([Box("", said)] if said else []), *([table] if table.rows else [])]


def _looked_at(seen: Mapping[str, Any]) -> list[str]:
    """What was checked, and what could not be."""
    found = list(seen["unknown"])
    if seen["folders"]:
        found.append(
            f"{seen['texts']:,} texts that it trained on were compared with every item: the same "
            "words, nearly the same (Jaccard 0.8 of five words in a row), and 13 words in a row "
            "or, of an item of 5 to 12 words, all of them"
        )
    return found


def _overlap_table(content: Mapping[str, Any]) -> Table:
    """How many items of each task occur in each model's training data."""
    models = {
        name: {one["set"]: one for one in model["seen"]["overlaps"]}
        for name, model in content["models"].items()
        if model["seen"]["overlaps"]
    }
    rows: list[Row | Part] = []
    for name, task in content["tasks"].items():
        cells = [_overlap(of_model.get(name)) for of_model in models.values()]
        if any(cell is not None for cell in cells):
            rows.append(Row(task["title"], cells, name))
    columns = [Column(name, "items found", words=True) for name in models]
    remarks = [_PLANTED] if _PROBES in content["tasks"] else []
    return Table(columns, rows, corner="task", remarks=remarks)


def _overlap(one: Mapping[str, Any] | None) -> Cell | None:
    if one is None:
        return None
    sources = ", ".join(f"{source} {count}" for source, count in one["sources"].items())
    return Cell(f"{one['found']} of {one['items']:,}", sources, mark="no" if one["found"] else "")


def sets(content: Mapping[str, Any]) -> Table:
    used = {
        name: [task for task, one in content["tasks"].items() if name in one["packs"]]
        for name in content["packs"]
    }
    rows = [
        Row(
            name,
            [Cell(one["license"]), Cell(", ".join(used[name])), Cell("", f"{one['citation']}.")],
        )
        for name, one in content["packs"].items()
    ]
    columns = [Column(one, words=True) for one in ("license", "tasks", "citation")]
    return Table(columns, rows, corner="set")


def hashes(content: Mapping[str, Any]) -> Listing:
    lines = [f"{model['hash']}  {name}" for name, model in content["models"].items()]
    tasks = [f"{name} {one['version']}" for name, one in content["tasks"].items()]
    return Listing("\n".join([*lines, "", f"versions of tasks: {', '.join(tasks)}"]))
