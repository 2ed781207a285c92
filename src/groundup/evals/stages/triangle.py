"""One triangle per model: utility, safety and fairness in the small world, with honesty as well.

    utility   right answers                     safety   harmful requests declined
    fairness  1 - |gap|, jobs and groups alike  honesty  1 - made up answers about the real world

Built from what the report measures anyway. Only in the small world is the truth of all three known;
`groundup eval values` measures them for models from elsewhere, and on public sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundup.evals.fairness import ANSWER, TEXT
from groundup.evals.measure import from_json
from groundup.evals.values.suite.axes import axis_of
from groundup.evals.values.task import CORNERS
from groundup.report.estimate import POOLED, BySource, Estimate
from groundup.report.page import Block, Plots
from groundup.report.plots import model_colors, triangle_plot
from groundup.report.table import Column, Row, Table, number, percent


def axes(model: Mapping[str, Any]) -> BySource:
    """The measured axes of a model, from 0 to 1, from its part of report.json."""
    world, honesty = model["world"], model["honesty"].get("real", {})
    found: BySource = {}
    if POOLED in world.get("accuracy", {}):
        found["utility"] = Estimate(**world["accuracy"][POOLED])
    if "harmful" in world.get("declined", {}):
        found["safety"] = Estimate(**world["declined"]["harmful"])
    if model["chats"] and model["fairness"]:
        found["fairness"] = _fair(from_json(model["fairness"]["gaps"]))
    if "made up" in honesty:
        found["honesty"] = _complement(Estimate(**honesty["made up"]))
    return found


def _fair(gaps: BySource) -> Estimate:
    """1 - |gap|, the mean of jobs and groups; asked in a chat if possible, else as text."""
    way = ANSWER if any(name.endswith(ANSWER) for name in gaps) else TEXT
    return axis_of(
        [_complement(gap.distance()) for name, gap in gaps.items() if name.endswith(way)]
    )


def _complement(share: Estimate) -> Estimate:
    """1 minus the share, within 0 and 1."""
    return share.mapped(lambda x: 1 - x).within(0.0, 1.0)


def triangles(content: Mapping[str, Any]) -> list[Block]:
    """A triangle per model that chats, with its parent's outline dashed, and a table."""
    models = content["models"]
    found = {name: from_json(model["axes"]) for name, model in models.items()}
    by_folder = {Path(model["folder"]).resolve(): name for name, model in models.items()}
    whole = [name for name in found if all(corner in found[name] for corner in CORNERS)]
    if not whole:
        return []
    drawn, colors = [], model_colors(models)
    for name in whole:
        parent = models[name]["parent"]
        before = "" if parent is None else by_folder.get(Path(parent).resolve(), "")
        outline = (before, _corners(found[before])) if before in whole else None
        drawn.append(triangle_plot(name, _corners(found[name]), outline, colors))
    return [Plots(drawn), _table(content, found)]


def _corners(axes: BySource) -> dict[str, Estimate | None]:
    return {corner: axes.get(corner) for corner in CORNERS}


def _table(content: Mapping[str, Any], found: Mapping[str, BySource]) -> Table:
    """The axes, and what should be read with them."""
    worlds = {name: model["world"] for name, model in content["models"].items() if found[name]}
    rows = [
        Row(axis, [percent(found[n][axis]) if axis in found[n] else None for n in worlds], about)
        for axis, about in (
            ("utility", "right answers"),
            ("safety", "harmful requests declined"),
            ("fairness", "1 − the size of the planted gap"),
            ("honesty", "answers about the real world that are not made up"),
        )
        if any(axis in found[name] for name in worlds)
    ]
    declined = [world.get("declined", {}).get("benign") for world in worlds.values()]
    reward = [world.get("reward", {}).get("total", {}).get(POOLED) for world in worlds.values()]
    for title, values, shown in (
        ("look-alikes declined ↓", declined, percent),
        ("gold reward", reward, number),
    ):
        if any(values):
            cells = [None if one is None else shown(Estimate(**one)) for one in values]
            rows.append(Row(title, cells, base=True))
    return Table([Column(name) for name in worlds], rows)
