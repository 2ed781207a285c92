"""Calibration: of all that a model said with 70 % confidence, is 70 % true?

    expected calibration error    ECE = sum_b n_b / n |accuracy of bin b - mean confidence of bin b|
    Brier score                   BS = (1 / n) sum_i sum_k (p_ik - [k is true of i])^2

Both go down to 0. ECE sees honesty alone: always guessing the base rate has none of it. The Brier
score is proper, so that no forecast but the honest one expects less; Murphy's decomposition splits
it into what dishonesty costs, what discernment earns and what the question's difficulty is.

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

BINS = 15  # as Guo et al. have it
Binning = Literal["equal width", "equal mass"]


def top_label(
    probs: Float[np.ndarray, "items classes"], labels: Integer[np.ndarray, "items"]
) -> tuple[Float[np.ndarray, "items"], Float[np.ndarray, "items"]]:
    """Gives each item's confidence, max_k p_k, and how right it was: 1, 0, or a share.

    Classes equally likely share the point, so that a model which knows nothing is right as often
    as it expects to be, wherever the right answer stands.
    """
    _checked(probs, labels)
    confidence = probs.max(axis=1)
    # What ought to be equal may differ in a last bit.
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

    For binary forecasts give the stated probability of "yes" and whether it was; for several
    classes give what `top_label` makes of them. Chance alone puts accuracy beside confidence, the
    more so the fewer items a bin has: compare with `calibration_error_by_chance`.
    Errors: `ValueError` for no items, confidence outside 0 ... 1, another number of outcomes, fewer
    than one bin, an unknown binning.
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
    """Gives the errors that a perfectly calibrated model shows with such confidences.

    Outcomes are drawn true with exactly the probability stated, item by item, `samples` times.
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
    """A point of the reliability curve: what was said, and which share of it came true.

    The accuracy's 95 % interval is Wilson's and takes the `count` items as independent.
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
    """Gives mean confidence and accuracy of every bin that is not empty, from low to high.

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
    """Gives each item's sum_k (p_k - [k is its label])^2, from 0 to 2; knowing nothing: 1 - 1/k."""
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

    Errors: `ValueError` for what is no probability, and where the shapes differ.
    """
    _probabilities(forecast)
    return float(((forecast - _outcomes(forecast, outcome)) ** 2).mean())


@dataclass(frozen=True)
class BrierDecomposition:
    """Murphy's parts of a binary Brier score: reliability - resolution + uncertainty + within_bins.

    `reliability`: what it costs that forecasts are not the frequencies that follow them, least 0.
    `resolution`: what it earns that frequencies differ between forecasts, least 0.
    `uncertainty`: p (1 - p) of the base rate p, what always forecasting it would score.
    `within_bins`: what the bins hide, of forecasts that differ within one; else 0.
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

    Without `bins` every distinct forecast is a bin of its own, as Murphy has it. Forecasts that
    hardly ever repeat need bins, within which var(f) - 2 cov(f, outcome) is left over (Stephenson,
    Coelho and Jolliffe 2008, "Two extra components in the Brier score decomposition").
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
    """Draws a reliability curve with its intervals into given axes."""
    accuracy = np.array([b.accuracy.estimate for b in curve])
    low, high = (np.array([getattr(b.accuracy, end) for b in curve]) for end in ("low", "high"))
    axes.errorbar(
        [b.confidence for b in curve],
        accuracy,
        # Wilson's ends may lie a last bit on the wrong side of an estimate of 0 or 1.
        yerr=np.maximum([accuracy - low, high - accuracy], 0),
        fmt=f"{marker}-",
        markersize=4,
        linewidth=1,
        color=color,
        markerfacecolor=markerfacecolor or color,
        label=label,
    )


def reliability_plot(curve: Sequence[ReliabilityBin]) -> matplotlib.figure.Figure:
    """Plots accuracy over confidence: below the diagonal a model is surer than it should be."""
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
    """Numbers each item's bin; a bin holds its upper edge, and equal confidences share a bin."""
    _probabilities(confidence)
    if bins < 1:
        raise ValueError(f"bins={bins} leaves no place for the items; give 1 or more, such as 15")
    if binning not in get_args(Binning):
        raise ValueError(f"binning={binning!r} is unknown; use 'equal width' or 'equal mass'")
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    if binning == "equal mass":
        edges = np.quantile(confidence, edges)
    return np.searchsorted(edges, confidence, side="left")


def _outcomes(
    forecast: Float[np.ndarray, "items"], outcome: Shaped[np.ndarray, "items"]
) -> Float[np.ndarray, "items"]:
    """Gives what happened as numbers, one for each forecast, or refuses."""
    if np.shape(forecast) != np.shape(outcome):
        raise ValueError(f"{np.shape(forecast)} forecasts do not fit {np.shape(outcome)} outcomes")
    return np.asarray(outcome, dtype=float)


def _probabilities(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Gives back probabilities, or says which value is none; there has to be one."""
    if values.size == 0:
        raise ValueError("no forecasts to judge; give at least one")
    # A softmax may exceed 1 by a rounding.
    wrong = values[~((values >= 0) & (values <= 1 + 1e-6))]
    if wrong.size:
        raise ValueError(f"{wrong[0]} is no probability; give forecasts from 0 to 1")
    return values


def _checked(
    probs: Float[np.ndarray, "items classes"], labels: Integer[np.ndarray, "items"]
) -> None:
    """Refuses what are no distributions over classes, or labels that are none of these."""
    sums = _probabilities(probs).sum(axis=1)
    worst = int(np.abs(sums - 1).argmax())
    if abs(sums[worst] - 1) > 1e-5:
        raise ValueError(f"the probabilities of item {worst} sum to {sums[worst]:.6g}, not 1")
    if labels.shape != sums.shape:
        raise ValueError(f"{sums.shape} distributions do not fit {labels.shape} labels")
    wrong = labels[(labels < 0) | (labels >= probs.shape[1])]
    if wrong.size:
        raise ValueError(f"label {wrong[0]} is outside 0 ... {probs.shape[1] - 1}")
