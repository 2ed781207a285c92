"""From text to token shards: what pre-training reads.

A *document* is a text that stands for itself; models never attend from one into another. A
*shard* is all documents of one split as one array of token ids, each document stored as
`[0] + tokens`: 0, <|endoftext|>, starts a document and, seen as the next token, ends the one
before. The array lies in a `.npy` file that is memory-mapped, with the documents' offsets in a
second one and a JSON beside them that says which tokenizer and which text made it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt

from groundup.data.csv_files import CSV_SUFFIXES
from groundup.data.records import read_documents
from groundup.data.row_files import read_text
from groundup.errors import UserError
from groundup.runs.files import read_json_object, write_text, written_aside
from groundup.text.cleaning import place
from groundup.text.rows import BadLine, Document

OWN_HELDOUT = 0.05
# Pieces of a long text: long enough for context, short enough that a twentieth can be held out.
_PIECE_BYTES = 2048
_LONGEST_PIECE_BYTES = 8192
_SCHEMA = 1
# A number for each document stands in the facts of a shard.
_MOST_FACTS = 2**30
# NumPy reads an array's header as Python writes a dictionary, and fails as Python does.
_OF_DAMAGE = (EOFError, OverflowError, SyntaxError, MemoryError, RecursionError, TokenError)


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
    distinct.sort(key=lambda document: place(document.text))
    count = sum(place(document.text) < OWN_HELDOUT for document in distinct)
    count = min(max(count, 1), len(distinct) - 1)
    chosen = {document.text for document in distinct[:count]}
    order = {document.text: document for document in found}.values()
    return (
        tuple(document for document in order if document.text not in chosen),
        tuple(document for document in order if document.text in chosen),
    )


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


@runtime_checkable  # the tests' import hook checks arguments
class Encoder(Protocol):
    """What `encode` needs of a tokenizer."""

    @property
    def hash(self) -> str: ...

    @property
    def vocab_size(self) -> int: ...

    def encode_batch(self, texts: list[str]) -> list[list[int]]: ...


@dataclass(frozen=True)
class Shard:
    """All documents of one split as token ids, memory-mapped.

    Document i is `tokens[offsets[i]:offsets[i + 1]]`, its first token 0; `sources[i]` names where
    it comes from and `document_bytes[i]` is the length of its text in UTF-8.
    """

    tokens: UInt[np.ndarray, " tokens"]
    offsets: Int[np.ndarray, " boundaries"]
    sources: list[str]
    document_bytes: Int[np.ndarray, " documents"]
    tokenizer_hash: str
    split: str

    @staticmethod
    def open(path: Path) -> Shard:
        """Open the shard `path`: the files `path.npy`, `path.offsets.npy` and `path.json`.

        Raises UserError if a file is missing or they do not belong together.
        """
        damaged = "delete its files and start the stage again"
        for suffix in (".json", ".npy", ".offsets.npy"):
            if not _beside(path, suffix).is_file():
                raise UserError(
                    f"the token shard {str(path)!r} is incomplete: "
                    f"{str(_beside(path, suffix))!r} is missing; {damaged}"
                )
        try:
            facts = read_json_object(_beside(path, ".json"), _MOST_FACTS)
            tokens = np.load(_beside(path, ".npy"), mmap_mode="r", allow_pickle=False)
            offsets = np.load(_beside(path, ".offsets.npy"), allow_pickle=False)
            names: list[str] = facts["sources"]
            shard = Shard(
                tokens=tokens,
                offsets=offsets,
                sources=[str(names[index]) for index in facts["document_sources"]],
                document_bytes=np.array(facts["document_bytes"], np.int64),
                tokenizer_hash=str(facts["tokenizer"]),
                split=str(facts["split"]),
            )
            fault = _fault(shard, facts)
        except (*_OF_DAMAGE, ValueError, KeyError, IndexError, TypeError) as error:
            raise UserError(
                f"the token shard {str(path)!r} is damaged ({error}); {damaged}"
            ) from error
        if fault:
            raise UserError(f"the token shard {str(path)!r} is damaged ({fault}); {damaged}")
        return shard


def encode(
    texts: Sequence[Document],
    tokenizer: Encoder,
    path: Path,
    *,
    split: str = "train",
    progress: Callable[[str], None] | None = None,
) -> Shard:
    """Write the documents as the shard `path` and open it; a finished one of the same is reused.

    uint16 where the vocabulary fits, else uint32. The JSON is written last, so that a shard that
    has one is whole.
    """
    content = hashlib.sha256()
    for document in texts:
        content.update(f"{document.source}\x00{document.text}\x00".encode())
    facts: dict[str, object] = {
        "schema": _SCHEMA,
        "tokenizer": tokenizer.hash,
        "vocab_size": tokenizer.vocab_size,
        "split": split,
        "text_sha256": content.hexdigest(),
    }
    if _is_made_of(path, facts):
        with contextlib.suppress(UserError):  # damaged, and made anew
            return Shard.open(path)
    kind = np.dtype(np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32)
    chunks: list[np.ndarray] = []
    lengths: list[int] = []
    for start in range(0, len(texts), 512):
        batch = tokenizer.encode_batch([document.text for document in texts[start : start + 512]])
        lengths += [len(ids) + 1 for ids in batch]
        chunks.append(np.array([i for ids in batch for i in (0, *ids)], kind))
        if progress is not None:
            progress(f"encoded {min(start + 512, len(texts))} of {len(texts)} documents")
    tokens = np.concatenate(chunks) if chunks else np.empty(0, kind)
    offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))).astype(np.int64)
    names = sorted({document.source for document in texts})
    facts |= {
        "documents": len(texts),
        "tokens": len(tokens),
        "sources": names,
        "document_sources": [names.index(document.source) for document in texts],
        "document_bytes": [len(document.text.encode()) for document in texts],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    _beside(path, ".json").unlink(missing_ok=True)
    facts["sha256"] = _hash(Shard(tokens, offsets, [], np.empty(0, np.int64), "", split))
    for suffix, array in ((".npy", tokens), (".offsets.npy", offsets)):
        with written_aside(_beside(path, suffix)) as partial, partial.open("wb") as file:
            np.save(file, array, allow_pickle=False)
    write_text(_beside(path, ".json"), json.dumps(facts))
    return Shard.open(path)


def _fault(shard: Shard, facts: Mapping[str, Any]) -> str:
    """Why these files are not what `encode` wrote, empty if they are."""
    if shard.tokens.ndim != 1 or shard.tokens.dtype.kind != "u":
        return "its tokens are no ids"
    if shard.offsets.ndim != 1 or shard.offsets.dtype != np.int64:
        return "its documents have no bounds"
    documents = len(shard.offsets) - 1
    if documents != len(shard.sources) or shard.document_bytes.shape != (documents,):
        return "its files do not belong together"
    ends = shard.offsets[[0, -1]].tolist() if documents >= 0 else None
    if ends != [0, len(shard.tokens)] or (np.diff(shard.offsets) < 0).any():
        return "its files do not belong together"
    said = facts.get("sha256")  # shards of earlier versions do not say
    return "" if said is None or said == _hash(shard) else "its bytes are not those written"


def _hash(shard: Shard) -> str:
    whole = hashlib.sha256()
    for start in range(0, len(shard.tokens), 2**22):
        whole.update(np.ascontiguousarray(shard.tokens[start : start + 2**22]).tobytes())
    whole.update(shard.offsets.tobytes())
    return whole.hexdigest()


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _is_made_of(path: Path, facts: dict[str, object]) -> bool:
    try:
        found = read_json_object(_beside(path, ".json"), _MOST_FACTS)
    except UserError:
        return False
    return all(found.get(name) == facts[name] for name in facts)
