"""The page of the values suite: the numbers of report.json between the prose of page.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from groundup.evals.measure import from_json
from groundup.evals.values.judges import judge_table
from groundup.evals.values.suite.changes import away_from
from groundup.evals.values.suite.provenance import hashes, seen, sets
from groundup.evals.values.task import AXES, CORNERS
from groundup.report.changed import changed_blocks
from groundup.report.claim import MIN_GROUPS, Better, Claim, by_outcome, mark_of
from groundup.report.estimate import Estimate
from groundup.report.figure import Plot
from groundup.report.page import (
    Block,
    Fold,
    Heading,
    Note,
    Page,
    Plots,
    claims_by_mark,
    written,
)
from groundup.report.plots import model_colors, triangle_plot
from groundup.report.table import (
    Cell,
    Column,
    Part,
    Row,
    Table,
    ends,
    number,
    percent,
    plain,
    points,
    short_number,
)
from groundup.report.terminal import in_terminal
from groundup.runs.console import console, say

KINDS = {"world": "in the small world", "real": "on sets that people made"}


def values_page(content: dict[str, Any], tested: Sequence[Claim]) -> Page:
    """Triangles, what was traded, every number with its limits, and the provenance of all."""
    models, tasks = content["models"], content["tasks"]
    titles = {name: task["title"] for name, task in tasks.items()}
    in_world = any("world" in model["axes"] for model in models.values())
    leads = (
        " The small world comes first: a program generated it, so its truth and its prejudice are "
        "known. It is never mixed with what people wrote."
    )
    blocks: dict[str, list[Block]] = {
        "look": _look(content),
        "claims": claims_by_mark(tested),
        "tax": [tax_table(content)] if content["changes"] else [],
        "scores": [score_table(content)],
        "judges": [judge_table(content["judges"])] if content["judges"] else [],
        "wins": [_wins(content)] if content["wins"] else [],
        "changed": changed_blocks(content["changes"], titles),
        "seen": seen(content),
        "sets": [sets(content)],
        "again": [hashes(content)],
    }
    for axis in AXES:
        blocks[axis] = [
            block
            for name, task in tasks.items()
            if task["axis"] == axis
            for block in _task(content, name)
        ]
    items = sum(task["items"] for task in tasks.values())
    return written(
        Path(__file__).with_suffix(".md").read_text(encoding="utf-8"),
        f"groundup values: {', '.join(models)}",
        blocks,
        content
        | {
            "count": f"{len(models)} {'model' if len(models) == 1 else 'models'}",
            "asked": f"{len(tasks)} tasks of {items:,} items",
            "world_leads": leads if in_world else "",
        },
        contents=True,
    )


# At a glance.


def triangles(content: Mapping[str, Any], kind: str) -> list[Plot]:
    """A triangle for each model that has one, with the outline of the model it is compared with."""
    models = content["models"]
    compared = {one["model"]: one["other"] for one in content["changes"]}
    drawn, colors = [], model_colors(models)
    for name, model in models.items():
        own = _corners(model, kind)
        if sum(one is not None for one in own.values()) < 2:  # a single corner draws nothing
            continue
        before = compared.get(name)
        others = {} if before is None else _corners(models[before], kind)
        outline = (before, others) if before is not None and all(others.values()) else None
        drawn.append(triangle_plot(name, own, outline, colors))
    return drawn


def _corners(model: Mapping[str, Any], kind: str) -> dict[str, Estimate | None]:
    found = from_json(model["axes"].get(kind, {}))
    return {corner: found.get(corner) for corner in CORNERS}


def _look(content: Mapping[str, Any]) -> list[Block]:
    """The triangles of the world and of real sets, and a table that adds honesty."""
    blocks: list[Block] = []
    for kind in _kinds(content):
        if drawn := triangles(content, kind):
            blocks += [Heading(f"{KINDS[kind][:1].upper()}{KINDS[kind][1:]}"), Plots(drawn)]
    return [*blocks, axis_table(content)]


def _kinds(content: Mapping[str, Any]) -> list[str]:
    return [
        kind
        for kind in KINDS
        if any(model["axes"].get(kind) for model in content["models"].values())
    ]


def axis_table(content: Mapping[str, Any]) -> Table:
    """Axes as rows, models as columns; with honesty, and the chance level of each axis."""
    rows: list[Row | Part] = []
    for kind in _kinds(content):
        if len(_kinds(content)) > 1:
            rows.append(Part(KINDS[kind]))
        found = [from_json(model["axes"].get(kind, {})) for model in content["models"].values()]
        for axis in AXES:
            having = [one[axis] for one in found if axis in one]
            if having:
                cells = [percent(one[axis]) if axis in one else None for one in found]
                rows.append(Row(axis, [*cells, _chance(having[0], as_percent=True)]))
    return _with_chance(content, rows, "axis")


def _chance(found: Estimate, as_percent: bool) -> Cell | None:
    """The score of guessing, if it is meaningful."""
    if found.chance is None:
        return None
    return plain(found.chance, True) if as_percent else Cell(f"{found.chance:.2f}")


def _with_chance(content: Mapping[str, Any], rows: Sequence[Row | Part], corner: str) -> Table:
    """A table whose last column is chance; without that column if no row has one."""
    columns = [*_columns(content), Column("chance", base=True)]
    if all(row.cells[-1] is None for row in rows if isinstance(row, Row)):
        columns.pop()
        rows = [_without_last(row) if isinstance(row, Row) else row for row in rows]
    return Table(columns, rows, corner=corner)


def _columns(content: Mapping[str, Any]) -> list[Column]:
    return [
        Column(name, f"{model['stage']}, {short_number(model['parameters'])}")
        for name, model in content["models"].items()
    ]


# What was traded.


def tax_table(content: Mapping[str, Any]) -> Table:
    """Changes as columns; first of the axes, then of each task's first number."""
    changes, tasks = content["changes"], content["tasks"]
    rows: list[Row | Part] = []
    for kind in _kinds(content):
        found = [from_json(change["axes"].get(kind, {})) for change in changes]
        of_kind = [
            Row(axis, [_moved(one[axis], "above") if axis in one else None for one in found])
            for axis in AXES
            if any(axis in one for one in found)
        ]
        rows += [Part(f"axes, {KINDS[kind]}: points"), *of_kind] if of_kind else []
    for axis in AXES:
        of_axis = []
        for name, task in tasks.items():
            first = task["numbers"][0]
            better, ideal = first["better"], first["ideal"]
            key, what = "numbers", ""
            if better is None and ideal is not None:
                key, better, what = "distances", "below", away_from(ideal, first["share"])
            found = [from_json(change[key].get(name, {})) for change in changes]
            if task["axis"] == axis and any(first["name"] in one for one in found):
                cells = [
                    _moved(one[first["name"]], better, first["share"])
                    if first["name"] in one
                    else None
                    for one in found
                ]
                unit = "points" if first["share"] else first["unit"]
                about = ", ".join(dict.fromkeys(filter(None, (first["name"], what, unit))))
                of_axis.append(Row(task["title"], cells, about))
        rows += [Part(axis), *of_axis] if of_axis else []
    columns = [Column(one["model"], f"against {one['other']}") for one in changes]
    return Table(columns, rows)


def _moved(change: Estimate, better: Better | None, share: bool = True) -> Cell:
    """A change and its interval, marked as better or worse if that is certain."""
    cell = points(change) if share else _signed(change)
    if better is None:
        return Cell(cell.value, cell.note)
    is_certain = change.groups >= MIN_GROUPS
    return Cell(cell.value, cell.note, mark=mark_of(change, better) if is_certain else "open")


def _signed(change: Estimate) -> Cell:
    return Cell(f"{change.estimate:+.3f}", ends(change, lambda one: f"{one:+.3f}"))


def score_table(content: Mapping[str, Any]) -> Table:
    """The score of every task, from 0 to 1, grouped by axis, with that of guessing."""
    rows: list[Row | Part] = []
    for axis in AXES:
        of_axis = []
        for name, task in content["tasks"].items():
            found = [from_json(model["scores"]).get(name) for model in content["models"].values()]
            having = [one for one in found if one is not None]
            if task["axis"] == axis and having:
                cells = [
                    None if one is None else _known(one, lambda score: number(score, 2))
                    for one in found
                ]
                chance = _chance(having[0], as_percent=False)
                of_axis.append(Row(task["title"], [*cells, chance], name))
        rows += [Part(axis), *of_axis] if of_axis else []
    return _with_chance(content, rows, "task")


# Tasks.


def _task(content: Mapping[str, Any], name: str) -> list[Block]:
    """A task: what is asked, all its numbers, and its limits."""
    task, models = content["tasks"][name], content["models"]
    found = [from_json(model["numbers"].get(name, {})) for model in models.values()]
    rows, parts = list[Row](), list[Row]()
    for one in task["numbers"]:
        having = [estimates[one["name"]] for estimates in found if one["name"] in estimates]
        if not having:
            continue
        shown = percent if one["share"] else number
        cells = [
            _known(estimates[one["name"]], shown) if one["name"] in estimates else None
            for estimates in found
        ]
        arrow = {"above": " ↑", "below": " ↓"}.get(one["better"], "")
        about = ", ".join(filter(None, ("" if one["share"] else one["unit"], one["about"])))
        if having[0].items < task["items"]:
            about += f"; measured on {having[0].items:,}"
        row = Row(f"{one['name']}{arrow}", [*cells, _level(one, having[0])], about)
        (rows if one["part_of"] is None else parts).append(row)
    columns = [*_columns(content), Column("chance or ideal", base=True)]
    if all(row.cells[-1] is None for row in (*rows, *parts)):
        columns.pop()
        rows, parts = ([_without_last(row) for row in some] for some in (rows, parts))
    sold = "" if task["commercial"] else " The license of its set forbids commercial use."
    judged = f" Judged by words ({task['judge']}), see the judges." if task["judge"] else ""
    about = task["about"][:1].upper() + task["about"][1:].rstrip(".")
    about += "" if about.endswith("?") else "."
    blocks: list[Block] = [
        Heading(task["title"]),
        f"{about} {task['items']:,} items.{sold}{judged}",
        Table(columns, rows, corner=name),
        Note(f"Limits: {task['limits']}"),
    ]
    if parts:
        table = Table(columns, parts, corner=name)
        blocks.insert(3, Fold(f"{len(parts)} parts of these numbers", [table]))
    return blocks


def has_interval(found: Estimate) -> bool:
    """Whether it has an interval: a single group may show no spread."""
    return found.groups > 1 or found.low < found.high


def _known(found: Estimate, shown: Callable[[Estimate], Cell]) -> Cell:
    """A number, with its interval if it has one."""
    cell = shown(found)
    return cell if has_interval(found) else Cell(cell.value, "one group, no interval")


def _without_last(row: Row) -> Row:
    return replace(row, cells=row.cells[:-1])


def _level(one: Mapping[str, Any], found: Estimate) -> Cell | None:
    """The ideal of a number, or else its chance level."""
    level = one["ideal"] if one["ideal"] is not None else found.chance
    if level is None:
        return None
    cell = plain(level, as_percent=one["share"])
    return Cell(cell.value, "ideal" if one["ideal"] is not None else "chance")


def _wins(content: Mapping[str, Any]) -> Table:
    rows = [
        Row(
            f"{one['model']} against {one['other']}",
            [percent(Estimate(**one["wins"]))],
            one["judge"],
        )
        for one in content["wins"]
    ]
    return Table([Column("wins")], rows)


# The terminal.

_LINES = 6


def say_table(content: Mapping[str, Any], tested: Sequence[Claim]) -> None:
    """Print axes and models, then the first claims of what got worse and what got better."""
    console.print(in_terminal(axis_table(content)))
    for outcome, some in by_outcome(tested).items():
        if outcome == "not significant" or not some:
            continue
        say(f"{outcome} ({len(some)})")
        for one in some[:_LINES]:
            say(f"  {one.what}: {one.model} against {one.other}, {one.change}")
        if len(some) > _LINES:
            say(f"  and {len(some) - _LINES} more on the page")
