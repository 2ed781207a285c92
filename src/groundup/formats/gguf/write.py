"""Write one of our models as one GGUF file, for llama.cpp and Ollama.

The `gguf` package, which llama.cpp's own converter uses, writes the block formats and the file.
This module maps tensors and settings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from gguf import GGML_QUANT_VERSION, GGMLQuantizationType, GGUFWriter, Keys, LlamaFileType
from gguf.quants import quant_shape_to_byte_shape, quantize
from torch import Tensor

from groundup.deprecated import renamed_keywords
from groundup.errors import UserError
from groundup.formats.gguf.settings import (
    ARCHITECTURES,
    FREQUENCY_FACTORS,
    config_entries,
    frequency_factors,
)
from groundup.formats.gguf.tensors import (
    convert_file,
    interleaved,
    require_llama_cpp,
    rotated_heads,
    stored_in_gguf,
)
from groundup.formats.gguf.tokenizer import tokenizer_entries
from groundup.generation.blocks import refuse_blocks
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.runs.files import atomic_write
from groundup.text.tokenizer import Tokenizer

GGUFType = Literal[
    "f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1",
    "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k",
]  # fmt: skip
GGUF_TYPES: tuple[GGUFType, ...] = get_args(GGUFType)
# Sampling settings of generation_config.json, which llama.cpp uses by default.
_SAMPLING = {
    "temperature": Keys.General.SAMPLING_TEMP,
    "top_p": Keys.General.SAMPLING_TOP_P,
    "top_k": Keys.General.SAMPLING_TOP_K,
    "min_p": Keys.General.SAMPLING_MIN_P,
    "repetition_penalty": Keys.General.SAMPLING_PENALTY_REPEAT,
}
_BLOCK = 32  # numbers that share a scale in the types of the `gguf` package
_HALF = torch.float16
_MAX_INT, _MAX_FLOAT = np.iinfo(np.int32).max, float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class _TensorToWrite:
    """A tensor of the file: the tensors whose rows it concatenates, its shape and its type."""

    pieces: list[tuple[str, Tensor]]
    shape: tuple[int, ...]
    type: GGMLQuantizationType


@renamed_keywords(licence="license")
def save_gguf(
    path: Path | str,
    model: CausalLM,
    tokenizer: Tokenizer,
    type: str = "q8_0",
    *,
    name: str | None = None,
    license: str | None = None,
    sampling: Mapping[str, Any] | None = None,
) -> None:
    """Write `model` with its tokenizer and chat template to a GGUF file.

    `type` is the storage type of matrices: q8_0 has 8.5 bits a number, and its answers are those of
    the full model for nearly all purposes; q5_1, q5_0, q4_1 and q4_0 have 6, 5.5, 5 and 4.5 bits
    and a visible effect. Norms and biases stay F32, as llama.cpp requires; a matrix whose rows do
    not fill blocks of 32 becomes F16, as in llama.cpp's own quantizer. Types with a k mix formats,
    and are quantized by llama.cpp itself, through its binding (extra `llama-cpp`). `sampling` may
    hold temperature, top_p, top_k, min_p and repetition_penalty, as in a folder's
    generation_config.json. The file is written to a temporary place and renamed.

    Raises `UserError` for a model or a tokenizer that llama.cpp cannot express, and for a type with
    a k if the binding is not installed.
    """
    known = next((one for one in GGUF_TYPES if one == type.lower()), None)
    if known is None:
        raise UserError(f"type={type!r} is not written; choose one of {', '.join(GGUF_TYPES)}")
    refuse_blocks(model)
    path = Path(path)
    mixed = "_k" in known
    if mixed:
        require_llama_cpp(known)
    written: GGUFType = "f32" if mixed else known
    entries = _entries(model, tokenizer, written, name or path.stem, license)
    entries |= _sampling_entries(sampling or {})
    tensors = _tensors(model, written)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        if not mixed:
            _write(partial, model.config, entries, tensors)
            return
        before = path.with_name(f".{path.name}.whole")
        try:
            _write(before, model.config, entries, tensors)
            convert_file(before, partial, _file_type(known))
        finally:
            before.unlink(missing_ok=True)


def _file_type(type: GGUFType) -> LlamaFileType:
    return LlamaFileType.ALL_F32 if type == "f32" else LlamaFileType[f"MOSTLY_{type.upper()}"]


def _entries(
    model: CausalLM, tokenizer: Tokenizer, type: GGUFType, name: str, license: str | None
) -> dict[str, Any]:
    config = model.config
    general = {
        Keys.General.TYPE: "model",
        Keys.General.NAME: name,
        Keys.General.LICENSE: license,
        Keys.General.FILE_TYPE: int(_file_type(type)),
        Keys.General.QUANTIZATION_VERSION: GGML_QUANT_VERSION,
    }
    words = tokenizer_entries(
        tokenizer,
        vocab_size=config.vocab_size,
        bos_id=config.bos_token_id,
        eos_ids=config.eos_token_ids,
        pad_id=config.pad_token_id,
    )
    return {k: v for k, v in general.items() if v is not None} | config_entries(config) | words


def _sampling_entries(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """Sampling settings, as far as untrusted values are numbers that the file can store."""
    found: dict[str, Any] = {}
    for name, key in _SAMPLING.items():
        value = sampling.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        if name == "top_k":
            if isinstance(value, int) and 0 <= value <= _MAX_INT:
                found[key] = np.int32(value)
        elif abs(value) <= _MAX_FLOAT:
            found[key] = float(value)
    return found


def _tensors(model: CausalLM, type: GGUFType) -> dict[str, _TensorToWrite]:
    """The tensors to write, by GGUF's names; fused tensors list their pieces in order."""
    config = model.config
    pieces: dict[str, list[tuple[str, Tensor]]] = {}
    for ours, parameter in model.named_parameters():
        stored = stored_in_gguf(config.model_type, ours)
        pieces.setdefault(stored.name, []).append((ours, parameter.detach()))
    written = {}
    for stored_name, parts in pieces.items():
        shape = (sum(len(tensor) for _, tensor in parts), *parts[0][1].shape[1:])
        written[stored_name] = _TensorToWrite(parts, shape, _type_of(stored_name, shape, type))
    if config.rope.type == "llama3":
        factors = torch.from_numpy(frequency_factors(config.rope, config.head_dim))
        f32 = GGMLQuantizationType.F32
        written[FREQUENCY_FACTORS] = _TensorToWrite([("", factors)], tuple(factors.shape), f32)
    return written


def _type_of(name: str, shape: tuple[int, ...], type: GGUFType) -> GGMLQuantizationType:
    if len(shape) == 1 or name == "position_embd.weight":
        return GGMLQuantizationType.F32
    if type.startswith("q") and shape[-1] % _BLOCK:
        return GGMLQuantizationType.F16
    # Every token passes through these two, and the rest of the model cannot compensate their
    # errors, so llama.cpp stores them with more bits, too.
    if type[:2] in ("q4", "q5") and name in ("token_embd.weight", "output.weight"):
        return GGMLQuantizationType.Q8_0
    return GGMLQuantizationType[type.upper()]


def _write(
    path: Path,
    config: ModelConfig,
    entries: Mapping[str, Any],
    tensors: Mapping[str, _TensorToWrite],
) -> None:
    """Write everything, computing each tensor's bytes only when needed."""
    writer = GGUFWriter(path, ARCHITECTURES[config.model_type])
    # Checked first, because a bool is also an int.
    kinds = (
        (bool, writer.add_bool),
        (int, writer.add_uint32),
        (np.int32, writer.add_int32),
        (float, writer.add_float32),
        (str, writer.add_string),
        (list, writer.add_array),
    )
    try:
        for key, value in entries.items():
            next(add for kind, add in kinds if isinstance(value, kind))(key, value)
        for name, one in tensors.items():
            shape = quant_shape_to_byte_shape(one.shape, one.type)
            # Announced as bytes: the writer derives the shape in numbers from the type.
            writer.add_tensor_info(name, shape, np.dtype(np.uint8), math.prod(shape), one.type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, one in tensors.items():
            writer.write_tensor_data(_stored(name, one, config))
    finally:
        writer.close()


def _stored(name: str, one: _TensorToWrite, config: ModelConfig) -> npt.NDArray[Any]:
    """The bytes of a tensor, its query and key rows in llama.cpp's order."""
    rows = []
    for ours, tensor in one.pieces:
        tensor = tensor.to("cpu", torch.float32)
        heads = rotated_heads(config, ours)
        rows.append(interleaved(tensor, heads) if heads else tensor)
    values = torch.cat(rows) if len(rows) > 1 else rows[0].contiguous()
    largest = torch.finfo(_HALF if one.type == GGMLQuantizationType.F16 else values.dtype).max
    low, high = torch.aminmax(values)
    if not (-largest <= low and high <= largest):  # false for NaN, too
        raise UserError(
            f"tensor {name} has values that {one.type.name} cannot store (infinite, NaN, or "
            f"beyond {largest:g}); write bf16 or f32, or look for the step that broke the model"
        )
    return quantize(values.numpy(), one.type)
