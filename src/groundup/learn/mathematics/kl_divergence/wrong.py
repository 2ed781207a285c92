"""The commonest wrong answers to 1.7, each with the hint that names it."""

from typing import Any

import numpy as np

REPLACES = {
    "other_direction": "kl",
    "nan_at_zero": "kl",
    "in_bits": "kl",
    "averaged_over_outcomes": "kl",
    "unweighted": "kl",
    "weighted_by_the_other": "kl",
    "impossible_left_out": "kl",
    "sign_kept": "k1",
    "averaged": "k1",
    "sizes": "k1",
    "log_added": "k3",
    "ratio_turned": "k3",
    "one_forgotten": "k3",
    "half_square": "k3",
    "entropy_left_in": "kl",
    "sizes_of_terms": "kl",
    "log_forgotten": "k3",
    "never_infinite": "kl",
}


def other_direction(q: np.ndarray, p: np.ndarray) -> float:
    """This is KL(p ‖ q), the other direction: the average runs over what really happens, q, and KL
    is not symmetric."""
    return _kl(p, q)


def nan_at_zero(q: np.ndarray, p: np.ndarray) -> float:
    """0 · log 0 is NaN on a computer. Outcomes that q never gives count 0: leave them out before
    you take logarithms."""
    return float((q * (np.log(q) - np.log(p))).sum())


def in_bits(q: np.ndarray, p: np.ndarray) -> float:
    """This is in bits, with log2. Return nats: np.log."""
    return _kl(q, p) / float(np.log(2))


def averaged_over_outcomes(q: np.ndarray, p: np.ndarray) -> float:
    """This takes the mean over the outcomes. The weights q already make it an average: take the
    sum."""
    return _kl(q, p) / int((q > 0).sum())


def unweighted(q: np.ndarray, p: np.ndarray) -> float:
    """The weights are missing: each outcome counts as often as it happens, q(x)."""
    seen = q > 0
    return float((np.log(q[seen]) - np.log(p[seen])).sum())


def weighted_by_the_other(q: np.ndarray, p: np.ndarray) -> float:
    """The terms are weighted by p. What happens comes from q, so q(x) is the weight."""
    seen = q > 0
    return float((p[seen] * (np.log(q[seen]) - np.log(p[seen]))).sum())


def impossible_left_out(q: np.ndarray, p: np.ndarray) -> float:
    """Outcomes that p finds impossible were left out. If q gives them, KL is infinite: only those
    with q = 0 count 0."""
    seen = (q > 0) & (p > 0)
    return _kl(q[seen], p[seen])


def sign_kept(log_ratio: Any) -> Any:
    """The sign is wrong: r is p / q, so ln q - ln p is minus the log-ratio."""
    return log_ratio


def averaged(log_ratio: Any) -> Any:
    """Return one estimate for each sample; the caller takes the mean."""
    return -log_ratio.mean()


def sizes(log_ratio: Any) -> Any:
    """The absolute value makes every term positive, so the mean is too large: k1 is unbiased
    because its negative values cancel."""
    return abs(log_ratio)


def log_added(log_ratio: Any) -> Any:
    """ln r is subtracted, not added: (r - 1) - ln r is 0 at r = 1 and positive elsewhere."""
    return log_ratio.exp() - 1 + log_ratio


def ratio_turned(log_ratio: Any) -> Any:
    """The ratio is inverted: r = p / q is exp(log_ratio), without a minus."""
    return (-log_ratio).exp() - 1 + log_ratio


def one_forgotten(log_ratio: Any) -> Any:
    """The - 1 is missing: where p and q agree, r = 1 and the estimate must be 0."""
    return log_ratio.exp() - log_ratio


def half_square(log_ratio: Any) -> Any:
    """This is k2, half the square of ln r: close to k3 where r is close to 1, but biased
    elsewhere."""
    return log_ratio * log_ratio / 2


def _kl(q: np.ndarray, p: np.ndarray) -> float:
    seen = q > 0
    return float((q[seen] * (np.log(q[seen]) - np.log(p[seen]))).sum())


def entropy_left_in(q: np.ndarray, p: np.ndarray) -> float:
    """This is the cross-entropy, -Σ q ln p. KL is the excess over q's own entropy: the term is q
    (ln q - ln p)."""
    seen = q > 0
    return float(-(q[seen] * np.log(p[seen])).sum())


def sizes_of_terms(q: np.ndarray, p: np.ndarray) -> float:
    """The absolute value makes every term positive. Single terms may be negative; only their sum is
    not."""
    seen = q > 0
    return float(np.abs(q[seen] * (np.log(q[seen]) - np.log(p[seen]))).sum())


def log_forgotten(log_ratio: Any) -> Any:
    """This is r - 1 alone, which averages to 0. Subtract ln r from it."""
    return log_ratio.exp() - 1


def never_infinite(q: np.ndarray, p: np.ndarray) -> float:
    """A small number (or a clip) keeps 0 from the logarithm, so an outcome that p finds impossible
    costs only a little. Leave out outcomes that q never gives, and let log 0 be -inf elsewhere."""
    return float((q * (np.log(q + 1e-12) - np.log(p + 1e-12))).sum())
