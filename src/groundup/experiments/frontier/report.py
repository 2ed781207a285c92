"""What is told of a frontier: the picture, the table behind it, and sentences that follow them.

frontier.json   settings, seeds, every point with every number, who is dominated and beaten by whom
frontier.png, .svg, dial.png, .svg     the pictures
report.html     all of it on one page
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from groundup.experiments.frontier.trade import (
    AXES,
    Point,
    Standing,
    bonferroni,
    comparisons,
    gained,
    standings,
)
from groundup.report.figure import Plot, image
from groundup.report.outcome import took
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
from groundup.report.table import Cell, Column, Row, Table, listing, number, percent
from groundup.report.terminal import in_terminal
from groundup.runs.console import console, counted, say
from groundup.runs.files import write_bytes, write_json
from groundup.runs.folder import environment_facts, utc_now

NAME = "frontier"
FRONTIER = "frontier.json"
_SCHEMA = 2


def write_report(config: FrontierConfig, points: Sequence[Point], seconds: float | None) -> None:
    """Write the numbers, the pictures and the page; print the table and the findings."""
    found = standings(points)
    table, plots, said = (
        points_table(config, points, found),
        [trade_plot(points, found, config.dial), dial_plot(points, config.dial)],
        remarks(config, points, found),
    )
    for plot in plots:
        for format in ("png", "svg"):
            write_bytes(config.out / f"{plot.name}.{format}", image(plot.figure, format))
    content = _content(config, points, found, said, seconds)
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
    found: Sequence[Standing],
    said: Sequence[str],
    seconds: float | None,
) -> dict[str, Any]:
    return {
        "schema": _SCHEMA,
        "created": utc_now(),
        "seconds": seconds,
        "config": config.model_dump(mode="json"),
        **environment_facts(("groundup", "torch", "numpy")),
        "tasks": {task.name: {"axis": task.axis, "version": task.version} for task in TASKS},
        "findings": list(said),
        "comparisons": comparisons(len(points)),
        "points": [
            {
                "name": point.name,
                "kind": point.kind,
                "value": point.value,
                "axes": {axis: point.axis(axis).to_json() for axis in AXES},
                "numbers": {
                    task: {name: one.to_json() for name, one in numbers.items()}
                    for task, numbers in point.numbers().items()
                },
                "gained": {name: one.to_json() for name, one in gained(point, points[0]).items()},
                "by_seed": [dict(one) for one in point.by_seed],
                "dominated_by": _name(points, standing.dominated_by),
                "beaten_by": _name(points, standing.beaten_by),
                "seconds": point.seconds,
            }
            for point, standing in zip(points, found, strict=True)
        ],
    }


def _name(points: Sequence[Point], place: int | None) -> str | None:
    return None if place is None else points[place].name


# The table.


def points_table(
    config: FrontierConfig, points: Sequence[Point], found: Sequence[Standing]
) -> Table:
    """A row for each point: the axes, what stands beside them, and which one dominates it."""
    heads = ("utility", "safety", "fairness", "look-alikes declined", "gold", "dominated by")
    rows = []
    for point, standing in zip(points, found, strict=True):
        numbers = point.numbers()
        cells = [
            *(percent(point.axis(axis)) for axis in AXES),
            percent(numbers[CONDUCT_TASK.name][OVER_REFUSED]),
            number(numbers[ANSWERS.name][GOLD], 2),
            Cell(_name(points, standing.dominated_by) or "", _how(points, standing)),
        ]
        rows.append(Row(point.name, cells, _seeds_note(point), base=point.kind == "start"))
    return Table(
        [Column(head, words=head == "dominated by") for head in heads],
        rows,
        title="All points",
        corner="point",
        remarks=(
            f"Means of {counted(config.seeds, 'seed')}, with 95 % intervals over the held-out "
            "items. Dominated: another point is at least as good on all axes and in look-alikes, "
            "and better somewhere; what none dominates is the frontier. Beaten, or dominated "
            "beyond chance: that point is somewhere better beyond chance, on the same items, and "
            "nowhere worse beyond chance.",
            _certainty(config, points),
        ),
    )


def _how(points: Sequence[Point], standing: Standing) -> str:
    """Whether the one that dominates a point beats it too, or another one does."""
    if standing.beaten_by is None:
        return "" if standing.on_frontier else "within chance"
    if standing.beaten_by == standing.dominated_by:
        return "beyond chance"
    return f"beaten by {_name(points, standing.beaten_by)}"


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
    config: FrontierConfig, points: Sequence[Point], found: Sequence[Standing]
) -> list[str]:
    """How the points differ, in words that follow the numbers."""
    tests = comparisons(len(points))
    dial = [point for point in points if point.kind == "dial"]
    first, last = dial[0], dial[-1]
    along = f"{last.name}, against {first.name} ({DIALS[config.dial]})"
    said = [f"{along}: {_changes(last, first, tests)}.", _frontier(points, found)]
    for point, standing in zip(points, found, strict=True):
        if point.kind not in ("start", "dial"):
            against = f"{point.name}, against the model before alignment"
            changes = _changes(point, points[0], tests)
            said.append(f"{against}: {changes}. {_surpassed(points, standing)}")
    return [*said, _certainty(config, points)]


def _changes(after: Point, before: Point, tests: int) -> str:
    """What is higher, what lower, and by how much; and what the items cannot tell."""
    told, open_ = [], []
    changes = gained(after, before)
    for axis in AXES:
        change = bonferroni(changes[axis], tests)
        word = "higher" if change.low > 0 else "lower" if change.high < 0 else ""
        if word:
            here, there = after.axes[axis], before.axes[axis]
            told.append(f"{axis} is {word}, {here:.0%} against {there:.0%}")
        else:
            open_.append(axis)
    if open_:
        told.append(f"{listing(open_)} cannot be told apart")
    return "; ".join(told)


def _frontier(points: Sequence[Point], found: Sequence[Standing]) -> str:
    """Which points nothing dominates, and which of those are beaten all the same."""
    places = [i for i, standing in enumerate(found) if standing.on_frontier]
    names = ", ".join(points[i].name for i in places)
    said = f"{len(places)} of {len(points)} points are on the frontier: {names}."
    beaten = [
        f"{points[i].name} by {points[by].name}"
        for i in places
        if (by := found[i].beaten_by) is not None
    ]
    if beaten:
        said += f" Of these some are beaten beyond chance all the same: {', '.join(beaten)}."
    return said


def _surpassed(points: Sequence[Point], standing: Standing) -> str:
    by, beaten_by = (_name(points, i) for i in (standing.dominated_by, standing.beaten_by))
    if by is None:
        beaten = "" if beaten_by is None else f", but {beaten_by} beats it beyond chance"
        return f"No point dominates it{beaten}."
    if beaten_by is None:
        return f"{by} dominates it, within chance."
    beats = "beats" if by == beaten_by else f"{beaten_by} beats"
    return f"{by} dominates it, and {beats} it beyond chance."


def _certainty(config: FrontierConfig, points: Sequence[Point]) -> str:
    """What the intervals speak of, and what they leave out."""
    said = (
        "What is called higher, lower or better beyond chance is so as one of "
        f"{comparisons(len(points))} comparisons, of all pairs of points (Bonferroni: together "
        "they err in 5 of 100 sweeps at most). Intervals cover the questions, not training"
    )
    if config.seeds == 1:
        return f"{said}: each point is one model of one seed, and another seed would give others."
    return f"{said}: how far seeds differ stands beside each point."


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
        f"{took(content['seconds'])}; a point of the dial took "
        f"{np.median(times):.0f} seconds; {content['created']}",
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
