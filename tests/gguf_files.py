"""GGUF files of every kind, byte by byte: valid ones, and ones that no writer makes."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gguf

from groundup.formats.gguf.header import GGUFFile

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
_PACKED = {
    U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32: "<f", BOOL: "<B",
    U64: "<Q", I64: "<q", F64: "<d",
}  # fmt: skip


@dataclass(frozen=True)
class Value:
    """A metadata value with its type number; an array's value is (type of items, items)."""

    kind: int
    value: Any

    def to_bytes(self) -> bytes:
        if self.kind == STRING:
            return text(self.value)
        if self.kind == ARRAY:
            kind, items = self.value
            packed = b"".join(Value(kind, item).to_bytes() for item in items)
            return struct.pack("<IQ", kind, len(items)) + packed
        if self.kind not in _PACKED:
            return bytes(self.value)
        return struct.pack(_PACKED[self.kind], self.value)


@dataclass(frozen=True)
class Tensor:
    """A tensor's entry; `sizes` in GGUF's order, the row's length first."""

    name: str | bytes
    sizes: Sequence[int]
    type: int
    start: int
    dimensions: int | None = None

    def to_bytes(self) -> bytes:
        count = len(self.sizes) if self.dimensions is None else self.dimensions
        sizes = struct.pack(f"<{len(self.sizes)}Q", *self.sizes)
        return (
            text(self.name)
            + struct.pack("<I", count)
            + sizes
            + struct.pack("<IQ", self.type, self.start)
        )


@dataclass(frozen=True)
class Header:
    """A whole file; counts are the actual ones unless they are given."""

    entries: Sequence[tuple[str | bytes, Value]] = ()
    tensors: Sequence[Tensor] = ()
    data: bytes = b""
    magic: bytes = b"GGUF"
    version: int = 3
    entry_count: int | None = None
    tensor_count: int | None = None
    alignment: int = 32

    def to_bytes(self) -> bytes:
        tensors = len(self.tensors) if self.tensor_count is None else self.tensor_count
        entries = len(self.entries) if self.entry_count is None else self.entry_count
        head = self.magic + struct.pack("<IQQ", self.version, tensors, entries)
        for name, value in self.entries:
            head += text(name) + struct.pack("<I", value.kind) + value.to_bytes()
        head += b"".join(tensor.to_bytes() for tensor in self.tensors)
        return head + bytes(-len(head) % self.alignment) + self.data

    def changed(self, name: str, value: Value | None) -> Header:
        """A copy with another value for an entry, or without it."""
        kept = [(key, old) for key, old in self.entries if key != name]
        return replace(self, entries=[*kept, (name, value)] if value is not None else kept)


def text(content: str | bytes) -> bytes:
    data = content if isinstance(content, bytes) else content.encode()
    return struct.pack("<Q", len(data)) + data


def header_of(file: GGUFFile) -> Header:
    """The parts of a valid file, to be reassembled with a wrong value."""
    first = min(tensor.start for tensor in file.tensors.values())
    whole = file.path.read_bytes()
    tensors = [
        Tensor(one.name, one.shape[::-1], int(one.type), one.start - first)
        for one in file.tensors.values()
    ]
    entries = [(name, _value(value)) for name, value in file.metadata.items()]
    return Header(entries, tensors, whole[first:])


def _value(value: Any) -> Value:
    if isinstance(value, bool):
        return Value(BOOL, value)
    if isinstance(value, int):
        return Value(U32, value)
    if isinstance(value, float):
        return Value(F32, value)
    if isinstance(value, str):
        return Value(STRING, value)
    kind = STRING if isinstance(value, list) else I32
    return Value(ARRAY, (kind, list(value)))


def numbers_of(kind: int, values: Iterable[Any]) -> Value:
    return Value(ARRAY, (kind, list(values)))


def write_vocabulary(path: Path, entries: Mapping[str, Any]) -> Path:
    """A GGUF file with only a vocabulary, written by gguf's own writer."""
    path.unlink(missing_ok=True)
    writer = gguf.GGUFWriter(path, "llama")
    for name in ("context_length", "embedding_length", "block_count", "feed_forward_length"):
        writer.add_uint32(f"llama.{name}", 64)
    writer.add_uint32("llama.attention.head_count", 1)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-6)
    adders = {str: writer.add_string, bool: writer.add_bool, int: writer.add_uint32}
    for name, value in entries.items():
        adders.get(type(value), writer.add_array)(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
