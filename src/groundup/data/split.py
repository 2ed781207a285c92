"""Which side of one's own data a row is on: training or held out.

The hash of what a row shares with others decides, so that it never depends on order, machine or
seed: the same row is always on the same side, and so are two answers to one question.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from groundup.data.records import Records
from groundup.text.cleaning import split_hash
from groundup.text.rows import (
    AnyRow,
    Choice,
    Conversation,
    Document,
    Preference,
    UnpairedPreference,
)

# The share of a person's own rows, where nobody says another.
OWN_HELDOUT = 0.05
# Pieces of a long text: long enough for context, short enough that a twentieth can be held out.
_PIECE_BYTES = 2048
_LONGEST_PIECE_BYTES = 8192

R = TypeVar("R", bound=AnyRow | UnpairedPreference)


def content(row: AnyRow | UnpairedPreference) -> Hashable:
    """Returns all that a row says, without its source: rows of equal content are duplicates."""
    if isinstance(row, Document):
        return row.text
    if isinstance(row, Conversation):
        return row.messages
    if isinstance(row, Preference):
        return row.prompt, row.chosen, row.rejected
    if isinstance(row, UnpairedPreference):
        return row.prompt, row.completion, row.label
    return (row.prompt, row.options) if isinstance(row, Choice) else row.prompt


def hold_out(rows: Sequence[R], share: float) -> tuple[list[R], list[R]]:
    """The rows to train on and those held out, about `share` of them, each side in their order.

    At least one row is on each side as long as two differ; share 0 holds nothing out.
    """
    if share <= 0:
        return list(rows), []
    groups = [row.text if isinstance(row, Document) else row.group for row in rows]
    if len(set(groups)) < 2:
        # Everything answers one question: then the answers are told apart, or nothing could be.
        groups = [repr(content(row)) for row in rows]
    split_hashs = {group: split_hash(group) for group in groups}
    if len(split_hashs) < 2:
        return list(rows), []
    ordered = sorted(split_hashs, key=lambda group: split_hashs[group])
    count = sum(where < share for where in split_hashs.values())
    out = set(ordered[: min(max(count, 1), len(ordered) - 1)])
    train = [row for row, group in zip(rows, groups, strict=True) if group not in out]
    return train, [row for row, group in zip(rows, groups, strict=True) if group in out]


def split(
    data: Path, kind: str, read: Callable[[Path], Records[R]]
) -> tuple[Records[R], Records[R]]:
    """The training and held-out rows of a data-stage folder's `kind`, or of a file of one's own.

    Of a person's own file about every twentieth row is held out, by its hash.
    """
    if data.is_dir():
        heldout = data / kind / "heldout.jsonl"
        # A set may have nothing of a kind to hold out, and its file is then empty.
        is_empty = heldout.is_file() and not heldout.stat().st_size
        nothing: Records[R] = Records((), ())
        return read(data / kind / "train.jsonl"), nothing if is_empty else read(heldout)
    whole = read(data)
    train, out = hold_out(whole.rows, OWN_HELDOUT)
    return replace(whole, rows=tuple(train)), Records(tuple(out), ())


def cut(text: str) -> list[str]:
    """Cut a text at blank lines into pieces of 2 to 8 KB; a small text into about ten.

    A paragraph of more than 8 KB is cut at lines, else at spaces, else anywhere.
    """
    goal = min(_PIECE_BYTES, max(1, len(text.encode()) // 10))
    pieces: list[str] = []
    current: list[str] = []
    size = 0
    for paragraph in text.split("\n\n"):
        for part in _short_enough(paragraph.strip("\n")):
            length = len(part.encode())
            if current and size + length > _LONGEST_PIECE_BYTES:
                pieces.append("\n\n".join(current))
                current, size = [], 0
            current.append(part)
            size += length
            if size >= goal:
                pieces.append("\n\n".join(current))
                current, size = [], 0
    if current:
        pieces.append("\n\n".join(current))
    return [piece for piece in pieces if piece.strip()]


def _short_enough(paragraph: str) -> list[str]:
    parts = []
    # A character is at most four bytes, so a part of this many characters always fits.
    limit = _LONGEST_PIECE_BYTES // 4
    while len(paragraph.encode()) > _LONGEST_PIECE_BYTES:
        end = max(paragraph.rfind("\n", 1, limit), 0) or max(paragraph.rfind(" ", 1, limit), 0)
        end = end or limit
        parts.append(paragraph[:end])
        paragraph = paragraph[end:].lstrip("\n ")
    return [*parts, paragraph] if paragraph else parts
