"""Plots in one look, drawn for what was measured: the figures of every page and experiment.

As SVG their text is drawn as shapes, so that they look alike everywhere.
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
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from groundup.maths.calibration import ReliabilityBin, draw_reliability
from groundup.report.estimate import BySource, Estimate
from groundup.report.figure import STYLE, WIDTH, Plot
from groundup.report.history import Curve, History
from groundup.report.table import short_number
from groundup.runs.console import three_digits

# Colors that the color-blind can tell apart too (Okabe and Ito 2008).
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# Beside each color, so that series are told apart in black and white too, and more than colors.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "p", ">", "h", "*")
_LINES: tuple[Any, ...] = (
    "-",
    "--",
    "-.",
    (0, (6, 1, 1, 1, 1, 1)),
    (0, (9, 2)),
    (0, (3, 2)),
)
# Of what is there to be beaten, in grey.
_BASE_MARKERS = ("x", "1", "2", "+")
GREY = "#777777"
_INK = "#222222"
BASELINE: dict[str, Any] = {"color": GREY, "linestyle": ":", "linewidth": 1.2}
"""How a line to beat is drawn: chance, or what needs no learning."""
_HEIGHT = 3.5
# Letters of a title or a label that fit beside each other into a figure of this page's width.
_LETTERS = 52


@dataclass(frozen=True)
class Look:
    """How one series of a figure is drawn; each part is an argument of matplotlib's `plot`."""

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
        # White is the ground: a dark page turns it too.
        face = "white" if self.hollow else self.color
        return {"color": self.color, "marker": self.marker, "markerfacecolor": face}


def look(place: int) -> Look:
    """The look of the series at `place`: no two of the first 24 have the same.

    Where colors begin again, marks are hollow and dashes are another color's; then the marks are
    others.
    """
    turn, number = divmod(place, len(COLORS))
    marker = _MARKERS[(turn // 2 * len(COLORS) + number) % len(_MARKERS)]
    return Look(COLORS[number], marker, _LINES[(number + turn) % len(_LINES)], turn % 2 == 1)


def looks(*names: Iterable[str]) -> dict[str, Look]:
    """A look for each name, by its first place among all of them."""
    return {name: look(place) for place, name in enumerate(dict.fromkeys(chain(*names)))}


def panels(
    rows: int = 1, columns: int = 1, *, width: float = WIDTH, height: float = _HEIGHT
) -> tuple[Figure, list[list[Axes]]]:
    """A figure of `width` by `height` inches, and its axes by row and column."""
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
    return figure, [list(row) for row in axes]


def titled(title: str, height: float = _HEIGHT) -> tuple[Figure, Axes]:
    """A figure of one panel with a title; `height` in inches."""
    figure, [[axes]] = panels(height=height)
    with rc_context(STYLE):
        axes.set_title(_wrapped(_as_text(title)))
    return figure, axes


def frame_of_picture(axes: Axes) -> None:
    """Leave nothing of the axes but the frame, for what is looked at and not read off."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(True)


def model_colors(*names: Iterable[str]) -> dict[str, str]:
    """A color for each name, by its first place among all of them."""
    return {name: one.color for name, one in looks(*names).items()}


def legend(
    figure: Figure, series: Mapping[str, Any] = {}, *, most: int = 3, size: int = 10
) -> None:
    """What each series is, below the figure, in as many columns as fit, `most` at most.

    `series` are what is drawn, by its labels; by default all that has a label, each label once.
    """
    found = dict(series)
    if not series:
        for axes in figure.axes:
            handles, labels = axes.get_legend_handles_labels()
            found = dict(zip(labels, handles, strict=True)) | found
    # A letter is narrower in a smaller size, and a wider figure has room for more.
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
        extent = drawn.get_window_extent()
        if columns == 1 or extent.width <= figure.bbox.width:
            # Two lines and a half have room; what is more takes none from what is drawn.
            more = extent.height / figure.dpi - 2.5 * 1.5 * size / 72
            figure.set_figheight(figure.get_figheight() + max(0.0, more))
            return
        drawn.remove()


# The figures of several pages. Where a figure has several models, `models` are those of its page:
# a model has the same color in all figures.


def heldout_plot(
    title: str, curve: Curve, levels: Mapping[str, float], color: str = COLORS[0]
) -> Plot:
    """What was measured on held-out material over the tokens read, with levels to beat.

    A start far above all that follows is left out, and the caption says so.
    """
    figure, axes = titled(title)
    axes.plot(curve.tokens, curve.values, "o-", color=color, markersize=4)
    # A curve that begins above the lines comes down to them at the right.
    at_left = bool(levels) and curve.values[0] > max(levels.values())
    for number, (name, level) in enumerate(sorted(levels.items(), key=lambda one: -one[1])):
        # The highest line has its name above it and the others below, since two often lie close.
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
        # The first evaluation of a long run would squeeze all that follows into a corner.
        lowest, highest = min(shown), max([*late.tolist(), *levels.values()], default=max(shown))
        room = max(0.02, 0.15 * (highest - lowest))
        top = max(highest + room, min(float(values.max(initial=-np.inf)) + room, 2 * highest))
        axes.set_ylim(lowest - room, top)
        within = np.flatnonzero(curve.values <= top)
        if len(within) and (enters := within[0]) and np.isfinite(curve.values[enters - 1]):
            # The frame begins where the line comes down into it; on this axis it is straight.
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
    """In how many held-out pairs the better answer has gained on the worse one, by two pools."""
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
    """Training loss step by step, smoothed, and the held-out one where it has the same unit.

    `remark` is a sentence that ends the caption. A start far above all that follows is left out,
    and the caption says so.
    """
    figure, axes = titled(title)
    smooth = smoothed(loss.values)
    axes.plot(loss.tokens, loss.values, color=color, alpha=0.22, linewidth=0.8)
    # A single point is no line, and would not be seen.
    dot, name = ("o", "training") if len(smooth) == 1 else ("", "training, smoothed")
    axes.plot(loss.tokens, smooth, color=color, marker=dot, label=name)
    if heldout is not None:
        # A logarithmic axis has no 0: what was measured before training stands at its left end.
        at = np.maximum(heldout.tokens, loss.tokens[0])
        axes.plot(at, heldout.values, "o", color=_INK, markersize=5, label=heldout.name)
    above = ""
    # The first few steps are a cliff; the story is what comes after them.
    if len(_finite(loss.values)):
        low, high = _limits(loss.values, heldout)
        axes.set_ylim(low, high)
        within = np.flatnonzero(smooth <= high)
        if len(within) and (enters := within[0]) and (heldout is None or heldout.tokens[0] > 0):
            # The frame begins where the line comes down into it, and not with an empty half.
            axes.set_xlim(left=loss.tokens[enters - 1])
            above = _above(loss)
    log_x(axes, "training tokens")
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.set_ylabel(f"loss, {unit}" if unit else "loss")
    axes.legend(frameon=False)
    caption = " ".join(filter(None, (f"{title} over the tokens read.", above, remark)))
    return Plot(_name(title), caption, figure)


# What the loss of predicting tokens is in; that of preferences is over pairs.
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
    """What a run measured while it trained: held-out text, training loss, preferences.

    `levels` of held-out text are to be beaten, and `pools` of preferences have names to show. The
    `whole` shows whatever was measured on held-out material, which is not told elsewhere then.
    """
    drawn = []
    heldout = history.heldout(own=whole)
    # Only fine-tuning on nothing but answers measures the very loss that it trains on.
    weighted = history.setting("prompt_weight") or 0
    comparable = heldout if history.measure == "heldout_loss" and not weighted else None
    reads_text = history.measure == "bits_per_byte"
    if heldout is not None and (reads_text or (whole and comparable is None)):
        # A logarithmic axis has no 0, where a run measures what it begins from.
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
    """Learning rates over each stage's own course."""
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
    """Estimates with their 95 % intervals, source by source, one look a model.

    A `share` is shown in percent, with what guessing reaches where that is known. Rows that are
    `baselines` are grey.
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
        errors = np.array(
            [[one.estimate - one.low for one in found], [one.high - one.estimate for one in found]]
        )
        axes.errorbar(
            estimates,
            np.array(at) + offset,
            xerr=np.maximum(errors, 0),
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
    """How often choices were right over how sure the model was, one color a model."""
    figure, axes = titled(title)
    drawn = looks(models, curves)
    # Each choice is the likeliest option, so that confidence does not come near 0.
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
    """What each subject was given and what each model has of it, one color a model."""
    drawn = looks(models, measured)
    # By what was planted and then by the first model, so that change is seen at a glance.
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
    """What was paid to the right and what was gained upwards, with 95 % intervals, from `start`.

    A point is a price and a gain that is less where more was gained: its interval is upside down.
    None takes a color and is not drawn.
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
            xerr=[[price.estimate - price.low], [price.high - price.estimate]],
            yerr=[[gain.high - gain.estimate], [gain.estimate - gain.low]],
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
    """Shares from 0 (the middle) to 1 (the corners), with 95 % intervals along the spokes.

    A corner is None where nothing was measured: then there is no surface. `before` is the name of
    another model and its shares, drawn as an outline. `colors` are those of models by name; the
    title is the model's.
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
    """The interval on a spoke, and at its end what it is called and how much there is of it."""
    said = f"{name}\nnot measured"
    if found is not None:
        ends = np.array([found.low * spoke, found.high * spoke])
        axes.plot(*ends.T, color=color, linewidth=5, alpha=0.75, solid_capstyle="butt")
        axes.plot(*(found.estimate * spoke), "o", color=color, markersize=6)
        low, high = 100 * found.low, 100 * found.high
        said = f"{name}  {100 * found.estimate:.0f} %\n{low:.0f} to {high:.0f}"
    above = spoke[1] > 0
    axes.annotate(
        said,
        # Nearer to the middle, so that names of the lower corners stand within the figure.
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
    """The triangle of a model, where all of its corners were measured."""
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
    """Training loss, smoothed, and held-out loss of all runs over the tokens read."""
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
    """A name for matplotlib: no formula between dollars, and no `_` that legends leave out."""
    shown = name.replace("$", r"\$")
    return f"\u200b{shown}" if shown.startswith("_") else shown


def _wrapped(name: str, letters: int = _LETTERS) -> str:
    """A name in lines of so many letters; where one is broken within a word, `in_words` knows."""
    lines = wrap(name, letters, drop_whitespace=False)
    broken = (line.rstrip() if line.endswith(" ") else f"{line}\u200b" for line in lines[:-1])
    return "\n".join([*broken, *lines[-1:]])


def _name(title: str) -> str:
    """A title as the name of a file."""
    return "-".join(re.findall(r"[a-z0-9]+", title.lower()))


def _mark_chance(axes: Axes, sources: Sequence[str], row: BySource) -> None:
    label: str | None = "chance"
    for i, source in enumerate(sources):
        if source in row and (level := row[source].chance) is not None:
            axes.plot([level, level], [i - 0.45, i + 0.45], ":", color=GREY, label=label)
            label = None


def log_x(axes: Axes, label: str) -> None:
    """A logarithmic x-axis with a few short numbers at its ticks."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    # As many as have room for such a number beside each other.
    subs = (1.0, 2.0, 5.0) if high < 200 * low else (1.0, 3.0) if high < 5000 * low else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(label)


def smoothed(values: Float[np.ndarray, " steps"]) -> Float[np.ndarray, " steps"]:
    """Mean of the steps around each: a 25th of the run, 11 at least, fewer towards both ends.

    It has a gap where a value is not finite.
    """
    steps, finite = np.arange(len(values)), np.isfinite(values)
    # As many before as after, so that no line lags; at the steep start half of what there is. At
    # the flat end those before stay, or the line would end in a hook to the last step's noise.
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
    """The values that can be drawn: a diverged model has infinite losses."""
    kept: Float[np.ndarray, " fewer"] = values[np.isfinite(values)]
    return kept


def _limits(values: Float[np.ndarray, " steps"], heldout: Curve | None) -> tuple[float, float]:
    shown = _finite(values[len(values) // 50 :])
    shown = shown if len(shown) else _finite(values)
    low, high = np.quantile(shown, [0.002, 0.998])
    if values[0] < high + (high - low) / 2:  # then it is no cliff
        high = max(high, values[0])
    if heldout is not None:
        # Before the first step it is what fine-tuning began from; the first on the way is a cliff.
        late = heldout.values[int(heldout.tokens[0] > 0) :]
        low = min(low, _finite(heldout.values).min(initial=np.inf))
        high = max(high, _finite(late).max(initial=0))
    # All the same, such as a single step, is shown with a few percent of it around it.
    room = 0.05 * (high - low or abs(high)) + 1e-3
    return float(low - room), float(high + room)
