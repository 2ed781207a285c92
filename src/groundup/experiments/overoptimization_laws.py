"""How far a proxy can be trusted: the two laws of Gao, Schulman and Hilton (2022), section 3.1.

With d the root of the nats between a policy and the model that it started from, and R what its gold
reward gained since:

    best of n       R(d) = d (alpha - beta d)           highest at d = alpha / (2 beta)
    RL              R(d) = d (alpha - beta log d)       highest at d = exp(alpha / beta - 1)

R(0) = 0. Both are linear in alpha and beta, so that least squares finds them at once. A law is
worth its name if what it learned nearby foretells what comes further away.
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
# (a generator) -> the distances and gains of a sample that is drawn anew.
Redraw = Callable[[np.random.Generator], tuple[Points, Points]]
_SAMPLES = 500
# Two numbers are no test of a law with two numbers.
_FEWEST_SEEN = 3
# Points count as a rise up to so many times the distance of the peak: there both laws still have
# three quarters of their most, or more. One point alone is none.
_BEYOND_PEAK, _FEWEST_RISEN = 1.5, 2
# Iterations whose mean is what a policy came to: one has the noise of its few answers.
_LAST = 3


@dataclass(frozen=True)
class Law:
    """R(d) = d (alpha - beta s(d)), by `slowing` s, and where it is highest for beta above 0."""

    name: str
    slowing: Callable[[Points], Points]
    turn: Callable[[float], float]

    def columns(self, d: Points) -> Float[np.ndarray, "points 2"]:
        """What alpha and beta are multiplied by."""
        return np.stack([d, -d * self.slowing(d)], axis=1)

    def peak(self, alpha: float, beta: float) -> float:
        """The d of the highest R: infinite where it never falls, 0 where it never rises."""
        if beta <= 0:
            return float("inf") if alpha > 0 or beta < 0 else 0.0
        return self.turn(alpha / beta)


def _log(d: Points) -> Points:
    """log d, and 0 at 0, where it is multiplied by 0."""
    return np.log(np.where(d > 0, d, 1.0))


BEST_OF_N = Law("best of n", lambda d: d, lambda ratio: max(0.0, ratio / 2))
RL = Law("RL", _log, lambda ratio: float(np.exp(min(ratio - 1, 700.0))))


@dataclass(frozen=True)
class Fit:
    """A law with its two numbers; called with d, it says the gain."""

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
    """The alpha and beta of the least squared error."""
    (alpha, beta), *_ = np.linalg.lstsq(law.columns(d), gains, rcond=None)
    return Fit(law, float(alpha), float(beta))


@dataclass(frozen=True)
class Fitted:
    """A fit, with 95 % intervals from fits to samples that were drawn anew.

    `rise` is the mean gain that was measured up to the peak (0 of fewer than two points), whatever
    the law says: RL's with beta above 0 always rises at first, and be it before the first point.
    """

    best: Fit
    alpha: Interval
    beta: Interval
    peak: Interval
    rise: Interval


def fitted(law: Law, d: Points, gains: Points, redraw: Redraw, seed: int = 0) -> Fitted:
    """Fit a law, and fit it again to `_SAMPLES` samples for the intervals."""
    best, rng = fit(law, d, gains), np.random.default_rng(seed)
    drawn = [redraw(rng) for _ in range(_SAMPLES)]
    again = [fit(law, *one) for one in drawn]

    def interval(estimate: float, others: Sequence[float]) -> Interval:
        # Peaks may be infinite, between which nothing can be interpolated.
        low, high = np.quantile(others, [0.025, 0.975], method="nearest")
        return Interval(estimate, float(low), float(high))

    alpha, beta, peak = (
        interval(getattr(best, name), [getattr(one, name) for one in again])
        for name in ("alpha", "beta", "peak")
    )
    risen = _rise(best.peak, d, gains)
    if len(risen) < _FEWEST_RISEN:
        return Fitted(best, alpha, beta, peak, Interval(0.0, 0.0, 0.0))
    others = [float(some.mean()) for one in drawn if len(some := _rise(best.peak, *one))]
    return Fitted(best, alpha, beta, peak, interval(float(risen.mean()), others))


def _rise(peak: float, d: Points, gains: Points) -> Float[np.ndarray, " risen"]:
    """The gains that were measured on the way to a peak and a little beyond."""
    return gains[(d > 0) & (d <= _BEYOND_PEAK * peak)]


@dataclass(frozen=True)
class Prediction:
    """What the fit to the points up to `until` says of those beyond, which it has not seen.

    `error` is the root of its mean squared error there, `constant` that of saying that the gain
    stays where it was: at the mean of the further half of what was seen.
    """

    fit: Fit
    until: float
    seen: int
    unseen: int
    error: float
    constant: float


def predict(law: Law, d: Points, gains: Points) -> Prediction | None:
    """Fit the nearer half of the way and predict the further one; None with too few points."""
    until = float(d.max()) / 2
    seen = d <= until
    if (seen & (d > 0)).sum() < _FEWEST_SEEN or seen.all():
        return None
    near = fit(law, d[seen], gains[seen])
    stays = gains[seen & (d > until / 2)]
    level = float((stays if len(stays) else gains[seen]).mean())

    def error(said: Points | float) -> float:
        return float(np.sqrt(np.mean((gains[~seen] - said) ** 2)))

    unseen = int((~seen).sum())
    return Prediction(near, until, int(seen.sum()), unseen, error(near(d[~seen])), error(level))


# What was measured.


@dataclass(frozen=True)
class Curve:
    """Gold and proxy, less what they were at the start, by distance; and what the law makes of it.

    `reached` is the gold gained at the far end.
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
        """Sort the points by distance and fit the law; the mean of the `last` is the end."""
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
        """Whether gold rises and falls again within what was measured.

        The whole interval of the peak is within it, and that of the gain up to it above 0.
        """
        return bool(self.fitted.peak.high < self.d[-1] and self.fitted.rise.low > 0)

    @property
    def highest(self) -> float:
        """The most gold on the way, by the law."""
        at = min(self.fitted.best.peak, float(self.d[-1]))
        return float(self.fitted.best(np.array([at]))[0])

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            name: getattr(self, name).tolist() for name in ("d", "gold", "proxy")
        }
        found |= {name: getattr(self.fitted, name) for name in ("alpha", "beta", "peak", "rise")}
        found |= {"highest": self.highest, "reached": self.reached, "turns": self.turns}
        if self.prediction is not None:
            told = self.prediction
            found["prediction"] = {
                "alpha": told.fit.alpha,
                "beta": told.fit.beta,
                **{name: getattr(told, name) for name in ("until", "seen", "unseen")},
                "error": told.error,
                "constant": told.constant,
            }
        return found


# The two ways to optimize.


def counts(most: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12 … up to `most`: evenly spaced in log n, nearly."""
    found = {2**i for i in range(most.bit_length())} | {3 * 2**i for i in range(most.bit_length())}
    return sorted({n for n in found if n <= most} | {most})


def by_choice(
    scores: Scores,
    gold: Float[np.ndarray, "prompts n"],
    groups: Sequence[Hashable] | None = None,
) -> Curve:
    """Best of n by each seed's scores; its intervals draw seeds and groups of prompts anew.

    Without `groups`, and where all are of one, every prompt stands for itself.
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
    """Successive points that are drawn together, so many that what they share is kept."""
    # Not by a cube root, which is a little more than 3 for 27 on some processors.
    return next(length for length in itertools.count(1) if length**3 >= points)


def by_iteration(lines: Sequence[dict[str, Any]], base: float) -> Curve:
    """PPO's iterations, each a point from its own answers.

    A policy goes on from where it was, so that its points are not independent: intervals draw
    blocks of successive iterations anew (the moving-block bootstrap; Künsch 1989). They are those
    of one seed's policy, and say nothing of what another seed would do.
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
