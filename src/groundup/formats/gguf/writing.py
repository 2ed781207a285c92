"""A model of ours as one GGUF file, for llama.cpp and Ollama.

The block formats and the file's bytes are the `gguf` package's, which llama.cpp's own converter
uses. What is ours is to say which tensor is which and what llama.cpp must be told beside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType
from gguf.quants import quant_shape_to_byte_shape, quantize
from torch import Tensor

from groundup.errors import UserError
from groundup.formats.gguf.blocks import convert_file, require_llama_cpp
from groundup.formats.gguf.config import config_entries
from groundup.formats.gguf.model import GGUFType, as_neighbours, rotated_heads
from groundup.formats.gguf.rope import FREQUENCY_FACTORS, frequency_factors
from groundup.formats.gguf.tokenizer_writing import tokenizer_entries
from groundup.lm.config import ModelConfig
from groundup.lm.families import GGUF_ARCHITECTURES, stored_in_gguf
from groundup.lm.model import CausalLM
from groundup.runs.files import written_aside
from groundup.text.tokenizer import Tokenizer

_FILE_TYPES: dict[GGUFType, LlamaFileType] = {
    "f32": LlamaFileType.ALL_F32,
    "f16": LlamaFileType.MOSTLY_F16,
    "bf16": LlamaFileType.MOSTLY_BF16,
    "q8_0": LlamaFileType.MOSTLY_Q8_0,
    "q4_0": LlamaFileType.MOSTLY_Q4_0,
    "q4_1": LlamaFileType.MOSTLY_Q4_1,
    "q5_0": LlamaFileType.MOSTLY_Q5_0,
    "q5_1": LlamaFileType.MOSTLY_Q5_1,
    "q3_k_s": LlamaFileType.MOSTLY_Q3_K_S,
    "q3_k_m": LlamaFileType.MOSTLY_Q3_K_M,
    "q3_k_l": LlamaFileType.MOSTLY_Q3_K_L,
    "q4_k_s": LlamaFileType.MOSTLY_Q4_K_S,
    "q4_k_m": LlamaFileType.MOSTLY_Q4_K_M,
    "q5_k_s": LlamaFileType.MOSTLY_Q5_K_S,
    "q5_k_m": LlamaFileType.MOSTLY_Q5_K_M,
    "q6_k": LlamaFileType.MOSTLY_Q6_K,
}
_BLOCK = 32  # numbers that share a scale in the types that we write ourselves
_HALF = torch.float16
_QUANTISATION_VERSION = 2  # of the block formats, since May 2023


@dataclass(frozen=True)
class _Written:
    """A tensor as the file will have it: whose rows, one after the other, and in which type."""

    pieces: list[tuple[str, Tensor]]
    shape: tuple[int, ...]
    type: GGMLQuantizationType


def write_gguf(
    path: Path,
    model: CausalLM,
    tokenizer: Tokenizer,
    type: GGUFType,
    name: str,
    licence: str | None,
) -> None:
    """Write a GGUF file; `gguf.save_gguf` says what goes in."""
    mixed = "_k" in type
    if mixed:
        require_llama_cpp(type)
    whole: GGUFType = "f32" if mixed else type
    entries = _entries(model, tokenizer, whole, name, licence)
    tensors = _tensors(model, whole)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as partial:
        if not mixed:
            _write(partial, model.config, entries, tensors)
            return
        before = path.with_name(f".{path.name}.whole")
        try:
            _write(before, model.config, entries, tensors)
            convert_file(before, partial, _FILE_TYPES[type])
        finally:
            before.unlink(missing_ok=True)


def _entries(
    model: CausalLM, tokenizer: Tokenizer, type: GGUFType, name: str, licence: str | None
) -> dict[str, Any]:
    config = model.config
    general = {
        "general.type": "model",
        "general.name": name,
        "general.license": licence,
        "general.file_type": int(_FILE_TYPES[type]),
        "general.quantization_version": _QUANTISATION_VERSION,
    }
    words = tokenizer_entries(
        tokenizer,
        vocab_size=config.vocab_size,
        bos_id=config.bos_token_id,
        eos_ids=config.eos_token_ids,
        pad_id=config.pad_token_id,
    )
    return {k: v for k, v in general.items() if v is not None} | config_entries(config) | words


def _tensors(model: CausalLM, type: GGUFType) -> dict[str, _Written]:
    """What to write, by GGUF's names; of fused tensors the pieces stand in their order."""
    config = model.config
    pieces: dict[str, list[tuple[str, Tensor]]] = {}
    for ours, parameter in model.named_parameters():
        stored = stored_in_gguf(config.model_type, ours)
        pieces.setdefault(stored.name, []).append((ours, parameter.detach()))
    written = {}
    for stored_name, parts in pieces.items():
        shape = (sum(len(tensor) for _, tensor in parts), *parts[0][1].shape[1:])
        written[stored_name] = _Written(parts, shape, _type_of(stored_name, shape, type))
    if config.rope.type == "llama3":
        factors = torch.from_numpy(frequency_factors(config.rope, config.head_dim))
        f32 = GGMLQuantizationType.F32
        written[FREQUENCY_FACTORS] = _Written([("", factors)], tuple(factors.shape), f32)
    return written


def _type_of(name: str, shape: tuple[int, ...], type: GGUFType) -> GGMLQuantizationType:
    if len(shape) == 1 or name == "position_embd.weight":
        return GGMLQuantizationType.F32
    if type.startswith("q") and shape[-1] % _BLOCK:
        return GGMLQuantizationType.F16
    # Every token goes through these two and the rest of the model cannot make up for them, so
    # llama.cpp keeps them finer, too.
    if type[:2] in ("q4", "q5") and name in ("token_embd.weight", "output.weight"):
        return GGMLQuantizationType.Q8_0
    return GGMLQuantizationType[type.upper()]


def _write(
    path: Path, config: ModelConfig, entries: Mapping[str, Any], tensors: Mapping[str, _Written]
) -> None:
    """Write everything, each tensor's bytes made when its turn comes."""
    writer = GGUFWriter(path, GGUF_ARCHITECTURES[config.model_type])
    try:
        for key, value in entries.items():
            _add(writer, key, value)
        for name, one in tensors.items():
            shape = quant_shape_to_byte_shape(one.shape, one.type)
            # Announced as bytes: the writer finds the shape in numbers from the type.
            writer.add_tensor_info(name, shape, np.dtype(np.uint8), math.prod(shape), one.type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, one in tensors.items():
            writer.write_tensor_data(_stored(name, one, config))
    finally:
        writer.close()


def _stored(name: str, one: _Written, config: ModelConfig) -> npt.NDArray[Any]:
    """The bytes of a tensor, its query and key rows in llama.cpp's order."""
    rows = []
    for ours, tensor in one.pieces:
        tensor = tensor.to("cpu", torch.float32)
        heads = rotated_heads(config, ours)
        rows.append(as_neighbours(tensor, heads) if heads else tensor)
    values = torch.cat(rows) if len(rows) > 1 else rows[0].contiguous()
    largest = torch.finfo(_HALF if one.type == GGMLQuantizationType.F16 else values.dtype).max
    low, high = torch.aminmax(values)
    if not (-largest <= low and high <= largest):  # no number is a part of no comparison
        raise UserError(
            f"tensor {name} has values that {one.type.name} does not hold (infinite, no number, or "
            f"beyond {largest:g}); write bf16 or f32, or look for the step that broke the model"
        )
    return quantize(values.numpy(), one.type)


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
