"""The documents that pre-training reads: those of a data stage, or a person's own texts, split.

A *document* is a text that stands for itself; models never attend from one into another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from groundup.data.files import CSV_SUFFIXES, read_text
from groundup.data.records import read_documents
from groundup.data.split import OWN_HELDOUT, cut, hold_out
from groundup.errors import UserError
from groundup.text.rows import BadLine, Document


@dataclass(frozen=True)
class Documents:
    """The two sides of a corpus, and the lines that were set aside on the way."""

    train: tuple[Document, ...]
    heldout: tuple[Document, ...]
    bad: tuple[BadLine, ...] = ()


def documents(source: Path) -> Documents:
    """The documents at `source`, split.

    `source` is a data-stage folder (its own split is kept), a text file (.txt, .md, or any other
    suffix), a .jsonl, .csv, .tsv or .parquet file of {text}, or a folder of such files. Own text is
    cut at blank lines into pieces of 2 to 8 KB; about one in twenty is held out, chosen by a hash
    of the piece, and at least one is on each side. Raises UserError for what cannot be read.
    """
    if (source / "documents" / "train.jsonl").is_file():
        train = read_documents(source / "documents" / "train.jsonl")
        heldout = read_documents(source / "documents" / "heldout.jsonl")
        return Documents(train.rows, heldout.rows, train.bad + heldout.bad)
    found: list[Document] = []
    bad: list[BadLine] = []
    for path in _files(source):
        if path.suffix in (".jsonl", ".parquet", *CSV_SUFFIXES):
            records = read_documents(path)
            found.extend(records.rows)
            bad.extend(records.bad)
        else:
            pieces = cut(read_text(path))
            found.extend(Document(p, path.stem, f"{path.name}#{n}") for n, p in enumerate(pieces))
    train_side, heldout_side = _split(found, source)
    return Documents(train_side, heldout_side, tuple(bad))


def _files(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    suffixes = (".txt", ".md", ".jsonl", ".parquet", *CSV_SUFFIXES)
    inside = sorted(p for p in source.rglob("*") if p.suffix in suffixes and p.is_file())
    if not inside:
        raise UserError(
            f"the folder {str(source)!r} holds no .txt, .md, .jsonl, .csv, .tsv or .parquet file; "
            "give a folder of texts, a file, or the folder of a data stage"
        )
    return inside


def _split(
    found: Sequence[Document], source: Path
) -> tuple[tuple[Document, ...], tuple[Document, ...]]:
    # The same text twice could stand on one side only, but would still count twice.
    distinct = list({document.text: document for document in found}.values())
    if len(distinct) < 2:
        raise UserError(
            f"{str(source)!r} holds too little text to hold a part of it out: at least two "
            "different documents are needed; add more text"
        )
    train, heldout = hold_out(distinct, OWN_HELDOUT)
    return tuple(train), tuple(heldout)
