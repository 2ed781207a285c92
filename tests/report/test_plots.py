"""The figures of several pages, with extreme numbers and names."""

from __future__ import annotations

import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgba_array

from groundup.maths.calibration import ReliabilityBin
from groundup.report.estimate import Estimate
from groundup.report.figure import Plot, image
from groundup.report.history import Curve, History
from groundup.report.plots import (
    GREY,
    calibration_plot,
    gained_plot,
    heldout_plot,
    history_plots,
    interval_plot,
    leaning_plot,
    learning_plot,
    loss_plot,
    model_colors,
    rate_plot,
    smoothed,
    trade_plot,
    triangle_plot,
)


def curve(values: list[float], first: float = 1_000.0) -> Curve:
    return Curve("loss", first + 1_000.0 * np.arange(len(values)), np.array(values))


def drawn(plot: Plot) -> Any:
    """The plot's axes, after rendering without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image(plot.figure, "svg")
    return plot.figure.axes[0]


@pytest.mark.parametrize("bad", [np.inf, np.nan])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_non_finite_values_are_left_out(place: int, bad: float) -> None:
    values = [3.0, 2.0, 1.5]
    values[place] = bad
    for plot in (
        heldout_plot("a", curve(values), {"3-gram": 1.7}),
        loss_plot("a", curve([3.0, 2.5, 2.0]), curve(values)),
    ):
        low, high = drawn(plot).get_ylim()
        assert 1 < low < 2 < high < 4
    drawn(heldout_plot("a", curve([bad] * 3), {}))
    drawn(loss_plot("a", curve([bad] * 3), curve([bad] * 3)))


def test_measurements_before_training_are_visible() -> None:
    before = curve([3.9, 2.5, 1.9], first=0.0)
    axes = drawn(loss_plot("a", curve([2.6, 2.2, 1.8]), before))
    [dots] = [line for line in axes.lines if line.get_label() == "loss"]
    x, y = dots.get_xdata(), dots.get_ydata()
    assert (x[0], y[0]) == (1_000.0, 3.9) and axes.get_ylim()[1] > 3.9


def test_a_run_with_only_an_initial_evaluation_is_drawn() -> None:
    lines: list[dict[str, Any]] = [
        {"kind": "evaluation", "step": 0, "seconds": 1.0, "preference_loss": 0.69},
        *(
            {"kind": "train", "step": 1 + i, "tokens": 64, "seconds": 1, "loss": 1}
            for i in range(2)
        ),
    ]
    run = {"stage": "dpo", "config": {}, "parents": {}, "traits": {"measure": "preference_loss"}}
    history = History(Path("dpo"), run, {}, lines)
    heldout, loss = history_plots("dpo", history, whole=True)
    [line, *_] = drawn(heldout).lines
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([64.0], [0.69])
    drawn(loss)
    # Models are compared by other measures, so that a report has no such plot.
    assert len(history_plots("dpo", history)) == 1


@pytest.mark.parametrize("name", ["_base", r"a$x\foo$b", r"a\$b", "a$b", "sft"])
def test_names_are_not_interpreted(name: str) -> None:
    one = Estimate(0.5, 0.4, 0.6, 10, 10)
    plot = interval_plot(name, "share", {name: {name: one}}, False)
    axes = drawn(plot)
    [label] = plot.figure.legends[0].get_texts()
    for text in (label, axes.yaxis.get_ticklabels()[0], axes.title):
        read = text.get_text() or axes.get_title("left")
        shown, formula = text._preprocess_math(read)
        assert (shown.lstrip("\u200b"), formula) == (name, False)


def test_a_figure_has_a_text_description() -> None:
    one, two = Estimate(0.512, 0.4, 0.6, 10, 10, chance=0.5), Estimate(0.75, 0.6, 0.9, 10, 10)
    rows = {"base": {"siqa": one, "piqa": two}, "_sf$t": {"piqa": two}}
    plot = interval_plot("Pairs", "share, %", rows, True)
    assert plot.in_words == "Pairs: share, %: base siqa 51.2, piqa 75; _sf$t piqa 75"
    assert [text.get_text() for text in drawn(plot).get_xticklabels()][-1].isdigit()
    said = loss_plot("sft: loss", curve([3.0, 2.5, 2.0]), None).in_words
    assert "loss over training tokens" in said and "from 3 at 1e+03 to" in said
    assert "utility 51 %" in triangle_plot("a", {"utility": one, "b": one, "c": None}).in_words


def test_a_model_has_one_color_on_a_page() -> None:
    """Also where a figure has only some of the page's models."""
    page = ("base", "sft", "dpo")
    colors, some = model_colors(page), ("dpo", "sft")
    one = Estimate(0.5, 0.4, 0.6, 10, 10)
    jobs = {"judge": 0.75, "cook": 0.25}
    figures = [
        interval_plot("a", "share", {name: {"x": one} for name in some}, False, page),
        leaning_plot("a", "P(she)", jobs, dict.fromkeys(some, jobs), page),
        rate_plot({name: curve([1.0, 0.5]) for name in some}, page),
        calibration_plot("a", {n: [ReliabilityBin(0.5, one, 9)] for n in some}, page),
    ]
    for plot in figures:
        drawn(plot)
        legend = (plot.figure.legends or [plot.figure.axes[0].get_legend()])[0]
        handles = zip(legend.legend_handles, legend.get_texts(), strict=True)
        found = {text.get_text(): line for line, text in handles}
        for name in some:
            [shown] = to_rgba_array(found[name].get_color())
            assert to_hex(shown).upper() == colors[name], plot.name
        lines = [one for one in plot.figure.axes[0].lines if one.get_color() in colors.values()]
        marked = [one for one in lines if one.get_marker() not in ("None", "|")] or lines
        looks = {(one.get_marker(), str(one._dash_pattern)) for one in marked}
        assert len(marked) == len(looks) == len(some), plot.name
    color = colors["sft"]
    for plot in (
        heldout_plot("a", curve([2.0, 1.5]), {"3-gram": 1.7}, color),
        loss_plot("a", curve([2.0, 1.5]), curve([2.0, 1.5]), color),
        gained_plot("a", {"one": curve([0.5, 0.6]), "two": curve([0.5, 0.7])}, color),
        triangle_plot("sft", {"a": one, "b": one, "c": one}, None, colors),
    ):
        used = {line.get_color() for line in drawn(plot).lines}
        assert color in used and not used & (set(colors.values()) - {color})


def test_smoothing_has_no_lag_and_removes_noise() -> None:
    steep = 8 / np.sqrt(1 + np.arange(1_000.0))
    smooth = smoothed(steep)
    assert smooth[0] == steep[0]
    assert (smooth[1:] <= steep[(np.arange(1, 1_000)) // 2]).all()
    assert np.abs(smooth - steep).max() < 0.1 * steep[0]
    noise = np.random.default_rng(0).standard_normal(67)
    assert smoothed(noise)[10:].std() < noise.std() / 2
    # The last value is a mean of several too: no hook at the end.
    flat = np.array([*[2.0, 1.0] * 100, 9.0])
    assert smoothed(flat)[-1] < 3 and np.abs(np.diff(smoothed(flat)[10:-6])).max() < 0.2
    noise[[3, 40]] = np.nan, np.inf
    assert np.isnan(smoothed(noise)).nonzero()[0].tolist() == [3, 40]
    assert len(smoothed(np.empty(0))) == 0


def test_the_frame_begins_where_the_curve_enters_it() -> None:
    tokens = 1_000.0 * np.arange(1, 1_001)
    falling = 1.9 + 6.4 * np.exp(-np.arange(1_000.0) / 4)
    plot = loss_plot("a", Curve("loss", tokens, falling), None, unit="nats per token")
    axes = drawn(plot)
    [left, _], [_, top] = axes.get_xlim(), axes.get_ylim()
    entered = np.interp(left, tokens, smoothed(falling))
    assert left > 5_000 and top <= entered < 2 * top
    assert "from 8.3," in plot.caption
    assert axes.get_ylabel() == "loss, nats per token"
    level = loss_plot("a", Curve("loss", tokens, np.full(1_000, 2.0)), None)
    assert drawn(level).get_xlim()[0] <= 1_000 and "above" not in level.caption


@pytest.mark.parametrize(("first", "last"), [(1e5, 5e5), (7.8e3, 5e5), (4e3, 6e6), (4e3, 1e10)])
def test_ticks_do_not_overlap(first: float, last: float) -> None:
    tokens = np.geomspace(first, last, 50)
    plot = loss_plot("a", Curve("loss", tokens, np.linspace(3, 2, 50)), None)
    axes = drawn(plot)
    plot.figure.canvas.draw()
    low, high = axes.get_xlim()
    shown = [tick.label1 for tick in axes.xaxis.get_major_ticks() if low <= tick.get_loc() <= high]
    boxes = [label.get_window_extent() for label in shown]
    assert len(boxes) >= 2
    assert all(one.x1 + 10 < other.x0 for one, other in pairwise(boxes))


def test_a_curve_touches_no_edge_or_label() -> None:
    plot = heldout_plot("a", curve([2.16, 2.0, 1.9, 1.84, 1.77, 1.71, 1.64, 1.6]), {"3-gram": 1.62})
    axes = drawn(plot)
    plot.figure.canvas.draw()
    [line] = [one for one in axes.lines if one.get_color() != GREY]
    assert axes.get_ylim()[1] > 2.16 + 0.02
    [name] = axes.texts
    box, points = name.get_window_extent(), axes.transData.transform(line.get_xydata())
    pairs = pairwise(points)
    between = np.concatenate([np.linspace(a, b, 50) for a, b in pairs])
    assert not any(box.contains(*point) for point in between)
    assert drawn(loss_plot("a", curve([1.08, *[0.8, 1.0] * 40]), None)).get_ylim()[1] > 1.08
    caption = loss_plot("a", curve([2.0, 1.5]), None, remark="Mixture: x.").caption
    assert caption == "a over the tokens read. Mixture: x."


def test_a_start_above_the_frame_is_left_out_and_noted() -> None:
    early = replace(curve([4.006, 1.5, 1.2, 1.1, 1.05]), name="held-out bits per byte")
    plot = heldout_plot("sft: held-out text", early, {})
    axes = drawn(plot)
    (left, right), (_, top) = axes.get_xlim(), axes.get_ylim()
    assert top < 4 and "The start, from 4.01, is above the frame." in plot.caption
    # The line comes in through the upper left corner.
    points = axes.transData.transform([(1_000, 4.006), (left, top), (2_000, 1.5)])
    (run, rise), (on, up) = points[2] - points[0], points[1] - points[0]
    assert up / on == pytest.approx(rise / run)
    assert 1_000 < left < 2_000 and right > 5_000
    assert plot.caption.count("held-out") == 1 and axes.get_ylabel() == "bits per byte"
    whole = heldout_plot("a", curve([1.3, 1.25, 1.2, 1.1]), {})
    assert drawn(whole).get_xlim()[0] < 1_000 and "frame" not in whole.caption


NAMES = tuple(f"model-{number}" for number in range(12))
LONG = "SmolLM2-135M-Instruct-customer-support-lora-rank16-epoch3-final-best"


def many(names: tuple[str, ...]) -> list[Plot]:
    """Every figure with any number of distinguishable series."""
    one = Estimate(0.5, 0.4, 0.6, 10, 10)
    jobs = {"judge": 0.75, "cook": 0.25}
    return [
        interval_plot("a", "share", {name: {"x": one} for name in names}, False),
        calibration_plot("a", {n: [ReliabilityBin(0.5, one, 9)] for n in names}),
        leaning_plot("a", "P(she)", jobs, dict.fromkeys(names, jobs)),
        rate_plot({name: curve([1.0, 0.5]) for name in names}),
        trade_plot("a", ("price", "gain"), "start", dict.fromkeys(names, (one, one))),
        learning_plot("a", dict.fromkeys(names, (curve([2.0, 1.0]), curve([2.0, 1.0])))),
    ]


def series_of(plot: Plot) -> dict[str, Any]:
    """The line of each series in the legend."""
    [axes] = plot.figure.axes
    [legend] = plot.figure.legends
    series = zip(*axes.get_legend_handles_labels(), strict=True)
    found = {name: one[0] if isinstance(one, tuple) else one for one, name in series}
    assert {text.get_text() for text in legend.get_texts()} == set(found)
    return found


def test_series_beyond_the_colors_are_distinguishable_and_without_colors_too() -> None:
    for plot in many(NAMES):
        drawn(plot)
        lines = [series_of(plot)[name] for name in NAMES]
        marks = {(one.get_marker(), to_hex(one.get_markerfacecolor())) for one in lines}
        dashes = {(one.get_color(), str(one._dash_pattern)) for one in lines}
        if lines[0].get_marker() == "None":
            assert len(dashes) == len(NAMES), plot.name
        else:
            white = {(mark, face == "#ffffff") for mark, face in marks}
            assert len(white) == len(NAMES), plot.name


def test_baselines_are_grey() -> None:
    one = Estimate(0.5, 0.4, 0.6, 10, 10)
    rows = {name: {"x": one} for name in ("sft", "3-gram", "6-gram")}
    plot = interval_plot("a", "bits", rows, False, ("base", "sft"), ("3-gram", "6-gram"))
    colors = {name: to_hex(line.get_color()).upper() for name, line in series_of(plot).items()}
    grey = GREY.upper()
    assert colors == {"sft": model_colors(("base", "sft"))["sft"], "3-gram": grey, "6-gram": grey}


def test_a_long_name_does_not_displace_the_figure() -> None:
    one = Estimate(0.5, 0.4, 0.6, 10, 10)
    corners = dict.fromkeys(("utility", "safety", "fairness"), one)
    triangle = triangle_plot(LONG, corners, (f"{LONG}2", corners))
    loss = loss_plot(f"{LONG}: loss", curve([2.0, 1.5]), None)
    for plot in (*many((LONG, *NAMES[:3])), triangle, loss):
        [axes] = plot.figure.axes
        drawn(plot)
        frame = plot.figure.bbox
        for part in (*plot.figure.legends, axes.title, axes._left_title):
            box = part.get_window_extent()
            assert frame.x0 <= box.x0 <= box.x1 <= frame.x1, plot.name
            assert frame.y0 <= box.y0 <= box.y1 <= frame.y1, plot.name
        assert LONG in plot.in_words and "\n" not in plot.in_words
        # The legend takes no room from what is drawn.
        assert axes.bbox.height > 0.15 * plot.figure.dpi


def test_a_run_of_one_step_has_a_visible_point() -> None:
    for losses in ([2.5], [2.5, 2.5]):
        axes = drawn(loss_plot("a", curve(losses), None))
        low, high = axes.get_ylim()
        assert 0.02 < (high - low) / 2.5 < 0.2
        assert axes.yaxis.get_major_formatter().get_offset() == ""
        shown = float(axes.yaxis.get_ticklabels()[0].get_text())
        assert abs(shown - axes.yaxis.get_ticklocs()[0]) < 0.01
        markers = {line.get_marker() for line in axes.lines}
        assert ("o" in markers) == (len(losses) == 1)
