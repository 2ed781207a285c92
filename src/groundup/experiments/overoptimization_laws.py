"""How far a proxy can be trusted: the two laws of Gao, Schulman and Hilton (2022), section 3.1.

d is the square root of the nats (KL) between a policy and its initial model, and R is the gain of
its gold reward:

    best of n       R(d) = d (alpha - beta d)           highest at d = alpha / (2 beta)
    RL              R(d) = d (alpha - beta log d)       highest at d = exp(alpha / beta - 1)

R(0) = 0. Both are linear in alpha and beta, so least squares has a closed form. A law is useful if
its fit to small distances predicts larger ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any

import numpy as np
from jaxtyping import Float

from groundup.align.best_of_n import best_of_n, kl_bound
from groundup.maths.intervals import Interval

Points = Float[np.ndarray, " points"]
Scores = Float[np.ndarray, "seeds prompts n"]
# (generator) -> the distances and gains of a bootstrap sample.
Redraw = Callable[[np.random.Generator], tuple[Points, Points]]
_SAMPLES = 500
# Two points do not test a law with two parameters.
_MIN_SEEN = 3
# Points count as part of the rise up to this multiple of the peak's distance, where both laws still
# have at least three quarters of their maximum. One point is not a rise.
_BEYOND_PEAK, _MIN_RISEN = 1.5, 2
# The final result is a mean over this many iterations, since one has the noise of its few answers.
_LAST = 3


@dataclass(frozen=True)
class Law:
    """R(d) = d (alpha - beta s(d)) with `slowing` s; `turn` gives its maximum for beta above 0."""

    name: str
    slowing: Callable[[Points], Points]
    turn: Callable[[float], float]

    def columns(self, d: Points) -> Float[np.ndarray, "points 2"]:
        """The factors of alpha and beta."""
        return np.stack([d, -d * self.slowing(d)], axis=1)

    def peak(self, alpha: float, beta: float) -> float:
        """The d of the highest R: infinite if R never falls, 0 if it never rises."""
        if beta <= 0:
            return float("inf") if alpha > 0 or beta < 0 else 0.0
        return self.turn(alpha / beta)


def _log(d: Points) -> Points:
    """log d; 0 at d = 0, where it is multiplied by 0."""
    return np.log(np.where(d > 0, d, 1.0))


BEST_OF_N = Law("best of n", lambda d: d, lambda ratio: max(0.0, ratio / 2))
RL = Law("RL", _log, lambda ratio: float(np.exp(min(ratio - 1, 700.0))))


@dataclass(frozen=True)
class Fit:
    """A law with its two parameters; called with d, it returns the gain."""

    law: Law
    alpha: float
    beta: float

    def __call__(self, d: Points) -> Points:
        gains: Points = self.law.columns(d) @ np.array([self.alpha, self.beta])
        return gains

    @property
    def peak(self) -> float:
        return self.law.peak(self.alpha, self.beta)


def fit(law: Law, d: Points, gains: Points) -> Fit:
    """Fit alpha and beta by least squares."""
    (alpha, beta), *_ = np.linalg.lstsq(law.columns(d), gains, rcond=None)
    return Fit(law, float(alpha), float(beta))


@dataclass(frozen=True)
class Fitted:
    """A fit, with 95 % intervals from fits to bootstrap samples.

    `rise` is the mean measured gain up to the peak (0 for fewer than two points). The law itself
    does not show a rise: RL's with beta above 0 always rises at first, even if only before the
    first point.
    """

    best: Fit
    alpha: Interval
    beta: Interval
    peak: Interval
    rise: Interval


def fitted(law: Law, d: Points, gains: Points, redraw: Redraw, seed: int = 0) -> Fitted:
    """Fit a law, and fit it to `_SAMPLES` bootstrap samples for the intervals."""
    best, rng = fit(law, d, gains), np.random.default_rng(seed)
    drawn = [redraw(rng) for _ in range(_SAMPLES)]
    again = [fit(law, *one) for one in drawn]

    def interval(estimate: float, others: Sequence[float]) -> Interval:
        # Peaks may be infinite and cannot be interpolated.
        low, high = np.quantile(others, [0.025, 0.975], method="nearest")
        return Interval(estimate, float(low), float(high))

    alpha, beta, peak = (
        interval(getattr(best, name), [getattr(one, name) for one in again])
        for name in ("alpha", "beta", "peak")
    )
    risen = _rise(best.peak, d, gains)
    if len(risen) < _MIN_RISEN:
        return Fitted(best, alpha, beta, peak, Interval(0.0, 0.0, 0.0))
    others = [float(some.mean()) for one in drawn if len(some := _rise(best.peak, *one))]
    return Fitted(best, alpha, beta, peak, interval(float(risen.mean()), others))


def _rise(peak: float, d: Points, gains: Points) -> Float[np.ndarray, " risen"]:
    """The measured gains up to a peak and slightly beyond."""
    return gains[(d > 0) & (d <= _BEYOND_PEAK * peak)]


@dataclass(frozen=True)
class Prediction:
    """The prediction of a fit to the points up to `until` for the points beyond.

    `error` is its root mean squared error there, `constant` that of predicting a constant gain: the
    mean of the further half of the points that were fitted.
    """

    fit: Fit
    until: float
    seen: int
    unseen: int
    error: float
    constant: float


def predict(law: Law, d: Points, gains: Points) -> Prediction | None:
    """Fit the nearer half of the distance and predict the further one; None for too few points."""
    until = float(d.max()) / 2
    seen = d <= until
    if (seen & (d > 0)).sum() < _MIN_SEEN or seen.all():
        return None
    near = fit(law, d[seen], gains[seen])
    stays = gains[seen & (d > until / 2)]
    level = float((stays if len(stays) else gains[seen]).mean())

    def error(said: Points | float) -> float:
        return float(np.sqrt(np.mean((gains[~seen] - said) ** 2)))

    unseen = int((~seen).sum())
    return Prediction(near, until, int(seen.sum()), unseen, error(near(d[~seen])), error(level))


# Measurements.


@dataclass(frozen=True)
class Curve:
    """The gains of gold and proxy by distance, and the fitted law.

    `reached` is the final gain of gold.
    """

    d: Points
    gold: Points
    proxy: Points
    fitted: Fitted
    prediction: Prediction | None
    reached: float

    @classmethod
    def of(
        cls, law: Law, d: Points, gold: Points, proxy: Points, redraw: Redraw, last: int
    ) -> Curve:
        """Sort the points by distance and fit the law; the final gain is the mean of the `last`."""
        order = np.argsort(d, kind="stable")
        d, gold, proxy = d[order], gold[order], proxy[order]
        return cls(
            d,
            gold,
            proxy,
            fitted(law, d, gold, redraw),
            predict(law, d, gold),
            float(gold[-last:].mean()),
        )

    @property
    def turns(self) -> bool:
        """Whether gold rises and falls again within the measured distances.

        The whole interval of the peak must be within them, and that of the gain up to it above 0.
        """
        return bool(self.fitted.peak.high < self.d[-1] and self.fitted.rise.low > 0)

    @property
    def highest(self) -> float:
        """The maximum gain of gold within the measured distances, by the law."""
        at = min(self.fitted.best.peak, float(self.d[-1]))
        return float(self.fitted.best(np.array([at]))[0])

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            name: getattr(self, name).tolist() for name in ("d", "gold", "proxy")
        }
        found |= {name: getattr(self.fitted, name) for name in ("alpha", "beta", "peak", "rise")}
        found |= {"highest": self.highest, "reached": self.reached, "turns": self.turns}
        if self.prediction is not None:
            predicted = self.prediction
            found["prediction"] = {
                "alpha": predicted.fit.alpha,
                "beta": predicted.fit.beta,
                **{name: getattr(predicted, name) for name in ("until", "seen", "unseen")},
                "error": predicted.error,
                "constant": predicted.constant,
            }
        return found


# The two ways to optimize.


def counts(most: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12 … up to `most`: nearly evenly spaced in log n."""
    found = {2**i for i in range(most.bit_length())} | {3 * 2**i for i in range(most.bit_length())}
    return sorted({n for n in found if n <= most} | {most})


def by_choice(
    scores: Scores,
    gold: Float[np.ndarray, "prompts n"],
    groups: Sequence[Hashable] | None = None,
) -> Curve:
    """Best of n by each seed's scores; its intervals resample seeds and groups of prompts.

    Without `groups`, or if there is only one, every prompt is a group of its own.
    """
    some = counts(gold.shape[1])
    worth = np.array(
        [
            [
                [[best_of_n(own, values, n) for n in some] for values in (truth, own)]
                for own, truth in zip(by_prompt, gold, strict=True)
            ]
            for by_prompt in scores
        ]
    )
    # [seeds, prompts, gold or proxy, n]
    gained = worth - worth[..., :1]
    d = np.array([sqrt(kl_bound(n)) for n in some])
    if groups is None or len(set(groups)) == 1:
        groups = range(len(gold))
    members: dict[Hashable, list[int]] = {}
    for prompt, group in enumerate(groups):
        members.setdefault(group, []).append(prompt)
    whole = list(members.values())

    def redraw(rng: np.random.Generator) -> tuple[Points, Points]:
        seeds, drawn = (rng.integers(0, size, size) for size in (len(gained), len(whole)))
        prompts = [prompt for group in drawn for prompt in whole[group]]
        return d, gained[seeds][:, prompts, 0].mean((0, 1))

    means = gained.mean((0, 1))
    return Curve.of(BEST_OF_N, d, means[0], means[1], redraw, last=1)


def block_length(points: int) -> int:
    """The length of the moving-block bootstrap's blocks: the cube root of `points`, rounded up."""
    # Not by a floating-point root, which exceeds 3 for 27 on some processors.
    return next(length for length in itertools.count(1) if length**3 >= points)


def by_iteration(lines: Sequence[dict[str, Any]], base: float) -> Curve:
    """PPO's iterations, each a point from its own answers.

    Successive iterations of a policy are not independent, so intervals resample blocks of them (the
    moving-block bootstrap; Künsch 1989). The intervals are those of one seed's policy, and do not
    include the variation between seeds.
    """
    d = np.sqrt(np.maximum([line["exact_kl"] for line in lines], 0.0))
    gold = np.array([line["gold"] for line in lines]) - base
    rewards = np.array([line["reward"] for line in lines])
    proxy = rewards - rewards[d == d.min()].mean()
    length = block_length(len(d))

    def redraw(rng: np.random.Generator) -> tuple[Points, Points]:
        starts = rng.integers(0, len(d) - length + 1, ceil(len(d) / length))
        some = (starts[:, None] + np.arange(length)).ravel()[: len(d)]
        return d[some], gold[some]

    return Curve.of(RL, d, gold, proxy, redraw, last=_LAST)
