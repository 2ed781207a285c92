"""The commonest wrong answers to 1.8, each with the hint that names it."""

from collections.abc import Callable
from math import sqrt

import numpy as np

Ends = tuple[float, float]
Wilson = Callable[..., Ends]
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
    "high_before_low": "wilson",
    "z_for_its_square": "wilson",
    "z_in_the_center": "wilson",
    "z_under_the_root": "wilson",
    "z_below_the_line": "wilson",
    "n_below_the_line": "wilson",
    "n_below_the_center": "wilson",
    "n_below_the_radius": "wilson",
    "nothing_beside_s": "wilson",
    "not_halved": "wilson",
    "half_of_all_shares": "wilson",
    "square_beside_the_share": "wilson",
    "not_quartered": "wilson",
    "n_not_squared": "wilson",
    "quarter_beside_shares": "wilson",
    "square_beside_shares": "wilson",
    "not_divided_by_n": "wilson",
    "nothing_in_front": "wilson",
    "square_in_front": "wilson",
    "center_without_brackets": "wilson",
    "radius_without_brackets": "wilson",
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
    return p - radius, p + radius


def root_forgotten(successes: float, n: int, z: float = 1.96) -> Ends:
    """The root in the radius is missing."""
    return _wilson(successes, n, z, root=successes * (n - successes) / n + z**2 / 4)


def school_radius(successes: float, n: int, z: float = 1.96) -> Ends:
    """The z²/4 under the root is missing: without it the interval has no width at 0 and n."""
    return _wilson(successes, n, z, beside=0)


def share_instead_of_count(successes: float, n: int, z: float = 1.96) -> Ends:
    """The share s / n was put in where the formula has the number s."""
    p = successes / n
    return _wilson(p, n, z, spread=p * (1 - p) / n)


def not_cut_off(successes: float, n: int, z: float = 1.96) -> Ends:
    """Rounding leads an end a little below 0 or above 1: cut it off with max(0, …), min(1, …)."""
    return _wilson(successes, n, z)


def own_z(successes: float, n: int, z: float = 1.96) -> Ends:
    """1.96 is written into the function, so that every interval is one of 95 %. Take z as it
    comes."""
    return _wilson(successes, n, 1.96)


def whole_successes(successes: float, n: int, z: float = 1.96) -> Ends:
    """The successes were rounded to a whole number. A tie counts as half of one: take them as they
    come."""
    return _wilson(int(successes), n, z)


def share_in_the_middle(successes: float, n: int, z: float = 1.96) -> Ends:
    """The interval lies around the share s / n. Wilson's center is drawn to one half:
    (s + z²/2) / (n + z²)."""
    return _wilson(successes, n, z, center=successes / n)


def center_and_radius(successes: float, n: int, z: float = 1.96) -> Ends:
    """These are the center and the radius. The two ends are asked for: center - radius and
    center + radius."""
    low, high = _wilson(successes, n, z)
    return (low + high) / 2, (high - low) / 2


def high_before_low(successes: float, n: int, z: float = 1.96) -> Ends:
    """The high end comes first. The low one does: center - radius, center + radius."""
    low, high = _wilson(successes, n, z)
    return high, low


def z_for_its_square(successes: float, n: int, z: float = 1.96) -> Ends:
    """z stands where the formula has z², in all four places. In front of the root alone it is z."""
    below = n + z
    return _wilson(successes, n, z, half=z / 2, beside=z / 4, below=below, below_radius=below)


def z_in_the_center(successes: float, n: int, z: float = 1.96) -> Ends:
    """The center has z / 2 above the line, and it is z² / 2."""
    return _wilson(successes, n, z, half=z / 2)


def z_under_the_root(successes: float, n: int, z: float = 1.96) -> Ends:
    """Under the root stands z / 4, and it is z² / 4."""
    return _wilson(successes, n, z, beside=z / 4)


def z_below_the_line(successes: float, n: int, z: float = 1.96) -> Ends:
    """Below the line stands n + z, and it is n + z², in the center and in the radius."""
    return _wilson(successes, n, z, below=n + z, below_radius=n + z)


def n_below_the_line(successes: float, n: int, z: float = 1.96) -> Ends:
    """Center and radius are divided by n alone (or, where you compute with shares, not by
    1 + z² / n). Below the line stands n + z²."""
    return _wilson(successes, n, z, below=n, below_radius=n)


def n_below_the_center(successes: float, n: int, z: float = 1.96) -> Ends:
    """The center is divided by n alone (or, where you compute with shares, not by 1 + z² / n).
    Below the line stands n + z², as in the radius."""
    return _wilson(successes, n, z, below=n)


def n_below_the_radius(successes: float, n: int, z: float = 1.96) -> Ends:
    """The radius is divided by n alone (or, where you compute with shares, not by 1 + z² / n).
    Below the line stands n + z², as in the center."""
    return _wilson(successes, n, z, below_radius=n)


def nothing_beside_s(successes: float, n: int, z: float = 1.96) -> Ends:
    """The center is s / (n + z²), and the z² / 2 beside s is missing: without it the interval is
    drawn to 0 and not to one half."""
    return _wilson(successes, n, z, half=0)


def not_halved(successes: float, n: int, z: float = 1.96) -> Ends:
    """The center has all of z² beside s, and it is z² / 2 (of shares, z² / (2 n))."""
    return _wilson(successes, n, z, half=z**2)


def half_of_all_shares(successes: float, n: int, z: float = 1.96) -> Ends:
    """The center has z² / 2 beside the share p. Beside the number s it is z² / 2, and beside p
    z² / (2 n)."""
    return _wilson(successes, n, z, half=n * z**2 / 2)


def square_beside_the_share(successes: float, n: int, z: float = 1.96) -> Ends:
    """The center has z² beside the share p. Beside the number s it is z² / 2, and beside p
    z² / (2 n)."""
    return _wilson(successes, n, z, half=n * z**2)


def not_quartered(successes: float, n: int, z: float = 1.96) -> Ends:
    """Under the root stands all of z², and it is z² / 4 (of shares, z² / (4 n²))."""
    return _wilson(successes, n, z, beside=z**2)


def n_not_squared(successes: float, n: int, z: float = 1.96) -> Ends:
    """Under the root stands z² / (4 n). Where you compute with shares it is z² / (4 n²): n is
    squared as well."""
    return _wilson(successes, n, z, beside=n * z**2 / 4)


def quarter_beside_shares(successes: float, n: int, z: float = 1.96) -> Ends:
    """Under the root z² / 4 stands beside the shares' p (1 - p) / n, where it is z² / (4 n²).
    Beside s (n - s) / n it is z² / 4."""
    return _wilson(successes, n, z, beside=n**2 * z**2 / 4)


def square_beside_shares(successes: float, n: int, z: float = 1.96) -> Ends:
    """Under the root z² stands beside the shares' p (1 - p) / n, where it is z² / (4 n²).
    Beside s (n - s) / n it is z² / 4."""
    return _wilson(successes, n, z, beside=n**2 * z**2)


def not_divided_by_n(successes: float, n: int, z: float = 1.96) -> Ends:
    """The spread under the root is not divided by n: it is s (n - s) / n (of shares,
    p (1 - p) / n)."""
    return _wilson(successes, n, z, spread=successes * (n - successes))


def nothing_in_front(successes: float, n: int, z: float = 1.96) -> Ends:
    """The z in front of the root is missing: it says how many standard deviations the ends lie
    away from the center."""
    return _wilson(successes, n, z, front=1)


def square_in_front(successes: float, n: int, z: float = 1.96) -> Ends:
    """z² stands in front of the root, and it is z."""
    return _wilson(successes, n, z, front=z**2)


def center_without_brackets(successes: float, n: int, z: float = 1.96) -> Ends:
    """Division comes before addition, so that z² / 2 alone was divided. Put brackets around
    s + z² / 2."""
    return _wilson(successes, n, z, center=successes + z**2 / 2 / (n + z**2))


def radius_without_brackets(successes: float, n: int, z: float = 1.96) -> Ends:
    """Division and multiplication come before addition, so that z was divided by n alone. Put
    brackets around n + z²."""
    low, high = _wilson(successes, n, z, front=z**2, below_radius=1)
    return low - z / n, high + z / n


def _wilson(
    s: float,
    n: int,
    z: float,
    *,
    half: float | None = None,
    below: float | None = None,
    center: float | None = None,
    front: float | None = None,
    below_radius: float | None = None,
    spread: float | None = None,
    beside: float | None = None,
    root: float | None = None,
) -> Ends:
    """Wilson's ends, not cut off, with another number wherever one is given."""

    def given(other: float | None, right: float) -> float:
        return right if other is None else other

    below_center = given(below, n + z**2)
    middle = given(center, (s + given(half, z**2 / 2)) / below_center)
    under = given(spread, s * (n - s) / n) + given(beside, z**2 / 4)
    length = given(front, z) / given(below_radius, n + z**2) * given(root, sqrt(under))
    return middle - length, middle + length


def _cut_off(wilson: Wilson) -> Wilson:
    """The same, cut off where an end leads out of 0 … 1."""

    def found(successes: float, n: int, z: float = 1.96) -> Ends:
        low, high = wilson(successes, n, z)
        return max(0.0, low), min(1.0, high)

    return found


def _clipped(wilson: Wilson) -> Wilson:
    """The same, each end put between 0 and 1."""

    def found(successes: float, n: int, z: float = 1.96) -> Ends:
        low, high = np.clip(wilson(successes, n, z), 0.0, 1.0)
        return float(low), float(high)

    return found


# Whoever has a mistake in the formula may cut its ends off all the same.
VARIANTS = {"wilson": (_cut_off, _clipped)}


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
