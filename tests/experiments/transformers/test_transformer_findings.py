"""Remarks over seeds, and the memory of models."""

from __future__ import annotations

import re

import numpy as np
import pytest

from groundup.experiments.transformers.findings import (
    compared,
    conclusions,
    intervals,
    lines_plot,
    number_cell,
    over,
    share_over,
)
from groundup.experiments.transformers.models import attention_only, recurrent
from groundup.report.claim import Claim
from groundup.report.page import Claims, Page, Section, html


def test_a_difference_is_significant_if_its_interval_excludes_zero() -> None:
    far = compared("less", ("a", [1.0, 1.1, 0.9]), ("b", [3.0, 3.2, 2.9]), "below")
    near = compared("less", ("a", [1.0, 1.4, 0.9]), ("b", [1.2, 1.3, 1.1]), "below")
    wrong = compared("less", ("a", [3.0, 3.1, 3.2]), ("b", [1.0, 1.1, 1.2]), "below")
    assert [one.mark for one in (far, near, wrong)] == ["yes", "open", "no"]
    held, contrary, apart, tests = conclusions([near, far, near, wrong])
    assert held.startswith("Less: a against b, 3.033 → 1.000 (")
    assert contrary.startswith("Not so: less: a against b, ")
    assert apart == "Not significant: less; less."
    assert tests.startswith("4 claims are tested at 95 % each, without correction: of twenty")
    # One test needs no such word, and of one seed nothing is tested.
    single = compared("less", ("a", [1.0]), ("b", [3.0]), "below")
    assert len(conclusions([far, single])) == 2 and len(conclusions([single, single])) == 1
    assert far.values == pytest.approx((3.0333, 1.0), abs=1e-3)


def test_one_seed_shows_nothing() -> None:
    claim = compared("less", ("a", [1.0]), ("b", [3.0]), "below")
    assert claim.mark == "open"
    assert conclusions([claim]) == ["One seed allows no conclusion: less."]


def test_each_line_of_a_test_begins_with_the_claim() -> None:
    many = compared("a beats b", ("a", [1.0, 1.1]), ("b", [3.0, 3.2]), "below")
    one = compared("a beats c", ("a", [1.0]), ("c", [3.0]), "below")
    bare = Claim("it fell", over([0.9, 1.1, 1.0]), "nats", "below")
    sections = [Section("What was tested", "claims", [Claims([many, one, bare])])]
    shown = re.sub("<[^>]+>", "", html(Page("t", "t", "t", [], sections)))
    assert "a beats b: a against b, 3.100 → 1.050 (-2.050 nats, interval -2.685 to" in shown
    assert "a beats c: a against c, 3.000 → 1.000 (-2.000 nats, no interval)" in shown
    assert "it fell: +1.000 nats, interval" in shown


def test_shares_are_at_most_one() -> None:
    assert over([0.9, 1.0, 1.0]).high > 1.0
    found = share_over([0.9, 1.0, 1.0])
    assert (found.high, found.groups) == (1.0, 3)


def test_no_speed_is_below_zero() -> None:
    cell = number_cell([10.0, 180.0, 350.0], 0)
    assert (cell.value, cell.note) == ("180", "0 to 602")


def test_no_attention_is_above_one() -> None:
    scores = [0.309, 0.793, 0.420]  # Student's interval ends at 1.14
    assert number_cell(scores, 2).note == "0.00 to 1.14"
    assert number_cell(scores, 2, most=1).note == "0.00 to 1.00"


def test_one_seed_has_no_interval() -> None:
    assert "interval" in intervals(3) and "3 seeds" in intervals(3)
    assert "Student" not in intervals(1) and "One seed" in intervals(1)


def test_a_plot_has_a_panel_for_each_title_and_one_legend() -> None:
    lines = {"a": ([1, 2, 4], np.zeros((3, 3))), "b": ([1, 2], np.ones((3, 2)))}
    plot = lines_plot("x", "What.", {"one": lines, "two": lines}, x="x", y="y", log_x=True)
    assert [axes.get_title(loc="left") or axes.get_title() for axes in plot.figure.axes]
    assert len(plot.figure.axes) == 2 and len(plot.figure.legends) == 1
    assert [text.get_text() for text in plot.figure.legends[0].texts] == ["a", "b"]


@pytest.mark.parametrize("panes", [1, 2])
@pytest.mark.parametrize(
    "labels",
    [
        [f"{n}: {kind}" for n in ("1 layer", "2 layers") for kind in ("previous token", "induct")],
        ["attention 32", "LSTM 32", "LSTM 64", "LSTM 128", "GRU 32"],
        ["M" * 12, "W" * 20],
        ["a name that is longer than all other names are, and nobody would give"],
    ],
)
def test_a_legend_fits_into_its_figure(labels: list[str], panes: int) -> None:
    lines = {label: ([0, 10], np.zeros((2, 2))) for label in labels}
    made = {f"pane {n}": lines for n in range(panes)}
    plot = lines_plot("x", "What.", made, x="x", y="y", level=("threshold", 0.4))
    plot.figure.canvas.draw()
    frame = plot.figure.legends[0].get_window_extent()
    assert frame.x0 >= 0 and frame.x1 <= plot.figure.bbox.width


def test_a_single_point_is_visible() -> None:
    plot = lines_plot("x", "What.", {"one": {"a": ([5], np.ones((2, 1)))}}, x="x", y="y")
    assert plot.figure.axes[0].lines[0].get_marker() == "o"


def test_a_cache_grows_with_the_text_and_a_state_does_not() -> None:
    sizes = {"vocab_size": 64, "context": 48}
    attention = attention_only(width=32, depth=2, heads=2, **sizes)
    assert [attention.state_floats(n) for n in (1, 48)] == [2 * 2 * 32, 2 * 2 * 32 * 48]
    lstm, gru = (recurrent(cell, width=32, depth=1, **sizes) for cell in ("lstm", "gru"))
    assert [lstm.state_floats(n) for n in (1, 48)] == [64, 64]
    assert [gru.state_floats(n) for n in (1, 48)] == [32, 32]


def test_attention_only_models_have_no_mlp() -> None:
    model = attention_only(width=32, depth=2, heads=2, vocab_size=64, context=48)(0)
    names = [name for name, _ in model.named_parameters()]
    assert not [name for name in names if "mlp" in name or "post_attention" in name]
    # Embeddings, four matrices and two head norms for each layer, a norm for each and at the end.
    per_layer = 4 * 32 * 32 + 2 * 16 + 32
    assert sum(one.numel() for one in model.parameters()) == 64 * 32 + 2 * per_layer + 32
