"""Puts the learner's dominance and intervals into reports and the frontier experiment."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import ModuleType

from groundup.experiments.frontier import trade
from groundup.learn.plain import all_replaced
from groundup.maths.intervals import Interval
from groundup.maths.intervals import wilson_interval as product_interval
from groundup.report import estimate

USED_BY = "groundup experiment frontier, and the intervals of every share that a report shows"


def swap(part: ModuleType) -> AbstractContextManager[None]:
    """Intervals of other than 95 % stay the product's."""

    def dominates(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
        return bool(part.dominates(dict(one), dict(other)))

    def dominated_by(points: list[Mapping[str, float]]) -> list[int | None]:
        best = part.frontier([dict(point) for point in points])
        return [
            None if place in best else next((i for i in best if dominates(points[i], one)), None)
            for place, one in enumerate(points)
        ]

    def wilson_interval(successes: float, n: int, confidence: float = 0.95) -> Interval:
        if confidence != 0.95 or not n:
            return product_interval(successes, n, confidence)
        low, high = part.wilson(successes, n)
        return Interval(successes / n, max(0.0, low), min(1.0, high))

    return all_replaced(
        (trade, "dominates", dominates),
        (trade, "dominated_by", dominated_by),
        (estimate, "wilson_interval", wilson_interval),
    )


def try_it() -> list[float]:
    """Which of five points are beaten, and the interval of 18 of 20."""
    points = [
        {"safety": safety, "use": use}
        for safety, use in ((0.1, 0.9), (0.4, 0.6), (0.6, 0.4), (0.9, 0.2), (0.3, 0.5))
    ]
    beaten = [-1.0 if by is None else float(by) for by in trade.dominated_by(points)]
    share = estimate.share(18, 20)
    return [*beaten, share.low, share.high]
