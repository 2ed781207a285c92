"""A model folder is a Hugging Face folder: read by us, by transformers and by vLLM as it is.

    config.json              the shape; written last, it seals the folder
    model.safetensors        the weights, or shards and an index when they are large
    tokenizer.json, ...      the tokenizer with its chat template
    generation_config.json   the ids that end a completion, and how to sample
    README.md                the model card

Models lie in other forms as well; `load` opens all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from groundup.errors import UserError, shorten
from groundup.formats.hf_config import config_from_hf, config_to_hf
from groundup.formats.locate import CONFIG
from groundup.formats.own_config import not_in_hugging_face
from groundup.formats.weights import (
    INDEX,
    MAX_SHARD_BYTES,
    empty_model,
    listed,
    model_of,
    read_weights,
    tensor_names,
    write_weights,
)
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.runs.files import folder_aside, read_json_object, write_json, write_text
from groundup.text.tokenizer import Tokenizer

GENERATION_CONFIG = "generation_config.json"
# Smaller models are unsure of every word: they are sampled at a lower temperature.
_SMALL = 20_000_000
CARD = "README.md"
# The label of a guard's number.
HARM = "harmful"

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class StoredModel(ABC):
    """A model on disk, of whatever format; nothing is read before it is asked for."""

    path: Path

    @property
    @abstractmethod
    def config(self) -> ModelConfig:
        """The shape, with every id that ends a completion."""

    @property
    @abstractmethod
    def tokenizer(self) -> Tokenizer: ...

    @abstractmethod
    def require_weights(self) -> None:
        """Raise `UserError` where files of the weights are missing or damaged; reads no tensor."""

    @abstractmethod
    def model(
        self, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
    ) -> CausalLM:
        """The model in its own dtype, or in `dtype`.

        Raises `UserError` when files or tensors are missing, unknown or of another shape.
        """

    def model_in_blocks(
        self, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
    ) -> CausalLM:
        """The model to generate with: weights that lie in blocks of few bits stay in them on a CPU.

        It computes in `dtype`: by default in its own, or where there are blocks in one that suits
        the device. Raises as `model` does.
        """
        return self.model(dtype, device)


@dataclass(frozen=True)
class ModelFolder(StoredModel):
    """A folder with the weights of a whole model."""

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self.path)

    @cached_property
    def config(self) -> ModelConfig:
        described = self._json
        if scores_texts(described):
            if described.get("id2label") == {"0": HARM}:
                raise UserError(
                    f"{self.path} holds a guard, which stops messages and answers none; give a "
                    "chat model's folder, and this one to groundup chat as --guard"
                )
            raise UserError(
                f"{self.path} holds a reward model, which scores answers and gives none; give a "
                "chat model's folder, and this one to groundup ppo or grpo as --reward"
            )
        if "quantization_config" in described:
            from groundup.formats.bitsandbytes import without_quantization_config

            described = without_quantization_config(described)
        return with_end_ids(config_from_hf(described), self.path)

    def require_weights(self) -> None:
        tensor_names(self.path)

    def model(
        self, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
    ) -> CausalLM:
        config = self.config
        if dtype is None:
            name = self._json.get("dtype") or self._json.get("torch_dtype") or "float32"
            if not isinstance(name, str) or name not in DTYPES:
                raise UserError(
                    f"{self.path}: dtype {shorten(name)} is not supported; {', '.join(DTYPES)} are"
                )
            dtype = DTYPES[name]
        names = tensor_names(self.path)
        # Known before a module is made: a few letters in config.json may ask for thousands.
        parts = config.num_hidden_layers * (config.experts.num_experts if config.experts else 1)
        if parts > len(names):
            raise UserError(
                f"{self.path}: {CONFIG} asks for {parts:,} feed-forward parts, and the weights are "
                f"{len(names):,} tensors; check that {CONFIG} belongs to these weights"
            )
        if any(".weight." in name for name in names):  # the scales of weights in 4 bits
            return self._in_four_bits(names, dtype, device)
        tensors = read_weights(self.path, empty_model(config), device)
        return model_of(config, {name: t.to(dtype) for name, t in tensors.items()}, device)

    def _in_four_bits(
        self, names: Iterable[str], dtype: torch.dtype, device: torch.device | str
    ) -> CausalLM:
        from groundup.formats.bitsandbytes import four_bit_names, place_four_bit

        beside = four_bit_names(names)
        tensors = read_weights(self.path, empty_model(self.config), device, beside)
        four_bit = {name: tensors.pop(name) for name in beside & tensors.keys()}
        model = model_of(self.config, {name: t.to(dtype) for name, t in tensors.items()}, device)
        place_four_bit(model, four_bit, self.path)
        return model

    @cached_property
    def _json(self) -> dict[str, Any]:
        folder = self.path
        if (folder / CONFIG).is_file():
            return read_json_object(folder / CONFIG)
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder; give one that holds a {CONFIG}")
        if within := sorted(path.parent for path in folder.glob(f"[!.]*/{CONFIG}")):
            raise UserError(
                f"{folder} is not a model itself but holds {len(within)}; give one of them: "
                f"{listed(map(str, within))}"
            )
        raise UserError(
            f"{folder} has no {CONFIG}, so it holds no finished model; "
            "check the path, or let the run that writes it finish"
        )


def scores_texts(described: Mapping[str, Any]) -> bool:
    """Whether this `config.json` is of a model with labels in the place of the vocabulary."""
    named = described.get("architectures")
    return isinstance(named, list) and str(named[:1]).find("ForSequenceClassification") > 0


def with_end_ids(config: ModelConfig, folder: Path) -> ModelConfig:
    """The config with every id that ends a completion.

    `config.json` holds one such id, where a turn ends, and `generation_config.json`, where there
    is one, all of them in any order: the first stays the first.
    """
    path = folder / GENERATION_CONFIG
    found = read_json_object(path).get("eos_token_id") if path.is_file() else None
    if found is None:
        return config
    ids = found if isinstance(found, list) else [found]
    if not all(isinstance(one, int) and one >= 0 for one in ids):
        raise UserError(
            f"{path} names the token ids {shorten(found)}, which must be numbers from 0"
        )
    ids = sorted(ids, key=lambda one: one not in config.eos_token_ids[:1])
    return replace(config, eos_token_ids=tuple(ids))


# Writing.


def save_model(
    folder: Path | str,
    model: CausalLM,
    tokenizer: Tokenizer,
    *,
    card: str,
    dtype: torch.dtype = torch.float32,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    sampling: Mapping[str, Any] | None = None,
) -> None:
    """Write a model folder; other files in it, such as a run's, stay as they are.

    `sampling` is what generation_config.json says beside the ids that end a completion; left out,
    what becomes a model of this size.

    Everything is written aside and renamed into place, `config.json` last: a process that is
    killed leaves a whole model or a folder without `config.json`, never half a model. Raises
    `UserError` for a model with adapters on it, and for one that keeps a GGUF file's blocks.
    """
    from groundup.adapters.attach import adapter_names
    from groundup.formats.bitsandbytes import four_bit_tensors, quantization_config
    from groundup.generation.blocks import refuse_blocks

    refuse_blocks(model)
    if names := adapter_names(model):
        raise UserError(
            f"the model has adapters on it ({', '.join(names)}); merge one into it first, or save "
            "one alone with save_adapted"
        )
    folder = Path(folder)
    # An adapter that was merged may have brought a head of its own.
    tied = model.lm_head.weight is model.model.embed_tokens.weight
    config = replace(model.config, tie_word_embeddings=tied)
    described = config_to_hf(config, str(dtype).removeprefix("torch."))
    stale = (CONFIG, INDEX, "model*.safetensors")
    with folder_aside(folder, last=CONFIG, replaces=stale) as aside:
        write_weights(aside, model, dtype, max_shard_bytes, four_bit_tensors(model, dtype))
        _write_beside(aside, model, tokenizer, card, sampling)
        write_json(aside / CONFIG, described | quantization_config(model, dtype))


def save_beside(
    folder: Path,
    model: CausalLM,
    tokenizer: Tokenizer,
    card: str,
    sampling: Mapping[str, Any] | None = None,
) -> None:
    """Write the files beside the weights: tokenizer, generation settings and card."""
    with folder_aside(folder) as aside:
        _write_beside(aside, model, tokenizer, card, sampling)


def _write_beside(
    folder: Path,
    model: CausalLM,
    tokenizer: Tokenizer,
    card: str,
    sampling: Mapping[str, Any] | None,
) -> None:
    config = model.config
    small = config.parameters < _SMALL
    if sampling is None:
        sampling = {
            "do_sample": True,
            "temperature": 0.5 if small else 0.7,
            "top_p": 0.9 if small else 0.95,
            "top_k": 0,  # left out it would mean 50
        }
    ids = {
        "bos_token_id": config.bos_token_id,
        "eos_token_id": list(config.eos_token_ids) or None,
        "pad_token_id": config.pad_token_id,
    }
    # What the model's config leaves open the file may say alone, as of the padding of Llama 3.
    settings = {**sampling, **{name: id for name, id in ids.items() if id is not None}}
    if not_in_hugging_face(config) is not None:
        card = card.replace("library_name: transformers\n", "library_name: groundup\n", 1)
    tokenizer.save(folder)
    write_text(folder / CARD, card)
    said = {name: value for name, value in settings.items() if value is not None}
    write_json(folder / GENERATION_CONFIG, said)
