"""What the figures of several pages draw, where numbers and names are not as one would like."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from groundup.report.estimate import Estimate
from groundup.report.figure import Plot, image
from groundup.report.history import Curve
from groundup.report.plots import heldout_plot, interval_plot, loss_plot


def curve(values: list[float], first: float = 1_000.0) -> Curve:
    return Curve("loss", first + 1_000.0 * np.arange(len(values)), np.array(values))


def drawn(plot: Plot) -> Any:
    """The plot's axes, once it is a picture without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image(plot.figure, "svg")
    return plot.figure.axes[0]


@pytest.mark.parametrize("bad", [np.inf, np.nan])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_is_not_finite_is_left_out(place: int, bad: float) -> None:
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


def test_what_was_measured_before_training_is_seen() -> None:
    before = curve([3.9, 2.5, 1.9], first=0.0)
    axes = drawn(loss_plot("a", curve([2.6, 2.2, 1.8]), before))
    [dots] = [line for line in axes.lines if line.get_label() == "loss"]
    x, y = dots.get_xdata(), dots.get_ydata()
    assert (x[0], y[0]) == (1_000.0, 3.9) and axes.get_ylim()[1] > 3.9


@pytest.mark.parametrize("name", ["_base", r"a$x\foo$b", r"a\$b", "a$b", "sft"])
def test_a_name_is_shown_as_it_is(name: str) -> None:
    one = Estimate(0.5, 0.4, 0.6, 10, 10)
    plot = interval_plot(name, "share", {name: {name: one}}, False)
    axes = drawn(plot)
    [label] = plot.figure.legends[0].get_texts()
    for text in (label, axes.yaxis.get_ticklabels()[0], axes.title):
        read = text.get_text() or axes.get_title("left")
        shown, formula = text._preprocess_math(read)
        assert (shown.lstrip("\u200b"), formula) == (name, False)
