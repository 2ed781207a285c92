"""Bayes' rule: from a prior and data to a posterior.

    p(h | x) = p(h) p(x | h) / p(x)        p(x) = sum_h p(h) p(x | h)

For a list of hypotheses this is one addition of logarithms and one normalization. For a continuous
parameter it is an integral, unless prior and likelihood are conjugate: then the posterior is of the
prior's family, and data adds to its parameters:

    the parameter          prior              after seeing
    p of a Bernoulli       Beta(a, b)         Beta(a + number of ones, b + number of zeros)
    p of a Categorical     Dirichlet(a)       Dirichlet(a + counts)
    mean of a Gaussian     Gaussian(m, s)     precisions add up and weight the mean

So a prior's parameters act like data seen before. Add-k smoothing of n-grams (`ngram.AddK`) is
exactly the predictive distribution of a Dirichlet with all a_i = k.

Source: Gelman et al. (2013), "Bayesian data analysis", 3rd edition, chapters 2 and 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log, sqrt

import numpy as np
from jaxtyping import Float

from groundup.maths.intervals import Interval
from groundup.maths.probability import (
    Bernoulli,
    Categorical,
    Gaussian,
    Outcomes,
    counts,
    log_softmax,
    sigmoid,
)

# Points of the grid for integrating a Beta, and the nats below the peak at which it ends.
_POINTS, _DEPTH = 100_001, 45.0


def posterior(prior: Categorical, log_likelihoods: Float[np.ndarray, "k"]) -> Categorical:
    """Gives p(h | x) over k hypotheses: log p(h) + log p(x | h), normalized.

    `log_likelihoods` holds log p(x | h) of all data together under each hypothesis h. Because they
    are logarithms, long data does not underflow.
    Errors: `ValueError` if the data is impossible under every hypothesis that the prior allows, and
    if the numbers of likelihoods and hypotheses differ.
    """
    joint = _joint(prior, log_likelihoods)
    if joint.max() == -inf:
        raise ValueError("the data is impossible under every hypothesis")
    return Categorical(log_softmax(joint))


def log_evidence(prior: Categorical, log_likelihoods: Float[np.ndarray, "k"]) -> float:
    """Gives log p(x) = log sum_h p(h) p(x | h): how well the hypotheses together predict the data.

    The difference between two families of hypotheses is their log Bayes factor.
    Errors: `ValueError` if the numbers of likelihoods and hypotheses differ.
    """
    joint = _joint(prior, log_likelihoods)
    peak = float(joint.max())
    return peak if peak == -inf else peak + log(np.exp(joint - peak).sum())


def _joint(prior: Categorical, log_likelihoods: Float[np.ndarray, "k"]) -> Float[np.ndarray, "k"]:
    """Gives log p(h) + log p(x | h), or refuses lengths that differ."""
    if prior.logprobs.shape != np.shape(log_likelihoods):
        raise ValueError(
            f"log-likelihoods of shape {np.shape(log_likelihoods)} do not fit "
            f"{len(prior.logprobs)} hypotheses; give one for each"
        )
    joint: Float[np.ndarray, "k"] = prior.logprobs + log_likelihoods
    return joint


@dataclass(frozen=True)
class Beta:
    """Distribution over the p of a Bernoulli: density proportional to p^(a - 1) (1 - p)^(b - 1).

    Beta(1, 1) is uniform. Errors: `ValueError` unless a and b are above 0.
    """

    a: float
    b: float

    def __post_init__(self) -> None:
        if not (0 < self.a < inf and 0 < self.b < inf):
            raise ValueError(f"Beta({self.a}, {self.b}) has no density; give two finite, above 0")

    @property
    def mean(self) -> float:
        """a / (a + b)."""
        return self.a / (self.a + self.b)

    def update(self, outcomes: Outcomes) -> Beta:
        """Gives the posterior after outcomes of 0 and 1."""
        zeros, ones = counts(outcomes, 2).tolist()
        return Beta(self.a + ones, self.b + zeros)

    def predictive(self) -> Bernoulli:
        """Gives the next outcome's distribution, averaged over p: p(1) = a / (a + b).

        After Beta(1, 1) this is Laplace's rule of succession, (ones + 1) / (n + 2).
        """
        return Bernoulli(self.mean)

    def credible_interval(self, confidence: float = 0.95) -> Interval:
        """Gives the mean, and two ends with probability (1 - confidence) / 2 beyond each.

        It integrates numerically on a grid over the logit u = log(p / (1 - p)): there the density
        is proportional to p^a (1 - p)^b, which has one smooth peak for every a and b, whereas
        over p it is infinite at an end if a or b is below 1. For a and b of at least 0.1 the
        probability beyond each end is accurate to 1e-5, if a float can distinguish the end from 1.
        """
        if not 0 < confidence < 1:
            raise ValueError(f"confidence={confidence} is not a probability; give one such as 0.95")
        u = self._grid()
        log_density = self._log_density(u)
        density = np.exp(log_density - log_density.max())
        below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
        tail = (1 - confidence) / 2
        ends = np.interp([tail, 1 - tail], below / below[-1], u)
        low, high = sigmoid(ends).tolist()
        return Interval(self.mean, low, high)

    def _grid(self) -> Float[np.ndarray, "points"]:
        """Gives evenly spaced logits, to `_DEPTH` nats below the peak on both sides.

        Far from the peak the log density falls linearly, with slope a on the left and b on the
        right, so for small a or b the grid extends much farther than the width of the peak.
        """
        peak, width = log(self.a / self.b), sqrt(1 / self.a + 1 / self.b)
        floor = self._log_density(np.array([peak]))[0] - _DEPTH
        reach = width * 1.5 ** np.arange(80)
        low, high = (
            peak + side * reach[self._log_density(peak + side * reach) < floor][0]
            for side in (-1, 1)
        )
        return np.linspace(low, high, _POINTS)

    def _log_density(self, u: Float[np.ndarray, "points"]) -> Float[np.ndarray, "points"]:
        """a log p + b log(1 - p) for p = 1 / (1 + exp(-u))."""
        density: Float[np.ndarray, "points"]
        density = -self.a * np.logaddexp(0, -u) - self.b * np.logaddexp(0, u)
        return density


@dataclass(frozen=True, eq=False)
class Dirichlet:
    """Distribution over the probs of a Categorical: density proportional to prod p_i^(a_i - 1).

    It is uniform if all a_i are 1. Errors: `ValueError` unless all a_i are above 0.
    """

    a: Float[np.ndarray, "k"]

    def __post_init__(self) -> None:
        if not (len(self.a) and (self.a > 0).all() and np.isfinite(self.a).all()):
            raise ValueError(f"Dirichlet({self.a}) has no density; give finite numbers above 0")

    @property
    def mean(self) -> Float[np.ndarray, "k"]:
        """a_i / sum a."""
        mean: Float[np.ndarray, "k"] = self.a / self.a.sum()
        return mean

    def update(self, outcomes: Outcomes) -> Dirichlet:
        """Gives the posterior after outcomes from 0 ... k - 1."""
        return Dirichlet(self.a + counts(outcomes, len(self.a)))

    def predictive(self) -> Categorical:
        """Gives the next outcome's distribution, averaged over probs: its probs are `mean`."""
        return Categorical.from_probs(self.mean)

    def sample(self, n: int, rng: np.random.Generator) -> Float[np.ndarray, "n k"]:
        """Draws n distributions: gamma variates of shapes a_i, divided by their sum."""
        return rng.dirichlet(self.a, size=n)


@dataclass(frozen=True)
class GaussianMean:
    """Distribution over the mean of a Gaussian whose std, the `noise`, is known.

    Errors: `ValueError` unless the noise is above 0.
    """

    belief: Gaussian
    noise: float

    def __post_init__(self) -> None:
        if not 0 < self.noise < inf:
            raise ValueError(f"noise={self.noise} is not a standard deviation; give one above 0")

    def update(self, values: Float[np.ndarray, "n"]) -> GaussianMean:
        """Gives the posterior after these values, where precision is 1 / variance:

        precision = 1 / s^2 + n / noise^2,   mean = (m / s^2 + sum x / noise^2) / precision
        """
        before = self.belief.std**-2
        precision = before + len(values) * self.noise**-2
        mean = (before * self.belief.mean + self.noise**-2 * float(values.sum())) / precision
        return GaussianMean(Gaussian(mean, precision**-0.5), self.noise)

    def predictive(self) -> Gaussian:
        """Gives the next value's distribution: the variances of the mean and the noise add up."""
        return Gaussian(self.belief.mean, sqrt(self.belief.std**2 + self.noise**2))
