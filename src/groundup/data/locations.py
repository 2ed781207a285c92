"""Where data of one's own lies, and how each place is read; sides and names are `own_data`'s."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from groundup.data.config import DataConfig
from groundup.data.corpus import cut
from groundup.data.csv_files import CSV_SUFFIXES
from groundup.data.hub import pull_dataset
from groundup.data.layouts import KNOWN, UNKNOWN, conversation_or_document, renamed
from groundup.data.leaks import without_leaks
from groundup.data.packs.manifest import find_set
from groundup.data.packs.rows import Rejected, gather
from groundup.data.records import (
    Records,
    read_conversations,
    read_documents,
    read_rows,
    refuse_bad,
    split,
)
from groundup.data.row_files import ROW_SUFFIXES, TEXT_SUFFIXES, check_there, read_text
from groundup.errors import UserError
from groundup.runs.console import say
from groundup.text.rows import BadLine, Conversation, Document, Json

PACK, HUB = "pack:", "hub:"
SUFFIXES = (*ROW_SUFFIXES, *TEXT_SUFFIXES)
# Files that tell about a data set and are none of it.
_ABOUT = re.compile(r"readme|licen[sc]e|dataset_infos?|dataset_dict|state", re.IGNORECASE)
# What the hub and others call the files of each side, whole words of a path.
_TRAIN = {"train", "training"}
_VALIDATION, _TEST = {"validation", "valid", "val", "dev", "heldout"}, {"test", "testing", "eval"}

Row = Conversation | Document


@dataclass(frozen=True)
class Part:
    """A source's rows. `heldout` is None where they come without a split."""

    train: Sequence[Row]
    heldout: Sequence[Row] | None = None
    bad: Sequence[BadLine] = ()


class Reader:
    """Reads sources, and remembers which columns their files had.

    `columns` maps our names of columns to the files' own. Unless `refuse` is False, files with too
    many bad lines raise UserError.
    """

    def __init__(self, columns: Mapping[str, str], refuse: bool) -> None:
        self.columns, self.refuse = columns, refuse
        self._seen: dict[str, None] = {}

    def read(self, source: str) -> Part:
        """One source. Raises UserError for what is not there or cannot be read."""
        if source.startswith(PACK):
            return _pack(source.removeprefix(PACK))
        if source.startswith(HUB):
            return self._folder(pull_dataset(source.removeprefix(HUB)), source)
        path = Path(source)
        check_there(path)
        if is_stage(path):
            return _stage(path)
        return self._folder(path, source) if path.is_dir() else self._files([path])

    def check_columns_were_there(self) -> None:
        """Raises UserError for a mapping to a column that no file had."""
        for ours, theirs in self.columns.items():
            if theirs not in self._seen:
                near = difflib.get_close_matches(theirs, self._seen, n=1)
                known = f"did you mean {near[0]!r}? There are" if near else "there are"
                raise UserError(
                    f"--columns {ours}={theirs}: no row has a column {theirs!r}; {known}: "
                    f"{', '.join(self._seen) or 'none'}"
                )

    def _folder(self, folder: Path, source: str) -> Part:
        """All files in it; where some are called train, those and the held-out ones beside them.

        A test set is left alone where there is a validation set: it is to be seen once, at the end.
        """
        files = _files(folder, source)
        words = {path: set(re.findall("[a-z]+", _inside(path, folder).lower())) for path in files}
        train = [path for path in files if words[path] & _TRAIN]
        for names in (_VALIDATION, _TEST):
            heldout = [path for path in files if words[path] & names and path not in train]
            if train and heldout:
                one, other = self._files(train), self._files(heldout)
                return Part(one.train, other.train, [*one.bad, *other.bad])
        return self._files(train or files)

    def _files(self, paths: Sequence[Path]) -> Part:
        rows: list[Row] = []
        bad: list[BadLine] = []
        for path in paths:
            if path.suffix in TEXT_SUFFIXES:
                pieces = enumerate(cut(read_text(path)))
                rows += [Document(piece, path.stem, f"{path.name}#{n}") for n, piece in pieces]
            elif path.suffix in ROW_SUFFIXES:
                found = self._rows(path)
                rows += found.rows
                bad += found.bad
            else:
                raise UserError(
                    f"{str(path)!r} ends in {path.suffix!r}; data is read from "
                    f"{', '.join(SUFFIXES)}, folders of such files, pack:NAME and hub:OWNER/NAME"
                )
        return Part(rows, None, bad)

    def _rows(self, path: Path) -> Records[Row]:
        here: dict[str, None] = {}

        def parse(row: Json, file: str, line: int) -> Row:
            here.update(dict.fromkeys(row))
            return conversation_or_document(renamed(row, self.columns), file, line)

        found: Records[Row] = read_rows(path, parse, refuse=False)
        self._seen |= here
        if self.refuse:
            if not found.rows:
                self._explain(path, found.bad, here)
            refuse_bad(path, len(found.rows), found.bad)
        return found

    def _explain(self, path: Path, bad: Sequence[BadLine], columns: Mapping[str, None]) -> None:
        """Raises UserError where every line is bad because its columns are not understood."""
        self.check_columns_were_there()
        is_csv = path.suffix in CSV_SUFFIXES
        if all(line.reason.startswith(UNKNOWN) for line in bad):
            raise UserError(
                f"{str(path)!r} has the columns {', '.join(columns)}, and no layout that is known: "
                f"known are {KNOWN}; say which column is which with --columns, as in --columns "
                "prompt=question completion=answer"
                f"{'. A CSV file names its columns in its first line' * is_csv}"
            )


def _inside(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _files(folder: Path, source: str) -> list[Path]:
    """The data files in a folder and its folders, without hidden ones and what is about them."""
    inside = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in SUFFIXES and path.is_file() and "/." not in f"/{_inside(path, folder)}"
    )
    if not inside:
        raise UserError(
            f"{source!r} holds no {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file; give a folder "
            "of such files, one of them, or the folder of a data stage"
        )
    return [path for path in inside if not _ABOUT.fullmatch(path.stem)] or inside


def is_stage(path: Path) -> bool:
    """Whether a data stage wrote this folder."""
    return (path / "conversations" / "train.jsonl").is_file()


def _stage(folder: Path) -> Part:
    """A data stage's conversations, or its documents where it has no conversations."""
    if (folder / "conversations" / "train.jsonl").stat().st_size:
        train, heldout = split(folder, "conversations", read_conversations)
        return Part(train.rows, heldout.rows, train.bad + heldout.bad)
    texts, texts_heldout = split(folder, "documents", read_documents)
    return Part(texts.rows, texts_heldout.rows, texts.bad + texts_heldout.bad)


def _pack(name: str) -> Part:
    """A set's conversations, or its documents where it has no conversations, as the stage has them.

    What the stage has a model say of itself goes with every data folder and is left out here: it is
    true of a model that was trained from scratch, and not of one that somebody brings.
    """
    one = find_set(name)
    config = DataConfig(out=Path(), packs=(one.name,), world_megabytes=0, world_preferences=0)
    data, _ = without_leaks(gather(config, Rejected(), say))
    talks = [row for row in data.conversations if row.source != "own"]
    if talks or data.conversations_heldout:
        return Part(talks, data.conversations_heldout)
    return Part(data.documents, data.documents_heldout)
