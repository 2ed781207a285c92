"""Numbers with intervals, split by source."""

from __future__ import annotations

import numpy as np
import pytest

from groundup.data.packs.manifest import generated_set
from groundup.evals.by_source import WORLD, by_source, source_groups
from groundup.evals.choice import majority_answer
from groundup.evals.preference import Pairs, preference_accuracy, preference_gain
from groundup.maths.intervals import independent_trials, wilson_interval
from groundup.report.estimate import share
from groundup.text.rows import Choice, Message, Preference


def test_sources_are_measured_separately_and_pooled_by_weight() -> None:
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


def test_the_small_world_is_pooled_separately_from_human_text() -> None:
    found = by_source(np.array([1.0, 0.0, 1.0]), ["wiki", "world-facts", "boolq"])
    assert list(found) == ["pooled", "world pooled", "boolq", "wiki", "world-facts"]
    assert (found["pooled"].estimate, found["world pooled"].estimate) == (1, 0)
    alone = by_source(np.array([1.0, 0.0]), ["world-facts", "world-sums"])
    assert list(alone) == ["pooled", "world-facts", "world-sums"]
    assert alone["pooled"].estimate == 0.5
    sources = ["wiki", "world-facts", "world", "newcomer-talk", "world-talk", "worldly"]
    made = [sources[i] for i in source_groups(sources)[WORLD]]
    assert made == [source for source in sources if generated_set(source)]


def test_a_share_of_all_or_none_has_an_interval() -> None:
    """Wilson's interval for the number of groups; a difference keeps the bootstrap's."""
    sources, groups = ["a"] * 40 + ["b"] * 40, [str(n // 2) for n in range(80)]
    values = np.repeat([1.0, 0.0], 40)
    found = by_source(values, sources, groups=groups, chances=np.full(80, 0.5), share=True)
    assert (found["a"].estimate, found["a"].high, found["b"].low) == (1, 1, 0)
    assert found["a"].low == pytest.approx(share(20, 20).low) and found["a"].chance == 0.5
    assert found["b"].high == pytest.approx(share(0, 20).high)
    differences = by_source(values, sources, groups=groups)
    assert found["pooled"].estimate == differences["pooled"].estimate
    trials = independent_trials(values, groups)
    assert 36 < trials < 40  # groups that agree are a trial each, and their number is no large one
    half = wilson_interval(trials / 2, trials)
    assert (found["pooled"].low, found["pooled"].high) == pytest.approx((half.low, half.high))
    assert differences["a"].low == 1

    choices = [Choice("Deep?", ("Yes", "No"), 0, "sea", str(n)) for n in range(40)]
    assert majority_answer(choices)["sea"].low == pytest.approx(share(40, 40).low)
    asked = (Message("user", "Deep?"),)
    pairs = Pairs([], [Preference(asked, "Yes.", "No.", "sea", str(n)) for n in range(40)])
    preferred = preference_accuracy(np.ones(40), pairs)["sea"]
    assert preferred.low == pytest.approx(share(40, 40).low) and preferred.chance == 0.5
    assert preference_gain(np.ones(40), -np.ones(40), pairs)["sea"].low == 1
