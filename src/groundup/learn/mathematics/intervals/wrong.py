"""The commonest wrong answers to 1.8, each with the hint that names it."""

from math import sqrt

import numpy as np

Ends = tuple[float, float]
REPLACES = {
    "not_normalized": "posterior",
    "prior_forgotten": "posterior",
    "added": "posterior",
    "divided_by_the_prior": "posterior",
    "school_formula": "wilson",
    "root_forgotten": "wilson",
    "school_radius": "wilson",
    "share_instead_of_count": "wilson",
    "not_cut_off": "wilson",
    "own_z": "wilson",
    "whole_successes": "wilson",
    "drawn_apart": "paired_difference",
    "one_sided": "paired_difference",
    "spread_of_questions": "paired_difference",
    "second_minus_first": "paired_difference",
    "wrong_axis": "paired_difference",
    "normal_ends": "paired_difference",
    "share_in_the_middle": "wilson",
    "center_and_radius": "wilson",
    "ends_of_their_own": "paired_difference",
    "percentages": "paired_difference",
}


def not_normalized(prior: np.ndarray, likelihoods: np.ndarray) -> np.ndarray:
    """The products are right and do not sum to 1 yet: divide by their sum."""
    return prior * likelihoods


def prior_forgotten(prior: np.ndarray, likelihoods: np.ndarray) -> np.ndarray:
    """The prior is missing: what was believed before counts, too."""
    return likelihoods / likelihoods.sum()


def added(prior: np.ndarray, likelihoods: np.ndarray) -> np.ndarray:
    """Beliefs and likelihoods were added. Both have to be so: multiply."""
    return (prior + likelihoods) / (prior + likelihoods).sum()


def divided_by_the_prior(prior: np.ndarray, likelihoods: np.ndarray) -> np.ndarray:
    """The sum below the line is of the products p(h) p(x | h), not of the likelihoods alone."""
    return prior * likelihoods / likelihoods.sum()


def school_formula(successes: float, n: int, z: float = 1.96) -> Ends:
    """This is the school formula p ± z √(p (1 - p) / n), which is certain at 0 and n successes.
    Wilson's is asked for."""
    p = successes / n
    radius = z * sqrt(p * (1 - p) / n)
    return max(0.0, p - radius), min(1.0, p + radius)


def root_forgotten(successes: float, n: int, z: float = 1.96) -> Ends:
    """The root in the radius is missing."""
    center = (successes + z**2 / 2) / (n + z**2)
    radius = z / (n + z**2) * (successes * (n - successes) / n + z**2 / 4)
    return max(0.0, center - radius), min(1.0, center + radius)


def school_radius(successes: float, n: int, z: float = 1.96) -> Ends:
    """The z²/4 under the root is missing: without it the interval has no width at 0 and n."""
    center = (successes + z**2 / 2) / (n + z**2)
    radius = z / (n + z**2) * sqrt(successes * (n - successes) / n)
    return max(0.0, center - radius), min(1.0, center + radius)


def share_instead_of_count(successes: float, n: int, z: float = 1.96) -> Ends:
    """The share s / n was put in where the formula has the number s."""
    p = successes / n
    center = (p + z**2 / 2) / (n + z**2)
    radius = z / (n + z**2) * sqrt(p * (1 - p) / n + z**2 / 4)
    return max(0.0, center - radius), min(1.0, center + radius)


def not_cut_off(successes: float, n: int, z: float = 1.96) -> Ends:
    """Rounding leads an end a little below 0 or above 1: cut it off with max(0, …), min(1, …)."""
    center = (successes + z**2 / 2) / (n + z**2)
    radius = z / (n + z**2) * sqrt(successes * (n - successes) / n + z**2 / 4)
    return center - radius, center + radius


def own_z(successes: float, n: int, z: float = 1.96) -> Ends:
    """1.96 is written into the function, so that every interval is one of 95 %. Take z as it
    comes."""
    low, high = not_cut_off(successes, n)
    return max(0.0, low), min(1.0, high)


def whole_successes(successes: float, n: int, z: float = 1.96) -> Ends:
    """The successes were rounded to a whole number. A tie counts as half of one: take them as they
    come."""
    low, high = not_cut_off(int(successes), n, z)
    return max(0.0, low), min(1.0, high)


def drawn_apart(first: np.ndarray, second: np.ndarray, draws: np.ndarray) -> Ends:
    """The two models were asked different questions: the second one's were drawn apart from the
    first one's. Take both on the same drawn questions, so that hard ones cancel."""
    means = first[draws].mean(axis=1) - second[np.roll(draws, 1, axis=0)].mean(axis=1)
    return _ends(means)


def one_sided(first: np.ndarray, second: np.ndarray, draws: np.ndarray) -> Ends:
    """5 % were cut off at each side, which leaves 90 %. For 95 % it is 2.5 % on each."""
    low, high = np.quantile((first - second)[draws].mean(axis=1), [0.05, 0.95])
    return float(low), float(high)


def spread_of_questions(first: np.ndarray, second: np.ndarray, draws: np.ndarray) -> Ends:
    """These are quantiles of single questions' differences. First the mean of each sample, then the
    quantiles of these means."""
    return _ends((first - second)[draws].ravel())


def second_minus_first(first: np.ndarray, second: np.ndarray, draws: np.ndarray) -> Ends:
    """The difference is turned around: first minus second."""
    return _ends((second - first)[draws].mean(axis=1))


def wrong_axis(first: np.ndarray, second: np.ndarray, draws: np.ndarray) -> Ends:
    """The mean runs over the samples. Each row of draws is one sample: axis=1."""
    return _ends((first - second)[draws].mean(axis=0))


def normal_ends(first: np.ndarray, second: np.ndarray, draws: np.ndarray) -> Ends:
    """These ends are mean ± 1.96 standard deviations of the samples' means. Nearly the same; asked
    for are the quantiles, which need no normal distribution."""
    means = (first - second)[draws].mean(axis=1)
    return float(means.mean() - 1.96 * means.std()), float(means.mean() + 1.96 * means.std())


def _ends(values: np.ndarray) -> Ends:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def share_in_the_middle(successes: float, n: int, z: float = 1.96) -> Ends:
    """The interval lies around the share s / n. Wilson's center is drawn to one half:
    (s + z²/2) / (n + z²)."""
    center = successes / n
    radius = z / (n + z**2) * sqrt(successes * (n - successes) / n + z**2 / 4)
    return max(0.0, center - radius), min(1.0, center + radius)


def center_and_radius(successes: float, n: int, z: float = 1.96) -> Ends:
    """These are the center and the radius. The two ends are asked for: center - radius and
    center + radius."""
    center = (successes + z**2 / 2) / (n + z**2)
    return center, z / (n + z**2) * sqrt(successes * (n - successes) / n + z**2 / 4)


def ends_of_their_own(first: np.ndarray, second: np.ndarray, draws: np.ndarray) -> Ends:
    """Each model got an interval of its own, and their ends were subtracted. Subtract first: the
    mean difference of each sample, then its quantiles."""
    one, other = _ends(first[draws].mean(axis=1)), _ends(second[draws].mean(axis=1))
    return one[0] - other[0], one[1] - other[1]


def percentages(first: np.ndarray, second: np.ndarray, draws: np.ndarray) -> Ends:
    """np.quantile takes shares between 0 and 1, 0.025 and 0.975. It is np.percentile that takes 2.5
    and 97.5."""
    low, high = np.quantile((first - second)[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
