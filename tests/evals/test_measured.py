"""Numbers with intervals, split by source."""

from __future__ import annotations

import numpy as np
import pytest

from groundup.evals.measured import Measured, by_source, ratio, share


def test_sources_are_measured_apart_and_pooled_by_weight() -> None:
    found = by_source(np.array([1.0, 3.0, 10.0]), ["a", "a", "b"], np.array([1.0, 1.0, 2.0]))
    assert list(found) == ["pooled", "a", "b"]
    assert found["a"].estimate == 2.0
    assert found["b"].estimate == 5.0
    assert found["pooled"].estimate == 14 / 4


def test_chance_is_the_mean_over_a_sources_items() -> None:
    found = by_source(np.zeros(3), ["a", "b", "b"], chances=np.array([0.5, 0.25, 0.2]))
    assert found["a"].chance == 0.5
    assert found["b"].chance == pytest.approx(0.225)
    assert found["pooled"].chance == pytest.approx(0.95 / 3)


def test_answers_that_share_a_group_make_the_interval_wider() -> None:
    """40 copies of 5 answers say no more than the 5."""
    values = np.repeat([1.0, 0.0, 1.0, 1.0, 0.0], 40)
    together = ratio(values, groups=[f"prompt {i // 40}" for i in range(200)])
    apart = ratio(values)
    assert (together.items, together.groups, apart.groups) == (200, 5, 200)
    assert together.high - together.low > 3 * (apart.high - apart.low)


def test_a_share_has_an_interval_where_none_hit() -> None:
    found = share(0, 20)
    assert found.estimate == 0
    assert found.low == 0
    # Wilson by hand: z^2 / (n + z^2).
    assert found.high == pytest.approx(1.959964**2 / (20 + 1.959964**2), abs=1e-6)


def test_json_has_a_chance_only_where_there_is_one() -> None:
    without = Measured(0.5, 0.4, 0.6, 10, 10).to_json()
    assert "chance" not in without
    assert Measured(**without).chance is None
    assert Measured(0.5, 0.4, 0.6, 10, 10, 0.25).to_json()["chance"] == 0.25
