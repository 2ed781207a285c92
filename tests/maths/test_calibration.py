"""Calibration measures on constructed cases with known answers, and as properties of any
forecast."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.maths.calibration import (
    binary_brier_score,
    brier_decomposition,
    brier_score,
    brier_scores,
    calibration_error_by_chance,
    expected_calibration_error,
    reliability_curve,
    reliability_plot,
    top_label,
)
from groundup.maths.intervals import wilson_interval

BINNINGS = ("equal width", "equal mass")
binnings = st.sampled_from(BINNINGS)
forecasts = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 1 / 3, 0.5, 0.77, 1.0]), st.booleans()),
    min_size=1,
    max_size=60,
).map(lambda pairs: tuple(np.array(column) for column in zip(*pairs, strict=True)))


def calibrated_draws(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Forecasts between 0 and 1, each true with exactly the probability that it states."""
    rng = np.random.default_rng(seed)
    p = rng.beta(2, 2, size=n)
    return p, rng.random(n) < p


# Expected calibration error.


def test_error_by_hand():
    """Bins of width 1/2: 0.2 and 0.4 come true once in two, 0.9 and 0.8 and 0.7 always."""
    confidence = np.array([0.2, 0.4, 0.9, 0.8, 0.7])
    correct = np.array([True, False, True, True, True])
    wanted = 2 / 5 * abs(0.5 - 0.3) + 3 / 5 * abs(1 - 0.8)
    assert expected_calibration_error(confidence, correct, bins=2) == pytest.approx(wanted)
    assert expected_calibration_error(confidence, correct, bins=1) == pytest.approx(0.8 - 0.6)


@pytest.mark.parametrize("binning", BINNINGS)
def test_calibrated_forecasts_have_only_the_error_of_chance(binning):
    p, outcome = calibrated_draws(200_000)
    assert expected_calibration_error(p, outcome, binning=binning) < 0.005
    few, came_true = calibrated_draws(150)
    error = expected_calibration_error(few, came_true, binning=binning)
    by_chance = calibration_error_by_chance(few, binning=binning)
    assert 0.05 < by_chance < 0.15
    assert error == pytest.approx(by_chance, abs=0.05)


@pytest.mark.parametrize("binning", BINNINGS)
def test_overconfidence_is_measured(binning):
    """True with probability p, forecast p + 0.2: the error is 0.2 for any bins."""
    p, outcome = calibrated_draws(100_000)
    inner = p < 0.8
    found = expected_calibration_error(p[inner] + 0.2, outcome[inner], binning=binning)
    assert found == pytest.approx(0.2, abs=0.01)


def test_error_by_chance_equals_that_of_many_calibrated_models():
    p = np.random.default_rng(0).beta(2, 2, size=300)
    rng = np.random.default_rng(1)
    errors = [expected_calibration_error(p, rng.random(300) < p) for _ in range(400)]
    error = np.std(errors) * sqrt(1 / 400 + 1 / 200)
    assert calibration_error_by_chance(p) == pytest.approx(np.mean(errors), abs=4 * error)
    assert calibration_error_by_chance(np.array([0.0, 1.0])) == 0


@pytest.mark.parametrize("binning", BINNINGS)
def test_a_constant_predictor_is_one_bin(binning):
    correct = np.arange(100) < 30
    constant = np.full(100, 0.45)
    assert expected_calibration_error(constant, correct, binning=binning) == pytest.approx(0.15)
    [only] = reliability_curve(constant, correct, binning=binning)
    assert (only.count, only.accuracy) == (100, wilson_interval(30, 100))
    assert only.confidence == pytest.approx(0.45)


@given(forecasts, binnings, st.integers(1, 20))
@settings(deadline=None)
def test_error_is_a_weighted_mean_over_the_curve(data, binning, bins):
    confidence, correct = data
    error = expected_calibration_error(confidence, correct, bins=bins, binning=binning)
    curve = reliability_curve(confidence, correct, bins=bins, binning=binning)
    gaps = [b.count * abs(b.accuracy.estimate - b.confidence) for b in curve]
    assert error == pytest.approx(sum(gaps) / len(confidence), abs=1e-12)
    assert sum(b.count for b in curve) == len(confidence)
    assert sum(b.count * b.accuracy.estimate for b in curve) == pytest.approx(correct.sum())
    confidences = [b.confidence for b in curve]
    assert confidences == sorted(confidences)
    # Bins only hide: one bin for all shows least, one for each forecast most.
    assert abs(confidence.mean() - correct.mean()) - 1e-12 <= error <= 1
    shuffled = np.random.default_rng(0).permutation(len(correct))
    again = expected_calibration_error(
        confidence[shuffled], correct[shuffled], bins=bins, binning=binning
    )
    assert again == pytest.approx(error, abs=1e-12)


def test_a_bin_holds_its_upper_edge():
    confidence = np.array([0.0, 0.5, 0.5000001, 1.0])
    curve = reliability_curve(confidence, np.ones(4, bool), bins=2)
    assert [b.count for b in curve] == [2, 2]


def test_bins_of_equal_mass_have_equal_counts():
    confidence = np.random.default_rng(0).beta(50, 2, size=1000)
    correct = np.ones(1000, bool)
    curve = reliability_curve(confidence, correct, bins=10, binning="equal mass")
    assert [b.count for b in curve] == [100] * 10


# Several classes.


def test_the_top_label_and_its_correctness():
    probs = np.array([[0.5, 0.3, 0.2], [0.4, 0.4, 0.2], [0.4, 0.4, 0.2], [1 / 3] * 3])
    confidence, correct = top_label(probs, np.array([1, 0, 2, 1]))
    assert confidence == pytest.approx([0.5, 0.4, 0.4, 1 / 3])
    assert correct == pytest.approx([0, 0.5, 0, 1 / 3])


def test_a_uniform_forecast_is_calibrated_and_scores_as_chance():
    probs, labels = np.full((500, 4), 0.25), np.zeros(500, int)
    assert expected_calibration_error(*top_label(probs, labels)) == pytest.approx(0)
    assert brier_score(probs, labels) == pytest.approx(1 - 1 / 4)


# The Brier score.


def test_brier_by_hand():
    probs = np.array([[0.7, 0.2, 0.1], [0.0, 0.0, 1.0]])
    labels = np.array([0, 1])
    assert brier_scores(probs, labels) == pytest.approx([0.09 + 0.04 + 0.01, 0 + 1 + 1])
    assert brier_score(probs, labels) == pytest.approx((0.14 + 2) / 2)


@given(forecasts)
@settings(deadline=None)
def test_binary_brier_is_half_of_the_two_class_brier(data):
    forecast, outcome = data
    probs = np.stack([1 - forecast, forecast], axis=1)
    two = brier_score(probs, outcome.astype(int))
    assert binary_brier_score(forecast, outcome) == pytest.approx(two / 2)


def test_an_absent_class_changes_no_score():
    probs, labels = np.array([[0.7, 0.3], [0.2, 0.8]]), np.array([0, 0])
    padded = np.pad(probs, ((0, 0), (0, 3)))
    assert brier_scores(padded, labels) == pytest.approx(brier_scores(probs, labels))


def test_brier_is_proper():
    """No forecast has a lower expected score than the true probability."""
    truth = np.array([0.6, 0.3, 0.1])
    labels = np.arange(3)

    def expected(forecast: np.ndarray) -> float:
        return float(truth @ brier_scores(np.tile(forecast, (3, 1)), labels))

    others = np.random.default_rng(0).dirichlet(np.ones(3), size=200)
    assert all(expected(other) >= expected(truth) for other in others)


@given(forecasts, st.one_of(st.none(), st.integers(1, 12)), binnings)
@settings(deadline=None)
def test_the_decomposition_sums_to_the_score(data, bins, binning):
    forecast, outcome = data
    parts = brier_decomposition(forecast, outcome, bins=bins, binning=binning)
    total = parts.reliability - parts.resolution + parts.uncertainty + parts.within_bins
    assert total == pytest.approx(binary_brier_score(forecast, outcome), abs=1e-12)
    assert parts.reliability >= 0
    assert 0 <= parts.resolution <= parts.uncertainty + 1e-12
    if bins is None:
        assert parts.within_bins == pytest.approx(0, abs=1e-12)


def test_decomposition_of_constructed_forecasts():
    outcome = np.array([True] * 30 + [False] * 70)
    base_rate = brier_decomposition(np.full(100, 0.3), outcome)
    assert (base_rate.reliability, base_rate.resolution) == pytest.approx((0, 0))
    assert base_rate.uncertainty == pytest.approx(0.21)
    certain = brier_decomposition(outcome.astype(float), outcome)
    assert certain.resolution == pytest.approx(certain.uncertainty)
    contrary = brier_decomposition(1 - outcome.astype(float), outcome)
    assert contrary.reliability == pytest.approx(1)
    p, came_true = calibrated_draws(200_000)
    honest = brier_decomposition(p, came_true, bins=20)
    assert honest.reliability < 1e-3
    # Beta(2, 2) has variance 1/20: all of it is resolved, up to what the bins hide.
    assert honest.resolution == pytest.approx(1 / 20, abs=1e-3)


# The plot, and what is refused.


def test_the_plot_shows_the_curve(tmp_path):
    p, outcome = calibrated_draws(2000)
    curve = reliability_curve(p, outcome, bins=10)
    figure = reliability_plot(curve)
    [axes] = figure.axes
    [points] = [line for line in axes.lines if len(line.get_xdata()) == len(curve)][:1]
    assert points.get_xdata() == pytest.approx([b.confidence for b in curve])
    assert points.get_ydata() == pytest.approx([b.accuracy.estimate for b in curve])
    figure.savefig(tmp_path / "curve.svg")
    assert (tmp_path / "curve.svg").stat().st_size > 1000


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: expected_calibration_error(np.array([]), np.array([])), "no forecasts"),
        (lambda: expected_calibration_error(np.array([1.2]), np.array([1])), "1.2 is not a prob"),
        (lambda: reliability_curve(np.array([0.5]), np.array([1]), bins=0), "bins=0"),
        (lambda: binary_brier_score(np.array([np.nan]), np.array([1])), "nan is not a prob"),
        (lambda: brier_score(np.array([[0.5, 0.4]]), np.array([1])), "item 0 sum to 0.9"),
        (lambda: brier_score(np.array([[0.5, 0.5]]), np.array([2])), r"label 2 .* 0 \.\.\. 1"),
        (lambda: top_label(np.array([[0.5, 0.5]]), np.array([-1])), "label -1"),
    ],
)
def test_rejects_bad_input(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda p, one: expected_calibration_error(p, one), r"\(3,\) forecasts do not fit \(1,\)"),
        (lambda p, one: reliability_curve(p, one), r"\(3,\) forecasts do not fit \(1,\)"),
        (lambda p, one: brier_decomposition(p, one), r"\(3,\) forecasts do not fit \(1,\)"),
        (
            lambda p, one: brier_score(np.stack([p, 1 - p], axis=1), one),
            r"\(3,\) distributions do not fit \(1,\) labels",
        ),
        (
            lambda p, one: top_label(np.stack([p, 1 - p], axis=1), one),
            r"\(3,\) distributions do not fit \(1,\) labels",
        ),
        (
            lambda p, one: expected_calibration_error(p, p, binning="equal_mass"),
            "binning='equal_mass' is unknown; use 'equal width' or 'equal mass'",
        ),
        (lambda p, one: calibration_error_by_chance(p, samples=0), "samples=0"),
    ],
)
def test_rejects_input_that_would_give_a_wrong_number(wrong, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        wrong(np.array([0.9, 0.8, 0.7]), np.array([1]))
