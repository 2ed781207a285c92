"""A model from one GGUF file: llama.cpp's format, with tokenizer and settings inside.

    blk.N.attn_q.weight        our model.layers.N.self_attn.q_proj.weight
    llama.embedding_length     our config.hidden_size
    Q4_K, Q8_0 …               numbers in blocks with a common scale, dequantized to float32 here

`header` checks the header first. This module then checks that it describes a supported model: a
known architecture, sizes that agree with the tensors, no setting that would make it a different
model. Then the tensors are converted one at a time.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from groundup.errors import UserError
from groundup.formats.folder import StoredModel
from groundup.formats.gguf.header import GGUFFile, read_gguf_header
from groundup.formats.gguf.settings import read_config
from groundup.formats.gguf.tensors import (
    FLOAT_DTYPES,
    as_halves,
    read_tensor,
    rotated_heads,
    stored_in_gguf,
)
from groundup.formats.gguf.tokenizer import read_tokenizer
from groundup.formats.weights import empty_model, listed, model_of
from groundup.generation.blocks import BLOCK_KINDS, BlockEmbedding, BlockKind, BlockLinear
from groundup.lm.config import ModelConfig
from groundup.lm.families import Stored
from groundup.lm.model import CausalLM
from groundup.text.tokenizer import Tokenizer
from groundup.train.device import compute_dtype

# Tensors that hold settings (or follow from them), which `settings` has read.
_SETTINGS = re.compile(r"^(rope_freqs|blk\.\d+\.(rope_freqs|attn_rot_embd))\.weight$")


Parts = list[tuple[str, Stored]]


@dataclass(frozen=True)
class GGUFModel(StoredModel):
    """A GGUF file that describes a supported model; tokenizer and weights are read on demand."""

    file: GGUFFile

    @cached_property
    def config(self) -> ModelConfig:
        return read_config(self.file)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return read_tokenizer(self.file)

    def require_weights(self) -> None:
        _ = self.parts

    @property
    def dtype(self) -> torch.dtype:
        """The common dtype of the matrices, if there is one; float32 for quantized ones.

        bfloat16 would halve the memory, but has 8 significant bits, as many as Q8_0's numbers,
        whose scale has 11: rounding would add an error as large as that of the quantization.
        """
        matrices = [one for one in self.file.tensors.values() if len(one.shape) > 1]
        # Position embeddings are F32 in every file, because llama.cpp adds them.
        types = {one.type for one in matrices if one.name != "position_embd.weight"}
        return FLOAT_DTYPES.get(types.pop(), torch.float32) if len(types) == 1 else torch.float32

    def model(
        self, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
    ) -> CausalLM:
        return model_of(self.config, self.state_dict(dtype), device)

    def model_in_blocks(
        self, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
    ) -> CausalLM:
        kept = {name: kind for name in self.parts if (kind := self._kind_of_blocks(name))}
        if not kept:
            return self.model(dtype, device)
        kind_of_device = torch.device(device).type
        if dtype is None:
            dtype = compute_dtype(kind_of_device)
        if kind_of_device != "cpu":  # only the CPU has kernels for blocks
            return self.model(dtype, device)
        model = model_of(self.config, self.state_dict(dtype, without=kept))
        for stored, kind in kept.items():
            rows = self.file.tensors[stored].shape[0]
            raw = torch.from_numpy(self.file.stored_bytes(self.file.tensors[stored]))
            for name, blocks in _split(raw.view(rows, -1), self.parts[stored], self.config).items():
                _place_blocks(model, name.removesuffix(".weight"), blocks, kind, dtype)
        return model

    def _kind_of_blocks(self, stored: str) -> BlockKind | None:
        """The kind of a tensor's blocks, if a layer can keep them."""
        (name, _), *_ = self.parts[stored]
        kind = self.file.tensors[stored].type.name.lower()
        if not name.endswith(("_proj.weight", "embed_tokens.weight", "lm_head.weight")):
            return None
        return next((one for one in BLOCK_KINDS if one == kind), None)

    @cached_property
    def parts(self) -> dict[str, Parts]:
        """Each tensor of the file with our tensors that it holds; checked by name and shape."""
        return _expected_parts(self.file, self.config)

    def state_dict(
        self, dtype: torch.dtype | None = None, without: Collection[str] = ()
    ) -> dict[str, Tensor]:
        """The weights under our names, in `dtype` or the file's own; without the tensors `without`.

        Unquantized tensors that already have the dtype are not copied: they map the file.
        """
        dtype = self.dtype if dtype is None else dtype
        found: dict[str, Tensor] = {}
        for stored, parts in self.parts.items():
            if stored in without:
                continue
            whole = read_tensor(self.file, self.file.tensors[stored]).to(dtype)
            found.update(_split(whole, parts, self.config))
        return found


def read_gguf(path: Path | str) -> GGUFModel:
    """Read and check a GGUF file, but not yet its weights.

    Raises `UserError` for a damaged or malicious file, another architecture, or tensors that do not
    match its settings.
    """
    file = read_gguf_header(path)
    found = GGUFModel(file.path, file)
    _ = found.parts  # raises for missing, unknown or misshapen tensors
    return found


def _expected_parts(file: GGUFFile, config: ModelConfig) -> dict[str, Parts]:
    parameters = empty_model(config).named_parameters()
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters}
    wanted: dict[str, Parts] = {}
    for name in shapes:
        stored = stored_in_gguf(config.model_type, name)
        wanted.setdefault(stored.name, []).append((name, stored))
    for stored_name, parts in wanted.items():
        _check(file, stored_name, parts, shapes)
    unknown = [one for one in file.tensors if one not in wanted and not _SETTINGS.match(one)]
    if unknown:
        raise UserError(
            f"{file.path} has tensors unknown for {config.model_type} in this version: "
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
            f"{file.path}: tensor {stored} has shape {list(found.shape)}, but its settings require "
            f"{list(expected)}; convert or download the model again"
        )


def _place_blocks(
    model: CausalLM, name: str, blocks: Tensor, kind: BlockKind, dtype: torch.dtype
) -> None:
    """Replace a layer, and a head tied to it, by one that keeps its blocks."""
    module = model.get_submodule(name)
    if isinstance(module, nn.Linear):
        model.set_submodule(name, BlockLinear(blocks, kind, module.bias))
        return
    model.set_submodule(name, BlockEmbedding(blocks, kind, dtype))
    if model.config.tie_word_embeddings:
        model.set_submodule("lm_head", BlockLinear(blocks, kind))


def _split(whole: Tensor, parts: Parts, config: ModelConfig) -> dict[str, Tensor]:
    """Split a tensor of the file into ours, with the rows in our order."""
    found = {}
    for (name, _), tensor in zip(parts, whole.chunk(len(parts)), strict=True):
        heads = rotated_heads(config, name)
        found[name] = as_halves(tensor, heads) if heads else tensor.contiguous()
    return found
