"""Puts the learner's dominance into the frontier experiment."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import ModuleType

from groundup.experiments.frontier import trade
from groundup.learn.plain import all_replaced
from groundup.report.estimate import Estimate

USED_BY = "groundup frontier: which models it keeps, and which it calls better"


def swap(part: ModuleType) -> AbstractContextManager[None]:
    """The comparisons of points are the learner's; the points themselves are measured."""

    def dominates(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
        return bool(part.dominates(dict(one), dict(other)))

    def dominated_by(points: list[Mapping[str, float]]) -> list[int | None]:
        best = part.frontier([dict(point) for point in points])
        return [
            None if place in best else next((i for i in best if dominates(points[i], one)), None)
            for place, one in enumerate(points)
        ]

    def beyond_chance(changes: Mapping[str, Estimate]) -> bool:
        return bool(
            part.beyond_chance({axis: (one.low, one.high) for axis, one in changes.items()})
        )

    return all_replaced(
        (trade, "dominates", dominates),
        (trade, "dominated_by", dominated_by),
        (trade, "beyond_chance", beyond_chance),
    )


def try_it() -> list[float]:
    """Which of five points are beaten, and whether a change is more than chance."""
    points = [
        {"safety": safety, "use": use}
        for safety, use in ((0.1, 0.9), (0.4, 0.6), (0.6, 0.4), (0.9, 0.2), (0.3, 0.5))
    ]
    beaten = [-1.0 if by is None else float(by) for by in trade.dominated_by(points)]
    gain = {"safety": Estimate(0.1, 0.02, 0.2, 9, 9), "use": Estimate(0.0, -0.1, 0.1, 9, 9)}
    return [*beaten, float(trade.beyond_chance(gain))]
