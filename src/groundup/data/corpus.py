"""The documents for pre-training: those of a data stage, or a user's own texts, split.

A *document* is an independent text; models never attend from one to another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from groundup.data.files import ROW_SUFFIXES, check_no_run, suffix_of
from groundup.data.packs.manifest import made_from
from groundup.data.records import read_documents
from groundup.data.split import OWN_HELDOUT, data_files, hold_out, on_disk, text_documents
from groundup.errors import UserError
from groundup.runs.console import counted, say
from groundup.text.rows import BadLine, Document


@dataclass(frozen=True)
class Documents:
    """The two sides of a corpus, and what was set aside.

    `duplicates` is the number of repeated documents; `remark` lists the files of a folder that were
    not read.
    """

    train: tuple[Document, ...]
    heldout: tuple[Document, ...]
    bad: tuple[BadLine, ...] = ()
    duplicates: int = 0
    remark: str = ""

    def say_set_aside(self) -> None:
        """Print each bad line, and the counts of everything else set aside."""
        for line in self.bad:
            say(str(line))
        if self.remark:
            say(self.remark)
        for count, what, where in (
            (len(self.bad), "bad line", "set aside"),
            (self.duplicates, "duplicate", "taken out"),
        ):
            if count:
                say(f"  {counted(count, what)} {where}")


def documents(source: Path) -> Documents:
    """The documents at `source`, split.

    `source` is a data-stage folder (its own split is kept), a file of rows of {text} (.jsonl,
    .json, .ndjson, .csv, .tsv or .parquet), a text file (.txt, .md, or any other suffix), or a
    folder of such files or hub:owner/name, where `data_files` decides which are read and which are
    held out. A user's text is split at blank lines into pieces of 2 to 8 KB. If no file names
    separate the sides, about one document in twenty is held out, chosen by its hash, and each side
    gets at least one.
    Raises UserError for data that cannot be read.
    """
    name, source = str(source), on_disk(source)
    check_no_run(source)
    if (source / "documents" / "train.jsonl").is_file():
        train = read_documents(source / "documents" / "train.jsonl")
        heldout = read_documents(source / "documents" / "heldout.jsonl")
        return Documents(train.rows, heldout.rows, train.bad + heldout.bad)
    files = data_files(source, name)
    found, bad = _read(files.train)
    held, bad_held = _read(files.heldout)
    # A repeated text would count twice, and on both sides would reveal the held-out one.
    heldout_side = _distinct(held)
    known = {document.text for document in heldout_side}
    train_side = _distinct(document for document in found if document.text not in known)
    again = len(found) + len(held) - len(train_side) - len(heldout_side)
    if not files.heldout:
        if len(train_side) < 2:
            raise UserError(
                f"{name!r} holds too little text to hold a part of it out: at least two "
                "different documents are needed; add more text"
            )
        sides = hold_out(train_side, OWN_HELDOUT)
        train_side, heldout_side = sides.train, sides.heldout
    if not train_side:
        raise UserError(
            f"{name!r} holds out everything that it trains on: the files of both sides have "
            "the same text; give other text to train on"
        )
    everything_bad = (*bad, *bad_held)
    return Documents(tuple(train_side), tuple(heldout_side), everything_bad, again, files.remark)


def heldout_documents(source: Path) -> tuple[Document, ...]:
    """Only the held-out side; the training text of a data stage is not read."""
    check_no_run(source)
    if (source / "documents" / "train.jsonl").is_file():
        return read_documents(source / "documents" / "heldout.jsonl").rows
    return documents(source).heldout


def _read(files: Sequence[Path]) -> tuple[list[Document], list[BadLine]]:
    found: list[Document] = []
    bad: list[BadLine] = []
    for path in files:
        rows: Iterable[Document]
        if suffix_of(path) in ROW_SUFFIXES:
            records = read_documents(path)
            rows = records.rows
            bad.extend(records.bad)
        else:
            rows = text_documents(path)
        # A user's text that is named like a part of a generated set gets no share of that set.
        folder = path.resolve().parent.name
        found += (
            replace(row, source=f"{folder}/{row.source}") if made_from(row.source) else row
            for row in rows
        )
    return found, bad


def _distinct(found: Iterable[Document]) -> list[Document]:
    return list({document.text: document for document in found}.values())
