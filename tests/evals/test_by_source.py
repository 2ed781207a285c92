"""Numbers with intervals, split by source."""

from __future__ import annotations

import numpy as np
import pytest

from groundup.data.packs.manifest import generated_set
from groundup.evals.by_source import WORLD, by_source, source_groups


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


def test_the_small_world_is_pooled_apart_from_what_people_wrote() -> None:
    found = by_source(np.array([1.0, 0.0, 1.0]), ["wiki", "world-facts", "boolq"])
    assert list(found) == ["pooled", "world pooled", "boolq", "wiki", "world-facts"]
    assert (found["pooled"].estimate, found["world pooled"].estimate) == (1, 0)
    alone = by_source(np.array([1.0, 0.0]), ["world-facts", "world-sums"])
    assert list(alone) == ["pooled", "world-facts", "world-sums"]
    assert alone["pooled"].estimate == 0.5
    sources = ["wiki", "world-facts", "world", "newcomer-talk", "world-talk", "worldly"]
    made = [sources[i] for i in source_groups(sources)[WORLD]]
    assert made == [source for source in sources if generated_set(source)]
