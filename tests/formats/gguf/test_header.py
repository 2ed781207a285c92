"""The header reader equals the `gguf` package on valid files, and rejects all others."""

from __future__ import annotations

import random
import time
import tracemalloc
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES

from gguf_files import (
    ARRAY,
    BOOL,
    F32,
    F64,
    I32,
    STRING,
    U8,
    U16,
    U32,
    Header,
    Tensor,
    Value,
    numbers_of,
)
from groundup.errors import UserError
from groundup.formats.gguf.header import TENSOR_TYPES, GGUFFile, read_gguf_header
from mutations import mutated_bytes

WHOLE = Tensor("a", [32], 0, 0)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Every type of value and some tensors, written by gguf."""
    path = tmp_path / "sound.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint8("u8", 255)
    writer.add_int8("i8", -128)
    writer.add_uint16("u16", 65_535)
    writer.add_int16("i16", -32_768)
    writer.add_uint32("u32", 2**32 - 1)
    writer.add_int32("i32", -(2**31))
    writer.add_float32("f32", 1e-5)
    writer.add_uint64("u64", 2**64 - 1)
    writer.add_int64("i64", -(2**63))
    writer.add_float64("f64", 0.1)
    writer.add_bool("yes", True)
    writer.add_string("text", "Häuser <|im_end|> 🏠\n")
    writer.add_array("words", ["Ġthe", "ü", "🏠"])
    writer.add_array("whole", [3, 1, -2])
    writer.add_array("real", [0.5, -1.25])
    writer.add_array("truths", [True, False, True])
    draw = np.random.default_rng(0)
    writer.add_tensor("matrix", draw.normal(size=(3, 5)).astype(np.float32))
    writer.add_tensor("half", draw.normal(size=7).astype(np.float16))
    rows = gguf.quants.quantize(
        draw.normal(size=(4, 64)).astype(np.float32), gguf.GGMLQuantizationType.Q5_1
    )
    writer.add_tensor("blocks", rows, raw_dtype=gguf.GGMLQuantizationType.Q5_1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def read(tmp_path: Path, header: Header) -> GGUFFile:
    path = tmp_path / "made.gguf"
    path.unlink(missing_ok=True)
    path.write_bytes(header.to_bytes())
    return read_gguf_header(path)


def refusal(tmp_path: Path, header: Header | bytes) -> str:
    """The error of a file that is rejected, in bounded time and memory."""
    path = tmp_path / "bad.gguf"
    path.unlink(missing_ok=True)
    path.write_bytes(header if isinstance(header, bytes) else header.to_bytes())
    tracemalloc.start()
    began = time.perf_counter()
    try:
        with pytest.raises(UserError) as error:
            read_gguf_header(path)
        assert time.perf_counter() - began < 5
        assert tracemalloc.get_traced_memory()[1] < 2 * 2**20
    finally:
        tracemalloc.stop()
    said = str(error.value)
    assert str(path) in said and "\n" not in said and len(said) < 900
    return said


def test_equals_the_gguf_package(sound: Path) -> None:
    ours, theirs = read_gguf_header(sound), gguf.GGUFReader(sound)
    for name, field in theirs.fields.items():
        if name.startswith("GGUF."):
            continue
        value = ours.metadata[name]
        value = value.tolist() if isinstance(value, np.ndarray) else value
        expected = field.contents()
        if name == "f32":
            assert value == 1e-5, "the decimal that was written"
            value = float(np.float32(value))
        assert value == expected and type(value) is type(expected), name
    assert len(ours.metadata) == len(theirs.fields) - 3
    assert list(ours.tensors) == [one.name for one in theirs.tensors]
    for tensor in theirs.tensors:
        mine = ours.tensors[tensor.name]
        assert mine.shape == tuple(reversed(tensor.shape.tolist()))
        assert mine.type.name == tensor.tensor_type.name
        assert (mine.start, mine.size) == (tensor.data_offset, tensor.n_bytes)
        assert ours.stored_bytes(mine).tobytes() == tensor.data.tobytes()


def test_every_supported_type_is_in_the_gguf_package() -> None:
    assert set(TENSOR_TYPES) <= set(GGML_QUANT_SIZES) and len(set(TENSOR_TYPES)) == 25
    for kind in TENSOR_TYPES:
        block, size = GGML_QUANT_SIZES[kind]
        rows = np.zeros((2, size), np.uint8)
        assert gguf.quants.dequantize(rows, kind).shape == (2, block), kind


def test_writing_to_a_tensor_does_not_change_the_file(sound: Path) -> None:
    before = sound.read_bytes()
    file = read_gguf_header(sound)
    file.stored_bytes(file.tensors["matrix"])[:] = 0
    assert sound.read_bytes() == before


def test_reads_version_2_other_alignments_and_no_tensors(tmp_path: Path) -> None:
    assert read(tmp_path, Header(version=2)).tensors == {}
    aligned = [("general.alignment", Value(U32, 8))]
    two = [Tensor("a", [2], 0, 0), Tensor("b", [2, 3], 0, 8)]
    file = read(tmp_path, Header(aligned, two, bytes(32), alignment=8))
    assert file.tensors["b"].shape == (3, 2)


def test_reads_arrays_of_arrays_and_empty_ones(tmp_path: Path) -> None:
    nested = Value(ARRAY, (ARRAY, [(U8, [1, 2]), (STRING, ["x"]), (F32, [])]))
    file = read(tmp_path, Header([("nested", nested), ("none", Value(ARRAY, (STRING, [])))]))
    first, second, third = file.metadata["nested"]
    assert first.tolist() == [1, 2] and second == ["x"] and len(third) == 0
    assert file.metadata["none"] == []


def test_a_large_vocabulary_is_read_fast(tmp_path: Path) -> None:
    words = [f"word{n}" for n in range(150_000)]
    began = time.perf_counter()
    file = read(tmp_path, Header([("tokens", Value(ARRAY, (STRING, words)))]))
    # A tenth of a second on a free machine, the making of the file included.
    assert time.perf_counter() - began < 5
    assert file.str_list("tokens") == words


ENTRIES: dict[str, Value] = {
    "text": Value(STRING, "x"),
    "flag": Value(BOOL, True),
    "number": Value(U32, 7),
    "real": Value(F32, 0.5),
    "texts": Value(ARRAY, (STRING, ["x"])),
    "numbers": numbers_of(I32, [1]),
    "nested": Value(ARRAY, (ARRAY, [(U8, [1])])),
}


@pytest.mark.parametrize("kind", ["str_", "bool_", "int_", "float_", "str_list"])
def test_entries_of_another_type_are_rejected_by_name(tmp_path: Path, kind: str) -> None:
    file = read(tmp_path, Header(list(ENTRIES.items())))
    fits = {
        "str_": {"text"},
        "bool_": {"flag"},
        "int_": {"number"},
        "float_": {"number", "real"},
        "str_list": {"texts"},
    }[kind]
    bounds = (0, 10) if kind in ("int_", "float_") else ()
    ask = getattr(file, kind)
    for name in ENTRIES:
        if name in fits:
            ask(name, *bounds)
            continue
        with pytest.raises(UserError, match=f"says {name}="):
            ask(name, *bounds)
    with pytest.raises(UserError, match="lacks the metadata entry 'missing'"):
        ask("missing", *bounds)


@pytest.mark.parametrize("value", [-1.0, 2.0, float("nan"), float("inf")])
def test_numbers_out_of_bounds_are_rejected(tmp_path: Path, value: float) -> None:
    file = read(tmp_path, Header([("x", Value(F64, value))]))
    with pytest.raises(UserError, match="from 0 to 1"):
        file.float_("x", 0.0, 1.0)


HUGE = 2**63
BAD: dict[str, tuple[Any, str]] = {
    "empty": (b"", "too short"),
    "a few bytes": (b"GGUF\x03\0\0\0", "too short"),
    "another magic": (Header(magic=b"GGML"), "not a GGUF file"),
    "version 1": (Header(version=1), "version 1"),
    "version 4": (Header(version=4), "version 4"),
    "big-endian": (Header(version=3 << 24), "big-endian"),
    "tensors without end": (Header(tensor_count=HUGE), "can hold"),
    "entries without end": (Header(entry_count=2**64 - 1), "can hold"),
    "one entry more": (Header(list(ENTRIES.items()), entry_count=8), "damaged"),
    "one tensor more": (Header([], [WHOLE], bytes(128), tensor_count=2), "damaged"),
    "a long name": (Header([(b"", Value(U8, 1))], data=bytes(64), entry_count=2), "twice"),
    "a text without end": (
        Header([("x", Value(STRING, ""))])
        .to_bytes()
        .replace(b"\x08\0\0\0" + bytes(8), b"\x08\0\0\0" + b"\xff" * 8),
        "bytes, which is too many",
    ),
    "not UTF-8": (Header([("x", Value(STRING, b"\xff\xfe"))]), "not UTF-8"),
    "an unknown type": (Header([("x", Value(77, bytes(8)))]), "unknown type 77"),
    "an array of an unknown type": (
        Header([("x", Value(ARRAY, (U8, [])))])
        .to_bytes()
        .replace(b"\x09\0\0\0" + bytes(4), b"\x09\0\0\0\x4d\0\0\0"),
        "unknown type 77",
    ),
    "neither true nor false": (Header([("x", Value(BOOL, 2))]), "neither true nor false"),
    "the same entry twice": (Header([("x", Value(U8, 1))] * 2), "twice"),
    "the same tensor twice": (Header([], [WHOLE, Tensor("a", [8], 0, 128)], bytes(256)), "twice"),
    "no dimension": (Header([], [Tensor("a", [], 0, 0)], bytes(64)), "0 dimensions"),
    "five dimensions": (Header([], [Tensor("a", [1] * 5, 0, 0)], bytes(64)), "5 dimensions"),
    "dimensions without end": (
        Header([], [Tensor("a", [1], 0, 0, dimensions=2**32 - 1)], bytes(64)),
        "dimensions",
    ),
    "nothing in it": (Header([], [Tensor("a", [4, 0], 0, 0)], bytes(64)), "rows of 4"),
    "a size beyond 64 bits": (Header([], [Tensor("a", [2**33, 2**33], 0, 0)]), "cut off"),
    "a size of minus one": (Header([], [Tensor("a", [2**64 - 1], 0, 0)]), "cut off"),
    "a start beyond the end": (Header([], [Tensor("a", [1], 0, 2**64 - 32)]), "cut off"),
    "cut off": (Header([], [WHOLE], bytes(100)), "cut off"),
    "between the places": (Header([], [Tensor("a", [8], 0, 4)], bytes(99)), "multiple of 32"),
    "one over the other": (
        Header([], [WHOLE, Tensor("b", [8], 0, 96)], bytes(256)),
        "overlaps",
    ),
    "an unknown block type": (Header([], [Tensor("a", [32], 99, 0)], bytes(128)), "type number 99"),
    "half a block": (Header([], [Tensor("a", [48], 8, 0)], bytes(128)), "blocks of 32"),
    "alignment 0": (Header([("general.alignment", Value(U32, 0))]), "power of two"),
    "alignment 24": (Header([("general.alignment", Value(U32, 24))]), "power of two"),
    "alignment of text": (Header([("general.alignment", Value(STRING, "8"))]), "power of two"),
    "alignment of a list": (
        Header([("general.alignment", numbers_of(U32, [8]))]),
        "power of two",
    ),
    "alignment beyond the file": (
        Header([("general.alignment", Value(U32, 2**31))], [WHOLE], bytes(128)),
        "cut off",
    ),
    "one of several": (Header([("split.count", Value(U16, 3))]), "one of 3 parts"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_rejected_in_one_sentence(tmp_path: Path, name: str) -> None:
    header, said = BAD[name]
    assert said in refusal(tmp_path, header)


@pytest.mark.parametrize("kind", range(13))
@pytest.mark.parametrize("count", [5, 2**31, HUGE, 2**64 - 1])
def test_rejects_arrays_longer_than_the_file(tmp_path: Path, kind: int, count: int) -> None:
    before = before_array()
    lying = before + kind.to_bytes(4, "little") + count.to_bytes(8, "little")
    assert "damaged" in refusal(tmp_path, lying)


def before_array() -> bytes:
    """A file with one entry, up to the item type and count of its array."""
    empty = Header([("x", Value(ARRAY, (F64, [])))]).to_bytes()
    return empty[: empty.rindex(F64.to_bytes(4, "little"))]


def test_nested_arrays_are_limited(tmp_path: Path) -> None:
    one_in_another = b"\x09\0\0\0\x01\0\0\0\0\0\0\0"
    said = refusal(tmp_path, before_array() + one_in_another * 2_000)
    assert "deep" in said


def test_a_file_of_empty_texts_is_limited(tmp_path: Path) -> None:
    """Each takes eight bytes in the file and a pointer in memory, so their number is limited."""
    count = 4_000_001
    array = STRING.to_bytes(4, "little") + count.to_bytes(8, "little")
    whole = before_array() + array + bytes(8 * count)
    assert "at most" in refusal(tmp_path, whole)


def test_truncation_at_every_position_is_reported(
    sound: Path, tmp_path: Path, unchecked_types: None
) -> None:
    whole = sound.read_bytes()
    last = max(tensor.start + tensor.size for tensor in read_gguf_header(sound).tensors.values())
    for size in range(last):
        refusal(tmp_path, whole[:size])


def attack(path: Path, folder: Path, tries: range) -> list[int]:
    """Change a valid file in every way; return the numbers of rejected and accepted files."""
    whole, counts = path.read_bytes(), [0, 0]
    for seed in tries:
        changed = folder / "changed.gguf"
        changed.unlink(missing_ok=True)  # it may still be mapped
        changed.write_bytes(mutated_bytes(random.Random(seed), whole))
        try:
            file = read_gguf_header(changed)
            for tensor in file.tensors.values():
                assert file.stored_bytes(tensor).nbytes == tensor.size
        except UserError as error:
            assert str(error) and len(str(error)) < 900
            counts[0] += 1
        else:
            counts[1] += 1
    return counts


def test_damage_is_one_sentence(sound: Path, tmp_path: Path) -> None:
    refused, read = attack(sound, tmp_path, range(300))
    assert refused > 100 and read > 20


@pytest.mark.long
def test_much_damage_is_one_sentence(sound: Path, tmp_path: Path) -> None:
    attack(sound, tmp_path, range(300, 5_000))
