"""Compare a copy of a model, a GGUF file or a folder read back, with the model.

The copy's tensors are compared with the model's own, rounded to the copy's dtype. Its settings are
compared through the logits that both settings give with the same tensors.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from groundup.adapters.quantization import merge_and_dequantize
from groundup.errors import UserError
from groundup.formats.checks import (
    HARD_TEXTS,
    TALK,
    Check,
    added_texts,
    chat_ids,
    end_ids,
    equal,
    prompts_for,
    same_ends,
    same_ids,
    same_logits,
)
from groundup.formats.gguf.model import GGUFModel, read_gguf
from groundup.formats.gguf.settings import context_of
from groundup.formats.gguf.tensors import BLOCK_TYPES, dequantize, quantize, stored_in_gguf
from groundup.formats.gguf.tokenizer import ends_by_name
from groundup.formats.load import open_model
from groundup.formats.weights import model_of
from groundup.generation.request import opening_ids
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.text.tokenizer import Tokenizer

_HALVES = {"f16": torch.float16, "bf16": torch.bfloat16}


def compared_with_gguf(
    model: CausalLM, tokenizer: Tokenizer, file: Path, type: str | None = None
) -> list[Check]:
    """Check a GGUF file against its model: tensors, logits, ids, end tokens, context, template.

    A quantized file is compared with our weights quantized by the `gguf` package. The checks name
    the `type` of the export, or by default the type of most numbers.
    """
    found = read_gguf(file)
    kind = type.upper() if type else _kind(found)
    copy = found.model(torch.float32)
    shapes, theirs = (
        {name: list(p.shape) for name, p in one.named_parameters()} for one in (model, copy)
    )
    if shapes != theirs:
        other = next(n for n in shapes | theirs if shapes.get(n) != theirs.get(n))
        return [Check(f"GGUF {kind}: sizes", "differs", f"{other} is not the same in both")]
    # Limited to the copy's context: for a model with a window that is the window.
    prompts = prompts_for(copy, tokenizer)
    # A model with our settings that shares the copy's parameters, which costs no memory.
    twin = model_of(model.config, dict(copy.named_parameters()))
    # llama.cpp has no normalizers, so a model with one gets texts that are already normalized.
    texts = (*HARD_TEXTS, *added_texts(tokenizer))
    if tokenizer.content.get("normalizer"):
        texts = tuple(unicodedata.normalize("NFC", text) for text in texts)
    tensors = _same_tensors(f"GGUF {kind}: tensors", model, copy, found)
    if tensors.status == "differs":  # the twin shares them, so its logits would prove nothing
        logits = Check(f"GGUF {kind}: logits", "not checked", "the tensors differ")
    else:
        logits = same_logits(f"GGUF {kind}: logits", copy, twin, prompts)
    checks = [
        tensors,
        logits,
        same_ids(f"GGUF {kind}: ids", found.tokenizer, tokenizer, texts),
        equal(
            f"GGUF {kind}: how a text begins",
            [opening_ids(copy.config, found.tokenizer)],
            [opening_ids(model.config, tokenizer)],
            "beginnings",
        ),
        same_ends(
            f"GGUF {kind}: where an answer ends",
            end_ids(copy.config, found.tokenizer),
            end_ids(model.config, tokenizer),
            tokenizer,
            allowed=ends_by_name(found.tokenizer),
            why="which llama.cpp stops at by name",
        ),
        # Files from other converters have the whole context, whatever the window.
        _same_context(
            f"GGUF {kind}: context",
            copy.config,
            {model.config.max_position_embeddings, context_of(model.config)},
        ),
    ]
    if tokenizer.chat_template is not None:
        name = f"GGUF {kind}: chat template"
        if found.tokenizer.chat_template is None:
            return [*checks, Check(name, "differs", "the file has none")]
        written, ours = chat_ids(found.tokenizer, TALK), chat_ids(tokenizer, TALK)
        checks.append(equal(name, [written], [ours], "conversations"))
    return checks


def _same_context(name: str, copy: ModelConfig, allowed: Collection[int]) -> Check:
    found = copy.max_position_embeddings
    if found in allowed:
        return Check(name, "same", f"{found:,} tokens")
    return Check(name, "differs", f"{found:,} tokens, not {max(allowed):,}")


def _same_tensors(name: str, model: CausalLM, copy: CausalLM, found: GGUFModel) -> Check:
    """Whether every tensor of the copy is ours, rounded to the file's type, bit for bit."""
    tensors = dict(copy.named_parameters())
    other: list[str] = []
    searched: list[str] = []
    try:
        for parameter, ours in model.named_parameters():
            if not torch.equal(tensors[parameter], _rounded(parameter, ours, model, found)):
                kind = _stored_type(parameter, model, found) or ""
                (searched if kind.endswith("_k") else other).append(parameter)
    except NotImplementedError as error:  # the package reads types that it cannot write
        return Check(name, "not checked", str(error))
    if other:
        about = f"{len(other)} of {len(tensors)} tensors, the first of them {other[0]}"
        return Check(name, "differs", about)
    if searched:
        # Quantizing to a K format searches for scales, and different searches find different ones.
        about = f"{len(searched)} of {len(tensors)} have other scales than llama.cpp finds now"
        return Check(name, "not checked", about)
    return Check(name, "same", f"{len(tensors)} tensors, bit for bit")


def _stored_type(name: str, model: CausalLM, found: GGUFModel) -> str | None:
    """The file's type for one of our tensors; None if the file lacks it."""
    stored = found.file.tensors.get(stored_in_gguf(model.config.model_type, name).name)
    return None if stored is None else stored.type.name.lower()


def _rounded(name: str, parameter: Tensor, model: CausalLM, found: GGUFModel) -> Tensor:
    """One of our tensors, rounded to the file's type."""
    values = parameter.detach().float()
    kind = _stored_type(name, model, found)
    if kind is None or kind == "f32":
        return values
    if kind in _HALVES:
        return values.to(_HALVES[kind]).float()
    if kind not in BLOCK_TYPES:
        raise NotImplementedError(f"{kind.upper()} can be read, but not written")
    try:
        return dequantize(quantize(values, kind), kind)
    except UserError as error:
        raise NotImplementedError(str(error)) from None


def compared_with_folder(
    model: CausalLM, tokenizer: Tokenizer, folder: Path, dtype: torch.dtype
) -> list[Check]:
    """Check a model folder against its source model, rounded to `dtype`."""
    found = open_model(folder)
    copy, written = merge_and_dequantize(found.model(torch.float32), dtype).float(), found.tokenizer
    rounded = {n: p.detach().to(dtype).float() for n, p in model.named_parameters()}
    tensors = dict(copy.named_parameters())
    if {n: t.shape for n, t in rounded.items()} != {n: t.shape for n, t in tensors.items()}:
        return [Check("folder: sizes", "differs", "the shapes differ")]
    twin = model_of(model.config, rounded)
    prompts, type = prompts_for(model, tokenizer), str(dtype).removeprefix("torch.")
    return [
        same_logits(f"folder in {type}: logits", copy, twin, prompts),
        same_ids("folder: ids", written, tokenizer),
        same_ends(
            "folder: where an answer ends",
            end_ids(copy.config, written),
            end_ids(model.config, tokenizer),
            tokenizer,
        ),
        _same_context("folder: context", copy.config, {model.config.max_position_embeddings}),
    ]


def _kind(found: GGUFModel) -> str:
    """The type of most of the file's numbers."""
    sizes: Counter[str] = Counter()
    for tensor in found.file.tensors.values():
        sizes[tensor.type.name] += math.prod(tensor.shape)
    return sizes.most_common(1)[0][0]
