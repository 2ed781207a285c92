"""Means of fields, by hand, and differences on shared items only."""

from __future__ import annotations

import pytest

from groundup.evals.values.shares import differences, means, of, without
from groundup.evals.values.task import Row

FIELDS = {"kept": "flag"}


def rows(*flags: bool | None, groups: str = "") -> list[Row]:
    named = groups or "abcdefgh"
    return [{"id": str(i), "group": named[i], "flag": flag} for i, flag in enumerate(flags)]


def test_inapplicable_items_are_not_counted() -> None:
    found = means(FIELDS)(rows(True, None, False, False))["kept"]
    assert (found.estimate, found.items, found.groups) == (pytest.approx(1 / 3), 3, 3)
    assert 0 < found.low < 1 / 3 < found.high < 1
    assert means(FIELDS)(rows(None, None)) == {}


def test_a_group_is_resampled_as_one() -> None:
    alike = means(FIELDS)(rows(True, True, False, False, groups="aabb"))["kept"]
    assert (alike.items, alike.groups) == (4, 2)
    # Two groups that contradict each other say nothing.
    assert alike.low < 0.01 and alike.high > 0.99


def test_two_models_are_compared_on_shared_items() -> None:
    after, before = rows(True, True, None, False), rows(False, True, True, None)
    found = differences(FIELDS)(after, before)["kept"]
    assert (found.estimate, found.items) == (0.5, 2)
    assert differences(FIELDS)(rows(None), rows(True)) == {}


def test_scores_invert_measures_whose_ideal_is_zero() -> None:
    numbers = means(FIELDS)
    told = rows(True, False, False, False)
    one, other = of("kept", numbers)(told), without("kept", numbers)(told)
    assert (one.estimate, other.estimate) == (0.25, 0.75)
    assert (other.low, other.high) == (1 - one.high, 1 - one.low)
