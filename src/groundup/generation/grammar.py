"""A grammar of bytes, which constrains generated text.

    Literal          these bytes                 Concatenation   one part after the other
    Table            a state machine over        Choice          one of the options
                     bytes                       Repeat          an item, least to most times
    Automaton        a state machine over        Rule            a named node, which may contain
                     characters                                  itself

`json_schema` builds such grammars, and `constraint` follows a text through one.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import groupby
from math import inf
from typing import Final

# Nodes are compared by identity.

DONE: Final = -1
"""The row of a `Table` that stands for its end."""

Characters = tuple[tuple[int, int], ...]
"""A set of characters: sorted ranges of code points, each with its first and last."""


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


@dataclass(frozen=True, eq=False)
class Automaton:
    """A state machine over characters, which reads `least` to `most` of them (None: no limit).

    Each state lists sets of characters and the states they lead to, from state 0. The node may end
    in the states of `ends`. Source: Hopcroft and Ullman 1979, chapter 2.
    """

    states: Sequence[Sequence[tuple[Characters, int]]]
    ends: frozenset[int]
    least: int = 0
    most: int | None = None

    @cached_property
    def tables(self) -> Sequence[Sequence[tuple[Table, int]]]:
        """The states, with a table of one character for each set."""
        return [[(table_of(those), then) for those, then in moves] for moves in self.states]

    @property
    def positions(self) -> int:
        """The number of positions: a position is a state and the number of characters before it."""
        counts = self.least if self.most is None else self.most
        return len(self.states) * (counts + 1)

    def following(self, position: int) -> list[tuple[Table, int]]:
        """The characters that may come next, and the position after them."""
        count, state = divmod(position, len(self.states))
        if count == self.most:
            return []
        # Without a maximum, counts above the minimum are equivalent.
        after = min(count + 1, self.least) if self.most is None else count + 1
        return [(table, after * len(self.states) + then) for table, then in self.tables[state]]

    def may_end(self, position: int) -> bool:
        count, state = divmod(position, len(self.states))
        return state in self.ends and count >= self.least

    def matches(self, text: str) -> bool:
        """Whether the automaton reads the whole text. At most one move reads each character."""
        state = 0
        for code in map(ord, text):
            moves = (
                then
                for those, then in self.states[state]
                if any(first <= code <= last for first, last in those)
            )
            if (after := next(moves, None)) is None:
                return False
            state = after
        within = self.most is None or len(text) <= self.most
        return state in self.ends and self.least <= len(text) and within


Node = Literal | Table | Concatenation | Choice | Repeat | Rule | Automaton


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

# Sets of characters. A JSON string spells each character in one way: as UTF-8, or by its shortest
# escape where JSON requires one. Surrogates (U+D800 to U+DFFF) are not characters.


def characters(ranges: Iterable[tuple[int, int]]) -> Characters:
    """The union of ranges in any order."""
    found = list[tuple[int, int]]()
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(found[-1][1], last)
        else:
            found.append((first, last))
    return tuple(found)


def all_but(excluded: Characters) -> Characters:
    """The complement of a set of characters."""
    edges = [-1, *(edge for pair in excluded for edge in pair), 0x110000]
    gaps = [(edges[i] + 1, edges[i + 1] - 1) for i in range(0, len(edges), 2)]
    found = list[tuple[int, int]]()
    for first, last in gaps:
        found += [(first, min(last, 0xD7FF)), (max(first, 0xE000), last)]
    return tuple((first, last) for first, last in found if first <= last)


def letters(text: str) -> Characters:
    """The set of a text's characters."""
    return characters((ord(one), ord(one)) for one in text)


ALL = all_but(())


def _spellings(first: int, last: int) -> list[list[tuple[int, int]]]:
    """How a JSON string spells a range of characters: sequences of byte ranges."""
    escaped = next((one for one in (*range(0x20), 0x22, 0x5C) if first <= one <= last), None)
    if escaped is not None:
        text = json.dumps(chr(escaped))[1:-1].encode()
        found = [[(byte, byte) for byte in text]]
        for start, end in ((first, escaped - 1), (escaped + 1, last)):
            found += _spellings(start, end) if start <= end else []
        return found
    for edge in (0x7F, 0x7FF, 0xFFFF):
        if first <= edge < last:
            return _spellings(first, edge) + _spellings(edge + 1, last)
    # Split until each part is a product of byte ranges, one for each byte.
    for bits in (6, 12, 18):
        rest = (1 << bits) - 1
        if last > 0x7F and first | rest != last | rest:
            if first & rest:
                return _spellings(first, first | rest) + _spellings((first | rest) + 1, last)
            if last & rest != rest:
                return _spellings(first, (last & ~rest) - 1) + _spellings(last & ~rest, last)
    return [list(zip(chr(first).encode(), chr(last).encode(), strict=True))]


@lru_cache(256)
def table_of(characters: Characters) -> Table:
    """The table of one character of a set."""
    rows = list[dict[int, int]]()
    known = dict[tuple[tuple[tuple[int, int], ...], ...], int]()

    def row_of(spellings: tuple[tuple[tuple[int, int], ...], ...]) -> int:
        if spellings not in known:
            known[spellings] = len(rows)
            rows.append({})
            row = rows[known[spellings]]
            for (least, most), alike in groupby(spellings, key=lambda one: one[0]):
                rests = tuple(one[1:] for one in alike)
                row |= dict.fromkeys(range(least, most + 1), row_of(rests) if rests[0] else DONE)
        return known[spellings]

    row_of(tuple(sorted(tuple(one) for pair in characters for one in _spellings(*pair))))
    return Table(rows)


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
        case Automaton():
            return list(dict.fromkeys(table for moves in node.tables for table, _ in moves))
    return []


def fixed_point(
    nodes: Sequence[Node], of: Callable[[Node, Known], list[float]]
) -> dict[Node, list[float]]:
    """The values `of(node, values of its parts)`, iterated until none changes."""
    found = {node: [inf] for node in nodes}
    # A changed value affects the node itself and the nodes that contain it.
    affected = {node: {node} for node in nodes}
    for node in nodes:
        for part in _within(node):
            affected[part].add(node)
    todo, waiting = deque(nodes), set(nodes)
    while todo:
        node = todo.popleft()
        waiting.remove(node)
        value = of(node, found)
        if value != found[node]:
            found[node] = value
            again = [one for one in affected[node] if one not in waiting]
            todo.extend(again)
            waiting.update(again)
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
