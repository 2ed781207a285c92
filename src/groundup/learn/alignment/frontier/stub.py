"""5.9 Safety against use: the frontier

The lesson: groundup learn 5.9        Check it: groundup learn check 5.9
"""


def dominates(one: dict[str, float], other: dict[str, float]) -> bool:
    """Whether `one` is worse than `other` on no axis and better on at least one."""
    raise NotImplementedError


def frontier(points: list[dict[str, float]]) -> list[int]:
    """The indices of the points that no point of the list dominates."""
    raise NotImplementedError


def beyond_chance(changes: dict[str, tuple[float, float]]) -> bool:
    """Whether some change is surely a gain and none surely a loss; each is (low, high)."""
    raise NotImplementedError
