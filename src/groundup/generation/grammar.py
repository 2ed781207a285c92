"""A grammar of bytes: what a constrained text may be.

    Literal          these bytes                 Concatenation   one part after the other
    Table            bytes by rows, each of      Choice          one of the options
                     which says what follows     Repeat          an item, least to most times
    Rule             a node by name, which may hold itself

`json_schema` makes such grammars, and `constraint` follows a text through one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

# Nodes. Each is equal to itself alone.

DONE: Final = -1
"""The row of a `Table` that stands for its end."""


@dataclass(frozen=True, eq=False)
class Literal:
    """These bytes, of which there is one at least."""

    text: bytes


@dataclass(frozen=True, eq=False)
class Table:
    """One byte after another: each row says which row follows a byte, from row 0 until DONE.

    In the rows of `ends` it may end as well, or be cut: no room is kept for the model's end.
    """

    rows: Sequence[Mapping[int, int]]
    ends: frozenset[int] = frozenset()


@dataclass(frozen=True, eq=False)
class Concatenation:
    parts: Sequence[Node]


@dataclass(frozen=True, eq=False)
class Choice:
    options: Sequence[Node]


@dataclass(frozen=True, eq=False)
class Repeat:
    """An item that is never empty, `least` to `most` times (None: as often as one likes)."""

    item: Node
    least: int = 0
    most: int | None = None


@dataclass(eq=False)
class Rule:
    """A node whose `body` is set later, so that it may stand within itself.

    Of those that `nest`, at most 64 stand within each other.
    """

    nests: bool = False
    body: Node = field(default_factory=lambda: Choice(()))


Node = Literal | Table | Concatenation | Choice | Repeat | Rule


def _character() -> Table:
    """A character within a JSON string: UTF-8 or an escape, without halves of characters.

    These, from \\uD800 to \\uDFFF, many readers refuse.
    """

    def reads(*rules: tuple[Iterable[int], int]) -> dict[int, int]:
        return {byte: row for bytes, row in rules for byte in bytes}

    digits, letters, any_next = b"0123456789", b"abcefABCEF", range(0x80, 0xC0)
    hex = digits + letters + b"dD"
    plain = set(range(0x20, 0x80)) - {*b'"\\'}
    # Of characters of two to four bytes the second has bounds of its own (RFC 3629, section 4).
    firsts = [
        (plain, DONE), (range(0xC2, 0xE0), 1), ([0xE0], 4), ([*range(0xE1, 0xED), 0xEE, 0xEF], 2),
        ([0xED], 5), ([0xF0], 6), (range(0xF1, 0xF4), 3), ([0xF4], 7), (b"\\", 8),
    ]  # fmt: skip
    return Table(
        [
            reads(*firsts),
            reads((any_next, DONE)),
            reads((any_next, 1)),
            reads((any_next, 2)),
            reads((range(0xA0, 0xC0), 1)),
            reads((range(0x80, 0xA0), 1)),
            reads((range(0x90, 0xC0), 2)),
            reads((range(0x80, 0x90), 2)),
            reads((b'"\\/bfnrt', DONE), (b"u", 9)),
            reads((digits + letters, 10), (b"dD", 13)),
            reads((hex, 11)),
            reads((hex, 12)),
            reads((hex, DONE)),
            reads((b"01234567", 11)),
        ]
    )


CHARACTER = _character()

# What is known of a grammar's nodes: a number for each place in a node.

Known = Mapping[Node, list[float]]


def nodes_of(grammar: Node) -> list[Node]:
    """All nodes, each behind those that it is made of, but where it stands within itself."""
    found, seen = list[Node](), {grammar}
    path = [(grammar, iter(_within(grammar)))]
    while path:
        node, parts = path[-1]
        part = next((one for one in parts if one not in seen), None)
        if part is None:
            found.append(node)
            path.pop()
        else:
            seen.add(part)
            path.append((part, iter(_within(part))))
    return found


def _within(node: Node) -> Sequence[Node]:
    match node:
        case Concatenation(parts):
            return parts
        case Choice(options):
            return options
        case Repeat(item):
            return [item]
        case Rule(body=body):
            return [body]
    return []


def fixed_point(
    nodes: Sequence[Node], of: Callable[[Node, Known], list[float]]
) -> dict[Node, list[float]]:
    """What `of` says of each node, given what is known of those that it is made of."""
    found = {node: [inf] for node in nodes}
    changed = True
    while changed:
        changed = False
        for node in nodes:
            value = of(node, found)
            if value != found[node]:
                found[node], changed = value, True
    return found


def height(node: Node, known: Known) -> list[float]:
    """The number of brackets that stand in one another where there are fewest."""
    match node:
        case Concatenation(parts):
            return [max(known[one][0] for one in parts)]
        case Choice(options):
            return [min((known[one][0] for one in options), default=inf)]
        case Repeat(item, least):
            return known[item] if least else [0]
        case Rule(nests, body):
            return [known[body][0] + nests]
    return [0]
