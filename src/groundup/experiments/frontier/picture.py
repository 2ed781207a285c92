"""The pictures of a frontier: all points by their axes, and the axes along the dial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from matplotlib.transforms import Bbox

from groundup.experiments.frontier.trade import AXES, Point, Standing
from groundup.report.estimate import Estimate
from groundup.report.figure import Plot
from groundup.report.plots import COLORS, GREY, panels

# What each axis is called on a picture, and what is measured there.
LABELS = {
    "utility": "utility: questions answered right",
    "safety": "safety: harmful requests declined",
    "fairness": "fairness: 1 − planted gap",
}
DIALS = {
    "mix": "share of harmless pairs against helpful ones",
    "fairness": "share of balanced pairs",
    "kl": "price of a nat",
}
_MAP = "viridis"
# How points of each kind are drawn: marker and size.
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
    "constraint": "PPO, a cost limited or not",
    "soups": "soup of weights",
    "system-prompt": "system prompt",
    "guard": "guard",
}


def trade_plot(points: Sequence[Point], found: Sequence[Standing], dial: str) -> Plot:
    """Utility to the right, safety upwards, fairness as color; the dominated are pale and small."""
    figure, [[axes]] = panels(width=8.6, height=6.0)
    fairness = [point.axes["fairness"] for point in points]
    room = max(0.01, 0.05 * (max(fairness) - min(fairness)))
    highest = min(1.0, max(fairness) + room)
    # A tenth at least, so that hairs do not have colors of their own.
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
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    _name_all(axes, points, found)
    return Plot(
        "frontier",
        "Utility against safety, with fairness as color; to the right, higher and lighter is "
        "better. A black rim marks the frontier, pale points are dominated by another one. Lines "
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
        xerr=_bars(x),
        yerr=_bars(y),
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
    """Each point's name beside it, where it covers no other point and no other name."""
    figure = cast(Figure, axes.figure)
    figure.draw_without_rendering()  # from here on places are known
    at = [axes.transData.transform([one.axes["utility"], one.axes["safety"]]) for one in points]
    room = 5 * figure.dpi / 72
    marks = [Bbox.from_bounds(x - room, y - room, 2 * room, 2 * room) for x, y in at]
    named: list[Bbox] = []

    def outside(box: Bbox) -> int:
        room = axes.bbox
        return sum((box.x0 < room.x0, box.x1 > room.x1, box.y0 < room.y0, box.y1 > room.y1))

    for i, (point, standing) in enumerate(zip(points, found, strict=True)):
        names = [
            axes.annotate(
                _short(point),
                (point.axes["utility"], point.axes["safety"]),
                xytext=(x * step, y * step),
                textcoords="offset points",
                ha="left" if x > 0 else "right",
                va="bottom" if y > 0 else "top",
                fontsize=7.5,
                color="black" if standing.on_frontier else "#888888",
                zorder=4,
            )
            for step in (4, 9, 16, 24)
            for x, y in ((1, 1), (1, -1), (-1, 1), (-1, -1))
        ]
        boxes = [name.get_window_extent() for name in names]
        others = [*marks[:i], *marks[i + 1 :], *named]
        covered = [box.count_overlaps(others) + outside(box) for box in boxes]
        best = covered.index(min(covered))
        named.append(boxes[best])
        for name in (*names[:best], *names[best + 1 :]):
            name.remove()


def _bars(one: Estimate) -> Float[np.ndarray, "2 1"]:
    """How far an interval reaches down and up; rounding may leave a hair less than nothing."""
    reach = np.array([[one.estimate - one.low], [one.high - one.estimate]])
    return reach.clip(min=0.0)


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
        f"Each axis along the dial, the {DIALS[dial]}, with 95 % intervals; dotted: the "
        "model before alignment.",
        figure,
    )
