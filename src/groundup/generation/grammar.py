"""A grammar of bytes, which constrains generated text.

    Literal          these bytes                 Concatenation   one part after the other
    Table            a state machine over        Choice          one of the options
                     bytes                       Repeat          an item, least to most times
    Rule             a named node, which may contain itself

`json_schema` builds such grammars, and `constraint` follows a text through one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

# Nodes are compared by identity.

DONE: Final = -1
"""The row of a `Table` that stands for its end."""


@dataclass(frozen=True, eq=False)
class Literal:
    """A sequence of at least one byte."""

    text: bytes


@dataclass(frozen=True, eq=False)
class Table:
    """A state machine: each row maps a byte to the next row, from row 0 until DONE.

    In the rows of `ends` the node may also end, or the text be cut: no room is reserved for the
    model's end token.
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
    """An item that is never empty, `least` to `most` times (None: without a limit)."""

    item: Node
    least: int = 0
    most: int | None = None


@dataclass(eq=False)
class Rule:
    """A node whose `body` is set later, so that it may contain itself.

    Rules with `nests` are nested at most 64 deep.
    """

    nests: bool = False
    body: Node = field(default_factory=lambda: Choice(()))


Node = Literal | Table | Concatenation | Choice | Repeat | Rule


def _character() -> Table:
    """A character within a JSON string: UTF-8 or an escape, without surrogates.

    Many parsers refuse surrogates (\\uD800 to \\uDFFF).
    """

    def reads(*rules: tuple[Iterable[int], int]) -> dict[int, int]:
        return {byte: row for bytes, row in rules for byte in bytes}

    digits, letters, any_next = b"0123456789", b"abcefABCEF", range(0x80, 0xC0)
    hex = digits + letters + b"dD"
    plain = set(range(0x20, 0x80)) - {*b'"\\'}
    # The second byte of a multi-byte character has its own bounds (RFC 3629, section 4).
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

# Properties of a grammar's nodes: a number for each position in a node.

Known = Mapping[Node, list[float]]


def nodes_of(grammar: Node) -> list[Node]:
    """All nodes, each after its parts, except where it contains itself."""
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
    """The values `of(node, values of its parts)`, iterated until none changes."""
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
    """The smallest depth of nested brackets."""
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
