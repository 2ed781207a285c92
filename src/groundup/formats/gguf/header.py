"""GGUF, the one-file format of llama.cpp: what stands before the weights, read without trust.

    magic "GGUF", version, how many tensors, how many metadata entries
    metadata: name, type, value         sizes, tokenizer and chat template are all here
    tensors: name, shape, type, place   each place a multiple of the alignment
    padding, then the tensors' bytes

(The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.) Such files come from
strangers, and every count and length in them may be a lie. Here each is compared with what is left
of the file before anything is made of it, so reading takes memory and time in proportion to the
file and never to a number in it. The file is mapped, not loaded: weights are read where they lie.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from groundup.errors import UserError
from groundup.formats.gguf.cursor import MOST_ENTRIES, MOST_NAME_BYTES, Cursor
from groundup.formats.gguf.types import BLOCK_TYPES, BlockType

MAGIC = b"GGUF"
VERSIONS = (2, 3)  # 3 differs from 2 in allowing big-endian files; 1 had 32-bit counts
ALIGNMENT = 32  # where general.alignment is not given


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in the file: `shape` as in torch (rows first), `start` and `size` in bytes."""

    name: str
    shape: tuple[int, ...]
    type: BlockType
    start: int
    size: int


@dataclass(frozen=True)
class GGUFFile:
    """A header that has been read and found sound.

    Metadata values are Python numbers, strings and booleans; arrays of numbers are NumPy's, arrays
    of strings or of arrays are lists.
    """

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, StoredTensor]
    _map: mmap.mmap

    def text(self, name: str, default: str | None = None) -> str:
        return str(self._checked(name, str, default, "a text"))

    def flag(self, name: str, default: bool | None = None) -> bool:
        return bool(self._checked(name, bool, default, "true or false"))

    def whole(
        self, name: str, least: int = 1, most: int = 2**31, default: int | None = None
    ) -> int:
        value = self._checked(name, int, default, "a whole number")
        if not least <= value <= most:
            self.refuse(name, value, f"a whole number from {least:,} to {most:,}")
        return int(value)

    def real(self, name: str, least: float, most: float, default: float | None = None) -> float:
        value = self._checked(name, (int, float), default, "a number")
        if not least <= value <= most:  # a NaN is not, either
            self.refuse(name, value, f"a number from {least:g} to {most:g}")
        return float(value)

    def texts(self, name: str) -> list[str]:
        found = self._checked(name, list, None, "a list of texts")
        if not all(isinstance(one, str) for one in found[:1]):  # the format has one type for all
            self.refuse(name, found, "a list of texts")
        return list(found)

    def refuse(self, name: str, value: Any, rule: str) -> NoReturn:
        many = isinstance(value, list | np.ndarray)
        shown = f"{len(value):,} values" if many else repr(value)[:80]
        raise UserError(
            f"{self.path} says {name[:80]}={shown}, which must be {rule}; "
            "convert or download the model again"
        )

    def _checked(self, name: str, kind: Any, default: Any, rule: str) -> Any:
        value = self.metadata.get(name, default)
        if value is None:
            raise UserError(f"{self.path} lacks the metadata entry {name!r}; download it again")
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self.refuse(name, value, rule)
        return value

    def stored_bytes(self, tensor: StoredTensor) -> npt.NDArray[np.uint8]:
        """The tensor's bytes, mapped: a write to them changes a private copy, not the file."""
        return np.frombuffer(self._map, np.uint8, tensor.size, tensor.start)


def read_gguf_header(path: Path | str) -> GGUFFile:
    """Read the header of a GGUF file.

    Raises `UserError` for a file that is not GGUF, of a version that is not read, damaged, cut off
    or made to deceive.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is not a file; give the path of a .gguf file")
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size < 24:
            raise UserError(f"{path} is too short for a GGUF file; download it again")
        # A copy on write: torch wants memory that it could write to, and nobody may touch the file.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    cursor = Cursor(path, mapped)
    tensor_count, entry_count = _counts(cursor)
    metadata: dict[str, Any] = {}
    for _ in range(entry_count):
        name = cursor.string("a metadata name", MOST_NAME_BYTES)
        if name in metadata:
            cursor.fail(f"the metadata entry {name[:80]!r} stands there twice")
        metadata[name] = cursor.value(cursor.number(4), name)
    shards = metadata.get("split.count", 1)
    if isinstance(shards, int) and shards > 1:
        raise UserError(
            f"{path} is one of {shards} parts of a model; join them with "
            "`llama-gguf-split --merge` and give the whole"
        )
    found = [_tensor(cursor) for _ in range(tensor_count)]
    return GGUFFile(path, metadata, _placed(cursor, found, metadata), mapped)


def _counts(cursor: Cursor) -> tuple[int, int]:
    """Check magic and version; return how many tensors and metadata entries there are."""
    path = cursor.path
    if cursor.take(4) != MAGIC:
        raise UserError(f"{path} is not a GGUF file (it does not begin with {MAGIC.decode()!r})")
    version = cursor.number(4)
    if version not in VERSIONS:
        if int.from_bytes(version.to_bytes(4, "big"), "little") in VERSIONS:
            raise UserError(f"{path} is a big-endian GGUF file; convert it to little-endian")
        raise UserError(
            f"{path} is GGUF version {version}; versions {VERSIONS[0]} and {VERSIONS[1]} are read: "
            "convert it with a present llama.cpp"
        )
    tensors, entries = cursor.number(8), cursor.number(8)
    # The least that one takes: name, number of dimensions, one dimension, type, place; or name,
    # type and a value of one byte.
    cursor.check_count(tensors, 8 + 4 + 8 + 4 + 8, "tensors", MOST_ENTRIES)
    cursor.check_count(entries, 8 + 4 + 1, "metadata entries", MOST_ENTRIES)
    return tensors, entries


def _tensor(cursor: Cursor) -> StoredTensor:
    """Read where one tensor lies, its start still counted from the end of the header."""
    name = cursor.string("a tensor's name", MOST_NAME_BYTES)
    dimensions = cursor.number(4)
    if not 1 <= dimensions <= 4:
        cursor.fail(f"tensor {name[:80]!r} has {dimensions} dimensions; it may have 1 to 4")
    sizes = struct.unpack(f"<{dimensions}Q", cursor.take(8 * dimensions))
    kind, start = cursor.number(4), cursor.number(8)
    if kind not in BLOCK_TYPES:
        raise UserError(
            f"{cursor.path}: tensor {name[:80]!r} is of type number {kind}, which is not read; "
            f"these are: {', '.join(one.name for one in BLOCK_TYPES.values())}"
        )
    type = BLOCK_TYPES[kind]
    if 0 in sizes or sizes[0] % type.block:
        cursor.fail(
            f"tensor {name[:80]!r} has rows of {sizes[0]:,} numbers, and {type.name} stores them "
            f"in blocks of {type.block}"
        )
    # Python's integers do not overflow, so a product of four lies is merely large.
    size = math.prod(sizes) // type.block * type.size
    return StoredTensor(name, tuple(reversed(sizes)), type, start, size)


def _placed(
    cursor: Cursor, found: list[StoredTensor], metadata: dict[str, Any]
) -> dict[str, StoredTensor]:
    """Return the tensors by name with their places in the file, checked to lie apart in it."""
    alignment = metadata.get("general.alignment", ALIGNMENT)
    whole = isinstance(alignment, int) and not isinstance(alignment, bool)
    if not whole or alignment < 1 or alignment & (alignment - 1):
        cursor.fail(f"general.alignment={repr(alignment)[:80]} is not a power of two")
    data = -(-cursor.at // alignment) * alignment
    placed: dict[str, StoredTensor] = {}
    free_from = 0
    for one in sorted(found, key=lambda tensor: tensor.start):
        if one.start % alignment:
            cursor.fail(f"tensor {one.name[:80]!r} does not begin at a multiple of {alignment}")
        if one.start < free_from:
            cursor.fail(f"tensor {one.name[:80]!r} overlaps the one before it")
        free_from = one.start + one.size
        if data + free_from > cursor.end:
            raise UserError(
                f"{cursor.path} is cut off: tensor {one.name[:80]!r} ends at byte "
                f"{data + free_from:,} and the file at {cursor.end:,}; download it again"
            )
        if one.name in placed:
            cursor.fail(f"tensor {one.name[:80]!r} stands there twice")
        placed[one.name] = StoredTensor(one.name, one.shape, one.type, data + one.start, one.size)
    return placed
