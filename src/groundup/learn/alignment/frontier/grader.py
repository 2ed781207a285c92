"""Grades the frontier by `groundup.experiments.frontier`."""

import random
from collections.abc import Iterator

from groundup.experiments.frontier.trade import beyond_chance, dominated_by, dominates
from groundup.learn.exercise import Trial, calls
from groundup.report.estimate import Estimate


def trials(seed: int) -> Iterator[Trial]:
    dice = random.Random(seed)
    pairs = [((0.9, 0.8), (0.7, 0.5)), ((0.9, 0.8), (0.9, 0.5)), ((0.9, 0.2), (0.1, 0.8))]
    pairs += [((0.5, 0.5), (0.5, 0.5)), ((0.9, 0.3), (0.4, 0.4)), ((0.1, 0.2), (0.3, 0.4))]
    # Any number of axes; and slightly better counts as better.
    pairs_of_three = [((1.0, 1.0, 0.0), (0.0, 0.0, 1.0)), ((0.5, 0.5, 0.9), (0.5, 0.5, 0.1))]
    pairs_of_three += [((0.9, 0.9, 0.1), (0.5, 0.5, 0.2)), ((0.5, 0.5, 0.5), (0.5, 0.5, 0.4999))]
    pairs_of_three += [((0.9, 0.9, 0.4999), (0.5, 0.5, 0.5)), ((0.2, 0.9, 0.9), (0.3, 0.5, 0.5))]
    for left, right in (*pairs, *pairs_of_three):
        one, other = _point(left), _point(right)
        yield Trial(
            f"dominates: {left} against {right}",
            calls("dominates", one, other),
            dominates(one, other),
            {"one": one, "other": other},
        )
    one, other = {"safety": 0.9, "use": 0.3}, {"use": 0.2, "safety": 0.8}
    yield Trial(
        "dominates: the axes in another order",
        calls("dominates", one, other),
        dominates(one, other),
        {"one": one, "other": other},
    )
    lists: list[list[tuple[float, ...]]] = [
        [(1.0, 0.1), (0.7, 0.6), (0.5, 0.4), (0.2, 0.9)],
        [(0.5, 0.5), (0.5, 0.5), (0.4, 0.5)],
        [],
        [(dice.randrange(5) / 4, dice.randrange(5) / 4) for _ in range(8)],
        [(0.1, 0.9), (0.4, 0.6), (0.6, 0.4), (0.9, 0.2), (0.3, 0.5)],
        [(0.9, 0.9, 0.1), (0.5, 0.5, 0.5), (0.9, 0.5, 0.1), (0.1, 0.1, 0.9)],
    ]
    for values in lists:
        points = [_point(one) for one in values]
        yield Trial(
            f"frontier of {len(points)} points",
            calls("frontier", points),
            [place for place, by in enumerate(dominated_by(points)) if by is None],
            {"points": points},
        )
    changes = [
        ((0.02, 0.1), (-0.04, 0.02)),
        ((0.02, 0.1), (-0.1, -0.01)),
        ((-0.01, 0.03), (-0.01, 0.05)),
        ((0.01, 0.02), (0.0, 0.03)),
        ((-0.2, -0.1), (-0.3, 0.1)),
        ((-0.09, 0.01), (0.01, 0.02)),
        ((0.0, 0.1), (-0.05, 0.1)),
        ((0.02, 0.1), (-0.1, 0.0)),
    ]
    for safety, use in changes:
        ends = {"safety": safety, "use": use}
        yield Trial(
            f"beyond_chance, safety {safety} and use {use}",
            calls("beyond_chance", ends),
            beyond_chance({axis: Estimate(0.0, *both, 1, 1) for axis, both in ends.items()}),
            {"changes": ends},
        )


def _point(values: tuple[float, ...]) -> dict[str, float]:
    """A point; two values belong to the last two axes."""
    return dict(zip(("fairness", "safety", "use")[-len(values) :], values, strict=True))
