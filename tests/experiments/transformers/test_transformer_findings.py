"""What is said over seeds, and what models carry."""

from __future__ import annotations

import numpy as np
import pytest

from groundup.experiments.transformers.findings import (
    compared,
    conclusions,
    lines_plot,
    over,
    share_over,
)
from groundup.experiments.transformers.models import attention_only, recurrent


def test_a_difference_is_told_apart_where_its_interval_leaves_zero_out() -> None:
    far = compared("less", ("a", [1.0, 1.1, 0.9]), ("b", [3.0, 3.2, 2.9]), "below")
    near = compared("less", ("a", [1.0, 1.4, 0.9]), ("b", [1.2, 1.3, 1.1]), "below")
    wrong = compared("less", ("a", [3.0, 3.1, 3.2]), ("b", [1.0, 1.1, 1.2]), "below")
    assert [one.mark for one in (far, near, wrong)] == ["yes", "open", "no"]
    said = conclusions([far, near, wrong])
    assert said[1].startswith("Not told apart") and "contrary" in said[2]
    assert far.values == pytest.approx((3.0333, 1.0), abs=1e-3)


def test_of_one_seed_nothing_is_told() -> None:
    claim = compared("less", ("a", [1.0]), ("b", [3.0]), "below")
    assert claim.mark == "open"
    assert conclusions([claim]) == ["Of one seed nothing can be told: less."]


def test_shares_end_at_one() -> None:
    assert over([0.9, 1.0, 1.0]).high > 1.0
    found = share_over([0.9, 1.0, 1.0])
    assert (found.high, found.groups) == (1.0, 3)


def test_a_plot_has_a_pane_for_each_title_and_one_legend() -> None:
    lines = {"a": ([1, 2, 4], np.zeros((3, 3))), "b": ([1, 2], np.ones((3, 2)))}
    plot = lines_plot("x", "What.", {"one": lines, "two": lines}, x="x", y="y", log_x=True)
    assert [axes.get_title(loc="left") or axes.get_title() for axes in plot.figure.axes]
    assert len(plot.figure.axes) == 2 and len(plot.figure.legends) == 1
    assert [text.get_text() for text in plot.figure.legends[0].texts] == ["a", "b"]


def test_a_cache_grows_with_the_text_and_a_state_does_not() -> None:
    sizes = {"vocab_size": 64, "context": 48}
    attention = attention_only(width=32, depth=2, heads=2, **sizes)
    assert [attention.state_floats(n) for n in (1, 48)] == [2 * 2 * 32, 2 * 2 * 32 * 48]
    lstm, gru = (recurrent(cell, width=32, depth=1, **sizes) for cell in ("lstm", "gru"))
    assert [lstm.state_floats(n) for n in (1, 48)] == [64, 64]
    assert [gru.state_floats(n) for n in (1, 48)] == [32, 32]


def test_attention_alone_has_no_mlp() -> None:
    model = attention_only(width=32, depth=2, heads=2, vocab_size=64, context=48)(0)
    names = [name for name, _ in model.named_parameters()]
    assert not [name for name in names if "mlp" in name or "post_attention" in name]
    # Embeddings, four matrices and two head norms for each layer, a norm for each and at the end.
    per_layer = 4 * 32 * 32 + 2 * 16 + 32
    assert sum(one.numel() for one in model.parameters()) == 64 * 32 + 2 * per_layer + 32
