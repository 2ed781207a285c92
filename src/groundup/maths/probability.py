"""Three distributions, with likelihood, entropy, divergence, sampling and fitting for each.

    log-likelihood    log p(x_1, ..., x_n) = sum_i log p(x_i)            log_prob(x).sum()
    entropy           H(p) = -E_p[log p(x)]                              the surprise in p itself
    cross-entropy     H(p, q) = -E_p[log q(x)] = H(p) + KL(p || q)       the cost of coding p by q
    divergence        KL(p || q) = E_p[log p(x) - log q(x)] >= 0         the extra cost of q

A language model is a `Categorical` per position, and training it is maximum likelihood: minimizing
the cross-entropy against the text. Each `fit` uses the closed form of the maximum;
`fit_by_gradient` finds the same maximum from the slope of the log-likelihood (its score) alone, as
is necessary without a closed form. All logarithms are natural, in nats: 1 bit is log 2 nats.

Source: MacKay (2003), "Information theory, inference, and learning algorithms", chapters 2 and 22.
Related: `kl.py` estimates KL from samples, `bayes.py` keeps a distribution over parameters,
`intervals.py` and `calibration.py` evaluate measured numbers and stated probabilities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, inf, isfinite, log, pi

import numpy as np
from jaxtyping import Bool, Float, Integer, Shaped

Outcomes = Integer[np.ndarray, "*n"] | Bool[np.ndarray, "*n"]

# Gradient ascent ends at a step shorter than this, and fails after this many steps.
_TOLERANCE, _MAX_STEPS = 1e-12, 100_000


def log_softmax(
    logits: Float[np.ndarray, "*batch k"], temperature: float = 1.0
) -> Float[np.ndarray, "*batch k"]:
    """Turns logits z into log-probabilities over the last axis.

    log p_i = z_i / T - log sum_j exp(z_j / T)

    `temperature` T below 1 sharpens and above 1 flattens. Its limits are allowed: at 0 the largest
    logit gets all probability (equal ones share it), at infinity all logits above -inf are equally
    likely.
    Errors: `ValueError` for a negative temperature, or a row without a finite largest logit.
    """
    if not temperature >= 0:
        raise ValueError(f"temperature={temperature} must be 0 or more")
    if logits.shape[-1] == 0 or not np.isfinite(logits.max(axis=-1)).all():
        raise ValueError("a row of logits has no finite largest number")
    shifted = logits - logits.max(axis=-1, keepdims=True)  # exp of 0 at most cannot overflow
    if temperature == 0:
        scaled = np.where(shifted == 0, 0.0, -inf)
    elif temperature == inf:
        scaled = np.where(shifted == -inf, -inf, 0.0)
    else:
        with np.errstate(over="ignore"):  # -inf, where the probability is 0 anyway
            scaled = shifted / temperature
    result: Float[np.ndarray, "*batch k"]
    result = scaled - np.log(np.exp(scaled).sum(axis=-1, keepdims=True))
    return result


def sigmoid(logits: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Gives 1 / (1 + exp(-z)), the p of a Bernoulli whose logit is z = log(p / (1 - p)).

    Computed as exp(-log(1 + exp(-z))), which never overflows and keeps the digits of tiny results.
    """
    p: Float[np.ndarray, "*shape"] = np.exp(-np.logaddexp(0, -logits))
    return p


@dataclass(frozen=True, eq=False)
class Categorical:
    """One of k outcomes 0 ... k-1: p(x) = probs[x].

    Stored as `logprobs`, since a probability too small for a float still has a logarithm; create it
    by `from_probs` or `from_logits`. Errors: `ValueError` unless exp(logprobs) sums to 1.
    """

    logprobs: Float[np.ndarray, "k"]

    def __post_init__(self) -> None:
        with np.errstate(over="ignore"):
            total = float(np.exp(self.logprobs).sum())
        if not abs(total - 1) < 1e-6:
            raise ValueError(f"exp(logprobs) sums to {total:.6g}; use Categorical.from_probs")

    @staticmethod
    def from_probs(probs: Float[np.ndarray, "k"]) -> Categorical:
        """Takes probabilities: none negative, with sum 1 up to 1e-6 (rounding of float32)."""
        probs = np.asarray(probs, dtype=float)
        total = float(probs.sum())
        if not ((probs >= 0).all() and abs(total - 1) < 1e-6):
            raise ValueError(f"probabilities sum to {total:.6g}; give none below 0, with sum 1")
        with np.errstate(divide="ignore"):
            return Categorical(np.log(probs / total))

    @staticmethod
    def from_logits(logits: Float[np.ndarray, "k"], temperature: float = 1.0) -> Categorical:
        """Takes logits, flattened or sharpened by a temperature: see `log_softmax`."""
        return Categorical(log_softmax(np.asarray(logits, dtype=float), temperature))

    @property
    def probs(self) -> Float[np.ndarray, "k"]:
        """The probability of each outcome."""
        probs: Float[np.ndarray, "k"] = np.exp(self.logprobs)
        return probs

    def log_prob(self, outcomes: Outcomes) -> Float[np.ndarray, "*n"]:
        """Gives log p of each outcome; -inf for an impossible one."""
        logprobs: Float[np.ndarray, "*n"] = self.logprobs[_outcomes(outcomes, len(self.logprobs))]
        return logprobs

    def sample(self, n: int, rng: np.random.Generator) -> Integer[np.ndarray, "n"]:
        """Draws n outcomes by the inverse cumulative distribution.

        The outcome is the first whose cumulative probability exceeds u ~ U[0, 1): outcomes divide
        the unit interval into parts as long as their probabilities, and u falls into one of them.
        """
        cumulative = np.cumsum(self.probs)
        u = rng.random(n) * cumulative[-1]  # which may differ from 1 by rounding
        outcomes: Integer[np.ndarray, "n"] = np.searchsorted(cumulative, u, side="right")
        return outcomes

    def sample_gumbel(self, n: int, rng: np.random.Generator) -> Integer[np.ndarray, "n"]:
        """Draws n outcomes by the Gumbel-max trick: argmax_i (log p_i + g_i), g_i ~ Gumbel(0, 1).

        Needs logits only up to a constant, so no sum over outcomes, but n k random numbers.
        Source: Gumbel (1954), "Statistical theory of extreme values"; Maddison, Tarlow and Minka
        (2014), "A* sampling", section 2.
        """
        noisy = self.logprobs + rng.gumbel(size=(n, len(self.logprobs)))
        outcomes: Integer[np.ndarray, "n"] = noisy.argmax(axis=1)
        return outcomes

    def expectation(self, values: Float[np.ndarray, "k"]) -> float:
        """Gives E[v] = sum_i p_i v_i; impossible outcomes do not count, even with v = inf."""
        possible = self.probs > 0
        return float(self.probs[possible] @ values[possible])

    def entropy(self) -> float:
        """Gives H(p) in nats: 0 for a certain outcome, log k when all are equally likely."""
        return self.expectation(-self.logprobs)

    def cross_entropy(self, other: Categorical) -> float:
        """Gives H(p, q) in nats; inf if q is 0 for an outcome that is possible under p."""
        return self.expectation(-self._check_size(other).logprobs)

    def kl(self, other: Categorical) -> float:
        """Gives KL(p || q) in nats; inf if q is 0 for an outcome that is possible under p."""
        return self.expectation(self.log_ratio(other))

    def log_ratio(self, other: Categorical) -> Float[np.ndarray, "k"]:
        """Gives log p(x) - log q(x) of every outcome; 0 for outcomes impossible under p.

        For those the ratio may be undefined (-inf - -inf), and no expectation needs it.
        """
        possible = self.probs > 0
        ratio = np.zeros(len(self.logprobs))
        np.subtract(self.logprobs, self._check_size(other).logprobs, out=ratio, where=possible)
        return ratio

    @staticmethod
    def fit(outcomes: Outcomes, size: int) -> Categorical:
        """Maximum likelihood over `size` outcomes: p_i = n_i / n, the relative frequencies."""
        return Categorical.from_probs(_frequencies(outcomes, size))

    @staticmethod
    def fit_by_gradient(outcomes: Outcomes, size: int) -> Categorical:
        """Finds the same maximum by gradient ascent on the mean log-likelihood of logits z.

        Score: d/dz_i (1/n) sum log p(x) = n_i / n - p_i. The curvature is at most 1/2, so a rate
        of 2 never overshoots. The logit of an outcome that was never seen would fall forever.
        """
        wanted = _frequencies(outcomes, size)
        if not wanted.all():
            raise ValueError(
                f"outcome {wanted.argmin()} was never seen, so its best logit is -inf, which "
                "gradient ascent cannot reach; use fit, or leave the outcome out"
            )
        logits = _gradient_ascent(lambda z: 2 * (wanted - np.exp(log_softmax(z))), np.zeros(size))
        return Categorical.from_logits(logits)

    def _check_size(self, other: Categorical) -> Categorical:
        if len(self.logprobs) != len(other.logprobs):
            raise ValueError(
                f"distributions over {len(self.logprobs)} and {len(other.logprobs)} outcomes "
                "cannot be compared; give both the same outcomes"
            )
        return other


@dataclass(frozen=True)
class Bernoulli:
    """One of two outcomes: p(1) = p, p(0) = 1 - p. Errors: `ValueError` for p outside 0 ... 1."""

    p: float

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"p={self.p} is not a probability; give one from 0 to 1")

    def as_categorical(self) -> Categorical:
        """The same distribution over outcomes 0 and 1, with probabilities 1 - p and p."""
        with np.errstate(divide="ignore"):
            return Categorical(np.array([np.log1p(-self.p), np.log(self.p)]))

    def log_prob(self, outcomes: Outcomes) -> Float[np.ndarray, "*n"]:
        """Gives x log p + (1 - x) log(1 - p) for outcomes x of 0 and 1, or False and True."""
        return self.as_categorical().log_prob(outcomes)

    def sample(self, n: int, rng: np.random.Generator) -> Bool[np.ndarray, "n"]:
        """Draws n outcomes: u < p with u ~ U[0, 1)."""
        return rng.random(n) < self.p

    def entropy(self) -> float:
        """Gives -p log p - (1 - p) log(1 - p) in nats; the maximum, log 2, is at p = 1/2."""
        return self.as_categorical().entropy()

    def cross_entropy(self, other: Bernoulli) -> float:
        """Gives -p log q - (1 - p) log(1 - q) in nats: the loss of binary classification."""
        return self.as_categorical().cross_entropy(other.as_categorical())

    def kl(self, other: Bernoulli) -> float:
        """Gives p log(p / q) + (1 - p) log((1 - p) / (1 - q)) in nats."""
        return self.as_categorical().kl(other.as_categorical())

    @staticmethod
    def fit(outcomes: Outcomes) -> Bernoulli:
        """Maximum likelihood: the share of ones."""
        return Bernoulli(float(_frequencies(outcomes, 2)[1]))

    @staticmethod
    def fit_by_gradient(outcomes: Outcomes) -> Bernoulli:
        """Maximizes the mean log-likelihood of the logit z, p = 1 / (1 + exp(-z)), by ascent.

        Score: d/dz (1/n) sum log p(x) = mean(x) - p. The curvature is at most 1/4, so a rate of 4
        never overshoots. If all outcomes were equal, the logit would grow forever.
        """
        share = float(_frequencies(outcomes, 2)[1])
        if share in (0, 1):
            raise ValueError(
                f"all outcomes are {share:.0f}, so the best logit is infinite, which gradient "
                "ascent cannot reach; use fit, or give outcomes of both kinds"
            )
        logit = _gradient_ascent(lambda z: 4 * (share - sigmoid(z)), np.zeros(1))
        return Bernoulli(float(sigmoid(logit)[0]))


@dataclass(frozen=True)
class Gaussian:
    """The normal distribution: p(x) = exp(-(x - mean)^2 / (2 std^2)) / (std sqrt(2 pi)).

    Errors: `ValueError` unless both are finite and std is above 0.
    """

    mean: float
    std: float

    def __post_init__(self) -> None:
        if not (isfinite(self.mean) and 0 < self.std < inf):
            raise ValueError(f"mean={self.mean}, std={self.std} are not those of a Gaussian")

    def log_prob(self, values: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Gives the logarithm of the density at each value, which may be above 0."""
        z = (values - self.mean) / self.std
        logprobs: Float[np.ndarray, "*n"] = -0.5 * z**2 - log(self.std) - 0.5 * log(2 * pi)
        return logprobs

    def sample(self, n: int, rng: np.random.Generator) -> Float[np.ndarray, "n"]:
        """Draws n values mean + std z, z ~ N(0, 1)."""
        return self.mean + self.std * rng.standard_normal(n)

    def entropy(self) -> float:
        """Gives log(std sqrt(2 pi e)) in nats, relative to the unit of x; it may be negative."""
        return log(self.std) + 0.5 * log(2 * pi) + 0.5

    def cross_entropy(self, other: Gaussian) -> float:
        """Gives H(p, q) = H(p) + KL(p || q) in nats, relative to the unit of x."""
        return self.entropy() + self.kl(other)

    def kl(self, other: Gaussian) -> float:
        """Gives log(s_q / s_p) + (s_p^2 + (m_p - m_q)^2) / (2 s_q^2) - 1/2 in nats."""
        ratio, shift = self.std / other.std, (self.mean - other.mean) / other.std
        # A ratio that rounds to 0 or inf has no logarithm, and ** would raise where * gives inf.
        logs = log(ratio) if 0 < ratio < inf else log(self.std) - log(other.std)
        return 0.5 * (ratio * ratio + shift * shift - 1) - logs

    @staticmethod
    def fit(values: Float[np.ndarray, "n"]) -> Gaussian:
        """Maximum likelihood: the mean, and std^2 = sum (x - mean)^2 / n (n, not n - 1).

        Errors: `ValueError` for fewer than two different values, where the likelihood grows
        without bound as std goes to 0.
        """
        _positive_range(values)
        return Gaussian(float(values.mean(dtype=float)), float(values.std(dtype=float)))

    @staticmethod
    def fit_by_gradient(values: Float[np.ndarray, "n"]) -> Gaussian:
        """Maximizes the log-likelihood of (mean, log std) by natural gradient ascent.

        Scores: d/dmean = (m - mean) / std^2,  d/dlog std = (v + (m - mean)^2) / std^2 - 1
        with the data's mean m and variance v, here in units of the data's range.

        Their scales can differ by any factor, so no single rate suits both. Each is divided by its
        Fisher information, 1 / std^2 and 2, which makes the steps independent of the units.
        Source: Amari (1998), "Natural gradient works efficiently in learning".
        """
        unit = _positive_range(values)
        z = (values.astype(float) - values[0]) / unit
        m, v = float(z.mean()), float(z.var())

        def half_a_natural_step(theta: np.ndarray) -> np.ndarray:
            mean, log_std = theta
            excess = (v + (m - mean) ** 2) * exp(-2 * log_std) - 1
            return 0.5 * np.array([m - mean, excess / 2])

        # From std = the whole range, twice the largest possible, std decreases monotonically.
        mean, log_std = _gradient_ascent(half_a_natural_step, np.zeros(2))
        return Gaussian(float(values[0] + unit * mean), float(unit * np.exp(log_std)))


def counts(outcomes: Outcomes, size: int) -> Integer[np.ndarray, "size"]:
    """Counts how often each of `size` outcomes 0 ... size - 1 occurs; False is 0 and True is 1.

    These counts are the sufficient statistic of a categorical likelihood.
    Errors: `ValueError` for an outcome outside this range.
    """
    found: Integer[np.ndarray, "size"] = np.bincount(_outcomes(outcomes, size), minlength=size)
    return found


def _gradient_ascent(
    step: Callable[[Float[np.ndarray, "k"]], Float[np.ndarray, "k"]], start: Float[np.ndarray, "k"]
) -> Float[np.ndarray, "k"]:
    """Gradient ascent: theta <- theta + step(theta) until the step is negligible."""
    theta: Float[np.ndarray, "k"] = start
    for _ in range(_MAX_STEPS):
        move = step(theta)
        theta = theta + move
        if np.abs(move).max() < _TOLERANCE:
            return theta
    raise ValueError(
        f"gradient ascent has not converged after {_MAX_STEPS} steps: some outcome is too rare; "
        "use fit, which has the closed form"
    )


def _outcomes(outcomes: Outcomes, size: int) -> Integer[np.ndarray, "*n"]:
    """Checks that all outcomes are in 0 ... size - 1; NumPy would read -1 as the last."""
    if outcomes.dtype.kind not in "biu":
        raise ValueError(f"outcomes of type {outcomes.dtype} cannot be counted; give integers")
    wrong = outcomes[(outcomes < 0) | (outcomes >= size)]
    if wrong.size:
        raise ValueError(f"outcome {wrong[0]} is outside 0 ... {size - 1}; count outcomes from 0")
    numbers: Integer[np.ndarray, "*n"] = outcomes.astype(np.int64)
    return numbers


def _frequencies(outcomes: Outcomes, size: int) -> Float[np.ndarray, "size"]:
    frequencies: Float[np.ndarray, "size"] = counts(_nonempty(outcomes), size) / len(outcomes)
    return frequencies


def _nonempty(values: Shaped[np.ndarray, "n"]) -> Shaped[np.ndarray, "n"]:
    if len(values) == 0:
        raise ValueError("no data to fit to; give at least one value")
    return values


def _positive_range(values: Float[np.ndarray, "n"]) -> float:
    """Gives the range of the values, or refuses values to which no Gaussian can be fitted."""
    spread = float(np.ptp(_nonempty(values)))
    if not 0 < spread < inf:
        raise ValueError(f"values of range {spread}; give at least two different ones")
    return spread
