"""What is told of a frontier: the picture, the table behind it, and sentences that follow them.

frontier.json   settings, seeds, every point with every number, who is dominated by whom
frontier.png, .svg, dial.png, .svg     the pictures
report.html     all of it on one page
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from groundup.evals.values.world import (
    ANSWERS,
    CONDUCT_TASK,
    GOLD,
    OVER_REFUSED,
    TASKS,
)
from groundup.experiments.frontier.config import FrontierConfig
from groundup.experiments.frontier.picture import DIALS, dial_plot, trade_plot
from groundup.experiments.frontier.trade import AXES, Point, beaten_by, beats, gained
from groundup.report.figure import Plot, image
from groundup.report.outcome import seeds as counted
from groundup.report.page import (
    PAGE,
    Box,
    Listing,
    Note,
    Page,
    Plots,
    Section,
    write_page,
)
from groundup.report.table import Cell, Column, Row, Table, number, percent
from groundup.report.terminal import in_terminal
from groundup.runs.console import console, say
from groundup.runs.files import write_bytes, write_json

NAME = "frontier"
FRONTIER = "frontier.json"
_SCHEMA = 1


def write_report(config: FrontierConfig, points: Sequence[Point], seconds: float) -> None:
    """Write the numbers, the pictures and the page; print the table and the findings."""
    beaten = beaten_by(points)
    table, plots, said = (
        points_table(config, points, beaten),
        [trade_plot(points, beaten, config.dial), dial_plot(points, config.dial)],
        remarks(config, points, beaten),
    )
    for plot in plots:
        for format in ("png", "svg"):
            write_bytes(config.out / f"{plot.name}.{format}", image(plot.figure, format))
    content = _content(config, points, beaten, said, seconds)
    write_json(config.out / FRONTIER, content)
    write_page(config.out / PAGE, _page(content, table, plots, said))
    console.print(in_terminal(table))
    for remark in said:
        say(f"- {remark}")
    say(f"\n{config.out / PAGE}")


# Numbers.


def _content(
    config: FrontierConfig,
    points: Sequence[Point],
    beaten: Sequence[int | None],
    said: Sequence[str],
    seconds: float,
) -> dict[str, Any]:
    packages = ("groundup", "torch", "numpy")
    return {
        "schema": _SCHEMA,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": seconds,
        "config": config.model_dump(mode="json"),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
        "tasks": {task.name: {"axis": task.axis, "version": task.version} for task in TASKS},
        "findings": list(said),
        "points": [
            {
                "name": point.name,
                "kind": point.kind,
                "value": point.value,
                "axes": {axis: point.axis(axis).to_json() for axis in AXES},
                "numbers": {
                    task: {name: one.to_json() for name, one in found.items()}
                    for task, found in point.numbers().items()
                },
                "gained": {axis: one.to_json() for axis, one in gained(point, points[0]).items()},
                "by_seed": [dict(one) for one in point.by_seed],
                "beaten_by": None if by is None else points[by].name,
                "beyond_chance": by is not None and beats(points[by], point),
                "seconds": point.seconds,
            }
            for point, by in zip(points, beaten, strict=True)
        ],
    }


# The table.


def points_table(
    config: FrontierConfig, points: Sequence[Point], beaten: Sequence[int | None]
) -> Table:
    """A row for each point: the axes, what stands beside them, and who beats it."""
    heads = (
        "utility",
        "safety",
        "fairness",
        "look-alikes declined",
        "gold",
        "beaten by",
    )
    rows = []
    for point, by in zip(points, beaten, strict=True):
        numbers = point.numbers()
        by_name = "" if by is None else points[by].name
        note = "" if by is None or beats(points[by], point) else "within chance"
        cells = [
            *(percent(point.axis(axis)) for axis in AXES),
            percent(numbers[CONDUCT_TASK.name][OVER_REFUSED]),
            number(numbers[ANSWERS.name][GOLD], 2),
            Cell(by_name, note),
        ]
        rows.append(Row(point.name, cells, _seeds_note(point), base=point.kind == "start"))
    return Table(
        [Column(head, words=head == "beaten by") for head in heads],
        rows,
        title="All points",
        corner="point",
        remarks=(
            f"Means of {counted(config.seeds)}, with 95 % intervals over the held-out items. "
            "Beaten: another point is better on some axis beyond chance, on the same items, and "
            "worse on none, declining no more look-alikes; within chance: it is at least as good "
            "on all three, but by no more than chance gives. What has no name there is the "
            "frontier.",
        ),
    )


def _seeds_note(point: Point) -> str:
    """The least and the greatest utility and safety of the seeds, where there are several."""
    if len(point.by_seed) < 2 or point.kind == "start":
        return ""
    ends = [
        f"{axis} {100 * min(found):.0f} to {100 * max(found):.0f}"
        for axis in ("utility", "safety")
        for found in [[one[axis] for one in point.by_seed]]
    ]
    return f"seeds: {', '.join(ends)}"


# Sentences.


def remarks(
    config: FrontierConfig, points: Sequence[Point], beaten: Sequence[int | None]
) -> list[str]:
    """What was traded for what, in words that follow the numbers."""
    dial = [point for point in points if point.kind == "dial"]
    said = [_along(config, dial)]
    best = [point.name for point, by in zip(points, beaten, strict=True) if by is None]
    said.append(
        f"{len(best)} of {len(points)} points are on the frontier: {', '.join(best)}. Whoever "
        "wants more of one axis than the best of them pays for it on another."
    )
    for point, by in zip(points, beaten, strict=True):
        if point.kind not in ("start", "dial"):
            said.append(_of_strategy(point, points, by))
    return said


def _along(config: FrontierConfig, dial: Sequence[Point]) -> str:
    first, last = dial[0], dial[-1]
    return f"From {first.name} to {last.name} ({DIALS[config.dial]}) {_changes(last, first)}."


def _changes(after: Point, before: Point) -> str:
    """What rises, what falls, from where to where; and what the items cannot tell."""
    told, open_ = [], []
    for axis, change in gained(after, before).items():
        word = "rises" if change.low > 0 else "falls" if change.high < 0 else ""
        if word:
            here, there = before.axes[axis], after.axes[axis]
            told.append(f"{axis} {word} from {here:.0%} to {there:.0%}")
        else:
            open_.append(axis)
    if open_:
        told.append(f"{' and '.join(open_)} cannot be told from before")
    return "; ".join(told)


def _of_strategy(point: Point, points: Sequence[Point], by: int | None) -> str:
    against = f"{point.name}, against the model before alignment: {_changes(point, points[0])}"
    if by is None:
        return f"{against}. No point beats it."
    how = "beyond chance" if beats(points[by], point) else "within chance"
    return f"{against}. {points[by].name} beats it, {how}."


# The page.


def _page(
    content: Mapping[str, Any], table: Table, plots: Sequence[Plot], said: Sequence[str]
) -> Page:
    config = content["config"]
    opening: list[Any] = []
    if config["quick"]:
        opening.append(Note("This is the miniature (`--quick`), which shows that everything runs."))
    opening.append(Box("", list(said)))
    what = [f"**{task.axis}** ({task.title}): {task.about} {task.limits}" for task in TASKS]
    times = [one["seconds"] for one in content["points"] if one["kind"] == "dial"]
    lines = [
        f"groundup {NAME} {config['model']}",
        ", ".join(f"{key}={value}" for key, value in config.items() if key != "out"),
        "",
        ", ".join(f"{package} {found}" for package, found in content["versions"].items()),
        f"{content['machine']['system']}, {content['machine']['cores']} cores; "
        f"{content['seconds']:.0f} seconds, of which a point of the dial took "
        f"{np.median(times):.0f}; {content['created']}",
    ]
    return Page(
        title="groundup frontier",
        heading="Utility, safety, fairness",
        lead="What is one paid for in the other, and must it be? Every point is a model, asked the "
        "same held-out questions of the small world, whose truth is known.",
        opening=opening,
        sections=[
            Section("The frontier", "frontier", [Plots(plots[:1])]),
            Section("Along the dial", "dial", [Plots(plots[1:])]),
            Section("All points", "points", [table]),
            Section("What is measured", "measured", [*map(Note, what)]),
            Section("How to make it again", "again", [Listing("\n".join(lines))]),
        ],
    )
