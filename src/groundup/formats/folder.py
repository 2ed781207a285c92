"""A model folder is a Hugging Face folder: groundup, transformers and vLLM all read it.

    config.json              the shape; written last, it marks the folder as complete
    model.safetensors        the weights, or shards and an index when they are large
    tokenizer.json, ...      the tokenizer with its chat template
    generation_config.json   the ids that end a completion, and sampling settings
    README.md                the model card

`load` opens models in all supported formats.
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
from groundup.runs.files import read_json_object, temporary_folder, write_json, write_text
from groundup.text.tokenizer import Tokenizer

GENERATION_CONFIG = "generation_config.json"
# Smaller models are uncertain about every token, so they are sampled at a lower temperature.
_SMALL_MODEL = 20_000_000
CARD = "README.md"
# The label of a guard's output.
HARM = "harmful"

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class StoredModel(ABC):
    """A model on disk, in any format; nothing is read before it is needed."""

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
        """Raise `UserError` if weight files are missing or damaged; reads no tensor."""

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
        """The model for generation; on a CPU quantized weights stay in their blocks.

        Computes in `dtype`; by default in the model's own, or with blocks in one that suits the
        device. Raises like `model`.
        """
        return self.model(dtype, device)


@dataclass(frozen=True)
class ModelFolder(StoredModel):
    """A folder with all weights of a model."""

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
        # Checked before any module is built: a few digits in config.json may request thousands.
        parts = config.num_hidden_layers * (config.experts.num_experts if config.experts else 1)
        if parts > len(names):
            raise UserError(
                f"{self.path}: {CONFIG} requires {parts:,} feed-forward parts, but the weights are "
                f"{len(names):,} tensors; check that {CONFIG} belongs to these weights"
            )
        if any(".weight." in name for name in names):  # scales of 4-bit weights
            return self._in_four_bits(names, dtype, device)
        tensors = read_weights(self.path, empty_model(config), device)
        return model_of(config, {name: t.to(dtype) for name, t in tensors.items()}, device)

    def _in_four_bits(
        self, names: Iterable[str], dtype: torch.dtype, device: torch.device | str
    ) -> CausalLM:
        from groundup.formats.bitsandbytes import four_bit_names, place_four_bit

        extra = four_bit_names(names)
        tensors = read_weights(self.path, empty_model(self.config), device, extra)
        four_bit = {name: tensors.pop(name) for name in extra & tensors.keys()}
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
    """Whether this `config.json` describes a model with labels instead of a vocabulary."""
    named = described.get("architectures")
    return isinstance(named, list) and str(named[:1]).find("ForSequenceClassification") > 0


def with_end_ids(config: ModelConfig, folder: Path) -> ModelConfig:
    """The config with every id that ends a completion.

    `config.json` holds one such id, the end of a turn; `generation_config.json`, if there is one,
    holds all of them in any order. The id from `config.json` stays first.
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

    `sampling` holds the sampling settings of generation_config.json; the default depends on the
    size of the model.

    Everything is written to a temporary place and renamed, `config.json` last: a killed process
    leaves a complete model or a folder without `config.json`, never half a model. Raises
    `UserError` for a model with adapters, and for one that keeps a GGUF file's blocks.
    """
    from groundup.adapters.attach import adapter_names
    from groundup.formats.bitsandbytes import four_bit_tensors, quantization_config
    from groundup.generation.blocks import refuse_blocks

    refuse_blocks(model)
    if names := adapter_names(model):
        raise UserError(
            f"the model has adapters on it ({', '.join(names)}); merge one first, or save "
            "one with save_adapted"
        )
    folder = Path(folder)
    # A merged adapter may have replaced the head.
    tied = model.lm_head.weight is model.model.embed_tokens.weight
    config = replace(model.config, tie_word_embeddings=tied)
    described = config_to_hf(config, str(dtype).removeprefix("torch."))
    stale = (CONFIG, INDEX, "model*.safetensors")
    with temporary_folder(folder, last=CONFIG, replaces=stale) as aside:
        write_weights(aside, model, dtype, max_shard_bytes, four_bit_tensors(model, dtype))
        _write_companions(aside, model, tokenizer, card, sampling)
        write_json(aside / CONFIG, described | quantization_config(model, dtype))


def save_beside(
    folder: Path,
    model: CausalLM,
    tokenizer: Tokenizer,
    card: str,
    sampling: Mapping[str, Any] | None = None,
) -> None:
    """Write the files that accompany the weights: tokenizer, generation settings and card."""
    with temporary_folder(folder) as aside:
        _write_companions(aside, model, tokenizer, card, sampling)


def _write_companions(
    folder: Path,
    model: CausalLM,
    tokenizer: Tokenizer,
    card: str,
    sampling: Mapping[str, Any] | None,
) -> None:
    config = model.config
    small = config.parameters < _SMALL_MODEL
    if sampling is None:
        sampling = {
            "do_sample": True,
            "temperature": 0.5 if small else 0.7,
            "top_p": 0.9 if small else 0.95,
            "top_k": 0,  # if missing, it would mean 50
        }
    ids = {
        "bos_token_id": config.bos_token_id,
        "eos_token_id": list(config.eos_token_ids) or None,
        "pad_token_id": config.pad_token_id,
    }
    # Ids that the config lacks may still be set here, such as Llama 3's padding.
    settings = {**sampling, **{name: id for name, id in ids.items() if id is not None}}
    if not_in_hugging_face(config) is not None:
        card = card.replace("library_name: transformers\n", "library_name: groundup\n", 1)
    tokenizer.save(folder)
    write_text(folder / CARD, card)
    said = {name: value for name, value in settings.items() if value is not None}
    write_json(folder / GENERATION_CONFIG, said)
