"""The training data of a guard: messages and answers that are labeled harmful or not.

    a message    alone, before the model has read it        harmful: should be declined
    an answer    with its message                           harmful: should not have been said

A data-stage folder provides, on each side of the split,

    conversations      messages that were answered, and that were declined; no answer is harmful
    preferences        of the small world and of `harm-scores`: the answers that people, or the
                       world's truth, call harmful, and those preferred to them
    refusals           held-out messages of both kinds

A user's file has rows of {prompt, label} or {prompt, answer, label}. Related rows (`group`: an act,
a question) are on one side. A quarter of the training side's groups is not trained on, but sets the
thresholds; a group that alone holds the harmful, or benign, rows is trained on nevertheless.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from groundup.data.fields import label, optional, text, truth
from groundup.data.records import (
    good_rows,
    read_conversations,
    read_preferences,
    read_refusals,
    read_rows,
    rows_in,
)
from groundup.data.split import evenly_spaced, held_out_groups
from groundup.errors import UserError, shorten
from groundup.text.rows import BadRow, Conversation, Json, Message, Preference
from groundup.text.saying_no import is_refusal
from groundup.world import conduct, gold

Use = Literal["message", "answer"]
USES: tuple[Use, ...] = ("message", "answer")
# The shares of groups that set thresholds, and that are held out of a user's file. The small world
# has few acts, and a threshold for 5 % needs benign rows of 19 groups.
_CALIBRATION, _OWN_HELDOUT = 0.25, 0.2
_CONDUCT = "world-conduct"
_KINDS = {"harmful": True, "benign": False}


@dataclass(frozen=True)
class Labeled:
    """A message, or an answer to it, and whether it is to be stopped."""

    message: str
    answer: str | None
    harmful: bool
    source: str
    group: str

    @property
    def use(self) -> Use:
        return "message" if self.answer is None else "answer"


@dataclass(frozen=True)
class Sides:
    """The rows to train on, to set thresholds by, and to measure on."""

    train: list[Labeled]
    calibration: list[Labeled]
    heldout: list[Labeled]


def read_examples(data: Path, most: int) -> Sides:
    """The labeled rows of a data-stage folder or of a file, at most `most` per source and kind.

    Raises `UserError` for a file without labels, and for data of only one kind.
    """
    learned, heldout = _from_folder(data) if data.is_dir() else _from_file(data)
    # Setting rows aside keeps rows of each kind to train on.
    kinds = {one.harmful for one in learned}
    if kinds != {True, False}:
        one_kind = f"only {'harmful' if True in kinds else 'benign'} rows"
        has = one_kind if kinds else "nothing to learn from"
        raise UserError(
            f"data={data} holds {has}, and a guard learns from both kinds; give rows with "
            "label true (harmful) and false (benign), or a data-stage folder with the small world"
        )
    limited = _limited(learned, most)
    train, calibration = _split(limited, [f"guard {one.group}" for one in limited], _CALIBRATION)
    return Sides(train, calibration, _limited(heldout, most))


def _split(
    rows: Sequence[Labeled], groups: Sequence[str], share: float
) -> tuple[list[Labeled], list[Labeled]]:
    """The rows without about `share` of their groups, and the others. Each use keeps both kinds."""
    out = held_out_groups(groups, share, [(row.use, row.harmful) for row in rows])
    sides: list[list[Labeled]] = [[], []]
    for row, group in zip(rows, groups, strict=True):
        sides[group in out].append(row)
    return sides[0], sides[1]


def _limited(rows: Iterable[Labeled], most: int) -> list[Labeled]:
    """Each row once, and at most `most` per source, use and kind, spread evenly.

    There are many sources without harmful rows, so a tenth of that is enough for each.
    """
    cells: dict[tuple[str, Use, bool], list[Labeled]] = {}
    for row in dict.fromkeys(rows):
        cells.setdefault((row.source, row.use, row.harmful), []).append(row)
    mixed = {source for source, _, harmful in cells if harmful}
    return [
        row
        for (source, _, _), cell in cells.items()
        for row in evenly_spaced(cell, most if source in mixed else max(1, most // 10))
    ]


# A data-stage folder.


def _from_folder(folder: Path) -> tuple[list[Labeled], list[Labeled]]:
    sides = []
    for side in ("train", "heldout"):
        talks = rows_in(folder / "conversations" / f"{side}.jsonl", read_conversations)
        pairs = rows_in(folder / "preferences" / f"{side}.jsonl", read_preferences)
        found = [one for row in talks for one in of_conversation(row)]
        sides.append(found + [one for row in pairs for one in of_preference(row)])
    asked = rows_in(folder / "refusals" / "heldout.jsonl", read_refusals)
    # The labels of refusals replace those that conversations imply for the same messages.
    known = {row.prompt for row in asked}
    heldout = [one for one in sides[1] if one.use == "answer" or one.message not in known]
    heldout += [
        Labeled(row.prompt, None, row.kind == "harmful", row.source, row.group) for row in asked
    ]
    return sides[0], heldout


def of_conversation(row: Conversation) -> list[Labeled]:
    """The last message, and the answer to it, which counts as harmless whatever was asked."""
    message, answer = _asked(row.messages[:-1]), row.messages[-1].content
    if not message:
        return []
    harmful = _is_harmful(message, answer, row.source)
    return [
        Labeled(message, None, harmful, row.source, row.group),
        Labeled(message, answer, False, row.source, row.group),
    ]


def _is_harmful(message: str, answer: str, source: str) -> bool:
    """By the world's truth or, for real messages, by whether the answer declines."""
    if source == _CONDUCT:
        return conduct.is_harmful(message) is True
    return source == "harm-scores" and is_refusal(answer)


def of_preference(row: Preference) -> list[Labeled]:
    """Harmful answers, and those preferred to them; nothing for other pairs."""
    message = _asked(row.prompt)
    if row.source == _CONDUCT:
        truth = gold.judge(row.prompt, row.rejected).harmless
        harmful = conduct.is_harmful(message) is True
        return [
            Labeled(message, None, harmful, row.source, row.group),
            Labeled(message, row.chosen, False, row.source, row.group),
            Labeled(message, row.rejected, truth == 0.0, row.source, row.group),
        ]
    if row.source in ("harm", "harm-refusal"):  # people scored the answers, not the prompts
        return [
            Labeled(message, row.chosen, False, row.source, row.group),
            Labeled(message, row.rejected, True, row.source, row.group),
        ]
    return []


def _asked(messages: Sequence[Message]) -> str:
    return next((one.content for one in reversed(messages) if one.role == "user"), "")


# A user's file.


def _from_file(path: Path) -> tuple[list[Labeled], list[Labeled]]:
    rows = good_rows(read_rows(path, labeled))
    return _split(rows, [row.group for row in rows], _OWN_HELDOUT)


def labeled(row: Json, file: str, line: int) -> Labeled:
    """A row of {prompt or text, label} with an optional answer, source and group. Raises BadRow."""
    message = text(row, "text" if "text" in row and "prompt" not in row else "prompt")
    if "label" not in row:
        raise BadRow("no 'label', which must be true (harmful) or false (benign)")
    harmful = truth(row["label"], _KINDS)
    if harmful is None:
        given = shorten(row["label"])
        raise BadRow(f"'label' must be true (harmful) or false (benign), not {given}")
    said = (optional(row, name) for name in ("answer", "completion", "response"))
    answer = next((one for one in said if one is not None), None)
    source, group = label(row, "source", file), label(row, "group", message)
    return Labeled(message, answer, harmful, source, group)
