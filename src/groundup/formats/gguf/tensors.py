"""The tensors of a GGUF file: their names, the order of their rows, and their block formats.

    blocks = quantize(weight, "q4_1")            # (rows, bytes of a row)
    again = dequantize(blocks, "q4_1")           # (rows, columns), float32

A block is 32 neighbors of a row with a common scale (`_0`), or with a scale and a minimum (`_1`);
in the K formats 256 with scales of scales. `q4`, `q5`, `q6`, `q8` give the bits per number. The
`gguf` package, whose bytes equal llama.cpp's, quantizes the first kind. It can only read the K
formats: quantizing to them searches for the best scales, which llama.cpp's own library does,
through its Python binding (extra `llama-cpp`).

For RoPE, llama.cpp's Llamas rotate neighboring features, our models halves (see `lm.positions`).
Its converter therefore reorders the rows of the query and key matrices; reading restores them.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from gguf import (
    GGML_QUANT_SIZES,
    MODEL_ARCH,
    GGMLQuantizationType,
    LlamaFileType,
    TensorNameMap,
    get_tensor_name_map,
)
from gguf import quants as gguf_quants
from jaxtyping import Float, UInt8
from torch import Tensor

from groundup.errors import UserError
from groundup.formats.gguf.header import GGUFFile, StoredTensor
from groundup.formats.gguf.settings import ARCHITECTURES
from groundup.lm.config import ModelConfig
from groundup.lm.families import ModelType, Stored, stored_as

BlockType = Literal["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k"]
BLOCK_TYPES: tuple[BlockType, ...] = get_args(BlockType)

BINDING = "llama_cpp_py_sync"

_FLOATS = {
    GGMLQuantizationType.F32: ("<f4", torch.float32),
    GGMLQuantizationType.F16: ("<f2", torch.float16),
    GGMLQuantizationType.BF16: ("<i2", torch.bfloat16),  # NumPy has no bfloat16
}
FLOAT_DTYPES = {type: dtype for type, (_, dtype) in _FLOATS.items()}

_LAYER = re.compile(r"(?<=\.)\d+(?=\.)")


def stored_in_gguf(model_type: ModelType, name: str) -> Stored:
    """Where a GGUF file of this family stores our tensor `name`; matrices are always (out, in).

    The `gguf` package maps the names of Hugging Face's files.
    """
    stored = stored_as(model_type, name)
    layer = _LAYER.search(stored.name)
    first = _LAYER.sub("0", stored.name, count=1)
    found = _names(ARCHITECTURES[model_type]).get_name(first, try_suffixes=(".weight", ".bias"))
    assert found is not None, name
    return Stored(found.replace("blk.0.", f"blk.{layer[0]}.") if layer else found, part=stored.part)


@cache
def _names(architecture: str) -> TensorNameMap:
    """The table for an architecture's first layer: others differ only in their number."""
    return get_tensor_name_map(MODEL_ARCH[architecture.upper()], 1)


# Order.


def rotated_heads(config: ModelConfig, name: str) -> int | None:
    """The number of RoPE heads in our tensor `name`, if llama.cpp reorders its rows."""
    if ARCHITECTURES[config.model_type] != "llama":
        return None
    if ".q_proj." in name:
        return config.num_attention_heads
    return config.num_key_value_heads if ".k_proj." in name else None


def interleaved(rows: Tensor, heads: int) -> Tensor:
    """Reorder rows 0 … d/2-1, d/2 … d-1 of each head as 0, d/2, 1, d/2+1 …: partners adjacent."""
    split = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return split.transpose(1, 2).reshape(rows.shape)


def as_halves(rows: Tensor, heads: int) -> Tensor:
    """The inverse of `interleaved`: Hugging Face's order."""
    split = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return split.transpose(1, 2).reshape(rows.shape)


# Numbers.


def read_tensor(file: GGUFFile, tensor: StoredTensor) -> Tensor:
    """A stored tensor as numbers: F32, F16 and BF16 unchanged, all others as float32."""
    raw = file.stored_bytes(tensor)
    if tensor.type in _FLOATS:
        kind, dtype = _FLOATS[tensor.type]
        # Files may have tensors at unaligned offsets, which torch does not support.
        values = torch.from_numpy(np.require(raw.view(kind), requirements="A"))
        return values.view(dtype).reshape(tensor.shape)
    rows = raw.reshape(*tensor.shape[:-1], -1)
    with np.errstate(all="ignore"):  # an infinite scale legitimately gives NaN
        numbers = gguf_quants.dequantize(rows, tensor.type)
    return torch.from_numpy(numbers).reshape(tensor.shape)


def quantize(tensor: Float[Tensor, "*rows columns"], type: str) -> UInt8[np.ndarray, "*rows bytes"]:
    """The tensor's blocks, row by row, as in a GGUF file.

    Raises `UserError` for an unknown type, rows that do not fill whole blocks, numbers that are not
    finite or too large, and a K format without llama.cpp's binding.
    """
    kind = _kind(type)
    block, _ = GGML_QUANT_SIZES[kind]
    columns = tensor.shape[-1] if tensor.ndim else 1
    if not tensor.numel() or columns % block:
        raise UserError(
            f"a tensor of shape {list(tensor.shape)} has no rows of whole blocks of {block}, which "
            f"{type} needs; pad its last dimension, or choose another type"
        )
    values = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
    # Scales are float16: for larger numbers they would be infinite.
    if not np.abs(values).max() <= np.finfo(np.float16).max:
        raise UserError(
            f"the tensor has numbers that {type} cannot store (infinite, NaN, or beyond "
            f"{np.finfo(np.float16).max:g}); look for the step that made them"
        )
    if kind.name.endswith("_K"):
        return _quantized_by_llama_cpp(values, kind)
    blocks: UInt8[np.ndarray, "*rows bytes"] = gguf_quants.quantize(values, kind)
    return blocks


def dequantize(
    blocks: UInt8[np.ndarray, "*rows bytes"], type: str
) -> Float[Tensor, "*rows columns"]:
    """Dequantize blocks to float32.

    Raises `UserError` for an unknown type and rows that are not whole blocks.
    """
    kind = _kind(type)
    _, size = GGML_QUANT_SIZES[kind]
    if not blocks.size or blocks.shape[-1] % size:
        raise UserError(
            f"rows of {blocks.shape[-1] if blocks.ndim else 0} bytes are not whole blocks of "
            f"{type}, which have {size}; give the rows returned by quantize"
        )
    return torch.from_numpy(np.ascontiguousarray(gguf_quants.dequantize(blocks, kind)))


def _kind(type: str) -> GGMLQuantizationType:
    known = next((one for one in BLOCK_TYPES if one == type.lower()), None)
    if known is None:
        raise UserError(f"type={type!r} is not a block format; use one of {', '.join(BLOCK_TYPES)}")
    return GGMLQuantizationType[known.upper().replace("_k", "_K")]


# llama.cpp's own library.


def require_llama_cpp(type: str) -> None:
    """Raises `UserError`, with instructions, if the binding is not installed."""
    if importlib.util.find_spec(BINDING) is None:
        raise UserError(
            f"{type} is quantized by llama.cpp, whose binding is not installed; run pip install "
            "'groundup[llama-cpp]', or export --type f16 and run llama.cpp's own "
            f"llama-quantize MODEL.f16.gguf MODEL.{type}.gguf {type.upper()}"
        )


def _quantized_by_llama_cpp(
    values: Float[np.ndarray, "*rows columns"], kind: GGMLQuantizationType
) -> UInt8[np.ndarray, "*rows bytes"]:
    require_llama_cpp(kind.name.lower())
    shape = gguf_quants.quant_shape_to_byte_shape(values.shape, kind)
    blocks = np.empty(shape, np.uint8)
    columns = values.shape[-1]
    written = _quantize_chunk()(
        int(kind),
        values.ctypes.data_as(ctypes.c_void_p),
        blocks.ctypes.data_as(ctypes.c_void_p),
        0,
        values.size // columns,
        columns,
        None,
    )
    assert written == blocks.nbytes, (written, blocks.nbytes)
    return blocks


@cache
def _quantize_chunk() -> Callable[..., int]:
    """`ggml_quantize_chunk(type, from, to, first, rows, columns, importance) -> bytes written`."""
    _library()  # loads the library that this one depends on
    found = importlib.util.find_spec(BINDING)
    assert found is not None and found.origin is not None
    (path, *_) = sorted(Path(found.origin).parent.glob("*ggml-base.*"))
    function = ctypes.CDLL(str(path)).ggml_quantize_chunk
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    function.argtypes = [ctypes.c_int, pointer, pointer, count, count, count, pointer]
    function.restype = ctypes.c_size_t
    return function


def _library() -> tuple[Any, Any]:
    from llama_cpp_py_sync._cffi_bindings import get_ffi, get_lib

    return get_lib(), get_ffi()  # type: ignore[no-untyped-call]


def convert_file(source: Path, target: Path, type: LlamaFileType) -> None:
    """Write a whole GGUF file in another type, as `llama-quantize` does, which mixes formats.

    Raises `UserError` if llama.cpp fails.
    """
    library, ffi = _library()

    @ffi.callback("void(enum ggml_log_level, const char *, void *)")  # type: ignore[untyped-decorator]
    def silent(level: int, text: object, data: object) -> None:
        pass

    library.llama_log_set(silent, ffi.NULL)
    try:
        library.llama_backend_init()
        params = library.llama_model_quantize_default_params()
        params.ftype, params.nthread = int(type), torch.get_num_threads()
        failed = library.llama_model_quantize(
            str(source).encode(), str(target).encode(), ffi.addressof(params)
        )
    finally:
        library.llama_log_set(ffi.NULL, ffi.NULL)
    if failed:
        raise UserError(
            f"llama.cpp could not make {target.name} ({type.name}); is the disk full? Try q8_0"
        )
