"""Places where a text can be cut so that its parts have the same tokens as the whole.

A text is tokenized in pieces: control tokens that the caller allowed are separate, and the text
between them is split into pre-tokens, which no token crosses. So a stream of any length can be
encoded piece by piece: once a split point is known that later text cannot change, the part before
it can be encoded. A split point depends only on a few following characters (an apostrophe and two
letters), except in runs of blanks and digits, which may be treated as a whole: no cut is made
behind a blank or between two digits.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TypeVar

Boundaries = Callable[[str], Iterable[int]]
"""The split points of a text, ascending."""

# Characters collected before some are encoded. Fewer would cost more calls; more would not help.
CHUNK = 4096
# More than the look-ahead of any split pattern.
_MARGIN = 16

Piece = tuple[str, bool]
"""A text, and whether it is a control token."""

M = TypeVar("M")


def pieces(text: str, specials: Collection[str]) -> Iterator[Piece]:
    """Split the text at `specials`; of two that begin at the same place the longer counts."""
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
    """The pieces of all texts joined, of about `CHUNK` characters, each as soon as it is certain.

    Boundaries are certain if they lie `margin` characters and some more before the end of the known
    text. Holds that much text plus the longest stretch without a boundary.
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
        # A longer one could begin at the same place, and its end may not be here yet.
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
        wanted = max(CHUNK, 2 * size)  # doubled, so that long texts are not rescanned often
    yield from pieces("".join(parts), specials)


def without_taken_blanks(
    parts: Iterable[tuple[str, bool, M]], taking: Mapping[str, tuple[bool, bool]]
) -> Iterator[tuple[str, bool, M]]:
    """The pieces, with a mark each, without the blanks that control tokens absorb: `taking` maps
    tokens to whether they absorb blanks before and after themselves (`lstrip` and `rstrip` of
    tokenizer.json)."""
    # The last text and the blanks after it, and whether a control token absorbs what follows.
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
    return next((place for place in reversed(below) if _can_cut(text, place)), 0)


def _can_cut(text: str, place: int) -> bool:
    if not 0 < place < len(text):
        return False
    before, after = text[place - 1], text[place]
    return not (
        before.isspace()
        or (before.isnumeric() and after.isnumeric())
        or unicodedata.combining(after)
    )
