"""ROC curves: how well a score separates two classes, over all thresholds.

    true positive rate    share of the positive items whose score is above the threshold
    false positive rate   the same share of the negative items
    area under the curve  of one against the other = P(s+ > s-) + P(s+ = s-) / 2

An area of 0.5 is guessing, and 1 means that every positive item scores above every negative one
(Hanley and McNeil 1982, "The meaning and use of the area under a receiver operating characteristic
curve"). The area needs no threshold and does not depend on the sizes of the classes, but it does
not tell the cost of a filter at a particular threshold.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Integer

from groundup.maths.intervals import Interval, group_numbers, percentile_interval, wilson_interval


def roc_curve(
    scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """Gives false and true positive rates, from a threshold above all scores to one below all.

    Items of equal score pass a threshold together, so ties make slanted segments.
    Errors: `ValueError` if a class is missing, a score is NaN, the numbers of scores and items
    differ, or `positive` is not boolean.
    """
    _check(scores, positive)
    _, place = np.unique(-scores, return_inverse=True)
    rates = []
    for kind in (~positive, positive):
        counts = np.bincount(place[kind], minlength=int(place.max()) + 1)
        rates.append(np.concatenate([[0.0], np.cumsum(counts) / counts.sum()]))
    return rates[0], rates[1]


def roc_auc(scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> float:
    """Gives the area under the curve; ties count half.

    Errors: as `roc_curve`.
    """
    _check(scores, positive)
    _, place = np.unique(scores, return_inverse=True)
    return _area(place, positive, np.ones(len(scores)))


def roc_auc_interval(
    scores: Float[np.ndarray, " n"],
    positive: Bool[np.ndarray, " n"],
    *,
    clusters: Sequence[Hashable] | None = None,
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Gives the area under the curve with its bootstrap interval, drawing whole clusters.

    A sample of only one class has no area and is left out. If the classes are fully separated, no
    sample varies; then Wilson's interval is used, with as many trials as the class with fewer
    clusters has clusters.
    Errors: as `roc_curve`, and `ValueError` if the numbers of clusters and scores differ or for
    impossible confidence.
    """
    area = roc_auc(scores, positive)
    group = group_numbers(len(scores), clusters)
    groups = int(group.max()) + 1
    _, place = np.unique(scores, return_inverse=True)
    random = np.random.default_rng(seed)
    areas = []
    for _ in range(samples):
        drawn = random.integers(groups, size=groups)
        weights = np.bincount(drawn, minlength=groups)[group].astype(float)
        if weights[positive].any() and weights[~positive].any():
            areas.append(_area(place, positive, weights))
    found = percentile_interval(area, np.array(areas), confidence, groups)
    if found.low < found.high:
        return found
    trials = min(len(np.unique(group[kind])) for kind in (positive, ~positive))
    return wilson_interval(area * trials, trials, confidence)


def _area(
    place: Integer[np.ndarray, " n"],
    positive: Bool[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"],
) -> float:
    """The area of weighted items; `place` is the dense rank of each score."""
    count = int(place.max()) + 1
    above, below = (
        np.bincount(place[kind], weights[kind], minlength=count) for kind in (positive, ~positive)
    )
    # Each positive item beats the negative items of lower rank, and half of those of equal rank.
    beaten = np.cumsum(below) - below / 2
    return float(above @ beaten / (above.sum() * below.sum()))


def _check(scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> None:
    if positive.dtype != bool:
        raise ValueError(f"positive is of {positive.dtype}; give booleans, such as labels == 1")
    if len(scores) != len(positive):
        raise ValueError(f"{len(scores)} scores do not fit {len(positive)} items; give each one")
    if np.isnan(scores).any():  # infinities can be ranked
        raise ValueError("a score is NaN and has no rank; leave its item out or give it a number")
    if positive.all() or not positive.any():
        raise ValueError("a curve needs items of both classes; give positive and negative ones")
