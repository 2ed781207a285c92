"""The layout of a graph's boxes: in columns from left to right, and in lanes.

1. Each box is placed in the rightmost column that its children allow, so operands are next to their
   operation and the longest path has a column per step.
2. A box and the line that leaves it use one lane, up to the column before its last child. A lane
   holds one of them at a time, so no line crosses a box.
3. A traversal back from the last box assigns the lanes: the first operand gets the lane of its
   child if it is free, the others get the next free ones below. So a tree is drawn without
   crossings, with operands in order from the top, and a chain of operations in one line.

Layered as in Sugiyama, Tagawa and Toda (1981), "Methods for visual understanding of hierarchical
system structures", with lanes as for the wires of a chip (Hashimoto and Stevens 1971) instead of a
search for few crossings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple, TypeAlias

Edge: TypeAlias = tuple[int, int]
"""The numbers of two boxes, from the parent to the child."""

BETWEEN_COLUMNS = 52.0
BETWEEN_LANES = 18.0


class Point(NamedTuple):
    x: float
    y: float


class Box(NamedTuple):
    """A rectangle given by its upper left corner; y increases downwards, as in SVG."""

    x: float
    y: float
    width: float
    height: float


class Line(NamedTuple):
    """A line from a box straight to `turn`, and from there curved to another box."""

    start: Point
    turn: Point
    end: Point


@dataclass(frozen=True, slots=True)
class Placement:
    """The size of the picture, its boxes, and a line for each edge."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]


def layered(sizes: Sequence[tuple[float, float]], edges: Sequence[Edge]) -> Placement:
    """Place boxes of the given widths and heights; all boxes of a column get its greatest width.

    Each edge must lead to a higher box number; two boxes may be connected twice.
    """
    assert sizes and all(0 <= parent < child < len(sizes) for parent, child in edges)
    parents: list[list[int]] = [[] for _ in sizes]
    children: list[list[int]] = [[] for _ in sizes]
    for parent, child in edges:
        parents[child].append(parent)
        children[parent].append(child)
    columns = _columns(children)
    lanes = _lanes(columns, parents, children)

    widths, heights = [0.0] * (1 + max(columns)), [0.0] * (1 + max(lanes))
    for (width, height), column, lane in zip(sizes, columns, lanes, strict=True):
        widths[column] = max(widths[column], width)
        heights[lane] = max(heights[lane], height)
    lefts = [0.0, *accumulate(width + BETWEEN_COLUMNS for width in widths)]
    tops = [0.0, *accumulate(height + BETWEEN_LANES for height in heights)]
    boxes = tuple(
        Box(lefts[column], tops[lane] + (heights[lane] - height) / 2, widths[column], height)
        for (_, height), column, lane in zip(sizes, columns, lanes, strict=True)
    )

    lines: dict[int, Line] = {}
    for child, box in enumerate(boxes):
        # Lines enter a box at equal distances, in the order of the lanes they come from.
        entering = [number for number, edge in enumerate(edges) if edge[1] == child]
        entering.sort(key=lambda number: lanes[edges[number][0]])
        for place, number in enumerate(entering, start=1):
            start = boxes[edges[number][0]]
            y = start.y + start.height / 2
            lines[number] = Line(
                Point(start.x + start.width, y),
                Point(box.x - BETWEEN_COLUMNS, y),
                Point(box.x, box.y + box.height * place / (len(entering) + 1)),
            )
    return Placement(
        lefts[-1] - BETWEEN_COLUMNS,
        tops[-1] - BETWEEN_LANES,
        boxes,
        tuple(lines[number] for number in range(len(edges))),
    )


def _columns(children: list[list[int]]) -> list[int]:
    """Return each box's column: left of its leftmost child, or the last one without children."""
    columns = [0] * len(children)
    for box in reversed(range(len(children))):
        columns[box] = min((columns[child] for child in children[box]), default=1) - 1
    return [column - min(columns) for column in columns]


def _lanes(columns: list[int], parents: list[list[int]], children: list[list[int]]) -> list[int]:
    """Return each box's lane, which is free in its column and in those that its line passes."""
    lanes: dict[int, int] = {}
    taken: list[set[int]] = []  # the columns in use in each lane
    for last in reversed(range(len(columns))):
        ahead = [(last, 0)]
        while ahead:
            box, lane = ahead.pop()
            if box in lanes:
                continue
            end = max((columns[child] for child in children[box]), default=columns[box] + 1)
            span = range(columns[box], end)
            while lane < len(taken) and not taken[lane].isdisjoint(span):
                lane += 1
            taken += [set() for _ in range(lane + 1 - len(taken))]
            taken[lane].update(span)
            lanes[box] = lane
            ahead += [(parent, lane) for parent in reversed(parents[box])]
    return [lanes[box] for box in range(len(columns))]
