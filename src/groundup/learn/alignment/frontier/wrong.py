"""The commonest mistakes with the frontier."""

REPLACES = {
    "better_everywhere": "dominates",
    "better_somewhere": "dominates",
    "equal_dominates": "dominates",
    "better_sum": "dominates",
    "first_axis": "dominates",
    "axes_by_place": "dominates",
    "better_on_more_axes": "dominates",
    "first_two_axes": "dominates",
    "named_axes": "dominates",
    "nearly_equal": "dominates",
    "best_sum": "frontier",
    "dominated_ones": "frontier",
    "points_not_places": "frontier",
    "best_on_an_axis": "frontier",
    "losses_forgotten": "beyond_chance",
    "sure_everywhere": "beyond_chance",
    "middle_counts": "beyond_chance",
    "doubt_stops": "beyond_chance",
    "touching_is_a_gain": "beyond_chance",
    "touching_is_a_loss": "beyond_chance",
    "turned_around": "dominates",
    "equals_drop_each_other": "frontier",
    "earlier_ones_alone": "frontier",
    "equals_once": "frontier",
}

Point = dict[str, float]
Changes = dict[str, tuple[float, float]]


def _dominates(one: Point, other: Point) -> bool:
    nowhere_worse = all(one[axis] >= other[axis] for axis in other)
    return nowhere_worse and any(one[axis] > other[axis] for axis in other)


def better_everywhere(one: Point, other: Point) -> bool:
    """This requires `one` to be better on *every* axis. Equal on one and better on another
    dominates too."""
    return all(one[axis] > other[axis] for axis in other)


def better_somewhere(one: Point, other: Point) -> bool:
    """Better on one axis is not enough: `one` must also be worse on none."""
    return any(one[axis] > other[axis] for axis in other)


def equal_dominates(one: Point, other: Point) -> bool:
    """Here an equal point dominates, so two equal points dominate each other, and each point
    dominates itself. It must be better on some axis."""
    return all(one[axis] >= other[axis] for axis in other)


def better_sum(one: Point, other: Point) -> bool:
    """The sums are compared, which trades one axis for another: that is a choice of values, not
    dominance. Compare axis by axis."""
    return sum(one.values()) > sum(other.values())


def first_axis(one: Point, other: Point) -> bool:
    """The first axis decides, and the next one only if the first is equal. All axes count alike."""
    return list(one.values()) > list(other.values())


def axes_by_place(one: Point, other: Point) -> bool:
    """The values are compared by position, but the two may have their axes in different orders.
    Look up both by axis."""
    pairs = list(zip(one.values(), other.values(), strict=True))
    return all(mine >= theirs for mine, theirs in pairs) and any(a > b for a, b in pairs)


def better_on_more_axes(one: Point, other: Point) -> bool:
    """It is enough here to be better on more axes than worse. Being worse on a single one rules
    dominance out."""
    better = sum(one[axis] > other[axis] for axis in other)
    return better > sum(one[axis] < other[axis] for axis in other)


def first_two_axes(one: Point, other: Point) -> bool:
    """Only the first two axes are compared. There may be any number: go over all of them."""
    two = list(one)[:2]
    pairs = [(one[axis], other[axis]) for axis in two]
    return all(mine >= theirs for mine, theirs in pairs) and any(a > b for a, b in pairs)


def named_axes(one: Point, other: Point) -> bool:
    """Only "safety" and "use" are compared. Points may have other axes: go over the keys."""
    pairs = [(one[axis], other[axis]) for axis in ("safety", "use")]
    return all(mine >= theirs for mine, theirs in pairs) and any(a > b for a, b in pairs)


def nearly_equal(one: Point, other: Point) -> bool:
    """Numbers that nearly agree are taken as equal. Dominance compares the exact numbers;
    `beyond_chance` handles uncertainty separately, with intervals."""
    nowhere_worse = all(one[axis] >= other[axis] - 1e-3 for axis in other)
    return nowhere_worse and any(one[axis] > other[axis] + 1e-3 for axis in other)


def best_sum(points: list[Point]) -> list[int]:
    """Only the point with the best sum is on it. The frontier has all points that no other
    dominates; each is the best for someone."""
    sums = [sum(point.values()) for point in points]
    return [i for i, one in enumerate(sums) if one == max(sums)]


def dominated_ones(points: list[Point]) -> list[int]:
    """Those are the points that *are* dominated. The frontier is the others."""
    return [i for i, p in enumerate(points) if any(_dominates(o, p) for o in points)]


def points_not_places(points: list[Point]) -> list[Point]:
    """These are the points themselves. Return their indices in the list: 0, 1, …"""
    return [p for p in points if not any(_dominates(o, p) for o in points)]


def best_on_an_axis(points: list[Point]) -> list[int]:
    """Only the best on some axis are taken. A point in between that is best on none is on the
    frontier too if no other dominates it."""
    best = {axis: max(point[axis] for point in points) for axis in points[0]} if points else {}
    return [i for i, p in enumerate(points) if any(p[axis] == best[axis] for axis in p)]


def losses_forgotten(changes: Changes) -> bool:
    """Here a sure gain is enough, whatever is lost elsewhere. The change must not be surely a loss
    on any axis."""
    return any(low > 0 for low, _ in changes.values())


def sure_everywhere(changes: Changes) -> bool:
    """This requires a sure gain on *every* axis. One is enough, if no other change is surely a
    loss."""
    return all(low > 0 for low, _ in changes.values())


def middle_counts(changes: Changes) -> bool:
    """The middles of the intervals are compared with 0: that is dominance of the numbers again. A
    gain is sure if the *low* end is above 0."""
    middles = [(low + high) / 2 for low, high in changes.values()]
    return any(one > 0 for one in middles) and not any(one < 0 for one in middles)


def doubt_stops(changes: Changes) -> bool:
    """Here any interval that reaches below 0 rules it out. Only a sure loss does, with the *high*
    end below 0."""
    is_better = any(low > 0 for low, _ in changes.values())
    return is_better and not any(low < 0 for low, _ in changes.values())


def touching_is_a_gain(changes: Changes) -> bool:
    """An interval that begins at 0 is taken as a gain. Zero is in it: low > 0, not low >= 0."""
    is_better = any(low >= 0 for low, _ in changes.values())
    return is_better and not any(high < 0 for _, high in changes.values())


def touching_is_a_loss(changes: Changes) -> bool:
    """An interval that ends at 0 is taken as a loss. Zero is in it: high < 0, not high <= 0."""
    is_better = any(low > 0 for low, _ in changes.values())
    return is_better and not any(high <= 0 for _, high in changes.values())


def turned_around(one: Point, other: Point) -> bool:
    """The two are exchanged: does *one* dominate other?"""
    nowhere_worse = all(other[axis] >= one[axis] for axis in other)
    return nowhere_worse and any(other[axis] > one[axis] for axis in other)


def equals_drop_each_other(points: list[Point]) -> list[int]:
    """Two equal points drop each other. Neither dominates, since neither is better on any axis."""
    return [
        place
        for place, point in enumerate(points)
        if not any(
            other != place and all(points[other][axis] >= point[axis] for axis in point)
            for other in range(len(points))
        )
    ]


def earlier_ones_alone(points: list[Point]) -> list[int]:
    """A point was compared only with those before it. One that comes later may dominate it."""
    return [
        place
        for place, point in enumerate(points)
        if not any(_dominates(other, point) for other in points[:place])
    ]


def equals_once(points: list[Point]) -> list[int]:
    """Of two equal points only the first was kept. Neither dominates the other: both stay."""
    return [
        place
        for place, point in enumerate(points)
        if point not in points[:place] and not any(_dominates(other, point) for other in points)
    ]
