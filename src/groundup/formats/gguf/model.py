"""A model from one GGUF file: llama.cpp's format, with everything inside.

    blk.N.attn_q.weight        our model.layers.N.self_attn.q_proj.weight (`families` has the table)
    llama.embedding_length     our config.hidden_size
    Q4_K, Q8_0 …               numbers in blocks with a common scale, made float32 here

The header is checked by `header` before anything is believed. What is left to check is that it
describes a model of ours: a known architecture, sizes that agree with the tensors, no setting that
would make it another model. Then one tensor at a time is turned into numbers.

llama.cpp's Llamas turn neighbouring features in RoPE, and ours turn halves (see `positions`); their
converter therefore reorders the rows of the query and key matrices, and reading puts them back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from groundup.errors import UserError
from groundup.formats.gguf.config import read_config
from groundup.formats.gguf.header import GGUFFile, StoredTensor, read_gguf_header
from groundup.formats.gguf.tokenizer import read_tokenizer
from groundup.formats.weights import listed
from groundup.lm.config import ModelConfig
from groundup.lm.families import GGUF_ARCHITECTURES, Stored, stored_in_gguf
from groundup.lm.model import CausalLM
from groundup.text.tokenizer import Tokenizer

# They are (or follow from) settings, which `gguf_config` has read.
_SETTINGS = re.compile(r"^(rope_freqs|blk\.\d+\.(rope_freqs|attn_rot_embd))\.weight$")
_WHOLE = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class GGUFModel:
    """A GGUF file that describes a model of ours; tokenizer and weights are made when asked for."""

    file: GGUFFile
    config: ModelConfig

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return read_tokenizer(self.file)

    @property
    def dtype(self) -> torch.dtype:
        """That of the matrices, where they share one; float32 for quantised ones.

        bfloat16 would halve the memory, but has 8 bits where a block of Q8_0 has 8 and its scale
        11: the rounding would be as large as that of the quantisation itself.
        """
        matrices = [one for one in self.file.tensors.values() if len(one.shape) > 1]
        # Positions are F32 in every file, because llama.cpp adds them and does not multiply.
        types = {one.type.name for one in matrices if one.name != "position_embd.weight"}
        return _WHOLE.get(types.pop(), torch.float32) if len(types) == 1 else torch.float32

    def state_dict(self, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """The weights under our names, in `dtype` or the file's own.

        Whole numbers in that very dtype are not copied: they are the mapped file.
        """
        dtype = self.dtype if dtype is None else dtype
        found: dict[str, Tensor] = {}
        for stored, parts in _wanted(self.file, self.config).items():
            whole = numbers(self.file, self.file.tensors[stored]).to(dtype)
            found.update(_ours(whole, parts, self.config))
        return found


def read_gguf(path: Path | str) -> GGUFModel:
    """Read and check a GGUF file, but not yet its weights.

    Raises `UserError` for a file that is damaged or hostile, of another architecture, or whose
    tensors are not those that its settings ask for.
    """
    file = read_gguf_header(path)
    config = read_config(file)
    _wanted(file, config)
    return GGUFModel(file, config)


GGUFType = Literal[
    "f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1",
    "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k",
]  # fmt: skip
GGUF_TYPES: tuple[GGUFType, ...] = get_args(GGUFType)


def save_gguf(
    path: Path | str,
    model: CausalLM,
    tokenizer: Tokenizer,
    type: str = "q8_0",
    *,
    name: str | None = None,
    licence: str | None = None,
) -> None:
    """Write `model` with its tokenizer and chat template to a GGUF file.

    `type` is how matrices are stored: q8_0 has 8.5 bits a number and answers as the whole model
    does for nearly all purposes; q5_1, q5_0, q4_1 and q4_0 have 6, 5.5, 5 and 4.5 and show it.
    Norms and biases stay F32, as llama.cpp wants them; a matrix whose rows are not whole blocks of
    32 becomes F16, as in llama.cpp's own quantiser. Types with a k mix formats, and llama.cpp
    itself makes them, by way of its binding (extra `llama-cpp`). The file is written aside and
    renamed into place.

    Raises `UserError` for a model or a tokenizer that llama.cpp cannot express, and for a type with
    a k where the binding is not installed.
    """
    known = next((one for one in GGUF_TYPES if one == type.lower()), None)
    if known is None:
        raise UserError(f"type={type!r} is not written; choose one of {', '.join(GGUF_TYPES)}")
    from groundup.formats.gguf.writing import write_gguf  # which needs the writer's package

    write_gguf(Path(path), model, tokenizer, known, name or Path(path).stem, licence)


def numbers(file: GGUFFile, tensor: StoredTensor) -> Tensor:
    """A stored tensor as numbers: F32, F16 and BF16 as they lie there, all else as float32."""
    raw = file.stored_bytes(tensor)
    if tensor.type.name in _WHOLE:
        # NumPy has no bfloat16. Files may put tensors at odd places, where torch would not read.
        kind = np.dtype({"F32": "<f4", "F16": "<f2", "BF16": "<i2"}[tensor.type.name])
        values = torch.from_numpy(np.require(raw.view(kind), requirements="A"))
        return values.view(_WHOLE[tensor.type.name]).reshape(tensor.shape)
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    rows = raw.reshape(*tensor.shape[:-1], -1)
    with np.errstate(all="ignore"):  # a scale that is infinite makes NaN, which is what it says
        numbers = dequantize(rows, GGMLQuantizationType(tensor.type.number))
    return torch.from_numpy(numbers).reshape(tensor.shape)


Parts = list[tuple[str, Stored]]


def _wanted(file: GGUFFile, config: ModelConfig) -> dict[str, Parts]:
    """For each tensor of the file which of ours it holds; checked by name and shape."""
    with torch.device("meta"):
        model = CausalLM(config)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    wanted: dict[str, Parts] = {}
    for name in shapes:
        stored = stored_in_gguf(config.model_type, name)
        wanted.setdefault(stored.name, []).append((name, stored))
    for stored_name, parts in wanted.items():
        _check(file, stored_name, parts, shapes)
    unknown = [one for one in file.tensors if one not in wanted and not _SETTINGS.match(one)]
    if unknown:
        raise UserError(
            f"{file.path} has tensors that no {config.model_type} of this version has: "
            f"{listed(repr(one[:80]) for one in unknown)}; use another model"
        )
    return wanted


def _check(
    file: GGUFFile, stored: str, parts: Parts, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    first = shapes[parts[0][0]]
    expected = (sum(shapes[name][0] for name, _ in parts), *first[1:])
    found = file.tensors.get(stored)
    if found is None:
        raise UserError(f"{file.path} lacks the tensor {stored} ({parts[0][0]}); download it again")
    if found.shape != expected:
        raise UserError(
            f"{file.path}: tensor {stored} has shape {list(found.shape)}, but its settings ask for "
            f"{list(expected)}; convert or download the model again"
        )


def _ours(whole: Tensor, parts: Parts, config: ModelConfig) -> dict[str, Tensor]:
    """What the file keeps as one tensor, as our tensors with their rows in our order."""
    found = {}
    for (name, _), tensor in zip(parts, whole.chunk(len(parts)), strict=True):
        heads = rotated_heads(config, name)
        found[name] = as_halves(tensor, heads) if heads else tensor.contiguous()
    return found


# The order of RoPE's pairs.


def rotated_heads(config: ModelConfig, name: str) -> int | None:
    """How many heads our tensor `name` makes for RoPE, where llama.cpp wants its rows reordered."""
    if GGUF_ARCHITECTURES[config.model_type] != "llama":
        return None
    if ".q_proj." in name:
        return config.num_attention_heads
    return config.num_key_value_heads if ".k_proj." in name else None


def as_neighbours(rows: Tensor, heads: int) -> Tensor:
    """Rows 0 … d/2-1, d/2 … d-1 of each head as 0, d/2, 1, d/2+1 …: the partner comes next."""
    split = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return split.transpose(1, 2).reshape(rows.shape)


def as_halves(rows: Tensor, heads: int) -> Tensor:
    """The inverse of `as_neighbours`."""
    split = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return split.transpose(1, 2).reshape(rows.shape)
