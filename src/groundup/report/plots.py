"""The plots of all pages and experiments, in a common style.

In SVG their text is drawn as shapes, so they look the same everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, cycle
from textwrap import wrap
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from groundup.maths.calibration import ReliabilityBin, draw_reliability
from groundup.maths.intervals import Interval
from groundup.report.estimate import BySource, Estimate
from groundup.report.figure import WIDTH, Plot, drawing
from groundup.report.history import Curve, History
from groundup.report.table import short_number
from groundup.runs.console import three_digits

# Colors that are distinguishable with color blindness (Okabe and Ito 2008).
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# Used with the colors, to distinguish series in black and white, and more series than colors.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "p", ">", "h", "*")
_LINES: tuple[Any, ...] = (
    "-",
    "--",
    "-.",
    (0, (6, 1, 1, 1, 1, 1)),
    (0, (9, 2)),
    (0, (3, 2)),
)
# Markers of baselines, which are grey.
_BASE_MARKERS = ("x", "1", "2", "+")
GREY = "#777777"
_INK = "#222222"
BASELINE: dict[str, Any] = {"color": GREY, "linestyle": ":", "linewidth": 1.2}
"""The style of a baseline, such as chance."""
_HEIGHT = 3.5
# Characters of a title or a label that fit into a figure of the page's width.
_LETTERS = 52


@dataclass(frozen=True)
class Look:
    """The style of one series; each part is an argument of matplotlib's `plot`."""

    color: str
    marker: str
    linestyle: Any
    hollow: bool = False

    @property
    def line(self) -> dict[str, Any]:
        return {"color": self.color, "linestyle": self.linestyle}

    @property
    def both(self) -> dict[str, Any]:
        return self.line | self.marks

    @property
    def marks(self) -> dict[str, Any]:
        # White is the background, which a dark page inverts.
        face = "white" if self.hollow else self.color
        return {"color": self.color, "marker": self.marker, "markerfacecolor": face}


def look(place: int) -> Look:
    """Return the look of series number `place`; the first 24 are all different.

    When colors repeat, markers are hollow and line styles change; then the markers change.
    """
    turn, number = divmod(place, len(COLORS))
    marker = _MARKERS[(turn // 2 * len(COLORS) + number) % len(_MARKERS)]
    return Look(COLORS[number], marker, _LINES[(number + turn) % len(_LINES)], turn % 2 == 1)


def looks(*names: Iterable[str]) -> dict[str, Look]:
    """Return a look for each name, by its first position among all names."""
    return {name: look(place) for place, name in enumerate(dict.fromkeys(chain(*names)))}


def panels(
    rows: int = 1, columns: int = 1, *, width: float = WIDTH, height: float = _HEIGHT
) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure of `width` by `height` inches, and its axes by row and column."""
    with drawing():
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
    return figure, [list(row) for row in axes]


def titled(title: str, height: float = _HEIGHT) -> tuple[Figure, Axes]:
    """Return a figure of one panel with a title; `height` in inches."""
    figure, [[axes]] = panels(height=height)
    with drawing():
        axes.set_title(_wrapped(_as_text(title)))
    return figure, axes


def error_bars(found: Sequence[Interval]) -> Float[np.ndarray, "2 n"]:
    """Return the lengths of intervals' bars as matplotlib takes them: below, then above.

    Rounding may make them slightly negative, which matplotlib refuses; these are 0.
    """
    below = [one.estimate - one.low for one in found]
    above = [one.high - one.estimate for one in found]
    return np.array([below, above]).clip(min=0.0)


def frame_of_picture(axes: Axes) -> None:
    """Show only the frame of the axes, for pictures without scales."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(True)


def model_colors(*names: Iterable[str]) -> dict[str, str]:
    """Return a color for each name, by its first position among all names."""
    return {name: one.color for name, one in looks(*names).items()}


def legend(
    figure: Figure, series: Mapping[str, Any] = {}, *, most: int = 3, size: int = 10
) -> None:
    """Add a legend below the figure, in as many columns as fit, at most `most`.

    `series` are the artists by label; by default all artists with a label, each label once.
    """
    found = dict(series)
    if not series:
        for axes in figure.axes:
            handles, labels = axes.get_legend_handles_labels()
            found = dict(zip(labels, handles, strict=True)) | found
    # Smaller letters are narrower, and a wider figure has room for more.
    letters = int(_LETTERS * figure.get_figwidth() / WIDTH * 10 / size)
    names = [_wrapped(name, letters) for name in found]
    for columns in range(min(most, len(found)), 0, -1):
        drawn = figure.legend(
            found.values(),
            names,
            loc="outside lower center",
            ncols=columns,
            frameon=False,
            fontsize=size,
        )
        with drawing():
            extent = drawn.get_window_extent()
        if columns == 1 or extent.width <= figure.bbox.width:
            # Two and a half lines fit; a taller legend makes the figure taller.
            more = extent.height / figure.dpi - 2.5 * 1.5 * size / 72
            figure.set_figheight(figure.get_figheight() + max(0.0, more))
            return
        drawn.remove()


# Figures that several pages use. `models` are the models of the page, so that a model has the same
# color in all figures.


def heldout_plot(
    title: str, curve: Curve, levels: Mapping[str, float], color: str = COLORS[0]
) -> Plot:
    """Plot a held-out measure over the tokens read, with reference levels.

    A start far above all later values is cut off, and the caption says so.
    """
    figure, axes = titled(title)
    axes.plot(curve.tokens, curve.values, "o-", color=color, markersize=4)
    # A curve that starts above the lines reaches them at the right.
    at_left = bool(levels) and curve.values[0] > max(levels.values())
    for number, (name, level) in enumerate(sorted(levels.items(), key=lambda one: -one[1])):
        # The highest line has its label above and the others below, since two are often close.
        above = number == 0
        axes.axhline(level, **BASELINE)
        axes.annotate(
            f"{_as_text(name)}  {level:.3f}",
            (0.01 if at_left else 1.0, level),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3 if above else -3),
            textcoords="offset points",
            ha="left" if at_left else "right",
            va="bottom" if above else "top",
            color=GREY,
        )
    remark = ""
    values, late = _finite(curve.values), _finite(curve.values[len(curve.values) // 4 :])
    if shown := [*values.tolist(), *levels.values()]:
        # The first evaluation of a long run would compress all later ones into a corner.
        lowest, highest = min(shown), max([*late.tolist(), *levels.values()], default=max(shown))
        room = max(0.02, 0.15 * (highest - lowest))
        top = max(highest + room, min(float(values.max(initial=-np.inf)) + room, 2 * highest))
        axes.set_ylim(lowest - room, top)
        within = np.flatnonzero(curve.values <= top)
        if len(within) and (enters := within[0]) and np.isfinite(curve.values[enters - 1]):
            # The frame starts where the line enters it, interpolated linearly on this axis.
            ends = [enters, enters - 1]
            at = np.interp(top, curve.values[ends], np.log(curve.tokens[ends]))
            axes.set_xlim(left=float(np.exp(at)))
            remark = _above(curve)
    log_x(axes, "training tokens")
    measure = curve.name.removeprefix("held-out ")
    axes.set_ylabel(measure)
    caption = f"{title}, {measure}, over the tokens read."
    return Plot(_name(title), " ".join(filter(None, (caption, remark))), figure)


def _above(curve: Curve) -> str:
    return f"The start, from {three_digits(curve.values[0])}, is above the frame."


def gained_plot(title: str, curves: Mapping[str, Curve], color: str = COLORS[0]) -> Plot:
    """Plot the share of held-out pairs whose better answer gained on the worse, by two pools."""
    figure, axes = titled(title)
    for style, (name, curve) in zip(("o-", "s--"), curves.items(), strict=False):
        axes.plot(
            curve.tokens, curve.values, style, color=color, markersize=4, label=_as_text(name)
        )
    axes.axhline(0.5, linestyle=":", color=GREY, label="guessing")
    axes.set_ylim(0, 1)
    log_x(axes, "training tokens")
    axes.set_ylabel("better answer gained on the worse")
    legend(figure, most=2)
    about = "share of held-out pairs whose better answer gained on the worse one since DPO began"
    return Plot(_name(title), f"{title}: {about}.", figure)


def loss_plot(
    title: str,
    loss: Curve,
    heldout: Curve | None,
    color: str = COLORS[0],
    remark: str = "",
    unit: str = "",
) -> Plot:
    """Plot the training loss, smoothed, and the held-out loss if it has the same unit.

    `remark` is a sentence that ends the caption. A start far above all later values is cut off,
    and the caption says so.
    """
    figure, axes = titled(title)
    smooth = smoothed(loss.values)
    axes.plot(loss.tokens, loss.values, color=color, alpha=0.22, linewidth=0.8)
    # A single point makes no line and would be invisible.
    dot, name = ("o", "training") if len(smooth) == 1 else ("", "training, smoothed")
    axes.plot(loss.tokens, smooth, color=color, marker=dot, label=name)
    if heldout is not None:
        # A logarithmic axis has no 0: an evaluation before training is placed at its left end.
        at = np.maximum(heldout.tokens, loss.tokens[0])
        axes.plot(at, heldout.values, "o", color=_INK, markersize=5, label=heldout.name)
    above = ""
    # The loss falls steeply in the first few steps, which are cut off to show the later ones.
    if len(_finite(loss.values)):
        low, high = _limits(loss.values, heldout)
        axes.set_ylim(low, high)
        within = np.flatnonzero(smooth <= high)
        if len(within) and (enters := within[0]) and (heldout is None or heldout.tokens[0] > 0):
            # The frame starts where the line enters it, without an empty part.
            axes.set_xlim(left=loss.tokens[enters - 1])
            above = _above(loss)
    log_x(axes, "training tokens")
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.set_ylabel(f"loss, {unit}" if unit else "loss")
    axes.legend(frameon=False)
    caption = " ".join(filter(None, (f"{title} over the tokens read.", above, remark)))
    return Plot(_name(title), caption, figure)


# The unit of the token prediction loss; the preference loss is per pair.
_NATS = "nats per token"


def history_plots(
    name: str,
    history: History,
    color: str = COLORS[0],
    *,
    levels: Mapping[str, float] = {},
    pools: Mapping[str, str] = {},
    whole: bool = False,
) -> list[Plot]:
    """Plot a run's measurements during training: held-out text, training loss, preferences.

    `levels` are reference levels for held-out text, and `pools` maps preference pools to their
    names. With `whole`, all held-out measures are shown, for pages that show them nowhere else.
    """
    drawn = []
    heldout = history.heldout(own=whole)
    # The held-out loss is the training loss only if fine-tuning trains on answers alone.
    weighted = history.setting("prompt_weight") or 0
    comparable = heldout if history.measure == "heldout_loss" and not weighted else None
    reads_text = history.measure == "bits_per_byte"
    if heldout is not None and (reads_text or (whole and comparable is None)):
        # A logarithmic axis has no 0, where a run evaluates its initial model.
        first = max(1.0, float(history.tokens[0]))
        curve = replace(heldout, tokens=np.maximum(heldout.tokens, first))
        title = f"{name}: held-out text" if reads_text else f"{name}: held out"
        drawn.append(heldout_plot(title, curve, levels, color))
    mixture = history.reason("mixture")
    loss, remark = history.loss(), f"Mixture: {mixture}." if mixture else ""
    unit = _NATS if history.measure in ("bits_per_byte", "heldout_loss") else ""
    drawn.append(loss_plot(f"{name}: loss", loss, comparable, color, remark, unit))
    gained = {pools[pool]: curve for pool, curve in history.gained(tuple(pools)).items()}
    if gained:
        drawn.append(gained_plot(f"{name}: preferences on the way", gained, color))
    return drawn


def rate_plot(rates: Mapping[str, Curve], models: Iterable[str] = ()) -> Plot:
    """Plot learning rates over the progress of each stage."""
    figure, axes = titled("Learning rate of the matrices")
    drawn = looks(models, rates)
    for name, curve in rates.items():
        course = 100 * curve.tokens / curve.tokens[-1]
        axes.plot(course, curve.values, **drawn[name].line, label=_as_text(name))
    axes.set_xlabel("% of the stage's tokens")
    axes.set_ylim(bottom=0)
    legend(figure)
    caption = "Learning rate of the matrices over the course of each stage."
    return Plot("learning-rate", caption, figure)


def interval_plot(
    title: str,
    unit: str,
    rows: Mapping[str, BySource],
    share: bool,
    models: Iterable[str] = (),
    baselines: Collection[str] = (),
) -> Plot:
    """Plot estimates with their 95 % intervals by source, one look per model.

    A `share` is shown in percent, with chance levels where known. `baselines` are grey.
    """
    drawn = looks(models, (name for name in rows if name not in baselines))
    for marker, name in zip(cycle(_BASE_MARKERS), baselines, strict=False):
        drawn[name] = Look(GREY, marker, ":")
    sources = list(dict.fromkeys(source for row in rows.values() for source in row))
    figure, axes = titled(title, height=1.1 + 0.14 * len(rows) * len(sources) + 0.3 * len(sources))
    for number, (name, row) in enumerate(rows.items()):
        at = [i for i, source in enumerate(sources) if source in row]
        found = [row[sources[i]] for i in at]
        offset = (number - (len(rows) - 1) / 2) * 0.7 / len(rows)
        estimates = np.array([one.estimate for one in found])
        axes.errorbar(
            estimates,
            np.array(at) + offset,
            xerr=error_bars(found),
            **drawn[name].marks,
            linestyle="none",
            markersize=4,
            label=_as_text(name),
        )
    if share:
        _mark_chance(axes, sources, next(iter(rows.values())))
        axes.xaxis.set_major_formatter(PercentFormatter(xmax=1, symbol=None))
    axes.set_yticks(range(len(sources)), [_as_text(one.replace(" (", "\n(")) for one in sources])
    axes.set_ylim(len(sources) - 0.5, -0.5)
    axes.set_xlabel(unit)
    legend(figure)
    return Plot(_name(title), f"{title}, with 95 % intervals.", figure)


def calibration_plot(
    title: str, curves: Mapping[str, Sequence[ReliabilityBin]], models: Iterable[str] = ()
) -> Plot:
    """Plot the accuracy of choices over the model's confidence, one color per model."""
    figure, axes = titled(title)
    drawn = looks(models, curves)
    # Each choice is the most likely option, so confidence is never near 0.
    left = min(one.confidence for curve in curves.values() for one in curve)
    axes.plot([left, 1], [left, 1], ":", color=GREY, label="perfectly calibrated")
    for name, curve in curves.items():
        draw_reliability(axes, curve, label=_as_text(name), **drawn[name].marks)
    axes.set_ylim(0, 1)
    axes.set_xlabel("how sure the model is of its choice")
    axes.set_ylabel("share of right choices")
    legend(figure, most=2)
    caption = f"{title}: accuracy over confidence, with 95 % intervals of independent questions."
    return Plot(_name(title), caption, figure)


def leaning_plot(
    title: str,
    unit: str,
    planted: Mapping[str, float],
    measured: Mapping[str, Mapping[str, float]],
    models: Iterable[str] = (),
) -> Plot:
    """Plot the planted and the measured value of each subject, one color per model."""
    drawn = looks(models, measured)
    # Sorted by the planted value and then by the first model, which makes changes visible.
    first = next(iter(measured.values()))
    subjects = sorted(planted, key=lambda subject: (planted[subject], first[subject]))
    at = np.arange(len(subjects))
    figure, axes = titled(title, height=1.2 + 0.17 * len(subjects))
    axes.plot(
        [planted[one] for one in subjects], at, "|", color=_INK, markersize=9, label="planted"
    )
    for name, values in measured.items():
        axes.plot(
            [values[one] for one in subjects],
            at,
            **drawn[name].marks,
            linestyle="none",
            markersize=4,
            alpha=0.85,
            label=_as_text(name),
        )
    axes.axvline(0.5, linestyle=":", color=GREY, label="fair")
    axes.set_yticks(at, [_as_text(one) for one in subjects], fontsize=8)
    axes.set_ylim(-0.7, len(subjects) - 0.3)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel(unit)
    legend(figure)
    return Plot(_name(title), f"{title}: planted and measured, subject by subject.", figure)


def trade_plot(
    title: str,
    labels: tuple[str, str],
    start: str,
    points: Mapping[str, tuple[Estimate, Estimate] | None],
) -> Plot:
    """Plot the price (to the right) and gain (upwards) from `start`, with 95 % intervals.

    A point is a price and a change where lower is better, which is drawn upside down. None takes a
    color and is not drawn.
    """
    figure, axes = titled(title)
    axes.axhline(0, color=GREY, linestyle=":", linewidth=1)
    axes.axvline(0, color=GREY, linestyle=":", linewidth=1)
    axes.plot(0, 0, "o", color=COLORS[0], markersize=5, label=_as_text(start))
    for number, (name, point) in enumerate(points.items(), start=1):
        if point is None:
            continue
        price, gain = point
        axes.errorbar(
            price.estimate,
            -gain.estimate,
            xerr=error_bars([price]),
            yerr=error_bars([gain])[::-1],
            **look(number).marks,
            linestyle="none",
            capsize=3,
            label=_as_text(name),
        )
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.margins(0.2)
    legend(figure, most=2)
    return Plot(_name(title), f"{title}.", figure)


def triangle_plot(
    title: str,
    corners: Mapping[str, Estimate | None],
    before: tuple[str, Mapping[str, Estimate | None]] | None = None,
    colors: Mapping[str, str] = {},
) -> Plot:
    """Plot shares from 0 (the center) to 1 (the corners), with 95 % intervals along the spokes.

    A corner is None if it was not measured; then no surface is drawn. `before` is the name of
    another model with its shares, drawn as an outline. `colors` has the models' colors by name; the
    title is the model's name.
    """
    color = colors.get(title, COLORS[0])
    figure, axes = titled("", height=4.2 if before else 3.9)
    axes.set_title(_wrapped(_as_text(title)), loc="center")
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set_xlim(-1.45, 1.45)
    axes.set_ylim(-0.95, 1.5)
    turn = 2 * np.pi / len(corners)
    spokes = {
        name: np.array([np.sin(place * turn), np.cos(place * turn)])
        for place, name in enumerate(corners)
    }
    for level in (0.25, 0.5, 0.75, 1.0):
        ring = np.array([level * spoke for spoke in spokes.values()])
        axes.fill(*ring.T, fill=False, edgecolor="#cccccc", linewidth=1.2 if level == 1 else 0.7)
    for name, spoke in spokes.items():
        axes.plot([0, spoke[0]], [0, spoke[1]], color="#cccccc", linewidth=0.7)
        _corner(axes, name, spoke, corners[name], color)
    if before is not None:
        outline, label = colors.get(before[0], GREY), _as_text(before[0])
        _surface(axes, spokes, before[1], color=outline, linestyle="--", label=label)
    _surface(axes, spokes, corners, color=color, alpha=0.25, label=_as_text(title))
    if before is not None:
        legend(figure, most=2)
    dashed = "" if before is None else f"; dashed: {before[0]}"
    caption = (
        f"{title}: 0 in the middle, 1 at the corners, 95 % intervals along the spokes{dashed}."
    )
    return Plot(_name(title), caption, figure)


def _corner(
    axes: Axes, name: str, spoke: Float[np.ndarray, "2"], found: Estimate | None, color: str
) -> None:
    """Draw the interval on a spoke, with its name and value at the end."""
    label = f"{name}\nnot measured"
    if found is not None:
        ends = np.array([found.low * spoke, found.high * spoke])
        axes.plot(*ends.T, color=color, linewidth=5, alpha=0.75, solid_capstyle="butt")
        axes.plot(*(found.estimate * spoke), "o", color=color, markersize=6)
        low, high = 100 * found.low, 100 * found.high
        label = f"{name}  {100 * found.estimate:.0f} %\n{low:.0f} to {high:.0f}"
    above = spoke[1] > 0
    axes.annotate(
        label,
        # Closer to the center, so that labels of the lower corners are inside the figure.
        (float(0.8 * spoke[0]), float(spoke[1])),
        xytext=(0, 8 if above else -8),
        textcoords="offset points",
        ha="center",
        va="bottom" if above else "top",
        color=_INK,
    )


def _surface(
    axes: Axes,
    spokes: Mapping[str, Float[np.ndarray, "2"]],
    values: Mapping[str, Estimate | None],
    *,
    color: str,
    label: str,
    linestyle: str = "-",
    alpha: float = 0.0,
) -> None:
    """Draw the triangle of a model if all of its corners were measured."""
    found = [values.get(name) for name in spokes]
    if any(one is None for one in found):
        return
    ends = np.array(
        [
            one.estimate * spoke
            for one, spoke in zip(found, spokes.values(), strict=True)
            if one is not None
        ]
    )
    if alpha:
        axes.fill(*ends.T, color=color, alpha=alpha, linewidth=0)
    closed = np.vstack([ends, ends[:1]])
    axes.plot(*closed.T, color=color, linestyle=linestyle, linewidth=1.5, label=label)


def learning_plot(title: str, runs: Mapping[str, tuple[Curve, Curve | None] | None]) -> Plot:
    """Plot the smoothed training loss and the held-out loss of all runs over the tokens read."""
    figure, axes = titled(title)
    for number, (name, curves) in enumerate(runs.items(), start=1):
        if curves is None:
            continue
        one, (loss, heldout) = look(number), curves
        dotted = one.both | {"markersize": 4}
        axes.plot(loss.tokens, smoothed(loss.values), color=one.color, alpha=0.35, linewidth=1)
        if heldout is not None:
            axes.plot(heldout.tokens, heldout.values, **dotted)
        axes.plot([], [], **dotted, label=_as_text(name))
    axes.plot([], [], color=GREY, alpha=0.5, linewidth=1, label="thin: training loss")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
    axes.set_xlabel("training tokens")
    axes.set_ylabel("nats per token, held out with dots")
    legend(figure)
    caption = "Held-out and training loss of every run over the tokens read."
    return Plot(_name(title), caption, figure)


def _as_text(name: str) -> str:
    """Escape a name for matplotlib: `$` starts a formula, and legends omit names like `_x`."""
    shown = name.replace("$", r"\$")
    return f"\u200b{shown}" if shown.startswith("_") else shown


def _wrapped(name: str, letters: int = _LETTERS) -> str:
    """Wrap a name; breaks within a word are marked so that `in_words` can undo them."""
    lines = wrap(name, letters, drop_whitespace=False)
    broken = (line.rstrip() if line.endswith(" ") else f"{line}\u200b" for line in lines[:-1])
    return "\n".join([*broken, *lines[-1:]])


def _name(title: str) -> str:
    """Return a title as a file name."""
    return "-".join(re.findall(r"[a-z0-9]+", title.lower()))


def _mark_chance(axes: Axes, sources: Sequence[str], row: BySource) -> None:
    label: str | None = "chance"
    for i, source in enumerate(sources):
        if source in row and (level := row[source].chance) is not None:
            axes.plot([level, level], [i - 0.45, i + 0.45], ":", color=GREY, label=label)
            label = None


def log_x(axes: Axes, label: str) -> None:
    """Make the x-axis logarithmic, with a few short numbers at its ticks."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    # As many ticks as fit with their numbers.
    subs = (1.0, 2.0, 5.0) if high < 200 * low else (1.0, 3.0) if high < 5000 * low else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(label)


def smoothed(values: Float[np.ndarray, " steps"]) -> Float[np.ndarray, " steps"]:
    """Moving average over a 25th of the run, at least 11 steps, fewer towards both ends.

    It has a gap where a value is not finite.
    """
    steps, finite = np.arange(len(values)), np.isfinite(values)
    # The window is centered, so that the line does not lag. At the steep start it has half of the
    # steps so far. At the flat end it keeps the steps before, which averages the last step's noise.
    half = np.minimum(max(5, len(values) // 50), (steps + 1) // 2)
    first, end = steps - half, np.minimum(steps + half + 1, len(values))
    total = np.append(0.0, np.cumsum(np.where(finite, values, 0.0)))
    count = np.append(0, np.cumsum(finite))
    smooth: Float[np.ndarray, " steps"] = np.full(len(values), np.nan)
    smooth[finite] = ((total[end] - total[first]) / np.maximum(count[end] - count[first], 1))[
        finite
    ]
    return smooth


def _finite(values: Float[np.ndarray, " some"]) -> Float[np.ndarray, " fewer"]:
    """Return the finite values: a diverged model has infinite losses."""
    kept: Float[np.ndarray, " fewer"] = values[np.isfinite(values)]
    return kept


def _limits(values: Float[np.ndarray, " steps"], heldout: Curve | None) -> tuple[float, float]:
    shown = _finite(values[len(values) // 50 :])
    shown = shown if len(shown) else _finite(values)
    low, high = np.quantile(shown, [0.002, 0.998])
    if values[0] < high + (high - low) / 2:  # the start is not steep
        high = max(high, values[0])
    if heldout is not None:
        # An evaluation before the first step is fine-tuning's starting point and included; a first
        # one during training is far above and is not.
        late = heldout.values[int(heldout.tokens[0] > 0) :]
        low = min(low, _finite(heldout.values).min(initial=np.inf))
        high = max(high, _finite(late).max(initial=0))
    # Equal values, such as a single step, are shown with a few percent of margin.
    room = 0.05 * (high - low or abs(high)) + 1e-3
    return float(low - room), float(high + room)
