"""Where a text may be cut so that its parts have the tokens of the whole.

A text becomes tokens in pieces: control tokens that the caller asked for stand alone, and what lies
between them is split into pre-tokens, which no token crosses. So a stream of any length is encoded
piece by piece: as soon as a place is known at which the tokenizer parts the text, whatever follows,
what stands before it can go. Which token a place belongs to hangs on little that follows (an
apostrophe and two letters), but for runs of blanks and digits, which may be looked at as a whole:
no cut is made behind a blank or between two digits.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TypeVar

Boundaries = Callable[[str], Iterable[int]]
"""The places in a text at which it is parted, ascending."""

# Letters that are collected before some are encoded. Fewer would spend more on calls, and more
# would bring nothing.
CHUNK = 4096
# More than any split pattern looks ahead.
_MARGIN = 16

Piece = tuple[str, bool]
"""A text, and whether it is a control token."""

M = TypeVar("M")


def pieces(text: str, specials: Collection[str]) -> Iterator[Piece]:
    """The text parted at `specials`; of two that begin at one place the longer is meant."""
    start = 0
    if pattern := _pattern(specials):
        for found in pattern.finditer(text):
            yield text[start : found.start()], False
            yield found.group(), True
            start = found.end()
    yield text[start:], False


def streamed_pieces(
    texts: Iterable[str], specials: Collection[str], boundaries: Boundaries, margin: int = 0
) -> Iterator[Piece]:
    """The pieces of all texts joined, of about `CHUNK` letters, as soon as each is sure.

    Boundaries are sure that lie `margin` letters and some before the end of what is known. Holds
    that much and the longest stretch without a boundary.
    """
    pattern, longest = _pattern(specials), max(map(len, specials), default=0)
    parts: list[str] = []
    size, wanted = 0, CHUNK
    for part in _slices(texts):
        parts.append(part)
        size += len(part)
        if size < wanted:
            continue
        text, start = "".join(parts), 0
        found = pattern.search(text) if pattern else None
        # A longer one could begin at the same place, and its end is not here yet.
        while found and found.start() + longest <= len(text):
            yield text[start : found.start()], False
            yield found.group(), True
            start = found.end()
            found = pattern.search(text, start) if pattern else None
        rest = text[start:]
        end = found.start() - start if found else len(rest)
        if cut := _last_cut(rest, end - max(_MARGIN, longest, margin), boundaries):
            yield rest[:cut], False
            rest = rest[cut:]
        parts, size = [rest], len(rest)
        wanted = max(CHUNK, 2 * size)  # doubled, or a text without a boundary is read ever again
    yield from pieces("".join(parts), specials)


def without_taken_blanks(
    parts: Iterable[tuple[str, bool, M]], taking: Mapping[str, tuple[bool, bool]]
) -> Iterator[tuple[str, bool, M]]:
    """The pieces, with a mark each, without the blanks that control tokens take in: `taking` says
    of some whether they do before and behind themselves (`lstrip` and `rstrip` of tokenizer.json).
    """
    # The last text and the blanks behind it, and whether a control token takes what follows.
    held, takes = list[tuple[str, bool, M]](), False
    for text, is_control, mark in parts:
        if is_control:
            before, takes = taking.get(text, (False, False))
            while before and held:
                last, _, its = held.pop()
                if last := last.rstrip():
                    held.append((last, False, its))
                    break
            yield from held
            yield text, True, mark
            held = []
            continue
        text = text.lstrip() if takes else text
        takes = takes and not text
        if text and not text.isspace():
            yield from held
            held = []
        if text:
            held.append((text, False, mark))
    yield from held


def _pattern(specials: Collection[str]) -> re.Pattern[str] | None:
    ordered = sorted(specials, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None


def _slices(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for start in range(0, len(text), CHUNK):
            yield text[start : start + CHUNK]


def _last_cut(text: str, limit: int, boundaries: Boundaries) -> int:
    """The last place up to `limit` where the text can be cut; 0 if there is none."""
    if limit <= 0:
        return 0
    below = [place for place in boundaries(text) if place <= limit]
    return next((place for place in reversed(below) if _is_sure(text, place)), 0)


def _is_sure(text: str, place: int) -> bool:
    if not 0 < place < len(text):
        return False
    before, after = text[place - 1], text[place]
    return not (
        before.isspace()
        or (before.isnumeric() and after.isnumeric())
        or unicodedata.combining(after)
    )
