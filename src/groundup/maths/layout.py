"""Where the boxes of a graph stand: in columns from left to right, with few crossing lines.

The method is that of Sugiyama, Tagawa and Toda (1981), "Methods for visual understanding of
hierarchical system structures", in its simple form:

1. each box goes into a column, as far right as its children allow, so that what feeds an operation
   stands beside it and the longest path gets a column per step;
2. a line that passes columns gets a point in each of them, so that it can be led around boxes;
   all lines from one box share these points, as the branches of a trunk;
3. within each column the order follows the barycentre of the neighbours, column by column, there
   and back again, and the order with the fewest crossings is kept;
4. heights follow the neighbours as closely as the order and the distances allow.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple, TypeAlias

Edge: TypeAlias = tuple[int, int]
"""Numbers of two boxes, from the parent to the child."""
Columns: TypeAlias = list[list[int]]
"""The vertices of each column from top to bottom: boxes, and from len(boxes) on points of lines."""

BETWEEN_COLUMNS = 52.0
BETWEEN_BOXES = 18.0
BETWEEN_LINES = 10.0
SWEEPS = 24  # graphs of a few hundred boxes stop improving after about ten
STIFFNESS = 8  # how much rather a line goes on straight than leans to the boxes at its ends
HEAVY = 1000.0  # an operation hardly makes room for leaves: a long chain would drift away
LAST_SWEEPS = 6  # in which both neighbours of a box pull, so that neither side is favoured


class Point(NamedTuple):
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle by its upper left corner; y grows downwards, as in SVG."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Layout:
    """The picture's size, its boxes, and for each edge the points that its line goes through.

    A line goes from its first point to the second with a bend, from there to the third straight
    (across a column), and so on in turn.
    """

    width: float
    height: float
    boxes: tuple[Box, ...]
    lines: tuple[tuple[Point, ...], ...]


def layered(sizes: Sequence[tuple[float, float]], edges: Sequence[Edge]) -> Layout:
    """Place boxes of the given widths and heights; all boxes of a column get its greatest width.

    Boxes are numbered so that each edge leads to a higher number; two boxes may be joined twice.
    """
    assert sizes and all(0 <= parent < child < len(sizes) for parent, child in edges)
    layers = _layers(len(sizes), edges)
    routes = _routes(layers, edges)
    links = _Links(len(sizes), routes)
    columns = _ordered(len(sizes), layers, routes, links)
    heights = [height for _, height in sizes] + [0.0] * (links.vertices - len(sizes))
    middles = _middles(columns, links, heights, len(sizes))

    widths = [max(sizes[v][0] for v in column if v < len(sizes)) for column in columns]
    starts = [0.0, *accumulate(width + BETWEEN_COLUMNS for width in widths)]
    top = min(middles[v] - heights[v] / 2 for v in range(links.vertices))
    boxes = tuple(
        Box(starts[layer], middles[v] - heights[v] / 2 - top, widths[layer], heights[v])
        for v, layer in enumerate(layers)
    )
    lines = []
    for route, port in zip(routes, _ports(routes, middles, boxes), strict=True):
        first, last = boxes[route[0]], boxes[route[-1]]
        line = [Point(first.x + first.width, middles[route[0]] - top)]
        for layer, vertex in enumerate(route[1:-1], start=layers[route[0]] + 1):
            ends = (starts[layer], starts[layer] + widths[layer])
            line += [Point(x, middles[vertex] - top) for x in ends]
        lines.append((*line, Point(last.x, port)))
    bottom = max(middles[v] + heights[v] / 2 for v in range(links.vertices))
    return Layout(starts[-1] - BETWEEN_COLUMNS, bottom - top, boxes, tuple(lines))


def _layers(boxes: int, edges: Sequence[Edge]) -> list[int]:
    """Each box's column: one left of its leftmost child; boxes without children in the last."""
    children: list[list[int]] = [[] for _ in range(boxes)]
    for parent, child in edges:
        children[parent].append(child)
    layers = [0] * boxes
    for box in reversed(range(boxes)):
        layers[box] = min((layers[child] for child in children[box]), default=1) - 1
    return [layer - min(layers) for layer in layers]


def _routes(layers: list[int], edges: Sequence[Edge]) -> list[list[int]]:
    """For each edge the vertices it goes through, one per column, from parent to child."""
    trunks = {parent: [parent] for parent, _ in edges}
    vertices = len(layers)
    routes = []
    for parent, child in edges:
        trunk, span = trunks[parent], layers[child] - layers[parent]
        while len(trunk) < span:
            trunk.append(vertices)
            vertices += 1
        routes.append([*trunk[:span], child])
    return routes


class _Links:
    """Who is joined to whom in the columns beside it, each pair once."""

    def __init__(self, boxes: int, routes: list[list[int]]) -> None:
        pairs = dict.fromkeys(pair for route in routes for pair in pairwise(route))
        self.vertices = max([boxes, *(a + 1 for a, _ in pairs)])
        self.left: list[list[int]] = [[] for _ in range(self.vertices)]
        self.right: list[list[int]] = [[] for _ in range(self.vertices)]
        for a, b in pairs:
            self.left[b].append(a)
            self.right[a].append(b)


def _ordered(boxes: int, layers: list[int], routes: list[list[int]], links: _Links) -> Columns:
    """The vertices by columns, in the order with the fewest crossings of lines that was found."""
    columns = _met(boxes, layers, routes, links)
    best, fewest = columns, _crossings(columns, links)
    for sweep in range(SWEEPS):
        if not fewest:
            break
        columns = _swept(columns, links, rightwards=sweep % 2 == 0)
        crossings = _crossings(columns, links)
        if crossings < fewest:
            best, fewest = columns, crossings
    return best


def _met(boxes: int, layers: list[int], routes: list[list[int]], links: _Links) -> Columns:
    """The columns in the order in which a walk back from the last box meets their vertices.

    A tree comes out of that without a crossing, its operands in order from the top.
    """
    column_of = dict(enumerate(layers))
    for route in routes:
        column_of |= {v: layers[route[0]] + step for step, v in enumerate(route[:-1])}
    columns: Columns = [[] for _ in range(1 + max(layers))]
    met: set[int] = set()
    for last in reversed(range(boxes)):
        ahead = [last]
        while ahead:
            vertex = ahead.pop()
            if vertex not in met:
                met.add(vertex)
                columns[column_of[vertex]].append(vertex)
                ahead += reversed(links.left[vertex])
    return columns


def _swept(columns: Columns, links: _Links, rightwards: bool) -> Columns:
    """Each column sorted by where its neighbours in the column before it stand on average.

    A leaf has nobody before it and goes where the other operands of its children go.
    """
    before, after = (links.left, links.right) if rightwards else (links.right, links.left)
    place: dict[int, float] = {}
    swept = list(columns)
    for c in _direction(len(columns), rightwards):
        wish = {v: _mean([place[n] for n in before[v]]) for v in columns[c] if before[v]}
        for i, v in enumerate(columns[c]):
            beside = [wish[w] for n in after[v] for w in before[n] if before[w]]
            wish.setdefault(v, _mean(beside) if beside else i)
        swept[c] = sorted(columns[c], key=wish.__getitem__)
        place |= {vertex: i for i, vertex in enumerate(swept[c])}
    return swept


def _crossings(columns: Columns, links: _Links) -> int:
    """How many pairs of lines cross between neighbouring columns."""
    place = {vertex: i for column in columns for i, vertex in enumerate(column)}
    crossings = 0
    for column in columns:
        ends: list[int] = []
        for vertex in column:
            mine = sorted(place[n] for n in links.right[vertex])
            crossings += sum(len(ends) - bisect_right(ends, end) for end in mine)
            for end in mine:
                insort(ends, end)
    return crossings


def _middles(columns: Columns, links: _Links, heights: list[float], boxes: int) -> list[float]:
    """The height of each vertex's middle: near its neighbours, in order and not too close.

    Operations keep in line with each other; leaves and points of lines make room for them.
    """
    middles = [0.0] * links.vertices
    operations = {vertex for vertex in range(boxes) if links.left[vertex]}

    def wish(vertex: int, sides: list[list[list[int]]]) -> float:
        joined = []
        for side in sides:
            in_line = [n for n in side[vertex] if n in operations]
            joined += in_line if in_line and vertex in operations else side[vertex]
        if vertex >= boxes:
            joined += STIFFNESS * [n for n in joined if n >= boxes]
        return _mean([middles[n] for n in joined]) if joined else middles[vertex]

    for sweep in range(SWEEPS):
        rightwards = sweep % 2 == 0
        sides = [links.left if rightwards else links.right]
        if sweep >= SWEEPS - LAST_SWEEPS:
            sides = [links.left, links.right]
        for c in _direction(len(columns), rightwards):
            gaps = [
                (heights[a] + heights[b]) / 2
                + (BETWEEN_LINES if a >= boxes and b >= boxes else BETWEEN_BOXES)
                for a, b in pairwise(columns[c])
            ]
            wishes = [wish(vertex, sides) for vertex in columns[c]]
            weights = [HEAVY if vertex in operations else 1.0 for vertex in columns[c]]
            for vertex, middle in zip(columns[c], _spread(wishes, weights, gaps), strict=True):
                middles[vertex] = middle
    return middles


def _spread(wishes: list[float], weights: list[float], gaps: list[float]) -> list[float]:
    """The places nearest to the wished ones, in least squares, with at least these gaps between.

    Without its gaps this is isotonic regression: whoever would stand before his predecessor is
    pooled with him at their mean (Ayer and others 1955).
    """
    offsets = [0.0, *accumulate(gaps)]
    pools: list[tuple[float, float, int]] = []
    for wish, weight, offset in zip(wishes, weights, offsets, strict=True):
        mean, count = wish - offset, 1
        while pools and pools[-1][0] > mean:
            other, others, more = pools.pop()
            mean = (mean * weight + other * others) / (weight + others)
            weight, count = weight + others, count + more
        pools.append((mean, weight, count))
    pooled = [mean for mean, _, count in pools for _ in range(count)]
    return [place + offset for place, offset in zip(pooled, offsets, strict=True)]


def _ports(routes: list[list[int]], middles: list[float], boxes: Sequence[Box]) -> list[float]:
    """The height at which each edge enters its child: evenly spaced, in the order of arrival."""
    arriving: dict[int, list[int]] = {}
    for edge, route in enumerate(routes):
        arriving.setdefault(route[-1], []).append(edge)
    ports = [0.0] * len(routes)
    for child, edges in arriving.items():
        edges.sort(key=lambda edge: middles[routes[edge][-2]])
        for i, edge in enumerate(edges, start=1):
            ports[edge] = boxes[child].y + boxes[child].height * i / (len(edges) + 1)
    return ports


def _direction(columns: int, rightwards: bool) -> range:
    return range(columns) if rightwards else range(columns - 1, -1, -1)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
