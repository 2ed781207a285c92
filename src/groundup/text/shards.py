"""Token shards: the documents of one split as one array of token ids.

Each document is stored as `[end] + tokens`: the tokenizer's end of a text (0, <|endoftext|>, in
ours) starts a document and, seen as the next token, ends the one before. The array lies in a `.npy`
file that is memory-mapped, with the documents' offsets in a second one and a JSON beside them that
says which tokenizer and which text made it.
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
from groundup.runs.files import read_json_object, write_text, written_aside
from groundup.text.rows import Document

_SCHEMA = 1
# A number for each document stands in the facts of a shard.
_MOST_FACTS = 2**30
# NumPy reads an array's header as Python writes a dictionary, and fails as Python does.
_OF_DAMAGE = (EOFError, OverflowError, SyntaxError, MemoryError, RecursionError, TokenError)


@runtime_checkable  # the tests' import hook checks arguments
class Encoder(Protocol):
    """The part of a tokenizer that `encode` needs."""

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

    Document i is `tokens[offsets[i]:offsets[i + 1]]`, its first token the end of a text;
    `sources[i]` names where it comes from and `document_bytes[i]` is the length of its text in
    UTF-8.
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
    kept: Path | None = None,
) -> Shard:
    """Write the documents as the shard `path` and open it.

    A finished one of the same is reused, which may be there or be the shard `kept`.

    uint16 where the vocabulary fits, else uint32. The JSON is written last, so that a shard that
    has one is whole.
    """
    end, content = tokenizer.end_of_text, hashlib.sha256()
    for document in texts:
        content.update(f"{document.source}\x00{document.text}\x00".encode())
    facts: dict[str, object] = {
        "schema": _SCHEMA,
        "tokenizer": tokenizer.hash,
        "vocab_size": tokenizer.vocab_size,
        "end_of_text": end,
        "split": split,
        "text_sha256": content.hexdigest(),
    }
    for one in (path, kept or path):
        with contextlib.suppress(UserError):  # not there, or damaged, and made anew
            # Shards of earlier versions do not say with what they part documents: all with 0.
            there = {"end_of_text": 0} | read_json_object(_beside(one, ".json"), _MOST_FACTS)
            if all(there.get(name) == facts[name] for name in facts):
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
    facts |= {
        "documents": len(texts),
        "tokens": len(tokens),
        "sources": names,
        "document_sources": [places[document.source] for document in texts],
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
    """Returns the reason why the files are not those that `encode` wrote, or an empty text."""
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
