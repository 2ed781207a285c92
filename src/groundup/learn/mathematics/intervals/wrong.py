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
    """The products are right but do not sum to 1 yet: divide by their sum."""
    return prior * likelihoods


def prior_forgotten(prior: np.ndarray, likelihoods: np.ndarray) -> np.ndarray:
    """The prior is missing: the belief before the observation counts, too."""
    return likelihoods / likelihoods.sum()


def added(prior: np.ndarray, likelihoods: np.ndarray) -> np.ndarray:
    """Beliefs and likelihoods were added. Both must hold: multiply."""
    return (prior + likelihoods) / (prior + likelihoods).sum()


def divided_by_the_prior(prior: np.ndarray, likelihoods: np.ndarray) -> np.ndarray:
    """The denominator is the sum of the products p(h) p(x | h), not of the likelihoods alone."""
    return prior * likelihoods / likelihoods.sum()


def school_formula(successes: float, n: int, z: float = 1.96) -> Ends:
    """This is the textbook formula p ± z √(p (1 - p) / n), which is certain at 0 and n successes.
    Use Wilson's."""
    p = successes / n
    radius = z * sqrt(p * (1 - p) / n)
    return p - radius, p + radius


def root_forgotten(successes: float, n: int, z: float = 1.96) -> Ends:
    """The root in the radius is missing."""
    return _wilson(successes, n, z, root=successes * (n - successes) / n + z**2 / 4)


def school_radius(successes: float, n: int, z: float = 1.96) -> Ends:
    """The z²/4 under the root is missing: without it the interval has no width at 0 and n."""
    return _wilson(successes, n, z, addend=0)


def share_instead_of_count(successes: float, n: int, z: float = 1.96) -> Ends:
    """The share s / n was used where the formula has the number s."""
    p = successes / n
    return _wilson(p, n, z, spread=p * (1 - p) / n)


def not_cut_off(successes: float, n: int, z: float = 1.96) -> Ends:
    """Rounding puts an end a little below 0 or above 1: clip it with max(0, …), min(1, …)."""
    return _wilson(successes, n, z)


def own_z(successes: float, n: int, z: float = 1.96) -> Ends:
    """1.96 is written into the function, so every interval is a 95 % interval. Use the given z."""
    return _wilson(successes, n, 1.96)


def whole_successes(successes: float, n: int, z: float = 1.96) -> Ends:
    """The successes were rounded to a whole number. A tie counts as half of one: use the number as
    given."""
    return _wilson(int(successes), n, z)


def share_in_the_middle(successes: float, n: int, z: float = 1.96) -> Ends:
    """The interval is centered on the share s / n. Wilson's center is pulled toward one half: (s +
    z²/2) / (n + z²)."""
    return _wilson(successes, n, z, center=successes / n)


def center_and_radius(successes: float, n: int, z: float = 1.96) -> Ends:
    """These are the center and the radius. Return the two ends: center - radius and center +
    radius."""
    low, high = _wilson(successes, n, z)
    return (low + high) / 2, (high - low) / 2


def high_before_low(successes: float, n: int, z: float = 1.96) -> Ends:
    """The high end comes first. Return the low end first: center - radius, center + radius."""
    low, high = _wilson(successes, n, z)
    return high, low


def z_for_its_square(successes: float, n: int, z: float = 1.96) -> Ends:
    """z is used where the formula has z², in all four places. Only in front of the root it is z."""
    below = n + z
    return _wilson(successes, n, z, half=z / 2, addend=z / 4, below=below, below_radius=below)


def z_in_the_center(successes: float, n: int, z: float = 1.96) -> Ends:
    """The center has z / 2 in the numerator; it should be z² / 2."""
    return _wilson(successes, n, z, half=z / 2)


def z_under_the_root(successes: float, n: int, z: float = 1.96) -> Ends:
    """Under the root is z / 4; it should be z² / 4."""
    return _wilson(successes, n, z, addend=z / 4)


def z_below_the_line(successes: float, n: int, z: float = 1.96) -> Ends:
    """The denominator is n + z; it should be n + z², in the center and in the radius."""
    return _wilson(successes, n, z, below=n + z, below_radius=n + z)


def n_below_the_line(successes: float, n: int, z: float = 1.96) -> Ends:
    """Center and radius are divided by n alone (or, if you compute with shares, not by 1 + z² / n).
    The denominator is n + z²."""
    return _wilson(successes, n, z, below=n, below_radius=n)


def n_below_the_center(successes: float, n: int, z: float = 1.96) -> Ends:
    """The center is divided by n alone (or, if you compute with shares, not by 1 + z² / n). The
    denominator is n + z², as in the radius."""
    return _wilson(successes, n, z, below=n)


def n_below_the_radius(successes: float, n: int, z: float = 1.96) -> Ends:
    """The radius is divided by n alone (or, if you compute with shares, not by 1 + z² / n). The
    denominator is n + z², as in the center."""
    return _wilson(successes, n, z, below_radius=n)


def nothing_beside_s(successes: float, n: int, z: float = 1.96) -> Ends:
    """The center is s / (n + z²), without the z² / 2 added to s: this pulls the interval toward 0
    instead of one half."""
    return _wilson(successes, n, z, half=0)


def not_halved(successes: float, n: int, z: float = 1.96) -> Ends:
    """The center adds all of z² to s; it should be z² / 2 (with shares, z² / (2 n))."""
    return _wilson(successes, n, z, half=z**2)


def half_of_all_shares(successes: float, n: int, z: float = 1.96) -> Ends:
    """The center adds z² / 2 to the share p. Add z² / 2 to the number s, or z² / (2 n) to p."""
    return _wilson(successes, n, z, half=n * z**2 / 2)


def square_beside_the_share(successes: float, n: int, z: float = 1.96) -> Ends:
    """The center adds z² to the share p. Add z² / 2 to the number s, or z² / (2 n) to p."""
    return _wilson(successes, n, z, half=n * z**2)


def not_quartered(successes: float, n: int, z: float = 1.96) -> Ends:
    """Under the root is all of z²; it should be z² / 4 (with shares, z² / (4 n²))."""
    return _wilson(successes, n, z, addend=z**2)


def n_not_squared(successes: float, n: int, z: float = 1.96) -> Ends:
    """Under the root is z² / (4 n). If you compute with shares it should be z² / (4 n²): n is
    squared as well."""
    return _wilson(successes, n, z, addend=n * z**2 / 4)


def quarter_beside_shares(successes: float, n: int, z: float = 1.96) -> Ends:
    """Under the root z² / 4 is added to the shares' p (1 - p) / n, where it should be z² / (4 n²).
    With s (n - s) / n it is z² / 4."""
    return _wilson(successes, n, z, addend=n**2 * z**2 / 4)


def square_beside_shares(successes: float, n: int, z: float = 1.96) -> Ends:
    """Under the root z² is added to the shares' p (1 - p) / n, where it should be z² / (4 n²). With
    s (n - s) / n it is z² / 4."""
    return _wilson(successes, n, z, addend=n**2 * z**2)


def not_divided_by_n(successes: float, n: int, z: float = 1.96) -> Ends:
    """The spread under the root is not divided by n: it is s (n - s) / n (with shares, p (1 - p) /
    n)."""
    return _wilson(successes, n, z, spread=successes * (n - successes))


def nothing_in_front(successes: float, n: int, z: float = 1.96) -> Ends:
    """The z in front of the root is missing: it says how many standard deviations the ends are from
    the center."""
    return _wilson(successes, n, z, front=1)


def square_in_front(successes: float, n: int, z: float = 1.96) -> Ends:
    """z² is in front of the root; it should be z."""
    return _wilson(successes, n, z, front=z**2)


def center_without_brackets(successes: float, n: int, z: float = 1.96) -> Ends:
    """Division comes before addition, so only z² / 2 was divided. Put brackets around s + z² /
    2."""
    return _wilson(successes, n, z, center=successes + z**2 / 2 / (n + z**2))


def radius_without_brackets(successes: float, n: int, z: float = 1.96) -> Ends:
    """Division and multiplication come before addition, so z was divided by n alone. Put brackets
    around n + z²."""
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
    addend: float | None = None,
    root: float | None = None,
) -> Ends:
    """Wilson's ends, not clipped, with another number wherever one is given."""

    def given(other: float | None, right: float) -> float:
        return right if other is None else other

    below_center = given(below, n + z**2)
    middle = given(center, (s + given(half, z**2 / 2)) / below_center)
    under = given(spread, s * (n - s) / n) + given(addend, z**2 / 4)
    length = given(front, z) / given(below_radius, n + z**2) * given(root, sqrt(under))
    return middle - length, middle + length


def _cut_off(wilson: Wilson) -> Wilson:
    """The same, clipped if an end is outside 0 … 1."""

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


# An answer with a mistake in the formula may still clip its ends.
VARIANTS = {"wilson": (_cut_off, _clipped)}


def drawn_apart(first: np.ndarray, second: np.ndarray, draws: np.ndarray) -> Ends:
    """The two models were asked different questions: the second one's were drawn separately. Use
    the same drawn questions for both, so that hard ones cancel."""
    means = first[draws].mean(axis=1) - second[np.roll(draws, 1, axis=0)].mean(axis=1)
    return _ends(means)


def one_sided(first: np.ndarray, second: np.ndarray, draws: np.ndarray) -> Ends:
    """5 % were cut off on each side, which leaves 90 %. For 95 %, cut off 2.5 % on each."""
    low, high = np.quantile((first - second)[draws].mean(axis=1), [0.05, 0.95])
    return float(low), float(high)


def spread_of_questions(first: np.ndarray, second: np.ndarray, draws: np.ndarray) -> Ends:
    """These are quantiles of the differences of single questions. Take the mean of each sample
    first, then the quantiles of these means."""
    return _ends((first - second)[draws].ravel())


def second_minus_first(first: np.ndarray, second: np.ndarray, draws: np.ndarray) -> Ends:
    """The difference is reversed: it is first minus second."""
    return _ends((second - first)[draws].mean(axis=1))


def wrong_axis(first: np.ndarray, second: np.ndarray, draws: np.ndarray) -> Ends:
    """The mean is taken over the samples. Each row of draws is one sample: axis=1."""
    return _ends((first - second)[draws].mean(axis=0))


def normal_ends(first: np.ndarray, second: np.ndarray, draws: np.ndarray) -> Ends:
    """These ends are mean ± 1.96 standard deviations of the samples' means. That is nearly the
    same; return the quantiles, which need no normal distribution."""
    means = (first - second)[draws].mean(axis=1)
    return float(means.mean() - 1.96 * means.std()), float(means.mean() + 1.96 * means.std())


def _ends(values: np.ndarray) -> Ends:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def ends_of_their_own(first: np.ndarray, second: np.ndarray, draws: np.ndarray) -> Ends:
    """Each model got its own interval, and the ends were subtracted. Subtract first: take the mean
    difference of each sample, then the quantiles."""
    one, other = _ends(first[draws].mean(axis=1)), _ends(second[draws].mean(axis=1))
    return one[0] - other[0], one[1] - other[1]


def percentages(first: np.ndarray, second: np.ndarray, draws: np.ndarray) -> Ends:
    """np.quantile takes shares between 0 and 1: 0.025 and 0.975. np.percentile takes 2.5 and
    97.5."""
    low, high = np.quantile((first - second)[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
