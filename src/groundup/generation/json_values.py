"""Grammars of JSON values: strings, numbers, arrays and objects, of which `json_schema` is built.

`json.loads` reads every text that they match. Source: RFC 8259.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any, Final

from groundup.generation.grammar import (
    CHARACTER,
    DONE,
    Choice,
    Concatenation,
    Literal,
    Node,
    Repeat,
    Rule,
    Table,
)

DIGITS: Final = 15
"""The most digits of an integer: 15 digits are exact in float64, which most readers use, and Python
refuses numbers of thousands of digits. Exponents of two digits keep every number finite."""
# Limits blanks and digits, which a model could repeat forever. This many blanks indent deep
# objects, and this many digits are more than float64 keeps.
_MAX_REPEATS = 40


def _bytes(*some: str | Iterable[int]) -> Table:
    """One of these bytes."""
    found = [byte for one in some for byte in (one.encode() if isinstance(one, str) else one)]
    return Table([dict.fromkeys(found, DONE)])


def _literal(text: str) -> Literal:
    return Literal(text.encode())


def _optional(*parts: Node) -> Node:
    return Repeat(Concatenation(parts), 0, 1)


BLANKS = Repeat(_bytes(" \t\n\r"), 0, _MAX_REPEATS)
_DIGIT = _bytes("0123456789")


def _bracketed(opened: str, inner: Node) -> Rule:
    """An opening bracket, blanks, and `inner`, which ends with the closing bracket."""
    return Rule(nests=True, body=Concatenation([_literal(opened), BLANKS, inner]))


def quoted(characters: Node) -> Node:
    return Concatenation([_literal('"'), characters, _literal('"')])


def string_grammar(least: int = 0, most: int | None = None) -> Node:
    return quoted(Repeat(CHARACTER, least, most))


def object_grammar(
    members: Sequence[tuple[str, Node, bool]], least: int = 0, most: int | None = None
) -> Node:
    """The grammar of objects with `least` to `most` of these members in this order: name, value,
    whether required."""
    if least > len(members):
        return Choice(())
    is_limited = most is not None and most < len(members)
    top = most if most is not None and is_limited else max(least, 1)
    # What may follow, by the number of members so far. Without a maximum, numbers above `top` are
    # equivalent to it.
    rest: list[Node] = [_literal("}") if n >= least else Choice(()) for n in range(top + 1)]
    for name, value, is_required in reversed(members):
        parts: list[Node] = [spelled(name), BLANKS, _literal(":"), value, BLANKS]
        after, rest = rest, []
        for n, skipped in enumerate(after):
            comma: list[Node] = [_literal(","), BLANKS] if n else []
            taken = Concatenation([*comma, *parts, after[min(n + 1, top)]])
            options: list[Node] = [] if n == top and is_limited else [taken]
            options += [] if is_required else [skipped]
            rest.append(options[0] if len(options) == 1 else Choice(options))
    return _bracketed("{", rest[0])


def array_grammar(item: Node, least: int = 0, most: int | None = None) -> Node:
    return _bracketed("[", _separated(item, "]", least, most))


def _separated(item: Node, closed: str, least: int, most: int | None) -> Node:
    """Items with commas between them, and the closing bracket."""
    following = Concatenation([_literal(","), BLANKS, item, BLANKS])
    more = Repeat(following, max(least - 1, 0), None if most is None else most - 1)
    some = Concatenation([item, BLANKS, more, _literal(closed)])
    none = [_literal(closed)] if least == 0 else []
    return Choice([*none, *([some] if most != 0 else [])])


def tuple_grammar(first: Sequence[Node], item: Node, least: int, most: int | None) -> Node:
    """An array whose first items have grammars of their own."""
    rest = Repeat(
        Concatenation([_literal(","), BLANKS, item, BLANKS]),
        max(least - len(first), 0),
        None if most is None else max(most - len(first), 0),
    )
    found: Node = Concatenation([rest, _literal("]")])
    for place, one in reversed([*enumerate(first)]):
        comma: list[Node] = [_literal(","), BLANKS] if place else []
        more = [Concatenation([*comma, one, BLANKS, found])] if most is None or place < most else []
        found = Choice([*([_literal("]")] if place >= least else []), *more])
    return _bracketed("[", found)


def set_grammar(values: Sequence[Literal], least: int, most: int | None) -> Node:
    """An array of some of these values, each at most once."""
    rules = [Rule() for _ in range(1 << len(values))]
    for used, rule in enumerate(rules):
        count = used.bit_count()
        comma: list[Node] = [_literal(","), BLANKS] if used else []
        options = [
            Concatenation([*comma, value, BLANKS, rules[used | 1 << i]])
            for i, value in enumerate(values)
            if not used >> i & 1 and (most is None or count < most)
        ]
        rule.body = Choice([*([_literal("]")] if count >= least else []), *options])
    return _bracketed("[", rules[0])


def map_grammar(value: Node, name: Node, least: int = 0, most: int | None = None) -> Node:
    """An object whose members all have names and values of these grammars."""
    member = Concatenation([name, BLANKS, _literal(":"), BLANKS, value])
    return _bracketed("{", _separated(member, "}", least, most))


def spelled(value: object) -> Literal:
    return _literal(json.dumps(value, ensure_ascii=False))


def one_of(texts: Iterable[bytes]) -> Node:
    """One of several texts, which may have common prefixes."""
    options = list[Node]()
    for _, group in groupby(sorted(set(texts)), key=lambda text: text[:1]):
        alike = list(group)
        shared = _shared(alike)
        rests = [text[shared:] for text in alike]
        begun = Literal(alike[0][:shared])
        if len(alike) == 1:
            options.append(begun)
            continue
        if not rests[0]:
            options.append(begun)
            rests = rests[1:]
        options.append(Concatenation([begun, one_of(rests)]))
    return options[0] if len(options) == 1 else Choice(options)


def _shared(texts: Sequence[bytes]) -> int:
    """The length in bytes of the common prefix of sorted texts."""
    first, last = texts[0], texts[-1]
    return next((i for i, byte in enumerate(first) if byte != last[i]), len(first))


_INTEGER = Concatenation(
    [
        _optional(_literal("-")),
        Choice(
            [
                _literal("0"),
                Concatenation([_bytes("123456789"), Repeat(_DIGIT, 0, DIGITS - 1)]),
            ]
        ),
    ]
)
_NUMBER = Concatenation(
    [
        _INTEGER,
        _optional(_literal("."), Repeat(_DIGIT, 1, _MAX_REPEATS + 1)),
        _optional(_bytes("eE"), _optional(_bytes("+-")), Repeat(_DIGIT, 1, 2)),
    ]
)
_BOOLEAN, _NULL = Choice([_literal("true"), _literal("false")]), _literal("null")
ANY = Rule()
_ANY_STRING = string_grammar()
ANY.body = Choice(
    [map_grammar(ANY, _ANY_STRING), array_grammar(ANY), _ANY_STRING, _NUMBER, _BOOLEAN, _NULL]
)
SIMPLE: dict[str, Node] = {
    "number": _NUMBER,
    "integer": _INTEGER,
    "boolean": _BOOLEAN,
    "null": _NULL,
}
IS_TYPE: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: not isinstance(value, bool) and value in _whole(value),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}


def _whole(value: Any) -> list[int]:
    return [int(value)] if isinstance(value, int | float) else []
