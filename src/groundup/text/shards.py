"""Token shards: the documents of one split as one array of token ids.

Each document is stored as `[end] + tokens`: the tokenizer's end-of-text token (ours has the id 0,
<|endoftext|>) starts a document and, as a target, ends the previous one. The array is a
memory-mapped `.npy` file; a second one has the documents' offsets, and a JSON file names the
tokenizer and hashes the text.
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

from groundup.errors import UserError
from groundup.runs.files import atomic_write, read_json_object, write_text
from groundup.text.rows import Document

_SCHEMA = 1
# The metadata of a shard has a number for each document.
_MAX_METADATA_BYTES = 2**30
# NumPy parses an array's header as a Python literal, and fails as the Python parser does.
_LOAD_ERRORS = (EOFError, OverflowError, SyntaxError, MemoryError, RecursionError, TokenError)


@runtime_checkable  # the tests' import hook checks arguments
class Encoder(Protocol):
    """The tokenizer methods that `encode` needs."""

    @property
    def hash(self) -> str: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def end_of_text(self) -> int: ...

    def encode_batch(self, texts: list[str]) -> list[list[int]]: ...


@dataclass(frozen=True)
class Shard:
    """All documents of one split as token ids, memory-mapped.

    Document i is `tokens[offsets[i]:offsets[i + 1]]`, its first token the end-of-text token;
    `sources[i]` is its source and `document_bytes[i]` the length of its text in UTF-8.
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

        Raises UserError if a file is missing or the files do not belong together.
        """
        damaged = "delete its files and start the stage again"
        for suffix in (".json", ".npy", ".offsets.npy"):
            if not _sibling(path, suffix).is_file():
                raise UserError(
                    f"the token shard {str(path)!r} is incomplete: "
                    f"{str(_sibling(path, suffix))!r} is missing; {damaged}"
                )
        try:
            metadata = read_json_object(_sibling(path, ".json"), _MAX_METADATA_BYTES)
            tokens = np.load(_sibling(path, ".npy"), mmap_mode="r", allow_pickle=False)
            offsets = np.load(_sibling(path, ".offsets.npy"), allow_pickle=False)
            names: list[str] = metadata["sources"]
            shard = Shard(
                tokens=tokens,
                offsets=offsets,
                sources=[str(names[index]) for index in metadata["document_sources"]],
                document_bytes=np.array(metadata["document_bytes"], np.int64),
                tokenizer_hash=str(metadata["tokenizer"]),
                split=str(metadata["split"]),
            )
            fault = _fault(shard, metadata)
        except (*_LOAD_ERRORS, ValueError, KeyError, IndexError, TypeError) as error:
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
    kept: Path | None = None,
) -> Shard:
    """Write the documents as the shard `path` and open it.

    Reuses a finished shard with the same content, at `path` or at `kept`.

    Stores uint16 if the vocabulary fits, else uint32. The JSON is written last, so that a shard
    with one is complete.
    """
    end, content = tokenizer.end_of_text, hashlib.sha256()
    for document in texts:
        content.update(f"{document.source}\x00{document.text}\x00".encode())
    metadata: dict[str, object] = {
        "schema": _SCHEMA,
        "tokenizer": tokenizer.hash,
        "vocab_size": tokenizer.vocab_size,
        "end_of_text": end,
        "split": split,
        "text_sha256": content.hexdigest(),
    }
    for one in (path, kept or path):
        with contextlib.suppress(UserError):  # missing or damaged: written again
            # Shards of earlier versions do not name the end-of-text id, which was always 0.
            there = {"end_of_text": 0} | read_json_object(
                _sibling(one, ".json"), _MAX_METADATA_BYTES
            )
            if all(there.get(name) == metadata[name] for name in metadata):
                return Shard.open(one)
    kind = np.dtype(np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32)
    chunks: list[np.ndarray] = []
    lengths: list[int] = []
    for start in range(0, len(texts), 512):
        batch = tokenizer.encode_batch([document.text for document in texts[start : start + 512]])
        lengths += [len(ids) + 1 for ids in batch]
        chunks += [np.array([end, *ids], kind) for ids in batch]
        if progress is not None:
            progress(f"encoded {min(start + 512, len(texts))} of {len(texts)} documents")
    tokens = np.concatenate(chunks) if chunks else np.empty(0, kind)
    offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))).astype(np.int64)
    names = sorted({document.source for document in texts})
    places = {name: place for place, name in enumerate(names)}
    metadata |= {
        "documents": len(texts),
        "tokens": len(tokens),
        "sources": names,
        "document_sources": [places[document.source] for document in texts],
        "document_bytes": [len(document.text.encode()) for document in texts],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    _sibling(path, ".json").unlink(missing_ok=True)
    metadata["sha256"] = _hash(Shard(tokens, offsets, [], np.empty(0, np.int64), "", split))
    for suffix, array in ((".npy", tokens), (".offsets.npy", offsets)):
        with atomic_write(_sibling(path, suffix)) as partial, partial.open("wb") as file:
            np.save(file, array, allow_pickle=False)
    write_text(_sibling(path, ".json"), json.dumps(metadata))
    return Shard.open(path)


def _fault(shard: Shard, metadata: Mapping[str, Any]) -> str:
    """Returns the reason why the files differ from those that `encode` wrote, or an empty text."""
    if shard.tokens.ndim != 1 or shard.tokens.dtype.kind != "u":
        return "its tokens are not ids"
    if shard.offsets.ndim != 1 or shard.offsets.dtype != np.int64:
        return "its documents have no bounds"
    documents = len(shard.offsets) - 1
    if documents != len(shard.sources) or shard.document_bytes.shape != (documents,):
        return "its files do not belong together"
    ends = shard.offsets[[0, -1]].tolist() if documents >= 0 else None
    if ends != [0, len(shard.tokens)] or (np.diff(shard.offsets) < 0).any():
        return "its files do not belong together"
    said = metadata.get("sha256")  # missing in shards of earlier versions
    return "" if said is None or said == _hash(shard) else "its bytes have changed"


def _hash(shard: Shard) -> str:
    whole = hashlib.sha256()
    for start in range(0, len(shard.tokens), 2**22):
        whole.update(np.ascontiguousarray(shard.tokens[start : start + 2**22]).tobytes())
    whole.update(shard.offsets.tobytes())
    return whole.hexdigest()


def _sibling(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
