"""Areas under the curve against a count of all pairs, and curves against all thresholds."""

from __future__ import annotations

import numpy as np
import pytest

from groundup.maths.intervals import wilson_interval
from groundup.maths.roc import roc_auc, roc_auc_interval, roc_curve


def by_pairs(scores: np.ndarray, positive: np.ndarray) -> float:
    """Hanley and McNeil's definition, pair by pair."""
    won = [
        1.0 if above > below else 0.5 if above == below else 0.0
        for above in scores[positive]
        for below in scores[~positive]
    ]
    return sum(won) / len(won)


@pytest.mark.parametrize("levels", [3, 1000])
def test_the_area_is_the_share_of_pairs_in_order(levels: int) -> None:
    random = np.random.default_rng(levels)
    positive = random.random(80) < 0.3
    scores = np.round((random.normal(size=80) + positive) * levels) / levels
    area = roc_auc(scores, positive)
    assert area == pytest.approx(by_pairs(scores, positive))
    wrongly, rightly = roc_curve(scores, positive)
    assert np.trapezoid(rightly, wrongly) == pytest.approx(area)
    assert (wrongly[0], rightly[0], wrongly[-1], rightly[-1]) == (0, 0, 1, 1)


def test_a_curve_has_a_point_for_every_threshold() -> None:
    scores = np.array([0.9, 0.8, 0.8, 0.1])
    positive = np.array([True, False, True, False])
    wrongly, rightly = roc_curve(scores, positive)
    points = [
        (float((scores[~positive] >= t).mean()), float((scores[positive] >= t).mean()))
        for t in (2.0, 0.9, 0.8, 0.1)
    ]
    assert list(zip(wrongly.tolist(), rightly.tolist(), strict=True)) == points


def test_perfect_guessing_and_reversed() -> None:
    positive = np.array([True] * 5 + [False] * 5)
    assert roc_auc(positive.astype(float), positive) == 1
    assert roc_auc(-positive.astype(float), positive) == 0
    assert roc_auc(np.zeros(10), positive) == 0.5


def test_the_interval_covers_the_truth_and_is_wider_for_clusters() -> None:
    # Normal scores one deviation apart: the area is Phi(1 / sqrt 2) = 0.760.
    inside = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        positive = random.random(200) < 0.5
        found = roc_auc_interval(
            random.normal(size=200) + positive, positive, samples=200, seed=seed
        )
        inside += found.low <= 0.760 <= found.high
    assert inside >= 33
    random = np.random.default_rng(0)
    shared = np.repeat(random.normal(size=20), 10)
    positive = np.repeat(random.random(20) < 0.5, 10)
    clusters = np.repeat(np.arange(20), 10).tolist()
    each = roc_auc_interval(shared + positive, positive, samples=200)
    whole = roc_auc_interval(shared + positive, positive, clusters=clusters, samples=200)
    assert whole.high - whole.low > 1.5 * (each.high - each.low)


def test_perfect_separation_has_the_interval_of_its_number_of_clusters() -> None:
    positive = np.arange(30) < 8
    clusters = [f"{place // 2}" for place in range(30)]
    found = roc_auc_interval(positive.astype(float), positive, clusters=clusters)
    assert found == wilson_interval(4, 4) and found.low < 0.52
    assert roc_auc_interval(-positive.astype(float), positive) == wilson_interval(0, 8)


def test_one_class_has_no_curve() -> None:
    with pytest.raises(ValueError, match="both classes"):
        roc_auc(np.zeros(3), np.ones(3, bool))


def test_clusters_and_confidence_are_checked() -> None:
    scores, positive = np.array([0.1, 0.9, 0.5]), np.array([True, False, True])
    with pytest.raises(ValueError, match="confidence=95 is not a probability"):
        roc_auc_interval(scores, positive, confidence=95)
    with pytest.raises(ValueError, match="3 values with 2 cluster names"):
        roc_auc_interval(scores, positive, clusters=[0, 1])


def test_rejects_unordered_scores_and_missing_items(unchecked_types: None) -> None:
    positive = np.array([True, False, True])
    for measure in (roc_auc, roc_curve, roc_auc_interval):
        with pytest.raises(ValueError, match="a score is NaN"):
            measure(np.array([1.0, np.nan, 2.0]), positive)
        with pytest.raises(ValueError, match="2 scores do not fit 3 items"):
            measure(np.array([1.0, 2.0]), positive)
    assert roc_auc(np.array([1.0, -np.inf, np.inf]), positive) == 1


def test_rejects_labels_that_are_numbers(unchecked_types: None) -> None:
    for measure in (roc_auc, roc_curve, roc_auc_interval):
        with pytest.raises(ValueError, match="positive is of int64; give booleans"):
            measure(np.array([0.1, 0.9]), np.array([0, 1]))
