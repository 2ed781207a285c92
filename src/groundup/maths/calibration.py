"""Calibration: of the statements made with 70 % confidence, are 70 % true?

    expected calibration error    ECE = sum_b n_b / n |accuracy of bin b - mean confidence of bin b|
    Brier score                   BS = (1 / n) sum_i sum_k (p_ik - [k is true of i])^2

Both are 0 at best. ECE measures calibration only: a constant forecast of the base rate has ECE 0.
The Brier score is proper: its expectation is lowest for the true probabilities. Murphy's
decomposition splits it into reliability, resolution and the uncertainty of the question.

Sources: Naeini, Cooper and Hauskrecht (2015), "Obtaining well calibrated probabilities using
Bayesian binning"; Guo et al. (2017), "On calibration of modern neural networks", section 2; Brier
(1950), "Verification of forecasts expressed in terms of probability"; Murphy (1973), "A new vector
partition of the probability score".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from jaxtyping import Float, Integer, Shaped

from groundup.maths.intervals import Interval, wilson_interval

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

BINS = 15  # as in Guo et al.
Binning = Literal["equal width", "equal mass"]


def top_label(
    probs: Float[np.ndarray, "items classes"], labels: Integer[np.ndarray, "items"]
) -> tuple[Float[np.ndarray, "items"], Float[np.ndarray, "items"]]:
    """Gives each item's confidence, max_k p_k, and its accuracy: 1, 0, or a fraction.

    Equally likely top classes share the point, so a model that knows nothing is right as often as
    it expects to be, whatever the position of the right answer.
    """
    _checked(probs, labels)
    confidence = probs.max(axis=1)
    # Equal probabilities may differ in the last bit.
    chosen = np.isclose(probs, confidence[:, None], rtol=1e-9, atol=0)
    return confidence, chosen[np.arange(len(labels)), labels] / chosen.sum(axis=1)


def expected_calibration_error(
    confidence: Float[np.ndarray, "items"],
    correct: Shaped[np.ndarray, "items"],
    *,
    bins: int = BINS,
    binning: Binning = "equal width",
) -> float:
    """Gives sum_b n_b / n |accuracy_b - confidence_b|, from 0 to 1.

    For binary forecasts give the stated probability of "yes" and whether it was "yes"; for several
    classes give the results of `top_label`. Chance alone makes accuracy differ from confidence,
    more so with fewer items in a bin: compare with `calibration_error_by_chance`.
    Errors: `ValueError` for no items, confidence outside 0 ... 1, another number of outcomes, fewer
    than one bin, or an unknown binning.
    """
    number = _bin_numbers(confidence, bins, binning)
    gaps = np.bincount(number, weights=_outcomes(confidence, correct) - confidence)
    return float(np.abs(gaps).sum() / len(confidence))


def calibration_error_by_chance(
    confidence: Float[np.ndarray, "items"],
    *,
    bins: int = BINS,
    binning: Binning = "equal width",
    samples: int = 200,
    seed: int = 0,
) -> float:
    """Gives the mean of `calibration_errors_by_chance`."""
    errors = calibration_errors_by_chance(
        confidence, bins=bins, binning=binning, samples=samples, seed=seed
    )
    return float(errors.mean())


def calibration_errors_by_chance(
    confidence: Float[np.ndarray, "items"],
    *,
    bins: int = BINS,
    binning: Binning = "equal width",
    samples: int = 200,
    seed: int = 0,
) -> Float[np.ndarray, "samples"]:
    """Gives the errors of a perfectly calibrated model with these confidences.

    Outcomes are drawn with exactly the stated probability, item by item, `samples` times.
    Errors: `ValueError` for fewer than one sample, and as `expected_calibration_error`.
    Source: Bröcker and Smith (2007), "Increasing the reliability of reliability diagrams".
    """
    if samples < 1:
        raise ValueError(f"samples={samples} shows no errors; give 1 or more, such as 200")
    rng = np.random.default_rng(seed)
    draws = (rng.random(len(confidence)) < confidence for _ in range(samples))
    return np.array(
        [
            expected_calibration_error(confidence, correct, bins=bins, binning=binning)
            for correct in draws
        ]
    )


@dataclass(frozen=True)
class ReliabilityBin:
    """A point of the reliability curve: mean confidence and accuracy of a bin.

    The accuracy's 95 % interval is Wilson's and treats the `count` items as independent.
    """

    confidence: float
    accuracy: Interval
    count: int


def reliability_curve(
    confidence: Float[np.ndarray, "items"],
    correct: Shaped[np.ndarray, "items"],
    *,
    bins: int = BINS,
    binning: Binning = "equal width",
) -> list[ReliabilityBin]:
    """Gives mean confidence and accuracy of every nonempty bin, from low to high.

    Errors: as `expected_calibration_error`.
    """
    number = _bin_numbers(confidence, bins, binning)
    correct = _outcomes(confidence, correct)
    curve = []
    for b in np.unique(number):
        inside = number == b
        count = int(inside.sum())
        accuracy = wilson_interval(float(correct[inside].sum()), count)
        curve.append(ReliabilityBin(float(confidence[inside].mean()), accuracy, count))
    return curve


def brier_scores(
    probs: Float[np.ndarray, "items classes"], labels: Integer[np.ndarray, "items"]
) -> Float[np.ndarray, "items"]:
    """Gives each item's sum_k (p_k - [k is its label])^2, from 0 to 2; uniform p give 1 - 1/k."""
    _checked(probs, labels)
    truth = np.arange(probs.shape[1]) == labels[:, None]
    scores: Float[np.ndarray, "items"] = ((probs - truth) ** 2).sum(axis=1)
    return scores


def brier_score(
    probs: Float[np.ndarray, "items classes"], labels: Integer[np.ndarray, "items"]
) -> float:
    """Gives the mean of `brier_scores`, Brier's own definition over all classes."""
    return float(brier_scores(probs, labels).mean())


def binary_brier_score(
    forecast: Float[np.ndarray, "items"], outcome: Shaped[np.ndarray, "items"]
) -> float:
    """Gives mean (p - [it happened])^2, from 0 to 1: half of `brier_score` over the two classes.

    Errors: `ValueError` for values that are not probabilities, and for different shapes.
    """
    _probabilities(forecast)
    return float(((forecast - _outcomes(forecast, outcome)) ** 2).mean())


@dataclass(frozen=True)
class BrierDecomposition:
    """Murphy's parts of a binary Brier score: reliability - resolution + uncertainty + within_bins.

    `reliability`: the cost of forecasts that differ from the observed frequencies, at least 0.
    `resolution`: the gain from frequencies that differ between forecasts, at least 0.
    `uncertainty`: p (1 - p) for the base rate p, the score of always forecasting p.
    `within_bins`: the remainder from forecasts that differ within a bin, otherwise 0.
    """

    reliability: float
    resolution: float
    uncertainty: float
    within_bins: float


def brier_decomposition(
    forecast: Float[np.ndarray, "items"],
    outcome: Shaped[np.ndarray, "items"],
    *,
    bins: int | None = None,
    binning: Binning = "equal width",
) -> BrierDecomposition:
    """Splits `binary_brier_score` into parts that sum to it exactly.

    reliability = sum_b n_b/n (f_b - o_b)^2,  resolution = sum_b n_b/n (o_b - o)^2
    with the mean forecast f_b and outcome o_b of bin b, and o (1 - o) the uncertainty

    Without `bins` every distinct forecast is its own bin, as in Murphy. Forecasts that rarely
    repeat need bins, within which var(f) - 2 cov(f, outcome) remains (Stephenson, Coelho and
    Jolliffe 2008, "Two extra components in the Brier score decomposition").
    """
    _probabilities(forecast)
    outcome = _outcomes(forecast, outcome)
    if bins is None:
        number = np.unique(forecast, return_inverse=True)[1]
    else:
        number = np.unique(_bin_numbers(forecast, bins, binning), return_inverse=True)[1]
    count = np.bincount(number)
    f = np.bincount(number, weights=forecast) / count
    o = np.bincount(number, weights=outcome) / count
    weight, base_rate = count / len(forecast), outcome.mean()
    inner_f, inner_o = forecast - f[number], outcome - o[number]
    return BrierDecomposition(
        reliability=float(weight @ (f - o) ** 2),
        resolution=float(weight @ (o - base_rate) ** 2),
        uncertainty=float(base_rate * (1 - base_rate)),
        within_bins=float((inner_f**2 - 2 * inner_f * inner_o).mean()),
    )


def draw_reliability(
    axes: matplotlib.axes.Axes,
    curve: Sequence[ReliabilityBin],
    *,
    label: str,
    color: str,
    marker: str = "o",
    markerfacecolor: str | None = None,
) -> None:
    """Draws a reliability curve with its intervals into the given axes."""
    accuracy = np.array([b.accuracy.estimate for b in curve])
    low, high = (np.array([getattr(b.accuracy, end) for b in curve]) for end in ("low", "high"))
    axes.errorbar(
        [b.confidence for b in curve],
        accuracy,
        # Wilson's ends may be off by the last bit for an estimate of 0 or 1.
        yerr=np.maximum([accuracy - low, high - accuracy], 0),
        fmt=f"{marker}-",
        markersize=4,
        linewidth=1,
        color=color,
        markerfacecolor=markerfacecolor or color,
        label=label,
    )


def reliability_plot(curve: Sequence[ReliabilityBin]) -> matplotlib.figure.Figure:
    """Plots accuracy over confidence: below the diagonal a model is overconfident."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = figure.add_subplot(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.plot([0, 1], [0, 1], ":", color="gray", label="perfectly calibrated")
    draw_reliability(axes, curve, label="measured, with 95 % intervals", color="C0")
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    axes.legend(frameon=False)
    return figure


def _bin_numbers(
    confidence: Float[np.ndarray, "items"], bins: int, binning: Binning
) -> Integer[np.ndarray, "items"]:
    """Gives each item's bin; a bin includes its upper edge, and equal confidences share a bin."""
    _probabilities(confidence)
    if bins < 1:
        raise ValueError(f"bins={bins} leaves no bin for the items; give 1 or more, such as 15")
    if binning not in get_args(Binning):
        raise ValueError(f"binning={binning!r} is unknown; use 'equal width' or 'equal mass'")
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    if binning == "equal mass":
        edges = np.quantile(confidence, edges)
    return np.searchsorted(edges, confidence, side="left")


def _outcomes(
    forecast: Float[np.ndarray, "items"], outcome: Shaped[np.ndarray, "items"]
) -> Float[np.ndarray, "items"]:
    """Gives the outcomes as floats; refuses another shape than the forecasts'."""
    if np.shape(forecast) != np.shape(outcome):
        raise ValueError(f"{np.shape(forecast)} forecasts do not fit {np.shape(outcome)} outcomes")
    return np.asarray(outcome, dtype=float)


def _probabilities(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Returns the values if all are probabilities and there is at least one; refuses others."""
    if values.size == 0:
        raise ValueError("no forecasts to evaluate; give at least one")
    # A softmax may exceed 1 by rounding.
    wrong = values[~((values >= 0) & (values <= 1 + 1e-6))]
    if wrong.size:
        raise ValueError(f"{wrong[0]} is not a probability; give forecasts from 0 to 1")
    return values


def _checked(
    probs: Float[np.ndarray, "items classes"], labels: Integer[np.ndarray, "items"]
) -> None:
    """Refuses invalid distributions over classes, and labels outside the classes."""
    sums = _probabilities(probs).sum(axis=1)
    worst = int(np.abs(sums - 1).argmax())
    if abs(sums[worst] - 1) > 1e-5:
        raise ValueError(f"the probabilities of item {worst} sum to {sums[worst]:.6g}, not 1")
    if labels.shape != sums.shape:
        raise ValueError(f"{sums.shape} distributions do not fit {labels.shape} labels")
    wrong = labels[(labels < 0) | (labels >= probs.shape[1])]
    if wrong.size:
        raise ValueError(f"label {wrong[0]} is outside 0 ... {probs.shape[1] - 1}")
