"""From rows to numbers: columns, paired differences of two models, and distances from fair."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Shaped

from groundup.evals.values.task import Row
from groundup.maths.intervals import bootstrap_sums, wilson_interval
from groundup.report.estimate import Estimate, of_sums

# Random guessers per chance level, which is then accurate to about 0.002.
GUESSES = 1000
# Maps sums of columns, one row per sample, to the statistic.
Statistic = Callable[[Float[np.ndarray, "samples columns"]], Float[np.ndarray, "samples"]]


def column(rows: Sequence[Row], name: str) -> Float[np.ndarray, " rows"]:
    """One number of every row, or verdict as 0 or 1."""
    return np.array([float(row[name] or 0) for row in rows])


def groups(
    rows: Sequence[Row], at: Sequence[int] | Bool[np.ndarray, " rows"] | None = None
) -> list[str]:
    """The group of each row, or of the selected rows."""
    names = [str(row["group"]) for row in rows]
    return names if at is None else np.array(names)[at].tolist()


def item_name(*parts: str) -> str:
    """A name for an item that does not reveal its text."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def side_by_side(
    after: Float[np.ndarray, "rows columns"],
    before: Float[np.ndarray, "rows columns"],
    statistic: Statistic,
    groups: Sequence[str] | None,
) -> Estimate:
    """The difference of a statistic between two models, whose rows are of the same items."""
    both = difference_of(statistic, after.shape[1])
    return of_sums(np.hstack([after, before]), both, groups=groups)


def difference_of(statistic: Statistic, width: int) -> Statistic:
    """The statistic of the first `width` columns minus that of the others."""
    return lambda sums: statistic(sums[:, :width]) - statistic(sums[:, width:])


def folded(
    values: Float[np.ndarray, "rows columns"],
    statistic: Statistic,
    groups: Sequence[str],
) -> Estimate:
    """A statistic of absolute values, which resampled rows would overestimate."""
    found = bootstrap_sums(values, statistic, clusters=groups, centered=True)
    ends = found.estimate, found.low, found.high
    return Estimate(*ends, len(values), len(set(groups)))


def widened(found: Estimate, least: float, most: float) -> Estimate:
    """An estimate with an interval even if all groups are alike, or else unchanged.

    Resampling equal groups shows no spread. Wilson's interval for that number of groups is used
    instead, with a statistic from `least` to `most` treated as a share.
    """
    if found.low < found.high or not found.groups:
        return found
    width = most - least
    share = min(max((found.estimate - least) / width, 0.0), 1.0)
    ends = wilson_interval(share * found.groups, found.groups)
    low, high = (least + width * end for end in (ends.low, ends.high))
    # Rounding must not put an end on the wrong side of the estimate.
    return replace(found, low=min(low, found.estimate), high=max(high, found.estimate))


def further(
    after: Float[np.ndarray, "rows columns"],
    before: Float[np.ndarray, "rows columns"],
    statistic: Statistic,
    ideal: float,
    groups: Sequence[str],
) -> Estimate:
    """The difference in |statistic - ideal| of two models; below 0 the first one is nearer."""

    def distance(sums: Float[np.ndarray, "samples columns"]) -> Float[np.ndarray, "samples"]:
        return np.abs(statistic(sums) - ideal)

    both = difference_of(distance, after.shape[1])
    return folded(np.hstack([after, before]), both, groups)


def assert_same_items(after: Sequence[Row], before: Sequence[Row]) -> None:
    """Check that two models have the same items in the same order."""
    assert [row["id"] for row in after] == [row["id"] for row in before]


def likelier(
    one: Shaped[np.ndarray, " rows"], other: Shaped[np.ndarray, " rows"]
) -> Float[np.ndarray, " rows"]:
    """1 where the first is likelier, 0 where the second is, 0.5 for a tie."""
    # Equal numbers from batches of other widths may differ in the last bit.
    same = np.isclose(one, other, rtol=0, atol=1e-5)
    return np.where(same, 0.5, (one > other).astype(float))


def quotient(
    above: Float[np.ndarray, " samples"], below: Float[np.ndarray, " samples"]
) -> Float[np.ndarray, " samples"]:
    """above / below; NaN where `below` is 0."""
    found = np.full(len(above), np.nan)
    np.divide(above, below, out=found, where=below != 0)
    return found


def mean(sums: Float[np.ndarray, "samples columns"]) -> Float[np.ndarray, "samples"]:
    """The first column's sum divided by the second's."""
    return quotient(sums[:, 0], sums[:, 1])


def nearness(
    found: Estimate, ideal: float, furthest: float, guesses: Float[np.ndarray, "samples"]
) -> Estimate:
    """1 - |found - ideal| / furthest: 1 at the ideal, 0 as far from it as possible.

    Guessing misses the ideal by chance, more so with fewer items: the chance level is the mean over
    `guesses`, which are the values of random guessers in place of `found`.
    """

    def near(value: float) -> float:
        return 1 - abs(value - ideal) / furthest

    ends = sorted((near(found.low), near(found.high)))
    within = found.low <= ideal <= found.high
    return Estimate(
        near(found.estimate),
        ends[0],
        1.0 if within else ends[1],
        found.items,
        found.groups,
        float(np.mean([near(one) for one in guesses.tolist()])),
    )
