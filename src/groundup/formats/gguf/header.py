"""The header of GGUF, llama.cpp's one-file format, read without trusting the file.

    magic "GGUF", version, number of tensors, number of metadata entries
    metadata: name, type, value         including sizes, tokenizer and chat template
    tensors: name, shape, type, offset  each offset a multiple of the alignment
    padding, then the tensors' bytes

(The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.) Such files come from
untrusted sources, and every count and length in them may be false. Each is compared with the rest
of the file before anything is allocated, so reading takes memory and time in proportion to the file
size, never to a number in the file. The file is memory-mapped, not loaded.
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
from gguf import (
    GGML_QUANT_SIZES,
    GGUF_DEFAULT_ALIGNMENT,
    GGMLQuantizationType,
    GGUFValueType,
    Keys,
)

from groundup.errors import UserError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)  # 3 differs from 2 in allowing big-endian files; 1 had 32-bit counts
# Far above any real model. Without a limit, a large file of tiny entries would cost a Python object
# per entry, many times its size.
_MAX_ENTRIES = 65_536
_MAX_STRINGS = 4_000_000
_MAX_NAME_BYTES = 65_535  # the format's own bound
_MAX_DEPTH = 3  # arrays of arrays; llama.cpp writes none at all

# The types that the `gguf` package can dequantize: unquantized ones, the old block formats,
# K-quants and their successors.
TENSOR_TYPES = tuple(
    GGMLQuantizationType[name]
    for name in (
        *("F32", "F16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K"),
        *("Q6_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS"),
        *("IQ1_M", "BF16", "TQ1_0", "TQ2_0", "MXFP4"),
    )
)
_NUMBERS: dict[int, np.dtype[Any]] = {
    kind: np.dtype(dtype)
    for kind, dtype in (
        (GGUFValueType.UINT8, "<u1"),
        (GGUFValueType.INT8, "<i1"),
        (GGUFValueType.UINT16, "<u2"),
        (GGUFValueType.INT16, "<i2"),
        (GGUFValueType.UINT32, "<u4"),
        (GGUFValueType.INT32, "<i4"),
        (GGUFValueType.FLOAT32, "<f4"),
        (GGUFValueType.BOOL, "<u1"),
        (GGUFValueType.UINT64, "<u8"),
        (GGUFValueType.INT64, "<i8"),
        (GGUFValueType.FLOAT64, "<f8"),
    )
}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in the file: `shape` as in torch (rows first), `start` and `size` in bytes."""

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    start: int
    size: int


@dataclass(frozen=True)
class GGUFFile:
    """A checked header.

    Metadata values are Python numbers, strings and booleans; arrays of numbers are NumPy's, arrays
    of strings or of arrays are lists.
    """

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, StoredTensor]
    _map: mmap.mmap

    def str_(self, name: str, default: str | None = None) -> str:
        return str(self._checked(name, str, default, "a text"))

    def bool_(self, name: str, default: bool | None = None) -> bool:
        return bool(self._checked(name, bool, default, "true or false"))

    def int_(self, name: str, least: int = 1, most: int = 2**31, default: int | None = None) -> int:
        value = self._checked(name, int, default, "a whole number")
        if not least <= value <= most:
            self.refuse(name, value, f"a whole number from {least:,} to {most:,}")
        return int(value)

    def float_(self, name: str, least: float, most: float, default: float | None = None) -> float:
        value = self._checked(name, (int, float), default, "a number")
        if not least <= value <= most:  # NaN fails, too
            self.refuse(name, value, f"a number from {least:g} to {most:g}")
        return float(value)

    def str_list(self, name: str) -> list[str]:
        found = self._checked(name, list, None, "a list of texts")
        if not all(isinstance(one, str) for one in found[:1]):  # one type per array
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
        """The tensor's bytes, mapped: writes change a private copy, not the file."""
        return np.frombuffer(self._map, np.uint8, tensor.size, tensor.start)


def read_gguf_header(path: Path | str) -> GGUFFile:
    """Read the header of a GGUF file.

    Raises `UserError` for a file that is not GGUF, of an unsupported version, damaged, truncated or
    malicious.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is not a file; give the path of a .gguf file")
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size < 24:
            raise UserError(f"{path} is too short for a GGUF file; download it again")
        # Copy-on-write: torch requires writable memory, and the file must not change.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    cursor = _Cursor(path, mapped)
    tensor_count, entry_count = _counts(cursor)
    metadata: dict[str, Any] = {}
    for _ in range(entry_count):
        name = cursor.string("a metadata name", _MAX_NAME_BYTES)
        if name in metadata:
            cursor.fail(f"the metadata entry {name[:80]!r} occurs twice")
        metadata[name] = cursor.value(cursor.number(4), name)
    shards = metadata.get(Keys.Split.LLM_KV_SPLIT_COUNT, 1)
    if isinstance(shards, int) and shards > 1:
        raise UserError(
            f"{path} is one of {shards} parts of a model; join them with "
            "`llama-gguf-split --merge` and use the joined file"
        )
    found = [_tensor(cursor) for _ in range(tensor_count)]
    return GGUFFile(path, metadata, _checked_places(cursor, found, metadata), mapped)


def _counts(cursor: _Cursor) -> tuple[int, int]:
    """Check magic and version; return the numbers of tensors and metadata entries."""
    path = cursor.path
    if cursor.take(4) != _MAGIC:
        raise UserError(f"{path} is not a GGUF file (it does not begin with {_MAGIC.decode()!r})")
    version = cursor.number(4)
    if version not in _VERSIONS:
        if int.from_bytes(version.to_bytes(4, "big"), "little") in _VERSIONS:
            raise UserError(f"{path} is a big-endian GGUF file; convert it to little-endian")
        raise UserError(
            f"{path} is GGUF version {version}; only versions {_VERSIONS[0]} and {_VERSIONS[1]} "
            "are supported: convert it with a current llama.cpp"
        )
    tensors, entries = cursor.number(8), cursor.number(8)
    # The minimal size of an entry: name, number of dimensions, one dimension, type, offset; or
    # name, type and a value of one byte.
    cursor.check_count(tensors, 8 + 4 + 8 + 4 + 8, "tensors", _MAX_ENTRIES)
    cursor.check_count(entries, 8 + 4 + 1, "metadata entries", _MAX_ENTRIES)
    return tensors, entries


def _tensor(cursor: _Cursor) -> StoredTensor:
    """Read the entry of one tensor; its start is still relative to the end of the header."""
    name = cursor.string("a tensor's name", _MAX_NAME_BYTES)
    dimensions = cursor.number(4)
    if not 1 <= dimensions <= 4:
        cursor.fail(f"tensor {name[:80]!r} has {dimensions} dimensions; it may have 1 to 4")
    sizes = struct.unpack(f"<{dimensions}Q", cursor.take(8 * dimensions))
    kind, start = cursor.number(4), cursor.number(8)
    if kind not in TENSOR_TYPES:
        raise UserError(
            f"{cursor.path}: tensor {name[:80]!r} is of type number {kind}, which is unsupported; "
            f"supported are: {', '.join(one.name for one in TENSOR_TYPES)}"
        )
    type = GGMLQuantizationType(kind)
    block, block_bytes = GGML_QUANT_SIZES[type]
    if 0 in sizes or sizes[0] % block:
        cursor.fail(
            f"tensor {name[:80]!r} has rows of {sizes[0]:,} numbers, and {type.name} stores them "
            f"in blocks of {block}"
        )
    # Python's integers do not overflow, so a product of four false sizes is merely large.
    size = math.prod(sizes) // block * block_bytes
    return StoredTensor(name, tuple(reversed(sizes)), type, start, size)


def _checked_places(
    cursor: _Cursor, found: list[StoredTensor], metadata: dict[str, Any]
) -> dict[str, StoredTensor]:
    """Return the tensors by name with their places in the file, which must not overlap."""
    alignment = metadata.get(Keys.General.ALIGNMENT, GGUF_DEFAULT_ALIGNMENT)
    whole = isinstance(alignment, int) and not isinstance(alignment, bool)
    if not whole or alignment < 1 or alignment & (alignment - 1):
        cursor.fail(f"general.alignment={repr(alignment)[:80]} is not a power of two")
    data = -(-cursor.at // alignment) * alignment
    placed: dict[str, StoredTensor] = {}
    free_from = 0
    for one in sorted(found, key=lambda tensor: tensor.start):
        if one.start % alignment:
            cursor.fail(f"tensor {one.name[:80]!r} does not start at a multiple of {alignment}")
        if one.start < free_from:
            cursor.fail(f"tensor {one.name[:80]!r} overlaps the one before it")
        free_from = one.start + one.size
        if data + free_from > cursor.end:
            raise UserError(
                f"{cursor.path} is cut off: tensor {one.name[:80]!r} ends at byte "
                f"{data + free_from:,} and the file at {cursor.end:,}; download it again"
            )
        if one.name in placed:
            cursor.fail(f"tensor {one.name[:80]!r} occurs twice")
        placed[one.name] = StoredTensor(one.name, one.shape, one.type, data + one.start, one.size)
    return placed


class _Cursor:
    """A position in the file that only moves forward, and never past the end."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self._data = path, data
        self.at, self.end = 0, len(data)
        self._strings_left = _MAX_STRINGS

    def fail(self, why: str) -> NoReturn:
        raise UserError(f"{self.path} is damaged: {why}; download it again")

    def take(self, size: int) -> bytes:
        if size > self.end - self.at:
            self.fail(f"it ends {size - (self.end - self.at):,} bytes before its header does")
        taken = self._data[self.at : self.at + size]
        self.at += size
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def check_count(self, count: int, least_bytes: int, what: str, most: int) -> None:
        """Check that `count` items of at least `least_bytes` fit into the rest of the file."""
        if count * least_bytes > self.end - self.at:
            self.fail(f"it claims {count:,} {what}, more than its {self.end:,} bytes can hold")
        if count > most:
            raise UserError(
                f"{self.path} has {count:,} {what}; at most {most:,} are supported: "
                "no model has that many, so check where the file comes from"
            )

    def string(self, what: str, most: int | None = None) -> str:
        return self.strings(1, what, most)[0]

    def strings(self, count: int, what: str, most: int | None = None) -> list[str]:
        """Read `count` strings. This loop is performance-critical: vocabularies have 250,000."""
        self.check_count(count, 8, what, self._strings_left)
        self._strings_left -= count
        data, at, end = self._data, self.at, self.end
        found = []
        for _ in range(count):
            size = int.from_bytes(data[at : at + 8], "little")
            at += 8
            if size > end - at or (most is not None and size > most):
                self.fail(f"{what[:80]!r} has a text of {size:,} bytes, which is too many")
            try:
                found.append(data[at : at + size].decode("utf-8"))
            except UnicodeDecodeError:
                self.fail(f"{what[:80]!r} has a text that is not UTF-8")
            at += size
        self.at = at
        return found

    def value(self, kind: int, name: str) -> Any:
        """Read one metadata value of type number `kind`."""
        if kind == GGUFValueType.STRING:
            return self.string(name)
        if kind == GGUFValueType.ARRAY:
            return self._array(name, 0)
        if kind not in _NUMBERS:
            self.fail(f"{name[:80]!r} has the unknown type {kind}")
        value = np.frombuffer(self.take(_NUMBERS[kind].itemsize), _NUMBERS[kind])[0]
        if kind == GGUFValueType.BOOL:
            return bool(self._as_bool(np.array([value]), name)[0])
        if kind == GGUFValueType.FLOAT32:
            # Restores the decimal that a person wrote: 1e-5 instead of 9.999999747378752e-06.
            return float(str(value))
        return value.item()

    def _array(self, name: str, depth: int) -> Any:
        kind, count = self.number(4), self.number(8)
        if depth == _MAX_DEPTH:
            self.fail(f"{name[:80]!r} has arrays within arrays {_MAX_DEPTH} deep")
        if kind == GGUFValueType.STRING:
            return self.strings(count, name)
        if kind == GGUFValueType.ARRAY:
            self.check_count(count, 4 + 8, f"arrays in {name[:80]!r}", self._strings_left)
            self._strings_left -= count
            return [self._array(name, depth + 1) for _ in range(count)]
        if kind not in _NUMBERS:
            self.fail(f"{name[:80]!r} is an array of the unknown type {kind}")
        size = _NUMBERS[kind].itemsize
        self.check_count(count, size, f"numbers in {name[:80]!r}", self.end)
        # NumPy rejects empty buffers, but an empty array may be at the very end.
        values = np.frombuffer(self._data, _NUMBERS[kind], count, self.at if count else 0)
        self.at += count * size
        return self._as_bool(values, name) if kind == GGUFValueType.BOOL else values

    def _as_bool(self, values: npt.NDArray[Any], name: str) -> npt.NDArray[np.bool_]:
        if values.size and values.max() > 1:
            self.fail(f"{name[:80]!r} is neither true nor false")
        return values.astype(bool)
