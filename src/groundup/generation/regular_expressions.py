r"""Regular expressions as automata of the strings in which they match, for `pattern`.

    literals    a  .  \. \/ \- …  \t \n \r \f \v \0  \x41  \u0041  \u{1F600}
    classes     [a-z_]  [^a-z]  \d \w \s \D \W \S
    groups      (…)  (?:…)  (?<name>…)  (?P<name>…)      alternatives  a|b
    repeats     ?  *  +  {3}  {3,}  {3,5}, and the same lazily, which match the same strings
    anchors     ^  $  \A  \Z, anywhere; without them a pattern may match anywhere in the string

Look-around, backreferences, \b, flags and \p{…} are refused. A class holds only the characters that
it holds in every dialect (ECMAScript, Python, Rust): \d and \w hold ASCII alone, and so do \D, \W,
[^\d] and [^\w].

Source: json-schema.org/draft/2020-12, Validation, section 6.3.3; Thompson 1968 (a nondeterministic
automaton of an expression); Rabin and Scott 1959 (its determinization).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from groundup.errors import UserError
from groundup.generation.grammar import (
    ALL,
    Automaton,
    Characters,
    all_but,
    characters,
    letters,
)

# A short pattern may have very many states, and block all other requests: limits of the steps of
# one schema (some tenths of a second), of the positions in an expression and of its classes.
_MAX_STEPS: Final = 200_000
_MAX_POSITIONS, _MAX_RANGES = 20_000, 2_000

# Character classes.

_BEYOND_ASCII = ((0x80, 0xD7FF), (0xE000, 0x10FFFF))
_DIGITS = characters([(48, 57)])
_WORDS = characters([(48, 57), (65, 90), (95, 95), (97, 122)])
_BLANKS = letters("\t\n\v\f\r ")
# Blanks of one dialect or another.
_MAYBE_BLANKS = characters(
    [
        *(*_BLANKS, (0x1C, 0x1F), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A)),
        *((0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000)),
        (0xFEFF, 0xFEFF),
    ]
)
# For each class, what it holds in all dialects and what it holds in any.
_CLASSES = {
    "d": (_DIGITS, characters([*_DIGITS, *_BEYOND_ASCII])),
    "w": (_WORDS, characters([*_WORDS, *_BEYOND_ASCII])),
    "s": (_BLANKS, _MAYBE_BLANKS),
}
_CLASSES |= {
    name.upper(): (all_but(maybe), all_but(surely)) for name, (surely, maybe) in _CLASSES.items()
}
_DOT = all_but(letters("\n\r\u2028\u2029"))
_ESCAPES = {"t": 9, "n": 10, "r": 13, "f": 12, "v": 11, "0": 0}


# Expressions.


@dataclass(frozen=True)
class _Class:
    characters: Characters


@dataclass(frozen=True)
class _Anchor:
    at_end: bool


@dataclass(frozen=True)
class _Sequence:
    parts: Sequence[_Expression]


@dataclass(frozen=True)
class _Alternatives:
    options: Sequence[_Expression]


@dataclass(frozen=True)
class _Repeat:
    item: _Expression
    least: int
    most: int | None


_Expression = _Class | _Anchor | _Sequence | _Alternatives | _Repeat


class _Parser:
    def __init__(self, pattern: str) -> None:
        self._text, self._place = pattern, 0

    def parse(self) -> _Expression:
        found = self._alternatives()
        if self._place < len(self._text):
            raise self._fault("has an unmatched )")
        return found

    def _fault(self, what: str) -> UserError:
        return UserError(f"{what}, at character {min(self._place, len(self._text)) + 1}")

    def _accept(self, text: str) -> bool:
        accepts = self._text.startswith(text, self._place)
        self._place += len(text) if accepts else 0
        return accepts

    def _match(self, pattern: str) -> re.Match[str] | None:
        found = re.compile(pattern).match(self._text, self._place)
        self._place = self._place if found is None else found.end()
        return found

    def _next(self) -> str:
        if self._place == len(self._text):
            raise self._fault("ends too early")
        self._place += 1
        return self._text[self._place - 1]

    def _alternatives(self) -> _Expression:
        options = [self._sequence()]
        while self._accept("|"):
            options.append(self._sequence())
        return options[0] if len(options) == 1 else _Alternatives(options)

    def _sequence(self) -> _Expression:
        parts = list[_Expression]()
        while self._place < len(self._text) and self._text[self._place] not in "|)":
            parts.append(self._repeated(self._atom()))
        return parts[0] if len(parts) == 1 else _Sequence(parts)

    def _repeated(self, item: _Expression) -> _Expression:
        found = self._match(r"[*+?]|\{(\d{1,9})(?:(,)(\d{1,9})?)?\}")
        if found is None:
            return item
        self._accept("?")
        if self._match(r"[*+?]|\{\d"):
            raise self._fault("repeats a repeat; put brackets around the inner one")
        sign = found[0]
        if sign in "*+?":
            return _Repeat(item, int(sign == "+"), 1 if sign == "?" else None)
        least = int(found[1])
        most = least if found[2] is None else None if found[3] is None else int(found[3])
        if most is not None and most < least:
            raise self._fault(f"repeats at least {least} and at most {most} times")
        return _Repeat(item, least, most)

    def _atom(self) -> _Expression:
        letter = self._next()
        match letter:
            case "^" | "$":
                return _Anchor(letter == "$")
            case ".":
                return _Class(_DOT)
            case "[":
                return self._class()
            case "(":
                if self._match(r"\?(?!:|P?<[A-Za-z_]\w*>)"):
                    raise self._fault("has look-around or flags, which are not supported")
                self._match(r"\?(?::|P?<[A-Za-z_]\w*>)")
                found = self._alternatives()
                if not self._accept(")"):
                    raise self._fault("has an unmatched (")
                return found
            case "*" | "+" | "?":
                raise self._fault(f"has {letter} with nothing before it")
            case "{" if self._match(r"\d*,?\d*\}"):
                raise self._fault("has {…} with nothing to repeat; escape the bracket")
            case "\\":
                if self._match("[AZz]"):
                    return _Anchor(self._text[self._place - 1] != "A")
                return _Class(self._escape()[0])
        return _Class(((ord(letter), ord(letter)),))

    def _escape(self) -> tuple[Characters, Characters]:
        """The characters of an escape: in all dialects, and in any."""
        letter = self._next()
        if letter in _CLASSES:
            return _CLASSES[letter]
        code = _ESCAPES.get(letter)
        if letter in "xu":
            found = self._match(
                r"(?<=x)[0-9a-fA-F]{2}|(?<=u)[0-9a-fA-F]{4}|(?<=u)\{[0-9a-fA-F]{1,6}\}"
            )
            code = None if found is None else int(found[0].strip("{}"), 16)
        elif code is None and not (letter.isascii() and letter.isalnum()):
            code = ord(letter)
        if letter == "0" and self._match(r"\d"):
            code = None  # Some dialects read an octal number.
        if code is None or code > 0x10FFFF or 0xD800 <= code < 0xE000:
            raise self._fault(f"has \\{letter}, which is not supported")
        one = ((code, code),)
        return one, one

    def _class(self) -> _Expression:
        is_negated = self._accept("^")
        surely, maybe = list[tuple[int, int]](), list[tuple[int, int]]()
        if self._text.startswith("]", self._place):
            raise self._fault("has an empty class; write \\] for the bracket itself")
        while not self._accept("]"):
            first = self._class_part()
            if self._match(r"-(?!\])"):
                last = self._class_part()
                (start, begun), (ended, end) = first[0][0], last[0][-1]
                if start != begun or ended != end or len(first[0]) + len(last[0]) > 2:
                    raise self._fault("has a range between classes; escape the hyphen")
                if end < start:
                    raise self._fault("has a range that ends before it begins")
                # Leave out surrogates.
                between = [(start, min(end, 0xD7FF)), (max(start, 0xE000), end)]
                first = (tuple(pair for pair in between if pair[0] <= pair[1]),) * 2
            surely += first[0]
            maybe += first[1]
        return _Class(all_but(characters(maybe)) if is_negated else characters(surely))

    def _class_part(self) -> tuple[Characters, Characters]:
        # Rust reads sets of sets here, and Python warns that it will.
        if found := self._match(r"\[|&&|--|~~"):
            raise self._fault(
                f"has {found[0]} in a class, which dialects read differently; escape it"
            )
        letter = self._next()
        if letter == "\\":
            return (((8, 8),),) * 2 if self._accept("b") else self._escape()
        return (((ord(letter), ord(letter)),),) * 2


def _size(expression: _Expression) -> int:
    """The number of positions in an expression whose repeats are written out."""
    found = 1
    match expression:
        case _Sequence(parts) | _Alternatives(parts):
            found += sum(map(_size, parts))
        case _Repeat(item, least, most):
            found += 1 + (_size(item) + 1) * max(least if most is None else most, 1)
    return min(found, 10**9)


# From an expression to its automaton.

_START, _END = 0, 1


@dataclass(frozen=True)
class _Nondeterministic:
    """A nondeterministic automaton: for each place, its moves without a character and by one.

    A move without a character may be limited to the begin of the string (False) or to its end
    (True); None: unlimited.
    """

    free: list[list[tuple[int, bool | None]]] = field(default_factory=list)
    moves: list[list[tuple[Characters, int]]] = field(default_factory=list)

    def new(self) -> int:
        self.free.append([])
        self.moves.append([])
        return len(self.free) - 1

    def add(self, expression: _Expression, start: int, end: int) -> None:
        """Add an expression between two places."""
        match expression:
            case _Class(those):
                self.moves[start].append((those, end))
            case _Anchor(at_end):
                self.free[start].append((end, at_end))
            case _Alternatives(options):
                for one in options:
                    self.add(one, start, end)
            case _Sequence(parts):
                for part in parts:
                    following = self.new()
                    self.add(part, start, following)
                    start = following
                self.free[start].append((end, None))
            case _Repeat(item, least, most):
                for _ in range(least):
                    following = self.new()
                    self.add(item, start, following)
                    start = following
                if most is None:
                    again, after = self.new(), self.new()
                    self.free[start].append((again, None))
                    self.add(item, again, after)
                    self.free[after].append((again, None))
                    start = again
                for _ in range(0 if most is None else most - least):
                    self.free[start].append((end, None))
                    following = self.new()
                    self.add(item, start, following)
                    start = following
                self.free[start].append((end, None))

    def closure(self, places: Iterable[int], at: tuple[bool, ...]) -> frozenset[int]:
        """The places reached without a character; `at` says whether this is the begin, the end."""
        todo = list(places)
        found = set(todo)
        while todo:
            for place, when in self.free[todo.pop()]:
                if place not in found and (when is None or when in at):
                    found.add(place)
                    todo.append(place)
        return frozenset(found)

    def live(self) -> set[int]:
        """The places from which the end can be reached after the begin of the string."""
        before: list[set[int]] = [set() for _ in self.free]
        for place, (free, moves) in enumerate(zip(self.free, self.moves, strict=True)):
            for then in [then for then, when in free if when is not False] + [
                then for _, then in moves
            ]:
                before[then].add(place)
        found, todo = {_END}, [_END]
        while todo:
            more = before[todo.pop()] - found
            found |= more
            todo += more
        return found


class Patterns:
    """The automata of one schema's patterns, and the steps that are left for compiling it."""

    def __init__(self, steps: int = _MAX_STEPS) -> None:
        self._left = steps
        self._known = dict[str, Automaton]()

    def automaton(self, pattern: str) -> Automaton:
        """The automaton of the strings in which a pattern matches.

        Raises `UserError` for unsupported patterns, and for those that take too many steps.
        """
        if pattern not in self._known:
            self._known[pattern] = self._compile(pattern)
        return self._known[pattern]

    def spend(self, steps: int) -> None:
        """Raises `UserError` when no steps are left."""
        self._left -= steps
        if self._left < 0:
            raise UserError(
                "has, with the rest of the schema, too many states; make its patterns, bounds and "
                "combinations simpler, and repeated parts shorter"
            )

    def _compile(self, pattern: str) -> Automaton:
        expression = _Parser(pattern).parse()
        if _size(expression) > _MAX_POSITIONS:
            raise UserError(
                f"has {_size(expression):,} positions with its repeats; at most "
                f"{_MAX_POSITIONS:,} are supported"
            )
        automaton = _Nondeterministic()
        start, end = automaton.new(), automaton.new()
        body = automaton.new()
        # Any characters may precede and follow the match.
        automaton.moves[start].append((ALL, start))
        automaton.free[start].append((body, None))
        automaton.add(expression, body, end)
        return self._determinize(automaton)

    def _determinize(self, automaton: _Nondeterministic) -> Automaton:
        """The deterministic automaton, each of whose states is a set of places."""
        bit_of, ranges = _bits(automaton)
        states = list[list[tuple[Characters, int]]]()
        known, ends = dict[tuple[frozenset[int], bool], int](), set[int]()
        todo, live = list[frozenset[int]](), automaton.live()

        def state_of(before: Iterable[int], *, at_begin: bool = False) -> int | None:
            found = automaton.closure(before, (False,) if at_begin else ())
            self.spend(1 + len(found))
            if not at_begin and not (found := found & live):
                return None
            is_end = _END in automaton.closure(found, (False, True) if at_begin else (True,))
            # Once the pattern has matched, any characters may follow.
            key = (frozenset([_END]) if _END in found else found), is_end
            if key not in known:
                known[key] = len(known)
                ends.update([known[key]] if is_end else [])
                todo.append(frozenset() if key[0] == {_END} else key[0])
            return known[key]

        state_of([_START], at_begin=True)
        while len(states) < len(known):
            found = todo[len(states)]
            if not found:
                states.append([(ALL, len(states))])
                continue
            by_mask = dict[int, set[int]]()
            for place in found:
                for those, then in automaton.moves[place]:
                    by_mask.setdefault(bit_of[those], set()).add(then)
            groups = list[tuple[int, set[int]]]()
            for mask, thens in by_mask.items():
                self.spend(1 + sum(len(one) for _, one in groups))
                groups = _split(groups, mask, thens)
            leads = dict[int, int]()
            for mask, thens in groups:
                if (state := state_of(thens)) is not None:
                    leads[state] = leads.get(state, 0) | mask
            states.append([(_of_bits(mask, ranges), then) for then, mask in leads.items()])
        return Automaton(states, frozenset(ends))


def _split(
    groups: list[tuple[int, set[int]]], mask: int, more: set[int]
) -> list[tuple[int, set[int]]]:
    """Disjoint sets of characters with the places they lead to, after adding one more set."""
    found = list[tuple[int, set[int]]]()
    for one, thens in groups:
        for part, leads in ((one & mask, thens | more), (one & ~mask, thens)):
            found += [(part, leads)] if part else []
        mask &= ~one
    return [*found, (mask, more)] if mask else found


def _bits(automaton: _Nondeterministic) -> tuple[dict[Characters, int], list[tuple[int, int]]]:
    """Each set of characters as a bit mask, and the range of characters that each bit stands for.

    No set divides a range.
    """
    sets = list(dict.fromkeys(those for moves in automaton.moves for those, _ in moves))
    edges = sorted({edge for one in sets for first, last in one for edge in (first, last + 1)})
    if len(edges) > _MAX_RANGES:
        raise UserError(f"has classes of more than {_MAX_RANGES:,} ranges")
    ranges = [(first, last - 1) for first, last in pairwise(edges)]
    place = {first: i for i, (first, _) in enumerate(ranges)} | {0x110000: len(ranges)}
    found = dict[Characters, int]()
    for one in sets:
        found[one] = sum(
            (1 << place.get(last + 1, len(ranges))) - (1 << place[first]) for first, last in one
        )
    return found, ranges


def _of_bits(mask: int, ranges: Sequence[tuple[int, int]]) -> Characters:
    return characters(pair for i, pair in enumerate(ranges) if mask >> i & 1)
