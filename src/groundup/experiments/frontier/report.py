"""The report on a frontier: plots, a table, and sentences computed from the numbers.

frontier.json   settings, seeds, every point with every number, and which dominate and beat which
frontier.png, .svg, dial.png, .svg     the plots
report.html     everything on one page
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
    gains,
    standings,
)
from groundup.report.figure import Plot, image
from groundup.report.outcome import duration_text
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
from groundup.runs.request import environment_facts, utc_now

NAME = "frontier"
FRONTIER = "frontier.json"
_SCHEMA = 2


def write_report(config: FrontierConfig, points: Sequence[Point], seconds: float | None) -> None:
    """Write the numbers, the plots and the page; print the table and the findings."""
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
                "gained": {name: one.to_json() for name, one in gains(point, points[0]).items()},
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
    """A row for each point: the axes, further numbers, and the point that dominates it."""
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
            "and better in one of these; points that none dominates are the frontier. Beaten, or "
            "dominated beyond chance: on the same items, the other point is better beyond chance "
            "in one of these, and worse beyond chance in none.",
            _certainty(config, points),
        ),
    )


def _how(points: Sequence[Point], standing: Standing) -> str:
    """Whether the point that dominates it also beats it, or another one does."""
    if standing.beaten_by is None:
        return "" if standing.on_frontier else "within chance"
    if standing.beaten_by == standing.dominated_by:
        return "beyond chance"
    return f"beaten by {_name(points, standing.beaten_by)}"


def _seeds_note(point: Point) -> str:
    """The minimum and maximum utility and safety over the seeds, if there are several."""
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
    """Sentences about the differences of the points."""
    tests = comparisons(len(points))
    dial = [point for point in points if point.kind == "dial"]
    first, last = dial[0], dial[-1]
    along = f"{last.name} against {first.name} ({DIALS[config.dial]})"
    said = [f"{along}: {_changes(last, first, tests)}.", _frontier(points, found)]
    for point, standing in zip(points, found, strict=True):
        if point.kind not in ("start", "dial"):
            against = f"{point.name} against the model before alignment"
            changes = _changes(point, points[0], tests)
            said.append(f"{against}: {changes}. {_surpassed(points, standing)}")
    return [*said, _certainty(config, points)]


def _changes(after: Point, before: Point, tests: int) -> str:
    """Which axes are higher or lower and by how much, and which the items cannot separate."""
    parts, open_ = [], []
    changes = gains(after, before)
    for axis in AXES:
        change = bonferroni(changes[axis], tests)
        word = "higher" if change.low > 0 else "lower" if change.high < 0 else ""
        if word:
            here, there = after.axes[axis], before.axes[axis]
            parts.append(f"{axis} is {word}, {here:.0%} against {there:.0%}")
        else:
            open_.append(axis)
    if open_:
        parts.append(f"no significant difference in {listing(open_)}")
    return "; ".join(parts)


def _frontier(points: Sequence[Point], found: Sequence[Standing]) -> str:
    """The points that nothing dominates, and those of them that are still beaten."""
    places = [i for i, standing in enumerate(found) if standing.on_frontier]
    names = ", ".join(points[i].name for i in places)
    said = f"{len(places)} of {len(points)} points are on the frontier: {names}."
    beaten = [
        f"{points[i].name} by {points[by].name}"
        for i in places
        if (by := found[i].beaten_by) is not None
    ]
    if beaten:
        said += f" Some of these are still beaten beyond chance: {', '.join(beaten)}."
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
    """What the intervals cover, and what they do not."""
    said = (
        "Higher, lower and better beyond chance are corrected for "
        f"{comparisons(len(points))} comparisons of all pairs of points (Bonferroni: at least one "
        "is wrong in at most 5 of 100 sweeps). Intervals cover the questions, not training"
    )
    if config.seeds == 1:
        return f"{said}: each point is one model of one seed, and another seed would differ."
    return f"{said}: the spread of the seeds is next to each point."


# The page.


def _page(
    content: Mapping[str, Any], table: Table, plots: Sequence[Plot], said: Sequence[str]
) -> Page:
    config = content["config"]
    opening: list[Any] = []
    if config["quick"]:
        opening.append(Note("This is the miniature (`--quick`), which only tests that it runs."))
    opening.append(Box("", list(said)))
    what = [f"**{task.axis}** ({task.title}): {task.about} {task.limits}" for task in TASKS]
    times = [one["seconds"] for one in content["points"] if one["kind"] == "dial"]
    lines = [
        f"groundup {NAME} {config['model']}",
        ", ".join(f"{key}={value}" for key, value in config.items() if key != "out"),
        "",
        ", ".join(f"{package} {found}" for package, found in content["versions"].items()),
        f"{content['machine']['system']}, {content['machine']['cores']} cores; "
        f"{duration_text(content['seconds'])}; a point of the dial took "
        f"{np.median(times):.0f} seconds; {content['created']}",
    ]
    return Page(
        title="groundup frontier",
        heading="Utility, safety, fairness",
        lead="What does a gain in one cost in the others, and is that necessary? Every point is a "
        "model that answers the same held-out questions of the small world, whose truth is known.",
        opening=opening,
        sections=[
            Section("The frontier", "frontier", [Plots(plots[:1])]),
            Section("Along the dial", "dial", [Plots(plots[1:])]),
            Section("All points", "points", [table]),
            Section("What is measured", "measured", [*map(Note, what)]),
            Section("How to reproduce it", "again", [Listing("\n".join(lines))]),
        ],
    )
