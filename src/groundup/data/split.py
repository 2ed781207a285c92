"""Which files are a user's data, and which side a row is on: training or held out.

File names decide, if some are called train and others validation or test; else the hash of a row's
group does. So the split never depends on order, machine or seed: the same row is always on the same
side, and so are two answers to one question. Only if there are few questions do the other rows
matter, too, so that neither side is left almost empty. Every stage that reads a user's own data
follows these rules: a folder is the same data in pre-training and in fine-tuning.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import regex

from groundup.data.files import SUFFIXES, check_no_run, check_there, read_text, suffix_of
from groundup.data.packs.manifest import HUB
from groundup.data.records import Records
from groundup.errors import UserError
from groundup.runs.console import counted
from groundup.runs.content import runs_inside
from groundup.text.cleaning import normal_form, split_hash
from groundup.text.rows import (
    AnyRow,
    Choice,
    Conversation,
    Document,
    Preference,
    UnpairedPreference,
)
from groundup.train.ranges import check_text

# The default share of a user's own rows.
OWN_HELDOUT = 0.05
# Pieces of a long text: long enough for context, short enough to hold out a twentieth.
_PIECE_BYTES = 2048
_LONGEST_PIECE_BYTES = 8192
_LONGEST_CLUSTER = 64
# Files that describe a data set and do not belong to it.
_ABOUT = re.compile(
    r"(readme|licen[sc]e)(\.\w+)?|(dataset_infos?|dataset_dict|state)\.json", re.IGNORECASE
)
# Names of the files of each side, on the hub and elsewhere, as whole words of a path.
_TRAIN = {"train", "training"}
_VALIDATION, _TEST = {"validation", "valid", "val", "dev", "heldout"}, {"test", "testing", "eval"}
_LATIN_WORD = regex.compile(r"[\p{Latin}\p{M}]+")
# The folders of a data stage with rows to learn from.
_PARTS = ("conversations", "preferences", "documents")
# The number of file names to print; further ones are counted.
_NAMED = 3

T = TypeVar("T")
R = TypeVar("R", bound=AnyRow | UnpairedPreference)


# Files.


@dataclass(frozen=True)
class DataFiles:
    """The files of a source by their sides. `heldout` is empty if no names separate the sides.

    `remark` is a sentence about files of a folder that are not read; empty if there are none.
    """

    train: Sequence[Path]
    heldout: Sequence[Path] = ()
    remark: str = ""


def data_files(source: Path, name: str | None = None) -> DataFiles:
    """The data files at `source`: the file itself, or all in a folder and its subfolders.

    Hidden folders, folders of runs inside it, and files about the data (README.md, LICENSE.txt,
    dataset_infos.json) are ignored. If some files are called train and others validation or test,
    the former train and the latter are held out. A test set is ignored if there is a validation
    set: it should be used once, at the end. `name` is the source's name in messages. Raises
    UserError for a missing source and for a folder without data.
    """
    check_there(source)
    if not source.is_dir():
        return DataFiles((source,))
    name = name or str(source)
    runs = runs_inside(source)
    inside = sorted(
        path
        for path in source.rglob("*")
        if "/." not in f"/{_inside(path, source)}" and runs.isdisjoint(path.parents)
    )
    everything = [path for path in inside if path.is_file()]
    known = [path for path in everything if suffix_of(path) in SUFFIXES]
    data = [path for path in known if not _ABOUT.fullmatch(path.name) and path.stat().st_size]
    if not data and any(suffix_of(path) == ".arrow" for path in everything):
        raise UserError(
            f"{name!r} holds Arrow files, as written by save_to_disk of the package datasets; "
            "write the data with its to_parquet or to_json, and give that file"
        )
    data = data or known
    if not data:
        raise UserError(
            f"{name!r} holds no {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file; give a folder "
            "of such files, one of them, or the folder of a data stage"
        )
    for path in data:  # names are sources, which rows and reports write in UTF-8
        check_text(f"the name of {str(path)!a}", path)
    train, heldout = _files_by_side(data, source)
    read = {*train, *heldout}
    left = [path for path in everything if path not in read and not _ABOUT.fullmatch(path.name)]
    names = [_inside(path, source) for path in left]
    # A link may lead back here in a cycle.
    links = [path for path in inside if path.is_dir() and path.is_symlink()]
    names += [f"{_inside(path, source)} (a link to a folder)" for path in links]
    return DataFiles(train, heldout, _unread_remark(names, name))


def on_disk(source: Path | str) -> Path:
    """The folder of a data set hub:owner/name, downloaded if needed; any other path as it is."""
    name = source if isinstance(source, str) else source.as_posix()
    if not name.startswith(HUB):
        return Path(source)
    from groundup.data.hub import pull_dataset  # late: only such sources need it

    return pull_dataset(name.removeprefix(HUB))


def _files_by_side(data: Sequence[Path], folder: Path) -> tuple[Sequence[Path], Sequence[Path]]:
    words = {path: _words_of_name(_inside(path, folder)) for path in data}
    train = [path for path in data if words[path] & _TRAIN]
    for names in (_VALIDATION, _TEST):
        heldout = [path for path in data if words[path] & names and path not in train]
        if train and heldout:
            return train, heldout
    return data, ()


def _words_of_name(name: str) -> set[str]:
    """The words of a file's name in Latin letters: `médiéval` is one, and `test数据` has `test`."""
    return set(_LATIN_WORD.findall(unicodedata.normalize("NFC", name).lower()))


def _unread_remark(names: Sequence[str], folder: str) -> str:
    if not names:
        return ""
    some = ", ".join(names[:_NAMED]) + ", …" * (len(names) > _NAMED)
    return f"{folder}: {counted(len(names), 'file')} not read: {some}"


def _inside(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


# Rows.


def content(row: AnyRow | UnpairedPreference) -> Hashable:
    """Returns a row's content without its source: rows of equal content are duplicates."""
    if isinstance(row, Document):
        return row.text
    if isinstance(row, Conversation):
        return row.messages
    if isinstance(row, Preference):
        return row.prompt, row.chosen, row.rejected
    if isinstance(row, UnpairedPreference):
        return row.prompt, row.completion, row.label
    return (row.prompt, row.options) if isinstance(row, Choice) else row.prompt


@dataclass(frozen=True)
class Sides(Generic[R]):
    """The training and the held-out rows, and a remark about the split."""

    train: list[R]
    heldout: list[R]
    remark: str = ""


def hold_out(rows: Sequence[R], share: float) -> Sides[R]:
    """Hold out about `share` of the rows with `held_out_groups`; both sides keep the rows' order.

    Share 0 holds nothing out. Texts of the same words are on one side. Documents and conversations
    that are all of one group are split individually, so that there is something to measure; pairs
    and labels are not, because one pair contains the answer of another. Each label keeps a group to
    train on. The remark reports if nothing is held out all the same, or more than twice the share.
    """
    if share <= 0:
        return Sides(list(rows), [])
    groups = [normal_form(row.text) if isinstance(row, Document) else row.group for row in rows]
    alone = len(set(groups)) < 2
    if alone and not any(isinstance(row, Preference | UnpairedPreference) for row in rows):
        groups = [repr(content(row)) for row in rows]
    labels = [row.label if isinstance(row, UnpairedPreference) else None for row in rows]
    out = held_out_groups(groups, share, labels)
    train = [row for row, group in zip(rows, groups, strict=True) if group not in out]
    heldout = [row for row, group in zip(rows, groups, strict=True) if group in out]
    remark = ""
    if len(heldout) > max(1, 2 * share * len(rows)):
        remark = (
            f"{len(heldout):,} of {len(rows):,} rows are held out, because rows of one prompt or "
            f"group stay together, and there are only {len(set(groups)):,} of these; give rows of "
            f"more prompts to hold out about {share:.0%}"
        )
    elif rows and not heldout:
        why = "all are of one prompt or group" if alone else "each label has few prompts or groups"
        remark = f"no row is held out to measure on, because {why}; give rows of more prompts"
    return Sides(train, heldout, remark)


def held_out_groups(
    groups: Sequence[str], share: float, kinds: Sequence[Hashable] | None = None
) -> set[str]:
    """The groups whose hashes are below `share`, where `groups` gives the group of each row.

    A group with more than a tenth of all rows, and more than twice the share, is not held out, so
    that one hash cannot decide about most of the data. At least one group is: the one with the
    lowest hash among those with up to a tenth of the rows, else the smallest, with up to half of
    them. But each of the `kinds` of rows keeps a group to train on, so nothing is held out of a
    kind with a single group.
    """
    sizes = Counter(groups)
    # The smallest group is never too large: a single row, or a single pair with its two answers.
    large = max(min(sizes.values(), default=0), 2 * OWN_HELDOUT * len(groups))
    most = max(large, 2 * share * len(groups))
    hashes = {group: split_hash(group) for group in sizes}
    pairs = set(zip(groups, kinds or [None] * len(groups), strict=True))
    left = Counter(kind for _, kind in pairs)
    kinds_of: dict[str, list[Hashable]] = {}
    for group, kind in pairs:
        kinds_of.setdefault(group, []).append(kind)
    out: set[str] = set()
    for group in sorted(sizes, key=lambda group: (max(sizes[group], large), hashes[group])):
        first = not out and 2 * sizes[group] <= len(groups)
        wanted = first or (hashes[group] < share and sizes[group] <= most)
        if wanted and all(left[kind] > 1 for kind in kinds_of[group]):
            out.add(group)
            left.subtract(kinds_of[group])
    return out


def split(
    data: Path, kind: str, read: Callable[[Path], Records[R]]
) -> tuple[Records[R], Records[R]]:
    """The training and held-out rows of a data-stage folder's `kind`, or of a user's file, folder
    of files or hub:owner/name.

    If the files of a folder are not named as train and validation or test, about every twentieth
    row is held out, by its hash. Duplicates of `distinct` rows are removed, and training rows that
    are held out. The remark counts them, and reports a share far from a twentieth; bad lines and
    unread columns of both sides are the training side's.
    """
    name, data = str(data), on_disk(data)
    if (train := data / kind / "train.jsonl").is_file():
        check_no_run(data)
        heldout = data / kind / "heldout.jsonl"
        # A set may have nothing of a kind to hold out; its file is then empty.
        is_empty = heldout.is_file() and not heldout.stat().st_size
        nothing: Records[R] = Records((), ())
        return read(train), nothing if is_empty else read(heldout)
    if data.is_dir():
        check_no_run(data)
        if is_data_stage(data):
            raise UserError(
                f"{name!r} has no {kind}/train.jsonl, which this stage reads; give a folder of "
                "groundup data that has it, or files of rows"
            )
    files = data_files(data, name)
    whole, held = (
        _together([read(path) for path in side]) for side in (files.train, files.heldout)
    )
    remarks = [files.remark, whole.remark, held.remark]
    known = set(map(content, held.rows))
    rows = tuple(row for row in whole.rows if content(row) not in known)
    heldout_rows = held.rows
    if whole.distinct and held.distinct:
        rows, heldout_rows = (tuple(_distinct(side).values()) for side in (rows, held.rows))
    if again := len(whole.rows) + len(held.rows) - len(rows) - len(heldout_rows):
        remarks.append(f"{name}: {counted(again, 'duplicate')} removed")
    if not files.heldout:
        sides = hold_out(rows, OWN_HELDOUT)
        rows, heldout_rows = tuple(sides.train), tuple(sides.heldout)
        if sides.remark:
            remarks.append(f"{name}: {sides.remark}")
    unread = dict.fromkeys((*whole.unread, *held.unread))
    remark = "\n".join(filter(None, remarks))
    train_side = Records(rows, whole.bad + held.bad, remark, whole.distinct, tuple(unread))
    return train_side, replace(held, rows=heldout_rows)


def is_data_stage(folder: Path) -> bool:
    """Whether a folder has the parts of a data stage, and not somebody else's files."""
    return any((folder / part / "train.jsonl").is_file() for part in _PARTS)


def _distinct(rows: Iterable[R]) -> dict[Hashable, R]:
    """The rows by their contents, the first of equal ones."""
    found: dict[Hashable, R] = {}
    for row in rows:
        found.setdefault(content(row), row)
    return found


def _together(parts: Sequence[Records[R]]) -> Records[R]:
    """The records of several files."""
    return Records(
        tuple(row for part in parts for row in part.rows),
        tuple(line for part in parts for line in part.bad),
        "\n".join(part.remark for part in parts if part.remark),
        distinct=all(part.distinct for part in parts),
        unread=tuple(dict.fromkeys(name for part in parts for name in part.unread)),
    )


# Texts.


def text_documents(path: Path) -> list[Document]:
    """A text file, split at blank lines into documents of 2 to 8 KB. Raises UserError like
    `read_text`."""
    pieces = enumerate(cut(read_text(path)))
    return [Document(piece, path.stem, f"{path.name}#{n}") for n, piece in pieces]


def cut(text: str) -> list[str]:
    """Split a text at blank lines into pieces of 2 to 8 KB; a small text into about ten.

    A paragraph of more than 8 KB is split at lines, else at spaces, else after sentences of scripts
    without spaces, else between any two grapheme clusters. Of several consecutive blank lines one
    is kept.
    """
    goal = min(_PIECE_BYTES, max(1, len(text.encode()) // 10))
    pieces: list[str] = []
    current, size = "", 0
    for paragraph in text.split("\n\n"):
        for place, (blanks, part) in enumerate(_short_enough(paragraph.strip("\n"))):
            length = len((blanks + part).encode())
            if current and size + length > _LONGEST_PIECE_BYTES:
                pieces.append(current)
                current, size = "", 0
            between = blanks if place else "\n\n"
            current += between + part if current else part
            size += length
            if size >= goal:
                pieces.append(current)
                current, size = "", 0
    if current:
        pieces.append(current)
    return [piece for piece in pieces if piece.strip()]


def _short_enough(paragraph: str) -> list[tuple[str, str]]:
    """The parts of a paragraph, each with the blanks before it."""
    parts = []
    blanks = ""
    # A character is at most four bytes, so a part of this many characters always fits.
    limit = _LONGEST_PIECE_BYTES // 4
    start, left = 0, len(paragraph.encode())
    while left > _LONGEST_PIECE_BYTES:
        end = _part_end(paragraph, start, start + limit)
        parts.append((blanks, paragraph[start:end]))
        left -= len(paragraph[start:end].encode())
        start = end
        while paragraph[start : start + 1] in ("\n", " "):
            start, left = start + 1, left - 1
        # Leading blanks of a line belong to it, as in code.
        line = paragraph.rfind("\n", end, start) + 1
        if line and start < len(paragraph):
            start, left = line, left + start - line
        blanks = paragraph[end:start]
    return [*parts, (blanks, paragraph[start:])] if start < len(paragraph) else parts


def _part_end(paragraph: str, start: int, most: int) -> int:
    # The end of a part is never before its first character, or the part would be empty.
    for blank in ("\n", " "):
        if (end := paragraph.rfind(blank, start + 1, most)) > 0:
            return end
    if (end := max(paragraph.rfind(stop, start, most) for stop in "。！？") + 1) > 0:
        while end < most and paragraph[end] in "」』”’）】":
            end += 1
        return end
    # A letter with its signs, a flag, a composed emoji: real clusters are not longer.
    clusters = regex.finditer(r"\X", paragraph, pos=start, endpos=most + _LONGEST_CLUSTER)
    ends = [found.end() for found in clusters if found.end() <= most]
    return ends[-1] if ends else most


def evenly_spaced(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of the items, evenly spaced, because files are ordered by source."""
    count = min(most, len(items))
    return [items[place * len(items) // count] for place in range(count)]
