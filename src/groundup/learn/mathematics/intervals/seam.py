"""Where the part of 1.8 enters the product: the interval of every share in a report."""

from collections.abc import Iterator
from contextlib import contextmanager
from statistics import NormalDist
from types import ModuleType

from groundup.experiments import optimizer_race
from groundup.learn.exercise import replaced
from groundup.maths import intervals
from groundup.maths.intervals import Interval
from groundup.report import estimate

USED_BY = "the intervals of shares in the reports of groundup eval and groundup experiment"


@contextmanager
def swap(part: ModuleType) -> Iterator[None]:
    """The part computes the interval of every share."""

    def wilson_interval(successes: float, n: int, confidence: float = 0.95) -> Interval:
        if not 0 <= successes <= n or n == 0:
            raise ValueError(f"{successes} successes in {n} trials are impossible")
        z = NormalDist().inv_cdf((1 + confidence) / 2)
        low, high = part.wilson(successes, n, z)
        return Interval(successes / n, float(low), float(high))

    with (
        replaced(intervals, "wilson_interval", wilson_interval),
        replaced(estimate, "wilson_interval", wilson_interval),
        replaced(optimizer_race, "wilson_interval", wilson_interval),
    ):
        yield


def try_it() -> list[float]:
    """The interval of a share, as in reports."""
    found = estimate.share(45, 50)
    return [found.low, found.high]
