"""The plots of a frontier: all points by their axes, and the axes along the dial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.ticker import PercentFormatter
from matplotlib.transforms import Bbox

from groundup.experiments.frontier.trade import AXES, Point, Standing
from groundup.report.figure import Plot
from groundup.report.plots import COLORS, GREY, error_bars, legend, panels

# Axis labels with the measure.
LABELS = {
    "utility": "utility: questions answered right",
    "safety": "safety: harmful requests declined",
    "fairness": "fairness: 1 − planted gap",
}
DIALS = {
    "mix": "share of harmless pairs against helpful ones",
    "fairness": "share of balanced pairs",
    "kl": "KL coefficient",
}
_MAP = "viridis"
# Marker and size of each kind of point.
_MARKS = {
    "start": ("*", 190),
    "dial": ("o", 62),
    "balanced": ("s", 66),
    "constraint": ("^", 78),
    "soups": ("D", 50),
    "system-prompt": ("P", 80),
    "guard": ("X", 80),
}
_KINDS = {
    "start": "before alignment",
    "dial": "the dial",
    "balanced": "balanced mix",
    "constraint": "PPO, with or without a cost limit",
    "soups": "soup of weights",
    "system-prompt": "system prompt",
    "guard": "guard",
}

# The largest distance in points between a name and its marker without a leader line.
_NEAR = 9
_LEADER = {"arrowstyle": "-", "color": "#aaaaaa", "linewidth": 0.6, "shrinkB": 3}


def trade_plot(points: Sequence[Point], found: Sequence[Standing], dial: str) -> Plot:
    """Utility to the right, safety upwards, fairness as color; dominated points are pale, small."""
    figure, [[axes]] = panels(width=8.6, height=6.0)
    fairness = [point.axes["fairness"] for point in points]
    room = max(0.01, 0.05 * (max(fairness) - min(fairness)))
    highest = min(1.0, max(fairness) + room)
    # A range of at least 0.1, so that tiny differences do not get different colors.
    shades = Normalize(min(min(fairness) - room, highest - 0.1), highest)
    swept = [point for point in points if point.kind == "dial"]
    soups = [point for point in points if point.kind == "soups"]
    if soups and dial == "mix":  # its ends are those of the dial
        soups = [swept[0], *soups, swept[-1]]
    for some, how in ((swept, "-"), (soups, "--")):
        right, up = ([one.axes[axis] for one in some] for axis in ("utility", "safety"))
        axes.plot(right, up, how, color="#999999", linewidth=1, zorder=1)
    for point, standing in zip(points, found, strict=True):
        _draw(axes, point, standing.on_frontier, shades)
    for kind in dict.fromkeys(point.kind for point in points):
        marker, size = _MARKS[kind]
        axes.scatter([], [], marker=marker, s=0.7 * size, color="#666666", label=_KINDS[kind])
    axes.set_xlabel(LABELS["utility"])
    axes.set_ylabel(LABELS["safety"])
    axes.xaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
    bar = figure.colorbar(ScalarMappable(shades, _MAP), ax=axes, pad=0.02)
    bar.set_label(LABELS["fairness"])
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1, 0))
    legend(figure, most=4)
    _name_all(axes, points, found)
    return Plot(
        "frontier",
        "Utility against safety, with fairness as color; further right, higher and lighter is "
        "better. A black rim marks the frontier; pale points are dominated by another one. Lines "
        "are 95 % intervals.",
        figure,
    )


def _draw(axes: Axes, point: Point, is_best: bool, shades: Normalize) -> None:
    """A point with its intervals; one on the frontier has a rim."""
    marker, size = _MARKS[point.kind]
    x, y = point.axis("utility"), point.axis("safety")
    axes.errorbar(
        x.estimate,
        y.estimate,
        xerr=error_bars([x]),
        yerr=error_bars([y]),
        color="#cccccc",
        linewidth=0.7,
        zorder=0,
    )
    axes.scatter(
        [x.estimate],
        [y.estimate],
        c=[point.axes["fairness"]],
        cmap=_MAP,
        norm=shades,
        marker=marker,
        s=size if is_best else 0.55 * size,
        alpha=1.0 if is_best else 0.55,
        edgecolors="black" if is_best else "none",
        linewidths=1.1,
        zorder=3,
    )


def _name_all(axes: Axes, points: Sequence[Point], found: Sequence[Standing]) -> None:
    """Place names next to the points so that they cover no other point and no other name.

    Points that coincide share one label; a label far from its point gets a leader line.
    """
    figure = cast(Figure, axes.figure)
    figure.draw_without_rendering()  # fixes the positions
    places = np.array([[one.axes["utility"], one.axes["safety"]] for one in points])
    at = axes.transData.transform(places)
    room = 5 * figure.dpi / 72
    marks = [Bbox.from_bounds(x - room, y - room, 2 * room, 2 * room) for x, y in at]
    heaps: list[list[int]] = []
    for i in range(len(points)):
        near = (heap for heap in heaps if np.hypot(*(at[heap[0]] - at[i])) < room)
        if (heap := next(near, None)) is None:
            heaps.append([i])
        else:
            heap.append(i)
    named: list[Bbox] = []

    def outside(box: Bbox) -> int:
        frame = axes.bbox
        return sum((box.x0 < frame.x0, box.x1 > frame.x1, box.y0 < frame.y0, box.y1 > frame.y1))

    for heap in heaps:
        shorts = list(dict.fromkeys(_short(points[i]) for i in heap))
        lines = [", ".join(shorts[start : start + 3]) for start in range(0, len(shorts), 3)]
        is_best = any(found[i].on_frontier for i in heap)
        names = [
            axes.annotate(
                ",\n".join(lines),
                (float(places[heap[0], 0]), float(places[heap[0], 1])),
                xytext=(x * step, y * step),
                textcoords="offset points",
                ha="left" if x > 0 else "right",
                va="bottom" if y > 0 else "top",
                fontsize=7.5,
                color="black" if is_best else "#888888",
                arrowprops=_LEADER if step > _NEAR else None,
                zorder=4,
            )
            for step in (4, _NEAR, 16, 24, 36, 52)
            for x, y in ((1, 1), (1, -1), (-1, 1), (-1, -1))
        ]
        boxes = [text_box(name) for name in names]
        others = [*(mark for i, mark in enumerate(marks) if i not in heap), *named]
        covered = [box.count_overlaps(others) + outside(box) for box in boxes]
        best = covered.index(min(covered))
        named.append(boxes[best])
        for name in (*names[:best], *names[best + 1 :]):
            name.remove()


def text_box(name: Annotation) -> Bbox:
    """The text's box without its leader line, which may cross others."""
    name.get_window_extent()  # positions the text
    box: Bbox = Text.get_window_extent(name)
    return box


def _short(point: Point) -> str:
    return f"{point.value:.2g}" if point.kind in ("dial", "soups") else point.name


def dial_plot(points: Sequence[Point], dial: str) -> Plot:
    """Each axis along the dial, with the model before it as a dotted line."""
    figure, [row] = panels(1, len(AXES), width=9.6, height=3.4)
    swept = [point for point in points if point.kind == "dial"]
    at = np.array([point.value for point in swept], float)
    for axes, axis, color in zip(row, AXES, COLORS, strict=False):
        found = [point.axis(axis) for point in swept]
        axes.plot(at, [one.estimate for one in found], "o-", color=color, markersize=4)
        axes.fill_between(
            at,
            [one.low for one in found],
            [one.high for one in found],
            color=color,
            alpha=0.15,
            linewidth=0,
        )
        for one in points:
            if one.kind == "start":
                axes.axhline(one.axes[axis], color=GREY, linestyle=":", linewidth=1.2)
        axes.set_title(axis)
        axes.set_xlabel(DIALS[dial], fontsize=8.5)
        axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
        if dial == "kl":
            axes.set_xscale("log")
    return Plot(
        "dial",
        f"Each axis along the dial ({DIALS[dial]}), with 95 % intervals; dotted: the model before "
        "alignment.",
        figure,
    )
